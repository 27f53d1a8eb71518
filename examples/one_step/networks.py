"""A small convolutional generator, and a convolutional network whose random weights never change."""

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
        inputs: dimension of the noise, and of the class where there are classes.
        channels: 3 for colour images, 1 for grey ones.
        width: channels of the largest feature maps, half as high and wide as the images; each halving doubles them.
        norm: `"layer"` normalises the maps of each image alone; `"batch"` normalises each map over the images that are
            computed together.

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
    """A fixed binomial filter: transposed convolutions leave the pattern of a chessboard, which it takes away."""

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
    """Return how often the smallest feature maps are doubled to get images of a size, or raise `ValueError`."""
    doublings = round(math.log2(max(size, 1) / COARSEST))
    if doublings < 1 or COARSEST << doublings != size:
        raise ValueError(f"size: expected {COARSEST} times a power of 2, such as 32 or 64, got {size}")
    return doublings


class RandomFeatures(nn.Module):
    """Features of a convolutional network with random weights: means over parts of the image, of maps of all scales.

    Random filters respond to edges and textures of all orientations, so their means say where in the image what is.

    Args:
        channels: of the images.
        seed: decides the weights.
        widths: channels of the maps, each half as high and wide as the maps before.
        parts: number of parts of the image in each direction.
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
