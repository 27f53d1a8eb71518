"""The networks of the three data sets by name, and the spectral parametrisation of the critics.

The paper's W = gamma W' / ||W'|| (Section 3.2) takes the norm of the weight matrix, as Miyato et al. and the authors'
code do: method `"matrix"`, with one power iteration a step. `"conv"` takes that of the convolution itself instead. All
layers of a critic are parametrised, the shortcuts of residual blocks and the dense layer included, with a gamma each.

The padding before the 5 x 5 convolutions of `dcgan5` is a layer of its own, so that `"conv"` finds the norm over all
inputs of the padded size: it is not below that of both together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from dcgan.networks import with_known_sizes
from torch import nn

from smmd import dcgan, dcgan5, resnet, sngan
from torch_mmd_losses import conv_spectral_norm
from torch_mmd_losses.types import Method

NORMALISATIONS = ("none", "matrix", "conv")
"""How the weights of a critic may be parametrised: not at all, or by either norm."""


class Family(NamedTuple):
    """A pair of networks."""

    generator: Callable[..., nn.Sequential]
    critic: Callable[..., nn.Sequential]
    reduction: int
    """The sizes of the images are its multiples."""


FAMILIES: Mapping[str, Family] = {
    "sngan": Family(sngan.make_generator, sngan.make_critic, sngan.REDUCTION),
    "sngan-code": Family(partial(sngan.make_generator, as_in_code=True), sngan.make_critic, sngan.REDUCTION),
    "dcgan": Family(dcgan.make_generator, dcgan.make_critic, dcgan.REDUCTION),
    "dcgan5": Family(dcgan5.make_generator, dcgan5.make_critic, dcgan5.REDUCTION),
    "resnet": Family(resnet.make_generator, resnet.make_critic, resnet.REDUCTION),
}
"""The networks by name; `sngan-code` has the generator of the authors' code, see :mod:`smmd.sngan`."""


def make_generator(family: str, size: int, *, noise: int = 128, channels: int = 3, width: int = 64) -> nn.Sequential:
    """Return a network that maps noise `(n, noise)` to images `(n, channels, size, size)` in [0, 1].

    Args:
        family: one of `FAMILIES`.
        size: height and width of the images.
        noise: dimension of the noise.
        channels: 3 for colour images, 1 for grey ones.
        width: channels of the feature maps of the finest resolution; less than 64 reduces the whole network.

    Raises:
        ValueError: if there is no such family, or it makes no images of that size.
    """
    return _family(family, size).generator(size, noise=noise, channels=channels, width=width)


def make_critic(
    family: str,
    size: int,
    *,
    scores: int = 1,
    channels: int = 3,
    width: int = 64,
    normalisation: str = "none",
    learned_gamma: bool = True,
) -> nn.Sequential:
    """Return a network that maps images `(n, channels, size, size)` to scores `(n, scores)`.

    Args:
        family: one of `FAMILIES`.
        size: height and width of the images.
        scores: numbers per image.
        channels: 3 for colour images, 1 for grey ones.
        width: channels of the feature maps of the finest resolution; less than 64 reduces the whole network.
        normalisation: `"none"`, or a method of `conv_spectral_norm`.
        learned_gamma: whether the norm of each layer is a parameter, which starts at 1, instead of 1 for ever.

    Raises:
        ValueError: if there is no such family or normalisation, or the family takes no images of that size.
    """
    if normalisation not in NORMALISATIONS:
        raise ValueError(f"normalisation: expected one of {', '.join(NORMALISATIONS)}; got {normalisation!r}")
    critic = _family(family, size).critic(size, scores=scores, channels=channels, width=width)
    if normalisation == "none":
        return critic
    method: Method = "conv" if normalisation == "conv" else "matrix"
    conv_spectral_norm(critic, method=method, scale=1.0, learn_scale=learned_gamma)
    return with_known_sizes(critic, (1, channels, size, size))


def _family(name: str, size: int) -> Family:
    if name not in FAMILIES:
        raise ValueError(f"family: expected one of {', '.join(FAMILIES)}; got {name!r}")
    family = FAMILIES[name]
    if size < 1 or size % family.reduction:
        raise ValueError(f"size: expected a multiple of {family.reduction} for {name}, got {size}")
    return family
