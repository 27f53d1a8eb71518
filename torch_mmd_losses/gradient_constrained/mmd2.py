"""Gradient-constrained MMD: the values and gradients of critics are bounded on average over a given measure."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_mmd_losses import checks, usage_warnings
from torch_mmd_losses.gradient_constrained import incomplete_cholesky
from torch_mmd_losses.gradient_constrained.features import Features, scores_and_jacobian, scores_of
from torch_mmd_losses.gradient_constrained.representers import jets, squared_norms
from torch_mmd_losses.kernels.base import Kernel, check_kernel, rough_parts
from torch_mmd_losses.pairs.blind_kernels import warn_of_one_value
from torch_mmd_losses.pairs.objective import GENERATOR
from torch_mmd_losses.pairs.objective_values import objective_values
from torch_mmd_losses.precision import full_precision, total_dtype
from torch_mmd_losses.types import Estimator


def gradient_constrained_mmd2(
    real: Tensor,
    fake: Tensor,
    kernel: Kernel,
    *,
    lambda_: float = 0.1,
    features: Features | None = None,
    mu: Tensor | None = None,
    rank: int | None = None,
    estimator: Estimator = "biased",
) -> Tensor:
    r"""Estimate the squared gradient-constrained MMD between real and fake samples.

    .. math::

        S^2 = \sup_f \bigl(E f(x) - E f(y)\bigr)^2 \quad \text{with} \quad
        E_\mu \bigl[f^2 + \lVert \nabla f \rVert^2\bigr] + \lambda \lVert f \rVert_H^2 \le 1.

    The supremum runs over the functions :math:`f` in the RKHS :math:`H` of the kernel :math:`k(\phi(a), \phi(b))`,
    where :math:`\phi` are the features. Gradients are taken with respect to the input of the features. If :math:`\mu`
    is the uniform distribution on :math:`M` points,

    .. math::

        S^2 = \frac{1}{\lambda} \Bigl(\mathrm{MMD}^2
            - v^{\mathsf T} \Bigl(\begin{bmatrix} K & G^{\mathsf T} \\ G & H \end{bmatrix} + M \lambda I \Bigr)^{-1} v
            \Bigr), \qquad v = \begin{bmatrix} \eta \\ \nabla \eta \end{bmatrix}.

    Here :math:`\eta(t) = E\,k(x, t) - E\,k(y, t)` is the mean witness at the points. :math:`K` are the kernel values at
    the points, :math:`G` are their derivatives with respect to one argument, and :math:`H` are their derivatives with
    respect to both arguments.

    **Cost.** The matrix has :math:`M (1 + d)` rows for inputs of dimension :math:`d`. The gradient with respect to the
    input is the gradient with respect to the features times the Jacobian of the features. The same number therefore
    follows from :math:`M (1 + s)` rows for :math:`s` features: 128 rows instead of 50,240 for 64 images of 28 x 28
    pixels and a critic with one output. Time is :math:`O(M^3 (1 + s)^3)`. Memory is a small multiple of
    :math:`M^2 (1 + s)^2` numbers, plus the Jacobian. The Jacobian takes one backward pass for each feature.

    `rank` replaces the matrix by :math:`R^{\mathsf T} R`, its incomplete Cholesky decomposition with :math:`\ell` rows,
    and the matrix is never built. Time is then :math:`O(\ell^2 M (1 + s))`, and memory is a small multiple of
    :math:`\ell M (1 + s)` numbers. The result approaches the exact value from below as `rank` grows. If `rank` is far
    too small, the result may be negative.

    **Precision.** Everything after the features is computed in float64, by a Cholesky decomposition. Nothing except
    :math:`M \lambda` is added to the diagonal of the matrix. The sum is positive definite unless :math:`\lambda` is
    about 1e-15 of :math:`E_\mu[k(a, a) + \sum_i \partial_i \partial_{i+d} k(a, a)]` or less, which raises an error.

    Args:
        real: samples `(m, ...)` in any floating-point dtype, in the shape that the features take. Without features,
            `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: samples `(n, ...)`, likewise.
        kernel: any kernel that is positive definite, and twice differentiable also at coincident samples. This
            excludes :class:`EnergyKernel`. The bounds of an :class:`RBFBKernel` are ignored.
        lambda_: weight of the RKHS norm, > 0.
        features: a network or another function that maps a batch of samples to scores `(m, s)`. Each row of scores must
            depend on its own sample only, so put batch normalisation into eval mode. None is the identity.
        mu: points `(M, ...)`, like `real`, over which the critics are bounded. None takes the real samples.
        rank: number of rows of the low-rank approximation, from 1 to :math:`M (1 + s)`. None computes the exact value.
        estimator: the pairs to average over, see :func:`mmd2`. It applies because, for a given matrix, :math:`S^2` is
            :math:`\mathrm{MMD}^2` with another kernel. The default is the estimator of the paper, which is never
            negative except for rounding. The other estimators are unbiased only if `mu` is independent of both samples.

    Returns:
        A scalar, float64 for float64 scores and float32 for all others. Differentiable twice with respect to the
        samples, `mu` and the parameters of the features and the kernel. With `rank`, the choice of rows is a constant
        in derivatives, and the value jumps where the choice changes. With features, `torch.compile` is tested with
        PyTorch 2.13 and newer.

    Raises:
        TypeError: if samples are not tensors, `kernel` is not a :class:`Kernel` or contains one that is not twice
            differentiable at coincident samples (:class:`EnergyKernel`, :class:`LaplaceKernel`, order 1/2 of
            :class:`MaternKernel`, :class:`L1LaplaceKernel`),
            `lambda_` is not a real number, `features` is not a function, or `rank` is not an integer.
        ValueError: if samples are empty, not floating-point, or too few for the estimator; if samples differ in
            dimension, dtype or device; if `lambda_` is not positive or too small for float64; if `rank` is below 1 or
            too large; if the estimator is unknown; if the features do not return one row for each sample, or are not
            differentiable.

    Warns:
        UsageWarning: if all kernel values are zero, or all are :math:`k(a, a)`, as in :func:`mmd2`. Only the first
            call from each place in the code is examined.

    Example:
        >>> real, fake = torch.randn(20, 2), torch.randn(20, 2) + 1
        >>> gradient_constrained_mmd2(real, fake, RBFKernel(), lambda_=1.0)
        tensor(0.1714)
        >>> layers = torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        >>> critic = torch.nn.Sequential(*layers)
        >>> loss = -gradient_constrained_mmd2(real, fake, RBFKernel(), features=critic)
        >>> loss.backward()

    References:
        Arbel et al. (2018), Eq. 4, Proposition 4 and Appendix D.2.
    """
    check_kernel(kernel)
    rough = rough_parts(kernel)
    if rough:
        raise TypeError(
            "kernel: expected a kernel that is twice differentiable at coincident samples, got a kernel that contains "
            f"{'an' if rough[0].startswith('E') else 'a'} {rough[0]}"
        )
    regulariser = checks.positive_number("lambda_", lambda_)
    if not (features is None or callable(features)):
        got = checks.described(features)
        raise TypeError(f"features: expected a function of a batch of samples, such as a network, got {got}")
    checks.same_space("real", real, "fake", fake)
    if mu is not None:
        checks.same_space("real", real, "mu", mu)
    checks.sample_sizes(real.shape[0], fake.shape[0], estimator)
    points = _points("real", real, features) if mu is None else _points("mu", mu, features)
    x = points.scores if mu is None else scores_of("real", real, features)
    y = scores_of("fake", fake, features)
    if rank is not None:
        rank = _rank(rank, points.scores)
    with full_precision(real.device):
        dtype = total_dtype(real.device)
        points, samples = points.to(dtype), (x.to(dtype), y.to(dtype))
        eta = points.functionals(kernel, torch.cat(samples))
        if estimator == "biased":  # the mean witness is enough
            eta = eta[:, : len(x)].mean(1, keepdim=True) - eta[:, len(x) :].mean(1, keepdim=True)
        weight = regulariser * len(points.scores)
        if rank is None:
            form = _exact_form(kernel, points, weight, eta)
        else:
            form = _low_rank_form(kernel, points, weight, eta, rank)
        subtrahend = form.sum() if estimator == "biased" else _mmd2_of_gram(form, len(x), estimator)
        (value,) = objective_values(kernel, *samples, estimator, objectives=[GENERATOR])
    if usage_warnings.is_first_call_from_place():
        warn_of_one_value("gradient_constrained_mmd2", [kernel], *samples)
    return ((value - subtrahend) / regulariser).to(x.dtype)


class _Points(NamedTuple):
    """The points over which the critics are bounded, in the coordinates of the features.

    A critic `g(features(x))` has the gradient `J^T grad g`. The sum of its squared value and squared gradient norm at a
    point is a quadratic form of the value and gradient of `g`, with the matrix `N = [[1, 0], [0, J J^T]]`. Values and
    gradients at all points have the shape `(m (1 + s), columns)`, with those of one point next to each other.
    """

    scores: Tensor
    """Features of the points, `(m, s)`."""
    jacobian: Tensor | None
    """Derivatives `J` of the features with respect to the input, `(m, s, d)`, or None for the identity."""

    def to(self, dtype: torch.dtype) -> _Points:
        return _Points(self.scores.to(dtype), None if self.jacobian is None else self.jacobian.to(dtype))

    def functionals(self, kernel: Kernel, b: Tensor, combination: Tensor | None = None) -> Tensor:
        """Return the values and gradients of combinations of representers at `b`; None stands for `k(., b)`."""
        if combination is None:
            combination = self._unit()[:1].expand(len(b), -1)
        return jets(kernel, self.scores, b, combination).flatten(0, 1)

    def columns(self, kernel: Kernel, indices: Tensor) -> Tensor:
        """Return columns `(m (1 + s), indices)` of the matrix of kernel values and derivatives."""
        unit = self._unit()
        return self.functionals(kernel, self.scores[indices // len(unit)], unit[indices % len(unit)])

    def _unit(self) -> Tensor:
        return torch.eye(1 + self.scores.shape[1], dtype=self.scores.dtype, device=self.scores.device)

    def blocks(self) -> Tensor | None:
        """Return the matrix `N` of each point, `(m, 1 + s, 1 + s)`, or None for the identity."""
        return None if self.jacobian is None else _with_value(self.jacobian @ self.jacobian.mT)

    def roots(self) -> Tensor | None:
        """Return `F`, `(m, 1 + s, 1 + min(s, d))`, with `F F^T = N`, as a constant for autograd."""
        if self.jacobian is None:
            return None
        return _with_value(torch.linalg.qr(self.jacobian.detach().mT, mode="r").R.mT)


def _with_value(blocks: Tensor) -> Tensor:
    """Return `[[1, 0], [0, block]]` for each block."""
    padded = pad(blocks, (1, 0, 1, 0))
    return padded + pad(padded.new_ones(1, 1), (0, padded.shape[2] - 1, 0, padded.shape[1] - 1))


def _block_product(blocks: Tensor | None, columns: Tensor) -> Tensor:
    """Return the product of a block diagonal matrix and `columns`.

    The blocks are `(m, p, q)`; None stands for the identity.
    """
    if blocks is None:
        return columns
    return (blocks @ columns.unflatten(0, (blocks.shape[0], blocks.shape[2]))).flatten(0, 1)


def _exact_form(kernel: Kernel, points: _Points, weight: float, eta: Tensor) -> Tensor:
    """Return the quadratic form of Eq. 9 for each pair of columns of `eta`.

    The form is `V^T N U` with `(S N + weight) U = V`, where `V` is `eta` and `S` is the matrix of kernel values and
    derivatives at the points, with respect to the features.

    The decomposition is not differentiated. One step of refinement improves its solution and is differentiated, which
    makes the first derivatives of `U` correct. `U` is a stationary point of the form, so derivatives of the form are
    correct up to the third.
    """
    size = 1 + points.scores.shape[1]
    every = torch.arange(len(points.scores) * size, device=eta.device)
    gram, blocks = points.columns(kernel, every), points.blocks()
    with torch.no_grad():
        constant, roots = gram.detach(), points.roots()
        transposed = None if roots is None else roots.mT
        inner = _block_product(transposed, _block_product(transposed, constant).T)
        decomposition = _cholesky(inner, weight)

    def solve(right: Tensor) -> Tensor:
        reduced = torch.cholesky_solve(_block_product(transposed, right), decomposition)
        return reduced if roots is None else (right - constant @ _block_product(roots, reduced)) / weight

    def product(solution: Tensor) -> Tensor:
        return gram @ _block_product(blocks, solution) + weight * solution

    first = solve(eta.detach())
    solution = first + solve(eta - product(first))
    weighted = _block_product(blocks, solution)
    linear = weighted.T @ eta
    return linear + linear.T - weighted.T @ product(solution)


def _low_rank_form(kernel: Kernel, points: _Points, weight: float, eta: Tensor, rank: int) -> Tensor:
    """Return the form of :func:`_exact_form` with `R^T R` in place of `S`, by Woodbury's identity (Appendix D.2)."""
    blocks = points.blocks()
    columns = partial(points.columns, kernel)
    importance = None if blocks is None else blocks.detach().diagonal(dim1=1, dim2=2).flatten()
    with torch.no_grad():
        diagonal = squared_norms(kernel, points.scores).flatten()
    rows = incomplete_cholesky.factor(diagonal, columns, rank, importance)
    inner = rows @ _block_product(blocks, rows.T)
    decomposition = _cholesky(inner, weight)
    weighted = _block_product(blocks, eta)
    left = torch.linalg.solve_triangular(decomposition, rows @ weighted, upper=False)
    return (eta.T @ weighted - left.T @ left) / weight


def _cholesky(gram: Tensor, weight: float) -> Tensor:
    """Return the Cholesky decomposition of `gram + weight I`."""
    rounding = torch.finfo(gram.dtype).eps * gram.diagonal().sum()
    try:
        # A weight below rounding makes this decomposition fail. An `if` would have to wait for the device.
        torch.linalg.cholesky((weight - rounding).reshape(1, 1))
        return torch.linalg.cholesky(gram + weight * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise ValueError(
            f"lambda_: expected a weight that makes the matrix positive definite in {gram.dtype}, got a weight that "
            f"adds {weight:.1e} to diagonal entries of {gram.diagonal().mean():.1e} on average (the samples must be "
            "finite, and the kernel must be positive definite and twice differentiable at coincident samples)"
        ) from error


def _mmd2_of_gram(gram: Tensor, m: int, estimator: Estimator) -> Tensor:
    """Return MMD^2 given the values `(m + n, m + n)` of a kernel for all pairs, real samples first."""
    cross = _mean_of_distinct if estimator == "u_statistic" else torch.mean
    return _mean_of_distinct(gram[:m, :m]) - 2 * cross(gram[:m, m:]) + _mean_of_distinct(gram[m:, m:])


def _mean_of_distinct(square: Tensor) -> Tensor:
    return (square.sum() - square.diagonal().sum()) / (len(square) * (len(square) - 1))


def _points(name: str, inputs: Tensor, features: Features | None) -> _Points:
    """Return the features of the inputs, with their Jacobian unless `features` is None."""
    if features is None:
        return _Points(checks.scores(name, inputs), None)
    return _Points(*scores_and_jacobian(name, inputs, features))


def _rank(rank: object, scores: Tensor) -> int:
    number, size = checks.whole_number("rank", rank, least=1), len(scores) * (1 + scores.shape[1])
    if number > size:
        raise ValueError(
            f"rank: expected at most {size}, the number of rows for {len(scores)} points and features of dimension "
            f"{scores.shape[1]}, got {number} (None computes the exact value)"
        )
    return number
