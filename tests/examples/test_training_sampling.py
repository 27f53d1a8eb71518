"""The moving average of a generator on a GPU, without one; `test_wang2019_steps.py` has its numbers."""

from __future__ import annotations

import pytest
import torch
from fake_cuda import fake_cuda
from torch import nn
from training.sampling import MovingAverage


@pytest.mark.paper
@pytest.mark.skipif(torch.version.cuda is None, reason="needs a CUDA build of PyTorch")
@pytest.mark.parametrize("updates", [0, 5])
def test_the_average_does_not_wait_for_a_gpu(updates: int):
    with fake_cuda():
        network = nn.Linear(2, 2, device="cuda")
        network.register_buffer("mean", torch.zeros(2, device="cuda"))
        average = MovingAverage(network, 0.5)
        average.n_averaged = torch.tensor(updates)
        average.update_parameters(network)
        assert {tensor.device.type for tensor in (*average.module.parameters(), *average.module.buffers())} == {"cuda"}
        assert average.n_averaged.device.type == "cpu"
