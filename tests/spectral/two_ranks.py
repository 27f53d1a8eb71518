"""Scenarios for two gloo processes, each of which returns what the ranks must agree on, or the error."""

import copy
from pathlib import Path

import torch
import torch.distributed as dist
from processes import leave
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel
from wrapped_layers import images

from torch_mmd_losses import conv_spectral_norm, spectral_norms


def network(seed=0, **options):
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3, stride=2))
    return conv_spectral_norm(layers, **options)


def trained(seed=0, steps=2, size=8, **options):
    """Return a network after some steps of training."""
    model = network(seed, **options)
    adam = torch.optim.Adam(model.parameters(), lr=0.05)
    for step in range(steps):
        model(images(seed=step)[..., :size]).square().mean().backward()
        adam.step()
        adam.zero_grad()
    return model


def state_after_forward(model, x):
    """Return the output of a forward pass in training mode and the state after it, by name."""
    out = model(x).detach().clone()
    module = model.module if isinstance(model, DistributedDataParallel) else model
    return {"out": out, **{key: value.detach().clone() for key, value in module.state_dict().items()}}


def checkpoint_on_one_rank(rank, method, broadcast_buffers, other="new"):
    state = trained(method=method).state_dict()
    model = {"new": network, "other values": lambda **o: trained(seed=1, **o)}[other](method=method)
    if rank == 0:
        model.load_state_dict(state)
    alone = network(method=method)
    alone.load_state_dict(state)
    expected = state_after_forward(alone, images())
    found = state_after_forward(DistributedDataParallel(model, broadcast_buffers=broadcast_buffers), images())
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    return found


def checkpoint_on_the_other_rank(rank, method="conv"):
    model = trained(seed=1, method=method) if rank == 1 else network(method=method)
    return state_after_forward(DistributedDataParallel(model), images())


def another_size_before(rank):
    return DistributedDataParallel(trained(size=(8, 6)[rank]))


def another_size_in_the_first_forward(rank):
    model = DistributedDataParallel(network())
    return model(images()[..., : (8, 6)[rank]])


def another_output_size_in_the_first_forward(rank):
    layer = conv_spectral_norm(nn.ConvTranspose2d(3, 2, 3, stride=2))
    return DistributedDataParallel(layer)(images(), output_size=[(17, 17), (18, 18)][rank])


def another_network(rank):
    layer = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    return DistributedDataParallel(conv_spectral_norm(layer) if rank else nn.Sequential(conv_spectral_norm(layer[0])))


def first_forward_within(rank):
    model = DistributedDataParallel(network(seed=rank))
    assert len(model._forward_hooks) == 1
    found = state_after_forward(model, images(seed=rank))
    assert not model._forward_hooks
    del found["out"]
    return found


def a_layer_that_runs_on_one_rank_only(rank):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = network(), network(1)

        def forward(self, x, right):
            return self.left(x) + (self.right(x) if right else 0)

    model = DistributedDataParallel(Branches(), find_unused_parameters=True)
    model(images(), rank == 1)
    assert len(model._forward_hooks) == 1  # not everything is known everywhere
    model(images(), True)
    assert not model._forward_hooks
    return dict(model.module.state_dict())


def sharded_optimiser(rank, method):
    model, twin = (DistributedDataParallel(network(method=method)) for _ in range(2))
    zero = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.05)
    adam = torch.optim.Adam(twin.parameters(), lr=0.05)
    used = {}
    for step in range(3):
        for net, optimiser in ((model, zero), (twin, adam)):
            for turn in range(3):
                optimiser.zero_grad()
                out = net(images(seed=6 * step + 2 * turn + rank))
                out.square().mean().backward()
                if turn == 1:
                    optimiser.step()
        used[str(step)] = model.module[0].weight.detach().clone().as_subclass(torch.Tensor)
        assert torch.equal(used[str(step)], twin.module[0].weight)
    return used


def sharded_weights(rank, method):
    model = network(method=method)
    twin = copy.deepcopy(model)
    mesh = init_device_mesh("cpu", (2,))
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimisers = [torch.optim.Adam(net.parameters(), lr=0.05) for net in (model, twin)]
    for step in range(3):
        for net, optimiser in zip((model, twin), optimisers, strict=True):
            optimiser.zero_grad()
            net(images(seed=step)).square().mean().backward()
            optimiser.step()
    sharded, whole = spectral_norms(model), spectral_norms(twin)
    torch.testing.assert_close(sharded, whole, rtol=1e-4, atol=0)
    for layer, other in ((model[0], twin[0]), (model[2], twin[2])):
        torch.testing.assert_close(layer.weight, other.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.eval()(images()), twin.eval()(images()), rtol=1e-3, atol=1e-4)
    copied = network(method=method)
    copied.load_state_dict(
        {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in model.state_dict().items()}
    )
    return {**sharded, **state_after_forward(copied, images())}


def wrapped_after_sharding(rank):
    return conv_spectral_norm(fully_shard(nn.Sequential(nn.Linear(4, 2)), mesh=init_device_mesh("cpu", (2,))))


SCENARIOS = {
    **{
        f"checkpoint {method} {broadcast} {other}": (checkpoint_on_one_rank, method, broadcast, other)
        for method in ("conv", "pico", "matrix")
        for broadcast in (True, False)
        for other in ("new", "other values")
    },
    "checkpoint on the other rank": (checkpoint_on_the_other_rank,),
    "another size before": (another_size_before,),
    "another size in the first forward": (another_size_in_the_first_forward,),
    "another output size in the first forward": (another_output_size_in_the_first_forward,),
    "another network": (another_network,),
    "first forward within": (first_forward_within,),
    "one rank only": (a_layer_that_runs_on_one_rank_only,),
    **{f"zero {method}": (sharded_optimiser, method) for method in ("conv", "pico", "matrix")},
    **{f"sharded {method}": (sharded_weights, method) for method in ("conv", "pico", "matrix")},
    "wrapped after sharding": (wrapped_after_sharding,),
}


def run_all(rank, port, folder):
    """Run all scenarios on a rank, and save what each returned or the text of its error."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for name, (scenario, *arguments) in SCENARIOS.items():
        try:
            found = scenario(rank, *arguments)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        torch.save(found, Path(folder) / f"{name}.{rank}.pt")
        dist.barrier()  # a rank that leaves early aborts the other
    leave()
