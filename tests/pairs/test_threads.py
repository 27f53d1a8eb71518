"""Tiles for several threads, which are larger than those for one, and give the same losses."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from cases import CASES, KernelCase, scores
from torch.testing import assert_close

from torch_mmd_losses import EnergyKernel, MMDLoss, RBFBKernel, RBFKernel, RBFMix, mmd2, mmd2_blocks
from torch_mmd_losses.kernels.contract import UNBOUNDED
from torch_mmd_losses.pairs import plan, tiles
from torch_mmd_losses.pairs.tile_sums import sums_with_gradients

CPU = torch.device("cpu")


@pytest.fixture
def small_tiles(monkeypatch):
    """Send every size through tiles of three rows and columns, and make up to four of them one."""
    monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
    monkeypatch.setattr(tiles, "CPU_TILE", 3)
    monkeypatch.setattr(tiles, "WIDTH_STEP", 1)
    monkeypatch.setattr(tiles, "AT_ONCE", 4)


@pytest.fixture
def with_threads(monkeypatch):
    """Return a function that calls another one as if PyTorch had that many threads."""

    def call(threads, function):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "get_num_threads", lambda: threads)
            return function()

    return call


def block_of(m: int, n: int, *, symmetric: bool) -> tiles.Block:
    a = torch.zeros(m, 1)
    return tiles.Block(a, a if symmetric else torch.zeros(n, 1), 0, distinct=False, same=False, symmetric=symmetric)


@pytest.mark.parametrize("at_once", [1, 2, 5, 16])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (3, 100), (100, 3), (64, 64), (100, 61), (61, 203)])
@pytest.mark.parametrize("threads", [2, 64])
def test_tiles_cover_every_pair_once_and_are_not_too_large(m, n, at_once, threads, with_threads):
    side = 10
    found = torch.zeros(m, n)
    block = block_of(m, n, symmetric=False)
    for rows, columns in with_threads(threads, lambda: list(tiles.tiles(block, side, at_once))):
        found[rows, columns] += 1
        assert found[rows, columns].numel() <= at_once * (side + 2 * tiles.WIDTH_STEP) ** 2
    assert (found == 1).all()


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("at_once", [1, 2, 5, 16])
@pytest.mark.parametrize("n", [1, 19, 24, 61, 203])
@pytest.mark.parametrize("threads", [2, 64])
def test_tiles_of_a_symmetric_block_end_in_squares_on_the_diagonal(n, at_once, merged, threads, with_threads):
    side = 10
    found = torch.zeros(n, n)
    block = block_of(n, n, symmetric=True)
    for rows, columns in with_threads(threads, lambda: list(tiles.tiles(block, side, at_once, merged=merged))):
        found[rows, columns] += 1
        assert found[rows, columns].numel() <= at_once * (side + 2 * tiles.WIDTH_STEP) ** 2
        on_diagonal = rows.stop > columns.start
        assert not on_diagonal or rows.stop == columns.stop
        assert merged or not on_diagonal or rows == columns
        if on_diagonal:
            square = slice(columns.start, columns.stop)
            found[square, square].triu_()  # the square has both orders of a pair
    assert torch.equal(found, torch.ones(n, n).triu())


def test_one_thread_takes_the_tiles_that_it_always_took():
    assert tiles.tiles_at_once(None, CPU) == 1
    block = block_of(5, 5, symmetric=True)
    expected = [
        ((0, 2), (0, 2)),
        ((0, 2), (2, 4)),
        ((2, 4), (2, 4)),
        ((0, 2), (4, 5)),
        ((2, 4), (4, 5)),
        ((4, 5), (4, 5)),
    ]
    for merged in (False, True):
        found = [tuple((s.start, s.stop) for s in tile) for tile in tiles.tiles(block, 2, merged=merged)]
        assert found == expected


@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (2, 16), (64, 16)])
def test_several_threads_take_several_tiles_at_once(threads, expected, with_threads):
    assert with_threads(threads, lambda: tiles.tiles_at_once(None, CPU)) == expected
    assert with_threads(threads, lambda: tiles.tiles_at_once(None, CPU, 4)) == max(1, expected // 4)
    assert with_threads(threads, lambda: tiles.tiles_at_once(344, CPU)) == 1
    assert with_threads(threads, lambda: tiles.tiles_at_once(None, torch.device("cuda"))) == 1


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("estimator", ["unbiased", "u_statistic", "biased"])
@pytest.mark.usefixtures("small_tiles")
def test_losses_gradients_and_terms_do_not_depend_on_the_number_of_threads(case: KernelCase, estimator, with_threads):
    real, fake = scores(23, 3, 1).requires_grad_(), scores(23, 3, 2, shift=0.4).requires_grad_()
    loss = MMDLoss(case.make(), 0.5, estimator=estimator)

    def everything():
        both = loss.both(real, fake)
        gradients = [torch.autograd.grad(value, (real, fake), retain_graph=True) for value in both]
        return [*both, *gradients, tuple(loss.terms(real, fake))]

    expected = with_threads(1, everything)
    for found, value in zip(with_threads(2, everything), expected, strict=True):
        assert_close(found, value)


@pytest.mark.usefixtures("small_tiles")
def test_second_derivatives_do_not_depend_on_the_number_of_threads(with_threads, monkeypatch):
    monkeypatch.setattr(tiles, "AT_ONCE", 16)  # a quarter of which are taken at once
    real, fake = scores(23, 3, 1).requires_grad_(), scores(17, 3, 2).requires_grad_()

    def penalty():
        gradients = torch.autograd.grad(
            mmd2(real, fake, RBFBKernel() + EnergyKernel()), (real, fake), create_graph=True
        )
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), (real, fake))

    assert_close(with_threads(64, penalty), with_threads(1, penalty))


@pytest.mark.usefixtures("small_tiles")
def test_far_scores_have_all_their_digits_with_several_threads(with_threads):
    real, fake = scores(23, 3, 1).float(), scores(23, 3, 2).float()
    real[0] = 1e4
    found = with_threads(2, lambda: mmd2(real, fake, RBFMix()))
    expected = with_threads(1, lambda: mmd2(real.double(), fake.double(), RBFMix()))
    assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("distinct", [False, True])
def test_a_part_of_a_sample_meets_its_diagonal_also_in_large_tiles(distinct):
    everything = scores(40, 3, 1)
    block = tiles.Block(everything[7:30], everything, 7, distinct=distinct, same=True, symmetric=False)
    summands = RBFKernel()._summands()
    found, expected = (
        sums_with_gradients(summands, [], block, [(UNBOUNDED,)], wanted=(True, True), side=4, at_once=at_once)
        for at_once in (5, 1)
    )
    assert_close(tuple(found[0]), tuple(expected[0]))


def test_blocks_do_not_depend_on_the_number_of_threads(with_threads):
    real, fake = scores(60, 3, 1).requires_grad_(), scores(60, 3, 2).requires_grad_()

    def everything():
        estimate = mmd2_blocks(real, fake, RBFMix(), block_size=5)
        return *estimate, *torch.autograd.grad(estimate.value + estimate.variance, (real, fake))

    assert_close(with_threads(4, everything), with_threads(1, everything))


def test_two_threads_compute_what_one_computes_and_always_the_same():
    real, fake = torch.randn(600, 4, requires_grad=True), torch.randn(400, 4, requires_grad=True)

    def everything():
        value = mmd2(real, fake, RBFMix())
        return value, *torch.autograd.grad(value, (real, fake))

    expected = everything()
    try:
        torch.set_num_threads(2)
        found, again = everything(), everything()
    finally:
        torch.set_num_threads(1)
    # Sums of float32 numbers in another order.
    assert_close(found, expected, rtol=1e-5, atol=1e-8)
    assert all(torch.equal(x, y) for x, y in zip(found, again, strict=True))


FAULTS = """
import resource
import torch
from torch_mmd_losses import RBFMix, mmd2

torch.set_num_threads(2)
real, fake = torch.randn(2048, 16, requires_grad=True), torch.randn(2048, 16, requires_grad=True)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.autograd.grad(mmd2(real, fake, RBFMix()), (real, fake))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first, second, *later = (faults() for _ in range(6))
print(min(later))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")
def test_matrices_of_several_threads_stay_with_the_process():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=environment)
    # 8,000 to 14,000 in each call if the allocator returns the matrices after each use. The lowest of several calls
    # counts, since a thread may need its first matrix (1,013 pages) in a later one.
    assert int(done.stdout) < 1000
