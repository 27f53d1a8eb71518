"""Data-parallel training with two gloo processes."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import leave, meeting_file, start
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from torch_mmd_losses import MMDLoss, conv_spectral_norm, spectral_norms

pytestmark = pytest.mark.xdist_group("processes")


def train(rank: int, meeting: str, broadcast_buffers: bool, folder: str) -> None:
    """Train three steps on data that differ between the ranks; save what the layers of this rank hold."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    torch.manual_seed(rank)  # the ranks start from different random states, and DDP hands out rank 0's weights
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 6 * 6, 4))
    model = DistributedDataParallel(conv_spectral_norm(network), broadcast_buffers=broadcast_buffers)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    history = []
    for _ in range(3):
        images = torch.randn(8, 3, 6, 6)
        real, fake = model(images).chunk(2)
        optimizer.zero_grad()
        MMDLoss().discriminator(real=real, fake=fake).backward()
        optimizer.step()
        history.append([model.module[0].parametrizations.weight[0].v.clone(), spectral_norms(model)["module.0"]])
        history[-1].append(model.module[0].weight.detach().clone())
    torch.save([[torch.Tensor(x) for x in step] for step in history], Path(folder) / f"{rank}.pt")
    leave()


@pytest.mark.slow
@pytest.mark.parametrize("broadcast_buffers", [True, False])
def test_all_ranks_hold_the_same_vectors_and_weights(tmp_path, broadcast_buffers):
    start(train, 2, meeting_file(tmp_path), broadcast_buffers, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for step_first, step_second in zip(first, second, strict=True):
        for mine, theirs in zip(step_first, step_second, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    assert not torch.equal(first[0][0], first[2][0])


def train_compiled(rank: int, meeting: str, outside: bool, folder: str) -> None:
    """Train two steps with and without the compiler; save the gradients and the vectors of the layers of this rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 4))
    eager = conv_spectral_norm(network)
    twin = copy.deepcopy(eager)
    if outside:
        compiled = torch.compile(DistributedDataParallel(twin), backend="aot_eager")
    else:
        compiled = DistributedDataParallel(torch.compile(twin, backend="aot_eager"))
    generator = torch.Generator().manual_seed(rank)  # the ranks have different data
    models = {"eager": (DistributedDataParallel(eager), eager), "compiled": (compiled, twin)}
    optimizers = {name: torch.optim.SGD(layers.parameters(), lr=0.1) for name, (_, layers) in models.items()}
    history: dict[str, list[torch.Tensor]] = {name: [] for name in models}
    for _ in range(2):
        images = torch.randn(8, 3, 6, 6, generator=generator)
        for name, (model, layers) in models.items():
            real, fake = model(images).chunk(2)
            optimizers[name].zero_grad()
            MMDLoss().discriminator(real=real, fake=fake).backward()
            history[name] += [parameter.grad.clone() for parameter in layers.parameters()]
            history[name].append(layers[0].parametrizations.weight[0].v.detach().clone())
            optimizers[name].step()
    torch.save(history, Path(folder) / f"{rank}.pt")
    leave()


@pytest.mark.slow
@pytest.mark.parametrize("outside", [True, False], ids=["compiled DDP", "DDP of a compiled network"])
def test_compiled_layers_get_the_same_gradients(tmp_path, outside):
    start(train_compiled, 2, meeting_file(tmp_path), outside, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)  # averaged over the ranks
    # Sums of float32 numbers in another order.
    torch.testing.assert_close(first["compiled"], first["eager"], rtol=1e-4, atol=1e-6)
    # Biases and weights in turn. MMD takes no notice of the last bias.
    assert all(first["eager"][i].abs().max() > 1e-4 for i in (0, 1, 3))
