"""References that keep means of random features, compared with cosines of all pairs and the numbers of public code."""

import copy
import pickle

import pytest
import torch
from cases import CASES, scores
from hypothesis import given
from hypothesis import strategies as st
from public_numbers import case
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from torch_mmd_losses import MMDReference, RationalQuadraticMix, RBFKernel, mmd2
from torch_mmd_losses.references.batches import Rows
from torch_mmd_losses.references.fourier import Waves

KNOWN = {
    name: CASES[name] for name in ("rbf", "rbf_mix_weighted", "rational_quadratic_mix", "rbf_b", "multiple_of_bounded")
}


def fourier_reference(real, kernel, frequencies=50, **options):
    """Return a reference with random features."""
    return MMDReference(real, kernel, kind="fourier", frequencies=frequencies, **options)


def approximate_kernel(reference, a, b):
    """Return the mean of the cosines of phases of differences, the kernel that the features stand for."""
    omega, peak = reference.form.omega, reference.form.peak
    return peak * ((a.unsqueeze(1) - b.unsqueeze(0)) @ omega.T).cos().mean(-1)


@pytest.mark.parametrize("case", KNOWN.values(), ids=KNOWN)
@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_everything_is_that_of_the_kernel_of_the_features(case, estimator):
    real, fake, points = scores(9, 3, 1), scores(6, 3, 2), scores(5, 3, 3)
    weights = scores(9, 1, 4)[:, 0].abs()
    reference = fourier_reference(real, case.make(), weights=weights)
    shares = weights / weights.sum()
    k_rr, k_rf, k_ff = (approximate_kernel(reference, a, b) for a, b in ((real, real), (real, fake), (fake, fake)))
    if estimator == "biased":
        within, repulsion = shares @ k_rr @ shares, k_ff.mean()
        assert_close(reference.self_term, within)
    else:
        within = shares @ (k_rr - k_rr.diagonal().diag()) @ shares / (1 - shares.square().sum())
        repulsion = (k_ff.sum() - k_ff.trace()) / 30
    expected = within - 2 * (shares @ k_rf).mean() + repulsion
    assert_close(reference.mmd2(fake, estimator=estimator), expected)
    gram = approximate_kernel(reference, points, real)
    assert_close(reference.attraction(points), gram @ shares)
    assert_close(reference.sums(points), (gram @ shares, (gram * shares) @ real))


def test_the_numbers_of_rdm():
    # Its features sqrt(2 / D) cos(w x + b) are combinations of the cosine and the sine of w x.
    inputs, outputs = case("rdm_rff")
    form = Waves(RBFKernel(), inputs["r"], frequencies=16, generator=None)
    form.omega, form.centre = inputs["W"].T.contiguous(), torch.zeros(5, dtype=torch.float64)
    form.include(Rows(inputs["r"], None))
    mean = form.waves / form.weight
    scale, phase = (2 / 16) ** 0.5, inputs["b"]

    def features(waves):
        return scale * (waves[..., :16] * phase.cos() - waves[..., 16:] * phase.sin())

    assert_close(features(mean), outputs["mu_r"], rtol=1e-10, atol=1e-12)
    fake = inputs["g"].requires_grad_()
    loss = (features(form._waves_of(fake).mean(0)) - features(mean)).square().sum()
    (gradient,) = torch.autograd.grad(loss, fake)
    assert_close((loss, gradient), (outputs["loss"], outputs["grad_g"]), rtol=1e-9, atol=1e-12)


def test_many_frequencies_come_near_the_kernel():
    real, fake = scores(200, 3, 1), scores(100, 3, 2, shift=0.5)
    kernel = RationalQuadraticMix()
    value = fourier_reference(real, kernel, 20_000, generator=torch.Generator().manual_seed(0)).mmd2(fake)
    expected = mmd2(real, fake, kernel, estimator="biased")
    assert abs(value - expected) < 4 * (4 * 5 * float(expected) / 20_000) ** 0.5  # standard deviations, at most


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**20))
def test_the_biased_value_is_never_negative_and_zero_for_equal_samples(m, n, seed):
    real, fake = scores(m, 2, seed), scores(n, 2, seed + 1)
    reference = fourier_reference(real, RBFKernel())
    assert reference.mmd2(fake) >= 0
    assert reference.mmd2(real) < 1e-12


def test_everything_is_differentiable_twice():
    reference = fourier_reference(scores(9, 2, 1), RBFKernel())
    points, fake = scores(3, 2, 2).requires_grad_(), scores(4, 2, 3).requires_grad_()
    for function, inputs in (
        (reference.mmd2, (fake,)),
        (reference.attraction, (points,)),
        (reference.witness, (points, fake)),
        (reference.sums, (points,)),
    ):
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


def test_the_frequencies_stay():
    real, fake = scores(50, 3, 1), scores(9, 3, 2)
    reference = fourier_reference(real, RBFKernel())
    assert reference.mmd2(fake) == reference.mmd2(fake)
    repeated = [fourier_reference(real, RBFKernel(), generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert repeated[0].mmd2(fake) == repeated[1].mmd2(fake)


def test_features_far_from_the_origin_in_float32():
    real, fake = scores(50, 3, 1) + 1000, scores(9, 3, 2) + 1000
    options = {"frequencies": 64, "generator": torch.Generator().manual_seed(0)}
    narrow = fourier_reference(real.float(), RBFKernel(), **options).mmd2(fake.float())
    options = {"frequencies": 64, "generator": torch.Generator().manual_seed(0)}
    wide = fourier_reference(real.float().double(), RBFKernel(), **options).mmd2(fake.float().double())
    assert_close(narrow.double(), wide, rtol=1e-6, atol=0)


def test_there_is_no_bound_on_the_error():
    with pytest.raises(TypeError, match="^kind: expected 'exact' or 'nystrom' for error_bound, got 'fourier'"):
        fourier_reference(scores(9, 3), RBFKernel()).error_bound(scores(4, 3))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), lambda x: x.half()])
def test_copies_pickles_and_conversions(copied):
    reference, fake = fourier_reference(scores(50, 3), RBFKernel(2.0)), scores(4, 3, 2)
    expected = reference.mmd2(fake)
    assert_close(copied(reference).mmd2(fake), expected, rtol=0, atol=0)
