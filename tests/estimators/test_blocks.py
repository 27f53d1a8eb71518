"""Means over blocks: definition, the linear-time estimator, the variance by enumeration, derivatives, cost, errors."""

import math
from itertools import product
from statistics import fmean, variance

import pytest
import torch
from cases import CASES, INVARIANT, KernelCase, scores
from hypothesis import given
from hypothesis import strategies as st
from oracles import mmd2 as mmd2_by_loops
from sizes import Alive, Count, Largest
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    L1LaplaceKernel,
    LinearKernel,
    PolynomialKernel,
    RBFKernel,
    RBFMix,
    hand_written_gradients,
    mmd2,
    mmd2_blocks,
)
from torch_mmd_losses.estimators import blocks

ESTIMATORS = ("unbiased", "u_statistic", "biased")

every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)
seeds = st.integers(0, 10**6)


@pytest.fixture(params=["together", "one_by_one", "autograd"])
def way(request, monkeypatch):
    """Compute blocks many at a time, one after the other, and as under `torch.compile` and function transforms."""
    if request.param == "one_by_one":
        monkeypatch.setattr(blocks, "TOGETHER_UP_TO", 0)
    elif request.param == "autograd":
        monkeypatch.setattr(hand_written_gradients, "reverse_mode_only", lambda *_: False)


every_way = pytest.mark.usefixtures("way")


@every_kernel
@pytest.mark.parametrize(
    ("estimator", "count", "size", "d"), [("unbiased", 3, 4, 3), ("u_statistic", 2, 2, 1), ("biased", 5, 3, 2)]
)
@every_way
def test_equals_the_definition_by_loops(case: KernelCase, estimator, count, size, d):
    real, fake = scores(count * size, d, 1), scores(count * size, d, 2, shift=0.7)
    parts = zip(real.split(size), fake.split(size), strict=True)
    expected = [mmd2_by_loops(case.scalar, x, y, estimator) for x, y in parts]
    estimate = mmd2_blocks(real, fake, case.make(), block_size=size, estimator=estimator)
    assert estimate.value.shape == estimate.variance.shape == ()
    tolerance = 1e-10 if case.smooth else 1e-6
    assert float(estimate.value) == pytest.approx(fmean(expected), rel=1e-9, abs=tolerance)
    assert float(estimate.variance) == pytest.approx(variance(expected) / count, rel=1e-5, abs=tolerance)


@every_kernel
@given(pairs=st.integers(2, 6), d=st.integers(1, 3), seed=seeds)
def test_two_samples_a_block_are_the_linear_time_estimator(case: KernelCase, pairs, d, seed):
    real, fake = scores(2 * pairs, d, seed), scores(2 * pairs, d, seed + 1)
    k, x, y = case.scalar, real.tolist(), fake.tolist()
    h = [k(x[i], x[i + 1]) + k(y[i], y[i + 1]) - k(x[i], y[i + 1]) - k(x[i + 1], y[i]) for i in range(0, 2 * pairs, 2)]
    estimate = mmd2_blocks(real, fake, case.make(), block_size=2, estimator="u_statistic")
    tolerance = 1e-10 if case.smooth else 1e-6
    assert float(estimate.value) == pytest.approx(fmean(h), rel=1e-9, abs=tolerance)
    assert float(estimate.variance) == pytest.approx(variance(h) / pairs, rel=1e-5, abs=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "estimator"),
    [
        *((name, "unbiased") for name in CASES),
        *product(("rbf_b", "energy", "sum_with_linear", "own_general"), ("u_statistic", "biased")),
    ],
)
def test_value_and_variance_are_unbiased_over_every_draw(name, estimator):
    # Two tiny populations with equal weights, and every possible sample of four and four: two blocks of two.
    population_real, population_fake = [0.0, 1.5], [0.3, 2.0]
    case = CASES[name]
    kernel = case.make()
    estimates = [
        mmd2_blocks(
            torch.tensor(real, dtype=torch.float64),
            torch.tensor(fake, dtype=torch.float64),
            kernel,
            block_size=2,
            estimator=estimator,
        )
        for real in product(population_real, repeat=4)
        for fake in product(population_fake, repeat=4)
    ]
    values, variances = (torch.stack(column) for column in zip(*estimates, strict=True))
    assert_close(variances.mean(), values.var(correction=0), rtol=1e-6, atol=1e-9)
    if estimator != "biased":

        def mean(a, b):
            return fmean(case.scalar([p], [q]) for p, q in product(a, b))

        truth = (
            mean(population_real, population_real)
            - 2 * mean(population_real, population_fake)
            + mean(population_fake, population_fake)
        )
        assert float(values.mean()) == pytest.approx(truth, rel=1e-9, abs=1e-9)


def test_standard_error_covers_the_truth():
    # E k(x, y) for normal x, y with means c apart: (s / t)^d exp(-d c^2 / 2 t^2) with t^2 = s^2 + 2.
    sigma, d, shift = 1.5, 2, 0.5
    total = sigma**2 + 2
    truth = 2 * (sigma**2 / total) ** (d / 2) * (1 - math.exp(-d * shift**2 / (2 * total)))
    standardised = []
    for seed in range(200):
        real, fake = scores(800, d, 2 * seed), scores(800, d, 2 * seed + 1, shift=shift)
        value, spread = mmd2_blocks(real, fake, RBFKernel(sigma), block_size=8)
        standardised.append((value - truth) / spread.sqrt())
    scattered = torch.stack(standardised)
    # The mean of 200 standard normal numbers is within 4 / sqrt(200), their deviation within 4 / sqrt(400) of one.
    assert abs(float(scattered.mean())) < 4 / math.sqrt(200)
    assert abs(float(scattered.std()) - 1) < 0.2


@every_estimator
@pytest.mark.parametrize("at_once", [1, 70, 10**6])
def test_pieces_of_the_work_do_not_show(monkeypatch, estimator, at_once):
    real, fake = scores(60, 3, 1).requires_grad_(), scores(60, 3, 2).requires_grad_()
    kernel = RBFMix() + EnergyKernel()

    def everything():
        estimate = mmd2_blocks(real, fake, kernel, block_size=5, estimator=estimator)
        return *estimate, *torch.autograd.grad(estimate.value + estimate.variance, (real, fake))

    expected = everything()
    monkeypatch.setattr(blocks, "AT_ONCE", at_once)
    assert_close(everything(), expected)


@every_kernel
@every_estimator
@every_way
def test_first_derivatives(case: KernelCase, estimator):
    real, fake = scores(6, 2, 1).requires_grad_(), scores(6, 2, 2).requires_grad_()
    kernel = case.make()
    assert torch.autograd.gradcheck(
        lambda p, q: tuple(mmd2_blocks(p, q, kernel, block_size=3, estimator=estimator)), (real, fake), fast_mode=True
    )


@every_kernel
@every_way
def test_second_derivatives(case: KernelCase):
    real, fake = scores(4, 2, 1).requires_grad_(), scores(4, 2, 2).requires_grad_()
    kernel = case.make()
    assert torch.autograd.gradgradcheck(
        lambda p, q: tuple(mmd2_blocks(p, q, kernel, block_size=2)), (real, fake), atol=1e-4, fast_mode=True
    )


@every_way
@pytest.mark.parametrize("name", ["real", "fake"])
def test_derivatives_of_one_group_alone(name):
    leaf, other = scores(6, 2, 1).requires_grad_(), scores(6, 2, 2)
    both = {"real": other, "fake": other, name: leaf}
    (first,) = torch.autograd.grad(mmd2_blocks(**both, kernel=RBFKernel(), block_size=3).value, leaf)
    value = sum(mmd2(x, y, RBFKernel()) for x, y in zip(both["real"].split(3), both["fake"].split(3), strict=True))
    assert_close(first, torch.autograd.grad(value / 2, leaf)[0])
    (again,) = torch.autograd.grad(mmd2_blocks(**both, kernel=RBFKernel(), block_size=3).value, leaf, create_graph=True)
    assert_close(again.detach(), first)


@every_way
def test_coincident_samples_keep_their_derivatives():
    # Half of the squared distances of coincident samples round to below zero: they must not lose their curvature.
    real = scores(40, 3, 1, shift=0.3)
    fake, direction = real.reshape(2, 20, 3).flip(1).reshape(40, 3), scores(40, 3, 2)

    def product_with_hessian(value):
        leaf = real.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(value(leaf), leaf, create_graph=True)
        return torch.autograd.grad((gradient * direction).sum(), leaf)[0]

    def by_differences(leaf):
        def mean(a, b):
            return torch.exp(-(a.unsqueeze(2) - b.unsqueeze(1)).square().sum(3) / 2).mean()

        p, q = leaf.reshape(2, 20, 3), fake.reshape(2, 20, 3)
        return mean(p, p) - 2 * mean(p, q) + mean(q, q)

    expected = product_with_hessian(by_differences)
    product_ = product_with_hessian(
        lambda leaf: mmd2_blocks(leaf, fake, RBFKernel(), block_size=20, estimator="biased").value
    )
    assert_close(product_, expected, rtol=1e-6, atol=1e-9)


@every_way
def test_gradients_reach_parameters_of_the_kernel():
    class Trained(Kernel):
        def __init__(self):
            super().__init__()
            self.rate = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def from_sq_dist(self, sq_dist):
            return torch.exp(-self.rate * sq_dist)

    kernel, real, fake = Trained(), scores(8, 2, 1), scores(8, 2, 2)
    mmd2_blocks(real, fake, kernel, block_size=4).value.backward()
    step = 1e-6
    up, down = (
        mmd2_blocks(real, fake, RBFKernel((2 * rate) ** -0.5), block_size=4).value for rate in (0.5 + step, 0.5 - step)
    )
    assert_close(kernel.rate.grad, (up - down) / (2 * step), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", INVARIANT.values(), ids=INVARIANT)
@pytest.mark.parametrize("offset", [1e2, 1e4])
@every_way
def test_float32_scores_with_a_large_offset(case: KernelCase, offset):
    real, fake = scores(96, 8, 1, scale=0.4).float() + offset, scores(96, 8, 2, scale=0.5).float() + offset
    real.requires_grad_()
    kernel = case.make()
    estimate = mmd2_blocks(real, fake, kernel, block_size=32)
    exact_real = real.detach().double().requires_grad_()
    exact = mmd2_blocks(exact_real, fake.double(), kernel, block_size=32)
    assert estimate.value.dtype == estimate.variance.dtype == torch.float32
    assert_close(estimate.value.double(), exact.value, rtol=2e-5, atol=0)
    assert_close(estimate.variance.double(), exact.variance, rtol=1e-3, atol=0)
    (gradient,) = torch.autograd.grad(estimate.value, real)
    (reference,) = torch.autograd.grad(exact.value, exact_real)
    assert (gradient - reference).norm() < 2e-5 * reference.norm()


@every_way
def test_groups_far_apart_keep_the_digits_within():
    real, fake = scores(96, 8, 1).float(), scores(96, 8, 2).float() + 1e3
    fake.requires_grad_()
    estimate = mmd2_blocks(real, fake, RBFKernel(2.0), block_size=32)
    exact_fake = fake.detach().double().requires_grad_()
    exact = mmd2_blocks(real.double(), exact_fake, RBFKernel(2.0), block_size=32)
    assert_close(estimate.value.double(), exact.value, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(estimate.value, fake)
    (reference,) = torch.autograd.grad(exact.value, exact_fake)
    assert (gradient - reference).norm() < 1e-5 * reference.norm()


@every_way
def test_totals_near_equality_keep_their_digits():
    real, fake = scores(4096, 4, 1), scores(4096, 4, 2)
    for kernel in (RBFKernel(2.0), RBFMix((2, 4, 8)), EnergyKernel()):
        single = mmd2_blocks(real.float(), fake.float(), kernel, block_size=256)
        double = mmd2_blocks(real.float().double(), fake.float().double(), kernel, block_size=256)
        assert abs(float(single.value - double.value)) < 1e-3 * float(double.variance.sqrt())


@every_way
def test_samples_are_at_distance_zero_from_themselves():
    # The root of what rounding would leave there is a visible bias of the energy distance.
    real, fake = scores(96, 8, 1).float(), scores(96, 8, 2).float()
    estimate = mmd2_blocks(real, fake, EnergyKernel(), block_size=32, estimator="biased")
    exact = mmd2_blocks(real.double(), fake.double(), EnergyKernel(), block_size=32, estimator="biased")
    assert_close(estimate.value.double(), exact.value, rtol=1e-6, atol=0)


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_way
def test_half_precision_and_autocast_compute_in_float32(case: KernelCase, dtype):
    real, fake = scores(12, 3, 1).to(dtype).requires_grad_(), scores(12, 3, 2).to(dtype)
    kernel = case.make()

    expected = mmd2_blocks(real.float(), fake.float(), kernel, block_size=4)
    with torch.autocast("cpu", dtype=dtype):
        got = mmd2_blocks(real, fake, kernel, block_size=4)
    assert expected.value.dtype == expected.variance.dtype == torch.float32
    assert_close(got, expected, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(got.value, real)
    assert_close(gradient, torch.autograd.grad(expected.value, real)[0], rtol=0, atol=0)


def test_a_gradient_to_be_differentiated_ignores_autocast_too():
    real, fake = scores(12, 3, 1).float().requires_grad_(), scores(12, 3, 2).float()
    value = mmd2_blocks(real, fake, RBFKernel(), block_size=4).value
    (expected,) = torch.autograd.grad(value, real, create_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (gradient,) = torch.autograd.grad(value, real, create_graph=True)
    assert_close(gradient, expected, rtol=0, atol=0)


@every_kernel
@every_way
def test_makes_no_host_synchronisation(case: KernelCase):
    real, fake = torch.empty(12, 4, device="meta", requires_grad=True), torch.empty(12, 4, device="meta")
    estimate = mmd2_blocks(real, fake, case.make(), block_size=4)
    (estimate.value / estimate.variance.sqrt()).backward()
    assert all(x.device.type == "meta" for x in (*estimate, real.grad))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"), [("sum_with_linear", "aot_eager"), ("own_radial", "eager"), ("own_general", "eager")]
)
def test_compiles_into_one_graph(name, backend):
    torch.compiler.reset()
    kernel = CASES[name].make()
    compiled = torch.compile(
        lambda p, q: tuple(mmd2_blocks(p, q, kernel, block_size=4)), fullgraph=True, backend=backend
    )
    real, fake = scores(8, 3, 1).requires_grad_(), scores(8, 3, 2)
    expected, got = tuple(mmd2_blocks(real, fake, kernel, block_size=4)), compiled(real, fake)
    assert_close(got, expected)
    assert_close(torch.autograd.grad(got[0], real), torch.autograd.grad(expected[0], real))


@every_kernel
def test_function_transforms(case: KernelCase):
    real, fake = scores(6, 3, 1), scores(6, 3, 2)
    kernel = case.make()

    def value(p):
        return mmd2_blocks(p, fake, kernel, block_size=3).value

    leaf = real.clone().requires_grad_()
    (expected,) = torch.autograd.grad(value(leaf), leaf)
    assert_close(torch.func.grad(value)(real), expected)
    assert_close(torch.func.jvp(value, (real,), (real,))[1], (expected * real).sum())
    batch = torch.stack([real, 2 * real])
    assert_close(torch.func.vmap(value)(batch), torch.stack([value(p) for p in batch]))


@pytest.mark.gpu
def test_cuda_equals_cpu_without_synchronisation(gpu, without_synchronisation):
    real, fake = scores(64, 16, 1).float(), scores(64, 16, 2).float()
    kernel = RBFMix() + LinearKernel()
    expected = mmd2_blocks(real, fake, kernel, block_size=16)
    real, fake = real.to(gpu), fake.to(gpu)
    with without_synchronisation():
        estimate = mmd2_blocks(real, fake, kernel, block_size=16)
    assert_close([x.cpu() for x in estimate], list(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [2, 128])
def test_memory_is_that_of_the_scores(monkeypatch, size):
    monkeypatch.setattr(blocks, "AT_ONCE", 2**14)
    n, d = 2**14, 2
    real, fake = scores(n, d, 1).requires_grad_(), scores(n, d, 2).requires_grad_()
    saved = []
    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        estimate = mmd2_blocks(real, fake, RBFMix(), block_size=size)
    assert largest.elements <= n * d
    assert sum(tensor.numel() for tensor in saved) <= 5 * n * d
    estimate.value.backward()


def test_memory_grows_with_the_samples_also_for_kernels_that_are_not_of_the_distance():
    def most(n, d=2):
        real, fake = scores(n, d, 1).requires_grad_(), scores(n, d, 2)
        with Alive() as alive:
            mmd2_blocks(real, fake, PolynomialKernel(), block_size=64).value.backward()
        return alive.bytes

    small, large = 2**11, 2**13
    numbers = (most(large) - most(small)) / (large - small) / 8
    assert numbers < 20  # for each sample, in place of 64 and more for kernel values


def test_accepts_every_shape():
    real, fake = scores(6, 6, 1), scores(6, 6, 2)
    expected = mmd2_blocks(real, fake, RBFKernel(), block_size=3)
    assert_close(mmd2_blocks(real.reshape(6, 3, 1, 2), fake.reshape(6, 2, 3), RBFKernel(), block_size=3), expected)
    line = mmd2_blocks(real[:, 0], fake[:, 0], RBFKernel(), block_size=3)
    assert_close(line, mmd2_blocks(real[:, :1], fake[:, :1], RBFKernel(), block_size=3))


def test_bounds_are_left_out_and_large_blocks_agree():
    real, fake = scores(1200, 2, 1), scores(1200, 2, 2)
    for name in ("rbf_b", "sum_with_linear"):
        kernel = CASES[name].make()
        values = [mmd2(x, y, kernel) for x, y in zip(real.split(400), fake.split(400), strict=True)]
        estimate = mmd2_blocks(real, fake, kernel, block_size=400)
        assert_close(estimate.value, torch.stack(values).mean())
        assert_close(estimate.variance, torch.stack(values).var() / 3)


def test_equal_blocks_have_no_variance():
    real, fake = scores(3, 2, 1).repeat(4, 1), scores(3, 2, 2).repeat(4, 1)
    estimate = mmd2_blocks(real, fake, RBFKernel() + LinearKernel(), block_size=3)
    assert_close(estimate.value, mmd2(real[:3], fake[:3], RBFKernel() + LinearKernel()))
    assert_close(estimate.variance, torch.zeros((), dtype=torch.float64))


def test_wrong_arguments_are_refused():
    def call(real=(8, 2), fake=(8, 2), kernel=None, **options):
        return mmd2_blocks(torch.zeros(real), torch.zeros(fake), kernel or RBFKernel(), **{"block_size": 4, **options})

    with pytest.raises(ValueError, match="^real, fake: expected equally many samples, got 8 and 12$"):
        call(fake=(12, 2))
    with pytest.raises(
        ValueError,
        match=r"^real, fake: expected a multiple of block_size=3 samples each, got 8, of which 2 are left over "
        r"\(cut both to 6, or choose a divisor\)$",
    ):
        call(block_size=3)
    for size in (8, 5, 16):
        with pytest.raises(ValueError, match=f"^block_size: expected at most half of the 8 samples, got {size}"):
            call(block_size=size)
    for estimator, least in [("unbiased", 2), ("u_statistic", 2), ("biased", 1)]:
        with pytest.raises(ValueError, match=f"^block_size: expected an integer >= {least}, got {least - 1}$"):
            call(block_size=least - 1, estimator=estimator)
    assert call(block_size=1, estimator="biased").value == 0
    for wrong in (2.0, True, "4"):
        with pytest.raises(TypeError, match=f"^block_size: expected an integer, got {wrong!r} of type"):
            call(block_size=wrong)
    with pytest.raises(ValueError, match="^estimator: expected one of 'unbiased', 'u_statistic', 'biased', got 'v'"):
        call(estimator="v")
    with pytest.raises(TypeError, match=r"^kernel: expected a Kernel such as RBFKernel\(sigma=1.0\), got 'rbf'"):
        call(kernel="rbf")
    with pytest.raises(ValueError, match="^real, fake: expected the same score dimension d"):
        call(fake=(8, 3))
    with pytest.raises(TypeError, match="^fake: expected a tensor of scores, got list"):
        mmd2_blocks(torch.zeros(8, 2), [0.0], RBFKernel(), block_size=4)


def test_a_kernel_of_the_wrong_shape_is_refused(monkeypatch):
    class Summed(Kernel):
        def from_sq_dist(self, sq_dist):
            return sq_dist.sum(0)

    for applies in (hand_written_gradients.reverse_mode_only, lambda *_: False):
        monkeypatch.setattr(hand_written_gradients, "reverse_mode_only", applies)
        with pytest.raises(ValueError, match="^Summed: expected kernel values of shape"):
            mmd2_blocks(torch.zeros(8, 2), torch.zeros(8, 2), Summed(), block_size=4)


@pytest.mark.parametrize(
    "kernel",
    [RBFKernel(), L1LaplaceKernel(), PolynomialKernel(), RBFMix().on(slice(0, 1)) * PolynomialKernel().on(slice(1, 2))],
    ids=["rbf", "l1_laplace", "polynomial", "columns"],
)
def test_all_blocks_are_evaluated_by_the_same_operations(kernel):
    def operations(count):
        real, fake = scores(4 * count, 2, 1).requires_grad_(), scores(4 * count, 2, 2)
        with Count() as counted:
            mmd2_blocks(real, fake, kernel, block_size=4).value.backward()
        return counted.operations

    operations(2)  # the first call is examined for warnings
    assert operations(40) == operations(4)
