"""The parts of the benchmark that train. Their imports are those of the experiments, which take seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch

from on_gpu import training
from on_gpu.journal import emit
from on_gpu.loss_parts import Task
from on_gpu.timing import Candidate, counts, described, free, tensor_float, timed, wait


def training_step(task: Task) -> None:
    """Time the step of the CIFAR-10 experiment in each precision, and the shares of its parts."""
    precisions = training.PRECISIONS
    for done, (name, settings) in enumerate(precisions.items()):
        if task.is_over:
            emit({"precision": name, "what": "step", "error": "not tried: no time was left"})
            continue
        with _context(settings.tensor_float, task)():
            try:
                _step_and_shares(name, settings, task, task.deadline(done, len(precisions)))
            except Exception as error:
                emit({"precision": name, "what": "step", "error": described(error)})
                free(task.device)


def _step_and_shares(name: str, settings: training.Precision, task: Task, deadline: float) -> None:
    context = _context(settings.tensor_float, task)
    work = training.steps(settings, task.device, task.small)
    begin = time.monotonic()
    middle = begin + 0.5 * max(0.0, deadline - begin)
    found = {key: Candidate(do, context=context) for key, do in work.items()}
    times, errors = timed(found, task.device, middle, task.rounds)
    counted = counts(found[training.OURS], task.device) if training.OURS in times else {}
    for key, taken in times.items():
        extra = counted if key == training.OURS else {}
        emit({"precision": name, "what": key, "images": training.batch_size(task.small), **taken, **extra})
    del work
    found.clear()
    free(task.device)
    parts = training.parts(settings, task.device, task.small)
    found = {key: part._replace(context=context) for key, part in parts.items()}
    shares, more = timed(found, task.device, deadline, task.rounds)
    for key, taken in shares.items():
        emit({"precision": name, "part_of_step": key, **taken})
    for key, error in {**errors, **more}.items():
        emit({"precision": name, "what": key, "error": error})


def _context(allowed: bool, task: Task) -> Callable[[], AbstractContextManager[object]]:
    return partial(tensor_float, allowed) if task.device.type == "cuda" else nullcontext


def compiled_step(task: Task) -> None:
    """Time the step with compiled networks, compared with the same step without compilation."""
    if task.small:  # without the minutes that generating code takes
        torch.compile = partial(torch.compile, backend="eager")
    chosen = list(training.COMPILED.items())[: 1 if task.small else None]
    for done, (name, settings) in enumerate(chosen):
        if task.is_over:
            emit({"precision": name, "what": "compiled step", "error": "not tried: no time was left"})
            continue
        start = time.monotonic()
        context = _context(settings.tensor_float, task)
        try:
            eager = training.whole_step(settings._replace(compiled=False), task.device, task.small)
            compiled = training.whole_step(settings, task.device, task.small)
            with context():
                for _ in range(2):
                    compiled()
                wait(task.device)
            emit({"precision": name, "what": "compiled step", "first_calls": time.monotonic() - start})
            found = {
                "step": Candidate(eager, context=context),
                "compiled step": Candidate(compiled, context=context),
            }
            deadline = task.deadline(done, len(chosen))
            times, errors = timed(found, task.device, deadline, task.rounds)
            for key, taken in times.items():
                counted = counts(found[key], task.device)
                emit({"precision": name, "what": key, "images": training.batch_size(task.small), **taken, **counted})
            for key, error in errors.items():
                emit({"precision": name, "what": key, "error": error})
        except Exception as error:
            emit({"precision": name, "what": "compiled step", "error": described(error)})
            free(task.device)


WORK: dict[str, Callable[[Task], None]] = {"training step": training_step, "compiled step": compiled_step}
"""The parts of this module, by name."""
