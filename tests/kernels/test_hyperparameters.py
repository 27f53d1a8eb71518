"""Hyper-parameters: checks, assignment, state and repr."""

import copy
import math
import pickle

import pytest
import torch
from cases import CASES, KernelCase, scores
from torch.testing import assert_close

from torch_mmd_losses import (
    LinearKernel,
    PolynomialKernel,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
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
    with pytest.raises(ValueError, match=r"expected \['sigma'\] with \[1\] numbers, got 1 numbers or another kernel's"):
        RBFKernel().load_state_dict(RationalQuadraticKernel(5.0).state_dict())


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
        (lambda: PolynomialKernel(offset=bad), "offset"),
        (lambda: RBFKernel() * bad, "factor"),
        (lambda: bad * RBFKernel(), "factor"),
    ]:
        with pytest.raises(ValueError, match=rf"^{name}: expected a (finite )?number.* got {bad}"):
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
        (lambda: RBFMix(()), "sigmas: expected at least one number > 0, got an empty sequence"),
        (lambda: RBFMix((1, 2), weights=(1,)), "weights: expected one weight for each of the 2 kernels, got 1"),
        (lambda: RBFBKernel(lower=4.0, upper=4.0), "lower, upper: expected lower < upper, got 4.0 and 4.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="unsupported operand"):
        RBFKernel() + 1


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
