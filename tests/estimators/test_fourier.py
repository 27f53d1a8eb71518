"""Random Fourier features: the law of the frequencies, unbiasedness, the bound on the error, derivatives, errors."""

import math
from itertools import cycle, product

import pytest
import torch
from cases import CASES, Cubic, InverseMultiquadric, scores
from sizes import Largest
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    InverseMultiquadricKernel,
    LinearKernel,
    MaternKernel,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    hand_written_gradients,
    mmd2,
    mmd2_fourier,
)
from torch_mmd_losses.estimators import fourier
from torch_mmd_losses.kernels import spectral_measure

ESTIMATORS = ("unbiased", "u_statistic", "biased")

RADIAL = {
    name: case for name, case in CASES.items() if case.radial and name not in ("energy", "own_radial", "product")
} | {"inverse_multiquadric": None, "heavy_tails": None, "everything": None}
OWN = {
    "inverse_multiquadric": lambda: InverseMultiquadricKernel(1.3, -0.8) + MaternKernel(2.5),
    "heavy_tails": lambda: RationalQuadraticKernel(0.05),
    "everything": lambda: 0.3 * (RBFMix((0.5, 2.0), weights=(3.0, 0.1)) + 2.0 * RationalQuadraticMix((0.3, 4.0))),
}
KERNELS = {name: OWN.get(name) or case.make for name, case in RADIAL.items()}

every_kernel = pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)
some_kernels = pytest.mark.parametrize(
    "make", [KERNELS["everything"], CASES["sum_with_linear"].make], ids=["everything", "sum_with_linear"]
)
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)


def skip_without_shapes_of_gamma(kernel):
    """Skip on a PyTorch, such as 2.6, that does not know the shape of gamma variables without drawing them."""
    if any(part.alpha is not None for summand in kernel._summands() for part in _components(summand)):
        try:
            torch._standard_gamma(torch.empty(1, device="meta"))
        except NotImplementedError:
            pytest.skip("no gamma variables on the meta device")


def _components(summand):
    return spectral_measure.components(summand) if spectral_measure.is_known(summand) else []


@pytest.fixture(params=["by_hand", "autograd"])
def way(request, monkeypatch):
    """Make gradients in the forward pass, and by autograd as under `torch.compile` and function transforms."""
    if request.param == "autograd":
        monkeypatch.setattr(hand_written_gradients, "reverse_mode_only", lambda *_: False)


both_ways = pytest.mark.usefixtures("way")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(kernel, count, d, seed=0):
    mixture = [part for summand in kernel._summands() for part in spectral_measure.components(summand)]
    return spectral_measure.draw(mixture, count, d, torch.device("cpu"), seeded(seed))


def by_hand(omega, peak, real, fake, estimator):
    """MMD^2 with the kernel that the frequencies make: the oracle, from whole Gram matrices."""

    def gram(a, b):
        return peak * torch.cos((a.unsqueeze(1) - b) @ omega.T).mean(2)

    def mean(matrix, distinct):
        n = len(matrix)
        return (matrix.sum() - matrix.diagonal().sum()) / (n * n - n) if distinct else matrix.mean()

    within, aligned = estimator != "biased", estimator == "u_statistic"
    return mean(gram(real, real), within) - 2 * mean(gram(real, fake), aligned) + mean(gram(fake, fake), within)


@every_kernel
@pytest.mark.parametrize("d", [1, 3, 16])
def test_kernel_is_the_characteristic_function_of_the_frequencies(make, d):
    kernel, count = make(), 40_000
    omega = drawn(kernel, count, d)
    assert omega.shape == (count, d)
    origin = torch.zeros(1, d, dtype=torch.float64)
    for seed, length in enumerate([0.01, 0.3, 1.0, 3.0, 10.0, 40.0]):
        lag = torch.nn.functional.normalize(scores(1, d, seed)) * length
        waves = torch.cos(omega @ lag[0])
        expected = (kernel(origin, lag) / kernel(origin, origin)).item()
        # Stratification only lowers the standard error below that of independent and alike frequencies.
        assert abs(float(waves.mean()) - expected) < 4.5 * float(waves.std()) / math.sqrt(count) + 1e-12


def test_frequencies_are_divided_in_proportion_and_remain_random():
    # Bandwidths so far apart that the length of a frequency tells its part.
    kernel = RBFMix((1e-6, 1.0, 1e6), weights=(0.5, 0.3, 0.2)) + RationalQuadraticKernel(1.0) * 1e-9
    for seed in range(20):
        lengths = drawn(kernel, 101, 8, seed).norm(dim=1)
        shares = [int((lengths > 1e3).sum()), int((lengths < 1e-3).sum())]
        assert abs(shares[0] - 50.5) <= 1
        assert abs(shares[1] - 20.2) <= 1
    # A part that has less than one frequency is drawn as often as its weight says.
    rare = RBFMix((1.0, 1e6), weights=(0.95, 0.05))
    hits = sum(int((drawn(rare, 4, 8, seed).norm(dim=1) < 1e-3).sum()) for seed in range(1000))
    assert abs(hits - 200) < 4.5 * math.sqrt(200)


@every_kernel
@every_estimator
@both_ways
def test_equals_the_definition_with_the_same_frequencies(make, estimator):
    kernel = make()
    real, fake = scores(7, 3, 1), scores(7 if estimator == "u_statistic" else 5, 3, 2, shift=0.7)
    origin = torch.zeros(1, 3, dtype=torch.float64)
    expected = by_hand(drawn(kernel, 11, 3, seed=5), kernel(origin, origin).item(), real, fake, estimator)
    value = mmd2_fourier(real, fake, kernel, frequencies=11, generator=seeded(5), estimator=estimator)
    assert value.shape == ()
    assert_close(value, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "estimator"),
    sorted({*zip(KERNELS, cycle(ESTIMATORS), strict=False), *product(["everything"], ESTIMATORS)}),
)
def test_is_unbiased_for_the_estimate_and_its_gradient(name, estimator):
    kernel, rounds = KERNELS[name](), 400
    real, fake = scores(6, 2, 1).requires_grad_(), scores(6, 2, 2, shift=0.7)
    direction = scores(6, 2, 3)

    def both(value):
        (gradient,) = torch.autograd.grad(value, real)
        return torch.stack([value.detach(), (gradient * direction).sum()])

    exact = both(mmd2(real, fake, kernel, estimator=estimator))
    generator = seeded()
    draws = torch.stack(
        [
            both(mmd2_fourier(real, fake, kernel, frequencies=7, generator=generator, estimator=estimator))
            for _ in range(rounds)
        ]
    )
    error = (draws.mean(0) - exact).abs()
    assert (error < 4 * draws.std(0) / math.sqrt(rounds)).all()


def test_linear_kernels_are_exact():
    real, fake = scores(6, 3, 1, shift=1.0), scores(5, 3, 2)
    linear = 0.3 * LinearKernel()
    assert_close(mmd2_fourier(real, fake, linear, frequencies=1), mmd2(real, fake, linear))
    alone = mmd2_fourier(real, fake, RBFKernel(), frequencies=9, generator=seeded())
    total = mmd2_fourier(real, fake, linear + RBFKernel(), frequencies=9, generator=seeded())
    assert_close(total, alone + mmd2(real, fake, linear))


def span(estimator, m, n):
    """Return the smallest and the largest estimate that a single frequency can give, for `k(0) = 1`."""
    lowest = {"biased": 0.0, "unbiased": -1 / (m - 1) - 1 / (n - 1), "u_statistic": -4 / (n - 1)}[estimator]
    return lowest, 4.0


@every_estimator
def test_range_of_a_single_frequency_is_what_the_bound_says_and_no_less(estimator):
    m, n = (3, 3) if estimator == "u_statistic" else (4, 3)
    lowest, highest = span(estimator, m, n)
    # Samples on a circle of three points and of four make sums of waves vanish; two point masses make them largest.
    thirds = torch.arange(3, dtype=torch.float64).unsqueeze(1) * (2 * math.pi / 3)
    quarters = torch.arange(4, dtype=torch.float64).unsqueeze(1) * (math.pi / 2)
    spread = (thirds, thirds + math.pi) if estimator == "u_statistic" else (quarters, thirds)
    masses = (torch.zeros(m, 1, dtype=torch.float64), torch.full((n, 1), math.pi, dtype=torch.float64))
    omega = torch.ones(1, 1, dtype=torch.float64)

    def value(real, fake, omega=omega):
        return fourier._by_autograd(omega, estimator, real.unsqueeze(0), fake.unsqueeze(0)).item()

    assert value(*masses) == pytest.approx(highest, abs=1e-12)
    assert value(*spread) == pytest.approx(lowest, abs=1e-12)
    for seed in range(300):
        drawn_value = value(scores(m, 1, seed, scale=3), scores(n, 1, seed + 1000, scale=3))
        assert lowest - 1e-12 <= drawn_value <= highest + 1e-12


@pytest.mark.slow
@every_estimator
@pytest.mark.parametrize("frequencies", [3, 30])
def test_errors_stay_within_the_bound(estimator, frequencies):
    # Two point masses so far apart that the phase between them is uniform, and a kernel with k(0) = 1.
    kernel, rounds = 0.5 * RBFMix((1.0, 2.0)), 1000
    real = torch.zeros(3, 2, dtype=torch.float64)
    fake = torch.full((3, 2), 50.0, dtype=torch.float64)
    exact, generator = mmd2(real, fake, kernel, estimator=estimator), seeded()
    errors = torch.stack(
        [
            mmd2_fourier(real, fake, kernel, frequencies=frequencies, generator=generator, estimator=estimator) - exact
            for _ in range(rounds)
        ]
    ).abs()
    lowest, highest = span(estimator, 3, 3)
    for probability in (0.5, 0.1, 0.01):
        epsilon = (highest - lowest) * math.sqrt(math.log(2 / probability) / (2 * frequencies))
        assert float((errors >= epsilon).double().mean()) <= probability
    # The bound is not far from what happens here: errors of a quarter of it are common.
    assert float((errors >= epsilon / 4).double().mean()) > 0.05


@every_kernel
def test_variance_of_the_biased_estimate_is_bounded_by_its_value(make):
    kernel, frequencies, rounds = make(), 4, 300
    origin = torch.zeros(1, 2, dtype=torch.float64)
    real, fake = scores(20, 2, 1), scores(20, 2, 2, shift=0.3)
    exact, generator = mmd2(real, fake, kernel, estimator="biased"), seeded()
    draws = torch.stack(
        [
            mmd2_fourier(real, fake, kernel, frequencies=frequencies, generator=generator, estimator="biased")
            for _ in range(rounds)
        ]
    )
    assert draws.min() >= 0
    assert draws.var() <= 4 * kernel(origin, origin).item() * exact / frequencies


def test_error_falls_with_the_root_of_the_number_of_frequencies():
    real, fake = scores(50, 4, 1), scores(40, 4, 2, shift=0.5)
    exact, generator = mmd2(real, fake, RBFMix()), seeded()

    def deviation(frequencies):
        values = [
            mmd2_fourier(real, fake, RBFMix(), frequencies=frequencies, generator=generator) - exact for _ in range(200)
        ]
        return float(torch.stack(values).square().mean().sqrt())

    assert deviation(100) / deviation(1600) == pytest.approx(4, rel=0.3)


@every_estimator
@pytest.mark.parametrize(("at_once", "least"), [(1, 1), (40, 1), (1, 3), (10**6, 1)])
def test_pieces_of_the_work_do_not_show(monkeypatch, estimator, at_once, least):
    real, fake = scores(6, 3, 1).requires_grad_(), scores(6, 3, 2).requires_grad_()

    def everything():
        value = mmd2_fourier(real, fake, RBFMix(), frequencies=20, generator=seeded(), estimator=estimator)
        return value, *torch.autograd.grad(value, (real, fake))

    expected = everything()
    monkeypatch.setattr(fourier, "AT_ONCE", at_once)
    monkeypatch.setattr(fourier, "LEAST", least)
    assert_close(everything(), expected)


@some_kernels
@every_estimator
@both_ways
def test_first_and_second_derivatives(make, estimator):
    real = scores(4, 2, 1).requires_grad_()
    fake = scores(4 if estimator == "u_statistic" else 3, 2, 2).requires_grad_()

    def value(p, q):
        return mmd2_fourier(p, q, make(), frequencies=6, generator=seeded(), estimator=estimator)

    assert torch.autograd.gradcheck(value, (real, fake), fast_mode=True)
    assert torch.autograd.gradgradcheck(value, (real, fake), fast_mode=True)


@pytest.mark.parametrize("name", ["real", "fake"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_derivatives_of_one_group_alone(name, create_graph):
    leaf, other = scores(5, 2, 1).requires_grad_(), scores(4, 2, 2).requires_grad_()

    def gradient(wanted, graph, **both):
        value = mmd2_fourier(**both, kernel=RBFMix(), frequencies=6, generator=seeded())
        return torch.autograd.grad(value, wanted, create_graph=graph)[0].detach()

    alone, together = {"real": other.detach(), "fake": other.detach()}, {"real": other, "fake": other}
    expected = gradient(leaf, False, **{**together, name: leaf})
    assert_close(gradient(leaf, create_graph, **{**alone, name: leaf}), expected)


def test_generators_decide_the_frequencies():
    real, fake = scores(6, 3, 1), scores(5, 3, 2)

    def value(generator=None):
        return mmd2_fourier(real, fake, RationalQuadraticMix() + RBFKernel(), frequencies=8, generator=generator)

    generator = seeded(3)
    first, second = value(generator), value(generator)
    assert first != second
    before = torch.get_rng_state()
    assert_close([value(seeded(3)), value(seeded(4))], [first, value(seeded(4))], rtol=0, atol=0)
    assert value(seeded(4)) != first
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    once = value()
    assert value() != once
    torch.manual_seed(3)
    assert_close(value(), once, rtol=0, atol=0)


def test_other_precisions_have_the_same_frequencies():
    real, fake = scores(20, 3, 1), scores(20, 3, 2, shift=0.5)

    def value(dtype):
        return mmd2_fourier(real.to(dtype), fake.to(dtype), RBFMix(), frequencies=30, generator=seeded())

    assert value(torch.float64).dtype == torch.float64
    assert value(torch.float32).dtype == torch.float32
    assert_close(value(torch.float32).double(), value(torch.float64), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("offset", [1e2, 1e4])
@every_estimator
@both_ways
def test_float32_scores_with_a_large_offset(offset, estimator):
    real, fake = scores(64, 8, 1, scale=0.4).float() + offset, scores(64, 8, 2, scale=0.5).float() + offset
    real.requires_grad_()
    exact_real = real.detach().double().requires_grad_()

    def value(p, q):
        return mmd2_fourier(p, q, RBFMix(), frequencies=50, generator=seeded(), estimator=estimator)

    single, double = value(real, fake), value(exact_real, fake.double())
    assert_close(single.double(), double, rtol=2e-5, atol=0)
    (gradient,), (reference,) = torch.autograd.grad(single, real), torch.autograd.grad(double, exact_real)
    assert (gradient - reference).norm() < 2e-5 * reference.norm()


def test_totals_near_equality_keep_their_digits():
    real, fake = scores(2048, 4, 1).float(), scores(2048, 4, 2).float()

    def value(p, q):
        return mmd2_fourier(p, q, RBFKernel(2.0), frequencies=100, generator=seeded(), estimator="u_statistic").item()

    assert value(real, fake) == pytest.approx(value(real.double(), fake.double()), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@both_ways
def test_half_precision_and_autocast_compute_in_float32(dtype):
    real, fake = scores(12, 3, 1).to(dtype).requires_grad_(), scores(10, 3, 2).to(dtype)

    def value(p, q):
        return mmd2_fourier(p, q, RBFMix() + LinearKernel(), frequencies=20, generator=seeded())

    expected = value(real.float(), fake.float())
    with torch.autocast("cpu", dtype=dtype):
        got = value(real, fake)
    assert expected.dtype == torch.float32
    assert_close(got, expected, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(got, real)
    assert_close(gradient, torch.autograd.grad(expected, real)[0], rtol=0, atol=0)


@every_kernel
@both_ways
def test_makes_no_host_synchronisation(make):
    skip_without_shapes_of_gamma(make())
    real, fake = torch.empty(8, 4, device="meta", requires_grad=True), torch.empty(6, 4, device="meta")
    value = mmd2_fourier(real, fake, make(), frequencies=5)
    value.backward()
    assert value.device.type == real.grad.device.type == "meta"


@pytest.mark.gpu
def test_cuda_equals_cpu_without_synchronisation(gpu, without_synchronisation):
    real, fake = scores(64, 16, 1).float(), scores(64, 16, 2).float()
    kernel = RBFMix() + RationalQuadraticMix() + LinearKernel()
    expected = mmd2_fourier(real, fake, kernel, frequencies=50, generator=seeded())
    real, fake = real.to(gpu), fake.to(gpu)
    with without_synchronisation():
        value = mmd2_fourier(real, fake, kernel, frequencies=50, generator=seeded())
        mmd2_fourier(real, fake, kernel, frequencies=50)
    assert_close(value.cpu(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@some_kernels
def test_compiles_into_one_graph(make):
    torch.compiler.reset()
    kernel = make()
    skip_without_shapes_of_gamma(kernel)
    compiled = torch.compile(
        lambda p, q: mmd2_fourier(p, q, kernel, frequencies=5), fullgraph=True, backend="aot_eager", dynamic=True
    )
    real, fake = scores(8, 3, 1).requires_grad_(), scores(6, 3, 2)
    torch.manual_seed(1)
    expected = mmd2_fourier(real, fake, kernel, frequencies=5)
    torch.manual_seed(1)
    got = compiled(real, fake)
    assert_close(got, expected)
    assert_close(torch.autograd.grad(got, real), torch.autograd.grad(expected, real))


@some_kernels
def test_function_transforms(make):
    real, fake = scores(5, 3, 1), scores(4, 3, 2)

    def value(p):
        return mmd2_fourier(p, fake, make(), frequencies=5, generator=seeded())

    leaf = real.clone().requires_grad_()
    (expected,) = torch.autograd.grad(value(leaf), leaf)
    assert_close(torch.func.grad(value)(real), expected)
    assert_close(torch.func.jvp(value, (real,), (real,))[1], (expected * real).sum())
    batch = torch.stack([real, 2 * real])
    assert_close(torch.func.vmap(value, randomness="same")(batch), torch.stack([value(p) for p in batch]))


def test_memory_is_that_of_the_scores(monkeypatch):
    monkeypatch.setattr(fourier, "AT_ONCE", 2**13)
    n, d = 2**11, 4
    real, fake = scores(n, d, 1).requires_grad_(), scores(n, d, 2).requires_grad_()
    saved = []
    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        value = mmd2_fourier(real, fake, RBFMix(), frequencies=1000)
    assert largest.elements <= 8 * n
    assert sum(tensor.numel() for tensor in saved) <= 5 * n * d
    value.backward()


def test_derived_kernels_are_known_by_their_map():
    class Named(RBFKernel):
        pass

    class Squared(RBFKernel):
        def from_sq_dist(self, sq_dist):
            return super().from_sq_dist(sq_dist) ** 2

    class Shifted(RBFKernel):
        def forward(self, a, b):
            return super().forward(a, b + 1)

    class Weighted(LinearKernel):
        def forward(self, a, b):
            return super().forward(a, 2 * b)

    real, fake = scores(4, 2, 1), scores(4, 2, 2)
    expected = mmd2_fourier(real, fake, RBFKernel(2.0), frequencies=5, generator=seeded())
    assert_close(mmd2_fourier(real, fake, Named(2.0), frequencies=5, generator=seeded()), expected)
    for kernel in (Squared(), Shifted(), Weighted()):
        with pytest.raises(TypeError, match=f"got {type(kernel).__name__}, whose spectral measure is unknown"):
            mmd2_fourier(real, fake, kernel, frequencies=5)


def test_bounds_are_left_out():
    real, fake = scores(6, 3, 1, scale=3), scores(4, 3, 2, scale=3)
    plain, bounded = (
        mmd2_fourier(real, fake, kernel, frequencies=5, generator=seeded())
        for kernel in (RBFKernel(0.8), RBFBKernel(0.8))
    )
    assert_close(bounded, plain)


def test_accepts_every_shape():
    real, fake = scores(5, 6, 1), scores(4, 6, 2)

    def value(p, q):
        return mmd2_fourier(p, q, RBFKernel(), frequencies=5, generator=seeded())

    assert_close(value(real.reshape(5, 3, 1, 2), fake.reshape(4, 2, 3)), value(real, fake))
    assert_close(value(real[:, 0], fake[:, 0]), value(real[:, :1], fake[:, :1]))


def test_wrong_arguments_are_refused():
    def call(real=(4, 2), fake=(4, 2), kernel=None, **options):
        kernel = RBFKernel() if kernel is None else kernel
        return mmd2_fourier(torch.zeros(real), torch.zeros(fake), kernel, **{"frequencies": 4, **options})

    for kernel, name in product((EnergyKernel(), InverseMultiquadric(), Cubic()), (False, True)):
        wrong = 2.0 * (RBFKernel() + kernel) if name else kernel
        with pytest.raises(
            TypeError,
            match=f"^kernel: expected an RBFKernel, .* multiples of them, got {type(kernel).__name__}, whose",
        ):
            call(kernel=wrong)
    with pytest.raises(TypeError, match=r"^kernel: expected a Kernel such as RBFKernel\(sigma=1.0\), got 'rbf'"):
        call(kernel="rbf")
    with pytest.raises(ValueError, match="^frequencies: expected an integer >= 1, got 0$"):
        call(frequencies=0)
    for wrong in (2.0, True):
        with pytest.raises(TypeError, match=f"^frequencies: expected an integer, got {wrong!r} of type"):
            call(frequencies=wrong)
    with pytest.raises(TypeError, match=r"^generator: expected a torch\.Generator or None, got 3$"):
        call(generator=3)
    with pytest.raises(ValueError, match="^estimator: expected one of 'unbiased', 'u_statistic', 'biased', got 'v'"):
        call(estimator="v")
    with pytest.raises(ValueError, match="expected equally many samples for estimator='u_statistic', got 3 and 4"):
        call(real=(3, 2), estimator="u_statistic")
    with pytest.raises(ValueError, match="^real, fake: expected at least 2 samples each"):
        call(real=(1, 2))
    with pytest.raises(ValueError, match="^real, fake: expected the same score dimension d"):
        call(fake=(4, 3))
