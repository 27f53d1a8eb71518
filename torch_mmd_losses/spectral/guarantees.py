"""Networks in which spectral normalisation of the layers does not bound the network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from torch_mmd_losses import usage_warnings
from torch_mmd_losses.spectral.layers import LAYERS
from torch_mmd_losses.spectral.parametrization import SpectralNorm

_BATCH_NORMS = nn.modules.batchnorm._BatchNorm
_INSTANCE_NORMS = nn.modules.instancenorm._InstanceNorm
_OTHER_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Their weights multiply channels or features. These layers do not count as any other kind, for any shape of the
weight."""


def check_guarantees(module: nn.Module, layers: Mapping[str, nn.Module], *, strict: bool) -> None:
    """Warn of parts of a module that make the norms of the layers void, or raise a ValueError if `strict`."""
    problems = {
        "running statistics": (
            [label for label, part in module.named_modules() if _has_running_statistics(part)],
            "layers without running statistics between the normalised ones",
            "batch norm and instance norm with running statistics divide by the size of their inputs and undo `scale`; "
            "remove them",
        ),
        "own forward": (
            [label for label, layer in layers.items() if _has_own_forward(layer)],
            "layers with the forward of their class in torch.nn",
            "an overridden forward may change the normalised weight again or not use it; wrap such layers only if it "
            "uses the weight unchanged",
        ),
        "other weights": (
            [label for label, part in module.named_modules() if _holds_other_weights(part)],
            "weights in Linear and convolutional layers only",
            "these weights are not normalised; normalise them in another way",
        ),
    }
    for kind, (labels, expected, reason) in problems.items():
        if labels:
            names = ", ".join(f"{label!r} ({type(_part(module, layers, label)).__name__})" for label in labels)
            message = f"module: expected {expected}, got {names}: {reason}"
            if strict:
                raise ValueError(message)
            usage_warnings.warn(kind, message)


def _part(module: nn.Module, layers: Mapping[str, nn.Module], label: str) -> nn.Module:
    return layers[label] if label in layers else module.get_submodule(label)


def _has_running_statistics(part: nn.Module) -> bool:
    return isinstance(part, _BATCH_NORMS) or (isinstance(part, _INSTANCE_NORMS) and part.track_running_stats)


def _has_own_forward(layer: nn.Module) -> bool:
    base = next(kind for kind in LAYERS if isinstance(layer, kind))
    return "forward" in vars(layer) or any(
        getattr(type(layer), method, None) is not getattr(base, method, None) for method in ("forward", "_conv_forward")
    )


def _holds_other_weights(part: nn.Module) -> bool:
    known = (*LAYERS, *_OTHER_NORMS, _BATCH_NORMS, SpectralNorm, parametrize.ParametrizationList)
    if isinstance(part, known):
        return False
    holders = [part, *getattr(part, "parametrizations", {}).values()]
    weights = [weight for holder in holders for weight in holder.parameters(recurse=False)]
    return any(not is_lazy(weight) and weight.is_floating_point() and weight.dim() > 1 for weight in weights)
