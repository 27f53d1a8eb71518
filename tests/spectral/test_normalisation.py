"""Derivatives of the normalised weight, and weights that are zero, tiny or huge."""

import math

import pytest
import torch
from cases import scores
from oracles import operator_norm
from torch import nn
from torch.testing import assert_close
from wrapped_layers import LAYERS, change, converge, every_layer, images, network, original, state, used_weight

from torch_mmd_losses import conv_spectral_norm, spectral_norms
from torch_mmd_losses.spectral import singular_vectors


def plain(layer):
    """Return `C W / |A v|` with nothing but autograd."""
    weight, norm = original(layer), state(layer)
    return norm.scale * weight / singular_vectors.norm_along(norm.operator, weight, norm.v.clone())


@every_layer
@pytest.mark.parametrize("learn_scale", [False, True])
@pytest.mark.parametrize("skipped", [0, 1, 2])
def test_first_and_second_derivatives_are_those_of_the_norm_along_v(make, shape, learn_scale, skipped):
    layer = conv_spectral_norm(make().double(), scale=1.3, learn_scale=learn_scale)
    x = torch.zeros(1, *shape, dtype=torch.float64)
    layer(x)
    change(layer)
    for _ in range(skipped):
        layer(x)
    wanted = list(layer.parametrizations.parameters())
    assert len(wanted) == 1 + learn_scale
    derivatives = []
    for weight in (used_weight(layer, x), plain(layer)):
        outer = scores(1, weight.numel()).reshape(weight.shape)
        simple = torch.autograd.grad(weight, wanted, outer, retain_graph=True)
        first = torch.autograd.grad(weight, wanted, outer, create_graph=True)
        assert_close(first, simple)
        weighted = sum((g * scores(1, g.numel(), 1).reshape(g.shape)).sum() for g in first)
        second = torch.autograd.grad(weighted, wanted)
        assert all(g.any() for g in second[:1])
        derivatives.append([weight.detach().as_subclass(torch.Tensor), *simple, *second])
    assert_close(derivatives[0], derivatives[1], rtol=1e-7, atol=1e-10)


def test_a_frozen_weight_with_a_learned_scale():
    layer = conv_spectral_norm(nn.Linear(4, 3), learn_scale=True)
    original(layer).requires_grad_(False)
    for create_graph in (False, True):
        (gradient,) = torch.autograd.grad(
            used_weight(layer, torch.zeros(1, 4)).sum(), [state(layer).scale], create_graph=create_graph
        )
        assert_close(gradient, original(layer).sum() / spectral_norms(layer)[""])


@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_of_the_weight_see_one_gradient(create_graph):
    layer = conv_spectral_norm(nn.Linear(4, 3), learn_scale=True)
    parameters = list(layer.parametrizations.parameters())
    x = torch.ones(1, 4)
    expected = torch.autograd.grad(layer(x).sum(), parameters)
    for parameter in parameters:
        parameter.register_hook(lambda gradient: 3 * gradient)
    found = torch.autograd.grad(layer(x).sum(), parameters, create_graph=create_graph)
    assert_close(found, tuple(3 * gradient for gradient in expected))


@pytest.mark.parametrize("method", ["conv", "matrix"])
@pytest.mark.parametrize("learn_scale", [False, True])
@pytest.mark.parametrize("kind", ["linear", "conv2d_circular", "conv_transpose2d_grouped"])
def test_first_and_second_derivatives_with_respect_to_weight_and_input(kind, method, learn_scale):
    make, shape = LAYERS[kind]
    layer = make().double()
    x = scores(2, math.prod(shape)).reshape(2, *shape).requires_grad_()
    conv_spectral_norm(layer, method=method, scale=1.3, learn_scale=learn_scale).eval()(x)
    names = [name for name, _ in layer.named_parameters()]

    def output(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), x).tanh()

    arguments = (x, *(p.detach().requires_grad_() for p in layer.parameters()))
    assert torch.autograd.gradcheck(output, arguments, fast_mode=True)
    assert torch.autograd.gradgradcheck(output, arguments, fast_mode=True)


def test_gradient_is_that_of_the_quotient():
    # With v the true singular vector: d(W / sigma) = dW / sigma - W <u v^T, dW> / sigma^2, from an SVD.
    layer = conv_spectral_norm(nn.Linear(4, 3).double())
    converge(layer, torch.zeros(1, 4, dtype=torch.float64), forwards=300)
    weight, direction = original(layer).detach(), scores(3, 4)
    u, s, vh = torch.linalg.svd(weight)
    gradient = direction / s[0] - (weight * direction).sum() / s[0] ** 2 * torch.outer(u[:, 0], vh[0])
    (layer.weight * direction).sum().backward()
    assert_close(original(layer).grad, gradient, rtol=1e-6, atol=1e-8)


def test_gradient_penalty_steps_the_weights():
    discriminator = conv_spectral_norm(network())
    x = images(4).requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert all(original(layer).grad.any() for layer in discriminator if hasattr(layer, "parametrizations"))


@pytest.mark.parametrize("training", [True, False])
def test_zero_weights_give_zero_and_recover(training):
    layer = nn.Conv2d(3, 6, 3, padding=1)
    weight = layer.weight.detach().clone()
    layer.weight.data.zero_()
    conv_spectral_norm(layer).train(training)
    out = layer(images())
    out.sum().backward()
    assert_close(out, layer.bias.reshape(1, -1, 1, 1).expand_as(out))
    assert original(layer).grad.isfinite().all()
    with torch.no_grad():
        original(layer).copy_(weight)
    converge(layer, images())
    assert operator_norm(layer, (3, 8, 8)) == pytest.approx(1, rel=1e-3)


METHODS = ("conv", "pico", "matrix")


@pytest.mark.parametrize(
    ("magnitude", "training"),
    [
        *((magnitude, True) for magnitude in (1e-30, 1e-14, 1e15, 1e20, 1e30)),
        *((magnitude, False) for magnitude in (1e-30, 1e-25, 1e25, 1e30)),
    ],
)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["linear", "conv2d", "conv2d_circular", "conv_transpose2d_grouped"])
def test_tiny_and_huge_weights_are_normalised_as_others(magnitude, method, kind, training):
    make, shape = LAYERS[kind]
    layers = [make() for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    layers[1].weight.data.mul_(magnitude)
    found = []
    for layer, unit in zip(layers, (1.0, magnitude), strict=True):
        conv_spectral_norm(layer, method=method, eps=1e-37, learn_scale=True).train(training)
        x = scores(1, math.prod(shape)).reshape(1, *shape).float()
        layer(x)
        original(layer).data.mul_(1.5)  # a change, after which training iterates
        gradients = torch.autograd.grad(layer(x).tanh().sum(), list(layer.parametrizations.parameters()))
        slopes = torch.autograd.grad(layer(x.requires_grad_()).sum(), x, create_graph=True)[0]
        assert torch.autograd.grad(slopes.square().sum(), original(layer))[0].isfinite().all()
        norms = spectral_norms(layer)[""] / unit
        weight_gradient = {gradient.shape: gradient for gradient in gradients}[original(layer).shape] * unit
        scale_gradient = {gradient.shape: gradient for gradient in gradients}[()]
        found.append([layer.weight.detach() + 0, norms, weight_gradient, scale_gradient])
    for mine, theirs in zip(*found, strict=True):
        assert mine.isfinite().all()
        assert mine.any()
        assert_close(theirs, mine, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_tiny_and_huge_weights_of_other_dtypes(dtype, method):
    for magnitude in (1e-30, 1e30, *([1e-200, 1e200] if dtype == torch.float64 else [])):
        layer = nn.Linear(12, 5, bias=False).to(dtype)
        layer.weight.data.mul_(magnitude)
        conv_spectral_norm(layer, method=method, eps=1e-37 if magnitude > 1e-100 else 1e-300)
        layer(torch.ones(1, 12, dtype=dtype)).sum().backward()
        assert torch.linalg.matrix_norm(layer.weight.double(), 2).item() == pytest.approx(1, rel=1e-2)
        assert original(layer).grad.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_weights_below_eps_are_not_divided(method):
    layer = nn.Conv2d(3, 6, 3, padding=1, bias=False)
    layer.weight.data.mul_(1e-30)
    conv_spectral_norm(layer, method=method)
    layer(images()).square().sum().backward()
    assert_close(layer.weight + 0, original(layer) + 0)
    assert original(layer).grad.isfinite().all()


def test_up_to_eps_a_weight_counts_as_zero():
    layer = conv_spectral_norm(nn.Linear(3, 2), eps=100.0, scale=2.0)
    assert_close(layer.weight, 2 * original(layer))


def test_a_zero_layer_learns():
    layer = nn.Linear(3, 2, bias=False)
    nn.init.zeros_(layer.weight)
    conv_spectral_norm(layer, scale=2.0)
    layer(torch.ones(1, 3)).sum().backward()
    assert_close(original(layer).grad, torch.full((2, 3), 2.0))
