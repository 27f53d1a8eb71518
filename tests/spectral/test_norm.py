"""conv_spectral_norm in use: what moves when, state, precision, compilation, processes, errors."""

import copy
import io
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import scores
from oracles import operator_norm
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.testing import assert_close

from torch_mmd_losses import MMDLoss, RBFKernel, conv_spectral_norm, spectral_norms
from torch_mmd_losses.spectral import singular_vectors

LAYERS = {
    "linear": (lambda: nn.Linear(12, 5), (12,)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=2, dilation=2), (3, 9)),
    "conv2d": (lambda: nn.Conv2d(3, 6, 4, stride=2, padding=1), (3, 8, 8)),
    "conv2d_same": (lambda: nn.Conv2d(3, 6, 3, padding="same"), (3, 8, 7)),
    "conv2d_reflect": (lambda: nn.Conv2d(3, 6, 3, padding=2, padding_mode="reflect"), (3, 7, 7)),
    "conv2d_circular": (lambda: nn.Conv2d(3, 6, 3, padding=1, stride=2, padding_mode="circular"), (3, 8, 8)),
    "conv2d_replicate": (lambda: nn.Conv2d(3, 6, 3, padding=1, padding_mode="replicate"), (3, 6, 6)),
    "conv2d_grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 6, 6)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 3, stride=2, padding=1), (2, 5, 5, 5)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(3, 4, 4, stride=3, padding=1, output_padding=1), (3, 6)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1), (6, 4, 4)),
    "conv_transpose2d_grouped": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, dilation=2, output_padding=1, groups=2),
        (4, 4, 4),
    ),
    "conv_transpose3d": (lambda: nn.ConvTranspose3d(3, 2, 3, stride=2, padding=1), (3, 3, 3, 3)),
}
every_layer = pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(8, 16, 4, stride=2, padding=1),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 4),
    )


def images(batch=2, *, seed=0, dtype=torch.float32):
    return scores(batch, 3 * 8 * 8, seed).reshape(batch, 3, 8, 8).to(dtype)


def vector(layer):
    return layer.parametrizations.weight[0].v


def original(layer):
    return layer.parametrizations.weight.original


def converge(layer, x, forwards=60):
    layer.train()
    with torch.no_grad():
        for _ in range(forwards):
            layer(x)
    return layer.eval()


@every_layer
@pytest.mark.parametrize("scale", [1.0, 1 / 0.55])
def test_converges_to_the_norm_of_the_true_operator(make, shape, scale):
    layer = make()
    exact = operator_norm(layer, shape)
    wrapped = converge(conv_spectral_norm(layer, scale=scale), torch.randn(1, *shape))
    assert spectral_norms(wrapped)[""].item() == pytest.approx(exact, rel=1e-3)
    assert operator_norm(wrapped, shape) == pytest.approx(scale, rel=1e-3)


def discriminator_layers(size, widths):
    """Return (in, out, kernel, input size) of every convolution of Tables S1 (32 and 48 px) and S2 (64 px)."""
    layers = [(3, widths[0], 3, size)]
    for narrow, wide in pairwise(widths):
        layers += [(narrow, wide, 4, size), (wide, wide, 3, size // 2)]
        size //= 2
    return layers


PAPER_LAYERS = sorted(
    {
        *discriminator_layers(32, (64, 128, 256, 512)),
        *discriminator_layers(48, (64, 128, 256, 512)),
        *discriminator_layers(64, (64, 128, 256, 512, 1024)),
    }
)


@pytest.mark.parametrize(("inputs", "outputs", "kernel", "size"), PAPER_LAYERS)
def test_every_layer_of_the_papers_discriminators_has_norm_one(inputs, outputs, kernel, size):
    # The singular values of these operators (up to 262144 columns) by ARPACK, in float64, with torch's own adjoint.
    stride = 1 if kernel == 3 else 2
    layer = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=1, bias=False)
    converge(conv_spectral_norm(layer), torch.zeros(1, inputs, size, size), forwards=10)
    weight = layer.weight.detach().double().clone()

    def gram(x):
        image = torch.from_numpy(x).reshape(1, inputs, size, size)
        image = F.conv2d(image, weight, stride=stride, padding=1)
        return F.conv_transpose2d(image, weight, stride=stride, padding=1).flatten().numpy()

    columns = inputs * size * size
    operator = LinearOperator((columns, columns), matvec=gram, dtype=np.float64)
    square = eigsh(operator, k=1, ncv=40, tol=1e-5, v0=np.random.default_rng(0).normal(size=columns))[0].item()
    assert math.sqrt(square) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("shape", [(512, 16, 4), (512, 16, 6), (1024, 16, 4)])
def test_the_last_layer_of_the_papers_discriminators_has_norm_one(shape):
    channels, scores_out, size = shape
    features = channels * size * size
    layer = converge(conv_spectral_norm(nn.Linear(features, scores_out)), torch.zeros(1, features), 10)
    assert torch.linalg.matrix_norm(layer.weight.double(), 2).item() == pytest.approx(1, abs=1e-3)


@every_layer
def test_matrix_method_is_the_norm_of_the_reshaped_weight(make, shape):
    layer = make()
    weight = layer.weight.detach()
    if getattr(layer, "transposed", False):
        weight = torch.cat([block.transpose(0, 1) for block in weight.chunk(layer.groups)])
    blocks = weight.chunk(getattr(layer, "groups", 1))
    exact = max(torch.linalg.matrix_norm(block.flatten(1), 2).item() for block in blocks)
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


def test_vector_moves_once_for_each_training_forward_and_not_on_reads():
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=8)
    reference = copy.deepcopy(layer)
    vector(layer).copy_(torch.randn(3, 8, 8) / 192**0.5)  # away from where the start has converged to
    start = vector(layer).clone()
    for _ in range(5):
        _ = layer.weight
        _ = spectral_norms(layer)
    assert_close(vector(layer), start, rtol=0, atol=0)
    layer(images())
    moved = vector(layer).clone()
    assert (moved - start).norm() > 0.1
    assert_close(torch.linalg.vector_norm(moved), torch.tensor(1.0))
    layer(input=images())
    twice = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=8, n_power_iterations=2)
    twice.weight = original(reference).detach()
    vector(twice).copy_(start)
    twice(images())
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


def test_deepcopy_is_independent():
    model = conv_spectral_norm(network())
    model(images())
    twin = copy.deepcopy(model)
    before = [vector(twin[i]).clone() for i in (0, 2, 5)]
    model(images())
    assert all((vector(twin[i]) == v).all() for i, v in zip((0, 2, 5), before, strict=True))
    assert_close(twin(images()), copy.deepcopy(twin).eval()(images()), rtol=1e-2, atol=1e-2)
    assert (vector(twin[0]) != before[0]).any()


STATE = {"conv": {"u", "v", "direction", "_extra_state"}, "pico": {"v"}, "matrix": {"v"}}


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


def test_leaving_the_meta_device_starts_anew():
    with torch.device("meta"):
        layer = conv_spectral_norm(nn.Linear(3, 2))
    layer.to_empty(device="cpu")
    with torch.no_grad():
        original(layer).copy_(scores(2, 3))
        layer.bias.zero_()
    layer(torch.ones(1, 3))
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, rel=1e-4)


IN_PLACE = {
    "nn.init": lambda layer: nn.init.normal_(layer.weight, 0.0, 0.02),
    "nn.init orthogonal": lambda layer: nn.init.orthogonal_(layer.weight),
    "nn.init of data": lambda layer: nn.init.xavier_uniform_(layer.weight.data),
    "data": lambda layer: layer.weight.data.normal_(),
    "detach": lambda layer: layer.weight.detach().zero_(),
    "view": lambda layer: layer.weight.data.view(-1).fill_(1.0),
    "item": lambda layer: layer.weight.data.__setitem__(0, 0.0),
    "operator": lambda layer: layer.weight.data.__imul__(2.0),
    "out": lambda layer: torch.add(torch.ones(6, 3, 3, 3), 1.0, out=layer.weight.data),
    "foreach": lambda layer: torch._foreach_mul_([layer.weight.data], 2.0),
    "assigned data": lambda layer: setattr(layer.weight, "data", torch.zeros(6, 3, 3, 3)),
}


@pytest.mark.parametrize("change", IN_PLACE.values(), ids=IN_PLACE)
def test_changing_the_computed_weight_in_place_is_refused(change):
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=8)
    before = original(layer).clone()
    with torch.no_grad(), pytest.raises(RuntimeError, match="normalised weight .* cannot be changed in place"):
        change(layer)
    assert_close(original(layer), before, rtol=0, atol=0)


def test_the_computed_weight_is_an_ordinary_tensor_otherwise():
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=8)
    weight = layer.weight
    for value in (weight + 1, weight.clone(), weight.T if weight.dim() == 2 else weight.transpose(0, 1).contiguous()):
        assert type(value) is torch.Tensor
        value.detach().zero_()
    assert weight.requires_grad
    assert "NormalisedWeight" in repr(weight)
    assert_close(torch.func.grad(lambda x: (x * layer.weight).sum())(torch.ones(6, 3, 3, 3)), weight.detach())
    assert_close(torch.func.vmap(lambda x: layer.weight.detach() * x)(torch.ones(2, 6, 3, 3, 3))[0], weight.detach())
    (weight.square().sum()).backward()
    assert original(layer).grad is not None


def test_before_the_input_size_is_known_reading_the_weight_is_an_error():
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3))
    for read in (lambda: layer.weight, lambda: spectral_norms(layer)):
        with pytest.raises(RuntimeError, match="the norm of a convolution depends on its input size: run a forward"):
            read()
    with pytest.raises(RuntimeError, match="input size"):
        nn.init.normal_(layer.weight)


def test_assigning_a_weight_takes_effect():
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=8).eval()
    fresh = nn.Conv2d(3, 6, 3, padding=1)
    exact = operator_norm(fresh, (3, 8, 8))
    layer.weight = fresh.weight.detach().clone()
    assert spectral_norms(layer)[""].item() == pytest.approx(exact, rel=5e-3)
    assert_close(layer.weight, fresh.weight / spectral_norms(layer)[""])


def test_original_can_be_initialised_and_recovers_in_training():
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=8)
    nn.init.normal_(original(layer), 0, 0.02)
    converge(layer, images())
    assert operator_norm(layer, (3, 8, 8)) == pytest.approx(1, rel=1e-3)


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


@pytest.mark.parametrize("warm", [True, False], ids=["ran", "never ran"])
@pytest.mark.parametrize("training", [True, False])
def test_compiles_into_one_graph(warm, training):
    torch.compiler.reset()
    model = conv_spectral_norm(network()).train(training)
    if warm:
        model(images())
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        out, expected = compiled(images()), twin(images())
        assert_close(out, expected)
        out.square().sum().backward()
        expected.square().sum().backward()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert_close(mine.grad, theirs.grad)
    assert_close(vector(model[0]), vector(twin[0]))


@pytest.mark.filterwarnings("ignore:Skipping serialization of")  # torch 2.6, of its own settings
def test_compiles_with_inductor():
    torch.compiler.reset()
    model = conv_spectral_norm(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.ConvTranspose2d(4, 2, 4, 2, 1))
    )
    model(images())
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True)
    for _ in range(2):
        assert_close(compiled(images()), twin(images()))


@pytest.mark.parametrize("strict", [True, False])
def test_exports(strict):
    model = conv_spectral_norm(network()).eval()
    expected = model(images())
    program = torch.export.export(model, (images(),), strict=strict)
    assert_close(program.module()(images()), expected)


def test_inference_mode_first():
    model = conv_spectral_norm(network())
    with torch.inference_mode():
        expected = model.eval()(images())
        model.train()(images())
    model(images()).sum().backward()
    assert_close(model.eval()(images()), expected, rtol=1e-2, atol=1e-2)


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


@pytest.mark.parametrize("magnitude", [1e-30, 1e-14, 1e15])
def test_tiny_and_huge_weights_stay_finite(magnitude):
    layer = nn.Conv2d(3, 6, 3, padding=1, bias=False)
    layer.weight.data.mul_(magnitude)
    conv_spectral_norm(layer)
    layer(images()).square().sum().backward()
    assert layer.weight.isfinite().all()
    assert original(layer).grad.isfinite().all()
    if magnitude > 1:
        assert operator_norm(layer, (3, 8, 8)) == pytest.approx(1, rel=5e-3)


def test_up_to_eps_a_weight_counts_as_zero():
    layer = conv_spectral_norm(nn.Linear(3, 2), eps=100.0, scale=2.0)
    assert_close(layer.weight, 2 * original(layer))


def test_a_zero_layer_learns():
    layer = nn.Linear(3, 2, bias=False)
    nn.init.zeros_(layer.weight)
    conv_spectral_norm(layer, scale=2.0)
    layer(torch.ones(1, 3)).sum().backward()
    assert_close(original(layer).grad, torch.full((2, 3), 2.0))


def test_a_large_image_takes_several_short_lanczos_runs(monkeypatch):
    layer = nn.Conv2d(3, 6, 3, padding=1)
    exact = operator_norm(layer, (3, 8, 8))
    monkeypatch.setattr(singular_vectors, "LARGEST_BASIS", 5 * 3 * 8 * 8)
    conv_spectral_norm(layer, input_size=8)
    assert spectral_norms(layer)[""].item() == pytest.approx(exact, rel=5e-3)


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


def test_other_input_sizes_keep_the_norm_of_the_first():
    layer = nn.Conv2d(3, 6, 3, padding=1)
    exact = operator_norm(layer, (3, 8, 8))
    conv_spectral_norm(layer)
    layer(images())
    assert layer(torch.randn(2, 3, 16, 12)).shape == (2, 6, 16, 12)
    converge(layer, torch.randn(2, 3, 16, 12))
    assert vector(layer).shape == (3, 8, 8)
    assert spectral_norms(layer)[""].item() == pytest.approx(exact, rel=1e-3)


def test_an_input_that_the_layer_cannot_take_does_not_set_the_size():
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3))
    for shape in [(8, 8), (1, 1, 3, 8, 8)]:
        with pytest.raises(ValueError, match=r"^input: expected 2 spatial dimensions after .* got shape \("):
            layer(torch.zeros(shape))
    assert layer(images()).shape == (2, 6, 6, 6)


def test_learned_scale_is_a_parameter():
    layer = conv_spectral_norm(nn.Linear(4, 3), scale=2.0, learn_scale=True)
    scale = layer.parametrizations.weight[0].scale
    assert isinstance(scale, nn.Parameter)
    assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(2, rel=1e-4)
    layer.weight.sum().backward()
    assert scale.grad.item() == pytest.approx(layer.weight.sum().item() / 2, rel=1e-4)
    assert "scale=learned" in repr(layer)
    assert "scale=1.0" in repr(conv_spectral_norm(nn.Linear(2, 2)))


def test_wrapping_touches_no_random_state():
    torch.manual_seed(3)
    expected = torch.randn(4)
    model = network()
    torch.manual_seed(3)
    conv_spectral_norm(model)(torch.zeros(1, 3, 8, 8))
    assert_close(torch.randn(4), expected, rtol=0, atol=0)


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
    with pytest.raises(ValueError, match="wrapped by conv_spectral_norm, found none"):
        spectral_norms(other)


class OwnConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(2, 2))


@pytest.mark.parametrize(
    ("stored", "loaded"), [("pico", "matrix"), ("conv", "matrix"), ("matrix", "pico"), ("matrix", "conv")]
)
def test_a_vector_of_another_operator_is_refused(stored, loaded):
    def wrap(method):
        size = None if method == "matrix" else 8
        return conv_spectral_norm(nn.Conv2d(3, 4, 3), input_size=size, method=method)

    state = wrap(stored).state_dict()
    state = {name: value for name, value in state.items() if not name.endswith(("u", "direction", "_extra_state"))}
    wrapped = wrap(loaded)
    with pytest.raises(
        RuntimeError, match=r"parametrizations.weight.0.v: expected the vector of a layer like this one"
    ):
        wrapped.load_state_dict(state)


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match=r"^name: expected the name of a parameter, got 0.5 \(options such as scale="):
        conv_spectral_norm(nn.Linear(2, 2), 0.5)
    with pytest.raises(TypeError, match=r"^module: expected a torch.nn.Module, got str"):
        conv_spectral_norm("conv")
    for module, got in [(nn.ReLU(), "ReLU"), (nn.Sequential(), "Sequential"), (OwnConv(), "OwnConv")]:
        with pytest.raises(ValueError, match=f"^module: expected a layer, or a module with layers, of Linear, .*{got}"):
            conv_spectral_norm(module)
    layer = nn.Conv2d(3, 4, 3)
    for name in ("kernel", "bias"):
        with pytest.raises(ValueError, match=f"^name: expected a .* of layer 'Conv2d' shaped like .* got '{name}'"):
            conv_spectral_norm(layer, name)
    with pytest.raises(ValueError, match="^name: 'weight' of layer 'Linear' is no parameter but computed, by a hook"):
        conv_spectral_norm(prune.identity(nn.Linear(3, 2), "weight"))
    with pytest.raises(ValueError, match=r"^module: 'out_proj' belongs to a torch.nn.MultiheadAttention"):
        conv_spectral_norm(nn.MultiheadAttention(4, 2))
    with pytest.raises(ValueError, match=r"^input_size: the layer cannot take an input of size \(2, 2\): "):
        conv_spectral_norm(layer, input_size=2)
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
    for bad in (0, (8,), (8, 8, 8), (3, 8, 8), (8.0, 8), 8.0):
        with pytest.raises(ValueError, match=r"^input_size: expected 2 integer\(s\) >= 1, without channels, got"):
            conv_spectral_norm(layer, input_size=bad)
    for module, options in [(nn.Linear(3, 2), {}), (network(), {}), (layer, {"method": "matrix"})]:
        with pytest.raises(ValueError, match="^input_size: expected None unless module is a single convolution"):
            conv_spectral_norm(module, input_size=8, **options)
    with pytest.raises(ValueError, match="'0' has no shape yet; run a forward through lazy layers"):
        conv_spectral_norm(nn.Sequential(nn.LazyConv2d(4, 3)))
    assert not parametrize.is_parametrized(layer)


def test_wrapping_twice_is_refused_and_changes_nothing():
    model = network()
    conv_spectral_norm(model[2])
    with pytest.raises(ValueError, match="'weight' is not parametrized yet, but that of '2' is"):
        conv_spectral_norm(model)
    assert not parametrize.is_parametrized(model[0])


def test_spectral_norms_of_an_unwrapped_model_is_an_error():
    with pytest.raises(ValueError, match="^model: expected a module with layers wrapped by conv_spectral_norm"):
        spectral_norms(network())
