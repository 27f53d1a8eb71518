"""References that keep landmarks, compared with dense matrices, with all rows, and the numbers of public code."""

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

from torch_mmd_losses import EnergyKernel, MMDReference, RationalQuadraticMix, RBFKernel, UsageWarning
from torch_mmd_losses.references import self_terms

FEW = pytest.mark.filterwarnings("ignore:MMDReference. expected landmarks that represent")
POSITIVE = {name: case for name, case in CASES.items() if case.positive}


def nystrom_reference(real, kernel, landmarks, **options):
    """Return a reference with landmarks."""
    return MMDReference(real, kernel, kind="nystrom", landmarks=landmarks, **options)


def with_gradient(function, fake):
    """Return a value and its gradient."""
    fake = fake.detach().requires_grad_()
    value = function(fake)
    return value, torch.autograd.grad(value, fake)[0]


def test_the_numbers_of_rdm():
    inputs, outputs = case("rdm_nystrom")
    reference = nystrom_reference(inputs["pool"], RBFKernel(1.7), inputs["Z"])
    found = with_gradient(reference.mmd2, inputs["g"])
    assert_close(found, (outputs["loss"], outputs["grad_g"]), rtol=1e-11, atol=1e-13)
    assert_close(reference.self_term, outputs["k_rr"], rtol=1e-12, atol=0)
    assert_close(reference.attraction(inputs["g"]).mean(), outputs["k_gr_nystrom"], rtol=1e-12, atol=0)
    assert_close(reference.form.alpha / len(inputs["pool"]), outputs["alpha"], rtol=1e-9, atol=1e-12)
    error = (outputs["k_gr_nystrom"] - outputs["k_gr_exact"]).abs()
    assert error < reference.error_bound(inputs["g"]) < 3 * error


@FEW
@pytest.mark.parametrize("case", POSITIVE.values(), ids=POSITIVE)
def test_the_form_with_alpha_is_that_with_feature_maps(case):
    real, landmarks, points = scores(30, 3, 1), scores(6, 3, 2), scores(5, 3, 3)
    reference = nystrom_reference(real, case.make(), landmarks)
    gram = case.make()(landmarks, landmarks)
    jitter = self_terms.JITTER * gram.diagonal().mean()
    eigenvalues, vectors = torch.linalg.eigh(gram + jitter * torch.eye(6, dtype=torch.float64))
    root = vectors @ (vectors / eigenvalues.sqrt()).T
    of_points, of_real = case.make()(points, landmarks) @ root, case.make()(real, landmarks) @ root
    assert_close(reference.attraction(points), of_points @ of_real.mean(0), rtol=1e-7, atol=1e-8)
    moments = of_real.T @ real / 30
    assert_close(reference.sums(points)[1], of_points @ moments, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("kernel", [RBFKernel(), RationalQuadraticMix()])
@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
def test_all_rows_as_landmarks_are_the_exact_reference(kernel, estimator):
    real, fake = scores(20, 5, 1, scale=2.0), scores(12, 5, 2)
    weights = scores(20, 1, 3)[:, 0].abs()
    exact = MMDReference(real, kernel, weights=weights)
    for landmarks in (real, 20, 4096):
        reference = nystrom_reference(real, kernel, landmarks, weights=weights)
        assert_close(reference.self_term, exact.self_term, rtol=1e-12, atol=1e-14)
        found = with_gradient(lambda x, r=reference: r.mmd2(x, estimator=estimator), fake)
        # The jitter of 1e-6 is the difference.
        assert_close(found, with_gradient(lambda x: exact.mmd2(x, estimator=estimator), fake), rtol=0, atol=3e-6)
        assert_close(reference.sums(fake), exact.sums(fake), rtol=0, atol=3e-6)
        assert_close(reference.witness(fake, fake), exact.witness(fake, fake), rtol=0, atol=3e-6)
        assert 0 <= reference.error_bound(fake) < 1e-3


@FEW
@given(st.integers(2, 25), st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**20), st.floats(0.3, 3))
def test_the_error_is_within_its_bound(m, count, n, seed, sigma):
    real, fake, landmarks = scores(m, 2, seed), scores(n, 2, seed + 1, shift=0.5), scores(count, 2, seed + 2)
    weights = scores(m, 1, seed + 3)[:, 0] + 2
    exact = MMDReference(real, RBFKernel(sigma), weights=weights)
    reference = nystrom_reference(real, RBFKernel(sigma), landmarks, weights=weights)
    error = (reference.attraction(fake).mean() - exact.attraction(fake).mean()).abs()
    bound = reference.error_bound(fake)
    assert error <= bound * (1 + 1e-9) + 1e-12
    assert (reference.mmd2(fake) - exact.mmd2(fake)).abs() <= 2 * bound * (1 + 1e-9) + 1e-12


@FEW
@given(st.integers(2, 25), st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**20))
def test_the_biased_value_is_never_negative(m, count, n, seed):
    real, fake, landmarks = scores(m, 2, seed), scores(n, 2, seed + 1), scores(count, 2, seed + 2)
    assert nystrom_reference(real, RBFKernel(), landmarks).mmd2(fake) > -1e-12


@FEW
def test_everything_is_differentiable_twice():
    reference = nystrom_reference(scores(9, 2, 1), RBFKernel(), 4, weights=scores(9, 1, 4)[:, 0].abs())
    points, fake = scores(3, 2, 2).requires_grad_(), scores(4, 2, 3).requires_grad_()
    for function, inputs in (
        (reference.mmd2, (fake,)),
        (reference.attraction, (points,)),
        (reference.witness, (points, fake)),
        (reference.sums, (points,)),
    ):
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("kind", ["exact", "nystrom"])
def test_the_self_term_of_many_rows_is_estimated_from_what_the_landmarks_leave_out(kind):
    # Landmarks are 60 random rows for the exact reference, and a row of each cluster for the other.
    centres = scores(20, 3, 1, scale=3.0).repeat_interleave(25, 0)
    real = centres + 0.5 * scores(500, 3, 2)
    weights = scores(500, 1, 3)[:, 0].abs()
    expected = MMDReference(real, RBFKernel(), weights=weights).self_term
    generator = torch.Generator().manual_seed(0)
    landmarks = {"landmarks": centres[::25]} if kind == "nystrom" else {}
    options = {"kind": kind, "weights": weights, "self_rows": 60, "generator": generator, **landmarks}
    values = RBFKernel()(real, real) * weights * weights[:, None] / weights.sum() ** 2
    pairs = values - values.diagonal().diag()
    errors, without = [], []
    for _ in range(30):
        errors.append(MMDReference(real, RBFKernel(), **options).self_term - expected)
        some = torch.randperm(500, generator=generator)[:60]
        without.append(pairs[some][:, some].sum() * (500 * 499 / (60 * 59)) + values.trace() - expected)
    errors, without = torch.stack(errors), torch.stack(without)
    assert errors.mean().abs() < 3 * errors.std() / 30**0.5
    assert errors.std() < without.std() / 2


def test_random_landmarks_repeat_with_the_generator():
    real, fake = scores(50, 3, 1), scores(9, 3, 2)

    def value(seed):
        generator = torch.Generator().manual_seed(seed)
        return nystrom_reference(real, RBFKernel(2.0), 20, generator=generator).mmd2(fake)

    assert value(0) == value(0) != value(1)


def test_landmarks_are_rows_drawn_without_replacement():
    real = torch.arange(30.0).unsqueeze(1)
    drawn = [nystrom_reference(real, RBFKernel(10.0), 10).form.landmarks[:, 0] for _ in range(60)]
    assert all(len(set(each.tolist())) == 10 for each in drawn)
    counts = torch.cat(drawn).long().bincount(minlength=30)
    assert counts.min() > 5
    assert counts.max() < 38  # 20 with a standard deviation of 3.7


def test_landmarks_may_have_another_dtype_than_the_rows():
    real, fake = scores(60, 3, 1).half(), scores(9, 3, 2).float()
    reference = nystrom_reference(real, RBFKernel(2.0), real[:20].float() + 0.001)
    assert reference.form.chosen.dtype == torch.float16
    expected = nystrom_reference(real.float(), RBFKernel(2.0), real[:20].float() + 0.001).mmd2(fake)
    assert_close(reference.mmd2(fake), expected, rtol=1e-5, atol=1e-7)
    reference.update(real)


def test_too_few_landmarks_are_warned_of():
    real = scores(200, 8, 1)
    with pytest.warns(
        UsageWarning, match="^MMDReference: expected landmarks that represent .*, got 5 that leave out 9"
    ):
        nystrom_reference(real, RBFKernel(0.5), 5)
    nystrom_reference(real, RBFKernel(4.0), 50)


@pytest.mark.parametrize("kernel", [EnergyKernel(), RBFKernel() + EnergyKernel()])
def test_kernels_that_are_not_positive_definite_are_refused(kernel):
    with pytest.raises(ValueError, match="^kernel: expected a positive definite kernel for kind='nystrom', got one"):
        nystrom_reference(scores(30, 3), kernel, 10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_sums_are_float64_for_rows_in_any_dtype(dtype):
    real, fake = scores(300, 3, 1).to(dtype), scores(40, 3, 2).float()
    landmarks = real[:50].clone()
    reference, precise = (nystrom_reference(x, RBFKernel(2.0), x[:50]) for x in (real, real.double()))
    assert reference.form.landmarks.dtype == landmarks.dtype
    assert reference.form.mu.dtype == reference.form.alpha.dtype == torch.float64
    assert_close(reference.form.mu, precise.form.mu, rtol=0, atol=0)
    assert_close(reference.mmd2(fake).double(), precise.mmd2(fake.double()), rtol=1e-5, atol=1e-6)
    halved = copy.deepcopy(reference).half()
    assert halved.form.mu.dtype == torch.float64
    assert_close(halved.mmd2(fake), reference.mmd2(fake), rtol=0, atol=0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_and_pickles(copied):
    reference, fake = nystrom_reference(scores(50, 3), RBFKernel(2.0), 20), scores(4, 3, 2)
    assert_close(copied(reference).mmd2(fake), reference.mmd2(fake), rtol=0, atol=0)
