"""How many operations a program makes, how large their tensors are, and how much of them is alive at once."""

from __future__ import annotations

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode


class Largest(TorchDispatchMode):
    """Keep the number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


class Count(TorchDispatchMode):
    """Count the operations."""

    operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        return func(*args, **(kwargs or {}))


class Alive(TorchDispatchMode):
    """Keep the largest number of bytes that tensors made by operations hold at once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self._total = 0  # at least what is alive
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                known = self._alive.get(reference.cdata)
                if known is None or known[0].expired():
                    self._alive[reference.cdata] = reference, storage.nbytes()
                    self._total += storage.nbytes()
        if self._total > self.bytes:
            self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
            self._total = sum(size for _, size in self._alive.values())
            self.bytes = max(self.bytes, self._total)
        return result
