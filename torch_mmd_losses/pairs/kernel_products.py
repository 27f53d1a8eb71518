"""Sums of kernel values at given points: products of Gram matrices with other matrices, without a whole Gram matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.hand_written_gradients import (
    GradientByHand,
    reverse_mode_only,
    where_transforms_record,
    with_graph,
)
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.summands import Summand, may_be_constant
from torch_mmd_losses.pairs.linear_products import linear_gradients, linear_products, without_linear
from torch_mmd_losses.pairs.pair_functions import Indices, KernelValues, Tile
from torch_mmd_losses.pairs.plan import DENSE_UP_TO
from torch_mmd_losses.pairs.product_tiles import (
    Gradients,
    Moments,
    Sums,
    add_gradients,
    tiles_of_groups,
    values_of_tile,
    visit_distances,
)
from torch_mmd_losses.pairs.tile_distances import TileDistances
from torch_mmd_losses.pairs.tiles import tile_side
from torch_mmd_losses.precision import full_precision, total_dtype


class Request(NamedTuple):
    """The summands of a call, and the pairs to sum over."""

    function: KernelValues
    indices: Indices


def kernel_products(
    points: Tensor, samples: Tensor, coefficients: Tensor, kernel: Kernel, *, distinct: bool = False
) -> Tensor:
    """Return the sums over samples of kernel values times coefficients, `sum_j k(x_i, y_j) c_j`.

    Args:
        points: checked points `(g, p, d)`.
        samples: checked samples `(g, n, d)`; the same object as `points` if they are the same samples.
        coefficients: `(g, n, c)`, in any floating-point dtype.
        kernel: the kernel.
        distinct: leave out pairs of equal index.

    Returns:
        `(g, p, c)` in :func:`total_dtype`, differentiable twice. Under the compiler, in function transforms and for
        kernels with trained parameters, there is a whole Gram matrix. A small group with gradients has one, too,
        because its time depends on the number of operations, and second derivatives in tiles take many. Linear kernels
        need no Gram matrix.
    """
    summands, factor = without_linear(kernel._summands())
    parts = []
    with full_precision(points.device):
        if summands:
            parts.append(_of_pairs(points, samples, coefficients, summands, distinct))
        if factor is not None:
            parts.append(factor * linear_products(points, samples, coefficients, distinct=distinct))
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _of_pairs(
    points: Tensor, samples: Tensor, coefficients: Tensor, summands: Sequence[Summand], distinct: bool
) -> Tensor:
    function = KernelValues(summands)
    request = Request(function, Indices(distinct, samples is points))
    by_hand = reverse_mode_only(points, samples, coefficients) and not function.is_trained(points)
    if by_hand and not _is_small_and_differentiated(points, samples, coefficients):
        return _Products.apply(points, samples, coefficients, request)  # type: ignore[no-untyped-call]
    wide = total_dtype(points.device)
    gram = request.indices.without(function.of_all(points, samples, request.indices))
    gram = with_graph(gram, points, samples, may_lead_elsewhere=not by_hand and may_be_constant(summands))
    return gram.to(wide) @ coefficients.to(wide)


def kernel_moments(
    points: Tensor, samples: Tensor, weights: Tensor | None, kernel: Kernel, *, distinct: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the sums over samples of weighted kernel values, and of the samples with the same weights.

    Args:
        points: checked points `(g, p, d)`.
        samples: checked samples `(g, n, d)`; the same object as `points` if they are the same samples.
        weights: `(g, n)`, or None for ones.
        kernel: the kernel.
        distinct: leave out pairs of equal index.

    Returns:
        `(g, p)` and `(g, p, d)` in the dtype of the points, differentiable twice, see :func:`kernel_products`.
    """
    if _is_plain(points, samples, weights, kernel):
        function, indices = KernelValues(kernel._summands()), Indices(distinct, samples is points)
        into = torch.empty_like(points[..., 0]), torch.empty_like(points)

        def start(distances: TileDistances, groups: slice) -> Moments:
            own = None if weights is None else weights[groups]
            return Moments(distances, samples[groups], own, function, indices, (into[0][groups], into[1][groups]))

        with full_precision(points.device):
            visit_distances(points, samples, function, indices, start, "values")
        return into
    moments = samples if weights is None else weights.unsqueeze(-1) * samples
    ones = torch.ones_like(samples[..., :1]) if weights is None else weights.unsqueeze(-1)
    found = kernel_products(points, samples, torch.cat([ones, moments], -1), kernel, distinct=distinct)
    return found[..., 0].to(points.dtype), found[..., 1:].to(points.dtype)


def _is_plain(points: Tensor, samples: Tensor, weights: Tensor | None, kernel: Kernel) -> bool:
    """Return whether the sums need no graph, and are those of a kernel of the distance."""
    tensors = [points, samples] if weights is None else [points, samples, weights]
    if not reverse_mode_only(*tensors) or (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
        return False
    function = KernelValues(kernel._summands())
    return not function.others and not function.is_trained(points)


def _is_small_and_differentiated(points: Tensor, samples: Tensor, coefficients: Tensor) -> bool:
    (groups, p), n = points.shape[:2], samples.shape[1]
    return (
        groups == 1
        and p + n <= DENSE_UP_TO
        and p * n <= tile_side(None, points.device) ** 2
        and torch.is_grad_enabled()
        and (points.requires_grad or samples.requires_grad or coefficients.requires_grad)
    )


def kernel_gradients(points: Tensor, samples: Tensor, weights: Tensor, kernel: Kernel, *, same: bool = False) -> Tensor:
    """Return the gradient at each point of the sum over samples of kernel values, `sum_j w_j grad_x k(x_i, y_j)`.

    Args:
        points: checked points `(g, p, d)`.
        samples: checked samples `(g, n, d)`.
        weights: `(g, n)`.
        kernel: the kernel.
        same: whether the first samples are the points.

    Returns:
        `(g, p, d)` in the dtype of the points, differentiable once.
    """
    summands, factor = without_linear(kernel._summands())
    parts = []
    with full_precision(points.device):
        if summands:
            parts.append(_gradients_of_pairs(points, samples, weights, summands, same))
        if factor is not None:
            parts.append(factor * linear_gradients(points, samples, weights))
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _gradients_of_pairs(
    points: Tensor, samples: Tensor, weights: Tensor, summands: Sequence[Summand], same: bool
) -> Tensor:
    function = KernelValues(summands)
    request, coefficients = Request(function, Indices(False, same or samples is points)), weights.unsqueeze(-1)
    wide = total_dtype(points.device)
    by_tiles = reverse_mode_only(points, samples, weights) and not function.is_trained(points)
    # Autograd, which finds the slopes of functions of the scores in tiles, records nothing in inference mode.
    if by_tiles and not (function.others and torch.is_inference_mode_enabled()):
        outer = torch.ones(*points.shape[:2], 1, dtype=wide, device=points.device)
        return _gradient_at_points(points, samples, coefficients, outer, request)

    def total(x: Tensor) -> Tensor:
        return (function.of_all(x, samples, request.indices).to(wide) @ coefficients.to(wide)).sum()

    gradients = where_transforms_record(torch.func.grad(total))(points)
    return with_graph(gradients, points, samples, may_lead_elsewhere=may_be_constant(summands))


def signed_samples(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Return the samples of both sets `(..., m + n, d)`, and the weights `(m + n,)` of the witness function in them.

    One sum over all samples has one centre and one rounding.
    """
    m, n = real.shape[-2], fake.shape[-2]
    weights = torch.ones(m + n, dtype=total_dtype(real.device), device=real.device)
    return torch.cat([real, fake], -2), torch.cat([weights[:m] / m, weights[m:] / -n])


class _Products(GradientByHand):
    @staticmethod
    def forward(ctx: Any, points: Tensor, samples: Tensor, coefficients: Tensor, request: Request) -> Tensor:  # noqa: ANN401
        ctx.request = request
        ctx.save_for_backward(points, samples, coefficients)
        return _sums(points, samples, coefficients, request)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        wanted = tuple(ctx.needs_input_grad[:3])
        found = _ProductGradients.apply(*ctx.saved_tensors, outer, ctx.request, wanted)  # type: ignore[no-untyped-call]
        return (*found, None)


class _ProductGradients(GradientByHand):
    """The gradients of `<outer, products>` for points, samples and coefficients, differentiable once more."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        points: Tensor,
        samples: Tensor,
        coefficients: Tensor,
        outer: Tensor,
        request: Request,
        wanted: Sequence[bool],
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.request = request
        ctx.save_for_backward(points, samples, coefficients, outer)
        with full_precision(points.device):
            found = _gradients(points, samples, coefficients, outer, request, wanted)
        narrow = (points, samples, coefficients)
        return tuple(None if g is None else g.to(t.dtype) for g, t in zip(found, narrow, strict=True))

    @staticmethod
    def backward(ctx: Any, *along: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        tensors = ctx.saved_tensors
        with torch.no_grad(), full_precision(tensors[0].device):
            found = _second_gradients(tensors, along, ctx.request, ctx.needs_input_grad[:4])
        narrow = [None if g is None else g.to(t.dtype) for g, t in zip(found, tensors, strict=True)]
        if torch.is_grad_enabled():
            narrow = list(_NoFurther.apply(len(narrow), *narrow, *tensors))  # type: ignore[no-untyped-call]
        return (*narrow, None, None)


def _gradient_at_points(
    points: Tensor, samples: Tensor, coefficients: Tensor, outer: Tensor, request: Request
) -> Tensor:
    """Return the gradient of `<outer, products>` with respect to the points, differentiable once."""
    wanted = (True, False, False)
    gradient, _, _ = _ProductGradients.apply(points, samples, coefficients, outer, request, wanted)  # type: ignore[no-untyped-call]
    return gradient


class _NoFurther(GradientByHand):
    """Gradients that cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return tensors[:count]

    @staticmethod
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        raise NotImplementedError(
            "kernel_sums, witness, witness_gradient: expected at most two derivatives with respect to the samples in "
            "eager mode (witness_gradient is one of them), got a third. Transforms of torch.func support more"
        )


def _sums(points: Tensor, samples: Tensor, coefficients: Tensor, request: Request) -> Tensor:
    function, indices = request
    shape, wide = (*points.shape[:2], coefficients.shape[2]), total_dtype(points.device)
    if function.has_radial:
        found = visit_distances(
            points,
            samples,
            function,
            indices,
            lambda distances, groups: Sums(distances, coefficients[groups], function, indices, points.dtype),
            "values",
        )
        total = found[0].total if len(found) == 1 else torch.cat([sums.total for sums in found])
    else:
        total = torch.zeros(shape, dtype=wide, device=points.device)
    if function.others:
        others = KernelValues(function.others)
        for tile in tiles_of_groups(points, samples, together=others.takes_groups):
            rows, columns = (tile.groups, tile.rows), (tile.groups, tile.columns)
            values = values_of_tile(others, indices, points[rows], samples[columns], tile)
            total[rows].add_(values.to(wide) @ coefficients[columns].to(wide))
    return total


def _gradients(
    points: Tensor, samples: Tensor, coefficients: Tensor, outer: Tensor, request: Request, wanted: Sequence[bool]
) -> list[Tensor | None]:
    function, indices = request
    inputs = points, samples, coefficients
    if function.has_radial:
        visitors = visit_distances(
            points,
            samples,
            function,
            indices,
            lambda distances, groups: Gradients(
                distances, coefficients[groups], outer[groups], function, indices, points.dtype, wanted
            ),
            "slopes",
        )
        parts = zip(*[(each.to_points, each.to_samples, each.to_coefficients) for each in visitors], strict=True)
        found = [_joined(part) for part in parts]
    else:
        found = _wide_zeros(inputs, wanted)
    if function.others:
        others = KernelValues(function.others)

        def inner(of_points: Sequence[Tensor], of_samples: Sequence[Tensor], tile: Tile) -> Tensor:
            return _inner(others, indices, of_points, of_samples, tile)

        targets = (found[0], None), found[1:]
        add_gradients(inner, (points, outer), (samples, coefficients), *targets, together=others.takes_groups)
    return found


def _second_gradients(
    tensors: Sequence[Tensor], along: Sequence[Tensor | None], request: Request, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Return the gradients of the inner product of :func:`_gradients` and `along` with respect to all tensors."""
    points, samples, coefficients, outer = tensors
    steps = [torch.zeros_like(t) if v is None else v for t, v in zip(tensors[:3], along, strict=True)]
    found = _wide_zeros(tensors, wanted)

    def along_gradients(of_points: Sequence[Tensor], of_samples: Sequence[Tensor], tile: Tile) -> Tensor:
        value = _inner(request.function, request.indices, of_points, of_samples, tile)
        leaves = of_points[0], *of_samples[:2]
        slopes = torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True)
        directions = of_points[2], *of_samples[2:]
        return torch.stack([(g * v).sum() for g, v in zip(slopes, directions, strict=True)]).sum()

    add_gradients(
        along_gradients,
        (points, outer, steps[0]),
        (samples, coefficients, *steps[1:]),
        (found[0], found[3], None),
        (found[1], found[2], None, None),
        together=request.function.takes_groups,
    )
    return found


def _inner(
    function: KernelValues, indices: Indices, of_points: Sequence[Tensor], of_samples: Sequence[Tensor], tile: Tile
) -> Tensor:
    """Return `<outer, products>` for a tile, differentiable twice."""
    x, outer, y, coefficients = *of_points[:2], *of_samples[:2]
    values = values_of_tile(function, indices, x, y, tile)
    wide = total_dtype(x.device)
    return (values.to(wide) * (outer.to(wide) @ coefficients.to(wide).mT)).sum()


def _wide_zeros(tensors: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor | None]:
    wide = total_dtype(tensors[0].device)
    return [torch.zeros_like(t, dtype=wide) if want else None for t, want in zip(tensors, wanted, strict=True)]


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None
