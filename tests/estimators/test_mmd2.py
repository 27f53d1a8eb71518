"""The estimators of MMD^2: definitions, laws, unbiasedness, closed forms, errors."""

import math
from itertools import product

import pytest
import torch
from cases import CASES, INVARIANT, KernelCase, scores
from hypothesis import given
from hypothesis import strategies as st
from oracles import mmd2 as mmd2_by_loops
from torch.testing import assert_close

from torch_mmd_losses import LinearKernel, RationalQuadraticKernel, RBFBKernel, RBFKernel, RBFMix, mmd2

ESTIMATORS = ("unbiased", "u_statistic", "biased")

every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)
seeds = st.integers(0, 10**6)


@every_kernel
@every_estimator
@given(m=st.integers(2, 6), n=st.integers(2, 6), d=st.integers(1, 3), seed=seeds)
def test_equals_the_definition_by_loops(case: KernelCase, estimator, m, n, d, seed):
    real, fake = scores(m, d, seed), scores(m if estimator == "u_statistic" else n, d, seed + 1, shift=0.7)
    expected = mmd2_by_loops(case.scalar, real, fake, estimator)
    value = mmd2(real=real, fake=fake, kernel=case.make(), estimator=estimator)
    assert value.shape == ()
    assert float(value) == pytest.approx(expected, rel=1e-9, abs=1e-6 if not case.smooth else 1e-10)


@every_kernel
@every_estimator
@given(seed=seeds, m=st.integers(2, 6))
def test_is_symmetric_and_blind_to_order(case: KernelCase, estimator, seed, m):
    real, fake = scores(m, 2, seed), scores(m, 2, seed + 1)
    kernel = case.make()
    value = mmd2(real, fake, kernel, estimator=estimator)
    assert_close(mmd2(fake, real, kernel, estimator=estimator), value)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(m, generator=generator)
    # The U-statistic leaves out cross pairs of equal index, so it is blind to a common order only.
    other = order if estimator == "u_statistic" else torch.randperm(m, generator=generator)
    assert_close(mmd2(real[order], fake[other], kernel, estimator=estimator), value)


@pytest.mark.parametrize("case", INVARIANT.values(), ids=INVARIANT)
@every_estimator
@given(seed=seeds, shift=st.floats(-10, 10))
def test_is_blind_to_translation_and_rotation(case: KernelCase, estimator, seed, shift):
    real, fake = scores(5, 3, seed), scores(5, 3, seed + 1)
    rotation = torch.linalg.qr(scores(3, 3, seed)).Q if case.rotated else torch.eye(3).double()
    kernel = case.make()
    moved = mmd2(real @ rotation + shift, fake @ rotation + shift, kernel, estimator=estimator)
    tolerance = 1e-6 if not case.smooth else 1e-9
    assert_close(moved, mmd2(real, fake, kernel, estimator=estimator), rtol=1e-8, atol=tolerance)


@given(seed=seeds, sigma=st.floats(0.1, 5), factor=st.floats(0.1, 10))
def test_scales_with_sigma(seed, sigma, factor):
    real, fake = scores(5, 3, seed), scores(4, 3, seed + 1)
    scaled = mmd2(factor * real, factor * fake, RBFKernel(factor * sigma))
    assert_close(scaled, mmd2(real, fake, RBFKernel(sigma)), rtol=1e-9, atol=1e-12)


@every_kernel
@given(seed=seeds, m=st.integers(1, 6), n=st.integers(1, 6))
def test_biased_estimate_is_never_negative(case: KernelCase, seed, m, n):
    value = mmd2(scores(m, 2, seed), scores(n, 2, seed + 1), case.make(), estimator="biased")
    assert value >= (-1e-10 if case.smooth else -1e-7)


@every_kernel
@given(seed=seeds)
def test_is_linear_in_the_kernel(case: KernelCase, seed):
    real, fake = scores(4, 2, seed), scores(3, 2, seed + 1)
    total = mmd2(real, fake, 0.5 * case.make() + RBFKernel())
    assert_close(total, 0.5 * mmd2(real, fake, case.make()) + mmd2(real, fake, RBFKernel()))


@every_kernel
@pytest.mark.parametrize("estimator", ["unbiased", "u_statistic"])
def test_expectation_over_every_draw_is_the_truth(case: KernelCase, estimator):
    # Two tiny populations with equal weights: average the estimate over every possible sample of three and three.
    population_real, population_fake = [[0.0], [1.5]], [[0.3], [2.0]]
    kernel = case.make()

    def mean(a, b):
        return sum(case.scalar(p, q) for p, q in product(a, b)) / (len(a) * len(b))

    truth = (
        mean(population_real, population_real)
        - 2 * mean(population_real, population_fake)
        + mean(population_fake, population_fake)
    )
    values = [
        mmd2(
            torch.tensor(real, dtype=torch.float64),
            torch.tensor(fake, dtype=torch.float64),
            kernel,
            estimator=estimator,
        )
        for real in product(population_real, repeat=3)
        for fake in product(population_fake, repeat=3)
    ]
    assert float(torch.stack(values).mean()) == pytest.approx(truth, rel=1e-9, abs=1e-9)


def test_unbiased_estimate_takes_both_signs_under_equality():
    values = torch.stack([mmd2(scores(16, 4, seed), scores(16, 4, seed + 500), RBFKernel(2.0)) for seed in range(200)])
    assert 0.3 < float((values < 0).double().mean()) < 0.8
    assert abs(float(values.mean())) < 3 * float(values.std()) / math.sqrt(200)


@pytest.mark.parametrize("d", [1, 3, 8])
@pytest.mark.parametrize(("sigma", "spread", "shift"), [(1.0, 1.0, 1.0), (2.0, 1.5, 0.5), (3.0, 0.7, 0.2)])
def test_closed_form_between_gaussians(d, sigma, spread, shift):
    # E k(x, y) for x ~ N(p, a^2 I), y ~ N(q, b^2 I): (s / t)^d exp(-|p - q|^2 / 2 t^2) with t^2 = s^2 + a^2 + b^2.
    def expected_kernel(variance, sq_dist):
        total = sigma**2 + variance
        return (sigma**2 / total) ** (d / 2) * math.exp(-sq_dist / (2 * total))

    truth = (
        expected_kernel(2.0, 0.0)
        - 2 * expected_kernel(1 + spread**2, d * shift**2)
        + expected_kernel(2 * spread**2, 0.0)
    )
    real, fake = scores(3000, d, 1), scores(3000, d, 2, scale=spread, shift=shift)
    # Blocks of 100 give a standard error of their mean without a formula for it.
    pairs = zip(real.chunk(30), fake.chunk(30), strict=True)
    blocks = torch.stack([mmd2(p, q, RBFKernel(sigma)) for p, q in pairs])
    assert abs(float(blocks.mean()) - truth) < 4 * float(blocks.std()) / math.sqrt(30)
    assert float(mmd2(real, fake, RBFKernel(sigma))) == pytest.approx(truth, abs=0.01)


def test_linear_kernel_is_the_distance_of_the_means():
    real, fake = scores(6, 3, 1), scores(4, 3, 2)
    expected = (real.mean(0) - fake.mean(0)).square().sum()
    assert_close(mmd2(real, fake, LinearKernel(), estimator="biased"), expected)


def test_bounded_kernel_is_taken_without_its_bounds():
    real, fake = scores(6, 3, 1, scale=3), scores(4, 3, 2, scale=3)
    assert_close(mmd2(real, fake, RBFBKernel(0.8)), mmd2(real, fake, RBFKernel(0.8)))


def test_accepts_every_shape_and_both_ways_of_naming():
    real, fake = scores(5, 6, 1), scores(4, 6, 2)
    expected = mmd2(real, fake, RBFKernel())
    assert_close(mmd2(real=real, fake=fake, kernel=RBFKernel()), expected)
    assert_close(mmd2(real.reshape(5, 3, 1, 2), fake.reshape(4, 2, 3), RBFKernel()), expected)
    line_real, line_fake = real[:, 0], fake[:, 0]
    assert_close(mmd2(line_real, line_fake, RBFKernel()), mmd2(line_real[:, None], line_fake[:, None], RBFKernel()))


@pytest.mark.parametrize("name", ["real", "fake"])
def test_wrong_scores_are_refused_by_name(name):
    def call(bad, **options):
        arguments = {"real": torch.zeros(4, 2), "fake": torch.zeros(4, 2), "kernel": RBFKernel()}
        return mmd2(**{**arguments, name: bad, **options})

    with pytest.raises(TypeError, match=f"^{name}: expected a tensor of scores, got list"):
        call([[0.0]])
    with pytest.raises(ValueError, match=f"^{name}: expected floating-point scores, got torch.int64"):
        call(torch.zeros(4, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=f"^{name}: expected floating-point scores, got torch.complex64"):
        call(torch.zeros(4, 2, dtype=torch.complex64))
    for shape in [(), (0, 2), (4, 0)]:
        with pytest.raises(ValueError, match=f"^{name}: expected scores of shape .* got"):
            call(torch.zeros(shape))
    with pytest.raises(ValueError, match="^real, fake: expected the same score dimension d, got . and . .shapes"):
        call(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="^real, fake: expected the same dtype, got torch.float"):
        call(torch.zeros(4, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="^real, fake: expected the same device, got "):
        call(torch.zeros(4, 2, device="meta"))
    for estimator in ("unbiased", "u_statistic"):
        with pytest.raises(ValueError, match=f"expected at least 2 samples each for estimator='{estimator}'"):
            call(torch.zeros(1, 2), estimator=estimator)
    assert call(torch.zeros(1, 2), estimator="biased") == 0
    with pytest.raises(ValueError, match="expected equally many samples for estimator='u_statistic', got . and ."):
        call(torch.zeros(3, 2), estimator="u_statistic")


def test_wrong_kernels_and_estimators_are_refused():
    real = torch.zeros(4, 2)
    with pytest.raises(TypeError, match=r"^kernel: expected a Kernel such as .* got a tensor of shape \(3, 2\)$"):
        mmd2(torch.zeros(3, 2), RBFKernel(), torch.zeros(3, 2))
    with pytest.raises(TypeError, match=r"^kernel: expected a Kernel such as RBFKernel\(sigma=1.0\), got 'rbf'"):
        mmd2(real, real, "rbf")
    with pytest.raises(ValueError, match="^estimator: expected one of 'unbiased', 'u_statistic', 'biased', got 'v'"):
        mmd2(real, real, RBFMix(), estimator="v")


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_point_masses(alpha):
    # All of real at 0, all of fake at c: MMD^2 = 2 (k(0) - k(c)) exactly, for every estimator.
    real, fake = torch.zeros(3, 2, dtype=torch.float64), torch.full((3, 2), 1.5, dtype=torch.float64)
    kernel = RationalQuadraticKernel(alpha)
    for estimator in ESTIMATORS:
        value = mmd2(real, fake, kernel, estimator=estimator)
        assert float(value) == pytest.approx(2 * (1 - (1 + 4.5 / (2 * alpha)) ** -alpha), rel=1e-12)
