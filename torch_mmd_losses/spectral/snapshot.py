"""The structure of a module before it is changed: its parts, their classes, parameters and hooks, but no numbers."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from torch import nn


class _Part(NamedTuple):
    module: nn.Module
    kind: type[nn.Module]
    properties: dict[str, property]
    attributes: dict[str, Any]
    contents: dict[str, Any]


class Snapshot:
    """The structure of a module. Tensors and other objects are not copied."""

    def __init__(self, module: nn.Module) -> None:
        self.parts = [_of(part) for part in module.modules()]

    def restore(self) -> None:
        """Give the module the parts, parameters and hooks that it had."""
        for module, kind, properties, attributes, contents in self.parts:
            module.__class__ = kind
            for name, each in properties.items():
                setattr(kind, name, each)  # a parametrization that was removed has deleted it
            vars(module).clear()
            vars(module).update(attributes)
            for name, content in contents.items():  # in place, because the handles of hooks refer to them
                attributes[name].clear()
                attributes[name].update(content)


def _of(module: nn.Module) -> _Part:
    kind, attributes = type(module), dict(vars(module))
    properties = {name: each for name, each in vars(kind).items() if isinstance(each, property)}
    contents = {name: copy.copy(each) for name, each in attributes.items() if isinstance(each, (dict, set))}
    return _Part(module, kind, properties, attributes, contents)
