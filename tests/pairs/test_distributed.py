"""Losses of the batches of all processes, in threads that stand in for processes and in gloo processes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from cases import CASES, KernelCase, scores
from processes import in_threads, leave, meeting_file, start
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    LinearKernel,
    MMDLoss,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    ScaledMMDLoss,
)
from torch_mmd_losses.losses import batch_loss
from torch_mmd_losses.pairs import distributed

EQUAL = ([4, 4, 4], [5, 5, 5])
UNEQUAL = ([2, 5, 1], [4, 1, 3])


@pytest.fixture
def ranks(monkeypatch):
    """Return a function that runs another one in as many threads as there are ranks, with collectives among them."""

    def run(world, function):
        return in_threads(monkeypatch, [distributed, batch_loss], world, function)

    return run


def batches(sizes, seed, **options):
    """Return one score matrix for each process."""
    return [scores(size, 3, seed + 10 * rank, **options).requires_grad_() for rank, size in enumerate(sizes)]


def joint(parts):
    """Return all batches as one leaf."""
    return torch.cat([part.detach() for part in parts]).requires_grad_()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    ("estimator", "sizes", "tile_size"),
    [
        ("unbiased", EQUAL, 2),
        ("unbiased", UNEQUAL, None),
        ("unbiased", UNEQUAL, 2),
        ("u_statistic", EQUAL, None),
        ("u_statistic", UNEQUAL, 2),
        ("biased", EQUAL, None),
        ("biased", UNEQUAL, 2),
    ],
)
def test_equals_one_process_on_the_joint_batch(ranks, case: KernelCase, estimator, sizes, tile_size):
    real = batches(sizes[0], 1)
    fake = batches(sizes[0][::-1] if estimator == "u_statistic" else sizes[1], 2, shift=0.4)
    all_real, all_fake = joint(real), joint(fake)
    one = MMDLoss(case.make(), 0.3, estimator=estimator).both(all_real, all_fake)
    loss = MMDLoss(case.make(), 0.3, estimator=estimator, global_batch=True, tile_size=tile_size)

    def process(rank):
        both = loss.both(real[rank], fake[rank])
        return both, [torch.autograd.grad(value, (real[rank], fake[rank]), retain_graph=True) for value in both]

    found = ranks(3, process)
    for i, value in enumerate(one):
        to_real, to_fake = torch.autograd.grad(value, (all_real, all_fake), retain_graph=True)
        for both, _ in found:
            assert_close(both[i], value)
        assert_close(torch.cat([gradients[i][0] for _, gradients in found]) / 3, to_real)
        assert_close(torch.cat([gradients[i][1] for _, gradients in found]) / 3, to_fake)


@pytest.mark.parametrize("case", [CASES["rbf_b"], CASES["own_general"], CASES["rational_quadratic_mix"]])
def test_second_derivatives_cross_processes(ranks, case: KernelCase):
    real, fake = batches(UNEQUAL[0], 1), batches(UNEQUAL[1], 2)
    loss = MMDLoss(case.make(), 0.4, global_batch=True, tile_size=2)

    def process(rank):
        mine = (real[rank], fake[rank])
        value = loss.discriminator(*mine)
        gradients = torch.autograd.grad(value, mine, create_graph=True)
        penalty = sum(gradient.square().sum() for gradient in gradients)
        return torch.autograd.grad(penalty, mine)

    found = ranks(3, process)
    everything = (joint(real), joint(fake))
    value = 3 * MMDLoss(case.make(), 0.4).discriminator(*everything)  # gradients are so much larger in each process
    gradients = torch.autograd.grad(value, everything, create_graph=True)
    expected = torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), everything)
    for side in range(2):
        assert_close(torch.cat([mine[side] for mine in found]), expected[side])


class Learned(Kernel):
    """A kernel with a trained bandwidth."""

    def __init__(self) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def from_sq_dist(self, sq_dist):
        return torch.exp(-sq_dist * torch.exp(-2 * self.log_sigma) / 2)


class LearnedScale(Kernel):
    """A trained kernel that is no function of the distance."""

    def __init__(self) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, a, b):
        return (a @ b.T * self.log_sigma + 1) ** 2


class CustomOperation(Kernel):
    """A trained kernel whose parameter is seen by a custom autograd function alone."""

    class Squared(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, outer):
            return 2 * ctx.saved_tensors[0] * outer

    def __init__(self) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def from_sq_dist(self, sq_dist):
        return torch.exp(-sq_dist * self.Squared.apply(self.log_sigma))


def trainable():
    return RBFKernel(1.3, trainable=True).double()


@pytest.mark.parametrize("make", [Learned, LearnedScale, CustomOperation, trainable])
def test_trained_kernels(ranks, make):
    real, fake = batches(UNEQUAL[0], 1), batches(UNEQUAL[1], 2)
    kernels = [make() for _ in range(3)]

    def process(rank):
        loss = MMDLoss(kernels[rank] + LinearKernel(), 0.4, global_batch=True, tile_size=2)
        value = loss.discriminator(real[rank], fake[rank])
        value.backward()
        return value

    found = ranks(3, process)
    one, all_real, all_fake = make(), joint(real), joint(fake)
    value = MMDLoss(one + LinearKernel(), 0.4).discriminator(all_real, all_fake)
    value.backward()
    assert_close(torch.stack(found), value.expand(3))
    assert_close(sum(kernel.log_sigma.grad for kernel in kernels) / 3, one.log_sigma.grad)
    assert_close(torch.cat([part.grad for part in real]) / 3, all_real.grad)
    assert_close(torch.cat([part.grad for part in fake]) / 3, all_fake.grad)


def test_trained_kernels_cannot_be_differentiated_twice(ranks):
    real, fake = batches(EQUAL[0], 1), batches(EQUAL[1], 2)

    def process(rank):
        value = MMDLoss(Learned(), global_batch=True).generator(real[rank], fake[rank])
        (gradient,) = torch.autograd.grad(value, fake[rank], create_graph=True)
        with pytest.raises(RuntimeError, match="global_batch: expected a trained kernel to be differentiated once"):
            gradient.sum().backward()

    ranks(3, process)


@pytest.mark.parametrize("case", [CASES["rbf_b"], CASES["sum_with_linear"], CASES["own_general"]])
@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_terms(ranks, case: KernelCase, estimator):
    real, fake = batches(UNEQUAL[0], 1, scale=2.0), batches(UNEQUAL[1], 2)
    loss = MMDLoss(case.make(), estimator=estimator, global_batch=True, tile_size=2)
    found = ranks(3, lambda rank: loss.terms(real[rank], fake[rank]))
    expected = MMDLoss(case.make(), estimator=estimator).terms(joint(real), joint(fake))
    for terms in found:
        assert_close(tuple(terms), tuple(expected))


def test_only_what_is_asked_for_gets_a_gradient(ranks):
    real, fake = batches(EQUAL[0], 1), batches(EQUAL[1], 2)

    def process(rank):
        MMDLoss(global_batch=True).generator(real[rank].detach(), fake[rank]).backward()
        with torch.no_grad():
            return MMDLoss(global_batch=True).generator(real[rank], fake[rank])

    values = ranks(3, process)
    all_real, all_fake = joint(real), joint(fake)
    value = MMDLoss()(real=all_real, fake=all_fake)
    value.backward()
    assert_close(torch.stack(values), value.expand(3))
    assert real[0].grad is None
    assert_close(torch.cat([part.grad for part in fake]) / 3, all_fake.grad)


def test_samples_are_at_distance_zero_from_themselves(ranks):
    # In the biased estimate each sample meets itself; a root would turn the rounding of that distance into a bias.
    real, fake = ([scores(4, 64, seed + rank, scale=1000).float() for rank in range(3)] for seed in (1, 4))
    loss = MMDLoss(EnergyKernel(), estimator="biased", global_batch=True)
    found = ranks(3, lambda rank: loss(real=real[rank], fake=fake[rank]))
    p, q = torch.cat(real).double(), torch.cat(fake).double()
    expected = 2 * torch.cdist(p, q).mean() - torch.cdist(p, p).mean() - torch.cdist(q, q).mean()
    assert_close(torch.stack(found).double(), expected.expand(3), rtol=1e-6, atol=0)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of the compiler, at any break
def test_a_compiled_step_breaks_its_graph_here(monkeypatch):
    # Two processes with the same batch: what one gathers is twice what it has.
    twin = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        get_rank=lambda: 0,
        get_world_size=lambda: 2,
        all_gather=lambda out, x: [part.copy_(x) for part in out],
        all_reduce=lambda x: x.mul_(2),
    )
    monkeypatch.setattr(distributed, "dist", twin)
    monkeypatch.setattr(batch_loss, "dist", twin)
    loss, real, fake = MMDLoss(global_batch=True), scores(4, 3, 1).requires_grad_(), scores(5, 3, 2).requires_grad_()

    def step(real, fake):
        return 2 * loss.generator(torch.tanh(real), torch.tanh(fake))

    value = torch.compile(step, backend="eager")(real, fake)
    assert_close(value, step(real, fake))
    gradients = [torch.autograd.grad(found, real)[0] for found in (value, step(real, fake))]
    assert_close(*gradients)


def test_the_estimator_needs_its_samples_in_all_processes_together(ranks):
    real, fake = batches([2, 5, 1], 1), batches([4, 1, 4], 2)

    def process(rank):
        with pytest.raises(ValueError, match="equally many samples for estimator='u_statistic', got 8 and 9"):
            MMDLoss(estimator="u_statistic", global_batch=True).generator(real[rank], fake[rank])

    ranks(3, process)


def test_processes_have_to_agree_on_dimension_and_dtype(ranks):
    for second, message in (
        (scores(4, 2), "d=3 with 64 bits, d=2 with 64 bits"),
        (scores(4, 3).float(), "d=3 with 32"),
    ):
        batch = [scores(4, 3), second]

        def process(rank, batch=batch, message=message):
            with pytest.raises(ValueError, match=message):
                MMDLoss(global_batch=True).generator(batch[rank], batch[rank])

        ranks(2, process)


def test_what_one_process_refuses_the_others_do_not_wait_for(ranks):
    def process(rank):
        loss, good = MMDLoss(global_batch=True), scores(4, 3)
        wrong, message = [
            (good.long(), "^real: expected floating-point scores"),
            (good, "^real, fake: refused in process 0, 2, whose error says why"),
            ("scores", "^real: expected a tensor of scores, got str"),
        ][rank]
        with pytest.raises((TypeError, ValueError), match=message):
            loss.generator(wrong, good if rank < 2 else "scores")
        return loss.generator(good, good)  # and all go on together

    assert len({float(value) for value in ranks(3, process)}) == 1


def test_scores_without_values_are_refused_in_all_processes(ranks):
    def process(rank):
        loss, good = MMDLoss(global_batch=True), scores(4, 3)
        wrong, message = [
            (
                good.to("meta"),
                "^real, fake: expected scores with values, which the processes exchange, got scores on the",
            ),
            (good, "^real, fake: refused in process 0, whose error says why"),
        ][rank]
        with pytest.raises(ValueError, match=message):
            loss.generator(real=wrong, fake=wrong)
        return loss.generator(real=good, fake=good)

    assert len({float(value) for value in ranks(2, process)}) == 1


def test_without_processes_it_changes_nothing():
    real, fake = scores(5, 3, 1), scores(4, 3, 2)
    assert torch.equal(MMDLoss(global_batch=True)(real=real, fake=fake), MMDLoss()(real=real, fake=fake))


def critic(outputs):
    """Return a critic of samples `(m, 3)`, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs)).double()


@pytest.mark.parametrize(
    ("outputs", "options"),
    [
        (2, {}),
        (2, {"kernel": RationalQuadraticMix() + LinearKernel(), "scale": "exact", "estimator": "biased"}),
        (1, {"kernel": 2 * LinearKernel(), "squared": False}),
    ],
    ids=str,
)
@pytest.mark.parametrize("sizes", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
def test_scaled_losses_equal_those_of_one_process(ranks, outputs, options, sizes):
    real, fake = batches(sizes[0], 1), batches(sizes[1], 2, shift=0.5)
    critics, loss = [critic(outputs) for _ in range(3)], ScaledMMDLoss(**options, global_batch=True)

    def process(rank):
        own, x, y = critics[rank], real[rank], fake[rank]
        loss_d, loss_g = loss.both(own(x), own(y), inputs=x)
        assert_close(loss.generator(own(x), own(y), inputs=x), loss_g)
        terms = loss.terms(own(x), own(y), inputs=x)
        (to_fake,) = torch.autograd.grad(loss_g, y, retain_graph=True)
        loss_d.backward(inputs=list(own.parameters()))
        return torch.stack([loss_d, loss_g, *terms]).detach(), to_fake

    found = ranks(3, process)
    one, x, y = critic(outputs), joint(real), joint(fake)
    alone = ScaledMMDLoss(**options)
    loss_d, loss_g = alone.both(one(x), one(y), inputs=x)
    expected = torch.stack([loss_d, loss_g, *alone.terms(one(x), one(y), inputs=x)]).detach()
    for values, _ in found:
        assert_close(values, expected)
    assert_close(torch.cat([part for _, part in found]) / 3, torch.autograd.grad(loss_g, y, retain_graph=True)[0])
    loss_d.backward(inputs=list(one.parameters()))
    for weight, *shares in zip(one.parameters(), *(own.parameters() for own in critics), strict=True):
        assert_close(sum(share.grad for share in shares) / 3, weight.grad)


def test_what_one_process_refuses_of_a_scaled_loss_the_others_do_not_wait_for(ranks):
    def process(rank):
        loss, own, x = ScaledMMDLoss(global_batch=True), critic(2), scores(4, 3, rank).requires_grad_()
        found = own(x)
        message = "inputs: expected samples that require" if rank == 1 else "real, fake: refused in process 1, whose"
        with pytest.raises(ValueError, match=message):
            loss.discriminator(found, found, inputs=x.detach() if rank == 1 else x)
        return loss.discriminator(found, found, inputs=x).detach()  # and all go on together

    assert len({float(value) for value in ranks(3, process)}) == 1


def batch_of(rank: int, world: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inputs of one process: as many of both kinds, but not as many as other processes have."""
    sizes = [6 + 3 * r for r in range(world)]
    starts = [sum(sizes[:r]) for r in range(world + 1)]
    real, fake = scores(sum(sizes), 5, 1), scores(sum(sizes), 5, 2, shift=0.5)
    return real[starts[rank] : starts[rank + 1]], fake[starts[rank] : starts[rank + 1]]


def network() -> nn.Module:
    """Return a small discriminator, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)).double()


LOSSES = {
    "repulsive": lambda **options: MMDLoss(RBFBKernel(), **options),
    "attractive": lambda **options: MMDLoss(RationalQuadraticMix(), -1, estimator="u_statistic", **options),
    "biased": lambda **options: MMDLoss(RBFKernel(0.5) + LinearKernel(), 0.5, estimator="biased", **options),
}


def train(rank: int, world: int, meeting: str, folder: str) -> None:
    """Make one step of a discriminator under DDP, once for each loss."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    found = {}
    for name, make in LOSSES.items():
        model, loss = DistributedDataParallel(network()), make(global_batch=True)
        real, fake = batch_of(rank, world)
        value = loss.discriminator(*model(torch.cat([real, fake])).split([len(real), len(fake)]))
        value.backward()
        terms = loss.terms(network()(real), network()(fake))
        found[name] = [value.detach(), *terms, *(p.grad for p in model.parameters())]
    model, loss = DistributedDataParallel(network()), ScaledMMDLoss(global_batch=True)
    real, fake = batch_of(rank, world)
    found_scores = model(torch.cat([real.requires_grad_(), fake])).split([len(real), len(fake)])
    loss.discriminator(*found_scores, inputs=real).backward()
    found["scaled"] = [p.grad for p in model.parameters()]
    torch.save(found, Path(folder) / f"{rank}.pt")
    leave()


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("world", [2, 4])
def test_training_with_gloo_processes_equals_training_with_one(tmp_path, world):
    start(train, world, world, meeting_file(tmp_path), str(tmp_path))
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    real, fake = (torch.cat(parts) for parts in zip(*(batch_of(rank, world) for rank in range(world)), strict=True))
    for name, make in LOSSES.items():
        model, loss = network(), make()
        value = loss.discriminator(model(real), model(fake))
        value.backward()
        expected = [value.detach(), *loss.terms(model(real), model(fake)), *(p.grad for p in model.parameters())]
        for results in found:
            assert_close(results[name], expected, rtol=1e-9, atol=1e-12)
    model = network()
    ScaledMMDLoss().discriminator(model(real.requires_grad_()), model(fake), inputs=real).backward()
    for results in found:
        assert_close(results["scaled"], [p.grad for p in model.parameters()], rtol=1e-9, atol=1e-12)


def test_each_process_remembers_its_own_real_scores(ranks):
    real, fake = (
        [scores(size, 3, seed + i) for i, size in enumerate(sizes)] for seed, sizes in zip((1, 9), UNEQUAL, strict=True)
    )

    def process(rank):
        loss = MMDLoss(global_batch=True, remember_real=True)
        loss.discriminator(real=real[rank], fake=fake[rank])
        return loss.generator(fake=fake[rank])

    expected = MMDLoss().generator(real=torch.cat(real), fake=torch.cat(fake))
    assert_close(torch.stack(ranks(3, process)), expected.expand(3))


def test_a_process_without_real_scores_tells_the_others(ranks):
    errors = []

    def process(rank):
        loss, real, fake = MMDLoss(global_batch=True, remember_real=True), scores(4, 3, rank), scores(4, 3, 9)
        if rank:
            loss._remember(real)
        with pytest.raises((RuntimeError, ValueError)) as caught:
            loss.generator(fake=fake)
        errors.append((type(caught.value), str(caught.value)))

    ranks(2, process)
    (lost, lost_text), (told, told_text) = sorted(errors, key=str)
    assert (lost, told) == (RuntimeError, ValueError)
    assert "got neither" in lost_text
    assert "refused in process 0" in told_text
