"""The input size: from an example, from the first forward pass that succeeds, and with `output_size`."""

import copy

import pytest
import torch
from oracles import operator_norm
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.testing import assert_close
from wrapped_layers import change, images, network, original, small_network, state, vector

from torch_mmd_losses import UsageWarning, conv_spectral_norm, spectral_norms

METHODS = ("conv", "pico", "matrix")
every_method = pytest.mark.parametrize("method", METHODS)


@every_method
def test_an_example_fixes_all_sizes_and_nothing_else(method):
    model = network()
    model[1].eval()
    modes = [part.training for part in model.modules()]
    inputs = []
    model[2].register_forward_pre_hook(lambda layer, args: inputs.append((layer.training, torch.is_grad_enabled())))
    random = torch.get_rng_state()
    conv_spectral_norm(model, method=method, example_input=images())
    assert torch.equal(torch.get_rng_state(), random)
    assert inputs == [(False, False)]
    assert [part.training for part in model.modules() if type(part).__module__.startswith("torch.nn.modules")] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert len(spectral_norms(model)) == 3
    assert model[0].weight.shape == (8, 3, 3, 3)
    assert not model._forward_hooks
    lazy = conv_spectral_norm(network(), method=method)
    lazy.load_state_dict(model.state_dict())
    assert_close(lazy(images()), model(images()), rtol=0, atol=0)


def test_an_example_of_several_arguments():
    layer = conv_spectral_norm(nn.ConvTranspose2d(3, 2, 3, stride=2), example_input=(images(), (18, 18)))
    assert state(layer).operator.output_padding == [1, 1]


@pytest.mark.slow
def test_examples_serve_export_and_compilation():
    torch.compiler.reset()
    model = conv_spectral_norm(small_network(), example_input=images()).eval()
    expected = model(images())
    assert_close(torch.export.export(model, (images(),)).module()(images()), expected)
    assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(images()), expected)


def test_wrong_examples_are_refused():
    with pytest.raises(
        TypeError, match=r"^example_input: expected a tensor or a tuple of arguments, got \[1\] of type"
    ):
        conv_spectral_norm(network(), example_input=[1])
    with pytest.raises(ValueError, match=r"^example_input: expected None if input_size is given, got both"):
        conv_spectral_norm(nn.Conv2d(3, 4, 3), input_size=8, example_input=images())
    model = network().train()
    parameters = list(model.named_parameters())
    expected = model(images())
    with pytest.raises(RuntimeError):
        conv_spectral_norm(model, example_input=images()[..., :6])
    assert all(part.training for part in model.modules())
    with pytest.raises(
        ValueError, match="expected a module with layers wrapped by conv_spectral_norm, got one without"
    ):
        spectral_norms(model)
    assert_close(model(images()), expected, rtol=0, atol=0)
    after = list(model.named_parameters())
    assert [(name, id(x)) for name, x in after] == [(name, id(x)) for name, x in parameters]
    assert [type(part) for part in model.modules()] == [type(part) for part in network().modules()]
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in model.modules())
    assert_close(conv_spectral_norm(model, example_input=images())(images()).shape, torch.Size([2, 4]))


def test_an_example_that_does_not_reach_a_layer():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3)

        def forward(self, x, right=False):
            return self.right(x) if right else self.left(x)

    message = r"^example_input: expected an input that reaches all layers, got one that does not reach 'right'; their"
    with pytest.warns(UsageWarning, match=message):
        model = conv_spectral_norm(Branches(), example_input=images())
    model(images(), right=True)
    assert not model._forward_hooks
    model = Branches()
    with pytest.raises(ValueError, match=message):
        conv_spectral_norm(model, example_input=images(), strict=True)
    assert type(model.left) is nn.Conv2d


@every_method
@pytest.mark.parametrize("training", [True, False])
def test_a_failing_first_forward_of_a_network_fixes_no_size(method, training):
    model = conv_spectral_norm(network(), method=method).train(training)
    expected = conv_spectral_norm(network(), method=method)
    expected.load_state_dict(model.state_dict())
    for wrong in (images()[..., :6], images()[:, :2], images().double(), torch.zeros(1, 3, 4, 4), torch.zeros(8, 8)):
        with pytest.raises((RuntimeError, ValueError)):
            model(wrong)
        assert method == "matrix" or vector(model[0]).numel() == vector(model[2]).numel() == 0
    assert_close(model(images()), expected.train(training)(images()), rtol=0, atol=0)
    assert vector(model[0]).shape == vector(expected[0]).shape
    assert not model._forward_hooks


@every_method
def test_a_failing_first_forward_of_a_layer_fixes_no_size(method):
    for wrong in (images()[:, :2], images().double(), torch.zeros(8, 8), torch.zeros(2, 3, 0, 8)):
        layer = conv_spectral_norm(nn.Conv2d(3, 4, 3, padding=1), method=method)
        with pytest.raises((RuntimeError, ValueError)):
            layer(wrong)
        assert method == "matrix" or not state(layer).has_input_size
        assert layer(images()).shape == (2, 4, 8, 8)


def test_a_layer_within_another_network_checks_its_channels_itself():
    model = nn.Sequential(nn.Identity(), conv_spectral_norm(nn.Conv2d(3, 4, 3), input_size=None))
    for wrong, message in [
        (images()[:, :2], r"^input: expected 3 channels, got shape \(2, 2, 8, 8\)"),
        (torch.zeros(3, 8, 0), r"^input: expected spatial dimensions of at least one pixel, got shape \(3, 8, 0\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            model(wrong)
    assert not state(model[1]).has_input_size


def test_only_the_sizes_of_the_failed_pass_are_undone():
    model = conv_spectral_norm(network())
    model[0](images())
    with pytest.raises(RuntimeError):
        model(images()[..., :6])
    assert vector(model[0]).shape == (3, 8, 8)
    assert not state(model[2]).has_input_size
    try:
        raise KeyError
    except KeyError:
        model(images())  # within the handling of another error
    assert state(model[2]).has_input_size


def test_a_size_stays_after_a_later_failure():
    model = conv_spectral_norm(network())
    model(images())
    with pytest.raises(RuntimeError):
        model(images()[..., :6])
    assert vector(model[0]).shape == (3, 8, 8)


def test_a_copy_watches_its_own_first_forward():
    model = conv_spectral_norm(network())
    twin = copy.deepcopy(model)
    with pytest.raises(RuntimeError):
        twin(images()[..., :6])
    assert not state(twin[0]).has_input_size
    twin(images())
    assert not twin._forward_hooks
    assert model._forward_hooks


@pytest.mark.parametrize("method", ["conv", "pico"])
@pytest.mark.parametrize("by_position", [True, False])
def test_output_size_of_a_transposed_convolution_counts(method, by_position):
    layer = nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1)
    forced = nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1)
    forced.load_state_dict(layer.state_dict())
    x, size = torch.randn(1, 3, 4, 4), (8, 8)
    exact, other = operator_norm(forced, (3, 4, 4)), operator_norm(layer, (3, 4, 4))
    assert exact > other * (1 + 1e-6)
    conv_spectral_norm(layer, method=method)
    out = layer(x, size) if by_position else layer(input=x, output_size=size)
    assert out.shape[-1] == 8
    assert spectral_norms(layer)[""].item() == pytest.approx(exact, rel=1e-5)
    new = conv_spectral_norm(nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1), method=method)
    for later in (copy.deepcopy(layer), new):
        later.load_state_dict(layer.state_dict())
        assert_close(spectral_norms(later), spectral_norms(layer), rtol=0, atol=0)
        change(later)
        later(x, size)
        later(x)  # keeps the first one
        assert state(later).operator.output_padding == [1, 1]
    old = {key: value for key, value in layer.state_dict().items() if not key.endswith(("output_padding", "print"))}
    fresh = conv_spectral_norm(nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1), method=method)
    fresh.load_state_dict(old, strict=method == "pico")
    assert state(fresh).operator.output_padding == [0, 0]


def test_under_the_compiler_the_hook_that_undoes_sizes_waits(monkeypatch):
    model = conv_spectral_norm(network())
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    model(images())
    assert len(model._forward_hooks) == 1
    monkeypatch.undo()
    model(images())
    assert not model._forward_hooks


def test_an_impossible_output_size_is_the_error_of_the_layer_and_fixes_nothing():
    layer = conv_spectral_norm(nn.ConvTranspose2d(3, 2, 3, stride=2))
    with pytest.raises(ValueError, match="requested an output size of"):
        layer(images(), output_size=(40, 40))
    assert not state(layer).has_input_size


def test_an_average_made_too_early_says_what_to_do():
    model = conv_spectral_norm(network())
    with pytest.warns(UsageWarning, match=r"^model: expected layers that have seen an input, got '0', '2'; Averaged"):
        averaged = AveragedModel(model)
    averaged(images())
    model(images())
    averaged.update_parameters(model)
    assert torch.equal(vector(averaged.module[0]), vector(model[0]))
    AveragedModel(nn.Linear(2, 2))


def test_two_wrapped_parameters_of_one_layer():
    layer = nn.Linear(3, 2)
    layer.second = nn.Parameter(3 * layer.weight.detach().clone())
    model = nn.Sequential(conv_spectral_norm(conv_spectral_norm(layer), "second"))
    norms = spectral_norms(model)
    assert list(norms) == ["0", "0.second"]
    assert_close(norms["0.second"], 3 * norms["0"])
    assert set(spectral_norms(layer)) == {"", "second"}
    original(layer).data.mul_(2)
    layer(torch.zeros(1, 3))
    assert torch.equal(state(layer).fingerprint, state(layer).fingerprint)
    assert_close(spectral_norms(layer)[""] * 1.5, spectral_norms(layer)["second"])
