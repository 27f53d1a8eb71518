"""The repulsive loss with a gradient penalty in place of spectral normalisation, Appendix D.1 of Wang et al. (2019)."""

from __future__ import annotations

from torch import Tensor

PENALISED = ("mmd-rep", "mmd-rep-b")
"""Losses of a single kernel with values of at most 1, for which the penalty is meant."""


def check_penalised(name: str, lambda_: float | None) -> None:
    """Raise `ValueError` for a loss that may exceed 1, where the penalty would reward large gradients."""
    if name not in PENALISED or not 0 <= (1.0 if lambda_ is None else lambda_) <= 1:
        chosen = name if lambda_ is None else f"{name} with lambda {lambda_}"
        expected = " or ".join(PENALISED)
        raise ValueError(f"gradient_penalty: expected {expected}, with lambda between 0 and 1; got {chosen}")


def penalised(loss: Tensor, steepness: Tensor, weight: float) -> Tensor:
    r"""Return the discriminator's loss, divided by what grows with the gradients at the real images.

    .. math:: \frac{L_D - 1}{1 + w \, E \lVert \nabla D(x) \rVert_F^2}

    The numerator is not positive, so that the discriminator lowers the loss and the gradients alike. The formula is
    Arbel et al.'s, without the term for the size of the kernel; the authors use a weight of 0.1, one score per image
    and no spectral normalisation.

    Args:
        loss: the discriminator's loss, at most 1.
        steepness: the mean squared norm of the gradients at the real images, `gradient_penalty(D(x), x, target=0.0)`.
        weight: the weight w, 0.1 in the paper.
    """
    return (loss - 1) / (1 + weight * steepness)
