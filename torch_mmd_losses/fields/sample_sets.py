"""The samples that attract and repel in a field, after checking them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.fields import arguments
from torch_mmd_losses.pairs.pair_functions import Indices


def sets_of_samples(
    fake: Tensor,
    real: Tensor,
    negatives: Tensor | None,
    real_weights: Tensor | None,
    negative_weights: Tensor | None,
    exclude_self: bool | None,
    *,
    signed: bool,
) -> tuple[Tensor, list[SampleSet], tuple[int, ...]]:
    """Return the fake samples `(g, n, d)`, real samples and negatives, and the shape of the groups, all checked.

    For the arguments see :func:`drift`; `signed` is whether weights may be below zero.
    """
    x, y, groups = checks.same_groups("fake", fake, "real", real)
    others = x if negatives is None else checks.same_groups("fake", fake, "negatives", negatives)[1]
    distinct = negatives is None if exclude_self is None else checks.flag("exclude_self", exclude_self)
    arguments.check_negatives(x, others, distinct=distinct)
    weights = [
        arguments.sample_weights("real_weights", real_weights, y, groups, signed=signed),
        arguments.sample_weights("negative_weights", negative_weights, others, groups, signed=signed),
    ]
    attracting = SampleSet(y, weights[0], Indices(False, real is fake))
    repelling = SampleSet(others, weights[1], Indices(distinct, distinct or negatives is fake))
    return x, [attracting, repelling], groups


class SampleSet(NamedTuple):
    """Samples that attract, and properties of their pairs with the fake samples.

    Attributes:
        samples: `(g, m, d)`.
        weights: `(g, m)`.
        indices: which pairs of equal index are left out, or at distance zero.
    """

    samples: Tensor
    weights: Tensor
    indices: Indices

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return the samples and their weights."""
        return self.samples, self.weights  # PyTorch 2.6 does not compile slices of named tuples

    def widened(self, x: Tensor, wide: Tensor) -> SampleSet:
        """Return this set in the dtype of `wide`, which is `x` in that dtype."""
        return SampleSet(wide if self.samples is x else self.samples.to(wide.dtype), self.weights, self.indices)

    def detached(self, x: Tensor, constant: Tensor) -> SampleSet:
        """Return this set as a constant to autograd, also in forward mode, given `x` as a constant."""
        samples = constant if self.samples is x else self.samples.detach()
        return SampleSet(samples, self.weights.detach(), self.indices)  # PyTorch 2.6 does not compile _replace
