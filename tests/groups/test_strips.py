"""Groups of some hundred samples with a Gaussian kernel."""

import pytest
import torch
from torch.testing import assert_close

from torch_mmd_losses import LaplaceKernel, RBFKernel, grouped_mmd2, mmd2
from torch_mmd_losses.groups import strips, tiled


def scores(groups, n, d=3, seed=0, shift=0.0):
    return torch.randn(groups, n, d, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.fixture
def in_tiles(monkeypatch):
    """Return the groups that are evaluated in tiles."""
    found, add_group = [], tiled.add_group
    monkeypatch.setattr(tiled, "add_group", lambda *given: found.append(given[1]) or add_group(*given))
    return found


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize(("m", "n"), [(300, 260), (128, 400), (401, 127)])
@pytest.mark.parametrize("wanted", [(True, True), (False, True), (True, False), (False, False)])
def test_values_and_gradients_are_those_of_mmd2(m, n, estimator, wanted, in_tiles):
    real, fake = scores(2, m), scores(2, n, seed=1, shift=0.2)
    exact = [each.double().requires_grad_() for each in (real, fake)]
    for each, want in zip((real, fake), wanted, strict=True):
        each.requires_grad_(want)
    kernel = RBFKernel(1.3)
    found = grouped_mmd2(real, fake, kernel, estimator=estimator)
    expected = torch.stack([mmd2(a, b, kernel, estimator=estimator) for a, b in zip(*exact, strict=True)])
    assert_close(found.double(), expected, rtol=0, atol=1e-7)  # of kernel values in float32
    assert not in_tiles
    gradients = torch.autograd.grad(expected.sum(), exact)
    for each, gradient in zip((real, fake), gradients, strict=True):
        if each.requires_grad:
            (own,) = torch.autograd.grad(found.sum(), each, retain_graph=True)
            assert_close(own.double(), gradient, rtol=0, atol=1e-5 * float(gradient.abs().max()))


def test_groups_that_need_other_distances_are_evaluated_in_tiles(in_tiles):
    real, fake = scores(4, 300), scores(4, 300, seed=1)
    real[1] *= 1e-4  # values near the peak
    fake[1] *= 1e-4
    real[2, 0] += 1e5
    real[3, 0, 0] = torch.nan
    found = grouped_mmd2(real, fake, RBFKernel())
    assert [len(one.real) for one in in_tiles] == [1, 1, 1]
    for i in range(3):
        expected = mmd2(real[i].double(), fake[i].double(), RBFKernel(), estimator="biased")
        assert_close(found[i].double(), expected, rtol=1e-5, atol=1e-7)
    assert found[3].isnan()


@pytest.mark.parametrize("change", ["float64", "u_statistic", "laplace", "large"])
def test_other_calls_take_no_strips(change, monkeypatch):
    monkeypatch.setattr(strips, "values_and_gradients", None)
    real, fake = scores(2, 300), scores(2, 300, seed=1)
    if change == "large":
        monkeypatch.setattr(strips, "UP_TO", 500)
    if change == "float64":
        real, fake = real.double(), fake.double()
    estimator = "u_statistic" if change == "u_statistic" else "biased"
    kernel = LaplaceKernel() if change == "laplace" else RBFKernel()
    found = grouped_mmd2(real, fake, kernel, estimator=estimator)
    assert_close(found[1], mmd2(real[1], fake[1], kernel, estimator=estimator))


def test_second_derivatives_are_those_of_mmd2():
    real, fake = scores(1, 300), scores(1, 280, seed=1)

    def second(loss, fake):
        (first,) = torch.autograd.grad(loss(fake).sum(), fake, create_graph=True)
        return torch.autograd.grad(first.square().sum(), fake)[0]

    found = second(lambda y: grouped_mmd2(real, y, RBFKernel()), fake.clone().requires_grad_())
    exact = second(
        lambda y: mmd2(real[0].double(), y[0], RBFKernel(), estimator="biased"), fake.double().requires_grad_()
    )
    assert_close(found.double(), exact, rtol=0, atol=1e-5 * float(exact.abs().max()))
