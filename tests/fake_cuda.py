"""CUDA tensors without data, on machines without a GPU: whatever a GPU would have to wait for raises an error.

`FakeTensorMode` raises where tensors of two devices meet and where the host reads a value. It needs a CUDA build of
PyTorch and no GPU.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import autograd_in_python
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torch_mmd_losses import hand_written_gradients

COMPUTING_CENTRE, CONSUMER = (9, 0), (8, 9)
"""Compute capabilities of an H200, which is fast in float64, and of an RTX 4090, which is not."""

COPIES = ("_to_copy", "copy_")


FILLED = ("fill_",)
"""Operators that take a number from the host with their launch, as `fill_diagonal_` does."""


GENERATOR_STATE = object()
"""Stands for the state of the generator of the GPU, which is a tensor of the CPU."""


class WaitingCopyError(Exception):
    """A copy between host and device for which the host waits."""


class HastyCopyError(Exception):
    """A copy to the host for which the host does not wait, so that it may read what has not arrived."""


class MixedDevicesError(Exception):
    """An operator on tensors of two devices. `FakeTensorMode` permits numbers of the CPU where a GPU does not."""


class _OneDevice(TorchDispatchMode):
    """Raises at operators on tensors of two devices, and at copies for which the host waits, or does not but should."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        # FakeTensorMode itself computes shapes on the meta device.
        if {"cpu", "cuda"} <= {x.device.type for x in tensors} and name not in FILLED:
            what = f"{name} of {[(tuple(x.shape), x.device.type) for x in tensors]}"
            if name not in COPIES:
                raise MixedDevicesError(what)
            if not (kwargs or {}).get("non_blocking") and not any(x is True for x in args):
                raise WaitingCopyError(what)
            if out.device.type == "cpu":
                raise HastyCopyError(what)
        return out


@contextmanager
def fake_cuda(capability: tuple[int, int] = COMPUTING_CENTRE) -> Iterator[None]:
    """Make tensors without data in the block, on any device, as on a machine with one GPU.

    The hand-written gradients, which are for plain tensors only, take fake ones for plain. Derivatives are computed by
    :mod:`autograd_in_python`, also where the library calls autograd. Without a driver, the engine of PyTorch 2.14 fails
    with "hasPrimaryContext expects a valid device index".
    """
    reverse_mode_only = hand_written_gradients.reverse_mode_only

    def take_fake_for_plain(*tensors: Tensor) -> bool:
        return reverse_mode_only(*(x for x in tensors if type(x) is not FakeTensor))

    properties = SimpleNamespace(major=capability[0], minor=capability[1])
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hand_written_gradients, "reverse_mode_only", take_fake_for_plain)
        patch.setattr(torch.autograd, "grad", autograd_in_python.grad)
        patch.setattr(torch.autograd, "backward", autograd_in_python.backward)
        patch.setattr(FakeTensor, "__deepcopy__", lambda tensor, _: tensor.detach().clone(), raising=False)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "device", lambda _: nullcontext())
        patch.setattr(torch.cuda, "get_device_properties", lambda _=None: properties)
        patch.setattr(torch.cuda, "get_rng_state", lambda: GENERATOR_STATE)
        patch.setattr(torch.cuda, "set_rng_state", _set_rng_state)
        patch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
        patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
        logger.setLevel(logging.CRITICAL)  # it would log the errors that tests expect
        _forget_cached_tensors()
        try:
            with FakeTensorMode(), _OneDevice():
                yield
        finally:
            _forget_cached_tensors()
            logger.setLevel(level)


def _set_rng_state(state: object) -> None:
    assert state is GENERATOR_STATE


def _forget_cached_tensors() -> None:
    """Empty the caches of the library: fake tensors are of no use outside of their mode, nor others inside."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "torch_mmd_losses"]
    for thing in {id(thing): thing for module in modules for thing in vars(module).values()}.values():
        if hasattr(thing, "cache_clear"):
            thing.cache_clear()
