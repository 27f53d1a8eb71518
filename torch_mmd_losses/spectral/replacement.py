"""Remove PyTorch's own spectral norms from layers, and keep their trained weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook, SpectralNormStateDictHook

_HOOKS = {
    "_forward_pre_hooks": SpectralNorm,
    "_load_state_dict_pre_hooks": SpectralNormLoadStateDictPreHook,
    "_state_dict_hooks": SpectralNormStateDictHook,
}


def layers_with_spectral_norms_of_torch(layers: Mapping[str, nn.Module], name: str) -> dict[str, nn.Module]:
    """Return the layers with PyTorch's own spectral norm, as a hook or as the only parametrization of a parameter."""
    return {
        label: layer
        for label, layer in layers.items()
        if _is_parametrization(layer, name) or any(_hooks(layer, name).values())
    }


def remove_spectral_norm_of_torch(layer: nn.Module, name: str) -> None:
    """Remove PyTorch's own spectral norm from a parameter of a layer.

    The trained parameter stays the same object, so an optimiser continues with it. The methods of PyTorch would leave
    the normalised weight of the hook.
    """
    if _is_parametrization(layer, name):
        parametrize.remove_parametrizations(layer, name, leave_parametrized=False)
        return
    for attribute, keys in _hooks(layer, name).items():
        for key in keys:
            del getattr(layer, attribute)[key]
    trained = getattr(layer, f"{name}_orig")
    for attribute in (name, f"{name}_orig", f"{name}_u", f"{name}_v"):
        delattr(layer, attribute)
    layer.register_parameter(name, trained)


def _is_parametrization(layer: nn.Module, name: str) -> bool:
    if not parametrize.is_parametrized(layer, name):
        return False
    kinds = [type(part) for part in layer.parametrizations[name]]  # type: ignore[index]
    return kinds == [parametrizations._SpectralNorm]


def _hooks(layer: nn.Module, name: str) -> dict[str, list[int]]:
    """Return the keys of the hooks of `torch.nn.utils.spectral_norm` for a parameter, by kind of hook."""
    found: dict[str, list[int]] = {attribute: [] for attribute in _HOOKS}
    for attribute, kind in _HOOKS.items():
        for key, hook in getattr(layer, attribute).items():
            inner = getattr(hook, "hook", hook)  # hooks for loading are wrapped when they are registered
            if isinstance(inner, kind) and vars(getattr(inner, "fn", inner))["name"] == name:
                found[attribute].append(key)
    return found
