"""The small critic that the authors' numbers are about, and slow ways to the derivatives of any critic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from authors import tensor
from torch import Tensor, nn

WEIGHTS = ("W1", "b1", "W2", "b2")


class Critic:
    """`phi(x) = tanh(flatten(x) W1 + b1) W2 + b2` with weights that require gradients."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        self.weights = [tensor(inputs[name]).requires_grad_() for name in WEIGHTS]

    def hidden(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ self.weights[0] + self.weights[1])

    def __call__(self, x: Tensor) -> Tensor:
        return self.hidden(x) @ self.weights[2] + self.weights[3]


def network(inputs: int, scores: int, *, seed: int = 0) -> nn.Module:
    """Return a small smooth critic in float64 that takes samples of any shape with `inputs` entries."""
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, scores))
    return layers.double()


def squared_jacobians(critic: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Return the squared Frobenius norm of the Jacobian at each sample, one sample at a time."""
    rows = [torch.autograd.functional.jacobian(critic, x.detach()[None]) for x in inputs]
    return torch.stack([row.square().sum() for row in rows])
