"""All runs of the study on Fashion-MNIST, as plain data that was chosen before the first run.

Networks, data and budget are the same for all runs; settings name the differences from the defaults.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

from sweeps.runs import Group, Pair, Run, Value, text
from wang2019.losses import MMD

NAME = "fashion-mnist"
SCRIPT = "dcgan_fashion_mnist"
ITERATIONS = 2000
OPTIONS = f"--width=8 --iterations={ITERATIONS} --channels-last --log-every=100 --sample-every=1000 --keep-every=400"
"""Options of all trainings. While another run is active, an iteration takes 0.06 s at width 8 and 0.14 s at 16."""
EVALUATION = "--split=test --images=10000 --all"  # options of all evaluations, in addition to the features
RATES = (5e-4, 2e-3)  # learning rates of D and of G; the study tries all four pairs
SEEDS = (0, 1, 2)  # the first seed chooses the best pair of learning rates, with which all seeds are run
COLLAPSED = 40.0
"""An FID above those of all generators that learn; a run that ends above it counts as failed, as if it diverged."""
LOSSES = ("non-saturating", "hinge", "mmd-rbf", "mmd-rq", "mmd-rbf-b", "mmd-rep", "mmd-rep-b", "smmd")
LAMBDAS = (-1, -0.5, 0, 0.5, 1, 2)
KERNELS = {"RBF": "mmd-rep", "RBF-B": "mmd-rep-b"}  # the losses with which lambda varies, by their kernels
SCORES = (1, 4, 16, 64)
SCALES = (1, 1 / 0.55, 3)
NORMS = {"PICO": "pico", "PIM": "matrix"}
"""The normalisations by their names in the paper; PIM is that of the reshaped matrix."""
PAIRS: tuple[Pair, ...] = tuple((text(d), text(g)) for d, g in itertools.product(RATES, repeat=2))


def setting(loss: str, **options: Value) -> Group:
    """Return the setting of a loss, without options that have their usual value."""
    usual: dict[str, Value] = {"scores": 16, "normalisation": "pico", "scale": 1 / 0.55, "updates": "simultaneous"}
    if loss in MMD:
        # A kernel with the lambda of another loss is that loss. With two names, it would be trained twice.
        same = (MMD[loss][0], options.get("lambda"))
        loss = next((name for name in LOSSES if MMD.get(name) == same), loss)
        usual["lambda"] = MMD[loss][1]
    chosen = {name: text(value) for name, value in options.items() if value != usual.get(name)}
    return (("loss", loss), *chosen.items())


def normed(name: str, scale: float) -> Group:
    """Return the repulsive loss with a norm and a constant C."""
    return setting("mmd-rep", normalisation=NORMS[name], scale=scale)


UPDATES = ("simultaneous", "alternating")
QUESTIONS: Mapping[str, list[Group]] = {
    # The losses of Table 1 of Wang et al. and scaled MMD.
    "losses": [setting(loss) for loss in LOSSES],
    # Updates from one forward pass, and by turns.
    "updates": [setting(loss, updates=each) for loss in ("hinge", "mmd-rep-b") for each in UPDATES],
    # The number of scores per image.
    "scores": [setting("mmd-rep", scores=scores) for scores in SCORES],
    # Lambda, with the kernels RBF and RBF-B (Figure 3).
    "lambda": [setting(loss, **{"lambda": lambda_}) for loss in KERNELS.values() for lambda_ in LAMBDAS],
    # PICO and the norm of the reshaped matrix, with three constants C.
    "norms": [normed(name, scale) for name in NORMS for scale in SCALES],
}
"""The settings that are compared to answer each question."""
OVER_PAIRS, OVER_SEEDS = ("losses", "lambda"), ("losses", "updates", "scores", "norms")
"""Questions whose settings are run at all pairs with the first seed, and at the best pair of their loss with all."""


def planned(best: Callable[[Group], Pair | None]) -> list[Run]:
    """Return all runs, each once; runs at an unknown best pair are left out."""
    grid = [Run(each, pair, SEEDS[0]) for name in OVER_PAIRS for pair in PAIRS for each in QUESTIONS[name]]
    at_best = [(each, best(each[:1])) for name in OVER_SEEDS for each in QUESTIONS[name]]
    return list(dict.fromkeys(grid + [Run(each, pair, seed) for seed in SEEDS for each, pair in at_best if pair]))
