"""Hyper-parameters: checks, assignment, state and repr."""

import copy
import math
import pickle
from array import array
from collections import deque
from fractions import Fraction

import numpy as np
import pytest
import torch
from cases import CASES, KernelCase, scores
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    InverseMultiquadricKernel,
    Kernel,
    L1LaplaceKernel,
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
    drift_loss,
    mmd2,
    relative,
)

every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@every_kernel
def test_state_follows_deepcopy_pickle_and_state_dict(case: KernelCase, tmp_path):
    kernel, a, b = case.make(), scores(3, 2, 1), scores(4, 2, 2)
    expected = kernel(a, b)
    assert_close(copy.deepcopy(kernel)(a, b), expected)
    assert_close(pickle.loads(pickle.dumps(kernel))(a, b), expected)
    torch.save(kernel.state_dict(), tmp_path / "kernel.pt")
    fresh = case.make()
    fresh.load_state_dict(torch.load(tmp_path / "kernel.pt", weights_only=True))
    assert_close(fresh(a, b), expected)


def test_state_dict_carries_hyperparameters_exactly():
    source, target = RBFMix((0.1, 0.7), weights=(1 / 3, 2)), RBFMix((1, 1))
    target.load_state_dict(source.state_dict())
    assert (target.sigmas, target.weights) == (source.sigmas, source.weights)
    bounded = RBFBKernel()
    bounded.load_state_dict(RBFBKernel(0.1, 0.2, 0.3).state_dict())
    assert (bounded.sigma, bounded.lower, bounded.upper) == (0.1, 0.2, 0.3)
    polynomial = PolynomialKernel()
    polynomial.load_state_dict(PolynomialKernel(5, offset=0.1).state_dict())
    assert repr(polynomial) == "PolynomialKernel(degree=5, offset=0.1)"
    total = 2 * RBFKernel(3) + RationalQuadraticKernel(4)
    loaded = 1 * RBFKernel() + RationalQuadraticKernel()
    loaded.load_state_dict(total.state_dict())
    assert_close(loaded(scores(2, 2), scores(3, 2)), total(scores(2, 2), scores(3, 2)))


def test_state_of_another_kernel_is_refused():
    with pytest.raises(ValueError, match=r"expected \['sigmas', 'weights'\] with \[5, 5\] numbers, got 4"):
        RBFMix().load_state_dict(RBFMix((1, 2)).state_dict())
    with pytest.raises(ValueError, match="sigma: expected a number > 0, got -1.0"):
        RBFKernel().set_extra_state(RBFKernel().get_extra_state() * torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"lower < upper, got 4.0 and 0.25"):
        RBFBKernel().set_extra_state(RBFBKernel().get_extra_state()[[0, 1, 3, 2]])
    with pytest.raises(ValueError, match=r"expected \['sigma'\] with \[1\] numbers, got 2 numbers or another kernel's"):
        RBFKernel().load_state_dict(RationalQuadraticKernel(5.0).state_dict())


def _state(kernel):
    return {name: value.clone() for name, value in kernel.state_dict().items()}


def _broken(state, index=-1, value=-1.0):
    """Return a state whose last kernel is out of range."""
    last = [name for name in state if name.endswith("_extra_state")][-1]
    state[last] = state[last].clone()
    state[last][index] = value
    return state


class Wrapper(nn.Module):
    """A module of a user, which PyTorch loads child by child."""

    def __init__(self, kernel):
        super().__init__()
        self.loss, self.layer = MMDLoss(kernel), nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (RBFKernel() + RationalQuadraticKernel(), RBFKernel(5) + RationalQuadraticKernel(7)),
        (2 * (RBFKernel() + 3 * RBFMix()), 4 * (RBFKernel(5) + 6 * RBFMix((1, 2, 3, 4, 5)))),
        (RBFMix(), RBFMix((1, 2, 3, 4, 5), weights=(5, 4, 3, 2, 1))),
        (RBFKernel() + RBFBKernel(), RBFKernel(5) + RBFBKernel(5)),
    ],
    ids=["sum", "multiple", "mixture", "bounded"],
)
@pytest.mark.parametrize("root", [lambda kernel: kernel, MMDLoss, Wrapper], ids=["kernel", "loss", "module"])
def test_a_state_is_loaded_as_a_whole_or_not_at_all(own, other, root):
    target, before = root(own), _state(own)
    source = _state(root(other))

    def unchanged():
        return all(torch.equal(value, before[name]) for name, value in own.state_dict().items())

    with pytest.raises(ValueError, match="expected"):
        target.load_state_dict(_broken(dict(source)))
    assert unchanged()
    if root is not Wrapper:  # a module of the user's has PyTorch's own way with missing and unexpected keys
        last = [name for name in source if name.endswith("_extra_state")][-1]
        with pytest.raises(RuntimeError, match="Missing key"):
            target.load_state_dict({name: value for name, value in source.items() if name != last})
        assert unchanged()
        with pytest.raises(RuntimeError, match="Unexpected key"):
            target.load_state_dict({**source, "more": torch.zeros(1)})
        assert unchanged()
        target.load_state_dict({}, strict=False)
        assert unchanged()
    target.load_state_dict(source)
    assert repr(own) == repr(other)
    own.load_state_dict(before)


@pytest.mark.parametrize("kind", [lambda kernel: kernel, MMDLoss], ids=["kernel", "loss"])
def test_tensors_are_not_assigned_from_a_state_that_is_refused(kind):
    kernel = RBFKernel(2.0, trainable=True) + RBFMix((1.0, 2.0), trainable=True)
    parameters, state = list(kernel.parameters()), _state(kind(kernel))
    first, *_, last = [name for name in state if "log_" in name]
    state[first], state[last] = state[first] + 1, torch.zeros(3)
    given = dict(state)
    with pytest.raises(RuntimeError, match="size mismatch"):
        kind(kernel).load_state_dict(state, assign=True)
    for parameter, before in zip(kernel.parameters(), parameters, strict=True):
        assert parameter is before  # the optimiser has it
    assert_close(kernel.parts[0].sigma.item(), 2.0)
    assert_close(state, given)
    assert_close(state[first], torch.tensor(2.0).log() + 1)


def test_states_that_are_no_numbers_are_refused():
    for bad, error, message in [
        (None, TypeError, "state of RBFKernel: expected a tensor, got None"),
        ([1.0, 2.0], TypeError, r"state of RBFKernel: expected a tensor, got \[1.0, 2.0\]"),
        (
            torch.empty(2, device="meta"),
            ValueError,
            "state of RBFKernel: expected numbers, got a tensor on the meta dev",
        ),
        (torch.empty(0), ValueError, r"expected \['sigma'\] with \[1\] numbers, got 0 numbers"),
        (
            RBFKernel().get_extra_state().half(),
            ValueError,
            r"expected \['sigma'\] with \[1\] numbers, got 1 numbers that were rounded to torch.float16 or another",
        ),
    ]:
        with pytest.raises(error, match=message):
            RBFKernel().set_extra_state(bad)
    with pytest.raises(TypeError, match="degree: expected an integer, got 1.5"):
        PolynomialKernel().set_extra_state(PolynomialKernel().get_extra_state() * torch.tensor([1.0, 0.5, 1.0]))
    with pytest.raises(ValueError, match="sigma: expected a number between 1e-30 and 1e"):
        RBFKernel().set_extra_state(RBFKernel().get_extra_state() * torch.tensor([1.0, 1e35]))
    # Without a length scale, as before there was one.
    old = type("Old", (RationalQuadraticKernel,), {"_hyperparameters": ("alpha",)})()
    with pytest.raises(ValueError, match=r"expected \['alpha', 'length'\] with \[1, 1\] numbers, got 1 numbers"):
        RationalQuadraticKernel().load_state_dict(old.state_dict())


def test_parameters_of_a_users_kernel_stay_with_the_rest():
    class Trained(Kernel):
        def __init__(self, size):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(size))

        def from_sq_dist(self, sq_dist):
            return (-sq_dist * self.weight.sum()).exp()

    kernel = RBFKernel() + Trained(2)
    weight = kernel.parts[1].weight
    other = RBFKernel(5) + Trained(3)
    with pytest.raises(RuntimeError, match="size mismatch"):
        kernel.load_state_dict(other.state_dict())
    assert kernel.parts[0].sigma == 1
    assert kernel.parts[1].weight is weight


def test_a_state_within_a_kernel_of_a_user_is_loaded_too():
    class Counting(nn.Module):
        def get_extra_state(self):
            return {"count": 1}

        def set_extra_state(self, state):
            self.count = state["count"]

    class Own(Kernel):
        def __init__(self):
            super().__init__()
            self.inner = Counting()

        def from_sq_dist(self, sq_dist):
            return (-sq_dist).exp()

    kernel = Own() + EnergyKernel()
    kernel.load_state_dict(kernel.state_dict())
    assert kernel.parts[0].inner.count == 1


def test_precision_of_the_module_does_not_round_hyperparameters():
    a, b = scores(3, 2, 1), scores(4, 2, 2)
    for kernel in (RBFMix((0.1, 0.3)), RBFKernel(0.1) + RationalQuadraticKernel(0.3)):
        expected = kernel(a, b)
        for cast in (kernel.half(), kernel.bfloat16(), kernel.to(torch.float32)):
            assert_close(cast(a, b), expected, rtol=0, atol=0)


def test_repr_names_the_hyperparameters():
    assert repr(RBFKernel(2)) == "RBFKernel(sigma=2.0)"
    assert "RBFKernel(sigma=1.0)" in repr(RBFKernel() + LinearKernel())
    assert "factor=2.0" in repr(2 * RBFKernel())


@pytest.mark.parametrize("bad", [0, -1, math.inf, math.nan])
def test_numbers_out_of_range_are_refused(bad):
    for make, name in [
        (lambda: RBFKernel(bad), "sigma"),
        (lambda: RationalQuadraticKernel(alpha=bad), "alpha"),
        (lambda: RBFMix((1, bad)), r"sigmas\[1\]"),
        (lambda: RationalQuadraticMix((bad,)), r"alphas\[0\]"),
        (lambda: RBFMix((1, 2), weights=(1, bad)), r"weights\[1\]"),
        (lambda: RBFBKernel(bad), "sigma"),
        (lambda: RBFBKernel(lower=bad), "lower"),
        (lambda: RBFBKernel(upper=bad), "upper"),
        (lambda: PolynomialKernel(offset=bad or -1e-300), "offset"),
        (lambda: L1LaplaceKernel(bad), "scale"),
        (lambda: LaplaceKernel(bad), "scale"),
        (lambda: MaternKernel(length=bad), "length"),
        (lambda: InverseMultiquadricKernel(bad), "c"),
        (lambda: RBFKernel() * bad, "factor"),
        (lambda: bad * RBFKernel(), "factor"),
    ]:
        given = rf"({bad}|-1e-300)"
        with pytest.raises(ValueError, match=rf"^{name}: expected a (finite )?number.* got {given}"):
            make()


def test_wrong_types_and_shapes_of_hyperparameters_are_refused():
    for make, message in [
        (lambda: RBFKernel("1"), "sigma: expected a real number, got '1' of type str"),
        (lambda: RBFKernel(True), "sigma: expected a real number, got True of type bool"),
        (lambda: PolynomialKernel(2.0), "degree: expected an integer, got 2.0 of type float"),
        (lambda: RBFMix(2.0), "sigmas: expected a sequence of numbers > 0, got 2.0"),
        (lambda: RBFKernel() * torch.tensor(2.0), "factor: expected a real number"),
    ]:
        with pytest.raises(TypeError, match=message):
            make()
    for make, message in [
        (lambda: PolynomialKernel(0), "degree: expected an integer >= 1, got 0"),
        (lambda: PolynomialKernel(101), "degree: expected an integer from 1 to 100, got 101"),
        (lambda: PolynomialKernel(10**30), "degree: expected an integer from 1 to 100, got 1000000"),
        (
            lambda: PolynomialKernel(10**5000),
            "degree: expected an integer from 1 to 100, got a number of type int that",
        ),
        (
            lambda: PolynomialKernel(3, 1e11),
            r"degree, offset: expected offset \*\* degree <= 1e\+30, got 1e\+11 \*\* 3",
        ),
        (lambda: RBFMix(()), "sigmas: expected at least one number > 0, got an empty sequence"),
        (lambda: RBFMix((1, 2), weights=(1,)), "weights: expected one weight for each of the 2 kernels, got 1"),
        (lambda: RBFBKernel(lower=4.0, upper=4.0), "lower, upper: expected lower < upper, got 4.0 and 4.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


OUT_OF_RANGE = [1e-300, 1e-200, 1e-160, 1e-31, 1e31, 1e160, 10**31, Fraction(1, 10**31), np.float64(1e200)]
NOT_FINITE = [10**400, -(10**400), 10**5000, Fraction(10**5000, 3), np.float64("inf"), np.float32("nan")]


@pytest.mark.parametrize("bad", [*OUT_OF_RANGE, *NOT_FINITE, Fraction(1, 10**5000)], ids=lambda bad: type(bad).__name__)
def test_numbers_that_no_precision_can_hold_are_refused(bad):
    kernel = RBFBKernel()
    for make, name in [
        (lambda: RBFKernel(bad), "sigma"),
        (lambda: RationalQuadraticKernel(bad), "alpha"),
        (lambda: RationalQuadraticKernel(length=bad), "length"),
        (lambda: RBFMix((1, bad)), r"sigmas\[1\]"),
        (lambda: RationalQuadraticMix((bad,)), r"alphas\[0\]"),
        (lambda: RationalQuadraticMix(length=bad), "length"),
        (lambda: RBFMix((1, 2), weights=(1, bad)), r"weights\[1\]"),
        (lambda: RBFBKernel(bad), "sigma"),
        (lambda: PolynomialKernel(offset=bad), "offset"),
        (lambda: LaplaceKernel(floor=bad), "floor"),
        (lambda: MaternKernel(length=bad), "length"),
        (lambda: bad * RBFKernel(), "factor"),
        (lambda: RBFKernel() / bad, "divisor"),
        (lambda: setattr(kernel, "sigma", bad), "sigma"),
        (lambda: setattr(RBFMix(), "weights", (1, 1, 1, 1, bad)), r"weights\[4\]"),
    ]:
        with pytest.raises(
            ValueError, match=rf"^{name}: expected a (number between 1e-30 and 1e\+30|finite|number > 0)"
        ):
            make()
    assert kernel.sigma == 1


def test_bounds_have_the_range_of_squared_distances():
    for bound in (1e-60, 1e60):
        assert RBFBKernel(1.0, min(bound, 1.0), max(bound, 2.0)).sigma == 1
    for bad, name in [({"lower": 1e-65}, "lower"), ({"upper": 1e65}, "upper"), ({"upper": 10**400}, "upper")]:
        with pytest.raises(
            ValueError, match=rf"^{name}: expected a (number between 1e-64 and 1e\+64|finite number), got"
        ):
            RBFBKernel(**bad)


@pytest.mark.parametrize(
    "several",
    [
        [1, 2],
        (1.0, 2.0),
        range(1, 3),
        (sigma for sigma in (1, 2)),
        map(float, ("1", "2")),
        np.array([1.0, 2.0]),
        np.array([1, 2], dtype=np.int8),
        array("d", [1, 2]),
        deque([1, 2]),
        [Fraction(1), np.float32(2)],
    ],
    ids=lambda several: type(several).__name__,
)
def test_sequences_of_numbers_are_taken(several):
    assert RBFMix(several).sigmas == (1.0, 2.0)
    assert all(type(sigma) is float for sigma in RBFMix((Fraction(1), np.float64(2))).sigmas)


@pytest.mark.parametrize(
    "bad",
    [
        b"12",
        "12",
        bytearray(b"12"),
        memoryview(b"12"),
        {1, 2},
        frozenset({1}),
        {1: 2},
        {1: 2}.keys(),
        1.0,
        None,
        True,
        torch.ones(2),
        torch.tensor(1.0),
        nn.Parameter(torch.ones(2)),
        np.ones((2, 2)),
        np.array(1.0),
    ],
    ids=lambda bad: type(bad).__name__,
)
def test_what_is_no_sequence_of_numbers_is_refused(bad):
    for make, name in [
        (lambda: RBFMix(bad), "sigmas"),
        (lambda: RationalQuadraticMix(bad), "alphas"),
        (lambda: RBFMix((1, 2), weights=bad) if bad is not None else RBFMix(bad), "weights|sigmas"),
        (lambda: setattr(RBFMix(), "sigmas", bad), "sigmas"),
    ]:
        with pytest.raises(TypeError, match=rf"^({name}): expected a sequence of numbers > 0, got"):
            make()


@pytest.mark.parametrize("name", ["sigma", "lower", "upper"])
def test_hyperparameters_stay_numbers(name):
    class Trained(RBFBKernel):
        def __init__(self):
            super().__init__()
            setattr(self, name, torch.nn.Parameter(torch.tensor(1.0)))

    with pytest.raises(TypeError, match=f"{name}: expected a real number, got a tensor of shape .* of type Parameter"):
        Trained()
    kernel = RBFBKernel()
    with pytest.raises(ValueError, match=f"{name}: expected a number > 0, got 0"):
        setattr(kernel, name, 0)
    setattr(kernel, name, 0.5)
    assert getattr(kernel, name) == 0.5
    with pytest.raises(ValueError, match=r"sigmas\[1\]: expected a number > 0, got -2"):
        RBFMix().sigmas = (1, -2)


def test_a_new_hyperparameter_is_of_the_kind_of_the_one_before():
    kernel = RBFMix((1, 2))
    kernel.sigmas = [3, 4]
    assert kernel.sigmas == (3.0, 4.0)
    assert_close(kernel(torch.zeros(1, 1), torch.ones(1, 1)), RBFMix((3, 4))(torch.zeros(1, 1), torch.ones(1, 1)))
    polynomial = PolynomialKernel()
    polynomial.degree = 2
    assert (polynomial.degree, type(polynomial.degree)) == (2, int)
    for owner, name, value, error, message in [
        (kernel, "sigmas", 1.0, TypeError, "sigmas: expected a sequence of numbers > 0, got 1.0"),
        (RBFKernel(), "sigma", (1.0, 2.0), TypeError, "sigma: expected a real number, got .* of type tuple"),
        (polynomial, "degree", 2.5, TypeError, "degree: expected an integer, got 2.5"),
        (RBFBKernel(), "lower", 9.0, ValueError, "lower, upper: expected lower < upper, got 9.0 and 4.0"),
    ]:
        before = getattr(owner, name)
        with pytest.raises(error, match=message):
            setattr(owner, name, value)
        assert getattr(owner, name) == before


@pytest.mark.parametrize(
    "function",
    [
        lambda real, fake, number: mmd2(real, fake, RBFKernel(number)),
        lambda real, fake, number: drift_loss(fake, real, temperatures=(number,)),
        lambda real, fake, number: relative(9 + fake.square().mean(), eps=number),
    ],
    ids=["kernel", "temperature", "eps"],
)
def test_compiled_code_takes_another_number_in_each_call(function):
    # From the second number on, the compiler traces it as a symbol.
    torch.compiler.reset()
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    real, fake = torch.randn(6, 3), torch.randn(5, 3)
    for number in (0.5, 0.7, 1.1):
        assert_close(compiled(real, fake, number), function(real, fake, number), rtol=1e-5, atol=1e-6)
