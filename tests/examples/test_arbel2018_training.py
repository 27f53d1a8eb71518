"""Whole runs of the scripts of Arbel et al.: what they leave behind, how they go on, and how they judge themselves."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import tyro
from arbel2018 import train
from arbel2018.figures import fig2b_singular_values
from arbel2018.kid_schedule import kid_schedule
from arbel2018.networks import make_critic
from arbel2018.presets import METHODS, PRESETS, REDUCTION, Arbel2018, resolved
from lightning_fabric import Fabric
from PIL import Image
from processes import leave, start
from torch import Tensor, nn
from torch.testing import assert_close
from trained import assert_equal
from training import checkpoints, images
from training.files import read_lines
from training.run import Run, gradient_norm
from training.sampling import averaged

EXAMPLES = Path(__file__).parents[2] / "examples"
PAPER = [name for name, preset in PRESETS.items() if preset.dataset in ("cifar10", "celeba", "imagenet")]
POOLING = """
from torch import nn

def load():
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
"""


def run(folder: Path, *options: str, preset: str = "fake-sn-smmd") -> Path:
    """Run the smallest training, on generated images."""
    return train.main([preset, "--out", str(folder), "--quiet", "--device", "cpu", *options])


def log(folder: Path, name: str = "log") -> list[dict[str, Any]]:
    """Read a log of a run but the speed."""
    return [{**line, "iterations_per_second": 0} for line in read_lines(folder / f"{name}.jsonl")]


def state(folder: Path, iteration: int) -> dict[str, Any]:
    return checkpoints.read(checkpoints.path_of(folder / "checkpoints", iteration))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture(scope="module")
def pooling(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of a network whose features are means of neighbouring pixels."""
    path = tmp_path_factory.mktemp("features") / "pooling.py"
    path.write_text(POOLING, encoding="utf-8")
    return str(path)


@pytest.fixture
def judged(pooling: str) -> list[str]:
    """Return options of a run that judges itself every second iteration."""
    return ["--kid-features", pooling, "--kid-images", "16", "--kid-every", "2", "--kid-memory", "2"]


# What a run is


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_each_preset_trains_on_fake_data_of_its_real_shape(name: str, tmp_path: Path):
    reduced = "--dataset fake --width 1 --batch-size 2 --critic-steps 1 --iterations 4 --workers 0"
    folder = run(tmp_path / "run", *reduced.split(), preset=name)
    assert log(folder)[-1]["iteration"] == 4
    with Image.open(folder / "samples" / "iteration-00000004.png") as sheet:
        assert sheet.size == (8 * (PRESETS[name].size + 4),) * 2


@pytest.mark.parametrize("method", METHODS)
def test_each_method_trains(method: str, tmp_path: Path):
    folder = run(tmp_path / "run", "--iterations", "2", preset=f"fake-{method}")
    assert [line["iteration"] for line in log(folder)] == [1, 2]
    assert log(folder, "singular_values")[0].keys() == {"iteration", "singular_values", "iterations_per_second"}


def test_a_run_leaves_its_settings_two_logs_samples_and_checkpoints(finished: Path):
    files = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    assert files == {
        "configuration.json",
        "log.jsonl",
        "singular_values.jsonl",
        "training.lock",
        *(f"samples/iteration-{iteration:08d}.png" for iteration in (0, 10, 20)),
        *(f"checkpoints/iteration-{iteration:08d}.pt" for iteration in (10, 20)),
    }
    lines = log(finished)
    assert [line["iteration"] for line in lines] == [1, 5, 10, 15, 20]
    for line in lines:
        assert line["lr_discriminator"] == line["lr_generator"] == 1e-4
        assert min(line["gradient_norm_discriminator"], line["gradient_norm_generator"]) > 0
        assert "kid_p_value" not in line
    spectra = log(finished, "singular_values")
    assert [line["iteration"] for line in spectra] == [1, 10, 20]
    for line in spectra:
        assert len(line["singular_values"]) == 8
        assert all(values[0] > 0 for values in line["singular_values"].values())


def test_the_scripts_take_a_method_and_the_options_of_its_preset(capsys: pytest.CaptureFixture[str]):
    for dataset in ("cifar10", "celeba", "imagenet", "fashion-mnist", "fake"):
        assert f'script("{dataset}", ' in (EXAMPLES / f"smmd_{dataset.replace('-', '_')}.py").read_text()
        assert train.script(dataset, "Train.", ["--dry-run"]) == Path(f"runs/smmd-{dataset}-sn-smmd")
        capsys.readouterr()
        folder = train.script(dataset, "Train.", ["--width", "5", "--method=wgan-gp", "--dry-run"])
        assert folder == Path(f"runs/smmd-{dataset}-wgan-gp")
        chosen = json.loads(capsys.readouterr().out)
        assert (chosen["dataset"], chosen["loss"], chosen["width"]) == (dataset, "wgan", 5)
    with pytest.raises(SystemExit, match="0"):
        train.script("celeba", "What it is.", ["--method", "smmd", "--help"])
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("What it is.", "--method {smmd,sn-smmd,", "--scale-weight", "default: 0.1"))
    with pytest.raises(SystemExit, match="2"):
        train.script("celeba", "Train.", ["--method", "dcgan"])
    assert "argument --method: invalid choice: 'dcgan'" in capsys.readouterr().err


def test_the_singular_values_of_a_run_are_drawn(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "picture.png"
    tyro.cli(fig2b_singular_values.main, args=[str(finished), "--out", str(out)])
    with Image.open(out) as picture:
        assert picture.width > 500
    assert str(out) in capsys.readouterr().out
    for content, message in (
        ("", "there are no singular values in"),
        ("{}\n", "singular_values.jsonl, line 1: expected"),
    ):
        (tmp_path / "singular_values.jsonl").write_text(content)
        with pytest.raises(SystemExit, match=message):
            fig2b_singular_values.main(tmp_path)


def test_samples_can_be_drawn_from_a_checkpoint(finished: Path):
    saved = state(finished, 20)
    found = train.sampler(saved["configuration"])
    found.generator.load_state_dict(averaged(saved))
    noise = found.noise(64, torch.Generator().manual_seed(0))
    assert noise.shape == (64, 128)
    assert -1 <= noise.min() < -0.99
    assert 0.99 < noise.max() < 1
    drawn = found.centred(found.generator.eval()(noise)).detach()
    assert -1 < drawn.min() < drawn.max() < 1
    with Image.open(finished / "samples" / "iteration-00000020.png") as sheet:
        pixels = np.asarray(sheet)[2:34, 2:34].transpose(2, 0, 1)
    assert np.abs((drawn[0].numpy() + 1) * 127.5 - pixels).max() <= 0.51
    assert found.real(Path(), "train")[[0]].shape == (1, 3, 32, 32)


# The updates


class Recorder(nn.Module):
    """The Wasserstein losses, with a note of who was asked and what was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, Tensor, Tensor, Tensor]] = []

    def _note(self, who: str, critic: nn.Module, real: Tensor, fake: Tensor) -> None:
        self.seen.append((who, next(critic.parameters()).detach().clone(), real, fake))

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        self._note("critic", critic, real, fake)
        return critic(fake).mean() - critic(real).mean()

    def generator_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        self._note("generator", critic, real, fake)
        return -critic(fake).mean()


def test_the_critic_is_updated_first_and_each_time_on_new_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recorder = Recorder()
    monkeypatch.setattr(train, "make_loss", lambda settings: recorder)
    run(tmp_path / "run", "--iterations", "2", "--critic-steps", "3")
    assert [who for who, *_ in recorder.seen] == (["critic"] * 3 + ["generator"]) * 2
    order = np.random.default_rng((0, 0)).permutation(256)
    everything = images.fake(32, 3)
    for number, (who, _, real, fake) in enumerate(recorder.seen):
        assert torch.equal(real, everything[order[4 * number : 4 * number + 4]] / 255)
        assert fake.requires_grad == (who == "generator")
        assert 0 < fake.min() < fake.max() < 1
    assert len({fake.sum().item() for *_, fake in recorder.seen}) == 8
    weights = [weight.numpy().tobytes() for _, weight, *_ in recorder.seen]
    assert len(set(weights)) == 7  # which only the generator's updates leave as they are
    assert weights[3] == weights[4]


def test_updates_are_those_of_adam_with_each_gradient_clipped_by_itself():
    small, large, none = torch.tensor([0.3, 0.4]), torch.tensor([[3.0], [4.0]]), torch.zeros(2)
    fabric = Fabric(accelerator="cpu", devices=1)
    for clip_norm, clipped in ((1.0, torch.tensor([[0.6], [0.8]])), (0.0, large)):
        network = nn.ParameterList(nn.Parameter(torch.ones_like(gradient)) for gradient in (small, large, none))
        adam = torch.optim.Adam(network.parameters(), 0.25, train.BETAS)
        loss = sum((gradient * p).sum() for gradient, p in zip((small, large, none), network, strict=True))
        train.update(adam, network, loss, fabric=fabric, clip_norm=clip_norm)
        assert_close([p.grad for p in network], [small, clipped, none])
        assert_close(
            [p.detach() for p in network],
            [torch.full_like(g, 0.75) if g.any() else g + 1 for g in (small, large, none)],
        )
        assert_close(gradient_norm(network.parameters()), torch.cat([small, clipped[:, 0]]).norm())
    assert train.BETAS == (0.5, 0.9)


@pytest.mark.parametrize(("family", "loss"), [*((family, "sobolev") for family in REDUCTION), ("sngan", "gan")])
def test_all_parameters_of_all_networks_are_trained(family: str, loss: str, tmp_path: Path):
    size = REDUCTION[family]
    options = ["--loss", loss, "--family", family, "--size", str(size), "--width", "2", "--iterations", "2"]
    folder = run(tmp_path / "run", *options)
    settings = resolved(Arbel2018(out=Path(), **state(folder, 2)["configuration"]))
    torch.manual_seed(settings.seed)
    for name, network in (("generator", train.make_generator(settings)), ("discriminator", make_critic(settings))):
        after = state(folder, 2)[name]
        moved = [not torch.equal(after[key], before) for key, before in network.named_parameters()]
        assert sum(moved) >= len(moved) - 1  # the last bias cancels in all losses but one
        assert any(key.endswith("scale") for key, _ in network.named_parameters()) == (
            name == "discriminator" and loss == "sobolev"
        )


# Going on


@pytest.mark.parametrize("method", ["sn-smmd", "wgan-gp", "sobolev-gan"])
def test_a_run_that_went_on_is_that_which_was_never_stopped(method: str, judged: list[str], tmp_path: Path):
    options = [*judged, "--kid-failures", "1", "--log-every", "1", "--spectrum-every", "3", "--ema-decay", "0.5"]
    options += ["--sobolev-rho", "0.1"]
    preset = f"fake-{method}"
    whole = run(tmp_path / "whole", *options, "--iterations", "11", preset=preset)
    parts = run(tmp_path / "parts", *options, "--iterations", "7", preset=preset)
    run(parts, *options, "--iterations", "11", "--resume", "auto", preset=preset)
    assert_equal(state(whole, 11), state(parts, 11))
    assert log(whole) == log(parts)
    # The end of the shorter run was due there.
    expected = [line for line in log(parts, "singular_values") if line["iteration"] != 7]
    assert log(whole, "singular_values") == expected


def test_crops_and_mirror_images_of_celeba_go_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    everything = torch.randint(0, 256, (40, 3, 178, 178), dtype=torch.uint8)
    monkeypatch.setattr(train.data, "load", lambda *args, **options: everything)
    seen: list[Tensor] = []
    augmented = train.data.augmented
    monkeypatch.setattr(train.data, "augmented", lambda *args: seen.append(augmented(*args)) or seen[-1])
    options = ["--width", "1", "--batch-size", "2", "--critic-steps", "1", "--checkpoint-every", "1", "--workers", "0"]
    whole = run(tmp_path / "whole", *options, "--iterations", "2", preset="celeba-smmd")
    first, seen[:] = list(seen), []
    parts = run(tmp_path / "parts", *options, "--iterations", "1", preset="celeba-smmd")
    run(parts, *options, "--iterations", "2", "--resume", "auto", preset="celeba-smmd")
    assert_equal(first, seen)
    assert_equal(state(whole, 2), state(parts, 2))
    assert {part.shape for part in seen} == {(2, 3, 160, 160)}


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_last_bit(judged: list[str], tmp_path: Path):
    options = [*judged, "--kid-failures=1", "--device", "cpu", "--checkpoint-every", "3", "--iterations", "40"]
    whole = run(tmp_path / "whole", *options)
    folder, random = tmp_path / "killed", np.random.default_rng(0)
    command = [sys.executable, str(EXAMPLES / "smmd_fake.py"), *options, "--out", str(folder), "--resume", "auto"]
    kills = 0
    while True:
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        before = len(read_lines(folder / "log.jsonl", growing=True))
        while process.poll() is None and len(read_lines(folder / "log.jsonl", growing=True)) <= before + 2:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
    assert kills >= 2
    assert_equal(state(whole, 40), state(folder, 40))


def test_a_run_that_goes_back_drops_later_singular_values(tmp_path: Path):
    folder = run(tmp_path / "run", "--iterations", "4", "--checkpoint-every", "2", "--spectrum-every", "2")
    chosen = checkpoints.path_of(folder / "checkpoints", 2)
    run(folder, "--resume", str(chosen), "--iterations", "3")
    assert [line["iteration"] for line in log(folder, "singular_values")] == [1, 2, 3]


# The learning rates


def test_learning_rates_fall_when_samples_do_not_improve(judged: list[str], tmp_path: Path):
    # A generator that hardly moves does not improve significantly but by chance.
    still = ["--lr-generator", "1e-12", "--lr-least", "1e-13", "--kid-failures", "2", "--lr-factor", "0.5"]
    folder = run(tmp_path / "run", *judged, *still, "--log-every", "1", "--iterations", "14", "--seed", "1")
    lines = log(folder)
    assert (lines[0]["kid_p_value"], lines[0]["kid_failures"]) == (None, 0)
    # Two evaluations are remembered; each pair of failures from then on halves the rates, and keeps two.
    assert [line["kid_p_value"] is None for line in lines[1::2]] == [True, True, *[False] * 5]
    assert [line["lr_generator"] for line in lines[1::2]] == [1e-12] * 3 + [0.5e-12] * 2 + [0.25e-12] * 2
    assert [line["lr_discriminator"] for line in lines[1::2]] == [1e-4] * 3 + [0.5e-4] * 2 + [0.25e-4] * 2
    assert state(folder, 14)["kid_schedule"]["failures"] == 1
    # They are those of the checkpoint, whatever the options say.
    run(folder, *judged, *still, "--resume", "auto", "--force", "--lr-generator", "0.5", "--iterations", "15")
    assert math.isclose(log(folder)[-1]["lr_generator"], 0.25e-12)


def test_a_test_without_a_variance_is_a_failure_and_no_reason_to_stop(tmp_path: Path):
    path = tmp_path / "constant.py"
    constant = "nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Threshold(9.0, 1.0))"
    path.write_text(f"from torch import nn\n\ndef load():\n    return {constant}\n")
    options = "--kid-images 16 --kid-every 1 --kid-memory 2 --kid-failures 2 --log-every 1 --iterations 4"
    lines = log(run(tmp_path / "run", "--kid-features", str(path), *options.split()))
    assert [line["kid_p_value"] for line in lines] == [None] * 4
    assert [line["kid_failures"] for line in lines] == [0, 0, 1, 0]
    assert math.isclose(lines[-1]["lr_generator"], 0.8e-4)


def test_features_are_those_of_bytes_of_real_images_and_of_samples(pooling: str):
    settings = resolved(Arbel2018(out=Path(), dataset="fake", kid_features=pooling, kid_images=100))
    schedule = kid_schedule(Fabric(accelerator="cpu", devices=1), settings, [])
    picked = np.sort(np.random.default_rng(0).permutation(256)[:100])
    pixels = images.fake(32, 3)[picked]
    assert_close(schedule.real, nn.functional.avg_pool2d(pixels / 127.5 - 1, 4).flatten(1).double())
    assert not schedule.real.is_inference()  # whose mean over the processes could not be taken in place
    assert torch.equal(schedule.features(pixels), schedule.real)


# Several processes

WORLD = 2
CASES = {"smmd": ["--loss", "smmd"], "sobolev": ["--loss", "sobolev", "--sobolev-rho", "0.1"]}
BLOCKS = ["--size", "8", "--width", "2", "--batch-size", "4", "--normalisation", "none", "--iterations", "2"]


def steep_critic(settings: Arbel2018) -> nn.Sequential:
    """Return a critic whose gradient at the images is not lost beside 1."""
    critic = make_critic(settings)
    for parameter in critic.parameters():
        parameter.data.mul_(10)
    return critic


def process(rank: int, meeting: str, folder: str, judged: list[str]) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD, "GROUP_RANK": 0}
    os.environ |= {name: str(number) for name, number in ranks.items()} | {"TORCHELASTIC_RUN_ID": "test"}
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD)

    def save(self: Run, state: dict[str, Any]) -> None:
        found = {name: part.state_dict() for name, part in state.items() if hasattr(part, "state_dict")}
        torch.save(found, Path(folder) / f"{current}-{rank}.pt")

    Run._save = save  # type: ignore[method-assign]
    train.make_critic = steep_critic
    for current, case in (CASES | {"judged": ["--loss", "smmd", *judged]}).items():
        run(Path(folder) / current, *BLOCKS, *case)
    leave()


def reference(options: list[str]) -> dict[str, Any]:
    """Train in one process by the mean of the losses of the halves of each batch that two processes would have."""
    settings = resolved(train.read(PRESETS, "", ["fake-sn-smmd", *BLOCKS, *options]))
    torch.manual_seed(0)
    loss, generator, critic = train.make_loss(settings), train.make_generator(settings), steep_critic(settings)
    adams = [torch.optim.Adam(network.parameters(), 1e-4, train.BETAS) for network in (critic, generator)]
    random, everything = torch.Generator().manual_seed(0), images.fake(8, 3) / 255
    order = iter(np.random.default_rng((0, 0)).permutation(256).reshape(-1, 8))
    fabric = Fabric(accelerator="cpu", devices=1)

    def step(network: nn.Module, adam: torch.optim.Optimizer, of: Callable[..., Tensor]) -> None:
        real, noise = everything[next(order)], torch.rand(8, 128, generator=random) * 2 - 1
        before = [buffer.clone() for buffer in loss.buffers()]
        values, after = [], []
        for half in (slice(0, None, 2), slice(1, None, 2)):
            for buffer, value in zip(loss.buffers(), before, strict=True):
                buffer.data = value.clone()
            fake = generator(noise[half])
            values.append(of(critic, real[half], fake if network is generator else fake.detach()))
            after.append([buffer.clone() for buffer in loss.buffers()])
        train.update(adam, network, torch.stack(values).mean(), fabric=fabric, clip_norm=1.0)
        for buffer, *found in zip(loss.buffers(), *after, strict=True):
            buffer.data = torch.stack(found).mean(0)

    for _ in range(2):
        for _ in range(settings.critic_steps):
            step(critic, adams[0], loss.critic_loss)
        step(generator, adams[1], loss.generator_loss)
    networks = {"generator": generator, "discriminator": critic}
    parameters = {name: dict(network.named_parameters()) for name, network in networks.items()}
    return parameters | {"loss": loss.state_dict(), "noise": random.get_state()}


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_two_processes_train_by_the_mean_of_their_own_losses(pooling: str, tmp_path: Path):
    judged = f"--kid-features {pooling} --kid-images 8 --kid-every 1 --kid-memory 1 --kid-failures 1".split()
    start(process, WORLD, (tmp_path / "meeting").as_uri(), str(tmp_path), judged)
    for name in (*CASES, "judged"):
        first, second = (torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in range(WORLD))
        own = [each["generator"] for each in (first, second)]
        for key, value in first["average"].items():
            if "running" in key:  # the statistics of each process's own batches, of which the average has the mean
                ours, theirs = (each.pop(key.removeprefix("module.")) for each in own)
                assert not torch.equal(ours, theirs)
                assert_close(value, (ours + theirs) / 2)
        assert_equal(first, second)
        if name in CASES:
            torch.set_default_dtype(torch.float64)
            try:
                expected = reference(CASES[name])
            finally:
                torch.set_default_dtype(torch.float32)
            assert torch.equal(first["randomness"]["noise"], expected.pop("noise"))
            assert (name == "sobolev") == bool(expected["loss"].get("multiplier", 0) != 0)
            for part, values in expected.items():
                assert_close({key: first[part][key] for key in values}, dict(values), rtol=1e-7, atol=1e-9)
    assert first["kid_schedule"]["remembered"]


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "float16"], "precision"),
        (["--gradient-penalty", "1"], "gradient_penalty: expected 0 for smmd, got 1.0"),
        (["--kid-features", "nowhere.pt", "--kid-images", "16"], "features: expected inception or the path of a file"),
        (["--kid-features", "POOLING", "--kid-images=257"], "kid_images: expected at most the number of images, 256"),
        (["--batch-size", "300"], "batch_size: expected at most the number of images, 256; got 300"),
    ],
)
def test_what_cannot_be_trained_is_explained(
    options: list[str], message: str, pooling: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = [pooling if option == "POOLING" else option for option in options]
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path / "run", *options)
    assert message in capsys.readouterr().err


def test_an_error_in_a_file_of_features_is_told_with_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "judge.py"
    path.write_text("def load(): raise OSError('no weights')\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path / "run", "--kid-features", str(path), "--kid-images", "16")
    assert f"{path} that returns a torch.nn.Module, got OSError: no weights\n" in capsys.readouterr().err


def test_a_changed_method_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        run(finished, "--resume", "auto", "--iterations", "21", preset="fake-smmd")
    assert "normalisation was 'matrix' and is 'none'" in capsys.readouterr().err


def test_training_that_breaks_down_stops_with_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="1"):
        run(tmp_path / "run", "--lr-discriminator", "1e37", "--clip-norm", "0", preset="fake-wgan-gp")
    said = capsys.readouterr().err
    assert "Stopped at iteration " in said
    assert all(word in said for word in (", where ", " Try ", "--gradient-penalty", "--seed"))


def test_weights_that_are_lost_between_lines_of_the_log_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    update, updated = train.update, []

    def losing(adam: torch.optim.Optimizer, network: nn.Module, *args: Any, **options: Any) -> None:
        update(adam, network, *args, **options)
        updated.append(network)
        if len(updated) == 4:  # the first update of the critic in the second iteration
            next(network.parameters()).data.fill_(math.nan)

    monkeypatch.setattr(train, "update", losing)
    with pytest.raises(SystemExit, match="1"):
        run(tmp_path / "run", "--spectrum-every", "1", "--log-every", "100", preset="fake-wgan-gp")
    said = capsys.readouterr().err
    assert "Stopped at iteration 2, where weights of the discriminator are not finite. Try lower learning" in said
