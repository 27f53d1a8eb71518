"""A small DCGAN for images of one channel and 32x32 pixels."""

from __future__ import annotations

from torch import nn

from torch_mmd_losses import conv_spectral_norm

NOISE = 64
"""Dimension of the noise that the generator turns into an image."""

SCORES = 16
"""How many numbers the discriminator puts out per image, as in the papers."""


def make_generator(width: int = 32) -> nn.Sequential:
    """Return a network that maps noise `(n, 64)` to images `(n, 1, 32, 32)` in [-1, 1]."""
    return nn.Sequential(
        nn.Linear(NOISE, 4 * width * 4 * 4),
        nn.Unflatten(1, (4 * width, 4, 4)),
        *_doubled(4 * width, 2 * width),
        *_doubled(2 * width, width),
        nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
        nn.Tanh(),
    )


def make_discriminator(width: int = 32, *, scale: float) -> nn.Sequential:
    """Return a network that maps images `(n, 1, 32, 32)` to scores `(n, 16)`.

    Each of its four layers is divided by its spectral norm and multiplied by `scale`, the authors' constant C.
    """
    layers = nn.Sequential(
        *_halved(1, width),
        *_halved(width, 2 * width),
        *_halved(2 * width, 4 * width),
        nn.Flatten(),
        nn.Linear(4 * width * 4 * 4, SCORES),
    )
    return conv_spectral_norm(layers, scale=scale)


def _doubled(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    # Batch normalisation takes the mean away, so a bias before it would do nothing.
    convolution = nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU()


def _halved(channels_in: int, channels_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1), nn.LeakyReLU(0.1)
