"""The networks of Arbel et al.: layers, parameters counted by hand, padding, constants and initial weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from arbel2018 import networks
from arbel2018.networks import (
    ResidualBlock,
    convolution,
    doubling,
    doubling_block,
    halving_block,
)
from arbel2018.presets import REDUCTION, Arbel2018
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from torch_mmd_losses import spectral_norms

SIZES = {"sngan": 32, "dcgan": 32, "dcgan5": 160, "resnet": 64}


# With n the smaller number of channels of a step, sum n = 960 and sum n^2 = 348,160 over 64, 128, 256 and 512.
PARAMETERS = {
    # 1,056,768 + 16 * 172,032 + 896 + 1,731, where 172,032 = 512 * 256 + 256 * 128 + 128 * 64
    "sngan": (3_811_907, 5_860_865),
    # 524,288 + 512 + 524,544 + 131,200 + 3,075, and 3,136 + 131,200 + 524,544 + 4,097
    "dcgan": (1_183_619, 662_977),
    # 3,302,400 + 29 sum n^2 + 2 sum n + 128 + 4,803, and 4,864 + 50 sum n^2 + 2 sum n + 25,601
    "dcgan5": (13_405_891, 17_440_385),
    # 2,113,536 + 29 sum n^2 + 8 sum n + 128 + 1,731, and 1,792 + 29 sum n^2 + 4 sum n + 1,025
    "resnet": (12_219_715, 10_103_297),
}
"""Of the generator and of the critic, counted by hand."""

LAYERS = {"sngan": (5, 8), "dcgan": (4, 4), "dcgan5": (10, 6), "resnet": (10, 10)}
"""Layers with weights but shortcuts. The paper leaves dense ones out of 4, 7 and 5, and counts them elsewhere."""


def make_generator(family: str, size: int, **settings: Any) -> nn.Sequential:
    return networks.make_generator(Arbel2018(out=Path(), dataset="fake", family=family, size=size, **settings))


def make_critic(family: str, size: int, **settings: Any) -> nn.Sequential:
    settings = {"normalisation": "none", "gamma": "learned", "loss": "mmd", **settings}
    return networks.make_critic(Arbel2018(out=Path(), dataset="fake", family=family, size=size, **settings))


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def weighty(network: nn.Module) -> list[nn.Module]:
    """List the layers with weights, those of shortcuts left out."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    return [layer for name, layer in network.named_modules() if isinstance(layer, kinds) and "shortcut" not in name]


def shapes(network: nn.Sequential, x: torch.Tensor) -> list[tuple[int, ...]]:
    """List the shapes that occur between the layers, without the batch and repetitions."""
    found = []
    for layer in network:
        x = layer(x)
        found.append(tuple(x.shape[1:]))
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("family", REDUCTION)
def test_the_networks_have_as_many_parameters_as_their_tables(family: str):
    with torch.device("meta"):
        generator, critic = make_generator(family, SIZES[family]), make_critic(family, SIZES[family])
    assert (parameters(generator), parameters(critic)) == PARAMETERS[family]
    assert (len(weighty(generator)), len(weighty(critic))) == LAYERS[family]


def test_cifar_networks_have_the_shapes_of_the_table():
    with torch.device("meta"):
        generator, critic = make_generator("sngan", 32), make_critic("sngan", 32)
    maps = [(512, 4, 4), (256, 8, 8), (128, 16, 16), (64, 32, 32), (3, 32, 32)]
    assert shapes(generator, torch.zeros(1, 128, device="meta")) == [(8192,), *maps]
    maps = [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (8192,), (1,)]
    assert shapes(critic, torch.zeros(1, 3, 32, 32, device="meta")) == maps


def test_celeba_networks_have_the_shapes_of_the_paper():
    with torch.device("meta"):
        generator, critic = make_generator("dcgan5", 160), make_critic("dcgan5", 160)
    maps = [(1024, 5, 5), (512, 10, 10), (256, 20, 20), (128, 40, 40), (64, 80, 80), (3, 161, 161), (3, 160, 160)]
    assert shapes(generator, torch.zeros(1, 128, device="meta")) == [(25600,), *maps]
    padded = [(3, 163, 163), (64, 83, 83), (128, 43, 43), (256, 23, 23), (512, 13, 13)]
    maps = [(64, 80, 80), (128, 40, 40), (256, 20, 20), (512, 10, 10), (1024, 5, 5)]
    between = [shape for pair in zip(padded, maps, strict=True) for shape in pair]
    assert shapes(critic, torch.zeros(1, 3, 160, 160, device="meta")) == [*between, (25600,), (1,)]


def test_imagenet_networks_have_the_shapes_of_the_paper():
    with torch.device("meta"):
        generator, critic = make_generator("resnet", 64), make_critic("resnet", 64)
    maps = [(1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32), (64, 64, 64), (3, 64, 64)]
    assert shapes(generator, torch.zeros(1, 128, device="meta")) == [(16384,), *maps]
    maps = [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (1024, 4, 4), (1024,), (1,)]
    assert shapes(critic, torch.zeros(1, 3, 64, 64, device="meta")) == maps


def test_small_networks_double_and_halve_three_times():
    with torch.device("meta"):
        generator, critic = make_generator("dcgan", 32), make_critic("dcgan", 32)
    maps = [(256, 4, 4), (128, 8, 8), (64, 16, 16), (3, 32, 32)]
    assert shapes(generator, torch.zeros(1, 128, device="meta")) == [(4096,), *maps]
    assert shapes(critic, torch.zeros(1, 3, 32, 32, device="meta")) == [*maps[2::-1], (4096,), (1,)]


def test_normalisation_and_activations_are_where_they_belong():
    kinds = (nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU, nn.Sigmoid)

    def count(network: nn.Module) -> tuple[int, ...]:
        return tuple(sum(isinstance(layer, kind) for layer in network.modules()) for kind in kinds)

    with torch.device("meta"):
        networks = {
            family: (make_generator(family, SIZES[family]), make_critic(family, SIZES[family])) for family in REDUCTION
        }
    assert {family: (count(generator), count(critic)) for family, (generator, critic) in networks.items()} == {
        "sngan": ((3, 3, 0, 1), (0, 0, 7, 0)),
        "dcgan": ((3, 3, 0, 1), (0, 0, 3, 0)),
        "dcgan5": ((1, 9, 0, 1), (0, 0, 5, 0)),
        "resnet": ((9, 9, 0, 1), (0, 8, 2, 0)),
    }
    for pair in networks.values():
        assert isinstance(pair[0][-1], nn.Sigmoid)
        for layer in [layer for network in pair for layer in network.modules()]:
            if isinstance(layer, nn.BatchNorm2d):
                assert (layer.eps, layer.momentum, layer.affine) == (1e-5, 0.1, True)
            if isinstance(layer, nn.LeakyReLU):
                assert layer.negative_slope == 0.2


# Padding


def by_definition(x: torch.Tensor, weight: torch.Tensor, stride: int, before: int) -> torch.Tensor:
    """Convolve one channel by its sum over the kernel; what lies outside of the input is zero."""
    size, kernel = len(x), len(weight)
    out = torch.zeros(size // stride, size // stride, dtype=x.dtype)
    for i in range(len(out)):
        for j in range(len(out)):
            for k in range(kernel):
                for m in range(kernel):
                    row, column = stride * i + k - before, stride * j + m - before
                    if 0 <= row < size and 0 <= column < size:
                        out[i, j] += weight[k, m] * x[row, column]
    return out


@pytest.mark.parametrize(("kernel", "stride", "before"), [(3, 1, 1), (4, 2, 1), (5, 2, 1)])
def test_convolutions_are_padded_as_tensorflow_pads_them(kernel: int, stride: int, before: int):
    *linear, activation = convolution(1, 1, kernel, stride=stride)
    network = nn.Sequential(*linear).double()
    x = torch.randn(6, 6, dtype=torch.float64)
    expected = by_definition(x, network[-1].weight[0, 0], stride, before)
    assert_close(network(x[None, None])[0, 0], expected)
    assert_close(nn.Sequential(network, activation)(x[None, None])[0, 0], F.leaky_relu(expected, 0.2))


@pytest.mark.parametrize("kernel", [4, 5])
def test_doubling_is_the_transpose_of_the_convolution_of_stride_two(kernel: int):
    down = nn.Sequential(*convolution(2, 3, kernel, stride=2)[:-1]).double()
    up = nn.Sequential(*doubling(3, 2, kernel, bias=True)).double()
    with torch.no_grad():
        up[0].weight.copy_(down[-1].weight)
    x, y = torch.randn(1, 2, 8, 8, dtype=torch.float64), torch.randn(1, 3, 4, 4, dtype=torch.float64)
    assert_close((down(x) * y).sum(), (x * up(y)).sum())


def test_blocks_are_their_formulas():
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    double, halve = doubling_block(3, 2, normalised=False).double(), halving_block(3, 2).double()

    def repeated(images: torch.Tensor) -> torch.Tensor:
        return images.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def mean(images: torch.Tensor) -> torch.Tensor:
        corners = [images[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return torch.stack(corners).mean(0)

    first, second = (layer for layer in double.main if isinstance(layer, nn.Conv2d))
    assert_close(double(x), double.shortcut[0](repeated(x)) + second(first(repeated(x.relu())).relu()))
    first, second = (layer for layer in halve.main if isinstance(layer, nn.Conv2d))
    assert_close(halve(x), halve.shortcut[1](mean(x)) + mean(second(first(x.relu()).relu())))


# Initial weights


@pytest.mark.parametrize("family", REDUCTION)
def test_weights_start_as_in_the_authors_code(family: str):
    networks = make_generator(family, SIZES[family], width=16), make_critic(family, SIZES[family], width=16)
    for network in networks:
        residual = {layer for block in network if isinstance(block, ResidualBlock) for layer in block.modules()}
        for layer in network.modules():
            if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                continue
            assert layer.bias is None or not layer.bias.any()
            glorot = layer in residual or (family == "resnet" and network is networks[1] and layer is network[0])
            if glorot:
                fans = sum(layer.weight.shape[:2]) * layer.kernel_size[0] ** 2
                assert layer.weight.abs().max() <= math.sqrt(6 / fans)
                std = math.sqrt(2 / fans)
            elif isinstance(layer, nn.Linear):
                std = 0.02 if family == "sngan" and network is networks[1] else 0.01
            else:
                std = 0.02
                if isinstance(layer, nn.Conv2d) and network is networks[1]:
                    assert layer.weight.abs().max() <= 0.04
                    std *= math.sqrt(0.774)  # what a cut at two standard deviations keeps of the variance
            # A standard deviation of n numbers is off by a share of 1 / sqrt(2 n) or so.
            assert layer.weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * layer.weight.numel()))


# The spectral parametrisation


@pytest.mark.parametrize("family", ["sngan", "dcgan", "dcgan5", "resnet"])
@pytest.mark.parametrize("normalisation", ["matrix", "conv"])
def test_every_layer_of_a_critic_has_its_norm_and_its_gamma(family: str, normalisation: str):
    size = REDUCTION[family]
    plain = make_critic(family, size, width=2)
    critic = make_critic(family, size, width=2, normalisation=normalisation)
    assert critic.training
    wrapped = [layer for layer in critic.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(spectral_norms(critic)) == len(wrapped)
    assert parameters(critic) == parameters(plain) + len(wrapped)
    for layer in wrapped:
        gamma = layer.parametrizations.weight[0].scale
        assert gamma == 1
        if normalisation == "matrix":
            norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
            assert norm.item() == pytest.approx(1, rel=1e-2)  # power iteration comes from below
            with torch.no_grad():
                gamma.fill_(3.0)
            assert_close(torch.linalg.matrix_norm(layer.weight.flatten(1), 2), 3 * norm)
    fixed = make_critic(family, size, width=2, normalisation=normalisation, gamma="fixed")
    assert parameters(fixed) == parameters(plain)


@pytest.mark.parametrize("family", REDUCTION)
def test_networks_can_be_reduced_and_grey(family: str):
    size = REDUCTION[family]
    images = make_generator(family, size, noise=5, channels=1, width=2)(torch.randn(3, 5))
    assert images.shape == (3, 1, size, size)
    assert 0 < images.min() < images.max() < 1
    assert make_critic(family, size, channels=1, width=2)(images).shape == (3, 1)
