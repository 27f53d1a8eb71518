"""Gram matrices of every kernel: definitions, laws, sums and multiples."""

import pytest
import torch
from cases import CASES, RADIAL, Cubic, InverseMultiquadric, KernelCase, scores
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    RBFKernel,
)

every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
some_scores = st.builds(scores, m=st.integers(1, 6), d=st.integers(1, 4), seed=st.integers(0, 10**6))


@every_kernel
@given(a=some_scores, seed=st.integers(0, 10**6), n=st.integers(1, 6))
def test_gram_equals_the_scalar_definition(case: KernelCase, a, seed, n):
    b = scores(n, a.shape[1], seed, scale=2.0, shift=0.5)
    expected = torch.tensor([[case.scalar(p, q) for q in b.tolist()] for p in a.tolist()], dtype=torch.float64)
    assert_close(case.make()(a, b), expected, rtol=1e-10, atol=1e-7 if not case.smooth else 1e-11)


@every_kernel
@given(a=some_scores)
def test_gram_of_a_set_with_itself_is_symmetric_and_semi_definite(case: KernelCase, a):
    gram = case.make()(a, a)
    assert_close(gram, gram.T)
    if case.positive:
        smallest = torch.linalg.eigvalsh(gram)[0]
        assert smallest >= -1e-9 * gram.diagonal().max().clamp_min(1)
    if case.peak is not None:
        assert_close(gram.diagonal(), torch.full_like(gram.diagonal(), case.peak), rtol=0, atol=1e-12)


def test_a_sample_is_at_distance_zero_from_itself():
    # What rounding leaves on the diagonal, 1e-6, would be a distance of 1e-3.
    scores_float32 = scores(50, 64).float()
    assert not EnergyKernel()(scores_float32, scores_float32).diagonal().any()


@every_kernel
@given(a=some_scores, seed=st.integers(0, 10**6))
def test_values_stay_below_the_peak(case: KernelCase, a, seed):
    gram = case.make()(a, scores(4, a.shape[1], seed))
    if case.peak is not None:
        assert (gram <= case.peak * (1 + 1e-12)).all()
        assert case.peak == 0 or (gram > 0).all()


@pytest.mark.parametrize("case", RADIAL.values(), ids=RADIAL)
@given(a=some_scores, seed=st.integers(0, 10**6), shift=st.floats(-5, 5))
def test_radial_kernels_see_neither_translation_nor_rotation(case: KernelCase, a, seed, shift):
    d = a.shape[1]
    b = scores(3, d, seed + 1)
    rotation = torch.linalg.qr(scores(d, d, seed)).Q
    kernel = case.make()
    moved = kernel(a @ rotation + shift, b @ rotation + shift)
    assert_close(moved, kernel(a, b), rtol=1e-9, atol=1e-6 if not case.smooth else 1e-10)


def test_sums_and_multiples_nest():
    a, b = scores(3, 2, 1), scores(4, 2, 2)
    nested = 2 * (RBFKernel() + 3 * (Cubic() + InverseMultiquadric()))
    expected = 2 * RBFKernel()(a, b) + 6 * Cubic()(a, b) + 6 * InverseMultiquadric()(a, b)
    assert_close(nested(a, b), expected)


def test_scores_of_any_rank_are_flattened():
    images = scores(4, 6).reshape(4, 2, 3)
    assert_close(RBFKernel()(images, images), RBFKernel()(images.flatten(1), images.flatten(1)))
    line = scores(4, 1).squeeze(1)
    assert_close(RBFKernel()(line, line), RBFKernel()(line[:, None], line[:, None]))


def test_gram_checks_its_arguments():
    with pytest.raises(ValueError, match="a, b: expected the same score dimension d, got 2 and 3"):
        RBFKernel()(torch.zeros(4, 2), torch.zeros(4, 3))
