"""MMDLoss: equations 2 to 7 of Wang et al., laws between its methods, bounds, logging, errors."""

import copy
import inspect

import pytest
import torch
from cases import CASES, UNBOUNDED, KernelCase, scores
from hypothesis import given
from hypothesis import strategies as st
from oracles import mean_kernel
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    LinearKernel,
    MMDLoss,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    ScaledMMDLoss,
    mmd2,
)
from torch_mmd_losses.losses.mmd import discriminator_objective
from torch_mmd_losses.pairs.objective import MMD2

ESTIMATORS = ("unbiased", "u_statistic", "biased")
every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_unbounded_kernel = pytest.mark.parametrize("case", UNBOUNDED.values(), ids=UNBOUNDED)
seeds = st.integers(0, 10**6)
lambdas = st.floats(-3, 3)
one_score = pytest.mark.filterwarnings("ignore:MMDLoss. expected several scores:torch_mmd_losses.UsageWarning")


def clamp(e, low, high):
    return min(max(e, low), high)


def bounded_value(pair, lambda_, low, high):
    """Return the RBF-B kernel of Eq. 6 and 7 for a group of pairs, as a function of two samples."""
    inf = float("inf")
    limits = {
        ("real", True): (low, inf),
        ("fake", True): (low, inf),
        ("cross", True): (0, high),
        ("real", False): (0, high),
        ("fake", False): (low, inf),
        ("cross", False): (0, inf),
    }[pair, lambda_ < 0]

    def value(a, b):
        e = sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
        return float(torch.exp(torch.tensor(-clamp(e, *limits) / 2, dtype=torch.float64)))

    return value


@every_unbounded_kernel
@given(seed=seeds, lambda_=lambdas)
def test_discriminator_equals_equation_5(case: KernelCase, seed, lambda_):
    real, fake = scores(4, 2, seed), scores(5, 2, seed + 1, shift=0.5)
    expected = (
        lambda_ * mean_kernel(case.scalar, real, real, distinct=True)
        - (lambda_ - 1) * mean_kernel(case.scalar, real, fake, distinct=False)
        - mean_kernel(case.scalar, fake, fake, distinct=True)
    )
    value = MMDLoss(case.make(), lambda_).discriminator(real=real, fake=fake)
    assert float(value) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(seed=seeds, lambda_=lambdas, low=st.floats(0.05, 2), extra=st.floats(0.1, 4), scale=st.floats(0.2, 3))
def test_bounds_are_those_of_equations_6_and_7(seed, lambda_, low, extra, scale):
    real, fake = scores(4, 2, seed, scale=scale), scores(4, 2, seed + 1, scale=scale, shift=0.5)
    high = low + extra
    values = {pair: bounded_value(pair, lambda_, low, high) for pair in ("real", "cross", "fake")}
    expected = (
        lambda_ * mean_kernel(values["real"], real, real, distinct=True)
        - (lambda_ - 1) * mean_kernel(values["cross"], real, fake, distinct=False)
        - mean_kernel(values["fake"], fake, fake, distinct=True)
    )
    for kernel, factor in [(RBFBKernel(1.0, low, high), 1.0), (3 * RBFBKernel(1.0, low, high), 3.0)]:
        loss = MMDLoss(kernel, lambda_)
        assert float(loss.discriminator(real, fake)) == pytest.approx(factor * expected, rel=1e-9, abs=1e-12)
        assert_close(loss.generator(real, fake), factor * mmd2(real, fake, RBFKernel(1.0)))
    mixed = MMDLoss(RBFBKernel(1.0, low, high) + RBFKernel(2.0), lambda_).discriminator(real, fake)
    assert float(mixed) == pytest.approx(
        expected + float(MMDLoss(RBFKernel(2.0), lambda_).discriminator(real, fake)), rel=1e-9, abs=1e-12
    )


@one_score
def test_the_whole_gradient_passes_at_a_bound():
    # Two real and two fake scores with the squared distances exactly at the bounds of Eq. 7.
    real = torch.tensor([[0.0], [2.0]], dtype=torch.float64, requires_grad=True)
    fake = torch.tensor([[5.0], [5.5]], dtype=torch.float64, requires_grad=True)
    at_bound = MMDLoss(RBFBKernel(1.0, 0.25, 4.0)).discriminator(real, fake)
    plain = MMDLoss(RBFKernel(1.0)).discriminator(real, fake)
    expected = torch.autograd.grad(plain, (real, fake))
    assert_close(torch.autograd.grad(at_bound, (real, fake)), expected)
    assert expected[0].abs().min() > 0.1


@one_score
def test_no_gradient_beyond_a_bound():
    real = torch.tensor([[0.0], [2.5]], dtype=torch.float64, requires_grad=True)
    fake = torch.tensor([[5.0], [5.1]], dtype=torch.float64, requires_grad=True)
    loss = MMDLoss(RBFBKernel()).discriminator(real, fake)
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss, (real, fake)))


@every_unbounded_kernel
@pytest.mark.parametrize("estimator", ESTIMATORS)
@given(seed=seeds)
def test_attractive_loss_is_minus_mmd2(case: KernelCase, estimator, seed):
    real, fake = scores(4, 3, seed), scores(4, 3, seed + 1)
    loss = MMDLoss(case.make(), lambda_=-1, estimator=estimator)
    assert_close(loss.discriminator(real, fake), -mmd2(real, fake, case.make(), estimator=estimator))


@every_kernel
@pytest.mark.parametrize("estimator", ESTIMATORS)
@given(seed=seeds, lambda_=lambdas)
def test_both_is_the_two_calls_with_their_gradients(case: KernelCase, estimator, seed, lambda_):
    real, fake = scores(4, 3, seed).requires_grad_(), scores(4, 3, seed + 1).requires_grad_()
    loss = MMDLoss(case.make(), lambda_, estimator=estimator)
    both = loss.both(real=real, fake=fake)
    separate = (loss.discriminator(real=real, fake=fake), loss.generator(real=real, fake=fake))
    for joint, single in zip(both, separate, strict=True):
        assert_close(joint, single)
        gradients = torch.autograd.grad(single, (real, fake))
        assert_close(torch.autograd.grad(joint, (real, fake), retain_graph=True), gradients)
    assert both.discriminator is both[0]
    assert both.generator is both[1]


@given(lambda_=lambdas)
def test_weights_of_the_three_terms_sum_to_zero(lambda_):
    assert sum(discriminator_objective(lambda_).weights) == pytest.approx(0, abs=1e-12)
    assert sum(MMD2) == 0


@given(lambda_=lambdas)
def test_every_loss_vanishes_where_all_scores_coincide(lambda_):
    same = torch.full((4, 2), 3.0)
    for kernel in (RBFKernel(), RBFMix(), EnergyKernel()):
        losses = MMDLoss(kernel, lambda_).both(same, same)
        assert [float(value) for value in losses] == pytest.approx([0, 0], abs=1e-6)


def test_calling_the_module_is_the_generator_loss():
    real, fake = scores(4, 2, 1), scores(5, 2, 2)
    loss = MMDLoss()
    assert_close(loss(real=real, fake=fake), loss.generator(real, fake))
    assert_close(loss(real=real, fake=fake), mmd2(real, fake, RBFKernel()))


def test_defaults_are_the_papers_repulsive_bounded_loss():
    loss = MMDLoss()
    assert isinstance(loss.kernel, RBFBKernel)
    assert (loss.lambda_, loss.estimator) == (1.0, "unbiased")
    assert MMDLoss().kernel is not loss.kernel
    assert list(inspect.signature(MMDLoss).parameters) == [
        "kernel",
        "lambda_",
        "estimator",
        "global_batch",
        "tile_size",
        "remember_real",
    ]


def test_every_argument_changes_the_result():
    real, fake = scores(4, 2, 1, scale=2), scores(4, 2, 2)
    variants = [
        MMDLoss(),
        MMDLoss(lambda_=0.5),
        MMDLoss(RBFKernel()),
        MMDLoss(estimator="biased"),
        MMDLoss(lambda_=0.5, estimator="u_statistic"),
        MMDLoss(RBFBKernel(0.9)),
        MMDLoss(RBFBKernel(lower=2.0)),
        MMDLoss(RBFBKernel(upper=3.0)),
    ]
    values = [float(loss.discriminator(real, fake)) for loss in variants]
    assert len({round(value, 9) for value in values}) == len(values)


@every_kernel
def test_terms_are_the_three_means_of_the_unbounded_kernel(case: KernelCase):
    real, fake = scores(4, 2, 1, scale=2).requires_grad_(), scores(5, 2, 2)
    terms = MMDLoss(case.make()).terms(real=real, fake=fake)
    expected = (
        mean_kernel(case.scalar, real, real, distinct=True),
        mean_kernel(case.scalar, real, fake, distinct=False),
        mean_kernel(case.scalar, fake, fake, distinct=True),
    )
    found = [float(terms.k_rr), float(terms.k_rf), float(terms.k_ff)]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-10 if case.smooth else 1e-6)
    assert not any(value.requires_grad for value in terms)
    assert all(value.shape == () and value.dtype == torch.float64 for value in terms)


@every_kernel
@pytest.mark.parametrize("estimator", ["unbiased", "u_statistic", "biased"])
def test_terms_do_not_depend_on_the_tiles(case: KernelCase, estimator):
    real, fake = scores(7, 2, 1, scale=2), scores(7 if estimator == "u_statistic" else 5, 2, 2)
    whole = MMDLoss(case.make(), -1, estimator=estimator).terms(real, fake)
    tiled = MMDLoss(case.make(), -1, estimator=estimator, tile_size=3).terms(real, fake)
    assert_close(tuple(tiled), tuple(whole))


@pytest.mark.filterwarnings("ignore::torch_mmd_losses.UsageWarning")  # of one score and of saturation
def test_saturated_share_counts_bounds_and_the_ends_of_the_kernel():
    real = torch.tensor([0.0, 1.0, 2.5])  # squared distances 1, 6.25, 2.25: one of three above the upper bound
    fake = torch.tensor([10.0, 10.3, 11.0])  # 0.09, 1, 0.49: one of three below the lower bound
    share = MMDLoss(RBFBKernel()).terms(real, fake).saturated  # and all nine cross pairs are beyond the kernel's reach
    assert float(share) == pytest.approx((2 + 2 + 9) / (6 + 6 + 9))
    assert float(MMDLoss(RBFKernel()).terms(real, fake).saturated) == pytest.approx(9 / 21)
    assert float(MMDLoss(RBFKernel() + RBFKernel(4.0)).terms(real, fake).saturated) == 0
    assert float(MMDLoss(2 * RBFKernel()).terms(real, fake).saturated) == pytest.approx(9 / 21)
    attractive = MMDLoss(RBFBKernel(sigma=5.0, lower=0.5), lambda_=-1).terms(real, fake)
    assert float(attractive.saturated) == pytest.approx((0 + 4 + 9) / 21)
    near = MMDLoss(RBFKernel(100.0)).terms(real, fake)
    assert float(near.saturated) == 1
    for kernel in (EnergyKernel(), LinearKernel()):
        assert float(MMDLoss(kernel).terms(real, fake).saturated) == 0


def test_state_and_copies():
    loss, real, fake = MMDLoss(RBFMix((0.3, 2.0)), -1), scores(4, 2, 1), scores(4, 2, 2)
    assert_close(copy.deepcopy(loss)(real=real, fake=fake), loss(real=real, fake=fake))
    fresh = MMDLoss(RBFMix((1.0, 1.0)), -1)
    fresh.load_state_dict(loss.state_dict())
    assert_close(fresh(real=real, fake=fake), loss(real=real, fake=fake))
    assert "lambda_=-1.0, estimator='unbiased', global_batch=False, tile_size=None" in repr(loss)
    assert "RBFMix(sigmas=(0.3, 2.0), weights=(1.0, 1.0))" in repr(loss)


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match="^kernel: expected a Kernel"):
        MMDLoss("rbf")
    with pytest.raises(TypeError, match="^lambda_: expected a real number, got '1'"):
        MMDLoss(lambda_="1")
    with pytest.raises(ValueError, match="^lambda_: expected a finite number, got nan"):
        MMDLoss(lambda_=float("nan"))
    with pytest.raises(ValueError, match="^estimator: expected one of .* got 'u'"):
        MMDLoss(estimator="u")
    with pytest.raises(TypeError, match="positional"):
        MMDLoss(None, 1.0, "biased")
    with pytest.raises(TypeError, match="^global_batch: expected True or False, got 1 of type int"):
        MMDLoss(global_batch=1)
    for make in (MMDLoss, lambda **options: mmd2(torch.zeros(2), torch.zeros(2), RBFKernel(), **options)):
        for wrong in (2.0, True):
            with pytest.raises(TypeError, match="^tile_size: expected an integer, got "):
                make(tile_size=wrong)
        with pytest.raises(ValueError, match="^tile_size: expected an integer >= 1, got 0"):
            make(tile_size=0)


@pytest.mark.parametrize("method", ["discriminator", "generator", "both", "terms", "forward"])
def test_every_method_checks_the_scores(method):
    call = getattr(MMDLoss(), method)
    with pytest.raises(ValueError, match="^real, fake: expected the same score dimension d, got 2 and 3"):
        call(real=torch.zeros(4, 2), fake=torch.zeros(4, 3))
    with pytest.raises(ValueError, match="^real, fake: expected at least 2 samples each .* got 4 and 1"):
        call(real=torch.zeros(4, 2), fake=torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("loss", "keywords"), [(MMDLoss(), "real=..., fake=..."), (ScaledMMDLoss(), "real=..., fake=..., inputs=...")]
)
def test_calling_the_module_by_position_says_how_to_write_it(loss, keywords):
    # As in the loop of the official DCGAN example, where `label` is a vector of ones or zeros.
    output, label = torch.rand(4), torch.ones(4)
    expected = (
        rf"^real, fake(, inputs)?: expected scores by keyword, loss\({keywords}\), .* got 2 positional arguments: a "
        rf"tensor of shape \(4,\), a tensor of shape \(4,\). Write loss.discriminator\({keywords}\) .* and "
        rf"loss.generator\({keywords}\)"
    )
    with pytest.raises(TypeError, match=expected):
        loss(output, label)
    with pytest.raises(TypeError, match="got 1 positional argument: a tensor"):
        loss(output, fake=label)
    with pytest.raises(TypeError, match="unexpected keyword"):
        loss(output=output)


def test_the_generator_refuses_swapped_scores():
    real, fake = scores(4, 2, 1), scores(5, 2, 2)
    trained = real.clone().requires_grad_()
    message = "^real, fake: expected fake scores that require gradients, got real scores that require .* swapped"
    for loss in (MMDLoss(), MMDLoss(remember_real=True), MMDLoss(LinearKernel(), -1)):
        for method in (loss.generator, loss):
            with pytest.raises(ValueError, match=message):
                method(real=trained, fake=fake)
            with torch.no_grad():
                assert_close(method(real=trained, fake=fake), mmd2(real, fake, loss.kernel))
            method(real=real, fake=fake)
            method(real=trained, fake=fake.clone().requires_grad_())
        loss.both(real=trained, fake=fake)
        loss.discriminator(real=trained, fake=fake.clone().requires_grad_())
        loss.terms(real=trained, fake=fake)
        expected = torch.autograd.grad(mmd2(trained, fake, loss.kernel), trained)[0]
        assert_close(torch.func.grad(lambda x, loss=loss: loss.generator(real=x, fake=fake))(real), expected)


@pytest.mark.slow
def test_the_compiled_generator_refuses_swapped_scores():
    with pytest.raises(ValueError, match="^real, fake: expected fake scores that require gradients"):
        torch.compile(MMDLoss().generator, backend="eager")(scores(4, 2, 1).requires_grad_(), scores(5, 2, 2))


@pytest.mark.parametrize(
    ("make", "name", "value", "error", "message"),
    [
        (MMDLoss, "kernel", 3, TypeError, "kernel: expected a Kernel"),
        (MMDLoss, "estimator", "x", ValueError, "estimator: expected one of .* got 'x'"),
        (MMDLoss, "global_batch", 1, TypeError, "global_batch: expected True or False, got 1"),
        (MMDLoss, "tile_size", 0, ValueError, "tile_size: expected an integer >= 1, got 0"),
        (MMDLoss, "remember_real", "yes", TypeError, "remember_real: expected True or False, got 'yes'"),
        (MMDLoss, "lambda_", float("nan"), ValueError, "lambda_: expected a finite number, got nan"),
        (MMDLoss, "lambda_", torch.ones(1), TypeError, "lambda_: expected a real number, got a tensor"),
        (ScaledMMDLoss, "kernel", EnergyKernel(), TypeError, "kernel: expected a kernel that is positive and smooth"),
        (ScaledMMDLoss, "lambda_", 0, ValueError, "lambda_: expected a number > 0, got 0"),
        (ScaledMMDLoss, "scale", 1.0, ValueError, "scale: expected one of 'practical', 'exact', got 1.0"),
        (ScaledMMDLoss, "squared", None, TypeError, "squared: expected True or False, got None"),
        (ScaledMMDLoss, "squared", False, ValueError, "squared: expected True .* got False with RBFKernel"),
        (ScaledMMDLoss, "tile_size", 1.5, TypeError, "tile_size: expected an integer, got 1.5"),
        (
            lambda **options: ScaledMMDLoss(**({"kernel": LinearKernel(), "squared": False} | options)),
            "kernel",
            RBFKernel(),
            ValueError,
            "squared: expected True .* got False with RBFKernel",
        ),
    ],
)
def test_options_are_checked_in_the_constructor_and_later(make, name, value, error, message):
    with pytest.raises(error, match=f"^{message}"):
        make(**{name: value})
    loss = make()
    before = getattr(loss, name)
    with pytest.raises(error, match=f"^{message}"):
        setattr(loss, name, value)
    assert getattr(loss, name) is before


def test_options_that_are_assigned_later_are_used():
    real, fake = scores(4, 2, 1), scores(5, 2, 2)
    loss = MMDLoss()
    loss.lambda_, loss.kernel, loss.estimator, loss.tile_size = -1, RBFKernel(2.0), "biased", 2
    assert_close(loss.discriminator(real, fake), -mmd2(real, fake, RBFKernel(2.0), estimator="biased"))
    assert repr(loss.lambda_) == "-1.0"
    assert list(dict(loss.named_children())) == ["kernel"]
    loss.note = "any other attribute"
    scaled = ScaledMMDLoss()
    scaled.kernel, scaled.squared, scaled.lambda_ = LinearKernel(), False, 1
    assert (scaled.squared, scaled.lambda_) == (False, 1.0)
