"""Sums over the rows, the columns and the squares of a centred Gram matrix, tile by tile.

For derivatives the tiles are evaluated again, so memory grows with the number of samples, also in second derivatives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.hand_written_gradients import GradientByHand
from torch_mmd_losses.kernels import trained_tensors
from torch_mmd_losses.kernels.summands import Summand, is_trained, sum_of_gram_matrices
from torch_mmd_losses.pairs.tiles import Block, tiles
from torch_mmd_losses.precision import full_precision, total_dtype


class Centre(NamedTuple):
    """Constants whose subtraction makes kernel values small: `k(a, b) - rows(a) - columns(b) - rest`.

    Attributes:
        rows: mean kernel value of each row's score with the reference scores, `(m,)`.
        columns: the same for each column, `(n,)`.
        rest: approximate mean of the remainder, a scalar.
        overall: mean kernel value of the reference scores, a scalar, which the blocks of an estimate have in common.
    """

    rows: Tensor
    columns: Tensor
    rest: Tensor
    overall: Tensor


class GramTiles(NamedTuple):
    """The tiles of a centred Gram matrix. The scores in `block` give the sizes; they are not differentiated.

    Attributes:
        summands: the kernel.
        tensors: the tensors that the kernel is trained through.
        block: the pairs.
        constants: the numbers to subtract.
        side: number of rows and columns of a tile.
    """

    summands: Sequence[Summand]
    tensors: tuple[Tensor, ...]
    block: Block
    constants: Centre
    side: int

    def places(self) -> Iterator[tuple[slice, slice, bool, bool]]:
        """Yield the rows and columns of each tile, whether it is on the diagonal, and whether it counts twice."""
        for rows, columns in tiles(self.block, self.side):
            on_diagonal = self.block.symmetric and rows == columns
            # The tile below the diagonal of a symmetric matrix is the transpose of this one.
            yield rows, columns, on_diagonal, self.block.symmetric and not on_diagonal

    def gram(self, a: Tensor, b: Tensor, rows: slice, columns: slice, on_diagonal: bool) -> Tensor:
        """Return the matrix of a tile, given its scores."""
        means = self.constants.rows[rows], self.constants.columns[columns], self.constants.rest
        return centred_gram(self.summands, on_diagonal, a, b, *means)


def centred_gram(
    summands: Sequence[Summand], same: bool, a: Tensor, b: Tensor, rows: Tensor, columns: Tensor, rest: Tensor
) -> Tensor:
    """Return kernel values minus constants, `(m, n)`, in :func:`total_dtype`, with a zero diagonal if `same`."""
    pairs = Pairs(Sample(a), Sample(b), distinct=same, same=same)
    gram = sum_of_gram_matrices(summands, pairs).to(total_dtype(a.device))
    gram = gram - (rows + rest).unsqueeze(1) - columns
    return gram - gram.diag().diag() if same else gram


def tensors_of(summands: Sequence[Summand], like: Tensor) -> tuple[Tensor, ...] | None:
    """Return the tensors that a kernel is trained through, or None if they cannot all be found."""
    found: dict[int, Tensor] = {}
    for summand in summands:
        if is_trained(summand, like):
            tensors = trained_tensors.trained_tensors(summand, like)
            if tensors is None:
                return None
            found |= {id(tensor): tensor for tensor in tensors}
    return tuple(found.values())


def sums(tiled: GramTiles) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums over the columns `(m,)` and over the rows `(n,)`, and the sum of squares.

    For pairs within a sample, the second result is the first.

    Raises:
        UnknownTensorError: if the kernel depends on a tensor that requires gradients and is not in `tiled`.
    """
    block = tiled.block
    scores = (block.a,) if block.symmetric else (block.a, block.b)
    rows, columns, squares = _Sums.apply(tiled, *scores, *tiled.tensors)  # type: ignore[no-untyped-call]
    return rows, rows if block.symmetric else columns, squares


class _Sums(GradientByHand):
    @staticmethod
    def forward(ctx: Any, tiled: GramTiles, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        ctx.tiled = tiled
        ctx.save_for_backward(*inputs)
        a, b = _scores(tiled, inputs)
        row_sums, column_sums = (_zeros(scores, len(scores)) for scores in (a, b))
        squares = _zeros(a)
        stand_ins = trained_tensors.stand_ins_of(tiled.tensors)
        for rows, columns, on_diagonal, twice in tiled.places():
            # With a graph, only to check that it ends at the known tensors.
            with torch.set_grad_enabled(bool(stand_ins)), trained_tensors.replaced(tiled.tensors, stand_ins):
                gram = tiled.gram(a[rows].detach(), b[columns].detach(), rows, columns, on_diagonal)
            if not trained_tensors.depends_only_on(gram, stand_ins):
                raise trained_tensors.UnknownTensorError
            gram = gram.detach()
            row_sums[rows] += gram.sum(1)
            if twice or not tiled.block.symmetric:
                (row_sums if twice else column_sums)[columns] += gram.sum(0)
            squares += (2 if twice else 1) * gram.square().sum()
        return row_sums, column_sums, squares

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        wanted = ctx.needs_input_grad[1:]
        return None, *_Gradients.apply(ctx.tiled, wanted, *ctx.saved_tensors, *outer)  # type: ignore[no-untyped-call]


class _Gradients(GradientByHand):
    """The gradients of `<outer, sums>` with respect to scores and tensors, differentiable once more."""

    @staticmethod
    def forward(ctx: Any, tiled: GramTiles, wanted: Sequence[bool], *saved: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        ctx.set_materialize_grads(False)
        ctx.tiled, ctx.wanted = tiled, wanted
        ctx.save_for_backward(*saved)
        inputs, outer = saved[:-3], saved[-3:]
        found = [_zeros(x, *x.shape) if want else None for x, want in zip(inputs, wanted, strict=True)]
        with full_precision(inputs[0].device):
            for tile in _tiles_with_graph(tiled, inputs, outer):
                weights = tile.weights(tile.gram.detach())
                tile.add(found, torch.autograd.grad(tile.gram, tile.leaves, weights, materialize_grads=True))
        return tuple(None if each is None else each.to(x.dtype) for each, x in zip(found, inputs, strict=True))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *along: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        if all(direction is None for direction in along):
            return (None,) * len(ctx.needs_input_grad)
        tiled, saved = ctx.tiled, ctx.saved_tensors
        inputs, outer = saved[:-3], saved[-3:]
        found = [_zeros(x, *x.shape) if want else None for x, want in zip(inputs, ctx.wanted, strict=True)]
        to_outer = [_zeros(each, *each.shape) for each in outer]
        with full_precision(inputs[0].device), torch.enable_grad():
            for tile in _tiles_with_graph(tiled, inputs, outer):
                weights = tile.weights(tile.gram)
                slopes = torch.autograd.grad(tile.gram, tile.leaves, weights, create_graph=True, materialize_grads=True)
                steps = [
                    (slope * direction[place]).sum(dtype=weights.dtype)
                    for slope, (i, place) in zip(slopes, tile.places, strict=True)
                    if (direction := along[i]) is not None
                ]
                leaves = [*tile.leaves, *tile.factors]
                products = torch.autograd.grad(torch.stack(steps).sum(), leaves, materialize_grads=True)
                tile.add(found, products[: len(tile.leaves)])
                for (i, place), product in zip(tile.factor_places, products[len(tile.leaves) :], strict=True):
                    to_outer[i][place] += product
        second = [None if each is None else each.to(x.dtype) for each, x in zip(found, inputs, strict=True)]
        return None, None, *second, *to_outer


Place = tuple[int, Any]
"""The number of a tensor, and the part of it that belongs to a tile."""


class _Tile(NamedTuple):
    """A tile of the matrix with its graph.

    Attributes:
        gram: the matrix.
        twice: whether it counts twice.
        leaves: the inputs of the matrix.
        places: their places in the inputs.
        factors: the gradients with respect to the sums of rows, the sum of squares and the sums of columns, if any.
        factor_places: their places among the gradients with respect to all sums.
    """

    gram: Tensor
    twice: bool
    leaves: Sequence[Tensor]
    places: Sequence[Place]
    factors: Sequence[Tensor]
    factor_places: Sequence[Place]

    def weights(self, gram: Tensor) -> Tensor:
        """Return the gradient with respect to the matrix."""
        of_rows, of_squares, *of_columns = self.factors
        weights = (4 if self.twice else 2) * of_squares * gram + of_rows.unsqueeze(1)
        return weights + of_columns[0] if of_columns else weights

    def add(self, targets: Sequence[Tensor | None], found: Sequence[Tensor]) -> None:
        """Add the gradients of a tile to those of the inputs that are wanted."""
        for (i, place), step in zip(self.places, found, strict=True):
            target = targets[i]
            if target is not None:
                target[place] += step


def _tiles_with_graph(tiled: GramTiles, inputs: Sequence[Tensor], outer: Sequence[Tensor]) -> Iterator[_Tile]:
    """Yield the tiles whose derivatives are not all zero, as those of a constant are."""
    a, b = _scores(tiled, inputs)
    first = 1 if tiled.block.symmetric else 2
    stand_ins = trained_tensors.stand_ins_of(tiled.tensors)
    for rows, columns, on_diagonal, twice in tiled.places():
        scores = [a[rows].detach().requires_grad_(), b[columns].detach().requires_grad_()]
        with torch.enable_grad(), trained_tensors.replaced(tiled.tensors, stand_ins):
            gram = tiled.gram(scores[0], scores[1], rows, columns, on_diagonal)
        if not gram.requires_grad:
            continue
        places: list[Place] = [(0, rows), (first - 1, columns), *((first + i, ...) for i in range(len(stand_ins)))]
        factor_places: list[Place] = [(0, rows), (2, ...)]
        if not on_diagonal:
            factor_places.append((0 if twice else 1, columns))
        factors = [outer[i][place].detach().requires_grad_() for i, place in factor_places]
        yield _Tile(gram, twice, [*scores, *stand_ins], places, factors, factor_places)


def _scores(tiled: GramTiles, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    return (inputs[0], inputs[0]) if tiled.block.symmetric else (inputs[0], inputs[1])


def _zeros(like: Tensor, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=total_dtype(like.device), device=like.device)
