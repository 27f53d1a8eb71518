"""Layers to wrap, their trained weights and singular vectors, and changes of weights that training would make."""

import pytest
import torch
from cases import scores
from torch import nn

from torch_mmd_losses import conv_spectral_norm
from torch_mmd_losses.spectral.fingerprint import NO_FINGERPRINT
from torch_mmd_losses.spectral.hooks import IterationHook

LAYERS = {
    "linear": (lambda: nn.Linear(12, 5), (12,)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=2, dilation=2), (3, 9)),
    "conv2d": (lambda: nn.Conv2d(3, 6, 4, stride=2, padding=1), (3, 8, 8)),
    "conv2d_same": (lambda: nn.Conv2d(3, 6, 3, padding="same"), (3, 8, 7)),
    "conv2d_reflect": (lambda: nn.Conv2d(3, 6, 3, padding=2, padding_mode="reflect"), (3, 7, 7)),
    "conv2d_circular": (lambda: nn.Conv2d(3, 6, 3, padding=1, stride=2, padding_mode="circular"), (3, 8, 8)),
    "conv2d_replicate": (lambda: nn.Conv2d(3, 6, 3, padding=1, padding_mode="replicate"), (3, 6, 6)),
    "conv2d_grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 6, 6)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 3, stride=2, padding=1), (2, 5, 5, 5)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(3, 4, 4, stride=3, padding=1, output_padding=1), (3, 6)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1), (6, 4, 4)),
    "conv_transpose2d_grouped": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, dilation=2, output_padding=1, groups=2),
        (4, 4, 4),
    ),
    "conv_transpose3d": (lambda: nn.ConvTranspose3d(3, 2, 3, stride=2, padding=1), (3, 3, 3, 3)),
}
every_layer = pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(8, 16, 4, stride=2, padding=1),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 4),
    )


def small_network():
    """Return one convolution and one linear layer."""
    return nn.Sequential(nn.Conv2d(3, 4, 4, stride=2, padding=1), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(64, 4))


def images(batch=2, *, seed=0, dtype=torch.float32):
    return scores(batch, 3 * 8 * 8, seed).reshape(batch, 3, 8, 8).to(dtype)


def state(layer):
    """Return the parametrization of a wrapped layer."""
    return layer.parametrizations.weight[0]


def vector(layer):
    """Return the right singular vector of a wrapped layer."""
    return layer.parametrizations.weight[0].v


def original(layer):
    """Return the trained weight of a wrapped layer."""
    return layer.parametrizations.weight.original


def converge(layer, x, forwards=60):
    """Return the layer in eval mode, after enough iterations to converge."""
    layer.train()
    with torch.no_grad():
        for _ in range(forwards):
            iterate(layer, x)
    return layer.eval()


def iterate(layer, x):
    """Run a forward pass that iterates, as after a change of the weight."""
    if hasattr(layer, "parametrizations"):
        state(layer).fingerprint.fill_(NO_FINGERPRINT)
    return layer(x)


def used_weight(layer, x):
    """Return the weight that a forward in training uses."""
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, IterationHook):
            hook(layer, (x,), {})
    return layer.weight


def change(layer, seed=0, size=0.1):
    """Change the trained weight at random, by `size` relative to its standard deviation."""
    with torch.no_grad():
        weight = original(layer)
        weight.add_(size * weight.std() * scores(1, weight.numel(), seed).reshape(weight.shape).to(weight.dtype))


def moves(layer, x):
    """Whether a forward pass moves the singular vector."""
    before = vector(layer).clone()
    layer(x)
    return not torch.equal(before, vector(layer))


def unconverged(method="conv"):
    """Return a layer whose vector moves visibly at every iteration, and an input."""
    size = None if method == "matrix" else 8
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=size, method=method)
    return layer, torch.zeros(1, 3, 8, 8)
