"""The derivatives that tests on fake GPUs take are those of PyTorch's own engine."""

from __future__ import annotations

import pytest
import torch
from autograd_in_python import backward, grad
from cases import SMOOTH, scores
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import MMDLoss, conv_spectral_norm


@pytest.mark.parametrize("n", [8, 300])
@pytest.mark.parametrize("name", ["rbf_mix", "polynomial", "sum_with_bounded"])
def test_first_and_second_derivatives(name: str, n: int):
    real, fake = scores(n, 3, 1).requires_grad_(), scores(n, 3, 2).requires_grad_()
    value = MMDLoss(SMOOTH[name].make()).both(real, fake).discriminator
    found = []
    for engine in (torch.autograd.grad, grad):
        first = engine(value, [real, fake], create_graph=True)
        second = engine(sum(x.square().sum() for x in first), [real, fake], retain_graph=True)
        found.append((*first, *second))
    assert_close(*found)


def test_networks_in_two_dtypes():
    layer = conv_spectral_norm(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)).double())
    out = layer(torch.randn(2, 3, 5, 5).double()).float().square().sum()
    assert_close(*[engine(out, list(layer.parameters()), retain_graph=True) for engine in (torch.autograd.grad, grad)])


def test_inputs_that_are_not_used():
    x, y = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    assert grad(x.sum(), [x, y], allow_unused=True)[1] is None
    assert_close(grad(x.sum(), [x, y], materialize_grads=True)[1], torch.zeros(2))
    with pytest.raises(RuntimeError, match="not have been used"):
        grad(x.sum(), [x, y])


def test_seeds_outputs_with_several_edges_and_results_that_are_inputs():
    x = torch.arange(3.0, requires_grad=True)
    y = x * 2
    parts = y.unbind()
    outputs, seeds = [parts[0] * parts[2], y.sum()], [torch.tensor(3.0), torch.tensor(5.0)]
    assert_close(grad(outputs, [x, y], seeds), torch.autograd.grad(outputs, [x, y], seeds, retain_graph=True))


def test_gradients_are_added_to_those_of_the_leaves():
    x, y = torch.arange(3.0, requires_grad=True), torch.ones(2, requires_grad=True)
    frozen = torch.ones(3)
    outputs, seeds = [x.square() * frozen, y.sum() * x[1:]], [torch.tensor([1.0, 2.0, 3.0]), torch.ones(2)]
    expected = torch.autograd.grad(outputs, [x, y], seeds, retain_graph=True)
    for times in (1, 2):
        backward(outputs, seeds)
        assert_close((x.grad, y.grad), (times * expected[0], times * expected[1]))


def test_function_transforms(monkeypatch: pytest.MonkeyPatch):
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda y: (y.sin() ** 3).sum())(x).sum()

    x = torch.randn(5)
    expected = torch.func.grad(function)(x)
    monkeypatch.setattr(torch.autograd, "grad", grad)
    assert_close(torch.func.grad(function)(x), expected)
