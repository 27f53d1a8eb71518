"""References that keep all rows, compared with all rows at once, loops, and the numbers of public code."""

import copy
import pickle

import pytest
import torch
import torch.utils.flop_counter
from cases import CASES, KernelCase, scores
from hypothesis import given
from hypothesis import strategies as st
from public_numbers import case
from reference_kinds import KINDS, taken_by
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    LinearKernel,
    MMDReference,
    RBFKernel,
    UsageWarning,
    kernel_sums,
    mmd2,
    witness,
)
from torch_mmd_losses.references import kernel_values

EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture
def small_chunks(monkeypatch):
    """Divide references into parts of a few rows."""
    monkeypatch.setattr(kernel_values, "CHUNK", 4)


def value_and_gradients(function, fake):
    """Return a value, its gradient in two ways, and the gradient of the squared norm of that gradient."""
    fake = fake.detach().requires_grad_()
    value = function(fake)
    (first,) = torch.autograd.grad(value, fake, retain_graph=True)
    (gradient,) = torch.autograd.grad(value, fake, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), fake)
    return value, first, gradient, second


@EVERY
@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.usefixtures("small_chunks")
def test_equals_mmd2_with_all_rows(case: KernelCase, estimator):
    real, fake = scores(10, 3, 1), scores(7, 3, 2, shift=0.3)
    reference = MMDReference(real, case.make())
    found = value_and_gradients(lambda x: reference.mmd2(x, estimator=estimator), fake)
    expected = value_and_gradients(lambda x: mmd2(real, x, case.make(), estimator=estimator), fake)
    assert_close(found, expected)


def test_the_numbers_of_rdm():
    inputs, outputs = case("rdm_exact")
    fake = inputs["g"].requires_grad_()
    value = MMDReference(inputs["r"], RBFKernel(1.7)).mmd2(fake)
    (gradient,) = torch.autograd.grad(value, fake)
    assert_close((value, gradient), (outputs["loss"], outputs["grad_g"]), rtol=1e-12, atol=1e-14)


def test_the_numbers_of_cmmd():
    inputs, outputs = case("cmmd")
    reference = MMDReference(inputs["x"], RBFKernel(10))
    assert_close(1000 * reference.mmd2(inputs["y"]), outputs["value"], rtol=1e-9, atol=0)


@EVERY
@pytest.mark.usefixtures("small_chunks")
def test_attraction_witness_and_sums_beside_loops(case: KernelCase):
    real, fake, points = scores(9, 3, 1), scores(5, 3, 2), scores(6, 3, 3)
    weights = torch.tensor([2.0, -1.0, 0.5, 1.0, 1.0, -0.5, 3.0, 0.0, 1.0], dtype=torch.float64)
    reference = MMDReference(real, case.make(), weights=weights)
    gram = torch.tensor([[case.scalar(p, r) for r in real.tolist()] for p in points.tolist()], dtype=torch.float64)
    shares = weights / weights.sum()
    of_fake = torch.tensor([[case.scalar(p, g) for g in fake.tolist()] for p in points.tolist()]).double().mean(1)
    assert_close(reference.attraction(points), gram @ shares)
    assert_close(reference.witness(points, fake), gram @ shares - of_fake, rtol=1e-6, atol=1e-6)
    assert_close(reference.sums(points), (gram @ shares, (gram * shares) @ real))
    within = torch.tensor([[case.scalar(a, b) for a in real.tolist()] for b in real.tolist()], dtype=torch.float64)
    assert_close(reference.self_term, shares @ within @ shares)


def test_equals_the_functions_of_the_same_names():
    real, fake, points = scores(40, 3, 1), scores(20, 3, 2), scores(9, 3, 3)
    reference = MMDReference(real, RBFKernel())
    assert_close(reference.witness(points, fake), witness(points, real, fake, RBFKernel()))
    expected = kernel_sums(points, real, RBFKernel(), weights=torch.full((40,), 1 / 40, dtype=torch.float64))
    assert_close(reference.sums(points), expected)


@pytest.mark.usefixtures("small_chunks")
def test_everything_is_differentiable_twice():
    reference = MMDReference(scores(9, 2, 1), RBFKernel() + 0.1 * LinearKernel(), weights=scores(9, 1, 4)[:, 0].abs())
    points, fake = scores(3, 2, 2).requires_grad_(), scores(4, 2, 3).requires_grad_()
    for function, inputs in (
        (reference.mmd2, (fake,)),
        (reference.attraction, (points,)),
        (reference.witness, (points, fake)),
        (reference.sums, (points,)),
    ):
        assert gradcheck(function, inputs)
        assert gradgradcheck(function, inputs)


# Weights


@EVERY
def test_whole_weights_repeat_rows(case: KernelCase):
    real, fake = scores(5, 3, 1), scores(6, 3, 2)
    times = torch.tensor([1, 3, 2, 1, 2])
    weighted = MMDReference(real, case.make(), weights=times.double())
    repeated = MMDReference(real.repeat_interleave(times, 0), case.make())
    assert_close(
        value_and_gradients(weighted.mmd2, fake), value_and_gradients(repeated.mmd2, fake), rtol=1e-6, atol=1e-9
    )


def test_equal_weights_are_none():
    real, fake = scores(12, 3, 1), scores(6, 3, 2)
    weighted = MMDReference(real, RBFKernel(), weights=torch.full((12,), 0.3))
    for estimator in ("biased", "unbiased"):
        assert_close(weighted.mmd2(fake, estimator=estimator), mmd2(real, fake, RBFKernel(), estimator=estimator))


def test_the_unbiased_estimate_with_weights_beside_loops():
    real, fake = scores(5, 3, 1), scores(6, 3, 2)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15], dtype=torch.float64)
    gram = RBFKernel()(real, real)
    off = weights @ (gram - gram.diagonal().diag()) @ weights / (1 - weights.square().sum())
    others = RBFKernel()(fake, fake)
    expected = off - 2 * (weights @ RBFKernel()(real, fake)).mean() + (others.sum() - others.trace()) / 30
    assert_close(MMDReference(real, RBFKernel(), weights=weights).mmd2(fake, estimator="unbiased"), expected)


@given(st.floats(1, 5), st.integers(0, 2**20))
def test_guidance_is_a_reference_with_weights_of_both_signs(alpha, seed):
    p, u, fake = scores(7, 3, seed), scores(4, 3, seed + 1), scores(6, 3, seed + 2)
    weights = torch.cat([torch.full((7,), alpha / 7), torch.full((4,), (1 - alpha) / 4)]).double()
    reference = MMDReference(torch.cat([p, u]), RBFKernel(), weights=weights)
    found = value_and_gradients(reference.mmd2, fake)

    def direct(x):
        to_p, to_u, within = (RBFKernel()(x, y).mean() for y in (p, u, x))
        return within - 2 * (alpha * to_p - (alpha - 1) * to_u)

    k_pp, k_uu, k_pu = (RBFKernel()(a, b).mean() for a, b in ((p, p), (u, u), (p, u)))
    constant = alpha**2 * k_pp + (alpha - 1) ** 2 * k_uu - 2 * alpha * (alpha - 1) * k_pu
    expected = value_and_gradients(direct, fake)
    # Weights are divided by their sum in float64.
    assert_close(found, (expected[0] + constant, *expected[1:]), rtol=1e-6, atol=1e-6)
    assert found[0] > -1e-12


# Values


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**20))
def test_the_biased_value_is_never_negative(m, n, seed):
    real, fake = scores(m, 2, seed), scores(n, 2, seed + 1)
    for name in ("rbf", "rational_quadratic_mix", "linear", "energy", "sum"):
        reference = MMDReference(real, CASES[name].make(), weights=scores(m, 1, seed + 2)[:, 0].abs() + 0.1)
        assert reference.mmd2(fake) > -1e-12
        assert MMDReference(real, CASES[name].make()).mmd2(real).abs() < 1e-12


@given(st.integers(2, 30), st.integers(0, 2**20))
def test_the_order_of_rows_has_no_influence(m, seed):
    real, fake = scores(m, 2, seed), scores(5, 2, seed + 1)
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    one, other = MMDReference(real, RBFKernel()), MMDReference(real[order], RBFKernel())
    assert_close(one.self_term, other.self_term)
    assert_close(value_and_gradients(one.mmd2, fake), value_and_gradients(other.mmd2, fake))


def test_sorted_clusters_have_the_self_term_of_shuffled_ones():
    # RDM takes the self term from the first rows; from the first clusters of 40, it is several times too large.
    centres = scores(40, 4, 1, scale=4.0).repeat_interleave(25, 0)
    real = centres + scores(1000, 4, 2)
    expected = MMDReference(real, RBFKernel()).self_term
    first = MMDReference(real[:80], RBFKernel()).self_term
    found = [
        MMDReference(real, RBFKernel(), self_rows=80, generator=torch.Generator().manual_seed(seed)).self_term
        for seed in range(20)
    ]
    assert first > 3 * expected
    errors = torch.stack(found) - expected
    assert errors.abs().max() < 0.5 * expected
    assert errors.mean().abs() < 3 * errors.std() / 20**0.5


def test_the_self_term_of_random_rows_is_unbiased():
    real, weights = scores(5, 2, 1), torch.tensor([1.0, 2.0, 0.5, 1.0, 1.5])
    generator = torch.Generator().manual_seed(0)
    found = [
        MMDReference(real, RBFKernel(), weights=weights, self_rows=2, generator=generator).self_term for _ in range(400)
    ]
    expected = MMDReference(real, RBFKernel(), weights=weights).self_term
    errors = torch.stack(found) - expected
    assert errors.std() > 0
    assert errors.mean().abs() < 3 * errors.std() / 400**0.5


def test_the_self_term_of_an_indefinite_kernel_is_estimated_without_landmarks():
    real = scores(200, 3, 1)
    expected = MMDReference(real, EnergyKernel()).self_term
    generator = torch.Generator().manual_seed(0)
    found = [MMDReference(real, EnergyKernel(), self_rows=40, generator=generator).self_term for _ in range(100)]
    errors = torch.stack(found) - expected
    assert 0 < errors.std() < 0.1 * expected.abs()
    assert errors.mean().abs() < 3 * errors.std() / 100**0.5


def test_self_rows_beyond_the_rows_are_all_rows():
    real = scores(10, 3)
    assert MMDReference(real, RBFKernel(), self_rows=10).self_term == MMDReference(real, RBFKernel()).self_term


# Dtypes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.usefixtures("small_chunks")
def test_rows_keep_their_dtype_and_are_converted_part_by_part(dtype):
    real, fake = scores(10, 3, 1).to(dtype), scores(6, 3, 2).float()
    reference = MMDReference(real, RBFKernel())
    assert reference.form.rows.dtype == dtype
    value = reference.mmd2(fake)
    assert value.dtype == torch.float32
    assert_close(value, mmd2(real.float(), fake, RBFKernel(), estimator="biased"), rtol=1e-6, atol=1e-7)
    assert_close(reference.mmd2(fake.half()), reference.mmd2(fake.half().float()))


def test_no_more_rows_than_a_chunk_are_converted_at_once():
    rows = scores(40_000, 2).half()
    parts = list(kernel_values.chunks(rows, None, torch.empty(0)))
    assert max(len(part) for part, _ in parts) == kernel_values.CHUNK
    assert_close(torch.cat([part for part, _ in parts]), rows.float(), rtol=0, atol=0)


def test_the_graph_keeps_no_converted_rows():
    held = []
    reference = MMDReference(scores(1000, 3).bfloat16(), RBFKernel())
    fake = scores(6, 3, 2).float().requires_grad_()

    def pack(tensor):
        held.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        reference.mmd2(fake)
    assert max(held) <= 40


def test_rows_in_float64_are_not_rounded_for_fake_samples_in_float32():
    real, fake = scores(10, 3, 1), scores(6, 3, 2)
    value = MMDReference(real + 1e-9, RBFKernel()).mmd2(fake.float())
    assert value.dtype == torch.float32
    assert_close(value.double(), mmd2(real, fake, RBFKernel(), estimator="biased"), rtol=1e-6, atol=1e-7)


@EVERY
def test_float32_is_close_to_float64(case: KernelCase):
    real, fake = scores(300, 8, 1), scores(290, 8, 2, shift=0.2)
    found = MMDReference(real.float(), case.make()).mmd2(fake.float())
    expected = MMDReference(real, case.make()).mmd2(fake)
    scale = case.make()(real, real).abs().mean()
    assert_close(found.double(), expected, rtol=1e-6, atol=float(3e-7 * scale))


def test_autocast_lowers_no_precision():
    reference, fake = MMDReference(scores(10, 3, 1).float(), RBFKernel()), scores(6, 3, 2).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = reference.mmd2(fake), reference.attraction(fake), *reference.sums(fake), reference.witness(fake, fake)
    expected = reference.mmd2(fake), reference.attraction(fake), *reference.sums(fake), reference.witness(fake, fake)
    assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rows_stay_on_the_host():
    reference, fake = MMDReference(scores(50, 3, 1).float(), RBFKernel()), scores(6, 3, 2).float()
    expected = value_and_gradients(reference.mmd2, fake)
    found = value_and_gradients(reference.mmd2, fake.cuda())
    assert reference.form.rows.is_cpu
    assert_close([x.cpu() for x in found], list(expected), rtol=1e-5, atol=1e-6)


# Modules


def test_the_given_tensor_is_not_copied_and_gets_no_gradient():
    real = scores(10, 3).requires_grad_()
    reference = MMDReference(real, RBFKernel())
    assert reference.form.rows.data_ptr() == real.data_ptr()
    reference.mmd2(scores(5, 3, 2).requires_grad_()).backward()
    assert real.grad is None


def test_the_kernel_is_a_copy():
    kernel = RBFKernel()
    reference = MMDReference(scores(10, 3), kernel)
    kernel.sigma = 3.0
    assert reference.kernel.sigma == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_nonlinear_functions_of_the_attraction_are_differentiable_twice(kind):
    reference = MMDReference(scores(7, 2), RBFKernel(), kind=kind, **taken_by(kind, frequencies=20))

    def loss(points):
        values, vectors = reference.sums(points)
        return reference.attraction(points).pow(3).sum() + (values.unsqueeze(1) * vectors.square()).sum()

    points = scores(4, 2, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(points), points, create_graph=True)
    (found,) = torch.autograd.grad(gradient.square().sum(), points, create_graph=True)
    expected = 2 * torch.func.hessian(loss)(points).flatten(2).flatten(0, 1) @ gradient.flatten()
    assert_close(found.flatten(), expected)
    (third,) = torch.autograd.grad(found.sum(), points)
    assert third.isfinite().all()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_and_pickles(copied):
    reference, fake = MMDReference(scores(10, 3), RBFKernel(), weights=scores(10, 1, 3)[:, 0].abs()), scores(4, 3, 2)
    assert_close(copied(reference).mmd2(fake), reference.mmd2(fake), rtol=0, atol=0)


def test_the_module_itself_is_mmd2():
    reference, fake = MMDReference(scores(10, 3), EnergyKernel()), scores(4, 3, 2)
    assert reference(fake, estimator="unbiased") == reference.mmd2(fake, estimator="unbiased")
    assert repr(reference).startswith("MMDReference(\n  kind='exact'")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sigma", "problem"), [(0.01, "too far apart"), (1e9, "too close together"), (8.0, None)])
@pytest.mark.filterwarnings("ignore:MMDReference. expected landmarks that represent")
def test_kernels_that_tell_no_rows_apart_are_warned_of(kind, sigma, problem):
    fake = scores(300, 64, 2)
    sizes = taken_by(kind, landmarks=200, frequencies=9)
    reference = MMDReference(scores(300, 64, 1), RBFKernel(sigma), kind=kind, **sizes)
    if problem is None:
        reference.mmd2(fake)
        return
    with pytest.warns(UsageWarning, match=f"^MMDReference: expected kernel values between .* are {problem}") as caught:
        reference.mmd2(fake)
    assert caught[0].filename == __file__


def test_nothing_is_read_where_operations_are_counted():
    reference = MMDReference(scores(30, 64, 1), RBFKernel(0.01))
    assert reference.self_term > 0
    with torch.utils.flop_counter.FlopCounterMode(display=False):
        reference.mmd2(scores(30, 64, 2))


@pytest.mark.parametrize(("kind", "count"), [("exact", 300), ("nystrom", 20)])
def test_a_linear_kernel_takes_one_product_with_the_sum_of_the_rows(kind, count):
    real, fake = scores(300, 5), scores(200, 5, 1).requires_grad_()
    reference = MMDReference(real, 2 * LinearKernel(), kind=kind, **taken_by(kind, landmarks=real[:20]))
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        values = reference.attraction(fake)
        (gradient,) = torch.autograd.grad(values.sum(), fake)
    assert 0 < counter.get_total_flops() <= 2 * 5 * (count + 200)  # the counter leaves out products with a vector
    # Landmarks have a ridge of 1e-6 of the diagonal.
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if kind == "nystrom" else {}
    assert_close(values, 2 * fake @ real.mean(0), **tolerance)
    assert_close(gradient, 2 * real.mean(0).expand(200, 5), **tolerance)


def test_there_is_no_error():
    assert MMDReference(scores(10, 3), RBFKernel()).error_bound(scores(4, 3, 2)) == 0


@pytest.mark.slow
def test_compiles_without_a_break():
    reference, fake = MMDReference(scores(20, 3).float(), RBFKernel()), scores(6, 3, 2).float()
    expected = value_and_gradients(reference.mmd2, fake)[:2]  # finds the self term

    def step(x):
        return reference.mmd2(x)

    x = fake.clone().requires_grad_()
    value = torch.compile(step, fullgraph=True, backend="aot_eager")(x)
    (gradient,) = torch.autograd.grad(value, x)
    assert_close((value, gradient), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("small_chunks")
def test_function_transforms():
    reference, fake = MMDReference(scores(20, 3), RBFKernel()), scores(6, 3, 2)
    with pytest.raises(RuntimeError, match="^self_term: expected a call outside of function transforms"):
        torch.func.grad(reference.mmd2)(fake)
    assert reference.self_term > 0
    assert_close(torch.func.grad(reference.mmd2)(fake), value_and_gradients(reference.mmd2, fake)[1])
    batch = torch.stack([fake, fake + 1])
    assert_close(torch.func.vmap(reference.mmd2)(batch), torch.stack([reference.mmd2(each) for each in batch]))
