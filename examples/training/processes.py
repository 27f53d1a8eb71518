"""Averages over the processes of a training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning_fabric import Fabric
from torch import Tensor


def averaged(fabric: Fabric, tensors: Iterable[Tensor]) -> None:
    """Replace floating-point tensors by their means over the processes, in place, in one communication."""
    chosen = [tensor for tensor in tensors if tensor.is_floating_point()]
    if fabric.world_size > 1 and chosen:
        joint = torch.cat([tensor.flatten() for tensor in chosen])
        fabric.all_reduce(joint)
        for tensor, mean in zip(chosen, joint.split([tensor.numel() for tensor in chosen]), strict=True):
            tensor.copy_(mean.view_as(tensor))
