"""The evaluation without torch-fidelity: images, features, classes, MS-SSIM, results, tables and the classifier."""

from __future__ import annotations

import json
import math
import struct
import sys
from pathlib import Path

import classifier as classifier_script
import evaluate
import evaluation_table
import numpy as np
import pytest
import torch
from dcgan import script
from dcgan.batches import to_images, to_pixels
from dcgan.checkpoints import CheckpointError, load
from dcgan.networks import make_generator
from evaluation import classes, classifier, features, images, metrics, results
from evaluation.arguments import integer
from evaluation.comparison import floor
from evaluation.features import FeaturesError, outputs
from evaluation.provenance import digest_of_file, digest_of_network
from evaluation.published import TABLE_1, published
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import convolve2d
from torch import nn
from torch.testing import assert_close

CPU = torch.device("cpu")

NETWORK = """
import torch
from torch import nn

def load():
    torch.manual_seed(3)
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.Flatten(), nn.Linear(64, 5))
            self.head = nn.Linear(5, 4)
        def forward(self, images):
            features = self.features(images)
            return features, self.head(features)
    return Network()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two iterations on generated images, with checkpoints of both."""
    folder = tmp_path_factory.mktemp("runs") / "fake"
    options = ["--iterations", "2", "--checkpoint-every", "1", "--quiet", "--device", "cpu", "--data-root", "data"]
    return script.main("fake", "Train.", ["--out", str(folder), *options])


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "four-classes.py"
    path.write_text(NETWORK, encoding="utf-8")
    return path


def pixels(count: int, *, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, channels, 32, 32), dtype=np.uint8)


def without_fidelity(run: Path, network: Path, *options: str) -> Path:
    words = [str(run), "--features", str(network), "--metrics", "classes,ms-ssim", "--images", "12", *options]
    return evaluate.main([*words, "--device", "cpu"])


# Images


def test_a_folder_stands_for_its_newest_checkpoint_and_a_file_for_itself(run: Path):
    newest = images.find(run)
    assert (newest.state["iteration"], newest.run) == (2, run)
    first = images.find(run / "checkpoints" / "iteration-00000001.pt")
    assert (first.state["iteration"], first.run) == (1, run)


def test_all_checkpoints_of_a_run_are_measured_on_demand(run: Path, network: Path):
    last = without_fidelity(run, network, "--all", "--seed", "33")
    found = [result for result in results.read_all(run) if result["provenance"]["seed"] == 33]
    assert [result["provenance"]["checkpoint"]["iteration"] for result in found] == [1, 2]
    assert found[0]["metrics"] != found[1]["metrics"]
    assert last == run / "evaluations" / "iteration-00000002-averaged-four-classes-train-12-seed-33.json"


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--floor", "fake"], "all: expected a run and no --out, got --floor"), (["x", "--out", "y"], "got --out")],
)
def test_all_checkpoints_are_those_of_a_run(words: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        evaluate.main([*words, "--all"])
    assert message in capsys.readouterr().err


def test_a_checkpoint_elsewhere_is_of_the_folder_that_it_is_in(run: Path, tmp_path: Path):
    (tmp_path / "x.pt").write_bytes(images.find(run).path.read_bytes())
    assert images.find(tmp_path / "x.pt").run == tmp_path


def test_missing_and_damaged_checkpoints_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="there is no checkpoint in .*checkpoints"):
        images.find(tmp_path)
    (tmp_path / "x.pt").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="x.pt cannot be read"):
        images.find(tmp_path / "x.pt")


@pytest.mark.parametrize("weights", ["averaged", "current"])
def test_images_are_those_of_the_chosen_generator_rounded_to_bytes(run: Path, weights: str):
    found = images.find(run)
    drawn = images.generate(found, weights, 7, 5, 2, CPU)
    generator = make_generator(32, width=2).eval()
    generator.load_state_dict(found.state[{"averaged": "averaged", "current": "generator"}[weights]])
    expected = generator(torch.randn(5, 128, generator=torch.Generator().manual_seed(7)))
    assert drawn.dtype == np.uint8
    assert np.abs(drawn.astype(int) - to_pixels(expected).numpy()).max() <= 1  # batches of 2, not of 5


def test_the_two_generators_and_two_seeds_draw_different_images(run: Path):
    drawn = [
        images.generate(images.find(run), *how, 4, 4, CPU) for how in (("averaged", 0), ("current", 0), ("averaged", 1))
    ]
    assert all((drawn[0] != other).any() for other in drawn[1:])


def test_a_generator_that_is_lost_is_refused(run: Path):
    found = images.find(run)
    state = found.state["averaged"]
    broken = found._replace(
        state={**found.state, "averaged": {name: value * math.nan for name, value in state.items()}}
    )
    with pytest.raises(ValueError, match="The generator in .* returns images with NaN or infinite values"):
        images.generate(broken, "averaged", 0, 4, 4, CPU)


def real(seed: int = 0) -> images.RealImages:
    return images.RealImages("fake", Path("nowhere"), (3, 32, 32), split="train", seed=seed)


def test_two_halves_of_the_real_images_are_all_of_them():
    halves = real().take(128), real().take(128, start=128)
    together = sorted(image.tobytes() for half in halves for image in half)
    assert together == sorted(image.tobytes() for image in real().take(256))
    assert len(set(together)) == 256


def test_the_seed_decides_which_real_images_are_taken():
    np.testing.assert_array_equal(real().take(20), real().take(20))
    assert (real().take(20) != real(1).take(20)).any()


@pytest.mark.parametrize(
    ("asked", "available", "expected"), [(None, 60_000, 49_984), (None, 10_000, 10_000), (7, 9, 7)]
)
def test_as_many_images_as_in_the_paper_or_all(asked: int | None, available: int, expected: int):
    assert images.how_many(asked, available) == expected


def test_more_images_than_there_are_is_refused():
    with pytest.raises(ValueError, match="expected at most 9, the real images that there are; got 10"):
        images.how_many(10, 9)


# Features


class Returning(nn.Module):
    """A network that returns what it is told to."""

    def __init__(self, returned: object) -> None:
        super().__init__()
        self.returned = returned

    def forward(self, images: torch.Tensor) -> object:
        return self.returned


def test_features_and_logits_are_those_of_images_between_minus_one_and_one():
    byte = torch.from_numpy(pixels(3))
    found, logits = outputs(nn.Flatten(), byte)
    assert logits is None
    assert found.dtype == torch.float64
    assert_close(found, to_images(byte, CPU).flatten(1).double())
    pair = torch.rand(3, 2), torch.rand(3, 4)
    found, logits = outputs(Returning(pair), byte)
    assert_close((found, logits), (pair[0].double(), pair[1].double()))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (torch.zeros(3), r"expected a network that returns \(n, d\)"),
        ((torch.zeros(3, 2),) * 3, r"expected a network that returns \(n, d\)"),
        ("text", r"expected a network that returns \(n, d\)"),
        (torch.zeros(2, 2), "expected a row of features for each of 3 images, got 2"),
        ((torch.zeros(3, 2), torch.zeros(1, 2)), "expected a row of logits for each of 3 images, got 1"),
        (torch.full((3, 2), math.nan), "some features of the network are no finite numbers"),
        ((torch.zeros(3, 2), torch.full((3, 2), math.inf)), "some logits of the network are no finite numbers"),
    ],
)
def test_what_cannot_be_features_is_refused(returned: object, message: str):
    with pytest.raises(FeaturesError, match=message):
        outputs(Returning(returned), torch.from_numpy(pixels(3)))


def test_any_network_is_loaded_from_a_python_file(network: Path):
    found = features.load(str(network), inception_weights=None, shape=(3, 32, 32))
    assert (found.name, found.has_logits, found.channels) == ("four-classes", True, None)
    assert found.network is not None
    assert not found.network.training
    assert found.provenance["dimension"] == 5
    assert found.provenance["sha256"] == digest_of_file(network)
    assert found.provenance["sha256_of_weights"] == digest_of_network(found.network)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, "", "expected inception or the path of a file, got .*nowhere.pt"),
        ("x.py", "", r"expected .*x.py to have a function load\(\)"),
        ("x.py", "def load(): return 3", r"expected .*x.py to have a function load\(\)"),
        ("x.pt", "no weights", "x.pt cannot be read as weights"),
    ],
)
def test_files_that_give_no_network_are_refused(name: str | None, content: str, message: str, tmp_path: Path):
    path = tmp_path / (name or "nowhere.pt")
    if name is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        features.load(str(path), inception_weights=None, shape=(3, 32, 32))


def test_other_files_of_torch_are_no_classifiers(tmp_path: Path):
    torch.save({"format": "other"}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x.pt is no 'torch-mmd-losses classifier 1', which examples/classifier.py"):
        classifier.load(tmp_path / "x.pt")


def test_the_digest_of_a_network_is_of_its_values_and_not_of_its_file():
    layers = [nn.Linear(3, 2) for _ in range(2)]
    assert digest_of_network(layers[0]) != digest_of_network(layers[1])
    layers[1].load_state_dict(layers[0].state_dict())
    assert digest_of_network(layers[0]) == digest_of_network(layers[1])


# Classes


def test_classes_are_counted_as_predicted():
    images_of = torch.tensor([[0, 0, 5], [9, 0, 0], [0, 0, 1], [0, 0, 7]]).byte()[:, :, None, None]
    found = classes.shares(nn_of_logits(), images_of.numpy(), batch_size=3, device=CPU)
    assert found.tolist() == [0.25, 0, 0.75]


def nn_of_logits() -> nn.Module:
    class Network(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return images.flatten(1), images.flatten(1)

    return Network()


@given(st.integers(1, 10), st.integers(1, 10))
def test_coverage_and_entropy_of_equally_frequent_classes(there: int, covered: int):
    covered = min(covered, there)
    real = torch.full((there,), 1 / there, dtype=torch.float64)
    measured = torch.zeros(there, dtype=torch.float64)
    measured[:covered] = 1 / covered
    assert classes.coverage(measured, real) == pytest.approx(covered / there)
    assert classes.entropy(measured) == pytest.approx(math.log(covered))


def test_a_class_is_covered_from_a_tenth_of_its_share_among_real_images():
    real = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    assert classes.coverage(torch.tensor([0.95, 0.05, 0.0], dtype=torch.float64), real) == 1
    assert classes.coverage(torch.tensor([0.951, 0.049, 0.0], dtype=torch.float64), real) == 0.5


# MS-SSIM


def test_similarity_of_equal_images_is_one_and_of_noise_about_zero():
    pytest.importorskip("torchmetrics")
    from evaluation.similarity import mean_similarity

    assert mean_similarity(pixels(3).repeat(2, axis=0), CPU) == pytest.approx(1, abs=1e-5)
    assert abs(mean_similarity(pixels(6), CPU)) < 0.1


def test_similarity_of_pairs_is_that_of_the_definition():
    pytest.importorskip("torchmetrics")
    from evaluation.similarity import mean_similarity

    base = pixels(2, channels=1).astype(float)
    noisy = np.clip(base + np.random.default_rng(1).normal(0, 40, base.shape), 0, 255).round()
    both = np.stack([base, noisy], axis=1).reshape(4, 1, 32, 32).astype(np.uint8)
    large = torch.nn.functional.interpolate(torch.from_numpy(both).double(), size=(256, 256), mode="bilinear")
    expected = [ms_ssim(*large[i : i + 2, 0].numpy()) for i in (0, 2)]
    assert mean_similarity(np.concatenate([both, both[:1]]), CPU) == pytest.approx(np.mean(expected), abs=1e-4)


def ms_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Follow Wang et al. (2003), with the Gaussian window and the constants of Wang et al. (2004).

    At the coarsest scale torchmetrics counts a reflected margin too, which neither paper has.
    """
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    mean = lambda z: convolve2d(z, window, mode="valid")  # noqa: E731
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale == 4:
            x, y = (np.pad(z, 5, mode="reflect") for z in (x, y))
        mx, my = mean(x), mean(y)
        contrast = (2 * (mean(x * y) - mx * my) + c2) / (mean(x * x) - mx**2 + mean(y * y) - my**2 + c2)
        luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
        found *= max((contrast * luminance if scale == 4 else contrast).mean(), 0) ** weight
        if scale < 4:
            x, y = (z.reshape(len(z) // 2, 2, len(z) // 2, 2).mean((1, 3)) for z in (x, y))
    return found


def test_one_image_has_no_pair():
    pytest.importorskip("torchmetrics")
    from evaluation.similarity import mean_similarity

    with pytest.raises(ValueError, match="expected at least 2 for MS-SSIM, got 1"):
        mean_similarity(pixels(1), CPU)


# Which metrics


@pytest.mark.parametrize(
    ("own", "logits", "dataset", "expected"),
    [
        (False, True, "cifar10", "is fid kid"),
        (False, True, "celeba", "is fid kid ms-ssim"),
        (True, True, "fashion-mnist", "is fid kid classes"),
        (True, False, "lsun", "fid kid ms-ssim"),
    ],
)
def test_the_usual_metrics_are_those_of_the_paper_that_the_features_allow(
    own: bool, logits: bool, dataset: str, expected: str
):
    assert metrics.usual(extractor(own=own, logits=logits), dataset) == tuple(expected.split())


def extractor(*, own: bool = True, logits: bool = True, dimension: int = 2) -> features.Features:
    network = nn.Identity() if own else None
    return features.Features("x", None, network, None, logits, {"dimension": dimension})


@pytest.mark.parametrize(
    ("chosen", "options", "message"),
    [
        ("is", {"logits": False}, "is needs a network that returns features and logits"),
        ("classes", {"logits": False}, "classes needs a classifier"),
        ("classes", {"own": False}, "classes needs a classifier"),
    ],
)
def test_metrics_that_the_features_do_not_allow_are_refused(
    chosen: str, options: dict[str, bool], message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(metrics, "find_spec", lambda package: package)
    with pytest.raises(ValueError, match=message):
        metrics.check((chosen,), extractor(**options), count=9, subset_size=9)


def test_subsets_are_not_larger_than_the_whole():
    with pytest.raises(ValueError, match="kid_subset_size: expected at most the number of images, 8; got 9"):
        metrics.check((), extractor(), count=8, subset_size=9)


@pytest.mark.parametrize(("count", "warns"), [(64, True), (65, False)])
def test_too_few_images_for_a_covariance_are_warned_of(
    count: int, warns: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(metrics, "find_spec", lambda package: package)
    metrics.check(("fid",), extractor(dimension=64), count=count, subset_size=9)
    assert ("do not determine the covariance of 64 features" in capsys.readouterr().err) == warns


@pytest.mark.parametrize(("package", "metric"), [("torch-fidelity", "fid"), ("torchmetrics", "ms-ssim")])
def test_a_package_that_is_not_installed_is_named(package: str, metric: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    with pytest.raises(ModuleNotFoundError, match=rf"{package} is not installed: pip install -e '.\[paper\]'"):
        metrics.check((metric,), extractor(), count=9, subset_size=9)


# The script


def test_a_result_has_numbers_and_where_they_come_from(run: Path, network: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("torchmetrics")
    path = without_fidelity(run, network)
    assert path == run / "evaluations" / "iteration-00000002-averaged-four-classes-train-12.json"
    assert f"Result: {path}" in capsys.readouterr().out
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["metrics"].keys() == {"ms_ssim", "class_coverage", "class_entropy"}
    assert sum(result["class_shares"]["real"]) == pytest.approx(1)
    origin = result["provenance"]
    checkpoint = run / "checkpoints" / "iteration-00000002.pt"
    assert origin["checkpoint"] == {
        "path": "checkpoints/iteration-00000002.pt",
        "iteration": 2,
        "weights": "averaged",
        "sha256": digest_of_file(checkpoint),
    }
    assert origin["configuration"] == load(checkpoint)["configuration"]
    assert (origin["dataset"], origin["split"], origin["seed"]) == ("fake", "train", 0)
    assert origin["images"] == {"measured": 12, "real": 12, "real_available": 256}
    assert origin["extractor"]["sha256"] == digest_of_file(network)
    assert origin["extractor"]["resize"] == "none"
    assert origin["ms_ssim"]["resize"] == "to 256 x 256, bilinear"
    assert origin["versions"]["torch"] is not None
    assert origin["machine"]["platform"]
    assert origin["command"].startswith(f"python examples/evaluate.py {run}")
    assert origin["date"]
    assert origin["seconds"] > 0


def test_a_result_is_replaced_only_if_asked_for(run: Path, network: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("torchmetrics")
    path = without_fidelity(run, network, "--images", "10")
    with pytest.raises(SystemExit, match="2"):
        without_fidelity(run, network, "--images", "10")
    assert "exists; choose another --out, or --overwrite to replace it" in capsys.readouterr().err
    assert without_fidelity(run, network, "--images", "10", "--overwrite", "--quiet") == path
    assert capsys.readouterr().out == f"Result: {path}\n"


@pytest.mark.parametrize(
    ("option", "label"),
    [
        (["--seed", "3"], "iteration-00000002-averaged-four-classes-train-12-seed-3"),
        (["--weights", "current"], "iteration-00000002-current-four-classes-train-12"),
        (["--split", "test"], "iteration-00000002-averaged-four-classes-test-12"),
    ],
)
def test_what_distinguishes_results_is_in_their_names(run: Path, network: Path, option: list[str], label: str):
    assert without_fidelity(run, network, "--metrics", "classes", *option).stem == label


def test_the_seed_decides_a_result(run: Path, network: Path, tmp_path: Path):
    words = ["--metrics", "classes", "--images", "60"]
    paths = [
        without_fidelity(run, network, *words, "--seed", seed, "--out", str(tmp_path / f"{number}.json"))
        for number, seed in enumerate("112")
    ]
    shares = [json.loads(path.read_text(encoding="utf-8"))["class_shares"] for path in paths]
    assert shares[0] == shares[1] != shares[2]


@pytest.mark.parametrize(("split", "label"), [("train", "real-half"), ("test", "real-train")])
def test_the_floor_compares_real_images(
    split: str, label: str, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    words = ["--floor", "fake", "--features", str(network), "--metrics", "classes", "--split", split, "--device", "cpu"]
    path = evaluate.main(words)
    count = {"train": 128, "test": 256}[split]
    assert path == Path(f"runs/real-fake/evaluations/{label}-four-classes-{split}-{count}.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["metrics"]["class_coverage"] == 1
    assert "checkpoint" not in result["provenance"]
    assert result["provenance"]["measured"].startswith({"train": "other real images", "test": "real images"}[split])


def test_the_floor_has_images_of_either_split():
    found = floor("fake", Path("nowhere"), size=32, channels=3, split="test", seed=0)
    sides = found.measure(256, 64, CPU), found.real.take(256)
    for side, split in zip(sides, ("train", "test"), strict=True):
        expected = images.RealImages("fake", Path("nowhere"), (3, 32, 32), split=split, seed=0)
        np.testing.assert_array_equal(side, expected.take(256))
    assert (sides[0] != sides[1]).any()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["."], "there is no checkpoint in"),
        ([], "one of the arguments run --floor is required"),
        ([".", "--floor", "fake"], "not allowed with argument"),
        (["--floor", "nothing"], "invalid choice: 'nothing'"),
        ([".", "--metrics", "fid,beauty"], "expected some of is,fid,kid,ms-ssim,classes; got beauty"),
        ([".", "--images", "1"], "expected an integer >= 2, got '1'"),
        ([".", "--device", "meta"], "expected cpu or a CUDA device"),
        ([".", "--device", "no"], "device"),
        (["--floor", "fake", "--features", "x.pt", "--data-root", "."], "expected inception or the path of a file"),
        (["--floor", "lsun", "--split", "test", "--data-root", "."], "lsun has no test split"),
    ],
)
def test_wrong_options_are_explained(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["x", "1.5", "-1", "5"])
def test_integers_have_limits(text: str):
    with pytest.raises(Exception, match=f"expected an integer from 0 to 4, got '{text}'"):
        integer(0, 4)(text)
    assert integer(0, 4)("4") == 4


def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.write(tmp_path / "x.json", {"metrics": {"fid": math.nan}, "provenance": {}})
    assert not list(tmp_path.iterdir())


# Tables


def result(**settings: object) -> dict[str, object]:
    origin = {
        "dataset": "cifar10",
        "split": "train",
        "images": {"measured": 49_984},
        "extractor": {"name": "inception"},
        "checkpoint": {"iteration": 100_000, "weights": "averaged"},
        "configuration": {"loss": "mmd-rep-b"},
    }
    return {"metrics": {"fid": 16.214, "inception_score_mean": 8.3}, "provenance": origin | settings}


def test_published_numbers_stand_beside_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    results.write(run / "evaluations" / "x.json", result())
    text = evaluation_table.main([str(run)])
    assert capsys.readouterr().out == text
    lines = text.splitlines()
    assert lines[0] == "## cifar10"
    assert f"| {run} | mmd-rep-b | 100,000 (averaged) | inception | train | 49,984 | 8.30 | 16.21 |  |  |  |" in lines
    name = "Wang et al., Table 1 of the submission"
    assert f"| {name} | mmd-rep-b | 100,000 | inception | train | 49,984 | 8.29 | 16.21 |  |  |  |" in lines
    best = [line for line in lines if "Results_rep.xlsx, sheet CIFAR-10, C^K = 64, 16 scores" in line]
    assert len(best) == 1
    assert "rates 0.001, 0.0005, 16 of 16 finished | mmd-rep-b" in best[0]
    assert "16.66" in best[0]
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_each_data_set_has_its_table_and_the_floor_its_row(tmp_path: Path):
    real = result(dataset="fashion-mnist")
    del real["provenance"]["configuration"], real["provenance"]["checkpoint"]
    results.write(tmp_path / "a.json", real)
    results.write(tmp_path / "b.json", result())
    out = tmp_path / "table.md"
    evaluation_table.main([str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("#")] == ["## cifar10", "## fashion-mnist"]
    assert f"| {tmp_path / 'a.json'} | real |  | inception |" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "none of them has results"), ("{", "is no result"), ("{}", "expected an object with metrics")],
)
def test_a_table_of_nothing_is_refused(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    if content is not None:
        (tmp_path / "evaluations").mkdir()
        (tmp_path / "evaluations" / "x.json").write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        evaluation_table.main([str(tmp_path)])
    assert message in capsys.readouterr().err


def test_the_published_rows_are_complete_and_in_order():
    rows = published()
    table = {(row.dataset, row.loss): row for row in rows if row.source == TABLE_1}
    assert len(table) == 4 * 8 - 2  # MMD-rbf and MMD-rq did not work on LSUN
    assert table["stl10", "mmd-rep"][-3:] == ("9.36", "36.67", "")
    assert table["lsun", "mmd-rep-b"][-3:] == ("", "12.52", "0.0908")
    for row in rows:
        assert float(row.fid) > 0
        if row.source != TABLE_1:
            assert 1 <= int(row.finished) <= int(row.tried) <= 16


# The classifier


@pytest.fixture
def stripes(tmp_path: Path) -> Path:
    """Data like Fashion-MNIST, whose classes are easily told apart by where they have a stripe."""
    for name, count in (("train", 600), ("t10k", 200)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.random.default_rng(count).integers(0, 60, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 2 : 2 * label + 6] = 255
        folder = tmp_path / "stripes"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 0x803, *images.shape) + images.tobytes()
        )
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
    return tmp_path / "stripes"


def test_the_classifier_learns_and_its_weights_are_those_of_the_seed(
    stripes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    paths = [
        classifier_script.main(
            ["--data-root", str(stripes), "--epochs", "6", "--seed", seed, "--out", str(tmp_path / f"{number}.pt")]
        )
        for number, seed in enumerate("001")
    ]
    networks = [classifier.load(path) for path in paths]
    digests = [digest_of_network(network) for network, _ in networks]
    assert digests[0] == digests[1] != digests[2]
    network, origin = networks[0]
    assert origin["test_accuracy"] > 0.95
    assert (origin["dataset"], origin["seed"], origin["epochs"]) == ("fashion-mnist", 0, 6)
    assert (
        f"Recognises {origin['test_accuracy']:.2%} of 200 test images. Weights: {paths[0]}" in capsys.readouterr().out
    )
    found = features.load(str(paths[0]), inception_weights=None, shape=(1, 32, 32))
    assert found.has_logits
    assert found.provenance["origin"]["test_accuracy"] == origin["test_accuracy"]
    assert found.provenance["sha256_of_weights"] == digests[0]
    split = classifier_script.read("fashion-mnist", stripes, "train")
    values = torch.cat([network(to_images(part, CPU))[0] for part in split.images.split(100)])
    assert_close(values.mean(0), torch.zeros(64), atol=0.7, rtol=0)  # the averages of batch normalisation lag behind
    assert 0.5 < values.var(0).mean() < 2


def test_missing_data_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("dcgan.sources.DEBIAN_FASHION_MNIST", tmp_path / "debian")
    with pytest.raises(SystemExit, match="2"):
        classifier_script.main(["--data-root", str(tmp_path)])
    assert "apt install dataset-fashion-mnist" in capsys.readouterr().err
