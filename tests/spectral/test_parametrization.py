"""The parametrization: its state, precision, input sizes, and assignments to the weight."""

import copy
import io

import pytest
import torch
from cases import scores
from oracles import operator_norm
from torch import nn
from torch.nn.utils import parametrize
from torch.testing import assert_close
from wrapped_layers import change, converge, images, moves, network, original, vector

from torch_mmd_losses import conv_spectral_norm, spectral_norms


def test_deepcopy_is_independent():
    model = conv_spectral_norm(network())
    model(images())
    twin = copy.deepcopy(model)
    before = [vector(twin[i]).clone() for i in (0, 2, 5)]
    change(model[0])
    model(images())
    assert (vector(model[0]) != before[0]).any()
    change(twin[0], seed=1)
    assert all((vector(twin[i]) == v).all() for i, v in zip((0, 2, 5), before, strict=True))
    assert_close(twin(images()), copy.deepcopy(twin).eval()(images()), rtol=1e-2, atol=1e-2)
    assert (vector(twin[0]) != before[0]).any()


STATE = {"conv": {"u", "v", "direction", "fingerprint"}, "pico": {"v", "fingerprint"}, "matrix": {"v", "fingerprint"}}


@pytest.mark.parametrize("method", STATE)
def test_state_dict_has_stable_keys_and_loads_into_a_model_that_never_ran(method):
    model = conv_spectral_norm(network(), learn_scale=True, method=method)
    model(images())
    assert set(model.state_dict()) == {
        f"{i}.{key}"
        for i in (0, 2, 5)
        for key in (
            "bias",
            "parametrizations.weight.original",
            "parametrizations.weight.0.scale",
            *(f"parametrizations.weight.0.{name}" for name in STATE[method]),
        )
    }
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    for assign in (False, True):
        fresh = conv_spectral_norm(network(), learn_scale=True, method=method)
        fresh.load_state_dict(state, strict=True, assign=assign)
        assert_close(fresh.eval()(images()), copy.deepcopy(model).eval()(images()), rtol=0, atol=0)
    never_ran = conv_spectral_norm(network(), learn_scale=True, method=method)
    model.load_state_dict(never_ran.state_dict(), strict=True)
    assert_close(model.eval()(images()), never_ran.eval()(images()), rtol=0, atol=0)


def test_a_state_without_the_vector_starts_it_anew():
    model, other = conv_spectral_norm(network()), conv_spectral_norm(network())
    model(images())
    other(images())
    state = {key: value for key, value in other.state_dict().items() if not key.endswith(".v")}
    model.load_state_dict(state, strict=False)
    assert_close(model.eval()(images()), other.eval()(images()), rtol=1e-2, atol=1e-3)
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(state)


def test_an_assigned_state_is_not_moved_by_training():
    model, other = conv_spectral_norm(network()), conv_spectral_norm(network())
    model(images())
    vector(model[0]).copy_(torch.randn(3, 8, 8))
    state = model.state_dict()
    kept = state["0.parametrizations.weight.0.v"].clone()
    other.load_state_dict(state, assign=True)
    other(images())
    assert_close(state["0.parametrizations.weight.0.v"], kept, rtol=0, atol=0)


@pytest.mark.parametrize("method", STATE)
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("has_run", [False, True])
def test_vectors_stay_in_float32_if_a_state_of_half_precision_is_loaded(method, assign, has_run):
    model, other = (conv_spectral_norm(network(), method=method) for _ in range(2))
    model(images())
    if has_run:
        other(images())
    state = {name: x.bfloat16() if x.is_floating_point() else x for name, x in model.state_dict().items()}
    other.load_state_dict(state, assign=assign)
    assert original(other[0]).dtype == (torch.bfloat16 if assign else torch.float32)
    for name, buffer in other.named_buffers():
        assert buffer.dtype == (torch.float32 if state[name].is_floating_point() else torch.int64)
        assert_close(buffer, state[name], rtol=0, atol=0, check_dtype=False)


@pytest.mark.parametrize(
    ("stored", "loaded"), [("pico", "matrix"), ("conv", "matrix"), ("matrix", "pico"), ("matrix", "conv")]
)
def test_a_vector_of_another_operator_is_refused(stored, loaded):
    def wrap(method):
        size = None if method == "matrix" else 8
        return conv_spectral_norm(nn.Conv2d(3, 4, 3), input_size=size, method=method)

    state = wrap(stored).state_dict()
    state = {name: value for name, value in state.items() if not name.endswith(("u", "direction"))}
    wrapped = wrap(loaded)
    with pytest.raises(
        RuntimeError, match=r"parametrizations.weight.0.v: expected the singular vector of a layer like this one"
    ):
        wrapped.load_state_dict(state)


def test_leaving_the_meta_device_starts_anew():
    with torch.device("meta"):
        layer = conv_spectral_norm(nn.Linear(3, 2))
    layer.to_empty(device="cpu")
    with torch.no_grad():
        original(layer).copy_(scores(2, 3))
        layer.bias.zero_()
    layer(torch.ones(1, 3))
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, rel=1e-4)


def test_before_the_input_size_is_known_reading_the_weight_is_an_error():
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3))
    for read in (lambda: layer.weight, lambda: spectral_norms(layer)):
        with pytest.raises(
            RuntimeError,
            match="seen an input, got .* run a forward pass .* the norm of a convolution depends on its input size",
        ):
            read()
    with pytest.raises(RuntimeError, match="input size"):
        nn.init.normal_(layer.weight)


def test_an_input_that_the_layer_cannot_take_does_not_set_the_size():
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3))
    for shape in [(8, 8), (1, 1, 3, 8, 8)]:
        with pytest.raises(ValueError, match=r"^input: expected 2 spatial dimensions after .* got shape \("):
            layer(torch.zeros(shape))
    assert layer(images()).shape == (2, 6, 6, 6)


def test_other_input_sizes_keep_the_norm_of_the_first():
    layer = nn.Conv2d(3, 6, 3, padding=1)
    exact = operator_norm(layer, (3, 8, 8))
    conv_spectral_norm(layer)
    layer(images())
    assert layer(torch.randn(2, 3, 16, 12)).shape == (2, 6, 16, 12)
    converge(layer, torch.randn(2, 3, 16, 12))
    assert vector(layer).shape == (3, 8, 8)
    assert spectral_norms(layer)[""].item() == pytest.approx(exact, rel=1e-3)


def test_assigning_a_weight_takes_effect():
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=8).eval()
    fresh = nn.Conv2d(3, 6, 3, padding=1)
    exact = operator_norm(fresh, (3, 8, 8))
    layer.weight = fresh.weight.detach().clone()
    assert spectral_norms(layer)[""].item() == pytest.approx(exact, rel=5e-3)
    assert_close(layer.weight, fresh.weight / spectral_norms(layer)[""])


@pytest.mark.parametrize("method", ["conv", "pico", "matrix"])
def test_assigning_something_else_is_refused_and_changes_nothing(method):
    layer = conv_spectral_norm(nn.Linear(4, 3), method=method)
    before = copy.deepcopy(layer.state_dict())
    for value in ("weight", None, 1.0, [[1.0]]):
        with pytest.raises(TypeError, match="^weight: expected a tensor to assign, got .* of type "):
            layer.weight = value
    for value in (torch.ones(3, 5), torch.ones(4, 3), torch.ones(()), torch.ones(3, 4).double(), torch.ones(3, 4) > 0):
        with pytest.raises(
            ValueError, match=r"^weight: expected a tensor of shape \(3, 4\) and torch.float32 to assign, got \("
        ):
            layer.weight = value
    assert_close(layer.state_dict(), before, rtol=0, atol=0)
    layer.half().weight = torch.ones(3, 4).half()
    assert spectral_norms(layer)[""].item() == pytest.approx(12**0.5, rel=1e-4)
    unseen = conv_spectral_norm(nn.Conv2d(3, 4, 3))
    with pytest.raises(ValueError, match=r"^weight: expected a tensor of shape"):
        unseen.weight = torch.ones(3, 4)
    unseen.weight = torch.ones(4, 3, 3, 3)


def test_memory_formats_of_images_are_not_for_vectors():
    layer = conv_spectral_norm(nn.Conv3d(2, 3, 2), input_size=4)
    before = copy.deepcopy(layer.state_dict())
    layer.to(memory_format=torch.channels_last_3d)
    assert_close(layer.state_dict(), before, rtol=0, atol=0, check_stride=False)
    assert vector(layer).is_contiguous()
    assert not moves(layer, torch.zeros(1, 2, 4, 4, 4))


def test_original_can_be_initialised_and_recovers_in_training():
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=8)
    nn.init.normal_(original(layer), 0, 0.02)
    for step in range(60):  # of training, with small changes of the weight
        change(layer, step, size=1e-4)
        layer(images())
    assert operator_norm(layer, (3, 8, 8)) == pytest.approx(1, rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_modules_iterate_in_float32(dtype):
    layer = nn.Conv2d(3, 6, 4, stride=2, padding=1)
    low = conv_spectral_norm(layer.to(dtype), learn_scale=True)
    reference = nn.Conv2d(3, 6, 4, stride=2, padding=1)
    reference.load_state_dict({"weight": original(low).float(), "bias": layer.bias.float()})
    exact = operator_norm(reference, (3, 8, 8))
    out = converge(low, images(dtype=dtype))(images(dtype=dtype))
    assert vector(low).dtype == torch.float32
    assert (out.dtype, low.weight.dtype) == (dtype, dtype)
    assert spectral_norms(low)[""].item() == pytest.approx(exact, rel=1e-4)
    later = conv_spectral_norm(nn.Conv2d(3, 6, 4, stride=2, padding=1), input_size=8).to(dtype)
    later(images(dtype=dtype))
    assert vector(later).dtype == torch.float32
    assert conv_spectral_norm(nn.Linear(3, 2)).double().parametrizations.weight[0].v.dtype == torch.float64


def test_autocast_iterates_in_float32():
    model = conv_spectral_norm(network())
    twin = copy.deepcopy(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(images())
        model(images())
        sigmas = spectral_norms(model)
    twin(images())
    twin(images())
    assert out.dtype == torch.bfloat16
    assert_close(sigmas, spectral_norms(twin), rtol=0, atol=0)
    assert sigmas["0"].dtype == torch.float32


def test_inference_mode_first():
    model = conv_spectral_norm(network())
    with torch.inference_mode():
        expected = model.eval()(images())
        model.train()(images())
    model(images()).sum().backward()
    assert_close(model.eval()(images()), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("method", ["conv", "pico", "matrix"])
@pytest.mark.parametrize("is_known", [False, True])
def test_a_state_that_is_loaded_in_inference_mode_can_be_trained(method, is_known):
    saved = conv_spectral_norm(network(), method=method, example_input=images()).state_dict()
    model = conv_spectral_norm(network(), method=method, example_input=images() if is_known else None)
    with torch.inference_mode():
        model.load_state_dict(saved)
    for _ in range(2):  # the second pass changes the vectors in place
        change(model[0])
        model(images()).sum().backward()
    assert original(model[0]).grad.any()


def test_learned_scale_is_a_parameter():
    layer = conv_spectral_norm(nn.Linear(4, 3), scale=2.0, learn_scale=True)
    scale = layer.parametrizations.weight[0].scale
    assert isinstance(scale, nn.Parameter)
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(2, rel=1e-4)
    layer.weight.sum().backward()
    assert scale.grad.item() == pytest.approx(layer.weight.sum().item() / 2, rel=1e-4)
    assert "scale=learned" in repr(layer)
    assert "scale=1.0" in repr(conv_spectral_norm(nn.Linear(2, 2)))


def test_caching_reads_does_not_change_the_iteration():
    model = conv_spectral_norm(network())
    twin = copy.deepcopy(model)
    with parametrize.cached():
        model(images())
        model(images())
    twin(images())
    twin(images())
    assert_close(vector(model[0]), vector(twin[0]))


def test_averaged_vectors_are_normalised_again():
    # An exponential moving average of all state makes v shorter than one; sigma must not shrink with it.
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=8).eval()
    expected = layer(images())
    vector(layer).mul_(0.5)
    assert_close(layer(images()), expected)
