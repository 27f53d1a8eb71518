"""The largest singular value of a linear operator, by Lanczos and power iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses.spectral.operators import LinearOperator

_CHIRP_PERIOD, _CHIRP_RATE = 1_000_003, 618_036
"""A prime, and its part by the golden ratio: neighbours in :func:`start_vector` then have unrelated phases."""

LANCZOS_STEPS = 40
"""Steps from a cold start."""

MAX_BASIS_NUMEL = 2**25
"""Numbers in a Lanczos basis: 128 MB in float32."""

_ROUNDING = 1e-6
"""Share of the squared norm below which a Lanczos residual is taken for the rounding of float32."""


def start_vector(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return a unit vector of the given shape that is spread over all directions and the same on every process.

    Quadratic phases (a chirp) have a flat spectrum, so no singular vector is missed; no random state is touched, so
    processes agree on the vector without talking, and wrapping a layer changes no one's random numbers.
    """
    index = torch.arange(1, math.prod(shape) + 1, device=like.device, dtype=torch.int64)
    phase = (index * index % _CHIRP_PERIOD * _CHIRP_RATE % _CHIRP_PERIOD).to(like.dtype) * (2 * math.pi / _CHIRP_PERIOD)
    return unit_vector(phase.cos(), fallback=phase).reshape(list(shape))


def unit_vector(x: Tensor, fallback: Tensor) -> Tensor:
    """Return `x / |x|`, or `fallback` where that is no vector of length one (`x` zero, NaN or infinite).

    The largest entry is divided out first: the squares of tiny and huge ones are beyond the range of the dtype.
    """
    tiny = torch.finfo(x.dtype).tiny
    scaled = x / x.abs().amax().clamp_min(tiny)
    norm = torch.linalg.vector_norm(scaled)
    return torch.where(norm > 0, scaled / norm.clamp_min(tiny), fallback)


def norm_along(operator: LinearOperator, weight: Tensor, v: Tensor) -> Tensor:
    """Return `|A v| / |v|`, a lower bound of the largest singular value, differentiable in the weight."""
    return torch.linalg.vector_norm(operator.apply(v, weight)) / torch.linalg.vector_norm(v)


def gram_product(operator: LinearOperator, weight: Tensor, v: Tensor) -> Tensor:
    """Return `A^T A v`, up to a positive factor that keeps tiny and huge weights within the range of the dtype."""
    largest = weight.abs().amax()
    scaled = weight / torch.where(largest > 0, largest, 1)
    return operator.apply_adjoint(operator.apply(v, scaled), scaled, v)


def power_iteration(operator: LinearOperator, weight: Tensor, v: Tensor, steps: int) -> Tensor:
    """Return the unit vector after `steps` iterations `v <- A^T A v / |A^T A v|`; a zero operator leaves it alone."""
    for _ in range(steps):
        v = unit_vector(gram_product(operator, weight, v), fallback=v)
    return v


class SingularVectors(NamedTuple):
    """The top singular vectors as far as they have been found, unit vectors or zero."""

    u: Tensor
    """The direction of `A v`."""
    v: Tensor
    direction: Tensor
    """Where the last step went, orthogonal to the `v` before it."""


def left_singular_vector(operator: LinearOperator, weight: Tensor, v: Tensor) -> Tensor:
    """Return the unit vector along `A v`; a zero operator gives zero."""
    image = operator.apply(v, weight)
    return unit_vector(image, fallback=torch.zeros_like(image))


def locally_optimal_iteration(
    operator: LinearOperator, weight: Tensor, v: Tensor, direction: Tensor, steps: int
) -> SingularVectors:
    """Return the vectors after `steps` locally optimal power iterations; a zero operator leaves `v` alone.

    Each takes, of all combinations of `v`, `A^T A v` and the direction of the step before, the one that `A` stretches
    most (Knyazev 2001, with one vector). `A^T A v`, where the plain iteration goes, is one of them: whatever the weight
    has done in between, the norm along the new `v` is at least that of the plain iteration from the old one. The
    direction makes it as fast as conjugate gradients while the weight stands still.
    """
    shape = v.shape
    v, direction = v.flatten(), direction.flatten()
    for _ in range(steps):
        image = operator.apply(v.view(shape), weight)
        gradient = operator.apply_adjoint(
            unit_vector(image, fallback=torch.zeros_like(image)), weight, v.view(shape)
        ).flatten()
        basis = v.unsqueeze(0)
        for candidate in (unit_vector(gradient, fallback=torch.zeros_like(gradient)), direction):
            basis = torch.cat([basis, _orthogonal_part(candidate, basis).unsqueeze(0)])
        images = operator.apply_batch(basis[1:].view(2, *shape), weight).flatten(1)
        images = torch.cat([image.reshape(1, -1), images])
        best = _longest_combination(images)
        direction = _unit_vector_unscaled(best[1:] @ basis[1:], fallback=direction)
        v = _unit_vector_unscaled(best @ basis, fallback=v)
        u = unit_vector(best @ images, fallback=torch.zeros_like(images[0]))
    return SingularVectors(u.view(image.shape), v.view(shape), direction.view(shape))


def _unit_vector_unscaled(x: Tensor, fallback: Tensor) -> Tensor:
    """Do what :func:`unit_vector` does, faster, for a vector of moderate length."""
    norm = torch.linalg.vector_norm(x)
    return torch.where(norm > 0, x / norm, fallback)


def _orthogonal_part(x: Tensor, basis: Tensor) -> Tensor:
    """Return the unit vector along the part of a unit vector that is orthogonal to the rows, or 0 if it is rounding."""
    for _ in range(2):
        x = x - (basis @ x) @ basis
    norm = torch.linalg.vector_norm(x)
    return torch.where(norm > _ROUNDING, x / norm, 0)


def _longest_combination(images: Tensor) -> Tensor:
    """Return the unit vector of coefficients whose combination of the rows is longest.

    By squaring, as eigenvalue routines make the host wait. What 4096th powers cannot tell apart differs by 0.02 %.
    """
    tiny = torch.finfo(images.dtype).tiny
    rows = images / images.abs().amax().clamp_min(tiny)
    gram = rows @ rows.mT
    for _ in range(4):
        gram = gram / gram.abs().amax().clamp_min(tiny)
        for _ in range(3):  # the largest eigenvalue is between 1 and 3, and its eighth power far from overflow
            gram = gram @ gram
    longest = gram.index_select(1, gram.abs().sum(0).argmax().view(1)).squeeze(1)
    return unit_vector(longest, fallback=longest)


def top_singular_vector(operator: LinearOperator, weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the top right singular vector of an operator of which nothing is known, nearly.

    After 40 Lanczos steps the norm is within 0.1 % for every random convolution tried. Where the basis of all of them
    would take too much memory, shorter runs start from the result of the one before.
    """
    v = start_vector(shape, like=weight)
    steps = max(2, min(LANCZOS_STEPS, MAX_BASIS_NUMEL // v.numel()))
    for _ in range(math.ceil(LANCZOS_STEPS / steps)):
        v = lanczos(operator, weight, v, steps)
    return v


def lanczos(operator: LinearOperator, weight: Tensor, v: Tensor, steps: int) -> Tensor:
    """Return the best approximation to the top right singular vector in the Krylov space of `v`.

    From a cold start, some tens of steps come as close as many hundred power iterations. The basis is orthogonalised
    twice in full: it is short, and without that rounding brings copies of the top vector back.
    """
    steps = min(steps, v.numel())
    basis = v.new_zeros(steps, v.numel())
    basis[0] = v.flatten()
    diagonal, coupling = [], []
    largest = v.new_zeros(())
    for step in range(steps):
        product = gram_product(operator, weight, basis[step].view_as(v)).flatten()
        diagonal.append(basis[step] @ product)
        largest = torch.maximum(largest, diagonal[-1])
        for _ in range(2):
            product = product - (basis[: step + 1] @ product) @ basis[: step + 1]
        # Once the Krylov space is the whole row space, what is left is rounding: it must not become a direction.
        product = torch.where(torch.linalg.vector_norm(product) > _ROUNDING * largest, product, 0)
        coupling.append(torch.linalg.vector_norm(product))
        if step + 1 < steps:
            basis[step + 1] = unit_vector(product, fallback=product)
    beta = torch.stack(coupling)[:-1]
    tridiagonal = torch.diag(torch.stack(diagonal)) + torch.diag(beta, 1) + torch.diag(beta, -1)
    # Apple's GPUs lack the routine.
    local = tridiagonal.cpu() if v.device.type == "mps" else tridiagonal
    weights = torch.linalg.eigh(local).eigenvectors[:, -1].to(v.device)
    return unit_vector((weights @ basis).view_as(v), fallback=v)
