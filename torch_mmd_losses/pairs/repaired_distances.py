"""Squared distances of tiles in float32, with near pairs recomputed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from torch_mmd_losses.distances import (
    CLEAR,
    FLOAT32_LIMIT,
    FLOAT32_ROOM,
    FLOAT32_SQUARES,
    NEAR_IN_FLOAT64,
    centred,
    is_expandable,
    widened,
)
from torch_mmd_losses.pairs.pair_functions import OfDistance
from torch_mmd_losses.pairs.tile_distances import TileDistances, largest_square, ways_of_distances

Use = Literal["values", "displacements", "slopes"]
"""The use of a function of the distances: its values alone, sums of values times differences of scores, or slopes."""

NEAR_FOR_DIFFERENCES = 2e-4
"""Squared distance, in units of the largest squared norm, above which differences of scores have five digits.

A sum of weighted differences follows from products with the scores themselves, which are rounded to seven digits.
"""

EXPANSION_ERROR = 2.0**-15
"""Bound on the error of a squared distance expanded in float32, in units of the largest squared norm.

For 10,000 dimensions, of which one is a thousand times larger than the others, errors of a quarter of it were measured.
"""

_EPS = torch.finfo(torch.float32).eps


def ways_of_repaired_distances(
    a: Tensor, b: Tensor, function: OfDistance, use: Use, *, whole: bool
) -> Iterator[TileDistances]:
    """Yield ways to compute the distances of scores, as :func:`ways_of_distances` does.

    On a CPU, distances are expanded, in float32 for float32 scores, even if some pairs are too near for that. The
    distances of near pairs are then recomputed from differences.

    Args:
        a: scores `(g, m, d)`.
        b: scores `(g, n, d)`, or `a`.
        function: the function of the distances.
        use: the use of the function.
        whole: whether all pairs are one tile.
    """
    conditioning, factor = function.conditioning(a), function.factor
    tried = ((False, True) if a.dtype == torch.float32 else (True,)) if a.is_cpu else ()
    for wide in tried:
        if wide:
            a, b = widened(a, b)
        left, right = centred(a, b)
        squares = _squares(left), _squares(right)
        largest = largest_square(squares)
        if wide:
            expandable = is_expandable(largest, conditioning.steepness)
            near = NEAR_IN_FLOAT64[torch.float64] * largest if expandable else math.inf
        else:
            near = near_in_float32(function, use, a, largest)
        if near < math.inf:
            known = math.inf if wide else largest
            yield TileDistances(
                left, right, factor, far=False, squares=squares, largest=known, near=near, scores=(a, b), whole=whole
            )
    yield from ways_of_distances(a, b, conditioning, factor)


def _squares(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=-1, keepdim=True).square_()  # half the time of a sum of squares


def near_in_float32(function: OfDistance, use: Use, like: Tensor, largest: float) -> float:
    """Return the squared distance up to which pairs of float32 scores are near, or infinity if float32 is not enough.

    Values, slopes and differences of all other pairs have relative errors below 1e-5.

    Args:
        function: the function of the distances.
        use: the use of the function.
        like: the scores.
        largest: the largest squared norm of the scores around their centre.
    """
    steepness, elasticity, is_moderate, _ = function.conditioning(like)
    smallest, highest = FLOAT32_SQUARES
    if not is_moderate:
        return math.inf
    if largest * steepness <= FLOAT32_LIMIT / 2:  # of sums, not of losses: one pair may be all of a sum
        is_flat = largest * steepness <= 1  # far pairs then outweigh near ones
        return 0.0 if use == "values" or is_flat else NEAR_FOR_DIFFERENCES * largest
    if not smallest <= largest <= highest or FLOAT32_ROOM < largest * steepness < math.inf:
        return math.inf
    near = function.near(like, CLEAR * _EPS * largest)
    if near:  # pairs are found by their expanded distances
        near += EXPANSION_ERROR * largest
    if use == "slopes":
        near = max(near, CLEAR * elasticity * _EPS * largest)
    if use != "values":
        near = max(near, NEAR_FOR_DIFFERENCES * largest)
    return near if near < 4 * largest else math.inf  # no distance is larger
