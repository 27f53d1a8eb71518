"""Fig. 4: scores of real images by a discriminator, how many neighbours share a class, and the script that says so."""

from __future__ import annotations

from pathlib import Path

import classifier
import numpy as np
import pytest
import torch
from torch.testing import assert_close
from wang2019 import train
from wang2019.figures import fig4_scores as fig4

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def stripes():
    """Data of ten classes, of which each has its stripe."""
    labels = torch.arange(60) % 10
    images = torch.randint(60, (60, 1, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(0))
    for image, label in zip(images, labels, strict=True):
        image[0, 2 * label + 4 : 2 * label + 8] = 255
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "read", lambda *_: (images, labels))
        patch.setitem(fig4.CLASSES, "fake", tuple("0123456789"))
        yield images


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs of one iteration with an attractive and a repulsive loss."""
    words = ["--quiet", "--device", "cpu", "--iterations", "1", "--channels", "1", "--batch-size", "8"]
    runs = [tmp_path_factory.mktemp("runs") / loss for loss in ("mmd-rbf", "mmd-rep")]
    return [train.main(["fake", *words, "--loss", run.name, "--out", str(run)]) for run in runs]


def test_agreement_counts_neighbours_of_the_same_class():
    near = torch.arange(11, dtype=torch.float64)
    points = torch.cat([near, near + 1000])[:, None]
    two = torch.arange(2).repeat_interleave(11)
    assert fig4.agreement(points, two) == 1
    assert fig4.agreement(points, 1 - two) == 1
    one_wrong = two.clone()
    one_wrong[0] = 1  # its neighbours are 10 of class 0, and it is one of the 10 of each of them
    assert fig4.agreement(points, one_wrong) == pytest.approx((10 * 0.9 + 11) / 22)


def test_variance_along_a_line():
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]) + 100
    assert fig4.along_a_line(corners) == pytest.approx(0.5)
    assert fig4.along_a_line(corners * torch.tensor([3.0, 1.0])) == pytest.approx(0.9)


def test_agreement_by_chance():
    scores = fig4.Scores("", None, torch.zeros(4, 1), torch.tensor([0, 0, 0, 2]))
    assert scores.chance() == pytest.approx((9 + 1) / 16)


def test_scores_are_those_of_the_discriminator_in_the_checkpoint(trained, stripes):
    found = fig4.read([fig4.find(run) for run in trained], None, split="test", count=20, seed=3)
    assert [scores.loss for scores in found] == [None, "mmd-rbf", "mmd-rep"]
    assert [scores.title for scores in found][1:] == ["mmd-rbf, iteration 1", "mmd-rep, iteration 1"]
    assert all(scores.scores.shape == (20, 16) for scores in found)
    picked = np.sort(np.random.default_rng(3).permutation(60)[:20])
    state = fig4.find(trained[0])
    network = fig4.make_discriminator(32, scores=16, channels=1, width=2, method="pico")
    network.load_state_dict(state["discriminator"])
    with torch.no_grad():
        expected = network.eval()(stripes[picked] / 127.5 - 1)
    assert_close(found[1].scores, expected)
    assert found[1].classes.tolist() == (picked % 10).tolist()


@pytest.mark.parametrize(
    ("loss", "at_first", "after", "holds"),
    [
        ("mmd-rep", 0.5, 0.8, True),
        ("mmd-rep-b", 0.5, 0.4, False),
        ("mmd-rbf", 0.5, 0.4, True),
        ("mmd-rq", 0.5, 0.8, False),
        ("hinge", 0.5, 0.4, True),
        ("hinge", 0.5, 0.05, False),
    ],
)
def test_claims_of_a_run_depend_on_its_loss(monkeypatch, loss, at_first, after, holds):
    shares = {"before": at_first, "after": after}
    monkeypatch.setattr(fig4.Scores, "agreement", lambda scores: shares[scores.title])
    scores = torch.arange(10.0)[:, None], torch.arange(10)
    claims = fig4.claims([fig4.Scores("before", None, *scores), fig4.Scores("after", loss, *scores)])
    assert [claim.holds for claim in claims] == [holds]


@pytest.mark.parametrize(("attractive", "repulsive"), [(0.2, 0.7), (0.7, 0.2)])
def test_both_kinds_of_losses_are_compared_if_there_are_both(monkeypatch, attractive, repulsive):
    shares = {None: 0.5, "mmd-rbf": attractive, "mmd-rep-b": repulsive}
    monkeypatch.setattr(fig4.Scores, "agreement", lambda scores: shares[scores.loss])
    claims = fig4.claims([fig4.Scores("", loss, torch.arange(9.0)[:, None], torch.arange(9)) for loss in shares])
    assert [claim.holds for claim in claims] == [repulsive > attractive] * 3


def test_the_picture_of_scores_has_a_panel_for_each_discriminator(trained, tmp_path, capsys, monkeypatch):
    image = pytest.importorskip("matplotlib.image")
    monkeypatch.setattr(fig4, "plane", lambda scores, seed: scores[:, :2].double().numpy())
    monkeypatch.setattr(fig4.Scores, "agreement", lambda scores: {"mmd-rbf": 0.2, None: 0.5}.get(scores.loss, 0.8))
    path = tmp_path / "picture.png"
    assert fig4.main([*map(str, trained), "--out", str(path), "--count", "40", "--dpi", "50"]) == path
    assert image.imread(path).shape[:2] == (220, 600)
    printed = capsys.readouterr().out
    assert printed.count("paper:") == 3
    assert f"Picture: {path}" in printed


def test_a_claim_about_scores_that_fails_ends_in_an_error(trained, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(fig4, "plane", lambda scores, seed: scores[:, :2].double().numpy())
    monkeypatch.setattr(fig4.Scores, "agreement", lambda scores: 0.5)
    with pytest.raises(SystemExit, match="Not as documented: mmd-rbf, iteration 1: neighbours of the same class; mmd-"):
        fig4.main([*map(str, trained), "--out", str(tmp_path / "x.png"), "--count", "40"])


def test_tsne_keeps_far_groups_apart():
    pytest.importorskip("sklearn")
    groups = torch.arange(2).repeat_interleave(50)
    places = fig4.plane(torch.randn(100, 3) + 50 * groups[:, None], seed=0)
    assert fig4.agreement(torch.from_numpy(places), groups) == 1


def test_runs_without_a_checkpoint_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        fig4.main([str(tmp_path)])
    assert "there is no checkpoint in" in capsys.readouterr().err


def test_fewer_images_than_an_image_and_its_neighbours_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        fig4.main([str(tmp_path), "--count", "10"])
    assert "expected an integer >= 11, got '10'" in capsys.readouterr().err


def test_the_page_has_the_picture_of_scores_with_its_commands():
    page = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    assert "(_static/wang2019-fig4.png)" in page
    assert "python examples/wang2019/figures/fig4_scores.py runs/mmd-rbf runs/mmd-rep-b" in page
    assert (ROOT / "docs" / "_static" / "wang2019-fig4.png").stat().st_size < 150_000
