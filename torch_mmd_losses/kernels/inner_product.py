"""Kernels of the inner product of two scores."""

from __future__ import annotations

import math

from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.distances import Sample
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.contract import GramFunction
from torch_mmd_losses.kernels.summands import Summand, has_closed_form

LARGEST_DEGREE = 100
"""Largest degree of a polynomial: twice the offset of 1, to this power, is just within the range of float32."""


class LinearKernel(Kernel):
    r"""Inner product, :math:`k(a, b) = \langle a, b \rangle`. MMD is then the distance between the mean scores.

    Means over pairs are computed in closed form, in float64 and without a Gram matrix.

    Example:
        >>> LinearKernel()(torch.ones(2, 3), torch.ones(1, 3))
        tensor([[3.],
                [3.]])

    References:
        Arbel et al. (2018), Section 4: the kernel of the (scaled) Wasserstein loss.
    """

    def _function(self) -> GramFunction:
        return GramFunction(_inner_products, _sum_of_inner_products, by_hand=True, by_groups=True)


def is_linear(summand: Summand) -> bool:
    """Return whether a summand is a :class:`LinearKernel`, also of a subclass that does not define other values."""
    return isinstance(summand.kernel, LinearKernel) and has_closed_form(summand)


class PolynomialKernel(Kernel):
    r"""Polynomial kernel, :math:`k(a, b) = (\langle a, b \rangle / d + offset)^{degree}`, with :math:`d` dimensions.

    With the defaults and the features of an Inception network, :func:`mmd2` is the Kernel Inception Distance (KID). The
    kernel compares moments up to its degree only, so MMD is zero between distributions that agree in these moments.

    Args:
        degree: integer from 1 to 100.
        offset: zero, or a number from 1e-30 to 1e30, with `offset ** degree` up to 1e30. A larger offset gives more
            weight to terms of low degree. With zero, only products of exactly `degree` coordinates count.

    Raises:
        TypeError: if `degree` is not an integer or `offset` is not a real number.
        ValueError: if `degree`, `offset` or `offset ** degree` is out of range.

    Example:
        >>> PolynomialKernel()(torch.ones(2, 3), torch.ones(1, 3))
        tensor([[8.],
                [8.]])

    References:
        Binkowski et al. (2018), Section 4.
    """

    _hyperparameters = ("degree", "offset")

    def __init__(self, degree: int = 3, offset: float = 1.0) -> None:
        super().__init__()
        self.degree = self._converted_degree(degree)
        self.offset = self._converted_offset(offset)
        self._check(dict(self._numbers()))

    def _check(self, values: dict[str, tuple[float, ...]]) -> None:
        degree, offset = values["degree"][0], values["offset"][0]
        if offset and degree * math.log(offset) > math.log(checks.RANGE[1]) * (1 + 1e-12):
            raise ValueError(
                f"degree, offset: expected offset ** degree <= {checks.RANGE[1]:g}, got {offset:g} ** {degree}"
            )

    def _function(self) -> GramFunction:
        return GramFunction(self._powers, by_hand=True, by_groups=True)

    def _powers(self, a: Sample, b: Sample) -> Tensor:
        return (a.scores @ b.scores.mT / a.scores.shape[-1] + self.offset) ** self.degree

    def _converted(self, name: str, value: object) -> float | tuple[float, ...]:
        return self._converted_degree(value) if name == "degree" else self._converted_offset(value)

    def _converted_degree(self, value: object) -> int:
        return checks.whole_number("degree", value, least=1, most=LARGEST_DEGREE)

    def _converted_offset(self, value: object) -> float:
        number = checks.finite_number("offset", value)
        if number < 0:
            raise ValueError(f"offset: expected a number >= 0, got {checks.described(value)}")
        # A positive number that no float can hold is not zero.
        return checks.hyperparameter("offset", value) if number or value else 0.0

    def _stored(self, name: str, number: float) -> float:
        return int(number) if name == "degree" and number.is_integer() else number


def _inner_products(a: Sample, b: Sample) -> Tensor:
    # In float64 before anything is multiplied: if the scores have a large mean, products are far larger than MMD^2.
    return a.precise @ b.precise.mT


def _sum_of_inner_products(a: Sample, b: Sample, shift: int | None) -> Tensor:
    left, right = a.precise, b.precise
    total = left.sum(0) @ right.sum(0)
    return total if shift is None else total - (left * right[shift : shift + len(left)]).sum()
