"""The evaluation: images, features, definitions of metrics, results with their origin, tables and the classifier."""

from __future__ import annotations

import importlib
import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import classifier
import evaluate
import evaluation_table
import numpy as np
import pytest
import torch
from evaluation import features, metrics
from evaluation.provenance import digest_of_file, digest_of_network
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torch.testing import assert_close
from trained import flip
from training.batches import centred, to_pixels
from training.checkpoints import read
from training.errors import RefusedError
from training.images import READERS, fake
from wang2019 import train
from wang2019.networks import make_generator

from torch_mmd_losses import PolynomialKernel, mmd2

CPU = torch.device("cpu")

NETWORK = """
import torch
class Network(torch.nn.Conv2d):
    def forward(self, images):
        features = super().forward(images).mean((2, 3))
        return features, features[:, :4]
def load():
    torch.manual_seed(3)
    return Network(3, 5, 8)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two iterations on generated images, with checkpoints of both."""
    words = ["--iterations", "2", "--checkpoint-every", "1", "--quiet", "--device", "cpu"]
    return train.main(["fake", "--out", str(tmp_path_factory.mktemp("runs") / "fake"), *words])


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "four-classes.py"
    path.write_text(NETWORK, encoding="utf-8")
    return path


def pixels(count: int, *, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(256, (count, channels, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(seed))


def evaluated(run: Path, network: Path, *options: str) -> Path:
    return evaluate.main([str(run), "--features", str(network), "--device", "cpu", "--images", "12", *options])


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return the message of a refused evaluation without the frame around it."""
    with pytest.raises(SystemExit, match="2"):
        evaluate.main([*map(str, words)])
    return re.sub(r"[\s│]+", " ", capsys.readouterr().err)


# Images and features


@pytest.mark.parametrize("weights", ["averaged", "current"])
def test_images_are_those_of_the_chosen_generator_and_seed_in_bytes(weights: str, run: Path, tmp_path: Path):
    state, path = read(run / "checkpoints" / "iteration-00000002.pt"), tmp_path / "x.pt"
    other = {name: value * 2 if value.is_floating_point() else value for name, value in state["generator"].items()}
    torch.save(state | {"average": {f"module.{name}": value for name, value in other.items()}}, path)
    generator = make_generator(32, width=2).eval()
    generator.load_state_dict(other if weights == "averaged" else state["generator"])
    expected = to_pixels(generator(torch.randn(5, 128, generator=torch.manual_seed(7))))
    options = {"weights": weights, "batch_size": 2, "device": "cpu"}
    drawn = evaluate.generated(evaluate.Options(run, seed=7, **options), path).measured(5)
    assert drawn.dtype == torch.uint8
    assert (drawn.int() - expected.int()).abs().max() <= 1  # batches of 2, not of 5
    assert (drawn != evaluate.generated(evaluate.Options(run, seed=8, **options), path).measured(5)).any()


def test_real_images_are_in_an_order_of_the_seed_and_halves_are_all_of_them():
    options = evaluate.Options(floor="fake", seed=1)
    both = evaluate.floor(options, "fake")
    real = evaluate.picked(both.real, 128, 1)
    assert len(torch.cat([real, both.measured(128)]).unique(dim=0)) == both.available * 2 == 256
    assert_close(real, evaluate.picked(evaluate.floor(options, "fake").real, 128, 1))
    assert (real != evaluate.picked(both.real, 128, 0)).any()
    assert (both.measured(128) != evaluate.floor(evaluate.Options(floor="fake"), "fake").measured(128)).any()


def test_features_are_those_of_images_between_minus_one_and_one_in_batches():
    found, logits = features.extract(nn.Flatten(), pixels(5), 2, CPU)
    assert logits.shape == (5, 0)
    assert_close(found, centred(pixels(5)).flatten(1).double())


@pytest.mark.parametrize(
    "returned",
    [
        *(torch.zeros(3), "text", torch.zeros(2, 2), (torch.zeros(3, 2),) * 3),
        (torch.zeros(3, 2), torch.full((3, 2), math.inf)),
    ],
)
def test_what_cannot_be_features_is_refused(returned: object, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nn.Identity, "forward", lambda *_: returned)
    with pytest.raises(ValueError, match="features: expected features of 3 rows of finite numbers"):
        features.outputs(nn.Identity(), pixels(3))


def test_any_network_is_loaded_from_a_python_file(network: Path):
    found, about = features.load(str(network), shape=(3, 32, 32))
    assert not found.training
    assert not any(weight.requires_grad for weight in found.parameters())
    digests = {"sha256": digest_of_file(network), "sha256_of_weights": digest_of_network(found)}
    assert about == {"name": network.name, "resize": "none", "dimension": 5, "logits": 4, **digests}


def test_a_python_file_finds_modules_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "networks_of_the_user.py").write_text(NETWORK, encoding="utf-8")
    (tmp_path / "judge.py").write_text("from networks_of_the_user import load", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != ""])
    importlib.invalidate_caches()
    assert features.load("judge.py", shape=(3, 32, 32))[1]["dimension"] == 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.py", "import not_there", r"in .*x.py that .*, got ModuleNotFoundError: No module named 'not_there'"),
        ("x.py", "def load(): raise KeyError('weights')", r"x.py that returns .*, got KeyError: 'weights'"),
        ("x.py", "nothing = 0", r"expected a function load\(\) in .*x.py that returns .*, got KeyError: 'load'"),
        ("x.py", "def load(): return 3", r"that returns a torch.nn.Module, got AttributeError: 'int' object"),
        ("x.pt", "no weights", "x.pt cannot be read"),
        ("x.py", NETWORK, r"x.py cannot take images of shape \(1, 32, 32\)"),
    ],
)
def test_files_that_give_no_network_are_refused(name: str, content: str, message: str, tmp_path: Path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises((ValueError, RefusedError), match=message):
        features.load(str(tmp_path / name), shape=(1, 32, 32))


# Metrics


def gaussians() -> tuple[Tensor, Tensor]:
    a, b, scales = torch.randn(3, 60, 5, dtype=torch.float64, generator=torch.manual_seed(0))
    return a @ scales[:5], b + 1


def test_fid_is_the_frechet_distance_of_two_gaussians():
    a, b = gaussians()
    covariances = [np.cov(part.numpy(), rowvar=False) for part in (a, b)]
    product = sqrtm(covariances[0] @ covariances[1]).real
    expected = (a.mean(0) - b.mean(0)).square().sum().item() + np.trace(covariances[0] + covariances[1] - 2 * product)
    assert metrics.frechet_distance(a, b) == {"fid": pytest.approx(expected, rel=1e-9)}


def test_kid_of_subsets_that_are_everything_is_the_mmd_of_the_library():
    a, b = gaussians()
    expected = mmd2(a, b, PolynomialKernel()).item()
    found = metrics.kernel_distance(a, b, subset_size=60)
    assert found == {"kid_mean": pytest.approx(expected, rel=1e-9), "kid_std": pytest.approx(0, abs=1e-12)}
    assert metrics.kernel_distance(a, b, subset_size=20)["kid_std"] > 0


def test_the_inception_score_follows_its_formula_and_has_a_deviation_only_with_splits():
    logits, _ = gaussians()
    p = logits.softmax(1)
    expected = (p * (p / p.mean(0)).log()).sum(1).mean().exp().item()
    found = metrics.inception_score(logits, splits=1)
    assert found == {"inception_score_mean": pytest.approx(expected, rel=1e-9), "inception_score_std": 0}
    assert metrics.inception_score(logits, splits=3)["inception_score_std"] > 0


def test_similarity_is_of_pairs_of_neighbours():
    assert metrics.similarity(pixels(3).repeat_interleave(2, 0), CPU)["ms_ssim"] == pytest.approx(1, abs=1e-5)
    assert abs(metrics.similarity(pixels(6), CPU)["ms_ssim"]) < 0.1  # noise
    half = torch.cat([pixels(1).repeat(2, 1, 1, 1), pixels(3, seed=1)])  # of which the last has no pair
    assert metrics.similarity(half, CPU)["ms_ssim"] == pytest.approx(0.5, abs=0.05)


def test_coverage_and_entropy_of_classes():
    real = torch.tensor([0.5, 0.5, 0.0]).double()
    for share, coverage in ((0.5, 1), (0.05, 1), (0.049, 0.5)):  # from a tenth of the share among real images
        measured = torch.tensor([1 - share, share, 0.0], dtype=torch.float64)
        entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
        found = metrics.class_coverage(measured, real)
        assert found == {"class_coverage": coverage, "class_entropy": pytest.approx(entropy)}
    assert metrics.class_shares(torch.eye(3)[[0, 0, 2, 0]]).tolist() == [0.75, 0, 0.25]


# The script


def test_a_result_has_numbers_and_their_origin(
    run: Path, network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["../clone/examples/evaluate.py", "my run"])
    path = evaluated(run, network)
    assert path == run / "evaluations" / "iteration-00000002-averaged-four-classes-train-12.json"
    assert f"Result: {path}" in capsys.readouterr().out
    result = json.loads(path.read_text(encoding="utf-8"))
    names = ["inception_score_mean", "inception_score_std", "fid", "kid_mean", "kid_std"]
    assert list(result["metrics"]) == [*names, "class_coverage", "class_entropy"]
    assert sum(result["class_shares"]["real"]) == pytest.approx(1)
    origin, checkpoint = result["provenance"], run / "checkpoints" / "iteration-00000002.pt"
    about = {"path": "checkpoints/iteration-00000002.pt", "iteration": 2, "weights": "averaged"}
    assert origin["checkpoint"] == about | {"sha256": digest_of_file(checkpoint)}
    assert origin["configuration"] == read(checkpoint)["configuration"]
    assert (origin["dataset"], origin["split"], origin["seed"]) == ("fake", "train", 0)
    assert origin["images"] == {"measured": 12, "real": 12}
    assert origin["extractor"]["sha256"] == digest_of_file(network)
    assert origin["kid"]["subset_size"] == 6
    assert origin["command"] == "python ../clone/examples/evaluate.py 'my run'"
    assert all((origin["versions"]["torchmetrics"], origin["machine"]["platform"], origin["date"]))


def test_the_seed_decides_a_result(run: Path, network: Path, tmp_path: Path):
    found = []
    for number, seed in enumerate("112"):
        words = f"--seed {seed} --out {tmp_path}/{number}.json".split()
        found.append(json.loads(evaluated(run, network, *words).read_text(encoding="utf-8"))["metrics"])
    assert found[0] == found[1] != found[2]


def test_all_checkpoints_are_measured_on_demand_and_results_replaced_only_if_asked_for(
    run: Path, network: Path, capsys: pytest.CaptureFixture[str]
):
    words = ("--seed", "3", "--weights", "current", "--split", "test", "--all")
    label = "current-four-classes-test-12-seed-3.json"
    paths = [run / "evaluations" / f"iteration-0000000{iteration}-{label}" for iteration in (1, 2)]
    assert evaluated(run, network, *words) == paths[1]
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if "Result" in line] == [f"Result: {path}" for path in paths]
    repeated = (run, "--features", network, "--images", 12, "--device", "cpu", *words)
    assert "exists; choose another --out, or --overwrite to replace it" in refusal(capsys, *repeated)
    assert evaluated(run, network, *words, "--overwrite") == paths[1]


@pytest.mark.parametrize(("split", "label"), [("train", "real-half"), ("test", "real-train")])
def test_the_floor_compares_real_images(
    split: str, label: str, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    path = evaluate.main(["--floor", "fake", "--features", str(network), "--split", split, "--device", "cpu"])
    count = {"train": 128, "test": 256}[split]
    assert path == Path(f"runs/real-fake/evaluations/{label}-four-classes-{split}-{count}.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["metrics"]["class_coverage"] == 1
    assert "checkpoint" not in result["provenance"]
    others = "other " if split == "train" else ""
    assert result["provenance"]["measured"] == f"{others}real images of the train split"
    assert result["provenance"]["ms_ssim"] == {"resize": "to 256 x 256, bilinear"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "run: expected a run"),
        (["."], "there is no checkpoint in"),
        *(([*words, "--all"], "run: expected a run") for words in (["--floor", "fake"], [".", "--out", "x"])),
        (["--floor", "fake", "--features", "x.pt"], "expected inception or the path of a file, got x.pt"),
        ([".", "--split", "beauty"], "beauty"),
        ([".", "--images", "1"], "images: expected a number >= 2, got 1"),
        (["--floor", "fake", "--device", "cuda"], "device: expected cpu, since PyTorch finds no CUDA device; got cuda"),
        (["--floor", "lsun", "--data-root", "."], "There is no bedroom_train_lmdb"),
        (["--floor", "fake", "--features", "N", "--images", "999"], "images: expected at most 128, the number of"),
    ],
)
def test_wrong_options_are_explained(
    words: list[str], message: str, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert message in refusal(capsys, *(str(network) if word == "N" else word for word in words))


def test_metrics_are_those_of_the_features_and_the_data_set_and_few_images_are_warned_of(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path, out = tmp_path / "flat.py", tmp_path / "x.json"
    path.write_text("from torch import nn\ndef load(): return nn.Sequential(nn.AvgPool2d(8), nn.Flatten())\n")
    words = ["--floor", "fake", "--device", "cpu", "--out", str(out), "--overwrite"]

    def names(*more: str) -> list[str]:
        return list(json.loads(evaluate.main([*words, *more]).read_text(encoding="utf-8"))["metrics"])

    assert names("--features", str(path), "--images", "48") == ["fid", "kid_mean", "kid_std"]
    assert "48 images do not determine the covariance of 48 features" in capsys.readouterr().err
    assert names("--features", str(path), "--images", "49") == ["fid", "kid_mean", "kid_std"]
    assert capsys.readouterr().err == ""
    monkeypatch.setitem(READERS, "lsun", lambda _: fake(64, 3))
    assert "ms_ssim" in names("--features", str(network), "--floor", "lsun", "--images", "8")


@pytest.mark.parametrize(("images", "size"), [(2, 2), (3, 2), (12, 6), (1000, 500), (2000, 1000), (49_984, 1000)])
def test_subsets_of_kid_have_a_thousand_images_or_half_of_few(
    images: int, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, sizes = tmp_path / "flat.py", []
    path.write_text("from torch import nn\ndef load(): return nn.Flatten()\n")
    monkeypatch.setattr(metrics, "kernel_distance", lambda ours, real, size: sizes.append(size) or {"kid_mean": 0.0})
    found = (torch.arange(49_984) % 256).byte()[:, None, None, None]
    compared = evaluate.Comparison(lambda count: found[:count], found, 49_984, tmp_path, {"dataset": "fake"})
    out = tmp_path / "x.json"
    words: dict[str, Any] = {"floor": "fake", "features": str(path), "device": "cpu", "batch_size": 4096, "out": out}
    evaluate.evaluate(evaluate.Options(**words, images=images), compared)
    assert sizes == [size] == [json.loads(out.read_text(encoding="utf-8"))["provenance"]["kid"]["subset_size"]]


# Damaged files


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (None, "does not match its checksum"),
        ({"iteration": "two"}, "is not a checkpoint of these scripts"),
        ({"paper": "smmd"}, "cannot be used: "),
        *(({"average": average}, "cannot be used: ") for average in ({}, [1])),
        *(({"configuration": settings}, "cannot be used: ") for settings in ({}, {"seed": "0"})),
    ],
)
def test_a_damaged_checkpoint_is_named(
    damage: dict[str, Any] | None, message: str, run: Path, tmp_path: Path, capsys: Any
):
    path = shutil.copytree(run, tmp_path / "run") / "checkpoints" / "iteration-00000002.pt"
    state = torch.load(path, weights_only=True)
    if damage is None:
        flip(path, state["generator"]["0.weight"])
    else:
        torch.save(state | damage, path)
    refused = refusal(capsys, tmp_path / "run", "--features", "x.py")
    assert message in refused
    assert str(path) in refused


def test_a_generator_that_is_lost_and_numbers_that_are_not_finite_are_refused(
    run: Path, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = (run, "--features", network, "--images", 12, "--out", tmp_path / "x.json", "--device", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "frechet_distance", lambda *_: {"fid": math.nan})
        assert "features: expected finite metrics, got {" in refusal(capsys, *words)
    monkeypatch.setattr(nn.Tanh, "forward", lambda _, images: images * math.nan)
    assert "returns images with NaN or infinite values" in refusal(capsys, *words)
    assert not (tmp_path / "x.json").exists()


def test_damaged_weights_of_a_classifier_are_refused(tmp_path: Path):
    path, network = tmp_path / "weights.pt", classifier.Classifier(size=8, channels=1, classes=2)
    classifier.save(path, network, {})
    flip(path, network.head[1].weight)
    with pytest.raises(RefusedError, match=r"weights\.pt cannot be read: .* does not match its checksum"):
        classifier.restore(path)
    torch.save({"format": "other"}, path)
    with pytest.raises(RefusedError, match=r"expected .*weights.pt to be a 'torch-mmd-losses classifier 1'"):
        classifier.restore(path)


# Tables


def result(**settings: object) -> str:
    origin = {
        **{"dataset": "cifar10", "split": "train", "images": {"measured": 49_984}},
        **{"extractor": {"name": "inception"}, "checkpoint": {"iteration": 100_000, "weights": "averaged"}},
        "configuration": {"loss": "mmd-rep-b"},
    }
    return json.dumps({"metrics": {"fid": 16.214, "inception_score_mean": 8.3}, "provenance": origin | settings})


def test_published_numbers_stand_below_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "x.json").write_text(result())
    (tmp_path / "real.json").write_text(result(dataset="fashion-mnist", configuration=None, checkpoint=None))
    evaluation_table.main((tmp_path, tmp_path / "real.json"))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == ["## cifar10", "## fashion-mnist"]
    row = "mmd-rep-b | 100,000 (averaged) | inception | train | 49,984 | 8.30 | 16.21 |  |  |  |"
    assert f"| {tmp_path} | {row}" in lines
    assert f"| {tmp_path / 'real.json'} | real |  | inception | train | 49,984 | 8.30 | 16.21 |  |  |  |" in lines
    row = "mmd-rep-b | 100,000 | inception | train | 49,984 | 8.29 | 16.21 |  |  |  |"
    assert f"| Wang et al., Table 1 of the submission | {row}" in lines
    sources = [re.match(r"\| Wang et al., (\S+) .* \| hinge \|", line) for line in lines]
    assert [found[1] for found in sources if found] == ["Table"]  # other losses have no rows of raw results
    rates = "lr_discriminator 0.001, lr_generator 0.0005, finished 16, tried 16"
    what = f"Results_rep.xlsx, sheet CIFAR-10, normalisation conv, total_scale 64, scores 16, {rates}"
    assert len([line for line in lines if line.startswith(f"| Wang et al., {what} | mmd-rep-b |")]) == 1
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


@pytest.mark.parametrize(("content", "message"), [(None, "a run that has results"), ("{", "x.json"), ("{}", "x.json")])
def test_a_table_of_nothing_is_refused(content: str | None, message: str, tmp_path: Path):
    (tmp_path / "evaluations").mkdir()
    if content is not None:
        (tmp_path / "evaluations" / "x.json").write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit, match=message):
        evaluation_table.main((tmp_path,))


# The classifier


def stripes(dataset: str, root: Path, split: str) -> tuple[Tensor, Tensor]:
    """Return images that are easily told apart by where they have a stripe."""
    labels = torch.arange({"train": 600, "test": 200}[split]) % 10
    images = pixels(len(labels), channels=1) // 4
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label + 1 : 3 * label + 4] = 255
    return images, labels


def test_the_classifier_learns_and_its_weights_are_those_of_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(classifier, "read", stripes)
    paths = [classifier.main(epochs=4, seed=seed, out=tmp_path / f"{i}.pt") for i, seed in enumerate((0, 0, 1))]
    (first, origin), (same, _), (other, _) = map(classifier.restore, paths)
    assert origin["test_accuracy"] > 0.9
    assert (origin["dataset"], origin["epochs"], origin["seed"]) == ("fashion-mnist", 4, 0)
    assert digest_of_network(first) == digest_of_network(same) != digest_of_network(other)
    assert digest_of_network(first) in capsys.readouterr().out
    found, logits = first.train()(centred(stripes("", tmp_path, "train")[0]))
    assert logits.shape == (600, 10)
    assert_close(found.std(0), torch.ones(64), rtol=1e-2, atol=0)  # of n - 1 images, and with an epsilon
