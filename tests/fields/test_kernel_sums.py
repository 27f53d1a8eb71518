"""Sums of kernel values, and of samples weighted by them, at given points."""

import pytest
import torch
from cases import CASES, SMOOTH, KernelCase, scores
from sizes import Count, Largest
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    L1LaplaceKernel,
    LaplaceKernel,
    LinearKernel,
    MaternKernel,
    PolynomialKernel,
    RBFKernel,
    RBFMix,
    kernel_sums,
    mmd2,
)
from torch_mmd_losses.pairs import kernel_products, product_tiles, tiles
from torch_mmd_losses.pairs.kernel_products import kernel_gradients


def rows(*shape, seed=0, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, **options)


def loops(scalar, points, samples, weights, *, exclude_self=False):
    """Return both sums of one group by loops over Python numbers."""
    mass, moment = [], []
    for i, x in enumerate(points.tolist()):
        terms = [
            (w * scalar(x, y), y)
            for j, (y, w) in enumerate(zip(samples.tolist(), weights.tolist(), strict=True))
            if not (exclude_self and i == j)
        ]
        mass.append(sum(term for term, _ in terms))
        moment.append([sum(term * y[c] for term, y in terms) for c in range(len(x))])
    return torch.tensor(mass, dtype=torch.float64), torch.tensor(moment, dtype=torch.float64)


@pytest.fixture(params=[344, 3], ids=["whole", "tiles"])
def side(request, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", request.param)


@pytest.mark.usefixtures("side")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_sums_are_those_of_loops(case: KernelCase):
    points, samples, weights = rows(2, 5, 3), rows(2, 4, 3, seed=1), rows(2, 4, seed=2)
    found = kernel_sums(points, samples, case.make(), weights=weights)
    expected = [loops(case.scalar, points[i], samples[i], weights[i]) for i in range(2)]
    assert_close(found, tuple(torch.stack(each) for each in zip(*expected, strict=True)))
    found = kernel_sums(points[0], points[0], case.make(), exclude_self=True)
    assert_close(found, loops(case.scalar, points[0], points[0], torch.ones(5), exclude_self=True))


@pytest.mark.usefixtures("side")
def test_pairs_of_equal_index_are_left_out_of_different_sets_too():
    points, samples = rows(5, 3), rows(5, 3, seed=1)
    found = kernel_sums(points, samples, RBFKernel(1.3), exclude_self=True)
    assert_close(found, loops(CASES["rbf"].scalar, points, samples, torch.ones(5), exclude_self=True))


@pytest.mark.parametrize(
    ("name", "exclude_self"),
    [("rbf", True), ("sum_with_linear", False), ("rational_quadratic", False), ("own_radial", True)],
)
def test_sums_are_differentiable_twice(name, exclude_self, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 2)
    kernel = SMOOTH[name].make()
    points, samples, weights = rows(3, 2), rows(3, 2, seed=1), rows(3, seed=2)
    inputs = [tensor.requires_grad_() for tensor in (points, samples, weights)]

    def sums(points, samples, weights):
        return kernel_sums(points, samples, kernel, weights=weights, exclude_self=exclude_self)

    def within(samples, weights):
        return kernel_sums(samples, samples, kernel, weights=weights, exclude_self=exclude_self)

    for function, arguments in ((sums, inputs), (within, inputs[1:])):
        assert torch.autograd.gradcheck(function, arguments)
        assert torch.autograd.gradgradcheck(function, arguments)


@pytest.mark.usefixtures("side")
def test_only_the_wanted_gradients_come():
    points, samples, weights = rows(3, 2), rows(4, 2, seed=1), rows(4, seed=2)
    for position in range(3):
        inputs = [points.clone(), samples.clone(), weights.clone()]
        inputs[position].requires_grad_()
        value = kernel_sums(inputs[0], inputs[1], RBFKernel() + LinearKernel(), weights=inputs[2])[0].square().sum()
        (first,) = torch.autograd.grad(value, inputs[position], create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), inputs[position])
        assert first.shape == second.shape == inputs[position].shape


@pytest.mark.usefixtures("side")
def test_coincident_points_have_no_gradient_of_a_distance():
    points = rows(4, 2).requires_grad_()
    samples = torch.cat([points.detach(), points.detach()[:1] + 1])
    for other, exclude in ((points, True), (points, False), (samples, False)):
        mass, _ = kernel_sums(points, other, EnergyKernel(), exclude_self=exclude)
        (found,) = torch.autograd.grad(mass.sum(), points)
        assert found.isfinite().all()
        factor = 2 if other is points else 1  # a point moves as a sample too
        differences = points.detach().unsqueeze(1) - other.detach()
        expected = -torch.nn.functional.normalize(differences, dim=-1, eps=1e-300).sum(1)
        assert_close(found, factor * expected)


def test_the_sums_make_mmd2_and_its_gradient():
    real, fake, kernel = scores(6, 3, 1), scores(5, 3, 2).requires_grad_(), RBFMix()
    attraction, repulsion = kernel_sums(fake, real, kernel)[0], kernel_sums(fake, fake, kernel)[0]
    constant = kernel_sums(real, real, kernel)[0].mean() / 6
    value = constant - 2 * attraction.mean() / 6 + repulsion.mean() / 5
    expected = mmd2(real, fake, kernel, estimator="biased")
    assert_close(value, expected)
    assert_close(torch.autograd.grad(value, fake), torch.autograd.grad(expected, fake))


def test_any_shape_of_groups():
    points, samples, weights = rows(2, 3, 4, 2), rows(2, 3, 5, 2, seed=1), rows(2, 3, 5, seed=2)
    mass, moment = kernel_sums(points, samples, RBFKernel(), weights=weights)
    assert mass.shape == (2, 3, 4)
    assert moment.shape == (2, 3, 4, 2)
    for i, j in ((0, 0), (1, 2)):
        alone = kernel_sums(points[i, j], samples[i, j], RBFKernel(), weights=weights[i, j])
        assert_close((mass[i, j], moment[i, j]), alone)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e12])
def test_no_group_has_an_influence_on_another(number):
    points, samples = rows(3, 6, 2).float(), rows(3, 5, 2, seed=1).float()
    points[1, 2, 0] = number
    if number == 1e12:
        samples[0, 1, 0] = float("nan")  # does not hide that group 1 has scores that are far apart
    leaves = points.clone().requires_grad_(), samples.clone().requires_grad_()
    for kernel in (RBFKernel(), RBFKernel() + LinearKernel()):
        mass, moment = kernel_sums(*leaves, kernel)
        gradients = torch.autograd.grad((mass + moment.sum(-1)).sum(), leaves)
        for i in range(3):
            alone = points[i].clone().requires_grad_(), samples[i].clone().requires_grad_()
            sums = kernel_sums(*alone, kernel)
            assert_close((mass[i], moment[i]), sums, equal_nan=True)
            again = torch.autograd.grad((sums[0] + sums[1].sum(-1)).sum(), alone)
            assert_close([gradient[i] for gradient in gradients], list(again), equal_nan=True)
        assert mass[2].isfinite().all()


OF_COLUMNS = RBFKernel().on(slice(0, 2)) * LaplaceKernel().on(slice(2, 3))
KINDS = {
    "rbf": RBFKernel(),
    "trained": RBFKernel(trainable=True).double(),
    "trained_of_columns": RBFKernel(trainable=True).double().on(slice(0, 2)) + PolynomialKernel(),
    "polynomial": PolynomialKernel(),
    "l1_laplace": L1LaplaceKernel(),
    "of_columns": OF_COLUMNS,
    "sum": RBFMix() + OF_COLUMNS + LinearKernel(),
    "own": CASES["own_general"].make(),
}
kinds = pytest.mark.parametrize("kernel", KINDS.values(), ids=KINDS)


def sums_and_derivatives(points, samples, weights, kernel, *, exclude_self):
    """Return the sums, the derivatives of a function of them, and those of the squares of the derivatives."""
    leaves = [tensor.clone().requires_grad_() for tensor in (points, samples, weights)]
    within = kernel_sums(leaves[1], leaves[1], kernel, weights=leaves[2], exclude_self=exclude_self)
    found = kernel_sums(*leaves[:2], kernel, weights=leaves[2], exclude_self=exclude_self)
    total = sum((part.square() + part).sum() for part in (*found, *within))
    first = torch.autograd.grad(total, leaves, create_graph=True)
    second = torch.autograd.grad(sum(part.square().sum() for part in first), leaves)
    return [*found, *within, *first, *second]


@kinds
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("side", [344, 6, 3], ids=["together", "some together", "tiles"])
def test_groups_have_the_sums_and_derivatives_that_they_have_alone(kernel, exclude_self, side, monkeypatch):
    monkeypatch.setattr(product_tiles, "TOGETHER_FROM", 1)
    monkeypatch.setattr(tiles, "CPU_TILE", side)
    points, samples, weights = rows(3, 4, 3), rows(3, 4, 3, seed=1), rows(3, 4, seed=2)
    found = sums_and_derivatives(points, samples, weights, kernel, exclude_self=exclude_self)
    inputs = zip(points, samples, weights, strict=True)
    alone = [sums_and_derivatives(*each, kernel, exclude_self=exclude_self) for each in inputs]
    assert_close(found, [torch.stack(parts) for parts in zip(*alone, strict=True)])


@pytest.mark.parametrize("kernel", [kernel for name, kernel in KINDS.items() if name != "own"], ids=list(KINDS)[:-1])
def test_all_groups_are_evaluated_by_the_same_operations(kernel):
    def operations(count):
        with Count() as counted:
            sums_and_derivatives(
                rows(count, 4, 3), rows(count, 4, 3, seed=1), rows(count, 4), kernel, exclude_self=False
            )
        return counted.operations

    operations(1)  # the first call is examined for warnings
    assert operations(40) == operations(4)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_group_without_values_does_not_hide_that_another_has_rows_that_are_far_apart(number):
    points, samples = rows(3, 4, 3), rows(3, 4, 3, seed=1)
    points[1, :2] += 1e7
    samples[1, :2] += 1e7
    expected = kernel_sums(points[1], samples[1], OF_COLUMNS)
    points[2, 0, 0] = number
    mass, moment = kernel_sums(points, samples, OF_COLUMNS)
    assert_close((mass[1], moment[1]), expected)


@pytest.mark.parametrize("far", [0.0, 100.0, 1e7])
@pytest.mark.parametrize("part", ["one", "all", "sample"])
@pytest.mark.parametrize("name", ["rbf", "rational_quadratic", "energy", "own_radial"])
@pytest.mark.parametrize("side", [16, 344], ids=["tiles", "whole"])
def test_far_rows_leave_the_sums_their_digits(name, part, far, side, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", side)
    kernel = CASES[name].make()
    points, samples, weights = rows(40, 8).float(), rows(30, 8, seed=1).float(), rows(30, seed=2).float()
    points[: 1 if part == "one" else 40 if part == "all" else 0] += far
    samples[: 30 if part == "all" else 1 if part == "sample" else 0] += far
    leaves = points.requires_grad_(), samples.requires_grad_(), weights.requires_grad_()
    mass, moment = kernel_sums(points, samples, kernel, weights=weights)
    outer = rows(40, 9, seed=3).float()
    found = torch.autograd.grad((mass * outer[:, 0]).sum() + (moment * outer[:, 1:]).sum(), leaves)
    x, y, w, g = (tensor.detach().double() for tensor in (points, samples, weights, outer))
    sq_dist = (x.unsqueeze(1) - y).square().sum(-1).requires_grad_()
    values = kernel.from_sq_dist(sq_dist)
    slopes = torch.autograd.grad(values.sum(), sq_dist)[0].unsqueeze(-1)
    k = values.detach().unsqueeze(-1)
    _check(torch.cat([mass.unsqueeze(1), moment], 1), k * torch.cat([w.unsqueeze(-1), w.unsqueeze(-1) * y], 1))
    factors = (g[:, :1] + g[:, 1:] @ y.T).unsqueeze(-1)
    terms = 2 * slopes * w.view(1, -1, 1) * factors * (x.unsqueeze(1) - y)
    _check(found[0], terms, of=slopes * w.view(1, -1, 1) * _absolute(g, y) * (x.unsqueeze(1) - y) * 2)
    own = k * w.view(1, -1, 1) * g[:, None, 1:]  # of the samples that are weighted
    _check(
        found[1],
        (own - terms).transpose(0, 1),
        of=(own.abs() + (2 * slopes * w.view(1, -1, 1) * _absolute(g, y) * (x.unsqueeze(1) - y)).abs()).transpose(0, 1),
    )
    _check(found[2].unsqueeze(1), (k * factors).transpose(0, 1), of=(k * _absolute(g, y)).transpose(0, 1))


def test_clusters_that_are_very_far_apart_keep_the_digits_of_their_differences():
    points, samples, weights = rows(1, 20, 3), rows(1, 16, 3, seed=1), rows(1, 16, seed=2)
    points[:, :10] += 1e12
    samples[:, :8] += 1e12
    differences = points.squeeze(0).unsqueeze(1) - samples.squeeze(0)
    terms = -torch.exp(-differences.square().sum(-1, keepdim=True) / 2) * weights.view(1, -1, 1) * differences
    found = kernel_gradients(points, samples, weights, RBFKernel())
    _check(found.squeeze(0), terms)


def test_bandwidths_beyond_float32_in_transforms():
    points, samples, kernel = rows(2, 4, 3).float() * 1e-25, rows(2, 5, 3, seed=1).float() * 1e-25, RBFKernel(1e-25)
    found, _ = torch.func.vmap(lambda x, y: kernel_sums(x, y, kernel))(points, samples)
    assert_close(found, kernel_sums(points, samples, kernel)[0])
    assert float(found.max()) < 5


def _absolute(g, y):
    return (g[:, :1].abs() + g[:, 1:].abs() @ y.abs().T).unsqueeze(-1)


def _check(found, terms, of=None):
    """Compare a sum over the second dimension with its terms: 1e-5 of the absolute ones, the promise of the library."""
    bound = 1e-5 * (terms if of is None else of).abs().sum(1)
    assert ((found.detach().double() - terms.sum(1)).abs() <= bound + 1e-30).all()


def test_memory_grows_with_rows_and_not_with_pairs(monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 64)
    leaves = rows(300, 2).float().requires_grad_(), rows(200, 2, seed=1).float().requires_grad_()
    for kernel in (RBFKernel() + EnergyKernel(), LinearKernel()):
        with Largest() as largest:
            mass, moment = kernel_sums(*leaves, kernel)
            value = mass.square().sum() + moment.square().sum()
            gradients = torch.autograd.grad(value, leaves, create_graph=True)
            torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), leaves)
        assert largest.elements <= 2 * 64 * 64  # of 60,000 pairs, for two kernels


def test_a_small_group_with_gradients_is_computed_whole(monkeypatch):
    points, samples = rows(6, 3).requires_grad_(), rows(5, 3, seed=1)

    def second(kernel):
        mass, moment = kernel_sums(points, samples, kernel)
        (first,) = torch.autograd.grad(mass.square().sum() + moment.sum(), points, create_graph=True)
        return torch.autograd.grad(first.square().sum(), points)[0]

    whole = second(RBFKernel())
    monkeypatch.setattr(kernel_products, "add_gradients", None)
    assert_close(second(RBFKernel()), whole, rtol=0, atol=0)
    monkeypatch.undo()
    monkeypatch.setattr(kernel_products, "DENSE_UP_TO", 0)
    assert_close(second(RBFKernel()), whole)


class Trained(Kernel):
    def __init__(self):
        super().__init__()
        self.width = torch.nn.Parameter(torch.tensor(1.3, dtype=torch.float64))

    def from_sq_dist(self, sq_dist):
        return torch.exp(-sq_dist / (2 * self.width**2))


def test_a_trained_kernel_gets_its_gradient():
    points, samples, kernel = rows(2, 4, 2), rows(2, 5, 2, seed=1), Trained()
    mass, _ = kernel_sums(points, samples, kernel)
    assert_close(mass, kernel_sums(points, samples, RBFKernel(1.3))[0])
    h = 1e-5
    after, before = (kernel_sums(points, samples, RBFKernel(1.3 + step))[0].sum() for step in (h, -h))
    (found,) = torch.autograd.grad(mass.sum(), kernel.width)
    assert float(found) == pytest.approx(float(after - before) / (2 * h), rel=1e-7)


@pytest.mark.parametrize("name", ["sum", "sum_with_linear", "energy"])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_transforms_and_the_compiler_see_the_same_sums(name, exclude_self):
    kernel = CASES[name].make()
    points, samples, weights = rows(2, 4, 3), rows(2, 4, 3, seed=1), rows(2, 4, seed=2)

    def sums(points, samples, weights):
        return kernel_sums(points, samples, kernel, weights=weights, exclude_self=exclude_self)

    expected = sums(points, samples, weights)
    assert_close(torch.func.vmap(sums)(points, samples, weights), expected)
    assert_close(torch.compile(sums, backend="eager", fullgraph=True)(points, samples, weights), expected)
    leaf = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(sums(leaf, samples, weights)[1].square().sum(), leaf)
    assert_close(torch.func.grad(lambda x: sums(x, samples, weights)[1].square().sum())(points), gradient)
    within = torch.func.vmap(lambda x: kernel_sums(x, x, kernel, exclude_self=exclude_self))(points)
    assert_close(within, kernel_sums(points, points, kernel, exclude_self=exclude_self))


def test_half_precision_and_autocast_are_float32():
    points, samples = rows(6, 3).float(), rows(5, 3, seed=1).float()
    expected = kernel_sums(points, samples, RBFKernel())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(kernel_sums(points, samples, RBFKernel()), expected)
        leaf = points.clone().requires_grad_()
        mass, _ = kernel_sums(leaf, samples, RBFKernel())
    (found,) = torch.autograd.grad(mass.sum(), leaf)  # outside, as PyTorch asks for
    leaf = points.clone().requires_grad_()
    assert_close(found, torch.autograd.grad(kernel_sums(leaf, samples, RBFKernel())[0].sum(), leaf)[0])
    halves = kernel_sums(points.half(), samples.half(), RBFKernel())
    assert_close(halves, kernel_sums(points.half().float(), samples.half().float(), RBFKernel()))


def test_weights_may_have_another_precision():
    points, samples, weights = rows(6, 3), rows(5, 3, seed=1), rows(5, seed=2)
    expected = kernel_sums(points, samples, RBFKernel(), weights=weights)
    assert_close(kernel_sums(points, samples, RBFKernel(), weights=weights.float()), expected, rtol=1e-6, atol=1e-6)
    single = kernel_sums(points.float(), samples.float(), RBFKernel(), weights=weights)
    assert single[0].dtype == single[1].dtype == torch.float32
    assert_close(single, tuple(each.float() for each in expected))


def test_the_meta_device_shows_shapes():
    mass, moment = kernel_sums(torch.empty(2, 6, 3, device="meta"), torch.empty(2, 5, 3, device="meta"), RBFKernel())
    assert mass.shape == (2, 6)
    assert moment.shape == (2, 6, 3)


@pytest.mark.usefixtures("side")
@pytest.mark.parametrize("case", SMOOTH.values(), ids=SMOOTH)
def test_gradients_at_points_are_those_of_sums(case: KernelCase):
    points, samples, weights = rows(2, 4, 3).requires_grad_(), rows(2, 5, 3, seed=1), rows(2, 5, seed=2)
    mass, _ = kernel_sums(points, samples, case.make(), weights=weights)
    (expected,) = torch.autograd.grad(mass.sum(), points)
    assert_close(kernel_gradients(points, samples, weights, case.make()), expected)
    traced = torch.func.vmap(lambda *x: kernel_gradients(*(t.unsqueeze(0) for t in x), case.make()).squeeze(0))
    assert_close(traced(points, samples, weights), expected)


def test_gradients_at_points_are_differentiable(monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 2)
    inputs = [tensor.requires_grad_() for tensor in (rows(1, 3, 2), rows(1, 4, 2, seed=1), rows(1, 4, seed=2))]
    assert torch.autograd.gradcheck(lambda *x: kernel_gradients(*x, RBFKernel() + LinearKernel()), inputs)
    kernel = Trained()
    (found,) = torch.autograd.grad(kernel_gradients(*inputs, kernel).square().sum(), kernel.width)
    h = 1e-5
    inputs = [tensor.detach() for tensor in inputs]
    after, before = (kernel_gradients(*inputs, RBFKernel(1.3 + step)).square().sum() for step in (h, -h))
    assert float(found) == pytest.approx(float(after - before) / (2 * h), rel=1e-7)


def test_linear_kernels_take_no_gram_matrix():
    points, samples, kernel = rows(200, 5), rows(300, 5, seed=1), 2 * LinearKernel()
    with FlopCounterMode(display=False) as counter:
        mass, moment = kernel_sums(points, samples, kernel)
    assert counter.get_total_flops() == 2 * (200 + 300) * 5 * (1 + 5)
    gram = 2 * points @ samples.T
    assert_close((mass, moment), (gram.sum(1), gram @ samples))
    with FlopCounterMode(display=False) as counter:
        gradient = kernel_gradients(points.unsqueeze(0), samples.unsqueeze(0), torch.ones(1, 300), kernel)
    assert counter.get_total_flops() == 2 * 300 * 5
    assert_close(gradient, 2 * samples.sum(0).expand(1, 200, 5))


@pytest.mark.parametrize(("p", "n"), [(3, 7), (7, 3)])
def test_equal_indices_are_left_out_of_linear_kernels_as_of_others(p, n):
    points, samples = rows(1, p, 4), rows(1, n, 4, seed=1)
    coefficients = rows(1, n, 2, seed=2)
    found = kernel_products.kernel_products(points, samples, coefficients, LinearKernel(), distinct=True)
    gram = (points @ samples.mT).masked_fill(torch.eye(p, n, dtype=torch.bool), 0)
    assert_close(found, gram @ coefficients)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_sums_of_matern_kernels_are_those_of_their_gram_matrix(nu):
    points, samples = rows(6, 3).float(), rows(9, 3, seed=1).float()
    kernel = MaternKernel(nu, length=1.3)
    values, moments = kernel_sums(points, samples, kernel)
    gram = kernel(points.double(), samples.double())
    assert_close(values, gram.sum(1).float())
    assert_close(moments, (gram @ samples.double()).float())
