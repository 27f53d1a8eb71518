"""The figures: the numbers behind them, and that each script draws one and checks what it says."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import lambertw, roots_genlaguerre
from torch.testing import assert_close

from torch_mmd_losses import MMDLoss, RBFKernel, gradient_constrained_mmd2, mmd2
from torch_mmd_losses.gradient_constrained.representers import jets

pytestmark = pytest.mark.xdist_group("figures")  # whose claims are computed once

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    "arbel2018_fig1_vector_fields",
    "arbel2018_fig4_critic_gradients",
    "arbel2018_fig5_distances",
    "wang2019_fig1_gradients",
    "wang2019_fig2_kernels",
    "wang2019_figs1_two_parameter_gan",
]


@pytest.fixture(scope="module")
def figures() -> Iterator[SimpleNamespace]:
    with pytest.MonkeyPatch.context() as patch:
        modules = SimpleNamespace(**{name: importlib.import_module(_module(name)) for name in SCRIPTS})
        modules.script = importlib.import_module("figures.script")
        gan = modules.wang2019_figs1_two_parameter_gan
        for name, coarse in {"PRECISE": 128, "NODES": 40, "GRID": (21, 15), "STARTS": (15, 8)}.items():
            patch.setattr(gan, name, coarse)
        patch.setattr(modules.arbel2018_fig1_vector_fields, "STEPS", 350)
        patch.setattr(modules.arbel2018_fig4_critic_gradients, "POINTS", 32)
        for name, coarse in {"QUANTILES": 20, "GRID": (8, 9), "SEARCHED": [0.03, 0.1, 0.3, 1.0, 3.0]}.items():
            patch.setattr(modules.arbel2018_fig5_distances, name, coarse)
        for script in (getattr(modules, name) for name in SCRIPTS):
            patch.setattr(script, "claims", cache(script.claims))  # which two tests of each script ask for
        yield modules


def _module(name: str) -> str:
    """Return the module of a figure, which is in the folder of its paper."""
    paper, _, figure = name.partition("_")
    return f"{paper}.figures.{figure}"


@pytest.fixture(scope="module")
def forces(figures):
    return figures.wang2019_fig1_gradients


@pytest.fixture(scope="module")
def kernels(figures):
    return figures.wang2019_fig2_kernels


@pytest.fixture(scope="module")
def gan(figures):
    return figures.wang2019_figs1_two_parameter_gan


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


# What all scripts share.


DEPARTURES = {
    "arbel2018_fig1_vector_fields": [],
    "arbel2018_fig4_critic_gradients": [],
    "arbel2018_fig5_distances": ["optimised MMD"],
    "wang2019_fig1_gradients": [],
    "wang2019_fig2_kernels": ["mixture of rational quadratic kernels: range"],
    "wang2019_figs1_two_parameter_gan": [
        "(c) MMD-rbf, $P_X = N(0, 1)$: equilibrium",
        "(d) MMD-rep, $P_X = N(0, 1)$: equilibrium",
        "MMD-rbf and MMD-rep on N(0, 1): the same w1",
        "(b) MMD-rep, $P_X = U(-1, 1)$: region of trivial solutions and learning rate of G",
        "(d) MMD-rep, $P_X = N(0, 1)$: region of trivial solutions and learning rate of G",
    ],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_claim_comes_out_as_documented(figures, name):
    claims = getattr(figures, name).claims()
    assert len(claims) >= 6
    assert figures.script.unexpected(claims) == []
    assert [claim.what for claim in claims if not claim.holds] == DEPARTURES[name]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_draws_a_small_picture_of_the_size_asked_for(figures, tmp_path, capsys, name):
    image = pytest.importorskip("matplotlib.image")
    script, path = getattr(figures, name), tmp_path / "new" / "picture.png"
    figures.script.main(script, ["--out", str(path), "--width", "8", "--height", "5", "--dpi", "80"])
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
    claims = [figures.script.Claim("what is claimed", "1", "2", holds, departs)]
    script = SimpleNamespace(
        __doc__="A figure.",
        __file__="paper/figures/a.py",
        SIZE=(2.0, 1.0),
        claims=lambda: claims,
        draw=lambda figure: None,
    )
    path = tmp_path / "picture.png"
    if fails:
        with pytest.raises(SystemExit, match="Not as documented: what is claimed"):
            figures.script.main(script, ["--out", str(path)])
    else:
        figures.script.main(script, ["--out", str(path)])
    assert path.exists()


@pytest.mark.parametrize("size", ["0", "-1", "inf", "nan"])
def test_wrong_sizes_are_explained(figures, capsys, size):
    pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit, match="2"):
        figures.script.main(figures.wang2019_fig1_gradients, [f"--width={size}"])
    assert f"expected a number > 0, got {size}" in capsys.readouterr().err


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_page_has_every_picture_with_its_command(name):
    page = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8").replace(" \\\n    ", " ")
    picture = f"_static/{'-'.join(name.split('_')[:2])}.png"
    assert f"({picture})" in page
    assert f"python examples/{_module(name).replace('.', '/')}.py --out docs/{picture}" in page
    assert (ROOT / "docs" / picture).stat().st_size < 150_000


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


# Fig. S1: two parameters.


def test_the_rules_have_the_moments_of_their_laws(gan):
    for rule, moments in ((gan.uniform(40), (1, 1 / 3, 1 / 5, 1 / 7)), (gan.normal(64), (1, 1, 3, 15))):
        assert_close(double(*((rule.weights * rule.squares**k).sum() for k in range(4))), double(*moments))


@pytest.mark.parametrize(("index", "expected"), [(2, (1.4839, 0.7959)), (3, (1.5536, 0.3071))])
def test_the_equilibria_to_four_digits(gan, index, expected):
    case = gan.CASES[index]
    assert gan.equilibrium(case).tolist() == pytest.approx(expected, abs=5e-5)
    # Gauss-Legendre on pieces, another rule for N(0, 1).
    points, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(40))
    points = torch.cat([piece + (points + 1) / 2 for piece in range(9)])
    density = torch.exp(-points.square() / 2) * weights.repeat(9)
    other = case._replace(real=lambda nodes: gan.Rule(points.square(), density / density.sum()))
    assert_close(gan.equilibrium(other), gan.equilibrium(case), rtol=1e-7, atol=1e-7)
    assert gan.flow(gan.equilibrium(case), case, 128).abs().max() < 1e-12


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("w", [(0.6, 0.9), (1.4, 0.4), (2.5, 0.2)])
def test_the_expected_losses_are_those_of_the_library_for_many_samples(gan, index, w):
    case, count = gan.CASES[index], 1000
    levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    x = levels if index < 2 else torch.special.ndtri((levels + 1) / 2)
    loss = MMDLoss(RBFKernel(sigma=0.5), case.lambda_, estimator="biased")
    sampled = loss.both(real=w[1] * x**2, fake=w[1] * (w[0] * levels) ** 2)
    # Equally likely points are off by O(1 / count) in the tails of N(0, 1).
    assert_close(torch.stack(gan.losses(double(*w), case, 128)), torch.stack(sampled), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("index", range(4))
def test_flow_and_jacobian_are_derivatives(gan, index):
    case, w, h = gan.CASES[index], double(1.3, 0.6), 1e-5
    steps = h * torch.eye(2, dtype=torch.float64)
    losses = [[gan.losses(w + sign * step, case, 64) for sign in (1, -1)] for step in steps]
    by_generator = (losses[0][0][1] - losses[0][1][1]) / (2 * h)
    by_discriminator = (losses[1][0][0] - losses[1][1][0]) / (2 * h)
    # Central differences lose half of the digits.
    assert_close(gan.flow(w, case, 64), -torch.stack([by_generator, by_discriminator]), rtol=1e-6, atol=1e-9)
    columns = [(gan.flow(w + step, case, 64) - gan.flow(w - step, case, 64)) / (2 * h) for step in steps]
    assert_close(gan.jacobian(w, case, 64), torch.stack(columns, 1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("index", range(4))
@settings(max_examples=5)
@given(w1=st.floats(0, 3), w2=st.floats(0, 1.5))
def test_signs_of_the_parameters_do_not_matter(gan, index, w1, w2):
    w, case = double(w1, w2), gan.CASES[index]
    for signs in (double(-1, 1), double(1, -1)):
        assert_close(gan.flow(signs * w, case, 40), signs * gan.flow(w, case, 40))


@pytest.mark.parametrize("index", range(4))
@settings(max_examples=5)
@given(w1=st.floats(0, 3))
def test_without_discriminator_nothing_moves(gan, index, w1):
    assert gan.flow(double(w1, 0.0), gan.CASES[index], 40).abs().max() == 0


@settings(max_examples=10)
@given(w2=st.floats(0.2, 1.2))
def test_equal_distributions_are_equilibria_for_every_discriminator(gan, w2):
    w = double(1.0, w2)
    for case in gan.CASES[:2]:
        assert gan.flow(w, case, 64).abs().max() < 1e-14
        (own, cross), (back, own_d) = gan.jacobian(w, case, 64).tolist()
        assert own < 0
        assert cross == pytest.approx(0, abs=1e-12)
        assert own_d == pytest.approx(0, abs=1e-12)
        # The paper shows J_DG = 0 for the attractive loss; it is not zero for the repulsive one, nor need it be.
        assert (abs(back) < 1e-12) == (case.lambda_ == -1)


def test_attractive_losses_play_a_zero_sum_game(gan):
    jacobian = gan.jacobian(double(1.3, 0.6), gan.CASES[2], 64)
    assert_close(jacobian[0, 1], -jacobian[1, 0])
    losses = gan.losses(double(1.3, 0.6), gan.CASES[2], 64)
    assert_close(losses[0], -losses[1])


@pytest.mark.parametrize(("index", "critical"), [(1, 1.0), (3, 22.5**0.25)])
def test_small_discriminators_vanish_beyond_the_critical_w1_with_the_repulsive_loss_only(gan, index, critical):
    repulsive, attractive = gan.CASES[index], gan.CASES[index - 1]
    assert gan.critical_w1(repulsive) == pytest.approx(critical)
    for factor, sign in ((0.98, 1), (1.02, -1)):
        assert sign * gan.flow(double(factor * critical, 1e-3), repulsive, 64)[1] > 0
        assert gan.flow(double(factor * critical, 1e-3), attractive, 64)[1] > 0


def test_paths_follow_a_known_flow(gan):
    w2, w1 = torch.meshgrid(torch.linspace(0, 1.5, 16).double(), torch.linspace(0, 3, 31).double(), indexing="ij")
    to_a_point = gan.Field(w1[0], w2[:, 0], torch.stack([1 - w1, 0.5 - w2], -1))
    starts = double([0.1, 0.1], [2.9, 1.4], [1.0, 0.5])
    assert_close(gan.follow(to_a_point, starts, 1.0), double([1.0, 0.5]).expand(3, 2), rtol=0, atol=1e-3)
    at_rest = gan.follow(to_a_point, starts, 0.0)
    assert_close(at_rest[:, 0], starts[:, 0])
    assert_close(at_rest[:, 1], double(0.5).expand(3), rtol=0, atol=1e-3)
    away = gan.Field(w1[0], w2[:, 0], torch.stack([torch.ones_like(w1), torch.ones_like(w2)], -1))
    assert_close(gan.follow(away, starts, 1.0), double(gan.REGION).expand(3, 2))


@pytest.mark.parametrize("index", [1, 3])
def test_trivial_solutions_start_beyond_the_critical_w1(gan, index):
    starts = gan.starting_points()
    assert starts.shape == (120, 2)
    lost = starts[gan.trivial(gan.CASES[index])]
    assert lost[:, 0].min() > gan.critical_w1(gan.CASES[index])
    lowest = starts[:, 1].min()
    assert ((lost[:, 1] == lowest) & (lost[:, 0] > 2.6)).any()


def test_paths_of_mmd_rbf_end_at_the_equilibrium(gan):
    case = gan.CASES[2]
    ends = gan.follow(gan.field(case), gan.starting_points(), 1.0)
    # As close as interpolation between few points tells.
    assert (ends - gan.equilibrium(case)).abs().max() < 0.05


# Arbel et al., Fig. 1.


@pytest.fixture(scope="module")
def point_masses(figures):
    return figures.arbel2018_fig1_vector_fields


def test_fields_are_the_derivatives_in_closed_form(point_masses):
    theta, psi = torch.rand(2, 20, dtype=torch.float64) * 3
    points, e = torch.stack([theta, psi], 1), torch.exp(-0.5 * (psi * theta) ** 2)
    by_theta, by_psi = 2 * psi**2 * theta * e, 2 * theta**2 * psi * e
    assert_close(point_masses.field("MMD", points), torch.stack([-by_theta, by_psi], 1))
    total = 2 + psi**2
    scaled = torch.stack([-by_theta / total, by_psi / total - 4 * psi * (1 - e) / total**2], 1)
    assert_close(point_masses.field("scaled MMD", points), scaled)


def test_the_penalty_is_that_of_the_witness(point_masses):
    theta, psi = double(1.5, 0.8)
    t = theta * (torch.arange(100, dtype=torch.float64) + 0.5) / 100
    slopes = torch.func.vmap(torch.func.grad(lambda at: point_masses.witness(at, theta, psi)))(t)
    expected = point_masses.squared_mmd(theta, psi) - (slopes.abs() - 1).square().mean()
    assert_close(point_masses.penalised(theta, psi), expected)


def test_the_drawn_critics_are_those_of_their_kernels(point_masses):
    # The supremum over the unit ball is attained by the critic, so its difference of means is the distance.
    far, zero = double(point_masses.FAR)[0], double(0.0)[0]
    psis = (10.0, 1.0, point_masses.best_psi(point_masses.FAR))
    for psi, critic in zip(psis, point_masses.drawn_critics().values(), strict=True):
        distance = point_masses.squared_mmd if psi >= 1 else point_masses.squared_scaled_mmd
        assert_close(critic(zero) - critic(far), distance(far, double(psi)[0]).sqrt())


# Arbel et al., Fig. 4.


def test_gradients_are_those_of_the_critic_of_proposition_4(figures):
    # g = (eta - sum of alpha k(x, .) + beta dk(x, .)) / lambda with (alpha, beta) from the system of the proposition.
    critics = figures.arbel2018_fig4_critic_gradients
    real, fake = critics.samples()
    mu, size = torch.cat([real, fake]), 3 * (len(real) + len(fake))
    every = torch.arange(len(mu)).repeat_interleave(3)
    unit = torch.eye(3, dtype=torch.float64).repeat(len(mu), 1)
    at = double([0.3, 0.2], [2.0, 1.0], [-1.0, 3.0])

    def on_points(t, b, combination):
        return jets(critics.KERNEL, t, b, combination)

    def eta(t):
        value = unit[:1].expand(len(real), -1)
        return on_points(t, real, value).mean(2) - on_points(t, fake, value).mean(2)

    matrix = on_points(mu, mu[every], unit).flatten(0, 1)
    weight = len(mu) * critics.LAMBDA * torch.eye(size, dtype=torch.float64)
    solution = torch.linalg.solve(matrix + weight, eta(mu).flatten())
    expected = (eta(at) - on_points(at, mu[every], unit) @ solution) / critics.LAMBDA
    assert_close(critics.gradient_constrained(at), expected[:, 1:])


def test_the_sobolev_critic_solves_its_equation(figures):
    # Far from y = 6 it depends on x alone, and mu u' = constant - F with F' = P - Q; u vanishes at 0 and at 6.
    critics = figures.arbel2018_fig4_critic_gradients
    x = torch.linspace(0, 6, 60001, dtype=torch.float64)
    normal = torch.distributions.Normal(double(0.0), double(1.0))
    f = normal.cdf(x + 1) - normal.cdf(x - 1)
    mu = (normal.log_prob(x + 1).exp() + normal.log_prob(x - 1).exp()) / 2
    slope = (torch.trapezoid(f / mu, x) / torch.trapezoid(1 / mu, x) - f) / mu
    field = critics.sobolev()
    axis = (field.at[:, 1] < 0.5) & (field.at[:, 0] < 5)
    expected = slope[(field.at[axis, 0] * 10_000).round().long()]
    assert_close(field.gradients[axis, 0], expected, rtol=0.02, atol=0.02)  # what cells of 0.13 leave
    assert_close(field.gradients[axis, 1], torch.zeros_like(expected), rtol=0, atol=0.01)


def test_the_whole_field_is_mirrored(figures):
    critics = figures.arbel2018_fig4_critic_gradients
    quarter = critics.constrained()
    whole = critics.whole(quarter)
    assert_close(critics.gradient_constrained(whole.at), whole.gradients)


# Arbel et al., Fig. 5.


def test_distances_of_gaussians_in_closed_form_are_those_of_samples(figures):
    distances = figures.arbel2018_fig5_distances
    z = torch.special.ndtri((torch.arange(500, dtype=torch.float64) + 0.5) / 500)
    for place in (0, 30, -1):
        mean, spread = distances.others()[place]
        found = mmd2(0.1 * z, mean + spread * z, RBFKernel(0.3), estimator="biased")
        assert_close(distances.squared_mmd(0.3)[place], found, rtol=1e-3, atol=1e-5)


def test_gradient_constrained_distances_are_those_of_the_library_one_by_one(figures):
    distances = figures.arbel2018_fig5_distances
    real, fakes = distances.samples()
    found = gradient_constrained_mmd2(real, fakes[11], RBFKernel(0.3), lambda_=1.0)
    assert_close(distances.squared_gradient_constrained(0.3)[11], found)
