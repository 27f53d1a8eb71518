"""Kernels that users define, as the passes over pairs see them."""

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
    hand_written_gradients,
    mmd2,
    mmd2_and_variance,
    mmd2_blocks,
    mmd_test,
)

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
