"""Losses at every precision, with every derivative, compiled, under function transforms and on devices."""

import itertools

import pytest
import torch
from cases import CASES, INVARIANT, SMOOTH, KernelCase, scores
from torch.testing import assert_close

from torch_mmd_losses import EnergyKernel, Kernel, MMDLoss, RBFBKernel, RBFKernel, RBFMix, hand_written_gradients, mmd2
from torch_mmd_losses.pairs import plan, tiles

ESTIMATORS = ("unbiased", "u_statistic", "biased")
every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
translation_invariant = pytest.mark.parametrize("case", INVARIANT.values(), ids=INVARIANT)


@pytest.fixture(params=["fused", "autograd"])
def way(request, monkeypatch):
    """Compute losses in the fused pass, and by autograd as under `torch.compile` and function transforms."""
    if request.param == "autograd":
        monkeypatch.setattr(hand_written_gradients, "reverse_mode_only", lambda *_: False)


both_ways = pytest.mark.usefixtures("way")


@every_kernel
@pytest.mark.parametrize("estimator", ESTIMATORS)
@both_ways
def test_first_derivatives(case: KernelCase, estimator):
    real, fake = scores(4, 2, 1).requires_grad_(), scores(4, 2, 2).requires_grad_()
    loss = MMDLoss(case.make(), lambda_=0.3, estimator=estimator)
    assert torch.autograd.gradcheck(lambda p, q: tuple(loss.both(p, q)), (real, fake), fast_mode=True)


@pytest.mark.parametrize("n", [2, 8, 25, 26, 64])
@pytest.mark.parametrize("case", [CASES["rbf_b"], CASES["rational_quadratic_mix"], CASES["energy"]])
@both_ways
def test_second_derivatives_at_every_size(case: KernelCase, n):
    # cdist changes its algorithm at 25 rows, and one of the two has no second derivative: a size each, and beyond.
    real, fake = scores(n, 2, 1, scale=0.5).requires_grad_(), scores(n, 2, 2, scale=0.5).requires_grad_()
    loss = MMDLoss(case.make(), lambda_=0.3)
    assert torch.autograd.gradgradcheck(
        lambda p, q: loss.discriminator(p, q), (real, fake), fast_mode=True, atol=1e-4, rtol=1e-3
    )


@every_kernel
@both_ways
def test_second_derivatives_of_every_kernel(case: KernelCase):
    real, fake = scores(4, 2, 1).requires_grad_(), scores(3, 2, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda p, q: mmd2(p, q, case.make()), (real, fake), fast_mode=True)


FAKE_OF_REAL = {
    "bent": lambda x: x.sin() + 0.5,
    "same": lambda x: x,
    "flipped": lambda x: x.flip(0),
    "shorter": lambda x: x[1:] * 2,
}


@pytest.mark.parametrize(
    ("name", "relation"),
    [
        *((name, "bent") for name in CASES),
        # All kinds of summands: a bounded kernel, one that is no function of the distance, and one with a closed form.
        *itertools.product(("rbf_b", "own_general", "sum_with_linear"), ("same", "flipped", "shorter")),
    ],
)
@pytest.mark.parametrize("pass_", ["dense", "tiles", "autograd"])
def test_derivatives_where_one_sample_is_computed_from_the_other(name, relation, pass_, monkeypatch):
    # gradgradcheck of such a function passes whatever its first derivatives are: it is told them by the function.
    if pass_ == "autograd":
        monkeypatch.setattr(hand_written_gradients, "reverse_mode_only", lambda *_: False)
    if pass_ == "tiles":
        monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
        monkeypatch.setattr(tiles, "CPU_TILE", 2)
    case, fake_of = CASES[name], FAKE_OF_REAL[relation]
    real = scores(5, 2, 1).requires_grad_()
    loss, direction = MMDLoss(case.make(), 0.5), scores(5, 2, 2)

    def value(p):
        both = loss.both(p, fake_of(p))
        return both.discriminator + 2 * both.generator

    (expected,) = torch.autograd.grad(value(real), real)
    (found,) = torch.autograd.grad(value(real), real, create_graph=True)
    assert_close(found, expected)
    if case.smooth:
        (product,) = torch.autograd.grad((found * direction).sum(), real)
        _, by_transforms = torch.func.jvp(torch.func.grad(value), (real.detach(),), (direction,))
        assert_close(product, by_transforms)


@both_ways
@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_of_scores_see_one_gradient(create_graph):
    # Gradient reversal, as domain adaptation has it.
    real, fake = scores(5, 2, 1).requires_grad_(), scores(4, 2, 2)
    (plain,) = torch.autograd.grad(mmd2(real, fake, RBFKernel()), real)
    reversed_scores = real.clone()
    reversed_scores.register_hook(torch.neg)
    (found,) = torch.autograd.grad(mmd2(reversed_scores, fake, RBFKernel()), real, create_graph=create_graph)
    assert_close(found, -plain)


@pytest.mark.parametrize("case", SMOOTH.values(), ids=SMOOTH)
@both_ways
def test_second_derivatives_where_samples_coincide(case: KernelCase):
    real = torch.tensor([[0.1, 0.7], [0.1, 0.7], [1.0, 0.3]], dtype=torch.float64, requires_grad=True)
    fake = real.detach().flip(0).clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p, q: mmd2(p, q, case.make()), (real, fake))
    assert torch.autograd.gradgradcheck(lambda p, q: mmd2(p, q, case.make()), (real, fake))


@both_ways
def test_coincident_samples_keep_their_second_derivatives():
    # Half of the squared distances of coincident samples round to below zero: they must not lose their curvature.
    real = scores(20, 3, 1, shift=0.3)
    fake, direction = real.flip(0), scores(20, 3, 2)

    def product(value):
        leaf = real.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(value(leaf), leaf, create_graph=True)
        return torch.autograd.grad((gradient * direction).sum(), leaf)[0]

    def by_differences(p):
        def mean(a, b):
            return torch.exp(-(a.unsqueeze(1) - b).square().sum(2) / 2).mean()

        return mean(p, p) - 2 * mean(p, fake) + mean(fake, fake)

    expected = product(by_differences)
    assert_close(product(lambda p: mmd2(p, fake, RBFKernel(), estimator="biased")), expected, rtol=1e-6, atol=1e-9)


def test_gram_matrices_come_from_distances_that_are_never_negative():
    seen = []

    class Recorder(Kernel):
        def from_sq_dist(self, sq_dist):
            if sq_dist.numel() > 1:  # and not a look at the slope at zero
                seen.append(sq_dist.detach().min())
            return -sq_dist

    real = scores(40, 3, 1, shift=0.3).float()
    Recorder()(real, real.flip(0))
    Recorder()(real, real)
    assert len(seen) == 2
    assert min(seen) >= 0


@pytest.mark.filterwarnings("ignore:mmd2. expected kernel values between:torch_mmd_losses.UsageWarning")
@pytest.mark.parametrize(
    "kernel", [RBFKernel(0.1), RBFBKernel(0.1), RBFMix((0.1, 0.2))], ids=lambda k: type(k).__name__
)
def test_scores_are_at_distance_zero_from_themselves_in_float32(kernel):
    # They are so far apart that all other kernel values are zero: what is left is k(a, a) / m + k(b, b) / n.
    real, fake = 1000 * scores(32, 3, 1).float(), 1000 * scores(32, 3, 2).float()
    value = mmd2(real, fake, kernel, estimator="biased")
    assert_close(value, mmd2(real.double(), fake.double(), kernel, estimator="biased").float())


@every_kernel
@pytest.mark.parametrize(
    ("dtype", "offset"),
    [
        (torch.float64, 0.1),
        (torch.float32, 0.0),
        (torch.float32, 37.3),
        (torch.bfloat16, 0.1),
        (torch.float16, 0.0),
        (torch.float16, 37.3),
    ],
)
@both_ways
def test_collapsed_batches_give_finite_losses_and_gradients(case: KernelCase, dtype, offset):
    if not case.translated and dtype == torch.float16:
        offset = min(offset, 1.0)  # gradients are beyond the range of float16 at 37.3: 3 (37.3^2 + 1)^2 x 37.3
    # All scores equal, duplicated rows, and fake scores that copy the real ones.
    collapsed = torch.full((6, 3), offset, dtype=dtype)
    duplicated = (scores(3, 3) + offset).repeat(2, 1).to(dtype)
    for real, fake in [(collapsed, collapsed), (duplicated, duplicated.flip(0)), (duplicated, collapsed)]:
        real, fake = real.clone().requires_grad_(), fake.clone().requires_grad_()
        for lambda_ in (-1.0, 1.0):
            losses = MMDLoss(case.make(), lambda_).both(real, fake)
            gradients = torch.autograd.grad(sum(losses), (real, fake), create_graph=True)
            second = torch.autograd.grad(sum(g.float().square().sum() for g in gradients), (real, fake))
            for value in (*losses, *gradients, *second):
                assert value.isfinite().all()


@translation_invariant
@pytest.mark.parametrize("offset", [1e2, 1e3, 1e4])
@both_ways
def test_float32_scores_with_a_large_offset(case: KernelCase, offset):
    real, fake = scores(64, 16, 1, scale=0.4).float(), scores(64, 16, 2, scale=0.5, shift=0.2).float()
    # The sum is rounded to float32 first: the same rounded scores in float64 are the reference.
    moved_real, moved_fake = (real + offset).requires_grad_(), (fake + offset).requires_grad_()
    kernel = case.make()
    value = mmd2(moved_real, moved_fake, kernel)
    exact_real, exact_fake = (x.detach().double().requires_grad_() for x in (moved_real, moved_fake))
    exact = mmd2(exact_real, exact_fake, kernel)
    assert value.dtype == torch.float32
    assert abs(value.item() / exact.item() - 1) < 2e-5
    assert abs(value.item() / mmd2(real, fake, kernel).item() - 1) < 1e-3
    gradients = torch.autograd.grad(value, (moved_real, moved_fake))
    for gradient, reference in zip(gradients, torch.autograd.grad(exact, (exact_real, exact_fake)), strict=True):
        assert (gradient - reference).norm() < 2e-5 * reference.norm()


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@both_ways
def test_half_precision_computes_and_returns_float32(case: KernelCase, dtype):
    real, fake = (scores(n, 8, seed).to(dtype).requires_grad_() for n, seed in ((32, 1), (24, 2)))
    loss = MMDLoss(case.make(), 0.5)
    losses = loss.both(real, fake)
    assert_close(losses, loss.both(real.float(), fake.float()), rtol=0, atol=0)
    assert all(value.dtype == torch.float32 for value in (*losses, *loss.terms(real, fake)))
    (gradient,) = torch.autograd.grad(losses.generator, real)
    assert gradient.dtype == dtype


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@both_ways
def test_autocast_changes_nothing(case: KernelCase, dtype):
    real, fake = scores(16, 8, 1).float().requires_grad_(), scores(12, 8, 2).float().requires_grad_()
    loss = MMDLoss(case.make(), 0.5)

    def everything():
        return (*loss.both(real, fake), *loss.terms(real, fake), loss(real=real, fake=fake))

    expected = everything()
    with torch.autocast("cpu", dtype=dtype):
        value = everything()
    assert_close(value, expected, rtol=0, atol=0)
    assert_close(torch.autograd.grad(value[1], real), torch.autograd.grad(expected[1], real), rtol=0, atol=0)


# Without a user's own forward: called directly, it is in the user's hands.
@pytest.mark.parametrize("name", [name for name in CASES if name != "own_general"])
def test_gram_matrices_are_float32_too(name):
    case = CASES[name]
    a, b = scores(16, 8, 1).bfloat16(), scores(12, 8, 2).bfloat16()
    expected = case.make()(a.float(), b.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(case.make()(a, b), expected, rtol=0, atol=0)


# Each class of kernels, alone or in a sum; the others in CASES are the same code with other numbers. The graph of
# backward passes is traced for two sums, since that takes longer than to trace the forward pass.
COMPILED = {
    **dict.fromkeys(("rbf", "rbf_mix_weighted", "rational_quadratic", "rational_quadratic_mix_weighted"), "eager"),
    **dict.fromkeys(("linear", "polynomial", "multiple_of_bounded", "own_radial", "own_general"), "eager"),
    **dict.fromkeys(("laplace", "matern_32", "l1_laplace", "product", "columns"), "eager"),
    **dict.fromkeys(("energy", "sum_with_linear", "sum_with_bounded"), "aot_eager"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), COMPILED.items(), ids=COMPILED)
def test_compiles_into_one_graph(name, backend):
    torch.compiler.reset()  # the code of the lambda is the same for every kernel
    loss = MMDLoss(CASES[name].make(), 0.5)
    compiled = torch.compile(lambda p, q: (*loss.both(p, q), *loss.terms(p, q)), fullgraph=True, backend=backend)
    real, fake = scores(8, 4, 1).requires_grad_(), scores(6, 4, 2)
    expected, got = (*loss.both(real, fake), *loss.terms(real, fake)), compiled(real, fake)
    assert_close(got, expected)
    assert_close(torch.autograd.grad(got[0], real), torch.autograd.grad(expected[0], real))


@every_kernel
def test_function_transforms(case: KernelCase):
    real, fake = scores(5, 3, 1), scores(4, 3, 2)

    def loss(p):
        return MMDLoss(case.make(), 0.5).discriminator(p, fake)

    leaf = real.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    assert_close(torch.func.grad(loss)(real), expected)
    assert_close(torch.func.jvp(loss, (real,), (real,))[1], (expected * real).sum())
    batch = torch.stack([real, 2 * real])
    assert_close(torch.func.vmap(loss)(batch), torch.stack([loss(p) for p in batch]))
    assert_close(torch.func.vmap(torch.func.grad(loss))(batch)[0], expected)
    hessian = torch.func.hessian(loss)(real)
    assert_close(hessian, torch.autograd.functional.hessian(loss, real))


@every_kernel
def test_makes_no_host_synchronisation(case: KernelCase):
    # Meta tensors have no values: a call that reads one on the host (`.item()`, a data-dependent branch) fails.
    real, fake = torch.empty(8, 4, device="meta", requires_grad=True), torch.empty(6, 4, device="meta")
    for lambda_ in (-1.0, 1.0):
        loss = MMDLoss(case.make(), lambda_).to("meta")
        value = loss.both(real, fake)
        value.discriminator.backward()
        assert all(x.device.type == "meta" for x in (*value, *loss.terms(real, fake), real.grad))


@pytest.mark.gpu
def test_cuda_equals_cpu_without_synchronisation(gpu, without_synchronisation):
    real, fake = scores(64, 16, 1).float(), scores(64, 16, 2).float()
    loss = MMDLoss(RBFMix(), -1.0)
    expected = loss.both(real, fake)
    real, fake = real.to(gpu), fake.to(gpu)
    with without_synchronisation():
        value = loss.both(real, fake)
    assert_close([x.cpu() for x in value], list(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
def test_a_loss_with_its_gradient_fits_into_a_cuda_graph(gpu):
    if gpu.type != "cuda":
        pytest.skip("CPUs have no CUDA graphs")
    real, fake = scores(64, 16, 1).float().cuda(), scores(64, 16, 2).float().cuda().requires_grad_()
    loss, kernel_launches = MMDLoss(RBFBKernel()), torch.cuda.CUDAGraph()
    with torch.cuda.stream(torch.cuda.Stream()):
        loss.generator(real, fake).backward()  # fills the caches
    fake.grad = None
    with torch.cuda.graph(kernel_launches):
        value = loss.generator(real, fake)
        value.backward()
    fake.data.mul_(2)
    kernel_launches.replay()
    leaf = fake.detach().clone().requires_grad_()
    expected = loss.generator(real, leaf)
    assert_close(value, expected.detach())
    assert_close(fake.grad, torch.autograd.grad(expected, leaf)[0])


@both_ways
def test_totals_near_equality_keep_their_digits():
    # MMD^2 of a sample against another from the same distribution is 2e-4 of the means it is the difference of.
    real, fake = scores(1024, 16, 1), scores(1024, 16, 2)
    for kernel in (RBFKernel(4.0), RBFMix((2, 4, 8)), EnergyKernel()):
        exact = mmd2(real.float().double(), fake.float().double(), kernel, estimator="u_statistic")
        value = mmd2(real.float(), fake.float(), kernel, estimator="u_statistic")
        assert abs(float(value - exact)) < 1e-4 * abs(float(exact))


def test_fixed_bandwidth_keeps_the_scale_of_the_scores():
    real, fake = scores(32, 4, 1), scores(32, 4, 2, shift=1.0)
    assert float(mmd2(real * 1e-3, fake * 1e-3, RBFKernel())) < 1e-4 * float(mmd2(real, fake, RBFKernel()))


def test_a_discriminator_step_through_half_the_scores_of_one_forward():
    # The authors' update: one forward on both, the gradient of each loss to its own network.
    discriminator = torch.nn.Linear(3, 4).double()
    images, samples = scores(6, 3, 1), scores(6, 3, 2).requires_grad_()
    real, fake = discriminator(torch.cat([images, samples])).chunk(2)
    loss_d, loss_g = MMDLoss(RBFBKernel()).both(real=real, fake=fake)
    to_d = torch.autograd.grad(loss_d, list(discriminator.parameters()), retain_graph=True)
    to_g = torch.autograd.grad(loss_g, samples)
    separate = MMDLoss(RBFBKernel()).generator(discriminator(images).detach(), discriminator(samples))
    assert_close(to_g, torch.autograd.grad(separate, samples))
    separate = MMDLoss(RBFBKernel()).discriminator(discriminator(images), discriminator(samples.detach()))
    assert_close(to_d, torch.autograd.grad(separate, list(discriminator.parameters())))
