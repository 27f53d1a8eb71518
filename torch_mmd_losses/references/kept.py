"""The module that keeps a form of a reference, and its state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.hyperparameters import LoadedAsAWhole
from torch_mmd_losses.references import samples
from torch_mmd_losses.references.building import KINDS, Kind
from torch_mmd_losses.references.form import Form
from torch_mmd_losses.references.processes import Part


class KeptForm(LoadedAsAWhole):
    """Base class of :class:`torch_mmd_losses.MMDReference`: the form, and which part of the reference it is.

    Attributes:
        kind: the kind of the form.
        form: the stored form of the rows.
        part: the shard that this reference is.
    """

    kind: Kind
    form: Form
    part: Part

    @property
    def kernel(self) -> Kernel:
        """A copy of the given kernel."""
        return self.form.kernel

    @property
    def rank(self) -> int:
        """The number of the process that the reference is for."""
        return self.part.rank

    @property
    def world(self) -> int:
        """The number of processes among which the reference is divided."""
        return self.part.world

    def get_extra_state(self) -> Tensor:
        """Return the kind, the rank and the number of processes, for `state_dict`."""
        return torch.tensor([KINDS.index(self.kind), self.rank, self.world], device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the rank and the number of processes, for `load_state_dict`."""
        self.part = Part(*state.tolist()[1:])
        self.form.divided = self.part.world > 1

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:  # noqa: ANN401
        state = state_dict.get(f"{prefix}_extra_state")
        if isinstance(state, Tensor):
            kind, rank, world = state.tolist()
            if KINDS[kind] != self.kind:
                raise ValueError(f"state of MMDReference: expected kind={self.kind!r}, got kind={KINDS[kind]!r}")
            if self.world > 1 and (rank, world) != (self.rank, self.world):
                raise ValueError(
                    f"state of MMDReference: expected the shard {self.rank} of {self.world}, got {rank} of {world}"
                )
        super()._load_from_state_dict(cast(Any, state_dict), prefix, *arguments)

    def extra_repr(self) -> str:
        """Return the kind, for `repr`."""
        return f"kind={self.kind!r}" + (f", rank={self.rank}, world={self.world}" if self.world > 1 else "")

    def _checked(self, name: str, scores: Tensor) -> Tensor:
        """Return scores as a matrix of the dimension of the reference, which is made ready, or raise."""
        matrix = samples.of_dimension(name, scores, self.form)
        self.form.ready()
        return matrix

    @contextmanager
    def _announced_errors(self, points: object) -> Iterator[None]:
        """Tell the other processes about any error in the block, if they would wait for the points of this one."""
        if not self.form.divided:
            yield
            return
        with self.part.announced_errors(points):
            yield
