"""The three-sample test: definition, laws, size of the test, undefined cases, errors."""

import math

import oracles
import pytest
import torch
from cases import CASES, KernelCase, scores
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from torch_mmd_losses import LinearKernel, PolynomialKernel, RBFKernel, mmd2, relative_mmd_test
from torch_mmd_losses.two_sample.relative import Candidate, candidate, compare

every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
seeds = st.integers(0, 10**6)


def three(m, d, seed=0, *, near=0.3, far=0.9):
    return scores(m, d, seed), scores(m, d, seed + 1, shift=near), scores(m, d, seed + 2, shift=far)


@every_kernel
@pytest.mark.parametrize(("m", "d"), [(4, 1), (5, 2)])
def test_equals_the_definition_by_loops(case: KernelCase, m, d):
    real, fake, other = three(m, d)
    test = relative_mmd_test(real, fake, other, case.make())
    tolerance = 1e-10 if case.smooth else 1e-6
    near, far = (oracles.mmd2(case.scalar, real, sample, "unbiased") for sample in (fake, other))
    variance = oracles.variance(case.scalar, (real, fake, other), oracles.DIFFERENCE_COEFFICIENTS)
    assert float(test.difference) == pytest.approx(near - far, rel=1e-9, abs=tolerance)
    assert float(test.variance) == pytest.approx(variance, rel=1e-7, abs=tolerance)
    statistic = (near - far) / math.sqrt(variance)
    assert float(test.statistic) == pytest.approx(statistic, rel=1e-5)
    assert float(test.p_value) == pytest.approx(math.erfc(-statistic / math.sqrt(2)) / 2, rel=1e-5)


@given(
    m=st.integers(4, 9),
    n=st.integers(4, 9),
    d=st.integers(1, 3),
    seed=seeds,
    tile=st.integers(1, 10),
    equal=st.booleans(),
)
def test_laws(m, n, d, seed, tile, equal):
    real, fake, other = three(m, d, seed)
    fake = fake if equal else torch.cat([fake, scores(n, d, seed + 3)])
    test = relative_mmd_test(real, fake, other, RBFKernel())
    assert_close(test.difference, mmd2(real, fake, RBFKernel()) - mmd2(real, other, RBFKernel()), rtol=1e-9, atol=1e-12)
    swapped = relative_mmd_test(real, other, fake, RBFKernel())
    assert_close(swapped.difference, -test.difference)
    assert_close(swapped.variance, test.variance, rtol=1e-9, atol=1e-12)
    assert_close(swapped.p_value, 1 - test.p_value, equal_nan=True)
    in_tiles = relative_mmd_test(real, fake, other, RBFKernel(), tile_size=tile)
    assert_close(in_tiles, test, equal_nan=True, rtol=1e-6, atol=1e-9)
    # The statistic has no unit, so a multiple of the kernel is the same test.
    scaled = relative_mmd_test(real, fake, other, 3 * RBFKernel())
    assert_close(scaled.statistic, test.statistic, equal_nan=True, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kernel", [RBFKernel(2.0), LinearKernel(), PolynomialKernel()], ids=["rbf", "linear", "cubic"])
@pytest.mark.parametrize(("m", "n", "p"), [(10, 6, 14), (4, 9, 5)])
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_removes_the_skewness_of_unequal_sizes(kernel, m, n, p, shift):
    # From whole matrices of interactions, as in the theory.
    real = scores(m, 3, 1)
    pulls, within, cross = [], [], []
    for fake in (scores(n, 3, 2, shift=0.3), scores(p, 3, 3, shift=0.5)):
        own, mixed = kernel(fake, fake).fill_diagonal_(0), kernel(real, fake)
        size = len(fake)
        effects = (own.sum(1) - own.sum() / size) / (size - 2)
        apart = (own - effects.unsqueeze(1) - effects - own.sum() / (size * (size - 1))).fill_diagonal_(0)
        beta = effects - mixed.mean(0)
        beta = beta - beta.mean()
        within.append(beta @ apart @ beta / size**2)
        cross.append((mixed - mixed.mean(0)) @ beta / size)
        pulls.append(mixed.mean(1))
    pull = pulls[0] - pulls[1]
    mixed = (pull - pull.mean()) @ (cross[0] - cross[1]) / (2 * m)
    moment = 2 * (1 / n**2 - 1 / p**2) * sum(within) + 8 / m * (1 / n - 1 / p) * mixed
    moved = [scores(m, 3, 1) + shift, scores(n, 3, 2, shift=0.3) + shift, scores(p, 3, 3, shift=0.5) + shift]
    test = relative_mmd_test(*moved, kernel, tile_size=4)
    expected = relative_mmd_test(real, *(sample - shift for sample in moved[1:]), kernel)
    if isinstance(kernel, PolynomialKernel):  # which depends on the mean
        test = expected
    t, kappa = test.statistic, moment / test.variance**1.5
    cubic = ((1 + kappa * t) ** 3 - 1) / (3 * kappa) + kappa
    assert_close(test.p_value, torch.special.ndtr(cubic), rtol=1e-6, atol=1e-12)
    assert abs(test.p_value - torch.special.ndtr(t)) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "m", "n", "other"),
    [
        (RBFKernel(2.0), 50, 50, 50),
        (RBFKernel(2.0), 100, 60, 140),
        (LinearKernel(), 50, 30, 120),
        (PolynomialKernel(), 60, 200, 30),
    ],
    ids=["rbf", "rbf-unequal", "linear-unequal", "polynomial-unequal"],
)
def test_rejects_as_often_as_it_should(kernel, m, n, other):
    # Both candidates are equally far from the real samples, by differences in different directions.
    rounds, move = 600, torch.eye(8, dtype=torch.float64)
    p_values = torch.stack(
        [
            relative_mmd_test(
                scores(m, 8, 3 * seed, shift=1.0),
                scores(n, 8, 3 * seed + 1, shift=1.0) + 0.5 * move[0],
                scores(other, 8, 3 * seed + 2, shift=1.0) + 0.5 * move[1],
                kernel,
            ).p_value
            for seed in range(rounds)
        ]
    )
    for level in (0.01, 0.05, 0.1):
        rejected = float((p_values <= level).double().mean())
        assert rejected < level + 3 * math.sqrt(level * (1 - level) / rounds)


def test_does_not_depend_on_the_mean_of_the_features():
    samples = three(50, 16)
    expected = relative_mmd_test(*samples, LinearKernel())
    for shift in (3.0, 30.0, 1e4):
        assert_close(relative_mmd_test(*(x + shift for x in samples), LinearKernel()), expected, rtol=1e-6, atol=1e-12)


def test_finds_which_is_nearer():
    real, near, far = three(300, 4, near=0.1, far=0.4)
    assert relative_mmd_test(real, near, far, PolynomialKernel()).p_value < 0.01
    assert relative_mmd_test(real, far, near, PolynomialKernel()).p_value > 0.99


def test_candidates_take_the_place_of_samples():
    real, fake, other = three(12, 3)
    kernel = PolynomialKernel()
    kept = candidate(real, other, kernel)
    assert sum(number.numel() for part in kept[:2] for number in part) < 5 * len(other)
    kept = Candidate.of(kept.tensors())
    assert_close(compare(candidate(real, fake, kernel), kept), relative_mmd_test(real, fake, other, kernel))


def test_candidates_of_other_sizes_need_moments():
    real, fake, other = three(12, 3)
    kernel = PolynomialKernel()
    near, far = candidate(real, fake, kernel), candidate(real, other[:8], kernel, with_moments=True)
    with pytest.raises(
        ValueError, match="^fake, other: expected candidates with moments for sizes 12 and 8, got at least"
    ):
        compare(near, far)


def test_without_a_positive_variance_there_is_no_p_value():
    equal = torch.ones(5, 2)
    test = relative_mmd_test(equal, equal, equal, RBFKernel())
    assert test.difference == test.variance == 0
    assert test.statistic.isnan()
    assert test.p_value.isnan()
    # A difference without any scatter is no test either.
    apart = relative_mmd_test(torch.zeros(5, 1), torch.zeros(5, 1), torch.ones(5, 1), LinearKernel())
    assert (apart.difference, apart.variance) == (-1, 0)
    assert apart.statistic.isnan()
    assert apart.p_value.isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_computes_in_float32_without_a_gradient(dtype):
    real, fake, other = (sample.to(dtype) for sample in three(40, 3))
    expected = relative_mmd_test(real.float(), fake.float(), other.float(), PolynomialKernel())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        test = relative_mmd_test(real.requires_grad_(), fake, other, PolynomialKernel())
    assert_close(test, expected, rtol=0, atol=0)
    assert all(number.dtype == torch.float32 and not number.requires_grad for number in test)


def test_makes_no_host_synchronisation():
    samples = (torch.empty(7, 4, device="meta") for _ in range(3))
    assert all(x.device.type == "meta" for x in relative_mmd_test(*samples, PolynomialKernel(), tile_size=3))


def test_wrong_arguments_are_refused():
    def call(*shapes, kernel=None, **options):
        return relative_mmd_test(*(torch.zeros(shape) for shape in shapes), kernel or PolynomialKernel(), **options)

    with pytest.raises(ValueError, match="^real, fake, other: expected at least 4 samples each, got 5 and 5 and 3$"):
        call((5, 2), (5, 2), (3, 2))
    with pytest.raises(ValueError, match="^real, other: expected the same score dimension d, got 2 and 3"):
        call((5, 2), (5, 2), (5, 3))
    with pytest.raises(TypeError, match="^kernel: expected a Kernel such as"):
        call((5, 2), (5, 2), (5, 2), kernel="kid")
    with pytest.raises(TypeError, match="^tile_size: expected an integer, got 2.5"):
        call((5, 2), (5, 2), (5, 2), tile_size=2.5)
    with pytest.raises(ValueError, match="^real, fake: expected at least 4 samples each, got 5 and 3$"):
        candidate(torch.zeros(5, 2), torch.zeros(3, 2), PolynomialKernel())


def test_the_same_tensor_twice_has_all_pairs_between_both_samples():
    real, other = scores(6, 2, 1), scores(6, 2, 2)
    found, expected = (relative_mmd_test(real, fake, other, RBFKernel()) for fake in (real, real.clone()))
    assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_p_value_of_a_clear_difference_is_small_and_not_zero(dtype):
    generator = torch.Generator().manual_seed(0)
    real, near = torch.randn(2, 200, 3, generator=generator, dtype=dtype)
    far = torch.randn(200, 3, generator=generator, dtype=dtype) + 1.3
    test = relative_mmd_test(real, near, far, RBFKernel(2.0))
    assert -13 < test.statistic < -8.5
    expected = 0.5 * math.erfc(-float(test.statistic) / 2**0.5)
    assert float(test.p_value) == pytest.approx(expected, rel=1e-3)
