"""The networks for CIFAR-10: the standard CNN of Miyato et al. (2018), Table 3, as the paper says.

Of the 7 layers of the critic and the 4 of the generator that the paper counts, none is the dense one, which both have
besides. Where the authors' code differs from that table, the table holds, unless the generator is asked for
`as_in_code`:

* the code's transposed convolutions are 5 x 5, in the table 4 x 4;
* the code has batch normalisation and ReLU after the dense layer of the generator, the table neither.

The slope of LeakyReLU is 0.2 as in the code for all critics, and 0.1 in the table; the paper does not name one. In the
code there are biases before batch normalisation, which takes them away; here are none.
"""

from __future__ import annotations

from torch import nn

from smmd.initialisers import CONVOLUTION_STD, LINEAR_STD, normal
from smmd.layers import batch_norm, convolution, doubling, to_images

REDUCTION = 8
"""By how much the networks reduce or enlarge the size."""


def make_generator(size: int, *, noise: int, channels: int, width: int, as_in_code: bool = False) -> nn.Sequential:
    """Return a network that maps noise `(n, noise)` to images `(n, channels, size, size)` in [0, 1].

    Args:
        size: height and width of the images, a multiple of 8.
        noise: dimension of the noise.
        channels: 3 for colour images, 1 for grey ones.
        width: channels of the largest feature maps, 64 in the paper.
        as_in_code: the authors' variant, see above.
    """
    side, widest = size // REDUCTION, width * REDUCTION
    dense = normal(nn.Linear(noise, widest * side * side), LINEAR_STD)
    layers: list[nn.Module] = [dense, nn.Unflatten(1, (widest, side, side))]
    if as_in_code:
        layers += [batch_norm(widest), nn.ReLU()]
    for doublings in range(3):
        wide, narrow = widest >> doublings, widest >> doublings + 1
        layers += [*doubling(wide, narrow, 5 if as_in_code else 4, bias=False), batch_norm(narrow), nn.ReLU()]
    return nn.Sequential(*layers, *to_images(width, channels))


def make_critic(size: int, *, scores: int, channels: int, width: int) -> nn.Sequential:
    """Return a network that maps images `(n, channels, size, size)` to scores `(n, scores)`.

    Args:
        size: height and width of the images, a multiple of 8.
        scores: numbers per image, 1 in the paper.
        channels: 3 for colour images, 1 for grey ones.
        width: channels of the largest feature maps, 64 in the paper.
    """
    side, widest = size // REDUCTION, width * REDUCTION
    layers = convolution(channels, width, 3, stride=1)
    for doublings in range(3):
        narrow, wide = width << doublings, width << doublings + 1
        layers += [*convolution(narrow, wide, 4, stride=2), *convolution(wide, wide, 3, stride=1)]
    dense = normal(nn.Linear(widest * side * side, scores), CONVOLUTION_STD)
    return nn.Sequential(*layers, nn.Flatten(), dense)
