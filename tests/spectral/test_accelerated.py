"""The default method: gradients by hand, when it iterates, and what a resumed run needs."""

import copy
import io

import pytest
import torch
from cases import scores
from test_norm import LAYERS, every_layer, network, original, vector
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import conv_spectral_norm, spectral_norms
from torch_mmd_losses.spectral import singular_vectors


def state(layer):
    return layer.parametrizations.weight[0]


def used_weight(layer, x):
    """Return the weight that a forward in training uses."""
    for hook in layer._forward_pre_hooks.values():
        hook(layer, (x,), {})
    return layer.weight


def change(layer, seed=0, size=0.1):
    with torch.no_grad():
        weight = original(layer)
        weight.add_(size * weight.std() * scores(1, weight.numel(), seed).reshape(weight.shape).to(weight.dtype))


def plain(layer):
    """Return `C W / |A v|` with nothing but autograd."""
    weight, norm = original(layer), state(layer)
    return norm.scale * weight / singular_vectors.norm_along(norm.operator, weight, norm.v.clone())


@every_layer
@pytest.mark.parametrize("learn_scale", [False, True])
@pytest.mark.parametrize("spared", [0, 1, 2])
def test_first_and_second_derivatives_are_those_of_the_norm_along_v(make, shape, learn_scale, spared):
    layer = conv_spectral_norm(make().double(), scale=1.3, learn_scale=learn_scale)
    x = torch.zeros(1, *shape, dtype=torch.float64)
    layer(x)
    change(layer)
    for _ in range(spared):
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


def moves(layer, x):
    before = vector(layer).clone()
    layer(x)
    return not torch.equal(before, vector(layer))


def unconverged():
    """Return a layer whose vector moves visibly at every iteration, and an input."""
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=8)
    return layer, torch.zeros(1, 3, 8, 8)


def test_iterates_once_for_a_change_that_is_seen_and_goes_on_after_two_more_forwards():
    layer, x = unconverged()
    change(layer)
    assert [moves(layer, x) for _ in range(5)] == [True, False, False, True, True]
    layer(x)
    change(layer)
    assert [moves(layer, x) for _ in range(2)] == [True, False]
    change(layer)  # a GAN step of two forwards
    assert [moves(layer, x) for _ in range(2)] == [True, False]
    change(layer)
    assert not moves(layer.eval(), x)
    assert moves(layer.train(), x)


@pytest.mark.parametrize("kind", ["data", "fused"])
def test_iterates_in_every_forward_where_changes_are_not_seen(kind):
    layer, x = unconverged()
    adam = torch.optim.Adam([original(layer)], lr=1e-3, fused=True)
    for seed in range(4):
        version = original(layer)._version
        if kind == "data":
            original(layer).data.add_(0.01 * scores(1, 162, seed).reshape(6, 3, 3, 3).float())
        else:
            original(layer).grad = scores(1, 162, seed).reshape(6, 3, 3, 3).float()
            adam.step()
        assert original(layer)._version == version
        assert moves(layer, x)
        assert moves(layer, x)


def test_a_spared_forward_normalises_the_weight_as_it_is_now():
    layer, x = unconverged()
    change(layer)
    expected = used_weight(layer, x).detach()
    for factor in (3.0, -1.0):
        original(layer).data.mul_(factor)  # behind the back of the version
        before = vector(layer).clone()
        assert_close(used_weight(layer, x).detach(), expected * (1 if factor > 0 else -1))
        assert torch.equal(vector(layer), before)
    original(layer).data.add_(0.02 * torch.randn(6, 3, 3, 3))
    for _ in range(30):
        layer(x)
    pico = conv_spectral_norm(copy.deepcopy(original_layer(layer)), method="pico", input_size=8)
    assert_close(spectral_norms(layer)[""], spectral_norms(pico)[""], rtol=1e-3, atol=0)


def original_layer(layer):
    fresh = nn.Conv2d(3, 6, 3, padding=1)
    fresh.weight.data.copy_(original(layer).detach())
    return fresh


def test_a_copied_or_replaced_weight_is_no_change_that_was_seen():
    layer, x = unconverged()
    twin = copy.deepcopy(layer)
    change(twin)
    assert [moves(twin, x) for _ in range(3)] == [True, True, True]
    layer.weight = torch.randn(6, 3, 3, 3)
    vector(layer).copy_(torch.randn(3, 8, 8))  # away from where the start has converged to
    assert [moves(layer, x) for _ in range(3)] == [True, True, True]


def test_inference_tensors_have_no_version_and_iterate_in_every_forward():
    with torch.inference_mode():
        layer, x = unconverged()
        vector(layer).copy_(torch.randn(3, 8, 8))
        assert [moves(layer, x) for _ in range(4)] == [True, True, True, True]


def gan_step(model, adam, seed):
    for turn in range(3):
        adam.zero_grad()
        model(scores(4, 192, 3 * seed + turn).reshape(4, 3, 8, 8).float()).square().sum().backward()
        if turn == 1:
            adam.step()


@pytest.mark.parametrize("pending", [False, True])
def test_a_resumed_run_goes_on_bit_for_bit(pending):
    model = conv_spectral_norm(network())
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for seed in range(3):
        gan_step(model, adam, seed)
    if pending:
        adam.step()
    file = io.BytesIO()
    torch.save((model.state_dict(), adam.state_dict()), file)
    file.seek(0)
    stored = torch.load(file, weights_only=True)
    resumed = conv_spectral_norm(network())
    resumed.load_state_dict(stored[0])
    other = torch.optim.Adam(resumed.parameters(), lr=1e-2)
    other.load_state_dict(stored[1])
    for seed in range(3, 6):
        gan_step(model, adam, seed)
        gan_step(resumed, other, seed)
        for key, value in model.state_dict().items():
            assert torch.equal(resumed.state_dict()[key], value), key


def test_loads_what_has_no_more_than_the_singular_vector():
    pico, layer = conv_spectral_norm(network(), method="pico"), conv_spectral_norm(network())
    x = scores(2, 192).reshape(2, 3, 8, 8).float()
    pico(x)
    layer(x)
    layer.load_state_dict(pico.state_dict(), strict=True)
    assert_close(layer.eval()(x), pico.eval()(x), rtol=0, atol=0)
    layer.train()(x)
    assert_close(spectral_norms(layer), spectral_norms(pico), rtol=1e-2, atol=0)


@pytest.mark.parametrize("kind", LAYERS)
def test_is_never_below_the_plain_iteration_wherever_the_weight_jumps(kind):
    make, shape = LAYERS[kind]
    fast = conv_spectral_norm(make())
    slow = conv_spectral_norm(make(), method="pico")
    x = torch.zeros(1, *shape)
    fast(x)
    slow(x)
    for seed in range(12):
        change(fast, seed, size=(0.1, 1.0, 30.0)[seed % 3])
        with torch.no_grad():
            original(slow).copy_(original(fast))
        vector(slow).copy_(vector(fast))
        fast(x)
        slow(x)
        assert spectral_norms(fast)[""] >= spectral_norms(slow)[""] * (1 - 1e-3)  # `_most_stretched` may lose that


def test_follows_the_weight_with_less_than_half_the_error_of_the_plain_iteration():
    layers = [conv_spectral_norm(nn.Conv2d(8, 16, 4, stride=2, padding=1), method=m) for m in ("conv", "pico")]
    x = torch.zeros(1, 8, 16, 16)
    with torch.no_grad():
        original(layers[1]).copy_(original(layers[0]))
    errors = [[], []]
    for layer in layers:
        layer(x)
    for seed in range(30):
        change(layers[0], seed, size=0.05)
        with torch.no_grad():
            original(layers[1]).copy_(original(layers[0]))
        exact = spectral_norms(conv_spectral_norm(copy_of(layers[0]), input_size=16))[""]
        for layer, error in zip(layers, errors, strict=True):
            layer(x)
            error.append(1 - spectral_norms(layer)[""] / exact)
    fast, slow = (torch.stack(error).median() for error in errors)
    assert 0 < fast < slow / 2


@pytest.mark.parametrize(
    ("make", "shape", "steps"),
    [
        # The first and the last layer of a discriminator, and one between them.
        (lambda: nn.Conv2d(3, 64, 3, padding=1), (3, 32, 32), 4),
        (lambda: nn.Linear(8192, 16), (8192,), 4),
        (lambda: nn.Conv2d(64, 128, 4, stride=2, padding=1), (64, 32, 32), 2),
        (lambda: nn.Linear(4096, 2048), (4096,), 2),
        # Half of the limit in weights; with two pixels it is at the limit, with three above it.
        (lambda: nn.Conv1d(1024, 2048, 1), (1024, 2), 4),
        (lambda: nn.Conv1d(1024, 2048, 1), (1024, 3), 2),
    ],
)
def test_iterates_twice_as_often_where_that_takes_no_time(make, shape, steps):
    layer = conv_spectral_norm(make(), n_power_iterations=2)
    x = torch.zeros(1, *shape)
    layer(x)
    change(layer)
    norm = state(layer)
    expected = singular_vectors.locally_optimal_iteration(
        norm.operator, original(layer).detach(), norm.v.clone(), norm.direction.clone(), steps
    )
    layer(x)
    assert_close((norm.u, norm.v, norm.direction), tuple(expected))


def copy_of(layer):
    fresh = nn.Conv2d(8, 16, 4, stride=2, padding=1)
    fresh.weight.data.copy_(original(layer).detach())
    return fresh
