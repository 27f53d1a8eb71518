"""Train a small MMD-GAN on handwritten digits: minutes on one CPU core, without a download.

The loss, spectral normalisation and simultaneous updates are those of Wang et al. (2019). Needs the extra `examples`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path

if __name__ == "__main__":  # before other imports, so that all missing packages are named at once
    from training import need

    need("matplotlib", "sklearn", "torchmetrics")

import torch
import tyro
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torchmetrics.image.fid import FrechetInceptionDistance
from tqdm import tqdm
from training.files import Line, append_line, read_lines
from training.settings import check

from torch_mmd_losses import MMDLoss, RBFBKernel, conv_spectral_norm

NOISE, SCORES, WIDTH, EMA_DECAY, LOG_EVERY = 64, 16, 32, 0.995, 10
DIGITS, HELD_OUT, FEATURES, FEATURE_EPOCHS = 1797, 359, 32, 12  # the held-out digits do not train the feature network
SNAPSHOTS = (0.025, 0.05, 0.1, 0.25, 0.5, 1)  # moments at which samples are drawn, as shares of the training


@dataclass(frozen=True)
class Options:
    """Train a small MMD-GAN on handwritten digits, and draw and measure its samples."""

    iterations: int = 1500  # number of updates of both networks
    batch_size: int = 64  # number of real images in a batch, and of generated images
    lr_discriminator: float = 2e-4  # learning rate of the discriminator
    lr_generator: float = 1e-3  # learning rate of the generator
    scale: float = 64 ** (1 / 8)  # spectral norm of each layer of the discriminator, the constant C of Wang et al.
    seed: int = 0  # seed of all random numbers
    out: Path = Path("runs/demo")  # new or empty folder for the pictures and the log

    def __post_init__(self) -> None:  # tyro reports a ValueError as wrong usage
        check(self, "iterations", least=1)
        check(self, "batch_size", least=2, below=DIGITS + 1)
        check(self, "lr_discriminator", "lr_generator", "scale", above=0)
        check(self, "seed", least=0, below=2**32)
        if self.out.is_file() or any(self.out.glob("*")):
            raise ValueError(f"out: expected a new or empty folder, got {self.out}; choose another")


def digits(seed: int) -> tuple[Tensor, Tensor]:
    """Return shuffled images `(1797, 1, 32, 32)` in [-1, 1], enlarged from 8x8 pixels, and their labels `(1797,)`."""
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(DIGITS, generator=torch.Generator().manual_seed(seed))
    ink = torch.from_numpy(pixels).view(-1, 1, 8, 8)[order].float().div(16)
    large = F.interpolate(ink, size=(32, 32), mode="bicubic", align_corners=False)
    return large.clamp(0, 1) * 2 - 1, torch.from_numpy(labels)[order].long()  # bicubic interpolation overshoots


def batches(images: Tensor, size: int) -> Iterator[Tensor]:
    """Yield batches without end, in a new order in every epoch; a short last batch is dropped."""
    while True:
        yield from (images[rows] for rows in torch.randperm(len(images)).split(size) if len(rows) == size)


def make_generator() -> nn.Sequential:
    """Return a network that maps noise `(n, 64)` to images `(n, 1, 32, 32)` in [-1, 1]."""
    start = nn.Linear(NOISE, 4 * WIDTH * 4 * 4), nn.Unflatten(1, (4 * WIDTH, 4, 4))
    doubled = chain.from_iterable(
        (nn.ConvTranspose2d(*pair, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(pair[1]), nn.ReLU())
        for pair in pairwise((4 * WIDTH, 2 * WIDTH, WIDTH))
    )
    return nn.Sequential(*start, *doubled, nn.ConvTranspose2d(WIDTH, 1, 4, stride=2, padding=1), nn.Tanh())


def three_convolutions(width: int, outputs: int, activation: nn.Module) -> nn.Sequential:
    """Return a network that maps images `(n, 1, 32, 32)` to `(n, outputs)`."""
    pairs = pairwise((1, width, 2 * width, 4 * width))
    halved = chain.from_iterable((nn.Conv2d(*pair, 4, stride=2, padding=1), activation) for pair in pairs)
    return nn.Sequential(*halved, nn.Flatten(), nn.Linear(4 * width * 4 * 4, outputs))


def train_features(images: Tensor, labels: Tensor) -> nn.Sequential:
    """Return a network that maps images to features `(n, 32)`, the inputs of a trained classifier's last layer."""
    network = three_convolutions(16, FEATURES, nn.ReLU())
    classifier = nn.Sequential(network, nn.ReLU(), nn.Linear(FEATURES, 10))
    adam = torch.optim.Adam(classifier.parameters(), lr=1e-3)
    for _ in range(FEATURE_EPOCHS):
        for rows in torch.randperm(DIGITS - HELD_OUT).split(64):
            adam.zero_grad()
            F.cross_entropy(classifier(images[rows]), labels[rows]).backward()
            adam.step()
    right = classifier.requires_grad_(False)(images[-HELD_OUT:]).argmax(1) == labels[-HELD_OUT:]
    print(f"Distances are in features of a classifier that recognises {right.double().mean():.1%} of held-out digits.")
    network.num_features = FEATURES  # type: ignore[assignment]  # torchmetrics reads the dimension here
    return network


def moving_average(average: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
    """Return the average after another step. Its decay is smaller at first, to forget the untrained network."""
    return average + (new - average) * max(1 - EMA_DECAY, 9 / (10 + int(count)))


def draw_samples(path: Path, panels: dict[str, Tensor]) -> None:
    """Save 24 images `(1, 32, 32)` of each titled panel in one picture, in six rows of four."""
    figure = Figure(figsize=(1.45 * len(panels), 2.6), dpi=100, layout="constrained")
    for axes, (title, images) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        framed = F.pad(images[:24, 0], [3] * 4, value=-1).unflatten(0, (6, 4))
        axes.imshow(framed.transpose(1, 2).flatten(2).flatten(0, 1).numpy(), cmap="gray_r", vmin=-1, vmax=1)
        axes.set_title(title, fontsize=9)
        axes.set(xticks=[], yticks=[])
    figure.savefig(path)


def draw_curves(path: Path, lines: list[Line]) -> None:
    """Save curves of both losses and of the mean kernel values."""
    figure = Figure(figsize=(9, 3.2), dpi=100, layout="constrained")
    curves = {"losses": ("loss_discriminator", "loss_generator"), "mean kernel values": ("k_rr", "k_rf", "k_ff")}
    for axes, (title, names) in zip(figure.subplots(1, 2), curves.items(), strict=True):
        for name in names:
            axes.plot([line["step"] for line in lines], [line[name] for line in lines], linewidth=0.8, label=name)
        axes.set(title=title, xlabel="step")
        axes.legend(fontsize=8)
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> Path:
    """Train, measure and draw with the options of a command line, and return the folder of the run."""
    options = tyro.cli(Options, args=arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"out: {error}")
    log = options.out / "metrics.jsonl"
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    images, labels = digits(options.seed)
    features = train_features(images, labels)
    half, other_half = images[:-1:2], images[1::2]
    G = make_generator()
    D = conv_spectral_norm(three_convolutions(WIDTH, SCORES, nn.LeakyReLU(0.1)), scale=options.scale)
    average = AveragedModel(G, avg_fn=moving_average, use_buffers=True).eval()
    adam_d = torch.optim.Adam(D.parameters(), lr=options.lr_discriminator, betas=(0.5, 0.999))
    adam_g = torch.optim.Adam(G.parameters(), lr=options.lr_generator, betas=(0.5, 0.999))
    loss = MMDLoss(RBFBKernel(), lambda_=1.0)
    noise = torch.randn(len(half), NOISE)
    frechet = FrechetInceptionDistance(features, reset_real_features=False)
    frechet.update(half, real=True)
    panels: dict[str, Tensor] = {}

    @torch.no_grad()
    def samples() -> Tensor:
        return torch.cat([average(part) for part in noise.split(256)])

    def measured(title: str, images: Tensor) -> float:
        frechet.reset()
        frechet.update(images, real=False)
        distance = frechet.compute().item()
        append_line(log, {"images": title, "frechet_distance": distance})
        panels[f"{title}\nFrechet {distance:.1f}"] = images
        return distance

    before = after = measured("step 0", samples())
    steps = islice(batches(images, options.batch_size), options.iterations)
    bar = tqdm(steps, "Training", options.iterations, unit="step", disable=None)  # no bar unless on a terminal
    for step, batch in enumerate(bar, start=1):
        fake = G(torch.randn(len(batch), NOISE))
        scores_real, scores_fake = D(torch.cat([batch, fake])).chunk(2)
        loss_d, loss_g = loss.both(real=scores_real, fake=scores_fake)
        adam_d.zero_grad()
        adam_g.zero_grad()
        loss_d.backward(inputs=list(D.parameters()), retain_graph=True)
        loss_g.backward(inputs=list(G.parameters()))
        adam_d.step()
        adam_g.step()
        average.update_parameters(G)
        line = {"step": step, "loss_discriminator": loss_d.item(), "loss_generator": loss_g.item()}
        if not all(map(math.isfinite, line.values())):
            advice = "Try lower learning rates, a smaller --scale, or another --seed."
            sys.exit(f"Stopped where a loss is not finite: {line}. {advice}")
        if step == 1 or step % LOG_EVERY == 0:
            terms = loss.terms(real=scores_real.detach(), fake=scores_fake.detach())._asdict()
            append_line(log, line | {name: term.item() for name, term in terms.items()})
            bar.set_postfix(loss_D=f"{loss_d.item():.3f}", loss_G=f"{loss_g.item():.3f}")
        if step in {round(share * options.iterations) for share in SNAPSHOTS}:
            after = measured(f"step {step}", samples())

    halves = measured("real digits", other_half)
    draw_samples(options.out / "samples.png", panels)
    draw_curves(options.out / "curves.png", [line for line in read_lines(log) if "step" in line])
    distances = f"{before:.1f} before training, {after:.1f} after it, {halves:.1f} between two halves of the data"
    print(f"The samples came {before / after:.0f} times closer to the data: Frechet distance {distances}.")
    print(f"Samples, curves, and a log of losses and distances: {options.out}")
    return options.out


if __name__ == "__main__":
    main()
