"""Functions in the RKHS of a kernel: their values and gradients at given points.

The functions are combinations of representers. One representer is `k(., b)`, whose inner product with `f` is the value
`f(b)`. The others are the derivatives of `k(., b)` with respect to the coordinates of `b`, whose inner products with
`f` are the derivatives of `f` at `b`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from torch_mmd_losses.hand_written_gradients import where_transforms_record
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.contract import checked_values
from torch_mmd_losses.kernels.summands import GramSummand, RadialSummand, by_kind, sum_of_profiles


@where_transforms_record
def jets(kernel: Kernel, at: Tensor, b: Tensor, combination: Tensor) -> Tensor:
    r"""Return the values and gradients of combinations of representers at given points.

    Function `j` is `c_0 k(., b_j) + sum_i c_i d/d(b_j)_i k(., b_j)`, where `c` is row `j` of `combination`.

    Args:
        kernel: any kernel that is twice differentiable.
        at: points `(m, s)`.
        b: a point for each function, `(n, s)`.
        combination: coefficients `(n, 1 + s)`.

    Returns:
        `(m, 1 + s, n)`: the value of each function at each point, followed by its gradient.
    """
    radial, others = by_kind(kernel._summands())
    parts = [_gram_jets(summand, at, b, combination) for summand in others]
    if radial:
        parts.append(_radial_jets(radial, at, b, combination))
    return torch.stack(parts).sum(0)


@where_transforms_record
def squared_norms(kernel: Kernel, at: Tensor) -> Tensor:
    """Return the squared RKHS norms `(m, 1 + s)` of the representers at each point.

    These are `k(a, a)` and, for each coordinate `i`, the derivative of `k` with respect to coordinate `i` of both
    arguments.
    """
    radial, others = by_kind(kernel._summands())
    unit = torch.eye(1 + at.shape[1], dtype=at.dtype, device=at.device)
    own = [(summand, point, point.expand(len(unit), -1)) for summand in others for point in at.split(1)]
    parts = [_gram_jets(summand, point, copies, unit)[0].diagonal() for summand, point, copies in own]
    norms = torch.stack(parts).unflatten(0, (-1, len(at))).sum(0) if parts else torch.zeros_like(at[:, :1])
    if radial:
        value, first, _ = _derivatives(partial(sum_of_profiles, radial), torch.zeros_like(at))
        norms = norms + torch.cat([value[:, :1], -2 * first], 1)
    return norms


def _radial_jets(summands: Sequence[RadialSummand], at: Tensor, b: Tensor, combination: Tensor) -> Tensor:
    # With t = a - b and k = f(|t|^2): dk/da = 2 f' t = -dk/db and d2k/da db = -2 f' I - 4 f'' t t^T.
    weight, direction = combination[:, 0], combination[:, 1:]
    apart = at.unsqueeze(1) - b
    along = (apart * direction).sum(2)
    sq_dist = apart.square().sum(2)
    value, first, second = _derivatives(partial(sum_of_profiles, summands), sq_dist)
    values = weight * value - 2 * first * along
    radially = 2 * weight * first - 4 * second * along
    gradients = radially.unsqueeze(2) * apart - 2 * first.unsqueeze(2) * direction
    return torch.cat([values.unsqueeze(2), gradients], 2).mT


def _derivatives(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the values of an elementwise function and of its first two derivatives, from one evaluation."""

    def sum_and_value(x: Tensor) -> tuple[Tensor, Tensor]:
        value = f(x)
        return value.sum(), value

    def slope_sum_and_derivatives(x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        slope, value = torch.func.grad(sum_and_value, has_aux=True)(x)
        return slope.sum(), (value, slope)

    second, (value, first) = torch.func.grad(slope_sum_and_derivatives, has_aux=True)(x)
    return value, first, second


def _gram_jets(summand: GramSummand, at: Tensor, b: Tensor, combination: Tensor) -> Tensor:
    weight, direction = combination[:, 0], combination[:, 1:]

    def functions(shift: Tensor) -> tuple[Tensor, Tensor]:
        # A kernel value depends on its own pair only, so one shift of all points gives the derivatives of each pair.
        def gram(step: Tensor) -> Tensor:
            values = summand.kernel(at + shift, b + step * direction)
            return checked_values(type(summand.kernel).__name__, values, (len(at), len(b)), at.device)

        jvp = torch.func.jvp(gram, (at.new_zeros(()),), (at.new_ones(()),))
        total = summand.factor * (weight * jvp[0] + jvp[1])
        return total, total

    gradients, values = torch.func.jacfwd(functions, has_aux=True)(at.new_zeros(at.shape[1]))
    return torch.cat([values.unsqueeze(2), gradients], 2).mT
