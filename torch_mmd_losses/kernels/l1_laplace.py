"""The Laplace kernel of the 1-norm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses import checks, hand_written_gradients
from torch_mmd_losses.distances import Sample
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.contract import GramFunction, is_moderate
from torch_mmd_losses.precision import has_fast_float64


class L1LaplaceKernel(Kernel):
    r"""Laplace kernel of the 1-norm, :math:`k(a, b) = \exp(-\lVert a - b \rVert_1 / scale)`, with values in (0, 1].

    It is the product over the coordinates of one-dimensional Laplace kernels. It is not a function of the Euclidean
    distance and cannot be computed by a matrix product. Values and gradients are sums over coordinates of differences,
    in memory that does not grow with the dimension, except under `torch.compile` and in function transforms. For the
    Euclidean norm, see :class:`LaplaceKernel`, which is much faster.

    The absolute value has no derivative at zero: coordinates in which two scores are equal contribute nothing to the
    gradient of the pair. Second derivatives are those of the exponential; the kernel is refused where they would be
    needed at coincident samples (:func:`gradient_constrained_mmd2`).

    Args:
        scale: scale of the 1-norm, in the units of the scores, from 1e-30 to 1e30. MMD-FUSE's
            :math:`\exp(-\sqrt{2} \lVert a - b \rVert_1 / h)` has the scale :math:`h / \sqrt{2}`, and
            :math:`\exp(-\lVert a - b \rVert_1 / (2 \sigma))` of BEAR has :math:`2 \sigma`.

    Raises:
        TypeError: if `scale` is not a real number.
        ValueError: if `scale` is out of range.

    Example:
        >>> L1LaplaceKernel(scale=7.0)(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
        tensor([[0.3679]])

    References:
        Biggs et al. (2023), Section 5, for its use in tests.
    """

    _hyperparameters = ("scale",)
    _is_smooth = False

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = checks.hyperparameter("scale", scale)

    def _function(self) -> GramFunction:
        return GramFunction(self._exponentials, by_hand=True, by_groups=True)

    def _exponentials(self, a: Sample, b: Sample) -> Tensor:
        distances = l1_distances(a.scores, b.scores) if is_moderate(self.scale) else l1_distances(a.precise, b.precise)
        # In float32, a value near one keeps few digits of its difference from one.
        return torch.exp((distances.double() if has_fast_float64(distances.device) else distances) / -self.scale)


def l1_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the 1-norms `(..., m, n)` of the differences of the rows of `a` `(..., m, d)` and `b` `(..., n, d)`.

    They are differentiable any number of times; the derivative of the absolute value at zero is zero.
    """
    if hand_written_gradients.reverse_mode_only(a, b):
        distances = _Distances.apply(a, b)  # type: ignore[no-untyped-call]
    else:
        distances = (a.unsqueeze(-2) - b.unsqueeze(-3)).abs().sum(-1)
    # The distance of an infinite score is NaN, as in expansions: exp(-inf) would hide it.
    return distances + _nan_if_infinite(a).unsqueeze(-1) + _nan_if_infinite(b).unsqueeze(-2)


def _nan_if_infinite(scores: Tensor) -> Tensor:
    """Return zero for each row, or NaN if a number in it is not finite."""
    return (scores.detach() * 0).sum(-1)


class _Distances(hand_written_gradients.GradientByHand):
    """The distances. `torch.cdist` has no second derivative with p=1; autograd would keep a matrix for each column."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(a, b)
        if a.is_meta:
            return a.new_empty(*a.shape[:-1], b.shape[-2])
        return torch.cdist(a, b, p=1)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        return _Pulls.apply(outer, *ctx.saved_tensors)  # type: ignore[no-untyped-call]


class _Pulls(hand_written_gradients.GradientByHand):
    """The sums of `outer[..., i, j] * sign(a_i - b_j)` over `j`, and over `i` with the opposite sign."""

    @staticmethod
    def forward(ctx: Any, outer: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        ctx.save_for_backward(outer, a, b)
        to_a, to_b = torch.empty_like(a), torch.empty_like(b)
        for column in range(a.shape[-1]):
            pull = _signs(a, b, column).mul_(outer)
            to_a[..., column], to_b[..., column] = pull.sum(-1), -pull.sum(-2)
        return to_a, to_b

    @staticmethod
    def backward(ctx: Any, along_a: Tensor, along_b: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        _, a, b = ctx.saved_tensors
        return _Slopes.apply(along_a, along_b, a, b), None, None  # type: ignore[no-untyped-call]


class _Slopes(hand_written_gradients.GradientByHand):
    """The sums `(..., m, n)` of `sign(a_i - b_j) * (p_i - q_j)` over the coordinates: the transpose of the pulls."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor, a: Tensor, b: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(a, b)
        total = a.new_zeros(*a.shape[:-1], b.shape[-2])
        for column in range(a.shape[-1]):
            total.addcmul_(_signs(a, b, column), p[..., column].unsqueeze(-1) - q[..., column].unsqueeze(-2))
        return total

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401
        return (*_Pulls.apply(outer, *ctx.saved_tensors), None, None)  # type: ignore[no-untyped-call]


def _signs(a: Tensor, b: Tensor, column: int) -> Tensor:
    return (a[..., column].unsqueeze(-1) - b[..., column].unsqueeze(-2)).sign_()
