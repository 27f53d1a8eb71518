"""conv_spectral_norm and spectral_norms in use: norms, forward passes, compilation, errors."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import operator_norm
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn
from torch.nn.utils import parametrize
from torch.testing import assert_close
from wrapped_layers import (
    LAYERS,
    change,
    converge,
    every_layer,
    images,
    iterate,
    network,
    original,
    small_network,
    state,
    vector,
)

from torch_mmd_losses import MMDLoss, RBFKernel, conv_spectral_norm, spectral_norms


@every_layer
def test_converges_to_the_norm_of_the_true_operator(make, shape):
    layer, scale = make(), 1 / 0.55
    exact = operator_norm(layer, shape)
    wrapped = converge(conv_spectral_norm(layer, scale=scale), torch.randn(1, *shape))
    assert spectral_norms(wrapped)[""].item() == pytest.approx(exact, rel=1e-3)
    assert operator_norm(wrapped, shape) == pytest.approx(scale, rel=1e-3)


def discriminator_layers(size, widths):
    """Return (in, out, kernel, input size) of every convolution of Tables S1 and S2."""
    layers = [(3, widths[0], 3, size)]
    for narrow, wide in pairwise(widths):
        layers += [(narrow, wide, 4, size), (wide, wide, 3, size // 2)]
        size //= 2
    return layers


# Those at 48 px have the weights of those at 32 px, and a size between those at 32 and 64 px.
PAPER_LAYERS = sorted(
    {*discriminator_layers(32, (64, 128, 256, 512)), *discriminator_layers(64, (64, 128, 256, 512, 1024))}
)


@pytest.mark.slow
@pytest.mark.parametrize(("inputs", "outputs", "kernel", "size"), PAPER_LAYERS)
def test_every_layer_of_the_papers_discriminators_has_norm_one(inputs, outputs, kernel, size):
    # The singular values of these operators (up to 262144 columns) by ARPACK, of the matrix products that a convolution
    # and its adjoint are. Its error and that of float32 are a fifth of what is allowed.
    stride = 1 if kernel == 3 else 2
    layer = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=1, bias=False)
    converge(conv_spectral_norm(layer), torch.zeros(1, inputs, size, size), forwards=4)
    weight = layer.weight.detach().flatten(1)

    def gram(x):
        windows = F.unfold(torch.from_numpy(x).float().reshape(1, inputs, size, size), kernel, stride=stride, padding=1)
        image = weight.T @ (weight @ windows)
        return F.fold(image, (size, size), kernel, stride=stride, padding=1).flatten().double().numpy()

    columns = inputs * size * size
    operator = LinearOperator((columns, columns), matvec=gram, dtype=np.float64)
    square = eigsh(operator, k=1, ncv=20, tol=1e-3, v0=np.random.default_rng(0).normal(size=columns))[0].item()
    assert math.sqrt(square) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("shape", [(512, 16, 4), (512, 16, 6), (1024, 16, 4)])
def test_the_last_layer_of_the_papers_discriminators_has_norm_one(shape):
    channels, scores_out, size = shape
    features = channels * size * size
    layer = converge(conv_spectral_norm(nn.Linear(features, scores_out)), torch.zeros(1, features), 10)
    assert torch.linalg.matrix_norm(layer.weight.double(), 2).item() == pytest.approx(1, abs=1e-3)


def reshaped_norm(layer, weight):
    """Return the largest norm of the groups of a weight, each reshaped to a matrix, by SVD."""
    if getattr(layer, "transposed", False):
        weight = torch.cat([block.transpose(0, 1) for block in weight.chunk(layer.groups)])
    blocks = weight.chunk(getattr(layer, "groups", 1))
    return max(torch.linalg.matrix_norm(block.flatten(1), 2).item() for block in blocks)


@every_layer
def test_matrix_method_is_the_norm_of_the_reshaped_weight(make, shape):
    layer = make()
    exact = reshaped_norm(layer, layer.weight.detach())
    wrapped = converge(conv_spectral_norm(layer, method="matrix"), torch.randn(1, *shape), forwards=30)
    assert spectral_norms(wrapped)[""].item() == pytest.approx(exact, rel=1e-4)
    if isinstance(layer, nn.Conv2d):
        assert operator_norm(wrapped, shape) > 1.05  # the reshaped matrix misses how windows overlap


def test_grouped_norm_is_the_largest_group():
    layer = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
    with torch.no_grad():
        layer.weight[2:] *= 5
    halves = [nn.Conv2d(2, 2, 3, padding=1, bias=False) for _ in range(2)]
    for half, weight in zip(halves, layer.weight.detach().chunk(2), strict=True):
        half.weight.data = weight
    largest = max(operator_norm(half, (2, 5, 5)) for half in halves)
    converge(conv_spectral_norm(layer, input_size=5), torch.randn(1, 4, 5, 5))
    assert spectral_norms(layer)[""].item() == pytest.approx(largest, rel=1e-3)


@pytest.mark.parametrize("method", ["conv", "pico", "matrix"])
@pytest.mark.parametrize("kind", ["conv2d_grouped", "conv_transpose2d_grouped"])
def test_finds_a_group_that_becomes_the_largest_late(kind, method):
    # A single unit vector for all groups loses its part in the smaller group during the first loop.
    make, shape = LAYERS[kind]
    layer, plain, x = make(), make(), torch.zeros(1, *shape)
    half = len(layer.weight) // 2
    with torch.no_grad():
        layer.weight[:half] *= 5
    conv_spectral_norm(layer, example_input=x, method=method)
    for growth in (1, 1.2):
        for seed in range(50):
            with torch.no_grad():
                original(layer)[half:] *= growth
            change(layer, seed, size=1e-3)
            layer(x)
    plain.weight.data = original(layer).detach()
    exact = reshaped_norm(plain, plain.weight.detach()) if method == "matrix" else operator_norm(plain, shape)
    assert spectral_norms(layer)[""].item() == pytest.approx(exact, rel=1e-2)  # plain iteration lags behind


@every_layer
def test_wraps_without_the_input_size_as_with_it(make, shape):
    plain = make()
    x = torch.randn(2, *shape)
    lazy = conv_spectral_norm(copy.deepcopy(plain))
    if len(shape) > 1:
        known = conv_spectral_norm(copy.deepcopy(plain), input_size=shape[1:])
        assert_close(lazy.eval()(x), known.eval()(x), rtol=0, atol=0)
    single = conv_spectral_norm(copy.deepcopy(plain)).eval()  # meets a sample without a batch dimension first
    assert_close(single(x[0]), lazy.eval()(x)[0])


def test_vector_moves_in_training_forwards_and_not_on_reads():
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=8)
    reference = copy.deepcopy(layer)
    vector(layer).copy_(torch.randn(3, 8, 8) / 192**0.5)  # away from where the start has converged to
    start = vector(layer).clone()
    for _ in range(5):
        _ = layer.weight
        _ = spectral_norms(layer)
    assert_close(vector(layer), start, rtol=0, atol=0)
    iterate(layer, images())
    moved = vector(layer).clone()
    assert (moved - start).norm() > 0.1
    assert_close(torch.linalg.vector_norm(moved), torch.tensor(1.0))
    state(layer).fingerprint.zero_()
    layer(input=images())
    twice = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=8, n_power_iterations=2)
    twice.weight = original(reference).detach()
    vector(twice).copy_(start)
    iterate(twice, images())
    assert_close(vector(twice), vector(layer))


def test_keywords_in_any_order_and_none_at_all():
    torch.manual_seed(0)
    plain = nn.ConvTranspose2d(2, 3, 3, stride=2)
    layer = conv_spectral_norm(copy.deepcopy(plain))
    x = torch.randn(1, 2, 4, 4)
    found = layer(output_size=(10, 10), input=x)
    assert found.shape == plain(output_size=(10, 10), input=x).shape == (1, 3, 10, 10)
    assert layer.parametrizations.weight[0].v.shape == (2, 4, 4)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'input'"):
        layer()


def test_eval_is_frozen_and_already_normalised_at_the_first_use():
    layer = nn.Conv2d(3, 6, 3, padding=1)
    exact = operator_norm(layer, (3, 8, 8))
    conv_spectral_norm(layer).eval()
    outputs = [layer(images()) for _ in range(3)]
    assert_close(outputs[0], outputs[2], rtol=0, atol=0)
    assert spectral_norms(layer)[""].item() == pytest.approx(exact, rel=5e-3)
    assert operator_norm(layer, (3, 8, 8)) == pytest.approx(1, rel=5e-3)


def test_two_forwards_before_one_backward():
    discriminator = conv_spectral_norm(network())
    real, fake = discriminator(images(8, seed=1)), discriminator(images(8, seed=2))
    MMDLoss(RBFKernel()).discriminator(real=real, fake=fake).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in discriminator.parameters())


def test_removal_leaves_the_normalised_weight():
    model = conv_spectral_norm(network())
    model(images())
    expected = copy.deepcopy(model).eval()(images())
    for layer in model:
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")
    assert set(model.state_dict()) == set(network().state_dict())
    assert_close(model.train()(images()), expected, rtol=0, atol=0)
    assert type(model[0].weight) is nn.Parameter
    model[0].weight.data.zero_()  # plain again
    copy.deepcopy(model)
    assert not any(layer._forward_pre_hooks for layer in model)


def test_wrapping_again_after_removal_iterates_once():
    layer = conv_spectral_norm(nn.Linear(3, 2))
    layer.register_forward_pre_hook(lambda *_: None)
    parametrize.remove_parametrizations(layer, "weight")
    conv_spectral_norm(layer)
    assert len(layer._forward_pre_hooks) == 2


@pytest.mark.slow
@pytest.mark.parametrize("warm", [True, False], ids=["ran", "never ran"])
@pytest.mark.parametrize("training", [True, False])
def test_compiles_into_one_graph(warm, training):
    torch.compiler.reset()
    model = conv_spectral_norm(small_network()).train(training)
    if warm:
        model(images())
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        change(model[0], seed)
        with torch.no_grad():
            original(twin[0]).copy_(original(model[0]))
        out, expected = compiled(images()), twin(images())
        assert_close(out, expected)
        out.square().sum().backward()
        expected.square().sum().backward()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert_close(mine.grad, theirs.grad)
    assert_close(vector(model[0]), vector(twin[0]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Skipping serialization of")  # torch 2.6, of its own settings
def test_compiles_with_inductor():
    torch.compiler.reset()
    model = conv_spectral_norm(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.ConvTranspose2d(4, 2, 4, 2, 1))
    )
    model(images())
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True)
    for seed in range(2):
        change(model[0], seed)
        change(twin[0], seed)
        assert_close(compiled(images()), twin(images()))
        assert_close(vector(model[0]), vector(twin[0]))


@pytest.mark.parametrize("strict", [True, False])
def test_exports(strict):
    model = conv_spectral_norm(network()).eval()
    expected = model(images())
    program = torch.export.export(model, (images(),), strict=strict)
    assert_close(program.module()(images()), expected)


def test_tied_weights_share_the_trained_weight_and_are_normalised_each_for_itself():
    first, second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2)
    second.weight = first.weight
    model = conv_spectral_norm(nn.Sequential(first, second))
    model(torch.randn(1, 4, 8, 8)).sum().backward()
    assert original(first) is original(second)
    assert len(list(model.parameters())) == 3
    for layer, size in ((first, 8), (second, 8)):
        converge(layer, torch.randn(1, 4, size, size))
        assert operator_norm(layer, (4, size, size)) == pytest.approx(1, rel=1e-3)


def test_a_layer_used_twice_is_wrapped_once():
    layer = nn.Conv2d(3, 3, 3, padding=1)
    model = conv_spectral_norm(nn.Sequential(layer, nn.ReLU(), layer))
    model(images())
    assert len(layer.parametrizations.weight) == 1
    assert list(spectral_norms(model)) == ["0"]


def test_wrapping_touches_no_random_state():
    torch.manual_seed(3)
    expected = torch.randn(4)
    model = network()
    torch.manual_seed(3)
    conv_spectral_norm(model)(torch.zeros(1, 3, 8, 8))
    assert_close(torch.randn(4), expected, rtol=0, atol=0)


def test_works_under_a_meta_device_and_channels_last():
    with torch.device("meta"):
        model = conv_spectral_norm(network())
        assert model(torch.empty(2, 3, 8, 8)).shape == (2, 4)
    model = conv_spectral_norm(network())
    twin = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert_close(twin(images().to(memory_format=torch.channels_last)), model(images()))


def test_other_parametrizations_may_follow():
    layer = conv_spectral_norm(nn.Linear(3, 2))

    class Double(nn.Module):
        def forward(self, weight):
            return 2 * weight

    parametrize.register_parametrization(layer, "weight", Double())
    layer(torch.zeros(1, 3))
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(2, rel=1e-4)
    assert len(spectral_norms(layer)) == 1
    other = nn.Linear(3, 2)
    parametrize.register_parametrization(other, "weight", Double())
    with pytest.raises(ValueError, match="wrapped by conv_spectral_norm, got one without"):
        spectral_norms(other)


def test_wrong_options_are_refused():
    layer = nn.Conv2d(3, 4, 3)
    with pytest.raises(TypeError, match=r"^name: expected the name of a parameter, got 0.5 \(options such as scale="):
        conv_spectral_norm(nn.Linear(2, 2), 0.5)
    with pytest.raises(TypeError, match=r"^module: expected a torch.nn.Module, got str"):
        conv_spectral_norm("conv")
    with pytest.raises(ValueError, match="^method: expected one of 'conv', 'pico', 'matrix', got 'fft'"):
        conv_spectral_norm(layer, method="fft")
    for bad in (0, -1):
        with pytest.raises(ValueError, match=f"^n_power_iterations: expected an integer >= 1, got {bad}"):
            conv_spectral_norm(layer, n_power_iterations=bad)
    for bad in (1.5, True):
        with pytest.raises(TypeError, match=f"^n_power_iterations: expected an integer, got {bad}"):
            conv_spectral_norm(layer, n_power_iterations=bad)
    with pytest.raises(TypeError, match="^learn_scale: expected True or False, got 0.5 of type float"):
        conv_spectral_norm(layer, learn_scale=0.5)
    for name in ("scale", "eps"):
        with pytest.raises(ValueError, match=f"^{name}: expected a number > 0, got 0"):
            conv_spectral_norm(layer, **{name: 0})
    assert not parametrize.is_parametrized(layer)


def test_spectral_norms_of_an_unwrapped_model_is_an_error():
    with pytest.raises(
        ValueError, match="^model: expected a module with layers wrapped by conv_spectral_norm, got one without"
    ):
        spectral_norms(network())
    for value in (None, [network()], "model"):
        with pytest.raises(TypeError, match=f"^model: expected a torch.nn.Module, got {type(value).__name__}"):
            spectral_norms(value)
