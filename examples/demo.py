"""Train a small MMD GAN on handwritten digits: a few minutes on two CPU cores, and nothing to download.

It needs the extra `examples` of the library (matplotlib, scikit-learn, torchmetrics, tqdm). The loss, the spectral
normalisation and the simultaneous updates are those of Wang et al. (2019); images and networks are small. Every run
leaves a folder of its own with samples, curves, metrics and a summary.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from digits import runs
from digits.data import batches, load
from digits.features import HELD_OUT, FrechetDistance, train_features
from digits.networks import NOISE, SCORES, make_discriminator, make_generator
from digits.options import Options, parser
from digits.record import Record, Result
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from torch_mmd_losses import MMDLoss, RBFBKernel

LOG_EVERY = 10
"""Steps from one line of the metrics file to the next."""

SNAPSHOTS = (0, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
"""When samples are drawn, as shares of the training."""

EMA_DECAY = 0.995


class Step(NamedTuple):
    """One step of training: the scores, and both losses."""

    real: Tensor
    fake: Tensor
    loss_discriminator: float
    loss_generator: float


class GAN:
    """Both networks with their optimizers, and a moving average of the generator, which draws the samples."""

    def __init__(self, options: Options) -> None:
        self.device = torch.device(options.device)
        self.generator = make_generator().to(self.device)
        self.discriminator = make_discriminator(scale=options.scale).to(self.device)
        self.averaged = AveragedModel(self.generator, avg_fn=_moving_average, use_buffers=True).eval()
        self.loss = MMDLoss(kernel=RBFBKernel(), lambda_=1.0)
        self.adam_d = torch.optim.Adam(self.discriminator.parameters(), lr=options.lr_discriminator, betas=(0.5, 0.999))
        self.adam_g = torch.optim.Adam(self.generator.parameters(), lr=options.lr_generator, betas=(0.5, 0.999))

    def step(self, real: Tensor) -> Step:
        """Update both networks at once, from one forward of the discriminator on real and fake images."""
        fake = self.generator(torch.randn(len(real), NOISE).to(self.device))
        real_scores, fake_scores = self.discriminator(torch.cat([real, fake])).chunk(2)
        loss_d, loss_g = self.loss.both(real=real_scores, fake=fake_scores)
        params_d, params_g = list(self.discriminator.parameters()), list(self.generator.parameters())
        grads_d = torch.autograd.grad(loss_d, params_d, retain_graph=True)
        grads_g = torch.autograd.grad(loss_g, params_g)
        for param, grad in zip(params_d + params_g, grads_d + grads_g, strict=True):
            param.grad = grad
        self.adam_d.step()
        self.adam_g.step()
        self.averaged.update_parameters(self.generator)
        return Step(real_scores.detach(), fake_scores.detach(), loss_d.item(), loss_g.item())

    @torch.no_grad()
    def sample(self, noise: Tensor) -> Tensor:
        """Return images `(n, 1, 32, 32)` of noise `(n, 64)`, both on the CPU."""
        return torch.cat([self.averaged(part.to(self.device)).cpu() for part in noise.split(256)])


def _moving_average(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
    # The first averages are short, so that they do not hold on to the untrained network.
    return average + (current - average) * max(1 - EMA_DECAY, 9 / (10 + int(count)))


def train(gan: GAN, images: Tensor, noise: Tensor, record: Record, options: Options) -> None:
    """Train on images `(n, 1, 32, 32)`, and draw samples of the same noise now and then."""
    start = time.perf_counter()
    snapshots = {round(share * options.iterations) for share in SNAPSHOTS}
    steps = islice(batches(images, options.batch_size), options.iterations)
    bar = tqdm(steps, "Training", options.iterations, unit="step", disable=options.quiet)
    record.snapshot(0, gan.sample(noise))
    for number, real in enumerate(bar, start=1):
        step = gan.step(real.to(gan.device))
        check_finite(number, step)
        if number == 1 or number % LOG_EVERY == 0:
            record.metrics(metrics(number, step, gan.loss) | {"seconds": time.perf_counter() - start})
            bar.set_postfix(loss_D=f"{step.loss_discriminator:.3f}", loss_G=f"{step.loss_generator:.3f}")
        if number in snapshots:
            record.snapshot(number, gan.sample(noise))


def metrics(number: int, step: Step, loss: MMDLoss) -> dict[str, float]:
    """Return one line of the metrics file."""
    losses = {"loss_discriminator": step.loss_discriminator, "loss_generator": step.loss_generator}
    terms = loss.terms(real=step.real, fake=step.fake)
    return {"step": number, **losses, **{name: value.item() for name, value in terms._asdict().items()}}


def check_finite(number: int, step: Step) -> None:
    """Raise `FloatingPointError` if a loss is infinite or not a number."""
    for network, loss in (("discriminator", step.loss_discriminator), ("generator", step.loss_generator)):
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"Stopped at step {number}, where the loss of the {network} is {loss}. Try lower learning rates "
                "(--lr-discriminator, --lr-generator), a smaller --scale, or another --seed."
            )


def run(options: Options, folder: Path) -> Result:
    """Train and measure, leaving everything in `folder`."""
    watch = runs.Stopwatch()
    torch.manual_seed(options.seed)
    digits = load(options.seed)
    features, accuracy = train_features(digits)
    if not options.quiet:
        print(f"Feature network: {accuracy:.1%} of {HELD_OUT} held-out digits recognised", flush=True)
    watch.lap("feature_network")
    half, other_half = digits.halves()
    gan, record = GAN(options), Record(folder, FrechetDistance(features, half), other_half)
    train(gan, digits.images, torch.randn(len(half), NOISE), record, options)
    watch.lap("training_with_samples")
    record.draw()
    watch.lap("figures")
    summary = {
        "result": str(record.result()),
        "seed": options.seed,
        "configuration": configuration(options, gan),
        "feature_network": {"held_out_accuracy": accuracy, "held_out_digits": HELD_OUT},
        **record.summary(),
        "seconds": watch.laps | {"total": watch.total},
        "versions": runs.versions(),
    }
    runs.write_summary(folder / "summary.json", summary)
    return record.result()


def configuration(options: Options, gan: GAN) -> dict[str, object]:
    """Return all that decides how a run goes."""
    chosen = asdict(options) | {"out": None if options.out is None else str(options.out)}
    return chosen | {
        "threads": torch.get_num_threads(),
        "kernel": repr(gan.loss.kernel),
        "lambda_": gan.loss.lambda_,
        "estimator": gan.loss.estimator,
        "noise_dimension": NOISE,
        "score_dimension": SCORES,
        "ema_decay": EMA_DECAY,
    }


def main(arguments: Sequence[str] | None = None) -> Path:
    """Do what the command line says, and return the folder of the run."""
    reader = parser(__doc__)
    options = Options(**vars(reader.parse_args(arguments)))
    torch.set_num_threads(options.threads)
    try:
        folder = runs.make_folder(options.out, default=Path("runs/demo"), overwrite=options.overwrite)
    except OSError as error:
        reader.error(str(error))
    try:
        print(run(options, folder))
    except FloatingPointError as error:
        sys.exit(str(error))
    print(f"Samples, curves, metrics and a summary: {folder}")
    return folder


if __name__ == "__main__":
    main()
