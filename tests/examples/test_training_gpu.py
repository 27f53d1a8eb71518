"""Training on a GPU: all precisions and layouts run and go on, and a GPU does what a CPU does."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from trained import last_state, log, train
from training.randomness import Randomness
from wang2019.losses import SINGLE_SCORE

pytestmark = pytest.mark.gpu


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(
    ("precision", "loss", "options"),
    [
        *product(("32-true", "bf16-mixed"), ("mmd-rep-b", "hinge"), ([], ["--channels-last"])),
        # The first compilations of a run take most of a minute. Rehearsals leave these out by their name.
        pytest.param("32-true", "mmd-rep-b", ["--channels-last", "--compile"], id="compiled"),
        pytest.param("bf16-mixed", "mmd-rep-b", ["--channels-last", "--compile"], id="compiled-bf16-mixed"),
    ],
)
def test_a_gpu_trains_and_goes_on(precision: str, loss: str, options: list[str], tmp_path: Path, gpu: torch.device):
    chosen = [*options, "--device", gpu.type, "--precision", precision, "--loss", loss, "--width", "8"]
    short = [*chosen, "--checkpoint-every", "5", "--log-every", "1", "--workers", "2"]
    folder = train(tmp_path / "run", *short, "--iterations", "5")
    train(folder, *short, "--iterations", "20", "--resume", "auto")
    assert [line["iteration"] for line in log(folder)] == list(range(1, 21))
    assert last_state(folder)["adam_generator"]["state"][0]["step"] == 20


@pytest.mark.parametrize("loss", [*SINGLE_SCORE, "mmd-rep-b"])
def test_a_gpu_does_what_a_cpu_does(loss: str, tmp_path: Path, gpu: torch.device, monkeypatch: pytest.MonkeyPatch):
    noise = torch.randn(4, 128)  # each kind of device has random numbers of its own
    monkeypatch.setattr(Randomness, "normal", lambda self, *shape: noise.to(self.generator.device))
    options = ["--loss", loss, "--width", "8", "--iterations", "1"]
    lines = [log(train(tmp_path / kind, *options, "--device", kind))[0] for kind in {"cpu", gpu.type}]
    for name in ("loss_discriminator", "loss_generator"):
        # Convolutions use TF32 on a GPU by default.
        assert lines[0][name] == pytest.approx(lines[-1][name], rel=1e-2, abs=1e-2)
