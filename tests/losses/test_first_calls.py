"""Warnings of mistakes in the first calls of a loss: one score per sample, probabilities, constant scores, dead losses,
saturated kernels.
"""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.utils.flop_counter import FlopCounterMode

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    LinearKernel,
    MMDLoss,
    RationalQuadraticKernel,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    ScaledMMDLoss,
    UsageWarning,
    usage_warnings,
)

METHODS = ("discriminator", "generator", "both", "terms", "forward")


def far(m=12, d=16, scale=40.0):
    return (scale * torch.randn(m, d)).requires_grad_()


def near(m=12, d=16):
    return far(m, d, 0.2)


def called(loss, method="discriminator", **scores):
    """Return the warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(loss, method)(**scores)
    assert all(warning.category is UsageWarning for warning in caught)
    return [str(warning.message) for warning in caught]


# One score per sample.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(12,), (12, 1), (12, 1, 1, 1)], ids=str)
def test_one_score_per_sample_is_warned_of(method, shape):
    real, fake = torch.randn(shape), torch.randn(shape).requires_grad_()
    for lambda_ in (0.0, 1.0):
        (message,) = called(MMDLoss(lambda_=lambda_), method, real=real, fake=fake)
        assert message.startswith("MMDLoss: expected several scores per sample for lambda_ >= 0 (the papers use 16)")
        assert str(shape) in message
        assert all(word in message for word in ("flatten(1)", ".view(-1)", ".squeeze()"))
        usage_warnings._warned.clear()
    assert not called(MMDLoss(lambda_=-1), method, real=real, fake=fake)


def test_two_scores_per_sample_are_enough():
    assert not called(MMDLoss(), real=torch.randn(12, 2), fake=torch.randn(12, 1, 2))


def test_one_sample_squeezed_and_scores_flattened_are_seen():
    one = torch.randn(1, 16, 1, 1)
    assert "(16,)" in called(MMDLoss(), real=one.squeeze(), fake=one.squeeze() + 1)[0]
    usage_warnings._warned.clear()
    assert "(128, 1)" in called(MMDLoss(), real=torch.randn(8, 16).view(-1, 1), fake=torch.randn(128, 1))[0]


def test_scaled_losses_have_one_score():
    inputs = torch.randn(8, 3, requires_grad=True)
    loss, critic = ScaledMMDLoss(), nn.Linear(3, 1)
    assert not called(loss, "discriminator", real=critic(inputs), fake=critic(torch.randn(8, 3)), inputs=inputs)


# A sigmoid or a softmax at the end of the discriminator.


class Doubled(torch.autograd.Function):
    """A function between sigmoid and loss of which nothing is known."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


@pytest.mark.parametrize(
    "rearranged",
    [
        lambda x: x,
        lambda x: x.flatten(1),
        lambda x: x.view(12, -1),
        lambda x: x.squeeze(),
        lambda x: x.squeeze((2, 3)),
        lambda x: x.squeeze(2).squeeze(2),
        lambda x: x.clone().reshape(12, -1),
        lambda x: x.chunk(2)[0],
        lambda x: x.split([5, 7])[1],
        lambda x: x.unbind(2)[0],
        lambda x: x[:6],
        lambda x: x.select(2, 0),
        lambda x: x.permute(2, 3, 0, 1).reshape(12, 16),
        lambda x: x.movedim(1, -1).flatten(1),
        lambda x: x.flatten(1).t().t().unsqueeze(1),
        lambda x: x.transpose(2, 3),
        lambda x: x.transpose(0, 1).reshape(12, 16),
        lambda x: x.bfloat16().float(),
    ],
)
@pytest.mark.parametrize("method", ["discriminator", "both"])
def test_a_sigmoid_is_warned_of(method, rearranged):
    scores = {"real": rearranged(near()[..., None, None].sigmoid()), "fake": rearranged(near()[..., None, None])}
    (message,) = called(MMDLoss(), method, **scores)
    assert message.startswith("MMDLoss: expected scores without a sigmoid, got real scores from a sigmoid")
    assert "Remove the sigmoid from the discriminator" in message


@pytest.mark.parametrize(
    "activated",
    [
        lambda x: x,
        lambda x: x.detach().sigmoid(),
        lambda x: x.sigmoid().detach(),
        lambda x: x.tanh(),  # Binkowski et al. take kernels of tanh as well
        lambda x: x.sigmoid() * 2 - 1,
        lambda x: torch.where(x > 0, x, x.sigmoid()),
        lambda x: torch.cat([x.sigmoid(), x]),
        lambda x: Doubled.apply(x.sigmoid()),
        lambda x: 2 * x.softmax(1),
        lambda x: x.softmax(1).detach(),
        lambda x: x.log_softmax(1),
        lambda x: nn.functional.logsigmoid(x),
        lambda x: nn.functional.silu(x),
    ],
)
def test_other_scores_are_not_taken_for_those_of_a_sigmoid(activated):
    assert not called(MMDLoss(), real=activated(near()), fake=near())


@pytest.mark.parametrize("classified", [nn.Softmax(1), lambda x: x.flatten(1).softmax(-1), lambda x: x.softmax(1)[:6]])
@pytest.mark.parametrize("method", ["discriminator", "both"])
def test_class_probabilities_are_warned_of(method, classified):
    (message,) = called(MMDLoss(), method, real=classified(near()), fake=classified(near()))
    assert message.startswith("MMDLoss: expected scores without a softmax, got real scores from a softmax")
    assert "pass the output of its other head, and end that head without a softmax" in message


@pytest.mark.parametrize("method", ["generator", "forward", "terms"])
@pytest.mark.parametrize("activated", [torch.sigmoid, lambda x: (9 * x).softmax(1)])
def test_samples_of_a_generator_may_be_probabilities(method, activated):
    # Moment matching without a discriminator, features or codes in (0, 1), domain adaptation by class probabilities.
    assert not called(MMDLoss(), method, real=near(), fake=activated(near()))
    assert not called(MMDLoss(), method, real=activated(near()), fake=activated(near()))


@pytest.mark.parametrize(("method", "count"), [("discriminator", 1), ("both", 1), ("generator", 0), ("terms", 0)])
def test_a_sigmoid_before_a_scaled_loss_is_warned_of(method, count):
    inputs = torch.randn(8, 3, requires_grad=True)
    critic = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())
    scores = {"real": critic(inputs), "fake": critic(torch.randn(8, 3)), "inputs": inputs}
    messages = called(ScaledMMDLoss(), method, **scores)
    assert len(messages) == count
    assert all(message.startswith("ScaledMMDLoss: expected scores without a sigmoid") for message in messages)


@pytest.mark.slow
def test_a_compiled_sigmoid_is_not_seen():
    sigmoid = torch.compile(torch.sigmoid, backend="aot_eager")
    assert not called(MMDLoss(), real=sigmoid(near()), fake=sigmoid(near()))


def test_an_unchanged_discriminator_of_bce_is_warned_of_twice():
    critic = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid(), nn.Flatten(0))
    messages = called(MMDLoss(), real=critic(torch.randn(8, 3)), fake=critic(torch.randn(8, 3)))
    assert [message.split(",")[0] for message in messages] == [
        "MMDLoss: expected several scores per sample for lambda_ >= 0 (the papers use 16)",
        "MMDLoss: expected scores without a sigmoid",
    ]


# Constant scores on one side of the discriminator's loss.

LEARNS = "expected real and fake scores that require gradients in the discriminator's loss, got"


def detached(side):
    """Return scores of which one side has no gradient."""
    scores = {"real": near(), "fake": near()}
    return scores | {side: scores[side].detach()}


@pytest.mark.parametrize("method", ["discriminator", "both"])
@pytest.mark.parametrize(
    ("side", "remedy"),
    [
        ("real", "The discriminator then learns from the fake scores only. Pass D(real), not scores that are detached"),
        ("fake", "The discriminator then learns from the real scores only. Pass D(fake.detach()): detach the samples"),
    ],
)
def test_scores_without_gradients_are_warned_of_at_the_second_time(method, side, remedy):
    loss = MMDLoss()
    assert not called(loss, method, **detached(side))
    (message,) = called(loss, method, **detached(side))
    assert message.startswith(f"MMDLoss: {LEARNS} {side} scores that do not, twice in a row. {remedy}")


def test_constant_scores_are_found_in_a_loop_that_updates_the_generator_first():
    D, G, loss = nn.Linear(3, 16), nn.Linear(2, 3), MMDLoss()
    messages = []
    for _ in range(2):
        real_scores, fake = D(torch.randn(8, 3)).detach(), G(torch.randn(8, 2))
        messages.append(called(loss, "generator", real=real_scores, fake=D(fake)))
        messages.append(called(loss, "discriminator", real=real_scores, fake=D(fake.detach())))
    assert [len(found) for found in messages] == [0, 0, 0, 1]


def test_constant_fake_scores_of_a_scaled_loss_are_found():
    inputs, critic, loss = torch.randn(8, 3, requires_grad=True), nn.Linear(3, 1), ScaledMMDLoss()
    scores = {"real": critic(inputs), "fake": critic(torch.randn(8, 3)).detach(), "inputs": inputs}
    assert [len(called(loss, **scores)) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize("sides", [("real", "fake"), ("fake", "real")])
def test_two_losses_that_each_detach_the_other_side_are_right(sides):
    loss = MMDLoss()
    for _ in range(3):
        assert not any(called(loss, "discriminator", **detached(side)) for side in sides)


def test_constant_scores_in_between_are_right():
    loss, both_constant = MMDLoss(), {"real": near().detach(), "fake": near().detach()}
    for between in (detached("real") | {"real": near()}, both_constant):
        assert not called(loss, **detached("real"))
        assert not called(loss, **between)
        loss._first_calls.discriminator = 3
    assert not called(loss, **detached("real"))


class Mapped(Kernel):
    """A kernel of features, which is itself the discriminator."""

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(16, 4)

    def forward(self, a, b):
        return RBFKernel()(self.network(a), self.network(b))


@pytest.mark.parametrize("kernel", [Mapped(), 2 * Mapped() + RBFKernel(trainable=True)], ids=["alone", "sum"])
def test_samples_without_gradients_are_right_for_a_kernel_that_is_the_discriminator(kernel):
    loss = MMDLoss(kernel)
    assert not any(called(loss, **detached("real")) for _ in range(3))
    kernel.requires_grad_(False)
    loss = MMDLoss(kernel)
    assert [len(called(loss, **detached("real"))) for _ in range(2)] == [0, 1]


def test_a_trained_bandwidth_does_not_make_a_kernel_the_discriminator():
    loss = MMDLoss(RBFKernel(trainable=True))
    assert [len(called(loss, **detached("real"))) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize("method", ["generator", "forward", "terms"])
def test_real_scores_of_the_generator_are_constant(method):
    loss = MMDLoss()
    assert not any(called(loss, method, **detached("real")) for _ in range(3))


def test_calls_without_gradients_and_in_function_transforms_are_not_judged():
    loss, real = MMDLoss(), near().detach()
    with torch.no_grad():
        assert not any(called(loss, **detached("real")) for _ in range(3))
    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            torch.func.grad(lambda fake: loss.discriminator(real=real, fake=fake))(near().detach())
    assert loss._first_calls.discriminator == 3


# Dead losses.


@pytest.mark.parametrize("method", ["discriminator", "generator", "both", "forward"])
@pytest.mark.parametrize(
    "kernel", [RBFBKernel(), RBFMix(), 2 * RBFKernel(0.5) + RBFKernel(), RationalQuadraticKernel(20.0)], ids=str
)
@pytest.mark.parametrize("m", [12, 260])  # dense and in tiles
def test_a_dead_loss_is_warned_of(method, kernel, m):
    torch.manual_seed(0)
    real, fake = far(m), far(m)
    loss = MMDLoss(kernel)
    if isinstance(kernel, RationalQuadraticKernel):
        real, fake = (1e4 * real).detach().requires_grad_(), (1e4 * fake).detach().requires_grad_()
    value = getattr(loss, method)
    with pytest.warns(UsageWarning) as caught:
        found = value(real=real, fake=fake)
    (message,) = (str(warning.message) for warning in caught)
    mean = torch.pdist(torch.cat([real, fake]).detach().double()).square().mean()
    assert f"The mean squared distance of the scores is {float(mean):.4g}" in message
    assert message.startswith(
        "MMDLoss: expected gradients, got gradients of exactly zero for all scores: the scores are"
    )
    assert "too far apart" in message
    assert "torch_mmd_losses.median_distance(scores)" in message
    assert "a smaller scale= of conv_spectral_norm" in message
    for part in kernel.modules():
        if hasattr(part, "sigma"):
            assert f"sigma={part.sigma}" in message
    for each in found if isinstance(found, tuple) else (found,):
        gradients = torch.autograd.grad(each, (real, fake), retain_graph=True)
        assert not any(gradient.any() for gradient in gradients)


def test_each_place_is_warned_of_once():
    loss = MMDLoss()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            MMDLoss().discriminator(real=far(), fake=far())
        loss.generator(real=far(), fake=far())
    assert len(caught) == 2
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("left", range(4))
def test_three_calls_are_examined(left):
    loss = MMDLoss()
    for _ in range(left):
        assert not called(loss, real=near(), fake=near())
    assert bool(called(loss, real=far(), fake=far())) == (left < 3)


class Steps(Kernel):
    """A kernel whose slope is zero everywhere: it cannot train anything."""

    def from_sq_dist(self, sq_dist):
        return (sq_dist < 1).to(sq_dist.dtype)


class TrainedSteps(Steps):
    """The same with a factor that is trained, so that its values have a graph."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def from_sq_dist(self, sq_dist):
        return self.factor * super().from_sq_dist(sq_dist)


@pytest.mark.parametrize("kernel", [Steps(), TrainedSteps()], ids=["fixed", "trained"])
def test_a_kernel_without_a_slope_is_dead(kernel):
    assert called(MMDLoss(kernel), real=near(), fake=near())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_examined(dtype):
    assert called(MMDLoss(), real=far().to(dtype), fake=far().to(dtype))
    assert not called(MMDLoss(), real=near().to(dtype), fake=near().to(dtype))


def test_a_dead_scaled_loss_is_warned_of():
    inputs = torch.randn(8, 3, requires_grad=True)
    critic = nn.Linear(3, 1)
    with torch.no_grad():
        critic.weight.mul_(1e6)
    (message,) = called(ScaledMMDLoss(), real=critic(inputs), fake=critic(torch.randn(8, 3)), inputs=inputs)
    assert message.startswith("ScaledMMDLoss: expected gradients")


same = torch.randn(8, 16)
constant = torch.full((8, 16), 0.1)
two_points = torch.zeros(8, 16)


@pytest.mark.parametrize(
    ("kernel", "real", "fake"),
    [
        (RBFBKernel(), same / 5, same / 5),
        (RBFKernel(), constant, constant),
        (RBFKernel(1e-3), constant, constant),
        (EnergyKernel(), constant, constant),
        (LinearKernel(), 40 * same, 40 * same),
        (EnergyKernel(), 1e6 * same, -1e6 * same),
        (RBFKernel() + LinearKernel(), 40 * same, -40 * same),
        (RBFKernel() + RBFKernel(1e3), 40 * same, -40 * same),
        (RBFKernel(), torch.full((8, 16), torch.nan), same),
        (RBFKernel(), 1e-3 * same, -1e-3 * same),  # weak, but not zero
        (RBFKernel(), torch.cat([40 * same, torch.zeros(1, 16)]), torch.full((2, 16), 0.1)),  # one pair is enough
    ],
)
def test_losses_with_a_gradient_or_without_a_difference_are_not_dead(kernel, real, fake):
    assert not called(MMDLoss(kernel), real=real, fake=fake)
    assert not called(MMDLoss(kernel), "both", real=real, fake=fake)


def test_a_discriminator_at_its_bounds_is_not_dead():
    # Real scores beyond the upper bound, fake ones within the lower bound: Eq. 7 wants no more.
    real = torch.tensor([[0.0, 0.0], [2.5, 0.0]], requires_grad=True)
    fake = torch.tensor([[5.0, 0.0], [5.1, 0.0]], requires_grad=True)
    loss = MMDLoss()
    assert not called(loss, real=real, fake=fake)
    assert not torch.autograd.grad(loss.discriminator(real, fake), real)[0].any()


# Saturated terms.


@pytest.mark.parametrize(("scale", "word"), [(40.0, "smaller scale="), (1e-3, "larger scale=")])
def test_saturated_terms_are_warned_of(scale, word):
    real, fake = far(scale=scale), far(scale=scale)
    loss = MMDLoss()
    (message,) = called(loss, "terms", real=real, fake=fake)
    assert "got 100.0% saturated pairs" in message
    assert word in message
    assert "median_distance" in message
    assert loss._first_calls.losses == 3


def test_three_calls_of_terms_are_examined():
    loss = MMDLoss()
    for _ in range(3):
        assert not called(loss, "terms", real=near(), fake=near())
    assert not called(loss, "terms", real=far(), fake=far())


@pytest.mark.parametrize(
    ("kernel", "lambda_", "real", "fake"),
    [
        (RBFKernel(), 1.0, constant, constant),
        (LinearKernel(), 1.0, 40 * same, -40 * same),
        (RBFKernel(), 1.0, torch.full((8, 16), torch.nan), same),
        # All pairs are beyond the bounds of Eq. 6, but the generator has a gradient.
        (RBFBKernel(), -1.0, 0.01 * same, 0.01 * same + torch.tensor([2.1] + 15 * [0.0])),
    ],
)
def test_terms_without_a_wrong_bandwidth_are_not_warned_of(kernel, lambda_, real, fake):
    assert not called(MMDLoss(kernel, lambda_), "terms", real=real, fake=fake)


def test_saturation_in_tiles():
    real, fake = far(400), far(400)
    assert called(MMDLoss(), "terms", real=real, fake=fake)
    fake = torch.cat([fake, 0.1 * torch.randn(200, 16)])  # 4 % of the pairs
    assert not called(MMDLoss(), "terms", real=real, fake=fake)


# Where the host must not read, and what the counters survive.


def test_nothing_is_read_where_it_must_not_be():
    real, fake = far().detach(), far().detach()
    loss = MMDLoss()

    def silent(function, *arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return function(*arguments)

    silent(torch.func.grad(lambda scores: loss.generator(real, scores)), fake)
    silent(torch.func.vmap(lambda a, b: loss.both(a, b)), real.unsqueeze(0), fake.unsqueeze(0))
    silent(MMDLoss().both, real.to("meta"), fake.to("meta"))
    with FlopCounterMode(display=False):
        silent(MMDLoss().both, real, fake)


@pytest.mark.slow
def test_a_compiled_loss_is_one_graph_and_is_not_compiled_again():
    counter = CompileCounter()
    loss = MMDLoss()

    @torch.compile(backend=counter, fullgraph=True)
    def step(real, fake):
        return loss.both(real=real, fake=fake), loss.terms(real=real, fake=fake), loss(real=real, fake=fake)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            step(far(), far())
            loss.both(near(), near())  # counts
    assert counter.frame_count == 1


def test_the_counters_are_no_state_and_survive_copies():
    loss = MMDLoss()
    loss.both(near(), near())
    loss.terms(near(), near())
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert vars(copied._first_calls) == {"losses": 2, "discriminator": 2, "terms": 2, "constant": None}
    assert set(loss.state_dict()) == {"kernel._extra_state"}
