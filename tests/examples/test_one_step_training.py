"""Trainings without a discriminator: their gradients, and that they go on as if they had never been interrupted."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from one_step import clock, encoders, train
from one_step.data import split
from one_step.networks import make_generator
from one_step.objectives import Rows, k_means
from one_step.presets import OneStep, resolved
from one_step.sampling import sampler
from PIL import Image
from processes import in_a_fork, start
from torch import Tensor, nn
from torch.testing import assert_close
from trained import assert_equal, contents, last_state, refusal
from training.batches import centred
from training.errors import RefusedError
from training.files import read_lines
from training.images import fake
from training.sampling import MovingAverage, averaged

from torch_mmd_losses import MMDReference, RBFKernel, UsageWarning, drift_loss, median_distance

pytestmark = pytest.mark.xdist_group("processes")

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ("--size", "8", "--device", "cpu", "--quiet", "--factor", "0.5", "--log-every", "1")
ONCE = ("--iterations", "1", "--betas", "0.5", "0.99")
FEW = ("--held-out", "2", "--batch-size", "1024", "--seed", "1")


def run(folder: Path, *options: str) -> Path:
    """Train on 256 generated images of 8 pixels in batches of 16, 10 iterations."""
    return train.main(["fake", "--out", str(folder), *SMALL, *options])


def state_of(folder: Path) -> dict[str, Any]:
    """Return the newest checkpoint but the time."""
    return last_state(folder) | {"clock": None}


def log(folder: Path) -> list[dict[str, Any]]:
    timeless = {"iterations_per_second": 0, "cpu_seconds": 0}
    return [line | timeless for line in read_lines(folder / "log.jsonl")]


def gradients(folder: Path) -> list[Tensor]:
    """Return the gradients of the first step, of which Adam's mean is a half."""
    return [2 * each["exp_avg"] for each in state_of(folder)["adam"]["state"].values()]


def function_of_page(name: str) -> Callable[..., Any]:
    page = (EXAMPLES.parent / "docs" / "one_step.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"^```python\n(def {name}\(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    functions: dict[str, Any] = {"torch": torch}
    exec(code, functions)
    function: Callable[..., Any] = functions[name]
    return function


# Gradients


def gram(a: Tensor, b: Tensor, sigma: float) -> Tensor:
    return torch.exp((a[:, None] - b[None]).square().sum(2) / (-2 * sigma**2))


class Plain:
    """The first step of a training by plain formulas in float64."""

    def __init__(self, classes: int = 0, norm: str = "layer") -> None:
        torch.manual_seed(0)
        self.generator = make_generator(8, inputs=64 + classes, channels=3, width=2, norm=norm).double()
        self.random = torch.Generator().manual_seed(0)
        noise = torch.randn(16, 64, generator=self.random)
        self.fake_classes = torch.arange(16) % classes if classes else torch.zeros(16, dtype=torch.long)
        if classes:
            noise = torch.cat([noise, torch.eye(classes)[self.fake_classes]], 1)
        self.learnt, _ = split(256, 25, 0)
        images = centred(fake(8, 3))
        encoder = encoders.load("random:0", channels=3)
        self.rows = encoder(images[self.learnt]).detach().double()
        self.fake = encoder.double()(self.generator(noise.double()))
        self.sigma = 0.5 * median_distance(self.rows.float())

    def mmd2(self, attraction: Tensor, *, biased: bool = True) -> Tensor:
        """Return the part of MMD^2 that has a gradient."""
        within = gram(self.fake, self.fake, self.sigma)
        repulsion = within.mean() if biased else (within.sum() - 16) / (16 * 15)
        return repulsion - 2 * attraction.mean()

    def exact(self) -> Tensor:
        return self.mmd2(gram(self.fake, self.rows, self.sigma))

    def unbiased(self) -> Tensor:
        return self.mmd2(gram(self.fake, self.rows, self.sigma), biased=False)

    def nystrom(self) -> Tensor:
        landmarks = k_means(self.rows.float(), 40, torch.Generator().manual_seed(0)).double()
        within = gram(landmarks, landmarks, self.sigma)
        alpha = torch.linalg.solve(within + 1e-6 * torch.eye(40), gram(landmarks, self.rows, self.sigma).mean(1))
        return self.mmd2(gram(self.fake, landmarks, self.sigma) @ alpha)

    def fourier(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        rows = self.rows.float()
        reference = MMDReference(rows, RBFKernel(self.sigma), kind="fourier", frequencies=50, generator=generator)
        angles = [points @ reference.form.omega.double().T for points in (self.fake, self.rows)]
        waves = [torch.cat([each.cos(), each.sin()], 1).mean(0) for each in angles]
        return (waves[0] - waves[1]).square().sum() / 50

    def drawn(self, count: int = 16) -> Tensor:
        return self.rows[torch.randint(len(self.rows), (count,), generator=self.random)]

    def resampled(self) -> Tensor:
        return self.mmd2(gram(self.fake, self.drawn(24), self.sigma))

    def drift(self) -> Tensor:
        return drift_loss(self.fake, self.drawn())

    def logarithm(self) -> Tensor:
        value = self.exact() + gram(self.rows, self.rows, self.sigma).mean()
        return value / value.detach()

    def joint(self, strength: float = 1.0) -> Tensor:
        """Return the loss of the joint distribution of features and four classes that are far apart."""
        classes = self.learnt % 4
        weights = 1 / (4 * classes.bincount()[classes].double())
        rows, of_rows, signed = self.rows, classes, weights
        if strength != 1:
            any_class = torch.randint(4, (len(rows),), generator=torch.Generator().manual_seed(0))
            rows, of_rows = torch.cat([rows, rows]), torch.cat([classes, any_class])
            signed = torch.cat([strength * weights, (1 - strength) * weights])
        apart = torch.exp(-1 / torch.tensor(0.3, dtype=torch.float64) ** 2)
        cross = gram(self.fake, rows, self.sigma) * torch.where(self.fake_classes[:, None] == of_rows, 1.0, apart)
        same = torch.where(self.fake_classes[:, None] == self.fake_classes, 1.0, apart)
        return (gram(self.fake, self.fake, self.sigma) * same).mean() - 2 * (cross @ signed / signed.sum()).mean()


STEPS: dict[str, tuple[tuple[str, ...], Callable[[Plain], Tensor]]] = {
    "exact": ((), Plain.exact),
    "unbiased": (("--estimator", "unbiased"), Plain.unbiased),
    "nystrom": (("--reference", "nystrom", "--landmarks", "40"), Plain.nystrom),
    "fourier": (("--reference", "fourier", "--frequencies", "50"), Plain.fourier),
    "resampled": (("--reference", "resampled", "--real-batch", "24"), Plain.resampled),
    "drift": (("--reference", "resampled", "--loss", "drift"), Plain.drift),
    "relative": (("--balance", "relative"), Plain.logarithm),
    "conditional": (("--conditional",), Plain.joint),
    "guided": (("--conditional", "--guidance", "1.5"), lambda plain: plain.joint(1.5)),
    "batch": (("--norm", "batch", "--micro-batch", "16"), Plain.exact),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_has_the_gradient_of_the_plain_formula(name: str, tmp_path: Path):
    options, formula = STEPS[name]
    found = gradients(run(tmp_path / "run", *ONCE, *options))
    plain = Plain(4 if "--conditional" in options else 0, "batch" if name == "batch" else "layer")
    formula(plain).backward()
    expected = [each.grad for each in plain.generator.parameters()]
    largest = max(float(each.abs().max()) for each in expected)
    # The script computes in float32.
    assert_close(found, expected, rtol=1e-3, atol=1e-5 * largest, check_dtype=False)
    assert largest > 1e-4


@pytest.mark.parametrize("options", [(), ("--reference", "resampled"), ("--loss", "drift", "--reference", "resampled")])
def test_micro_batches_have_the_gradient_of_the_whole_batch(options: tuple[str, ...], tmp_path: Path):
    whole, parts = (gradients(run(tmp_path / size, *ONCE, *options, "--micro-batch", size)) for size in ("16", "3"))
    assert_close(whole, parts, rtol=1e-3, atol=1e-6)


# What a run leaves behind


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("runs") / "finished", "--encoder", "random:0", "--encoder", "random:1")


def test_the_log_has_the_terms_of_each_encoder_and_their_ratio_to_real_images(finished: Path):
    lines = log(finished)
    about = read_lines(finished / "encoders.jsonl")
    assert [line["iteration"] for line in lines] == list(range(1, 11))
    for line in lines:
        for each in about:
            terms = {name: line[f"{each['encoder']} {name}"] for name in ("mmd2", "repulsion", "diagonal_share")}
            assert terms["mmd2"] / each["floor"] == pytest.approx(line[f"{each['encoder']} ratio_to_real"])
            assert 0 < terms["diagonal_share"] < 1
            assert 1 / 16 < terms["repulsion"] < 1
        ratios = [line[f"random:{seed} ratio_to_real"] for seed in (0, 1)]
        assert line["ratio_to_real"] == pytest.approx(sum(ratios) / 2)
        assert line["loss"] == pytest.approx(2, abs=1e-4)  # each is divided by its own value
    assert lines[-1]["ratio_to_real"] < lines[0]["ratio_to_real"]


def test_a_run_says_what_it_does_before_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = [word for word in SMALL if word != "--quiet"]
    two = ("--encoder", "random:0", "--encoder", "pixels:4")
    train.main(["fake", "--out", str(tmp_path / "run"), *words, *two, "--iterations", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "Encoding 231 training images and 25 held-out images by random:0, pixels:4",
        "Preparing the kernel and the reference of each encoder",
    ]
    assert lines[2].startswith("iteration 1 of 1: ")
    run(tmp_path / "quiet", "--iterations", "1")
    assert capsys.readouterr().out == ""


def test_a_run_leaves_sheets_and_checkpoints_whose_average_draws(finished: Path):
    names = {path.name for folder in ("samples", "checkpoints") for path in (finished / folder).iterdir()}
    assert names == {
        *(f"iteration-{iteration:08d}.png" for iteration in (0, 5, 10)),
        *(f"iteration-{iteration:08d}.pt" for iteration in (5, 10)),
    }
    state = state_of(finished)
    drawing = sampler(state["configuration"])
    drawing.generator.load_state_dict(averaged(state))
    images = drawing.generator(drawing.noise(3, torch.Generator()))
    assert images.shape == drawing.real(Path(), "train")[:3].shape == (3, 3, 8, 8)  # type: ignore[index]


def test_the_function_of_the_page_draws_by_the_average_of_the_newest_checkpoint(finished: Path):
    images = function_of_page("draw")(finished, 3, seed=2)
    state = state_of(finished)
    drawing = sampler(state["configuration"])
    drawing.generator.load_state_dict(averaged(state))
    expected = drawing.generator.eval()(torch.randn(3, 64, generator=torch.Generator().manual_seed(2)))
    assert_close(images, expected)


def test_the_function_of_the_page_draws_images_of_one_class(tmp_path: Path):
    folder = run(tmp_path / "run", *ONCE, "--conditional")
    state = state_of(folder)
    drawing = sampler(state["configuration"])
    drawing.generator.load_state_dict(averaged(state))
    noise = drawing.noise(3, torch.Generator().manual_seed(2))
    noise[:, 64:] = torch.tensor([0.0, 0.0, 1.0, 0.0])
    expected = drawing.generator.eval()(noise)
    assert_close(function_of_page("draw")(folder, 3, seed=2, of_class=2), expected)


def test_the_function_of_the_page_reads_pictures(tmp_path: Path):
    for number, name in enumerate(("b.jpg", "a/c.png")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (10 + number, 8), (255, 0, 51)).save(path, quality=100, subsampling=0)
    images = function_of_page("pictures")(tmp_path, 8)
    assert images.shape == (2, 3, 8, 8)
    assert_close(images[0, :, 3, 4], torch.tensor([1.0, -1.0, -0.6]))
    assert_close(images[1], images[0], rtol=0, atol=0.03)  # by the losses of JPEG


@pytest.mark.parametrize(
    "options",
    [
        ("--encoder", "random:0", "--encoder", "random:1"),
        ("--reference", "resampled", "--conditional"),
        ("--reference", "nystrom", "--landmarks", "50", "--balance", "floors"),
    ],
)
def test_a_run_goes_on_bit_for_bit(options: tuple[str, ...], finished: Path, tmp_path: Path):
    whole = finished if "random:1" in options else run(tmp_path / "whole", *options)
    folder = run(tmp_path / "run", *options, "--iterations", "5")
    run(folder, *options, "--iterations", "10", "--resume", "auto", "--micro-batch", "8")
    ignored = {"configuration": None}
    assert_equal(state_of(whole) | ignored, state_of(folder) | ignored)
    assert log(whole) == log(folder)
    assert contents(whole / "samples") == contents(folder / "samples")


def test_a_run_stops_after_cpu_seconds_and_goes_on_with_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seconds = iter(range(1000))
    monkeypatch.setattr(clock.time, "process_time", lambda: next(seconds))  # each step takes a second
    folder = run(tmp_path / "run", "--cpu-seconds", "3")
    assert read_lines(folder / "log.jsonl")[-1]["iteration"] == 3
    assert (folder / "samples" / "iteration-00000003.png").exists()
    run(folder, "--cpu-seconds", "4.5", "--resume", "auto")
    assert [line["cpu_seconds"] for line in read_lines(folder / "log.jsonl")] == [1, 2, 3, 4, 5]


def test_a_run_that_a_signal_ends_leaves_a_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    take = MovingAverage.update_parameters

    def interrupted(average: MovingAverage, generator: nn.Module) -> None:
        take(average, generator)
        if average.n_averaged == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(MovingAverage, "update_parameters", interrupted)
    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
        run(tmp_path / "run")
    assert sorted(contents(tmp_path / "run" / "samples")) == [f"iteration-{step:08d}.png" for step in (0, 3)]
    assert state_of(tmp_path / "run")["iteration"] == 3


def test_fewer_images_are_some_of_those_that_are_not_held_out():
    (all_, held_out), (some, same) = split(256, 25, 0), split(256, 25, 0, 40)
    assert held_out.tolist() == same.tolist()
    assert len(some) == 40
    assert set(some.tolist()) < set(all_.tolist())
    assert set(split(256, 25, 1, 40)[0].tolist()) != set(some.tolist())


def test_a_training_learns_from_as_many_images_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = []
    make = train.Objective

    def noted(name: str, rows: Rows, *rest: Any, **more: Any) -> Any:
        sizes.append(len(rows.features))
        return make(name, rows, *rest, **more)

    monkeypatch.setattr(train, "Objective", noted)
    run(tmp_path / "run", "--iterations", "1", "--learnt", "40")
    assert sizes == [40]


def test_a_run_warns_once_of_too_few_held_out_images_and_goes_on(tmp_path: Path):
    options = (*FEW, "--encoder", "random:0", "--encoder", "random:1")
    with pytest.warns(UsageWarning, match="Until then, ratio_to_real in the log is meaningless") as caught:
        folder = run(tmp_path / "run", "--iterations", "1", "--micro-batch", "1024", *options)
    assert [each.category for each in caught] == [UsageWarning]
    assert log(folder)[-1]["iteration"] == 1


def test_too_few_images_to_hold_some_out_are_refused(tmp_path: Path):
    settings = OneStep(out=tmp_path)
    with pytest.raises(RefusedError, match="held_out: expected at most 1 of 3 images, got 2"):
        train.check(Fabric(accelerator="cpu"), settings, 3)


def test_auto_is_relative_for_several_encoders_with_the_biased_mmd2(tmp_path: Path):
    two = {"out": tmp_path, "encoder": ("random:0", "pixels:4")}
    drift: Any = {"loss": "drift", "reference": "resampled"}
    for options, expected in (
        (two, "relative"),
        (two | {"balance": "none"}, "none"),
        (two | {"estimator": "unbiased"}, "none"),
        (two | drift, "none"),
        ({"out": tmp_path}, "none"),
        ({"out": tmp_path, "balance": "floors"}, "floors"),
    ):
        assert resolved(OneStep(**options)).balance == expected


def test_classes_of_a_folder_are_its_folders(tmp_path: Path):
    pytest.importorskip("torchvision")
    data = tmp_path / "data"
    for number in range(12):
        path = data / "cba"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 8), (20 * number, 0, 0)).save(path)
    options = [*SMALL, "--batch-size", "6", "--iterations", "2", "--width", "2"]
    command = ["folder", "--data-root", str(data), "--out", str(tmp_path / "run"), *options, "--conditional"]
    state = state_of(train.main(command))
    assert state["configuration"]["classes"] == 3
    assert sampler(state["configuration"]).noise(5, torch.Generator())[:, 64:].sum(1).tolist() == [1] * 5


# Refusals

DRIFT = ("--loss", "drift", "--reference", "resampled")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", "30"), "size: expected 4 times a power of 2"),
        (("--factor", "0"), "factor: expected numbers > 0"),
        (("--batch-size", "1"), "batch_size: expected a number >= 2, got 1"),
        (("--loss", "drift"), "reference: expected resampled with --loss drift, got exact"),
        (("--kernel", "energy", "--reference", "nystrom"), "kernel: expected a positive definite kernel with --refer"),
        (("--kernel", "energy", "--conditional"), "kernel: expected a positive definite kernel with --conditional"),
        (("--kernel", "matern", "--reference", "fourier"), "kernel: expected gaussian with --reference fourier, got m"),
        (("--reference", "fourier", "--conditional"), "reference: expected exact, nystrom or resampled with --cond"),
        (("--estimator", "unbiased", "--balance", "relative"), "balance: expected auto or none with --estimator unb"),
        ((*DRIFT, "--balance", "relative"), "balance: expected auto or none with --loss"),
        (("--balance", "None"), "Expected one of ('auto', 'none', 'relative', 'floors')"),
        (("--balance", "floors", *FEW), "held_out: expected enough images to estimate MMD^2 of 1024 real"),
        ((*DRIFT, "--estimator", "unbiased"), "estimator: expected biased"),
        (("--guidance", "2"), "guidance: expected 1 unless --conditional is used with --reference exact or"),
        (
            ("--conditional", "--guidance", "2", "--balance", "floors"),
            "balance: expected auto, none or relative with --guidance 2, got floors",
        ),
        (("--betas", "0.5", "1"), "betas: expected two numbers >= 0 and < 1, got (0.5, 1.0)"),
        (("--norm", "batch"), "micro_batch: expected at least the --batch-size of 16 with --norm batch"),
        (("--guidance", "0.5"), "guidance: expected a number >= 1, got 0.5"),
        (("--held-out", "255"), "held_out: expected at most 254 of 256 images, got 255"),
        (
            ("--held-out", "100", "--learnt", "157"),
            "learnt: expected at most the 156 images that are not held out, got 157",
        ),
        (("--encoder", "random:0", "--encoder", "random:0"), "encoder: expected different ones"),
        (("--encoder", "nothing"), "encoder: nothing cannot be loaded: expected one of"),
        ((*DRIFT, "--conditional", "--batch-size", "6"), "batch_size: expected a multiple of the 4"),
        (("--dataset", "cifar10"), "dataset: cifar10 has images of size 32 with 3 channels"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_the_name_of_the_option(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    said = refusal(capsys, lambda: run(tmp_path / "run", *options))
    assert message in " ".join(said.replace("│", " ").split())


@pytest.mark.slow
def test_wrong_options_are_refused_before_the_slow_imports():
    code = """
import sys
from one_step import command
try:
    command.main(["folder", "--guidance", "2"])
except SystemExit:
    print("torch_mmd_losses" in sys.modules, "lightning_fabric" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=EXAMPLES, capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["False", "False"], ended.stderr


# Several processes

WORLD = 2
TOGETHER: dict[str, tuple[str, ...]] = {
    "exact": ("--encoder", "random:0", "--encoder", "random:1"),
    "nystrom": ("--reference", "nystrom", "--landmarks", "50", "--micro-batch", "3"),
    "resampled": ("--reference", "resampled", "--real-batch", "24", "--clip", "0.01", "--estimator", "unbiased"),
    "conditional": ("--conditional", "--guidance", "1.5", "--micro-batch", "4"),
    "drift": DRIFT,
    "uneven": ("--batch-size", "15"),
    "batch": ("--norm", "batch", "--micro-batch", "16"),
    "no data": (),
    "no classes": ("--conditional",),
    "no encoder": (),
}
REFUSED = {
    "uneven": "batch_size: expected a multiple of the 2 processes, got 15",
    "drift": "loss: expected mmd with 2 processes, got drift",
    "batch": "norm: expected layer with 2 processes, got batch",
    "no data": "not here",
    "no classes": "not here",
    "no encoder": "not here",
}
SHORT = ("--iterations", "3", "--micro-batch", "8")


def refuse(*_: object, **__: object) -> None:
    raise RefusedError("not here")


def one_of_two(rank: int, folder: Path, name: str) -> None:
    """Train, but let the second process not find what it needs."""
    if rank == 1 and name.startswith("no "):
        holder: Any = encoders if name == "no encoder" else train
        setattr(holder, {"no data": "load_images", "no classes": "classes_of", "no encoder": "load"}[name], refuse)
    run(folder / name, *SHORT, *TOGETHER[name])


def process(rank: int, folder: str, ports: list[int]) -> None:
    """Be one of two processes, which forks for each run, and note how it ends."""
    torch.set_num_threads(1)
    os.dup2(os.open(f"{folder}/{rank}.err", os.O_WRONLY | os.O_CREAT), 2)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "tests"}
    os.environ |= {"WORLD_SIZE": str(WORLD), "LOCAL_WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    ended = {}
    for name, port in zip(TOGETHER, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        ended[name] = in_a_fork(partial(one_of_two, rank, Path(folder), name))
    Path(folder, f"{rank}.json").write_text(json.dumps(ended), encoding="utf-8")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    # What torchrun holds for its processes: the stores by which they find each other, at ports of their own.
    stores = [dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in TOGETHER]
    start(process, WORLD, str(folder), [store.port for store in stores])
    return folder


def ends(folder: Path, name: str) -> list[int]:
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8"))[name] for rank in range(WORLD)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TOGETHER if name not in REFUSED])
def test_two_processes_train_like_one_with_the_joint_batch(name: str, together: Path, tmp_path: Path):
    expected = run(tmp_path / "alone", *SHORT, *TOGETHER[name])
    assert ends(together, name) == [0, 0], (together / "0.err").read_text(encoding="utf-8")
    # In float32, of which small differences of large sums lose digits.
    assert_close(log(expected), log(together / name), rtol=1e-3, atol=1e-5)
    generators = [dict(state_of(folder)["generator"]) for folder in (expected, together / name)]
    assert_close(*generators, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_one_of_several_processes_cannot_do_ends_all(name: str, together: Path):
    assert ends(together, name) == [2, 2]
    assert REFUSED[name] in (together / "0.err").read_text(encoding="utf-8")


# Rehearsals of the real sizes


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("one_step_fashion_mnist", ("--micro-batch", "8", "--held-out", "25")),
        ("one_step_cifar10", ("--reference", "nystrom", "--landmarks", "64", "--kernel", "laplace")),
        ("one_step_folder", ("--size", "64", "--conditional", "--kernel", "imq")),
        pytest.param(
            *("one_step_folder", ("--size", "256", "--precision", "bf16-mixed", "--estimator", "unbiased")),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_each_script_trains_on_generated_images_of_its_real_size(
    script: str, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small = ["--dataset", "fake", "--width", "1", "--batch-size", "8", "--micro-batch", "4", "--iterations", "2"]
    folder = tmp_path / "run"
    monkeypatch.setattr("sys.argv", [script, *small, "--quiet", "--device", "cpu", "--out", str(folder), *options])
    runpy.run_path(str(Path(train.__file__).parents[1] / f"{script}.py"), run_name="__main__")
    assert log(folder)[-1]["iteration"] == 2
    with Image.open(folder / "samples" / "iteration-00000002.png") as sheet:
        size = int(options[1]) if "--size" in options else 32
        assert sheet.size == (8 * (size + 4),) * 2
        assert sheet.mode == ("L" if script == "one_step_fashion_mnist" else "RGB")
