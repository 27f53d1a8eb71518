"""The metrics of torchmetrics beside those of torch-fidelity, and Inception, which needs torchvision too."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.error import URLError

import evaluate
import pytest
import torch
from evaluation import features, metrics
from test_evaluation import CPU, gaussians, pixels
from torch import nn

torch_fidelity = pytest.importorskip("torch_fidelity")
from torch_fidelity import feature_extractor_inceptionv3 as inception  # noqa: E402
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: E402
from torch_fidelity.metric_isc import isc_features_to_metric  # noqa: E402
from torch_fidelity.metric_kid import kid_features_to_metric  # noqa: E402

pytestmark = pytest.mark.paper


def test_numbers_are_those_of_torch_fidelity():
    a, b = gaussians()
    (fid,) = fid_statistics_to_metric(*map(fid_features_to_statistics, (a, b)), False).values()
    assert metrics.frechet_distance(a, b) == {"fid": pytest.approx(fid, rel=1e-6)}
    kid = kid_features_to_metric(a, b, kid_subset_size=60, kid_subsets=3, verbose=False)
    expected = kid[torch_fidelity.KEY_METRIC_KID_MEAN]
    assert metrics.kernel_distance(a, b, 60)["kid_mean"] == pytest.approx(expected, rel=1e-9)
    score = isc_features_to_metric(a, splits=1)[torch_fidelity.KEY_METRIC_ISC_MEAN]
    assert metrics.inception_score(a, 1)["inception_score_mean"] == pytest.approx(score, rel=1e-9)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in a file like that of Inception, of which only the real ones mean something."""
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


def test_inception_sees_the_bytes_as_torch_fidelity_does_and_grey_images_in_three_equal_channels(weights: Path):
    network = inception.FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], str(weights)).eval()
    grey = pixels(3, channels=1)
    expected = [part.double() for part in network(grey.expand(-1, 3, -1, -1))]
    for images in (grey, grey.expand(-1, 3, -1, -1)):
        found, about = features.load("inception", tuple(images.shape[1:]), weights)
        assert about["dimension"] == 2048
        torch.testing.assert_close(features.extract(found, images, 3, CPU), tuple(expected))


def test_an_evaluation_by_inception_says_how(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "frechet_distance", lambda *_: {"fid": 0.0})  # of 2048 features takes seconds
    words = ["--floor", "fake", "--inception-weights", str(weights), "--images", "3"]
    out = evaluate.main([*words, "--device", "cpu", "--out", str(tmp_path / "x.json")])
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["metrics"].keys() == {"inception_score_mean", "inception_score_std", "fid", "kid_mean", "kid_std"}
    assert found["provenance"]["extractor"]["resize"].startswith("to 299 x 299")
    assert found["provenance"]["versions"]["torch-fidelity"] == torch_fidelity.__version__


def test_without_network_the_file_to_fetch_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(inception, "load_state_dict_from_url", offline)
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["--floor", "fake", "--device", "cpu"])
    message = capsys.readouterr().err
    assert "Fetch https://" in message
    assert f"put it into {torch.hub.get_dir()}/checkpoints" in message
    assert "name the file by --inception-weights" in message
