"""What an iteration of each setting costs, measured side by side in one process, and the share of the loss in it.

Settings take turns, one iteration each, and the median CPU time of one thread counts: what else the machine does then
weighs on all of them alike.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

import torch
from dcgan.atomic import write_text
from dcgan.gan import GAN
from dcgan.losses import Loss
from dcgan.options import Reader
from dcgan.presets import PRESETS
from torch import Tensor

from studies import logs, protocol
from studies.protocol import Setting
from torch_mmd_losses import ScaledMMDLoss

FILE = "costs.jsonl"
"""Where among the raw logs it is."""

WARM_UP = 5

SETTINGS: Sequence[Setting] = tuple(
    dict.fromkeys(each for name in ("losses", "updates", "norms") for each in protocol.QUESTIONS[name].settings)
)
"""All that may cost differently but for the number of scores; lambda costs nothing."""


def measure(settings: Iterable[Setting], turns: int) -> list[logs.Line]:
    """Return the median CPU milliseconds of an iteration of each setting, and of its loss alone.

    The loss is both losses of given scores with their gradients by the scores. Scaled MMD has no share: its gradient
    goes through the discriminator.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    steps: dict[Setting, Callable[[], object]] = {}
    losses: dict[Setting, Callable[[], object]] = {}
    for each in settings:
        gan = _gan(each)
        shape = (gan.configuration.batch_size, 1, gan.configuration.size, gan.configuration.size)
        real = torch.rand(shape).mul(2).sub(1)
        steps[each] = lambda gan=gan, real=real: gan.step(real)  # type: ignore[misc]
        if not isinstance(gan.loss, ScaledMMDLoss):
            scores = [part.detach() for part in gan.discriminator(torch.cat([real, real.flip(0)])).chunk(2)]
            losses[each] = lambda loss=gan.loss, scores=scores: _differentiate(loss, scores)  # type: ignore[misc]
    of_steps, of_losses = _times(steps, turns), _times(losses, turns)
    return [
        {
            "settings": dict(each),
            "milliseconds": round(milliseconds, 3),
            "share_of_loss": round(of_losses[each] / milliseconds, 5) if each in of_losses else None,
            "turns": turns,
        }
        for each, milliseconds in of_steps.items()
    ]


def write(path: Path, lines: Iterable[logs.Line]) -> None:
    """Write them as JSON-lines."""
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def _gan(chosen: Setting) -> GAN:
    options = [*protocol.OPTIONS, *(f"--{name}={value}" for name, value in chosen), "--device=cpu"]
    configuration, _ = Reader("Cost.", PRESETS[protocol.NAME], Path()).read(options)
    return GAN(configuration)


def _differentiate(loss: Loss, scores: Sequence[Tensor]) -> None:
    real, fake = (part.clone().requires_grad_() for part in scores)
    losses = loss.both(real=real, fake=fake)
    torch.autograd.grad(losses.discriminator, [real, fake], retain_graph=True)
    torch.autograd.grad(losses.generator, [real, fake], allow_unused=True)


def _times(work: dict[Setting, Callable[[], object]], turns: int) -> dict[Setting, float]:
    times: dict[Setting, list[float]] = {each: [] for each in work}
    for turn in range(WARM_UP + turns):
        for each, do in work.items():
            start = time.process_time()
            do()
            if turn >= WARM_UP:
                times[each].append((time.process_time() - start) * 1e3)
    return {each: median(found) for each, found in times.items()}
