"""The folder of a run during a training: lock, settings, logs, samples and checkpoints; and the end by a signal."""

from __future__ import annotations

import json
import math
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from training import checkpoints
from training.batches import to_pixels
from training.checkpoints import State
from training.errors import InterruptedBySignalError, RefusedError, StoppedError
from training.files import PARTIAL, Line, append_line, read_lines, replacing, write_lines, write_text
from training.processes import agreed, everywhere
from training.settings import Settings, changes, saved

LOCK = "training.lock"
SAMPLES = 64  # images on a sheet of samples
ASK_EVERY = 10  # iterations between two checks whether another process received a signal


class Run:
    """The folder of a run, locked for one training at a time. Only the first process writes.

    Each checkpoint names the paper, the settings and the number of images of its run.
    """

    def __init__(self, fabric: Fabric, settings: Settings, *, paper: str, images: int) -> None:
        self._fabric, self._settings = fabric, settings
        self._folder, self._checkpoints = settings.out, settings.out / "checkpoints"
        self._about = {"paper": paper, "configuration": saved(settings), "images": images}
        self._lock = FileLock(self._folder / LOCK, timeout=0)
        self._untouched = False
        self._signal = 0
        self._handlers: dict[int, Any] = {}
        self._board: TensorBoardLogger | None = None

    def __enter__(self) -> Run:
        agreed(self._fabric, self._acquire)
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._untouched and isinstance(error, RefusedError):
            shutil.rmtree(self._folder)
        self._lock.release()

    def resume(self, state: State) -> None:
        """Load the requested checkpoint, if there is one, into a state; then start the log, the bar and TensorBoard."""
        path = agreed(self._fabric, self._found)
        if path is not None:
            everywhere(self._fabric, lambda: _fill(state, path))
        agreed(self._fabric, lambda: self._begin(state["iteration"]))
        if self._settings.tensorboard:
            after: Any = {"purge_step": state["iteration"] + 1 if path else 0}  # so that no iteration appears twice
            self._board = TensorBoardLogger(self._folder, name="tensorboard", version="", **after)
        self._bar = tqdm(
            total=self._settings.iterations,
            initial=state["iteration"],
            unit="step",
            dynamic_ncols=True,
            disable=True if self._settings.quiet or not self._fabric.is_global_zero else None,
        )
        self._watch = (state["iteration"], time.perf_counter())

    def iterations(
        self, state: State, samples: Callable[[], Tensor], until: Callable[[], bool] = lambda: False
    ) -> Iterator[int]:
        """Yield the number of each iteration, and count it in the state. Draw samples and save when they are due.

        The last one is that of the settings, or that after which `until` returns true or a signal has come to any
        process, which raises an error; both are due then. `samples` returns images `(n, channels, h, w)` in [-1, 1].
        """
        self._untouched, self._until = False, until
        iteration, settings = state["iteration"], self._settings
        if iteration == 0:
            self._draw(samples, iteration)
        goes_on = self._goes_on(iteration)
        while goes_on:
            iteration = state["iteration"] = iteration + 1
            yield iteration
            self._bar.update()
            goes_on = self._goes_on(iteration)
            if not goes_on or iteration % settings.sample_every == 0:
                self._draw(samples, iteration)
            intervals = (settings.checkpoint_every, settings.keep_every)
            if not goes_on or any(every and iteration % every == 0 for every in intervals):
                self._save(state)
        self._bar.close()
        if self._board:
            self._board.finalize("success")
        if self._signal and iteration < settings.iterations:
            message = f"Interrupted after iteration {iteration:,}; continue with the same options and --resume auto"
            raise InterruptedBySignalError(self._signal, message)

    def is_due(self, every: int, iteration: int) -> bool:
        """Return whether an interval ends with this iteration, or it is the first or the last one."""
        return iteration in (1, self._settings.iterations) or iteration % every == 0 or self._until()

    def _goes_on(self, iteration: int) -> bool:
        stopped = self._signal if self._fabric.world_size == 1 else 0
        if self._fabric.world_size > 1 and iteration % ASK_EVERY == 0:
            noted = torch.tensor(self._signal, device=self._fabric.device)
            stopped = self._signal = int(cast(Tensor, self._fabric.all_reduce(noted, reduce_op="max")))
        return iteration < self._settings.iterations and not stopped and not self._until()

    def log(self, line: Line, *, advice: str, shown: Sequence[str] = ("loss_discriminator", "loss_generator")) -> None:
        """Append a line with its `iteration` to the log, add the iterations per second, and show some of the numbers.

        Tensors have one number each; the log has the mean over the processes. If a number is not finite, the training
        stops with `advice` in the message.
        """
        tensors = {name: value.detach() for name, value in line.items() if isinstance(value, Tensor)}
        means = cast(dict[str, Tensor], self._fabric.all_reduce(tensors))
        line = line | {name: mean.item() for name, mean in means.items()}
        iteration, (before, start) = line["iteration"], self._watch
        self._watch = (iteration, time.perf_counter())
        for name, number in line.items():
            if isinstance(number, float) and not math.isfinite(number):
                where = f"Stopped at iteration {iteration}, where {name} is {number}"
                raise StoppedError(f"{where}. Try {advice}; the last checkpoint is from before.")
        line = line | {"iterations_per_second": round((iteration - before) / (time.perf_counter() - start), 2)}
        self.append("log", line)
        numbers = {name: line[name] for name in (*shown, "iterations_per_second")}
        if self._bar.disable and not self._settings.quiet:
            listed = ", ".join(f"{name} {number:.4g}" for name, number in numbers.items())
            self._fabric.print(f"iteration {iteration:,} of {self._settings.iterations:,}: {listed}", flush=True)
        self._bar.set_postfix(numbers)
        if self._board:
            groups = {name: each for name, each in line.items() if isinstance(each, dict)}
            parts = {f"{name}/{key}": number for name, each in groups.items() for key, number in each.items()}
            flat = {name: number for name, number in (line | parts).items() if isinstance(number, float)}
            self._board.log_metrics(flat, iteration)

    def append(self, name: str, line: Line) -> None:
        """Append a line with its `iteration` to a log."""
        agreed(self._fabric, lambda: append_line(self._folder / f"{name}.jsonl", line), StoppedError)

    @torch.no_grad()
    def _draw(self, samples: Callable[[], Tensor], iteration: int) -> None:
        def act() -> None:
            drawn = sheet(samples().cpu()).numpy()
            with replacing(self._folder / "samples" / f"iteration-{iteration:08d}.png") as partial:
                Image.fromarray(drawn.squeeze(2) if drawn.shape[2] == 1 else drawn).save(partial, format="png")
            if self._board:
                self._board.experiment.add_image("samples", drawn, iteration, dataformats="HWC")

        agreed(self._fabric, act, StoppedError)

    def _save(self, state: State) -> None:
        iteration = state["iteration"]
        content = {name: part.state_dict() if hasattr(part, "state_dict") else part for name, part in state.items()}
        if lost := checkpoints.not_finite(content):
            raise StoppedError(f"Stopped at iteration {iteration}, where numbers in {lost} are not finite")

        def act() -> None:
            with replacing(checkpoints.path_of(self._checkpoints, iteration)) as partial:
                torch.save(self._about | content, partial)
            checkpoints.tidy(self._checkpoints, iteration, self._settings.keep_every)

        agreed(self._fabric, act, StoppedError)

    def _acquire(self) -> None:
        if not self._settings.resume and self._content():
            raise RefusedError(f"{self._folder} is not empty; choose another --out, or continue by --resume auto")
        self._untouched = not self._folder.exists()
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise RefusedError(f"{self._folder} is in use by another training") from None

    def _content(self) -> bool:
        return self._folder.exists() and any(path.name != LOCK for path in self._folder.iterdir())

    def _found(self) -> Path | None:
        """Return the checkpoint to resume from, or None."""
        asked = self._settings.resume
        if asked is None:
            return None
        if asked != "auto":
            path = Path(asked)
            if self._content() and path.resolve().parent != self._checkpoints.resolve():
                lost = f"{path} is not a checkpoint of the run in it, which would be lost; choose another --out"
                raise RefusedError(f"{self._folder} is not empty, and {lost}")
            return self._checked(path, checkpoints.read(path))
        there = checkpoints.newest_first(self._checkpoints)
        for path in there:
            try:
                state = checkpoints.read(path)
            except RefusedError as error:
                print(f"Warning: {error}", file=sys.stderr)
                continue
            return self._checked(path, state)
        if there:
            raise RefusedError(f"No checkpoint in {self._checkpoints} can be read; move this folder away to start anew")
        return None

    def _checked(self, path: Path, state: State) -> Path:
        """Return the path of a checkpoint, or refuse it if it does not belong to this run."""
        for name in ("paper", "images"):
            if state.get(name) != self._about[name]:
                raise RefusedError(f"{path}: expected {name} {self._about[name]!r}, got {state.get(name)!r}")
        found = changes(state["configuration"], self._settings)
        if found and not self._settings.force:
            advice = "Choose the same settings, or another --out, or override this by --force."
            raise RefusedError(f"These settings are not those of {path}: {'; '.join(found)}. {advice}")
        return path

    def _begin(self, iteration: int) -> None:
        """Write the settings, drop log lines after an iteration, and delete temporary files of killed processes."""
        logs = {log: read_lines(log, growing=True, iteration=int) for log in self._folder.glob("*.jsonl")}
        for log, lines in logs.items():
            write_lines(log, [line for line in lines if line["iteration"] <= iteration])
        for left in ("configuration.json", "*.jsonl", "samples/*.png", "checkpoints/*.pt"):
            for partial in self._folder.glob(f"{left}.*{PARTIAL}"):
                partial.unlink()
        write_text(self._folder / "configuration.json", json.dumps(saved(self._settings), indent=2) + "\n")

    def _note(self, number: int, _: Any) -> None:  # noqa: ANN401
        self._signal = number
        signal.signal(number, self._handlers[number])  # a second signal ends the process at once


def _fill(state: State, path: Path) -> None:
    content = checkpoints.read(path)
    try:
        for name, part in state.items():
            if hasattr(part, "load_state_dict"):
                part.load_state_dict(content[name])
            else:
                state[name] = content[name]
    except Exception as error:  # any error is possible, since the file may contain anything
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise RefusedError(f"{path} does not fit these settings: {reason}") from error


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Return the joint norm of the parameters' gradients."""
    return torch.nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])


def sheet(images: Tensor, columns: int = 8, gap: int = 2) -> Tensor:
    """Arrange images `(n, channels, h, w)` in [-1, 1] on a sheet of bytes `(height, width, channels)`, in full rows."""
    padded = nn.functional.pad(to_pixels(images[: len(images) // columns * columns]), [gap] * 4, value=255)
    rows = [torch.cat(list(row), dim=2) for row in padded.split(columns)]
    return torch.cat(rows, dim=1).permute(1, 2, 0).contiguous()
