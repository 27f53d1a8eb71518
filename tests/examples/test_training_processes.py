"""Training by several processes: two do what one does with the joint batch, stop together and go on together."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import in_a_fork, start
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from trained import assert_same_run, last_state, log, newest, train
from training import run as run_module
from training.batches import centred, positions
from training.errors import RefusedError
from training.images import fake
from wang2019 import train as loop
from wang2019.losses import make_loss
from wang2019.networks import make_discriminator, make_generator
from wang2019.presets import Wang2019

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]

EXAMPLES = Path(__file__).parents[2] / "examples"
WORLD = 2
CASES: dict[str, tuple[str, ...]] = {
    "mmd-rep-b": ("--loss", "mmd-rep-b"),
    "mmd-rq by turns": ("--loss", "mmd-rq", "--updates", "alternating"),
    "hinge": ("--loss", "hinge"),
    "penalty": ("--loss", "mmd-rep", "--gradient-penalty", "0.1"),
    "penalty by turns": ("--loss", "mmd-rep", "--gradient-penalty", "0.1", "--updates", "alternating"),
    "smmd": ("--loss", "smmd"),
}
LENGTH = ("--iterations", "3", "--log-every", "1", "--batch-size", "8")
BLOCKS = ("--across", "blocks", "--log-every", "1", "--iterations", "1", "--batch-size", "8")


def in_float64_without_batch_norm(folder: Path, *options: str) -> None:
    """Train so that two processes differ from one by rounding only."""

    def without_batch_norm(settings: Wang2019) -> nn.Sequential:
        layers = make(settings)
        return nn.Sequential(*(nn.Identity() if isinstance(layer, nn.BatchNorm2d) else layer for layer in layers))

    before = make, _ = loop.generator_of, loop.centred
    torch.set_default_dtype(torch.float64)
    loop.generator_of, loop.centred = without_batch_norm, lambda pixels: pixels.double() / 127.5 - 1
    try:
        train(folder, *LENGTH, *options)
    finally:
        loop.generator_of, loop.centred = before
        torch.set_default_dtype(torch.float32)


def at(rank: int, iteration: int, happen: Callable[[Tensor], object]) -> None:
    """Let something happen to the real images of an iteration in one process."""
    count, centred = 0, loop.centred

    def stumbling(pixels: Tensor) -> Tensor:
        nonlocal count
        count, real = count + 1, centred(pixels)
        if count == iteration and os.environ["RANK"] == str(rank):
            happen(real)
        return real

    loop.centred = stumbling


def fail(error: Exception) -> None:
    raise error


def refuse_in_one_process() -> None:
    load = loop.load
    loop.load = lambda *args, **kwargs: (
        fail(RefusedError("no data here")) if os.environ["RANK"] == "1" else load(*args, **kwargs)
    )


def fill_the_disk() -> None:
    torch.save = lambda state, path: fail(RuntimeError("the disk is full\nand more"))


# Runs of two processes one after the other: folder, what happens before, options.
SHORT = ("--batch-size", "8", "--checkpoint-every", "3", "--log-every", "3", "--sample-every", "6", "--resume", "auto")
STAGES: dict[str, tuple[str, Callable[[], object], tuple[str, ...]]] = {
    "whole": ("whole", lambda: None, ("--iterations", "12")),
    "killed": ("run", lambda: at(1, 8, lambda real: os.kill(os.getpid(), signal.SIGKILL)), ("--iterations", "12")),
    "terminated": ("run", lambda: at(1, 2, lambda real: signal.raise_signal(signal.SIGTERM)), ("--iterations", "12")),
    "finished": ("run", lambda: None, ("--iterations", "12")),
    "lost": ("lost", lambda: at(1, 5, lambda real: real.fill_(torch.nan)), ("--log-every", "1")),
    "uneven": ("uneven", lambda: None, ("--batch-size", "7")),
    "refused": ("refused", refuse_in_one_process, ()),
    "full": ("full", fill_the_disk, ()),
    "unreadable": ("unreadable", lambda: at(1, 2, lambda real: fail(OSError("1.png cannot be read"))), ()),
    "blocks": ("blocks", lambda: None, BLOCKS),
}


def process(rank: int, folder: str, ports: list[int]) -> None:
    """Be one of two processes, which forks for each run, and note how it ends."""
    torch.set_num_threads(1)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{folder}/{rank}.{name}", os.O_WRONLY | os.O_CREAT), number)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "tests"}
    os.environ |= {"WORLD_SIZE": str(WORLD), "LOCAL_WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    run_module.ASK_EVERY = 3
    runs: dict[str, Callable[[], object]] = {
        name: lambda name=name: in_float64_without_batch_norm(Path(folder, name), *CASES[name]) for name in CASES
    }

    def stage(name: str) -> None:
        where, prepare, options = STAGES[name]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        prepare()
        train(Path(folder, where), *SHORT, *options)
        # What is left would be destroyed with the group, and could wait for it for ever.
        assert not any(isinstance(each, DistributedDataParallel) for each in gc.get_objects())

    runs |= {name: lambda name=name: stage(name) for name in STAGES}
    for (name, run), port in zip(runs.items(), ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        print("ended", name, in_a_fork(run), sep=", ", flush=True)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all runs by two processes, and of what they printed."""
    folder = tmp_path_factory.mktemp("together")
    # What torchrun holds for its processes: the stores by which they find each other, at ports of their own.
    stores = [
        dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in range(len(CASES) + len(STAGES))
    ]
    start(process, WORLD, str(folder), [store.port for store in stores])
    return folder


def ends(folder: Path, name: str) -> list[int]:
    """Return the exit status of each process at the end of a run."""
    printed = [(folder / f"{rank}.out").read_text(encoding="utf-8").splitlines() for rank in range(WORLD)]
    return [int(line.split(", ")[2]) for lines in printed for line in lines if line.startswith(f"ended, {name}, ")]


def said(folder: Path, message: str) -> list[bool]:
    """Return which processes gave a message."""
    return [message in (folder / f"{rank}.err").read_text(encoding="utf-8") for rank in range(WORLD)]


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


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_like_one_with_the_joint_batch(name: str, together: Path, tmp_path: Path):
    in_float64_without_batch_norm(tmp_path, *CASES[name])
    assert ends(together, name) == [0, 0]
    close(last_state(together / name), last_state(tmp_path))
    close(log(together / name), log(tmp_path))


def test_blocks_have_the_mean_of_their_losses(together: Path):
    found = log(together / "blocks")[0]
    torch.manual_seed(0)
    G, D = make_generator(32, width=2), make_discriminator(32, scores=16, width=2)
    images = fake(32, 3)
    real = centred(images[next(positions(len(images), 8, seed=0))])
    noise = torch.randn(8, 128, generator=torch.Generator().manual_seed(0))
    losses = [make_loss("mmd-rep-b").both(*D(torch.cat([real[r::2], G(noise[r::2])])).chunk(2)) for r in range(WORLD)]
    for number, name in enumerate(("loss_discriminator", "loss_generator")):
        assert found[name] == pytest.approx(sum(each[number].item() for each in losses) / WORLD, abs=1e-5)


def test_processes_that_are_killed_or_interrupted_go_on_as_if_nothing_had_been(together: Path):
    assert ends(together, "whole") == ends(together, "finished") == [0, 0]
    # Who has lost the other process has to end with an error; which one depends on what it waited for.
    assert ends(together, "killed")[1] == -signal.SIGKILL
    assert ends(together, "killed")[0] not in (0, 2)
    assert ends(together, "terminated") == [128 + signal.SIGTERM] * 2
    assert said(together, "Interrupted after iteration 9; continue with the same options") == [True, False]
    (together / "run" / "samples" / "iteration-00000009.png").unlink()  # drawn at the interruption
    assert_same_run(together / "whole", together / "run")


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("uneven", 2, "batch_size: expected a multiple of the 2 processes, got 7"),
        ("refused", 2, "no data here"),
        ("lost", 1, "Stopped at iteration 5, where loss_"),
        ("full", 1, "iteration-00000003.pt cannot be written: the disk is full\n"),
    ],
)
def test_what_stops_one_process_stops_both_with_one_message(name: str, status: int, message: str, together: Path):
    assert ends(together, name) == [status, status]
    assert said(together, message) == [True, False]
    assert (together / name).exists() == (status == 1)


def test_a_process_that_cannot_read_an_image_says_so_itself(together: Path):
    assert ends(together, "unreadable")[1] == 1
    assert ends(together, "unreadable")[0] not in (0, 2)
    assert said(together, "1.png cannot be read") == [False, True]


def test_a_run_may_go_on_with_another_number_of_processes(together: Path, tmp_path: Path):
    chosen = together / "whole" / "checkpoints" / "iteration-00000009.pt"
    folder = train(tmp_path / "run", *SHORT, "--iterations", "12", "--resume", str(chosen))
    # Batch normalisation sees other batches.
    assert_close(log(folder)[-1], log(together / "whole")[-1], rtol=0.5, atol=0.1)
    for name in ("noise", "cpu"):
        assert torch.equal(*(last_state(run)["randomness"][name] for run in (folder, together / "whole")))


@pytest.fixture
def environment() -> dict[str, str]:
    path = os.pathsep.join([str(EXAMPLES.parent), *sys.path])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def test_torchrun_trains_like_processes_that_are_forked(together: Path, tmp_path: Path, environment: dict[str, str]):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(EXAMPLES / "dcgan_fake.py"), "--out", str(tmp_path / "run"), "--device", "cpu"]
    done = subprocess.run(
        [*command, *SHORT, "--iterations", "12"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        *(f"iteration {iteration} of 12" for iteration in (1, 3, 6, 9, 12)),
        "Settings, log, samples and checkpoints",
    ]
    assert_same_run(together / "whole", tmp_path / "run")


def test_a_signal_to_one_of_the_processes_that_a_command_starts_saves_and_ends_both(
    tmp_path: Path, environment: dict[str, str]
):
    command = [sys.executable, str(EXAMPLES / "dcgan_fake.py"), "--devices", "2", "--device", "cpu", "--quiet"]
    folder = tmp_path / "run"
    options = ["--out", str(folder), "--iterations", "100000", "--log-every", "1"]
    with subprocess.Popen([*command, *options], env=environment, stderr=subprocess.PIPE, text=True) as running:
        while running.poll() is None and not (folder / "log.jsonl").exists():
            time.sleep(0.02)
        running.terminate()
        _, printed = running.communicate(timeout=300)
    assert running.returncode == 128 + signal.SIGTERM
    assert printed.splitlines() == [f"Interrupted after iteration {newest(folder).stem[-2:].lstrip('0')}; {ADVICE}"]


ADVICE = "continue with the same options and --resume auto"
