"""Gradients where some pairs of scores nearly coincide, for kernels whose slope grows without limit there."""

import pytest
import torch
from torch.testing import assert_close

from torch_mmd_losses import EnergyKernel, LaplaceKernel, RBFKernel, grouped_mmd2, mmd2, mmd2_and_variance, mmd2_blocks
from torch_mmd_losses.groups import call
from torch_mmd_losses.pairs import near_pairs, plan, tile_distances, tiles

D = 16
KERNELS = {
    "laplace": lambda: LaplaceKernel(3.0),
    "energy": EnergyKernel,
    "sum": lambda: 0.5 * LaplaceKernel(3.0) + RBFKernel(2.0),
}
every_kernel = pytest.mark.parametrize("name", KERNELS)
distances = pytest.mark.parametrize("apart", [1e-4, 1e-6, 1e-9])


def samples(apart, m=12, n=9, far=0.0):
    """Return real and fake samples, of which some are `apart` from one another, and two are equal."""
    generator = torch.Generator().manual_seed(0)
    real, fake, steps = (torch.randn(count, D, generator=generator).double() for count in (m, n, 6))
    fake[:4], real[7], fake[8] = real[:4] + apart / 4 * steps[:4], real[6] + apart / 4 * steps[4], fake[7]
    return real + far, fake + far


def clusters():
    """Return real samples in two narrow clusters, and fake samples in one of them."""
    generator = torch.Generator().manual_seed(0)
    real, fake = (1e-6 * torch.randn(count, D, generator=generator).double() for count in (12, 9))
    real[:6] += 1.0
    return real, fake


def reference(kernel, real, fake, real_weights=None):
    """Return the gradient of the biased value by all scores from differences, and the norms of its terms."""
    m, n = len(real), len(fake)
    stack = torch.cat([real, fake])
    steps = stack.unsqueeze(1) - stack
    sq_dist = steps.square().sum(-1)
    apart = torch.where(sq_dist == 0, 1.0, sq_dist).requires_grad_()
    values = sum(factor * part.from_sq_dist(apart).sum() for factor, part, _ in kernel._summands())
    slopes = torch.autograd.grad(values, apart)[0].masked_fill(sq_dist == 0, 0)
    own = torch.full((m,), 1 / m, dtype=torch.float64) if real_weights is None else real_weights / real_weights.sum()
    signed = torch.cat([own, torch.full((n,), -1 / n, dtype=torch.float64)])
    terms = 4 * (signed.unsqueeze(1) * signed * slopes).unsqueeze(-1) * steps
    return terms.sum(1), terms.norm(dim=-1).sum(1)


def of_mmd2(real, fake, kernel):
    return mmd2(real, fake, kernel, estimator="biased")


def of_groups(real, fake, kernel, **options):
    """Return the value of a group, next to others of which one has no near pairs."""
    others = torch.stack([real.detach(), 2 * real.detach().flip(0)]), torch.stack([fake.detach(), 3 + fake.detach()])
    both = torch.cat([real.unsqueeze(0), others[0]]), torch.cat([fake.unsqueeze(0), others[1]])
    return grouped_mmd2(*both, kernel, **options)[0]


def of_blocks(real, fake, kernel):
    return mmd2_blocks(real.repeat(2, 1), fake.repeat(2, 1), kernel, block_size=9, estimator="biased").value


WAYS = {
    "dense": of_mmd2,
    "tiles": of_mmd2,
    "stacked": of_groups,
    "tiles of groups": of_groups,
}


def compare(value, kernel, real, fake, tolerance, dtype=torch.float64, **options):
    leaves = real.to(dtype).requires_grad_(), fake.to(dtype).requires_grad_()
    found = torch.cat(torch.autograd.grad(value(*leaves, kernel, **options), leaves)).double()
    expected, terms = reference(kernel, *[leaf.detach().double() for leaf in leaves])
    assert ((found - expected).norm(dim=1) <= tolerance * terms).all()


@pytest.fixture(params=WAYS)
def value(request, monkeypatch):
    if "tiles" in request.param:
        monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
        monkeypatch.setattr(call, "TOGETHER_UP_TO", 0)
        monkeypatch.setattr(tiles, "CPU_TILE", 5)
    return WAYS[request.param]


@every_kernel
@distances
def test_gradients_of_float64_scores_have_eight_digits(value, name, apart):
    compare(value, KERNELS[name](), *samples(apart), 1e-8)


@every_kernel
def test_far_from_the_origin_differences_are_those_of_the_scores(value, name):
    compare(value, KERNELS[name](), *samples(1e-6, far=1000.0), 1e-8)


@every_kernel
def test_gradients_of_float32_scores_have_five_digits(value, name):
    compare(value, KERNELS[name](), *samples(1e-6), 1e-5, torch.float32)
    compare(value, KERNELS[name](), *samples(1e-4), 1e-5, torch.float32)


@every_kernel
def test_so_do_gradients_where_most_pairs_are_near(value, name):
    compare(value, KERNELS[name](), *clusters(), 1e-8)


@pytest.mark.parametrize("way", WAYS)
@every_kernel
def test_second_derivatives_have_eight_digits_too(way, name, monkeypatch):
    if "tiles" in way:
        monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
        monkeypatch.setattr(call, "TOGETHER_UP_TO", 0)
        monkeypatch.setattr(tiles, "CPU_TILE", 5)
    kernel, (real, fake) = KERNELS[name](), samples(1e-6)
    fake[8] += 1.0  # no second derivative where samples are equal
    direction = torch.randn(9, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def exact(real, fake, kernel):
        stack = torch.cat([real, fake])
        signed = torch.cat([real.new_full((12,), 1 / 12), real.new_full((9,), -1 / 9)])
        sq_dist = (stack.unsqueeze(1) - stack).square().sum(-1)
        values = sum(factor * part.from_sq_dist(sq_dist) for factor, part, _ in kernel._summands())
        return (signed.unsqueeze(1) * signed * values).sum()

    found = []
    for value in (WAYS[way], exact):
        leaf = fake.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(value(real, leaf, kernel), leaf, create_graph=True)
        found.append((gradient.detach(), *torch.autograd.grad((gradient * direction).sum(), leaf)))
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= 1e-8 * other.norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_so_do_those_of_an_estimate_with_its_variance(dtype):
    real, fake = (scores.to(dtype) for scores in samples(1e-6))
    found = []
    for value in (mmd2, lambda *arguments: mmd2_and_variance(*arguments).value):
        leaf = fake.clone().requires_grad_()
        found += torch.autograd.grad(value(real, leaf, LaplaceKernel(3.0)), leaf)
    assert (found[0] - found[1]).norm() <= (1e-8 if dtype == torch.float64 else 1e-5) * found[0].norm()


def test_so_do_those_of_blocks():
    real, fake = samples(1e-6)
    compare(of_blocks, LaplaceKernel(3.0), real[:9], fake, 1e-8)


def test_so_do_those_of_trained_kernels(value):
    compare(value, LaplaceKernel(1.0, trainable=True), *samples(1e-6), 1e-8)


def test_so_do_those_of_trained_kernels_where_most_pairs_are_near(value):
    real, fake = clusters()
    compare(value, LaplaceKernel(1.0, trainable=True), real, fake, 1e-8)


@pytest.mark.parametrize("value", ["stacked", "tiles of groups"], indirect=True)
@every_kernel
def test_scales_and_weights(value, name):
    kernel, (real, fake) = KERNELS[name](), samples(1e-6)
    leaves, scale = (
        (real.requires_grad_(), fake.requires_grad_()),
        torch.tensor([0.5, 1.0, 1.0]).double().requires_grad_(),
    )
    weights = torch.rand(3, 12, generator=torch.Generator().manual_seed(1)).double()
    found = value(*leaves, kernel, scale=scale, real_weights=weights)
    *gradients, to_scale = torch.autograd.grad(found, (*leaves, scale))
    expected, terms = reference(kernel, 2 * real.detach(), 2 * fake.detach(), weights[0])
    assert ((torch.cat(gradients) - 2 * expected).norm(dim=1) <= 2e-8 * terms).all()
    stack = torch.cat([real, fake]).detach()
    assert_close(to_scale[0], -(2 * expected * stack).sum() / 0.5, rtol=1e-8, atol=1e-9)
    assert not to_scale[1:].any()


def test_many_near_pairs_are_computed_in_chunks(monkeypatch):
    monkeypatch.setattr(near_pairs, "AT_ONCE", 3 * D)
    for value in (of_mmd2, of_groups):
        compare(value, LaplaceKernel(3.0), *samples(1e-6), 1e-8)


def test_kernels_without_a_root_and_ordinary_scores_need_no_repair(monkeypatch):
    def repair(*_):
        raise AssertionError

    monkeypatch.setattr(near_pairs.StackedNearPairs, "repair_", repair)
    monkeypatch.setattr(tile_distances.TileDistances, "_computed_anew", repair)
    for way in (of_mmd2, of_groups):
        way(*samples(1e-6), RBFKernel(3.0))
        way(*[scores[4:6] for scores in samples(1e-6)], LaplaceKernel(3.0))


def test_a_group_with_near_pairs_leaves_the_others_as_they_are():
    real, fake = (scores.unsqueeze(0).repeat(3, 1, 1) for scores in samples(1.0))
    near = fake.clone()
    near[1, 0] = real[1, 0] + 1e-6
    gradients = []
    for scores in (fake, near):
        leaf = scores.clone().requires_grad_()
        gradients += torch.autograd.grad(grouped_mmd2(real, leaf, LaplaceKernel()).sum(), leaf)
    others = torch.tensor([0, 2])
    assert_close(gradients[0][others], gradients[1][others], rtol=0, atol=0)
