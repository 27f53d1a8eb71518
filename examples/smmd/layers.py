"""Layers that the networks have in common, with the constants that only the authors' code gives.

TensorFlow's SAME padding of a 5 x 5 convolution with stride 2 on an even size is one pixel before and two after, which
no `padding` of a PyTorch layer expresses.
"""

from __future__ import annotations

from torch import nn

from smmd.initialisers import CONVOLUTION_STD, normal, truncated_normal

SLOPE = 0.2
"""Slope of every LeakyReLU below zero."""


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return batch normalisation with TensorFlow's momentum 0.9 of the old value, 0.1 of the new one here."""
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1)


def convolution(channels_in: int, channels_out: int, kernel: int, *, stride: int) -> list[nn.Module]:
    """Return a convolution that divides an even size by its stride, and LeakyReLU.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        kernel: 3 with stride 1, 4 or 5 with stride 2.
        stride: 1 or 2.
    """
    total = kernel - stride
    before, after = total // 2, total - total // 2
    layer = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=before)
    if after == before:
        return [truncated_normal(layer, CONVOLUTION_STD), nn.LeakyReLU(SLOPE)]
    layer.padding = (0, 0)
    padding = nn.ZeroPad2d((before, after, before, after))
    return [padding, truncated_normal(layer, CONVOLUTION_STD), nn.LeakyReLU(SLOPE)]


def doubling(channels_in: int, channels_out: int, kernel: int, *, bias: bool) -> list[nn.Module]:
    """Return a transposed convolution of stride 2 that doubles the size: the transpose of :func:`convolution`.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        kernel: 4 or 5.
        bias: whether there is one; batch normalisation would take it away.
    """
    layer = normal(nn.ConvTranspose2d(channels_in, channels_out, kernel, 2, padding=1, bias=bias), CONVOLUTION_STD)
    # With a kernel of 5 there is one row and one column too many, at the end.
    return [layer] if kernel == 4 else [layer, nn.ZeroPad2d((0, -1, 0, -1))]


def to_images(channels_in: int, channels: int) -> list[nn.Module]:
    """Return a 3 x 3 convolution and the sigmoid that make images of feature maps of their size.

    The code has a transposed convolution of stride 1 there, which is a convolution with the kernel turned round.
    """
    return [normal(nn.Conv2d(channels_in, channels, 3, padding=1), CONVOLUTION_STD), nn.Sigmoid()]
