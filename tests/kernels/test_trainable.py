"""Kernels of the library with trained hyper-parameters."""

import copy
import pickle
from functools import partial

import pytest
import torch
from cases import scores
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    InverseMultiquadricKernel,
    Kernel,
    LaplaceKernel,
    LinearKernel,
    MaternKernel,
    MMDLoss,
    PolynomialKernel,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    ScaledMMDLoss,
    gradient_constrained_mmd2,
    mmd2,
    mmd2_blocks,
    mmd2_fourier,
    mmd_test,
    witness,
)
from torch_mmd_losses.kernels import trained_profiles

KERNELS = {
    "RBFKernel": (RBFKernel, {"sigma": 2.0}),
    "RBFMix": (RBFMix, {"sigmas": (0.5, 2.0), "weights": (0.25, 3.0)}),
    "RationalQuadraticKernel": (RationalQuadraticKernel, {"alpha": 0.7, "length": 3.0}),
    "RationalQuadraticMix": (
        RationalQuadraticMix,
        {"alphas": (0.5, 20.0), "weights": (0.25, 3.0), "length": 3.0},
    ),
    "LaplaceKernel": (LaplaceKernel, {"scale": 2.0}),
    "MaternKernel": (MaternKernel, {"length": 2.0}),
    "InverseMultiquadricKernel": (InverseMultiquadricKernel, {"c": 2.0}),
}

PARTLY_TRAINED = {
    "floor": (LaplaceKernel, {"scale": 2.0, "floor": 1.0}),
    "order 1/2": (MaternKernel, {"nu": 0.5, "length": 2.0}),
    "order 5/2": (MaternKernel, {"nu": 2.5, "length": 2.0}),
    "exponent": (InverseMultiquadricKernel, {"c": 2.0, "beta": -1.5}),
}
"""Kernels with a hyper-parameter that stays fixed, each with its numbers."""

every_kernel = pytest.mark.parametrize(("kind", "numbers"), KERNELS.values(), ids=KERNELS)
partly_trained = pytest.mark.parametrize(("kind", "numbers"), PARTLY_TRAINED.values(), ids=PARTLY_TRAINED)
also_partly_trained = pytest.mark.parametrize(
    ("kind", "numbers"), [*KERNELS.values(), *PARTLY_TRAINED.values()], ids=[*KERNELS, *PARTLY_TRAINED]
)


@every_kernel
def test_a_trained_kernel_starts_as_the_fixed_one(kind, numbers):
    fixed, trained = kind(**numbers), kind(**numbers, trainable=True)
    real, fake = scores(6, 2, 1).float(), scores(5, 2, 2).float()
    assert_close(trained(real, fake), fixed(real, fake))
    assert_close(mmd2(real, fake, trained), mmd2(real, fake, fixed))
    assert repr(trained) == f"{repr(fixed)[:-1]}, trainable=True)"
    assert not list(fixed.parameters())
    for name, number in numbers.items():
        logarithm = getattr(trained, f"log_{name}")
        assert isinstance(logarithm, nn.Parameter)
        assert logarithm.dtype == torch.get_default_dtype()
        assert_close(getattr(trained, name), torch.tensor(number))
        assert getattr(trained, name).requires_grad
    assert [name for name, _ in trained.named_parameters()] == [f"log_{name}" for name in numbers]


@every_kernel
def test_copies_pickles_and_states_keep_trained_numbers(kind, numbers, tmp_path):
    kernel = kind(**numbers, trainable=True)
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter.add_(0.3)
    torch.save(kernel.state_dict(), tmp_path / "kernel.pt")
    fresh = kind(**numbers, trainable=True)
    fresh.load_state_dict(torch.load(tmp_path / "kernel.pt", weights_only=True))
    for other in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel)), fresh):
        assert repr(other) == repr(kernel)
        for mine, theirs in zip(other.parameters(), kernel.parameters(), strict=True):
            assert mine is not theirs
            assert_close(mine, theirs, rtol=0, atol=0)


@every_kernel
def test_states_of_fixed_kernels_are_refused(kind, numbers):
    fixed, trained = kind(**numbers), kind(**numbers, trainable=True)
    before = copy.deepcopy(trained.state_dict())
    with pytest.raises(ValueError, match=f"state of {kind.__name__}: expected one that was saved with trainable=True"):
        trained.load_state_dict(fixed.state_dict())
    assert_close(trained.state_dict(), before)
    with pytest.raises(ValueError, match=f"state of {kind.__name__}: expected .* got [01] numbers"):
        fixed.load_state_dict(trained.state_dict())


def test_an_assignment_writes_into_the_parameter():
    kernel = RBFMix((1.0, 2.0), trainable=True)
    parameter = kernel.log_sigmas
    kernel.sigmas = (3, 4)
    assert kernel.log_sigmas is parameter
    assert_close(kernel.sigmas, torch.tensor([3.0, 4.0]))
    for name, value, error, message in [
        ("sigmas", (1, 2, 3), ValueError, "sigmas: expected 2 numbers, as before, got 3"),
        ("sigmas", (1, -2), ValueError, r"sigmas\[1\]: expected a number > 0, got -2"),
        ("sigmas", (1, 1e-20), ValueError, r"sigmas\[1\]: expected a number between 1e-09 and 1e\+09, got 1e-20"),
        ("sigmas", 1.0, TypeError, "sigmas: expected a sequence of numbers > 0, got 1.0"),
        ("sigmas", torch.ones(2), TypeError, "sigmas: expected a sequence .*trainable=True"),
        ("log_sigmas", 1.0, TypeError, "cannot assign"),
    ]:
        with pytest.raises(error, match=message):
            setattr(kernel, name, value)
    assert_close(kernel.sigmas, torch.tensor([3.0, 4.0]))


def test_wrong_arguments_are_refused():
    for make, error, message in [
        (lambda: RBFKernel(trainable=1), TypeError, "trainable: expected True or False, got 1 of type int"),
        (lambda: RBFKernel(1e-10, trainable=True), ValueError, "sigma: expected a number between 1e-09 and 1e"),
        (lambda: RBFKernel(nn.Parameter(torch.ones(()))), TypeError, "sigma: .*numbers and trainable=True"),
        (lambda: RBFMix(torch.ones(2)), TypeError, "sigmas: .*numbers and trainable=True"),
        (lambda: RBFMix([torch.ones(()), 1.0]), TypeError, r"sigmas\[0\]: .*numbers and trainable=True"),
        (lambda: RationalQuadraticKernel(length=torch.ones(())), TypeError, "length: .*trainable=True"),
        (lambda: RationalQuadraticMix(torch.ones(2)), TypeError, "alphas: .*trainable=True"),
        (lambda: RBFKernel(True), TypeError, "sigma: expected a real number, got True of type bool$"),
        (lambda: RBFBKernel(trainable=True), TypeError, "trainable"),
        (lambda: RBFKernel(trainable=True).tau, AttributeError, "'RBFKernel' object has no attribute 'tau'"),
        (lambda: RBFKernel.__new__(RBFKernel).sigma, AttributeError, "'RBFKernel' object has no attribute 'sigma'"),
        (lambda: RBFKernel.sigma.missing, AttributeError, "missing"),
    ]:
        with pytest.raises(error, match=message):
            make()


def test_modules_move_and_convert_the_parameters():
    kernel, real, fake = RBFKernel(3.0, trainable=True), scores(6, 2, 1), scores(5, 2, 2)
    expected = mmd2(real, fake, RBFKernel(3.0))
    assert_close(mmd2(real, fake, kernel), expected, rtol=1e-5, atol=1e-7)  # the logarithm is a float32 number
    assert repr(copy.deepcopy(kernel).to("meta")) == "RBFKernel(sigma=..., trainable=True)"
    assert copy.deepcopy(kernel).double().sigma.dtype == torch.float64
    with torch.device("meta"):
        assert RBFKernel(trainable=True).log_sigma.is_meta


class Mapped(Kernel):
    """A kernel of the outputs of a network."""

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(2, 3)
        self.register_buffer("scale", torch.tensor(0.3))

    def forward(self, a, b):
        return RBFKernel()(self.network(a * self.scale), self.network(b * self.scale))


HALVED = {name: partial(kind, **numbers, trainable=True) for name, (kind, numbers) in KERNELS.items()} | {
    "sum": lambda: RBFKernel(2.0, trainable=True) + 0.3 * LaplaceKernel(2.0, trainable=True),
    "network": Mapped,
}


@pytest.mark.parametrize("make", HALVED.values(), ids=HALVED)
@pytest.mark.parametrize("convert", [lambda x: x.half(), lambda x: x.to("cpu", torch.bfloat16), lambda x: x.bfloat16()])
def test_kernels_stay_precise_in_modules_of_half_precision(make, convert):
    torch.manual_seed(0)
    kernel, real, fake = make(), scores(6, 2, 1).bfloat16(), scores(5, 2, 2).bfloat16()
    model = nn.ModuleDict({"network": nn.Linear(2, 2), "loss": MMDLoss(copy.deepcopy(kernel))})
    converted = convert(model)
    assert converted["network"].weight.element_size() == 2

    def step(loss):
        value = loss.generator(real=real, fake=fake)
        return value, torch.autograd.grad(value, list(loss.parameters()))

    assert_close(step(converted["loss"]), step(MMDLoss(kernel)), rtol=0, atol=0)


@pytest.mark.parametrize("make", HALVED.values(), ids=HALVED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("assign", [False, True])
def test_kernels_stay_precise_if_a_state_of_half_precision_is_loaded(make, dtype, assign):
    torch.manual_seed(0)
    model = nn.ModuleDict({"network": nn.Linear(2, 2), "loss": MMDLoss(make())})
    state = {
        name: tensor if name.endswith("_extra_state") else nn.Parameter((tensor + 0.1).to(dtype))
        for name, tensor in model.state_dict().items()
    }
    dtypes = {name: tensor.dtype for name, tensor in state.items()}
    model.load_state_dict(state, assign=assign)
    assert model["network"].weight.dtype == (dtype if assign else torch.float32)
    loss = model["loss"]
    for name, tensor in [*loss.named_parameters(), *loss.named_buffers()]:
        assert tensor.dtype == torch.float32
        assert tensor.requires_grad == isinstance(tensor, nn.Parameter)
        assert_close(tensor.detach(), state[f"loss.{name}"].detach().float(), rtol=0, atol=0)
    assert {name: tensor.dtype for name, tensor in state.items()} == dtypes


def test_a_network_that_is_given_in_half_precision_stays_so():
    kernel = Mapped()
    kernel.network.half()
    assert kernel.cpu().network.weight.dtype == torch.float16
    assert kernel.scale.dtype == torch.float32
    kernel.load_state_dict(kernel.state_dict(), assign=True)
    assert kernel.network.weight.dtype == torch.float16
    assert kernel.double().network.weight.dtype == torch.float64


def test_kernels_that_are_made_in_half_precision_train_in_float32():
    torch.set_default_dtype(torch.bfloat16)
    try:
        kernel = RBFKernel(3.0, trainable=True)
    finally:
        torch.set_default_dtype(torch.float32)
    assert kernel.log_sigma.dtype == torch.float32
    with torch.no_grad():
        kernel.log_sigma.sub_(1e-3)  # less than half of the spacing of numbers near 1.1 in bfloat16
    assert_close(kernel.sigma.item(), 3.0 * torch.tensor(-1e-3).exp().item())


def test_a_frozen_kernel_is_like_any_other():
    kernel, real, fake = RBFKernel(2.0, trainable=True).requires_grad_(False), scores(6, 2, 1), scores(5, 2, 2)
    value = mmd2(real.requires_grad_(), fake, kernel)
    assert_close(value, mmd2(real, fake, RBFKernel(2.0)), rtol=1e-6, atol=1e-8)
    value.backward()
    assert kernel.log_sigma.grad is None


def test_sums_and_multiples_train_their_parts():
    kernel = RBFKernel(2.0, trainable=True)
    total = 3 * (kernel + EnergyKernel()) + LinearKernel()
    assert [id(p) for p in total.parameters()] == [id(kernel.log_sigma)]
    mmd2(scores(6, 2, 1), scores(5, 2, 2), total).backward()
    (expected,) = torch.autograd.grad(mmd2(scores(6, 2, 1), scores(5, 2, 2), kernel), kernel.log_sigma)
    assert_close(kernel.log_sigma.grad, 3 * expected)


@also_partly_trained
def test_derivatives_by_hand_are_those_of_autograd(kind, numbers):
    kernel = kind(**numbers, trainable=True).double()
    sq_dist = scores(5, 6).square() * 4
    points = sq_dist.clone().requires_grad_()
    total = kernel.from_sq_dist(points).sum()
    slope, *steps = torch.autograd.grad(total, [points, *kernel._logarithms()])
    found = kernel._function().steps(sq_dist)
    assert_close(found.mapped.value, kernel.from_sq_dist(sq_dist).detach())
    assert_close(found.mapped.slope * found.mapped.rate, slope)
    assert_close(tuple(found.steps), tuple(steps))


@also_partly_trained
def test_derivatives_by_hand_read_nothing_where_that_is_a_synchronisation(kind, numbers, monkeypatch):
    kernel = kind(**numbers, trainable=True).double()
    sq_dist = scores(5, 6).square() * 4
    expected = kernel._function().steps(sq_dist)
    monkeypatch.setattr(trained_profiles, "_scalars", lambda tensor: tensor.detach().reshape(-1).unbind())
    found = kernel._function().steps(sq_dist)
    assert_close(found.mapped.value, expected.mapped.value)
    assert_close(found.mapped.slope * found.mapped.rate, expected.mapped.slope * expected.mapped.rate)
    assert_close(tuple(found.steps), tuple(expected.steps))


@partly_trained
def test_numbers_that_are_not_trained_are_those_of_the_fixed_kernel(kind, numbers):
    fixed, trained = kind(**numbers), kind(**numbers, trainable=True)
    real, fake = scores(6, 2, 1).float(), scores(5, 2, 2).float()
    assert_close(trained(real, fake), fixed(real, fake))
    assert_close(mmd2(real, fake, trained), mmd2(real, fake, fixed))
    (parameter,) = trained.parameters()
    (name,) = (name for name, number in numbers.items() if isinstance(getattr(trained, name), torch.Tensor))
    assert parameter is getattr(trained, f"log_{name}")
    (other,) = set(numbers) - {name}
    assert getattr(trained, other) == numbers[other]
    assert repr(trained) == f"{repr(fixed)[:-1]}, trainable=True)"
    fresh = kind(**{name: 1.5}, trainable=True)
    fresh.load_state_dict(trained.state_dict())
    assert repr(fresh) == repr(trained)
    with pytest.raises(ValueError, match="expected one that was saved with trainable=True"):
        fresh.load_state_dict(fixed.state_dict())
    setattr(trained, other, getattr(kind(), other))
    setattr(trained, name, 3.0)
    assert repr(trained) == repr(kind(**{name: 3.0}, trainable=True))


def test_a_trained_scale_may_fall_below_the_floor():
    kernel = LaplaceKernel(2.0, floor=1.0, trainable=True)
    kernel.scale = 0.5
    kernel.floor = 0.8
    assert_close(kernel(torch.zeros(1, 1), torch.ones(1, 1)), torch.tensor([[-2.0]]).exp())
    assert_close(kernel(torch.zeros(1, 1), torch.full((1, 1), 0.1)), torch.tensor([[-1.6]]).exp())
    with pytest.raises(ValueError, match="scale, floor: expected floor <= scale"):
        LaplaceKernel(0.5, floor=1.0, trainable=True)


@every_kernel
def test_all_functions_take_trained_kernels(kind, numbers):
    fixed, trained = kind(**numbers), kind(**numbers, trainable=True).double()
    real, fake = scores(6, 2, 1).requires_grad_(), scores(6, 2, 2)

    def generator():
        return torch.Generator().manual_seed(0)

    functions = [
        lambda kernel: mmd2_blocks(real, fake, kernel, block_size=3).value,
        lambda kernel: witness(fake, real, fake, kernel).sum(),
        lambda kernel: mmd_test(real, fake, kernel, permutations=9, generator=generator()).statistic,
        lambda kernel: MMDLoss(kernel).terms(real, fake).k_rr,
    ]
    if fixed._is_smooth:
        functions += [
            lambda kernel: gradient_constrained_mmd2(real, fake, kernel),
            lambda kernel: ScaledMMDLoss(kernel).discriminator(real=2 * real, fake=fake, inputs=real),
        ]
    for function in functions:
        value, expected = function(trained), function(fixed)
        assert_close(value, expected, rtol=1e-6, atol=1e-9)
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value, [trained._logarithms()[0]])
            assert gradient.abs().max() > 1e-9


def test_random_features_refuse_trained_kernels():
    with pytest.raises(TypeError, match=r"kernel: expected fixed hyper-parameters, .* got RBFKernel\(sigma=1.0, train"):
        mmd2_fourier(scores(6, 2, 1), scores(5, 2, 2), RBFKernel(trainable=True), frequencies=8)


def test_kernels_that_are_not_trained_say_so_by_their_arguments():
    for kind in (LinearKernel, EnergyKernel, PolynomialKernel, RBFBKernel):
        with pytest.raises(TypeError, match="trainable"):
            kind(trainable=True)
