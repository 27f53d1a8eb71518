"""mmd2 warns of kernels that give the same value for all pairs."""

import warnings

import pytest
import torch

from torch_mmd_losses import (
    EnergyKernel,
    LinearKernel,
    PolynomialKernel,
    RBFKernel,
    RBFMix,
    UsageWarning,
    mmd2,
    usage_warnings,
)


def warned(*arguments, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mmd2(*arguments, **options)
    return [str(warning.message) for warning in caught]


def samples(m, d=2048, scale=1.0):
    return scale * torch.randn(m, d), scale * torch.randn(m + 1, d)


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize("m", [20, 300])
@pytest.mark.parametrize(
    ("kernel", "size"),
    [(RBFKernel(), "far apart"), (RBFMix((1.0, 2.0)), "far apart"), (RBFKernel(1e6), "close together")],
    ids=str,
)
def test_one_value_for_all_pairs_is_warned_of(estimator, m, kernel, size):
    real, fake = samples(m)
    (message,) = warned(real, fake, kernel, estimator=estimator)
    mean = torch.pdist(torch.cat([real, fake]).double()).square().mean()
    assert message.startswith(
        "mmd2: expected kernel values between zero and the peak of the kernel, got the same value"
    )
    assert size in message
    assert f"The mean squared distance of the scores is {float(mean):.4g}, and the kernel is {kernel}." in message
    assert "torch_mmd_losses.median_distance(scores)" in message
    assert "conv_spectral_norm" not in message


@pytest.mark.parametrize("m", [20, 300])
def test_a_sample_that_was_drawn_twice_changes_nothing(m):
    real, fake = samples(m)
    real[1] = real[0]
    (message,) = warned(real, fake, RBFKernel())
    assert "far apart" in message


constant = torch.full((8, 3), 0.3)
classes = 100 * torch.eye(3)


@pytest.mark.parametrize(
    ("real", "fake", "kernel"),
    [
        (*samples(20), RBFKernel(45.0)),
        (*samples(20), RBFKernel() + LinearKernel()),
        (*samples(20), RBFKernel() + RBFKernel(45.0)),
        (*samples(20), LinearKernel()),
        (*samples(20), PolynomialKernel()),
        (*samples(20), EnergyKernel()),
        (constant, constant, RBFKernel()),
        (constant, constant, RBFKernel(1e-9)),
        (torch.full((8, 3), torch.nan), constant, RBFKernel()),
        # A kernel that only tells classes apart: all values are zero or one, but not all the same.
        (classes[[0, 0, 1, 2]], classes[[0, 1, 1, 2]], RBFKernel()),
        # Close together, but in a dtype that keeps the difference.
        (*(1e-5 * x for x in samples(20, 3)), RBFKernel()),
    ],
    ids=[
        "rbf",
        "with_linear",
        "with_wide",
        "linear",
        "cubic",
        "energy",
        "constant",
        "narrow",
        "nan",
        "classes",
        "close",
    ],
)
def test_values_that_say_something_are_not_warned_of(real, fake, kernel):
    if isinstance(kernel, RBFKernel) and real.abs().max() < 1e-3:
        assert warned(real, fake, kernel)
        usage_warnings._warned.clear()
        real, fake = real.double(), fake.double()
    assert not warned(real, fake, kernel)


def test_only_the_first_call_from_a_place_is_examined():
    near, far = samples(20, 2), samples(20)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for real, fake in (near, far, far):
            mmd2(real, fake, RBFKernel())
        mmd2(*far, RBFKernel())
        for _ in range(3):
            mmd2(*far, RBFKernel())
    assert len(caught) == 2
    assert {warning.filename for warning in caught} == {__file__}
    assert {warning.category for warning in caught} == {UsageWarning}


def test_nothing_is_read_where_it_must_not_be():
    real, fake = samples(20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.func.vmap(lambda x, y: mmd2(x, y, RBFKernel()))(real[None], fake[None])
        mmd2(real.to("meta"), fake.to("meta"), RBFKernel())


@pytest.mark.slow
def test_compiled_code_is_silent():
    step = torch.compile(lambda x, y: mmd2(x, y, RBFKernel()), backend="eager", fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(*samples(20))
