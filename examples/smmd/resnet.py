"""The networks for ImageNet at 64 x 64: two ResNets of 10 layers.

Each has a dense layer, a convolution and two convolutions in each of four blocks; shortcuts are not counted. What is in
them comes from the authors' code: batch normalisation in the generator, before every ReLU, and none in the critic, of
whose last feature maps, after LeakyReLU, the sum over all pixels is taken.

In the code batch normalisation takes the statistics of the batch even when the network draws samples. Here it takes the
running ones then, so that an image does not depend on the others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smmd.initialisers import LINEAR_STD, glorot, normal
from smmd.layers import SLOPE, batch_norm, to_images
from smmd.residual import doubling_block, halving_block

REDUCTION = 16
"""By how much the networks reduce or enlarge the size."""


class SumOverPixels(nn.Module):
    """The sum of feature maps `(n, channels, height, width)` over their pixels, `(n, channels)`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the sums."""
        return torch.sum(x, dim=(2, 3))


def make_generator(size: int, *, noise: int, channels: int, width: int) -> nn.Sequential:
    """Return a network that maps noise `(n, noise)` to images `(n, channels, size, size)` in [0, 1].

    Args:
        size: height and width of the images, a multiple of 16.
        noise: dimension of the noise.
        channels: 3 for colour images, 1 for grey ones.
        width: channels of the largest feature maps, 64 in the paper.
    """
    side, widest = size // REDUCTION, width * 16
    dense = normal(nn.Linear(noise, widest * side * side), LINEAR_STD)
    blocks = [doubling_block(widest >> i, widest >> i + 1, normalised=True) for i in range(4)]
    return nn.Sequential(
        dense, nn.Unflatten(1, (widest, side, side)), *blocks, batch_norm(width), nn.ReLU(), *to_images(width, channels)
    )


def make_critic(size: int, *, scores: int, channels: int, width: int) -> nn.Sequential:
    """Return a network that maps images `(n, channels, size, size)` to scores `(n, scores)`.

    Args:
        size: height and width of the images, a multiple of 16.
        scores: numbers per image, 1 in the paper.
        channels: 3 for colour images, 1 for grey ones.
        width: channels of the largest feature maps, 64 in the paper.
    """
    first = glorot(nn.Conv2d(channels, width, 3, padding=1))
    blocks = [halving_block(width << i, width << i + 1) for i in range(4)]
    dense = normal(nn.Linear(width * 16, scores), LINEAR_STD)
    return nn.Sequential(first, nn.LeakyReLU(SLOPE), *blocks, nn.LeakyReLU(SLOPE), SumOverPixels(), dense)
