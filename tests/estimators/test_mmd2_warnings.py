"""mmd2 and the other estimators and tests warn of kernels that give the same value for all pairs."""

import warnings

import pytest
import torch

import torch_mmd_losses
from torch_mmd_losses import (
    EnergyKernel,
    LinearKernel,
    PolynomialKernel,
    RBFKernel,
    RBFMix,
    UsageWarning,
    mmd2,
    mmd2_and_variance,
    mmd2_blocks,
    mmd2_fourier,
    mmd_test,
    relative_mmd_test,
    usage_warnings,
)
from torch_mmd_losses.estimators import blocks


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


OTHERS = {
    "mmd2": lambda x, y, kernel: mmd2(x, y, kernel, fake_weights=torch.ones_like(y[:, 0])),
    "mmd2_and_variance": mmd2_and_variance,
    "mmd2_blocks": lambda x, y, kernel: mmd2_blocks(x, y, kernel, block_size=10),
    "mmd2_fourier": lambda x, y, kernel: mmd2_fourier(x, y, kernel, frequencies=5),
    "mmd_test": lambda x, y, kernel: mmd_test(x, y, kernel, permutations=9),
    "relative_mmd_test": lambda x, y, kernel: relative_mmd_test(x, y, y.flip(1), kernel),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_functions_warn_likewise(name):
    call, x, y = OTHERS[name], torch.randn(20, 2048), torch.randn(20, 2048)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            call(x, y, RBFKernel())
        call(x, y, RBFKernel(45.0))
    (warning,) = caught
    assert str(warning.message).startswith(f"{name}: expected kernel values between zero and the peak of the kernel")
    assert "far apart" in str(warning.message)
    assert warning.filename == __file__


CALLS = {
    "mmd2": "mmd2(x, y, kernel)",
    "mmd2_and_variance": "mmd2_and_variance(x, y, kernel)",
    "mmd2_blocks": "mmd2_blocks(x, y, kernel, block_size=10)",
    "mmd2_blocks with large blocks": "mmd2_blocks(x, y, kernel, block_size=10)",
    "mmd2_fourier": "mmd2_fourier(x, y, kernel, frequencies=5)",
    "grouped_mmd2": "grouped_mmd2(x, y, kernel)",
    "gradient_constrained_mmd2": "gradient_constrained_mmd2(x[:3], y[:3], kernel, rank=4)",
    "mmd_test": "mmd_test(x, y, kernel, permutations=9)",
    "relative_mmd_test": "relative_mmd_test(x, y, y.flip(1), kernel)",
    "kernel_sums": "kernel_sums(x, y, kernel)",
    "witness": "witness(x, x, y, kernel)",
    "witness_gradient": "witness_gradient(x, real=y, fake=x, kernel=kernel)",
    "drift": "drift(x, y, kernel=kernel, normalise='none')",
    "MMDReference.mmd2": "MMDReference(x, kernel).mmd2(y)",
    "MMDReference.forward": "MMDReference(x, kernel)(y)",
    "ratio_to_real": "ratio_to_real(MMDReference(x, kernel), y, y + 1)",
}
"""Calls of all functions that examine kernel values, as text, from which any number of places in the code are made."""


@pytest.mark.parametrize("name", CALLS)
def test_functions_whose_docstrings_say_so_warn_in_the_first_call_from_each_place(name, monkeypatch):
    if name.endswith("large blocks"):
        monkeypatch.setattr(blocks, "TOGETHER_UP_TO", 0)
    function = eval(name.partition(" ")[0], vars(torch_mmd_losses))
    documented = ":math:`k(a, a)`" in function.__doc__.partition("Warns:")[2].partition("Example:")[0]
    near, far = ({"x": c * torch.randn(20, 2), "y": c * torch.randn(20, 2), "kernel": RBFKernel()} for c in (1, 1e4))
    first, second = (compile(CALLS[name], __file__, "eval") for _ in range(2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for place, arguments in ((first, near), (first, far), (second, far), (second, far)):
            eval(place, vars(torch_mmd_losses), arguments)
        usage_warnings._warned.clear()
        eval(first, vars(torch_mmd_losses), far)  # with the first call of a process
    # The kernel of a reference is named after the reference, in whatever function it is used.
    expected = {"ratio_to_real": "MMDReference"}.get(name, name.partition(" ")[0].partition(".")[0])
    assert [str(warning.message).partition(":")[0] for warning in caught] == [expected] * 2 * documented
    assert {warning.filename for warning in caught} <= {__file__}


def test_a_test_is_warned_of_if_none_of_its_kernels_tells_samples_apart():
    x, y = samples(20)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mmd_test(x, y, [RBFKernel(), RBFKernel(45.0)], permutations=9)
        mmd_test(x, y, permutations=9)
        assert not caught
        mmd_test(x, y, [RBFKernel(), RBFKernel(1e6)], permutations=9)
        for _ in range(2):
            mmd_test(x, y, RBFKernel(), features="nystrom", feature_count=9, permutations=9)
    assert len(caught) == 2


@pytest.mark.parametrize("name", ["mmd2_blocks", "mmd2_fourier"])
def test_of_very_large_samples_the_first_are_examined(name):
    x, y = torch.randn(300, 200), torch.randn(300, 200)
    x[256:] *= 0.05
    assert warned(x, y, RBFKernel()) == []  # some samples after those are near each other
    with pytest.warns(UsageWarning, match=name):
        OTHERS[name](x, y, RBFKernel())


def test_nothing_is_read_where_it_must_not_be():
    real, fake = samples(20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in OTHERS.values():
            call(real.to("meta"), fake[:20].to("meta"), RBFKernel())
        torch.func.vmap(lambda x, y: mmd2(x, y, RBFKernel()))(real[None], fake[None])
        mmd2(real.to("meta"), fake.to("meta"), RBFKernel())


@pytest.mark.slow
def test_compiled_code_is_silent():
    step = torch.compile(lambda x, y: mmd2(x, y, RBFKernel()), backend="eager", fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(*samples(20))
