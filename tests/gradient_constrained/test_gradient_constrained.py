"""Gradient-constrained MMD: brute force, closed forms, bounds, low rank, laws, derivatives, cost, errors."""

import math
from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest
import scipy
import torch
from cases import SMOOTH, Cubic, scores
from hypothesis import given
from hypothesis import strategies as st
from sizes import Largest
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    LinearKernel,
    RationalQuadraticMix,
    RBFKernel,
    gradient_constrained_mmd2,
    mmd2,
)
from torch_mmd_losses.gradient_constrained.incomplete_cholesky import factor

ESTIMATORS = ("biased", "unbiased", "u_statistic")

every_smooth_kernel = pytest.mark.parametrize("case", SMOOTH.values(), ids=SMOOTH)
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)
exact_and_low_rank = pytest.mark.parametrize("rank", [None, 2, 6])
seeds = st.integers(0, 10**6)
weights = st.floats(0.01, 10)


def network(inputs: int, outputs: int, seed: int = 0, activation=nn.Tanh) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(inputs, 4), activation(), nn.Linear(4, outputs)).double()


FEATURES = {
    "identity": None,
    "one_feature": network(2, 1),
    "two_features": network(2, 2),
    "more_features_than_inputs": network(2, 3),
    "rectifiers": network(2, 2, 3, nn.ReLU),
}
every_feature = pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)


def identity(x):
    return x


# Independent evaluations.


def eq_9(kernel, features, points):
    """The matrix of Eq. 9 by the input: one Jacobian of k(phi(a), phi(b)) after the other, in NumPy."""

    def k(a, b):
        return kernel(features(a.unsqueeze(0)), features(b.unsqueeze(0)))[0, 0]

    def block(a, b):
        rows = [k(a, b).reshape(1, 1), torch.func.jacrev(k, 1)(a, b).unsqueeze(0)]
        below = [torch.func.jacrev(k, 0)(a, b).unsqueeze(1), torch.func.jacrev(torch.func.jacrev(k, 0), 1)(a, b)]
        return torch.cat([torch.cat(rows, 1), torch.cat(below, 1)])

    # A copy, so that no kernel takes two arguments for the same samples.
    return np.block([[block(a, b.clone()).detach().numpy() for b in points] for a in points])


def by_eq_8(real, fake, kernel, *, lambda_, features=None, mu=None):
    features, points = features or identity, real if mu is None else mu

    def witness(t):
        t = features(t.unsqueeze(0))
        return kernel(features(real), t).mean() - kernel(features(fake), t).mean()

    v = [torch.cat([witness(t).reshape(1), torch.func.jacrev(witness)(t)]).detach().numpy() for t in points]
    matrix, v = eq_9(kernel, features, points), np.concatenate(v)
    regular = matrix + len(points) * lambda_ * np.eye(len(matrix))
    whole = mmd2(features(real), features(fake), kernel, estimator="biased").item()
    return (whole - v @ np.linalg.solve(regular, v)) / lambda_


@pytest.mark.parametrize(
    ("name", "feature", "own_points"),
    [
        *product(SMOOTH, FEATURES, [False]),
        *product(SMOOTH, ["identity"], [True]),
        *product(["rbf_mix", "sum_with_linear"], sorted(FEATURES.keys() - {"identity"}), [True]),
    ],
)
def test_equals_brute_force_by_the_input(name, feature, own_points):
    case, features = SMOOTH[name], FEATURES[feature]
    real, fake, mu = scores(3, 2, 1), scores(4, 2, 2, shift=0.5), scores(2, 2, 3) if own_points else None
    arguments = {"lambda_": 0.2, "features": features, "mu": mu}
    expected = by_eq_8(real, fake, case.make(), **arguments)
    value = gradient_constrained_mmd2(real, fake, case.make(), **arguments)
    assert value.shape == ()
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_is_the_largest_witness_that_the_constraint_allows():
    # The supremum is attained in the span of all representers: there it is a generalised eigenvalue.
    real, fake, mu, lambda_ = scores(3, 2, 1), scores(4, 2, 2, shift=0.5), scores(3, 2, 3), 0.05
    kernel = RBFKernel(1.2)
    gram = eq_9(kernel, identity, torch.cat([real, fake, mu])).reshape(10, 3, 10, 3)
    inner = gram.reshape(30, 30)  # inner products of all representers, those of derivatives too
    gap = gram[:3, 0].mean(0).reshape(30) - gram[3:7, 0].mean(0).reshape(30)
    at_mu = gram[7:].reshape(9, 30)
    constraint = at_mu.T @ at_mu / 3 + lambda_ * inner
    largest = scipy.linalg.eigh(np.outer(gap, gap), constraint, eigvals_only=True)[-1]
    assert gradient_constrained_mmd2(real, fake, kernel, lambda_=lambda_, mu=mu).item() == pytest.approx(largest)
    # And no other function comes above it.
    others = np.random.default_rng(0).normal(size=(200, 30))
    quotients = (others @ gap) ** 2 / np.einsum("ni,ij,nj->n", others, constraint, others)
    assert quotients.max() < largest


@given(lambda_=weights, seed=seeds)
def test_equals_ridge_regression_on_explicit_features(lambda_, seed):
    # (ab + 1)^3 is the inner product of (1, sqrt(3) a, sqrt(3) a^2, a^3).
    real, fake = scores(4, 1, seed), scores(5, 1, seed + 1, shift=0.5)
    ones, root = torch.ones_like(real), math.sqrt(3)
    map_ = torch.cat([ones, root * real, root * real**2, real**3], 1)
    slope = torch.cat([0 * ones, root * ones, 2 * root * real, 3 * real**2], 1)
    map_fake = torch.cat([torch.ones_like(fake), root * fake, root * fake**2, fake**3], 1)
    gap = map_.mean(0) - map_fake.mean(0)
    limit = (map_.T @ map_ + slope.T @ slope) / 4 + lambda_ * torch.eye(4, dtype=torch.float64)
    expected = gap @ torch.linalg.solve(limit, gap)
    assert_close(gradient_constrained_mmd2(real, fake, Cubic(), lambda_=lambda_), expected, rtol=1e-8, atol=1e-12)


@given(theta=st.floats(-4, 4), psi=st.floats(-3, 3), lambda_=weights)
def test_point_masses_in_closed_form(theta, psi, lambda_):
    # The problem of Eq. 3 of Arbel et al.: P at 0, Q at theta, features psi x. There K = 1, G = 0 and H = psi^2.
    e = math.exp(-0.5 * (psi * theta) ** 2)
    gradient = psi * (psi * theta) * e
    expected = (2 * (1 - e) - (1 - e) ** 2 / (1 + lambda_) - gradient**2 / (psi**2 + lambda_)) / lambda_
    real, fake = torch.zeros(1, dtype=torch.float64), torch.tensor([theta], dtype=torch.float64)
    value = gradient_constrained_mmd2(real, fake, RBFKernel(), lambda_=lambda_, features=lambda x: psi * x)
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


# Bounds.


@every_smooth_kernel
@every_feature
@pytest.mark.parametrize("lambda_", [0.01, 1.0])
def test_lies_between_the_scaled_mmd_and_that_without_a_constraint(case, features, lambda_):
    if features is None and case.peak is None and not case.radial:
        features = network(2, 2, 5)  # keep polynomial kernels in a moderate range too
    real, fake, kernel = scores(6, 2, 1), scores(5, 2, 2, shift=0.7), case.make()
    chosen = features or identity

    def own(a, b):
        return kernel(chosen(a.unsqueeze(0)), chosen(b.unsqueeze(0)))[0, 0]

    # Proposition 5: the trace of the second derivatives by both arguments, at each real sample.
    second = torch.func.jacrev(torch.func.jacrev(own, 0), 1)
    factors = [own(a, a.clone()) + second(a, a.clone()).trace() for a in real]
    plain = mmd2(chosen(real), chosen(fake), kernel, estimator="biased")
    scaled = plain / (lambda_ + torch.stack(factors).mean())
    value = gradient_constrained_mmd2(real, fake, kernel, lambda_=lambda_, features=features)
    rounding = 1e-9 * value  # a linear kernel of one feature attains the lower bound
    assert scaled - rounding <= value <= plain / lambda_


@given(lambda_=weights, seed=seeds)
def test_a_larger_lambda_allows_less(lambda_, seed):
    real, fake = scores(5, 2, seed), scores(5, 2, seed + 1)
    less, more = (
        gradient_constrained_mmd2(real, fake, RationalQuadraticMix(), lambda_=c * lambda_).item() for c in (1, 1.5)
    )
    assert 0 <= more <= less
    assert less <= 1.5 * more * (1 + 1e-9)


# Low rank.


@pytest.mark.slow
@pytest.mark.parametrize(("name", "feature"), sorted({*product(SMOOTH, ["identity"]), *product(["rbf_mix"], FEATURES)}))
def test_low_rank_grows_to_the_exact_value(name, feature):
    case, features = SMOOTH[name], FEATURES[feature]
    real, fake = scores(4, 2, 1), scores(5, 2, 2, shift=0.7)
    arguments = {"lambda_": 0.1, "features": features}
    exact = gradient_constrained_mmd2(real, fake, case.make(), **arguments).item()
    outputs = 2 if features is None else features(real).shape[1]
    most = 4 * (1 + outputs)
    ranks = sorted({*range(1, most, 3), 2, most})
    values = [gradient_constrained_mmd2(real, fake, case.make(), rank=rank, **arguments).item() for rank in ranks]
    rounding = 1e-7 * exact
    assert all(b >= a - rounding for a, b in pairwise(values))
    assert all(value <= exact + rounding for value in values)
    assert values[0] < exact - rounding or outputs == 1  # enough for a linear kernel
    assert values[-1] == pytest.approx(exact, rel=1e-7)


def test_the_rank_of_the_matrix_is_enough():
    real, fake = scores(6, 3, 1), scores(6, 3, 2, shift=0.7)
    exact = gradient_constrained_mmd2(real, fake, LinearKernel())
    assert_close(gradient_constrained_mmd2(real, fake, LinearKernel(), rank=3), exact)
    assert gradient_constrained_mmd2(real, fake, LinearKernel(), rank=2) < exact - 1e-3


def test_incomplete_cholesky_leaves_a_smaller_and_smaller_remainder():
    root = scores(7, 7, 4) * torch.tensor([3.0, 2, 1, 1, 0.5, 0.1, 0.01], dtype=torch.float64)
    a = root @ root.T
    remainders = [a]
    for rank in range(1, 8):
        r = factor(a.diagonal(), lambda i: a[:, i], rank)
        assert r.shape == (rank, 7)
        remainders.append(a - r.T @ r)
    for before, after in pairwise(remainders):
        assert torch.linalg.eigvalsh(after)[0] > -1e-12
        assert torch.linalg.eigvalsh(before - after)[0] > -1e-12
        assert abs(after.diagonal()[before.diagonal().argmax()]) < 1e-12
    assert_close(remainders[-1], torch.zeros_like(a), rtol=0, atol=1e-12)


def test_incomplete_cholesky_stops_where_nothing_is_left():
    root = scores(6, 2, 4)
    a = root @ root.T
    r = factor(a.diagonal(), lambda i: a[:, i], 5)
    assert_close(r.T @ r, a)
    assert_close(r[2:], torch.zeros_like(r[2:]))


def test_incomplete_cholesky_chooses_by_weights():
    a = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    r = factor(a.diagonal(), lambda i: a[:, i], 2, torch.tensor([7.0, 2.0, 0.0], dtype=torch.float64))
    assert_close(r.T @ r, torch.diag(torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)))


def test_a_direction_that_critics_cannot_take_needs_no_pivot():
    # The second feature is constant, so its derivatives do not count.
    real, fake = scores(4, 2, 1), scores(4, 2, 2, shift=0.5)

    def features(x):
        return torch.stack([x[:, 0], torch.zeros_like(x[:, 0])], 1)

    exact = gradient_constrained_mmd2(real, fake, RBFKernel(), features=features)
    assert_close(gradient_constrained_mmd2(real, fake, RBFKernel(), features=features, rank=8), exact)


# Laws.


@exact_and_low_rank
@every_estimator
@given(seed=seeds)
def test_symmetric_if_the_points_are_given(rank, estimator, seed):
    real, fake, mu = scores(3, 2, seed), scores(3, 2, seed + 1), scores(4, 2, seed + 2)
    value = partial(gradient_constrained_mmd2, kernel=RBFKernel(), mu=mu, rank=rank, estimator=estimator)
    assert_close(value(real, fake), value(fake, real))


def test_not_symmetric_otherwise():
    real, fake = scores(3, 2, 1), scores(3, 2, 2, scale=3.0)
    one, other = (gradient_constrained_mmd2(*pair, RBFKernel()).item() for pair in ((real, fake), (fake, real)))
    assert abs(one - other) > 0.01


@given(seed=seeds, shift=st.floats(-10, 10))
def test_does_not_change_under_isometries(seed, shift):
    real, fake = scores(4, 3, seed), scores(5, 3, seed + 1)
    turn = torch.linalg.qr(scores(3, 3, seed + 2)).Q
    kernel = RationalQuadraticMix()
    value = gradient_constrained_mmd2(real, fake, kernel)
    moved = gradient_constrained_mmd2(real @ turn + shift, fake @ turn + shift, kernel)
    assert_close(moved, value, rtol=1e-8, atol=1e-10)
    # An isometry into more dimensions, seen as features.
    raised = torch.linalg.qr(scores(5, 3, seed + 3)).Q
    assert_close(gradient_constrained_mmd2(real, fake, kernel, features=lambda x: x @ raised.T), value)


@exact_and_low_rank
def test_zero_for_equal_samples(rank):
    real = scores(5, 2, 1)
    value = gradient_constrained_mmd2(real, real[torch.randperm(5)], RBFKernel(), rank=rank)
    assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-12)


@given(factor_=st.floats(0.1, 10), seed=seeds)
def test_a_multiple_of_the_kernel_is_another_lambda(factor_, seed):
    real, fake = scores(4, 2, seed), scores(5, 2, seed + 1)
    value = gradient_constrained_mmd2(real, fake, factor_ * RBFKernel(), lambda_=0.3)
    assert_close(value, gradient_constrained_mmd2(real, fake, RBFKernel(), lambda_=0.3 / factor_))


def test_points_count_by_their_share():
    real, fake, mu = scores(4, 2, 1), scores(5, 2, 2), scores(3, 2, 3)
    once, twice = (
        gradient_constrained_mmd2(real, fake, RBFKernel(), mu=points) for points in (mu, torch.cat([mu, mu]))
    )
    assert_close(twice, once)


@every_estimator
def test_points_are_the_real_samples_by_default(estimator):
    real, fake = scores(4, 2, 1), scores(4, 2, 2)
    value = partial(gradient_constrained_mmd2, real, fake, RBFKernel(), features=network(2, 2), estimator=estimator)
    assert_close(value(), value(mu=real.clone()))


def test_unbiased_over_every_draw_for_given_points():
    population_real, population_fake, mu = [0.0, 1.5], [0.3, 2.0], torch.tensor([0.0, 1.0], dtype=torch.float64)

    def value(real, fake, estimator):
        tensors = (torch.tensor(sample, dtype=torch.float64) for sample in (real, fake))
        return gradient_constrained_mmd2(*tensors, RBFKernel(), mu=mu, estimator=estimator).item()

    truth = value(population_real, population_fake, "biased")
    draws = list(product(product(population_real, repeat=3), product(population_fake, repeat=3)))
    for estimator in ("unbiased", "u_statistic"):
        assert np.mean([value(*draw, estimator) for draw in draws]) == pytest.approx(truth)
    assert np.mean([value(*draw, "biased") for draw in draws]) > truth + 0.01


# Derivatives.


@exact_and_low_rank
@every_feature
def test_gradients_where_one_sample_is_computed_from_the_other(features, rank):
    real = scores(4, 2, 1).requires_grad_()

    def gradient(create_graph):
        value = gradient_constrained_mmd2(
            real, real.sin() + 1, RBFKernel(2.0), lambda_=0.3, features=features, rank=rank
        )
        return torch.autograd.grad(value, real, create_graph=create_graph)[0]

    assert_close(gradient(create_graph=True), gradient(create_graph=False))


def double_check(function, *arguments):
    tensors = tuple(argument.clone().requires_grad_() for argument in arguments)
    assert gradcheck(function, tensors, fast_mode=True)
    assert gradgradcheck(function, tensors, fast_mode=True)


@exact_and_low_rank
@every_estimator
def test_derivatives_by_samples(rank, estimator):
    value = partial(gradient_constrained_mmd2, kernel=RBFKernel(), rank=rank, estimator=estimator)
    double_check(value, scores(3, 2, 1), scores(3, 2, 2))


@pytest.mark.slow
@exact_and_low_rank
def test_derivatives_by_points(rank):
    def value(real, fake, mu):
        return gradient_constrained_mmd2(real, fake, 0.5 * RBFKernel() + LinearKernel(), mu=mu, rank=rank)

    double_check(value, scores(2, 2, 1), scores(2, 2, 2), scores(2, 2, 3))


@exact_and_low_rank
@pytest.mark.parametrize("outputs", [1, 3])
def test_derivatives_by_parameters_of_the_features(rank, outputs):
    def value(real, fake, first, second):
        features = lambda x: torch.tanh(x @ first) @ second  # noqa: E731
        return gradient_constrained_mmd2(real, fake, RBFKernel(), features=features, rank=rank)

    double_check(value, scores(3, 2, 1), scores(2, 2, 2), scores(2, 2, 3), scores(2, outputs, 4))


@pytest.mark.parametrize("rank", [None, 2])
def test_derivatives_where_features_have_none(rank):
    # All features are constant in the samples: the products of Jacobians have no root with a derivative.
    def value(real, weight):
        features = lambda x: torch.tanh(x @ weight)  # noqa: E731
        return gradient_constrained_mmd2(real, scores(2, 2, 2), RBFKernel(), features=features, rank=rank)

    double_check(value, scores(2, 2, 1), torch.zeros(2, 2, dtype=torch.float64))


def test_derivatives_at_coincident_samples():
    same = scores(1, 2, 1).expand(3, -1)
    double_check(partial(gradient_constrained_mmd2, kernel=RBFKernel()), same, scores(2, 2, 2))
    # With every pivot that counts the remainder is zero and smallest, so low rank has the same gradient.
    real, gradients = same.clone().requires_grad_(), []
    for rank in (None, 9):
        value = gradient_constrained_mmd2(real, scores(2, 2, 2), RBFKernel(), rank=rank)
        gradients.append(torch.autograd.grad(value, real)[0])
    assert_close(*gradients, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("rank", [None, 4])
def test_derivatives_by_parameters_of_the_kernel(rank):
    class Trained(Kernel):
        def __init__(self, log_sigma):
            super().__init__()
            self.log_sigma = log_sigma

        def from_sq_dist(self, sq_dist):
            return torch.exp(-0.5 * sq_dist * torch.exp(-2 * self.log_sigma))

    def value(log_sigma):
        return gradient_constrained_mmd2(scores(3, 2, 1), scores(3, 2, 2), Trained(log_sigma), rank=rank)

    double_check(value, torch.tensor(0.2, dtype=torch.float64))
    assert_close(
        value(torch.tensor(math.log(1.3), dtype=torch.float64)),
        gradient_constrained_mmd2(scores(3, 2, 1), scores(3, 2, 2), RBFKernel(1.3), rank=rank),
    )


@pytest.mark.parametrize("rank", [None, 4])
def test_samples_that_want_a_gradient_get_the_same_value_and_gradients_of_parameters(rank):
    real, fake, features = scores(3, 2, 1), scores(3, 2, 2), network(2, 1)
    found = []
    for wanted in (False, True):
        value = gradient_constrained_mmd2(
            real.clone().requires_grad_(wanted), fake, RBFKernel(), features=features, rank=rank
        )
        found.append([value, *torch.autograd.grad(value, list(features.parameters()))])
    assert_close(*found)
    with torch.no_grad():
        value = gradient_constrained_mmd2(real, fake, RBFKernel(), features=features, rank=rank)
    assert not value.requires_grad
    assert_close(value, found[0][0].detach())


# How it is computed.


@pytest.mark.parametrize("features", [None, network(2, 2)], ids=["identity", "network"])
def test_a_small_lambda_keeps_its_digits(features):
    real, fake = scores(3, 2, 1), scores(4, 2, 2, shift=0.5)
    arguments = {"lambda_": 1e-6, "features": features}
    expected = by_eq_8(real, fake, RBFKernel(), **arguments)
    value = gradient_constrained_mmd2(real, fake, RBFKernel(), **arguments)
    # Both lose some of them: one part in 1e-16 of MMD^2 / lambda is one in 1e-10 of the difference.
    assert value.item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rank", [None, 4])
def test_results_are_float32_for_all_but_float64(dtype, rank):
    real, fake = scores(6, 2, 1).to(dtype), scores(6, 2, 2).to(dtype)
    value = gradient_constrained_mmd2(real, fake, RBFKernel(), rank=rank)
    assert value.dtype == torch.float32
    precise = gradient_constrained_mmd2(real.double(), fake.double(), RBFKernel(), rank=rank)
    assert precise.dtype == torch.float64
    assert_close(value, precise.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(gradient_constrained_mmd2(real, fake, RBFKernel(), rank=rank), value)


@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize("kernel", [RBFKernel(), Cubic()], ids=["radial", "general"])
def test_function_transforms(rank, kernel):
    real, fake = scores(4, 2, 1), scores(3, 2, 2)
    value = partial(gradient_constrained_mmd2, real, kernel=kernel, rank=rank)
    leaf = fake.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    assert_close(torch.func.grad(value)(fake), gradient)
    along = torch.func.jvp(value, (fake,), (torch.ones_like(fake),))[1]
    assert_close(along, gradient.sum())
    both = torch.stack([fake, fake + 1])
    assert_close(torch.vmap(value)(both), torch.stack([value(fake), value(fake + 1)]))
    assert_close(torch.vmap(torch.func.grad(value))(both)[0], gradient)


COMPILES_FEATURES = pytest.mark.skipif(torch.__version__ < "2.13", reason="tested with PyTorch 2.13 and newer")
NETWORK = network(2, 3)
WEIGHTS = {name: parameter.detach() for name, parameter in NETWORK.named_parameters()}


REAL, FAKE = scores(4, 2, 1), scores(3, 2, 2)
ARGUMENTS = {"real": REAL, "fake": FAKE, "mu": scores(3, 2, 3), "weight": next(iter(WEIGHTS.values()))}


def of_features(real=REAL, fake=FAKE, mu=None, weight=ARGUMENTS["weight"], *, rank):
    """Return the value for features of a network, whose first weight is given."""
    weights = {**WEIGHTS, next(iter(WEIGHTS)): weight}
    features = lambda x: torch.func.functional_call(NETWORK, weights, (x,))  # noqa: E731
    return gradient_constrained_mmd2(real, fake, RBFKernel(), features=features, mu=mu, rank=rank)


@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_function_transforms_of_features(rank, name):
    argument = ARGUMENTS[name]

    def value(x):
        return of_features(**{name: x}, rank=rank)

    expected = torch.autograd.functional.jacobian(value, argument)
    assert_close(torch.func.grad(value)(argument), expected)
    assert_close(torch.func.jacfwd(value)(argument), expected)
    both = torch.stack([argument, argument + 0.1])
    assert_close(torch.vmap(value)(both), torch.stack([value(each) for each in both]))
    assert_close(torch.vmap(torch.func.grad(value))(both)[0], expected)
    assert_close(torch.func.hessian(value)(argument), torch.autograd.functional.hessian(value, argument))
    # Without transforms of torch.func.
    forward = torch.autograd.functional.jacobian(value, argument, vectorize=True, strategy="forward-mode")
    assert_close(forward, expected)


def test_features_without_a_graph_are_refused_in_transforms_too():
    def value(x):
        return gradient_constrained_mmd2(REAL, x, RBFKernel(), features=lambda y: y.detach() + 1)

    with pytest.raises(ValueError, match="^features: expected scores that are differentiable"):
        torch.func.grad(value)(FAKE)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [None, 1])
@pytest.mark.parametrize(
    "features", [None, pytest.param(NETWORK, marks=COMPILES_FEATURES)], ids=["identity", "network"]
)
def test_compiles_without_graph_breaks(rank, features):
    real, fake = scores(4, 2, 1), scores(3, 2, 2)
    value = partial(gradient_constrained_mmd2, kernel=RBFKernel(), rank=rank, features=features)
    compiled = torch.compile(lambda real, fake: value(real, fake), fullgraph=True, backend="aot_eager")
    leaf = real.clone().requires_grad_()
    found, expected = compiled(leaf, fake), value(leaf, fake)
    assert_close(found, expected)
    assert_close(torch.autograd.grad(found, leaf), torch.autograd.grad(expected, leaf))


@pytest.mark.parametrize("rank", [None, 10])
def test_features_leave_the_matrix_small(rank):
    # Eq. 9 has 10 (1 + 144) rows here.
    real, fake = torch.rand(10, 1, 12, 12), torch.rand(10, 1, 12, 12)
    critic = nn.Sequential(nn.Conv2d(1, 2, 5, 2), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(32, 1))
    with Largest() as largest:
        gradient_constrained_mmd2(real, fake, RBFKernel(), features=critic, rank=rank).backward()
    assert largest.elements <= 10 * 144


def test_low_rank_never_builds_the_matrix():
    real, fake = scores(30, 20, 1), scores(30, 20, 2)
    with Largest() as largest:
        gradient_constrained_mmd2(real, fake, RBFKernel(5.0), rank=4)
    assert largest.elements <= 60 * 30 * 21
    assert largest.elements < (30 * 21) ** 2 / 10


# Errors.


class Laplace(Kernel):
    def from_sq_dist(self, sq_dist):
        return torch.exp(-sq_dist.sqrt())


X = torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"kernel": "rbf"}, TypeError, "kernel: expected a Kernel"),
        (
            {"kernel": RBFKernel() + 0.5 * EnergyKernel()},
            TypeError,
            "kernel: expected a kernel that is twice differentiable .* got a kernel that contains an EnergyKernel",
        ),
        ({"lambda_": 0}, ValueError, "lambda_: expected a number > 0, got 0"),
        ({"lambda_": "1"}, TypeError, "lambda_: expected a real number"),
        ({"lambda_": 1e-17}, ValueError, "lambda_: expected a weight that makes .* got a weight that adds 4.0e-17"),
        ({"lambda_": 1e-17, "rank": 2}, ValueError, "lambda_: expected a weight that makes"),
        ({"kernel": Laplace()}, ValueError, "twice differentiable at coincident samples"),
        ({"real": X * math.nan}, ValueError, "the samples must be finite"),
        ({"features": 3}, TypeError, "features: expected a function of a batch of samples, such as a network, got 3"),
        ({"features": lambda x: x[:3]}, ValueError, r"features: .* each of the 4 samples in real, got shape \(3, 2\)"),
        ({"features": lambda x: x.sum()}, ValueError, r"features: .* got shape \(\)"),
        ({"features": lambda x: None}, TypeError, "features: expected a tensor of scores, got NoneType"),
        ({"features": lambda x: x.detach()}, ValueError, "features: expected scores that are differentiable with"),
        ({"mu": torch.zeros(4, 3)}, ValueError, "real, mu: expected the same score dimension d, got 2 and 3"),
        ({"mu": X.double()}, ValueError, "real, mu: expected the same dtype"),
        ({"fake": torch.zeros(4, 3)}, ValueError, "real, fake: expected the same score dimension d, got 2 and 3"),
        ({"fake": None}, TypeError, "fake: expected a tensor of scores, got NoneType"),
        ({"rank": 0}, ValueError, "rank: expected an integer >= 1, got 0"),
        ({"rank": 2.0}, TypeError, "rank: expected an integer, got 2.0"),
        (
            {"rank": 13},
            ValueError,
            "rank: expected at most 12, the number of rows for 4 points .* of dimension 2, got 13",
        ),
        ({"estimator": "v"}, ValueError, "estimator: expected one of"),
        ({"fake": X[:1], "estimator": "unbiased"}, ValueError, "real, fake: expected at least 2 samples"),
    ],
)
def test_errors_say_what_is_expected(changed, error, message):
    arguments = {"real": X, "fake": X + 1, "kernel": RBFKernel(), **changed}
    with pytest.raises(error, match=message):
        gradient_constrained_mmd2(**arguments)
