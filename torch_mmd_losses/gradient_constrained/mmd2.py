"""Gradient-constrained MMD: critics are limited in value and in gradient where a measure has its mass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from torch_mmd_losses import checks
from torch_mmd_losses.estimators.mmd2 import mmd2
from torch_mmd_losses.gradient_constrained import incomplete_cholesky
from torch_mmd_losses.gradient_constrained.representers import jets, squared_norms
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.kernels.radial import EnergyKernel
from torch_mmd_losses.precision import full_precision, total_dtype
from torch_mmd_losses.types import Estimator

Features = Callable[[Tensor], Tensor]


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
        E_\mu \bigl[f^2 + \lVert \nabla f \rVert^2\bigr] + \lambda \lVert f \rVert_H^2 \le 1

    over the functions :math:`f` of the RKHS :math:`H` of the kernel :math:`k(\phi(a), \phi(b))`, where :math:`\phi` are
    the features and gradients are taken with respect to their input. For :math:`\mu` the uniform distribution on
    :math:`M` points it is

    .. math::

        S^2 = \frac{1}{\lambda} \Bigl(\mathrm{MMD}^2
            - v^{\mathsf T} \Bigl(\begin{bmatrix} K & G^{\mathsf T} \\ G & H \end{bmatrix} + M \lambda I \Bigr)^{-1} v
            \Bigr), \qquad v = \begin{bmatrix} \eta \\ \nabla \eta \end{bmatrix},

    with the mean witness :math:`\eta(t) = E\,k(x, t) - E\,k(y, t)` at the points, and there the kernel :math:`K`, its
    derivatives :math:`G` by one argument and those by both, :math:`H`.

    **Cost.** The matrix has :math:`M (1 + d)` rows for inputs of dimension :math:`d`. A gradient with respect to the
    input is one with respect to the features times their Jacobian, so the same number comes from :math:`M (1 + s)`
    rows for :math:`s` features: 128 instead of 50,240 for 64 images of 28 x 28 pixels and a critic with one output.
    Time is :math:`O(M^3 (1 + s)^3)` and memory a small multiple of :math:`M^2 (1 + s)^2` numbers, beside the Jacobian,
    one backward pass through the features for each of them. `rank` replaces the matrix by :math:`R^{\mathsf T} R`, its
    incomplete Cholesky decomposition with that many rows :math:`\ell`. Time is then :math:`O(\ell^2 M (1 + s))` and
    memory a small multiple of :math:`\ell M (1 + s)`, and the matrix is never built. The result comes from below: it
    grows with `rank` to the exact value, and far too small a rank may leave it negative.

    **Precision.** Everything after the features is computed in float64, by a Cholesky decomposition. Nothing is added
    to the matrix but :math:`M \lambda`. That makes it positive definite unless :math:`\lambda` is about 1e-15 of
    :math:`E_\mu[k(a, a) + \sum_i \partial_i \partial_{i+d} k(a, a)]` or less, which raises an error.

    Args:
        real: samples `(m, ...)` in any floating-point dtype, as the features take them; `(m,)` and `(m, ...)` are
            flattened from dim 1 where there are no features.
        fake: samples `(n, ...)`, likewise.
        kernel: any kernel that is positive definite and twice differentiable, also at coincident samples, so not
            :class:`EnergyKernel`; a bounded one is taken without its bounds.
        lambda_: weight of the norm in the RKHS, > 0.
        features: a network or another function that maps a batch of samples to scores `(m, s)`, each sample for itself
            (put batch normalisation into eval mode); None is the identity.
        mu: points `(M, ...)` where critics are limited, like `real`; None takes the real samples.
        rank: how many rows the low-rank approximation has, from 1 to :math:`M (1 + s)`; None is exact.
        estimator: which pairs to average over, as in :func:`mmd2`: with the matrix given, :math:`S^2` is
            :math:`\mathrm{MMD}^2` with another kernel. The default is that of the paper, never negative but for
            rounding; for the others to be unbiased, `mu` has to be independent of both samples.

    Returns:
        A scalar, float64 for float64 scores and float32 for all others. Differentiable twice with respect to the
        samples, `mu` and the parameters of the features and the kernel. With `rank` the chosen rows are constants to
        derivatives; where the choice changes, the value jumps. `torch.compile` needs `features=None`.

    Raises:
        TypeError: if samples are no tensors, `kernel` is no :class:`Kernel` or has an :class:`EnergyKernel` in it,
            `lambda_` is no real number, `features` no function or `rank` no integer.
        ValueError: if samples are empty, not floating-point or too few for the estimator, or differ in dimension, dtype
            or device; if `lambda_` is not positive or too small for float64, `rank` too large or the estimator unknown;
            if the features have another number of rows than the samples or no derivative.

    Example:
        >>> real, fake = torch.randn(20, 2), torch.randn(20, 2) + 1
        >>> gradient_constrained_mmd2(real, fake, RBFKernel(), lambda_=1.0)
        tensor(0.1714)
        >>> critic = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        >>> loss = -gradient_constrained_mmd2(real, fake, RBFKernel(), features=critic)
        >>> loss.backward()

    References:
        Arbel et al. (2018), Eq. 4, Proposition 4 and Appendix D.2.
    """
    check_kernel(kernel)
    if any(isinstance(summand.kernel, EnergyKernel) for summand in kernel._summands()):
        raise TypeError(
            "kernel: expected one that is twice differentiable at coincident samples, got one with an EnergyKernel"
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
    x = points.scores if mu is None else _scores("real", real, features)
    y = _scores("fake", fake, features)
    if rank is not None:
        rank = _rank(rank, points.scores)
    with full_precision(real.device):
        dtype = total_dtype(real.device)
        points, precise = points.to(dtype), (x.to(dtype), y.to(dtype))
        eta = points.functionals(kernel, torch.cat(precise))
        if estimator == "biased":  # the mean witness is enough
            eta = eta[:, : len(x)].mean(1, keepdim=True) - eta[:, len(x) :].mean(1, keepdim=True)
        weight = regulariser * len(points.scores)
        form = _exact(kernel, points, weight, eta) if rank is None else _low_rank(kernel, points, weight, eta, rank)
        taken_off = form.sum() if estimator == "biased" else _mean_over_pairs(form, len(x), estimator)
        return ((mmd2(*precise, kernel, estimator=estimator) - taken_off) / regulariser).to(x.dtype)


class _Points(NamedTuple):
    """The points where critics are limited, as the features see them.

    A critic `g(features(x))` has the gradient `J^T grad g`. Its squared value and gradient at a point are a quadratic
    form of the value and gradient of `g`, with the block `N = [[1, 0], [0, J J^T]]`. Coordinates of all points together
    have the shape `(m (1 + s), columns)`, those of one point next to each other.
    """

    scores: Tensor
    """Features of the points, `(m, s)`."""
    jacobian: Tensor | None
    """Their derivatives `J` by the input, `(m, s, d)`, or None for the identity."""

    def to(self, dtype: torch.dtype) -> _Points:
        return _Points(self.scores.to(dtype), None if self.jacobian is None else self.jacobian.to(dtype))

    def functionals(self, kernel: Kernel, b: Tensor, combination: Tensor | None = None) -> Tensor:
        """Return values and gradients at the points of combinations of representers at `b`: of `k(., b)` for None."""
        if combination is None:
            combination = self._unit()[:1].expand(len(b), -1)
        return jets(kernel, self.scores, b, combination).flatten(0, 1)

    def columns(self, kernel: Kernel, indices: Tensor) -> Tensor:
        """Return columns of the matrix of values and derivatives of the kernel, `(m (1 + s), indices)`."""
        unit = self._unit()
        return self.functionals(kernel, self.scores[indices // len(unit)], unit[indices % len(unit)])

    def _unit(self) -> Tensor:
        return torch.eye(1 + self.scores.shape[1], dtype=self.scores.dtype, device=self.scores.device)

    def blocks(self) -> Tensor | None:
        """Return `N`, `(m, 1 + s, 1 + s)`, or None for the identity."""
        return None if self.jacobian is None else _with_value(self.jacobian @ self.jacobian.mT)

    def roots(self) -> Tensor | None:
        """Return `F`, `(m, 1 + s, 1 + min(s, d))`, with `F F^T = N`; its derivatives are not those of `N`."""
        if self.jacobian is None:
            return None
        return _with_value(torch.linalg.qr(self.jacobian.detach().mT, mode="r").R.mT)


def _with_value(blocks: Tensor) -> Tensor:
    """Return `[[1, 0], [0, block]]` for each block."""
    padded = pad(blocks, (1, 0, 1, 0))
    return padded + pad(padded.new_ones(1, 1), (0, padded.shape[2] - 1, 0, padded.shape[1] - 1))


def _times(blocks: Tensor | None, columns: Tensor) -> Tensor:
    """Return the product with a block diagonal matrix, given by its blocks `(m, p, q)`; None is the identity."""
    if blocks is None:
        return columns
    return (blocks @ columns.unflatten(0, (blocks.shape[0], blocks.shape[2]))).flatten(0, 1)


def _exact(kernel: Kernel, points: _Points, weight: float, eta: Tensor) -> Tensor:
    """Return the form of Eq. 9 for each pair of columns of `eta`, `V`: `V^T N U` with `(S N + weight) U = V`.

    `S` are the values and derivatives of the kernel at the points, by the features. The decomposition is not
    differentiated. Its solution is improved by a step of refinement, which is: that makes the first derivatives of `U`
    right, and those of the form, of which `U` is a stationary point, up to the third.
    """
    size = 1 + points.scores.shape[1]
    every = torch.arange(len(points.scores) * size, device=eta.device)
    gram, blocks = points.columns(kernel, every), points.blocks()
    with torch.no_grad():
        constant, roots = gram.detach(), points.roots()
        transposed = None if roots is None else roots.mT
        inner = _times(transposed, _times(transposed, constant).T)
        decomposition = _cholesky(inner, weight)

    def solve(right: Tensor) -> Tensor:
        reduced = torch.cholesky_solve(_times(transposed, right), decomposition)
        return reduced if roots is None else (right - constant @ _times(roots, reduced)) / weight

    def product(solution: Tensor) -> Tensor:
        return gram @ _times(blocks, solution) + weight * solution

    first = solve(eta.detach())
    solution = first + solve(eta - product(first))
    weighted = _times(blocks, solution)
    linear = weighted.T @ eta
    return linear + linear.T - weighted.T @ product(solution)


def _low_rank(kernel: Kernel, points: _Points, weight: float, eta: Tensor, rank: int) -> Tensor:
    """Return the same with `R^T R` for `S`, by the identity of Woodbury: Appendix D.2 of Arbel et al."""
    blocks = points.blocks()
    columns = partial(points.columns, kernel)
    importance = None if blocks is None else blocks.detach().diagonal(dim1=1, dim2=2).flatten()
    with torch.no_grad():
        diagonal = squared_norms(kernel, points.scores).flatten()
    rows = incomplete_cholesky.factor(diagonal, columns, rank, importance)
    inner = rows @ _times(blocks, rows.T)
    decomposition = _cholesky(inner, weight)
    weighted = _times(blocks, eta)
    left = torch.linalg.solve_triangular(decomposition, rows @ weighted, upper=False)
    return (eta.T @ weighted - left.T @ left) / weight


def _cholesky(gram: Tensor, weight: float) -> Tensor:
    """Return the Cholesky decomposition of `gram + weight I`."""
    rounding = torch.finfo(gram.dtype).eps * gram.diagonal().sum()
    try:
        # A weight below rounding is refused as the decomposition refuses: no `if` on what a device has computed.
        torch.linalg.cholesky((weight - rounding).reshape(1, 1))
        return torch.linalg.cholesky(gram + weight * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise ValueError(
            f"lambda_: expected a weight that makes the matrix positive definite in {gram.dtype}, got one that adds "
            f"{weight:.1e} to diagonal entries of {gram.diagonal().mean():.1e} on average (samples have to be finite, "
            "and the kernel positive definite and twice differentiable at coincident samples)"
        ) from error


def _mean_over_pairs(form: Tensor, m: int, estimator: Estimator) -> Tensor:
    """Return what MMD^2 would be with the values of `form` `(m + n, m + n)` for those of the kernel."""
    cross = _mean_of_distinct if estimator == "u_statistic" else torch.mean
    return _mean_of_distinct(form[:m, :m]) - 2 * cross(form[:m, m:]) + _mean_of_distinct(form[m:, m:])


def _mean_of_distinct(square: Tensor) -> Tensor:
    return (square.sum() - square.diagonal().sum()) / (len(square) * (len(square) - 1))


def _points(name: str, inputs: Tensor, features: Features | None) -> _Points:
    """Return the features of inputs and, unless they are the inputs, their Jacobian."""
    if features is None:
        return _Points(checks.scores(name, inputs), None)
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = inputs.view_as(inputs) if inputs.requires_grad else inputs.detach().requires_grad_()
        scores = _scores(name, leaf, features)
        if not scores.requires_grad:
            raise ValueError(
                "features: expected scores that can be differentiated by the samples, got scores without a gradient "
                "(made under torch.no_grad() or torch.inference_mode(), or detached?)"
            )
        rows = [
            torch.autograd.grad(
                column.sum(), leaf, retain_graph=True, create_graph=differentiable, materialize_grads=True
            )[0]
            for column in scores.unbind(1)
        ]
    return _Points(scores, torch.stack([row.reshape(len(leaf), -1) for row in rows], 1))


def _scores(name: str, inputs: Tensor, features: Features | None) -> Tensor:
    if features is None:
        return checks.scores(name, inputs)
    scores = features(inputs)
    if isinstance(scores, Tensor) and (scores.dim() == 0 or len(scores) != len(inputs)):
        raise ValueError(
            f"features: expected scores of each of the {len(inputs)} samples in {name}, got shape {tuple(scores.shape)}"
        )
    return checks.scores("features", scores)


def _rank(rank: object, scores: Tensor) -> int:
    number, size = checks.whole_number("rank", rank, least=1), len(scores) * (1 + scores.shape[1])
    if number > size:
        raise ValueError(
            f"rank: expected at most {size}, the rows for {len(scores)} points and features of dimension "
            f"{scores.shape[1]}, got {number} (None is exact)"
        )
    return number
