"""Train the networks of the scaled-MMD paper (Arbel et al. 2018, Section 4) by one of eight methods."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # so that this file can also be started itself
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import training  # noqa: F401  # before other imports, so that all missing packages are named at once

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from training.batches import batches, to_pixels
from training.errors import StoppedError
from training.processes import averaged, everywhere, launch
from training.randomness import Randomness
from training.run import SAMPLES, Run, gradient_norm
from training.sampling import MovingAverage, Sampler
from training.settings import read

from arbel2018 import data
from arbel2018.kid_schedule import kid_schedule
from arbel2018.losses import make_loss
from arbel2018.networks import make_critic, make_generator, singular_values
from arbel2018.presets import METHODS, PRESETS, Arbel2018, resolved

BETAS = (0.5, 0.9)  # of Adam, as in the paper

ADVICE = (
    "lower learning rates (--lr-discriminator, --lr-generator), a larger --scale-weight or --gradient-penalty for the "
    "losses that have one, or another --seed"
)
"""Options to try if a number is not finite."""


def main(arguments: Sequence[str] | None = None) -> Path:
    """Train a preset with the options of a command line, and return the folder of the run."""
    return launch(train, resolved(read(PRESETS, str(__doc__), arguments)))


def script(dataset: str, description: str, arguments: Sequence[str] | None = None) -> Path:
    """Do the same as `main` for the preset of a data set and of the method that the option `--method` names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--method", choices=tuple(METHODS), default="sn-smmd")
    known, rest = parser.parse_known_args(arguments)
    of_method = f"--method {{{','.join(METHODS)}}}: method of the paper, which sets the defaults (default: sn-smmd)."
    settings = read(PRESETS, f"{description}\n\n{of_method}", [f"{dataset}-{known.method}", *rest])
    return launch(train, resolved(settings))


def train(fabric: Fabric, settings: Arbel2018) -> None:
    """Train from the start or a checkpoint, to the end or until a signal.

    Each process computes the losses of its own batch, and gradients are averaged, which gives the block estimator of an
    MMD loss. DDP is not used, since these losses differentiate twice.
    """
    randomness = Randomness(fabric, settings.seed)
    size: dict[str, Any] = {"size": settings.size, "channels": settings.channels}
    images = everywhere(fabric, lambda: data.load(settings.dataset, settings.data_root, **size))

    # Networks are made on the CPU, so that a seed gives the same weights on all devices.
    loss = make_loss(settings).to(fabric.device)
    generator = make_generator(settings).to(fabric.device)
    critic = make_critic(settings).to(fabric.device)
    average = MovingAverage(generator, settings.ema_decay)
    adam_d = torch.optim.Adam(critic.parameters(), settings.lr_discriminator, BETAS)
    adam_g = torch.optim.Adam(generator.parameters(), settings.lr_generator, BETAS)
    state: dict[str, Any] = {
        "iteration": 0,
        "generator": generator,
        "discriminator": critic,
        "average": average,
        "adam_discriminator": adam_d,
        "adam_generator": adam_g,
        "loss": loss,
        "randomness": randomness,
    }
    schedule = kid_schedule(fabric, settings, [adam_d, adam_g]) if settings.kid_features else None
    if schedule:
        state["kid_schedule"] = schedule

    joint = settings.batch_size * fabric.world_size
    shown = torch.rand(SAMPLES, settings.noise, generator=torch.Generator().manual_seed(settings.seed)) * 2 - 1

    def next_real() -> Tensor:
        pixels = next(reals)
        if settings.dataset == "celeba":
            pixels = data.augmented(pixels, settings.size, randomness.uniform(joint, 3))
        return pixels / 255

    def generate() -> Tensor:
        return generator(randomness.uniform(joint, settings.noise))

    @torch.no_grad()
    def sample(noise: Tensor) -> Tensor:
        return torch.cat([average(part) for part in noise.to(fabric.device).split(256)]) * 2 - 1

    with Run(fabric, settings, paper="arbel2018", images=len(images)) as run:
        run.resume(state)  # also restores the learning rates, which may have been lowered
        drawn = state["iteration"] * (settings.critic_steps + 1)
        reals = batches(images, joint, settings, fabric=fabric, start=drawn)
        for iteration in run.iterations(state, lambda: sample(shown)):
            for _ in range(settings.critic_steps):
                real = next_real()
                with torch.no_grad():
                    fake = generate()
                loss_d = loss.critic_loss(critic, real, fake)
                update(adam_d, critic, loss_d, fabric=fabric, clip_norm=settings.clip_norm)
                averaged(fabric, loss.buffers())
            loss_g = loss.generator_loss(critic, next_real(), generate())
            update(adam_g, generator, loss_g, fabric=fabric, clip_norm=settings.clip_norm)
            average.update_parameters(generator)
            averaged(fabric, average.buffers())  # batch normalisation has the statistics of each process's own batches
            if schedule and iteration % settings.kid_every == 0:
                # All processes use the same noise, since their outcomes have to be equal bit for bit.
                shape = (settings.kid_images, settings.noise)
                noise = torch.rand(shape, generator=randomness.generator, device=fabric.device) * 2 - 1
                schedule.step(to_pixels(sample(noise)))
            if run.is_due(settings.log_every, iteration):
                line: dict[str, Any] = {
                    "iteration": iteration,
                    "loss_discriminator": loss_d,
                    "loss_generator": loss_g,
                    "gradient_norm_discriminator": gradient_norm(critic.parameters()),
                    "gradient_norm_generator": gradient_norm(generator.parameters()),
                    "lr_discriminator": adam_d.param_groups[0]["lr"],
                    "lr_generator": adam_g.param_groups[0]["lr"],
                }
                if schedule:
                    line |= {"kid_p_value": schedule.p_value, "kid_failures": schedule.failures}
                run.log(line, advice=ADVICE)
            if run.is_due(settings.spectrum_every, iteration):
                try:
                    run.append("singular_values", {"iteration": iteration, "singular_values": singular_values(critic)})
                except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                    lost = f"Stopped at iteration {iteration}, where weights of the discriminator are not finite."
                    raise StoppedError(f"{lost} Try {ADVICE}") from None


def update(adam: torch.optim.Optimizer, network: nn.Module, loss: Tensor, *, fabric: Fabric, clip_norm: float) -> None:
    """Update a network by the mean over the processes of the gradients of a loss.

    The gradient of each parameter is clipped by its own norm, as in the authors' code; the paper does not mention this.
    """
    parameters = list(network.parameters())
    gradients = [gradient.contiguous() for gradient in torch.autograd.grad(loss, parameters)]
    averaged(fabric, gradients)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
        if clip_norm:
            parameter.grad = gradient * (clip_norm / torch.linalg.vector_norm(gradient).clamp(min=clip_norm))
    adam.step()


def sampler(configuration: Mapping[str, Any]) -> Sampler:
    """Return a sampler for the settings in a checkpoint; settings that cannot be used raise an error."""
    chosen = Arbel2018(out=Path(), **dict(configuration))
    shape = {"size": chosen.size, "channels": chosen.channels}
    return Sampler(
        make_generator(chosen),
        lambda count, generator: torch.rand(count, chosen.noise, generator=generator) * 2 - 1,
        lambda images: images * 2 - 1,
        lambda root, split: data.load(chosen.dataset, root, split=split, margin=0, **shape),
    )


if __name__ == "__main__":
    main()
