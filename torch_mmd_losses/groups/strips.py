"""MMD^2 of groups of a few hundred samples with a Gaussian kernel, strip by strip.

A strip is some rows of the Gram matrix of the stacked scores of a group, from the diagonal on. Each pair is evaluated
once, and a group needs few operations: three products of matrices and an exponential for each strip, which take most of
the time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses.distances import FLOAT32_LIMIT, centred, distance_factors, squared_norms
from torch_mmd_losses.groups import tiled
from torch_mmd_losses.groups.call import Part, Plan, Tensors, parts, zero_gradients, zeros
from torch_mmd_losses.kernels.profiles import LOG_2
from torch_mmd_losses.kernels.summands import common_exponent, worst_conditioning
from torch_mmd_losses.pairs.tile_distances import largest_square

HEIGHT = 128
"""Number of rows of a strip: half a megabyte for a thousand columns in float32, which stays in the cache of a core."""

UP_TO = 2048
"""Number of real and fake samples of a group up to which strips are not too long."""


def are_possible(plan: Plan, tensors: Tensors) -> bool:
    """Return whether groups may be evaluated in strips."""
    return (
        tensors.real.is_cpu
        and tensors.real.dtype == torch.float32
        and tensors.scale is None
        and tensors.real_weights is None
        and tensors.real.shape[1] + tensors.fake.shape[1] <= UP_TO
        and plan.tile_size is None
        and plan.estimator != "u_statistic"
        and bool(plan.radial)
        and common_exponent(plan.radial) is not None
    )


def values_and_gradients(plan: Plan, tensors: Tensors, wanted: Sequence[bool]) -> tuple[Tensor, list[Tensor | None]]:
    """Return the value of each group, and the gradients of their sum, see :func:`tiled.values_and_gradients`."""
    values, gradients = zeros(tensors), zero_gradients(tensors, wanted)
    conditioning = worst_conditioning(plan.radial, tensors.real)
    three, rate = parts(tensors, plan.estimator), common_exponent(plan.radial) or 0.0
    for group in range(len(values)):
        one = tensors.of(slice(group, group + 1))
        stack = torch.cat(one.samples(), 1)[0]
        stack, _ = centred(stack, stack)
        squares = squared_norms(stack, stack)
        largest = largest_square(squares)
        in_float32 = conditioning.is_moderate and largest * conditioning.steepness <= FLOAT32_LIMIT
        if in_float32 and not conditioning.is_wide(largest):
            factors = distance_factors(stack, stack, rate, squares)
            value, pulls = _of_group(stack, factors, three, tensors.real.shape[1], wanted)
            values[group] = value
            for side, gradient in enumerate(gradients[:2]):
                if gradient is not None:
                    gradient[group] = pulls[one.rows(side)].mul_(4 * rate * LOG_2)
        else:
            tiled.add_group(plan, one, values[group], [None if g is None else g[group] for g in gradients])
    return values, gradients


def _of_group(
    stack: Tensor, factors: tuple[Tensor, Tensor], three: Sequence[Part], m: int, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """Return the value of a group, and `sum_j w_ij k_ij (z_i - z_j)` for each row, where it is wanted.

    The weights `w` are those of ordered pairs, so that a pair of real and fake samples has half its weight twice.
    """
    left, right = factors
    sums, products = stack.new_zeros(len(stack)), torch.zeros_like(stack)
    totals = []
    for a, b, distinct, factor in three:
        (start, stop), last = ((0, m), (m, len(stack)))[a], (m, len(stack))[b]
        weight, found = factor if a == b else factor / 2, []
        for top in range(start, stop, HEIGHT):
            rows = slice(top, min(top + HEIGHT, stop))
            columns = slice(top if a == b else m, last)
            strip = (left[rows] @ right[columns].T).exp2_()
            if a == b:
                strip.diagonal().fill_(0.0 if distinct else 1.0)
            of_rows, beyond, others = strip.sum(1), strip, columns
            if a == b:  # the pairs beyond the square on the diagonal occur in both orders, but once here
                square, others = strip[:, : rows.stop - top], slice(rows.stop, last)
                beyond = strip[:, rows.stop - top :]
                found.append(2 * of_rows - square.sum(1))
            else:
                found.append(of_rows)
            if wanted[b]:
                sums[others].add_(beyond.sum(0), alpha=weight)
                products[others].addmm_(beyond.T, stack[rows], alpha=weight)
            if wanted[a]:
                sums[rows].add_(of_rows, alpha=weight)
                products[rows].addmm_(strip, stack[columns], alpha=weight)
        totals.append(factor * torch.cat(found).sum(dtype=torch.float64))
    return torch.stack(totals).sum(), sums.unsqueeze(1) * stack - products
