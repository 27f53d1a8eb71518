"""Quantiles of distances beside loops over pairs, the median, and the numbers of public code."""

import math
from itertools import combinations

import pytest
import torch
from cases import scores
from hypothesis import given
from hypothesis import strategies as st
from public_numbers import case
from torch.testing import assert_close

from torch_mmd_losses import distance_quantiles, median_distance

SEEDS = st.integers(0, 2**20)


def by_hand(q, *samples):
    rows = [row for sample in samples for row in sample.tolist()]
    distances = sorted(math.dist(a, b) for a, b in combinations(rows, 2))
    return torch.tensor([distances[math.floor(each * (len(distances) - 1))] for each in q], dtype=torch.float64)


def test_the_numbers_of_rdm():
    inputs, outputs = case("rdm_median")
    found = distance_quantiles(inputs["feats"], q=(0.5,))
    assert_close(found[0], outputs["sigma"], rtol=1e-14, atol=0)
    assert_close(0.25 * found[0], outputs["sigma_quarter"], rtol=1e-14, atol=0)
    both = distance_quantiles(inputs["feats"], inputs["other"], q=(0.5,))
    assert_close(both[0], outputs["sigma_of_both"], rtol=1e-14, atol=0)


@given(st.integers(2, 9), st.integers(1, 9), st.integers(1, 5), SEEDS)
def test_they_are_distances_of_pairs_in_order(m, n, d, seed):
    a, b, q = scores(m, d, seed), scores(n, d, seed + 1), (0.0, 0.05, 0.3, 0.5, 0.95, 1.0)
    assert_close(distance_quantiles(a, q=q), by_hand(q, a), rtol=1e-14, atol=0)
    assert_close(distance_quantiles(a, b, q=q), by_hand(q, a, b), rtol=1e-14, atol=0)
    assert distance_quantiles(a, b, q=[0.5]).item() == median_distance(a, b)


def test_default_quantiles():
    a = scores(30, 3)
    assert_close(distance_quantiles(a), by_hand((0.05, 0.5, 0.95), a), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_batches_are_one_sample(dtype):
    a, b = scores(30, 3, 1).to(dtype), scores(20, 3, 2).to(dtype)
    expected = distance_quantiles(a, b)
    assert expected.dtype == torch.float64
    assert_close(distance_quantiles(a.split(7), iter(b.split(6))), expected, rtol=0, atol=0)
    assert_close(distance_quantiles(b, a.split(4)), expected, rtol=0, atol=0)


def test_groups_are_on_their_own():
    a, b = scores(24, 3, 1).view(2, 3, 4, 3), scores(30, 3, 2).view(2, 3, 5, 3)
    found = distance_quantiles(a, b, grouped=True)
    assert found.shape == (2, 3, 3)
    for i in range(2):
        for j in range(3):
            assert_close(found[i, j], distance_quantiles(a[i, j], b[i, j]), rtol=1e-14, atol=0)
    assert_close(distance_quantiles(a[0, 0], grouped=True), distance_quantiles(a[0, 0]), rtol=0, atol=0)


def test_many_samples_are_chosen_at_random_from_all_batches():
    # Most batches are alike, the last one is far away: its distances are seen if its rows may be chosen.
    samples = torch.cat([scores(900, 2, 1), scores(100, 2, 2) + 100])
    generator = torch.Generator().manual_seed(0)
    found = [distance_quantiles(samples.split(100), max_samples=60, generator=generator) for _ in range(20)]
    assert len({float(each[0]) for each in found}) > 10
    shares = [float(each[2]) > 50 for each in found]  # a pair in 5.6 is far
    assert sum(shares) == 20
    groups = samples.view(10, 100, 2)
    chosen = distance_quantiles(groups, max_samples=2, grouped=True, generator=generator)
    assert_close(chosen[:, 0], chosen[:, 2])
    repeated = [
        distance_quantiles(groups, max_samples=9, grouped=True, generator=torch.Generator().manual_seed(1))
        for _ in range(2)
    ]
    assert_close(*repeated, rtol=0, atol=0)


def test_features_far_from_the_origin_keep_their_digits():
    a = (scores(40, 3) + 1e6).float()
    assert_close(distance_quantiles(a), by_hand((0.05, 0.5, 0.95), a), rtol=1e-14, atol=0)
