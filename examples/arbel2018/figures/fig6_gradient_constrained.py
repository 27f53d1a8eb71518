r"""Fig. 6 of Arbel et al. (2018), Appendix D.2: small GANs with the gradient-constrained MMD, on Fashion-MNIST.

The paper trains on MNIST for days, otherwise as in its Section 4: a critic with one output, a Gaussian kernel,
lambda = 0.1, batches of 64, and Adam with betas (0.5, 0.9). This script has the same settings except for networks of a
quarter of the width, two critic updates per generator update instead of five, ten times the learning rate, samples
from a moving average of the generator, and 1,500 iterations.

The paper needs days because of the incomplete Cholesky decomposition of a matrix with M (1 + d) rows, here 65,600.
`gradient_constrained_mmd2` computes the same number from M (1 + 1) = 128 rows, exactly or with a low-rank
decomposition of these rows.

All GANs start from the same weights, except for the spectral parametrisation, and see the same images and noise. KID is
computed on the features of a small classifier trained on the same data; the paper uses a network trained on MNIST. A
rank collapse would show in KID and in the stable rank of the critic's second layer, the layer of the paper's Fig. 2b.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[2]))  # examples/

import classifier
from arbel2018.losses import Loss, make_loss
from arbel2018.networks import make_critic, make_generator, singular_values
from arbel2018.presets import Arbel2018
from arbel2018.train import BETAS, update
from classifier import Classifier
from figures.script import Claim, finish, integer, reader
from lightning_fabric import Fabric
from training.batches import centred, positions
from training.errors import RefusedError
from training.sampling import MovingAverage

from torch_mmd_losses import PolynomialKernel, RBFKernel, ScaledMMDLoss, gradient_constrained_mmd2, mmd2

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (12.6, 5.8)
DATASET = "fashion-mnist"
RANK = 16
RATE = 1e-3
CRITIC_STEPS = 2
DECAY = 0.99
"""Decay of the moving average of the generator."""
MEASURED = 15
"""Number of measurements of KID and of the critic's rank after the start."""
JUDGED_BY = 20_000
"""Training images of the classifier for KID, which sees each once."""
LEARNT = 5
"""Factor by which KID has to fall."""
SHOWN = 6
"""Rows and columns of samples."""
KID = PolynomialKernel()
NETWORKS = Arbel2018(out=Path(), dataset="fashion-mnist", family="dcgan", channels=1, gamma="learned")
SMMD, MMD = replace(NETWORKS, loss="smmd", scale_weight=10.0), replace(NETWORKS, loss="mmd")


class GradientConstrainedLoss(nn.Module):
    """The gradient-constrained MMD with the estimator of Proposition 4. Scaled MMD is a lower bound of it.

    Args:
        lambda_: weight of the norm in the RKHS, 0.1 in the paper.
        rank: rank of the incomplete Cholesky decomposition; None means exact.
    """

    def __init__(self, lambda_: float = 0.1, *, rank: int | None = None) -> None:
        super().__init__()
        self.lambda_, self.rank, self.kernel = lambda_, rank, RBFKernel(sigma=1.0)

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return minus the squared gradient-constrained MMD, with mu at the real images."""
        return -self.generator_loss(critic, real, fake)

    def generator_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the squared gradient-constrained MMD, averaged over all pairs."""
        return gradient_constrained_mmd2(real, fake, self.kernel, lambda_=self.lambda_, features=critic, rank=self.rank)


class Kind(NamedTuple):
    """The loss of a GAN and the normalisation of its critic."""

    loss: Callable[[], Loss | GradientConstrainedLoss]
    normalisation: Literal["none", "matrix"] = "none"
    """Normalisation of the critic's weights. `"matrix"` is the spectral parametrisation with a learned norm."""


KINDS = {
    "GCMMD": Kind(GradientConstrainedLoss),
    f"GCMMD, rank {RANK}": Kind(partial(GradientConstrainedLoss, rank=RANK)),
    "SN-GCMMD": Kind(GradientConstrainedLoss, "matrix"),
    "SMMD": Kind(partial(make_loss, SMMD)),
    "SN-SMMD": Kind(partial(make_loss, SMMD), "matrix"),
    "MMD": Kind(partial(make_loss, MMD)),
}


class Run(NamedTuple):
    """A trained GAN and its measurements."""

    gan: GAN
    losses: list[float]
    """Loss of the generator in each iteration."""
    kids: dict[int, float]
    """KID by iteration."""
    ranks: dict[int, float]
    """Stable rank of the critic's second layer by iteration."""
    samples: Tensor
    """Images `(SHOWN^2, 1, 32, 32)` in [-1, 1]."""
    seconds: float
    """Processor time of an iteration."""

    def final(self) -> float:
        """Return the last KID."""
        return list(self.kids.values())[-1]

    def shrunk(self) -> float:
        """Return the first KID divided by the last."""
        return self.kids[0] / self.final()

    def learned_ranks(self) -> list[float]:
        """Return the stable ranks after the start, where the weights are random."""
        return list(self.ranks.values())[1:]

    def mean_kid(self) -> float:
        """Return the mean KID after the start, which is small if KID falls early."""
        return float(np.mean(list(self.kids.values())[1:]))


class Judge:
    """KID between images and test images, on the features of a classifier."""

    def __init__(self, network: Classifier, real: Tensor) -> None:
        self.network = network
        self.real = self._features(real)

    def __call__(self, images: Tensor) -> float:
        """Return KID of images `(n, 1, 32, 32)` in [-1, 1]."""
        return mmd2(self.real, self._features(images), KID).item()

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        return torch.cat([self.network(part)[0].double() for part in images.split(500)])


class GAN:
    """A generator and a critic in training, and a moving average of the generator, which draws the samples."""

    def __init__(self, kind: Kind, options: argparse.Namespace) -> None:
        torch.manual_seed(options.seed)
        networks = replace(NETWORKS, width=options.filters, normalisation=kind.normalisation)
        self.loss = kind.loss()
        self.generator = make_generator(networks)
        self.discriminator = make_critic(networks)
        self.average = MovingAverage(self.generator, DECAY)
        self.adam_d = torch.optim.Adam(self.discriminator.parameters(), RATE, BETAS)
        self.adam_g = torch.optim.Adam(self.generator.parameters(), RATE, BETAS)
        self._random = torch.Generator().manual_seed(options.seed)
        self._update = partial(update, fabric=Fabric(accelerator="cpu", devices=1), clip_norm=1.0)

    def noise(self, count: int) -> Tensor:
        """Draw noise `(count, 128)`, uniform between -1 and 1."""
        return torch.rand(count, 128, generator=self._random) * 2 - 1

    @torch.no_grad()
    def sample(self, noise: Tensor) -> Tensor:
        """Return images in [-1, 1]."""
        return torch.cat([self.average(part) for part in noise.split(256)]) * 2 - 1

    def step(self, real: Callable[[], Tensor]) -> float:
        """Update the critic twice and the generator once, each on new images, and return the generator's loss."""
        for _ in range(CRITIC_STEPS):
            images = real()
            with torch.no_grad():
                fake = self.generator(self.noise(len(images)))
            self._update(self.adam_d, self.discriminator, self.loss.critic_loss(self.discriminator, images, fake))
        images = real()
        fake = self.generator(self.noise(len(images)))
        loss = self.loss.generator_loss(self.discriminator, images, fake)
        self._update(self.adam_g, self.generator, loss)
        self.average.update_parameters(self.generator)
        return loss.item()


def train(kind: Kind, images: Tensor, judge: Judge, options: argparse.Namespace) -> Run:
    """Train a GAN of a kind on images `(n, 1, 32, 32)` of unsigned bytes."""
    gan = GAN(kind, options)
    indices = positions(len(images), options.batch_size, seed=options.seed)
    noise = gan.noise(len(judge.real))
    losses, kids, ranks, spent = [], {0: judge(gan.sample(noise))}, {0: stable_rank(gan)}, 0.0
    every = max(1, options.iterations // MEASURED)
    for iteration in range(1, options.iterations + 1):
        start = time.process_time()
        losses.append(gan.step(lambda: images[next(indices)].float() / 255))
        spent += time.process_time() - start
        if iteration % every == 0 or iteration == options.iterations:
            kids[iteration], ranks[iteration] = judge(gan.sample(noise)), stable_rank(gan)
            print(f"{iteration}: KID {kids[iteration]:.3f}, stable rank {ranks[iteration]:.2f}", flush=True)
    return Run(gan, losses, kids, ranks, gan.sample(noise[: SHOWN**2]), spent / options.iterations)


def stable_rank(gan: GAN) -> float:
    """Return the stable rank of the critic's second layer: the sum of squared singular values by the largest square.

    It is 0 if all singular values are 0.
    """
    values = list(singular_values(gan.discriminator).values())[1]
    return math.fsum((value / values[0]) ** 2 for value in values) if values[0] else 0.0


def claims(runs: dict[str, Run], real: Tensor) -> list[Claim]:
    """Check the claims of Appendix D.2.

    Args:
        runs: runs by their names in `KINDS`.
        real: a batch of real images in [0, 1].
    """
    constrained = [name for name in runs if "GCMMD" in name]
    exact, low = runs["GCMMD"], runs[f"GCMMD, rank {RANK}"]
    return [
        *(reasonable(name, runs[name]) for name in constrained),
        faster("SMMD", "GCMMD", runs),
        faster("SN-SMMD", "SN-GCMMD", runs),
        Claim(
            "time of an iteration",
            "days of training even with low rank; SMMD is meant to be much faster",
            ", ".join(f"{name} {run.seconds * 1000:.0f} ms" for name, run in runs.items()),
            exact.seconds < 2 * runs["SMMD"].seconds,
        ),
        few_rows(exact.gan, real),
        Claim(
            f"last KID with {RANK} of the rows",
            "a good approximation",
            f"{low.final():.3f}, and {exact.final():.3f} with all rows; the limit is a factor of two",
            max(low.final(), exact.final()) < 2 * min(low.final(), exact.final()),
        ),
        below(runs, real),
        collapse({name: runs[name] for name in constrained}),
    ]


def reasonable(name: str, run: Run) -> Claim:
    """Claim that KID falls by a factor of `LEARNT`. Whether the samples show garments has to be seen."""
    here = f"KID {run.kids[0]:.2f} before training, {run.final():.3f} after it"
    return Claim(f"{name}: learning", "reasonable samples", here, run.shrunk() > LEARNT)


def faster(scaled: str, constrained: str, runs: dict[str, Run]) -> Claim:
    """Claim that scaled MMD has the smaller mean KID during the training."""
    means = runs[scaled].mean_kid(), runs[constrained].mean_kid()
    return Claim(
        f"mean KID through training, {scaled} and {constrained}",
        "SMMD converges somewhat faster than gradient-constrained MMD",
        f"{means[0]:.3f} and {means[1]:.3f}",
        means[0] < means[1],
    )


def few_rows(gan: GAN, real: Tensor) -> Claim:
    """Claim that a small rank gives the exact value up to one percent."""
    with torch.no_grad():
        fake = gan.generator(gan.noise(len(real)))
    estimate = partial(
        gradient_constrained_mmd2, real, fake, GradientConstrainedLoss().kernel, features=gan.discriminator
    )
    exact = estimate().item()
    shares = {rank: estimate(rank=rank).item() / exact for rank in (1, 2, 4, 8, 16, 32) if rank <= 2 * len(real)}
    here = ", ".join(f"{rank}: {share:.4f}" for rank, share in shares.items())
    good = [rank for rank, share in shares.items() if abs(share - 1) < 0.01]
    here = f"of {2 * len(real)}, share of the exact value by rank {here}"
    return Claim("rows for a good approximation", "only few", here, bool(good) and min(good) <= len(real) // 4)


def below(runs: dict[str, Run], real: Tensor) -> Claim:
    """Claim that scaled MMD is a lower bound for all critics."""
    bound = ScaledMMDLoss(scale="exact", estimator="biased")
    shares = []
    for run in runs.values():
        inputs = real.detach().requires_grad_()
        with torch.no_grad():
            fake = run.gan.generator(run.gan.noise(len(real)))
        critic = run.gan.discriminator.eval()
        least = bound.generator(critic(inputs), critic(fake), inputs=inputs)
        whole = gradient_constrained_mmd2(real, fake, GradientConstrainedLoss().kernel, features=critic)
        shares.append((least / whole).item())
    here = ", ".join(f"{share:.2f} ({name})" for name, share in zip(runs, shares, strict=True)) + " of the square"
    return Claim("scaled and gradient-constrained MMD of the same critics", "SMMD <= S", here, max(shares) <= 1)


def collapse(runs: dict[str, Run]) -> Claim:
    """Claim that KID does not rise again and the critic's rank does not fall."""
    rises = {name: run.final() / min(run.kids.values()) for name, run in runs.items()}
    falls = {name: max(run.learned_ranks()) / run.learned_ranks()[-1] for name, run in runs.items()}
    here = ", ".join(f"{rises[name]:.2f} and {falls[name]:.2f} ({name})" for name in runs)
    return Claim(
        "collapse: last KID by least KID, and largest stable rank of the critic's second layer by the last",
        "after the points shown, with spectral normalisation perhaps later",
        f"{here}: none so early",
        max(rises.values()) < 3 and max(falls.values()) < 2,
    )


def draw(figure: Figure, runs: dict[str, Run]) -> None:
    """Draw the samples, and below them the losses, KID and the ranks of the critics."""
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.3))[:, 0]
    for axes, (name, run) in zip(upper.subplots(1, len(runs)), runs.items(), strict=True):
        axes.imshow(sheet(run.samples).numpy(), cmap="gray", vmin=-1, vmax=1)
        axes.set(title=f"{name}: {run.final():.3f}", xticks=[], yticks=[])
    losses, kids, ranks = lower.subplots(1, 3)
    for number, (name, run) in enumerate(runs.items()):
        if "GCMMD" in name:
            _smoothed(losses, run.losses, f"C{number}", name)
        for axes, values in ((kids, run.kids), (ranks, run.ranks)):
            axes.plot(list(values), list(values.values()), ".-", color=f"C{number}", label=name)
    losses.set(title="Generator loss $S^2$, mean over 20 iterations")
    kids.set(title="KID", yscale="log")
    ranks.set(title="Stable rank of the critic's second layer", yscale="log")
    for axes in (losses, kids, ranks):
        axes.set(xlabel="iteration")
        axes.grid(alpha=0.3)
    for axes in (losses, kids):
        axes.legend(fontsize="small")


def sheet(images: Tensor) -> Tensor:
    """Return images `(SHOWN^2, 1, h, w)` as one matrix, in rows of `SHOWN`."""
    rows = images[:, 0].unflatten(0, (SHOWN, SHOWN))
    return rows.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)


def _smoothed(axes: Axes, values: list[float], color: str, label: str) -> None:
    window = min(20, (len(values) + 1) // 2)
    means = np.convolve(values, np.full(window, 1 / window), "valid")
    axes.plot(np.arange(window, len(values) + 1), means, color=color, label=label)


def main(words: Sequence[str] | None = None) -> None:
    """Train the GANs, check the claims and draw the figure."""
    parser = reader(sys.modules[__name__])
    add = parser.add_argument
    add("--data-root", type=Path, default=Path("data"), help="folder of the data sets (%(default)s)")
    add("--iterations", type=integer(1), default=1500, help="updates of each generator (%(default)s)")
    add("--batch-size", type=integer(2), default=64, help="real images per step, and generated ones (%(default)s)")
    add("--filters", type=integer(1), default=16, help="channels of the largest feature maps (%(default)s)")
    add("--count", type=integer(SHOWN**2), default=1000, help="number of images for KID (%(default)s)")
    add("--seed", type=integer(0, 2**32 - 1), default=0, help="seed of all random numbers (%(default)s)")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    try:
        (training, labels), (test, _) = (
            classifier.read(DATASET, options.data_root, split) for split in ("train", "test")
        )
    except RefusedError as error:
        parser.error(str(error))
    torch.manual_seed(options.seed)
    network = classifier.train(training[:JUDGED_BY], labels[:JUDGED_BY], epochs=1)
    judge = Judge(network, centred(test[: options.count]))
    runs = {}
    for name, kind in KINDS.items():
        runs[name] = run = train(kind, training, judge, options)
        print(f"{name}: KID {run.final():.3f}, {run.seconds * options.iterations:.0f} s of processor time", flush=True)
    made = claims(runs, test[: options.batch_size].float() / 255)
    finish(options, made, partial(draw, runs=runs))


if __name__ == "__main__":
    main()
