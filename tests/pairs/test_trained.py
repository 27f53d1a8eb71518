"""Trained kernels in large batches: values and derivatives for scores and parameters, tile by tile."""

import copy

import pytest
import torch
from cases import scores
from sizes import Alive
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from torch_mmd_losses import (
    InverseMultiquadricKernel,
    Kernel,
    LaplaceKernel,
    LinearKernel,
    MaternKernel,
    MMDLoss,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    UsageWarning,
    mmd2,
)
from torch_mmd_losses.pairs import by_autograd, plan


class Learned(Kernel):
    """A bandwidth that is a parameter."""

    def __init__(self, sigma=1.5):
        super().__init__()
        self.log_sigma = nn.Parameter(torch.tensor(sigma, dtype=torch.float64).log())

    def from_sq_dist(self, sq_dist):
        return torch.exp(sq_dist * (-0.5 * torch.exp(-2 * self.log_sigma)))


class LearnedBounded(RBFBKernel):
    """A trained map with bounds on the distance."""

    def __init__(self):
        super().__init__(lower=1.0, upper=3.0)
        self.log_rate = nn.Parameter(torch.tensor(-0.5, dtype=torch.float64))

    def from_sq_dist(self, sq_dist):
        return torch.exp(-self.log_rate.exp() * sq_dist)


class Network(Kernel):
    """A network of the distance."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)).double()

    def from_sq_dist(self, sq_dist):
        return torch.exp(-sq_dist / 4) * self.net(sq_dist.unsqueeze(-1)).squeeze(-1)


class Deep(Kernel):
    """A kernel of features."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        self.base = Learned()

    def forward(self, a, b):
        return self.base(self.net(a), self.net(b))


class Holding(Kernel):
    """A kernel of tensors that are no parameters of it."""

    def __init__(self, *tensors):
        super().__init__()
        self.tensors = tensors

    def from_sq_dist(self, sq_dist):
        total = torch.stack([tensor.square() for tensor in self.tensors]).sum()
        return torch.exp(-sq_dist / total) + self.tensors[0]


def with_parameters(make):
    def made():
        torch.manual_seed(1)
        kernel = make().double()
        return kernel, list(kernel.parameters())

    return made


def leaf():
    width = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    return Holding(width), [width]


def output_of_a_network():
    torch.manual_seed(1)
    net = nn.Linear(2, 1).double()
    width = net(torch.ones(2, dtype=torch.float64)).sum()
    return Holding(width), [*net.parameters(), width]


def tensor_and_its_source():
    width = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    return Holding(width, 3 * width), [width]


KERNELS = {
    "parameter": with_parameters(Learned),
    "bounds": with_parameters(LearnedBounded),
    "network": with_parameters(Network),
    "deep": with_parameters(Deep),
    "leaf": leaf,
    "output of a network": output_of_a_network,
    "tensor and its source": tensor_and_its_source,
    "sum": with_parameters(lambda: 2 * Learned() + RBFKernel(0.7) + 0.5 * Deep() + RBFKernel(trainable=True)),
    "RBFKernel": with_parameters(lambda: RBFKernel(1.3, trainable=True)),
    "RBFMix": with_parameters(lambda: RBFMix((0.7, 2.0), weights=(0.4, 1.5), trainable=True)),
    "RationalQuadraticKernel": with_parameters(lambda: RationalQuadraticKernel(0.7, 1.3, trainable=True)),
    "RationalQuadraticMix": with_parameters(
        lambda: RationalQuadraticMix((0.5, 9.0), weights=(0.4, 1.5), length=1.3, trainable=True)
    ),
    "LaplaceKernel": with_parameters(lambda: LaplaceKernel(1.3, trainable=True)),
    "MaternKernel": with_parameters(lambda: MaternKernel(2.5, 1.3, trainable=True)),
    "InverseMultiquadricKernel": with_parameters(lambda: InverseMultiquadricKernel(1.3, -1.5, trainable=True)),
}

every_kernel = pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)


@pytest.fixture
def in_tiles(monkeypatch):
    """Evaluate all trained kernels in tiles, and fail if Gram matrices are used instead."""
    monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
    monkeypatch.setattr(by_autograd, "values", lambda *_: pytest.fail("whole Gram matrices"))


def derivatives(make, loss, dtype=torch.float64, **options):
    """Return a loss with its first and second derivatives for scores and parameters, mixed ones among them."""
    kernel, leaves = make()
    real = scores(9, 3, 1).to(dtype).requires_grad_()
    fake = scores(7, 3, 2, shift=0.5).to(dtype).requires_grad_()
    value = loss(kernel, real, fake, **options)
    first = torch.autograd.grad(value, [real, fake, *leaves], create_graph=True)
    directions = [torch.cos(torch.arange(x.numel(), dtype=x.dtype)).view(x.shape) for x in first]
    along = sum((x * direction).sum() for x, direction in zip(first, directions, strict=True))
    return value, *first, *torch.autograd.grad(along + value.square(), [real, fake, *leaves])


def both(kernel, real, fake, **options):
    losses = MMDLoss(kernel, 0.4, **options).both(real, fake)
    return losses.discriminator + 3 * losses.generator.square()


@every_kernel
@pytest.mark.parametrize("tile_size", [3, None])
def test_tiles_equal_whole_gram_matrices(make, tile_size, request):
    expected = derivatives(make, both)
    request.getfixturevalue("in_tiles")
    found = derivatives(make, both, tile_size=tile_size)
    for mine, theirs in zip(found, expected, strict=True):
        assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("estimator", ["biased", "u_statistic"])
def test_estimators(estimator, request):
    def loss(kernel, real, fake, **options):
        return mmd2(real[:7], fake, kernel, estimator=estimator, **options)

    make = KERNELS["sum"]
    expected = derivatives(make, loss)
    request.getfixturevalue("in_tiles")
    for mine, theirs in zip(derivatives(make, loss, tile_size=3), expected, strict=True):
        assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["network", "deep", "RBFMix", "RationalQuadraticMix"])
@pytest.mark.parametrize("switch", [0, 512])
def test_derivatives_equal_differences(name, switch, monkeypatch):
    monkeypatch.setattr(plan, "DENSE_UP_TO", switch)
    kernel, leaves = KERNELS[name]()
    inputs = [scores(4, 3, 1).requires_grad_(), scores(3, 3, 2).requires_grad_(), *leaves]

    def value(real, fake, *_):
        return mmd2(real, fake, kernel, tile_size=2)

    assert gradcheck(value, inputs, fast_mode=True)
    assert gradgradcheck(value, inputs, fast_mode=True)


@pytest.mark.usefixtures("in_tiles")
@pytest.mark.parametrize(
    "make", [lambda: RBFKernel(2.0, trainable=True), lambda: RationalQuadraticKernel(trainable=True)]
)
@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 30.0), (torch.float32, 1e3), (torch.float64, 1e7)])
def test_clusters_far_apart_keep_their_digits(make, dtype, apart):
    # The expansion of squared distances has no digits of the distances within a cluster.
    far = apart * torch.arange(2, dtype=dtype).repeat_interleave(15).unsqueeze(1)
    real = (scores(30, 3, 1).to(dtype) + far).requires_grad_()
    fake = (scores(30, 3, 2, shift=0.5).to(dtype) + far).requires_grad_()
    kernel = make().to(dtype)
    value = mmd2(real, fake, kernel, estimator="biased", tile_size=8)
    found = torch.autograd.grad(value, [real, fake, *kernel.parameters()])
    reference = copy.deepcopy(kernel).double()
    x, y = real.double(), fake.double()
    grams = [reference.from_sq_dist((a[:, None] - b).square().sum(2)).mean() for a, b in [(x, x), (x, y), (y, y)]]
    exact = grams[0] - 2 * grams[1] + grams[2]
    expected = torch.autograd.grad(exact, [real, fake, *reference.parameters()])
    assert value.dtype == dtype
    for mine, theirs in zip([value, *found], [exact, *expected], strict=True):
        assert_close(mine.double(), theirs.double(), rtol=2e-4, atol=1e-6)


@pytest.mark.usefixtures("in_tiles")
def test_distances_beyond_float32_have_no_influence_on_a_bandwidth():
    kernel = RBFKernel(trainable=True)
    real, fake = scores(6, 2, 1).float(), scores(6, 2, 2).float()
    (expected,) = torch.autograd.grad(mmd2(real, fake, kernel, estimator="biased"), kernel.log_sigma)
    far = torch.tensor([[1e25, 0.0]])
    (found,) = torch.autograd.grad(
        mmd2(torch.cat([real, far]), torch.cat([fake, far]), kernel, estimator="biased"), kernel.log_sigma
    )
    assert_close(found, expected * (6 / 7) ** 2)


@pytest.mark.usefixtures("in_tiles")
def test_gradients_arrive_as_those_of_other_operations():
    kernel, real = Learned(), scores(9, 3, 1).requires_grad_()
    fake, seen = scores(7, 3, 2), []
    kernel.log_sigma.register_hook(lambda gradient: seen.append(gradient) or 2 * gradient)
    value = mmd2(real, fake, kernel, tile_size=2)
    value.backward(retain_graph=True)
    once = kernel.log_sigma.grad.clone()
    value.backward()
    assert len(seen) == 2
    assert_close(once, 2 * seen[0])
    assert_close(kernel.log_sigma.grad, 2 * once)


@pytest.mark.usefixtures("in_tiles")
def test_only_what_is_asked_for_gets_a_gradient():
    kernel, real, fake = Deep(), scores(9, 3, 1), scores(7, 3, 2).requires_grad_()
    kernel.net.requires_grad_(False)
    mmd2(real, fake.detach(), kernel, tile_size=2).backward()
    assert kernel.base.log_sigma.grad is not None
    assert kernel.net[0].weight.grad is None
    mmd2(real, fake, kernel, tile_size=2).backward()
    assert real.grad is None
    assert fake.grad is not None
    with torch.no_grad():
        value = mmd2(real, fake, kernel, tile_size=2)
    assert not value.requires_grad
    assert_close(value, mmd2(real, fake, kernel, tile_size=2).detach())
    mix = RBFMix((1.0, 2.0), trainable=True)
    with torch.no_grad():
        value = mmd2(real, fake, mix, tile_size=2)
    assert not value.requires_grad
    assert_close(value, mmd2(real, fake, RBFMix((1.0, 2.0))), rtol=1e-5, atol=1e-7)
    mix.log_weights.requires_grad_(False)
    mmd2(real, fake, mix, tile_size=2).backward()
    assert mix.log_weights.grad is None
    assert mix.log_sigmas.grad.abs().min() > 0


@pytest.mark.usefixtures("in_tiles")
def test_a_loss_that_is_not_used_gets_no_gradient():
    kernel, real, fake = RBFKernel(trainable=True), scores(9, 3, 1), scores(7, 3, 2).requires_grad_()
    losses = MMDLoss(kernel, tile_size=2).both(real, fake)
    found = torch.autograd.grad(losses.generator, [fake, kernel.log_sigma])
    assert_close(found, torch.autograd.grad(mmd2(real, fake, kernel, tile_size=2), [fake, kernel.log_sigma]))


@pytest.mark.usefixtures("in_tiles")
def test_a_kernel_of_constants_has_zero_gradients():
    class Constant(Kernel):
        def __init__(self):
            super().__init__()
            self.height = nn.Parameter(torch.ones((), dtype=torch.float64))

        def from_sq_dist(self, sq_dist):
            return self.height.expand(sq_dist.shape)

    kernel, real = Constant(), scores(9, 3, 1).requires_grad_()
    with pytest.warns(UsageWarning, match="the same value for all pairs"):
        value = mmd2(real, scores(7, 3, 2), kernel, tile_size=2)
    found = torch.autograd.grad(value, [real, kernel.height], create_graph=True)
    assert_close(found, (torch.zeros_like(real), torch.zeros_like(kernel.height)), atol=1e-12, rtol=0)
    second = torch.autograd.grad(found[0].sum() + found[1] ** 2, [real, kernel.height])
    assert_close(second, (torch.zeros_like(real), torch.zeros_like(kernel.height)), atol=1e-12, rtol=0)


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, outer):
        return 2 * ctx.saved_tensors[0] * outer


class OfAParameter(Learned):
    """A custom operation of a parameter, which hides it."""

    def from_sq_dist(self, sq_dist):
        return torch.exp(-sq_dist * Squared.apply(self.log_sigma))


class OfTheDistance(Learned):
    """A custom operation of the distance."""

    def from_sq_dist(self, sq_dist):
        return torch.exp(-Squared.apply(sq_dist).clone() * self.log_sigma)


class Hidden(Learned):
    """An operation of a parameter that no mode of PyTorch can see."""

    def from_sq_dist(self, sq_dist):
        with torch._C.DisableTorchFunction():
            rate = self.log_sigma.exp()
        return torch.exp(-sq_dist * rate)


class HiddenDistance(Learned):
    """Such an operation of the distance."""

    def from_sq_dist(self, sq_dist):
        with torch._C.DisableTorchFunction():
            scaled = sq_dist * 0.5
        return torch.exp(-scaled * self.log_sigma)


class Sometimes(Learned):
    """A second parameter, for far pairs alone."""

    def __init__(self):
        super().__init__()
        self.far = nn.Parameter(torch.ones((), dtype=torch.float64))

    def from_sq_dist(self, sq_dist):
        value = super().from_sq_dist(sq_dist)
        return value * torch.where(sq_dist > 4, self.far, 1.0) if (sq_dist > 4).any() else value


@pytest.mark.parametrize("make", [OfAParameter, OfTheDistance, Hidden, HiddenDistance, Sometimes])
@pytest.mark.parametrize("tile_size", [3, None])
def test_kernels_whose_tensors_cannot_all_be_seen_get_gradients_too(make, tile_size, monkeypatch):
    def loss(kernel, real, fake, **options):
        return mmd2(real, fake, kernel, **options)

    expected = derivatives(with_parameters(make), loss)
    monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
    found = derivatives(with_parameters(make), loss, tile_size=tile_size)
    for mine, theirs in zip(found, expected, strict=True):
        assert_close(mine, theirs)


@pytest.mark.parametrize("make", [Learned, Deep, lambda: RBFKernel(trainable=True)], ids=["own", "deep", "RBFKernel"])
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.usefixtures("in_tiles")
def test_memory_grows_with_the_number_of_samples(make, second):
    kernel, tile = make(), 48
    peaks = []
    for n in (96, 192):
        real, fake = scores(n, 3, 1).requires_grad_(), scores(n, 3, 2).requires_grad_()
        with Alive() as alive:
            value = mmd2(real, fake, kernel, tile_size=tile)
            found = torch.autograd.grad(value, [real, fake, *kernel.parameters()], create_graph=second)
            if second:
                sum(gradient.square().sum() for gradient in found).backward()
        peaks.append(alive.bytes)
    # Whole Gram matrices would take four times as much.
    assert peaks[1] < 1.7 * peaks[0]


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["parameter", "RBFMix"])
def test_compiles_into_one_graph(name, backend, request):
    kernel, leaves = KERNELS[name]()
    real, fake = scores(9, 3, 1), scores(7, 3, 2)
    compiled = torch.compile(lambda real, fake: mmd2(real, fake, kernel), backend=backend, fullgraph=True)
    found = torch.autograd.grad(compiled(real, fake), leaves)
    request.getfixturevalue("in_tiles")
    assert_close(found, torch.autograd.grad(mmd2(real, fake, kernel, tile_size=2), leaves))


@pytest.mark.parametrize("name", ["parameter", "deep", "RationalQuadraticMix"])
def test_function_transforms(name, request):
    kernel, _ = KERNELS[name]()
    real, fake = scores(9, 3, 1), scores(7, 3, 2)
    parameters = dict(kernel.named_parameters())

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = kernel

        def forward(self, real):
            return mmd2(real, fake, self.kernel, tile_size=2)

    def value(parameters, real):
        return torch.func.functional_call(
            Loss(), {f"kernel.{key}": parameter for key, parameter in parameters.items()}, (real,)
        )

    found = torch.func.grad(value)(parameters, real)
    batched = torch.func.vmap(value, in_dims=(None, 0))(parameters, torch.stack([real, 2 * real]))
    request.getfixturevalue("in_tiles")
    expected = torch.autograd.grad(value(parameters, real), list(parameters.values()))
    assert_close(tuple(found.values()), expected)
    assert_close(batched, torch.stack([value(parameters, real), value(parameters, 2 * real)]))


@pytest.mark.usefixtures("in_tiles")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_compute_in_float32(dtype):
    kernel = Deep().float()
    real, fake = scores(9, 3, 1).to(dtype), scores(7, 3, 2).to(dtype)
    value = mmd2(real, fake, kernel, tile_size=2)
    expected = torch.autograd.grad(value, list(kernel.parameters()))
    assert value.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = mmd2(real.float(), fake.float(), kernel, tile_size=2)
        first = torch.autograd.grad(value, list(kernel.parameters()), create_graph=True)
        sum(gradient.square().sum() for gradient in first).backward()
    assert_close(first, expected)
    assert kernel.net[0].weight.grad.dtype == torch.float32


class Scaled(Kernel):
    """A kernel times the square of a tensor that was computed elsewhere."""

    def __init__(self, tensor, height):
        super().__init__()
        self.tensors, self.height = [tensor], height

    def from_sq_dist(self, sq_dist):
        return self.height * self.tensors[0] ** 2 * torch.exp(-sq_dist / 8)


class ScaledGram(Scaled):
    def forward(self, a, b):
        return self.height * self.tensors[0] ** 2 * RBFKernel(2.0)(a, b)


@pytest.mark.usefixtures("in_tiles")
@pytest.mark.parametrize("kind", [Scaled, ScaledGram])
@pytest.mark.parametrize(("height", "tile_size"), [(40.0, None), (4000.0, None), (1e-5, 5)])
def test_sums_over_pairs_neither_overflow_nor_vanish_in_a_tensor_of_half_precision(kind, height, tile_size):
    real, fake = scores(60, 3, 1).float(), scores(60, 3, 2, shift=3.0).float()

    def derivatives(dtype):
        tensor = torch.tensor(1.0, dtype=dtype, requires_grad=True)
        value = mmd2(real, fake, kind(tensor, height), tile_size=tile_size)
        (first,) = torch.autograd.grad(value, tensor, create_graph=True)
        (second,) = torch.autograd.grad(first, tensor)
        return value, first.float(), second.float()

    # The tensor's gradient from each group of pairs has the digits of its dtype.
    assert_close(derivatives(torch.float16), derivatives(torch.float32), rtol=5e-3, atol=0)


@pytest.mark.usefixtures("in_tiles")
def test_a_gradient_that_does_not_fit_into_half_precision_is_infinite():
    tensor = torch.tensor(1.0, dtype=torch.float16, requires_grad=True)
    near, far = (0.1 * scores(60, 3, seed).float() for seed in (1, 2))
    value = mmd2(near, far + 9, Scaled(tensor, 6e4))
    (gradient,) = torch.autograd.grad(value, tensor)
    assert value.isfinite()
    assert gradient == torch.inf


@pytest.mark.usefixtures("in_tiles")
def test_linear_kernels_beside_trained_ones(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
    real, fake = scores(9, 3, 1), scores(7, 3, 2)
    kernel = Learned()
    total = mmd2(real, fake, kernel + LinearKernel(), tile_size=2)
    assert_close(total, mmd2(real, fake, kernel, tile_size=2) + mmd2(real, fake, LinearKernel()))
