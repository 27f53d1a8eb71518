"""Several processes: DistributedDataParallel, sharded optimisers and sharded weights, in two gloo processes."""

import copy
import socket

import pytest
import torch
import torch.distributed as dist
from processes import start
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_module, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from two_ranks import SCENARIOS, run_all, trained
from wrapped_layers import images, network, original, state, vector

from torch_mmd_losses import conv_spectral_norm, spectral_norms
from torch_mmd_losses.spectral import ranks
from torch_mmd_losses.spectral.sharding import is_sharded

ERRORS = {
    "another size before": r"RuntimeError: module: expected the same input sizes of layer '0' on all ranks, got "
    r"\(\(3, 8, 8\), None\) on rank\(s\) 0, \(\(3, 8, 6\), None\) on rank\(s\) 1; run the same first forward pass",
    "another size in the first forward": r"RuntimeError: module: expected the same input sizes of layer '0' on all "
    r"ranks, got .* on rank\(s\) 0, .* on rank\(s\) 1; .* example_input",
    "another output size in the first forward": r"RuntimeError: module: expected the same input sizes of layer '' on "
    r"all ranks, got \(\(3, 8, 8\), \[0, 0\]\) on rank\(s\) 0, \(\(3, 8, 8\), \[1, 1\]\) on rank\(s\) 1",
    "another network": r"RuntimeError: module: expected the same layers wrapped by conv_spectral_norm on all ranks, "
    r"got \['0'\] on rank\(s\) 0, \['0', '1'\] on rank\(s\) 1",
    "wrapped after sharding": r"ValueError: module: expected layers with plain weights, got '0', whose 'weight' is a "
    r"DTensor; call conv_spectral_norm before fully_shard",
}


pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Return what each scenario gave on both ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    start(run_all, 2, port, str(folder))
    return {name: [torch.load(folder / f"{name}.{rank}.pt") for rank in range(2)] for name in SCENARIOS}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_all_ranks_agree_or_raise_an_error_that_names_them(outcomes, name):
    first, second = outcomes[name]
    if name in ERRORS:
        with pytest.raises(RuntimeError, match=ERRORS[name]):
            raise RuntimeError(first)
        assert first == second
    else:
        assert isinstance(first, dict), first
        assert isinstance(second, dict), second
        assert_close(first, second, rtol=0, atol=0)


@pytest.fixture
def joined(monkeypatch):
    """Return a function that lets `agree` run on the second of two ranks, in this process."""

    def agree(first, second, **options):
        buffers = {}
        for mine, theirs in zip(second.modules(), first.modules(), strict=True):
            if isinstance(mine, ranks.SpectralNorm):
                buffers[mine] = theirs

        def gather(into, found, group):
            labels = {label: norm for label, _, norm in ranks.named_spectral_norms(first)}
            into[:] = [{label: ranks._state(norm) for label, norm in labels.items()}, found]

        def broadcast(tensor, source, group):
            assert source == 7
            for mine, theirs in buffers.items():
                for name, buffer in mine.named_buffers():
                    if buffer is tensor:
                        buffer.copy_(getattr(theirs, name))

        monkeypatch.setattr(dist, "get_world_size", lambda group: 2)
        monkeypatch.setattr(dist, "get_global_rank", lambda group, rank: 7)
        monkeypatch.setattr(dist, "all_gather_object", gather)
        monkeypatch.setattr(dist, "broadcast", broadcast)
        return ranks.agree(second, None, **options)

    return agree


def vectors(model):
    return {key: value for key, value in model.state_dict().items() if ".weight.0." in key}


@pytest.mark.parametrize("method", ["conv", "pico", "matrix"])
def test_a_rank_takes_the_state_of_the_first(joined, method):
    first, second = trained(method=method), trained(seed=1, steps=0, method=method)
    assert joined(first, second, adopt=True)
    assert_close(vectors(second), vectors(first), rtol=0, atol=0)
    new = trained(steps=0, method=method)
    assert joined(new, first, adopt=True) is (method == "matrix")
    assert_close(vectors(first), vectors(new), rtol=0, atol=0)


def test_a_rank_that_does_not_know_a_size_is_waited_for(joined):
    known, new = trained(), trained(steps=0)
    before = copy.deepcopy(vectors(new))
    assert not joined(known, new, adopt=False)
    assert_close(vectors(new), before, rtol=0, atol=0)
    assert joined(known, known, adopt=False)


def test_agreement_of_three_dimensional_kernels_in_other_memory_layouts(joined):
    models = [conv_spectral_norm(nn.Conv3d(2, 3, 2), input_size=4) for _ in range(2)]
    models[1].to(memory_format=torch.channels_last_3d)
    assert joined(*models, adopt=True)
    assert torch.equal(vector(models[0]), vector(models[1]))


@pytest.mark.parametrize(("size", "got"), [(6, r"\(3, 8, 8\).* on rank\(s\) 0, .*\(3, 8, 6\).* on rank\(s\) 1")])
def test_ranks_with_other_sizes_are_named(joined, size, got):
    with pytest.raises(RuntimeError, match=f"^module: expected the same input sizes of layer '0' .*{got}"):
        joined(trained(), trained(size=size), adopt=True)


@pytest.fixture
def alone():
    """Make this process the only one of a distributed job."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_a_single_process():
    model = DistributedDataParallel(conv_spectral_norm(network()))
    assert len(model._forward_hooks) == 1
    model.register_forward_hook(lambda *_: None)
    model(images())
    assert len(model._forward_hooks) == 1
    assert not DistributedDataParallel(conv_spectral_norm(network(), example_input=images()))._forward_hooks
    assert not DistributedDataParallel(network())._forward_hooks


@pytest.mark.usefixtures("alone")
def test_the_ranks_are_compared_until_all_sizes_are_known():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x, right):
            return self.right(x) if right else self.left(x)

    model = DistributedDataParallel(conv_spectral_norm(Branches()))
    for right, hooks in ((False, 1), (False, 1), (True, 0), (True, 0)):
        model(images(), right)
        assert len(model._forward_hooks) == hooks


@pytest.mark.usefixtures("alone")
def test_a_weight_divided_by_other_means_is_refused_too():
    layer = distribute_module(nn.Linear(2, 2), init_device_mesh("cpu", (1,)))
    with pytest.raises(ValueError, match="^module: expected layers with plain weights, got 'Linear'"):
        conv_spectral_norm(layer)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("method", ["conv", "pico", "matrix"])
def test_a_weight_that_is_divided_afterwards_is_gathered(method):
    layer = conv_spectral_norm(nn.Linear(3, 2), method=method)
    expected = layer.weight.detach() + 0
    divided = distribute_tensor(original(layer).detach(), init_device_mesh("cpu", (1,)), [Shard(0)])
    layer.parametrizations.weight.original = nn.Parameter(divided)
    assert is_sharded(original(layer))
    assert_close(layer.weight + 0, expected)
    assert spectral_norms(layer)[""] > 0
    layer.weight.sum().backward()
    assert original(layer).grad.full_tensor().any()
    state(layer).before_forward(original(layer), torch.zeros(1, 3), True, None)


def test_other_containers_are_left_alone():
    class Holder(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    holder = Holder(conv_spectral_norm(network()))
    holder.module(images())
    holder.module = None
    assert not Holder(network())._forward_hooks
