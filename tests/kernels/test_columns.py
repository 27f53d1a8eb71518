"""Kernels of columns of the scores, and products of kernels."""

import pytest
import torch
from cases import scores
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    InverseMultiquadricKernel,
    Kernel,
    LaplaceKernel,
    LinearKernel,
    MaternKernel,
    MMDLoss,
    PolynomialKernel,
    RationalQuadraticKernel,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    ScaledMMDLoss,
    gradient_constrained_mmd2,
    mmd2,
    mmd2_and_variance,
    mmd2_blocks,
    mmd2_fourier,
    mmd_test,
    witness,
)
from torch_mmd_losses.distances import Sample
from torch_mmd_losses.kernels.summands import GramSummand
from torch_mmd_losses.pairs import plan

A, B = scores(7, 5, 1), scores(6, 5, 2, shift=0.3)
IMAGES, TEXTS = slice(0, 3), slice(3, 5)

both_sizes = pytest.mark.parametrize("large", [False, True], ids=["dense", "tiled"])


class Trained(Kernel):
    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def from_sq_dist(self, sq_dist):
        return torch.exp(-self.rate * sq_dist)


def derivatives(kernel, value, real, fake):
    """Return a value, its gradients, and the second derivatives along some direction."""
    leaves = [real.clone().requires_grad_(), fake.clone().requires_grad_()]
    found = value(kernel, *leaves)
    gradients = torch.autograd.grad(found, leaves, create_graph=True)
    again = torch.autograd.grad(sum((gradient**2).sum() for gradient in gradients), leaves)
    return (found.detach(), *(gradient.detach() for gradient in gradients), *again)


def biased(kernel, real, fake):
    return mmd2(real, fake, kernel, estimator="biased")


KERNELS = [
    RBFKernel(1.3),
    RBFMix(),
    LaplaceKernel(2.0),
    EnergyKernel(),
    LinearKernel(),
    PolynomialKernel(),
    RBFKernel() + 2 * LinearKernel(),
    Trained(),
]


@both_sizes
@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_a_kernel_of_columns_is_the_kernel_of_those_columns(kernel, large, monkeypatch):
    if large:
        monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
    on = kernel.on(TEXTS)
    assert_close(on(A, B), kernel(A[:, TEXTS], B[:, TEXTS]))
    assert_close((3 * on)(A, A), 3 * kernel(A[:, TEXTS], A[:, TEXTS]))
    expected = derivatives(kernel, lambda k, x, y: biased(k, x[:, TEXTS], y[:, TEXTS]), A, B)
    assert_close(derivatives(on, biased, A, B), expected, rtol=1e-9, atol=1e-12)
    both = derivatives(0.5 * on + RBFKernel(2.0), biased, A, B)
    alone = derivatives(RBFKernel(2.0), biased, A, B)
    assert_close(both[:3], [0.5 * p + q for p, q in zip(expected[:3], alone[:3], strict=True)])


def test_columns_of_columns_and_open_ends():
    inner = RBFKernel().on(slice(1, None)).on(slice(2, 5))
    assert_close(inner(A, B), RBFKernel()(A[:, 3:], B[:, 3:]))
    assert_close(biased(inner, A, B), biased(RBFKernel(), A[:, 3:], B[:, 3:]))
    assert_close(RBFKernel().on(slice(None))(A, B), RBFKernel()(A, B))
    assert_close(RBFKernel().on(slice(None, 2, 1))(A, B), RBFKernel()(A[:, :2], B[:, :2]))
    product = inner * RBFKernel(2.0).on(slice(0, 1))
    assert_close(product(A, B), inner(A, B) * RBFKernel(2.0)(A[:, :1], B[:, :1]))


def test_all_estimates_know_kernels_of_columns():
    real, fake, kernel = scores(8, 5, 1), scores(8, 5, 2, shift=0.4), RBFKernel(1.2)
    for on, x, y in (
        (kernel.on(TEXTS), real[:, TEXTS], fake[:, TEXTS]),
        (2 * RBFKernel(1.2).on(IMAGES) * RBFKernel(1.2).on(TEXTS) / 2, real, fake),
    ):
        assert_close(mmd2_and_variance(real, fake, on), mmd2_and_variance(x, y, kernel))
        assert_close(mmd2_blocks(real, fake, 3 * on, block_size=4), mmd2_blocks(x, y, 3 * kernel, block_size=4))
        assert_close(witness(real, real, fake, on), witness(x, x, y, kernel))
        assert_close(mmd_test(real, fake, on, permutations=1).statistic, mmd2(x, y, kernel))
        assert_close(gradient_constrained_mmd2(real, fake, on), gradient_constrained_mmd2(real, fake, on, mu=real))
        gram = torch.func.vmap(lambda p, q, k=on: mmd2(p, q, k))(real[None], fake[None])
        assert_close(gram[0], mmd2(x, y, kernel))
    joint = RBFKernel(1.2).on(IMAGES) * RBFKernel(1.2).on(TEXTS)
    assert_close(gradient_constrained_mmd2(real, fake, joint), gradient_constrained_mmd2(real, fake, kernel))


def test_bounds_stay_with_columns_but_not_with_products():
    for lambda_ in (-1.0, 1.0):
        loss, plain = MMDLoss(RBFBKernel(1.2).on(TEXTS), lambda_), MMDLoss(RBFBKernel(1.2), lambda_)
        expected = plain.both(A[:, TEXTS], B[:, TEXTS])
        assert_close(loss.both(A, B), expected)
        assert_close(loss.terms(A, B), plain.terms(A[:, TEXTS], B[:, TEXTS]))
    unbounded = RBFKernel(1.2).on(TEXTS) * RBFKernel(0.8)
    expected = MMDLoss(unbounded, -1.0).both(A, B)
    assert expected.discriminator != MMDLoss(RBFBKernel(1.2).on(TEXTS) + RBFKernel(0.8), -1.0).both(A, B).discriminator
    assert_close(MMDLoss(RBFBKernel(1.2).on(TEXTS) * RBFKernel(0.8), -1.0).both(A, B), expected)
    assert_close(
        MMDLoss(RBFBKernel(0.8) * RBFKernel(1.2), -1.0).both(A, B)[0],
        MMDLoss(RBFKernel(0.8) * RBFKernel(1.2), -1.0).both(A, B)[0],
    )


PRODUCTS = {
    "radial": (LaplaceKernel(1.5) * (2 * RBFKernel(1.1)), "RadialSummand"),
    "three": (MaternKernel(2.5) * InverseMultiquadricKernel() * RBFMix((1, 2)), "RadialSummand"),
    "gaussians": (RBFKernel(0.9) * RBFKernel(1.4), "RadialSummand"),
    "joint": (RBFKernel(0.9).on(IMAGES) * RBFKernel(1.4).on(TEXTS), "columns"),
    "joint_multiple": ((2 * RBFKernel(0.9).on(slice(0, 4))) * (RBFKernel(1.4) * 0.5), "columns"),
    "mixed": (LaplaceKernel(1.5).on(IMAGES) * RBFKernel(1.4).on(TEXTS), "GramSummand"),
    "with_linear": (RBFKernel(1.5) * (LinearKernel() + 2 * RBFKernel(2.0)), "GramSummand"),
    "own": (RBFKernel(1.5) * Trained(), "GramSummand"),
}


@both_sizes
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_products(name, large, monkeypatch):
    if large:
        monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
    kernel, kind = PRODUCTS[name]
    (summand,) = kernel._summands()
    found = "columns" if isinstance(summand, GramSummand) and summand.function.of_columns else type(summand).__name__
    assert found == kind
    if isinstance(summand, GramSummand):
        assert_close(summand.function.values(Sample(A), Sample(B)), kernel(A, B))

    def gram(a, b):
        expected = 1.0
        for part in kernel.parts:
            expected = expected * part(a, b)
        return expected

    def by_definition(_, x, y):
        return gram(x, x).mean() - 2 * gram(x, y).mean() + gram(y, y).mean()

    assert_close(kernel(A, B), gram(A, B))
    expected = derivatives(kernel, by_definition, A, B)
    assert_close(derivatives(kernel, biased, A, B), expected, rtol=1e-8, atol=1e-10)
    assert_close(torch.func.grad(lambda x: biased(kernel, x, B))(A), expected[1], rtol=1e-8, atol=1e-10)


def test_the_joint_law_of_images_and_texts_is_one_gaussian():
    # Section 1.1 of modern-mmd.md: [phi | beta tau] with beta = sigma_image / sigma_text.
    joint = RBFKernel(0.9).on(IMAGES) * RBFKernel(1.4).on(TEXTS)
    scaled = [torch.cat([x[:, IMAGES], x[:, TEXTS] * (0.9 / 1.4)], 1) for x in (A, B)]
    assert_close(biased(joint, A, B), biased(RBFKernel(0.9), *scaled), rtol=1e-12, atol=0)
    # Far from zero, scaling in float32 would round differences of scores.
    near, far = (x.float() for x in (A, B)), [(x.float() + 1e4) for x in (A, B)]
    exact = biased(joint, *(x.double() for x in far))
    assert biased(joint, *far).item() == pytest.approx(exact.item(), rel=1e-5)
    assert biased(joint, *near).dtype == torch.float32


def test_products_do_not_nest_and_are_saved():
    one, two, three = RBFKernel(1), RBFMix((2, 3)), RBFKernel(3).on(slice(0, 2))
    assert repr((one * two) * three) == repr(one * (two * three))
    fresh = RBFKernel() * (RBFMix((1, 1)) * RBFKernel().on(slice(0, 2)))
    fresh.load_state_dict((one * two * three).state_dict())
    assert repr(fresh) == repr(one * two * three)
    assert "columns=slice(0, 2, None)" in repr(three)
    with pytest.raises(ValueError, match="another kernel's state"):
        RBFKernel().on(slice(0, 3)).load_state_dict(three.state_dict())


def test_parameters_within_products_and_columns_are_trained():
    for kernel in (Trained() * RBFKernel(), Trained().on(TEXTS), (Trained() * RBFMix()).on(TEXTS)):
        rate = next(kernel.parameters())
        value = biased(kernel, A, B)
        value.backward()
        step = 1e-6
        with torch.no_grad():
            rate.add_(step)
            assert rate.grad.item() == pytest.approx(((biased(kernel, A, B) - value) / step).item(), rel=1e-4)
            rate.sub_(step)


def test_a_part_that_is_replaced_counts():
    kernel = RBFKernel() * RBFKernel().on(slice(0, 2))
    kernel.parts[1] = LaplaceKernel(2.0)
    assert_close(kernel(A, B), RBFKernel()(A, B) * LaplaceKernel(2.0)(A, B))
    kernel.parts[1] = nn.Identity()
    with pytest.raises(TypeError, match="parts: expected kernels, got"):
        kernel(A, B)


@pytest.mark.parametrize("kernel", [RBFKernel().on(TEXTS), RBFKernel() * LaplaceKernel(), RBFKernel() * LinearKernel()])
def test_functions_that_need_more_refuse_them_by_name(kernel):
    with pytest.raises(TypeError, match=f"got {type(kernel).__name__}, whose spectral measure is unknown"):
        mmd2_fourier(A, B, kernel, frequencies=2)
    with pytest.raises(TypeError, match=f"kernel: expected a kernel .* got {type(kernel).__name__}"):
        ScaledMMDLoss(kernel)


def test_a_cusp_within_a_kernel_is_found():
    for kernel in (LaplaceKernel().on(TEXTS), LaplaceKernel() * RBFKernel(), RBFKernel() + 2 * LaplaceKernel()):
        with pytest.raises(TypeError, match="got a kernel that contains a LaplaceKernel"):
            gradient_constrained_mmd2(A, B, kernel)
    rational = RationalQuadraticKernel() * MaternKernel(1.5)
    assert gradient_constrained_mmd2(A, B, rational).isfinite()
