"""The training of a one-step generator by MMD on the features of frozen encoders, without a discriminator.

Run as a script, it trains the preset in its first argument.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script itself, not through one of the scripts in examples/
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from one_step.command import main

    main()
    sys.exit()

import torch
from lightning_fabric import Fabric
from torch import Tensor
from training.errors import RefusedError
from training.images import Images
from training.images import load as load_images
from training.processes import agreed, averaged, everywhere
from training.randomness import Randomness
from training.run import SAMPLES, Run
from training.sampling import MovingAverage

from one_step import encoders
from one_step.clock import Clock
from one_step.command import main as main
from one_step.data import classes_of, features_of, split
from one_step.objectives import Objective, Rows, check_floors, joined, one_hot, total
from one_step.presets import OneStep
from one_step.sampling import generator_of
from one_step.sampling import sampler as sampler
from torch_mmd_losses import UsageWarning, cached_backward

ADVICE = "a lower --lr, a --clip of the gradient, a larger --factor, --precision 32-true, or another --seed"
"""Suggestions for a run that stops because a number is not finite."""


def train(fabric: Fabric, settings: OneStep) -> None:
    """Train from the start, or from a checkpoint, to the end or until a signal."""
    warnings.filterwarnings("ignore", "MMDLoss: expected (several scores|kernel values)", UsageWarning)
    randomness = Randomness(fabric, settings.seed)
    data: dict[str, Any] = {"size": settings.size, "channels": settings.channels}
    images = everywhere(fabric, lambda: load_images(settings.dataset, settings.data_root, **data))
    found = len(images)
    classes = None
    if settings.conditional:
        classes = everywhere(fabric, lambda: classes_of(settings.dataset, settings.data_root, found))
    settings = replace(settings, classes=0 if classes is None else int(classes.max()) + 1)
    check(fabric, settings, found)

    # Made on the CPU, so that a seed gives the same weights on all devices; channels_last is faster.
    generator = generator_of(settings)
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator.to(fabric.device)
    average = MovingAverage(generator, settings.ema_decay)
    adam = torch.optim.AdamW(generator.parameters(), settings.lr, settings.betas, weight_decay=0.0)
    networks = everywhere(fabric, lambda: [encoders.load(each, channels=data["channels"]) for each in settings.encoder])
    for network in networks:
        network.to(fabric.device)
    clock = Clock(fabric)
    state: dict[str, Any] = {
        "iteration": 0,
        "clock": clock,
        "generator": generator,
        "average": average,
        "adam": adam,
        "randomness": randomness,
    }
    own = slice(fabric.global_rank, None, fabric.world_size)
    in_turns = torch.arange(settings.batch_size, device=fabric.device)[own]

    def inputs() -> Tensor:
        """Return the inputs of this process's share of a batch, whose classes are 0, 1, 2, ... in turn."""
        return with_classes(randomness.normal(settings.batch_size, settings.noise), in_turns, settings)

    def encode(noise: Tensor) -> dict[str, Tensor]:
        with fabric.autocast():
            images = generator(noise)
            features = {network.name: network(images).float() for network in networks}
        of_class = noise[:, settings.noise :] if settings.conditional else None
        return {name: joined(each, of_class) for name, each in features.items()}

    with Run(fabric, settings, paper="one_step", images=found) as run:
        objectives = prepare(fabric, settings, networks, images, classes)
        agreed(fabric, lambda: check_floors(objectives, settings))
        run.resume(state)
        if state["iteration"] == 0:
            for objective in objectives:
                about = {"encoder": objective.name, "floor": objective.floor(settings.batch_size)}
                run.append("encoders", {"iteration": 0, "kernel": repr(objective.kernel), **about})
        for group in adam.param_groups:
            group["lr"] = settings.lr  # may differ from the checkpoint with --force
        shown = torch.randn(SAMPLES, settings.noise, generator=torch.Generator().manual_seed(settings.seed))
        shown = with_classes(shown, torch.arange(SAMPLES), settings).to(fabric.device)
        floors = [objective.floor(settings.batch_size) for objective in objectives]
        generated: dict[str, Tensor] = {}

        def loss_of(features: dict[str, Tensor]) -> Tensor:
            generated.update({name: each.detach() for name, each in features.items()})
            values = [each.loss(features[each.name], randomness.generator) for each in objectives]
            return total(values, floors, settings.balance)

        limit = settings.cpu_seconds or math.inf
        for iteration in run.iterations(state, lambda: average(shown), until=lambda: clock.seconds >= limit):
            clock.start()
            adam.zero_grad()
            chunks = inputs().split(settings.micro_batch)
            if len(chunks) > 1:
                loss = cached_backward(chunks, encode, loss_of)
            else:
                loss = loss_of(encode(chunks[0]))
                loss.backward()
            gradients = [each.grad for each in generator.parameters() if each.grad is not None]
            # Fabric's DDP wrapper would average too, but allows `fabric.backward` only, not `cached_backward`.
            averaged(fabric, gradients)
            norm = torch.nn.utils.get_total_norm(gradients)
            if settings.clip:
                torch.nn.utils.clip_grads_with_norm_(generator.parameters(), settings.clip, norm)
            adam.step()
            average.update_parameters(generator)
            clock.stop()
            if run.is_due(settings.log_every, iteration):
                terms = {each.name: each.terms(generated[each.name], fabric) for each in objectives}
                ratio = sum(each["ratio_to_real"] for each in terms.values()) / len(terms)
                named = {f"{name} {what}": number for name, each in terms.items() for what, number in each.items()}
                line = {
                    "iteration": iteration,
                    "cpu_seconds": round(clock.seconds, 2),
                    "loss": loss.item(),
                    "gradient_norm": norm.item(),
                    "ratio_to_real": ratio,
                }
                run.log(line | named, advice=ADVICE, shown=("ratio_to_real", "cpu_seconds"))


def prepare(
    fabric: Fabric,
    settings: OneStep,
    networks: Sequence[encoders.Encoder],
    images: Images,
    classes: Tensor | None,
) -> list[Objective]:
    """Encode all images, and return the objective of each encoder."""
    count = len(images)
    learnt, held_out = split(count, held_out_of(settings, count), settings.seed, settings.learnt)
    options: dict[str, Any] = {"fabric": fabric, "chunk": settings.micro_batch, "workers": settings.workers}
    names = ", ".join(settings.encoder)
    say(fabric, settings, f"Encoding {len(learnt):,} training images and {len(held_out):,} held-out images by {names}")
    with fabric.autocast():
        of_learnt = features_of(images, learnt, networks, **options)
        of_held_out = features_of(images, held_out, networks, **options)
    device = torch.device("cpu") if settings.on_host else fabric.device
    say(fabric, settings, "Preparing the kernel and the reference of each encoder")
    objectives = []
    for network, rows, others in zip(networks, of_learnt, of_held_out, strict=True):
        if settings.standardise:
            columns = network.standardise_by(rows)
            rows, others = columns(rows), columns(others)
        of_class = None if classes is None else one_hot(classes[held_out], settings.classes)
        own = Rows(rows.to(device), None if classes is None else classes[learnt].to(device), settings.classes)
        others = joined(others, of_class).to(fabric.device)
        objectives.append(Objective(network.name, own, others, settings=settings, fabric=fabric))
    return objectives


def check(fabric: Fabric, settings: OneStep, images: int) -> None:
    """Raise `RefusedError` if settings do not fit the processes or the data."""
    world = fabric.world_size
    if settings.batch_size % world:
        raise RefusedError(f"batch_size: expected a multiple of the {world} processes, got {settings.batch_size}")
    if settings.loss == "drift" and world > 1:
        raise RefusedError(f"loss: expected mmd with {world} processes, got drift")
    if settings.norm == "batch" and world > 1:
        raise RefusedError(f"norm: expected layer with {world} processes, got batch")
    held_out = held_out_of(settings, images)
    left = images - held_out
    if left < 2:
        raise RefusedError(f"held_out: expected at most {images - 2} of {images} images, got {held_out}")
    if settings.learnt and settings.learnt > left:
        raise RefusedError(f"learnt: expected at most the {left} images that are not held out, got {settings.learnt}")
    for name in ("batch_size", "real_batch"):
        value = getattr(settings, name)
        if settings.loss == "drift" and settings.classes and value and value % settings.classes:
            raise RefusedError(
                f"{name}: expected a multiple of the {settings.classes} classes with --loss drift, got {value}"
            )


def say(fabric: Fabric, settings: OneStep, text: str) -> None:
    """Print a line in the first process, unless the training is quiet."""
    if not settings.quiet:
        fabric.print(text, flush=True)


def held_out_of(settings: OneStep, images: int) -> int:
    """Return the number of held-out images."""
    return settings.held_out or min(max(2, images // 10), 5000)


def with_classes(noise: Tensor, numbers: Tensor, settings: OneStep) -> Tensor:
    """Return noise, followed by the one-hot class of each image number if there are classes."""
    return joined(noise, one_hot(numbers % settings.classes, settings.classes) if settings.classes else None)
