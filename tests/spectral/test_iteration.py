"""The iteration advances once for each change of the weight, whatever made the change and wherever the state goes."""

import copy
import io

import pytest
import torch
from cases import scores
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.testing import assert_close
from wrapped_layers import change, images, moves, network, original, state, unconverged, vector

from torch_mmd_losses import conv_spectral_norm, spectral_norms

METHODS = ("conv", "pico", "matrix")
every_method = pytest.mark.parametrize("method", METHODS)


@every_method
def test_moves_in_the_first_forward_pass_after_a_change_and_in_no_other(method):
    layer, x = unconverged(method)
    change(layer)
    assert [moves(layer, x) for _ in range(6)] == [True, False, False, False, False, False]
    change(layer)
    assert not moves(layer.eval(), x)
    assert [moves(layer.train(), x) for _ in range(2)] == [True, False]


def write_to_data(layer):
    original(layer).data.add_(0.01 * scores(1, 162).reshape(6, 3, 3, 3).float())


def fused_adam(layer):
    original(layer).grad = scores(1, 162).reshape(6, 3, 3, 3).float()
    torch.optim.Adam([original(layer)], lr=1e-3, fused=True).step()


def vector_to_parameters(layer):
    flat = nn.utils.parameters_to_vector(layer.parameters())
    nn.utils.vector_to_parameters(flat * torch.linspace(0.9, 1.1, len(flat)), layer.parameters())


def numpy(layer):
    original(layer).detach().numpy()[0, 0, 0] += 0.1


def change_of_data(layer):
    weight = original(layer)
    weight.data = weight.data * torch.linspace(0.9, 1.1, 3)


@every_method
@pytest.mark.parametrize("write", [write_to_data, fused_adam, vector_to_parameters, numpy, change_of_data])
def test_sees_changes_that_pytorch_does_not_count(write, method):
    layer, x = unconverged(method)
    layer(x)
    for _ in range(3):
        write(layer)
        assert [moves(layer, x) for _ in range(2)] == [True, False]


@every_method
def test_a_write_of_the_same_values_is_not_a_change(method):
    layer, x = unconverged(method)
    change(layer)
    layer(x)
    with torch.no_grad():
        original(layer).mul_(1)
    layer.load_state_dict(copy.deepcopy(layer.state_dict()))
    assert not moves(layer, x)


@every_method
@pytest.mark.parametrize("moment", ["new", "forward", "backward", "step", "step and forward"])
def test_a_deep_copy_goes_on_as_the_original_at_any_moment(method, moment):
    model = conv_spectral_norm(network(), method=method, example_input=images())
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    passes = {"new": 0, "forward": 1, "backward": 1, "step": 1, "step and forward": 1}[moment]
    for _ in range(passes):
        loss = model(images()).square().sum()
        if moment != "forward":
            loss.backward()
        if moment.startswith("step"):
            adam.step()
    if moment == "step and forward":
        model(images(seed=1))
    twin = copy.deepcopy(model)
    for _ in range(2):
        assert_close(twin(images(seed=2)), model(images(seed=2)), rtol=0, atol=0)
        for key, value in model.state_dict().items():
            assert torch.equal(twin.state_dict()[key], value), key
        for seed, (layer, other) in enumerate(zip(model, twin, strict=True)):
            if hasattr(layer, "parametrizations"):
                change(layer, seed)
                change(other, seed)


@every_method
def test_inference_mode_iterates_as_any_other(method):
    with torch.inference_mode():
        layer, x = unconverged(method)
        original(layer).add_(0.01 * scores(1, 162).reshape(6, 3, 3, 3).float())
        assert [moves(layer, x) for _ in range(3)] == [True, False, False]
    outside, x = unconverged(method)
    write_to_data(outside)
    with torch.inference_mode():
        assert [moves(outside, x) for _ in range(3)] == [True, False, False]


@pytest.mark.slow
@every_method
def test_compiled_forward_passes_move_in_the_same_ones(method):
    torch.compiler.reset()
    layer, x = unconverged(method)
    twin = copy.deepcopy(layer)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        change(layer, seed)
        change(twin, seed)
        for expected in (True, False):
            before = vector(twin).clone()
            compiled(x)
            assert torch.equal(before, vector(twin)) is not expected
            assert moves(layer, x) is expected
            assert_close(vector(twin), vector(layer))
            assert torch.equal(state(twin).fingerprint, state(layer).fingerprint)


@every_method
def test_other_devices_select_the_iteration_without_asking(method, monkeypatch):
    # Function transforms take this way too, so a tensor type of its own makes the layer take it here.
    layer, x = unconverged(method)
    twin = copy.deepcopy(layer)

    class Elsewhere(torch.Tensor):
        pass

    def forward(twin):
        before = vector(twin).clone()
        weight = original(twin).detach().as_subclass(Elsewhere)
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "__bool__", lambda _: pytest.fail("the host waits for the device"))
            patch.setattr(torch.Tensor, "item", lambda _: pytest.fail("the host waits for the device"))
            state(twin).before_forward(weight, x, True, None)
        return not torch.equal(before, vector(twin))

    for seed in range(3):
        change(layer, seed)
        change(twin, seed)
        assert [forward(twin) for _ in range(2)] == [True, False]
        layer(x)
        assert_close(vector(twin), vector(layer))


@every_method
def test_nothing_moves_in_a_backward_pass(method):
    layer, x = unconverged(method)
    seen = []

    class ForwardInBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y.clone()

        @staticmethod
        def backward(ctx, grad):
            write_to_data(layer)
            seen.append(moves(layer, x))
            return grad

    ForwardInBackward.apply(torch.ones(2, requires_grad=True)).sum().backward()
    assert seen == [False]
    assert moves(layer, x)


@every_method
def test_a_cast_module_goes_on(method):
    layer, x = unconverged(method)
    layer.double()
    layer(x.double())
    change(layer)
    assert [moves(layer, x.double()) for _ in range(2)] == [True, False]
    assert vector(layer).dtype == torch.float64


def test_a_state_of_an_earlier_version_loads():
    layer, x = unconverged()
    change(layer)
    layer(x)
    saved = {key: value for key, value in layer.state_dict().items() if not key.endswith("fingerprint")}
    saved["parametrizations.weight.0._extra_state"] = torch.tensor(2)
    other, _ = unconverged()
    other.load_state_dict(saved, strict=True)
    assert_close(other.eval()(x), layer.eval()(x), rtol=0, atol=0)
    assert [moves(other.train(), x) for _ in range(2)] == [True, False]  # it may be at another weight


def test_a_pico_state_loads_into_the_default_method_at_the_same_weight():
    pico, x = unconverged("pico")
    change(pico)
    pico(x)
    layer, _ = unconverged()
    layer.load_state_dict(pico.state_dict(), strict=True)
    layer(x).sum().backward()
    assert state(layer).u.shape == (6, 8, 8)


@every_method
def test_swapping_of_parameters_on_conversion(method):
    layer, x = unconverged(method)
    change(layer)
    layer(x)
    expected = layer.eval()(x).detach().clone()
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        layer.load_state_dict(torch.load(buffer, weights_only=True))
        assert_close(layer(x), expected, rtol=0, atol=0)
        layer.double()
        assert_close(layer(x.double()), expected.double())
        layer.float().train()
        layer(x)
        assert moves_after_change(layer, x)
        layer.weight = torch.ones(6, 3, 3, 3)
        assert spectral_norms(layer)[""] > 1
        other = torch.zeros(6, 3, 3, 3)
        torch.utils.swap_tensors(original(layer), nn.Parameter(other))
        layer.to_empty(device="cpu")
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def moves_after_change(layer, x):
    change(layer, seed=5)
    return moves(layer, x)


def test_averages_follow_if_the_input_size_is_known():
    model = conv_spectral_norm(network(), example_input=images())
    averaged = AveragedModel(model)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for seed in range(3):
        model(images(seed=seed)).square().sum().backward()
        adam.step()
        averaged.update_parameters(model)
        assert torch.equal(vector(averaged.module[0]), vector(model[0]))
    assert averaged.eval()(images()).isfinite().all()
