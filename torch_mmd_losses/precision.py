"""The dtypes and contexts in which sums over pairs are precise."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

_UNCHANGED = nullcontext()
_AUTOCAST_DEVICES = frozenset(
    filter(torch.amp.is_autocast_available, ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla"))
)


def at_least_float32(numbers: Tensor) -> Tensor:
    """Return numbers in float64 if they are float64, else in float32."""
    return numbers if numbers.dtype in (torch.float32, torch.float64) else numbers.float()


def total_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype in which sums over pairs are accumulated: float64, or float32 on MPS, which has no float64.

    MMD^2 is a small difference of mean kernel values of order one, so float32 sums would cancel.
    """
    return torch.float32 if device.type == "mps" else torch.float64


def has_fast_float64(device: torch.device) -> bool:
    """Return whether float64 takes at most a few times as long as float32: on CPUs and on data-centre GPUs.

    Other GPUs are up to 64 times slower in float64.
    """
    if device.type != "cuda":
        return device.type == "cpu"
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip is not None:  # the MI series
        return bool(properties.major == 9)
    return properties.minor == 0 and 6 <= properties.major <= 10  # P100, V100, A100, H100, H200, B200


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which autocast does not lower the precision of matrix products on `device`."""
    if torch._C._is_any_autocast_enabled() and _is_lowered(device.type):
        return torch.autocast(device.type, enabled=False)
    return _UNCHANGED


def _is_lowered(device_type: str) -> bool:
    return device_type in _AUTOCAST_DEVICES and torch.is_autocast_enabled(device_type)
