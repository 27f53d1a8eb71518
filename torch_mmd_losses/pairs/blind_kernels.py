"""Warnings of kernels that have the same value for all pairs of samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_mmd_losses import usage_warnings
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.pairs import reach

EXAMINED = 256
"""Number of real and of fake samples that are examined where the function itself does not visit all pairs."""

GROUPS = 64
"""Number of groups that are examined."""

UNDERFLOW, NEVER = 0.0, -1.0
"""Which kernel values count as zero: those that are zero in the dtype of the samples, or none."""


def warn_of_one_value(
    name: str, kernels: Sequence[Kernel], real: Tensor, fake: Tensor, *, smallest: float | None = None
) -> None:
    """Warn if none of the kernels distinguishes samples.

    Args:
        name: name of the function that the user has called.
        kernels: the kernels, at least one of which has to distinguish samples.
        real: checked samples `(m, d)`.
        fake: checked samples `(n, d)`.
        smallest: see :func:`torch_mmd_losses.pairs.reach.has_one_value`.
    """
    if not reach.is_readable(real, fake):
        return
    if all(reach.has_one_value(kernel, real, fake, smallest=smallest) for kernel in kernels):
        usage_warnings.warn(
            "one kernel value",
            f"{name}: expected kernel values between zero and the peak of the kernel, got the same value for all "
            f"pairs: {reach.explanation(kernels[0], real, fake, of_discriminator=False)}",
        )


def warn_of_blind_groups(
    name: str,
    kernel: Kernel,
    real: Tensor,
    fake: Tensor,
    *,
    scale: Tensor | None = None,
    smallest: float | None = None,
) -> None:
    """Warn if a kernel does not tell samples apart in any group. That it does not in some of them is legal.

    Args:
        name: name of the function that the user has called.
        kernel: the kernel.
        real: checked samples `(g, m, d)`.
        fake: checked samples `(g, n, d)`, or `real`.
        scale: numbers `(g,)` by which the distances of each group are divided; None stands for ones.
        smallest: see :func:`torch_mmd_losses.pairs.reach.has_one_value`.
    """
    if not reach.is_readable(real, fake) or not (scale is None or reach.is_readable(scale)):
        return
    with torch.no_grad():
        if fake is real:  # pairs of a sample with itself would be at the peak
            half = real.shape[1] // 2
            real, fake = real[:, :half], real[:, half:]
        count = len(real)
        # Evenly spaced, since neighbours may be alike. Mostly the first of them ends the search.
        for group in range(0, count, -(-count // GROUPS)):
            rows = [samples[group, :EXAMINED].detach() for samples in (real, fake)]
            if scale is not None:
                rows = [samples / scale[group] for samples in rows]
            if not reach.has_one_value(kernel, *rows, smallest=smallest):
                return
        usage_warnings.warn(
            "one kernel value",
            f"{name}: expected kernel values between zero and the peak of the kernel, got the same value for all "
            f"pairs{' of all groups' if count > 1 else ''}: "
            f"{reach.explanation(kernel, *rows, of_discriminator=False)}"
            f"{', in units of `scale`' if scale is not None else ''}",
        )
