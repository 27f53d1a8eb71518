"""Checks when a wrapped network is put into a container that copies or broadcasts its buffers."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from torch_mmd_losses import usage_warnings
from torch_mmd_losses.hand_written_gradients import eager_only
from torch_mmd_losses.spectral.hooks import named_spectral_norms
from torch_mmd_losses.spectral.ranks import agree


@cache
def watch() -> None:
    """Check every network that is put into `DistributedDataParallel` or `AveragedModel` from now on.

    `DistributedDataParallel` broadcasts buffers when it is created, and ends the process if their sizes differ between
    the ranks. PyTorch's hook for the registration of submodules is the only way to check before that.
    """
    nn.modules.module.register_module_module_registration_hook(_check)


def _check(container: nn.Module, name: str, module: nn.Module | None) -> None:
    if name != "module" or module is None:
        return
    if isinstance(container, DistributedDataParallel):
        if not agree(module, container.process_group, adopt=True):
            container.register_forward_hook(_AfterForward())
    elif isinstance(container, AveragedModel):
        unknown = [label for label, _, norm in named_spectral_norms(module) if not norm.has_input_size]
        if unknown:
            usage_warnings.warn(
                "averaged model",
                f"model: expected layers that have seen an input, got {', '.join(map(repr, unknown))}; AveragedModel "
                "cannot copy their singular vectors once the input size has become known. Create it after the first "
                "forward pass, or use conv_spectral_norm(..., example_input=...)",
            )


class _AfterForward:
    """Forward hook of `DistributedDataParallel` that compares the ranks until all input sizes are known."""

    @eager_only
    def __call__(self, container: DistributedDataParallel, _args: object, _output: Any) -> None:  # noqa: ANN401
        if agree(container.module, container.process_group, adopt=False):
            del container._forward_hooks[next(key for key, hook in container._forward_hooks.items() if hook is self)]
