"""The networks for CelebA at 160 x 160: a DCGAN critic of 5 layers and a ResNet generator of 10.

The paper takes them from Binkowski et al. (2018). The critic has five convolutions and a dense layer that is not
counted; the generator has ten layers with its dense one: that, two in each of four blocks, and the last, transposed
convolution. What is in them comes from the authors' code:

* all convolutions of the critic, and the last of the generator, are 5 x 5 with stride 2; the critic has no
  normalisation but the spectral one;
* the generator's blocks have no batch normalisation; there is one, with ReLU, before the last layer.
"""

from __future__ import annotations

from torch import nn

from smmd.initialisers import LINEAR_STD, normal
from smmd.layers import batch_norm, convolution, doubling
from smmd.residual import doubling_block

REDUCTION = 32
"""By how much the networks reduce or enlarge the size."""


def make_generator(size: int, *, noise: int, channels: int, width: int) -> nn.Sequential:
    """Return a network that maps noise `(n, noise)` to images `(n, channels, size, size)` in [0, 1].

    Args:
        size: height and width of the images, a multiple of 32.
        noise: dimension of the noise.
        channels: 3 for colour images, 1 for grey ones.
        width: channels of the largest feature maps, 64 in the paper.
    """
    side, widest = size // REDUCTION, width * 16
    dense = normal(nn.Linear(noise, widest * side * side), LINEAR_STD)
    blocks = [doubling_block(widest >> i, widest >> i + 1, normalised=False) for i in range(4)]
    last = doubling(width, channels, 5, bias=True)
    return nn.Sequential(
        dense, nn.Unflatten(1, (widest, side, side)), *blocks, batch_norm(width), nn.ReLU(), *last, nn.Sigmoid()
    )


def make_critic(size: int, *, scores: int, channels: int, width: int) -> nn.Sequential:
    """Return a network that maps images `(n, channels, size, size)` to scores `(n, scores)`.

    Args:
        size: height and width of the images, a multiple of 32.
        scores: numbers per image, 1 in the paper.
        channels: 3 for colour images, 1 for grey ones.
        width: channels of the largest feature maps, 64 in the paper.
    """
    side, widest = size // REDUCTION, width * 16
    layers = convolution(channels, width, 5, stride=2)
    for doublings in range(4):
        layers += convolution(width << doublings, width << doublings + 1, 5, stride=2)
    return nn.Sequential(*layers, nn.Flatten(), normal(nn.Linear(widest * side * side, scores), LINEAR_STD))
