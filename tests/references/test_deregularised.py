"""The (de)-regularised MMD of references, compared with dense matrices and the authors' numbers."""

import copy
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from cases import CASES, KernelCase, scores
from torch.testing import assert_close

from torch_mmd_losses import EnergyKernel, MMDReference, RBFKernel, mmd2, witness
from torch_mmd_losses.references import deregularised, exact

DATA = Path(__file__).parents[1] / "data" / "modern-mmd.json"
POSITIVE = {name: case for name, case in CASES.items() if name != "energy"}


def dense(target, weights, fake, points, kernel, lambda_):
    """Return the value and the witness, by the definition in an explicit basis of functions."""
    everything = torch.cat([target, fake, points])
    gram = kernel(everything, everything)
    values, vectors = torch.linalg.eigh(gram)
    features = vectors * values.clamp_min(0).sqrt()
    of_target, of_fake, of_points = features.split([len(target), len(fake), len(points)])
    covariance = of_target.T @ (weights.unsqueeze(1) * of_target)
    difference = of_fake.mean(0) - weights @ of_target
    solved = torch.linalg.solve(covariance + lambda_ * torch.eye(len(covariance), dtype=gram.dtype), difference)
    return (1 + lambda_) * difference @ solved, -2 * (1 + lambda_) * of_points @ solved


def test_the_numbers_of_the_authors_code():
    case = next(case for case in json.loads(DATA.read_text())["cases"] if case["id"] == "drmmd")
    target, fake = (torch.tensor(case["inputs"][name], dtype=torch.float64) for name in ("target", "particles"))
    reference, outputs, lambda_ = MMDReference(target, RBFKernel(1.3)), case["outputs"], case["settings"]["lmbda"]
    fake.requires_grad_()
    value = reference.drmmd2(fake, lambda_=lambda_)
    assert float(value.detach()) == pytest.approx(outputs["drmmd"], rel=1e-10)
    points = fake.detach().clone().requires_grad_()
    values = reference.drmmd_witness(points, fake.detach(), lambda_=lambda_)
    # Their witness is that of particles minus target, and their particles move against its gradient.
    assert_close(values, -torch.tensor(outputs["drmmd_witness"], dtype=torch.float64), rtol=0, atol=1e-10)
    (velocity,) = torch.autograd.grad(values.sum(), points)
    assert_close(velocity, -torch.tensor(outputs["drmmd_velocity"], dtype=torch.float64), rtol=0, atol=1e-10)
    (gradient,) = torch.autograd.grad(value, fake)
    assert_close(velocity, -len(fake) * gradient)


@pytest.mark.parametrize("case", POSITIVE.values(), ids=POSITIVE)
@pytest.mark.parametrize("kind", ["exact", "nystrom"])
def test_equals_the_definition_with_weights(case: KernelCase, kind):
    target, fake, points = scores(7, 2), scores(5, 2, 1, shift=0.5), scores(4, 2, 2)
    weights = torch.tensor([1.0, 3.0, 0.5, 0.0, 2.0, 1.0, 1.5], dtype=torch.float64)
    reference = MMDReference(target, case.make(), kind=kind, weights=weights)
    found = reference.drmmd2(fake, lambda_=0.3), reference.drmmd_witness(points, fake, lambda_=0.3)
    expected = dense(target, weights / weights.sum(), fake, points, case.make(), 0.3)
    # Landmarks have a ridge of 1e-6 of the diagonal.
    assert_close(found, expected, rtol=1e-4, atol=1e-4 if kind == "nystrom" else 1e-7)


def test_landmarks_project_the_covariance_of_the_rows_onto_their_span():
    target, landmarks, fake, points = scores(30, 2), scores(6, 2, 3), scores(5, 2, 1), scores(4, 2, 2)
    kernel, lambda_ = RBFKernel(), 0.05
    reference = MMDReference(target, kernel, kind="nystrom", landmarks=landmarks)
    gram = kernel(landmarks, landmarks) + 1e-6 * torch.eye(6)
    cholesky = torch.linalg.cholesky(gram)

    def features(x):
        return torch.linalg.solve(cholesky, kernel(landmarks, x)).T

    psi, difference = features(target), features(fake).mean(0) - features(target).mean(0)
    operator = torch.linalg.solve(psi.T @ psi / 30 + lambda_ * torch.eye(6), psi.T @ psi / 30)
    scale = (1 + lambda_) / lambda_
    value = scale * (reference.mmd2(fake) - difference @ operator @ difference)
    assert_close(reference.drmmd2(fake, lambda_=lambda_), value)
    values = 2 * scale * (reference.witness(points, fake) + features(points) @ operator @ difference)
    assert_close(reference.drmmd_witness(points, fake, lambda_=lambda_), values)
    assert value > 0


def test_the_rows_kept_for_the_self_term_give_the_covariance():
    target, fake = scores(2000, 2), scores(5, 2, 1)
    options = {"kind": "nystrom", "landmarks": target[:20]}
    whole = MMDReference(target, RBFKernel(), **options).drmmd2(fake, lambda_=0.1)
    part = MMDReference(target, RBFKernel(), self_rows=500, generator=torch.Generator().manual_seed(0), **options)
    assert part.drmmd2(fake, lambda_=0.1) != whole
    assert_close(part.drmmd2(fake, lambda_=0.1), whole, rtol=0.05, atol=0)


def test_with_much_regularisation_it_is_mmd2():
    target, fake, points, kernel = scores(7, 2), scores(5, 2, 1), scores(4, 2, 2), RBFKernel()
    reference = MMDReference(target, kernel)
    assert_close(reference.drmmd2(fake, lambda_=1e9), mmd2(target, fake, kernel, estimator="biased"))
    assert_close(reference.drmmd_witness(points, fake, lambda_=1e9), 2 * witness(points, target, fake, kernel))


@pytest.mark.parametrize("kind", ["exact", "nystrom"])
def test_it_is_differentiable_twice_and_zero_at_the_target(kind):
    target = scores(4, 2)
    reference = MMDReference(target, RBFKernel(), kind=kind)
    value, values = (partial(f, lambda_=0.1) for f in (reference.drmmd2, reference.drmmd_witness))
    assert abs(float(value(target))) < (1e-13 if kind == "exact" else 1e-4)
    fake, points = scores(3, 2, 1).requires_grad_(), scores(2, 2, 2).requires_grad_()
    for function, inputs in ((value, (fake,)), (values, (points, fake))):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_scores_of_low_precision_keep_their_digits_with_little_regularisation(dtype):
    target, fake = scores(40, 2).to(dtype), scores(30, 2, 1).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        reference = MMDReference(target, RBFKernel())
        found = reference.drmmd2(fake, lambda_=1e-6), reference.drmmd_witness(fake, fake, lambda_=1e-6)
    reference = MMDReference(target.double(), RBFKernel())
    expected = (reference.drmmd2(fake.double(), lambda_=1e-6),)
    expected += (reference.drmmd_witness(fake.double(), fake.double(), lambda_=1e-6),)
    assert {x.dtype for x in found} == {torch.float32}
    assert_close(found, tuple(x.float() for x in expected))


# The factor


@pytest.fixture
def factorisations(monkeypatch):
    """Return a list that gets an entry for each factorisation."""
    found = []
    original = deregularised.of_rows
    monkeypatch.setattr(deregularised, "of_rows", lambda *args: found.append(args[-1]) or original(*args))
    return found


def test_the_factor_is_computed_once_for_each_lambda(factorisations):
    reference, fake = MMDReference(scores(7, 2), RBFKernel()), scores(5, 2, 1)
    for _ in range(2):
        reference.drmmd2(fake, lambda_=0.1)
        reference.drmmd_witness(fake, fake, lambda_=0.1)
    assert factorisations == [0.1]
    reference.drmmd2(fake, lambda_=0.2)
    copy.deepcopy(reference).drmmd2(fake, lambda_=0.2)
    assert factorisations == [0.1, 0.2]


@pytest.mark.parametrize("kind", ["exact", "nystrom"])
def test_shards_do_not_keep_the_factor(kind):
    reference = MMDReference(scores(7, 2), RBFKernel(), kind=kind)
    reference.drmmd2(scores(5, 2, 1), lambda_=0.1)
    assert reference.shard(0, 2).form._regularised is None
    assert reference.shard(0, 1).form._regularised is not None


def test_the_factor_is_computed_anew_for_other_rows(factorisations):
    first, second, fake = scores(7, 2), scores(4, 2, 3), scores(5, 2, 1)
    reference = MMDReference(first, RBFKernel())
    before = reference.drmmd2(fake, lambda_=0.1)
    state = reference.state_dict()
    assert not any("regularised" in name for name in state)
    reference.update(second)
    after = reference.drmmd2(fake, lambda_=0.1)
    assert_close(after, MMDReference(torch.cat([first, second]), RBFKernel()).drmmd2(fake, lambda_=0.1))
    assert abs(after - before) > 1e-3
    reference.load_state_dict(state)
    assert_close(reference.drmmd2(fake, lambda_=0.1), before)


def test_after_its_first_call_it_compiles_and_can_be_transformed():
    reference, fake = MMDReference(scores(7, 2), RBFKernel()), scores(5, 2, 1)
    value = partial(reference.drmmd2, lambda_=0.1)
    with pytest.raises(RuntimeError, match=r"^lambda_: expected a call outside of function transforms .* 0\.1$"):
        torch.func.grad(value)(fake)
    expected = value(fake)
    assert_close(torch.func.vmap(value)(torch.stack([fake, fake + 1]))[0], expected)
    x = fake.clone().requires_grad_()
    value(x).backward()
    assert_close(torch.func.grad(value)(fake), x.grad)
    compiled = torch.compile(reference.drmmd2, backend="eager", fullgraph=True)
    assert_close(compiled(fake, lambda_=0.1), expected)


# Refusals


def test_references_without_a_covariance_are_refused(monkeypatch):
    target, fake = scores(7, 2), scores(5, 2, 1)
    weights = torch.tensor([2.0, -0.5, 1.0, 1.0, 1.0, 1.0, 1.0])
    for kind in ("exact", "nystrom"):
        reference = MMDReference(target, RBFKernel(), kind=kind, weights=weights)
        with pytest.raises(ValueError, match=r"^weights: expected weights >= 0 for drmmd2, .* both signs$"):
            reference.drmmd2(fake, lambda_=0.1)
    negative = MMDReference(target, RBFKernel(), weights=-weights.abs())
    positive = MMDReference(target, RBFKernel(), weights=weights.abs())
    assert_close(negative.drmmd2(fake, lambda_=0.1), positive.drmmd2(fake, lambda_=0.1))
    monkeypatch.setattr(exact, "FACTORISED", 6)
    with pytest.raises(ValueError, match=r"^real: expected at most 6 rows for drmmd2 .*, got 7; use kind='nystrom'$"):
        MMDReference(target, RBFKernel()).drmmd2(fake, lambda_=0.1)


def test_kernels_that_are_not_positive_definite_are_refused():
    target = scores(7, 2)
    for kernel, rows, lambda_ in ((EnergyKernel(), target, 1e3), (RBFKernel(), target.repeat(3, 1), 1e-30)):
        with pytest.raises(ValueError, match=r"^kernel, lambda_: expected a positive definite kernel and a number"):
            MMDReference(rows, kernel).drmmd2(target, lambda_=lambda_)
