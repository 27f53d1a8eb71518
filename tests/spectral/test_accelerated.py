"""The default method: its accuracy, resumed runs, and the number of iterations."""

import io

import pytest
import torch
from cases import scores
from torch import nn
from torch.testing import assert_close
from wrapped_layers import LAYERS, change, converge, network, original, state, unconverged, used_weight, vector

from torch_mmd_losses import conv_spectral_norm, spectral_norms
from torch_mmd_losses.spectral import singular_vectors


def with_weight_of(wrapped, layer):
    """Return a plain layer with the trained weight of a wrapped one."""
    layer.weight.data.copy_(original(wrapped).detach())
    return layer


def test_a_forward_pass_in_a_backward_pass_normalises_the_current_weight_by_the_old_vectors(monkeypatch):
    layer, x = unconverged()
    change(layer)
    expected = used_weight(layer, x).detach()
    monkeypatch.setattr(torch._C, "_current_graph_task_id", lambda: 0)
    for factor in (3.0, -1.0):
        original(layer).data.mul_(factor)
        before = vector(layer).clone()
        assert_close(used_weight(layer, x).detach(), expected * (1 if factor > 0 else -1))
        assert torch.equal(vector(layer), before)


def test_agrees_with_the_plain_iteration_once_both_have_converged():
    layer, x = unconverged()
    change(layer)
    converge(layer, x)
    pico = conv_spectral_norm(with_weight_of(layer, nn.Conv2d(3, 6, 3, padding=1)), method="pico", input_size=8)
    assert_close(spectral_norms(layer)[""], spectral_norms(pico)[""], rtol=1e-3, atol=0)


def test_a_large_eps_does_not_scale_sigma():
    layer = conv_spectral_norm(nn.Linear(3, 2), eps=2.0)
    with torch.no_grad():
        original(layer).copy_(torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    x = torch.zeros(1, 3)
    for _ in range(5):
        change(layer, size=1e-3)
        layer(x)
    assert torch.linalg.matrix_norm(used_weight(layer, x).detach(), 2).item() == pytest.approx(1, rel=1e-3)


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


def test_loads_a_state_with_only_the_right_singular_vector():
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
        assert spectral_norms(fast)[""] >= spectral_norms(slow)[""] * (1 - 1e-3)  # `_longest_combination` may lose that


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
        exact = spectral_norms(
            conv_spectral_norm(with_weight_of(layers[0], nn.Conv2d(8, 16, 4, stride=2, padding=1)), input_size=16)
        )[""]
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
        (lambda: nn.Linear(2048, 2049), (2048,), 2),
        # An eighth of the limit in weights; with eight pixels it is at the limit, with nine above it.
        (lambda: nn.Conv1d(512, 1024, 1), (512, 8), 4),
        (lambda: nn.Conv1d(512, 1024, 1), (512, 9), 2),
    ],
)
def test_does_twice_as_many_iterations_in_cheap_layers(make, shape, steps):
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
