"""Functions of groups and fields warn of kernels that give the same value for all pairs of all groups."""

import warnings

import pytest
import torch

from torch_mmd_losses import (
    LaplaceKernel,
    LinearKernel,
    RBFKernel,
    UsageWarning,
    drift,
    grouped_mmd2,
    kernel_sums,
    usage_warnings,
    witness_gradient,
)
from torch_mmd_losses.types import NORMALISERS

CALLS = {
    "grouped_mmd2": grouped_mmd2,
    "kernel_sums": kernel_sums,
    "drift": lambda x, y, kernel: drift(x, y, kernel=kernel, normalise="none"),
    "witness_gradient": lambda x, y, kernel: witness_gradient(x, real=y, fake=x, kernel=kernel),
}
GROUPED = ("grouped_mmd2", "kernel_sums", "drift")
every_call = pytest.mark.parametrize("name", CALLS)
every_grouped_call = pytest.mark.parametrize("name", GROUPED)


def samples(*groups, d=512):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*groups, 8, d, generator=generator), torch.randn(*groups, 7, d, generator=generator)


def warned(call, *arguments, **options):
    """Return the messages of a call, as if it were the first one from its place."""
    usage_warnings._warned.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*arguments, **options)
    assert {warning.category for warning in caught} <= {UsageWarning}
    return [str(warning.message) for warning in caught]


@every_call
def test_the_first_call_from_each_place_is_examined(name):
    x, y = samples()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            CALLS[name](x, y, RBFKernel())
        CALLS[name](x, y, RBFKernel(22.0))
    (warning,) = caught
    assert str(warning.message).startswith(f"{name}: expected kernel values between zero and the peak of the kernel")
    assert "the same value for all pairs: the scores are too far apart" in str(warning.message)
    assert warning.filename == __file__


@every_call
def test_kernels_may_be_too_wide_too(name):
    (message,) = warned(CALLS[name], *samples(), RBFKernel(1e7))
    assert "too close together" in message


@every_call
def test_a_kernel_of_which_a_part_sees_differences_is_not_warned_of(name):
    assert warned(CALLS[name], *samples(), RBFKernel() + RBFKernel(22.0)) == []
    if name != "drift":  # which refuses this kernel
        assert warned(CALLS[name], *samples(), RBFKernel() + LinearKernel()) == []


@every_grouped_call
def test_one_group_that_a_kernel_sees_is_enough(name):
    x, y = samples(70, d=200)
    (message,) = warned(CALLS[name], x, y, RBFKernel())
    assert "the same value for all pairs of all groups: " in message
    for scores in (x, y):
        scores[66] *= 0.1
    assert warned(CALLS[name], x, y, RBFKernel()) == []


def test_distances_are_those_in_units_of_the_scale():
    x, y = samples(3)
    scale = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (message,) = warned(grouped_mmd2, x, y, RBFKernel(), scale=scale)
    assert message.endswith(", in units of `scale`")
    assert warned(grouped_mmd2, x, y, RBFKernel(), scale=scale * 22) == []


def test_samples_are_not_compared_with_themselves():
    x, _ = samples()
    assert len(warned(kernel_sums, x, x, RBFKernel())) == 1
    assert len(warned(drift, x, x, kernel=RBFKernel(), normalise="none")) == 1
    assert warned(kernel_sums, x[:1], x[:1], RBFKernel()) == []


@every_call
def test_values_that_do_not_underflow_say_something_about_fields(name):
    kernel = LaplaceKernel(0.5)  # at distances of 64 scales
    assert len(warned(CALLS[name], *samples(), kernel)) == (name == "grouped_mmd2")
    assert len(warned(CALLS[name], *[each.double() for each in samples()], kernel)) == (name == "grouped_mmd2")
    narrow = LaplaceKernel(0.25)  # 128 scales: zero in float32, but not in float64
    assert len(warned(CALLS[name], *samples(), narrow)) == 1
    assert len(warned(CALLS[name], *[each.double() for each in samples()], narrow)) == (name == "grouped_mmd2")


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_normalised_drifts_take_any_small_bandwidth(normalise):
    x, y = samples()
    assert len(warned(drift, x, y, kernel=RBFKernel(), normalise=normalise)) == (normalise == "none")
    assert len(warned(drift, x, y, kernel=RBFKernel(1e7), normalise=normalise)) == 1


@every_call
def test_nothing_is_read_where_it_must_not_be(name):
    x, y = samples()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CALLS[name](x.to("meta"), y.to("meta"), RBFKernel())
        torch.func.vmap(lambda a, b: CALLS[name](a, b, RBFKernel()))(x[None], y[None])
    scale = torch.ones((), device="meta")
    assert warned(grouped_mmd2, x.to("meta"), y.to("meta"), RBFKernel(), scale=scale) == []


@pytest.mark.slow
@every_call
def test_compiled_code_is_silent(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.compile(lambda x, y: CALLS[name](x, y, RBFKernel()), backend="eager", fullgraph=True)(*samples())
