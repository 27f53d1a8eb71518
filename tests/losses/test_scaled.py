"""ScaledMMDLoss: the authors' numbers, Proposition 5 by brute force, laws, misuse."""

import copy
import math

import pytest
import torch
from authors import CASES as AUTHORS
from authors import ids, tensor
from cases import CASES, Cubic, InverseMultiquadric, KernelCase, OwnFunction, scores
from critics import WEIGHTS, Critic, network, squared_jacobians
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    LinearKernel,
    MMDLoss,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    ScaledMMDLoss,
    conv_spectral_norm,
    mmd2,
)

TOLERANCE = {"rtol": 0, "atol": 1e-12}
UNSCALABLE = ("columns", "energy", "laplace", "l1_laplace", "own_general", "polynomial")
SCALABLE = {name: case for name, case in CASES.items() if name not in UNSCALABLE}
every_scalable_kernel = pytest.mark.parametrize("case", SCALABLE.values(), ids=SCALABLE)
seeds = st.integers(0, 10**6)


def samples(m, shape, seed=0, **options):
    """Return real samples `(m, *shape)` that require gradients."""
    return scores(m, math.prod(shape), seed, **options).reshape(m, *shape).requires_grad_()


# The authors' numbers.


@pytest.mark.parametrize("name", ids("arbel/SMMD/"))
def test_smmd_of_arbel_et_al(name):
    _check_authors(name, RBFKernel())


@pytest.mark.parametrize("name", ids("arbel/SWGAN/value_and_grad/"))
def test_swgan_of_arbel_et_al(name):
    _check_authors(name, LinearKernel(), squared=False)


def _check_authors(name, kernel, **options):
    case = AUTHORS[name]
    assert case["agreement"]["code_equals_paper"]
    loss = ScaledMMDLoss(kernel, lambda_=1 / case["hyperparameters"]["scaling_coeff"], **options)
    real, fake = (tensor(case["inputs"][key]).requires_grad_() for key in ("x_real", "x_gen"))
    critic, found = Critic(case["inputs"]), case["outputs"]

    assert_close(loss.terms(critic(real), critic(fake), inputs=real).scale, tensor(found["scale"]), **TOLERANCE)

    value = loss.discriminator(real=critic(real), fake=critic(fake), inputs=real)
    assert_close(value, tensor(found["d_loss"]), **TOLERANCE)
    for gradient, weight in zip(torch.autograd.grad(value, critic.weights), WEIGHTS, strict=True):
        assert_close(gradient, tensor(found[f"grad_d_loss_{weight}"]), **TOLERANCE)

    value = loss.generator(real=critic(real), fake=critic(fake), inputs=real)
    assert_close(value, tensor(found["g_loss"]), **TOLERANCE)
    assert_close(torch.autograd.grad(value, fake)[0], tensor(found["grad_g_loss_x_gen"]), **TOLERANCE)


def test_the_code_s_default_for_swgan_is_not_the_paper_s():
    # Theirs leaves E phi^2 out of the scale unless told otherwise.
    (name,) = ids("arbel/SWGAN/grad/")
    case = AUTHORS[name]
    critic = Critic(case["inputs"])
    real, fake = tensor(case["inputs"]["x_real"]).requires_grad_(), tensor(case["inputs"]["x_gen"])
    size = critic(real).square().mean()
    scale = ScaledMMDLoss(LinearKernel()).terms(critic(real), critic(fake), inputs=real).scale
    assert_close(1 / (1 / scale - 10 * size), tensor(case["outputs"]["scale"]), **TOLERANCE)


def test_swgan_squared_is_the_biased_estimate():
    critic, real, fake = network(3, 1), samples(6, (3,)), samples(5, (3,), 1)
    arguments = critic(real), critic(fake), real
    squared = ScaledMMDLoss(2 * LinearKernel(), estimator="biased").generator(*arguments)
    assert_close(ScaledMMDLoss(2 * LinearKernel(), squared=False).generator(*arguments) ** 2, squared)


# Proposition 5.


def brute_force_size(kernel, critic, inputs):
    """Return the means of `k(x, x)` and of the sum over i of its derivative by `x_i` in both arguments."""

    def value(x, y):
        return kernel(critic(x[None]), critic(y[None])).squeeze()

    def size(x):
        def by_first(y):
            return torch.func.grad(value)(x, y).flatten()

        return torch.func.jacrev(by_first)(x).reshape(x.numel(), x.numel()).trace()

    return torch.stack([value(x, x) for x in inputs]).mean(), torch.stack([size(x) for x in inputs]).mean()


@every_scalable_kernel
@pytest.mark.parametrize("d", [1, 3])
def test_the_scale_is_that_of_proposition_5(case: KernelCase, d):
    kernel, critic, inputs = case.make(), network(6, d), samples(4, (2, 3))
    at_x, slopes = brute_force_size(kernel, critic, inputs.detach())
    arguments = critic(inputs), critic(samples(4, (2, 3), 1)), inputs
    for lambda_ in (0.1, 2.0):
        exact = ScaledMMDLoss(kernel, scale="exact", lambda_=lambda_)
        assert_close(exact.terms(*arguments).scale, 1 / (lambda_ + at_x + slopes))
        assert_close(exact.generator(*arguments), mmd2(*arguments[:2], kernel) / (lambda_ + at_x + slopes))
        # The practical form leaves out the constant part of k(x, x), here that of the kernels of the distance.
        constant = sum(term.factor * term.kernel(*torch.zeros(2, 1, 1).double()).item() for term in kernel._summands())
        practical = ScaledMMDLoss(kernel, lambda_=lambda_)
        assert_close(practical.terms(*arguments).scale, lambda_ / (lambda_ + at_x - constant + slopes))


@pytest.mark.parametrize(
    ("kernel", "size", "slope"),
    [
        (RBFKernel(2.0), 1, 0.25),
        (RBFBKernel(2.0), 1, 0.25),
        (RBFMix((1, 2)), 2, 1.25),
        (RBFMix((1, 2), weights=(0.5, 4)), 4.5, 1.5),
        (RationalQuadraticKernel(0.3), 1, 1),
        (RationalQuadraticMix(), 5, 5),
        (3 * RationalQuadraticKernel() + RBFKernel(0.5), 4, 7),
        (InverseMultiquadric(), 1, 1),
    ],
    ids=str,
)
def test_size_and_slope_of_each_kernel(kernel, size, slope):
    critic = nn.Linear(3, 1, bias=False).double()
    inputs, weight = samples(5, (3,)), critic.weight.detach().square().sum()
    arguments = critic(inputs), critic(inputs), inputs
    assert_close(ScaledMMDLoss(kernel, scale="exact").terms(*arguments).scale, 1 / (0.1 + size + slope * weight))
    assert_close(ScaledMMDLoss(kernel).terms(*arguments).scale, 1 / (1 + 10 * slope * weight))


def test_point_masses_of_section_2():
    # Eq. 3 with the scale of phi(x) = psi x: SMMD^2 = 2 (1 - exp(-psi^2 theta^2 / 2)) / (lambda + 1 + psi^2).
    psi, theta, lambda_ = torch.tensor([0.7], dtype=torch.float64, requires_grad=True), 1.9, 0.3
    x, y = torch.zeros(4, 1).double().requires_grad_(), torch.full((3, 1), theta).double()
    value = ScaledMMDLoss(scale="exact", lambda_=lambda_, estimator="biased").discriminator(psi * x, psi * y, inputs=x)
    expected = -2 * (1 - torch.exp(-0.5 * psi**2 * theta**2)) / (lambda_ + 1 + psi**2)
    assert_close(value, expected.squeeze())
    assert_close(torch.autograd.grad(value, psi), torch.autograd.grad(expected, psi))


# Derivatives.


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["practical", "exact"])
@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("kernel", [RBFMix((1, 2)) + 0.5 * LinearKernel(), RationalQuadraticKernel(0.6)], ids=str)
def test_derivatives_by_the_weights_of_the_critic(scale, d, kernel):
    loss = ScaledMMDLoss(kernel, scale=scale)
    real, fake = samples(4, (3,)), samples(3, (3,), 1).detach()
    weights = [scores(3, 4, 2).requires_grad_(), scores(4, d, 3).requires_grad_()]

    def value(first, second):
        return loss.discriminator(torch.tanh(real @ first) @ second, torch.tanh(fake @ first) @ second, inputs=real)

    assert torch.autograd.gradcheck(value, weights)
    assert torch.autograd.gradgradcheck(value, weights)


def test_the_discriminator_s_gradient_is_that_of_the_formula():
    # Everything again by autograd over the whole formula, without the library.
    critic, real, fake = network(3, 2), samples(5, (3,)), samples(4, (3,), 1).detach()
    value = ScaledMMDLoss(scale="exact", estimator="biased").discriminator(critic(real), critic(fake), inputs=real)

    def gram(a, b):
        return torch.exp(-0.5 * (critic(a).unsqueeze(1) - critic(b)).square().sum(2)).mean()

    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: critic(x[None]).squeeze(0)))(real.detach())
    size = 0.1 + 1 + jacobian.square().sum((1, 2)).mean()
    expected = -(gram(real, real) - 2 * gram(real, fake) + gram(fake, fake)) / size
    assert_close(value, expected)
    weights = list(critic.parameters())
    assert_close(torch.autograd.grad(value, weights), torch.autograd.grad(expected, weights))


def test_derivatives_through_conv_spectral_norm():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(48, 1)).double()
    conv_spectral_norm(critic, n_power_iterations=50)
    real, fake = samples(4, (1, 4, 4)), samples(4, (1, 4, 4), 1).detach()
    critic(real)
    critic.eval()  # the vectors are found, and stay
    loss = ScaledMMDLoss()
    weight = critic[0].parametrizations.weight.original
    (gradient,) = torch.autograd.grad(loss.discriminator(critic(real), critic(fake), inputs=real), weight)
    step, direction = 1e-5, torch.randn_like(weight)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
        critic.train()
        for _ in range(3):
            critic(real)
        critic.eval()
        values.append(loss.discriminator(critic(real), critic(fake), inputs=real).detach())
        with torch.no_grad():
            weight -= sign * step * direction
    assert_close((gradient * direction).sum(), (values[0] - values[1]) / (2 * step), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", ["conv", "pico", "matrix"])
def test_second_derivatives_of_spectral_norms_in_training(method):
    # In training the norm is found in another way than in evaluation; once it is found, both are the same function.
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 4, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(12, 1)
    critic = conv_spectral_norm(nn.Sequential(*layers).double(), method=method, learn_scale=True)
    real, fake = samples(4, (1, 4, 4)), samples(4, (1, 4, 4), 1).detach()
    with torch.no_grad():
        for _ in range(500):
            critic(real)
    gradients = []
    for training in (True, False):
        critic.train(training)
        value = ScaledMMDLoss().discriminator(critic(real), critic(fake), inputs=real)
        gradients.append(torch.autograd.grad(value, list(critic.parameters())))
    assert_close(*gradients)


def test_the_generator_sees_constants():
    critic, real, fake = network(3, 1), samples(5, (3,)), samples(4, (3,), 1)
    loss, arguments = ScaledMMDLoss(), (critic(real), critic(fake), real)
    scale = loss.terms(*arguments).scale
    to_real, to_fake = torch.autograd.grad(
        loss.generator(*arguments), (real, fake), retain_graph=True, allow_unused=True
    )
    assert to_real is None
    assert_close(to_fake, scale * torch.autograd.grad(mmd2(*arguments[:2], RBFKernel()), fake, retain_graph=True)[0])
    assert not scale.requires_grad


# Laws.


@given(seed=seeds, m=st.integers(2, 5), n=st.integers(2, 5), d=st.integers(1, 3))
def test_the_loss_does_not_change_with_the_order_or_the_axes_of_samples(seed, m, n, d):
    critic, loss = network(4, d, seed=seed), ScaledMMDLoss()
    real, fake = samples(m, (4,), seed), samples(n, (4,), seed + 1).detach()
    value = loss.discriminator(critic(real), critic(fake), inputs=real)
    order = torch.randperm(m)
    mixed = real.detach()[order].requires_grad_()
    assert_close(loss.discriminator(critic(mixed), critic(fake), inputs=mixed), value)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    turned = (real.detach() @ rotation).requires_grad_()
    turned_back = turned @ rotation.T
    assert_close(loss.discriminator(critic(turned_back), critic(fake), inputs=turned), value)


@pytest.mark.filterwarnings("ignore::torch_mmd_losses.UsageWarning")  # random scores may be close together
@given(seed=seeds, d=st.integers(1, 4), shape=st.sampled_from([(), (3,), (2, 1, 3), (1, 2, 2, 2)]))
def test_the_scale_is_that_of_jacobians_one_by_one(seed, d, shape):
    critic, real = network(math.prod(shape), d, seed=seed), samples(3, shape, seed)
    if not shape:
        critic[0] = nn.Unflatten(0, (-1, 1))
    found = ScaledMMDLoss().terms(critic(real), critic(real.detach()), inputs=real).scale
    assert_close(1 / found, 1 + 10 * squared_jacobians(critic, real).mean())


@given(seed=seeds, factor=st.floats(0.1, 5))
def test_scores_that_are_stretched_are_a_narrower_kernel(seed, factor):
    critic, real, fake = network(3, 2, seed=seed), samples(4, (3,), seed), samples(4, (3,), seed + 1)
    for scale in ("practical", "exact"):
        stretched = ScaledMMDLoss(RBFKernel(), scale=scale).generator(
            factor * critic(real), factor * critic(fake), inputs=real
        )
        narrow = ScaledMMDLoss(RBFKernel(1 / factor), scale=scale).generator(critic(real), critic(fake), inputs=real)
        assert_close(stretched, narrow)


@given(seed=seeds, factor=st.floats(0.1, 5))
def test_a_multiple_of_kernel_and_lambda_changes_nothing_in_the_exact_form(seed, factor):
    critic, real, fake = network(3, 1, seed=seed), samples(4, (3,), seed), samples(4, (3,), seed + 1)
    arguments = critic(real), critic(fake), real
    value = ScaledMMDLoss(scale="exact", lambda_=0.5).generator(*arguments)
    multiple = ScaledMMDLoss(factor * RBFKernel(), scale="exact", lambda_=factor * 0.5)
    assert_close(multiple.generator(*arguments), value)


@pytest.mark.filterwarnings("ignore::torch_mmd_losses.UsageWarning")  # random scores may be close together
@given(seed=seeds)
def test_squared_gradients_of_scores_add_up(seed):
    critic, real = network(3, 3, seed=seed), samples(4, (3,), seed)
    found = critic(real)
    loss = ScaledMMDLoss()

    def slope(scores):
        return 1 / loss.terms(scores, scores.detach(), inputs=real).scale - 1

    assert_close(slope(found), sum(slope(column) for column in found.unbind(1)))


def test_a_large_lambda_leaves_mmd2():
    critic, real, fake = network(3, 1), samples(5, (3,)), samples(4, (3,), 1)
    value = ScaledMMDLoss(lambda_=1e12).discriminator(critic(real), critic(fake), inputs=real)
    assert_close(value, -mmd2(critic(real), critic(fake), RBFKernel()))


@pytest.mark.parametrize("options", [{}, {"kernel": LinearKernel(), "squared": False}], ids=str)
def test_both_and_single_methods_agree(options):
    critic, real, fake = network(3, 1), samples(5, (3,)), samples(4, (3,), 1)
    loss, arguments = ScaledMMDLoss(**options), (critic(real), critic(fake), real)
    both = loss.both(*arguments)
    assert_close(both.discriminator, loss.discriminator(*arguments))
    assert_close(both.generator, loss.generator(*arguments))
    assert_close(both.generator, -both.discriminator)
    gradients = [
        torch.autograd.grad(value, fake, retain_graph=True)[0] for value in (both.generator, loss.generator(*arguments))
    ]
    assert_close(*gradients)
    weights = list(critic.parameters())
    first, second = (
        torch.autograd.grad(value, weights, retain_graph=True)
        for value in (both.discriminator, loss.discriminator(*arguments))
    )
    assert_close(first, second)
    unscaled = ScaledMMDLoss(**options, lambda_=1e12).both(*arguments).generator  # the scale is a constant here, too
    ratio = (both.generator / unscaled).detach()
    expected = [ratio * gradient for gradient in torch.autograd.grad(unscaled, weights, retain_graph=True)]
    assert_close(torch.autograd.grad(both.generator, weights), tuple(expected))


@pytest.mark.parametrize("estimator", ["unbiased", "u_statistic", "biased"])
def test_estimator_and_tiles_are_those_of_mmd2(estimator):
    critic, real, fake = network(3, 1), samples(5, (3,)), samples(5, (3,), 1)
    arguments = critic(real), critic(fake), real
    loss = ScaledMMDLoss(lambda_=0.7, estimator=estimator, tile_size=2)
    expected = loss.terms(*arguments).scale * mmd2(*arguments[:2], RBFKernel(), estimator=estimator)
    assert_close(loss.generator(*arguments), expected)


def test_terms_are_those_of_the_plain_loss_and_the_scale():
    critic, real, fake = network(3, 1), samples(5, (3,)), samples(4, (3,), 1)
    for kernel in (RBFKernel(), RBFBKernel(0.4)):
        found = ScaledMMDLoss(kernel).terms(critic(real), critic(fake), inputs=real)
        plain = MMDLoss(RBFKernel(kernel.sigma), -1).terms(critic(real), critic(fake))
        assert_close(tuple(found[:4]), tuple(plain))
        assert not any(term.requires_grad for term in found)


def test_a_forward_over_both_samples_at_once():
    critic, real, fake = network(3, 2), samples(5, (3,)), samples(4, (3,), 1).detach()
    together = critic(torch.cat([real, fake])).split([5, 4])
    loss = ScaledMMDLoss()
    value = loss.discriminator(*together, inputs=real)
    assert_close(value, loss.discriminator(critic(real), critic(fake), inputs=real))
    value.backward()
    assert all(weight.grad is not None for weight in critic.parameters())


def test_kernels_with_functions_that_transforms_refuse():
    critic, real, fake = network(3, 2), samples(5, (3,)), samples(4, (3,), 1)

    def found(kernel):
        value = ScaledMMDLoss(kernel).discriminator(critic(real), critic(fake), inputs=real)
        return value, *torch.autograd.grad(value, [real, *critic.parameters()])

    assert_close(found(OwnFunction()), found(RBFKernel(2.0)))


@torch.inference_mode()
def test_own_kernels_are_checked_in_inference_mode_too():
    assert isinstance(ScaledMMDLoss(InverseMultiquadric()).kernel, InverseMultiquadric)


# A kernel that is trained, precision, state.


class TrainedGaussian(Kernel):
    """A Gaussian whose bandwidth and factor are trained."""

    def __init__(self):
        super().__init__()
        self.logs = nn.Parameter(torch.tensor([0.3, -0.4], dtype=torch.float64))

    def from_sq_dist(self, sq_dist):
        return torch.exp(self.logs[1] - 0.5 * sq_dist * torch.exp(-2 * self.logs[0]))


def test_a_trained_kernel_is_trained_by_the_scale_too():
    kernel, critic, real, fake = TrainedGaussian(), network(3, 1), samples(5, (3,)), samples(4, (3,), 1)
    loss = ScaledMMDLoss(kernel, scale="exact")

    def value(logs):
        sigma, factor = logs.exp().tolist()
        fixed = ScaledMMDLoss(factor * RBFKernel(sigma), scale="exact")
        return fixed.discriminator(critic(real), critic(fake), inputs=real).detach()

    found, logs = loss.discriminator(critic(real), critic(fake), inputs=real), kernel.logs.detach()
    assert_close(found.detach(), value(logs))
    (gradient,) = torch.autograd.grad(found, kernel.logs)
    steps = 1e-6 * torch.eye(2, dtype=torch.float64)
    expected = torch.stack([(value(logs + step) - value(logs - step)) / 2e-6 for step in steps])
    assert_close(gradient, expected, rtol=1e-6, atol=1e-9)
    arguments = critic(real), critic(fake), real
    (of_generator,) = torch.autograd.grad(loss.generator(*arguments), kernel.logs)
    (of_mmd2,) = torch.autograd.grad(mmd2(*arguments[:2], kernel), kernel.logs)
    assert_close(of_generator, loss.terms(critic(real), critic(fake), real).scale * of_mmd2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_precision(dtype):
    critic, real, fake = network(3, 2), samples(16, (3,)), samples(16, (3,), 1)
    expected = ScaledMMDLoss().discriminator(critic(real), critic(fake), inputs=real)
    lower = copy.deepcopy(critic).to(dtype)
    x, y = (each.detach().to(dtype).requires_grad_() for each in (real, fake))
    value = ScaledMMDLoss().discriminator(lower(x), lower(y), inputs=x)
    assert value.dtype == torch.float32
    value.backward()
    assert all(weight.grad.isfinite().all() for weight in lower.parameters())
    # Weights and scores have 8 bits in bfloat16.
    assert_close(value.double(), expected, rtol=0.1, atol=1e-2)


def test_autocast():
    critic = network(3, 2).float()
    real, fake = (samples(16, (3,), seed).detach().float().requires_grad_() for seed in range(2))
    expected = ScaledMMDLoss().discriminator(critic(real), critic(fake), inputs=real)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, other = critic(real), critic(fake)
        value = ScaledMMDLoss().discriminator(found, other, inputs=real)
    assert found.dtype == torch.bfloat16
    assert value.dtype == torch.float32
    value.backward()
    assert_close(value, expected, rtol=0.1, atol=1e-2)


def test_without_grad_mode_there_is_a_value():
    critic, real, fake = network(3, 1), samples(5, (3,)), samples(4, (3,), 1)
    arguments = critic(real), critic(fake), real
    with torch.no_grad():
        value = ScaledMMDLoss().discriminator(*arguments)
    assert not value.requires_grad
    assert_close(value, ScaledMMDLoss().discriminator(*arguments))


TRANSFORMED = {
    "fixed": RBFKernel(2.0),
    "trained": RBFKernel(2.0, trainable=True).double(),
    "own": InverseMultiquadric(),
    "sum": 0.5 * RationalQuadraticMix() + LinearKernel(),
}


@pytest.mark.parametrize("kernel", TRANSFORMED.values(), ids=TRANSFORMED)
def test_transforms_that_differentiate_by_the_inputs(kernel):
    critic, real, fake = network(3, 2), samples(4, (3,)).detach(), samples(5, (3,), 1).detach()

    def value(x):
        return ScaledMMDLoss(kernel).discriminator(critic(x), critic(fake), inputs=x)

    expected = torch.autograd.functional.jacobian(value, real)
    assert_close(torch.func.grad(value)(real), expected)
    assert_close(torch.func.vmap(torch.func.grad(value))(real[None]), expected[None])
    assert_close(torch.func.hessian(value)(real), torch.autograd.functional.hessian(value, real))


@pytest.mark.slow
# Dynamo looks for the gradient of what it finds at a break.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_compiled_generator_step_breaks_at_the_loss_and_is_right():
    critic, loss = network(3, 1).float(), ScaledMMDLoss()
    real, fake = (samples(4, (3,), seed).detach().float().requires_grad_() for seed in range(2))

    def step(loss_of):
        return 2 * loss_of(real=critic(real), fake=critic(fake), inputs=real)

    expected, value = step(loss.generator), torch.compile(step, backend="aot_eager")(loss.generator)
    assert_close(value, expected)
    assert_close(torch.autograd.grad(value, fake), torch.autograd.grad(expected, fake))
    with pytest.raises(RuntimeError, match="double backward"):  # PyTorch's limit, and no silent loss of a gradient
        torch.compile(step, backend="aot_eager")(loss.discriminator).backward()


def test_state_is_that_of_the_kernel():
    loss = ScaledMMDLoss(RBFKernel(2.0), lambda_=3)
    other = ScaledMMDLoss()
    other.load_state_dict(loss.state_dict())
    assert other.kernel.sigma == 2.0
    assert set(loss.state_dict()) == set(MMDLoss(RBFKernel()).state_dict())
    assert copy.deepcopy(loss).lambda_ == 3.0
    assert "scale='practical', lambda_=3.0, squared=True" in repr(loss)


# Misuse.


class Laplace(Kernel):
    def from_sq_dist(self, sq_dist):
        return torch.exp(-sq_dist.sqrt())


class MinusSquare(Kernel):
    def from_sq_dist(self, sq_dist):
        return -sq_dist


class Rising(Kernel):
    def from_sq_dist(self, sq_dist):
        return 1 + sq_dist


class Constant(Kernel):
    def from_sq_dist(self, sq_dist):
        return torch.ones_like(sq_dist)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kernel": "rbf"}, TypeError, "kernel: expected a Kernel"),
        ({"kernel": EnergyKernel()}, TypeError, "smooth at distance zero.* EnergyKernel with value -?0"),
        ({"kernel": RBFKernel() + 2 * EnergyKernel()}, TypeError, "smooth at distance zero.* EnergyKernel"),
        ({"kernel": Laplace()}, TypeError, "smooth at distance zero.* Laplace with value 1 and slope -inf"),
        ({"kernel": MinusSquare()}, TypeError, "positive and smooth.* MinusSquare with value -?0 and slope -1"),
        ({"kernel": Constant()}, TypeError, "negative slope.* Constant with value 1 and slope 0"),
        ({"kernel": Rising()}, TypeError, "negative slope.* Rising with value 1 and slope 1"),
        ({"kernel": Cubic()}, TypeError, "a kernel of the distance, a LinearKernel.* got Cubic"),
        ({"scale": "sqrt"}, ValueError, "scale: expected one of 'practical', 'exact'"),
        ({"lambda_": 0}, ValueError, "lambda_: expected a number > 0"),
        ({"lambda_": math.nan}, ValueError, "lambda_: expected a finite number"),
        ({"squared": 1}, TypeError, "squared: expected True or False"),
        (
            {"squared": False},
            ValueError,
            "squared: expected True for all kernels except LinearKernel, got False with RBFKernel",
        ),
        ({"kernel": LinearKernel() + RBFKernel(), "squared": False}, ValueError, "squared: expected True"),
        ({"estimator": "v"}, ValueError, "estimator: expected one of"),
        ({"global_batch": 1}, TypeError, "global_batch: expected True or False"),
        ({"tile_size": 0}, ValueError, "tile_size: expected an integer >= 1"),
    ],
)
def test_options_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        ScaledMMDLoss(**options)


@pytest.mark.parametrize("method", ["discriminator", "generator", "forward", "both", "terms"])
def test_arguments_that_are_refused(method):
    critic, real, fake = network(3, 2), samples(5, (3,)), samples(4, (3,), 1).detach()
    good = critic(real), critic(fake), real

    def refused(error, message, loss=None, **changed):
        arguments = dict(zip(("real", "fake", "inputs"), good, strict=True)) | changed
        with pytest.raises(error, match=message):
            getattr(loss or ScaledMMDLoss(), method)(**arguments)

    refused(TypeError, "real: expected a tensor of scores", real=None)
    refused(TypeError, "inputs: expected a tensor of samples, got list", inputs=[real])
    refused(ValueError, "inputs: expected floating-point samples, got torch.int64", inputs=real.long())
    refused(ValueError, r"inputs: .* each of the 5 rows of real, got shape \(3, 3\)", inputs=real[:3])
    refused(ValueError, r"inputs: .* got shape \(\)", inputs=real.sum())
    refused(ValueError, r"inputs: expected samples that require gradients.*requires_grad_\(\)", inputs=real.detach())
    refused(ValueError, "real: expected scores that are differentiable with respect to inputs", real=good[0].detach())
    refused(
        ValueError, "inputs: expected the tensor that real was computed from", inputs=torch.randn(5, 3).requires_grad_()
    )
    refused(ValueError, "same score dimension", fake=good[1][:, :1])
    refused(ValueError, "at least 2 samples", fake=good[1][:1])
    refused(ValueError, "equally many", loss=ScaledMMDLoss(estimator="u_statistic"))
    refused(ValueError, "real: expected one score per sample", loss=ScaledMMDLoss(LinearKernel(), squared=False))
