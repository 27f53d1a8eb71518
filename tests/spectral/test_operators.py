"""Layers as linear operators: against dense matrices, against the authors' numbers, and the iterations themselves."""

from itertools import product

import pytest
import torch
from authors import CASES, ids, tensor
from cases import scores
from oracles import dense_matrix
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses.spectral.operators import (
    ConvolutionOperator,
    MatrixOperator,
    gram_product,
    lanczos,
    locally_optimal_iteration,
    norm_along,
    power_iteration,
    start_vector,
    unit,
)

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
    operator = ConvolutionOperator.of(layer)
    shape = operator.domain(SIZES[dims])
    matrix = dense_matrix(layer, shape)
    v = scores(1, matrix.shape[1]).reshape(shape)
    image = operator.apply(v, layer.weight)
    assert_close(image.flatten(), matrix @ v.flatten())
    assert_close(operator.adjoint(image, layer.weight, v).flatten(), matrix.T @ (matrix @ v.flatten()))
    check_what_follows_from_apply(operator, layer.weight, v, image)


def check_what_follows_from_apply(operator, weight, v, image):
    both = operator.apply_each(torch.stack([v, 2 * v.flip(0)]), weight)
    assert_close(both, torch.stack([image, 2 * operator.apply(v.flip(0), weight)]))
    u = scores(1, image.numel(), 1).reshape(image.shape)
    (gradient,) = torch.autograd.grad((u * image).sum(), weight)
    assert_close(operator.outer(u, v, weight.detach()), gradient)


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
    operator = MatrixOperator.of(layer)
    weight = layer.weight
    if layer.transposed:  # (in, out / groups, ...): put the output channels first, group by group
        weight = torch.cat([block.transpose(0, 1) for block in weight.chunk(groups)])
    blocks = [block.flatten(1) for block in weight.chunk(groups)]
    v = scores(groups, blocks[0].shape[1])
    assert operator.domain((9, 9)) == tuple(v.shape)
    expected = torch.stack([block @ row for block, row in zip(blocks, v, strict=True)])
    assert_close(operator.apply(v, layer.weight), expected)
    back = torch.stack([block.T @ row for block, row in zip(blocks, expected, strict=True)])
    assert_close(operator.adjoint(expected, layer.weight, v), back)
    check_what_follows_from_apply(operator, layer.weight, v, operator.apply(v, layer.weight))


def test_linear_layers_are_their_matrix():
    layer = nn.Linear(5, 3).double()
    operator = MatrixOperator.of(layer)
    v = scores(1, 5)
    assert_close(operator.apply(v, layer.weight), v @ layer.weight.T)


def _authors_operator(name):
    """Return operator, weight in torch's layout, start vector, and whether it lies in the operator's domain."""
    case = CASES[name]
    kernel, start = tensor(case["inputs"]["kernel"]), tensor(case["inputs"]["start_x"])
    options = case["hyperparameters"]
    if options["op"] == "d":
        weight = kernel.T.contiguous()
        operator = MatrixOperator(groups=1, columns=weight.shape[1], transposed=False)
        return operator, weight, start, start.shape[1] == weight.shape[1]
    # TensorFlow's SAME padding with even sizes and these kernels is a padding of 1 on every side.
    height, width, first, second = kernel.shape
    if options["op"] == "c":
        layer = nn.Conv2d(first, second, (height, width), stride=options["strides"], padding=1, bias=False).double()
    else:
        layer = nn.ConvTranspose2d(second, first, (height, width), stride=2, padding=1, bias=False).double()
    weight = kernel.permute(3, 2, 0, 1).contiguous()
    assert layer.weight.shape == weight.shape
    start = start[0].permute(2, 0, 1)
    return ConvolutionOperator.of(layer), weight, start, start.shape[0] == layer.in_channels


@pytest.mark.parametrize("name", ids("wang/sn/"))
def test_sigma_of_wang_et_al(name):
    case = CASES[name]
    iterations = case["hyperparameters"]["num_iter"]
    operator, weight, x, in_domain = _authors_operator(name)
    if "dense6x1" in name:  # their code returns the norm of a matrix with one row or column at once
        v = power_iteration(operator, weight, scores(*operator.domain(())), 1)
        assert_close(norm_along(operator, weight, v), tensor(case["outputs"]["sigma"]))
        return
    # Their sigma is |A x| with the vector before its update, and |x| is not one before the first. Where they iterate
    # on the output side, A^T is the operator; `v` is then A^T x, which this library would reach half a step later.
    weight.requires_grad_()
    if in_domain:
        v = power_iteration(operator, weight.detach(), unit(x, fallback=x), iterations - 1)
        sigma = norm_along(operator, weight, v)
        after = power_iteration(operator, weight.detach(), v, 1)
    else:
        like = torch.zeros(operator.domain((8, 8) if case["hyperparameters"]["op"] == "c" else (4, 4)), dtype=x.dtype)
        u = unit(x, fallback=x)
        for _ in range(iterations - 1):
            u = unit(operator.apply(operator.adjoint(u, weight.detach(), like), weight.detach()), fallback=u)
        sigma = torch.linalg.vector_norm(operator.adjoint(u, weight, like))
        after = unit(operator.apply(operator.adjoint(u, weight.detach(), like), weight.detach()), fallback=u)
    scale = case["start_norm"] if iterations == 1 else 1.0
    assert_close(sigma * scale, tensor(case["outputs"]["sigma"]), rtol=1e-8, atol=0)
    assert sigma <= case["exact_largest_singular_value"] + 1e-9
    x_next = tensor(case["outputs"]["x_next"]).squeeze(0)
    assert_close(
        after.flatten(), (x_next.permute(2, 0, 1) if x_next.dim() == 3 else x_next).flatten(), rtol=0, atol=1e-8
    )
    if iterations == 1:  # with more, their gradient flows through all of them
        (gradient,) = torch.autograd.grad(sigma * scale, weight)
        expected = tensor(case["outputs"]["grad_sigma_wrt_kernel"])
        expected = expected.T if expected.dim() == 2 else expected.permute(3, 2, 0, 1)
        assert_close(gradient, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ids("arbel/sn/"))
def test_sigma_of_arbel_et_al(name):
    # Reshaped matrix (kh kw cin, cout), sigma = v^T W u after the update of both: this library's |A v| at that v.
    case = CASES[name]
    weight = tensor(case["inputs"]["kernel"]).permute(3, 2, 0, 1).requires_grad_()
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:])
    operator = MatrixOperator.of(layer)
    u = tensor(case["inputs"]["u0"]).reshape(1, -1)
    like = torch.zeros(operator.domain(()), dtype=u.dtype)
    detached = weight.detach()
    for _ in range(case["hyperparameters"]["num_iters"]):
        v = unit(operator.adjoint(u, detached, like), fallback=like)
        u = unit(operator.apply(v, detached), fallback=u)
    sigma = norm_along(operator, weight, v)
    assert_close(sigma, tensor(case["outputs"]["sigma"]), rtol=1e-9, atol=0)
    (gradient,) = torch.autograd.grad(sigma, weight, retain_graph=True)
    assert_close(gradient, tensor(case["outputs"]["grad_sigma_wrt_kernel"]).permute(3, 2, 0, 1), rtol=0, atol=1e-9)
    assert_close(weight / sigma, tensor(case["outputs"]["w_bar"]).permute(3, 2, 0, 1), rtol=0, atol=1e-9)


def test_power_iteration_climbs_to_the_norm_and_lanczos_is_there_at_once():
    layer = nn.Conv2d(8, 16, 4, stride=2, padding=1).double()
    operator = ConvolutionOperator.of(layer)
    shape = operator.domain((12, 12))
    exact = torch.linalg.matrix_norm(dense_matrix(layer, shape), 2)
    weight = layer.weight.detach()
    v = start_vector(shape, like=weight)
    assert_close(torch.linalg.vector_norm(v), torch.tensor(1.0, dtype=torch.float64))
    climb = [norm_along(operator, weight, power_iteration(operator, weight, v, steps)) for steps in (0, 1, 5, 50)]
    assert climb == sorted(climb)
    assert climb[-1] <= exact
    assert 0.997 * exact < norm_along(operator, weight, lanczos(operator, weight, v, 20)) <= exact * (1 + 1e-12)
    full = lanczos(operator, weight, v, 120)
    assert_close(norm_along(operator, weight, full), exact, rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_locally_optimal_iteration_climbs_from_a_cold_start_and_never_less_than_the_plain_one(kind):
    layer = nn.Conv2d(8, 16, 4, stride=2, padding=1).double() if kind == "conv" else nn.Linear(300, 200).double()
    operator = ConvolutionOperator.of(layer) if kind == "conv" else MatrixOperator.of(layer)
    weight = layer.weight.detach()
    v = start_vector(operator.domain((12, 12)), like=weight)
    exact = norm_along(operator, weight, lanczos(operator, weight, v, 200))
    direction = torch.zeros_like(v)
    for step in range(30):
        plain = norm_along(operator, weight, power_iteration(operator, weight, v, 1))
        u, v, direction = locally_optimal_iteration(operator, weight, v, direction, 1)
        image = operator.apply(v, weight)
        assert_close(u, image / torch.linalg.vector_norm(image))
        assert plain * (1 - 1e-4) < norm_along(operator, weight, v) <= exact * (1 + 1e-9)
        if step == 14:
            assert norm_along(operator, weight, v) > 0.98 * exact
    assert norm_along(operator, weight, v) > 0.999 * exact


DEGENERATE = [torch.eye(4), torch.diag(torch.tensor([2.0, 0, 0])), torch.ones(3, 2), torch.tensor([[-3.0]])]


@pytest.mark.parametrize("matrix", DEGENERATE)
def test_lanczos_survives_small_and_degenerate_operators(matrix):
    operator = MatrixOperator(groups=1, columns=matrix.shape[1], transposed=False)
    v = lanczos(operator, matrix, start_vector(operator.domain(()), like=matrix), 20)
    assert_close(norm_along(operator, matrix, v), torch.linalg.matrix_norm(matrix, 2))
    assert_close(torch.linalg.vector_norm(v), torch.tensor(1.0))


@pytest.mark.parametrize("shape", [(4, 256), (256, 4), (1, 64), (12, 12)])
@pytest.mark.parametrize("seed", range(5))
def test_lanczos_goes_on_past_the_rank(shape, seed):
    weight = scores(*shape, seed).float()
    operator = MatrixOperator(groups=1, columns=shape[1], transposed=False)
    v = lanczos(operator, weight, start_vector(operator.domain(()), like=weight), 60)
    assert_close(norm_along(operator, weight, v), torch.linalg.matrix_norm(weight, 2))


def test_iterations_leave_the_vector_alone_where_there_is_nothing_to_follow():
    operator = MatrixOperator(groups=1, columns=5, transposed=False)
    v = start_vector((1, 5), like=torch.zeros(()))
    for weight in (torch.zeros(3, 5), torch.full((3, 5), float("nan")), torch.full((3, 5), float("inf"))):
        assert_close(power_iteration(operator, weight, v, 3), v, rtol=0, atol=0)
        assert_close(locally_optimal_iteration(operator, weight, v, torch.zeros_like(v), 3).v, v, rtol=0, atol=0)
    assert_close(lanczos(operator, torch.zeros(3, 5), v, 5), v, rtol=0, atol=0)


@pytest.mark.parametrize("magnitude", [1e-30, 1e-14, 1e20])
def test_the_direction_does_not_depend_on_the_magnitude(magnitude):
    weight = scores(4, 6).float()
    operator = MatrixOperator(groups=1, columns=6, transposed=False)
    v = start_vector((1, 6), like=weight)
    assert_close(gram_product(operator, magnitude * weight, v), gram_product(operator, weight, v))


def test_start_vectors_see_every_direction():
    # No singular vector of a smooth operator (a plane wave) is orthogonal to a chirp.
    v = start_vector((64, 64), like=torch.zeros((), dtype=torch.float64))
    spectrum = torch.fft.fft2(v).abs()
    assert spectrum.min() > 1e-3 * spectrum.max()
    assert spectrum.max() < 10 * spectrum.square().mean().sqrt()
