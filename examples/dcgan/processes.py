"""Processes that train together, as torchrun starts them; and one alone, which needs nothing of this."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(days=1)
"""How long processes wait for another one that does something alone, such as preparing the data."""

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The processes of a training as one of them sees it."""

    rank: int = 0
    """The number of this process."""
    count: int = 1
    """How many there are."""
    rank_here: int = 0
    """The number of this process among those of its machine."""
    control: Any = None
    """The group for messages between CPUs, which no GPU waits for; None for one process."""

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """Return the device of this process: each has its own GPU.

        Raises:
            ValueError: if all processes would share a GPU, or if a machine has too few.
        """
        device = torch.device(name)
        if self.count == 1 or device.type != "cuda":
            return device
        if device.index is not None:
            raise ValueError(f"device: expected cuda, of which each of {self.count} processes takes one; got {name}")
        if self.rank_here >= torch.cuda.device_count():
            raise ValueError(
                f"device: expected a GPU for each process of a machine, found {torch.cuda.device_count()} "
                f"for process {self.rank_here + 1}"
            )
        return torch.device("cuda", self.rank_here)

    def rows(self, size: int) -> slice:
        """Return which rows of a joint batch belong to this process.

        Raises:
            ValueError: if the batch cannot be divided evenly.
        """
        if size % self.count:
            raise ValueError(f"batch_size: expected a multiple of the {self.count} processes, got {size}")
        own = size // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def share(self, network: nn.Module) -> nn.Module:
        """Return a network whose gradients are averaged over the processes, which all start with the first one's."""
        if self.count == 1:
            return network
        shared = DistributedDataParallel(network)
        # All compute the same ones: the statistics of the joint batch, and the singular vectors of equal weights.
        shared.broadcast_buffers = False
        return shared

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the processes, without a gradient."""
        if self.count == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.count

    def joint_mean(self, value: Tensor) -> Tensor:
        """Return the mean over the processes, with the gradient whose average over them is exact."""
        return value if self.count == 1 else _Mean.apply(value)  # type: ignore[no-untyped-call]

    def largest(self, number: int) -> int:
        """Return the largest number that a process has: the same in all, so that they can act as one."""
        if self.count == 1:
            return number
        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.control)
        return int(found)

    def all_do(self, act: Callable[[], T]) -> T:
        """Do something in each process; if that fails in one, raise its error in all, so that none waits for it."""
        if self.count == 1:
            return act()
        result, error = None, None
        try:
            result = act()
        except Exception as raised:
            error = raised
        errors: list[Exception | None] = [None] * self.count
        dist.all_gather_object(errors, error, group=self.control)
        for found in errors:
            if found is not None:
                raise found
        return result  # type: ignore[return-value]

    def first_does(self, act: Callable[[], T]) -> T:
        """Do something in the first process, and return in all what it returned: tensors, numbers and the like."""
        if self.count == 1:
            return act()
        packed = [self.all_do(lambda: _packed(act()) if self.first else None)]
        dist.broadcast_object_list(packed, src=0, group=self.control)
        return cast(T, torch.load(io.BytesIO(packed[0] or b""), weights_only=True))


ALONE = Group()


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """Join the processes that torchrun has started, if it has; leave them when all have come to the end.

    Args:
        device: where the networks will be; decides how GPUs or CPUs talk to each other.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    here = int(os.environ["LOCAL_RANK"])
    on_gpus = device.startswith("cuda") and here < torch.cuda.device_count()
    if on_gpus:
        torch.cuda.set_device(here)
    dist.init_process_group("nccl" if on_gpus else "gloo")
    group = Group(dist.get_rank(), count, here, dist.new_group(timeout=PATIENCE, backend="gloo"))
    try:
        yield group
    except SystemExit:  # which all processes raise alike, when they have agreed on it
        _leave(group)
        raise
    _leave(group)


def _leave(group: Group) -> None:
    # Whoever is early would look dead to the launcher, which would kill the others before they have written all.
    dist.barrier(group=group.control)
    dist.destroy_process_group()


def _packed(result: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(result, buffer)
    return buffer.getvalue()


class _Mean(torch.autograd.Function):
    """The mean over processes of a value of which each has its share.

    Gradients of parameters are averaged over the processes, which divides by their number: here it is not.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ANN401
        total = value.clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        return gradient
