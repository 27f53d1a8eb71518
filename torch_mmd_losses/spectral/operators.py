"""The linear operators whose largest singular value is the spectral norm of a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PADDING_MODES = ("constant", "reflect", "replicate", "circular")


class LinearOperator(Protocol):
    """A linear map `A` that is defined by a weight, which is passed to each call.

    It is block-diagonal if it has groups: equal shares of the channels, and of the first dimension of the weight.
    """

    @property
    def groups(self) -> int:
        """The number of groups."""

    def vector_shape(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the vectors `v` in `A v` for a spatial input size of the layer."""

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether `A v` is defined for vectors of this shape."""

    def apply(self, v: Tensor, weight: Tensor) -> Tensor:
        """Return `A v`, linear in `v` and in the weight."""

    def apply_batch(self, vectors: Tensor, weight: Tensor) -> Tensor:
        """Return `A v` for each of the vectors `(n, *shape)`, in little more time than for one vector."""

    def apply_adjoint(self, u: Tensor, weight: Tensor, v: Tensor) -> Tensor:
        """Return `A^T u`. Of `v`, only the shape is used, which is that of the result."""

    def weight_gradient(self, u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient of `<u, A v>` with respect to the weight, of which only the shape is used."""

    def integers(self) -> list[int]:
        """Return the operator as integers, from which :func:`operator_from_integers` restores it."""


class MatrixOperator(NamedTuple):
    """The weight reshaped to a matrix (output channels) x (input channels x kernel), as in Miyato et al.

    For a `Linear` layer this is the map of the layer itself. With groups the matrix is block-diagonal, with one block
    `(out / groups, in / groups x kernel)` for each group.
    """

    groups: int
    columns: int
    transposed: bool

    @classmethod
    def from_layer(cls, layer: nn.Linear | nn.modules.conv._ConvNd) -> MatrixOperator:
        """Return the operator of a linear or convolutional layer."""
        # The sizes of the weight count, as in the forward pass: programs that cut channels off do not update others.
        if isinstance(layer, nn.Linear):
            return cls(groups=1, columns=layer.weight.shape[1], transposed=False)
        columns = _in_channels(layer) // layer.groups * math.prod(layer.kernel_size)
        return cls(groups=layer.groups, columns=columns, transposed=layer.transposed)

    def vector_shape(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Return `(groups, columns)`, which does not depend on the input size."""
        return self.groups, self.columns

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether the shape is `(groups, columns)`."""
        return tuple(shape) == (self.groups, self.columns)

    def apply(self, v: Tensor, weight: Tensor) -> Tensor:
        """Return the product of each block with its row of `v`."""
        return (self._blocks(weight) @ v.unsqueeze(2)).squeeze(2)

    def apply_batch(self, vectors: Tensor, weight: Tensor) -> Tensor:
        """Return the products for a batch of vectors by one matrix product for each group."""
        return (self._blocks(weight) @ vectors.permute(1, 2, 0)).permute(2, 0, 1)

    def apply_adjoint(self, u: Tensor, weight: Tensor, v: Tensor) -> Tensor:
        """Return the product of each transposed block with its row of `u`."""
        return (self._blocks(weight).mT @ u.unsqueeze(2)).squeeze(2)

    def weight_gradient(self, u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
        """Return the outer products of the rows of `u` and `v`, in the layout of the weight."""
        blocks = u.unsqueeze(2) * v.unsqueeze(1)  # (groups, out, in x kernel)
        if self.transposed:
            shape = weight.unflatten(0, (self.groups, -1)).transpose(1, 2).shape
            blocks = blocks.view(shape).transpose(1, 2)
        return blocks.reshape(weight.shape)

    def integers(self) -> list[int]:
        """Return zero, which stands for a matrix, and the fields."""
        return [0, self.groups, self.columns, int(self.transposed)]

    def _blocks(self, weight: Tensor) -> Tensor:
        """Return the weight as a batch of matrices, one for each group."""
        blocks = weight.unflatten(0, (self.groups, -1))  # (groups, out, in, *kernel), or (groups, in, out, *kernel)
        return (blocks.transpose(1, 2) if self.transposed else blocks).flatten(2)


class ConvolutionOperator(NamedTuple):
    """The convolution of one sample `(channels, *size)`, without the bias.

    Padding with modes other than zeros, or with unequal sides, is applied as a separate linear map before the
    convolution. In this case `explicit_padding` holds `(before, after)` for each spatial dimension.
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
        """Return the operator of a convolutional layer, transposed or not."""
        reverse = layer._reversed_padding_repeated_twice  # (before, after) of the last dimension first
        explicit_padding = tuple(zip(reverse[-2::-2], reverse[-1::-2], strict=True))
        simple = layer.padding_mode == "zeros" and all(before == after for before, after in explicit_padding)
        return cls(
            in_channels=_in_channels(layer),
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
        """Return `(channels, *input_size)`."""
        return (self.in_channels, *input_size)

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether the shape has the right number of channels and of spatial dimensions."""
        return len(shape) == 1 + len(self.stride) and shape[0] == self.in_channels

    def apply(self, v: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution of one sample."""
        return self.apply_batch(v.unsqueeze(0), weight).squeeze(0)

    def apply_batch(self, vectors: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution of a batch of samples."""
        return torch.convolution(self._pad(vectors), weight, None, *self._options())

    def apply_adjoint(self, u: Tensor, weight: Tensor, v: Tensor) -> Tensor:
        """Return the gradient of `<u, A v>` with respect to `v`."""
        # The gradient of a convolution with respect to its input is its adjoint, for every combination of options.
        padded, _, _ = torch.ops.aten.convolution_backward(
            u.unsqueeze(0), self._pad(v.unsqueeze(0)), weight, None, *self._options(), [True, False, False]
        )
        return self._pad_adjoint(padded.squeeze(0), v)

    def weight_gradient(self, u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient of `<u, A v>` with respect to the weight, by PyTorch's backward pass of convolutions."""
        _, gradient, _ = torch.ops.aten.convolution_backward(
            u.unsqueeze(0), self._pad(v.unsqueeze(0)), weight, None, *self._options(), [False, True, False]
        )
        return gradient

    def integers(self) -> list[int]:
        """Return the number of spatial dimensions, the fields of one integer, and those of several."""
        single = [self.in_channels, int(self.transposed), self.groups, _PADDING_MODES.index(self.padding_mode)]
        sides = [side for pair in self.explicit_padding for side in pair]
        return [len(self.stride), *single, *self.stride, *self.padding, *self.dilation, *self.output_padding, *sides]

    def _options(self) -> tuple[list[int], list[int], list[int], bool, list[int], int]:
        return self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups

    def _pad(self, vectors: Tensor) -> Tensor:
        if not self.explicit_padding:
            return vectors
        sides = [side for pair in reversed(self.explicit_padding) for side in pair]
        return F.pad(vectors, sides, mode=self.padding_mode)

    def _pad_adjoint(self, padded: Tensor, v: Tensor) -> Tensor:
        """Apply the adjoint of `_pad`, which adds the values of the border to the pixels that they were copied from."""
        for dim, (before, after) in enumerate(self.explicit_padding, start=1):
            pieces = padded.movedim(dim, -1).split([before, v.shape[dim], after], -1)
            padded = _add_border_back(*pieces, mode=self.padding_mode).movedim(-1, dim)
        return padded


def _in_channels(layer: nn.modules.conv._ConvNd) -> int:
    return layer.weight.shape[0] if layer.transposed else layer.weight.shape[1] * layer.groups


def operator_from_integers(integers: Sequence[int]) -> LinearOperator:
    """Return the operator whose method `integers` returned these integers."""
    dims, *fields = integers
    if not dims:
        groups, columns, transposed = fields
        return MatrixOperator(groups, columns, bool(transposed))
    in_channels, transposed, groups, mode, *lists = fields
    stride, padding, dilation, output_padding = (lists[i * dims : (i + 1) * dims] for i in range(4))
    sides = lists[4 * dims :]
    return ConvolutionOperator(
        in_channels=in_channels,
        stride=stride,
        padding=padding,
        dilation=dilation,
        transposed=bool(transposed),
        output_padding=output_padding,
        groups=groups,
        explicit_padding=tuple(zip(sides[::2], sides[1::2], strict=True)),
        padding_mode=_PADDING_MODES[mode],
    )


def _add_border_back(head: Tensor, body: Tensor, tail: Tensor, *, mode: str) -> Tensor:
    """Return `body` plus the borders `head` and `tail`, added to the pixels that the padding mode copied them from."""
    length = body.shape[-1]
    if mode == "constant":
        return body
    if mode == "circular":
        return body + F.pad(head, (length - head.shape[-1], 0)) + F.pad(tail, (0, length - tail.shape[-1]))
    if mode == "replicate":
        first, last = head.sum(-1, keepdim=True), tail.sum(-1, keepdim=True)
        return body + F.pad(first, (0, length - 1)) + F.pad(last, (length - 1, 0))
    first, last = head.flip(-1), tail.flip(-1)  # mirror images, without the first and the last pixel
    return body + F.pad(first, (1, length - 1 - head.shape[-1])) + F.pad(last, (length - 1 - tail.shape[-1], 1))
