"""MMD^2 of many groups: against the loop of `mmd2`, public code, float64, and itself under all that PyTorch does."""

import json
from pathlib import Path

import pytest
import torch
from cases import CASES, InverseMultiquadric, KernelCase, scores
from sizes import Count, Largest
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    L1LaplaceKernel,
    LaplaceKernel,
    LinearKernel,
    MaternKernel,
    PolynomialKernel,
    RationalQuadraticMix,
    RBFKernel,
    RBFMix,
    grouped_mmd2,
    hand_written_gradients,
    mmd2,
)
from torch_mmd_losses.groups import call
from torch_mmd_losses.pairs import group_pairs, tiles

ESTIMATORS = ("unbiased", "u_statistic", "biased")
PUBLIC = {
    case["id"]: case
    for case in json.loads((Path(__file__).parents[1] / "data" / "modern-mmd.json").read_text())["cases"]
}
every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
SOME = ("rbf", "laplace", "rational_quadratic_mix_length", "sum_with_linear", "polynomial", "own_radial", "l1_laplace")
some_kernels = pytest.mark.parametrize("case", [CASES[name] for name in SOME], ids=SOME)
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)


@pytest.fixture(params=["stacked", "chunks", "tiles", "autograd"])
def way(request, monkeypatch):
    """Evaluate small groups, in one chunk and in several, large ones in uneven tiles, and as under `torch.compile`."""
    monkeypatch.setattr(call, "TOGETHER_UP_TO", 0 if request.param == "tiles" else 512)
    monkeypatch.setattr(tiles, "CPU_TILE", 3)
    if request.param == "chunks":
        monkeypatch.setitem(call.AT_ONCE, "cpu", 250)
    if request.param == "autograd":
        monkeypatch.setattr(hand_written_gradients, "reverse_mode_only", lambda *_: False)
    return request.param


every_way = pytest.mark.usefixtures("way")


def groups(count, m, d, seed=0, **options):
    """Return scores `(count, m, d)`."""
    return scores(count * m, d, seed, **options).reshape(count, m, d)


def tensor(values):
    """Return numbers of the file."""
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("n", [200, 300])
def test_unit_scales_and_equal_weights_change_nothing(n):
    # Small and large groups; large ones without scales and weights take the pass of mmd2.
    real, fake = torch.randn(2, n, 4).requires_grad_(), torch.randn(2, n, 4).requires_grad_()
    expected = grouped_mmd2(real, fake, RBFMix())
    gradients = torch.autograd.grad(expected.sum(), (real, fake))
    for options in ({"scale": torch.ones(2)}, {"fake_weights": torch.ones(2, n)}):
        found = grouped_mmd2(real, fake, RBFMix(), **options)
        assert_close(found, expected)
        assert_close(torch.autograd.grad(found.sum(), (real, fake)), gradients, rtol=1e-4, atol=1e-7)


@every_kernel
@every_estimator
@every_way
def test_equals_the_loop_of_mmd2_with_its_gradients(case: KernelCase, estimator):
    kernel = case.make()
    n = 5 if estimator == "u_statistic" else 4
    real, fake = groups(3, 5, 2, 1).requires_grad_(), groups(3, n, 2, 2, shift=0.4).requires_grad_()
    outer = tensor([1.0, -2.0, 0.5])
    found = grouped_mmd2(real, fake, kernel, estimator=estimator)
    expected = torch.stack([mmd2(x, y, kernel, estimator=estimator) for x, y in zip(real, fake, strict=True)])
    assert_close(found, expected)
    gradients = torch.autograd.grad((outer * found).sum(), (real, fake))
    assert_close(gradients, torch.autograd.grad((outer * expected).sum(), (real, fake)))


@some_kernels
@every_way
def test_derivatives(case: KernelCase):
    kernel = case.make()
    real, fake = groups(2, 4, 2, 1).requires_grad_(), groups(2, 3, 2, 2, shift=0.3).requires_grad_()

    def value(p, q):
        return grouped_mmd2(p, q, kernel, estimator="unbiased")

    assert torch.autograd.gradcheck(value, (real, fake), fast_mode=True)
    assert torch.autograd.gradgradcheck(value, (real, fake), atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("name", ["rbf", "laplace", "sum", "own_radial"])
@every_way
def test_the_scale_divides_distances_and_is_differentiable(name):
    kernel, scale = CASES[name].make(), tensor([0.5, 3.0]).requires_grad_()
    real, fake = groups(2, 4, 2, 1).requires_grad_(), groups(2, 3, 2, 2, shift=0.3).requires_grad_()
    expected = torch.stack(
        [mmd2(x / s, y / s, kernel, estimator="biased") for x, y, s in zip(real, fake, scale, strict=True)]
    )

    def value(p, q, s):
        return grouped_mmd2(p, q, kernel, scale=s)

    assert_close(value(real, fake, scale), expected)
    assert torch.autograd.gradcheck(value, (real, fake, scale), fast_mode=True)
    assert torch.autograd.gradgradcheck(value, (real, fake, scale), fast_mode=True)
    alone = torch.autograd.grad(value(real.detach(), fake.detach(), scale).sum(), scale)
    assert_close(alone, torch.autograd.grad(expected.sum(), scale))


def test_energy_and_gaussian_values_of_geomloss():
    case = PUBLIC["geomloss_batched"]
    real, fake = tensor(case["inputs"]["x"]).requires_grad_(), tensor(case["inputs"]["y"])
    outputs, blur = case["outputs"], case["settings"]["blur"]
    # geomloss takes 1e-4 for the distance of a sample from itself, in units of the blur
    for kernel, key in ((RBFKernel(blur), "gaussian"), (LaplaceKernel(blur, floor=1e-4 * blur), "laplacian")):
        assert_close(grouped_mmd2(real, fake, kernel) / 2, tensor(outputs[key]), rtol=0, atol=1e-9)
    floor = 1e-4 * (1 / real.shape[1] + 1 / fake.shape[1])
    half = (grouped_mmd2(real, fake, EnergyKernel()) - floor) / 2
    assert_close(half, tensor(outputs["energy"]), rtol=0, atol=1e-9)
    (gradient,) = torch.autograd.grad(half.sum(), real)
    assert_close(gradient, tensor(outputs["energy_grad_x"]), rtol=0, atol=1e-9)
    weights = tensor(case["inputs"]["weights_x"])
    weighted = grouped_mmd2(real, fake, EnergyKernel(), real_weights=weights)
    floors = 1e-4 * ((weights / weights.sum(1, keepdim=True)).square().sum(1) + 1 / fake.shape[1])
    assert_close((weighted - floors) / 2, tensor(outputs["energy_weighted"]), rtol=0, atol=1e-9)


def test_loss_of_inductive_moment_matching():
    case = PUBLIC["imm_group_loss"]
    outputs = case["outputs"]
    fake, real = tensor(case["inputs"]["f_st"]).requires_grad_(), tensor(case["inputs"]["f_sr"])
    scale = fake.shape[2] * tensor(outputs["c_out"])
    # their floor is 1e-8, before the division by the scale
    values = tensor(outputs["weight"]) * grouped_mmd2(real, fake, LaplaceKernel(), scale=scale)
    floors = tensor(outputs["weight"]) * 2 / fake.shape[1] * (1e-8 / scale)
    assert_close(values - floors, tensor(outputs["per_group"]), rtol=0, atol=1e-9)
    (gradient,) = torch.autograd.grad(values.mean(), fake)
    assert_close(gradient, tensor(outputs["grad_f_st"]), rtol=0, atol=1e-9)


def test_values_near_the_peak_keep_their_digits():
    # Inductive Moment Matching in 3072 dimensions: plain exp is off by 1e-3 here.
    base = torch.randn(32, 4, 3072)
    real, fake = base, base + 1e-3 * torch.randn(32, 4, 3072)
    scale = torch.full((32,), 3072.0)
    found = grouped_mmd2(real, fake, LaplaceKernel(), scale=scale)
    exact = grouped_mmd2(real.double(), fake.double(), LaplaceKernel(), scale=scale.double())
    assert_close(found.double(), exact, rtol=3e-5, atol=0)


@pytest.mark.parametrize("way", ["stacked", "tiles"])
def test_values_of_wide_kernels_keep_their_digits_in_float32(way, monkeypatch):
    monkeypatch.setattr(call, "TOGETHER_UP_TO", 0 if way == "tiles" else 512)
    real, fake = torch.randn(3, 8, 16), torch.randn(3, 8, 16) + 0.2
    scale = torch.tensor([300.0, 1000.0, 1.0])
    for kernel in (RBFKernel(4.0), RationalQuadraticMix()):
        found = grouped_mmd2(real, fake, kernel, scale=scale, estimator="unbiased")
        exact = grouped_mmd2(real.double(), fake.double(), kernel, scale=scale.double(), estimator="unbiased")
        assert_close(found.double(), exact, rtol=3e-5, atol=0)


@every_way
def test_order_of_groups_and_number_of_their_dimensions():
    real, fake = groups(6, 4, 3, 1), groups(6, 5, 3, 2)
    scale = torch.rand(6, dtype=torch.float64) + 0.5
    values = grouped_mmd2(real, fake, RBFMix(), scale=scale)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert_close(grouped_mmd2(real[order], fake[order], RBFMix(), scale=scale[order]), values[order])
    shaped = grouped_mmd2(real.reshape(2, 3, 4, 3), fake.reshape(2, 3, 5, 3), RBFMix(), scale=scale.reshape(2, 3))
    assert_close(shaped, values.reshape(2, 3))
    assert_close(grouped_mmd2(real[0], fake[0], RBFMix(), scale=scale[0]), values[0])


OF_COLUMNS = RBFKernel().on(slice(0, 2)) * LaplaceKernel().on(slice(2, 3))
NOT_OF_DISTANCE = {
    "linear": LinearKernel(),
    "polynomial": PolynomialKernel(),
    "l1_laplace": L1LaplaceKernel(),
    "of_columns": OF_COLUMNS,
    "own_of_columns": InverseMultiquadric().on(slice(0, 2)) * LinearKernel(),
    "product_of_columns": RBFMix().on(slice(0, 2)) * (PolynomialKernel(2) * LinearKernel()).on(slice(2, 3)),
}


@pytest.mark.parametrize(
    "kernel", [RBFKernel(), LaplaceKernel(), *NOT_OF_DISTANCE.values()], ids=["rbf", "laplace", *NOT_OF_DISTANCE]
)
@pytest.mark.parametrize("wrong", [torch.nan, 1e30])
@every_way
def test_a_group_does_not_influence_the_others(kernel, wrong):
    real, fake = groups(5, 4, 3, 1).float(), groups(5, 3, 3, 2).float()
    scale = None if kernel in NOT_OF_DISTANCE.values() else torch.ones(5)

    def everything(p):
        p, q = p.clone().requires_grad_(), fake.clone().requires_grad_()
        s = None if scale is None else scale.clone().requires_grad_()
        inputs = [x for x in (p, q, s) if x is not None]
        values = grouped_mmd2(p, q, kernel, scale=s)
        gradients = torch.autograd.grad(values.sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum((g * g).sum() for g in gradients[:2]), inputs[:2])
        return [values, *gradients, *second]

    expected = everything(real)
    spoilt = real.clone()
    spoilt[2, 1, 0] = wrong
    others = [0, 1, 3, 4]
    for found, right in zip(everything(spoilt), expected, strict=True):
        assert_close(found[others], right[others], rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@every_way
def test_a_group_without_values_does_not_hide_that_another_has_scores_that_are_far_apart(wrong):
    real, fake = groups(3, 4, 3, 1), groups(3, 3, 3, 2)
    real[1, :2] += 1e7
    fake[1, :2] += 1e7
    expected = mmd2(real[1], fake[1], OF_COLUMNS, estimator="biased")
    real[2, 1, 0] = wrong
    assert_close(grouped_mmd2(real, fake, OF_COLUMNS)[1], expected)


@pytest.mark.parametrize("kernel", NOT_OF_DISTANCE.values(), ids=NOT_OF_DISTANCE)
def test_all_groups_are_evaluated_by_the_same_operations(kernel):
    def operations(count):
        real, fake = groups(count, 4, 3, 1).requires_grad_(), groups(count, 3, 3, 2)
        with Count() as counted:
            values = grouped_mmd2(real, fake, kernel)
            (gradient,) = torch.autograd.grad(values.sum(), real, create_graph=True)
            torch.autograd.grad(gradient.square().sum(), real)
        return counted.operations

    grouped_mmd2(groups(1, 4, 3), groups(1, 3, 3), kernel)  # the first call is examined for warnings
    assert operations(40) == operations(4)


@every_way
def test_gradients_reach_trained_factors_of_a_product():
    real, fake = groups(3, 4, 3, 1), groups(3, 5, 3, 2, shift=0.3)
    kernel = (RBFKernel(0.7, trainable=True).on(slice(0, 2)) * MaternKernel(1.5, trainable=True)).double()
    found = grouped_mmd2(real, fake, kernel)
    expected = torch.stack([mmd2(x, y, kernel, estimator="biased") for x, y in zip(real, fake, strict=True)])
    assert_close(found, expected)
    parameters = list(kernel.parameters())
    assert_close(torch.autograd.grad(found.sum(), parameters), torch.autograd.grad(expected.sum(), parameters))


def test_near_scores_in_a_product_of_columns_keep_their_digits_in_each_group():
    # A factor of infinite steepness, and scores that nearly coincide in one group but not in the other.
    real, fake = groups(2, 5, 3, 1), groups(2, 5, 3, 2)
    fake[0] = real[0] + 1e-9 * fake[0]
    kernel = LaplaceKernel().on(slice(0, 2)) * RBFMix().on(slice(2, 3))

    def gradients(function):
        p = real.clone().requires_grad_()
        return torch.autograd.grad(function(p), p)[0]

    def by_differences(p):
        def gram(a, b):
            e = (a.unsqueeze(2) - b.unsqueeze(1)).square()
            far = e[..., :2].sum(-1)
            root = far.where(far > 0, 1.0).sqrt().where(far > 0, 0.0)
            return torch.exp(-root) * sum(torch.exp(-e[..., 2] / (2 * s**2)) for s in RBFMix().sigmas)

        return (gram(p, p) - 2 * gram(p, fake)).mean((1, 2)).sum()

    assert_close(gradients(lambda p: grouped_mmd2(p, fake, kernel).sum()), gradients(by_differences))


def test_each_group_has_the_precision_that_its_scores_need():
    torch.manual_seed(0)
    real, fake = torch.randn(6, 8, 16), 1.1 * torch.randn(6, 8, 16)
    real[1, 0], fake[3, :4] = 1e6, 1e4
    real[4] += 1e5
    fake[4] += 1e5
    real[5, 0, 0] = 1e18
    for kernel in (RBFKernel(4.0), RationalQuadraticMix(), EnergyKernel(), LaplaceKernel(3.0)):
        p, q = real.clone().requires_grad_(), fake.clone().requires_grad_()
        values = grouped_mmd2(p, q, kernel, estimator="unbiased")
        wide = [x.double().requires_grad_() for x in (real, fake)]
        for g in range(6):
            expected = mmd2(wide[0][g], wide[1][g], kernel)
            size = kernel(wide[0][g].detach(), wide[1][g].detach()).abs().mean()
            assert abs(float((values[g] - expected).detach())) <= 1e-5 * float(size + expected.detach().abs())
            gradients = torch.autograd.grad(expected, wide)
            found = torch.autograd.grad(values[g], (p, q), retain_graph=True)
            for one, other in zip(found, gradients, strict=True):
                assert (one[g] - other[g]).abs().max() <= 1e-5 * other[g].abs().max()


def test_scales_count_in_the_choice_of_precision():
    # The same scores are fine in float32 for one scale, and need float64 or differences for others.
    # The second group has two narrow clusters, far apart for their width.
    real, fake = torch.randn(4, 6, 8), torch.randn(4, 6, 8)
    for scores_ in (real, fake):
        scores_[1] *= 0.01
        scores_[1, ::2] += 6
    scale = torch.tensor([3.0, 0.02, 1e-12, 1e12])
    for kernel in (RBFKernel(), LaplaceKernel()):
        found = grouped_mmd2(real, fake, kernel, scale=scale)
        exact = grouped_mmd2(real.double(), fake.double(), kernel, scale=scale.double())
        assert_close(found.double(), exact, rtol=1e-5, atol=0)


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_compute_in_float32(case: KernelCase, dtype):
    real, fake = groups(3, 4, 3, 1).to(dtype).requires_grad_(), groups(3, 4, 3, 2).to(dtype)
    kernel = case.make()
    expected = grouped_mmd2(real.float(), fake.float(), kernel)
    with torch.autocast("cpu", dtype=dtype):
        found = grouped_mmd2(real, fake, kernel)
        again = torch.autograd.grad(found.sum(), real, create_graph=True)
    assert found.dtype == torch.float32
    assert_close(found, expected, rtol=0, atol=0)
    assert_close(again, torch.autograd.grad(expected.sum(), real), rtol=0, atol=0)


@some_kernels
@pytest.mark.parametrize("dim", ["stacked", "tiles"])
def test_makes_no_host_synchronisation(case: KernelCase, dim, monkeypatch):
    monkeypatch.setattr(call, "TOGETHER_UP_TO", 0 if dim == "tiles" else 512)
    real, fake = torch.empty(3, 4, 2, device="meta", requires_grad=True), torch.empty(3, 4, 2, device="meta")
    weights = torch.empty(3, 4, device="meta", requires_grad=True)
    value = grouped_mmd2(real, fake, case.make(), real_weights=weights)
    value.sum().backward()
    assert all(x.device.type == "meta" for x in (value, real.grad, weights.grad))


def test_scales_are_not_read_from_other_devices():
    real, scale = torch.empty(3, 4, 2, device="meta"), torch.empty(3, device="meta", requires_grad=True)
    grouped_mmd2(real, real, RBFKernel(), scale=scale).sum().backward()
    assert scale.grad.device.type == "meta"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sum", "sum_with_linear", "own_general"])
def test_compiles_into_one_graph(name):
    torch.compiler.reset()
    kernel = CASES[name].make()
    real, fake, weights = groups(3, 4, 2, 1).requires_grad_(), groups(3, 4, 2, 2), torch.ones(3, 4)
    options = {"scale": torch.tensor([1.0, 2.0, 3.0])} if name == "sum" else {}

    def value(p, q, w):
        return grouped_mmd2(p, q, kernel, real_weights=w, **options)

    found = torch.compile(value, fullgraph=True, backend="aot_eager")(real, fake, weights)
    expected = value(real, fake, weights)
    assert_close(found, expected)
    assert_close(torch.autograd.grad(found.sum(), real), torch.autograd.grad(expected.sum(), real))


@every_kernel
def test_function_transforms(case: KernelCase):
    kernel, real, fake = case.make(), groups(2, 4, 2, 1), groups(2, 3, 2, 2)

    def value(p):
        return grouped_mmd2(p, fake, kernel).sum()

    leaf = real.clone().requires_grad_()
    (expected,) = torch.autograd.grad(value(leaf), leaf)
    assert_close(torch.func.grad(value)(real), expected)
    assert_close(torch.func.jvp(value, (real,), (real,))[1], (expected * real).sum())
    batch = torch.stack([real, 2 * real])
    assert_close(torch.func.vmap(value)(batch), torch.stack([value(p) for p in batch]))


def test_gradients_reach_parameters_of_the_kernel():
    class Trained(Kernel):
        def __init__(self):
            super().__init__()
            self.rate = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def from_sq_dist(self, sq_dist):
            return torch.exp(-self.rate * sq_dist)

    kernel, real, fake = Trained(), groups(3, 4, 2, 1), groups(3, 4, 2, 2)
    scale = tensor([1.0, 2.0, 3.0])
    (found,) = torch.autograd.grad(grouped_mmd2(real, fake, kernel, scale=scale).sum(), kernel.rate)
    step = 1e-6
    up, down = (
        grouped_mmd2(real, fake, RBFKernel((2 * rate) ** -0.5), scale=scale).sum() for rate in (0.5 + step, 0.5 - step)
    )
    assert_close(found, (up - down) / (2 * step), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("count", "n"), [(256, 8), (4, 600)])
def test_memory_grows_with_the_scores(count, n):
    # one chunk or tile is the largest thing beside the scores
    real, fake = torch.randn(count, n, 64).requires_grad_(), torch.randn(count, n, 64).requires_grad_()
    with Largest() as largest:
        value = grouped_mmd2(real, fake, RBFKernel(8.0))
        first = torch.autograd.grad(value.sum(), (real, fake), create_graph=True)
        torch.autograd.grad(sum(g.square().sum() for g in first), (real, fake))
    assert largest.elements <= max(call.AT_ONCE["cpu"], real.numel())


def test_second_derivatives_of_a_kernel_that_is_linear_in_each_argument():
    class Dot(Kernel):
        def forward(self, a, b):
            return a @ b.T

    real, fake = groups(2, 4, 2, 1).requires_grad_(), groups(2, 3, 2, 2)

    def product_with_hessian(kernel):
        (gradient,) = torch.autograd.grad(grouped_mmd2(real, fake, kernel).sum(), real, create_graph=True)
        return torch.autograd.grad((gradient * gradient).sum(), real)

    assert_close(product_with_hessian(Dot()), product_with_hessian(LinearKernel()))


def test_without_fast_float64_distances_stay_in_float32(monkeypatch):
    monkeypatch.setattr(group_pairs, "has_fast_float64", lambda _: False)
    monkeypatch.setattr(hand_written_gradients, "reverse_mode_only", lambda *_: False)
    real, fake = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    for kernel in (RBFKernel(), EnergyKernel()):  # the root needs float64
        expected = grouped_mmd2(real.double(), fake.double(), kernel).float()
        assert_close(grouped_mmd2(real, fake, kernel), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("n", [8, 300])
def test_cuda_equals_cpu_without_synchronisation(n):
    real, fake, scale = torch.randn(4, n, 16), torch.randn(4, n, 16), torch.rand(4) + 0.5
    weights = torch.rand(4, n)
    kernel = RBFMix() + LaplaceKernel()

    def everything(*given):
        p, q, s, w = (x.requires_grad_() for x in given)
        values = grouped_mmd2(p, q, kernel, scale=s, real_weights=w)
        return [values, *torch.autograd.grad(values.sum(), (p, q, s, w))]

    expected = everything(real, fake, scale, weights)
    moved = [x.detach().cuda() for x in (real, fake, scale, weights)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = everything(*moved)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_close([x.cpu() for x in found], expected, rtol=1e-5, atol=1e-6)


def test_wrong_arguments_are_refused():
    good = torch.zeros(3, 4, 2)
    with pytest.raises(ValueError, match=r"^real, fake: expected the same groups, got \(3,\) and \(2,\)"):
        grouped_mmd2(good, good[:2], RBFKernel())
    with pytest.raises(ValueError, match="^scale: expected None for kernels that are not functions .* LinearKernel, "):
        grouped_mmd2(good, good, RBFKernel() + LinearKernel(), scale=torch.ones(3))
