"""The fields of drifting models."""

import json
import math
from pathlib import Path

import pytest
import torch
from sizes import Count, Largest
from torch.autograd import forward_ad
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    InverseMultiquadricKernel,
    Kernel,
    LaplaceKernel,
    LinearKernel,
    MaternKernel,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFKernel,
    RBFMix,
    drift,
    kernel_sums,
    mmd2,
)
from torch_mmd_losses.pairs import product_tiles, tiles
from torch_mmd_losses.types import NORMALISERS

DATA = Path(__file__).parents[1] / "data" / "modern-mmd.json"
KERNELS = {"laplace": LaplaceKernel(0.7), "rbf": RBFKernel(0.7)}
FIRST, REST = slice(0, 1), slice(1, 3)
ON_COLUMNS = {
    "some": 2 * LaplaceKernel(0.7).on(REST),
    "sum": RBFKernel(0.7) + 0.5 * RBFKernel(0.4).on(FIRST) + LaplaceKernel(0.7).on(REST),
    "product": LaplaceKernel(0.9).on(FIRST) * (RBFKernel(0.7) + MaternKernel(1.5, 0.6).on(REST)),
    "joint_gaussian": RBFKernel(0.7).on(FIRST) * RBFKernel(0.3).on(REST),
    "nested": (LaplaceKernel(0.7) + RBFKernel(0.5).on(FIRST)).on(REST),
}
SHARP = {"laplace": 0.49 * MaternKernel(1.5, 0.7 * 3**0.5), "rbf": 0.49 * RBFKernel(0.7)}


def rows(*shape, seed=0, shift=0.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def weights(count, seed):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


FAKE, REAL, OTHER = rows(6, 3), rows(7, 3, seed=1, shift=0.5), rows(4, 3, seed=2)
CALLS = {
    "fake": {},
    "given": {"negatives": OTHER},
    "fake_and_given": {
        "negatives": torch.cat([FAKE, OTHER]),
        "exclude_self": True,
        "real_weights": weights(7, 3),
        "negative_weights": weights(10, 4),
    },
}


def dense(name, normalise, negatives=None, real_weights=None, negative_weights=None, exclude_self=None):
    """Return the drift from whole matrices of kernel values, as the docstring has it."""
    y = FAKE if negatives is None else negatives
    w = torch.ones(len(REAL)) if real_weights is None else real_weights
    v = torch.ones(len(y)) if negative_weights is None else negative_weights
    kept = 1 - torch.eye(len(FAKE), len(y), dtype=torch.float64) * (negatives is None or bool(exclude_self))
    towards, away = (other - FAKE.unsqueeze(1) for other in (REAL, y))
    kernel = (KERNELS | ON_COLUMNS)[name]
    p, q = kernel(FAKE, REAL), kernel(FAKE, y) * kept
    a, b = p * w, q * v
    if normalise == "none":
        a, b = a / w.sum(), b / (kept * v).sum(1, keepdim=True)
    elif normalise == "rows":
        a, b = a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)
    elif normalise == "sharp":
        a = a / (SHARP[name](FAKE, REAL) * w).sum(1, keepdim=True)
        b = b / (SHARP[name](FAKE, y) * kept * v).sum(1, keepdim=True)
    else:
        of_rows = (a.sum(1) + b.sum(1)).unsqueeze(1)
        a, b = a / (of_rows * p.sum(0)).sqrt(), b / (of_rows * q.sum(0)).sqrt()
        a, b = a * b.sum(1, keepdim=True), b * a.sum(1, keepdim=True)
    return (a.unsqueeze(-1) * towards).sum(1) - (b.unsqueeze(-1) * away).sum(1)


@pytest.fixture(params=[344, 4], ids=["whole", "tiles"])
def side(request, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", request.param)


@pytest.mark.usefixtures("side")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("normalise", NORMALISERS)
@pytest.mark.parametrize("name", KERNELS)
def test_the_drift_is_that_of_whole_matrices(name, normalise, call):
    found = drift(FAKE, REAL, kernel=KERNELS[name], normalise=normalise, **CALLS[call])
    assert_close(found, dense(name, normalise, **CALLS[call]))


def test_the_default_is_that_of_the_paper():
    expected = drift(FAKE, REAL, kernel=KERNELS["rbf"], normalise="rows_and_columns")
    assert_close(drift(FAKE, REAL, kernel=KERNELS["rbf"]), expected)


# Identities


@pytest.mark.parametrize("name", KERNELS)
def test_without_normaliser_it_is_the_velocity_of_mmd2_with_the_sharp_kernel(name):
    fake = FAKE.clone().requires_grad_()
    for estimator, negatives in (("unbiased", None), ("biased", FAKE)):
        (gradient,) = torch.autograd.grad(mmd2(REAL, fake, SHARP[name], estimator=estimator), fake)
        found = drift(FAKE, REAL, kernel=KERNELS[name], normalise="none", negatives=negatives)
        assert_close(found, -len(FAKE) / 2 * gradient)


def test_guidance_by_signed_weights_is_the_velocity_to_an_extrapolated_law():
    alpha, unconditional = 1.8, OTHER
    fake = FAKE.clone().requires_grad_()

    def between(a, b):
        return SHARP["laplace"](a, b).mean()

    attraction = alpha * between(fake, REAL) - (alpha - 1) * between(fake, unconditional)
    (gradient,) = torch.autograd.grad(between(fake, fake) - 2 * attraction, fake)
    signed = torch.cat([torch.full((7,), alpha / 7), torch.full((4,), -(alpha - 1) / 4)])
    both = torch.cat([REAL, unconditional])
    found = drift(FAKE, both, kernel=KERNELS["laplace"], normalise="none", negatives=FAKE, real_weights=signed.double())
    assert_close(found, -len(FAKE) / 2 * gradient)


@pytest.mark.parametrize("name", KERNELS)
def test_the_sharp_drift_is_the_gradient_of_the_logarithm_of_a_ratio_of_densities(name):
    points = FAKE.clone().requires_grad_()
    ratio = kernel_sums(points, REAL, SHARP[name])[0].log() - kernel_sums(points, OTHER, SHARP[name])[0].log()
    (expected,) = torch.autograd.grad(ratio.sum(), points)
    assert_close(drift(FAKE, REAL, kernel=KERNELS[name], normalise="sharp", negatives=OTHER), expected)


def test_for_a_gaussian_kernel_rows_are_a_multiple_of_sharp():
    found = [drift(FAKE, REAL, kernel=RBFKernel(0.7), normalise=normalise) for normalise in ("rows", "sharp")]
    assert_close(found[0], 0.49 * found[1])


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_it_changes_its_sign_when_real_samples_and_negatives_are_swapped(normalise):
    for kernel in KERNELS.values():
        found = drift(FAKE, REAL, kernel=kernel, normalise=normalise, negatives=OTHER)
        swapped = drift(FAKE, OTHER, kernel=kernel, normalise=normalise, negatives=REAL)
        assert_close(found, -swapped)
        assert_close(drift(FAKE, REAL, kernel=kernel, normalise=normalise, negatives=REAL), torch.zeros_like(FAKE))


def _curl(kernel, normalise):
    def at(point):
        return drift(point.unsqueeze(0), REAL, kernel=kernel, normalise=normalise, negatives=OTHER).squeeze(0)

    jacobians = torch.stack([torch.func.jacrev(at)(point) for point in FAKE])
    return (jacobians - jacobians.mT).abs().max()


def test_only_sharp_drifts_and_those_without_normaliser_have_no_curl():
    assert _curl(LaplaceKernel(0.7), "sharp") < 1e-13
    assert _curl(LaplaceKernel(0.7), "none") < 1e-15
    assert _curl(LaplaceKernel(0.7), "rows") > 0.1
    assert _curl(RBFKernel(0.7), "rows") < 1e-13  # the exception among radial kernels


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_it_turns_and_moves_with_the_samples(normalise):
    turn, _ = torch.linalg.qr(rows(3, 3, seed=5))
    kernel = LaplaceKernel(0.7)
    found = drift(FAKE @ turn + 100, REAL @ turn + 100, kernel=kernel, normalise=normalise)
    assert_close(found, drift(FAKE, REAL, kernel=kernel, normalise=normalise) @ turn, rtol=0, atol=1e-11)
    single = drift((FAKE + 100).float(), (REAL + 100).float(), kernel=kernel, normalise=normalise)
    assert_close(single.double(), found @ turn.T, rtol=0, atol=1e-4)  # the rounding of samples near 100


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_whole_weights_count_as_repeated_samples(normalise):
    times, of_negatives = torch.tensor([2, 1, 3, 0, 1, 1, 2]), torch.tensor([1, 0, 2, 3])
    found = drift(
        FAKE,
        REAL,
        kernel=LaplaceKernel(0.7),
        normalise=normalise,
        negatives=OTHER,
        real_weights=times.double(),
        negative_weights=of_negatives.double(),
    )
    repeated = REAL.repeat_interleave(times, 0), OTHER.repeat_interleave(of_negatives, 0)
    expected = drift(FAKE, repeated[0], kernel=LaplaceKernel(0.7), normalise=normalise, negatives=repeated[1])
    assert_close(found, expected)


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_far_from_the_origin_transforms_see_the_same_field(normalise):
    fake, real = FAKE.unsqueeze(0) + 1e10, REAL.unsqueeze(0) + 1e10  # in steps of 2e-6

    def field(fake, real):
        return drift(fake, real, kernel=LaplaceKernel(0.7), normalise=normalise)

    assert_close(torch.func.vmap(field)(fake, real), field(fake, real), rtol=0, atol=1e-8)


def test_the_numbers_of_driftxpress():
    case = next(case for case in json.loads(DATA.read_text())["cases"] if case["id"] == "driftxpress_standard")
    scale, d = case["outputs"]["S"], 4
    fake, real = (torch.tensor(case["inputs"][name], dtype=torch.float64) / scale for name in ("gen", "pos"))

    def field(temperature):
        return drift(fake, real, kernel=LaplaceKernel(temperature * d**0.5), normalise="rows_and_columns")

    expected = torch.tensor(case["outputs"]["V"], dtype=torch.float64)
    assert_close(field(case["settings"]["temp"]), expected, rtol=0, atol=1e-12)
    total = torch.zeros_like(fake)
    for temperature in case["settings"]["temps"]:
        found = field(temperature)
        total += found / (found.square().mean().sqrt() + 1e-8)  # their floor
    assert_close(total, torch.tensor(case["outputs"]["V_multitemp"], dtype=torch.float64), rtol=0, atol=1e-9)


# Numerics


@pytest.mark.parametrize("normalise", ["rows", "rows_and_columns", "sharp"])
@pytest.mark.parametrize("kernel", [LaplaceKernel(0.02), RBFKernel(0.02), RBFKernel(0.02) + LaplaceKernel(0.02)])
def test_small_bandwidths_in_float32_do_not_underflow(kernel, normalise):
    fake, real = rows(40, 16).float(), rows(50, 16, seed=1, shift=0.5).float()  # at 250 bandwidths
    assert float(kernel(fake, real).max()) == 0
    found = drift(fake, real, kernel=kernel, normalise=normalise)
    expected = drift(fake.double(), real.double(), kernel=kernel, normalise=normalise)
    assert found.dtype == torch.float32
    assert_close(found.double(), expected, rtol=1e-6, atol=1e-30)  # a product of affinities may be below float32
    if normalise == "rows":  # of Gaussians as narrow as these, only the nearest sample is left
        exact = drift(fake.double(), real.double(), kernel=RBFKernel(0.002), normalise=normalise)
        distances = [torch.cdist(fake.double(), other.double()) for other in (real, fake)]
        distances[1].fill_diagonal_(torch.inf)
        nearest = [other.double()[each.argmin(1)] for other, each in zip((real, fake), distances, strict=True)]
        assert_close(exact, nearest[0] - nearest[1])


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_one_far_sample_leaves_the_field_its_digits(normalise):
    fake, real = rows(20, 4).float(), rows(30, 4, seed=1).float()
    for far in (1e4, 1e10):
        real[0] = far
        found = drift(fake, real, kernel=LaplaceKernel(0.5), normalise=normalise)
        near = drift(fake, real[1:], kernel=LaplaceKernel(0.5), normalise=normalise)
        factor = 29 / 30 if normalise == "none" else 1.0
        repulsion = drift(fake, real, kernel=LaplaceKernel(0.5), normalise="none", real_weights=torch.eye(30)[0])
        if normalise == "none":
            near = factor * (near - repulsion) + repulsion
        assert_close(found, near, rtol=0, atol=1e-5)


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_it_is_differentiable_by_all_tensors(normalise, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 2)
    sizes = {"fake": (3, 2), "real": (2, 2), "negatives": (4, 2)}
    inputs = [rows(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(sizes.values())]
    inputs += [weights(2, 5).requires_grad_(), weights(4, 6).requires_grad_()]

    def field(fake, real, negatives, real_weights, negative_weights):
        return drift(
            fake,
            real,
            kernel=LaplaceKernel(0.7),
            normalise=normalise,
            negatives=negatives,
            exclude_self=True,
            real_weights=real_weights,
            negative_weights=negative_weights,
        )

    assert torch.autograd.gradcheck(field, inputs)
    assert torch.autograd.gradcheck(
        lambda fake, real: drift(fake, real, kernel=RBFKernel(), normalise=normalise), inputs[:2]
    )
    assert_close(torch.func.jacrev(field)(*inputs), torch.autograd.functional.jacobian(field, tuple(inputs))[0])


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_memory_grows_with_samples_and_not_with_pairs(normalise, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 32)
    fake, real = rows(200, 2).float().requires_grad_(), rows(150, 2, seed=1).float()
    with Largest() as largest:
        found = drift(fake, real, kernel=LaplaceKernel(0.5), normalise=normalise)
        torch.autograd.grad(found.square().sum(), fake)
    assert largest.elements <= 32 * 32 * 2  # of 70,000 pairs


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_no_group_has_an_influence_on_another(normalise):
    fake, real = rows(2, 3, 6, 2), rows(2, 3, 5, 2, seed=1)
    fake[0, 1, 2, 0] = torch.nan
    found = drift(fake, real, kernel=LaplaceKernel(), normalise=normalise)
    for i, j in ((0, 0), (0, 1), (1, 2)):
        alone = drift(fake[i, j], real[i, j], kernel=LaplaceKernel(), normalise=normalise)
        assert_close(found[i, j], alone, equal_nan=True)
    assert found[0, 1].isnan().all()
    assert found.isfinite().sum() == 5 * 12


class Trained(Kernel):
    def __init__(self):
        super().__init__()
        self.width = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def from_sq_dist(self, sq_dist):
        return torch.exp(-sq_dist / (2 * self.width**2))


@pytest.mark.parametrize("normalise", ["none", "rows", "rows_and_columns"])
def test_a_trained_kernel_gets_its_gradient(normalise):
    kernel, h = Trained(), 1e-5
    found = drift(FAKE, REAL, kernel=kernel, normalise=normalise)
    assert_close(found, drift(FAKE, REAL, kernel=RBFKernel(0.7), normalise=normalise))
    after, before = (drift(FAKE, REAL, kernel=RBFKernel(0.7 + s), normalise=normalise) for s in (h, -h))
    (slope,) = torch.autograd.grad(found.square().sum(), kernel.width)
    expected = float(after.square().sum() - before.square().sum()) / (2 * h)
    assert float(slope) == pytest.approx(expected, rel=1e-6)


TRAINED = {
    "rbf": lambda: RBFKernel(0.7, trainable=True),
    "rbf_mix": lambda: RBFMix((0.5, 1.0), weights=(0.3, 2.0), trainable=True),
    "rational_quadratic": lambda: RationalQuadraticKernel(1.7, length=0.6, trainable=True),
    "rational_quadratic_mix": lambda: RationalQuadraticMix((1.5, 3.0), weights=(0.3, 2.0), trainable=True),
    "inverse_multiquadric": lambda: InverseMultiquadricKernel(c=1.4, beta=-2.5, trainable=True),
    "laplace": lambda: LaplaceKernel(0.7, trainable=True),
    "matern_12": lambda: MaternKernel(0.5, 0.7, trainable=True),
    "matern_32": lambda: MaternKernel(1.5, 0.7, trainable=True),
    "multiple": lambda: 3 * LaplaceKernel(0.7, trainable=True),
}


@pytest.mark.parametrize("normalise", NORMALISERS)
@pytest.mark.parametrize("name", TRAINED)
def test_trained_hyper_parameters_get_their_gradients(name, normalise):
    kernel = TRAINED[name]().double()
    parameters = list(kernel.parameters())

    def size():
        return drift(FAKE, REAL, kernel=kernel, normalise=normalise).square().sum()

    gradients = torch.autograd.grad(size(), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        for number, slope in zip(parameter.data.view(-1), gradient.view(-1), strict=True):
            ends = []
            for step in (1e-5, -1e-5):
                number += step
                ends.append(float(size().detach()))
                number -= step
            assert float(slope) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-9)


def test_a_trained_order_without_a_sharp_kernel_is_refused():
    with pytest.raises(ValueError, match=r"^kernel: expected a rational quadratic with alpha > 1, .* infinite"):
        drift(FAKE, REAL, kernel=RationalQuadraticKernel(0.9, trainable=True), normalise="sharp")


def test_no_host_waits_for_a_trained_order():
    kernel = RationalQuadraticKernel(1.5, trainable=True).to("meta")
    found = drift(FAKE.to("meta"), REAL.to("meta"), kernel=kernel, normalise="sharp")
    assert found.device.type == "meta"


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_transforms_and_the_compiler_see_the_same_field(normalise):
    fake, real = rows(2, 4, 3), rows(2, 5, 3, seed=1)
    kernel = LaplaceKernel(0.7)  # in PyTorch 2.6, `drift` does not compile with a kernel that is made in the same graph

    def field(fake, real):
        return drift(fake, real, kernel=kernel, normalise=normalise)

    expected = field(fake, real)
    assert_close(torch.func.vmap(field)(fake, real), expected)
    assert_close(torch.compile(field, backend="eager", fullgraph=True)(fake, real), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(field(fake.float(), real.float()), expected.float())
    assert_close(field(fake.half(), real.half()), field(fake.half().float(), real.half().float()))


@pytest.mark.parametrize("kernel", [KERNELS["laplace"], ON_COLUMNS["sum"]], ids=["plain", "columns"])
@pytest.mark.parametrize("normalise", ["none", "rows", "rows_and_columns"])
def test_forward_mode_gives_the_derivatives_of_reverse_mode(kernel, normalise):
    # Tensors with forward-mode derivatives do not require gradients.
    def field(*samples):
        return drift(*samples, kernel=kernel, normalise=normalise)

    samples, directions = (FAKE, REAL), (rows(6, 3, seed=5), rows(7, 3, seed=6))
    jacobians = torch.autograd.functional.jacobian(field, samples)
    expected = sum(torch.tensordot(*pair, dims=2) for pair in zip(jacobians, directions, strict=True))
    assert_close(torch.func.jvp(field, samples, directions)[1], expected)
    with torch.no_grad(), forward_ad.dual_level():
        dual = field(*map(forward_ad.make_dual, samples, directions))
        assert_close(forward_ad.unpack_dual(dual).tangent, expected)


def test_compiled_forward_mode_gives_the_same_derivatives():
    def derivative(direction):
        return torch.func.jvp(lambda fake: drift(fake, REAL, kernel=KERNELS["laplace"]), (FAKE,), (direction,))[1]

    direction = rows(6, 3, seed=5)
    compiled = torch.compile(derivative, backend="eager", fullgraph=True)
    assert_close(compiled(direction), derivative(direction))


def test_kernels_of_users_and_with_heavy_tails():
    class Cauchy(Kernel):
        def from_sq_dist(self, sq_dist):
            return 1 / (1 + sq_dist)

    for normalise in ("none", "rows", "rows_and_columns"):
        found = drift(FAKE, REAL, kernel=Cauchy(), normalise=normalise)
        expected = drift(FAKE, REAL, kernel=RationalQuadraticKernel(1.0, length=0.5**0.5), normalise=normalise)
        assert_close(found, expected)


@pytest.mark.parametrize("normalise", NORMALISERS)
def test_it_is_differentiable_twice(normalise):
    inputs = [rows(3, 2).requires_grad_(), rows(2, 2, seed=1).requires_grad_(), weights(2, 5).requires_grad_()]

    def field(fake, real, real_weights):
        return drift(fake, real, kernel=RBFKernel(0.7), normalise=normalise, real_weights=real_weights)

    assert torch.autograd.gradgradcheck(field, inputs)


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("name", ["rbf", "laplace", "product"])
@pytest.mark.parametrize("side", [344, 7, 2], ids=["together", "some together", "tiles"])
def test_groups_have_the_derivatives_that_they_have_alone(name, exclude_self, side, monkeypatch):
    monkeypatch.setattr(product_tiles, "TOGETHER_FROM", 1)
    monkeypatch.setattr(tiles, "CPU_TILE", side)
    kernel = {**KERNELS, **ON_COLUMNS}[name]

    def derivatives(*inputs):
        leaves = [each.clone().requires_grad_() for each in inputs]
        found = drift(*leaves[:2], kernel=kernel, negatives=leaves[2], exclude_self=exclude_self)
        return torch.autograd.grad((found.square() + found).sum(), leaves)

    groups = rows(3, 4, 3), rows(3, 3, 3, seed=1), rows(3, 5, 3, seed=2)
    alone = [derivatives(*each) for each in zip(*groups, strict=True)]
    assert_close(derivatives(*groups), tuple(torch.stack(parts) for parts in zip(*alone, strict=True)))


def test_derivatives_of_float32_rows_that_are_far_from_the_centre():
    fake, real = rows(4, 3).float(), rows(4, 3, seed=1).float()
    fake[:2] += 1e6
    real[:2] += 1e6

    def derivatives(*inputs):
        leaves = [each.clone().requires_grad_() for each in inputs]
        found = drift(*leaves, kernel=KERNELS["laplace"], normalise="none")
        (plain,) = torch.autograd.grad(found.square().sum(), leaves[:1], retain_graph=True)
        (first,) = torch.autograd.grad(found.square().sum(), leaves[:1], create_graph=True)
        return plain, first.detach(), *torch.autograd.grad(first.square().sum(), leaves)

    exact = [each.float() for each in derivatives(fake.double(), real.double())]
    assert_close(derivatives(fake, real), tuple(exact), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel", [KERNELS["rbf"], ON_COLUMNS["joint_gaussian"]], ids=["rbf", "joint_gaussian"])
def test_the_derivatives_of_all_groups_take_the_same_operations(kernel):
    def operations(count):
        fake, real = rows(count, 4, 3).requires_grad_(), rows(count, 3, 3, seed=1)
        with Count() as counted:
            drift(fake, real, kernel=kernel).square().sum().backward()
        return counted.operations

    operations(1)  # the first call is examined for warnings
    assert operations(40) == operations(4)


# Kernels on some columns

every_other_normaliser = pytest.mark.parametrize("normalise", [n for n in NORMALISERS if n != "sharp"])


@pytest.mark.parametrize("call", CALLS)
@every_other_normaliser
@pytest.mark.parametrize("name", ON_COLUMNS)
def test_the_drift_of_a_kernel_on_columns_is_that_of_whole_matrices(name, normalise, call, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 4)
    found = drift(FAKE, REAL, kernel=ON_COLUMNS[name], normalise=normalise, **CALLS[call])
    assert_close(found, dense(name, normalise, **CALLS[call]))


@every_other_normaliser
def test_a_kernel_on_features_moves_the_samples_behind_them(normalise):
    # The kernel compares features, and the displacements are those of features and samples.
    features = [torch.tanh(each @ rows(3, 2, seed=9)) for each in (FAKE, REAL)]
    both = [torch.cat(pair, 1) for pair in zip(features, (FAKE, REAL), strict=True)]
    found = drift(*both, kernel=LaplaceKernel(0.7).on(slice(0, 2)), normalise=normalise)
    alone = drift(*features, kernel=LaplaceKernel(0.7), normalise=normalise)
    assert_close(found[:, :2], alone)
    assert float(found[:, 2:].norm()) > 0.01


@every_other_normaliser
def test_derivatives_and_transforms_of_drifts_on_columns(normalise, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 2)
    inputs = [rows(3, 3).requires_grad_(), rows(2, 3, seed=1).requires_grad_(), weights(2, 5).requires_grad_()]

    def field(fake, real, real_weights):
        return drift(fake, real, kernel=ON_COLUMNS["product"], normalise=normalise, real_weights=real_weights)

    assert torch.autograd.gradcheck(field, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(field, inputs, fast_mode=True)
    batch = [torch.stack([each.detach(), each.detach() / 2]) for each in inputs]
    assert_close(torch.func.vmap(field)(*batch), field(*batch))


@every_other_normaliser
def test_memory_of_drifts_on_columns_grows_with_samples(normalise, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 32)
    fake, real = rows(120, 3).float().requires_grad_(), rows(100, 3, seed=1).float()
    with Largest() as largest:
        found = drift(fake, real, kernel=ON_COLUMNS["sum"], normalise=normalise)
        torch.autograd.grad(found.square().sum(), fake)
    assert largest.elements <= 32 * 32 * 3


def test_narrow_kernels_on_columns_do_not_underflow():
    fake, real = rows(40, 16).float(), rows(50, 16, seed=1, shift=0.5).float()
    found = drift(fake, real, kernel=LaplaceKernel(0.02).on(slice(0, 12)), normalise="rows")
    alone = drift(fake[:, :12], real[:, :12], kernel=LaplaceKernel(0.02), normalise="rows")
    assert_close(found[:, :12], alone, rtol=1e-6, atol=1e-6)


def test_columns_in_which_samples_nearly_coincide_keep_their_digits():
    # Of two clusters in these columns, half of the pairs are too near for a repair one by one.
    fake, real = rows(40, 6), rows(50, 6, seed=1, shift=0.5)
    for samples in (fake, real):
        samples[:, :3] = 1e-9 * samples[:, :3] + (torch.arange(len(samples)) % 2)[:, None]
    found = drift(fake, real, kernel=LaplaceKernel(1e-9).on(slice(0, 3)), normalise="rows")
    distance = (fake[:, None, :3] - real[:, :3]).norm(dim=-1) / 1e-9
    among = ((fake[:, None, :3] - fake[:, :3]).norm(dim=-1) / 1e-9).fill_diagonal_(math.inf)
    expected = (-distance).softmax(1) @ real - (-among).softmax(1) @ fake
    assert_close(found, expected, rtol=1e-6, atol=1e-6)


@every_other_normaliser
def test_a_trained_kernel_on_columns_gets_its_gradient(normalise):
    kernel = RBFKernel(0.7, trainable=True).double()
    both = kernel.on(FIRST) * LaplaceKernel(0.7).on(REST)
    found = drift(FAKE, REAL, kernel=both, normalise=normalise)
    fixed = [RBFKernel(0.7 * math.exp(step)).on(FIRST) * LaplaceKernel(0.7).on(REST) for step in (0, 1e-5, -1e-5)]
    same, after, before = (drift(FAKE, REAL, kernel=each, normalise=normalise) for each in fixed)
    assert_close(found, same, rtol=1e-6, atol=1e-7)  # the parameter is a float32 logarithm
    (slope,) = torch.autograd.grad(found.square().sum(), kernel.log_sigma)
    expected = float(after.square().sum() - before.square().sum()) / 2e-5
    assert float(slope) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("kernel", "normalise", "message"),
    [
        (RBFKernel().on(FIRST), "sharp", "a kernel of the distance in all columns .* got a kernel on some columns"),
        (RBFKernel() + LinearKernel(), "rows", "a kernel of the distance .* got LinearKernel, which is not one"),
        (LinearKernel(), "none", "a kernel of the distance .* got LinearKernel, which is not one"),
        (LinearKernel().on(FIRST), "rows", "a kernel of the distance .* got LinearKernel, which is not one"),
        (EnergyKernel().on(FIRST), "none", r"a kernel with values > 0 for kernel.on\(...\), got EnergyKernel"),
        (EnergyKernel(), "rows", "a kernel with values > 0 for normalise='rows', got EnergyKernel"),
    ],
)
def test_other_kernels_are_refused_by_name(kernel, normalise, message):
    with pytest.raises(TypeError, match=f"^kernel: expected {message}"):
        drift(FAKE, REAL, kernel=kernel, normalise=normalise)
