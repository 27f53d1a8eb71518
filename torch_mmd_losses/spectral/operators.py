"""Layers as linear operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LinearOperator(Protocol):
    """What a weight does to a vector, without a reference to the layer that owns the weight."""

    def vector_shape(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the vectors that the operator maps, for a layer's spatial input size."""

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether vectors of this shape can be mapped."""

    def apply(self, v: Tensor, weight: Tensor) -> Tensor:
        """Return `A v`, linear in `v` and in the weight."""

    def apply_batch(self, vectors: Tensor, weight: Tensor) -> Tensor:
        """Return `A v` for each of the vectors `(n, *shape)`, in little more time than for one."""

    def apply_adjoint(self, u: Tensor, weight: Tensor, v: Tensor) -> Tensor:
        """Return `A^T u` in the shape of `v`, whose values are not used."""

    def weight_gradient(self, u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient of `<u, A v>` in the shape of the weight, whose values are not used."""


class MatrixOperator(NamedTuple):
    """The weight as a matrix (output channels) x (input channels x kernel): exact for `Linear`, else Miyato's.

    With groups it is block-diagonal, one matrix `(out / groups, in / groups x kernel)` for each group.
    """

    groups: int
    columns: int
    transposed: bool

    @classmethod
    def from_layer(cls, layer: nn.Linear | nn.modules.conv._ConvNd) -> MatrixOperator:
        if isinstance(layer, nn.Linear):
            return cls(groups=1, columns=layer.in_features, transposed=False)
        columns = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
        return cls(groups=layer.groups, columns=columns, transposed=layer.transposed)

    def vector_shape(self, input_size: Sequence[int]) -> tuple[int, ...]:
        return self.groups, self.columns

    def accepts(self, shape: Sequence[int]) -> bool:
        return tuple(shape) == (self.groups, self.columns)

    def apply(self, v: Tensor, weight: Tensor) -> Tensor:
        return (self._blocks(weight) @ v.unsqueeze(2)).squeeze(2)

    def apply_batch(self, vectors: Tensor, weight: Tensor) -> Tensor:
        return (self._blocks(weight) @ vectors.permute(1, 2, 0)).permute(2, 0, 1)

    def apply_adjoint(self, u: Tensor, weight: Tensor, v: Tensor) -> Tensor:
        return (self._blocks(weight).mT @ u.unsqueeze(2)).squeeze(2)

    def weight_gradient(self, u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
        blocks = u.unsqueeze(2) * v.unsqueeze(1)  # (groups, out, in x kernel)
        if self.transposed:
            shape = weight.unflatten(0, (self.groups, -1)).transpose(1, 2).shape
            blocks = blocks.view(shape).transpose(1, 2)
        return blocks.reshape(weight.shape)

    def _blocks(self, weight: Tensor) -> Tensor:
        blocks = weight.unflatten(0, (self.groups, -1))  # (groups, out, in, *kernel), or (groups, in, out, *kernel)
        return (blocks.transpose(1, 2) if self.transposed else blocks).flatten(2)


class ConvolutionOperator(NamedTuple):
    """What a convolution does to one sample `(channels, *size)`, without the bias.

    Padding that the convolution itself cannot do (modes other than zeros, unequal sides) is a linear map before it:
    `explicit_padding` holds `(before, after)` for each spatial dimension.
    """

    in_channels: int
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]
    groups: int
    explicit_padding: tuple[tuple[int, int], ...]
    padding_mode: str

    @classmethod
    def from_layer(cls, layer: nn.modules.conv._ConvNd) -> ConvolutionOperator:
        reverse = layer._reversed_padding_repeated_twice  # (before, after) of the last dimension first
        explicit_padding = tuple(zip(reverse[-2::-2], reverse[-1::-2], strict=True))
        simple = layer.padding_mode == "zeros" and all(before == after for before, after in explicit_padding)
        return cls(
            in_channels=layer.in_channels,
            stride=list(layer.stride),
            padding=[before if simple else 0 for before, _ in explicit_padding],
            dilation=list(layer.dilation),
            transposed=layer.transposed,
            output_padding=list(layer.output_padding),
            groups=layer.groups,
            explicit_padding=() if simple else explicit_padding,
            padding_mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode,
        )

    def vector_shape(self, input_size: Sequence[int]) -> tuple[int, ...]:
        return (self.in_channels, *input_size)

    def accepts(self, shape: Sequence[int]) -> bool:
        return len(shape) == 1 + len(self.stride) and shape[0] == self.in_channels

    def apply(self, v: Tensor, weight: Tensor) -> Tensor:
        return self.apply_batch(v.unsqueeze(0), weight).squeeze(0)

    def apply_batch(self, vectors: Tensor, weight: Tensor) -> Tensor:
        return torch.convolution(self._pad(vectors), weight, None, *self._options())

    def apply_adjoint(self, u: Tensor, weight: Tensor, v: Tensor) -> Tensor:
        # The gradient of a convolution with respect to its input is its adjoint, for every combination of options.
        padded, _, _ = torch.ops.aten.convolution_backward(
            u.unsqueeze(0), self._pad(v.unsqueeze(0)), weight, None, *self._options(), [True, False, False]
        )
        return self._pad_adjoint(padded.squeeze(0), v)

    def weight_gradient(self, u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
        _, gradient, _ = torch.ops.aten.convolution_backward(
            u.unsqueeze(0), self._pad(v.unsqueeze(0)), weight, None, *self._options(), [False, True, False]
        )
        return gradient

    def _options(self) -> tuple[list[int], list[int], list[int], bool, list[int], int]:
        return self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups

    def _pad(self, vectors: Tensor) -> Tensor:
        if not self.explicit_padding:
            return vectors
        sides = [side for pair in reversed(self.explicit_padding) for side in pair]
        return F.pad(vectors, sides, mode=self.padding_mode)

    def _pad_adjoint(self, padded: Tensor, v: Tensor) -> Tensor:
        """Return the adjoint of `_pad`: what was copied into the border is added to where it came from."""
        for dim, (before, after) in enumerate(self.explicit_padding, start=1):
            pieces = padded.movedim(dim, -1).split([before, v.shape[dim], after], -1)
            padded = _add_border_back(*pieces, mode=self.padding_mode).movedim(-1, dim)
        return padded


def _add_border_back(head: Tensor, body: Tensor, tail: Tensor, *, mode: str) -> Tensor:
    """Return `body` with `head` and `tail` added to where a padding mode, along the last dimension, had them from."""
    length = body.shape[-1]
    if mode == "constant":
        return body
    if mode == "circular":
        return body + F.pad(head, (length - head.shape[-1], 0)) + F.pad(tail, (0, length - tail.shape[-1]))
    if mode == "replicate":
        first, last = head.sum(-1, keepdim=True), tail.sum(-1, keepdim=True)
        return body + F.pad(first, (0, length - 1)) + F.pad(last, (length - 1, 0))
    first, last = head.flip(-1), tail.flip(-1)  # reflected around the first and the last pixel, without them
    return body + F.pad(first, (1, length - 1 - head.shape[-1])) + F.pad(last, (length - 1 - tail.shape[-1], 1))
