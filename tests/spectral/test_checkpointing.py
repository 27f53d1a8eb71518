"""Gradients under activation checkpointing are those without it, for any number of forward passes."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint
from wrapped_layers import images, network

from torch_mmd_losses import MMDLoss, conv_spectral_norm

METHODS = ("conv", "pico", "matrix")


def plain(model, x):
    return model(x)


def without_reentry(model, x):
    return checkpoint(model, x, use_reentrant=False)


def with_reentry(model, x):
    return checkpoint(model, x.clone().requires_grad_(), use_reentrant=True)


def in_segments(model, x):
    for part in (model[:3], model[3:]):
        x = checkpoint(part, x, use_reentrant=False)
    return x


def train(model, run, forwards, fused):
    """Return the gradients of three steps; each has some forward passes before the backward pass, in two losses."""
    adam = torch.optim.Adam(model.parameters(), lr=1e-2, fused=fused)
    gradients = []
    for step in range(3):
        adam.zero_grad()
        scores = [run(model, images(4, seed=10 * step + turn)) for turn in range(forwards)]
        loss = sum(score.square().sum() for score in scores)
        if forwards > 1:
            loss = loss + MMDLoss().discriminator(real=scores[0], fake=scores[-1])
        loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        adam.step()
    return gradients


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("run", [without_reentry, with_reentry, in_segments])
@pytest.mark.parametrize(("forwards", "fused"), [(1, True), (2, False), (3, True)], ids=["1-fused", "2", "3-fused"])
def test_gradients_are_those_without_it(method, fused, run, forwards):
    model = conv_spectral_norm(network(), method=method, learn_scale=True)
    twin = copy.deepcopy(model)
    for found, expected in zip(train(model, run, forwards, fused), train(twin, plain, forwards, fused), strict=True):
        # Backward passes within backward passes add gradients up in another order.
        assert_close(found, expected, rtol=1e-4 if run is with_reentry else 0, atol=1e-5 if run is with_reentry else 0)


def test_a_layer_used_several_times_in_one_pass():
    block = nn.Conv2d(3, 3, 3, padding=1)
    model = nn.Sequential(block, nn.Tanh(), block, nn.Tanh(), block, nn.Flatten(), nn.Linear(192, 4))
    model = conv_spectral_norm(model)
    twin = copy.deepcopy(model)
    for found, expected in zip(train(model, in_segments, 2, False), train(twin, plain, 2, False), strict=True):
        assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_an_optimiser_that_steps_inside_the_backward_pass(method):
    def with_steps_inside(model, run):
        optimisers = {p: torch.optim.Adam([p], lr=1e-2, fused=True) for p in model.parameters()}

        def step(parameter):
            optimisers[parameter].step()
            parameter.grad = None

        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(step)
        for turn in range(3):
            sum(run(model, images(4, seed=2 * turn + i)).square().sum() for i in range(2)).backward()

    model = conv_spectral_norm(network(), method=method)
    twin = copy.deepcopy(model)
    with_steps_inside(model, without_reentry)
    with_steps_inside(twin, plain)
    assert_close(model.state_dict(), twin.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_recomputation_for_a_second_derivative(method):
    model = conv_spectral_norm(network(), method=method)
    twin = copy.deepcopy(model)
    gradients = []
    for network_, run in ((model, without_reentry), (twin, plain)):
        x = images(4).requires_grad_()
        (slope,) = torch.autograd.grad(run(network_, x).sum(), x, create_graph=True)
        slope.square().sum().backward()
        gradients.append([p.grad for p in network_.parameters() if p.grad is not None])
    assert_close(gradients[0], gradients[1], rtol=0, atol=0)
