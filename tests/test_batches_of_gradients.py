"""Function transforms, and backward passes that get a batch of gradients: right values, or an error with a remedy."""

import pytest
import torch
from cases import scores
from torch.autograd.functional import hessian, jacobian
from torch.testing import assert_close

from torch_mmd_losses import (
    L1LaplaceKernel,
    LinearKernel,
    MMDLoss,
    MMDReference,
    RBFKernel,
    drift,
    drift_loss,
    gradient_constrained_mmd2,
    grouped_mmd2,
    kernel_sums,
    mmd2,
    mmd2_and_variance,
    witness,
    witness_gradient,
)
from torch_mmd_losses.pairs import kernel_products, plan

# The real scores of the discriminator's loss are constants here, in whichever test makes its second call.
pytestmark = pytest.mark.filterwarnings(
    "ignore:MMDLoss. expected real and fake scores that require gradients:torch_mmd_losses.UsageWarning"
)

REAL, POINTS, KERNEL = scores(5, 2, 1), scores(3, 2, 2), RBFKernel()
WEIGHTS = scores(5, 1, 4)[:, 0].abs()
LOSS, REFERENCE = MMDLoss(RBFKernel(), 0.3), MMDReference(REAL, RBFKernel())
REFERENCE.drmmd2(POINTS, lambda_=0.1), REFERENCE.mmd2(POINTS)  # transforms need what the first calls compute
TRAINED = RBFKernel(1.5, trainable=True).double()

FIELDS = {
    "witness": lambda x: witness(x, REAL, x, KERNEL),
    "witness_gradient": lambda x: witness_gradient(x, real=REAL, fake=x, kernel=KERNEL),
    "witness_gradient with constants": lambda x: witness_gradient(x, real=REAL, fake=x.detach(), kernel=KERNEL),
    "mass": lambda x: kernel_sums(x, x, KERNEL, exclude_self=True)[0],
    "moment": lambda x: kernel_sums(POINTS, x, KERNEL)[1],
    "drift": lambda x: drift(x, REAL, kernel=KERNEL),
    "drift over rows": lambda x: drift(x, REAL, kernel=KERNEL, normalise="rows"),
    "sharp drift": lambda x: drift(x, REAL, kernel=KERNEL, normalise="sharp"),
    "drift without a normaliser": lambda x: drift(x, REAL, kernel=KERNEL, normalise="none"),
    "drift_loss": lambda x: drift_loss(x.unsqueeze(0), REAL.unsqueeze(0)),
    "kernel": lambda x: (RBFKernel() + 0.1 * LinearKernel())(x, REAL),
    "reference.attraction": REFERENCE.attraction,
    "reference.sums": lambda x: REFERENCE.sums(x)[1],
}
LOSSES = {
    "mmd2": lambda x: mmd2(REAL, x, KERNEL),
    "mmd2 with weights": lambda x: mmd2(REAL, x, KERNEL, real_weights=WEIGHTS),
    "mmd2 of a trained kernel": lambda x: mmd2(REAL, x, TRAINED),
    "discriminator": lambda x: LOSS.discriminator(real=REAL, fake=x),
    "grouped_mmd2": lambda x: grouped_mmd2(REAL.unsqueeze(0), x.unsqueeze(0), KERNEL).sum(),
    "variance": lambda x: mmd2_and_variance(REAL, x, KERNEL).variance,
    "gradient_constrained_mmd2": lambda x: gradient_constrained_mmd2(REAL, x, KERNEL),
    "reference.mmd2": REFERENCE.mmd2,
    "reference.drmmd2": lambda x: REFERENCE.drmmd2(x, lambda_=0.1),
}
EVERY = {**FIELDS, **LOSSES}
FAKE = scores(5, 2, 3)


def batched_jacobian(function, fake):
    """Return the Jacobian from one backward pass for a batch of gradients."""
    fake = fake.clone().requires_grad_()
    values = function(fake)
    directions = torch.eye(values.numel(), dtype=values.dtype).view(-1, *values.shape)
    rows = torch.func.vmap(lambda v: torch.autograd.grad(values, fake, v, retain_graph=True)[0])(directions)
    return rows.view(*values.shape, *fake.shape)


def batched_hessian(function, fake):
    """Return the Hessian from one backward pass for a batch of gradients of the gradient."""

    def gradient(x):
        return torch.autograd.grad(function(x).sum(), x, create_graph=True)[0]

    return batched_jacobian(gradient, fake)


def in_batches(function):
    """Return the functions that differentiate another one with a batch of gradients."""
    first = [lambda: jacobian(function, FAKE, vectorize=True), lambda: batched_jacobian(function, FAKE)]
    second = [
        lambda: hessian(lambda x: function(x).sum(), FAKE, vectorize=True),
        lambda: batched_hessian(function, FAKE),
    ]
    return first, second


@pytest.fixture
def in_tiles(monkeypatch):
    """Evaluate small batches as large ones."""
    monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
    monkeypatch.setattr(kernel_products, "DENSE_UP_TO", 0)


@pytest.mark.parametrize("name", EVERY)
def test_transforms_are_right(name):
    function = EVERY[name]
    expected = jacobian(function, FAKE)
    assert_close(torch.func.jacrev(function)(FAKE), expected)
    assert_close(torch.func.jacfwd(function)(FAKE), expected)
    both = torch.stack([FAKE, FAKE + 0.5])
    assert_close(torch.func.vmap(function)(both), torch.stack([function(each) for each in both]))
    assert_close(torch.func.vmap(torch.func.jacrev(function))(both)[0], expected)


@pytest.mark.parametrize("name", LOSSES)
def test_hessians_are_right(name):
    assert_close(torch.func.hessian(LOSSES[name])(FAKE), hessian(LOSSES[name], FAKE))


@pytest.mark.usefixtures("in_tiles")
@pytest.mark.parametrize("name", ["witness", "witness_gradient", "mass", "moment", "drift", "sharp drift"])
def test_batches_of_gradients_of_fields_are_refused_by_name(name):
    for compute in in_batches(FIELDS[name])[0]:
        with pytest.raises(RuntimeError, match=r"^vectorize, is_grads_batched: expected one gradient .*func\.jacrev"):
            compute()


def test_batches_of_gradients_of_the_1_norm_are_refused_by_name():
    for compute in in_batches(lambda x: L1LaplaceKernel()(x, REAL))[0]:
        with pytest.raises(RuntimeError, match="^vectorize, is_grads_batched: expected one gradient"):
            compute()


@pytest.mark.usefixtures("in_tiles")
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "variance"])
def test_batches_of_second_derivatives_of_losses_are_refused_by_name(name):
    for compute in in_batches(LOSSES[name])[1]:
        with pytest.raises(RuntimeError, match=r"^vectorize, is_grads_batched: expected one gradient .*func\.hessian"):
            compute()


@pytest.mark.parametrize("name", ["mmd2", "mmd2 of a trained kernel", "discriminator", "gradient_constrained_mmd2"])
def test_batches_of_gradients_of_small_losses_are_right(name):
    first, second = in_batches(LOSSES[name])
    for found in (*first, *second):
        expected = jacobian(LOSSES[name], FAKE) if found in first else hessian(LOSSES[name], FAKE)
        assert_close(found(), expected)


def test_terms_are_constants_to_transforms():
    def terms(x):
        return torch.stack(LOSS.terms(REAL, x))

    assert_close(torch.func.jvp(terms, (FAKE,), (FAKE,)), (terms(FAKE), torch.zeros(4, dtype=torch.float64)))
    both = torch.stack([FAKE, FAKE + 0.5])
    assert_close(torch.func.vmap(terms)(both), torch.stack([terms(each) for each in both]))
