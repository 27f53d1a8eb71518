"""The permutation test: exact p-values, its size by simulation, ties, randomness, power, errors."""

import math
from itertools import combinations

import oracles
import pytest
import torch
from cases import CASES, KernelCase, scores
from hypothesis import given
from hypothesis import strategies as st
from sizes import Largest
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    LinearKernel,
    PolynomialKernel,
    RBFKernel,
    mmd2,
    mmd_test,
)
from torch_mmd_losses.two_sample import (
    default_kernels,
    division_sums,
    permutation,
    screening,
    statistics,
    weighted_products,
)

every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
seeds = st.integers(0, 10**6)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def every_division(m, n):
    chosen = torch.tensor(list(combinations(range(m + n), m)))
    return torch.zeros(len(chosen), m + n, dtype=torch.bool).scatter_(1, chosen, True)


@every_kernel
@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize(("m", "n"), [(2, 2), (3, 4), (5, 2)])
def test_statistics_of_all_divisions_equal_mmd2(case: KernelCase, size, m, n):
    pooled, kernel = scores(m + n, 2, 1), case.make()
    labels = every_division(m, n)
    sums = division_sums.exact_sums([EnergyKernel(), kernel], pooled, labels, size)
    values, _ = statistics.mmd2(sums, m, n, pooled.dtype)
    expected = torch.stack([mmd2(pooled[row], pooled[~row], kernel) for row in labels])
    tolerance = 1e-10 if case.smooth else 1e-6
    assert_close(values[1], expected, rtol=1e-9, atol=tolerance)
    deviation = statistics.deviation(sums, m, n)
    assert_close(deviation[1, 0], expected.std(correction=0), rtol=1e-9, atol=tolerance)


def of_all_divisions(pooled, m):
    """Return the divisions, and the statistic that is the default's for each of them, by its definition."""
    median, labels = torch.pdist(pooled).median(), every_division(m, len(pooled) - m)
    standardised = []
    for factor in default_kernels.BANDWIDTHS:
        kernel = RBFKernel(factor * float(median) / math.sqrt(2))
        values = torch.stack([mmd2(pooled[row], pooled[~row], kernel) for row in labels])
        standardised.append((values - values.mean()) / values.std(correction=0))
    return labels, torch.stack(standardised).amax(0)


@pytest.mark.parametrize(("m", "n"), [(2, 2), (3, 4), (5, 2)])
def test_default_statistic_is_one_function_of_every_division(m, n):
    pooled = scores(m + n, 2, 1)
    for row, expected in zip(*of_all_divisions(pooled, m), strict=True):
        test = mmd_test(pooled[row], pooled[~row], permutations=1, generator=seeded(), tile_size=3)
        assert_close(test.statistic, expected, rtol=1e-6, atol=1e-9)


def test_default_p_value_tends_to_that_of_all_divisions():
    real, fake, count = scores(4, 1, 1), scores(4, 1, 2, shift=1.0), 20_000
    labels, every = of_all_divisions(torch.cat([real, fake]), 4)
    exact = float((every >= every[labels[:, :4].all(1)] - 1e-9).double().mean())
    p_value = float(mmd_test(real, fake, permutations=count, generator=seeded()).p_value)
    assert abs(p_value - exact) < 4 * math.sqrt(exact * (1 - exact) / count) + 1 / count


@every_kernel
def test_statistic_equals_mmd2(case: KernelCase):
    real, fake, kernel = scores(7, 3, 1), scores(5, 3, 2, shift=0.5), case.make()
    test = mmd_test(real, fake, kernel, permutations=5, tile_size=4)
    assert_close(test.statistic, mmd2(real, fake, kernel), rtol=1e-9, atol=1e-10 if case.smooth else 1e-6)
    assert test.statistic.shape == test.p_value.shape == ()


@pytest.fixture
def screen_all(monkeypatch):
    """Screen small samples, too, which would take longer in normal use."""
    monkeypatch.setattr(screening, "SCREENED_FROM", 0)


def normal(m, n):
    return scores(m, 3, 1).float(), scores(n, 3, 2, shift=0.2).float()


def duplicates(m, n):
    real, fake = normal(m, n)
    real[: m // 2], fake[: n // 2] = real[0], real[0]
    return real, fake


def tied(m, n):
    return tuple((samples > 0).float() for samples in normal(m, n))


def one_dimension_of_ties(m, n):
    return tuple(samples[:, :1].round() for samples in normal(m, n))


def far(m, n):
    real, fake = normal(m, n)
    real[0] = 1e5
    return real, fake


def far_in_both(m, n):
    real, fake = normal(m, n)
    real[0], fake[1] = -1e4, 3e5
    return real, fake


def moved(m, n):
    return tuple(samples + 100 for samples in normal(m, n))


def float16(m, n):
    return tuple(samples.half() for samples in normal(m, n))


def bfloat16(m, n):
    return tuple(samples.bfloat16() for samples in normal(m, n))


def float64(m, n):
    return tuple(samples.double() for samples in normal(m, n))


def equal(m, n):
    return torch.full((m, 2), 0.1), torch.full((n, 2), 0.1)


def all_as_far_apart(m, n):
    corners = 100 * torch.eye(m + n)
    return corners[:m], corners[m:]


SCREENED = (
    normal,
    duplicates,
    tied,
    one_dimension_of_ties,
    far,
    far_in_both,
    moved,
    float16,
    bfloat16,
    float64,
    equal,
    all_as_far_apart,
)
COMPARED = {
    "default": lambda: None,
    "rbf": lambda: RBFKernel(1.3),
    "narrow": lambda: RBFKernel(0.1),
    "linear": LinearKernel,
    "polynomial": PolynomialKernel,
    "energy": EnergyKernel,
    "mixture": CASES["rational_quadratic_mix"].make,
    "sum": CASES["sum_with_linear"].make,
    "own": CASES["own_radial"].make,
}


def in_float64(real, fake, kernel, count):
    """Return the p-value with all sums over whole Gram matrices in float64, for the divisions that a test draws."""
    generator, m, n = seeded(), len(real), len(fake)
    order = torch.rand(m + n, dtype=torch.float64, generator=generator).argsort()
    labels = torch.cat([(order < m).unsqueeze(0), permutation._divisions(m, n, count, generator, torch.device("cpu"))])
    pooled = torch.cat([real, fake]).to(torch.promote_types(real.dtype, torch.float32))[order]
    if kernel is None:
        pooled = torch.ldexp(pooled, -torch.frexp(pooled.abs().amax()).exponent)
    kernels = default_kernels.gaussians(pooled) if kernel is None else [kernel]
    grams = [each(pooled, pooled) for each in kernels]
    return oracles.permutation_p_value(grams, labels, pooled.dtype, standardised=kernel is None)


@pytest.mark.parametrize("draw", SCREENED, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.filterwarnings("ignore:mmd_test. expected kernel values")
def test_screening_does_not_change_p_values(name, draw, screen_all):
    count, kernel = 149, COMPARED[name]()
    for m, n, tile_size in ((30, 31, None), (50, 12, 17)):
        real, fake = draw(m, n)
        test = mmd_test(real, fake, kernel, permutations=count, generator=seeded(), tile_size=tile_size)
        assert float(test.p_value) == pytest.approx(in_float64(real, fake, kernel, count), abs=1e-12)


@pytest.mark.parametrize("products", [torch.bfloat16, torch.float32])
def test_p_values_do_not_depend_on_the_dtype_of_the_products(products, screen_all, monkeypatch):
    monkeypatch.setattr(weighted_products, "product_dtype", lambda _: products)
    for draw in (normal, tied, float64):
        real, fake = draw(60, 40)
        p_value = mmd_test(real, fake, permutations=149, generator=seeded()).p_value
        assert float(p_value) == pytest.approx(in_float64(real, fake, None, 149), abs=1e-12)


def test_screened_rounding_errors_of_equal_values_do_not_count(screen_all, monkeypatch):
    corners = 100 * torch.eye(500)
    assert mmd_test(corners[:300], corners[300:], permutations=199, generator=seeded(1)).p_value == 1
    # Not even without a margin for them, since sums in float32 are not mixed with exact ones.
    monkeypatch.setattr(statistics, "ROUGH", 1.0)
    equal = torch.full((180, 200), 0.1)
    test = mmd_test(equal[:150], equal[150:], LinearKernel(), permutations=499, generator=seeded(1), tile_size=100)
    assert test.p_value == 1


@pytest.mark.parametrize(("m", "n"), [(40, 40), (64, 9), (5, 70)])
@pytest.mark.parametrize("side", [16, 100])
@pytest.mark.parametrize("products", [torch.bfloat16, torch.float32, torch.int8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_screened_sums_are_within_their_bounds(m, n, side, products, dtype, monkeypatch):
    as_integers = products == torch.int8
    monkeypatch.setattr(weighted_products, "has_fast_integers", lambda _: as_integers)
    if as_integers:
        monkeypatch.setattr(weighted_products, "LEAST_DIRECTIONS", 0.0)
    else:
        monkeypatch.setattr(weighted_products, "product_dtype", lambda _: products)
    kernels = [CASES[name].make() for name in ("rbf", "energy", "polynomial", "sum_with_linear")] + [RBFKernel(20.0)]
    pooled = scores(m + n, 3, 1, shift=2.0).to(dtype)
    labels = permutation._divisions(m, n, 300, seeded(), torch.device("cpu"))
    screened, bounds = screening.screened_sums(kernels, pooled, labels, m, side)
    exact = division_sums.exact_sums(kernels, pooled, labels, side)
    errors = (screened.real_pairs - exact.real_pairs).abs()
    assert (bounds[:, 0] == 0).all()
    assert (errors[:, 1:] < bounds[:, 1:]).all()
    # Most errors are a tenth of the bounds, and the bounds are small compared with the sums' deviations.
    assert (errors[:, 1:].square().mean(1).sqrt() < 0.2 * bounds[:, 1:].mean(1)).all()
    unit = statistics.deviation(exact, m, n).squeeze(1) / statistics.slope(m, n)
    assert as_integers or (bounds[:, 1:].mean(1) < 0.1 * unit).all()
    assert (errors[:, 0] < 1e-4 * unit).all()
    for found, expected in zip(screened[1:], exact[1:], strict=True):
        assert_close(found, expected, rtol=1e-5 if dtype == torch.float32 else 1e-6, atol=0)


@pytest.mark.slow
def test_p_values_of_a_hundred_cases_are_those_in_float64(screen_all, monkeypatch):
    in_integers = []
    of_integers = weighted_products.of_integers
    monkeypatch.setattr(weighted_products, "has_fast_integers", lambda _: True)
    monkeypatch.setattr(
        weighted_products, "of_integers", lambda *args: in_integers.append(args[0]) or of_integers(*args)
    )
    draws = (normal, tied, one_dimension_of_ties, duplicates, moved)
    for case in range(100):
        generator = seeded(case)
        m, n, d = (
            int(torch.randint(low, high, (), generator=generator)) for low, high in ((60, 100), (60, 100), (1, 9))
        )
        real, fake = (torch.randn(size, d, generator=generator) for size in (m, n))
        real, fake = (real, fake + 0.2) if case % 2 else draws[case // 2 % len(draws)](m, n)
        p_value = mmd_test(real, fake, permutations=99, generator=seeded()).p_value
        assert float(p_value) == pytest.approx(in_float64(real, fake, None, 99), abs=1e-12), case
    assert len(in_integers) > 50


def test_weights_of_integers_nearly_add_up_to_zero():
    for m, n in ((4, 4), (5, 4), (1000, 1001), (4000, 333), (100_000, 70_711)):
        real, fake = weighted_products.integer_weights(m, n)
        assert 1 <= real <= 127
        assert -127 <= fake <= -1
        assert (real * m + fake * n) ** 2 <= real**2 * m + fake**2 * n
    assert weighted_products.integer_weights(4, 10_000) is None
    assert weighted_products.integer_weights(10_000, 4) is None


def test_integers_only_where_their_errors_are_small_and_nearly_normal():
    noise = scores(300, 300, 1)
    noise = (noise + noise.T).fill_diagonal_(0)
    factor = weighted_products.integer_factor(noise, 8000)
    assert_close(factor, float(127 / noise.abs().amax()))
    few_values = torch.randint(3, (300,), generator=seeded())
    few_values = scores(3, 3, 2)[few_values][:, few_values]
    assert weighted_products.integer_factor((few_values + few_values.T).fill_diagonal_(0), 8000) is None
    assert weighted_products.integer_factor(noise**9, 8000) is None  # a few large values
    assert weighted_products.integer_factor(torch.zeros(30, 30).double(), 8000) is None


def test_integers_only_where_they_are_fast(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for fast in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda fast=fast: fast)
        assert weighted_products.has_fast_integers(torch.device("cpu")) is fast
        assert not weighted_products.has_fast_integers(torch.device("cuda"))


def test_few_sums_are_exact(monkeypatch):
    real, fake = scores(200, 8, 1).float(), scores(300, 8, 2).float()
    needed = []
    monkeypatch.setattr(statistics, "exact_sums", lambda *args: needed.append(args[-1]) or exact(*args))
    exact = division_sums.exact_sums
    p_value = mmd_test(real, fake, generator=seeded()).p_value
    assert 0.05 < p_value < 0.95
    assert needed[0].any(0).double().mean() < 0.15
    mmd_test(real, fake + 1, generator=seeded())
    assert needed[1].sum() == 1  # the observed statistic of the kernel for which it is largest


@pytest.mark.parametrize("factor", [2.0**-330, 2.0**-100, 2.0**100, 2.0**250])
def test_screening_of_values_out_of_the_range_of_float32(factor, screen_all):
    real, fake = scores(30, 2, 1), scores(35, 2, 2, shift=0.2)
    expected, found = (
        mmd_test(unit * real, unit * fake, LinearKernel(), permutations=149, generator=seeded())
        for unit in (1.0, factor)
    )
    assert_close(found.p_value, expected.p_value, rtol=0, atol=0)
    narrow = RBFKernel(0.01)  # kernel values down to 1e-300
    assert float(mmd_test(real, fake, narrow, permutations=149, generator=seeded()).p_value) == pytest.approx(
        in_float64(real, fake, narrow, 149), abs=1e-12
    )


def test_screens_where_that_is_possible_and_saves_time():
    def can_screen(device="cpu", d=16, count=1000, kernels=5):
        pooled, labels = torch.empty(200, d, device=device), torch.empty(count, 200)
        return screening.can_screen([RBFKernel()] * kernels, pooled, labels)

    assert can_screen()
    assert not can_screen(device="meta")
    assert not can_screen(count=100)
    assert not can_screen(d=2048, kernels=1)
    assert can_screen(d=2048)


def test_products_in_bfloat16_only_where_they_are_fast(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for fast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, fast=fast: fast)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
        assert weighted_products.product_dtype(cpu) == weighted_products.product_dtype(gpu) == dtype
    assert weighted_products.product_dtype(torch.device("mps")) == torch.float32


@given(m=st.integers(1, 6), n=st.integers(1, 6), count=st.integers(1, 20), at_once=st.integers(1, 50), seed=seeds)
def test_divisions_have_the_right_sizes(m, n, count, at_once, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(permutation, "AT_ONCE", at_once)
        labels = permutation._divisions(m, n, count, seeded(seed), torch.device("cpu"))
    assert labels.shape == (count, m + n)
    assert (labels.sum(1) == m).all()


@pytest.mark.parametrize("m", [1, 2, 50, 99])
def test_the_number_that_divides_is_found_wherever_it_is(m, monkeypatch):
    monkeypatch.setattr(permutation, "LARGE", 0)
    keys = torch.rand(200, 100, dtype=torch.float64, generator=seeded())
    for numbers in (keys, keys**4, 1 - keys**4):  # far from where it is expected, too
        assert_close(permutation._mth_smallest(numbers, m), numbers.kthvalue(m, 1, keepdim=True).values, rtol=0, atol=0)


def test_every_division_is_drawn_equally_often():
    count, names = 20_000, every_division(2, 3)
    labels = permutation._divisions(2, 3, count, seeded(), torch.device("cpu"))
    found = (labels.unsqueeze(1) == names).all(2).sum(0)
    expected = count / len(names)
    chi_squared = float(((found - expected).square() / expected).sum())
    assert chi_squared < 27.9  # the 0.999 quantile for 9 degrees of freedom


@pytest.mark.parametrize(("m", "n"), [(4, 4), (3, 5)])
def test_p_value_tends_to_that_of_all_divisions(m, n):
    real, fake = scores(m, 1, 1), scores(n, 1, 2, shift=1.0)
    pooled = torch.cat([real, fake])
    observed = mmd2(real, fake, RBFKernel())
    every = torch.stack([mmd2(pooled[row], pooled[~row], RBFKernel()) for row in every_division(m, n)])
    exact = float((every >= observed - 1e-12).double().mean())
    count = 20_000
    p_value = float(mmd_test(real, fake, RBFKernel(), permutations=count, generator=seeded()).p_value)
    assert abs(p_value - exact) < 4 * math.sqrt(exact * (1 - exact) / count) + 1 / count


def test_p_value_counts_the_sample_itself():
    real, fake = scores(20, 2, 1), scores(20, 2, 2, shift=5.0)
    for count in (1, 19, 999):
        assert float(mmd_test(real, fake, permutations=count, generator=seeded()).p_value) == 1 / (count + 1)


CALIBRATED = {
    "default kernel": (None, lambda size, g: torch.randn(size, 2, generator=g)),
    "linear kernel": (LinearKernel(), lambda size, g: torch.randn(size, 1, generator=g)),
    "heavy tails": (
        EnergyKernel(),
        lambda size, g: torch.randn(size, 1, generator=g) / torch.rand(size, 1, generator=g),
    ),
    "many ties": (None, lambda size, g: torch.randint(3, (size, 1), generator=g).float()),
}


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "draw"), CALIBRATED.values(), ids=CALIBRATED)
@pytest.mark.parametrize(("m", "n"), [(8, 8), (4, 11)])
def test_rejects_as_often_as_it_should_under_the_null(kernel, draw, m, n):
    rounds, generator, p_values = 500, seeded(1), []
    for _ in range(rounds):
        real, fake = draw(m, generator), draw(n, generator)
        p_values.append(mmd_test(real, fake, kernel, permutations=99, generator=generator).p_value)
    found = torch.stack(p_values)
    for level in (0.05, 0.1, 0.3, 0.6):
        share, deviation = float((found <= level).double().mean()), math.sqrt(level * (1 - level) / rounds)
        assert share < level + 4 * deviation
        if draw is not CALIBRATED["many ties"][1]:  # ties make it conservative
            assert share > level - 4 * deviation


def test_ties_count_against_a_difference():
    equal = torch.full((6, 2), 0.1)
    test = mmd_test(equal, equal[:4])
    assert test.p_value == 1
    assert abs(float(test.statistic)) < 1e-6
    # Half of all divisions of these have the statistic of the sample, and none has a larger one.
    real, fake = torch.tensor([0.0, 0.0, 1.0]).repeat(200), torch.tensor([1.0, 1.0, 0.0]).repeat(200)
    pair = mmd_test(real[:2], fake[:2], RBFKernel(), generator=seeded(), permutations=20_000)
    assert abs(float(pair.p_value) - 1 / 3) < 4 * math.sqrt(2 / 9 / 20_000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_values_at_any_place_are_ties(dtype):
    # Whatever the rounding of a tile's distances is: p-values are those of the same data in float64 around zero.
    generator = seeded(3)
    real, fake = (torch.randint(3, (40, 1), generator=generator).to(dtype) / 4 + 100 for _ in range(2))
    exact = mmd_test(real.double() - 100, fake.double() - 100, RBFKernel(), generator=seeded())
    for tile_size in (None, 7, 16):
        got = mmd_test(real, fake, RBFKernel(), generator=seeded(), tile_size=tile_size)
        assert_close(got.p_value, exact.p_value, rtol=0, atol=0)


def test_a_generator_repeats_the_test():
    real, fake = scores(30, 2, 1), scores(20, 2, 2, shift=0.2)
    first, again, other = (mmd_test(real, fake, generator=seeded(seed)) for seed in (1, 1, 2))
    assert_close(first, again, rtol=0, atol=0)
    assert first.p_value != other.p_value
    torch.manual_seed(5)
    one = mmd_test(real, fake)
    torch.manual_seed(5)
    assert_close(mmd_test(real, fake), one, rtol=0, atol=0)


@given(seed=seeds, tile=st.integers(1, 40))
def test_tiles_do_not_show(seed, tile):
    real, fake = scores(9, 2, seed), scores(12, 2, seed + 1)
    expected = mmd_test(real, fake, generator=seeded(seed), permutations=50)
    assert_close(mmd_test(real, fake, generator=seeded(seed), permutations=50, tile_size=tile), expected)


def test_default_bandwidth_is_that_of_the_median_of_all():
    pooled = torch.tensor([[0.0], [0.0], [3.0], [4.0]])
    # Distances that are not zero: 1, 3, 3, 4, 4.
    assert default_kernels.gaussians(pooled)[3].sigma == pytest.approx(3 / math.sqrt(2))
    assert default_kernels.gaussians(torch.zeros(4, 1))[3].sigma == pytest.approx(1 / math.sqrt(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_that_are_all_as_far_apart_do_not_differ(dtype):
    # All kernel values are equal then, and their deviation is rounding.
    corners = 100 * torch.eye(9, dtype=dtype)
    test = mmd_test(corners[:4], corners[4:], generator=seeded())
    assert test.p_value == 1
    assert abs(float(test.statistic)) < 1


def test_finds_a_difference_on_a_small_scale():
    real, fake = scores(100, 2, 1), scores(100, 2, 2).round()
    fake = fake + scores(100, 2, 3, scale=0.1)
    assert mmd_test(real, fake, generator=seeded()).p_value < 0.01
    assert mmd_test(real, fake, RBFKernel(1.0), generator=seeded()).p_value > 0.05


def test_the_unit_of_the_scores_does_not_matter():
    real, fake = scores(15, 3, 1), scores(25, 3, 2, shift=0.4)
    expected = mmd_test(real, fake, generator=seeded())
    assert_close(mmd_test(1e-6 * real, 1e-6 * fake, generator=seeded()), expected)


def test_finds_a_difference_that_is_not_in_the_mean():
    real, fake = scores(150, 2, 1), scores(120, 2, 2, scale=1.5)
    assert mmd_test(real, fake, generator=seeded()).p_value < 0.01


def test_trained_kernels_and_scores_leave_no_graph():
    class Deep(Kernel):
        def __init__(self):
            super().__init__()
            self.features = torch.nn.Linear(2, 3)

        def forward(self, a, b):
            return RBFKernel()(self.features(a), self.features(b))

    real, fake = scores(6, 2, 1).float().requires_grad_(), scores(5, 2, 2).float()
    assert not any(number.requires_grad for number in mmd_test(real, fake, Deep(), permutations=9))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_compute_in_float32(dtype):
    real, fake = scores(12, 3, 1).to(dtype), scores(10, 3, 2).to(dtype)
    expected = mmd_test(real.float(), fake.float(), CASES["polynomial"].make(), generator=seeded())
    with torch.autocast("cpu", dtype=dtype):
        test = mmd_test(real, fake, CASES["polynomial"].make(), generator=seeded())
    assert_close(test, expected, rtol=0, atol=0)
    assert (test.statistic.dtype, test.p_value.dtype) == (torch.float32, torch.float64)


@pytest.mark.parametrize("count", [49, 149])
def test_memory_is_that_of_the_permutations_and_a_tile(count):
    n, tile = 1024, 128
    real, fake = scores(n, 2, 1), scores(n, 2, 2)
    with Largest() as largest:
        mmd_test(real, fake, RBFKernel(), permutations=count, tile_size=tile)
    assert largest.elements <= 2 * n * (count + 1)


@pytest.mark.parametrize("kernel", [None, RBFKernel(), PolynomialKernel()], ids=["default", "rbf", "polynomial"])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["real", "fake"])
def test_broken_scores_are_refused(kernel, broken, name):
    samples = {"real": scores(6, 2, 1), "fake": scores(5, 2, 2)}
    samples[name][3, 1] = broken
    message = f"^{name}: expected finite scores, got NaN or infinity in 1 of {len(samples[name])} samples$"
    with pytest.raises(ValueError, match=message):
        mmd_test(**samples, kernel=kernel, permutations=19)


def test_wrong_arguments_are_refused():
    def call(real=(5, 2), fake=(4, 2), kernel=None, **options):
        return mmd_test(torch.zeros(real), torch.zeros(fake), kernel, **options)

    with pytest.raises(ValueError, match="^real, fake: expected at least 2 samples each, got 5 and 1$"):
        call(fake=(1, 2))
    with pytest.raises(ValueError, match="^real, fake: expected the same score dimension d"):
        call(fake=(4, 3))
    with pytest.raises(TypeError, match=r"^kernel: expected a Kernel such as RBFKernel\(sigma=1.0\), got 'rbf'"):
        call(kernel="rbf")
    with pytest.raises(ValueError, match="^permutations: expected an integer >= 1, got 0"):
        call(permutations=0)
    with pytest.raises(TypeError, match="^permutations: expected an integer, got 9.5"):
        call(permutations=9.5)
    with pytest.raises(TypeError, match="^generator: expected a torch.Generator or None, got 0"):
        call(generator=0)
    with pytest.raises(ValueError, match="^tile_size: expected an integer >= 1, got 0"):
        call(tile_size=0)


@pytest.mark.parametrize("factor", [1e-37, 1e-19, 1e19, 1e37])
def test_scores_of_any_size_have_the_same_default_test(factor):
    real, fake = scores(20, 2, 1).float(), scores(20, 2, 2, shift=0.5).float()
    expected = mmd_test(real, fake, permutations=19, generator=seeded())
    assert_close(tuple(mmd_test(real * factor, fake * factor, permutations=19, generator=seeded())), tuple(expected))
