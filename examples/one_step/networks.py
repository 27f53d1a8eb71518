"""A small convolutional generator, and a convolutional network with fixed random weights."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

COARSEST = 4
"""Height and width of the smallest feature maps."""


def make_generator(size: int, *, inputs: int, channels: int, width: int, norm: str = "layer") -> nn.Sequential:
    """Return a network that maps `(n, inputs)` to images `(n, channels, size, size)` in [-1, 1].

    Args:
        size: height and width of the images: 8, 16, 32, and so on.
        inputs: dimension of the noise, plus the number of classes if there are classes.
        channels: 3 for colour images, 1 for grey ones.
        width: channels of the largest feature maps, which are half as high and wide as the images. Feature maps of
            half the size have twice the channels.
        norm: `"layer"` normalises all feature maps of one image together; `"batch"` is batch normalisation.

    Raises:
        ValueError: if the size is not 4 times a power of 2.
    """
    widths = [width << step for step in range(doublings_of(size) - 1, -1, -1)]
    layers: list[nn.Module] = [nn.Linear(inputs, widths[0] * COARSEST**2), nn.Unflatten(1, (widths[0], COARSEST, -1))]
    for wide, narrow in pairwise((*widths, channels)):
        normalised: list[nn.Module] = [nn.GroupNorm(1, wide), nn.SiLU()]
        if norm == "batch":
            normalised = [nn.BatchNorm2d(wide), nn.ReLU()]
        layers += [*normalised, nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1)]
    return nn.Sequential(*layers, Blur(channels), nn.Tanh())


class Blur(nn.Module):
    """A fixed binomial filter, which removes the checkerboard pattern of transposed convolutions."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([0.25, 0.5, 0.25])
        kernel = row[:, None] * row
        self.register_buffer("kernel", kernel.expand(channels, 1, 3, 3).contiguous(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return images `(n, channels, h, w)`, each pixel a weighted mean of 3 x 3."""
        return nn.functional.conv2d(images, self.kernel, padding=1, groups=len(self.kernel))


def doublings_of(size: int) -> int:
    """Return how often the size of the smallest feature maps doubles to reach `size`, or raise `ValueError`."""
    doublings = round(math.log2(max(size, 1) / COARSEST))
    if doublings < 1 or COARSEST << doublings != size:
        raise ValueError(f"size: expected {COARSEST} times a power of 2, such as 32 or 64, got {size}")
    return doublings


class RandomFeatures(nn.Module):
    """Features of a convolutional network with random weights: feature maps of all scales, averaged over a grid.

    Random filters respond to edges and textures of all orientations. Their averages describe each cell of the grid.

    Args:
        channels: number of channels of the images.
        seed: seed of the random weights.
        widths: channels of the feature maps; each layer halves height and width.
        parts: number of cells of the grid in each direction.
    """

    def __init__(self, channels: int, seed: int, *, widths: tuple[int, ...] = (8, 16, 32), parts: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.stages = nn.ModuleList()
        for wide, wider in pairwise((channels, *widths)):
            stage = nn.Conv2d(wide, wider, 4, stride=2, padding=1)
            with torch.no_grad():
                stage.weight.normal_(std=math.sqrt(2 / stage.weight[0].numel()), generator=generator)
                stage.bias.normal_(std=0.1, generator=generator)  # type: ignore[union-attr]
            self.stages.append(stage)
        self.parts = parts

    def forward(self, images: Tensor) -> Tensor:
        """Return features `(n, d)` of images `(n, channels, h, w)`."""
        maps, found = images, []
        for stage in self.stages:
            maps = nn.functional.leaky_relu(stage(maps), 0.2)
            found.append(nn.functional.adaptive_avg_pool2d(maps, self.parts).flatten(1))
        return torch.cat(found, 1)
