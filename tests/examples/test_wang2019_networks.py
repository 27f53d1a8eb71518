"""The networks of the paper: the layers of Tables S1 and S2, their constants and their initial weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from wang2019.networks import initialised, make_discriminator, make_generator, normalised_layers

from torch_mmd_losses import spectral_norms

GENERATORS = {
    32: [(128, 8192), (512, 256, 4, 2), (256, 128, 4, 2), (128, 64, 4, 2), (64, 3, 3, 1)],
    48: [(128, 18432), (512, 256, 4, 2), (256, 128, 4, 2), (128, 64, 4, 2), (64, 3, 3, 1)],
    64: [(128, 16384), (1024, 512, 4, 2), (512, 256, 4, 2), (256, 128, 4, 2), (128, 64, 4, 2), (64, 3, 3, 1)],
}
BLOCKS = [(3, 64, 3, 1), (64, 128, 4, 2), (128, 128, 3, 1), (128, 256, 4, 2), (256, 256, 3, 1)]
BLOCKS += [(256, 512, 4, 2), (512, 512, 3, 1)]
DISCRIMINATORS = {
    32: [*BLOCKS, (8192, 16)],
    48: [*BLOCKS, (18432, 16)],
    64: [*BLOCKS, (512, 1024, 4, 2), (1024, 1024, 3, 1), (16384, 16)],
}
PARAMETERS = {32: (3_811_907, 5_983_760), 48: (5_132_867, 6_147_600), 64: (13_258_307, 23_942_672)}
"""Numbers of trained parameters of the generator and, with 16 scores, of the discriminator."""


def table(network: nn.Module) -> list[tuple[int, ...]]:
    """List the layers of a network as the tables do: channels, kernel and stride, or features."""
    rows: list[tuple[int, ...]] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.padding == (1, 1)
            rows.append((layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.stride[0]))
        elif isinstance(layer, nn.Linear):
            rows.append((layer.in_features, layer.out_features))
    return rows


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def activations(network: nn.Module) -> list[type[nn.Module]]:
    kinds = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.BatchNorm2d, nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    return [kind for layer in network.children() for kind in kinds if isinstance(layer, kind)]


def shapes(network: nn.Sequential, x: torch.Tensor) -> list[tuple[int, ...]]:
    """List the shapes that occur between the layers, without the batch."""
    found = []
    for layer in network:
        x = layer(x)
        found.append(tuple(x.shape[1:]))
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("size", [32, 48, 64])
def test_generators_are_those_of_the_tables(size: int):
    with torch.device("meta"):
        generator = make_generator(size)
    assert table(generator) == GENERATORS[size]
    assert parameters(generator) == PARAMETERS[size][0]
    doublings = [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU] * (4 if size == 64 else 3)
    assert activations(generator) == [nn.Linear, *doublings, nn.Conv2d, nn.Tanh]
    assert generator(torch.zeros(2, 128, device="meta")).shape == (2, 3, size, size)


@pytest.mark.parametrize("size", [32, 48, 64])
def test_discriminators_are_those_of_the_tables(size: int):
    with torch.device("meta"):
        discriminator = make_discriminator(size, scores=16, method="none")
    assert table(discriminator) == DISCRIMINATORS[size]
    assert len(DISCRIMINATORS[size]) == normalised_layers(size)
    assert parameters(discriminator) == PARAMETERS[size][1]
    kinds = [nn.Conv2d, nn.LeakyReLU] * (normalised_layers(size) - 1)
    assert activations(discriminator) == [*kinds, nn.Linear]
    assert discriminator(torch.zeros(2, 3, size, size, device="meta")).shape == (2, 16)


def test_the_size_of_the_images_decides_the_shape_at_every_layer():
    maps = [(64, 48, 48), (128, 24, 24), (256, 12, 12), (512, 6, 6)]
    with torch.device("meta"):
        assert shapes(make_generator(48), torch.zeros(2, 128)) == [(18432,), *maps[::-1], (3, 48, 48)]
        discriminator = make_discriminator(48, scores=1, method="none")
        assert shapes(discriminator, torch.zeros(1, 3, 48, 48)) == [*maps, (18432,), (1,)]


def test_constants_are_those_of_the_authors():
    generator, discriminator = make_generator(32), make_discriminator(32, scores=1, method="none")
    for layer in [*generator.modules(), *discriminator.modules()]:
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.eps, layer.momentum, layer.affine) == (1e-3, 0.01, True)
        if isinstance(layer, nn.LeakyReLU):
            assert layer.negative_slope == 0.1
        if isinstance(layer, nn.ConvTranspose2d):
            assert layer.bias is None
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.bias is not None
            assert 0 < layer.bias.abs().max() <= 2e-5


# A normal cut at two standard deviations keeps 0.774 of its variance.
@pytest.mark.parametrize(
    ("layer", "activation", "variance", "largest"),
    [
        (nn.Conv2d(64, 64, 3), "leaky_relu", 0.774 * 2 / 1.01 / 576, 2 * math.sqrt(2 / 1.01 / 576)),
        (nn.ConvTranspose2d(32, 64, 4), "relu", 0.774 * 2 / 1024, 2 * math.sqrt(2 / 1024)),
        (nn.Conv2d(64, 3, 3), "tanh", 2 / (9 * 67), math.sqrt(6 / (9 * 67))),
        (nn.Linear(128, 512), "linear", 2 / 640, math.sqrt(6 / 640)),
    ],
)
def test_weights_start_with_the_variance_that_the_activation_asks_for(layer, activation, variance, largest):
    weight = initialised(layer, activation).weight
    assert weight.var().item() == pytest.approx(variance, rel=0.1)  # a sample of 1728 numbers or more
    assert 0.95 * largest < weight.abs().max() <= largest


@pytest.mark.parametrize("method", ["conv", "pico", "matrix"])
def test_every_layer_of_the_discriminator_is_normalised_to_the_constant(method: str):
    discriminator = make_discriminator(32, scores=16, width=4, method=method, scale=1.5)
    layers = [layer for layer in discriminator if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(spectral_norms(discriminator)) == len(layers) == 8
    for layer in layers:
        if method == "matrix" or isinstance(layer, nn.Linear):
            # The power iteration approaches the norm from below.
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1.5, rel=1e-2)


def test_the_discriminator_knows_its_input_sizes_before_the_first_forward():
    discriminator = make_discriminator(48, scores=16, width=2, method="conv")
    assert discriminator.training
    vectors = [value.shape for name, value in discriminator.state_dict().items() if name.endswith(".v")]
    assert vectors[0][-3:] == (3, 48, 48)
    assert vectors[-2][-3:] == (16, 6, 6)


@pytest.mark.parametrize("method", ["pico", "conv", "matrix"])
def test_a_forward_in_eval_mode_by_which_layers_learn_their_sizes_moves_nothing(method: str):
    discriminator = make_discriminator(32, scores=1, width=2, method=method)
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    discriminator.eval()(torch.zeros(1, 3, 32, 32))
    assert all(torch.equal(before[name], value) for name, value in discriminator.state_dict().items())


def test_networks_can_be_reduced_and_grey():
    assert make_generator(32, noise=5, channels=1, width=2)(torch.zeros(3, 5)).shape == (3, 1, 32, 32)
    assert make_discriminator(32, scores=7, channels=1, width=2)(torch.zeros(3, 1, 32, 32)).shape == (3, 7)


@pytest.mark.parametrize("make", [make_generator, lambda size: make_discriminator(size, scores=4)])
def test_sizes_without_a_table_are_refused(make):
    with pytest.raises(ValueError, match="^size: expected 32, 48, 64, got 28$"):
        make(28)


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match="method: .*'exact'"):
        make_discriminator(32, scores=1, width=1, method="exact")
