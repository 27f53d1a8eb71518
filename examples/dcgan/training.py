"""The training of one configuration, from its start or from a checkpoint, to its end or until it is interrupted."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dcgan import randomness
from dcgan.checkpoints import CheckpointError, Checkpoints, State, load
from dcgan.experiment import WANG, Experiment
from dcgan.fields import changes, from_settings
from dcgan.interruption import Interruption
from dcgan.locks import is_empty
from dcgan.prepared import Report
from dcgan.processes import ALONE, Group
from dcgan.progress import Progress
from dcgan.record import SAMPLES, Record


class ResumeError(Exception):
    """A run cannot go on as it was asked to."""


class Training:
    """A run in a folder.

    Args:
        configuration: the resolved configuration of the experiment.
        folder: where everything is left.
        resume: `"auto"` to continue from the newest checkpoint in the folder if there is one, the path of a checkpoint,
            or None to start anew.
        force: continue although the configuration has changed.
        quiet: print warnings only.
        group: the processes that train together, of which the first one writes.
        experiment: whose it is.

    Raises:
        CheckpointError: if the checkpoint cannot be used.
        MissingBoardError: if TensorBoard is wanted and not installed.
        MissingDataError: if the data set is not there.
        ResumeError: if the folder holds another run, or the configuration has changed.
        ValueError: if the data set has too few images, or the normalisation is unknown.
    """

    def __init__(
        self,
        configuration: Any,  # noqa: ANN401
        folder: Path,
        *,
        resume: str | None,
        force: bool,
        quiet: bool,
        group: Group = ALONE,
        experiment: Experiment[Any, Any, Any] = WANG,
    ) -> None:
        self.experiment = experiment
        self.configuration = configuration
        self.group = group
        self.checkpoints = Checkpoints(folder / "checkpoints", configuration.keep_every)
        self._origin = ""
        state = group.first_does(lambda: self._find(folder, resume))
        if state is not None:
            self._check_unchanged(state, force=force)
        images = self._images(report=_silent if quiet else print)
        self.batches = experiment.batches(images, configuration, group)
        randomness.seed(configuration.seed)
        self.gan = experiment.gan(configuration, images, group)
        if state is not None:
            self._load(state)
        self.record = group.all_do(lambda: self._record(folder))
        self.progress = Progress(self.gan.iteration, configuration.iterations, quiet=quiet or not group.first)

    def run(self) -> int | None:
        """Train to the end, and return None; or save on Ctrl-C or a termination of any process, and return the signal.

        Raises:
            NotFiniteError: if a loss or a gradient is infinite or no number.
        """
        chosen, gan = self.configuration, self.gan
        if gan.iteration == 0:
            self._draw()
        self._watch = _Stopwatch(gan.iteration)
        try:
            with Interruption(patient=self.group.count > 1) as interruption:
                unsaved: Any = None
                signal = 0
                while gan.iteration < chosen.iterations and not signal:
                    unsaved = self.experiment.step(gan, self.batches)
                    self._report(unsaved)
                    if _is_due(gan.iteration, chosen.checkpoint_every, chosen.keep_every):
                        self._save(unsaved)
                        unsaved = None
                    signal = self.group.largest(interruption.signal or 0)
                if unsaved is not None:
                    self._save(unsaved)
                return None if gan.iteration >= chosen.iterations else signal
        finally:
            self.progress.close()

    def _report(self, step: Any) -> None:  # noqa: ANN401
        """Log, show and draw what is due after an update."""
        chosen, iteration = self.configuration, self.gan.iteration
        last = iteration == chosen.iterations
        self.progress.advance()
        if last or iteration == 1 or iteration % chosen.log_every == 0:
            line = self.experiment.measure(self.gan, step, self._watch.rate(iteration))
            self.progress.show(line)
            if self.record is not None:
                self.record.log(line)
        if self.record is not None:
            for name, line in self.experiment.inspect(self.gan).items():
                self.record.append(name, line)
        if last or iteration % chosen.sample_every == 0:
            self._draw()

    def _record(self, folder: Path) -> Record | None:
        if not self.group.first:
            return None
        chosen = self.configuration
        noise = self.experiment.noise(chosen, SAMPLES, torch.Generator().manual_seed(chosen.seed))
        return Record(folder, chosen, noise, self.gan.iteration)

    def _draw(self) -> None:
        if self.record is not None:
            self.record.draw(self.gan)

    def _images(self, report: Report) -> NDArray[np.uint8]:
        def load() -> NDArray[np.uint8]:
            root = Path(self.configuration.data_root)
            return self.experiment.images(self.configuration, root, report)

        # One process of each machine prepares the images, while the others wait.
        self.group.all_do(lambda: load() if self.group.rank_here == 0 else None)
        return load()

    def _find(self, folder: Path, resume: str | None) -> State | None:
        if resume is None:
            if not is_empty(folder):
                raise ResumeError(f"{folder} is not empty; choose another --out, or continue its run by --resume auto")
            return None
        if resume != "auto":
            own = (folder.resolve(), self.checkpoints.folder.resolve())
            if not is_empty(folder) and Path(resume).resolve().parent not in own:
                raise ResumeError(
                    f"{folder} is not empty, and {resume} is not a checkpoint of the run in it, whose checkpoints and "
                    "logs would be lost; choose another --out"
                )
            self._origin = resume
            return load(Path(resume))
        state, complaints = self.checkpoints.newest()
        self._origin = f"the newest that can be read in {self.checkpoints.folder}"
        for complaint in complaints:
            print(f"Warning: {complaint}", file=sys.stderr)
        if state is None and complaints:
            raise CheckpointError(f"No checkpoint in {self.checkpoints.folder} can be read; move it away to start anew")
        return state

    def _load(self, state: State) -> None:
        try:
            self.gan.load_state_dict(state)
            self.batches.load_state_dict(state["batches"])
            randomness.restore(state["random"])
        except Exception as error:  # of any type, since the state may be anything
            reason = f"there is no {error}" if isinstance(error, KeyError) else error
            raise CheckpointError(
                f"The checkpoint does not fit this configuration: {reason} ({self._origin})"
            ) from error

    def _save(self, step: Any) -> None:  # noqa: ANN401
        # A checkpoint of networks that are lost would push out one that can be used.
        self.experiment.health(self.gan, step)
        if not self.group.first:
            return
        state = self.gan.state_dict() | {
            "experiment": self.experiment.name,
            "configuration": dataclasses.asdict(self.configuration),
            "batches": self.batches.state_dict(),
            "random": randomness.state(),
        }
        self.checkpoints.save(self.gan.iteration, state)

    def _check_unchanged(self, state: State, *, force: bool) -> None:
        own = self.experiment.name
        if state.get("experiment", own) != own:
            raise CheckpointError(
                f"The checkpoint is of the experiment {state['experiment']!r}, expected {own!r} ({self._origin})"
            )
        if force:
            return
        try:
            before = from_settings(self.experiment.settings, state.get("configuration"))
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"The configuration in the checkpoint cannot be used: {error} ({self._origin})"
            ) from error
        found = changes(before, self.configuration)
        if found:
            raise ResumeError(
                f"The configuration is not that of the checkpoint: {'; '.join(found)}. Choose the same again, or "
                "another --out, or go on regardless by --force."
            )


def _is_due(iteration: int, *intervals: int | None) -> bool:
    return any(interval and iteration % interval == 0 for interval in intervals)


def _silent(message: str) -> None:
    """Say nothing."""


class _Stopwatch:
    """Iterations in a second, since it was asked last."""

    def __init__(self, iteration: int) -> None:
        self._iteration, self._time = iteration, time.perf_counter()

    def rate(self, iteration: int) -> float:
        before, self._iteration = self._iteration, iteration
        start, self._time = self._time, time.perf_counter()
        return (iteration - before) / (self._time - start)
