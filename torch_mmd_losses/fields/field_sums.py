"""Sums over samples of logarithms and displacements, from which fields are computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.fields import column_distances
from torch_mmd_losses.fields.log_kernels import LogKernel, TileLog
from torch_mmd_losses.fields.visits import Visits
from torch_mmd_losses.hand_written_gradients import GradientByHand, differentiable_gradients, reverse_mode_only
from torch_mmd_losses.pairs.pair_functions import Indices, PairFunction, Tile, ValuesOfPairs
from torch_mmd_losses.pairs.product_tiles import NARROW_UP_TO, add_gradients, values_of_tile, visit_distances
from torch_mmd_losses.pairs.tile_distances import NearPairs, TileDistances, differences_weighted
from torch_mmd_losses.precision import full_precision, total_dtype


class Field(NamedTuple):
    """Sums over samples `y` at points `x` of weights `w`.

    Attributes:
        mass: `sum_j w_ij`, `(g, p)`.
        pull: `sum_j w_ij (y_j - x_i)`, `(g, p, d)`.
    """

    mass: Tensor
    pull: Tensor


def log_sums(visits: Visits, log: LogKernel, log_weights: Tensor, *, over_points: bool = True) -> tuple[Tensor, Tensor]:
    """Return the logarithms of sums of kernel values over samples `(g, p)`, and over points `(g, n)`, without a graph.

    Args:
        visits: the pairs of points and samples.
        log: the logarithm of the kernel.
        log_weights: logarithms `(g, n)` of the weights of samples in the sums over samples.
        over_points: whether the second result is wanted.
    """
    points, samples, indices = visits.points, visits.samples, visits.indices
    with torch.no_grad(), full_precision(points.device):
        if not reverse_mode_only(points, samples):
            logarithms = indices.without(log.of(column_distances.of_all(points, samples, indices)), -math.inf)
            return (logarithms + log_weights.unsqueeze(-2)).logsumexp(-1), logarithms.logsumexp(-2)

        in_tile = log.in_tiles((points, samples))

        def start(distances: TileDistances, groups: slice) -> LogSums:
            return LogSums(distances, [in_tile], log_weights[groups], indices, over_points=over_points)

        return joined([part.totals for part in visits.visit(start)])[0]


def joined(parts: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> list[tuple[Tensor, Tensor]]:
    """Return the pairs of sums of all groups, given those of each part of the groups."""
    if len(parts) == 1:
        return list(parts[0])
    return [(torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])) for pairs in zip(*parts, strict=True)]


class LogSums:
    """Logarithms of sums over samples and over points, for several logarithms of kernels."""

    def __init__(
        self,
        distances: TileDistances,
        logs: Sequence[TileLog],
        log_weights: Tensor,
        indices: Indices,
        *,
        over_points: bool,
    ) -> None:
        a, b = distances.a, distances.b
        self.logs, self.log_weights, self.indices = logs, log_weights.to(a.dtype).unsqueeze(-2), indices
        self.over_points = over_points
        self.totals = [(torch.full_like(a[..., 0], -math.inf), torch.full_like(b[..., 0], -math.inf)) for _ in logs]

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        """Add a tile."""
        for log, (over_samples, over_points) in zip(self.logs, self.totals, strict=True):
            logarithms = log(sq_dist, tile)
            if meets and self.indices.distinct:
                self.indices.in_(logarithms, tile).fill_(-math.inf)
            if self.over_points:
                _add_logs(over_points[:, tile.columns], logarithms.logsumexp(-2))
            weighted = logarithms.add_(self.log_weights[..., tile.columns])
            _add_logs(over_samples[:, tile.rows], weighted.logsumexp(-1))


def _add_logs(total: Tensor, more: Tensor) -> None:
    torch.logaddexp(total, more, out=total)


def field(
    points: Tensor,
    samples: Tensor,
    weights: Tensor,
    function: PairFunction,
    indices: Indices,
    *,
    traced: bool,
    visits: Visits | None = None,
) -> Field:
    """Return the sums for `w_ij = f(x_i, y_j) w_j`, in :func:`total_dtype`, differentiable twice.

    Second derivatives are those of a matrix of all pairs.

    Args:
        points: `(g, p, d)`.
        samples: `(g, n, d)`; the same object as `points` if they are the same samples.
        weights: `(g, n)`.
        function: the values `f`.
        indices: properties of the pairs of equal index.
        traced: leave everything to autograd, with a matrix of all pairs, since the values have trained parameters.
        visits: earlier visits of the same pairs, if there are any and the function does not overwrite distances.
    """
    with full_precision(points.device):
        if not traced and reverse_mode_only(points, samples, weights):
            return Field(*_Field.apply(points, samples, weights, function, indices, visits))  # type: ignore[no-untyped-call]
        return _whole_field(points, samples, weights, function, indices)


def _whole_field(points: Tensor, samples: Tensor, weights: Tensor, function: PairFunction, indices: Indices) -> Field:
    """Return the sums from a matrix of all pairs, by operations that autograd follows."""
    wide = total_dtype(points.device)
    values = indices.without(function.of_all(points, samples, indices)).to(wide) * weights.unsqueeze(-2).to(wide)
    mass = values.sum(-1)
    points, samples = points.to(wide), samples.to(wide)  # differences of rows far from the centre would be rounded
    centre = samples.detach().mean(-2, keepdim=True)
    pull = values @ (samples - centre) - mass.unsqueeze(-1) * (points - centre)
    return Field(mass, pull)


class _Field(GradientByHand):
    takes_batches = True

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        points: Tensor,
        samples: Tensor,
        weights: Tensor,
        function: PairFunction,
        indices: Indices,
        visits: Visits | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.function, ctx.indices = function, indices
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(points, samples, weights)

        def start(distances: TileDistances, groups: slice) -> Displacements:
            return Displacements(distances, weights[groups], [function], indices, points.dtype)

        parts = (
            visits.visit(start)
            if visits
            else visit_distances(points, samples, function, indices, start, "displacements")
        )
        return joined([part.totals for part in parts])[0]

    @staticmethod
    def backward(ctx: Any, of_mass: Tensor | None, of_pull: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        points, samples, weights = ctx.saved_tensors
        function, indices = ctx.function, ctx.indices
        wide = total_dtype(points.device)
        if of_mass is None:
            of_mass = torch.zeros(points.shape[:2], dtype=wide, device=points.device)
        if of_pull is None:
            of_pull = torch.zeros_like(points, dtype=wide)
        if torch.is_grad_enabled():
            found = differentiable_gradients(
                lambda x, y, w: _whole_field(x, y, w, function, indices), ctx.saved_tensors, (of_mass, of_pull)
            )
            return *found, None, None, None
        targets = [
            torch.zeros_like(tensor, dtype=wide) if want else None
            for tensor, want in zip((points, samples, weights), ctx.needs_input_grad, strict=False)
        ]

        def scalar(of_points: Sequence[Tensor], of_samples: Sequence[Tensor], tile: Tile) -> Tensor:
            (x, mass, pull), (y, w) = of_points, of_samples
            values = values_of_tile(function, indices, x, y, tile).to(wide) * w.to(wide).unsqueeze(-2)
            x, y = x.to(wide), y.to(wide)  # as in the whole field
            centre = x.detach().mean(-2, keepdim=True)
            near_x, near_y = x - centre, y - centre
            steps = mass.unsqueeze(-1) + pull @ near_y.mT - (pull * near_x).sum(-1, keepdim=True)
            return (values * steps).sum()

        with full_precision(points.device):
            wanted = (targets[0], None, None), targets[1:]
            add_gradients(
                scalar, (points, of_mass, of_pull), (samples, weights), *wanted, together=function.takes_groups
            )
        narrow = zip(targets, ctx.saved_tensors, strict=True)
        return *(None if found is None else found.to(tensor.dtype) for found, tensor in narrow), None, None, None


class Displacements:
    """The sums of :class:`Field`, for several functions.

    Args:
        distances: the way in which distances are computed.
        weights: `(g, n)`.
        functions: the values. If there are several, they must not overwrite distances.
        indices: properties of the pairs of equal index.
        dtype: dtype of the scores.
        left_out: the value of pairs that are left out.
        narrow: add up displacements in the dtype of the distances if there are few.
    """

    def __init__(
        self,
        distances: TileDistances,
        weights: Tensor,
        functions: Sequence[ValuesOfPairs],
        indices: Indices,
        dtype: torch.dtype,
        left_out: float = 0.0,
        narrow: bool = False,
    ) -> None:
        a = distances.a
        wide = total_dtype(a.device)
        self.x, self.y, self.far = a, distances.b, distances.far
        self.weights = weights.to(a.dtype).unsqueeze(-1)
        self.weighted = None if self.far else self.y * self.weights
        self.functions, self.indices, self.dtype, self.left_out = functions, indices, dtype, left_out
        self.narrow, self.shape = narrow and self.y.shape[1] <= NARROW_UP_TO, (a.shape[1], self.y.shape[1])
        pull = a.dtype if self.narrow else wide
        self.totals = [(torch.zeros_like(a[..., 0], dtype=wide), torch.zeros_like(a, dtype=pull)) for _ in functions]

    def visit(self, sq_dist: Tensor, tile: Tile, meets: bool, near: NearPairs | None) -> None:
        """Add a tile."""
        for i, function in enumerate(self.functions):
            values = function.values(sq_dist, tile, self.dtype)
            if meets and self.indices.distinct:
                values = values.contiguous()
                self.indices.in_(values, tile).fill_(self.left_out)
            self.add(i, values, tile, near)

    def add(self, number: int, values: Tensor, tile: Tile, near: NearPairs | None) -> None:
        """Add the values of a tile, which may be overwritten, for the function of this number."""
        rows, columns = tile.rows, tile.columns
        x, weights = self.x[:, rows], self.weights[:, columns]
        if self.narrow and self.weighted is not None and near is None and values.shape[1:] == self.shape:
            masses = values @ weights
            pulls = (values @ self.weighted).addcmul_(masses, x, value=-1)
            self.totals[number] = masses.squeeze(-1).to(self.totals[number][0].dtype), pulls
            return
        mass, pull = (total[:, rows] for total in self.totals[number])
        if self.weighted is None:
            values = values * weights.mT
            mass.add_(values.sum(-1))
            pull.add_(differences_weighted(values, x, self.y[:, columns]))
            return
        if near is not None:
            groups, row, column = near.places
            own = values[near.places] * weights[groups, column, 0]
            values[near.places] = 0.0
            mass.index_put_((groups, row), own.to(mass.dtype), accumulate=True)
            pull.index_put_((groups, row), (own.unsqueeze(-1) * near.differences).to(pull.dtype), accumulate=True)
        others = values @ weights
        mass.add_(others.squeeze(-1))
        pull.add_((values @ self.weighted[:, columns]).addcmul_(others, x, value=-1))
