"""Parallel runs by Ray Tune, each a process that continues from the last checkpoint in the folder of its run.

Tune's own state of an experiment is not restored. The folders decide which runs are done, also after a change of the
grid or on another machine, and Tune gets only the other runs.
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
from contextlib import suppress
from dataclasses import replace
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # which prints tables even where nothing is asked for

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from sweeps.runs import EXAMPLES, Recipe, Record, Run, evaluations, failure, reached, record, understood, write

REFUSED = 2  # exit status of a training script that changed nothing
LOOK = 2.0  # seconds between two looks at a process
ENDING = (signal.SIGTERM, signal.SIGHUP)  # signals that end a sweep as Ctrl-C does


class Trial(tune.Trainable):
    """A run, from its last checkpoint to its end. A step waits for the next report."""

    def setup(self, config: dict[str, Any], recipe: Recipe) -> None:
        """Prepare the run without starting a process."""
        self._run = Run.of(config["settings"])
        self._recipe, self._folder = recipe, recipe.out / self._run.name
        self._process: subprocess.Popen[bytes] | None = None
        self._reports = self._work()

    def step(self) -> dict[str, Any]:
        return next(self._reports)

    def cleanup(self) -> None:
        """Let the process save a checkpoint, and wait for its end."""
        if self._process is not None:
            # A second SIGTERM would end a training without a checkpoint, and Slurm sends one to all processes of a job.
            self._process.send_signal(signal.SIGINT)
            self._process.wait()

    def _work(self) -> Iterator[dict[str, Any]]:
        """Train from rung to rung, record the end unless the script refused, which changes nothing, and evaluate."""
        recipe = self._recipe
        found = recipe.known(self._run)
        if not found:
            for rung in (*(rung for rung in recipe.rungs if rung > reached(self._folder)), None):
                more = [f"--out={self._folder}", "--resume=auto", *([f"--iterations={rung}"] if rung else [])]
                ended, output = yield from self._watch(recipe.training(self._run, *more), "console.log")
                found = understood(recipe.fresh(self._run), ended, output, reached(self._folder))
                if not rung or found["status"] != "finished":
                    break
                yield {"iteration": rung} | (yield from self._evaluate(found))
            if ended != REFUSED:
                write(self._folder, found)
        if found["status"] == "finished" and recipe.evaluate not in (None, found.get("evaluated")):
            found |= yield from self._evaluate(found)
        yield found | {"done": True}

    def _evaluate(self, found: Record) -> Generator[dict[str, Any], None, dict[str, Any]]:
        """Return the metrics of the newest checkpoint; the record of a run that has ended gets the options."""
        script, options = self._recipe.script.with_name("evaluate.py"), shlex.split(self._recipe.evaluate or "")
        command = [sys.executable, str(script), str(self._folder), "--overwrite", *options]
        ended, output = yield from self._watch(command, "evaluation.log")
        if ended:
            return {"message": failure("evaluation", ended, output)}
        if record(self._folder) == found:
            write(self._folder, {**found, "evaluated": self._recipe.evaluate})
        return dict(evaluations(self._folder).get(found["iteration"], {"metrics": {}})["metrics"])

    def _watch(self, command: Sequence[str], log: str) -> Generator[dict[str, Any], None, tuple[int, str]]:
        """Report the progress every few seconds; return exit status and output at the end."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / log).open("ab") as file:
            begin = file.tell()
            self._process = subprocess.Popen(
                command,
                cwd=self._recipe.directory,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # Ray hides the GPUs of others from a run with GPUs of its own, but not from a run without any.
                env=os.environ | ({} if ray.get_gpu_ids() else {"CUDA_VISIBLE_DEVICES": ""}),
                start_new_session=True,  # so that Ctrl-C on the terminal reaches the sweep only
                preexec_fn=_heed_signals,
            )
        while True:
            with suppress(subprocess.TimeoutExpired):
                ended = self._process.wait(LOOK)
                return ended, (self._folder / log).read_bytes()[begin:].decode(errors="replace")
            yield {"iteration": reached(self._folder)}


class Reporter(tune.Callback):
    """Prints the start and the end of each run, and records the runs that the scheduler stopped."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        run = Run.of(trial.config["settings"])
        print(f"{run.name}: starts at iteration {reached(self._recipe.out / run.name):,}", flush=True)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401
        run, last = Run.of(trial.config["settings"]), trial.last_result
        if "status" not in last:
            last = {**self._recipe.fresh(run), "status": "stopped", "iteration": last.get("iteration", 0)}
            write(self._recipe.out / run.name, last)
        status = "interrupted" if last["status"] == "missing" else last["status"]
        at, message = last.get("iteration", 0), last.get("message", "")
        print(f"{run.name}: {status} at iteration {at:,} {message}".rstrip(), flush=True)


def start(jobs: int | None = None, cpus: float = 1.0, address: str | None = None, gpus: int | None = None) -> None:
    """Connect to a Ray cluster, or start one on this machine with its own GPUs or the given number of them.

    The processes of a new cluster inherit a mask that blocks `ENDING`. Supervisors send these signals to all processes
    of a sweep, and without Ray's processes, the sweep would wait for them for a minute and could not save anything.
    """
    path = os.pathsep.join([str(EXAMPLES), *filter(None, [os.environ.get("PYTHONPATH")])])
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    heeded = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    try:
        ray.init(
            address,
            num_cpus=math.ceil(jobs * cpus) if jobs and not address else None,
            num_gpus=gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": path}},
        )
    finally:
        for number in heeded:  # and not before, since Ray sets handlers too
            signal.signal(number, _interrupt)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def do(recipe: Recipe, runs: Sequence[Run]) -> int:
    """Complete runs; return 0 if all are done, and else 1."""
    if waiting := [run for run in runs if not recipe.is_done(run)]:
        # Tune handles the first Ctrl-C during the runs. Before the runs, and at the second time, it is an error.
        with suppress(KeyboardInterrupt):
            if not ray.is_initialized():
                start(recipe.jobs, recipe.cpus, recipe.address)
            _tune(recipe, waiting)
    return int(not all(map(replace(recipe, retry=False).is_done, runs)))


def _interrupt(*_: object) -> None:
    """Turn the first of the signals `ENDING` into Ctrl-C, and ignore the others: `timeout` sends two of them."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    signal.raise_signal(signal.SIGINT)


def _heed_signals() -> None:
    """Undo, in a new process, what it inherits from Ray's processes, and from shells that ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _tune(recipe: Recipe, runs: Sequence[Run]) -> None:
    gpus = min(1.0, ray.cluster_resources().get("GPU", 0)) if recipe.gpus is None else recipe.gpus
    by = {"time_attr": "iteration", "metric": recipe.metric, "mode": "min"}
    rungs = {"grace_period": min(recipe.rungs, default=1), "max_t": 3 * max(recipe.rungs, default=1)}
    asha = AsyncHyperBandScheduler(**by, **rungs, reduction_factor=3, stop_last_trials=False)
    # After Ctrl-C, Tune gives trainings ten seconds to save a checkpoint.
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
