"""Layers, parameter names and input sizes that cannot be wrapped."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from wrapped_layers import network

from torch_mmd_losses import conv_spectral_norm


class OwnConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(2, 2))


def test_other_modules_and_parameters_are_refused():
    layer = nn.Conv2d(3, 4, 3)
    for module, got in [(nn.ReLU(), "ReLU"), (nn.Sequential(), "Sequential"), (OwnConv(), "OwnConv")]:
        with pytest.raises(
            ValueError, match=f"^module: expected a layer of type Linear, .* that contains one, got {got}"
        ):
            conv_spectral_norm(module)
    for name in ("kernel", "bias"):
        with pytest.raises(ValueError, match=f"^name: expected a .* of layer 'Conv2d' shaped like .* got '{name}'"):
            conv_spectral_norm(layer, name)
    with pytest.raises(
        ValueError, match="^name: expected a parameter of layer 'Linear', got 'weight', which is computed by a hook"
    ):
        conv_spectral_norm(prune.identity(nn.Linear(3, 2), "weight"))
    with pytest.raises(
        ValueError, match=r"^module: expected layers that are called .* got 'out_proj' of a torch.nn.MultiheadAttention"
    ):
        conv_spectral_norm(nn.MultiheadAttention(4, 2))
    with pytest.raises(
        ValueError, match="got '0', whose weight has no shape yet; run a forward pass through lazy layers"
    ):
        conv_spectral_norm(nn.Sequential(nn.LazyConv2d(4, 3)))
    assert not parametrize.is_parametrized(layer)


def test_a_network_of_own_layers_is_refused_by_the_names_of_these_layers():
    """Such as the layers of StyleGAN, which multiply their weights in their forward pass."""
    lazy = nn.LazyBatchNorm1d()  # has no shape yet, and is not at fault
    with pytest.raises(ValueError, match=r"whose weights are in modules of type LSTM, OwnConv; use the layers of to"):
        conv_spectral_norm(nn.Sequential(OwnConv(), nn.BatchNorm1d(2), lazy, OwnConv(), nn.LSTM(2, 3)))
    with pytest.raises(ValueError, match="got Sequential$"):
        conv_spectral_norm(nn.Sequential(nn.BatchNorm1d(2)))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_weight_norm_is_refused_by_naming_the_function_that_removes_it():
    hooked = nn.utils.weight_norm(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="weight_norm or pruning; remove the hook first, as by remove_weight_norm"):
        conv_spectral_norm(hooked, replace=True)
    conv_spectral_norm(nn.utils.remove_weight_norm(hooked))
    parametrized = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="such as weight_norm, by torch.nn.utils.parametrize.remove_parametrizations"):
        conv_spectral_norm(parametrized, replace=True)
    conv_spectral_norm(parametrize.remove_parametrizations(parametrized, "weight"))


def test_input_sizes_that_do_not_fit_are_refused():
    layer = nn.Conv2d(3, 4, 3)
    with pytest.raises(ValueError, match=r"^input_size: expected a size that the layer accepts, got \(2, 2\): "):
        conv_spectral_norm(layer, input_size=2)
    for bad in (0, (8,), (8, 8, 8), (3, 8, 8), (8.0, 8), 8.0, True, (True, 8), (8, True), "88", ()):
        with pytest.raises(ValueError, match=r"^input_size: expected 2 integer\(s\) >= 1, without channels, got"):
            conv_spectral_norm(layer, input_size=bad)
    for module, options in [(nn.Linear(3, 2), {}), (network(), {}), (layer, {"method": "matrix"})]:
        with pytest.raises(ValueError, match="^input_size: expected None unless module is a single convolution"):
            conv_spectral_norm(module, input_size=8, **options)
    assert not parametrize.is_parametrized(layer)


def test_wrapping_twice_is_refused_and_changes_nothing():
    model = network()
    conv_spectral_norm(model[2])
    with pytest.raises(ValueError, match="'weight' is not parametrized yet, got '2', whose 'weight' is"):
        conv_spectral_norm(model)
    assert not parametrize.is_parametrized(model[0])


@pytest.mark.parametrize("make", [lambda: nn.Linear(0, 3), lambda: nn.Linear(3, 0), lambda: nn.Conv2d(3, 0, 3)])
@pytest.mark.parametrize("method", ["conv", "pico", "matrix"])
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_layers_without_a_weight_are_refused(make, method):
    with pytest.raises(
        ValueError, match=r"^module: expected layers with at least one weight, got '.*' has the shape \("
    ):
        conv_spectral_norm(make(), method=method)


def test_numbers_beyond_the_dtype_are_refused():
    for eps in (1e39, 1e300):
        with pytest.raises(ValueError, match=r"^eps: expected a number that torch.float32 can hold, got 1e\+"):
            conv_spectral_norm(nn.Linear(3, 2), eps=eps)
    for dtype, scale in [(torch.float32, 1e39), (torch.float32, 1e-39), (torch.float16, 1e5), (torch.float16, 1e-6)]:
        for learn_scale in (True, False):
            layer = nn.Linear(3, 2).to(dtype)
            with pytest.raises(ValueError, match=rf"^scale: expected a number that {dtype} can hold, .* 'Linear', got"):
                conv_spectral_norm(layer, scale=scale, learn_scale=learn_scale)
            assert not parametrize.is_parametrized(layer)
    conv_spectral_norm(nn.Linear(3, 2).double(), scale=1e39)
