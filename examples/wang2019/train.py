"""Train the DCGAN of the repulsive-loss paper (Wang et al. 2019, Section 5)."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # so that this file can also be started itself
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import training  # noqa: F401  # before other imports, so that all missing packages are named at once

import torch
from lightning_fabric import Fabric
from one_step import networks as one_step
from one_step.clock import Clock
from torch import Tensor, nn
from training.batches import batches, centred
from training.images import load
from training.processes import everywhere, launch
from training.randomness import Randomness
from training.run import SAMPLES, Run, gradient_norm
from training.sampling import MovingAverage, Sampler
from training.settings import read

from torch_mmd_losses import MMDLoss, ScaledMMDLoss, UsageWarning, gradient_penalty, spectral_norms
from torch_mmd_losses.results import Losses
from wang2019.losses import make_loss, penalised
from wang2019.networks import make_discriminator, make_generator
from wang2019.presets import PRESETS, Wang2019, resolved

BETAS = (0.5, 0.999)
"""Of Adam, as in the paper. TensorFlow adds epsilon (also 1e-8) before the bias correction, PyTorch after it."""

ADVICE = (
    "lower learning rates (--lr-discriminator, --lr-generator), a smaller --scale or --total-scale, the bounded kernel "
    "(--loss mmd-rep-b), --precision 32-true, or another --seed"
)
"""Options to try if a number is not finite."""


def main(arguments: Sequence[str] | None = None) -> Path:
    """Train a preset with the options of a command line, and return the folder of the run."""
    return launch(train, resolved(read(PRESETS, str(__doc__), arguments)))


def script(preset: str, description: str, arguments: Sequence[str] | None = None) -> Path:
    """Do the same as `main` for one preset, whose name is not among the arguments."""
    options = sys.argv[1:] if arguments is None else arguments
    return launch(train, resolved(read(PRESETS, description, [preset, *options])))


def train(fabric: Fabric, settings: Wang2019) -> None:
    """Train from the start or a checkpoint, to the end or until a signal."""
    # Users choose the number of scores, and the log has the share of saturated pairs.
    warnings.filterwarnings("ignore", "MMDLoss: expected (several scores|kernel values)", UsageWarning)
    randomness = Randomness(fabric, settings.seed)
    shape: dict[str, Any] = {"size": settings.size, "channels": settings.channels}
    images = everywhere(fabric, lambda: load(settings.dataset, settings.data_root, **shape))

    # Networks are made on the CPU, so that a seed gives the same weights on all devices.
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    generator = generator_of(settings)
    norm: dict[str, Any] = {"method": settings.normalisation, "scale": settings.scale}
    discriminator = make_discriminator(scores=settings.scores or 1, width=settings.width, **norm, **shape)
    for network in (generator, discriminator):
        network.to(fabric.device, memory_format=layout)  # type: ignore[call-overload]
    average = MovingAverage(generator, settings.ema_decay)
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        # SyncBatchNorm does not run on CPUs, where each process normalises its own images.
        generator = nn.SyncBatchNorm.convert_sync_batchnorm(generator)
    adam_d = torch.optim.Adam(discriminator.parameters(), settings.lr_discriminator, BETAS)
    adam_g = torch.optim.Adam(generator.parameters(), settings.lr_generator, BETAS)
    if settings.compile:
        generator.compile(dynamic=False)
        discriminator.compile(dynamic=False)
    # Forward passes go through these wrappers; checkpoints hold the networks themselves.
    D, optimiser_d = fabric.setup(discriminator, adam_d)
    G, optimiser_g = fabric.setup(generator, adam_g)
    of_d, of_g = list(discriminator.parameters()), list(generator.parameters())
    joint = settings.across == "global"
    loss = make_loss(settings.loss, lambda_=settings.lambda_, joint=joint)
    if isinstance(loss, nn.Module):
        loss.to(fabric.device)  # a kernel may have buffers

    state: dict[str, Any] = {
        "iteration": 0,
        "generator": generator,
        "discriminator": discriminator,
        "average": average,
        "adam_discriminator": adam_d,
        "adam_generator": adam_g,
        "randomness": randomness,
    }
    clock, limit = Clock(fabric), settings.cpu_seconds or math.inf
    if settings.cpu_seconds:
        state["clock"] = clock
    seeded = torch.Generator().manual_seed(settings.seed)
    shown = torch.randn(SAMPLES, settings.noise, generator=seeded).to(fabric.device)

    def generate() -> Tensor:
        return G(randomness.normal(settings.batch_size, settings.noise))

    def losses_of(real: Tensor, fake: Tensor) -> tuple[Losses, Tensor, Tensor]:
        """Return both losses and the scores from one forward pass of the discriminator."""
        if settings.differentiates_twice:
            real = real.detach().requires_grad_()
        scores_real, scores_fake = D(torch.cat([real, fake]).contiguous(memory_format=layout)).chunk(2)
        extra = {"inputs": real} if isinstance(loss, ScaledMMDLoss) else {}
        losses = loss.both(real=scores_real, fake=scores_fake, **extra)
        if settings.gradient_penalty:
            steepness = gradient_penalty(scores_real, real, target=0.0)
            if joint:  # take the value of the joint batch; DDP averages the gradients
                mean: Any = fabric.all_reduce(steepness.detach())
                steepness = steepness + (mean - steepness).detach()
            critical = penalised(losses.discriminator, steepness, settings.gradient_penalty)
            losses = losses._replace(discriminator=critical)
        return losses, scores_real, scores_fake

    with Run(fabric, settings, paper="wang2019", images=len(images)) as run:
        run.resume(state)
        adam_d.param_groups[0]["lr"] = settings.lr_discriminator  # --force may have changed them
        adam_g.param_groups[0]["lr"] = settings.lr_generator
        reals = batches(images, settings.batch_size, settings, fabric=fabric, start=state["iteration"])
        for iteration in run.iterations(state, lambda: average(shown), until=lambda: clock.seconds >= limit):
            clock.start()
            real = centred(next(reals))
            optimiser_d.zero_grad()
            optimiser_g.zero_grad()
            if settings.updates == "simultaneous":
                losses, scores_real, scores_fake = losses_of(real, generate())
                fabric.backward(losses.discriminator, inputs=of_d, retain_graph=True)
                fabric.backward(losses.generator, inputs=of_g)  # through the discriminator before its step
                optimiser_d.step()
            else:
                with torch.no_grad():
                    fake = generate()
                losses, scores_real, scores_fake = losses_of(real, fake)
                fabric.backward(losses.discriminator, inputs=of_d)
                optimiser_d.step()
                losses = losses._replace(generator=losses_of(real, generate())[0].generator)
                fabric.backward(losses.generator, inputs=of_g)
            optimiser_g.step()
            average.update_parameters(generator)
            if settings.cpu_seconds:  # only then, since it needs communication between processes
                clock.stop()
            if run.is_due(settings.log_every, iteration):
                line: dict[str, Any] = {
                    "iteration": iteration,
                    "loss_discriminator": losses.discriminator,
                    "loss_generator": losses.generator,
                    "gradient_norm_discriminator": gradient_norm(of_d),
                    "gradient_norm_generator": gradient_norm(of_g),
                    **terms(loss, scores_real, scores_fake),
                }
                if settings.normalisation != "none":
                    line["sigma"] = {name: sigma.item() for name, sigma in spectral_norms(discriminator).items()}
                if settings.cpu_seconds:
                    line["cpu_seconds"] = round(clock.seconds, 2)
                run.log(line, advice=ADVICE)


def terms(loss: object, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Return the mean kernel values of scores, if the loss has a kernel."""
    if isinstance(loss, ScaledMMDLoss):  # its own terms would need the images
        loss = MMDLoss(loss.kernel, lambda_=-1.0, global_batch=loss.global_batch)
    return loss.terms(real=real.detach(), fake=fake.detach())._asdict() if isinstance(loss, MMDLoss) else {}


def generator_of(settings: Wang2019) -> nn.Sequential:
    """Return the generator that the settings describe, with initial weights."""
    shape: dict[str, Any] = {"size": settings.size, "channels": settings.channels}
    if settings.one_step_width:
        return one_step.make_generator(inputs=settings.noise, width=settings.one_step_width, norm="batch", **shape)
    return make_generator(noise=settings.noise, width=settings.width, **shape)


def sampler(configuration: Mapping[str, Any]) -> Sampler:
    """Return a sampler for the settings in a checkpoint; settings that cannot be used raise an error."""
    chosen = Wang2019(out=Path(), **dict(configuration))
    shape = {"size": chosen.size, "channels": chosen.channels}
    return Sampler(
        generator_of(chosen),
        lambda count, generator: torch.randn(count, chosen.noise, generator=generator),
        lambda images: images,
        lambda root, split: load(chosen.dataset, root, split=split, **shape),
    )


if __name__ == "__main__":
    main()
