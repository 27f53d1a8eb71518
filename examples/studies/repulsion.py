"""The runs of Figure 3: lambda, the kernels RBF and RBF-B, and all pairs of learning rates with one seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeps.grids import Value
from sweeps.plan import Pair

from studies import protocol, results
from studies.results import Outcome


@dataclass(frozen=True)
class Repulsion:
    """A kernel with one lambda.

    Args:
        kernel: one of `protocol.KERNELS`.
        lambda_: the weight of the repulsion.
        found: what is known, by pair of learning rates.
    """

    kernel: str
    lambda_: Value
    found: Mapping[Pair, Outcome]

    @property
    def diverged(self) -> int:
        """How many pairs diverged."""
        return sum(each.diverged for each in self.found.values())

    @property
    def failed(self) -> int:
        """How many pairs diverged, or ended with images that are none."""
        return sum(each.failed for each in self.found.values())

    @property
    def lowest(self) -> float | None:
        """The lowest FID of all pairs, infinite if all diverged; None if nothing is known."""
        return min((each.fid for each in self.found.values()), default=None)


def repulsions(raw: Path) -> list[Repulsion]:
    """Return what is known of each kernel, by lambda."""
    return [
        Repulsion(kernel, lambda_, results.over_pairs(raw, protocol.setting(loss, **{"lambda": lambda_})))
        for kernel, loss in protocol.KERNELS.items()
        for lambda_ in protocol.LAMBDAS
    ]
