"""Fig. 4 of Wang et al. (2019): scores of real images after training, embedded in the plane by t-SNE.

The paper shows 2,560 images of CIFAR-10. According to it, MMD-rbf ignored their classes, while MMD-rep concentrated
the images of a class and separated the classes to some extent. This script measures the share of the ten nearest
neighbours of an image that belong to its class, in the space of the scores and not in the plane. The scores of an
untrained network already preserve some of the classes. So the share before training is measured as well: a loss
concentrates the classes if it increases the share, and ignores them if it decreases the share.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[2]))  # examples/

import classifier
from figures.script import Claim, finish, integer, reader
from training import checkpoints
from training.batches import centred
from training.checkpoints import State
from training.errors import RefusedError
from wang2019.networks import make_discriminator
from wang2019.presets import Wang2019

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (12.0, 4.4)
NEIGHBOURS = 10
ATTRACTIVE = ("mmd-rbf", "mmd-rq", "mmd-rbf-b")
REPULSIVE = ("mmd-rep", "mmd-rep-b")

CLASSES = {
    "fashion-mnist": (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}
"""The class names of the data sets with labels."""


class Scores(NamedTuple):
    """The scores that one discriminator gives to real images."""

    title: str
    loss: str | None
    """The loss that it was trained with; None before training."""
    scores: Tensor
    """Scores `(n, d)`."""
    classes: Tensor
    """The class of each image, `(n,)`."""

    def agreement(self) -> float:
        """Return the average share of the nearest neighbours of an image that belong to its class."""
        return agreement(self.scores, self.classes)

    def chance(self) -> float:
        """Return the agreement of random neighbours."""
        shares = self.classes.bincount().double() / len(self.classes)
        return shares.square().sum().item()


def along_a_line(points: Tensor) -> float:
    """Return the share of the variance of points `(n, d)` along their first principal component."""
    centred = points.double() - points.double().mean(0)
    squares = torch.linalg.svdvals(centred).square()
    return (squares[0] / squares.sum()).item()


def agreement(points: Tensor, classes: Tensor) -> float:
    """Return the average share of the nearest neighbours of points `(n, d)` with the same class `(n,)`."""
    distances = torch.cdist(points.double(), points.double()).fill_diagonal_(torch.inf)
    nearest = distances.topk(NEIGHBOURS, largest=False).indices
    return (classes[nearest] == classes[:, None]).double().mean().item()


def discriminator(settings: Wang2019, state: State | None, seed: int) -> nn.Module:
    """Return the discriminator of a checkpoint, or that of the run before training if there is no state."""
    torch.manual_seed(seed)
    network = make_discriminator(
        settings.size,
        scores=settings.scores or 1,
        channels=settings.channels,
        width=settings.width,
        method=settings.normalisation,
        scale=settings.scale or 1.0,
    )
    if state is not None:
        network.load_state_dict(state["discriminator"])
    return network.eval()


def find(run: Path) -> State:
    """Return the checkpoint at a path, or the newest checkpoint of a run's folder."""
    paths = checkpoints.newest_first(run / "checkpoints") if run.is_dir() else [run]
    if not paths:
        raise RefusedError(f"runs: there is no checkpoint in {run / 'checkpoints'}")
    return checkpoints.read(paths[0])


@torch.no_grad()
def read(states: Sequence[State], root: Path | None, *, split: str, count: int, seed: int) -> list[Scores]:
    """Return the scores of the same real images: of the first discriminator before training, then of all after it."""
    found: list[Scores] = []
    first, *others = settings = [Wang2019(out=Path(), **state["configuration"]) for state in states]
    for other in others:
        if (other.dataset, other.size, other.channels) != (first.dataset, first.size, first.channels):
            raise RefusedError(f"runs: expected runs of one data set, got {first.dataset} and {other.dataset}")
    if first.dataset not in CLASSES:
        raise RefusedError(f"runs: expected a data set with classes ({', '.join(CLASSES)}), got {first.dataset}")
    images, labels = classifier.read(first.dataset, root or first.data_root, split)
    picked = np.sort(np.random.default_rng(seed).permutation(len(images))[:count])
    pixels, classes = centred(images[picked]), labels[picked]
    for chosen, state in ((first, None), *zip(settings, states, strict=True)):
        network = discriminator(chosen, state, seed)
        scores = torch.cat([network(part) for part in pixels.split(256)])
        title = f"{chosen.loss}, iteration {state['iteration']:,}" if state else "before training"
        found.append(Scores(title, chosen.loss if state else None, scores, classes))
    return found


def claims(found: Sequence[Scores]) -> list[Claim]:
    """Check the paper's claims about the losses of the given runs."""
    before, *after = found
    at_first = before.agreement()
    made = [_of_one(scores, at_first) for scores in after]
    best = {
        kind: max((scores.agreement() for scores in after if scores.loss in losses), default=None)
        for kind, losses in (("attractive", ATTRACTIVE), ("repulsive", REPULSIVE))
    }
    if best["attractive"] is not None and best["repulsive"] is not None:
        paper = "more with a repulsive loss"
        here = f"{best['repulsive']:.3f} repulsive, {best['attractive']:.3f} attractive"
        made.append(Claim("neighbours of the same class", paper, here, best["repulsive"] > best["attractive"]))
    return made


def _of_one(scores: Scores, at_first: float) -> Claim:
    """Return the paper's claim about the kind of a loss. Other losses only have to be better than chance."""
    share, chance = scores.agreement(), scores.chance()
    paper, holds = "nothing", share > chance
    if scores.loss in REPULSIVE:
        paper, holds = "concentrates images of a class", share > at_first
    elif scores.loss in ATTRACTIVE:
        paper, holds = "ignores the class structure", share < at_first
    line = f"{along_a_line(scores.scores):.1%} of the variance of the scores is along one line"
    here = f"{share:.3f}, before training {at_first:.3f}, by chance {chance:.3f}; {line}"
    return Claim(f"{scores.title}: neighbours of the same class", paper, here, holds)


def plane(scores: Tensor, seed: int) -> NDArray[np.float64]:
    """Return the embedding `(n, 2)` of scores by t-SNE."""
    from sklearn.manifold import TSNE

    # Starting from principal components preserves large distances better than a random start.
    return TSNE(init="pca", random_state=seed).fit_transform(scores.double().numpy())


def draw(figure: Figure, found: Sequence[Scores], names: Sequence[str], seed: int) -> None:
    """Draw a panel for each discriminator, coloured by class."""
    for axes, scores in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        places = plane(scores.scores, seed)
        for number, name in enumerate(names):
            inside = (scores.classes == number).numpy()
            axes.scatter(*places[inside].T, s=3, color=f"C{number}", label=name)
        axes.set_title(f"{scores.title}\n{scores.agreement():.0%} of neighbours of the same class", fontsize=10)
        axes.set(xticks=[], yticks=[])
    handles, texts = axes.get_legend_handles_labels()
    figure.legend(
        handles, texts, loc="outside lower center", ncols=len(names), fontsize=8, markerscale=4, frameon=False
    )


def main(words: Sequence[str] | None = None) -> Path:
    """Check the claims and draw the figure."""
    parser = reader(sys.modules[__name__])
    add = parser.add_argument
    add("runs", type=Path, nargs="+", help="folders of runs, whose newest checkpoints are used, or checkpoints")
    add("--data-root", type=Path, help="folder of the data sets (default: that of the first run)")
    add("--split", choices=("train", "test"), default="test", help="split of the real images (%(default)s)")
    add("--count", type=integer(NEIGHBOURS + 1), default=2560, help="number of real images (%(default)s)")
    add("--seed", type=integer(0, 2**32 - 1), default=0, help="seed of all random numbers (%(default)s)")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    try:
        states = [find(run) for run in options.runs]
        found = read(states, options.data_root, split=options.split, count=options.count, seed=options.seed)
    except (RefusedError, TypeError, ValueError) as error:
        parser.error(str(error))
    names = CLASSES[states[0]["configuration"]["dataset"]]
    finish(options, claims(found), partial(draw, found=found, names=names, seed=options.seed))
    return options.out


if __name__ == "__main__":
    main()
