"""Training by several processes: two do what one does with the joint batch, stop together and go on together."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from dcgan import record
from dcgan.configuration import Configuration, resolved
from dcgan.gan import GAN
from dcgan.joint_norm import JointBatchNorm2d
from dcgan.losses import make_loss
from dcgan.penalty import penalised
from dcgan.processes import ALONE, Group, joined
from processes import in_a_fork, start
from test_dcgan_training import EXAMPLES, assert_equal, assert_same_run, last_state, log
from torch import Tensor, nn
from torch.testing import assert_close

from torch_mmd_losses.results import Losses

pytestmark = pytest.mark.xdist_group("processes")

WORLD = 2
STEPS = 2  # the second from what the first has left
CASES: dict[str, dict[str, Any]] = {
    "mmd-rep-b": {"loss": "mmd-rep-b"},
    "mmd-rep-b by turns": {"loss": "mmd-rep-b", "updates": "alternating"},
    "hinge": {"loss": "hinge"},
    "hinge by turns": {"loss": "hinge", "updates": "alternating"},
    "penalty": {"loss": "mmd-rep", "gradient_penalty": 0.1},
    "penalty by turns": {"loss": "mmd-rep", "gradient_penalty": 0.1, "updates": "alternating"},
    "blocks": {"loss": "mmd-rep-b", "across": "blocks"},
    "blocks by turns": {"loss": "mmd-rq", "across": "blocks", "updates": "alternating"},
    "blocks and penalty": {"loss": "mmd-rep", "across": "blocks", "gradient_penalty": 0.1},
}


class Blocks(GAN):
    """In one process, the mean of the losses of the blocks that several processes would have."""

    def _play(self, real: Tensor, fake: Tensor) -> tuple[Losses, Tensor, Tensor]:
        real = real.detach().requires_grad_()
        real_scores, fake_scores = self.discriminator(torch.cat([real, fake])).chunk(2)
        loss, weight = make_loss(self.configuration.loss), self.configuration.gradient_penalty
        found = []
        for ours, theirs in zip(real_scores.chunk(WORLD), fake_scores.chunk(WORLD), strict=True):
            losses = loss.both(real=ours, fake=theirs)
            if weight:
                # Scores of this block do not depend on the images of the others, whose gradients are zero.
                (gradient,) = torch.autograd.grad(ours.sum(), real, create_graph=True)
                steepness = gradient.square().sum() / len(ours)
                losses = losses._replace(discriminator=penalised(losses.discriminator, steepness, weight))
            found.append(losses)
        return Losses(*(torch.stack(values).mean() for values in zip(*found, strict=True))), real_scores, fake_scores


def images(step: int) -> Tensor:
    return torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(step)) * 2 - 1


def play(settings: dict[str, Any], group: Group, kind: type[GAN] = GAN) -> dict[str, Any]:
    """Train a few steps in float64, and return all that is left."""
    torch.manual_seed(0)
    gan = kind(resolved(Configuration(dataset="fake", width=2, batch_size=8, device="cpu", **settings)), group)
    lines = []
    for number in range(STEPS):
        step = gan.step(images(number)[group.rows(8)])
        lines.append(record.measure(gan, step, 0.0))
        if "k_rr" in lines[-1] and settings.get("across") == "blocks":
            del lines[-1]["k_rr"], lines[-1]["k_rf"], lines[-1]["k_ff"], lines[-1]["saturated"]  # means of other pairs
    gradients = [parameter.grad for net in (gan.generator, gan.discriminator) for parameter in net.parameters()]
    return copy.deepcopy({"state": gan.state_dict(), "gradients": gradients, "lines": lines})


def normalise(group: Group) -> dict[str, Tensor]:
    """Run joint batch normalisation forth and back, with other gradients in each process."""
    norm = JointBatchNorm2d(3, momentum=0.25)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    rows = group.rows(8)
    # Far from zero, where the difference of two squares would be no variance.
    x = (images(0)[rows] + 1e6 + torch.arange(8.0)[rows, None, None, None]).requires_grad_()
    out = norm(x)
    (out * images(1)[rows]).sum().backward()
    half = norm(images(2)[rows].half())
    assert half.dtype == torch.float16
    found = {"out": out.detach(), "grad": x.grad, "half": half.detach().double()}
    return found | {"weight": norm.weight.grad, "bias": norm.bias.grad} | dict(norm.named_buffers())


def process(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    os.environ |= {**JOIN, "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    with joined("cpu") as group:
        found: dict[str, Any] = {name: play(settings, group) for name, settings in CASES.items()}
        found["norm"] = normalise(group)
        found["largest"] = group.largest(10 * rank)
        found["first does"] = group.first_does(lambda: rank + 5)
        try:
            group.all_do(lambda: 1 / (1 - rank))
        except ZeroDivisionError as error:
            found["error"] = str(error)
        torch.save(found, Path(folder) / f"{rank}.pt")
    assert not dist.is_initialized()


def meeting_point() -> dist.TCPStore:
    """Return what torchrun holds for its processes: the store by which they find each other, at a port of its own."""
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


JOIN = {
    "WORLD_SIZE": str(WORLD),
    "MASTER_ADDR": "127.0.0.1",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RESTART_COUNT": "0",
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what two processes have found."""
    folder = tmp_path_factory.mktemp("pair")
    store = meeting_point()
    start(process, WORLD, store.port, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.fixture
def _double() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def close(first: object, second: object) -> None:
    """Compare nested numbers; float64 has 16 digits, of which Adam's quotients of small gradients cost some."""
    if isinstance(first, dict):
        assert isinstance(second, dict)
        assert first.keys() == second.keys()
        for key in first:
            if not str(key).endswith(".fingerprint"):  # which depends on every bit of a weight
                close(first[key], second[key])
    elif isinstance(first, list | tuple):
        for one, other in zip(first, second, strict=True):  # type: ignore[call-overload]
            close(one, other)
    elif isinstance(first, Tensor | float):
        assert_close(first, second, rtol=1e-7, atol=1e-9)
    else:
        assert first == second


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_like_one_with_the_joint_batch(name: str, pair: list[dict[str, Any]]):
    expected = play(CASES[name], ALONE, Blocks if CASES[name].get("across") else GAN)
    close(pair[0][name], expected)


@pytest.mark.parametrize("name", CASES)
def test_all_processes_hold_the_same_bits(name: str, pair: list[dict[str, Any]]):
    assert_equal(pair[0][name], pair[1][name])


@pytest.mark.usefixtures("_double")
def test_the_mean_of_blocks_is_not_the_loss_of_the_joint_batch(pair: list[dict[str, Any]]):
    first = [pair[0][name]["lines"][0]["loss_generator"] for name in ("mmd-rep-b", "blocks")]
    assert abs(first[0] - first[1]) > 1e-4


@pytest.mark.usefixtures("_double")
def test_joint_batch_normalisation_is_that_of_the_joint_batch(pair: list[dict[str, Any]]):
    parts = [found["norm"] for found in pair]
    norm = nn.BatchNorm2d(3, momentum=0.25)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    x = (images(0) + 1e6 + torch.arange(8.0)[:, None, None, None]).requires_grad_()
    out = norm(x)
    (out * images(1)).sum().backward()
    half = norm(images(2).half().double())
    # Numbers of 1e6 leave ten digits.
    assert_close(torch.cat([part["out"] for part in parts]), out.detach(), rtol=1e-7, atol=1e-7)
    assert_close(torch.cat([part["grad"] for part in parts]), x.grad, rtol=1e-7, atol=1e-7)
    assert_close(parts[0]["weight"] + parts[1]["weight"], norm.weight.grad, rtol=1e-7, atol=1e-7)
    assert_close(parts[0]["bias"] + parts[1]["bias"], norm.bias.grad)
    assert_close(torch.cat([part["half"] for part in parts]), half.detach(), rtol=2e-3, atol=2e-3)
    # The statistics of half precision are computed in float32.
    for name, buffer in norm.named_buffers():
        for part in parts:
            assert_close(part[name], buffer, rtol=1e-6, atol=1e-6)


def test_processes_agree(pair: list[dict[str, Any]]):
    for found in pair:
        assert found["largest"] == 10
        assert found["first does"] == 5
        assert found["error"] == "division by zero"


def test_one_process_needs_no_others():
    value = torch.ones(())
    assert ALONE.first
    assert ALONE.mean(value) is ALONE.joint_mean(value) is value
    assert ALONE.largest(3) == 3
    assert ALONE.rows(5) == slice(0, 5)
    with joined("cpu") as group:
        assert group is ALONE


@pytest.mark.parametrize(
    ("name", "gpus", "message"),
    [
        ("cuda:1", 8, "expected cuda, of which each of 4 processes takes one; got cuda:1"),
        ("cuda", 2, "found 2 for pro"),
    ],
)
def test_processes_do_not_share_a_gpu(name: str, gpus: int, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ValueError, match=message):
        Group(rank=3, count=4, rank_here=3).device(name)
    assert Group(rank=3, count=4, rank_here=1).device("cuda") == torch.device("cuda", 1)
    assert Group(rank=3, count=4, rank_here=3).device("cpu") == torch.device("cpu")
    assert ALONE.device("cuda:7") == torch.device("cuda", 7)


def test_a_batch_has_to_be_divided_evenly():
    assert [Group(rank, 3).rows(6) for rank in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    with pytest.raises(ValueError, match="batch_size: expected a multiple of the 3 processes, got 64"):
        Group(1, 3).rows(64)


# Whole runs

OPTIONS = ["--device", "cpu", "--batch-size", "8"]

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), *sys.path]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a run by two processes, and what they printed."""
    folder = tmp_path_factory.mktemp("runs") / "together"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(EXAMPLES / "dcgan_fake.py"), *OPTIONS, "--out", str(folder)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dcgan import script

    folder = tmp_path_factory.mktemp("runs") / "alone"
    return script.main("fake", "Train.", [*OPTIONS, "--quiet", "--out", str(folder)])


def test_torchrun_trains_like_one_process_and_writes_once(together: tuple[Path, str], alone: Path):
    folder, printed = together
    assert [line.split(":")[0] for line in printed.splitlines()[:-1]] == [
        f"iteration {iteration} of 20" for iteration in (1, 5, 10, 15, 20)
    ]
    files = [sorted(str(path.relative_to(run)) for path in run.rglob("*")) for run in (folder, alone)]
    assert files[0] == files[1]
    for ours, theirs in zip(log(folder), log(alone), strict=True):
        # In float32, rounding that differs grows from step to step.
        assert_close(ours, theirs, rtol=0.05, atol=0.01)


def test_a_run_may_go_on_with_another_number_of_processes(together: tuple[Path, str], tmp_path: Path):
    from dcgan import script

    chosen = together[0] / "checkpoints" / "iteration-00000010.pt"
    folder = script.main("fake", "Train.", [*OPTIONS, "--quiet", "--out", str(tmp_path / "x"), "--resume", str(chosen)])
    assert_close(log(folder)[-1], log(together[0])[-1], rtol=0.05, atol=0.01)
    assert_equal(last_state(folder)["batches"], last_state(together[0])["batches"])


STAGES = ("killed", "terminated", "finished", "lost", "uneven")


def go_through_accidents(rank: int, folder: str, ports: list[int]) -> None:
    """Be one of two processes, which forks for each stage of a run that meets with one accident after the other."""
    from dcgan import script

    torch.set_num_threads(1)
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(os.path.join(folder, f"{rank}.{name}"), os.O_WRONLY | os.O_CREAT), number)
    os.environ |= {**JOIN, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    options = ["--quiet", "--device", "cpu", "--batch-size", "8"]
    run, broken = (os.path.join(folder, name) for name in ("run", "broken"))
    step: Callable[[GAN, Tensor], Any] = GAN.step

    def accident(iteration: int, happen: Callable[[Any], Any]) -> None:
        def stumbling(self: GAN, real: Tensor) -> Any:
            found = step(self, real)
            return happen(found) if rank == 1 and self.iteration == iteration else found

        GAN.step = stumbling  # type: ignore[method-assign]

    def train(folder: str, *more: str) -> None:
        script.main("fake", "Train.", [*options, "--out", folder, "--resume", "auto", *more])

    def killed() -> None:
        accident(13, lambda found: os.kill(os.getpid(), signal.SIGKILL))
        train(run)

    def terminated() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

        def twice(found: Any) -> Any:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            return found

        accident(16, twice)
        train(run)

    def finished() -> None:
        train(run)

    def lost() -> None:
        accident(3, lambda found: found._replace(loss_generator=torch.tensor(torch.nan)))
        train(broken, "--log-every", "1", "--across", "blocks")

    def uneven() -> None:
        train(broken + "2", "--batch-size", "7")

    for stage, port in zip((killed, terminated, finished, lost, uneven), ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        print(stage.__name__, in_a_fork(stage), flush=True)


def test_processes_stop_together_and_go_on_together(together: tuple[Path, str], tmp_path: Path):
    stores = [meeting_point() for _ in STAGES]
    start(go_through_accidents, WORLD, str(tmp_path), [store.port for store in stores])
    printed = [(tmp_path / f"{rank}.out").read_text(encoding="utf-8").splitlines() for rank in range(WORLD)]
    ends = ["killed", f"terminated {128 + signal.SIGTERM}", "finished 0", "lost 1", "uneven 2"]
    # Who has lost the other process has to end with an error; which one depends on what it waited for.
    assert [line for line in printed[1] if not line.startswith("iteration")] == [f"killed {-signal.SIGKILL}", *ends[1:]]
    assert f"Configuration, log, samples and checkpoints: {tmp_path / 'run'}" in printed[0]
    assert "Interrupted after iteration 16; continue with the same options and --resume auto" in printed[0]
    assert [line for line in printed[0] if line.split()[0] in STAGES and line.split()[-1].isdigit()][1:] == ends[1:]
    assert "killed 0" not in printed[0]
    messages = [(tmp_path / f"{rank}.err").read_text(encoding="utf-8") for rank in range(WORLD)]
    for message in ("where loss_generator is nan", "batch_size: expected a multiple of the 2 processes, got 7"):
        assert (message in messages[0], message in messages[1]) == (True, False)
    assert_same_run(together[0], tmp_path / "run")
