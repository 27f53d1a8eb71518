"""The way in which each summand of a kernel is evaluated."""

import pytest
import torch
from cases import Cubic, InverseMultiquadric

from torch_mmd_losses import Kernel, LinearKernel, PolynomialKernel, RBFBKernel, RBFKernel, RBFMix
from torch_mmd_losses.pairs.batch import LOCAL, LocalBatch
from torch_mmd_losses.pairs.objective import GENERATOR
from torch_mmd_losses.pairs.plan import DENSE_UP_TO, make_plan

WAYS = ("dense", "tiled", "tiled_by_autograd", "trained", "by_autograd")


class Trained(Kernel):
    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.ones(()))

    def from_sq_dist(self, sq_dist):
        return torch.exp(-self.rate * sq_dist)


def ways(kernel, *, m=4, batch=LOCAL):
    """Return the way of each summand, by the name of its class."""
    real, fake, options = torch.zeros(m, 2), torch.zeros(4, 2), {"objectives": [GENERATOR], "tile_size": None}
    plan = make_plan(kernel._summands(), real, fake, "unbiased", batch=batch, **options)
    return {type(summand.kernel).__name__: way for way in WAYS for summand in summands_of(plan, way)}


def summands_of(plan, way):
    return plan.trained.summands() if way == "trained" else getattr(plan, way)


@pytest.mark.parametrize("kernel", [RBFKernel(), RBFMix(), RBFBKernel(), InverseMultiquadric()])
def test_kernels_of_the_distance_are_dense_in_small_batches_and_tiled_in_large_ones(kernel):
    name = type(kernel).__name__
    assert ways(kernel, m=DENSE_UP_TO - 4) == {name: "dense"}
    assert ways(kernel, m=DENSE_UP_TO - 3) == {name: "tiled"}


def test_batches_of_several_processes_are_tiled():
    several = LocalBatch()
    several.is_local = False
    assert ways(RBFKernel(), batch=several) == {"RBFKernel": "tiled"}


def test_each_summand_goes_its_own_way():
    kernel = 2 * (RBFKernel() + LinearKernel()) + PolynomialKernel() + Cubic() + Trained()
    expected = {
        "RBFKernel": "dense",
        "LinearKernel": "by_autograd",
        "PolynomialKernel": "tiled_by_autograd",
        "Cubic": "tiled_by_autograd",
        "Trained": "by_autograd",
    }
    assert ways(kernel) == expected
    assert ways(kernel, m=600) == expected | {"RBFKernel": "tiled", "Trained": "trained"}


def test_a_trained_kernel_that_is_frozen_is_like_any_other():
    assert ways(Trained().requires_grad_(False)) == {"Trained": "dense"}
    assert ways(Trained().requires_grad_(False), m=600) == {"Trained": "tiled"}


def test_everything_is_left_to_autograd_in_a_function_transform():
    found = []

    def record(scores):
        summands, options = (RBFKernel() + Cubic())._summands(), {"objectives": [GENERATOR], "tile_size": None}
        plan = make_plan(summands, scores, scores, "biased", batch=LOCAL, **options)
        found.append([len(summands_of(plan, way)) for way in WAYS])
        return scores.sum()

    torch.func.grad(record)(torch.zeros(3, 2))
    assert found == [[0, 0, 0, 0, 2]]
