"""The loss of drifting models."""

import json
from pathlib import Path

import pytest
import torch
from sizes import Largest
from torch.testing import assert_close

from torch_mmd_losses import LaplaceKernel, UsageWarning, drift, drift_loss
from torch_mmd_losses.pairs import tiles
from torch_mmd_losses.pairs.tile_distances import TileDistances

DATA = Path(__file__).parents[1] / "data" / "modern-mmd.json"


def rows(*shape, seed=0, shift=0.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def official(gen, pos, neg, w_gen, w_pos, w_neg, temperatures):
    """Return the loss by whole matrices, written from the description of the authors' code."""
    targets, w = torch.cat([gen, neg, pos], 1), torch.cat([w_gen, w_neg, w_pos], 1)
    n, d = gen.shape[1:]
    dist = (gen.unsqueeze(2) - targets.unsqueeze(1)).square().sum(-1).clamp_min(1e-8).sqrt()
    scale = (dist * w.unsqueeze(1)).mean() / w.mean()
    unit = (scale / d**0.5).clamp_min(1e-3)
    x, y = (rows / unit for rows in (gen, targets))
    relative = dist / scale.clamp_min(1e-3) + 100 * torch.eye(n, targets.shape[1], dtype=gen.dtype)
    total = torch.zeros_like(gen)
    for tau in temperatures:
        logits = -relative / tau
        a = (logits.softmax(-1) * logits.softmax(-2)).clamp_min(1e-6).sqrt() * w.unsqueeze(1)
        split = n + neg.shape[1]
        away, towards = a[..., :split], a[..., split:]
        c = torch.cat([-away * towards.sum(-1, keepdim=True), towards * away.sum(-1, keepdim=True)], -1)
        force = c @ y - c.sum(-1, keepdim=True) * x
        total += force / force.square().mean().clamp_min(1e-8).sqrt()
    return total.square().mean((-2, -1)), -2 * total / unit / (n * d)


@pytest.fixture(params=[344, 4], ids=["whole", "tiles"])
def side(request, monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", request.param)


@pytest.mark.usefixtures("side")
@pytest.mark.parametrize(("name", "per_group"), [("drift_official_plain", False), ("drift_torch_port", True)])
def test_the_numbers_of_public_code(name, per_group):
    case = next(case for case in json.loads(DATA.read_text())["cases"] if case["id"] == name)
    fake, real = (torch.tensor(case["inputs"][key], dtype=torch.float64) for key in ("gen", "pos"))
    fake.requires_grad_()
    loss = drift_loss(fake, real, per_group=per_group)
    assert_close(loss, torch.tensor(case["outputs"]["loss"], dtype=torch.float64), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(loss.sum(), fake)
    assert_close(gradient, torch.tensor(case["outputs"]["grad_gen"], dtype=torch.float64), rtol=0, atol=1e-12)
    if not per_group:  # the unmodified code has distances in float32
        single = drift_loss(fake.float(), real.float())
        assert_close(single, torch.tensor(case["outputs"]["loss_float32_unmodified_code"]), rtol=1e-4, atol=0)


@pytest.mark.usefixtures("side")
@pytest.mark.parametrize("size", [1e-2, 1e-4])
def test_small_samples_meet_the_floors_of_the_scales(size):
    gen, pos = size * rows(1, 5, 3), size * rows(1, 6, 3, seed=1, shift=0.5)
    ones = torch.ones(1, 5).double(), torch.ones(1, 6).double()
    expected, slopes = official(gen, pos, gen[:, :0], *ones, ones[0][:, :0], (0.02, 0.2))
    loss = drift_loss(gen.requires_grad_(), pos, temperatures=(0.02, 0.2))
    assert_close(loss, expected)
    assert_close(torch.autograd.grad(loss.sum(), gen)[0], slopes)


def test_distances_are_computed_once_if_they_are_few(monkeypatch):
    calls, of = [], TileDistances.of
    monkeypatch.setattr(TileDistances, "of", lambda *arguments: calls.append(None) or of(*arguments))
    drift_loss(rows(2, 6, 4), rows(2, 7, 4, seed=1))
    assert len(calls) == 2  # from real samples, and from negatives
    drift(rows(6, 4), rows(7, 4, seed=1), kernel=LaplaceKernel())
    assert len(calls) == 4


@pytest.mark.usefixtures("side")
def test_guidance_by_weighted_negatives_is_that_of_the_authors_code():
    gen, pos, neg = rows(2, 5, 3), rows(2, 6, 3, seed=1, shift=0.5), rows(2, 3, 3, seed=2)
    pos[0, 0] = gen[0, 2]  # at the floor of the distance
    w_gen, w_pos, w_neg = (1 + rows(2, size, seed=seed).abs() for seed, size in ((3, 5), (4, 6), (5, 3)))
    temperatures = (0.02, 0.2, 1.0)
    expected, slopes = official(gen, pos, neg, w_gen, w_pos, w_neg, temperatures)
    gen.requires_grad_()
    options = {
        "negatives": torch.cat([gen, neg], 1),
        "exclude_self": True,
        "real_weights": w_pos,
        "negative_weights": torch.cat([w_gen, w_neg], 1),
        "temperatures": temperatures,
    }
    loss = drift_loss(gen, pos, **options)
    assert_close(loss, expected)
    assert_close(torch.autograd.grad(loss.sum(), gen)[0], slopes)
    compiled = torch.compile(drift_loss, backend="eager", fullgraph=True)(
        gen.detach(), pos, **(options | {"negatives": options["negatives"].detach()})
    )
    assert_close(compiled, expected)


def test_without_floors_it_is_made_of_drifts():
    fake, real = rows(6, 4), rows(7, 4, seed=1, shift=0.5)
    both = torch.cat([fake, real])
    scale = (fake.unsqueeze(1) - both).square().sum(-1).sqrt().mean()
    unit, total = scale / 2, torch.zeros_like(fake)
    for tau in (0.05, 0.2):
        found = drift(fake / unit, real / unit, kernel=LaplaceKernel(tau * 2))
        total += found / found.square().mean().sqrt()
    loss = drift_loss(fake, real, temperatures=[0.05, 0.2], distance_floor=0.0, affinity_floor=0.0)
    assert_close(loss, total.square().mean())


@pytest.mark.parametrize("per_group", [False, True])
def test_with_one_temperature_the_mean_loss_is_one_whatever_the_samples(per_group):
    for shift in (0.0, 0.1, 3.0):
        loss = drift_loss(rows(3, 8, 4), rows(3, 9, 4, seed=1, shift=shift), temperatures=[0.2], per_group=per_group)
        assert float(loss.mean()) == pytest.approx(1)
        assert float((loss - 1).abs().max()) < 1e-12 or not per_group


def test_groups_have_an_influence_on_one_another_unless_they_are_taken_alone():
    fake, real = rows(2, 3, 8, 4), rows(2, 3, 9, 4, seed=1)
    fake[1, 2] *= 10
    together, alone = drift_loss(fake, real), drift_loss(fake, real, per_group=True)
    assert together.shape == alone.shape == (2, 3)
    assert_close(alone[0, 1], drift_loss(fake[0, 1], real[0, 1]))
    assert float((together - alone).abs()[0, 1]) > 0.1
    fake[1, 2, 0, 0] = torch.nan
    broken = drift_loss(fake, real, per_group=True)
    assert broken.isnan().sum() == 1
    assert_close(broken[0], alone[0])
    assert drift_loss(fake, real).isnan().all()


def test_equal_samples_have_the_loss_of_the_floor():
    # All distances are zero: the field is zero, and the smallest scales keep it finite.
    fake = torch.ones(4, 3, requires_grad=True)
    loss = drift_loss(fake, torch.ones(5, 3))
    (gradient,) = torch.autograd.grad(loss, fake)
    assert_close(loss.detach(), torch.tensor(0.0))
    assert_close(gradient, torch.zeros(4, 3))


def test_only_the_fake_samples_have_a_gradient():
    fake, real = rows(6, 4).requires_grad_(), rows(7, 4, seed=1).requires_grad_()
    loss = drift_loss(fake, real, negatives=torch.cat([fake, real]), exclude_self=True)
    assert torch.autograd.grad(loss, real, allow_unused=True)[0] is None


def test_memory_grows_with_samples_and_not_with_pairs(monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE", 32)
    fake, real = rows(200, 2).float().requires_grad_(), rows(150, 2, seed=1).float()
    with Largest() as largest:
        drift_loss(fake, real).backward()
    assert largest.elements <= 32 * 32


def test_transforms_autocast_and_half_precision():
    fake, real = rows(2, 6, 4), rows(2, 7, 4, seed=1)
    alone = torch.stack([drift_loss(fake[i], real[i]) for i in range(2)])
    assert_close(torch.func.vmap(drift_loss)(fake, real), alone)
    leaf = fake.clone().requires_grad_()
    (expected,) = torch.autograd.grad(drift_loss(leaf, real).sum(), leaf)
    assert_close(torch.func.grad(lambda x: drift_loss(x, real).sum())(fake), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(drift_loss(fake.float(), real.float()), drift_loss(fake, real).float())
    halves = drift_loss(fake.half(), real.half())
    assert_close(halves, drift_loss(fake.half().float(), real.half().float()))


def test_forward_mode_stops_where_reverse_mode_does():
    fake, real, others = rows(2, 6, 4), rows(2, 7, 4, seed=1), rows(2, 3, 4, seed=2)
    directions = rows(2, 6, 4, seed=3), rows(2, 7, 4, seed=4), rows(2, 3, 4, seed=5)

    def loss(fake, real, others):
        negatives = torch.cat([fake, others], 1)
        return drift_loss(fake, real).sum() + drift_loss(fake, real, negatives=negatives, exclude_self=True).sum()

    (gradient,) = torch.autograd.grad(loss(fake.requires_grad_(), real, others), fake)
    fake = fake.detach()
    assert_close(torch.func.jvp(loss, (fake, real, others), directions)[1], (gradient * directions[0]).sum())


def test_negatives_that_take_the_place_of_fake_samples_are_warned_of():
    fake, real, others = torch.randn(6, 2), torch.randn(7, 2), torch.randn(5, 2)
    with pytest.warns(UsageWarning, match=r"nothing keeps fake samples apart. Pass negatives=torch.cat"):
        drift_loss(fake, real, negatives=others)
    drift_loss(fake, real, negatives=others, exclude_self=False)
    drift_loss(fake, real, negatives=torch.cat([fake, others]), exclude_self=True)
