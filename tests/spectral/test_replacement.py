"""PyTorch's own spectral norms are replaced, and the trained weights stay."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm
from torch.testing import assert_close
from wrapped_layers import images, network, original

from torch_mmd_losses import conv_spectral_norm

WRAPPERS = {"hook": spectral_norm, "parametrization": parametrizations.spectral_norm}


def trained_parameter(layer):
    return layer.weight_orig if hasattr(layer, "weight_orig") else original(layer)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("method", ["conv", "pico", "matrix"])
def test_the_trained_parameter_stays_and_the_model_is_as_if_wrapped_at_first(wrap, method):
    model, expected = network(), network()
    expected.load_state_dict(model.state_dict())
    for layer in (model[0], model[2]):
        wrap(layer)
    model(images())
    parameters = [trained_parameter(model[i]) for i in (0, 2)]
    names = set(conv_spectral_norm(expected, method=method).state_dict())
    conv_spectral_norm(model, method=method, replace=True)
    assert all(original(model[i]) is parameter for i, parameter in zip((0, 2), parameters, strict=True))
    assert set(model.state_dict()) == names
    expected(images())
    model(images())
    model.load_state_dict(expected.state_dict())
    assert_close(model.eval()(images()), expected.eval()(images()), rtol=0, atol=0)
    for layer in model:
        assert len(layer._forward_pre_hooks) == hasattr(layer, "parametrizations")
        assert not layer._state_dict_hooks
        assert not layer._load_state_dict_pre_hooks


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_the_values_of_the_trained_weight_stay(wrap):
    layer = nn.Linear(3, 2)
    weight = layer.weight.detach().clone()
    conv_spectral_norm(wrap(layer), replace=True)
    assert torch.equal(original(layer), weight)
    assert original(layer).requires_grad


def test_nothing_is_replaced_unless_asked_for_or_if_another_layer_is_refused():
    for wrap in WRAPPERS.values():
        with pytest.raises(ValueError, match="replace=True removes PyTorch's own spectral norms"):
            conv_spectral_norm(wrap(nn.Linear(3, 2)))
    model = nn.Sequential(spectral_norm(nn.Linear(3, 3)), weight_norm_of(nn.Linear(3, 3)))
    with pytest.raises(ValueError, match="'weight' is not parametrized yet, got '1'"):
        conv_spectral_norm(model, replace=True)
    assert hasattr(model[0], "weight_orig")


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_an_example_that_fails_leaves_the_norms_of_torch(wrap):
    model = network()
    for layer in (model[0], model[2]):
        wrap(layer)
    calls = []
    handle = model[0].register_forward_pre_hook(lambda layer, args: calls.append(layer))
    names, parameters = list(model.state_dict()), list(model.parameters())
    with pytest.raises(RuntimeError):
        conv_spectral_norm(model, replace=True, example_input=images()[..., :6])
    assert list(model.state_dict()) == names
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    before = trained_parameter(model[0]).detach().clone()
    model(images()).sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert not torch.equal(trained_parameter(model[0]), before)
    assert not torch.equal(model[0].weight, trained_parameter(model[0]))
    handle.remove()
    calls.clear()
    model(images())
    assert not calls
    conv_spectral_norm(model, replace=True, example_input=images())


def weight_norm_of(layer):
    return parametrizations.weight_norm(layer)


def test_other_hooks_and_parametrizations_are_refused_and_stay():
    stacked = parametrizations.spectral_norm(nn.Linear(3, 2))
    parametrizations.orthogonal(stacked)
    for layer in (stacked, prune.identity(nn.Linear(3, 2), "weight")):
        with pytest.raises(ValueError, match="'.*Linear'"):
            conv_spectral_norm(layer, replace=True)
    assert len(stacked.parametrizations.weight) == 2
    with pytest.raises(ValueError, match="got '.*Linear'"):
        conv_spectral_norm(conv_spectral_norm(nn.Linear(3, 2)), replace=True)
    conv_spectral_norm(nn.Linear(3, 2), replace=True)  # nothing to replace


def test_a_spectral_norm_of_another_parameter_stays():
    layer = nn.Linear(3, 2)
    layer.second = nn.Parameter(torch.randn(2, 3))
    spectral_norm(layer, "second")
    conv_spectral_norm(layer, replace=True)
    assert hasattr(layer, "second_orig")
    assert parametrize.is_parametrized(layer, "weight")
