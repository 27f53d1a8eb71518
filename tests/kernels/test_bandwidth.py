"""The median distance beside loops over pairs and the numbers of public code, at all scales and in all dtypes."""

import json
import math
from itertools import combinations
from pathlib import Path
from statistics import median_low

import pytest
import torch
from cases import scores
from hypothesis import given
from hypothesis import strategies as st

from torch_mmd_losses import RBFKernel, distance_quantiles, median_distance, mmd2

NUMBERS = json.loads((Path(__file__).parents[1] / "data" / "median-numbers.json").read_text(encoding="utf-8"))
SIZES = st.integers(2, 9)
SEEDS = st.integers(0, 2**20)


def by_hand(*samples):
    rows = [row for sample in samples for row in sample.tolist()]
    return median_low(math.dist(a, b) for a, b in combinations(rows, 2))


def cpu(seed):
    return torch.Generator().manual_seed(seed)


def test_the_numbers_of_rdm():
    case = NUMBERS["rdm_median"]
    features, other = (torch.tensor(case["inputs"][key], dtype=torch.float64) for key in ("feats", "other"))
    assert median_distance(features) == pytest.approx(case["outputs"]["sigma"], rel=1e-14)
    assert median_distance(features, other) == pytest.approx(case["outputs"]["sigma_of_both"], rel=1e-14)


@given(SIZES, st.integers(1, 9), st.integers(1, 5), SEEDS)
def test_it_is_the_lower_median_over_distinct_pairs_of_all_samples(m, n, d, seed):
    a, b = scores(m, d, seed), scores(n, d, seed + 1)
    assert median_distance(a) == pytest.approx(by_hand(a), rel=1e-14)
    assert median_distance(a, b) == pytest.approx(by_hand(a, b), rel=1e-14)


@given(SIZES, st.integers(1, 5), st.floats(-300, 300), SEEDS)
def test_it_scales_with_the_samples(m, d, exponent, seed):
    factor = 2.0 ** round(exponent)
    samples = scores(m, d, seed)
    assert median_distance(samples * factor) == pytest.approx(median_distance(samples) * factor, rel=1e-14)


@given(SIZES, SIZES, SEEDS)
def test_order_and_division_of_the_samples_do_not_matter(m, n, seed):
    a, b = scores(m, 3, seed), scores(n, 3, seed + 1)
    value = median_distance(a, b)
    together = torch.cat([a, b])[torch.randperm(m + n, generator=cpu(seed))]
    for same in (median_distance(b, a), median_distance(together), median_distance(together + 5)):
        assert same == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-3, 1.0, 1e20, 1e30])
def test_float32_at_all_scales(scale):
    samples = scores(40, 3).mul(scale).float()
    assert median_distance(samples) == pytest.approx(by_hand(samples), rel=1e-14)


@pytest.mark.parametrize("outlier", [1e6, 1e30, 3e38])
def test_far_samples_cost_no_digits(outlier):
    samples = scores(40, 3).float()
    samples[0] = outlier
    assert median_distance(samples) == pytest.approx(by_hand(samples), rel=1e-14)


@pytest.mark.parametrize(
    ("dtype", "spread"), [(torch.float16, 1), (torch.bfloat16, 8), (torch.float32, 1), (torch.float64, 1)]
)
def test_features_far_from_the_origin_keep_their_digits(dtype, spread):
    samples = (scores(40, 3) * spread + 1000).to(dtype)
    assert median_distance(samples) == pytest.approx(by_hand(samples), rel=1e-14)


def test_autocast_changes_nothing():
    samples = scores(40, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert median_distance(samples) == median_distance(samples.clone())
        assert median_distance(samples) == pytest.approx(by_hand(samples), rel=1e-14)


@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 2, 3), (7, 2, 2, 2)])
def test_samples_of_any_shape_are_flattened(shape):
    samples = torch.randn(shape)
    assert median_distance(samples) == pytest.approx(by_hand(samples.reshape(7, -1)), rel=1e-12)


def test_two_single_samples_have_a_distance():
    assert median_distance(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])) == 5.0


def test_it_is_a_constant_to_autograd():
    features = torch.randn(6, 2, requires_grad=True)
    other = torch.randn(5, 2)
    value = median_distance(features, other)
    assert type(value) is float
    gradient, expected = (
        torch.autograd.grad(mmd2(features, other, RBFKernel(sigma)), features)[0]
        for sigma in (value, by_hand(features.detach(), other))
    )
    torch.testing.assert_close(gradient, expected)


def test_larger_samples_are_drawn_from_with_the_generator():
    # On a line of powers of two, a distance tells which two samples were drawn.
    a, b = (2.0 ** torch.arange(start, start + 4, dtype=torch.float64) for start in (0, 4))
    distances = {abs(x - y) for x, y in combinations(torch.cat([a, b]).tolist(), 2)}
    found = [median_distance(a, b, max_samples=2, generator=cpu(seed)) for seed in range(400)]
    # Within both samples and across them, and no sample twice: that would be a distance of zero.
    assert set(found) == distances
    assert found == [median_distance(a, b, max_samples=2, generator=cpu(seed)) for seed in range(400)]


def test_as_many_are_drawn_as_asked_for():
    samples = scores(300, 2)
    order = torch.randperm(300, generator=cpu(3))[:50]
    drawn = median_distance(samples, max_samples=50, generator=cpu(3))
    assert drawn == pytest.approx(by_hand(samples[order]), rel=1e-14)
    assert drawn != median_distance(samples)
    assert drawn == pytest.approx(median_distance(samples), rel=0.3)  # 50 samples
    generator = cpu(3)
    assert median_distance(samples, max_samples=300, generator=generator) == pytest.approx(by_hand(samples), rel=1e-14)
    assert torch.equal(generator.get_state(), cpu(3).get_state())


def test_memory_is_that_of_the_chosen_samples():
    # A matrix of all pairs would have 80 GB.
    assert median_distance(torch.randn(100_000, 2), max_samples=200) == pytest.approx(1.665, rel=0.15)


def test_the_default_generator_is_that_of_torch():
    samples = scores(50, 2)
    torch.manual_seed(4)
    first = median_distance(samples, max_samples=10)
    assert median_distance(samples, max_samples=10) != first
    torch.manual_seed(4)
    assert median_distance(samples, max_samples=10) == first


@pytest.mark.gpu
def test_a_gpu_gives_the_same_number(gpu):
    samples, other = scores(50, 3).float(), scores(30, 3, 1).float()
    for most in (2000, 20):
        here, there = (
            median_distance(samples.to(device), other.to(device), max_samples=most, generator=cpu(0))
            for device in ("cpu", gpu)
        )
        assert there == pytest.approx(here, rel=1e-14)


def test_repeated_samples():
    # 3 of 10 pairs coincide.
    rows = torch.tensor([[0.0], [0.0], [0.0], [1.0], [3.0]])
    assert median_distance(rows) == 1.0
    # 6 of 10: there is no bandwidth.
    rows[3] = 0
    with pytest.raises(
        ValueError,
        match="^samples: expected a median distance .* got 0; 6 of 10 pairs of samples coincide .*torch.unique",
    ):
        median_distance(rows)
    # A flag is set in three rows of ten, so 24 of 45 pairs are equal. The quantile of the message is a bandwidth.
    flag = torch.tensor([1.0] * 3 + [0.0] * 7)
    with pytest.raises(ValueError, match=r"24 of 45 pairs .*flags, .*distance_quantiles\(samples, q=\(0.9,\)\)"):
        median_distance(flag)
    assert distance_quantiles(flag, q=(0.9,)).item() == 1.0
    with pytest.raises(ValueError, match="^samples, other: .* 15 of 15 pairs"):
        median_distance(torch.ones(4, 2), torch.ones(2, 2))


@pytest.mark.parametrize(
    ("factor", "shown"),
    [
        (1e-200, "0; 190 of 190 pairs of samples coincide or are closer"),
        (1e-155, "2.4.*e-155; 190 of 190"),
        (1e200, r"inf \(divide the samples"),
        (1e152, r"2.4.*e\+152 \(divide"),
    ],
)
def test_distances_that_float64_cannot_square(factor, shown):
    with pytest.raises(ValueError, match=rf"from 1e-150 to 1e\+150, got {shown}"):
        median_distance(scores(20, 3) * factor)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_broken_samples_are_counted(value):
    samples = torch.randn(5, 2)
    samples[3] = value
    samples[1, 0] = value
    for arguments, name in (((samples,), "samples"), ((samples, torch.randn(3, 2)), "samples")):
        with pytest.raises(ValueError, match=f"^{name}: expected finite scores, got NaN or infinity in 2 of 5 samples"):
            median_distance(*arguments)
    # Whether or not they are drawn.
    with pytest.raises(ValueError, match="^other: expected finite scores"):
        median_distance(torch.randn(500, 2), samples, max_samples=2)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((torch.ones(1, 2),), {}, ValueError, "^samples: expected at least 2 samples, got 1"),
        ((torch.ones(0, 2),), {}, ValueError, r"^samples: expected scores of shape .* got \(0, 2\)"),
        ((torch.ones(3, 2).long(),), {}, ValueError, "^samples: expected floating-point"),
        (([1.0, 2.0],), {}, TypeError, "^samples: expected a tensor of scores, got list"),
        ((torch.ones(3, 2), [1.0]), {}, TypeError, "^other: expected a tensor of scores, got list"),
        ((torch.ones(3, 2), torch.ones(3, 1)), {}, ValueError, "^samples, other: .* same score dimension d, got 2 and"),
        ((torch.ones(3, 2), torch.ones(3, 2).double()), {}, ValueError, "^samples, other: expected the same dtype"),
        ((torch.ones(3, 2, device="meta"),), {}, ValueError, r"^samples: .* with values, got .* \(3, 2\) on meta"),
        ((torch.ones(3, 2),), {"max_samples": 1}, ValueError, "^max_samples: expected an integer >= 2, got 1"),
        ((torch.ones(3, 2),), {"max_samples": 2.0}, TypeError, "^max_samples: expected an integer, got 2.0"),
        ((torch.ones(3, 2),), {"generator": 0}, TypeError, "^generator: expected a torch.Generator or None, got 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        median_distance(*arguments, **options)
