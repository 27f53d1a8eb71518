"""Agreement of the ranks of a distributed job on the state of the spectral norms."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import nn

from torch_mmd_losses.spectral.fingerprint import fingerprint
from torch_mmd_losses.spectral.hooks import named_spectral_norms
from torch_mmd_losses.spectral.iteration import at_least_float32
from torch_mmd_losses.spectral.parametrization import SpectralNorm


class _State(NamedTuple):
    """The state of one normalisation that the ranks compare."""

    shapes: dict[str, tuple[int, ...]]
    output_padding: list[int] | None
    values: list[int]

    @property
    def size(self) -> tuple[int, ...]:
        return self.shapes["v"]

    @property
    def is_known(self) -> bool:
        return self.size != (0,)


def agree(module: nn.Module, group: dist.ProcessGroup, *, adopt: bool) -> bool:
    """Let all ranks use the vectors of the first rank, and return whether all ranks know all input sizes.

    All ranks of the group have to call the function.

    Args:
        module: the network of this rank.
        group: the ranks.
        adopt: whether ranks also take from the first rank that an input size is known, or is not.

    Raises:
        RuntimeError: on all ranks, if the networks or the input sizes of layers differ between ranks.
    """
    norms = {label: norm for label, _, norm in named_spectral_norms(module)}
    everywhere: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(everywhere, {label: _state(norm) for label, norm in norms.items()}, group=group)
    _compare("layers wrapped by conv_spectral_norm", [sorted(states) for states in everywhere])
    complete = True
    for label, norm in norms.items():
        states: list[_State] = [states[label] for states in everywhere]
        known = [state.is_known for state in states]
        _compare(
            f"input sizes of layer {label!r}", [(s.size, s.output_padding) if s.is_known else None for s in states]
        )
        if (adopt or all(known)) and any(state != states[0] for state in states):
            _take_from_first(norm, states[0], group)
            known = [known[0]]
        complete = complete and all(known)
    return complete


def _state(norm: SpectralNorm) -> _State:
    vectors = dict(norm.vectors())
    rows = [at_least_float32(vector).reshape(1, -1) for vector in vectors.values() if vector.numel()]
    padding = norm.output_padding.tolist() if "output_padding" in norm._buffers else None
    shapes = {name: tuple(vector.shape) for name, vector in vectors.items()}
    return _State(shapes, padding, [*(int(fingerprint(row)) for row in rows), int(norm.fingerprint)])


def _compare(subject: str, values: list[Any]) -> None:
    """Raise a RuntimeError that names the ranks if the values differ. None agrees with everything."""
    ranks = defaultdict(list)
    for rank, value in enumerate(values):
        if value is not None:
            ranks[str(value)].append(rank)
    if len(ranks) > 1:
        found = ", ".join(f"{value} on rank(s) {', '.join(map(str, where))}" for value, where in ranks.items())
        raise RuntimeError(
            f"module: expected the same {subject} on all ranks, got {found}; run the same first forward pass on all "
            "ranks, or use conv_spectral_norm(..., example_input=...)"
        )


def _take_from_first(norm: SpectralNorm, first: _State, group: dist.ProcessGroup) -> None:
    """Replace the state of a normalisation by that of the first rank of the group."""
    source = dist.get_global_rank(group, 0)
    norm.set_output_padding(first.output_padding)
    for name, vector in norm.vectors():
        shape = first.shapes[name]
        if tuple(vector.shape) != shape:
            setattr(norm, name, vector.new_empty(shape))
        if first.is_known and 0 not in shape:
            dist.broadcast(getattr(norm, name), source, group=group)
    dist.broadcast(norm.fingerprint, source, group=group)
