"""The residual block of the authors' code, with an upsampling or a mean over 2 x 2 pixels in both of its ways."""

from __future__ import annotations

from torch import Tensor, nn

from smmd.initialisers import glorot
from smmd.layers import batch_norm


class ResidualBlock(nn.Module):
    """A shortcut with a 1 x 1 convolution, plus two 3 x 3 convolutions after a ReLU each; the first has no bias.

    Args:
        main: what is done to the input beside the shortcut.
        shortcut: the shortcut.
    """

    def __init__(self, main: nn.Sequential, shortcut: nn.Sequential) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both ways."""
        return self.shortcut(x) + self.main(x)


def doubling_block(channels_in: int, channels_out: int, *, normalised: bool) -> ResidualBlock:
    """Return a block of a generator that doubles the size, by repeating pixels.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output, which the first convolution has already.
        normalised: whether batch normalisation comes before each ReLU.
    """
    main = nn.Sequential(
        *_activated(channels_in, normalised),
        nn.Upsample(scale_factor=2),
        glorot(nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)),
        *_activated(channels_out, normalised),
        glorot(nn.Conv2d(channels_out, channels_out, 3, padding=1)),
    )
    # A 1 x 1 convolution and the repetition of pixels commute; this order is the cheaper one.
    shortcut = nn.Sequential(glorot(nn.Conv2d(channels_in, channels_out, 1)), nn.Upsample(scale_factor=2))
    return ResidualBlock(main, shortcut)


def halving_block(channels_in: int, channels_out: int) -> ResidualBlock:
    """Return a block of a critic that halves the size, by means over 2 x 2 pixels.

    Args:
        channels_in: channels of the input, which the first convolution keeps.
        channels_out: channels of the output.
    """
    main = nn.Sequential(
        nn.ReLU(),
        glorot(nn.Conv2d(channels_in, channels_in, 3, padding=1, bias=False)),
        nn.ReLU(),
        glorot(nn.Conv2d(channels_in, channels_out, 3, padding=1)),
        nn.AvgPool2d(2),
    )
    return ResidualBlock(main, nn.Sequential(nn.AvgPool2d(2), glorot(nn.Conv2d(channels_in, channels_out, 1))))


def _activated(channels: int, normalised: bool) -> list[nn.Module]:
    return [*([batch_norm(channels)] if normalised else []), nn.ReLU()]
