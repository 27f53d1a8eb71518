"""Runs side by side by Ray Tune, each a process that goes on from what there is in the folder of its run.

Tune's own state of an experiment is not restored: the folders know what is done, also after a change of the grid, on
another machine, or without that state. What is done is not given to Tune again.
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # which prints tables even where nothing is asked for

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from sweeps import runs as folders
from sweeps.runs import Recipe, Record, Run, last_line, write

REFUSED, BUSY = 2, 3
"""Exit statuses: of a script that changed nothing, and of a sweep if other processes have the runs that are left."""
LOOK = 2.0
"""Seconds between two looks at a process."""


class Trial(tune.Trainable):
    """A run from whatever there is of it to its end; a step waits until there is something to report."""

    def setup(self, config: dict[str, Any], recipe: Recipe) -> None:
        """Start nothing yet."""
        self._run = Run.of(config["settings"])
        self._recipe, self._folder = recipe, recipe.out / self._run.name
        self._process: subprocess.Popen[bytes] | None = None
        self._reports = self._work()

    def step(self) -> dict[str, Any]:
        """Return the next report."""
        return next(self._reports)

    def cleanup(self) -> None:
        """Let the process save its state, and wait for its end."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _work(self) -> Iterator[dict[str, Any]]:
        report = self._recipe.known(self._run) or (yield from self._train())
        if report["status"] == "finished" and self._recipe.evaluate not in (None, report.get("evaluated")):
            report |= yield from self._evaluate(report)
        yield report | {"done": True}

    def _train(self) -> Generator[dict[str, Any], None, Record]:
        """Train from rung to rung, and note how that ended, unless the script refused: then nothing has changed."""
        fresh = self._recipe.fresh(self._run)
        for rung in (*(rung for rung in self._recipe.rungs if rung > last_line(self._folder)["iteration"]), None):
            more = [f"--out={self._folder}", "--resume=auto", *([f"--iterations={rung}"] if rung else [])]
            ended, output = yield from self._watch(self._recipe.training(self._run, *more), "console.log")
            found = folders.understood(fresh, ended, output, last_line(self._folder)["iteration"])
            if not rung or found["status"] != "finished":
                break
            yield {"iteration": rung} | (yield from self._evaluate(found))
        if ended != REFUSED:
            write(self._folder, found)
        return found

    def _evaluate(self, found: Record) -> Generator[dict[str, Any], None, dict[str, Any]]:
        """Return the metrics of the newest checkpoint; that it was evaluated is noted of a run that has ended."""
        command = [sys.executable, str(self._recipe.evaluator), str(self._folder), "--overwrite"]
        command += shlex.split(self._recipe.evaluate or "")
        ended, output = yield from self._watch(command, "evaluation.log")
        if ended:
            return {"message": folders.failure("evaluation", ended, output)}
        if folders.record(self._folder) == found:
            write(self._folder, {**found, "evaluated": self._recipe.evaluate})
        return folders.evaluation(self._folder, found["iteration"])[1]

    def _watch(self, command: Sequence[str], log: str) -> Generator[dict[str, Any], None, tuple[int, str]]:
        """Report the last line of the log now and then, and return exit status and output in the end."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / log).open("ab") as file:
            begin = file.tell()
            # In a session of its own, Ctrl-C on the terminal reaches the sweep only, which then decides.
            to: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT}
            # Ray hides the GPUs of others from a run with some of its own, but none from a run without.
            to["env"] = os.environ | ({} if ray.get_gpu_ids() else {"CUDA_VISIBLE_DEVICES": ""})
            self._process = subprocess.Popen(command, cwd=self._recipe.directory, start_new_session=True, **to)
        while True:
            with suppress(subprocess.TimeoutExpired):
                ended = self._process.wait(LOOK)
                return ended, (self._folder / log).read_bytes()[begin:].decode(errors="replace")
            yield folders.finite(last_line(self._folder))


class Reporter(tune.Callback):
    """Says which runs start and what comes of each, and notes which runs the scheduler has stopped."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        """Say where the run starts."""
        run = Run.of(trial.config["settings"])
        print(f"{run.name}: starts at iteration {last_line(self._recipe.out / run.name)['iteration']:,}", flush=True)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        """Take note of the last report."""
        run, last = Run.of(trial.config["settings"]), trial.last_result
        if "status" not in last:
            last = {**self._recipe.fresh(run), "status": "stopped", "iteration": last.get("iteration", 0)}
            write(self._recipe.out / run.name, last)
        at, message = last.get("iteration", 0), last.get("message", "")
        print(f"{run.name}: {last['status']} at iteration {at:,} {message}".rstrip(), flush=True)


def start(jobs: int | None = None, cpus: float = 1.0, address: str | None = None, gpus: int | None = None) -> None:
    """Connect to a cluster, or make this machine one, with the GPUs that it has or is said to have."""
    path = os.pathsep.join([str(folders.EXAMPLES), *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(
        address,
        num_cpus=math.ceil(jobs * cpus) if jobs and not address else None,
        num_gpus=gpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )


def do(recipe: Recipe, runs: Sequence[Run]) -> int:
    """Bring runs to their end; return 0 if all are there, 3 if other processes have the others, and else 1."""
    waiting = [run for run in runs if not recipe.is_done(run)]
    if waiting:
        ours = not ray.is_initialized()
        # Tune heeds Ctrl-C while runs go on; before that, and at the second time, it is an error.
        with _like_ctrl_c(signal.SIGTERM, signal.SIGHUP), suppress(KeyboardInterrupt):
            try:
                if ours:
                    start(recipe.jobs, recipe.cpus, recipe.address)
                with _like_ctrl_c(signal.SIGTERM):  # since Ray has a handler of its own
                    _tune(recipe, waiting)
            finally:
                if ours:
                    ray.shutdown()
    left = [run for run in runs if not replace(recipe, retry=False).is_done(run)]
    busy = all(folders.status(recipe.out / run.name) == "running" for run in left)
    return (BUSY if busy else 1) if left else 0


@contextmanager
def _like_ctrl_c(*numbers: signal.Signals) -> Iterator[None]:
    usual = {number: signal.getsignal(number) for number in numbers}
    for number in (number for number in numbers if usual[number] is not signal.SIG_IGN):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def _tune(recipe: Recipe, runs: Sequence[Run]) -> None:
    gpus = min(1.0, ray.cluster_resources().get("GPU", 0)) if recipe.gpus is None else recipe.gpus
    by = {"time_attr": "iteration", "metric": recipe.metric, "mode": "min"}
    rungs = {"grace_period": min(recipe.rungs, default=1), "max_t": 3 * max(recipe.rungs, default=1)}
    asha = AsyncHyperBandScheduler(**by, **rungs, reduction_factor=3, stop_last_trials=False)
    # After Ctrl-C, Tune gives trainings ten seconds to save.
    tune.Tuner(
        tune.with_resources(tune.with_parameters(Trial, recipe=recipe), {"cpu": recipe.cpus, "gpu": gpus}),
        param_space={"settings": tune.grid_search([run.settings for run in runs])},
        tune_config=tune.TuneConfig(scheduler=asha if recipe.rungs else None, max_concurrent_trials=recipe.jobs),
        run_config=tune.RunConfig(
            storage_path=str(recipe.out / ".ray-tune"),
            callbacks=[Reporter(recipe)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    ).fit()
