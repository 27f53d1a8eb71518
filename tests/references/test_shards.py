"""References that are divided between processes, in threads that stand in for processes and in gloo processes."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from cases import scores
from processes import in_threads, leave, meeting_file, start
from reference_kinds import KINDS, taken_by
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from torch_mmd_losses import LinearKernel, MMDReference, RBFKernel, UsageWarning
from torch_mmd_losses.pairs import distributed
from torch_mmd_losses.references import processes, row_sums

pytestmark = pytest.mark.filterwarnings("ignore:MMDReference. expected landmarks that represent")

SIZES = (2, 5, 1)


@pytest.fixture
def ranks(monkeypatch):
    """Return a function that runs another one in three threads."""

    def run(function):
        return in_threads(monkeypatch, [distributed, processes, row_sums], 3, function)

    return run


def whole(kind, count=13, **options):
    """Return a reference before it is divided."""
    sizes = taken_by(kind, landmarks=scores(5, 3, 4), frequencies=20)
    kernel = RBFKernel() + 0.1 * LinearKernel() if kind == "exact" else RBFKernel()
    return MMDReference(scores(count, 3, 1), kernel, kind=kind, **sizes, **options)


def parts(seed):
    """Return the fake samples of each process, and all of them."""
    each = [scores(size, 3, seed + rank).requires_grad_() for rank, size in enumerate(SIZES)]
    return each, torch.cat([part.detach() for part in each]).requires_grad_()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_average_of_gradients_is_that_of_the_whole(ranks, kind, estimator, weighted):
    reference = whole(kind, weights=scores(13, 1, 5)[:, 0].abs() if weighted else None)
    each, together = parts(10)
    expected = reference.mmd2(together, estimator=estimator)
    (gradient,) = torch.autograd.grad(expected, together)

    def process(rank):
        value = reference.shard(rank, 3).mmd2(each[rank], estimator=estimator)
        return value, torch.autograd.grad(value, each[rank])[0]

    found = ranks(process)
    assert_close(torch.stack([value for value, _ in found]), expected.expand(3))
    assert_close(torch.cat([pull for _, pull in found]) / 3, gradient)


def test_each_process_keeps_its_rows():
    reference = whole("exact", weights=scores(13, 1, 5)[:, 0].abs())
    shards = [reference.shard(rank, 3) for rank in range(3)]
    assert [len(shard.form.rows) for shard in shards] == [5, 4, 4]
    assert [len(shard.form.weights) for shard in shards] == [5, 4, 4]
    assert all(shard.form.rows.untyped_storage().nbytes() < 13 * 3 * 8 for shard in shards)
    assert len({float(shard.self_term) for shard in shards} | {float(reference.self_term)}) == 1
    assert len(reference.form.rows) == 13
    assert reference.world == 1
    assert "rank=1, world=3" in repr(shards[1])


@pytest.mark.parametrize("kind", KINDS)
def test_attraction_sums_and_witness_are_those_of_the_whole(ranks, kind):
    reference = whole(kind)
    each, together = parts(10)
    factors = scores(8, 3, 20)

    def loss(reference, points, factors):
        mass, moment = reference.sums(points)
        witness = reference.witness(points, points)
        return [mass, moment, reference.attraction(points)], (mass.sum() + (moment * factors).sum()), witness

    values, total, _ = loss(reference, together, factors)
    (gradient,) = torch.autograd.grad(total, together)

    def process(rank):
        own = factors.split(SIZES)[rank]
        shard = reference.shard(rank, 3)
        values, total, witness = loss(shard, each[rank], own)
        assert_close(witness, reference.witness(each[rank], each[rank]))
        return values, torch.autograd.grad(total, each[rank])[0]

    found = ranks(process)
    for i, value in enumerate(values):
        assert_close(torch.cat([own[i] for own, _ in found]), value)
    assert_close(torch.cat([pull for _, pull in found]), gradient)


def test_second_derivatives_cross_processes(ranks):
    reference = whole("exact")
    each, together = parts(10)

    def penalty(reference, points):
        (gradient,) = torch.autograd.grad(reference.attraction(points).sum(), points, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), points)[0]

    found = ranks(lambda rank: penalty(reference.shard(rank, 3), each[rank]))
    assert_close(torch.cat(found), penalty(reference, together))


def test_no_gradient_where_none_is_asked_for(ranks):
    reference = whole("exact")
    each, together = parts(10)
    with torch.no_grad():
        expected = reference.mmd2(together)

    def process(rank):
        return reference.shard(rank, 3).mmd2(each[rank].detach())

    assert_close(torch.stack(ranks(process)), expected.expand(3))


def test_a_kernel_that_tells_no_rows_apart_is_warned_of(ranks):
    reference = MMDReference(scores(13, 64), RBFKernel(0.01))
    fakes = [scores(4, 64, 2 + rank) for rank in range(3)]
    with pytest.warns(UsageWarning, match="^MMDReference: expected kernel values between .* too far apart") as caught:
        ranks(lambda rank: reference.shard(rank, 3).mmd2(fakes[rank]))
    assert {warning.filename for warning in caught} == {__file__}


def test_a_shard_loads_its_own_state_only(ranks):
    reference = whole("exact")
    each, together = parts(10)
    states = [reference.shard(rank, 3).state_dict() for rank in range(3)]

    def process(rank):
        loaded = whole("exact", 4)
        loaded.load_state_dict(states[rank])
        return loaded.mmd2(each[rank])

    assert_close(torch.stack(ranks(process)), reference.mmd2(together).expand(3))
    shard = reference.shard(0, 3)
    with pytest.raises(ValueError, match="^state of MMDReference: expected the shard 0 of 3, got 1 of 3"):
        shard.load_state_dict(states[1])


def test_one_process_is_the_whole():
    reference = whole("exact")
    assert_close(reference.shard(0, 1).mmd2(scores(4, 3, 2)), reference.mmd2(scores(4, 3, 2)))


def test_an_error_in_one_process_reaches_all(ranks):
    reference = whole("exact")
    each, _ = parts(10)

    def process(rank):
        with pytest.raises(ValueError, match="fake: expected scores of the dim" if rank == 1 else "process 1, whose"):
            reference.shard(rank, 3).mmd2(each[rank][:, :2] if rank == 1 else each[rank])

    ranks(process)

    def other_calls(rank):
        shard, points = reference.shard(rank, 3), each[rank][:, :2] if rank == 1 else each[rank]
        for use in (shard.attraction, shard.sums, lambda x: shard.witness(x, x)):
            with pytest.raises(ValueError, match="of the dim" if rank == 1 else "points: refused in process 1, whose"):
                use(points)

    ranks(other_calls)


def test_each_process_has_to_have_its_own_shard(ranks):
    shard = whole("exact").shard(1, 3)

    def process(rank):
        if rank != 1:
            with pytest.raises(RuntimeError, match=f"^rank: expected process 1 for the shard 1, got process {rank}"):
                shard.mmd2(scores(4, 3))

    ranks(process)


def test_the_number_of_processes_has_to_be_that_of_shards():
    with pytest.raises(RuntimeError, match="^world: expected 3 processes, as many as shards, got 1"):
        whole("exact").shard(1, 3).mmd2(scores(4, 3))
    with pytest.raises(RuntimeError, match="^world: expected 3 processes, as many as shards, got 1"):
        whole("exact").shard(1, 3).attraction(scores(4, 3))


def _train(rank: int, world: int, meeting: str, folder: str) -> None:
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    torch.manual_seed(0)
    network = DistributedDataParallel(nn.Linear(3, 3, dtype=torch.float64))
    reference = whole("exact").shard(rank, world)
    noise = scores(8, 3, 30).split((3, 5))[rank]
    reference.mmd2(network(noise)).backward()
    torch.save([parameter.grad for parameter in network.parameters()], Path(folder) / f"{rank}.pt")
    leave()


@pytest.mark.slow
def test_data_parallel_training_in_processes(tmp_path):
    start(_train, 2, 2, meeting_file(tmp_path), str(tmp_path))
    torch.manual_seed(0)
    network = nn.Linear(3, 3, dtype=torch.float64)
    whole("exact").mmd2(network(scores(8, 3, 30))).backward()
    for rank in range(2):
        assert_close(torch.load(tmp_path / f"{rank}.pt"), [parameter.grad for parameter in network.parameters()])
