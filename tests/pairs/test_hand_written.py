"""Losses with hand-written gradients, dense and tiled, against autograd on whole Gram matrices."""

import pytest
import torch
from cases import CASES, KernelCase, scores
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    MMDLoss,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    hand_written_gradients,
    mmd2,
)
from torch_mmd_losses.pairs import plan, tiles

ESTIMATORS = ("unbiased", "u_statistic", "biased")
every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture(params=["dense", "tiles"])
def path(request, monkeypatch):
    """Send every size through one of the two passes, with tiles that do not divide the sizes."""
    monkeypatch.setattr(plan, "DENSE_UP_TO", 2**31 if request.param == "dense" else 0)
    monkeypatch.setattr(tiles, "CPU_TILE", 3)
    return request.param


@pytest.fixture
def by_autograd(monkeypatch):
    """Return a function that computes losses without the fused passes."""

    def compute(loss, real, fake):
        with monkeypatch.context() as patch:
            patch.setattr(hand_written_gradients, "reverse_mode_only", lambda *_: False)
            return loss.both(real, fake)

    return compute


def test_weights_that_float32_cannot_hold_are_taken_in_float64():
    real, fake = torch.randn(6, 2), torch.randn(5, 2) + 0.5
    found = MMDLoss(RBFKernel(), lambda_=0.1).discriminator(real.requires_grad_(), fake.requires_grad_())
    expected = MMDLoss(RBFKernel(), lambda_=0.1).discriminator(*(precise := (real.double(), fake.double())))
    assert_close(found, expected.float(), rtol=2e-7, atol=0)
    gradients = torch.autograd.grad(found, [real, fake])
    assert_close(gradients, tuple(g.float() for g in torch.autograd.grad(expected, precise)), rtol=1e-5, atol=1e-7)


@every_kernel
@pytest.mark.parametrize(
    ("estimator", "lambda_"),
    [
        *((estimator, lambda_) for estimator in ESTIMATORS for lambda_ in (-1.0, 0.5)),
        ("unbiased", -0.3),
        ("u_statistic", 0.0),
        ("biased", 1.0),
        ("unbiased", 2.0),
    ],
)
@pytest.mark.usefixtures("path")
def test_losses_and_gradients_equal_autograd(case: KernelCase, estimator, lambda_, by_autograd):
    n = 7 if estimator == "u_statistic" else 5
    real, fake = scores(7, 3, 1).requires_grad_(), scores(n, 3, 2, shift=0.4).requires_grad_()
    loss = MMDLoss(case.make(), lambda_, estimator=estimator)
    for value, expected in zip(loss.both(real, fake), by_autograd(loss, real, fake), strict=True):
        assert_close(value, expected)
        gradients = torch.autograd.grad(value, (real, fake), retain_graph=True)
        assert_close(gradients, torch.autograd.grad(expected, (real, fake), retain_graph=True))
    together = torch.autograd.grad(sum(loss.both(real, fake)), (real, fake))
    assert_close(together, torch.autograd.grad(sum(by_autograd(loss, real, fake)), (real, fake)))


@pytest.mark.slow
@every_kernel
@pytest.mark.usefixtures("path")
def test_second_derivatives(case: KernelCase):
    real, fake = scores(5, 2, 1).requires_grad_(), scores(4, 2, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda p, q: tuple(MMDLoss(case.make(), 0.4).both(p, q)), (real, fake), fast_mode=True
    )
    assert torch.autograd.gradgradcheck(lambda p: mmd2(p, fake.detach(), case.make()), (real,), fast_mode=True)
    assert torch.autograd.gradgradcheck(
        lambda p, q: mmd2(p, q, case.make(), estimator="biased"), (real, fake), fast_mode=True
    )
    assert torch.autograd.gradgradcheck(lambda q: mmd2(real.detach(), q, case.make()), (fake,), fast_mode=True)


@pytest.mark.usefixtures("path")
def test_a_sample_against_itself(by_autograd):
    scores_twice = scores(5, 2, 1).requires_grad_()
    loss = MMDLoss(RationalQuadraticMix(), 0.3)
    expected = by_autograd(loss, scores_twice, scores_twice)
    for value, reference in zip(loss.both(scores_twice, scores_twice), expected, strict=True):
        assert_close(value, reference)
        found = torch.autograd.grad(value, scores_twice, retain_graph=True)
        assert_close(found, torch.autograd.grad(reference, scores_twice, retain_graph=True))
    assert torch.autograd.gradgradcheck(lambda x: loss.discriminator(x, x), (scores_twice,))


@pytest.mark.usefixtures("path")
def test_only_what_is_asked_for_gets_a_gradient():
    real, fake = scores(5, 2, 1), scores(4, 2, 2).requires_grad_()
    loss = MMDLoss(RBFBKernel())
    loss.generator(real, fake).backward()
    assert real.grad is None
    with torch.no_grad():
        assert_close(loss.generator(real, fake), loss.generator(real, fake).detach())
    both = loss.both(real.requires_grad_(), fake)
    (first,) = torch.autograd.grad(both.generator, fake, retain_graph=True)
    assert_close(first, fake.grad)


@pytest.mark.usefixtures("path")
def test_second_derivative_of_one_loss_of_both(by_autograd):
    real, fake = scores(5, 2, 1).requires_grad_(), scores(4, 2, 2).requires_grad_()
    loss = MMDLoss(RBFBKernel(), 0.5)
    products = []
    for generator in (loss.both(real, fake).generator, by_autograd(loss, real, fake).generator):
        gradients = torch.autograd.grad(generator, (real, fake), create_graph=True)
        products.append(torch.autograd.grad(sum(g.square().sum() for g in gradients), (real, fake)))
    assert_close(*products)


@pytest.mark.usefixtures("path")
def test_forward_mode_goes_through_autograd():
    real, fake, tangent = scores(5, 2, 1), scores(4, 2, 2), scores(5, 2, 3)
    leaf = real.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(mmd2(leaf, fake, RBFKernel()), leaf)
    with forward_ad.dual_level():
        value = mmd2(forward_ad.make_dual(real, tangent), fake, RBFKernel())
        assert_close(forward_ad.unpack_dual(value).tangent, (gradient * tangent).sum())


@pytest.mark.usefixtures("path")
def test_offsets_cost_no_digits_in_float64():
    real, fake = (scores(6, 3, seed).mul(2**16).round().div(2**16) for seed in (1, 2))  # exact also when moved
    for kernel in (RBFKernel(), RationalQuadraticMix()):
        assert_close(mmd2(real + 2**20, fake + 2**20, kernel), mmd2(real, fake, kernel), rtol=1e-9, atol=0)


@pytest.mark.usefixtures("path")
def test_samples_are_at_distance_zero_from_themselves():
    # In the biased estimate each sample meets itself; a root would turn the rounding of that distance into a bias.
    real, fake = scores(7, 64, 1, scale=1000).float(), scores(5, 64, 2, scale=1000).float()
    value = mmd2(real, fake, EnergyKernel(), estimator="biased")
    p, q = real.double(), fake.double()
    expected = 2 * torch.cdist(p, q).mean() - torch.cdist(p, p).mean() - torch.cdist(q, q).mean()
    assert_close(value.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.usefixtures("path")
def test_kernels_never_see_a_negative_squared_distance(monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 64)
    seen = []

    class Recorder(Kernel):
        def from_sq_dist(self, sq_dist):
            seen.append(sq_dist.detach().min())
            return -sq_dist

    real = scores(200, 16, 1, shift=0.3).float()
    mmd2(real, real.flip(0), Recorder())
    assert seen
    assert min(seen) >= 0


@pytest.mark.usefixtures("path")
def test_the_root_of_a_distance_that_rounds_to_below_zero_is_zero():
    real = scores(200, 16, 1, shift=0.3).float().requires_grad_()
    fake = real.detach().flip(0)
    value = mmd2(real, fake, EnergyKernel(), estimator="biased")
    (gradient,) = torch.autograd.grad(value, real)
    assert abs(value) < 1e-3
    assert gradient.abs().max() < 1e-3


@pytest.mark.usefixtures("path")
def test_a_mixture_of_many_bandwidths_keeps_its_digits():
    # Gaussians are squared to get narrower ones: not so often in a row that the error doubles away.
    real, fake = scores(100, 16, 1).float(), scores(90, 16, 2, shift=0.5).float()
    kernel = RBFMix([2.0**k for k in range(-4, 9)])
    exact = real.double().requires_grad_()
    expected = torch.autograd.grad(mmd2(exact, fake.double(), kernel), exact)[0]
    found = torch.autograd.grad(mmd2(real.requires_grad_(), fake, kernel), real)[0]
    assert (found - expected).norm() < 5e-6 * expected.norm()


@pytest.mark.usefixtures("path")
@pytest.mark.filterwarnings("ignore:MMDLoss. expected several scores:torch_mmd_losses.UsageWarning")
def test_coincident_samples_and_bounds_met_exactly(by_autograd):
    real = torch.tensor([[0.0], [2.0], [2.0], [2.5]], dtype=torch.float64, requires_grad=True)
    fake = torch.tensor([[2.0], [2.5], [5.0], [7.0]], dtype=torch.float64, requires_grad=True)
    for kernel in (RBFBKernel(1.0, 0.25, 4.0), EnergyKernel(), 2 * RBFBKernel() + RationalQuadraticMix((0.3, 1, 3))):
        for lambda_ in (-1.0, 1.0):
            loss = MMDLoss(kernel, lambda_)
            fused_grads = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
            assert_close(fused_grads, torch.autograd.grad(by_autograd(loss, real, fake).discriminator, (real, fake)))


@pytest.mark.usefixtures("path")
def test_mixtures_with_and_without_halved_bandwidths(by_autograd):
    real, fake = scores(6, 3, 1).requires_grad_(), scores(5, 3, 2).requires_grad_()
    for sigmas in [
        (1, 2, 4),
        (1, 2, 4, 8, 16, 32),
        (0.25, 32),
        (3, 1),
        (1.0, 1.0),
        (2**0.5, 1, 0.5),
        (0.3, 5, 2.5, 1.1),
    ]:
        loss = MMDLoss(RBFMix(sigmas, weights=range(1, len(sigmas) + 1)), -1)
        assert_close(loss(real=real, fake=fake), by_autograd(loss, real, fake).generator)


@pytest.mark.parametrize(
    "kernel", [RBFKernel(4.0), RBFMix((1, 2, 4, 8, 16)), RationalQuadraticMix(), EnergyKernel()], ids=repr
)
@pytest.mark.parametrize("n", [64, 600])
@pytest.mark.parametrize(("common", "apart"), [(0, 0), (1e2, 0), (1e4, 0), (0, 1e3)])
def test_float32_equals_float64(kernel, n, common, apart):
    real, fake = scores(n, 16, 1).float() + common, scores(n - 8, 16, 2, scale=1.1, shift=0.3).float() + common + apart
    exact_real, exact_fake = real.double().requires_grad_(), fake.double().requires_grad_()
    exact = mmd2(exact_real, exact_fake, kernel)
    expected = torch.autograd.grad(exact, (exact_real, exact_fake))
    for context in (torch.autocast("cpu", enabled=False), torch.autocast("cpu", dtype=torch.bfloat16)):
        with context:
            p, q = real.clone().requires_grad_(), fake.clone().requires_grad_()
            value = mmd2(p, q, kernel)
            found = torch.autograd.grad(value, (p, q))
        assert abs(value.item() / exact.item() - 1) < 5e-6
        for gradient, reference in zip(found, expected, strict=True):
            assert (gradient - reference).norm() < 5e-6 * reference.norm()


def test_gradients_of_bfloat16_scores_are_rounded_once():
    real, fake = scores(64, 16, 1).bfloat16(), scores(64, 16, 2).bfloat16().requires_grad_()
    (gradient,) = torch.autograd.grad(mmd2(real, fake, RBFKernel(4.0)), fake)
    exact = fake.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(mmd2(real.double(), exact, RBFKernel(4.0)), exact)
    assert_close(gradient, expected.bfloat16(), rtol=2**-7, atol=0)


def test_fake_tensors_leave_nothing_behind():
    # What the dense pass keeps for the next batch of the same size must not be a fake tensor.
    mode = FakeTensorMode()
    with mode:
        real = torch.empty(9, 2, requires_grad=True)
        mmd2(real, torch.empty(11, 2), RBFBKernel()).backward()
        assert real.grad.shape == (9, 2)
    assert abs(mmd2(torch.zeros(9, 2), torch.zeros(11, 2), RBFBKernel())) < 1e-12


def test_free_particles():
    # Scores may be parameters themselves.
    real, fake = scores(6, 2, 1), torch.nn.Parameter(scores(6, 2, 2))
    mmd2(real, fake, RBFKernel()).backward()
    leaf = fake.detach().clone().requires_grad_()
    assert_close(fake.grad, torch.autograd.grad(mmd2(real, leaf, RBFKernel()), leaf)[0])


def test_parameters_of_a_users_kernel_are_trained():
    class Learned(Kernel):
        def __init__(self):
            super().__init__()
            self.log_sigma = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

        def from_sq_dist(self, sq_dist):
            return torch.exp(-sq_dist * torch.exp(-2 * self.log_sigma) / 2)

    class Captured(Kernel):
        def __init__(self, log_sigma):
            super().__init__()
            self.captured = [log_sigma]  # no parameter of the kernel

        def from_sq_dist(self, sq_dist):
            return torch.exp(-sq_dist * torch.exp(-2 * self.captured[0]) / 2)

    kernel = Learned()
    mmd2(scores(5, 2, 1), scores(4, 2, 2), kernel + RBFKernel()).backward()
    assert kernel.log_sigma.grad.abs() > 1e-3
    expected, kernel.log_sigma.grad = kernel.log_sigma.grad, None
    mmd2(scores(5, 2, 1), scores(4, 2, 2), Captured(kernel.log_sigma)).backward()
    assert_close(kernel.log_sigma.grad, expected)


@pytest.mark.usefixtures("path")
def test_a_kernel_derived_from_one_of_the_library_keeps_its_own_map(by_autograd):
    class Doubled(RBFKernel):
        def from_sq_dist(self, sq_dist):
            return 2 * super().from_sq_dist(sq_dist)

    real, fake = scores(5, 2, 1).requires_grad_(), scores(4, 2, 2).requires_grad_()
    loss = MMDLoss(Doubled())
    assert_close(loss(real=real, fake=fake), 2 * mmd2(real, fake, RBFKernel()))
    (gradient,) = torch.autograd.grad(loss(real=real, fake=fake), real)
    assert_close(gradient, torch.autograd.grad(by_autograd(loss, real, fake).generator, real)[0])


@pytest.mark.parametrize(
    "kernel", [RBFKernel(), RBFBKernel(), RationalQuadraticMix(), RBFMix()], ids=lambda k: type(k).__name__
)
@pytest.mark.parametrize("spread", [1e3, 1e5])
def test_scores_spread_over_many_bandwidths_have_no_kernel_value_above_one(kernel, spread, path):
    # Pairs that are near each other, far from all others: their distances are lost in rounding, on either side of zero.
    far = spread * torch.randn(16, 4)
    real, fake = (torch.cat([far, far + 0.1 * torch.randn(16, 4)]).requires_grad_() for _ in range(2))
    losses = MMDLoss(kernel, estimator="biased").both(real, fake)
    largest = kernel(torch.zeros(1, 4), torch.zeros(1, 4)).item()
    for loss in losses:
        assert loss.abs() <= 4 * largest
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, [real, fake], retain_graph=True))
