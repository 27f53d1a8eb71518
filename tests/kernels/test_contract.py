"""Kernels that users define, as the passes over pairs see them."""

import numpy as np
import pytest
import torch
from cases import scores
from torch.nn.functional import normalize
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    Kernel,
    LinearKernel,
    MMDLoss,
    PolynomialKernel,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    ScaledMMDLoss,
    gradient_constrained_mmd2,
    hand_written_gradients,
    mmd2,
    mmd2_and_variance,
    mmd2_blocks,
    mmd_test,
    relative_mmd_test,
    witness,
)
from torch_mmd_losses.pairs import plan

BASES = [
    RBFKernel,
    RBFMix,
    RBFBKernel,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    EnergyKernel,
    LinearKernel,
    PolynomialKernel,
]


def test_a_kernel_without_a_definition_says_what_to_define():
    with pytest.raises(NotImplementedError, match=r"Empty must define from_sq_dist\(sq_dist\) or forward\(a, b\)"):
        type("Empty", (Kernel,), {})()(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(NotImplementedError, match="Empty must define"):
        type("Empty", (Kernel,), {})().from_sq_dist(torch.zeros(2, 1))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("way", ["fused", "autograd"])
def test_a_forward_of_ones_own_is_the_whole_kernel(base, way, monkeypatch):
    class Cosine(base):
        """The base kernel of scores of length one."""

        def forward(self, a, b):
            return super().forward(normalize(a), normalize(b))

    if way == "autograd":
        monkeypatch.setattr(hand_written_gradients, "reverse_mode_only", lambda *_: False)
    real, fake, kernel = scores(6, 2, 1, shift=1), scores(6, 2, 2), 2 * Cosine() + RBFKernel()
    on_sphere = [normalize(real), normalize(fake)]
    # A bounded kernel that is defined anew has no bounds.
    plain = RBFKernel() if base is RBFBKernel else base()
    for estimator in ("unbiased", "biased"):
        expected = 2 * mmd2(*on_sphere, plain, estimator=estimator) + mmd2(real, fake, RBFKernel(), estimator=estimator)
        assert_close(mmd2(real, fake, kernel, estimator=estimator), expected)
    expected = MMDLoss(plain, 0.5).discriminator(*on_sphere)
    assert_close(MMDLoss(Cosine(), 0.5).discriminator(real, fake), expected)
    assert_close(MMDLoss(Cosine(), 0.5).terms(real, fake)[:3], MMDLoss(plain, 0.5).terms(*on_sphere)[:3])
    expected = mmd2_and_variance(*on_sphere, plain)
    assert_close(mmd2_and_variance(real, fake, Cosine()), expected)
    assert_close(mmd_test(real, fake, Cosine(), permutations=1).statistic, expected.value)
    assert_close(mmd2_blocks(real, fake, Cosine(), block_size=3), mmd2_blocks(*on_sphere, plain, block_size=3))


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_a_map_may_keep_tensors_in_the_dtype_of_the_scores(shift):
    class Network(Kernel):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1).requires_grad_(False)

        def from_sq_dist(self, sq_dist):
            return (self.layer.weight.abs() * -sq_dist.flatten().unsqueeze(1) @ torch.ones(1, 1)).exp().view_as(sq_dist)

    # Far apart, distances are computed in float64.
    real, fake = scores(6, 2, 1).float().requires_grad_(), scores(5, 2, 2, shift=shift).float()
    kernel = Network()
    value = mmd2(real, fake, kernel)
    (gradient,) = torch.autograd.grad(value, real)
    same = RBFKernel((2 * kernel.layer.weight.abs().item()) ** -0.5)
    expected = mmd2(real, fake, same)
    assert_close(value, expected)
    assert_close(gradient, torch.autograd.grad(expected, real)[0])


def test_a_map_may_return_another_precision_and_have_no_derivative():
    class Precise(Kernel):
        def from_sq_dist(self, sq_dist):
            return torch.exp(-sq_dist.double() / 2)

    class Near(Kernel):
        def from_sq_dist(self, sq_dist):
            return (sq_dist < 1).to(sq_dist.dtype)

    real, fake = scores(6, 2, 1).float().requires_grad_(), scores(5, 2, 2).float()
    assert_close(mmd2(real, fake, Precise()), mmd2(real, fake, RBFKernel()))
    (gradient,) = torch.autograd.grad(mmd2(real, fake, Precise()), real)
    assert_close(gradient, torch.autograd.grad(mmd2(real, fake, RBFKernel()), real)[0])
    near, near_cross = (Near()(real, x).detach() for x in (real, fake))
    expected = near.mean() - 2 * near_cross.mean() + Near()(fake, fake).mean()
    value = mmd2(real, fake, Near(), estimator="biased")
    assert_close(value.detach(), expected)
    assert not torch.autograd.grad(value, real)[0].any()


def test_a_kernel_of_the_wrong_shape_is_named():
    class Scalar(Kernel):
        def from_sq_dist(self, sq_dist):
            return sq_dist.mean()

    class Row(Kernel):
        def forward(self, a, b):
            return a @ b[0]

    a = scores(4, 2)
    with pytest.raises(ValueError, match=r"^Scalar: expected kernel values of shape \(4, 4\), .* got \(\)"):
        Scalar()(a, a)
    with pytest.raises(ValueError, match=r"^Scalar: expected kernel values of shape \(7, 7\), .* got \(\)"):
        mmd2(a, scores(3, 2), Scalar())
    with pytest.raises(ValueError, match=r"^Row: expected kernel values of shape \(4, 4\), .* got \(4,\)"):
        mmd2(a, scores(3, 2), Row())


class InPlace(Kernel):
    """A kernel of the distance that writes into its argument."""

    def from_sq_dist(self, sq_dist):
        return sq_dist.mul_(-0.5).exp_()


class InPlaceForward(Kernel):
    """A kernel of two samples that writes into both."""

    def forward(self, a, b):
        return (a.mul_(0.5) @ b.add_(1).T).tanh()


class Forward(Kernel):
    """The same, without writing."""

    def forward(self, a, b):
        return ((0.5 * a) @ (b + 1).T).tanh()


def _passes(kernel, real, fake):
    """Return numbers from each pass over pairs, with and without gradients."""
    leaves = [real.clone().requires_grad_(), fake.clone().requires_grad_()]
    value = mmd2(*leaves, kernel)
    gradients = torch.autograd.grad(value, leaves, create_graph=True)
    yield from (value, *gradients)
    yield from torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), leaves)
    for tile_size in (None, 3):
        loss = MMDLoss(kernel, 0.5, tile_size=tile_size)
        yield from loss.both(real, fake)
        yield from loss.terms(real, fake)
    yield from mmd2_blocks(real[:6], fake[:6], kernel, block_size=3)
    yield from mmd2_and_variance(real, fake, kernel)
    yield from mmd_test(real, fake, kernel, permutations=5, generator=torch.Generator().manual_seed(0))
    yield from relative_mmd_test(real, fake, fake + 0.1, kernel)
    yield witness(real, real, fake, kernel)
    yield (0.5 * kernel)(real, fake)
    yield torch.func.grad(lambda a: mmd2(a, fake, kernel))(real)
    yield gradient_constrained_mmd2(real, fake, kernel + 4 * RBFKernel(), lambda_=10.0)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(("writing", "pure"), [(InPlace, RBFKernel), (InPlaceForward, Forward)])
def test_a_kernel_may_write_into_its_arguments(writing, pure, dense, monkeypatch):
    if not dense:
        monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
    real, fake = scores(7, 2, 1), scores(6, 2, 2, shift=0.5)
    before = real.clone(), fake.clone()
    for kernel in (writing(), 0.5 * writing() + RationalQuadraticKernel() + writing()):
        same = pure() if isinstance(kernel, writing) else 0.5 * pure() + RationalQuadraticKernel() + pure()
        found, expected = ([x.detach() for x in _passes(each, real, fake)] for each in (kernel, same))
        assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert_close((real, fake), before, rtol=0, atol=0)


def test_a_kernel_that_only_hands_on_its_scores_keeps_coincident_scores_together():
    class Handing(EnergyKernel):
        def forward(self, a, b):
            return super().forward(a, b)

    real, fake = scores(7, 5, 1), scores(6, 5, 2)
    # Of copies of the scores, rounding would make distances of 1e-8 and slopes of 1e8.
    for estimator in ("unbiased", "biased"):
        assert_close(
            mmd2(real, fake, Handing(), estimator=estimator),
            mmd2(real, fake, EnergyKernel(), estimator=estimator),
            rtol=1e-12,
            atol=0,
        )
    with torch.inference_mode():
        assert_close(mmd2(real, fake, Handing()), mmd2(real, fake, EnergyKernel()))


@pytest.mark.filterwarnings("ignore:mmd2. expected kernel values between:torch_mmd_losses.UsageWarning")
@pytest.mark.parametrize("dense", [True, False])
def test_a_constant_kernel_and_the_distance_itself_are_kernels(dense, monkeypatch):
    class Constant(Kernel):
        def from_sq_dist(self, sq_dist):
            return sq_dist.new_ones(()).expand_as(sq_dist)

    class Identity(Kernel):
        def from_sq_dist(self, sq_dist):
            return sq_dist

    if not dense:
        monkeypatch.setattr(plan, "DENSE_UP_TO", 0)
    real, fake = scores(5, 2, 1).requires_grad_(), scores(4, 2, 2)
    assert abs(mmd2(real, fake, Constant() + Constant())) < 1e-14
    value = mmd2(real, fake, Identity(), estimator="biased")
    assert_close(value, -2 * mmd2(real, fake, LinearKernel(), estimator="biased"))
    (gradient,) = torch.autograd.grad(value, real)
    (expected,) = torch.autograd.grad(-2 * mmd2(real, fake, LinearKernel(), estimator="biased"), real)
    assert_close(gradient, expected)


WRONG = {
    "None": (lambda x: None, TypeError, r"expected a tensor of kernel values, got None \(is a return"),
    "numpy": (
        lambda x: np.zeros(tuple(x.shape)),
        TypeError,
        "expected a tensor of kernel values, got an object of type ndarray",
    ),
    "float": (lambda x: 1.0, TypeError, "expected a tensor of kernel values, got an object of type float"),
    "bool": (lambda x: x > 0, TypeError, "expected kernel values of a floating-point dtype, got torch.bool"),
    "int": (lambda x: x.long(), TypeError, "expected kernel values of a floating-point dtype, got torch.int64"),
    "complex": (lambda x: x + 0j, TypeError, "expected kernel values of a floating-point dtype, got torch.complex128"),
    "shape": (
        lambda x: x[..., :0],
        ValueError,
        r"expected kernel values of shape \(.*\d\), one for each pair, got \(.*0\)",
    ),
    "scalar": (lambda x: x.sum(), ValueError, r"expected kernel values of shape \(.*\d\), one for each pair, got \(\)"),
    "device": (lambda x: x.to("meta"), ValueError, "expected kernel values on the device of the scores, cpu, got meta"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("method", ["from_sq_dist", "forward"])
def test_a_kernel_that_returns_something_else_is_named_in_all_passes(kind, method, monkeypatch):
    wrong, error, message = WRONG[kind]

    class FromSqDist(Kernel):
        def from_sq_dist(self, sq_dist):
            return wrong(sq_dist)

    class Forward(Kernel):
        def forward(self, a, b):
            return wrong(a @ b.T)

    kernel = FromSqDist() if method == "from_sq_dist" else Forward()
    real, fake = scores(6, 2, 1), scores(6, 2, 2)
    leaf, name = real.clone().requires_grad_(), type(kernel).__name__

    def tiled():
        with monkeypatch.context() as patch:
            patch.setattr(plan, "DENSE_UP_TO", 0)
            return mmd2(leaf, fake, kernel)

    for use in (
        lambda: mmd2(real, fake, kernel),
        lambda: mmd2(leaf, fake, RBFKernel() + 2 * kernel),
        tiled,
        lambda: torch.func.grad(lambda a: mmd2(a, fake, kernel))(real),
        lambda: MMDLoss(kernel).terms(real, fake),
        lambda: witness(real, real, fake, kernel),
        lambda: mmd2_blocks(real, fake, kernel, block_size=3),
        lambda: mmd2_and_variance(real, fake, kernel),
        lambda: mmd_test(real, fake, kernel, permutations=1),
        lambda: gradient_constrained_mmd2(real, fake, kernel),
        lambda: (kernel + RBFKernel())(real, fake),
    ):
        with pytest.raises(error, match=f"^{name}: {message}"):
            use()


def test_scaled_mmd_refuses_a_kernel_without_a_slope():
    class Near(Kernel):
        def from_sq_dist(self, sq_dist):
            return (sq_dist < 1).to(sq_dist.dtype)

    with pytest.raises(TypeError, match="smooth at distance zero, .* got Near with value 1 and slope"):
        ScaledMMDLoss(Near())

    class Nothing(Kernel):
        def from_sq_dist(self, sq_dist):
            return None

    with pytest.raises(TypeError, match="Nothing: expected a tensor of kernel values, got None"):
        ScaledMMDLoss(Nothing())
