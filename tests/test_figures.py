"""The figures: the numbers behind them, and that each script draws one and checks what it says."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import lambertw, roots_genlaguerre
from torch.testing import assert_close

from torch_mmd_losses import RBFKernel

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "examples" / "figures"
MODULES = [path.stem for path in FIGURES.glob("*.py")]
SCRIPTS = ["wang2019_fig1_gradients", "wang2019_fig2_kernels"]


@pytest.fixture(scope="module")
def figures() -> Iterator[SimpleNamespace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FIGURES)
        modules = SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
        yield modules
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture(scope="module")
def forces(figures):
    return figures.wang2019_fig1_gradients


@pytest.fixture(scope="module")
def kernels(figures):
    return figures.wang2019_fig2_kernels


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


# What all scripts share.


DEPARTURES = {
    "wang2019_fig1_gradients": [],
    "wang2019_fig2_kernels": ["mixture of rational quadratic kernels: range"],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_claim_comes_out_as_documented(figures, name):
    claims = getattr(figures, name).claims()
    assert len(claims) >= 6
    assert figures.figure_script.unexpected(claims) == []
    assert [claim.what for claim in claims if not claim.holds] == DEPARTURES[name]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_draws_a_small_picture_of_the_size_asked_for(figures, tmp_path, capsys, name):
    image = pytest.importorskip("matplotlib.image")
    script, path = getattr(figures, name), tmp_path / "new" / "picture.png"
    figures.figure_script.main(script, ["--out", str(path), "--width", "8", "--height", "5", "--dpi", "80"])
    pixels = image.imread(path)
    assert pixels.shape[:2] == (400, 640)
    assert pixels.std() > 0.1
    assert path.stat().st_size < 150_000
    printed = capsys.readouterr().out
    assert str(path) in printed
    assert printed.count("paper:") >= 6


@pytest.mark.parametrize(
    ("holds", "departs", "fails"), [(True, False, 0), (False, True, 0), (False, False, 1), (True, True, 1)]
)
def test_a_script_fails_if_a_claim_is_not_as_documented(figures, tmp_path, holds, departs, fails):
    pytest.importorskip("matplotlib")
    claims = [figures.figure_script.Claim("what is claimed", "1", "2", holds, departs)]
    script = SimpleNamespace(
        __doc__="A figure.", __file__="a.py", SIZE=(2.0, 1.0), claims=lambda: claims, draw=lambda figure: None
    )
    path = tmp_path / "picture.png"
    if fails:
        with pytest.raises(SystemExit, match="Not as documented: what is claimed"):
            figures.figure_script.main(script, ["--out", str(path)])
    else:
        figures.figure_script.main(script, ["--out", str(path)])
    assert path.exists()


@pytest.mark.parametrize("size", ["0", "-1", "inf", "nan"])
def test_wrong_sizes_are_explained(figures, capsys, size):
    pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit, match="2"):
        figures.figure_script.main(figures.wang2019_fig1_gradients, [f"--width={size}"])
    assert f"expected a number > 0, got {size}" in capsys.readouterr().err


# Fig. 1: free scores.


@pytest.mark.parametrize(("weights", "lambda_"), [("ATTRACTIVE", -1.0), ("REPULSIVE", 1.0), ("GENERATOR", None)])
def test_both_parts_add_up_to_the_gradient_of_the_loss(forces, weights, lambda_):
    layout = forces.Layout(*torch.randn(2, 6, 2, dtype=torch.float64))
    found = forces.forces(layout, getattr(forces, weights))
    assert_close(found.total, forces.by_library(layout, lambda_))
    # Every pair pulls both of its scores alike, so no part moves the centre of all scores.
    for part in found:
        assert_close(part.sum(0), torch.zeros(2, dtype=torch.float64))


def test_two_far_groups_of_two_are_attracted_as_a_kernel_is_steep(forces):
    distance = 0.7
    pair = double([0.0, 0.0], [distance, 0.0])
    found = forces.forces(forces.Layout(pair, pair + 100), forces.ATTRACTIVE)
    expected = distance * math.exp(-(distance**2) / 2)
    assert_close(found.attraction, double([expected, 0], [-expected, 0], [expected, 0], [-expected, 0]))
    assert found.repulsion.abs().max() == 0


@pytest.mark.parametrize("weights", ["ATTRACTIVE", "REPULSIVE", "GENERATOR"])
@given(angle=st.floats(0, 6.3), x=st.floats(-5, 5), mirror=st.sampled_from([1.0, -1.0]))
def test_forces_turn_with_the_scores_and_do_not_see_where_they_are(forces, weights, angle, x, mirror):
    cos, sin = math.cos(angle), math.sin(angle)
    turn = double([cos, sin], [-mirror * sin, mirror * cos])
    real, fake = forces.side_by_side()
    moved = forces.Layout(real @ turn + x, fake @ turn + x)
    found = forces.forces(moved, getattr(forces, weights))
    for part, before in zip(found, forces.forces(forces.Layout(real, fake), getattr(forces, weights)), strict=True):
        assert_close(part, before @ turn)


@pytest.mark.parametrize(("radius", "sign"), [(1.1, -1), (1.3, -1), (1.55, 1), (1.8, 1)])
def test_scores_on_a_circle_pull_outwards_if_it_is_wider_than_root_two(forces, radius, sign):
    layout = forces.Layout(forces.ring(radius, 0.35), forces.ring(0.2, 0.1))
    assert (sign * forces.forces(layout, forces.GENERATOR).of_fake().cosines() > 0.99).all()


def test_angle_and_share_left_of_two_forces(forces):
    found = forces.Forces(double([3.0, 0.0], [1.0, 0.0]), double([-1.0, 0.0], [0.0, 2.0]))
    assert_close(found.cosines(), double(-1.0, 0.0))
    assert_close(found.kept(), double(0.5, math.sqrt(5) / 3))


# Fig. 2: kernels.


@given(sigma=st.floats(0.2, 8), distance=st.floats(0, 12))
def test_the_derivative_of_a_gaussian_kernel(kernels, sigma, distance):
    expected = -distance / sigma**2 * math.exp(-0.5 * (distance / sigma) ** 2)
    assert_close(kernels.derivative(RBFKernel(sigma), double(distance)), double(expected))


@given(alpha=st.floats(0.1, 20), distance=st.floats(0, 12))
def test_the_derivative_of_a_rational_quadratic_kernel(kernels, alpha, distance):
    kernel = kernels.RationalQuadraticKernel(alpha)
    expected = -distance * (1 + distance**2 / (2 * alpha)) ** (-alpha - 1)
    assert_close(kernels.derivative(kernel, double(distance)), double(expected))


@given(alpha=st.floats(0.1, 20))
def test_where_a_rational_quadratic_kernel_is_steepest(kernels, alpha):
    at, slope = kernels.rational_quadratic_steepest(alpha)
    kernel = kernels.RationalQuadraticKernel(alpha)
    assert at < 1
    beside = kernels.derivative(kernel, double(at - 1e-3, at, at + 1e-3))
    assert_close(beside[1], double(slope)[0])
    assert beside.argmin() == 1


def test_where_gaussian_kernels_are_steepest(kernels):
    assert kernels.steepest(RBFKernel(1.0)) == pytest.approx((1.0, -0.60653), abs=5e-4)
    assert kernels.steepest(RBFKernel(4.0)) == pytest.approx((4.0, -0.15163), abs=5e-4)


@settings(max_examples=5)
@given(sigma=st.floats(0.05, 50))
def test_the_range_of_a_gaussian_kernel_grows_with_sigma(kernels, sigma):
    low, high = kernels.active_range(RBFKernel(sigma))
    # Where x exp(-x^2 / 2) is a tenth of exp(-1 / 2); the grid has 10^4 points in a factor of ten.
    ends = [math.sqrt(-lambertw(-0.01 / math.e, branch).real) for branch in (0, -1)]
    assert (low / sigma, high / sigma) == pytest.approx(tuple(ends), rel=3e-4)


@pytest.mark.parametrize("curves", ["GAUSSIAN", "RATIONAL_QUADRATIC"])
def test_the_last_curve_is_the_mean_of_the_others(kernels, curves):
    *single, mean = getattr(kernels, curves)
    assert len(single) == 5
    for function in (kernels.value, kernels.derivative):
        values = torch.stack([function(curve.kernel, kernels.distances()) for curve in single])
        assert_close(function(mean.kernel, kernels.distances()), values.mean(0))


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 2.0, 5.0])
def test_a_rational_quadratic_kernel_mixes_gaussians_by_a_gamma_law_of_rate_alpha(kernels, alpha):
    nodes, weights = roots_genlaguerre(60, alpha - 1)
    e = np.array([0.1, 0.5, 1.0, 2.0])
    mixed, by_paper = (np.exp(-np.outer(e**2, nodes / rate) / 2) @ weights / weights.sum() for rate in (alpha, 1.0))
    expected = kernels.value(kernels.RationalQuadraticKernel(alpha), torch.from_numpy(e))
    assert_close(torch.from_numpy(mixed), expected)
    assert (np.abs(by_paper - expected.numpy()).max() > 0.05) == (alpha != 1)
