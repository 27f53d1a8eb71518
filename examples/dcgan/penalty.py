"""The repulsive loss with a gradient penalty in place of spectral normalisation, Appendix D.1 of Wang et al. (2019)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PENALISED = ("mmd-rep", "mmd-rep-b")
"""Losses of a single kernel with values of at most 1, for which the penalty is meant."""


def check_penalised(name: str, lambda_: float | None) -> None:
    """Raise `ValueError` for a loss that may exceed 1, where the penalty would reward large gradients."""
    if name not in PENALISED or not 0 <= (1.0 if lambda_ is None else lambda_) <= 1:
        chosen = name if lambda_ is None else f"{name} with lambda {lambda_}"
        expected = " or ".join(PENALISED)
        raise ValueError(f"gradient_penalty: expected {expected}, with lambda between 0 and 1; got {chosen}")


def penalised(
    loss: Tensor,
    scores: Tensor,
    images: Tensor,
    weight: float,
    expectation: Callable[[Tensor], Tensor] = torch.mean,
) -> Tensor:
    r"""Return the discriminator's loss, divided by what grows with the gradients at the real images.

    .. math:: \frac{L_D - 1}{1 + w \, E \lVert \nabla D(x) \rVert_F^2}

    The numerator is not positive, so that the discriminator lowers the loss and the gradients alike. The formula is
    Arbel et al.'s, without the term for the size of the kernel; the authors use a weight of 0.1, one score per image
    and no spectral normalisation.

    Args:
        loss: the discriminator's loss, at most 1.
        scores: scores `(n, d)` of the real images; each may only depend on its own image.
        images: the real images, of which `scores` have to be a differentiable function.
        weight: the weight w, 0.1 in the paper.
        expectation: returns the mean of what is given for each real image.
    """
    return (loss - 1) / (1 + weight * expectation(_squared_norm_of_jacobian(scores, images)))


def _squared_norm_of_jacobian(scores: Tensor, images: Tensor) -> Tensor:
    """Return the squared Frobenius norm of the derivative of `(n, d)` scores by their images, for each of the n."""
    # Of sums and not of means: so they neither vanish nor overflow in float16, and need no scale.
    rows = [torch.autograd.grad(column.sum(), images, create_graph=True)[0] for column in scores.unbind(1)]
    return torch.stack(rows).square().flatten(2).sum(dim=(0, 2))
