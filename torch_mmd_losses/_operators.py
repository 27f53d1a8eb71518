"""Layers as linear operators, and their largest singular value by Lanczos and power iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (nn.Linear, *CONVOLUTIONS)

_CHIRP_PERIOD, _CHIRP_RATE = 1_000_003, 618_036
"""A prime, and its part by the golden ratio: neighbours in :func:`start_vector` then have unrelated phases."""

_ROUNDING = 1e-6
"""Share of the squared norm below which a Lanczos residual is taken for the rounding of float32."""


class Operator(Protocol):
    """What a weight does to a vector, without a reference to the layer that owns the weight."""

    def domain(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the vectors that the operator maps, for a layer's spatial input size."""

    def apply(self, v: Tensor, weight: Tensor) -> Tensor:
        """Return `A v`, linear in `v` and in the weight."""

    def adjoint(self, u: Tensor, weight: Tensor, v: Tensor) -> Tensor:
        """Return `A^T u` in the shape of `v`, whose values are not used."""


class MatrixOperator(NamedTuple):
    """The weight as a matrix (output channels) x (input channels x kernel): exact for `Linear`, else Miyato's.

    With groups it is block-diagonal, one matrix `(out / groups, in / groups x kernel)` for each group.
    """

    groups: int
    columns: int
    transposed: bool

    @classmethod
    def of(cls, layer: nn.Linear | nn.modules.conv._ConvNd) -> MatrixOperator:
        if isinstance(layer, nn.Linear):
            return cls(groups=1, columns=layer.in_features, transposed=False)
        columns = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
        return cls(groups=layer.groups, columns=columns, transposed=layer.transposed)

    def domain(self, input_size: Sequence[int]) -> tuple[int, ...]:
        return self.groups, self.columns

    def apply(self, v: Tensor, weight: Tensor) -> Tensor:
        return (self._blocks(weight) @ v.unsqueeze(2)).squeeze(2)

    def adjoint(self, u: Tensor, weight: Tensor, v: Tensor) -> Tensor:
        return (self._blocks(weight).mT @ u.unsqueeze(2)).squeeze(2)

    def _blocks(self, weight: Tensor) -> Tensor:
        blocks = weight.unflatten(0, (self.groups, -1))  # (groups, out, in, *kernel), or (groups, in, out, *kernel)
        return (blocks.transpose(1, 2) if self.transposed else blocks).flatten(2)


class ConvolutionOperator(NamedTuple):
    """What a convolution does to one sample `(channels, *size)`, without the bias.

    Padding that the convolution itself cannot do (modes other than zeros, unequal sides) is a linear map before it:
    `pads` holds `(before, after)` for each spatial dimension.
    """

    channels: int
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]
    groups: int
    pads: tuple[tuple[int, int], ...]
    padding_mode: str

    @classmethod
    def of(cls, layer: nn.modules.conv._ConvNd) -> ConvolutionOperator:
        simple = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        reverse = layer._reversed_padding_repeated_twice  # (before, after) of the last dimension first
        return cls(
            channels=layer.in_channels,
            stride=list(layer.stride),
            padding=[int(side) for side in layer.padding] if simple else [0] * len(layer.kernel_size),
            dilation=list(layer.dilation),
            transposed=layer.transposed,
            output_padding=list(layer.output_padding),
            groups=layer.groups,
            pads=() if simple else tuple(zip(reverse[-2::-2], reverse[-1::-2], strict=True)),
            padding_mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode,
        )

    def domain(self, input_size: Sequence[int]) -> tuple[int, ...]:
        return (self.channels, *input_size)

    def apply(self, v: Tensor, weight: Tensor) -> Tensor:
        return torch.convolution(
            self._pad(v).unsqueeze(0),
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups,
        ).squeeze(0)

    def adjoint(self, u: Tensor, weight: Tensor, v: Tensor) -> Tensor:
        # The gradient of a convolution with respect to its input is its adjoint, for every combination of options.
        padded, _, _ = torch.ops.aten.convolution_backward(
            u.unsqueeze(0),
            self._pad(v).unsqueeze(0),
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups,
            [True, False, False],
        )
        return self._unpad(padded.squeeze(0), v)

    def _pad(self, v: Tensor) -> Tensor:
        if not self.pads:
            return v
        sides = [side for pair in reversed(self.pads) for side in pair]
        return F.pad(v.unsqueeze(0), sides, mode=self.padding_mode).squeeze(0)

    def _unpad(self, padded: Tensor, v: Tensor) -> Tensor:
        """Return the adjoint of `_pad`: what was copied into the border is added to where it came from."""
        for dim, sides in enumerate(self.pads, start=1):
            identity = torch.eye(v.shape[dim], dtype=v.dtype, device=v.device)
            matrix = F.pad(identity.unsqueeze(0), sides, mode=self.padding_mode).squeeze(
                0
            )  # transposed: (size, padded)
            padded = (padded.movedim(dim, -1) @ matrix.mT).movedim(-1, dim)
        return padded


def start_vector(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return a unit vector of the given shape that is spread over all directions and the same on every process.

    Quadratic phases (a chirp) have a flat spectrum, so no singular vector is missed; no random state is touched, so
    processes agree on the vector without talking, and wrapping a layer changes no one's random numbers.
    """
    index = torch.arange(1, math.prod(shape) + 1, device=like.device, dtype=torch.int64)
    phase = (index * index % _CHIRP_PERIOD * _CHIRP_RATE % _CHIRP_PERIOD).to(like.dtype) * (2 * math.pi / _CHIRP_PERIOD)
    return unit(phase.cos(), fallback=phase).reshape(list(shape))


def unit(x: Tensor, fallback: Tensor) -> Tensor:
    """Return `x / |x|`, or `fallback` where that is no vector of length one (`x` zero or NaN)."""
    norm = torch.linalg.vector_norm(x)
    usable = norm > 0
    return torch.where(usable, x / torch.where(usable, norm, 1), fallback)


def norm_along(operator: Operator, weight: Tensor, v: Tensor) -> Tensor:
    """Return `|A v| / |v|`, a lower bound of the largest singular value, differentiable in the weight."""
    return torch.linalg.vector_norm(operator.apply(v, weight)) / torch.linalg.vector_norm(v)


def gram_product(operator: Operator, weight: Tensor, v: Tensor) -> Tensor:
    """Return `A^T A v`, up to a positive factor that keeps tiny and huge weights within the range of the dtype."""
    largest = weight.abs().amax()
    scaled = weight / torch.where(largest > 0, largest, 1)
    return operator.adjoint(operator.apply(v, scaled), scaled, v)


def power_iteration(operator: Operator, weight: Tensor, v: Tensor, steps: int) -> Tensor:
    """Return the unit vector after `steps` iterations `v <- A^T A v / |A^T A v|`; a zero operator leaves it alone."""
    for _ in range(steps):
        v = unit(gram_product(operator, weight, v), fallback=v)
    return v


def lanczos(operator: Operator, weight: Tensor, v: Tensor, steps: int) -> Tensor:
    """Return the best approximation to the top right singular vector in the Krylov space of `v`.

    From a cold start, some tens of steps come as close as many hundred power iterations. The basis is orthogonalised
    twice in full: it is short, and without that rounding brings copies of the top vector back.
    """
    basis = v.flatten().unsqueeze(0)  # (step, numel)
    diagonal, coupling = [], []
    largest = v.new_zeros(())
    for _ in range(min(steps, v.numel())):
        product = gram_product(operator, weight, basis[-1].view_as(v)).flatten()
        diagonal.append(basis[-1] @ product)
        largest = torch.maximum(largest, diagonal[-1])
        for _ in range(2):
            product = product - (basis @ product) @ basis
        # Once the Krylov space is the whole row space, what is left is rounding: it must not become a direction.
        product = torch.where(torch.linalg.vector_norm(product) > _ROUNDING * largest, product, 0)
        coupling.append(torch.linalg.vector_norm(product))
        basis = torch.cat([basis, unit(product, fallback=product).unsqueeze(0)])
    beta = torch.stack(coupling)[:-1]
    tridiagonal = torch.diag(torch.stack(diagonal)) + torch.diag(beta, 1) + torch.diag(beta, -1)
    ritz = torch.linalg.eigh(tridiagonal).eigenvectors[:, -1] @ basis[:-1]
    return unit(ritz.view_as(v), fallback=v)
