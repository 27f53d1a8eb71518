"""Kernels of the inner product of two scores."""

from __future__ import annotations

from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.distances import Sample
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.contract import GramFunction


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
        return GramFunction(_inner_products, _sum_of_inner_products, by_hand=True)


class PolynomialKernel(Kernel):
    r"""Polynomial kernel, :math:`k(a, b) = (\langle a, b \rangle / d + offset)^{degree}`, with :math:`d` dimensions.

    With the defaults and the features of an Inception network, :func:`mmd2` is the Kernel Inception Distance (KID). The
    kernel compares moments up to its degree only, so MMD is zero between distributions that agree in these moments.

    Args:
        degree: integer >= 1.
        offset: number > 0. A larger offset gives more weight to terms of low degree.

    Raises:
        TypeError: if `degree` is not an integer or `offset` is not a real number.
        ValueError: if `degree` is below 1, or if `offset` is not positive and finite.

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
        self.degree = checks.whole_number("degree", degree, least=1)
        self.offset = checks.positive_number("offset", offset)

    def _function(self) -> GramFunction:
        return GramFunction(self._powers, by_hand=True)

    def _powers(self, a: Sample, b: Sample) -> Tensor:
        return (a.scores @ b.scores.T / a.scores.shape[1] + self.offset) ** self.degree

    def _converted(self, name: str, value: object) -> float | tuple[float, ...]:
        return checks.whole_number(name, value, least=1) if name == "degree" else super()._converted(name, value)

    def set_extra_state(self, state: Tensor) -> None:
        """Set degree and offset, see :meth:`Kernel.set_extra_state`. The state stores the degree as a float."""
        super().set_extra_state(state)
        self.degree = int(self.degree)


def _inner_products(a: Sample, b: Sample) -> Tensor:
    # In float64 before anything is multiplied: if the scores have a large mean, products are far larger than MMD^2.
    return a.precise @ b.precise.T


def _sum_of_inner_products(a: Sample, b: Sample, shift: int | None) -> Tensor:
    left, right = a.precise, b.precise
    total = left.sum(0) @ right.sum(0)
    return total if shift is None else total - (left * right[shift : shift + len(left)]).sum()
