"""Random numbers of shapes that `torch.compile` may not know.

`torch.rand` and `torch.randn` cannot be compiled with a generator argument, even None, if a dimension is symbolic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def uniform(
    shape: Sequence[int], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Return the numbers of `torch.rand`."""
    return torch.empty(shape, dtype=dtype, device=device).uniform_(generator=generator)


def normal(shape: Sequence[int], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Return the numbers of `torch.randn`."""
    return torch.empty(shape, dtype=dtype, device=device).normal_(generator=generator)
