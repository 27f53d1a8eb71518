"""The forms of references, from samples and options."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.references.batches import Rows, Samples, checked, in_batches, ones_like_rows
from torch_mmd_losses.references.exact import AllRows
from torch_mmd_losses.references.form import Form
from torch_mmd_losses.references.fourier import Waves
from torch_mmd_losses.references.nystrom import Landmarks
from torch_mmd_losses.references.subsample import choose, seeded

Kind = Literal["exact", "nystrom", "fourier"]
"""The form in which a reference keeps its samples, see :class:`torch_mmd_losses.MMDReference`."""

KINDS: tuple[str, ...] = get_args(Kind)

LANDMARKS = 4096
"""Default number of landmarks: that of RDM."""

FREQUENCIES = 4096
"""Default number of frequencies."""

TAKEN_BY = {"landmarks": ("nystrom",), "frequencies": ("fourier",), "self_rows": ("exact", "nystrom")}
"""For each option that affects only some kinds, those kinds."""


class Options(NamedTuple):
    """The options of a reference, see :class:`torch_mmd_losses.MMDReference`. None stands for an option not given."""

    landmarks: int | Tensor | None
    frequencies: int | None
    self_rows: int | None
    generator: torch.Generator | None


def built(kind: Kind, real: Samples, weights: Samples | None, kernel: Kernel, options: Options) -> Form:
    """Return a form with all samples, or raise if one of the arguments is wrong."""
    _check_is_fixed(kernel)
    _check_are_taken(kind, options)
    self_rows = options.self_rows
    if self_rows is not None:
        self_rows = checks.whole_number("self_rows", self_rows, least=2)
    frequencies = FREQUENCIES
    if options.frequencies is not None:
        frequencies = checks.whole_number("frequencies", options.frequencies, least=1)
    landmarks = _landmarks(real, options) if kind == "nystrom" else None
    batches = in_batches("real", real, weights)
    first = next(batches)
    own = copy.deepcopy(kernel)
    form: Form
    with full_precision(first.scores.device):
        if landmarks is not None:
            checks.same_columns("landmarks", landmarks, "real", first.scores)
            checks.same("device", "landmarks", landmarks, "real", first.scores)
            form = Landmarks(own, landmarks, first.scores, self_rows=self_rows, seed=seeded(options.generator))
        elif kind == "fourier":
            form = Waves(own, first.scores, frequencies=frequencies, generator=options.generator)
        else:
            seed = 0 if self_rows is None else seeded(options.generator)
            form = AllRows(own, first.scores, self_rows=self_rows, seed=seed)
            batches, first = iter(()), _together(first, batches)
        form.include(first)
        for rows in batches:
            form.include(rows)
        form.ready()
        if isinstance(form, Landmarks):
            form.warn_if_few()
    return form


def _check_is_fixed(kernel: Kernel) -> None:
    if any(parameter.requires_grad for parameter in kernel.parameters()):
        raise ValueError(
            "kernel: expected a kernel without trained parameters, because a reference is prepared once, got "
            f"{type(kernel).__name__} with some; call kernel.requires_grad_(False)"
        )


def _check_are_taken(kind: Kind, options: Options) -> None:
    """Raise if an option is given that has no effect."""
    for name, kinds in TAKEN_BY.items():
        if getattr(options, name) is not None and kind not in kinds:
            raise ValueError(f"kind: expected {' or '.join(map(repr, kinds))} for given {name}, got {kind!r}")


def _together(first: Rows, others: Iterable[Rows]) -> Rows:
    """Return all rows of all batches; the first rows themselves if there is only one batch."""
    batches = [first, *others]
    if len(batches) == 1:
        return first
    weights = None
    if any(rows.weights is not None for rows in batches):
        weights = torch.cat([ones_like_rows(x) if w is None else w for x, w in batches])
    return Rows(torch.cat([rows.scores for rows in batches]), weights)


def _landmarks(real: Samples, options: Options) -> Tensor:
    """Return the given landmarks, or the given number of random rows."""
    if isinstance(options.landmarks, Tensor):
        return checked("landmarks", options.landmarks, "weights", None).scores
    given = LANDMARKS if options.landmarks is None else options.landmarks
    count = checks.whole_number("landmarks", given, least=1)
    if not isinstance(real, Tensor) and isinstance(real, Iterator):
        raise ValueError(
            "landmarks: expected a tensor of landmarks, because they cannot be chosen from batches that can be read "
            f"only once, got {count}; a list or a DataLoader can be read twice"
        )
    return choose(
        in_batches("real", real, None), count, torch.Generator().manual_seed(seeded(options.generator))
    ).scores
