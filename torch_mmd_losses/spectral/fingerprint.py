"""A number that tells whether a weight has changed."""

from __future__ import annotations

import torch
from torch import Tensor

NO_FINGERPRINT = 2**32
"""Stored if there is no fingerprint yet. It is outside the range of fingerprints."""

_BLOCK = 2**17
"""Entries of a weight that a CPU processes at a time."""

_MIX = -1640531535, -2048144789
"""Odd 32-bit numbers that are common in hash functions: the golden ratio, and one of MurmurHash3."""


def fingerprint(weight: Tensor) -> Tensor:
    """Return an integer, shape `()`, that depends on every bit of every entry of a float32 or float64 weight.

    It is the sum of the entries' bits times odd pseudo-random factors, modulo `2**32`. Integers are added exactly in
    any order, so equal weights have equal fingerprints on every device, rank and memory layout. A change of one entry
    always changes the fingerprint; other changes are missed with a probability of the order of `2**-32`, or `2**-17` if
    they are changes of signs only. No random numbers are used, and the host does not wait for the device.
    """
    bits = weight.detach().reshape(weight.shape[0], -1).contiguous().view(torch.int32)
    factors = _odd_factors(sum(bits.shape), weight.device)
    left, right = factors[: len(bits)], factors[len(bits) :]
    if weight.device.type == "cpu" and not torch.compiler.is_compiling():
        columns = _weighted_columns_by_blocks(left, bits)
    else:
        columns = (left.unsqueeze(1) * _mixed(bits)).sum(0, dtype=torch.int32)
    return (columns * right).sum(dtype=torch.int32).long()


def _weighted_columns_by_blocks(factors: Tensor, bits: Tensor) -> Tensor:
    """Return the sums of the rows times their factors. Only on a CPU can integers be multiplied as matrices.

    A CPU takes longer to get memory for a large intermediate result from the system than to compute it.
    """
    rows = max(1, _BLOCK // bits.shape[1])
    products = [some @ _mixed(block) for some, block in zip(factors.split(rows), bits.split(rows), strict=True)]
    return products[0] if len(products) == 1 else torch.stack(products).sum(0, dtype=torch.int32)


def _mixed(bits: Tensor) -> Tensor:
    """Return the bits with the high bits added to the low bits, because the highest would count only by its parity."""
    return (bits >> 16).bitwise_xor_(bits)


def _odd_factors(count: int, device: torch.device) -> Tensor:
    first, second = _MIX
    mixed = torch.arange(1, count + 1, dtype=torch.int32, device=device) * first
    mixed = (mixed ^ (mixed >> 15)) * second
    return (mixed ^ (mixed >> 13)) | 1
