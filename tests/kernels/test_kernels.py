"""Gram matrices: definitions, laws, composition, state and errors."""

import copy
import math
import pickle

import pytest
import torch
from cases import CASES, RADIAL, Cubic, InverseMultiquadric, KernelCase, scores
from hypothesis import given
from hypothesis import strategies as st
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
    autograd,
    mmd2,
    mmd2_and_variance,
    mmd2_blocks,
    mmd_test,
    relative_mmd_test,
    witness,
)

every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
some_scores = st.builds(scores, m=st.integers(1, 6), d=st.integers(1, 4), seed=st.integers(0, 10**6))
positive = st.floats(0.05, 20.0)


@every_kernel
@given(a=some_scores, seed=st.integers(0, 10**6), n=st.integers(1, 6))
def test_gram_equals_the_scalar_definition(case: KernelCase, a, seed, n):
    b = scores(n, a.shape[1], seed, scale=2.0, shift=0.5)
    expected = torch.tensor([[case.scalar(p, q) for q in b.tolist()] for p in a.tolist()], dtype=torch.float64)
    assert_close(case.make()(a, b), expected, rtol=1e-10, atol=1e-7 if not case.smooth else 1e-11)


@every_kernel
@given(a=some_scores)
def test_gram_of_a_set_with_itself_is_symmetric_and_semi_definite(case: KernelCase, a):
    gram = case.make()(a, a)
    assert_close(gram, gram.T)
    if case.positive:
        smallest = torch.linalg.eigvalsh(gram)[0]
        assert smallest >= -1e-9 * gram.diagonal().max().clamp_min(1)
    if case.peak is not None:
        assert_close(gram.diagonal(), torch.full_like(gram.diagonal(), case.peak), rtol=0, atol=1e-12)


def test_a_sample_is_at_distance_zero_from_itself():
    # What rounding leaves on the diagonal, 1e-6, would be a distance of 1e-3.
    scores_float32 = scores(50, 64).float()
    assert not EnergyKernel()(scores_float32, scores_float32).diagonal().any()


def test_energy_gram_is_conditionally_negative():
    a = scores(7, 3)
    centring = torch.eye(7, dtype=torch.float64) - 1 / 7
    assert torch.linalg.eigvalsh(centring @ EnergyKernel()(a, a) @ centring)[0] >= -1e-9


@every_kernel
@given(a=some_scores, seed=st.integers(0, 10**6))
def test_values_stay_below_the_peak(case: KernelCase, a, seed):
    gram = case.make()(a, scores(4, a.shape[1], seed))
    if case.peak is not None:
        assert (gram <= case.peak * (1 + 1e-12)).all()
        assert case.peak == 0 or (gram > 0).all()


@pytest.mark.parametrize("case", RADIAL.values(), ids=RADIAL)
@given(a=some_scores, seed=st.integers(0, 10**6), shift=st.floats(-5, 5))
def test_radial_kernels_see_neither_translation_nor_rotation(case: KernelCase, a, seed, shift):
    d = a.shape[1]
    b = scores(3, d, seed + 1)
    rotation = torch.linalg.qr(scores(d, d, seed)).Q
    kernel = case.make()
    moved = kernel(a @ rotation + shift, b @ rotation + shift)
    assert_close(moved, kernel(a, b), rtol=1e-9, atol=1e-6 if not case.smooth else 1e-10)


@given(sigma=positive, factor=positive, alpha=positive)
def test_bandwidths_have_the_units_of_the_scores(sigma, factor, alpha):
    a, b = scores(3, 2, 1), scores(4, 2, 2)
    assert_close(RBFKernel(factor * sigma)(factor * a, factor * b), RBFKernel(sigma)(a, b), rtol=1e-9, atol=1e-12)
    assert_close(EnergyKernel()(factor * a, factor * b), factor * EnergyKernel()(a, b))
    rational = RationalQuadraticKernel(alpha)(a, b)
    assert_close(rational.pow(-1 / alpha), 1 + torch.cdist(a, b).square() / (2 * alpha), rtol=1e-8, atol=1e-10)


def test_rational_quadratic_tends_to_the_gaussian():
    a, b = scores(3, 2, 1), scores(4, 2, 2)
    assert_close(RationalQuadraticKernel(1e7)(a, b), RBFKernel(1.0)(a, b), rtol=1e-5, atol=0)


@given(sigma=positive, alpha=positive, weight=positive)
def test_mixture_of_one_is_its_part(sigma, alpha, weight):
    a, b = scores(3, 2, 1), scores(4, 2, 2)
    assert_close(RBFMix((sigma,))(a, b), RBFKernel(sigma)(a, b))
    assert_close(RationalQuadraticMix((alpha,))(a, b), RationalQuadraticKernel(alpha)(a, b))
    assert_close(RBFMix((sigma,), weights=(weight,))(a, b), (weight * RBFKernel(sigma))(a, b))


def test_mixtures_are_sums_with_weights():
    a, b = scores(3, 2, 1), scores(4, 2, 2)
    rbf, rq = RBFKernel(0.5) + RBFKernel(2.0) * 3, RationalQuadraticKernel(0.5) + RationalQuadraticKernel(2.0)
    assert_close(RBFMix((0.5, 2.0), weights=[1, 3])(a, b), rbf(a, b))
    assert_close(RationalQuadraticMix([0.5, 2.0])(a, b), rq(a, b))
    assert_close(RBFMix((1.0, 1.0))(a, a).diagonal(), torch.full((3,), 2.0, dtype=torch.float64))


def test_default_mixtures_are_the_papers():
    assert RBFMix().sigmas == pytest.approx((1, math.sqrt(2), 2, 2 * math.sqrt(2), 4))
    assert RationalQuadraticMix().alphas == (0.2, 0.5, 1, 2, 5)
    assert RBFMix().weights == RationalQuadraticMix().weights == (1.0,) * 5
    assert (RBFBKernel().sigma, RBFBKernel().lower, RBFBKernel().upper) == (1.0, 0.25, 4.0)
    assert RBFKernel().sigma == RationalQuadraticKernel().alpha == 1.0


def test_the_default_polynomial_is_the_kernel_of_kid():
    a, b = scores(3, 4, 1), scores(5, 4, 2)
    assert_close(PolynomialKernel()(a, b), (a @ b.T / 4 + 1) ** 3)
    assert_close(PolynomialKernel()(a, b), Cubic()(a, b))


def test_sums_and_multiples_nest():
    a, b = scores(3, 2, 1), scores(4, 2, 2)
    nested = 2 * (RBFKernel() + 3 * (Cubic() + InverseMultiquadric()))
    expected = 2 * RBFKernel()(a, b) + 6 * Cubic()(a, b) + 6 * InverseMultiquadric()(a, b)
    assert_close(nested(a, b), expected)


def test_scores_of_any_rank_are_flattened():
    images = scores(4, 6).reshape(4, 2, 3)
    assert_close(RBFKernel()(images, images), RBFKernel()(images.flatten(1), images.flatten(1)))
    line = scores(4, 1).squeeze(1)
    assert_close(RBFKernel()(line, line), RBFKernel()(line[:, None], line[:, None]))


@every_kernel
def test_state_follows_deepcopy_pickle_and_state_dict(case: KernelCase, tmp_path):
    kernel, a, b = case.make(), scores(3, 2, 1), scores(4, 2, 2)
    expected = kernel(a, b)
    assert_close(copy.deepcopy(kernel)(a, b), expected)
    assert_close(pickle.loads(pickle.dumps(kernel))(a, b), expected)
    torch.save(kernel.state_dict(), tmp_path / "kernel.pt")
    fresh = case.make()
    fresh.load_state_dict(torch.load(tmp_path / "kernel.pt", weights_only=True))
    assert_close(fresh(a, b), expected)


def test_state_dict_carries_hyperparameters_exactly():
    source, target = RBFMix((0.1, 0.7), weights=(1 / 3, 2)), RBFMix((1, 1))
    target.load_state_dict(source.state_dict())
    assert (target.sigmas, target.weights) == (source.sigmas, source.weights)
    bounded = RBFBKernel()
    bounded.load_state_dict(RBFBKernel(0.1, 0.2, 0.3).state_dict())
    assert (bounded.sigma, bounded.lower, bounded.upper) == (0.1, 0.2, 0.3)
    polynomial = PolynomialKernel()
    polynomial.load_state_dict(PolynomialKernel(5, offset=0.1).state_dict())
    assert repr(polynomial) == "PolynomialKernel(degree=5, offset=0.1)"
    total = 2 * RBFKernel(3) + RationalQuadraticKernel(4)
    loaded = 1 * RBFKernel() + RationalQuadraticKernel()
    loaded.load_state_dict(total.state_dict())
    assert_close(loaded(scores(2, 2), scores(3, 2)), total(scores(2, 2), scores(3, 2)))


def test_state_of_another_kernel_is_refused():
    with pytest.raises(ValueError, match=r"expected \['sigmas', 'weights'\] with \[5, 5\] numbers, got 4"):
        RBFMix().load_state_dict(RBFMix((1, 2)).state_dict())
    with pytest.raises(ValueError, match="sigma: expected a number > 0, got -1.0"):
        RBFKernel().set_extra_state(RBFKernel().get_extra_state() * torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"lower < upper, got 4.0 and 0.25"):
        RBFBKernel().set_extra_state(RBFBKernel().get_extra_state()[[0, 1, 3, 2]])
    with pytest.raises(ValueError, match=r"expected \['sigma'\] with \[1\] numbers, got 1 numbers or another kernel's"):
        RBFKernel().load_state_dict(RationalQuadraticKernel(5.0).state_dict())


def test_precision_of_the_module_does_not_round_hyperparameters():
    a, b = scores(3, 2, 1), scores(4, 2, 2)
    for kernel in (RBFMix((0.1, 0.3)), RBFKernel(0.1) + RationalQuadraticKernel(0.3)):
        expected = kernel(a, b)
        for cast in (kernel.half(), kernel.bfloat16(), kernel.to(torch.float32)):
            assert_close(cast(a, b), expected, rtol=0, atol=0)


def test_repr_names_the_hyperparameters():
    assert repr(RBFKernel(2)) == "RBFKernel(sigma=2.0)"
    assert "RBFKernel(sigma=1.0)" in repr(RBFKernel() + LinearKernel())
    assert "factor=2.0" in repr(2 * RBFKernel())


@pytest.mark.parametrize("bad", [0, -1, math.inf, math.nan])
def test_numbers_out_of_range_are_refused(bad):
    for make, name in [
        (lambda: RBFKernel(bad), "sigma"),
        (lambda: RationalQuadraticKernel(alpha=bad), "alpha"),
        (lambda: RBFMix((1, bad)), r"sigmas\[1\]"),
        (lambda: RationalQuadraticMix((bad,)), r"alphas\[0\]"),
        (lambda: RBFMix((1, 2), weights=(1, bad)), r"weights\[1\]"),
        (lambda: RBFBKernel(bad), "sigma"),
        (lambda: RBFBKernel(lower=bad), "lower"),
        (lambda: RBFBKernel(upper=bad), "upper"),
        (lambda: PolynomialKernel(offset=bad), "offset"),
        (lambda: RBFKernel() * bad, "factor"),
        (lambda: bad * RBFKernel(), "factor"),
    ]:
        with pytest.raises(ValueError, match=rf"^{name}: expected a (finite )?number.* got {bad}"):
            make()


def test_wrong_types_and_shapes_of_hyperparameters_are_refused():
    for make, message in [
        (lambda: RBFKernel("1"), "sigma: expected a real number, got '1' of type str"),
        (lambda: RBFKernel(True), "sigma: expected a real number, got True of type bool"),
        (lambda: PolynomialKernel(2.0), "degree: expected an integer, got 2.0 of type float"),
        (lambda: RBFMix(2.0), "sigmas: expected a sequence of numbers > 0, got 2.0"),
        (lambda: RBFKernel() * torch.tensor(2.0), "factor: expected a real number"),
    ]:
        with pytest.raises(TypeError, match=message):
            make()
    for make, message in [
        (lambda: PolynomialKernel(0), "degree: expected an integer >= 1, got 0"),
        (lambda: RBFMix(()), "sigmas: expected at least one number > 0, got an empty sequence"),
        (lambda: RBFMix((1, 2), weights=(1,)), "weights: expected one weight for each of the 2 kernels, got 1"),
        (lambda: RBFBKernel(lower=4.0, upper=4.0), "lower, upper: expected lower < upper, got 4.0 and 4.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="unsupported operand"):
        RBFKernel() + 1


@pytest.mark.parametrize("name", ["sigma", "lower", "upper"])
def test_hyperparameters_stay_numbers(name):
    class Trained(RBFBKernel):
        def __init__(self):
            super().__init__()
            setattr(self, name, torch.nn.Parameter(torch.tensor(1.0)))

    with pytest.raises(TypeError, match=f"{name}: expected a real number, got a tensor of shape .* of type Parameter"):
        Trained()
    kernel = RBFBKernel()
    with pytest.raises(ValueError, match=f"{name}: expected a number > 0, got 0"):
        setattr(kernel, name, 0)
    setattr(kernel, name, 0.5)
    assert getattr(kernel, name) == 0.5
    with pytest.raises(ValueError, match=r"sigmas\[1\]: expected a number > 0, got -2"):
        RBFMix().sigmas = (1, -2)


def test_a_new_hyperparameter_is_of_the_kind_of_the_one_before():
    kernel = RBFMix((1, 2))
    kernel.sigmas = [3, 4]
    assert kernel.sigmas == (3.0, 4.0)
    assert_close(kernel(torch.zeros(1, 1), torch.ones(1, 1)), RBFMix((3, 4))(torch.zeros(1, 1), torch.ones(1, 1)))
    polynomial = PolynomialKernel()
    polynomial.degree = 2
    assert (polynomial.degree, type(polynomial.degree)) == (2, int)
    for owner, name, value, error, message in [
        (kernel, "sigmas", 1.0, TypeError, "sigmas: expected a sequence of numbers > 0, got 1.0"),
        (RBFKernel(), "sigma", (1.0, 2.0), TypeError, "sigma: expected a real number, got .* of type tuple"),
        (polynomial, "degree", 2.5, TypeError, "degree: expected an integer, got 2.5"),
        (RBFBKernel(), "lower", 9.0, ValueError, "lower, upper: expected lower < upper, got 9.0 and 4.0"),
    ]:
        before = getattr(owner, name)
        with pytest.raises(error, match=message):
            setattr(owner, name, value)
        assert getattr(owner, name) == before


def test_a_kernel_without_a_definition_says_what_to_define():
    with pytest.raises(NotImplementedError, match=r"Empty must define from_sq_dist\(sq_dist\) or forward\(a, b\)"):
        type("Empty", (Kernel,), {})()(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(NotImplementedError, match="Empty must define"):
        type("Empty", (Kernel,), {})().from_sq_dist(torch.zeros(2, 1))


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


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("way", ["fused", "autograd"])
def test_a_forward_of_ones_own_is_the_whole_kernel(base, way, monkeypatch):
    class Cosine(base):
        """The base kernel of scores of length one."""

        def forward(self, a, b):
            return super().forward(normalize(a), normalize(b))

    if way == "autograd":
        monkeypatch.setattr(autograd, "reverse_mode_only", lambda *_: False)
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


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_inner_product_of_scores_far_from_zero_keeps_its_digits(offset):
    real, fake, other = (scores(64, 8, seed, shift=offset).float() for seed in (1, 2, 3))
    fake = fake + 0.2
    kernel, precise = LinearKernel() + RBFKernel(), [x.double() for x in (real, fake, other)]
    for estimate in (
        lambda x, y, z: mmd2_and_variance(x, y, kernel).value,
        lambda x, y, z: mmd_test(x, y, kernel, permutations=1).statistic,
        lambda x, y, z: relative_mmd_test(x, y, z, kernel).difference,
        lambda x, y, z: witness(z, x, y, kernel),
        lambda x, y, z: kernel(x, y),
    ):
        value = estimate(real, fake, other)
        assert value.dtype == torch.float32
        assert_close(value, estimate(*precise).float(), rtol=1e-5, atol=1e-6)


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


def test_gram_checks_its_arguments():
    with pytest.raises(ValueError, match="a, b: expected the same score dimension d, got 2 and 3"):
        RBFKernel()(torch.zeros(4, 2), torch.zeros(4, 3))
