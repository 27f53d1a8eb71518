"""The metrics of torch-fidelity beside direct computations of them, and with Inception, which needs torchvision too."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from urllib.error import URLError

import evaluate
import numpy as np
import pytest
import torch
from dcgan import script
from scipy.linalg import sqrtm
from test_evaluation import CPU, NETWORK, pixels
from torch import Tensor, nn

from torch_mmd_losses import Kernel, mmd2

torch_fidelity = pytest.importorskip("torch_fidelity")

from evaluation import features, fidelity  # noqa: E402
from evaluation.metrics import Settings, measure  # noqa: E402
from evaluation.provenance import digest_of_file  # noqa: E402

pytestmark = pytest.mark.paper

COUNT = 60


class PolynomialKernel(Kernel):
    """The kernel of the kernel Inception distance, (<a, b> / d + 1)^3."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "network.py"
    path.write_text(NETWORK, encoding="utf-8")
    return path


@pytest.fixture
def extractor(network: Path) -> features.Features:
    return features.load(str(network), inception_weights=None, shape=(3, 32, 32))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "fake"
    words = ["--out", str(folder), "--iterations", "1", "--quiet", "--device", "cpu", "--channels", "1"]
    return script.main("fake", "Train.", words)


def settings(*metrics: str, **options: Any) -> Settings:
    usual = {"splits": 1, "subset_size": COUNT, "seed": 0, "batch_size": 7, "device": CPU}
    return Settings(metrics, **(usual | options))


def different() -> tuple[np.ndarray, np.ndarray]:
    """Return images that differ in brightness, and real ones."""
    return pixels(COUNT, seed=1) // 2, pixels(COUNT, seed=2)


def of(extractor: features.Features, images: np.ndarray) -> tuple[Tensor, Tensor]:
    assert extractor.network is not None
    found, logits = features.outputs(extractor.network, torch.from_numpy(images))
    assert logits is not None
    return found, logits


def test_fid_is_the_frechet_distance_of_two_gaussians(extractor: features.Features):
    (a, _), (b, _) = (of(extractor, images) for images in different())
    covariances = [np.cov(part.numpy(), rowvar=False) for part in (a, b)]
    product = sqrtm(covariances[0] @ covariances[1]).real
    expected = (a.mean(0) - b.mean(0)).square().sum().item() + np.trace(covariances[0] + covariances[1] - 2 * product)
    found = measure(extractor, *different(), settings("fid")).metrics
    assert expected > 0.01
    assert found == {"fid": pytest.approx(expected, rel=1e-6)}


def test_kid_is_the_unbiased_mmd_with_a_polynomial_kernel(extractor: features.Features):
    (a, _), (b, _) = (of(extractor, images) for images in different())
    grams = [(x @ y.T / x.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b))]
    within = sum((gram.sum() - gram.trace()) / (COUNT * (COUNT - 1)) for gram in grams[:2])
    expected = (within - 2 * grams[2].mean()).item()
    found = measure(extractor, *different(), settings("kid")).metrics  # each subset is the whole
    assert found["kid_mean"] == pytest.approx(expected, rel=1e-6)
    assert found["kid_std"] == pytest.approx(0, abs=1e-12)


def test_kid_is_the_mmd_of_the_library(extractor: features.Features):
    (a, _), (b, _) = (of(extractor, images) for images in different())
    found = measure(extractor, *different(), settings("kid")).metrics["kid_mean"]
    assert mmd2(a, b, PolynomialKernel()).item() == pytest.approx(found, rel=1e-6)


def test_the_seed_decides_the_subsets_of_kid(extractor: features.Features):
    found = [measure(extractor, *different(), settings("kid", subset_size=20, seed=seed)).metrics for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert found[0]["kid_std"] > 0


def test_the_inception_score_follows_its_formula(extractor: features.Features):
    measured, real = different()
    p = of(extractor, measured)[1].softmax(1)
    expected = (p * (p / p.mean(0)).log()).sum(1).mean().exp().item()
    found = measure(extractor, measured, real, settings("is")).metrics
    assert expected > 1 + 1e-4
    assert found == {"inception_score_mean": pytest.approx(expected, rel=1e-9), "inception_score_std": 0}


def test_splits_are_averaged_only_if_asked_for(extractor: features.Features):
    assert measure(extractor, *different(), settings("is", splits=3)).metrics["inception_score_std"] > 0


def test_features_alone_are_enough_for_distances(tmp_path: Path):
    path = tmp_path / "flat.py"
    path.write_text("from torch import nn\ndef load():\n    return nn.Sequential(nn.AvgPool2d(16), nn.Flatten())\n")
    found = features.load(str(path), inception_weights=None, shape=(3, 32, 32))
    assert not found.has_logits
    numbers = measure(found, *different(), settings("fid", "kid")).metrics
    assert numbers["fid"] > 0


def test_a_network_that_breaks_down_on_some_images_gives_an_error(extractor: features.Features):
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1).log()  # of negative numbers

    broken = features.Features("broken", None, Broken(), None, False, {"dimension": 3072})
    with pytest.raises(features.FeaturesError, match="some features of the network are no finite numbers"):
        fidelity.measure(broken, *different(), settings("fid"))


def test_a_whole_evaluation(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "grey.py"
    path.write_text(NETWORK.replace("Conv2d(3,", "Conv2d(1,"), encoding="utf-8")
    out = evaluate.main([str(run), "--features", str(path), "--images", "40", "--device", "cpu"])
    found = json.loads(out.read_text(encoding="utf-8"))
    names = [
        "inception_score_mean",
        "inception_score_std",
        "fid",
        "kid_mean",
        "kid_std",
        "class_coverage",
        "class_entropy",
    ]
    assert list(found["metrics"]) == names
    assert all(math.isfinite(value) for value in found["metrics"].values())
    assert found["provenance"]["kid"] == {"subsets": 100, "subset_size": 40, "kernel": "(a.b / d + 1) ** 3"}
    assert found["provenance"]["inception_score"] == {"splits": 1}
    assert found["provenance"]["versions"]["torch-fidelity"] == torch_fidelity.__version__
    assert all(name in capsys.readouterr().out for name in names[:1])
    assert evaluate.main([str(run), "--features", str(path), "--images", "30", "--device", "cpu"]).exists()


# Inception


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in a file like that of Inception, of which only the real ones mean something."""
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = inception.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    for parameter in network.parameters():  # so large that images are told apart
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


def test_inception_sees_grey_images_in_all_three_colours(weights: Path):
    inception = features.load("inception", inception_weights=weights, shape=(1, 32, 32))
    how = settings("is", "kid", subset_size=4)
    grey = pixels(4, channels=1, seed=1), pixels(4, channels=1, seed=2)
    found = measure(inception, *grey, how).metrics
    assert found == measure(inception, *(images.repeat(3, axis=1) for images in grey), how).metrics
    assert found["inception_score_mean"] > 1 + 1e-5


def test_an_evaluation_by_inception_says_how(run: Path, weights: Path, tmp_path: Path):
    words = [str(run), "--inception-weights", str(weights), "--metrics", "kid", "--images", "3", "--device", "cpu"]
    found = json.loads(evaluate.main([*words, "--out", str(tmp_path / "x.json")]).read_text(encoding="utf-8"))
    assert found["metrics"].keys() == {"kid_mean", "kid_std"}
    origin = found["provenance"]["extractor"]
    assert origin["dimension"] == 2048
    assert origin["resize"].startswith("to 299 x 299")
    assert origin["sha256"] == digest_of_file(weights)


def test_without_network_the_file_to_fetch_and_its_place_are_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(SystemExit, match="2"):
        evaluate.main([str(run), "--images", "6"])
    message = capsys.readouterr().err
    place = tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    assert "Fetch https://" in message
    assert f"put it at {place}, or name it by --inception-weights" in message


def test_weights_that_are_there_are_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    path = tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    path.parent.mkdir()
    path.touch()
    assert features.downloaded_inception() == path


def test_weights_that_are_named_have_to_be_there(tmp_path: Path):
    with pytest.raises(ValueError, match="inception_weights: there is no file .*x.pth"):
        features.load("inception", inception_weights=tmp_path / "x.pth", shape=(3, 32, 32))
