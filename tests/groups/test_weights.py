"""Weighted samples: integer weights are repeated rows, equal weights are none; derivatives, zeros, errors."""

import math
import re

import pytest
import torch
from cases import CASES, KernelCase, scores
from oracles import mean_kernel
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    LaplaceKernel,
    LinearKernel,
    PolynomialKernel,
    RBFKernel,
    RBFMix,
    grouped_mmd2,
    hand_written_gradients,
    mmd2,
)
from torch_mmd_losses.groups import call
from torch_mmd_losses.groups.call import Tensors
from torch_mmd_losses.groups.values import group_values
from torch_mmd_losses.groups.weights import with_weights

every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
SOME = ("rbf", "laplace", "rational_quadratic_mix_length", "sum_with_linear", "polynomial", "own_radial")
some_kernels = pytest.mark.parametrize("case", [CASES[name] for name in SOME], ids=SOME)
every_estimator = pytest.mark.parametrize("estimator", ["biased", "unbiased"])
COUNTS = [1.0, 3.0, 2.0, 1.0]


@pytest.fixture(params=["stacked", "tiles", "autograd"])
def way(request, monkeypatch):
    """Evaluate whole groups, tiles that do not divide the sizes, and as under `torch.compile`."""
    monkeypatch.setattr(call, "TOGETHER_UP_TO", 0 if request.param == "tiles" else 512)
    if request.param == "autograd":
        monkeypatch.setattr(hand_written_gradients, "reverse_mode_only", lambda *_: False)


every_way = pytest.mark.usefixtures("way")


def tensor(values):
    """Return numbers in float64."""
    return torch.tensor(values, dtype=torch.float64)


@every_kernel
@every_way
def test_integer_weights_are_repeated_rows(case: KernelCase):
    kernel, weights = case.make(), tensor(COUNTS)
    real, fake = scores(4, 2, 1).requires_grad_(), scores(3, 2, 2, shift=0.4).requires_grad_()
    repeated = real.repeat_interleave(weights.long(), 0)
    expected = mmd2(repeated, fake, kernel, estimator="biased")
    found = mmd2(real, fake, kernel, estimator="biased", real_weights=weights, tile_size=2)
    assert_close(found, expected)
    assert_close(torch.autograd.grad(found, (real, fake)), torch.autograd.grad(expected, (real, fake)))
    swapped = mmd2(fake, real, kernel, estimator="biased", fake_weights=5 * weights, tile_size=2)
    assert_close(swapped, expected)


@every_kernel
@every_way
def test_the_unbiased_estimator_is_its_definition(case: KernelCase):
    # modern-mmd.md 10.4, by sums in Python
    real, fake = scores(4, 2, 1), scores(3, 2, 2, shift=0.4)
    weights = [tensor(COUNTS) / 7, tensor([0.2, 0.5, 0.3])]

    def weighted(a, b, w, u, *, distinct):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (distinct and i == j)]
        return sum(w[i] * u[j] * mean_kernel(case.scalar, a[i : i + 1], b[j : j + 1], distinct=False) for i, j in pairs)

    within = [
        weighted(x, x, w, w, distinct=True) / (1 - w.square().sum()) for x, w in zip((real, fake), weights, strict=True)
    ]
    expected = sum(within) - 2 * weighted(real, fake, *weights, distinct=False)
    found = mmd2(real, fake, case.make(), real_weights=3 * weights[0], fake_weights=weights[1], tile_size=2)
    assert_close(found, expected, rtol=1e-9, atol=1e-9)


@every_kernel
@every_estimator
@every_way
def test_equal_weights_are_none(case: KernelCase, estimator):
    real, fake, kernel = scores(5, 2, 1), scores(4, 2, 2), case.make()
    expected = mmd2(real, fake, kernel, estimator=estimator)
    weights = torch.full((5,), 0.3), torch.full((4,), 2.0)
    found = mmd2(real, fake, kernel, estimator=estimator, real_weights=weights[0], fake_weights=weights[1])
    assert_close(found, expected)


@some_kernels
@every_estimator
@every_way
def test_derivatives_in_everything(case: KernelCase, estimator):
    real, fake = scores(4, 2, 1).requires_grad_(), scores(3, 2, 2, shift=0.3).requires_grad_()
    weights, others = tensor(COUNTS).requires_grad_(), tensor([0.2, 0.5, 0.3]).requires_grad_()
    kernel = case.make()

    def value(p, q, w, u):
        return mmd2(p, q, kernel, estimator=estimator, real_weights=w, fake_weights=u, tile_size=2)

    assert torch.autograd.gradcheck(value, (real, fake, weights, others), fast_mode=True)
    assert torch.autograd.gradgradcheck(value, (real, fake, weights, others), atol=1e-4, fast_mode=True)


@every_way
def test_derivatives_with_scales_and_of_weights_alone():
    real, fake = scores(8, 2, 1).reshape(2, 4, 2), scores(6, 2, 2).reshape(2, 3, 2)
    weights, scale = torch.rand(2, 4).double().requires_grad_(), tensor([0.5, 2.0]).requires_grad_()

    def value(w, s):
        return grouped_mmd2(real, fake, RBFKernel(40.0), scale=s, estimator="unbiased", real_weights=w)

    # the kernel is near its peak, from which values are counted
    assert torch.autograd.gradcheck(value, (weights, scale), fast_mode=True)
    assert torch.autograd.gradgradcheck(value, (weights, scale), fast_mode=True)
    assert torch.autograd.gradcheck(lambda w: value(w, scale.detach()), (weights,), fast_mode=True)


@every_estimator
def test_tiles_equal_whole_matrices(estimator, monkeypatch):
    real, fake = torch.randn(300, 4), torch.randn(400, 4) + 0.2
    weights = torch.rand(300), torch.rand(400)
    for kernel in (RBFMix(), EnergyKernel(), LaplaceKernel(), LinearKernel(), PolynomialKernel(2)):

        def everything(kernel=kernel):
            inputs = [x.clone().requires_grad_() for x in (real, fake, *weights)]
            p, q, w, u = inputs
            value = mmd2(p, q, kernel, estimator=estimator, real_weights=w, fake_weights=u)
            return [value, *torch.autograd.grad(value, inputs)]

        monkeypatch.setattr(call, "TOGETHER_UP_TO", 512)
        tiled = everything()
        monkeypatch.setattr(call, "TOGETHER_UP_TO", 2**31)
        assert_close(tiled, everything(), rtol=1e-4, atol=1e-7)


@every_way
@every_estimator
def test_values_of_wide_kernels_keep_their_digits_in_float32(estimator):
    real, fake = torch.randn(300, 4), torch.randn(260, 4) + 0.4
    weights, others = torch.rand(300).requires_grad_(), torch.rand(260)
    for kernel in (RBFKernel(3e3), LaplaceKernel(3e3)):
        found, expected = (
            mmd2(real.to(d), fake.to(d), kernel, estimator=estimator, real_weights=weights.to(d), fake_weights=others)
            for d in (torch.float32, torch.float64)
        )
        assert_close(found.double(), expected, rtol=1e-5, atol=0)
        of_found, of_expected = (torch.autograd.grad(value, weights)[0] for value in (found, expected))
        assert_close(of_found, of_expected, rtol=1e-5, atol=1e-5 * float(of_expected.abs().max()))


@every_way
@every_estimator
def test_a_weight_of_zero_leaves_a_row_out(estimator):
    real, fake = scores(5, 2, 1), scores(4, 2, 2)
    weights = tensor([1.0, 0.0, 2.0, 0.0, 0.5])
    kept = weights > 0
    for kernel in (RBFKernel(), LinearKernel(), EnergyKernel()):
        leaf = real.clone().requires_grad_()
        found = mmd2(leaf, fake, kernel, estimator=estimator, real_weights=weights)
        assert_close(found.detach(), mmd2(real[kept], fake, kernel, estimator=estimator, real_weights=weights[kept]))
        (gradient,) = torch.autograd.grad(found, leaf)
        assert_close(gradient[~kept], torch.zeros(2, 2, dtype=torch.float64), rtol=0, atol=0)


@every_way
def test_nan_is_not_hidden_by_a_weight_of_zero_and_stays_in_its_group():
    real, fake = scores(12, 2, 1).reshape(3, 4, 2), scores(12, 2, 2).reshape(3, 4, 2)
    real[1, 0] = math.nan
    weights = torch.ones(3, 4, dtype=torch.float64)
    weights[:, 0] = 0
    values = grouped_mmd2(real, fake, RBFKernel(), real_weights=weights)
    assert values.isnan().tolist() == [False, True, False]


@every_way
def test_signed_weights_of_guidance():
    # modern-mmd.md 3.2: q is to match alpha p - (alpha - 1) u
    fake, wanted, unwanted = scores(5, 2, 1), scores(4, 2, 2), scores(3, 2, 3)
    alpha, kernel = 2.5, RBFKernel()
    leaf = fake.clone().requires_grad_()
    real = torch.cat([wanted, unwanted])
    weights = torch.cat([torch.full((4,), alpha / 4), torch.full((3,), (1 - alpha) / 3)]).double()
    tensors = with_weights(Tensors(real[None], leaf[None]), weights[None], None, "biased")
    found = group_values(kernel, tensors, "biased")[0]
    repulsion, attraction = kernel(leaf, leaf).mean(), alpha * kernel(leaf, wanted).mean()
    guidance = repulsion - 2 * (attraction - (alpha - 1) * kernel(leaf, unwanted).mean())
    assert_close(found, guidance + weights @ kernel(real, real) @ weights)
    assert_close(torch.autograd.grad(found, leaf), torch.autograd.grad(guidance, leaf))


def test_weights_in_half_precision_are_exact_and_values_keep_the_dtype_of_the_scores():
    real, fake = torch.randn(4, 2), torch.randn(3, 2)
    found = mmd2(real, fake, RBFKernel(), real_weights=torch.tensor(COUNTS, dtype=torch.bfloat16))
    assert found.dtype == torch.float32
    assert_close(found, mmd2(real, fake, RBFKernel(), real_weights=tensor(COUNTS)), rtol=0, atol=0)


X, W = torch.zeros(2, 4, 3), torch.ones(2, 4)
SIGN = "expected finite weights >= 0, not all zero, got"
WRONG = {
    "list": ([1.0] * 4, TypeError, "expected a tensor of weights, got list of length 4"),
    "integers": (W.long(), ValueError, "expected floating-point weights, got torch.int64"),
    "shape": (W[0], ValueError, "expected weights of shape (2, 4), one for each sample, got (4,)"),
    "device": (W.to("meta"), ValueError, "expected weights on the device of the scores, cpu, got meta"),
    "negative": (torch.tensor([[1.0] * 4, [1, -2, 1, 1]]), ValueError, f"{SIGN} -2 in group 1"),
    "nan": (W * math.nan, ValueError, f"{SIGN} nan in group 0"),
    "zero": (W * 0, ValueError, f"{SIGN} weights that sum to 0 in group 0"),
    "infinite": (W * math.inf, ValueError, f"{SIGN} weights that sum to inf in group 0"),
}


@pytest.mark.parametrize("name", ["real_weights", "fake_weights"])
@pytest.mark.parametrize("kind", WRONG)
def test_wrong_weights_are_refused(name, kind):
    weights, error, text = WRONG[kind]
    with pytest.raises(error, match=f"^{name}: {re.escape(text)}"):
        grouped_mmd2(X, X, RBFKernel(), **{name: weights})


def test_one_sample_alone_has_no_unbiased_estimate():
    for weights in ([0.0, 1.0, 0.0], [1e-30, 1.0, 0.0]):
        with pytest.raises(ValueError, match=r"^real_weights: expected at least 2 samples of weight > 0 .*, got 1$"):
            mmd2(X[0, :3], X[0], RBFKernel(), real_weights=torch.tensor(weights))
    with pytest.raises(ValueError, match="^estimator: expected 'unbiased' or 'biased' with weights, got 'u_statistic'"):
        mmd2(X[0], X[0], RBFKernel(), estimator="u_statistic", fake_weights=torch.ones(4))


def test_wrong_numbers_that_the_host_does_not_read_give_nan():
    real, fake = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    weights = torch.tensor([[1.0, 2.0, 3.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    scale = torch.tensor([1.0, 1.0, 1.0, -1.0])

    def value(x):
        return grouped_mmd2(x, fake, RBFKernel(), scale=scale, real_weights=weights)

    assert torch.func.vmap(value)(real[None])[0].isnan().tolist() == [False, True, True, True]
