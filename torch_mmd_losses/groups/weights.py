"""Weights of samples: checks, normalisation, and the factors of the estimators."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_mmd_losses import checks, hand_written_gradients
from torch_mmd_losses.groups.call import Tensors
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.types import Estimator


def with_checked_weights(
    tensors: Tensors, real_weights: object, fake_weights: object, groups: tuple[int, ...], estimator: Estimator
) -> Tensors:
    """Return the tensors of a call with the weights that a user gave.

    On a CPU, wrong weights raise. On other devices the host would have to wait for the numbers, and under the compiler
    and in function transforms there are none. There, wrong weights give NaN in their group.

    Args:
        tensors: the scores and their scale.
        real_weights: weights >= 0 of any sum, `(*G, m)`; None stands for equal weights.
        fake_weights: `(*G, n)`, likewise.
        groups: the shape of the groups, `G`.
        estimator: see :func:`torch_mmd_losses.mmd2`.
    """
    if estimator == "u_statistic":
        raise ValueError(
            "estimator: expected 'unbiased' or 'biased' with weights, got 'u_statistic', which leaves out the pairs of "
            "a real and a fake sample of equal index"
        )
    found = [
        None if weights is None else _normalised(name, weights, scores, groups, estimator)
        for name, weights, scores in (
            ("real_weights", real_weights, tensors.real),
            ("fake_weights", fake_weights, tensors.fake),
        )
    ]
    return with_weights(tensors, found[0], found[1], estimator)


def with_weights(
    tensors: Tensors, real_weights: Tensor | None, fake_weights: Tensor | None, estimator: Estimator
) -> Tensors:
    """Return the tensors of a call with weights that sum to one in each group, of any sign.

    Args:
        tensors: the scores and their scale.
        real_weights: `(G, m)` in :func:`total_dtype`; None stands for equal weights.
        fake_weights: `(G, n)`, likewise.
        estimator: "biased", or "unbiased" for weights that are not all on one sample.
    """
    found = [
        _equal(scores) if weights is None else weights
        for scores, weights in zip(tensors.samples(), (real_weights, fake_weights), strict=True)
    ]
    within: list[Tensor | None] = [None, None]
    if estimator == "unbiased":
        within = [1 / (1 - weights.square().sum(1)) for weights in found]
    return Tensors(tensors.real, tensors.fake, tensors.scale, *found, *within)


def _normalised(name: str, weights: object, scores: Tensor, groups: tuple[int, ...], estimator: Estimator) -> Tensor:
    """Return weights >= 0 as `(G, m)` in :func:`total_dtype`, divided by their sum in each group, or raise."""
    given = checks.weights(name, weights, (*groups, scores.shape[1]), scores.device)
    wide = given.reshape(scores.shape[:2]).to(total_dtype(scores.device))
    if is_known_to_host(given):
        _check_numbers(name, wide.detach(), estimator)
    else:
        wide = torch.where(wide >= 0, wide, math.nan)
    return wide / wide.sum(1, keepdim=True)


def is_known_to_host(numbers: Tensor) -> bool:
    """Return whether the host can read numbers without waiting for them."""
    return numbers.is_cpu and hand_written_gradients.reverse_mode_only(numbers)


def _check_numbers(name: str, weights: Tensor, estimator: Estimator) -> None:
    least, total = weights.amin(1), weights.sum(1)
    wrong = ~((least >= 0) & (total > 0) & (total < math.inf))
    if bool(wrong.any()):
        group = int(wrong.nonzero()[0])
        smallest, sum_ = float(least[group]), float(total[group])
        came = f"{smallest:g}" if not smallest >= 0 else f"weights that sum to {sum_:g}"
        raise ValueError(
            f"{name}: expected finite weights >= 0, not all zero, got {came}{_in_group(group, len(weights))}"
        )
    if estimator == "unbiased":
        alone = (weights / total.unsqueeze(1)).square().sum(1) >= 1
        if bool(alone.any()):
            group = int(alone.nonzero()[0])
            raise ValueError(
                f"{name}: expected at least 2 samples of weight > 0 for estimator='unbiased', which leaves out the "
                f"pairs of a sample with itself, got 1{_in_group(group, len(weights))}"
            )


def _in_group(group: int, groups: int) -> str:
    return f" in group {group}" if groups > 1 else ""


def _equal(scores: Tensor) -> Tensor:
    size = scores.shape[1]
    return torch.full(scores.shape[:2], 1 / size, dtype=total_dtype(scores.device), device=scores.device)
