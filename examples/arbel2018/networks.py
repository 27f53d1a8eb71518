"""The critics and generators of Arbel et al. (2018), the spectral parametrisation of the critics, and their spectra.

Details that the paper does not state follow the authors' code, such as TensorFlow's padding and the initial weights.
Biases before batch normalisation, which removes them, are left out. The blocks of the generator for CelebA are not
normalised; one batch normalisation comes before its last layer. Samples are drawn with the running statistics of batch
normalisation, not with those of the batch as in the code, so that an image does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from arbel2018.presets import REDUCTION, Arbel2018
from torch_mmd_losses import conv_spectral_norm

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
Draw = Callable[[Tensor], object]

DENSE: Draw = partial(nn.init.normal_, std=0.01)
NORMAL: Draw = partial(nn.init.normal_, std=0.02)
CUT: Draw = partial(nn.init.trunc_normal_, std=0.02, a=-0.04, b=0.04)
GLOROT: Draw = nn.init.xavier_uniform_


def make_generator(settings: Arbel2018) -> nn.Sequential:
    """Return a network that maps noise `(n, noise)` to images `(n, channels, size, size)` in [0, 1]."""
    side = settings.size // REDUCTION[settings.family]
    generator, _ = FAMILIES[settings.family]
    return nn.Sequential(*generator(side, settings.noise, settings.channels, settings.width), nn.Sigmoid())


def make_critic(settings: Arbel2018) -> nn.Sequential:
    """Return a network that maps images `(n, channels, size, size)` to scores `(n, 1)`.

    The norm of each layer, also of shortcuts, is a parameter that starts at 1, or always 1 if `gamma` is `"fixed"`.
    """
    side = settings.size // REDUCTION[settings.family]
    _, layers = FAMILIES[settings.family]
    critic = nn.Sequential(*layers(side, 1, settings.channels, settings.width))
    if settings.normalisation != "none":
        learned = settings.gamma == "learned"
        shown = torch.zeros(1, settings.channels, settings.size, settings.size)  # of which the norms depend on the size
        conv_spectral_norm(critic, method=settings.normalisation, scale=1.0, learn_scale=learned, example_input=shown)
    return critic


# The families. Their arguments: side of the smallest feature maps, dimension of the noise or of the scores, channels of
# an image, channels of the largest feature maps.


def _sngan_generator(side: int, noise: int, channels: int, width: int) -> list[nn.Module]:
    layers = reshaped(noise, 8 * width, side)
    for wide in (8 * width, 4 * width, 2 * width):
        layers += [*doubling(wide, wide // 2, 4), nn.BatchNorm2d(wide // 2), nn.ReLU()]
    # The transposed convolution of stride 1 in the code is a convolution with a flipped kernel.
    return [*layers, start(nn.Conv2d(width, channels, 3, padding=1), NORMAL)]


def _sngan_critic(side: int, scores: int, channels: int, width: int) -> list[nn.Module]:
    layers = convolution(channels, width, 3, stride=1)
    for narrow in (width, 2 * width, 4 * width):
        layers += [*convolution(narrow, 2 * narrow, 4, stride=2), *convolution(2 * narrow, 2 * narrow, 3, stride=1)]
    return [*layers, nn.Flatten(), start(nn.Linear(8 * width * side * side, scores), NORMAL)]


def _dcgan_generator(side: int, noise: int, channels: int, width: int) -> list[nn.Module]:
    layers = [*reshaped(noise, 4 * width, side, bias=False), nn.BatchNorm2d(4 * width), nn.ReLU()]
    for wide in (4 * width, 2 * width):
        layers += [*doubling(wide, wide // 2, 4), nn.BatchNorm2d(wide // 2), nn.ReLU()]
    return [*layers, *doubling(width, channels, 4, bias=True)]


def _dcgan_critic(
    side: int, scores: int, channels: int, width: int, *, kernel: int, convolutions: int
) -> list[nn.Module]:
    widths = [channels, *(width << i for i in range(convolutions))]
    layers = [layer for narrow, wide in pairwise(widths) for layer in convolution(narrow, wide, kernel, stride=2)]
    return [*layers, nn.Flatten(), start(nn.Linear(widths[-1] * side * side, scores), DENSE)]


def _resnet_generator(side: int, noise: int, channels: int, width: int, *, for_celeba: bool = False) -> list[nn.Module]:
    layers = reshaped(noise, 16 * width, side)
    for wide in (16 * width, 8 * width, 4 * width, 2 * width):
        layers.append(doubling_block(wide, wide // 2, normalised=not for_celeba))
    layers += [nn.BatchNorm2d(width), nn.ReLU()]
    if for_celeba:
        return [*layers, *doubling(width, channels, 5, bias=True)]
    return [*layers, start(nn.Conv2d(width, channels, 3, padding=1), NORMAL)]


def _resnet_critic(_: int, scores: int, channels: int, width: int) -> list[nn.Module]:
    layers: list[nn.Module] = [start(nn.Conv2d(channels, width, 3, padding=1), GLOROT), nn.LeakyReLU(0.2)]
    for narrow in (width, 2 * width, 4 * width, 8 * width):
        layers.append(halving_block(narrow, 2 * narrow))
    return [*layers, nn.LeakyReLU(0.2), SumOverPixels(), start(nn.Linear(16 * width, scores), DENSE)]


Layers = Callable[[int, int, int, int], list[nn.Module]]

FAMILIES: dict[str, tuple[Layers, Layers]] = {
    "sngan": (_sngan_generator, _sngan_critic),
    "dcgan": (_dcgan_generator, partial(_dcgan_critic, kernel=4, convolutions=3)),
    "dcgan5": (partial(_resnet_generator, for_celeba=True), partial(_dcgan_critic, kernel=5, convolutions=5)),
    "resnet": (_resnet_generator, _resnet_critic),
}
"""The generator and the critic of each family."""


# The parts of the networks.


def start(layer: Layer, draw: Draw) -> Layer:
    """Draw the weight of a layer and set its bias to zero; return the layer."""
    draw(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def reshaped(noise: int, channels: int, side: int, *, bias: bool = True) -> list[nn.Module]:
    """Return a dense layer that maps noise to the first feature maps."""
    dense = start(nn.Linear(noise, channels * side * side, bias=bias), DENSE)
    return [dense, nn.Unflatten(1, (channels, side, side))]


def convolution(channels_in: int, channels_out: int, kernel: int, *, stride: int) -> list[nn.Module]:
    """Return a convolution and LeakyReLU: kernel 3 with stride 1, or 4 or 5 with stride 2, which halves the size.

    TensorFlow pads a 5 x 5 convolution of stride 2 by one pixel before and two after, which the argument `padding` of a
    layer cannot express, so the padding is a separate layer. Normalisation `"conv"` then takes the norm over all inputs
    of the padded size, which is at least that of padding and convolution together.
    """
    padding = [nn.ZeroPad2d((1, 2, 1, 2))] if kernel == 5 else []
    layer = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=0 if padding else 1)
    return [*padding, start(layer, CUT), nn.LeakyReLU(0.2)]


def doubling(channels_in: int, channels_out: int, kernel: int, *, bias: bool = False) -> list[nn.Module]:
    """Return a transposed convolution of stride 2 that doubles the size: the transpose of :func:`convolution`."""
    layer = start(nn.ConvTranspose2d(channels_in, channels_out, kernel, 2, padding=1, bias=bias), NORMAL)
    # With a kernel of 5, there is one row and one column too many at the end.
    return [layer] if kernel == 4 else [layer, nn.ZeroPad2d((0, -1, 0, -1))]


class ResidualBlock(nn.Module):
    """The sum of two networks of the same input."""

    def __init__(self, main: nn.Sequential, shortcut: nn.Sequential) -> None:
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.main(x)


def doubling_block(channels_in: int, channels_out: int, *, normalised: bool) -> ResidualBlock:
    """Return a block of a generator that doubles the size by repeating pixels, with or without batch normalisation."""
    main = nn.Sequential(
        *([nn.BatchNorm2d(channels_in)] if normalised else []),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        start(nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False), GLOROT),
        *([nn.BatchNorm2d(channels_out)] if normalised else []),
        nn.ReLU(),
        start(nn.Conv2d(channels_out, channels_out, 3, padding=1), GLOROT),
    )
    # A 1 x 1 convolution and the repetition of pixels commute; this order is cheaper.
    shortcut = nn.Sequential(start(nn.Conv2d(channels_in, channels_out, 1), GLOROT), nn.Upsample(scale_factor=2))
    return ResidualBlock(main, shortcut)


def halving_block(channels_in: int, channels_out: int) -> ResidualBlock:
    """Return a block of a critic that halves the size by means over 2 x 2 pixels."""
    main = nn.Sequential(
        nn.ReLU(),
        start(nn.Conv2d(channels_in, channels_in, 3, padding=1, bias=False), GLOROT),
        nn.ReLU(),
        start(nn.Conv2d(channels_in, channels_out, 3, padding=1), GLOROT),
        nn.AvgPool2d(2),
    )
    shortcut = nn.Sequential(nn.AvgPool2d(2), start(nn.Conv2d(channels_in, channels_out, 1), GLOROT))
    return ResidualBlock(main, shortcut)


class SumOverPixels(nn.Module):
    """The sum of feature maps `(n, channels, height, width)` over their pixels, `(n, channels)`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=(2, 3))


@torch.no_grad()
def singular_values(critic: nn.Module) -> dict[str, list[float]]:
    """Return the singular values of each layer's weight matrix by the name of the layer, the largest first.

    A weight `(outputs, inputs, height, width)` is reshaped to `(outputs, inputs * height * width)`. The critic does not
    change, since reading a normalised weight does not advance its power iteration.
    """
    layers = {name: layer for name, layer in critic.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    # The transpose has the same values. For a large matrix, it takes a tenth of the time.
    values = {name: torch.linalg.svdvals(layer.weight.flatten(1).T).tolist() for name, layer in layers.items()}
    return {name: [float(f"{value:.6g}") for value in each] for name, each in values.items()}  # float32 has 7 digits
