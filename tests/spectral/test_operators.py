"""Layers as linear operators, against dense matrices."""

from itertools import product

import pytest
import torch
from cases import scores
from oracles import dense_matrix
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses.spectral.operators import ConvolutionOperator, MatrixOperator, operator_from_integers

SIZES = {1: (7,), 2: (6, 5), 3: (4, 3, 5)}


def convolutions():
    """Every combination of options that gives an output of at least one pixel."""
    options = {"stride": (1, 2), "padding": (0, 1, 2), "dilation": (1, 2), "groups": (1, 2)}
    for dims, kernel, *values in product((1, 2, 3), (1, 3, 4), *options.values()):
        chosen = dict(zip(options, values, strict=True))
        reach, smallest = chosen["dilation"] * (kernel - 1), min(SIZES[dims])
        if dims == 3 and (kernel == 4 or chosen["padding"] == 2):
            continue  # slow, and nothing new
        if smallest + 2 * chosen["padding"] > reach:
            yield "Conv", dims, kernel, chosen
        for output_padding in range(max(chosen["stride"], chosen["dilation"])):
            if (smallest - 1) * chosen["stride"] - 2 * chosen["padding"] + reach + output_padding >= 0:
                yield "ConvTranspose", dims, kernel, {**chosen, "output_padding": output_padding}


def padding_modes():
    for dims, kernel, mode in product((1, 2, 3), (3, 4), ("reflect", "replicate", "circular")):
        for stride, padding, groups in ((1, 1, 1), (2, 2, 2)):
            yield "Conv", dims, kernel, {"stride": stride, "padding": padding, "padding_mode": mode, "groups": groups}
        yield "Conv", dims, kernel, {"padding": "same", "padding_mode": mode}
    for dims, (kernel, dilation) in product((1, 2, 3), ((3, 1), (3, 2), (4, 2))):
        yield "Conv", dims, kernel, {"padding": "same", "dilation": dilation}
    yield "Conv", 2, 3, {"padding": "valid"}
    yield "Conv", 2, (3, 1), {"padding": (1, 2), "stride": (2, 1), "padding_mode": "circular"}
    yield "Conv", 2, (1, 4), {"padding": "same", "padding_mode": "replicate"}
    yield "ConvTranspose", 2, (3, 2), {"padding": (1, 0), "stride": (3, 2), "output_padding": (2, 1)}


def check_operator(kind, dims, kernel, options):
    torch.manual_seed(0)
    layer = getattr(nn, f"{kind}{dims}d")(4, 6, kernel, **options).double()
    operator = ConvolutionOperator.from_layer(layer)
    shape = operator.vector_shape(SIZES[dims])
    matrix = dense_matrix(layer, shape)
    v = scores(1, matrix.shape[1]).reshape(shape)
    image = operator.apply(v, layer.weight)
    assert_close(image.flatten(), matrix @ v.flatten())
    assert_close(operator.apply_adjoint(image, layer.weight, v).flatten(), matrix.T @ (matrix @ v.flatten()))
    check_what_follows_from_apply(operator, layer.weight, v, image)


def check_what_follows_from_apply(operator, weight, v, image):
    assert operator_from_integers(operator.integers()) == operator
    both = operator.apply_batch(torch.stack([v, 2 * v.flip(0)]), weight)
    assert_close(both, torch.stack([image, 2 * operator.apply(v.flip(0), weight)]))
    u = scores(1, image.numel(), 1).reshape(image.shape)
    (gradient,) = torch.autograd.grad((u * image).sum(), weight)
    assert_close(operator.weight_gradient(u, v, weight.detach()), gradient)


def test_convolutions_and_their_adjoints_equal_the_dense_matrix():
    cases = list(convolutions())
    assert len(cases) > 400
    for case in cases:
        check_operator(*case)


@pytest.mark.parametrize(("kind", "dims", "kernel", "options"), list(padding_modes()))
def test_padding_that_comes_before_the_convolution(kind, dims, kernel, options):
    check_operator(kind, dims, kernel, options)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch's own remark on the layer
def test_unequal_padding_on_the_two_sides():
    check_operator("Conv", 2, 4, {"padding": "same"})
    check_operator("Conv", 1, 2, {"padding": "same"})


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d", "Conv1d", "ConvTranspose3d"])
def test_reshaped_matrix_is_out_by_everything_else_for_each_group(kind, groups):
    layer = getattr(nn, kind)(4, 6, 3, groups=groups).double()
    operator = MatrixOperator.from_layer(layer)
    weight = layer.weight
    if layer.transposed:  # (in, out / groups, ...): put the output channels first, group by group
        weight = torch.cat([block.transpose(0, 1) for block in weight.chunk(groups)])
    blocks = [block.flatten(1) for block in weight.chunk(groups)]
    v = scores(groups, blocks[0].shape[1])
    assert operator.vector_shape((9, 9)) == tuple(v.shape)
    expected = torch.stack([block @ row for block, row in zip(blocks, v, strict=True)])
    assert_close(operator.apply(v, layer.weight), expected)
    back = torch.stack([block.T @ row for block, row in zip(blocks, expected, strict=True)])
    assert_close(operator.apply_adjoint(expected, layer.weight, v), back)
    check_what_follows_from_apply(operator, layer.weight, v, operator.apply(v, layer.weight))


def test_linear_layers_are_their_matrix():
    layer = nn.Linear(5, 3).double()
    operator = MatrixOperator.from_layer(layer)
    v = scores(1, 5)
    assert_close(operator.apply(v, layer.weight), v @ layer.weight.T)
