r"""Fast products of centred kernel values with the weights of all divisions, and bounds on their errors.

The products are computed in bfloat16, or in float32 where bfloat16 is not faster, or in 8-bit integers. Integers take
half of the time of bfloat16, and their products are exact, but the kernel values are rounded to multiples of a step.
So they suit kernels whose values spread evenly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

ROUNDED = 3 * torch.finfo(torch.bfloat16).eps
"""Bound on the error of a sum of rounded products, relative to the sum and to its deviation over all divisions.

Kernel values, and their sums over the columns of a strip, are rounded to bfloat16. If single errors are independent,
each rounding causes an error of 0.2 `eps` of the standard deviation (root mean square), so the bound is 11 times the
usual error. If samples take few values, the single errors are not independent. Their sum is then proportional to the
screened sum, by a factor of at most `eps`. Products in float32 have the same bound, because users can let PyTorch
compute them in TF32 or bfloat16.
"""

COMPUTED = 2.0**-9
"""The same bound for sums of integers, whose only other errors are those of kernel values in float32."""

LOST = 8.0
"""Bound on the error that the rounding to integers causes, in standard deviations over all divisions."""

LARGEST = 127
"""Largest integer in a product."""

MOST_LOST = 0.03
"""Largest norm of the loss by rounding to integers, relative to the norm of the kernel values. Above it, the additional
sums in float64 take more time than integers save."""

LEAST_DIRECTIONS = 24.0
r"""Least number of eigenvalues, :math:`(\sum \lambda^2)^2 / \sum \lambda^4`, that share the loss by rounding.

If a few eigenvalues have most of it, as they do if samples take few values, errors are not nearly normal.
"""

LARGEST_PRODUCT = 2**17
"""Number of terms that fit into a sum of products in 32-bit integers."""


class WeightedProducts:
    r"""The products for some of the kernels.

    Args:
        factors: the factor of the values of each of these kernels, by its index.
        labels: the divisions `(B + 1, N)`.
        weights: weights of real and of fake samples.
        dtype: dtype of the products.
        margin: bound on the error of a sum, see :data:`ROUNDED`.
    """

    def __init__(
        self,
        factors: Mapping[int, float],
        labels: Tensor,
        weights: tuple[float, float],
        dtype: torch.dtype,
        margin: float,
    ) -> None:
        self.kernels = list(factors)
        self.factors = list(factors.values())
        self.margin = margin
        self.ratio = -weights[1] / weights[0]
        """The weight of a fake sample is minus this number, in units of that of a real one."""
        self.unit = weights[0]
        real, fake = torch.tensor(weights, dtype=dtype, device="cpu").to(labels.device)
        self.weights = torch.where(labels.T.contiguous(), real, fake)

    def first(self, dtype: torch.dtype) -> Tensor:
        """Return the weights `(N,)` of the first division."""
        return self.weights[:, 0].to(dtype) / self.unit


class Strip:
    """A strip of the Gram matrices of some kernels, and the products with it."""

    def __init__(self, products: WeightedProducts, own: slice, columns: slice) -> None:
        self.kernels = products.kernels
        self._factors, self._unit = products.factors, products.unit
        self._start = columns.start
        self._left, self._right = products.weights[own], products.weights[columns]
        shape = len(self.kernels), len(self._left), len(self._right)
        self._values = torch.empty(shape, dtype=self._left.dtype, device=self._left.device)

    def write(self, j: int, other: slice, tile: Tensor) -> Tensor | float:
        """Write values of the `j`-th kernel in some columns, and return the sum of squared rounding errors."""
        place = self._values[j, :, other.start - self._start : other.stop - self._start]
        if place.dtype != torch.int8:
            place.copy_(tile)
            return 0
        factor = self._factors[j]
        integers = (tile * factor).round_().clamp_(-LARGEST, LARGEST)
        place.copy_(integers)
        lost = integers.sub_(tile, alpha=factor).flatten()
        return lost.dot(lost) / factor**2

    def totals(self) -> Tensor:
        """Return the sums `(kernels, B + 1)` of the values times the weights of both samples, in float64."""
        flat = self._values.flatten(0, 1)
        products = torch._int_mm(flat, self._right) if flat.dtype == torch.int8 else flat @ self._right
        weighted = products.unflatten(0, self._values.shape[:2]).float().mul_(self._left.float())
        divisors = [[factor * self._unit**2] for factor in self._factors]
        return weighted.sum(1).double() / torch.tensor(divisors, dtype=torch.float64, device="cpu").to(flat.device)


def rounded(kernels: Iterable[int], labels: Tensor, m: int) -> WeightedProducts:
    """Return the products in bfloat16 or float32."""
    ratio = float(torch.tensor(m / (labels.shape[1] - m), dtype=torch.bfloat16))  # exact in products of low precision
    return WeightedProducts(dict.fromkeys(kernels, 1.0), labels, (1.0, -ratio), product_dtype(labels.device), ROUNDED)


def of_integers(factors: Mapping[int, float], labels: Tensor, weights: tuple[int, int]) -> WeightedProducts:
    """Return the products in 8-bit integers."""
    return WeightedProducts(factors, labels, weights, torch.int8, COMPUTED)


def product_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 if the device multiplies it faster than float32, else float32."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def has_fast_integers(device: torch.device) -> bool:
    """Return whether the device multiplies 8-bit integers faster than bfloat16."""
    return device.type == "cpu" and torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported()


def integer_weights(m: int, n: int) -> tuple[int, int] | None:
    """Return weights of real and of fake samples whose sum is no larger than that of random signs, or None."""
    candidates = [(real, round(real * m / n)) for real in range(1, LARGEST + 1)]
    allowed = [
        (real, -fake)
        for real, fake in candidates
        if 1 <= fake <= LARGEST and (real * m - fake * n) ** 2 <= real**2 * m + fake**2 * n
    ]
    return allowed[0] if allowed else None


def integer_factor(values: Tensor, size: int) -> float | None:
    """Return the factor of a kernel's centred values before they are rounded, or None if too much is lost.

    `values` `(s, s)` are those of a sample of `size` samples, symmetric and with a diagonal of zeros.
    """
    factor = LARGEST / values.abs().amax()
    scaled = values * factor
    lost = scaled - scaled.round()
    suits = lost.square().sum() <= MOST_LOST**2 * scaled.square().sum()
    # Errors that depend on only one sample cancel.
    lost = lost - lost.mean(0) - lost.mean(1, keepdim=True) + lost.mean()
    fourth = (lost @ lost).square() / lost.square().sum().square()
    # With more samples, there are more rows, each with a smaller part.
    own = fourth.diagonal().sum()
    suits &= (fourth.sum() - own + own * len(values) / size) * LEAST_DIRECTIONS <= 1  # NaN is not
    return float(factor) if suits and factor.isfinite() else None
