"""Fields of float32 samples: their accuracy, and where they are computed in float32."""

import math

import pytest
import torch
from cases import CASES, RADIAL
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    LaplaceKernel,
    MaternKernel,
    MMDReference,
    RationalQuadraticKernel,
    RBFKernel,
    RBFMix,
    UsageWarning,
    drift,
    drift_loss,
    kernel_sums,
    witness,
    witness_gradient,
)
from torch_mmd_losses.fields import direct, field_sums
from torch_mmd_losses.fields.affinities import Affinity
from torch_mmd_losses.fields.log_kernels import log_kernel
from torch_mmd_losses.fields.loss_by_logarithms import LossByLogarithms
from torch_mmd_losses.fields.loss_options import LossOptions
from torch_mmd_losses.fields.sharp_kernels import sharp_kernel
from torch_mmd_losses.kernels import matern_profiles
from torch_mmd_losses.kernels.summands import clear_distance, relative_slopes
from torch_mmd_losses.pairs import product_tiles, tiles
from torch_mmd_losses.pairs.kernel_products import kernel_gradients
from torch_mmd_losses.pairs.tile_distances import TileDistances
from torch_mmd_losses.types import NORMALISERS

D = 16
MEDIAN = 6.0
SMALLEST = 1e-36  # below it, float32 has no digits
KERNELS = {
    "laplace": LaplaceKernel(MEDIAN),
    "narrow_laplace": LaplaceKernel(0.05 * MEDIAN),
    "very_narrow_laplace": LaplaceKernel(0.02 * MEDIAN),
    "rbf": RBFKernel(MEDIAN),
    "narrow_rbf": RBFKernel(0.12 * MEDIAN),
    "very_narrow_rbf": RBFKernel(0.05 * MEDIAN),
    "matern": MaternKernel(1.5, 0.2 * MEDIAN),
    "sum": 0.5 * LaplaceKernel(0.1 * MEDIAN) + RBFKernel(0.5 * MEDIAN),
}


def samples(kind, m=60, n=50):
    """Return fake and real samples: of which some are close to one another, or equal, or all far from the origin."""
    generator = torch.Generator().manual_seed(3)
    fake, real = torch.randn(n, D, generator=generator), torch.randn(m, D, generator=generator) + 0.3
    if kind == "near":
        real[:9] = fake[:9] + 1e-4 * torch.randn(9, D, generator=generator)
        real[9:13] = fake[9:13]
    return (fake + 30, real + 30) if kind == "shifted" else (fake, real)


def displacements(weights, x, y):
    """Return the sums of weighted displacements, and the norms of the sums of their absolute values."""
    terms = weights.unsqueeze(-1) * (y - x.unsqueeze(1))
    return terms.sum(1), terms.abs().sum(1).norm(dim=-1)


def expected(kernel, normalise, x, y):
    a, b = kernel(x, y), kernel(x, x)
    b = b.fill_diagonal_(0)
    if normalise == "none":
        a, b = a / len(y), b / (len(x) - 1)
    elif normalise == "rows":
        a, b = a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)
    elif normalise == "sharp":
        log = sharp_kernel(kernel._summands()).log
        of_real, of_fake = (log((x.unsqueeze(1) - other).square().sum(-1)).exp() for other in (y, x))
        a, b = a / of_real.sum(1, keepdim=True), b / of_fake.fill_diagonal_(0).sum(1, keepdim=True)
    else:
        of_rows = a.sum(1, keepdim=True) + b.sum(1, keepdim=True)
        a, b = a / (of_rows * a.sum(0)).sqrt(), b / (of_rows * b.sum(0)).sqrt()
        a, b = a * b.sum(1, keepdim=True), b * a.sum(1, keepdim=True)
    (towards, first), (away, second) = displacements(a, x, y), displacements(b, x, x)
    return towards - away, first + second


@pytest.fixture(params=[344, 16], ids=["whole", "tiles"])
def side(request, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", request.param)
    if request.param == 16:
        monkeypatch.setattr(direct, "KEPT_TILES", 0)


@pytest.mark.usefixtures("side")
@pytest.mark.parametrize("kind", ["far", "near", "shifted"])
@pytest.mark.parametrize("normalise", NORMALISERS)
@pytest.mark.parametrize("name", KERNELS)
def test_drifts_are_right_within_1e_5_of_their_terms(name, normalise, kind):
    fake, real = samples(kind)
    found = drift(fake, real, kernel=KERNELS[name], normalise=normalise)
    field, terms = expected(KERNELS[name], normalise, fake.double(), real.double())
    assert ((found.double() - field).norm(dim=-1) <= 1e-5 * terms + SMALLEST).all()


@pytest.mark.usefixtures("side")
@pytest.mark.parametrize("kind", ["far", "near", "shifted"])
@pytest.mark.parametrize("name", KERNELS)
def test_sums_and_witness_gradients_are_right_within_1e_5_of_their_terms(name, kind):
    kernel = KERNELS[name]
    fake, real = samples(kind)
    x, y = fake.double(), real.double()
    mass, moment = kernel_sums(fake, real, kernel)
    values = kernel(x, y)
    assert ((mass.double() - values.sum(1)).abs() <= 1e-5 * values.sum(1) + SMALLEST).all()
    assert ((moment.double() - values @ y).abs() <= 1e-5 * values @ y.abs() + SMALLEST).all()
    both, weights = torch.cat([y, x]), torch.cat([torch.full((60,), 1 / 60), torch.full((50,), -1 / 50)]).double()
    sq_dist = (both - x.unsqueeze(1)).square().sum(-1)
    apart = torch.where(sq_dist == 0, 1.0, sq_dist).requires_grad_()
    (slopes,) = torch.autograd.grad(kernel.from_sq_dist(apart).sum() if name != "sum" else _sum(kernel, apart), apart)
    field, terms = displacements(slopes.masked_fill(sq_dist == 0, 0) * weights * -2, x, both)
    found = witness_gradient(fake, real=real, fake=fake, kernel=kernel)
    assert ((found.double() - field).norm(dim=-1) <= 1e-5 * terms + SMALLEST).all()
    elsewhere = witness_gradient(fake.clone(), real=real, fake=fake, kernel=kernel)
    assert ((elsewhere.double() - field).norm(dim=-1) <= 1e-5 * terms + SMALLEST).all()


def _sum(kernel, sq_dist):
    return sum(factor * part.from_sq_dist(sq_dist).sum() for factor, part, _ in kernel._summands())


@pytest.mark.usefixtures("side")
@pytest.mark.parametrize("per_group", [False, True])
@pytest.mark.parametrize("kind", ["far", "near"])
def test_the_drift_loss_of_float32_is_that_of_float64(kind, per_group):
    fake, real = (torch.stack([each, each.flip(0) * 1.1]) for each in samples(kind))
    single, double = fake.clone().requires_grad_(), fake.double().requires_grad_()
    found = drift_loss(single, real, per_group=per_group)
    exact = drift_loss(double, real.double(), per_group=per_group)
    assert_close(found.double(), exact, rtol=1e-5, atol=0)
    gradients = [torch.autograd.grad(loss.sum(), leaf)[0].double() for loss, leaf in ((found, single), (exact, double))]
    largest = float(gradients[1].norm(dim=-1).max())
    assert_close(gradients[0], gradients[1], rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("name", ["laplace", "narrow_laplace", "matern", "sum"])
def test_near_pairs_of_float64_keep_the_digits_of_their_differences(name):
    kernel = KERNELS[name]
    fake, real = (each.double() for each in samples("near"))
    real[:9] = fake[:9] + 1e-6 * torch.randn(9, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    field, terms = expected(kernel, "none", fake, real)
    found = drift(fake, real, kernel=kernel, normalise="none")
    assert ((found - field).norm(dim=-1) <= 1e-8 * terms).all()
    sq_dist = (real - fake.unsqueeze(1)).square().sum(-1)
    apart = torch.where(sq_dist == 0, 1.0, sq_dist).requires_grad_()
    (slopes,) = torch.autograd.grad(_sum(kernel, apart), apart)
    towards, terms = displacements(slopes.masked_fill(sq_dist == 0, 0) * -2, fake, real)
    found = kernel_gradients(fake[None], real[None], torch.ones(1, 60).double(), kernel)[0]
    assert ((found - towards).norm(dim=-1) <= 1e-8 * terms).all()


@pytest.fixture
def dtypes(monkeypatch):
    """Return the dtypes in which distances are computed."""
    found, of = [], TileDistances.of

    def recorded(self, rows, columns):
        found.append(self.a.dtype)
        return of(self, rows, columns)

    monkeypatch.setattr(TileDistances, "of", recorded)
    return found


CALLS = {
    "sums": lambda fake, real: kernel_sums(fake, real, LaplaceKernel(MEDIAN)),
    "witness": lambda fake, real: witness_gradient(fake, real=real, fake=fake, kernel=LaplaceKernel(MEDIAN)),
    "witness_at_copies": lambda fake, real: witness_gradient(
        fake.clone(), real=real, fake=fake, kernel=LaplaceKernel(MEDIAN)
    ),
    "drift": lambda fake, real: drift(fake, real, kernel=LaplaceKernel(MEDIAN)),
    "rows": lambda fake, real: drift(fake, real, kernel=LaplaceKernel(MEDIAN), normalise="rows"),
    "sharp": lambda fake, real: drift(fake, real, kernel=LaplaceKernel(MEDIAN), normalise="sharp"),
    "loss": lambda fake, real: drift_loss(fake, real, temperatures=(0.1, 0.3)),
}


@pytest.mark.parametrize("name", CALLS)
def test_near_pairs_do_not_cost_float64(name, dtypes):
    fake, real = samples("near", 400, 300)
    CALLS[name](fake, real)
    assert set(dtypes) == {torch.float32}


def test_many_near_pairs_do(dtypes):
    fake, _ = samples("near")
    kernel_sums(fake, fake + 1e-4, LaplaceKernel(0.1))
    assert dtypes == [torch.float32, torch.float64]


def test_other_kernels_do(dtypes):
    class Mine(Kernel):
        def from_sq_dist(self, sq_dist):
            return torch.exp(-(sq_dist + 1e-12).sqrt())

    kernel_sums(*samples("far"), Mine())
    with pytest.warns(UsageWarning, match="^kernel_sums: "):
        kernel_sums(*samples("far"), LaplaceKernel(1e-12))  # constants that have no room in float32
    assert dtypes == [torch.float64, torch.float64]


def test_distances_that_lack_digits_for_the_narrowest_temperature_are_computed_anew(dtypes):
    fake, real = samples("far")
    found = drift_loss(fake, real, temperatures=(0.003, 0.3))
    assert dtypes == [torch.float32] * 2 + [torch.float64] * 4  # the sums underflow too, so logarithms follow
    exact = drift_loss(fake.double(), real.double(), temperatures=(0.003, 0.3))
    assert_close(found.double(), exact, rtol=1e-6, atol=0)  # the loss is rounded to float32
    dtypes.clear()
    found = drift_loss(fake, real, temperatures=(0.02, 0.3))
    assert dtypes[:2] == [torch.float32] * 2
    assert len(dtypes) > 2
    exact = drift_loss(fake.double(), real.double(), temperatures=(0.02, 0.3))
    assert_close(found.double(), exact, rtol=1e-6, atol=0)


def test_values_are_dropped_where_their_sums_lack_digits(monkeypatch):
    calls = []
    monkeypatch.setattr(field_sums.LogSums, "visit", lambda *_: calls.append(None))
    fake, real = samples("far")
    fake[0] += 1000
    for normalise in ("rows", "rows_and_columns", "sharp"):
        drift(fake[1:], real, kernel=LaplaceKernel(MEDIAN), normalise=normalise)
        assert not calls
        drift(fake, real, kernel=LaplaceKernel(MEDIAN), normalise=normalise)
        assert calls
        calls.clear()
    drift_loss(fake[1:], real, temperatures=(0.1,))
    assert not calls
    drift_loss(fake[1:], real, temperatures=(0.0005,))
    assert calls


def test_many_samples_are_added_up_in_float64(monkeypatch):
    fake, real = samples("far")
    expected = kernel_sums(fake, real, RBFKernel(MEDIAN)), drift(fake, real, kernel=RBFKernel(MEDIAN))
    monkeypatch.setattr(tiles, "CPU_TILE", 16)
    for module in (product_tiles, field_sums):
        monkeypatch.setattr(module, "NARROW_UP_TO", 10)
    assert_close(kernel_sums(fake, real, RBFKernel(MEDIAN)), expected[0])
    assert_close(drift(fake, real, kernel=RBFKernel(MEDIAN)), expected[1], rtol=1e-5, atol=1e-6)


FAR = {
    "rbf": RBFKernel(3.0),
    "rbf_mix": RBFMix((1.0, 3.0, 10.0)),
    "laplace": LaplaceKernel(3.0),
    "matern": MaternKernel(1.5, 3.0),
    "rational_quadratic": RationalQuadraticKernel(length=3.0),
    "product": RBFKernel(3.0) * LaplaceKernel(3.0),
}


@pytest.mark.parametrize("name", FAR)
@pytest.mark.parametrize("spread", [1e3, 1e6, 1e8])
def test_pairs_in_clusters_that_are_far_apart_keep_their_values(name, spread):
    # Expanded in float32, the distances of these pairs are much larger than those at which the kernel vanishes.
    generator, kernel = torch.Generator().manual_seed(3), FAR[name]
    centres = (torch.randn(60, 8, generator=generator) * spread).float()
    points, samples = (centres + torch.randn(60, 8, generator=generator) for _ in range(2))
    expected, moments = kernel_sums(points.double(), samples.double(), kernel)
    found = kernel_sums(points, samples, kernel)
    assert_close(found[0].double(), expected, rtol=1e-5, atol=1e-5)
    assert_close(found[1].double(), moments, rtol=1e-5, atol=1e-5 * spread)
    wide = witness(points.double(), samples.double(), points.double(), kernel)
    assert_close(60 * witness(points, samples, points, kernel).double(), 60 * wide, rtol=1e-5, atol=1e-5)
    assert_close(60 * MMDReference(samples, kernel).attraction(points).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [None, -0.3])
def test_near_pairs_are_computed_anew(factor):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(1, 40, 3, generator=generator) + 100, torch.randn(1, 50, 3, generator=generator) + 100
    b[0, 7] = a[0, 5] + 1e-3
    ways = TileDistances(a - 100, b - 100, factor, far=False, near=1e-3, scores=(a, b))
    sq_dist = ways.of(slice(0, 20), slice(0, 30))
    right, near = ways.repair(sq_dist, slice(0, 20), slice(0, 30), None)
    assert right
    assert [int(place) for place in near.places] == [0, 5, 7]
    difference = (b[0, 7].double() - a[0, 5]).unsqueeze(0)
    assert_close(near.differences, difference, rtol=0, atol=0)
    assert_close(sq_dist[0, 5, 7].double(), difference.square().sum() * (factor or 1))
    assert_close(near.transposed().differences, -difference)
    assert [int(place) for place in near.transposed().places] == [0, 7, 5]


def test_from_which_distance_on_values_are_right():
    def clear(kernel, error=1e-3):
        return clear_distance(relative_slopes(kernel._summands()), error)

    assert clear(RBFKernel(1.0)) == 0
    assert clear(RBFKernel(0.01)) > 1e-2  # not until values are zero
    for scale in (0.01, 1.0, 100.0):  # the slope relative to the value is 1 / (2 scale r)
        exact = (1e-3 / (2 * scale)) ** 2
        assert exact <= clear(LaplaceKernel(scale)) <= 2**0.5 * exact * (1 + 1e-12)
        both = clear(LaplaceKernel(scale) + RBFKernel(1.0))
        assert both == clear(LaplaceKernel(scale))
    assert 0.5e-3 <= clear(EnergyKernel()) <= 0.75e-3
    assert clear(RationalQuadraticKernel(1.0), 10.0) == pytest.approx(8, rel=0.5)
    assert clear_distance(None, 1e-3) == math.inf
    assert clear(LaplaceKernel(1e-9), 1e30) == math.inf or clear(LaplaceKernel(1e-9), 1e30) > 0


@pytest.mark.parametrize("name", RADIAL)
def test_values_in_place_are_values(name):
    (summand, *_) = CASES[name].make()._summands()
    if summand.profile.overwriting is None:
        return
    sq_dist = torch.tensor([[0.0, 1e-6, 0.3], [1.0, 7.0, 1e4]], dtype=torch.float64)
    assert_close(summand.profile.overwriting(sq_dist.clone()), summand.profile.value(sq_dist))


@pytest.mark.parametrize("kernel", [LaplaceKernel(0.7), LaplaceKernel(0.7, floor=0.3)])
def test_slopes_of_distances_above_zero_need_no_mask(kernel, monkeypatch):
    profile = kernel._summands()[0].profile
    for smallest in (0.0, 0.01, 0.2):
        sq_dist = torch.linspace(smallest, 3, 7, dtype=torch.float64).view(1, -1)
        expected = profile.value_and_slope(sq_dist.clone())
        monkeypatch.setattr(matern_profiles, "MANY", 1)
        found = profile.value_and_slope(sq_dist.clone())
        monkeypatch.undo()
        assert_close(found, expected)


def test_logarithms_are_taken_in_float64():
    options = LossOptions((0.1,), 0.0, 0.0, per_group=False)
    log = log_kernel(RBFKernel()._summands(), "rows", torch.float32)
    for function in (log, Affinity(log, torch.zeros(1, 1)), LossByLogarithms(torch.zeros(1, 1, 1), [], options)):
        assert function.near(torch.zeros(1, 1, 1), 1e-6) == math.inf


@pytest.mark.parametrize("normalise", ["rows", "rows_and_columns", "sharp"])
def test_values_that_underflow_in_float32_alone(normalise):
    generator = torch.Generator().manual_seed(0)
    fake, real = torch.randn(30, 512, generator=generator), torch.randn(40, 512, generator=generator)
    kernel = LaplaceKernel(0.32)  # all distances are about 32, of which float32 has enough digits
    found = drift(fake, real, kernel=kernel, normalise=normalise)
    exact = drift(fake.double(), real.double(), kernel=kernel, normalise=normalise)
    assert_close(found.double(), exact, rtol=0, atol=1e-5 * float(exact.abs().max()))
    loss = drift_loss(fake, real, temperatures=(0.008, 0.05))
    assert_close(loss.double(), drift_loss(fake.double(), real.double(), temperatures=(0.008, 0.05)), rtol=1e-5, atol=0)
