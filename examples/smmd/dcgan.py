"""A small DCGAN of strided 4 x 4 convolutions, for Appendix D.2, where the paper says no more of the networks."""

from __future__ import annotations

from torch import nn

from smmd.initialisers import LINEAR_STD, normal
from smmd.layers import batch_norm, convolution, doubling

REDUCTION = 8
"""By how much the networks reduce or enlarge the size."""


def make_generator(size: int, *, noise: int, channels: int, width: int) -> nn.Sequential:
    """Return a network that maps noise `(n, noise)` to images `(n, channels, size, size)` in [0, 1].

    Args:
        size: height and width of the images, a multiple of 8.
        noise: dimension of the noise.
        channels: 3 for colour images, 1 for grey ones.
        width: channels of the largest feature maps.
    """
    side, widest = size // REDUCTION, width * 4
    dense = normal(nn.Linear(noise, widest * side * side, bias=False), LINEAR_STD)
    layers = [dense, nn.Unflatten(1, (widest, side, side)), batch_norm(widest), nn.ReLU()]
    for wide, narrow in ((widest, widest // 2), (widest // 2, width)):
        layers += [*doubling(wide, narrow, 4, bias=False), batch_norm(narrow), nn.ReLU()]
    return nn.Sequential(*layers, *doubling(width, channels, 4, bias=True), nn.Sigmoid())


def make_critic(size: int, *, scores: int, channels: int, width: int) -> nn.Sequential:
    """Return a network that maps images `(n, channels, size, size)` to scores `(n, scores)`.

    Args:
        size: height and width of the images, a multiple of 8.
        scores: numbers per image, 1 in the paper.
        channels: 3 for colour images, 1 for grey ones.
        width: channels of the largest feature maps.
    """
    side, widest = size // REDUCTION, width * 4
    layers = convolution(channels, width, 4, stride=2)
    for narrow, wide in ((width, widest // 2), (widest // 2, widest)):
        layers += convolution(narrow, wide, 4, stride=2)
    dense = normal(nn.Linear(widest * side * side, scores), LINEAR_STD)
    return nn.Sequential(*layers, nn.Flatten(), dense)
