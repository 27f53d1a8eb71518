"""Penalties: the authors' numbers, closed forms for linear critics, Jacobians one by one, laws, misuse."""

import math

import pytest
import torch
from authors import CASES as AUTHORS
from authors import ids, tensor
from cases import scores
from critics import WEIGHTS, Critic, network, squared_jacobians
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import (
    LinearKernel,
    MMDLoss,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    conv_spectral_norm,
    gradient_penalty,
    interpolation_points,
    l2_penalty,
    mmd2,
    witness,
)

TOLERANCE = {"rtol": 0, "atol": 1e-12}
seeds = st.integers(0, 10**6)


def samples(m, shape, seed=0):
    return scores(m, math.prod(shape), seed).reshape(m, *shape).requires_grad_()


def between(u, x, y):
    """Return the points at which the authors take gradients."""
    return (u * x + (1 - u) * y).requires_grad_()


# The authors' numbers.


def test_wgan_gp_of_wang_et_al():
    (name,) = ids("wang/gp/wgan_gp/")
    case = AUTHORS[name]
    inputs = {key: tensor(value) for key, value in case["inputs"].items()}
    critic = Critic(case["inputs"])
    points = between(inputs["uniform"], inputs["x_real"], inputs["x_gen"])
    _check(gradient_penalty(critic(points), inputs=points), critic, case["outputs"], "value", "grad_")


def test_the_scale_of_wang_et_al():
    (name,) = ids("wang/gp/scale/")
    case = AUTHORS[name]
    critic, real = Critic(case["inputs"]), tensor(case["inputs"]["x_real"]).requires_grad_()
    weight = case["hyperparameters"]["penalty_weight"]
    scale = 1 / (1 + weight * gradient_penalty(critic(real), inputs=real, target=0))
    _check(scale, critic, case["outputs"], "value", "grad_")


@pytest.mark.parametrize("name", ids("arbel/wgan_gp/"))
def test_wgan_gp_of_arbel_et_al(name):
    case = AUTHORS[name]
    inputs = {key: tensor(value) for key, value in case["inputs"].items()}
    critic = Critic(case["inputs"])
    points = between(1 - inputs["alpha"], inputs["x_real"], inputs["x_gen"])
    distance = critic(inputs["x_gen"]).mean() - critic(inputs["x_real"]).mean()
    loss = distance + case["hyperparameters"]["gradient_penalty"] * gradient_penalty(critic(points), inputs=points)
    _check(loss, critic, case["numpy_paper"], "d_loss", "grad_d_loss_")
    if case["agreement"]["code_equals_paper"]:
        _check(loss, critic, case["outputs"], "d_loss", "grad_d_loss_")
    else:  # theirs takes the norm over the channels of each pixel
        assert abs(loss.item() - case["outputs"]["d_loss"]) > 1


@pytest.mark.parametrize("name", ids("arbel/mmd_gp/"))
def test_mmd_gan_gp_of_arbel_et_al(name):
    case = AUTHORS[name]
    inputs, weights = {key: tensor(value) for key, value in case["inputs"].items()}, case["hyperparameters"]
    critic, rbf = Critic(case["inputs"]), weights["kernel"] == "rbf"
    kernel = RBFKernel() if rbf else RationalQuadraticMix((0.1, 1, 10)) + LinearKernel()
    x, y = inputs["x_real"], inputs["x_gen"]
    points = between(1 - inputs["alpha"], x, y)
    values = witness(critic(points), real=critic(x), fake=critic(y), kernel=kernel)
    size = weights["L2_discriminator_penalty"] * l2_penalty(critic.hidden(x), critic.hidden(y), critic(x), critic(y))

    penalty = weights["gradient_penalty"] * gradient_penalty(values, inputs=points) + size
    assert_close(penalty, tensor(case["numpy_paper"]["penalty_times_weight"]), **TOLERANCE)
    loss = penalty - mmd2(real=critic(x), fake=critic(y), kernel=kernel)
    _check(loss, critic, case["numpy_paper"], "d_loss", "grad_d_loss_")

    # Their code: the norm over the channels of each pixel, with 1e-5 under the root; the linear part of the kernel
    # keeps its diagonal in MMD^2. With that, the gradients of all weights are theirs.
    (gradient,) = torch.autograd.grad(values.sum(), points, create_graph=True)
    theirs = weights["gradient_penalty"] * ((gradient.square().sum(1) + 1e-5).sqrt() - 1).square().mean() + size
    assert_close(theirs, tensor(case["outputs"]["penalty_times_weight"]), **TOLERANCE)
    kept = 0 if rbf else sum(critic(z).square().sum() / (len(z) * (len(z) - 1)) for z in (x, y))
    loss = theirs - mmd2(real=critic(x), fake=critic(y), kernel=kernel) - kept
    _check(loss, critic, case["outputs"], "d_loss", "grad_d_loss_")


@pytest.mark.parametrize("kind", ["rep", "rmb"])
def test_losses_with_a_penalty_or_a_scale_of_wang_et_al(kind):
    # Plain arithmetic around MMDLoss: L_D + penalty, and (L_D - 1) scale for 'rep' but L_D scale for 'rmb'.
    kernel, offset = (RBFKernel(), 1.0) if kind == "rep" else (RBFBKernel(), 0.0)
    for name in ids(f"wang/{kind}_gp/") + ids(f"wang/{kind}_ds/"):
        case = AUTHORS[name]
        real, fake = (tensor(case["inputs"][key]).requires_grad_() for key in ("score_data", "score_gen"))
        value, options = MMDLoss(kernel, estimator="u_statistic").discriminator(real, fake), case["hyperparameters"]
        if "dis_scale" in options:
            value = (value - offset) * options["dis_scale"]
        value = value + options.get("dis_penalty", 0.0)
        assert_close(value, tensor(case["outputs"]["loss_dis"]), **TOLERANCE)
        gradients = torch.autograd.grad(value, (real, fake))
        for gradient, side in zip(gradients, ("data", "gen"), strict=True):
            assert_close(gradient, tensor(case["outputs"][f"grad_loss_dis_wrt_score_{side}"]), **TOLERANCE)


def _check(value, critic, numbers, name, prefix):
    assert_close(value, tensor(numbers[name]), **TOLERANCE)
    gradients = torch.autograd.grad(value, critic.weights, retain_graph=True, materialize_grads=True)
    listed = [(g, numbers[prefix + w]) for g, w in zip(gradients, WEIGHTS, strict=True) if prefix + w in numbers]
    assert len(listed) > 1
    for gradient, expected in listed:
        assert_close(gradient, tensor(expected), **TOLERANCE)


# The gradient penalty.


@given(seed=seeds, target=st.floats(0, 3), shape=st.sampled_from([(4,), (2, 3), (1, 2, 2)]))
def test_a_linear_critic_has_the_same_gradient_everywhere(seed, target, shape):
    weight, inputs = scores(1, math.prod(shape), seed).squeeze(0), samples(3, shape, seed + 1)
    found = gradient_penalty(inputs.flatten(1) @ weight, inputs=inputs, target=target)
    assert_close(found, (weight.norm() - target) ** 2)


@given(seed=seeds, target=st.floats(0, 3), d=st.integers(1, 3))
def test_the_penalty_is_that_of_jacobians_one_by_one(seed, target, d):
    critic, inputs = network(6, d, seed=seed), samples(4, (2, 3), seed)
    expected = (squared_jacobians(critic, inputs).sqrt() - target).square().mean()
    assert_close(gradient_penalty(critic(inputs), inputs=inputs, target=target), expected)


@given(seed=seeds, target=st.floats(0, 3))
def test_order_and_axes_of_samples_do_not_matter(seed, target):
    critic, inputs = network(4, 1, seed=seed), samples(5, (4,), seed)
    value = gradient_penalty(critic(inputs), inputs=inputs, target=target)
    mixed = inputs.detach()[torch.randperm(5)].requires_grad_()
    assert_close(gradient_penalty(critic(mixed), inputs=mixed, target=target), value)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    turned = (inputs.detach() @ rotation).requires_grad_()
    assert_close(gradient_penalty(critic(turned @ rotation.T), inputs=turned, target=target), value)


@given(seed=seeds, factor=st.floats(0.1, 4))
def test_target_and_scores_scale_together(seed, factor):
    critic, inputs = network(4, 1, seed=seed), samples(5, (4,), seed)
    value = gradient_penalty(critic(inputs), inputs=inputs, target=0.8)
    stretched = gradient_penalty(factor * critic(inputs), inputs=inputs, target=factor * 0.8)
    assert_close(stretched, factor**2 * value)


@pytest.mark.parametrize("target", [0, 0.5, 1])
@pytest.mark.parametrize("d", [1, 2])
def test_derivatives_by_the_weights_of_the_critic(target, d):
    inputs = samples(4, (3,))
    weights = [scores(3, 4, 2).requires_grad_(), scores(4, d, 3).requires_grad_()]

    def value(first, second):
        return gradient_penalty(torch.tanh(inputs @ first) @ second, inputs=inputs, target=target)

    assert torch.autograd.gradcheck(value, weights)
    assert torch.autograd.gradgradcheck(value, weights)


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_nothing_is_nan_where_the_gradient_vanishes(target, dtype):
    weight = torch.zeros(3, 1, dtype=dtype, requires_grad=True)
    inputs = torch.randn(4, 3, dtype=dtype).requires_grad_()
    value = gradient_penalty(inputs @ weight, inputs=inputs, target=target)
    assert value.item() == target**2
    (gradient,) = torch.autograd.grad(value, weight, create_graph=True)
    assert_close(gradient, torch.zeros_like(weight))
    (second,) = torch.autograd.grad(gradient.sum(), weight, materialize_grads=True)
    assert_close(second, torch.full_like(weight, 0 if target else 2))


def test_a_vanishing_gradient_leaves_the_others_as_they_are():
    # max(x, 0)^3 is flat to second order for the first sample only.
    weight = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    inputs = torch.tensor([[-1.0], [0.5]], dtype=torch.float64, requires_grad=True)
    value = gradient_penalty(weight * inputs.relu() ** 3, inputs=inputs)
    slope = 3 * 0.5**2
    assert_close(value, (1 + (1.5 * slope - 1) ** 2) / 2 * torch.ones((), dtype=torch.float64))
    assert_close(torch.autograd.grad(value, weight)[0].item(), (1.5 * slope - 1) * slope)


def test_without_grad_mode_there_is_a_value():
    critic, inputs = network(3, 1), samples(4, (3,))
    values = critic(inputs).squeeze(1)
    with torch.no_grad():
        value = gradient_penalty(values, inputs=inputs)
    assert not value.requires_grad
    assert_close(value, gradient_penalty(values, inputs=inputs))


@pytest.mark.parametrize("kernel", [RBFKernel(), RationalQuadraticMix() + LinearKernel()], ids=str)
def test_penalties_on_the_witness_go_through_conv_spectral_norm(kernel):
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(48, 2)).double()
    conv_spectral_norm(critic, n_power_iterations=50)
    real, fake, points = (samples(4, (1, 4, 4), seed) for seed in range(3))
    critic(real)
    weight = critic[0].parametrizations.weight.original

    def value():
        for _ in range(3):
            critic.train()(real)
        critic.eval()
        return gradient_penalty(witness(critic(points), critic(real), critic(fake), kernel), inputs=points)

    (gradient,) = torch.autograd.grad(value(), weight)
    step, direction = 1e-5, torch.randn_like(weight)
    values = []
    for move in (step, -2 * step):
        with torch.no_grad():
            weight += move * direction
        values.append(value().detach())
    assert_close((gradient * direction).sum(), (values[0] - values[1]) / (2 * step), rtol=1e-5, atol=1e-8)


# The witness function.


def test_the_penalty_of_a_linear_witness_is_that_of_the_critic():
    # Appendix C: eta(t) = (E phi(x) - E phi(y)) phi(t).
    critic, real, fake, points = network(3, 1), samples(5, (3,)), samples(4, (3,), 1), samples(6, (3,), 2)
    values = witness(critic(points), critic(real), critic(fake), LinearKernel())
    factor = (critic(real).mean() - critic(fake).mean()).abs()
    found = gradient_penalty(values, inputs=points, target=factor.item())
    assert_close(found, factor**2 * gradient_penalty(critic(points), inputs=points))


def test_precision():
    points, real, fake = (scores(20, 2, seed).bfloat16() for seed in range(3))
    found = witness(points, real, fake, RBFKernel())
    assert found.dtype == torch.float32
    assert_close(found.double(), witness(points.double(), real.double(), fake.double(), RBFKernel()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(witness(points.float(), real.float(), fake.float(), RBFKernel()), found)
        assert l2_penalty(points).dtype == torch.float32


# Points.


@pytest.mark.parametrize("shape", [(), (3,), (1, 2, 3)])
def test_points_are_on_the_lines_between_the_samples(shape):
    real, fake = samples(200, shape), samples(200, shape, 1)
    points = interpolation_points(real, fake)
    assert points.is_leaf
    assert points.requires_grad
    u = (points - fake).detach() / (real - fake).detach()
    assert_close(u.reshape(200, -1), u.reshape(200, -1)[:, :1].expand(-1, math.prod(shape)))
    assert 0 <= u.min() < 0.1
    assert 0.9 < u.max() <= 1
    assert abs(u.mean() - 0.5) < 0.1  # five standard errors


def test_points_can_be_drawn_again():
    real, fake = samples(5, (3,)), samples(5, (3,), 1)
    first, second = (interpolation_points(real, fake, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(interpolation_points(real, fake), interpolation_points(real, fake))
    state = torch.get_rng_state()
    interpolation_points(real, fake, generator=torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)


# The L2 penalty.


@given(seed=seeds, factor=st.floats(0.1, 4))
def test_l2_penalty(seed, factor):
    x, y = scores(4, 3, seed), scores(2, 5, seed + 1)
    assert_close(l2_penalty(x, y), x.square().mean() + y.square().mean())
    assert_close(l2_penalty(factor * x), factor**2 * l2_penalty(x))
    assert_close(l2_penalty(x.reshape(2, 3, 2)), l2_penalty(x))
    assert torch.autograd.gradcheck(l2_penalty, (x.requires_grad_(), y.requires_grad_()))


# Misuse.


def test_what_the_gradient_penalty_refuses():
    critic, inputs = network(3, 1), samples(4, (3,))
    found = critic(inputs)

    def refused(error, message, scores=found, inputs=inputs, **options):
        with pytest.raises(error, match=message):
            gradient_penalty(scores, inputs, **options)

    refused(TypeError, "target: expected a real number", target="1")
    refused(ValueError, "target: expected a number >= 0, got -1", target=-1)
    refused(ValueError, "target: expected a finite number", target=math.nan)
    refused(TypeError, "scores: expected a tensor of scores", scores=critic)
    refused(ValueError, "scores: expected scores of shape", scores=found.mean())
    refused(ValueError, "inputs: expected one sample for each of the 4 rows of scores", inputs=inputs[:2])
    refused(ValueError, "inputs: expected samples that require gradients", inputs=inputs.detach())
    refused(ValueError, "scores: expected scores that are differentiable with", scores=found.detach())
    refused(ValueError, "tensor that scores was computed from", inputs=samples(4, (3,)))


def test_what_the_others_refuse():
    x = torch.randn(3, 2)
    for arguments, error, message in [
        ((x, None), TypeError, "fake: expected a tensor of samples, got NoneType"),
        ((x.long(), x), ValueError, "real: expected floating-point samples.* torch.int64"),
        ((x, x.sum()), ValueError, r"fake: expected .* shape \(m, ...\).* shape \(\)"),
        ((x, x[:2]), ValueError, "real, fake: expected the same shape"),
        ((x, x.double()), ValueError, "real, fake: expected the same dtype"),
    ]:
        with pytest.raises(error, match=message):
            interpolation_points(*arguments)
    with pytest.raises(TypeError, match="generator: expected a torch.Generator or None, got 3"):
        interpolation_points(x, x, generator=3)
    with pytest.raises(TypeError, match="outputs: expected at least one tensor"):
        l2_penalty()
    with pytest.raises(TypeError, match=r"outputs\[0\]: expected a tensor"):
        l2_penalty([x])
    with pytest.raises(ValueError, match=r"outputs\[0\]: expected floating-point"):
        l2_penalty(x.long())


def test_transforms_differentiate_by_the_inputs_or_say_why_not():
    critic, inputs = network(3, 2), samples(4, (3,))
    names, weights = zip(*critic.named_parameters(), strict=True)

    def value(x):
        return gradient_penalty(critic(x), x)

    def by_weights(*weights):
        scores = torch.func.functional_call(critic, dict(zip(names, weights, strict=True)), inputs)
        return gradient_penalty(scores, inputs)

    (expected,) = torch.autograd.grad(value(inputs), inputs)
    assert_close(torch.func.grad(value)(inputs.detach()), expected)
    for transform in (
        lambda: torch.func.grad(by_weights)(*weights),
        lambda: torch.func.jvp(by_weights, weights, weights),
        lambda: torch.func.jvp(value, (inputs.detach(),), (expected,)),
    ):
        with pytest.raises(
            ValueError, match="Within transforms, inputs have to be what torch.func.grad or jacrev diff"
        ):
            transform()
