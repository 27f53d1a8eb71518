"""The permutation test on features, and its statistics of several kernels."""

import math

import pytest
import torch
from cases import scores
from sizes import Largest
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    LinearKernel,
    PolynomialKernel,
    RationalQuadraticMix,
    RBFKernel,
    RBFMix,
    mmd2,
    mmd_test,
)
from torch_mmd_losses.two_sample import default_kernels, feature_maps, permutation, screening


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_features(x):
    return torch.sin(x @ scores(x.shape[1], 11, 5).to(x.dtype))


class OfFeatures(Kernel):
    """The kernel that features stand for."""

    def forward(self, a, b):
        return random_features(a) @ random_features(b).T


@pytest.fixture
def small_parts(monkeypatch):
    """Compute the features of few samples at once."""
    monkeypatch.setattr(feature_maps, "AT_ONCE", 7)


@pytest.mark.parametrize("statistic", ["max", "fuse"])
@pytest.mark.parametrize(("m", "n"), [(20, 20), (12, 25)])
def test_features_stand_for_the_kernel_of_their_inner_products(statistic, m, n, small_parts):
    real, fake = scores(m, 3, 1), scores(n, 3, 2, shift=0.3)
    found = mmd_test(real, fake, features=random_features, statistic=statistic, permutations=99, generator=seeded())
    expected = mmd_test(real, fake, OfFeatures(), statistic=statistic, permutations=99, generator=seeded())
    assert_close(tuple(found), tuple(expected))
    if statistic == "max":
        assert_close(found.statistic, mmd2(real, fake, OfFeatures()))
        biased = (random_features(real).mean(0) - random_features(fake).mean(0)).square().sum()
        assert_close(biased, mmd2(real, fake, OfFeatures(), estimator="biased"))


@pytest.mark.parametrize("kernel", [None, RBFKernel(1.5), [RBFMix(), RBFKernel()]], ids=["default", "one", "two"])
@pytest.mark.parametrize("statistic", ["max", "fuse"])
def test_nystrom_features_of_all_samples_are_exact(kernel, statistic, small_parts):
    real, fake = scores(25, 2, 1), scores(18, 2, 2, shift=0.4)
    options = {"statistic": statistic, "permutations": 99}
    expected = mmd_test(real, fake, kernel, **options, generator=seeded())
    found = mmd_test(real, fake, kernel, **options, features="nystrom", generator=seeded())
    # Directions with eigenvalues near rounding errors are left out.
    assert_close(found.statistic, expected.statistic, rtol=1e-5, atol=1e-9)
    assert_close(found.p_value, expected.p_value)


def test_nystrom_features_reproduce_kernel_values_with_landmarks():
    landmarks, x = scores(10, 2, 1), scores(30, 2, 2)
    for kernel in (RBFKernel(), RationalQuadraticMix(), LinearKernel()):
        psi = feature_maps.nystrom(kernel, landmarks)
        assert_close(psi(x) @ psi(landmarks).T, kernel(x, landmarks), rtol=1e-6, atol=1e-7)
    assert feature_maps.nystrom(LinearKernel(), landmarks)(x).shape[1] == 2  # no more directions than there are


@pytest.mark.parametrize("kernel", [RBFKernel(1.5), RBFMix(), RationalQuadraticMix() + 2 * RBFKernel()])
def test_fourier_features_reproduce_kernel_values(kernel):
    x, count = scores(40, 3, 1) + 100, 40_000
    psi = feature_maps.fourier(kernel, count, x, seeded())(x)
    assert psi.shape == (40, count)
    gram = kernel(x, x)
    assert_close(psi.square().sum(1), gram.diagonal())
    assert (psi @ psi.T - gram).abs().max() < 6 * float(gram[0, 0]) / math.sqrt(count / 2)


def test_features_find_what_the_kernel_finds():
    real, fake = scores(400, 2, 1).float(), scores(300, 2, 2, scale=1.4).float()
    for options in ({"features": "nystrom"}, {"features": "fourier"}, {"statistic": "fuse"}):
        counts = {"feature_count": 50} if "features" in options else {}
        assert mmd_test(real, fake, **options, **counts, permutations=199, generator=seeded()).p_value < 0.01
        same = mmd_test(real, fake / 1.4, **options, **counts, permutations=199, generator=seeded()).p_value
        assert same > 0.05


@pytest.mark.parametrize("features", ["nystrom", "fourier"])
def test_memory_of_features_is_linear(features):
    n, count, permutations = 3000, 16, 49
    real, fake = scores(n, 2, 1), scores(n, 2, 2)
    options = {"features": features, "feature_count": count, "permutations": permutations}
    with Largest() as largest:
        mmd_test(real, fake, RBFKernel(), **options)
    assert largest.elements <= 2 * n * (permutations + 1)


@pytest.mark.parametrize("options", [{"features": "nystrom"}, {"features": "fourier"}, {"statistic": "fuse"}])
def test_broken_scores_are_refused(options):
    real, fake = scores(6, 2, 1), scores(5, 2, 2)
    real[3, 1] = torch.nan
    with pytest.raises(ValueError, match="^real: expected finite scores, got NaN or infinity in 1 of 6 samples$"):
        mmd_test(real, fake, **options)


def test_broken_features_are_refused(small_parts):
    real, fake = scores(6, 2, 1), scores(5, 2, 2)
    real[3, 1] = -1
    with pytest.raises(ValueError, match="^features: expected finite features, got NaN or infinity in "):
        mmd_test(real, fake, features=torch.log)


def test_broken_features_that_the_host_may_not_read_have_no_p_value():
    real, fake = scores(6, 2, 1), scores(5, 2, 2)
    real[3, 1] = -1
    with FlopCounterMode(display=False):
        found = mmd_test(real, fake, features=torch.log, permutations=19)
    assert found.p_value.isnan()


@pytest.mark.parametrize("features", [None, "nystrom"])
def test_kernel_values_that_overflow_have_no_p_value(features):
    real, fake = scores(6, 2, 1).float() * 1e20, scores(5, 2, 2).float()
    assert mmd_test(real, fake, PolynomialKernel(), features=features, permutations=19).p_value.isnan()


def fused(grams, labels):
    """Return the statistic of Biggs et al. for each division, from whole Gram matrices in float64."""
    found = []
    for row in labels:
        m, n = int(row.sum()), int((~row).sum())
        least, quotients = min(m, n), []
        for gram in grams:
            k = gram.double().clone().fill_diagonal_(0)
            real, cross, fake = k[row][:, row].sum(), k[row][:, ~row].sum(), k[~row][:, ~row].sum()
            value = real / (m * (m - 1)) - 2 * cross / (m * n) + fake / (n * (n - 1))
            normaliser = (k.square().sum() / (least * (least - 1))).sqrt()
            quotients.append(math.sqrt(least * (least - 1)) * value / normaliser)
        found.append(torch.stack(quotients).exp().mean().log())
    return torch.stack(found)


@pytest.mark.parametrize("screened_from", [0, math.inf])
@pytest.mark.parametrize("kernel", [None, [RBFKernel(0.5), RBFKernel(2.0), EnergyKernel()], RBFKernel()])
@pytest.mark.parametrize("tied", [False, True])
def test_fused_statistic_and_its_p_value(kernel, tied, screened_from, monkeypatch):
    monkeypatch.setattr(screening, "SCREENED_FROM", screened_from)
    for m, n in ((40, 40), (25, 50)):
        real, fake = scores(m, 2, 1), scores(n, 2, 2, shift=0.2)
        if tied:
            real, fake = real.round(), fake.round()
        generator, count = seeded(), 99
        order = torch.rand(m + n, dtype=torch.float64, generator=generator).argsort()
        divisions = permutation._divisions(m, n, count, generator, torch.device("cpu"))
        labels = torch.cat([(order < m).unsqueeze(0), divisions])
        pooled = torch.cat([real, fake])[order]
        kernels = [kernel] if isinstance(kernel, Kernel) else kernel or default_kernels.collection(pooled)
        expected = fused([each(pooled, pooled) for each in kernels], labels)
        found = mmd_test(real, fake, kernel, statistic="fuse", permutations=count, generator=seeded())
        assert_close(found.statistic, expected[0], rtol=1e-6, atol=1e-9)
        p_value = float((expected >= expected[0] - 1e-10).double().mean())
        assert float(found.p_value) == pytest.approx(p_value, abs=1e-12)


def test_a_sequence_of_the_default_kernels_is_the_default():
    real, fake = scores(20, 2, 1), scores(30, 2, 2, shift=0.2)
    pooled = torch.cat([real, fake])
    expected = mmd_test(real, fake, permutations=99, generator=seeded())
    found = mmd_test(real, fake, tuple(default_kernels.gaussians(pooled)), permutations=99, generator=seeded())
    assert_close(tuple(found), tuple(expected), rtol=1e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore:mmd_test. expected kernel values")
def test_kernels_whose_values_are_all_zero_tell_nothing():
    real, fake = 1e6 * scores(5, 2, 1), 1e6 * scores(6, 2, 2)
    for statistic in ("max", "fuse"):
        test = mmd_test(real, fake, [RBFKernel(1e-6)], statistic=statistic, permutations=19, generator=seeded())
        assert (test.statistic, test.p_value) == (0, 1)


TESTED = {
    "fuse": {"statistic": "fuse"},
    "fourier": {"features": "fourier", "feature_count": 20},
    "nystrom": {"features": "nystrom", "feature_count": 5},
    "function": {"features": lambda x: torch.cat([x, x**2], 1)},
}


@pytest.mark.slow
@pytest.mark.parametrize("options", TESTED.values(), ids=TESTED)
@pytest.mark.parametrize(("m", "n"), [(8, 8), (4, 11)])
def test_rejects_as_often_as_it_should_under_the_null(options, m, n):
    rounds, generator, p_values = 400, seeded(1), []
    for _ in range(rounds):
        real, fake = torch.randn(m, 2, generator=generator), torch.randn(n, 2, generator=generator)
        p_values.append(mmd_test(real, fake, **options, permutations=99, generator=generator).p_value)
    found = torch.stack(p_values)
    for level in (0.05, 0.1, 0.3, 0.6):
        share, deviation = float((found <= level).double().mean()), math.sqrt(level * (1 - level) / rounds)
        assert abs(share - level) < 4 * deviation
