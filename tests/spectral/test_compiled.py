"""Wrapped networks under torch.compile: the operators that it does not look into, and the size of its graphs."""

import copy
import math

import pytest
import torch
from cases import scores
from torch import nn
from torch.testing import assert_close
from wrapped_layers import LAYERS, change, images, network, original, state, vector

from torch_mmd_losses import conv_spectral_norm
from torch_mmd_losses.spectral import compiled, normalisation, singular_vectors
from torch_mmd_losses.spectral.fingerprint import NO_FINGERPRINT

METHODS = ("conv", "pico", "matrix")
KINDS = ("linear", "conv2d_same", "conv2d_circular", "conv3d", "conv_transpose2d_grouped")

is_supported = pytest.mark.skipif(not compiled._IS_SUPPORTED, reason="earlier versions of PyTorch do not use operators")


def wrapped(kind="conv2d_circular", *, double=False, **options):
    """Return a layer in which an iteration is due, and an input."""
    make, shape = LAYERS[kind]
    x = scores(2, math.prod(shape)).reshape(2, *shape)
    layer = make().double() if double else make()
    layer = conv_spectral_norm(layer, example_input=x if double else x.float(), **options)
    change(layer)
    return layer, x if double else x.float()


def nodes(model, x):
    """Return the numbers of operations in the forward and the backward graph that the compiler gets."""
    from torch._dynamo.backends.common import aot_autograd  # slow to import
    from torch._functorch.aot_autograd import make_boxed_func

    counts = []

    def count(graph, _):
        counts.append(sum(node.op == "call_function" for node in graph.graph.nodes))
        return make_boxed_func(graph.forward)

    torch.compiler.reset()
    model = torch.compile(model, fullgraph=True, backend=aot_autograd(fw_compiler=count, bw_compiler=count))
    model(x).sum().backward()
    return counts


@is_supported
def test_a_layer_adds_a_few_operations_to_the_graph():
    # Before the iteration was an operator, these three layers added 1,800 operations to the forward graph.
    plain, model = network(), conv_spectral_norm(network(), example_input=images())
    forward, backward = (mine - bare for mine, bare in zip(nodes(model, images()), nodes(plain, images()), strict=True))
    assert forward <= 3 * 15  # two operators, with the items of their results and what they write into the buffers
    assert backward <= 3 * 5


@is_supported
def test_the_search_for_the_first_vectors_is_one_operation():
    layers = [conv_spectral_norm(nn.Conv2d(3, 4, 3)) for _ in range(2)]
    layers[0](images())
    later, first = (nodes(layer, images())[0] for layer in layers)
    assert first <= later + 4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_operators_compute_what_the_layer_computes(kind, method, monkeypatch):
    layer, x = wrapped(kind, method=method, scale=1.7, learn_scale=method == "pico")
    twin = copy.deepcopy(layer)
    expected = layer(x)
    expected.square().sum().backward()
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "calls_operators", lambda: True)
        found = twin(x)
        found.square().sum().backward()
    assert_close(found, expected)
    assert_close(twin.state_dict(), layer.state_dict(), rtol=0, atol=0)
    for mine, theirs in zip(twin.parameters(), layer.parameters(), strict=True):
        # The other way sums up in another order. Gradients are up to 600, so that is their rounding error.
        assert_close(mine.grad, theirs.grad, rtol=0, atol=2e-6 * float(theirs.grad.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_operators_start_as_the_layer_does(method, monkeypatch):
    layer = conv_spectral_norm(nn.ConvTranspose2d(3, 2, 3, stride=2), method=method)
    twin = copy.deepcopy(layer)
    layer(images(), output_size=(18, 18))
    monkeypatch.setattr(compiled, "calls_operators", lambda: True)
    twin(images(), output_size=(18, 18))
    assert_close(twin.state_dict(), layer.state_dict(), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's, of the checks themselves
@pytest.mark.parametrize("kind", ["linear", "conv2d_circular", "conv_transpose2d_grouped"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operators_keep_the_rules_of_pytorch(kind, dtype):
    # The rules concern shapes, dtypes, memory formats, mutations and aliases, without which graphs would be wrong.
    layer, _ = wrapped(kind)
    norm, weight = state(layer), original(layer).detach().to(dtype)
    integers, v, u = norm.operator.integers(), norm.v.clone(), norm.u.clone()
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(compiled._first_vectors, (weight, integers, list(v.shape)), test_utils=checks)
    vectors = [u, v, norm.direction.clone()]
    torch.library.opcheck(compiled._follow, (weight, norm.fingerprint.clone(), vectors, integers, 1), test_utils=checks)
    weight = weight.float()
    arguments = (weight, v, integers, 1.3, 1e-12)
    torch.library.opcheck(compiled._normalise, arguments, test_utils=checks)
    saved = compiled._normalise(*arguments)[1:]
    backward = (torch.ones_like(weight), weight, *saved, integers, 1.3, 1e-12)
    torch.library.opcheck(compiled._normalise_backward, backward, test_utils=checks)


@pytest.mark.parametrize("kind", KINDS)
def test_first_and_second_derivatives_of_the_normalisation(kind):
    layer, _ = wrapped(kind, double=True)
    norm = state(layer)

    def normalised(weight):
        return compiled.normalise(norm.operator, weight, norm.v, 1.3, 1e-12)

    weight = original(layer).detach().requires_grad_()
    assert torch.autograd.gradcheck(normalised, weight, fast_mode=True)
    assert torch.autograd.gradgradcheck(normalised, weight, fast_mode=True)


@pytest.mark.parametrize("size", [0, 1e-30, 1e30])
def test_the_gradient_of_zero_tiny_and_huge_weights(size):
    layer, _ = wrapped("conv2d_same")
    norm, direction = state(layer), torch.randn_like(original(layer))
    results = []
    for normalise in (
        lambda w: compiled.normalise(norm.operator, w, norm.v, 1.3, 1e-38),
        lambda w: normalisation.normalise(w, 1.3, singular_vectors.norm_along(norm.operator, w, norm.v), 1e-38),
    ):
        weight = (size * original(layer).detach()).requires_grad_()
        normalise(weight).backward(direction)
        results.append(weight.grad * (size or 1))
    assert results[0].isfinite().all()
    assert_close(results[0], results[1])


@is_supported
def test_later_forward_passes_leave_the_gradient_of_earlier_ones():
    torch.compiler.reset()
    layer, x = wrapped()
    twin = copy.deepcopy(layer)
    model = torch.compile(twin, fullgraph=True, backend="eager")
    grads = []
    for part, forward in ((layer, layer), (twin, model)):
        first = forward(x).square().sum()
        state(part).fingerprint.fill_(NO_FINGERPRINT)
        forward(x)
        first.backward()
        grads.append(original(part).grad)
    assert_close(grads[0], grads[1])


@is_supported
def test_a_change_in_compiled_code_is_seen_outside():
    torch.compiler.reset()
    layer, x = wrapped()
    twin = copy.deepcopy(layer)
    model = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for seed in range(4):
        change(layer, seed)
        change(twin, seed)
        assert_close((twin if seed % 2 else model)(x), layer(x))
        assert torch.equal(vector(twin), vector(layer))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_exported_programs_do_not_need_the_library(strict, training):
    if strict and training and not compiled._IS_SUPPORTED:
        pytest.skip("earlier versions of PyTorch cannot export the buffers")
    model = conv_spectral_norm(nn.Sequential(nn.Conv2d(3, 2, 3)), example_input=images()).train(training)
    change(model[0])
    program = torch.export.export(model, (images(),), strict=strict)
    graphs = [part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    called = {str(node.target) for graph in graphs for node in graph.nodes if node.op == "call_function"}
    assert "aten.linalg_vector_norm.default" in called
    assert not [name for name in called if "mmd" in name]
    assert_close(program.module()(images()), model(images()))


@is_supported
@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated")  # PyTorch's, of its own rules for derivatives
def test_function_transforms_see_the_operations_themselves():
    torch.compiler.reset()
    layer, x = wrapped()
    layer.eval()

    def slope(weight):
        def output(weight):
            return torch.func.functional_call(layer, {"parametrizations.weight.original": weight}, x)

        return torch.func.jvp(output, (weight,), (torch.ones_like(weight),))[1]

    weight = original(layer).detach()
    expected = slope(weight)  # first, since PyTorch 2.14 loads rules for derivatives here, which it cannot compile
    assert_close(torch.compile(slope, fullgraph=True, backend="eager")(weight), expected)
