"""Find the top singular vectors of a linear operator, by Lanczos, power and locally optimal iteration.

The groups of an operator do not influence one another, so each has singular vectors of its own: a vector `v` holds one
unit vector for each group. A single unit vector would lose its part in every group but the largest, and iteration could
not find another group that becomes the largest later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.spectral.operators import LinearOperator

_CHIRP_PERIOD, _CHIRP_RATE = 1_000_003, 618_036
"""A prime, and the prime divided by the golden ratio. They give neighbours in a start vector unrelated phases."""

LANCZOS_STEPS = 40
"""Lanczos steps from the start vector."""

MAX_BASIS_NUMEL = 2**25
"""Largest number of elements in a Lanczos basis, which takes 128 MB in float32."""

_ROUNDING = 1e-6
"""Relative size below which a residual is attributed to the rounding of float32.

The size is relative to the squared norm in Lanczos iteration, and to one for unit vectors.
"""


def start_vector(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return a unit vector that is spread over all directions and is the same on every process.

    Its phases are quadratic (a chirp). A chirp has a flat spectrum, so no singular vector is missed. No random numbers
    are used. All processes therefore agree on the vector without communication, and wrapping a layer leaves the random
    state of the user as it is.
    """
    index = torch.arange(1, math.prod(shape) + 1, device=like.device, dtype=torch.int64)
    phase = (index * index % _CHIRP_PERIOD * _CHIRP_RATE % _CHIRP_PERIOD).to(like.dtype) * (2 * math.pi / _CHIRP_PERIOD)
    return unit_vector(phase.cos(), fallback=phase).reshape(list(shape))


def unit_vector(x: Tensor, fallback: Tensor) -> Tensor:
    """Return `x / |x|`, or `fallback` if `x` is zero, NaN or infinite."""
    return unit_vectors(x.reshape(1, -1), fallback.reshape(1, -1)).view(x.shape)


def unit_vectors(rows: Tensor, fallback: Tensor) -> Tensor:
    """Return the unit vector along each row `(..., n)`, or the row of `fallback` if it is zero, NaN or infinite.

    The vectors are first divided by their largest entry, because the squares of tiny and huge entries are beyond the
    range of the dtype.
    """
    tiny = torch.finfo(rows.dtype).tiny
    scaled = rows / rows.abs().amax(-1, keepdim=True).clamp_min(tiny)
    norm = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    return torch.where(norm > 0, scaled / norm.clamp_min(tiny), fallback)


def by_group(x: Tensor, groups: int) -> Tensor:
    """Return the vector `(channels, ...)` of an operator as one row for each group."""
    return x.reshape(groups, -1)


def in_largest_group(image: Tensor, v: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return both vectors with zeros outside of the group in which `|image| / |v|` is largest."""
    if groups == 1:
        return image, v
    with torch.no_grad():
        images, vectors = by_group(image, groups), by_group(v, groups)
        largest = images.abs().amax()
        lengths = torch.linalg.vector_norm(images / torch.where(largest > 0, largest, 1), dim=1)
        norms = torch.linalg.vector_norm(vectors, dim=1)
        ratios = lengths / torch.where(norms > 0, norms, 1)
        rows = torch.arange(groups, device=v.device).unsqueeze(1) == ratios.argmax()
    return (
        torch.where(rows, by_group(image, groups), 0).view(image.shape),
        torch.where(rows, by_group(v, groups), 0).view(v.shape),
    )


def norm_along(operator: LinearOperator, weight: Tensor, v: Tensor) -> Tensor:
    """Return `|A v| / |v|` of the group in which it is largest.

    It is a lower bound of the largest singular value that is differentiable in the weight.
    """
    return norm_ratio(*in_largest_group(operator.apply(v, weight), v, operator.groups))


def norm_ratio(image: Tensor, v: Tensor) -> Tensor:
    """Return `|image| / |v|`, differentiable in the image.

    The image is divided by its largest entry, because the squares of tiny and huge entries are beyond the range of the
    dtype.
    """
    largest = image.detach().abs().amax()
    largest = torch.where(largest > 0, largest, 1)
    return torch.linalg.vector_norm(image / largest) / torch.linalg.vector_norm(v) * largest


def gram_product(operator: LinearOperator, weight: Tensor, v: Tensor) -> Tensor:
    """Return `A^T A v` times a positive factor, which keeps tiny and huge weights within the range of the dtype."""
    largest = weight.abs().amax()
    scaled = weight / torch.where(largest > 0, largest, 1)
    return operator.apply_adjoint(operator.apply(v, scaled), scaled, v)


def power_iteration(operator: LinearOperator, weight: Tensor, v: Tensor, steps: int) -> Tensor:
    """Return `v` after `steps` iterations `v <- A^T A v / |A^T A v|` in each group. A zero group does not change."""
    rows = by_group(v, operator.groups)
    for _ in range(steps):
        product = gram_product(operator, weight, rows.view(v.shape))
        rows = unit_vectors(by_group(product, operator.groups), fallback=rows)
    return rows.view(v.shape)


class SingularVectors(NamedTuple):
    """Estimates of the top singular vectors, and the direction of the last step.

    Each is a unit vector or zero in each group.
    """

    u: Tensor
    """The left singular vector, along `A v`."""
    v: Tensor
    """The right singular vector."""
    direction: Tensor
    """The direction of the last step, orthogonal to `v` before the step."""


def left_singular_vector(operator: LinearOperator, weight: Tensor, v: Tensor) -> Tensor:
    """Return the unit vector along `A v` in each group, or zero if the group is zero."""
    image = operator.apply(v, weight)
    rows = by_group(image, operator.groups)
    return unit_vectors(rows, fallback=torch.zeros_like(rows)).view(image.shape)


def locally_optimal_iteration(
    operator: LinearOperator, weight: Tensor, v: Tensor, direction: Tensor, steps: int
) -> SingularVectors:
    """Return the vectors after `steps` locally optimal power iterations in each group. A zero group does not change.

    Each step considers all linear combinations of `v`, `A^T A v` and the direction of the previous step, and takes the
    one with the largest `|A v| / |v|` (Knyazev 2001, with one vector). The result `A^T A v` of a plain power iteration
    is among the candidates. Therefore `|A v|` after a step is at least that of a plain power iteration from the same
    `v`, even if the weight has changed since the previous step. While the weight is constant, the direction makes the
    iteration as fast as conjugate gradients.
    """
    shape, groups = v.shape, operator.groups
    v, direction = by_group(v, groups), by_group(direction, groups)
    for _ in range(steps):
        image = operator.apply(v.view(shape), weight)
        image_shape, image = image.shape, by_group(image, groups)
        left = unit_vectors(image, fallback=torch.zeros_like(image)).view(image_shape)
        gradient = by_group(operator.apply_adjoint(left, weight, v.view(shape)), groups)
        basis = v.unsqueeze(1)  # (groups, vectors, n)
        for candidate in (unit_vectors(gradient, fallback=torch.zeros_like(gradient)), direction):
            basis = torch.cat([basis, _orthogonal_part(candidate.unsqueeze(1), basis)], 1)
        images = operator.apply_batch(basis[:, 1:].transpose(0, 1).reshape(2, *shape), weight)
        images = images.reshape(2, groups, -1).transpose(0, 1)
        images = torch.cat([image.unsqueeze(1), images], 1)
        best = _longest_combination(images)
        direction = _unit_vectors_unscaled(torch.bmm(best[:, :, 1:], basis[:, 1:]).squeeze(1), fallback=direction)
        v = _unit_vectors_unscaled(torch.bmm(best, basis).squeeze(1), fallback=v)
        u = unit_vectors(torch.bmm(best, images).squeeze(1), fallback=torch.zeros_like(image))
    return SingularVectors(u.view(image_shape), v.view(shape), direction.view(shape))


def _unit_vectors_unscaled(rows: Tensor, fallback: Tensor) -> Tensor:
    """Return :func:`unit_vectors` without its scaling, for vectors of moderate length."""
    norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return torch.where(norm > 0, rows / norm, fallback)


def _orthogonal_part(x: Tensor, basis: Tensor) -> Tensor:
    """Return the unit vector along the part of `x` orthogonal to the rows of `basis`, or 0 if only rounding is left.

    The vectors are `(groups, 1, n)`, and the rows of the basis are `(groups, k, n)`.
    """
    for _ in range(2):
        x = torch.baddbmm(x, torch.bmm(x, basis.mT), basis, alpha=-1)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.where(norm > _ROUNDING, x / norm, 0)


def _longest_combination(images: Tensor) -> Tensor:
    """Return the unit vector of coefficients `(groups, 1, k)` for the longest linear combination of the rows.

    The images are `(groups, k, n)`. The coefficients are the top eigenvector of the Gram matrix, found by repeated
    squaring, because eigenvalue routines make the host wait for the device. Eigenvalues that the 4096th power cannot
    separate differ by 0.02 %.
    """
    tiny = torch.finfo(images.dtype).tiny
    rows = images / images.abs().amax((1, 2), keepdim=True).clamp_min(tiny)
    gram = torch.bmm(rows, rows.mT)
    for _ in range(4):
        gram = gram / gram.abs().amax((1, 2), keepdim=True).clamp_min(tiny)
        for _ in range(3):  # the largest eigenvalue is between 1 and 3, so its eighth power does not overflow
            gram = torch.bmm(gram, gram)
    longest = gram.abs().sum(1).argmax(1).view(-1, 1, 1).expand(-1, 1, gram.shape[2])
    found = gram.gather(1, longest)  # a row is as good as a column, because the matrix is symmetric
    return unit_vectors(found, fallback=found)


def top_singular_vector(operator: LinearOperator, weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Return an approximation to the top right singular vector without a previous estimate.

    After 40 Lanczos steps, the norm was within 0.1 % of the true norm for every random convolution tried. If the basis
    of 40 vectors would take too much memory, the steps are divided into shorter runs, each of which starts from the
    result of the previous one.
    """
    rows = by_group(start_vector(shape, like=weight), operator.groups)
    v = unit_vectors(rows, fallback=rows).view(list(shape))
    steps = max(2, min(LANCZOS_STEPS, MAX_BASIS_NUMEL // v.numel()))
    for _ in range(math.ceil(LANCZOS_STEPS / steps)):
        v = lanczos(operator, weight, v, steps)
    return v


def lanczos(operator: LinearOperator, weight: Tensor, v: Tensor, steps: int) -> Tensor:
    """Return the best approximation to the top right singular vector in the Krylov space of `v`.

    From a start vector, a few dozen steps are as accurate as many hundred power iterations. Each new vector is
    orthogonalised twice against the full basis, because otherwise rounding reintroduces copies of the top vector. The
    cost is small, since the basis is short.
    """
    shape, rows = v.shape, by_group(v, operator.groups)
    steps = min(steps, rows.shape[1])
    basis = rows.new_zeros(len(rows), steps, rows.shape[1])
    basis[:, 0] = rows
    diagonal, coupling = [], []
    largest = rows.new_zeros(len(rows))
    for step in range(steps):
        product = by_group(gram_product(operator, weight, basis[:, step].reshape(shape)), len(rows)).unsqueeze(1)
        diagonal.append((basis[:, step : step + 1] @ product.mT).view(-1))
        largest = torch.maximum(largest, diagonal[-1])
        found = basis[:, : step + 1]
        for _ in range(2):
            product = product - (product @ found.mT) @ found
        product = product.squeeze(1)
        # Once the Krylov space is the whole row space, the residual is only rounding and must not become a direction.
        norm = torch.linalg.vector_norm(product, dim=1)
        product = torch.where((norm > _ROUNDING * largest).unsqueeze(1), product, 0)
        coupling.append(torch.linalg.vector_norm(product, dim=1))
        if step + 1 < steps:
            basis[:, step + 1] = unit_vectors(product, fallback=product)
    beta = torch.stack(coupling, 1)[:, :-1]
    tridiagonal = torch.diag_embed(torch.stack(diagonal, 1))
    tridiagonal = tridiagonal + torch.diag_embed(beta, 1) + torch.diag_embed(beta, -1)
    # Apple's GPUs (MPS) have no implementation of eigh.
    local = tridiagonal.cpu() if v.device.type == "mps" else tridiagonal
    weights = torch.linalg.eigh(local).eigenvectors[:, :, -1:].to(v.device)
    return unit_vectors((weights.mT @ basis).squeeze(1), fallback=rows).view(shape)
