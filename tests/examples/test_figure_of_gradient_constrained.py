"""Fig. 6 of Arbel et al.: GANs with the gradient-constrained MMD, and the script that trains and compares them."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from arbel2018.figures import fig6_gradient_constrained
from arbel2018.figures.fig6_gradient_constrained import GradientConstrainedLoss
from arbel2018.networks import make_critic, make_generator
from classifier import Classifier
from torch import nn
from torch.testing import assert_close

ROOT = Path(__file__).parents[2]
OPTIONS = Namespace(seed=3, filters=2, batch_size=12, iterations=3)


@pytest.fixture(scope="module")
def fig6() -> ModuleType:
    return fig6_gradient_constrained


def stripes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images `(count, 28, 28)` of ten classes, of which each has its stripe, and the classes."""
    labels = np.arange(count, dtype=np.uint8) % 10
    images = np.random.default_rng(0).integers(0, 60, (count, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 2 : 2 * label + 6] = 255
    return images, labels


@pytest.fixture(scope="module")
def training() -> torch.Tensor:
    return torch.from_numpy(np.pad(stripes(40)[0], [(0, 0), (2, 2), (2, 2)])[:, None])


@pytest.fixture(scope="module")
def judge(fig6, training):
    network = Classifier(size=32, channels=1, classes=10).eval().requires_grad_(False)
    return fig6.Judge(network, training.float() / 127.5 - 1)


@pytest.fixture(scope="module")
def runs(fig6, training, judge):
    return {name: fig6.train(kind, training, judge, OPTIONS) for name, kind in fig6.KINDS.items()}


# The loss.


@pytest.mark.parametrize("rank", [None, 2])
def test_the_loss_of_point_masses_has_its_closed_form(rank):
    # At one point K = 1, G = 0 and H = w w^T, so that the system of Eq. 9 is two equations.
    w, t = torch.tensor([0.5, -1.5], dtype=torch.float64), torch.tensor([0.4, 0.3], dtype=torch.float64)
    layer = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    layer.weight = nn.Parameter(w[None])
    slope, score, lambda_ = w.square().sum().item(), (w @ t).item(), 0.3
    e = math.exp(-(score**2) / 2)
    taken_off = (1 - e) ** 2 / (1 + lambda_) + (score * e) ** 2 * slope / (slope + lambda_)
    expected = (2 * (1 - e) - taken_off) / lambda_
    # One real point: of equal ones, the matrix has no more than rank 2 either, but for rounding.
    real, fake = torch.zeros(1, 2, dtype=torch.float64), t.repeat(3, 1)
    loss = GradientConstrainedLoss(lambda_, rank=rank)
    assert loss.generator_loss(layer, real, fake).item() == pytest.approx(expected)
    assert loss.critic_loss(layer, real, fake).item() == pytest.approx(-expected)


def test_the_loss_is_differentiated_by_both_networks():
    networks = replace(fig6_gradient_constrained.NETWORKS, dataset="fake", size=16, width=2, normalisation="none")
    critic, generator = make_critic(networks), make_generator(networks)
    real, loss = torch.rand(4, 1, 16, 16), GradientConstrainedLoss()
    for network, value in (
        (critic, loss.critic_loss(critic, real, torch.rand(4, 1, 16, 16))),
        (generator, loss.generator_loss(critic, real, generator(torch.rand(4, 128)))),
    ):
        gradients = torch.autograd.grad(value, list(network.parameters()), allow_unused=True)
        # The bias of the score has no influence on a distance.
        assert [gradient is None or not gradient.any() for gradient in gradients].count(True) <= (network is critic)


@pytest.mark.parametrize("seed", range(3))
def test_low_rank_survives_a_critic_that_hardly_tells_images_apart(seed):
    # As at the start of a training: rows whose pivots count for little were mostly rounding.
    x = 3 * torch.randn(32, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    for slope in torch.logspace(-5, -1, 9).tolist():
        critic = nn.Linear(1, 1, dtype=torch.float64)
        with torch.no_grad():
            critic.weight.fill_(slope)
        exact, low = (GradientConstrainedLoss(rank=r).generator_loss(critic, x, x + 1) for r in (None, 8))
        assert_close(low, exact, rtol=1e-6, atol=1e-12)


# Training.


def test_all_start_from_the_same_networks_and_go_their_ways(fig6, runs):
    assert len({run.kids[0] for run in runs.values()}) == 1
    assert all(list(run.kids) == list(run.ranks) == [0, 1, 2, 3] for run in runs.values())
    assert all(run.samples.shape == (36, 1, 32, 32) for run in runs.values())
    assert runs["SN-GCMMD"].losses[0] > 100 * runs["GCMMD"].losses[0] > 0
    exact, low = runs["GCMMD"].losses, runs[f"GCMMD, rank {fig6.RANK}"].losses
    assert low == pytest.approx(exact, rel=1e-2, abs=1e-6)


def test_training_repeats_itself(fig6, training, judge, runs):
    again = fig6.train(fig6.KINDS["SN-GCMMD"], training, judge, OPTIONS)
    assert again.losses == runs["SN-GCMMD"].losses
    assert again.kids == runs["SN-GCMMD"].kids
    assert again.ranks == runs["SN-GCMMD"].ranks


def test_kid_is_that_of_the_features(fig6, training, judge):
    images = training.float() / 127.5 - 1
    features = judge.network(images)[0].double()
    kernel = (features @ features.T / features.shape[1] + 1) ** 3
    m = len(images)
    # The same images on both sides: the pairs of equal ones count across, and not within.
    within = (kernel.sum() - kernel.trace()) / (m * (m - 1))
    assert judge(images) == pytest.approx((2 * within - 2 * kernel.mean()).item())


# What is claimed.


def with_kids(fig6, *kids: float, ranks: tuple[float, ...] = (9.0, 2.0, 3.0)):
    return fig6.Run(None, [], dict(enumerate(kids)), dict(enumerate(ranks)), torch.zeros(0), 1.0)


def test_learning_is_a_fivefold_fall_of_kid(fig6):
    assert fig6.reasonable("", with_kids(fig6, 6.0, 3.0, 1.0)).holds
    assert not fig6.reasonable("", with_kids(fig6, 6.0, 1.0, 1.25)).holds


def test_early_falls_count(fig6):
    early, late = with_kids(fig6, 6.0, 1.0, 1.0), with_kids(fig6, 6.0, 5.0, 1.0)
    assert early.mean_kid() == 1
    assert late.mean_kid() == 3
    assert fig6.faster("a", "b", {"a": early, "b": late}).holds
    assert not fig6.faster("b", "a", {"a": early, "b": late}).holds


@pytest.mark.parametrize(
    ("values", "rank"), [((2.0, 1.0), 1 + 1 / 4), ((4.0, 2.0, 1.0, 0.5), 1 + 1 / 4 + 1 / 16 + 1 / 64), ((0.0, 0.0), 0)]
)
def test_the_rank_is_that_of_the_second_layer(fig6, values, rank):
    size = len(values)
    first, second = nn.Conv2d(1, size, 1, bias=False), nn.Conv2d(size, size, 1, bias=False)
    with torch.no_grad():
        # Singular values do not depend on the order of the rows, nor on signs.
        second.weight[:, :, 0, 0] = -torch.diag(torch.tensor(values)).flip(0)
    gan = Namespace(discriminator=nn.Sequential(first, second, nn.Linear(size, 1)))
    assert fig6.stable_rank(gan) == rank


def test_a_collapse_is_a_rise_of_kid_or_a_loss_of_rank(fig6):
    steady, risen = with_kids(fig6, 6.0, 1.0, 1.5), with_kids(fig6, 6.0, 1.0, 4.0)
    flat = with_kids(fig6, 6.0, 1.0, 1.0, ranks=(9.0, 5.0, 2.0))
    assert fig6.collapse({"a": steady, "b": steady}).holds
    assert not fig6.collapse({"a": steady, "b": risen}).holds
    assert not fig6.collapse({"a": flat, "b": steady}).holds


def test_bounds_hold_and_few_rows_suffice_for_any_critic(fig6, training, runs):
    real = training[:8].float() / 255
    assert fig6.below(runs, real).holds
    assert fig6.few_rows(runs["SN-GCMMD"].gan, real).holds


@pytest.mark.filterwarnings("ignore:gradient_constrained_mmd2. expected kernel values:torch_mmd_losses.UsageWarning")
def test_scores_far_apart_take_many_rows(fig6):
    # Without neighbours in the range of the kernel, each image has rows of its own.
    critic = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    with torch.no_grad():
        critic[1].weight.fill_(100.0)
    real = torch.arange(8.0)[:, None, None, None].expand(-1, 1, 2, 2)
    gan = Namespace(discriminator=critic, generator=lambda noise: noise, noise=lambda count: real + 0.5)
    assert not fig6.few_rows(gan, real).holds


# The picture.


def test_samples_are_laid_out_in_rows(fig6):
    images = torch.arange(36.0)[:, None, None, None].expand(-1, 1, 2, 3)
    laid_out = fig6.sheet(images)
    assert laid_out.shape == (12, 18)
    assert_close(laid_out[::2, ::3], torch.arange(36.0).reshape(6, 6))


def test_the_script_trains_judges_and_draws(fig6, tmp_path, capsys, monkeypatch):
    image = pytest.importorskip("matplotlib.image")
    images, labels = stripes(260)
    split = torch.from_numpy(np.pad(images, [(0, 0), (2, 2), (2, 2)])[:, None]), torch.from_numpy(labels).long()
    monkeypatch.setattr(fig6.classifier, "read", lambda *args: split)
    path = tmp_path / "picture.png"
    words = ["--data-root", str(tmp_path), "--out", str(path), "--dpi", "50", "--count", "40"]
    # Two iterations are too few to learn anything.
    with pytest.raises(SystemExit, match=r"Not as documented: GCMMD: learning; GCMMD, rank"):
        fig6.main([*words, "--iterations", "2", "--batch-size", "8", "--filters", "2"])
    assert image.imread(path).shape[:2] == (290, 630)
    printed = capsys.readouterr().out
    assert printed.count("paper:") == len(fig6.KINDS) + 4
    assert f"Picture: {path}" in printed


def test_missing_data_are_said_to_be(fig6, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("training.images.torchvision", lambda: None)
    monkeypatch.setattr("training.images.DEBIAN_FASHION_MNIST", tmp_path)
    with pytest.raises(SystemExit, match="2"):
        fig6.main(["--data-root", str(tmp_path)])
    assert "There is no " in capsys.readouterr().err


def test_the_page_has_the_picture_with_its_command():
    page = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8").replace(" \\\n    ", " ")
    assert "(_static/arbel2018-fig6.png)" in page
    assert (
        "python examples/arbel2018/figures/fig6_gradient_constrained.py --out docs/_static/arbel2018-fig6.png" in page
    )
    assert (ROOT / "docs" / "_static" / "arbel2018-fig6.png").stat().st_size < 200_000
