"""The iterations for singular vectors, against the authors' numbers and exact norms."""

import pytest
import torch
from authors import CASES, ids, tensor
from cases import scores
from oracles import dense_matrix, operator_norm
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import conv_spectral_norm, spectral_norms
from torch_mmd_losses.spectral import singular_vectors
from torch_mmd_losses.spectral.operators import ConvolutionOperator, MatrixOperator
from torch_mmd_losses.spectral.singular_vectors import (
    gram_product,
    lanczos,
    locally_optimal_iteration,
    norm_along,
    power_iteration,
    start_vector,
    unit_vector,
)


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
    return ConvolutionOperator.from_layer(layer), weight, start, start.shape[0] == layer.in_channels


@pytest.mark.parametrize("name", ids("wang/sn/"))
def test_sigma_of_wang_et_al(name):
    case = CASES[name]
    iterations = case["hyperparameters"]["num_iter"]
    operator, weight, x, in_domain = _authors_operator(name)
    if "dense6x1" in name:  # their code returns the norm of a matrix with one row or column at once
        v = power_iteration(operator, weight, scores(*operator.vector_shape(())), 1)
        assert_close(norm_along(operator, weight, v), tensor(case["outputs"]["sigma"]))
        return
    # Their sigma is |A x| with the vector before its update, and |x| is not one before the first. Where they iterate
    # on the output side, A^T is the operator; `v` is then A^T x, which this library would reach half a step later.
    weight.requires_grad_()
    if in_domain:
        v = power_iteration(operator, weight.detach(), unit_vector(x, fallback=x), iterations - 1)
        sigma = norm_along(operator, weight, v)
        after = power_iteration(operator, weight.detach(), v, 1)
    else:
        like = torch.zeros(
            operator.vector_shape((8, 8) if case["hyperparameters"]["op"] == "c" else (4, 4)), dtype=x.dtype
        )
        u = unit_vector(x, fallback=x)
        for _ in range(iterations - 1):
            u = unit_vector(
                operator.apply(operator.apply_adjoint(u, weight.detach(), like), weight.detach()), fallback=u
            )
        sigma = torch.linalg.vector_norm(operator.apply_adjoint(u, weight, like))
        after = unit_vector(
            operator.apply(operator.apply_adjoint(u, weight.detach(), like), weight.detach()), fallback=u
        )
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
    operator = MatrixOperator.from_layer(layer)
    u = tensor(case["inputs"]["u0"]).reshape(1, -1)
    like = torch.zeros(operator.vector_shape(()), dtype=u.dtype)
    detached = weight.detach()
    for _ in range(case["hyperparameters"]["num_iters"]):
        v = unit_vector(operator.apply_adjoint(u, detached, like), fallback=like)
        u = unit_vector(operator.apply(v, detached), fallback=u)
    sigma = norm_along(operator, weight, v)
    assert_close(sigma, tensor(case["outputs"]["sigma"]), rtol=1e-9, atol=0)
    (gradient,) = torch.autograd.grad(sigma, weight, retain_graph=True)
    assert_close(gradient, tensor(case["outputs"]["grad_sigma_wrt_kernel"]).permute(3, 2, 0, 1), rtol=0, atol=1e-9)
    assert_close(weight / sigma, tensor(case["outputs"]["w_bar"]).permute(3, 2, 0, 1), rtol=0, atol=1e-9)


def test_power_iteration_climbs_to_the_norm_and_lanczos_is_there_at_once():
    layer = nn.Conv2d(8, 16, 4, stride=2, padding=1).double()
    operator = ConvolutionOperator.from_layer(layer)
    shape = operator.vector_shape((12, 12))
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
    operator = ConvolutionOperator.from_layer(layer) if kind == "conv" else MatrixOperator.from_layer(layer)
    weight = layer.weight.detach()
    v = start_vector(operator.vector_shape((12, 12)), like=weight)
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
    v = lanczos(operator, matrix, start_vector(operator.vector_shape(()), like=matrix), 20)
    assert_close(norm_along(operator, matrix, v), torch.linalg.matrix_norm(matrix, 2))
    assert_close(torch.linalg.vector_norm(v), torch.tensor(1.0))


@pytest.mark.parametrize("shape", [(4, 256), (256, 4), (1, 64), (12, 12)])
@pytest.mark.parametrize("seed", range(5))
def test_lanczos_goes_on_past_the_rank(shape, seed):
    weight = scores(*shape, seed).float()
    operator = MatrixOperator(groups=1, columns=shape[1], transposed=False)
    v = lanczos(operator, weight, start_vector(operator.vector_shape(()), like=weight), 60)
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


def test_a_large_image_takes_several_short_lanczos_runs(monkeypatch):
    layer = nn.Conv2d(3, 6, 3, padding=1)
    exact = operator_norm(layer, (3, 8, 8))
    monkeypatch.setattr(singular_vectors, "MAX_BASIS_NUMEL", 5 * 3 * 8 * 8)
    conv_spectral_norm(layer, input_size=8)
    assert spectral_norms(layer)[""].item() == pytest.approx(exact, rel=5e-3)
