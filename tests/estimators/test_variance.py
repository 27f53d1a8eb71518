"""MMD^2 with its variance: definition, enumeration, simulation, laws, derivatives, memory, errors."""

import math
from itertools import product
from statistics import fmean

import oracles
import pytest
import torch
from cases import CASES, KernelCase, scores
from hypothesis import given
from hypothesis import strategies as st
from sizes import Alive, Largest
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    LinearKernel,
    PolynomialKernel,
    RationalQuadraticMix,
    RBFKernel,
    RBFMix,
    mmd2,
    mmd2_and_variance,
)

every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_tile = pytest.mark.parametrize("tile_size", [None, 2])
seeds = st.integers(0, 10**6)


@every_kernel
@every_tile
@pytest.mark.parametrize(("m", "n", "d"), [(4, 4, 1), (5, 7, 3)])
def test_equals_the_definition_by_loops(case: KernelCase, tile_size, m, n, d):
    real, fake = scores(m, d, 1), scores(n, d, 2, shift=0.7)
    estimate = mmd2_and_variance(real, fake, case.make(), tile_size=tile_size)
    assert estimate.value.shape == estimate.variance.shape == ()
    tolerance = 1e-10 if case.smooth else 1e-6
    assert float(estimate.value) == pytest.approx(
        oracles.mmd2(case.scalar, real, fake, "unbiased"), rel=1e-9, abs=tolerance
    )
    expected = oracles.variance(case.scalar, (real, fake), oracles.MMD2_COEFFICIENTS)
    assert float(estimate.variance) == pytest.approx(expected, rel=1e-7, abs=tolerance)


@every_kernel
def test_both_parts_are_unbiased_over_every_draw(case: KernelCase, monkeypatch):
    # Two tiny populations with equal weights, and every possible sample of four each. Without the maximum, which makes
    # estimates positive, their mean is the variance of the value exactly. Samples in another order have the same
    # estimate: how often the second member of each population is drawn tells it, in `count` of the draws.
    monkeypatch.setattr(torch.Tensor, "clamp_min", lambda x, _: x)
    populations, kernel, estimates, count = ([0.0, 1.5], [0.3, 2.0]), case.make(), [], []
    for seconds in product(range(5), repeat=2):
        draw = [[first] * (4 - k) + [second] * k for (first, second), k in zip(populations, seconds, strict=True)]
        estimates.append(mmd2_and_variance(*torch.tensor(draw, dtype=torch.float64), kernel))
        count.append(math.comb(4, seconds[0]) * math.comb(4, seconds[1]))
    assert sum(count) == 2**8
    values, variances = (
        torch.stack(column).repeat_interleave(torch.tensor(count)) for column in zip(*estimates, strict=True)
    )

    def mean(a, b):
        return fmean(case.scalar([p], [q]) for p, q in product(a, b))

    x, y = populations
    assert float(values.mean()) == pytest.approx(mean(x, x) - 2 * mean(x, y) + mean(y, y), rel=1e-9, abs=1e-9)
    assert_close(variances.mean(), values.var(correction=0), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", [LinearKernel, lambda: 2 * LinearKernel() + RBFKernel(3.0)], ids=["linear", "sum"])
@pytest.mark.parametrize("shift", [3.0, 30.0, 1e4])
def test_does_not_depend_on_the_mean_of_the_features(make, shift):
    real, fake, other = (scores(m, 16, seed, shift=0.3 * seed) for seed, m in enumerate((40, 40, 30)))
    for a, b in ((real, fake), (real, other)):
        moved = mmd2_and_variance(a + shift, b + shift, make())
        assert_close(moved, mmd2_and_variance(a, b, make()), rtol=1e-6, atol=0)


def test_adding_a_function_of_one_sample_changes_nothing():
    class Shifted(Kernel):
        def forward(self, a, b):
            return RBFKernel()(a, b) + 50 * a.square().sum(1).unsqueeze(1) + 50 * b.square().sum(1)

    real, fake = scores(30, 3, 1), scores(20, 3, 2, shift=0.4)
    expected = mmd2_and_variance(real, fake, RBFKernel())
    assert_close(mmd2_and_variance(real, fake, Shifted()), expected, rtol=1e-7, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "mean", "m", "n"),
    [
        (LinearKernel(), 0.0, 80, 40),
        (PolynomialKernel(), 3.0, 40, 40),
        (RBFKernel(4.0), 0.0, 40, 40),
        (EnergyKernel(), 0.0, 80, 40),
    ],
    ids=["linear", "polynomial", "rbf", "energy"],
)
def test_is_the_variance_of_repeated_draws(kernel, mean, m, n):
    draws = [
        mmd2_and_variance(scores(m, 16, 2 * seed, shift=mean), scores(n, 16, 2 * seed + 1, shift=mean + 0.5), kernel)
        for seed in range(400)
    ]
    values, variances = (torch.stack(column) for column in zip(*draws, strict=True))
    assert (variances > 0).all()
    # The standard error of a sample variance, from the fourth moment.
    kurtosis = (values - values.mean()).pow(4).mean() / values.var() ** 2
    error = values.var() * math.sqrt((float(kurtosis) - 1) / 400)
    assert abs(variances.mean() - values.var()) < 4 * (error + variances.std() / math.sqrt(400))


def test_standard_error_covers_the_truth():
    # E k(x, y) for normal x, y with means c apart: (s / t)^d exp(-d c^2 / 2 t^2) with t^2 = s^2 + 2.
    sigma, d, shift = 1.5, 2, 0.5
    total = sigma**2 + 2
    truth = 2 * (sigma**2 / total) ** (d / 2) * (1 - math.exp(-d * shift**2 / (2 * total)))
    standardised = []
    for seed in range(200):
        real, fake = scores(200, d, 2 * seed), scores(200, d, 2 * seed + 1, shift=shift)
        value, variance = mmd2_and_variance(real, fake, RBFKernel(sigma))
        standardised.append((value - truth) / variance.sqrt())
    scattered = torch.stack(standardised)
    # The mean of 200 standard normal numbers is within 4 / sqrt(200), their deviation within 4 / sqrt(400) of one.
    assert abs(float(scattered.mean())) < 4 / math.sqrt(200)
    assert abs(float(scattered.std()) - 1) < 0.2


# Each class of kernels, alone or in a sum.
OF_LAWS = ["rbf_mix_weighted", "rational_quadratic_mix", "linear", "polynomial", "energy", "sum_with_linear"]
OF_LAWS += ["sum_with_bounded", "own_radial", "own_general"]


@pytest.mark.parametrize("case", [CASES[name] for name in OF_LAWS], ids=OF_LAWS)
@given(
    m=st.integers(4, 8),
    n=st.integers(4, 8),
    d=st.integers(1, 3),
    seed=seeds,
    tile=st.integers(1, 9),
    factor=st.floats(0.1, 10),
)
def test_laws(case: KernelCase, m, n, d, seed, tile, factor):
    real, fake, kernel = scores(m, d, seed), scores(n, d, seed + 1, shift=0.3), case.make()
    expected = mmd2_and_variance(real, fake, kernel)
    tolerance = {"rtol": 1e-7, "atol": 1e-9 if case.smooth else 1e-6}
    assert_close(expected.value, mmd2(real, fake, kernel), **tolerance)
    assert_close(mmd2_and_variance(fake, real, kernel), expected, **tolerance)
    assert_close(mmd2_and_variance(real, fake, kernel, tile_size=tile), expected, **tolerance)
    generator = torch.Generator().manual_seed(seed)
    moved = (sample[torch.randperm(len(sample), generator=generator)] for sample in (real, fake))
    assert_close(mmd2_and_variance(*moved, kernel), expected, **tolerance)
    scaled = mmd2_and_variance(real, fake, factor * kernel)
    assert_close(scaled.variance, factor**2 * expected.variance, rtol=1e-7, atol=1e-7)


@every_kernel
def test_variance_is_positive(case: KernelCase):
    for seed in range(9):
        assert mmd2_and_variance(scores(4, 1, 2 * seed), scores(5, 1, 2 * seed + 1), case.make()).variance > 0


@every_kernel
@every_tile
def test_first_derivatives(case: KernelCase, tile_size):
    real, fake, kernel = scores(4, 2, 1).requires_grad_(), scores(4, 2, 2).requires_grad_(), case.make()
    assert torch.autograd.gradcheck(
        lambda p, q: tuple(mmd2_and_variance(p, q, kernel, tile_size=tile_size)), (real, fake), fast_mode=True
    )


@pytest.mark.parametrize("case", [CASES["rbf_mix"], CASES["polynomial"], CASES["own_general"]])
@every_tile
def test_second_derivatives(case: KernelCase, tile_size):
    real, fake, kernel = scores(4, 1, 1).requires_grad_(), scores(4, 1, 2).requires_grad_(), case.make()
    assert torch.autograd.gradgradcheck(
        lambda p, q: tuple(mmd2_and_variance(p, q, kernel, tile_size=tile_size)),
        (real, fake),
        atol=1e-4,
        fast_mode=True,
    )


def test_a_trained_bandwidth_finds_more_power():
    def samples(seed, noise):
        """Return points near those of a grid, which only a bandwidth below its spacing tells from others."""
        return (scores(96, 2, seed, scale=2.0).round() + scores(96, 2, seed + 1, scale=noise)).float()

    def ratio(kernel, seed):
        estimate = mmd2_and_variance(samples(seed, 0.1), samples(seed + 2, 0.45), kernel, tile_size=48)
        return estimate.value / estimate.variance.sqrt()

    kernel = RBFKernel(sigma=0.6, trainable=True)
    optimiser = torch.optim.Adam(kernel.parameters(), lr=0.1)
    for step in range(20):
        optimiser.zero_grad()
        (-ratio(kernel, 100 + 4 * step)).backward()
        optimiser.step()
    assert 0.05 < kernel.sigma < 0.2
    for seed in (1, 5, 9):  # of samples that it was not trained on
        assert ratio(RBFKernel(0.6), seed) < 0.5
        assert ratio(kernel, seed) > 3


@every_tile
def test_kernels_are_trained_for_power(tile_size):
    class Trained(Kernel):
        def __init__(self):
            super().__init__()
            self.rate = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def from_sq_dist(self, sq_dist):
            return torch.exp(-self.rate * sq_dist)

    def ratio(kernel):
        value, variance = mmd2_and_variance(real, fake, kernel, tile_size=tile_size)
        return value / variance.clamp_min(1e-8).sqrt()

    kernel, real, fake, step = Trained(), scores(9, 2, 1), scores(9, 2, 2, shift=1.0), 1e-6
    ratio(kernel).backward()
    up, down = (ratio(RBFKernel((2 * rate) ** -0.5)) for rate in (0.5 + step, 0.5 - step))
    assert_close(kernel.rate.grad, (up - down) / (2 * step), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_compute_in_float32(dtype):
    real, fake, kernel = scores(12, 3, 1).to(dtype), scores(12, 3, 2).to(dtype), CASES["polynomial"].make()
    expected = mmd2_and_variance(real.float(), fake.float(), kernel)
    with torch.autocast("cpu", dtype=dtype):
        got = mmd2_and_variance(real, fake, kernel)
    assert expected.value.dtype == expected.variance.dtype == torch.float32
    assert_close(got, expected, rtol=0, atol=0)


def test_float32_scores_near_equality_keep_their_digits():
    real, fake = scores(500, 4, 1).float() + 100, scores(500, 4, 2).float() + 100
    single = mmd2_and_variance(real, fake, RBFKernel(2.0))
    double = mmd2_and_variance(real.double(), fake.double(), RBFKernel(2.0))
    assert_close(single.value.double(), double.value, rtol=0, atol=1e-3 * float(double.variance.abs().sqrt()))
    assert_close(single.variance.double(), double.variance, rtol=1e-3, atol=0)


@every_kernel
def test_makes_no_host_synchronisation(case: KernelCase):
    real, fake = torch.empty(7, 4, device="meta", requires_grad=True), torch.empty(7, 4, device="meta")
    estimate = mmd2_and_variance(real, fake, case.make(), tile_size=4)
    (estimate.value / estimate.variance.sqrt()).backward()
    assert all(x.device.type == "meta" for x in (*estimate, real.grad))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), [("sum_with_linear", "eager"), ("own_general", "aot_eager")])
def test_compiles_into_one_graph(name, backend):
    torch.compiler.reset()
    kernel = CASES[name].make()
    compiled = torch.compile(
        lambda p, q: tuple(mmd2_and_variance(p, q, kernel, tile_size=5)), fullgraph=True, backend=backend
    )
    real, fake = scores(8, 3, 1).requires_grad_(), scores(8, 3, 2)
    expected, got = tuple(mmd2_and_variance(real, fake, kernel)), compiled(real, fake)
    assert_close(got, expected)
    assert_close(torch.autograd.grad(got[1], real), torch.autograd.grad(expected[1], real))


@pytest.mark.slow
@every_kernel
def test_function_transforms(case: KernelCase):
    real, fake, kernel = scores(6, 3, 1), scores(6, 3, 2), case.make()

    def variance(p):
        return mmd2_and_variance(p, fake, kernel, tile_size=4).variance

    leaf = real.clone().requires_grad_()
    (expected,) = torch.autograd.grad(variance(leaf), leaf)
    assert_close(torch.func.grad(variance)(real), expected)
    assert_close(torch.func.jvp(variance, (real,), (real,))[1], (expected * real).sum())
    batch = torch.stack([real, 2 * real])
    assert_close(torch.func.vmap(variance)(batch), torch.stack([variance(p) for p in batch]))


def test_memory_is_that_of_the_scores_and_a_tile():
    m, tile = 512, 64
    real, fake = scores(m, 2, 1).requires_grad_(), scores(m, 2, 2).requires_grad_()
    saved = []
    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        estimate = mmd2_and_variance(real, fake, RBFMix() + EnergyKernel(), tile_size=tile)
    with largest:
        estimate.variance.backward()
    assert largest.elements <= 6 * tile * tile  # the parts of the mixture and their sum
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in saved}
    assert sum(storages.values()) <= 16 * m * real.element_size()


class Holding(Kernel):
    """A kernel of a tensor that is no parameter of it."""

    def __init__(self, width):
        super().__init__()
        self.width = [width]

    def from_sq_dist(self, sq_dist):
        return torch.exp(-sq_dist / self.width[0].square()) * self.width[0]


class Deep(Kernel):
    """A kernel of features."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = torch.nn.Linear(3, 2).double()
        self.base = RBFKernel(trainable=True).double()

    def forward(self, a, b):
        return self.base(self.net(a), self.net(b))


class Custom(Kernel):
    """A kernel whose parameter a custom autograd function hides."""

    class Squared(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, outer):
            return 2 * ctx.saved_tensors[0] * outer

    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def from_sq_dist(self, sq_dist):
        with torch._C.DisableTorchFunction():  # earlier versions of PyTorch do not show custom functions to modes
            rate = self.Squared.apply(self.rate)
        return torch.exp(-sq_dist * rate)


class Sometimes(Custom):
    """A kernel with a parameter for far pairs alone."""

    def __init__(self):
        super().__init__()
        self.far = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def from_sq_dist(self, sq_dist):
        value = torch.exp(-sq_dist * self.rate)
        return value * torch.where(sq_dist > 4, self.far, 1.0) if (sq_dist > 4).any() else value


def holding():
    weight = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    width = 2 * weight
    return Holding(width), [weight, width]


def with_parameters(make):
    kernel = make().double()
    return kernel, list(kernel.parameters())


@pytest.mark.parametrize(
    "make",
    [
        holding,
        lambda: with_parameters(Deep),
        lambda: with_parameters(Custom),
        lambda: with_parameters(Sometimes),
        lambda: with_parameters(lambda: RationalQuadraticMix((0.5, 2.0), trainable=True) + EnergyKernel()),
    ],
    ids=["tensor", "deep", "custom function", "sometimes", "RationalQuadraticMix"],
)
def test_tiles_change_no_derivative_of_trained_kernels(make):
    def derivatives(tile_size):
        kernel, leaves = make()
        inputs = [scores(9, 3, 1).requires_grad_(), scores(7, 3, 2).requires_grad_(), *leaves]
        estimate = mmd2_and_variance(*inputs[:2], kernel, tile_size=tile_size)
        value = estimate.value + estimate.variance.log()
        first = torch.autograd.grad(value, inputs, create_graph=True)
        along = sum((x * torch.arange(x.numel()).view(x.shape).cos()).sum() for x in first)
        return value, *first, *torch.autograd.grad(along, inputs)

    for mine, theirs in zip(derivatives(3), derivatives(None), strict=True):
        assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("second", [False, True])
def test_memory_grows_with_the_number_of_samples(second):
    kernel, peaks = RBFKernel(trainable=True), []
    for n in (96, 192):
        real, fake = scores(n, 3, 1).requires_grad_(), scores(n, 3, 2).requires_grad_()
        with Alive() as alive:
            variance = mmd2_and_variance(real, fake, kernel, tile_size=48).variance
            found = torch.autograd.grad(variance, [real, fake, *kernel.parameters()], create_graph=second)
            if second:
                sum(gradient.square().sum() for gradient in found).backward()
        peaks.append(alive.bytes)
    # Whole Gram matrices, and the graphs of all tiles, would take four times as much.
    assert peaks[1] < 1.7 * peaks[0]


def test_wrong_arguments_are_refused():
    def call(real=(5, 2), fake=(5, 2), kernel=None, **options):
        return mmd2_and_variance(torch.zeros(real), torch.zeros(fake), kernel or RBFKernel(), **options)

    with pytest.raises(ValueError, match="^real, fake: expected at least 4 samples each, got 5 and 3$"):
        call(fake=(3, 2))
    with pytest.raises(TypeError, match=r"^kernel: expected a Kernel such as RBFKernel\(sigma=1.0\), got 'rbf'"):
        call(kernel="rbf")
    with pytest.raises(ValueError, match="^tile_size: expected an integer >= 1, got 0"):
        call(tile_size=0)
    with pytest.raises(ValueError, match="^real, fake: expected the same score dimension d"):
        call(fake=(5, 3))
    with pytest.raises(TypeError, match="^fake: expected a tensor of scores, got list"):
        mmd2_and_variance(torch.zeros(5, 2), [0.0], RBFKernel())


def test_the_same_tensor_twice_has_all_pairs_between_both_groups():
    same = scores(6, 2, 1)
    found = mmd2_and_variance(same, same, RBFKernel())
    assert_close(found.value, mmd2(same, same, RBFKernel()))
    assert_close(found, mmd2_and_variance(same, same.clone(), RBFKernel()))
