"""Features of samples, and their Jacobian."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.hand_written_gradients import reverse_mode_only, where_transforms_record

Features = Callable[[Tensor], Tensor]


def scores_of(name: str, inputs: Tensor, features: Features | None) -> Tensor:
    """Return the scores `(m, s)` of samples `(m, ...)`; without features, the samples themselves."""
    if features is None:
        return checks.scores(name, inputs)
    scores = features(inputs)
    if isinstance(scores, Tensor) and (scores.dim() == 0 or len(scores) != len(inputs)):
        raise ValueError(
            f"features: expected one row of scores for each of the {len(inputs)} samples in {name}, got shape "
            f"{tuple(scores.shape)}"
        )
    return checks.scores("features", scores)


def scores_and_jacobian(name: str, inputs: Tensor, features: Features) -> tuple[Tensor, Tensor]:
    """Return the scores of samples, and their derivatives `(m, s, d)` with respect to the own sample."""
    by_autograd = reverse_mode_only(inputs) and not torch.is_inference_mode_enabled()
    scores, columns = (_by_autograd if by_autograd else _by_transform)(name, inputs, features)
    return scores, torch.stack([column.reshape(len(inputs), -1) for column in columns], 1)


def _by_autograd(name: str, inputs: Tensor, features: Features) -> tuple[Tensor, list[Tensor]]:
    """Return scores, and the gradient of the sum of each column of them."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = inputs.view_as(inputs) if inputs.requires_grad else inputs.detach().requires_grad_()
        scores = _with_graph(scores_of(name, leaf, features))
        return scores, [
            torch.autograd.grad(
                column.sum(), leaf, retain_graph=True, create_graph=differentiable, materialize_grads=True
            )[0]
            for column in scores.unbind(1)
        ]


@where_transforms_record
def _by_transform(name: str, inputs: Tensor, features: Features) -> tuple[Tensor, list[Tensor]]:
    """Return the same within function transforms, forward-mode derivatives and inference mode, by a transform."""
    scores, pull = torch.func.vjp(lambda x: _with_graph(scores_of(name, x, features)), inputs)[:2]
    unit = torch.eye(scores.shape[1], dtype=scores.dtype, device=scores.device)
    return scores, [pull(direction.expand_as(scores))[0] for direction in unit]


def _with_graph(scores: Tensor) -> Tensor:
    if not scores.requires_grad:
        raise ValueError(
            "features: expected scores that are differentiable with respect to the samples, got scores without a "
            "graph (detached, or computed under torch.no_grad() or torch.inference_mode()?)"
        )
    return scores
