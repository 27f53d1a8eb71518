"""Functions of the squared distance with hyper-parameters that are tensors.

Functions that return only values are for autograd and the compiler. Functions that also return slopes and steps make
few passes over their argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce

import torch
from torch import Tensor

from torch_mmd_losses.kernels import matern_profiles
from torch_mmd_losses.kernels.contract import ValueAndSlope, ValueSlopeAndSteps
from torch_mmd_losses.kernels.profiles import LOG_2
from torch_mmd_losses.precision import total_dtype

Scalar = float | Tensor
"""A number that the host knows, or a tensor of dimension zero where reading it would need a synchronisation."""


def gaussian(sq_dist: Tensor, sigma: Tensor) -> Tensor:
    """Return `exp(-sq_dist / (2 sigma^2))`."""
    return torch.exp(sq_dist * (-0.5 / sigma.square()))


def gaussians(sq_dist: Tensor, sigmas: Iterable[Tensor], weights: Iterable[Tensor]) -> Tensor:
    """Return the weighted sum of Gaussians."""
    parts = zip(sigmas, weights, strict=True)
    return reduce(torch.add, [weight * gaussian(sq_dist, sigma) for sigma, weight in parts])


def rational_quadratic(sq_dist: Tensor, alpha: Tensor, length: Tensor) -> Tensor:
    """Return `(1 + sq_dist / (2 alpha length^2)) ** -alpha`."""
    return torch.exp(torch.log1p(sq_dist * (0.5 / (alpha * length.square()))) * -alpha)


def rational_quadratics(sq_dist: Tensor, alphas: Iterable[Tensor], weights: Iterable[Tensor], length: Tensor) -> Tensor:
    """Return the weighted sum of rational quadratics of one length scale."""
    parts = zip(alphas, weights, strict=True)
    return reduce(torch.add, [weight * rational_quadratic(sq_dist, alpha, length) for alpha, weight in parts])


def gaussian_with_steps(sq_dist: Tensor, sigma: Tensor) -> ValueSlopeAndSteps:
    """Return :func:`gaussian` with its slope, and the derivative of its sum with respect to `log(sigma)`."""
    (rate,) = _scalars(-0.5 / sigma.to(total_dtype(sigma.device)).square())
    value = (sq_dist * (rate / LOG_2)).exp2_()
    moment = _sum(value * sq_dist)
    return ValueSlopeAndSteps(_with_rate(value, value, rate), (moment * -2 * rate,))


def gaussians_with_steps(sq_dist: Tensor, sigmas: Tensor, weights: Tensor) -> ValueSlopeAndSteps:
    """Return :func:`gaussians` with their slope, and the derivatives with respect to the logarithms."""
    value, slope, sums, moments = torch.zeros_like(sq_dist), torch.zeros_like(sq_dist), [], []
    rates = -0.5 / sigmas.to(total_dtype(sigmas.device)).square()
    part, product = torch.empty_like(sq_dist), torch.empty_like(sq_dist)
    for rate, weight in zip(_scalars(rates), _scalars(weights), strict=True):
        torch.mul(sq_dist, rate / LOG_2, out=part).exp2_()
        sums.append(_sum(part))
        moments.append(_sum(torch.mul(part, sq_dist, out=product)))
        _add(value, part, weight)
        _add(slope, part, weight * rate)
    to_sigmas = torch.stack(moments) * weights * -2 * rates
    return ValueSlopeAndSteps(ValueAndSlope(value, slope, 1.0), (to_sigmas, torch.stack(sums) * weights))


def rational_quadratic_with_steps(sq_dist: Tensor, alpha: Tensor, length: Tensor) -> ValueSlopeAndSteps:
    """Return :func:`rational_quadratic` with its slope, and the derivatives with respect to the logarithms."""
    mapped, (to_alpha, _, to_length) = rational_quadratics_with_steps(
        sq_dist, alpha.unsqueeze(0), torch.ones_like(alpha).unsqueeze(0), length
    )
    return ValueSlopeAndSteps(mapped, (to_alpha[0], to_length))


def rational_quadratics_with_steps(
    sq_dist: Tensor, alphas: Tensor, weights: Tensor, length: Tensor
) -> ValueSlopeAndSteps:
    """Return :func:`rational_quadratics` with their slope, and the derivatives with respect to the logarithms."""
    value, slope, sums, changes = torch.zeros_like(sq_dist), torch.zeros_like(sq_dist), [], []
    # All parts share these tensors: allocating new ones takes as long as filling them.
    quotient, logarithm, part, inverse = (torch.empty_like(sq_dist) for _ in range(4))
    (rate,) = _scalars(-0.5 / length.to(total_dtype(length.device)).square())
    for alpha, weight in zip(_scalars(alphas), _scalars(weights), strict=True):
        torch.mul(sq_dist, -rate / alpha, out=quotient)
        torch.log1p(quotient, out=logarithm)
        torch.mul(logarithm, -alpha / LOG_2, out=part).exp2_()
        torch.add(quotient, 1, out=inverse).reciprocal_()
        sums.append(_sum(part))
        _add(value, part, weight)
        # The derivative with respect to log(alpha) is alpha f (u / (1 + u) - log(1 + u)) for the quotient u.
        changes.append(_sum(quotient.mul_(inverse).sub_(logarithm).mul_(part)) * alpha)
        _add(slope, part.mul_(inverse), weight)
    moment = _sum(torch.mul(slope, sq_dist, out=part))
    steps = torch.stack(changes) * weights, torch.stack(sums) * weights, moment * -2 * rate
    return ValueSlopeAndSteps(_with_rate(value, slope, rate), steps)


def inverse_multiquadric(sq_dist: Tensor, c: Tensor, beta: float) -> Tensor:
    """Return `(1 + sq_dist / c^2) ** beta`."""
    return torch.exp(torch.log1p(sq_dist / c.square()) * beta)


def inverse_multiquadric_with_steps(sq_dist: Tensor, c: Tensor, beta: float) -> ValueSlopeAndSteps:
    """Return :func:`inverse_multiquadric` with its slope, and the derivative of its sum with respect to `log(c)`."""
    (factor,) = _scalars(1 / c.to(total_dtype(c.device)).square())
    quotient = sq_dist * factor
    value = quotient.log1p().mul_(beta / LOG_2).exp2_()
    return _with_step_of_length(value, value / quotient.add_(1), beta * factor, sq_dist)


def laplace_with_steps(sq_dist: Tensor, scale: Tensor, floor: float) -> ValueSlopeAndSteps:
    """Return the Laplace kernel with its slope, and the derivative of its sum with respect to `log(scale)`."""
    (number,) = _scalars(scale.to(total_dtype(scale.device)))
    value, slope, rate = matern_profiles.laplace_with_slope(sq_dist.clone(), number, floor)
    # Below the floor there is no slope, but the value depends on the scale.
    moment = _sum(value * sq_dist.sqrt().clamp_min_(floor)) / number
    return ValueSlopeAndSteps(_with_rate(value, slope, rate), (moment,))


def matern_with_steps(sq_dist: Tensor, nu: float, length: Tensor) -> ValueSlopeAndSteps:
    """Return the Matern kernel with its slope, and the derivative of its sum with respect to `log(length)`."""
    (number,) = _scalars(length.to(total_dtype(length.device)))
    return _with_step_of_length(*matern_profiles.matern_with_slope(sq_dist.clone(), nu, number), sq_dist)


def _with_step_of_length(value: Tensor, slope: Tensor, rate: Scalar, sq_dist: Tensor) -> ValueSlopeAndSteps:
    """Return values and slopes of `f(x / l^2)`, whose derivative with respect to `log(l)` is `-2 x f'`."""
    return ValueSlopeAndSteps(_with_rate(value, slope, rate), (_sum(slope * sq_dist) * -2 * rate,))


def _scalars(tensor: Tensor) -> Sequence[Scalar]:
    """Return the numbers of a tensor, read by the host if that needs no synchronisation."""
    flat = tensor.detach().reshape(-1)
    return flat.tolist() if tensor.is_cpu else flat.unbind()


def _sum(matrix: Tensor) -> Tensor:
    return matrix.sum(1).sum(dtype=total_dtype(matrix.device))


def _add(total: Tensor, part: Tensor, weight: Scalar) -> None:
    if isinstance(weight, Tensor):
        total.addcmul_(part, weight.to(part.dtype))
    else:
        total.add_(part, alpha=weight)


def _with_rate(value: Tensor, slope: Tensor, rate: Scalar) -> ValueAndSlope:
    return ValueAndSlope(value, slope * rate, 1.0) if isinstance(rate, Tensor) else ValueAndSlope(value, slope, rate)
