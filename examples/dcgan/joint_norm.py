"""Batch normalisation by the statistics of the joint batch of all processes, on CPUs and GPUs alike."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class JointBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose batch is that of all processes, which have equally many images each.

    PyTorch's `SyncBatchNorm` runs on GPUs only; this one is the same there and where it can be tested. State and
    arguments are those of `BatchNorm2d`, which it is in one process and in eval mode.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise images `(n, channels, height, width)`."""
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        precise = x if x.dtype == torch.float64 else x.float()
        variance, mean = torch.var_mean(precise, dim=(0, 2, 3), correction=0)
        means, variances = _gathered(torch.stack([mean, variance])).unbind(1)
        mean = means.mean(0)
        # Within the processes, and between them.
        variance = variances.mean(0) + means.var(0, correction=0)
        self._follow(mean.detach(), variance.detach(), x.numel() // x.shape[1] * len(means))
        mean, factor, shift = (
            channels[:, None, None] for channels in (mean, self.weight * torch.rsqrt(variance + self.eps), self.bias)
        )
        return ((precise - mean) * factor + shift).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, of which the variance is the unbiased one."""
        assert self.running_mean is not None  # as in all networks here
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), self.momentum)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _gathered(statistics: Tensor) -> Tensor:
    return _Gather.apply(statistics)  # type: ignore[no-untyped-call]


class _Gather(torch.autograd.Function):
    """The tensors of all processes, stacked; the gradient is the sum of what all of them have for the own one."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # noqa: ANN401
        everything = own.new_empty(dist.get_world_size(), *own.shape)
        dist.all_gather(list(everything.unbind()), own.contiguous())
        return everything

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[dist.get_rank()]
