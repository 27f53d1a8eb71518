"""Warnings of kernels that have the same value for all pairs of samples."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from torch_mmd_losses import usage_warnings
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.pairs import reach

EXAMINED = 256
"""Number of real and of fake samples that are examined where the function itself does not visit all pairs."""


def warn_of_one_value(name: str, kernels: Sequence[Kernel], real: Tensor, fake: Tensor) -> None:
    """Warn if none of the kernels distinguishes samples.

    Args:
        name: name of the function that the user has called.
        kernels: the kernels, at least one of which has to distinguish samples.
        real: checked samples `(m, d)`.
        fake: checked samples `(n, d)`.
    """
    if not reach.is_readable(real, fake):
        return
    if all(reach.has_one_value(kernel, real, fake) for kernel in kernels):
        usage_warnings.warn(
            "one kernel value",
            f"{name}: expected kernel values between zero and the peak of the kernel, got the same value for all "
            f"pairs: {reach.explanation(kernels[0], real, fake, of_discriminator=False)}",
        )
