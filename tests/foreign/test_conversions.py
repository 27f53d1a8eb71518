"""The constants of other libraries, converted as `docs/constants.md` says, compared with what these libraries compute.

All scores are float64, so that a wrong factor cannot hide behind rounding.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import warnings
from pathlib import Path

import pytest
import torch
from cases import scores
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import (
    EnergyKernel,
    LaplaceKernel,
    PolynomialKernel,
    RationalQuadraticKernel,
    RBFKernel,
    RBFMix,
    median_distance,
    mmd2,
    mmd2_blocks,
    mmd_test,
)

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[2] / "examples" / "benchmarks")
    from bare_import import bare

# Small bandwidths show wrong factors best, also where the library warns of them.
pytestmark = [
    pytest.mark.paper,
    pytest.mark.filterwarnings("ignore:mmd2. expected kernel:torch_mmd_losses.UsageWarning"),
]

NUMBERS = json.loads((Path(__file__).parents[1] / "data" / "median-numbers.json").read_text(encoding="utf-8"))
WITHOUT_REQUIREMENTS = {"alibi_detect", "pytorch_adapt", "sbi"}
SHAPES = pytest.mark.parametrize(("m", "n", "d"), [(7, 7, 3), (9, 6, 1), (5, 12, 20)])


def imported(module):
    """Return a module of another library, or skip the test if the library is not installed."""
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (bare if package in WITHOUT_REQUIREMENTS else importlib.import_module)(module)


def pair(m, n, d):
    return scores(m, d, 1).requires_grad_(), scores(n, d, 2, scale=1.3, shift=0.4).requires_grad_()


def same(ours, theirs, *inputs):
    """Check that two values and their gradients are equal up to rounding."""
    assert_close(ours, theirs, rtol=1e-11, atol=1e-14)
    if inputs:
        for gradients in zip(*(torch.autograd.grad(value, inputs) for value in (ours, theirs)), strict=True):
            assert_close(*gradients, rtol=1e-10, atol=1e-14)


def averaged(sigmas):
    return RBFMix(sigmas, weights=[1 / len(sigmas)] * len(sigmas))


# torchmetrics


def kid(real, fake, **options):
    metric_class = imported("torchmetrics.image.kid").KernelInceptionDistance
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it keeps all features
        metric = metric_class(feature=nn.Identity(), **options)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return metric.compute()


@pytest.mark.parametrize(("degree", "coef"), [(3, 1.0), (2, 0.3)])
@pytest.mark.parametrize("gamma", [None, 0.05, 1.0])
@pytest.mark.parametrize("d", [1, 6, 64])
def test_torchmetrics_kernel_inception_distance(d, gamma, degree, coef):
    real, fake = scores(11, d, 1), scores(11, d, 2, shift=0.3)
    value, _ = kid(real, fake, subsets=1, subset_size=11, degree=degree, gamma=gamma, coef=coef)
    if gamma is None:
        kernel = PolynomialKernel(degree, coef)
    else:
        kernel = (gamma * d) ** degree * PolynomialKernel(degree, coef / (gamma * d))
    same(mmd2(real, fake, kernel), value)


def test_torchmetrics_takes_means_over_subsets_of_equal_size():
    real, fake = scores(30, 5, 1), scores(20, 5, 2, shift=0.3)
    torch.manual_seed(3)
    mean, deviation = kid(real, fake, subsets=4, subset_size=15)
    torch.manual_seed(3)
    values = []
    for _ in range(4):
        subsets = [sample[torch.randperm(len(sample))[:15]] for sample in (real, fake)]
        values.append(mmd2(*subsets, PolynomialKernel()))
    same(torch.stack(values).mean(), mean)
    same(torch.stack(values).std(correction=0), deviation)


# torch-fidelity


@pytest.mark.parametrize(
    ("options", "kernel"),
    [
        ({}, PolynomialKernel()),
        ({"kid_kernel_poly_degree": 2, "kid_kernel_poly_coef0": 0.3}, PolynomialKernel(2, offset=0.3)),
        ({"kid_kernel_poly_gamma": 0.05}, (0.05 * 6) ** 3 * PolynomialKernel(3, offset=1 / (0.05 * 6))),
        ({"kid_kernel": "rbf", "kid_kernel_rbf_sigma": 2.5}, RBFKernel(2.5)),
    ],
)
def test_torch_fidelity_kernel_inception_distance(options, kernel):
    module = imported("torch_fidelity.metric_kid")
    real, fake = scores(11, 6, 1), scores(11, 6, 2, shift=0.3)
    found = module.kid_features_to_metric(real, fake, kid_subsets=1, kid_subset_size=11, verbose=False, **options)
    value = found[module.KEY_METRIC_KID_MEAN]
    same(mmd2(real, fake, kernel), torch.tensor(value, dtype=torch.float64))


# geomloss


def laplace(blur):
    return LaplaceKernel(blur, floor=1e-4 * blur)


@SHAPES
@pytest.mark.parametrize("blur", [0.3, 2.0])
@pytest.mark.parametrize(("name", "kernel"), [("gaussian", RBFKernel), ("laplacian", laplace)])
def test_geomloss_returns_half(name, kernel, blur, m, n, d):
    real, fake = pair(m, n, d)
    half = imported("geomloss").SamplesLoss(name, blur=blur, backend="tensorized")(real, fake)
    same(mmd2(real, fake, kernel(blur), estimator="biased"), 2 * half, real, fake)


@SHAPES
def test_geomloss_raises_distances_of_the_energy_kernel_to_a_floor(m, n, d):
    real, fake = pair(m, n, d)
    half = imported("geomloss").SamplesLoss("energy", backend="tensorized")(real, fake)
    # A sample is 1e-4 away from itself.
    same(mmd2(real, fake, EnergyKernel(), estimator="biased"), 2 * half + 1e-4 * (1 / m + 1 / n), real, fake)


# pytorch-adapt


def adapt(**options):
    return imported("pytorch_adapt.layers.mmd_loss").MMDLoss(**options)


@SHAPES
@pytest.mark.parametrize("bandwidth", [0.5, 3.0])
@pytest.mark.parametrize("scales", [[1.0], [0.25, 0.5, 1.0, 4.0]])
def test_pytorch_adapt_quadratic(scales, bandwidth, m, n, d):
    real, fake = pair(m, n, d)
    kernel = averaged([(bandwidth / (2 * scale)) ** 0.5 for scale in scales])
    options = {"mmd_type": "quadratic", "bandwidth": bandwidth}
    same(mmd2(real, fake, kernel), adapt(kernel_scales=torch.tensor(scales), **options)(real, fake), real, fake)
    same(mmd2(real, fake, averaged(kernel.sigmas[:1])), adapt(kernel_scales=scales[0], **options)(real, fake))


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_pytorch_adapt_takes_the_bandwidth_from_the_first_sample_with_its_diagonal(scale):
    real, fake = pair(9, 6, 3)
    squared = torch.cdist(real, real).square().detach()
    kernel = RBFKernel(float(squared.median() / (2 * scale)) ** 0.5)
    same(mmd2(real, fake, kernel), adapt(kernel_scales=scale, mmd_type="quadratic")(real, fake), real, fake)
    # The diagonal counts there, so its median is below that of distinct pairs.
    assert float(squared.median()) < median_distance(real) ** 2


@pytest.mark.parametrize("scales", [[0.5], [0.25, 0.5, 4.0]])
@pytest.mark.parametrize(("n", "d"), [(8, 3), (9, 1), (4, 20)])
def test_pytorch_adapt_linear(n, d, scales):
    real, fake = pair(n, n, d)
    loss = adapt(kernel_scales=torch.tensor(scales), bandwidth=3.0)
    kernel = averaged([(3.0 / (2 * scale)) ** 0.5 for scale in scales])
    # It leaves out the last of an odd number of samples.
    even = n // 2 * 2
    ours = mmd2_blocks(real[:even], fake[:even], kernel, block_size=2, estimator="u_statistic").value
    same(ours, loss(real, fake), real, fake)


# sbi


@SHAPES
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_sbi(scale, m, n, d):
    metrics = imported("sbi.utils.metrics")
    real, fake = pair(m, n, d)
    same(mmd2(real, fake, RBFKernel(scale)), metrics.unbiased_mmd_squared(real, fake, scale=scale), real, fake)
    biased = mmd2(real, fake, RBFKernel(scale), estimator="biased")
    same(biased.sqrt(), metrics.biased_mmd(real, fake, scale=scale), real, fake)


@SHAPES
def test_sbi_takes_the_median_distance_of_the_joint_sample(m, n, d):
    real, fake = (sample.detach() for sample in pair(m, n, d))
    ours = mmd2(real, fake, RBFKernel(median_distance(real, fake)))
    same(ours, imported("sbi.utils.metrics").unbiased_mmd_squared(real, fake))


def test_sbi_misspecification():
    # Its module imports most of sbi, so these are numbers that it has produced.
    case = NUMBERS["sbi_misspecification"]
    real, fake = (torch.tensor(case["inputs"][key], dtype=torch.float64) for key in ("x", "y"))
    kernel = RBFKernel(case["settings"]["bandwidth"])
    outputs = {name: torch.tensor(value, dtype=torch.float64) for name, value in case["outputs"].items()}
    same(mmd2(real, fake, kernel, estimator="biased"), outputs["biased"])
    diagonals = 1 / (len(real) - 1) + 1 / (len(fake) - 1)
    same(mmd2(real, fake, kernel) + diagonals, outputs["called_unbiased"])
    # The median of the cross pairs, where that of `median_distance` counts all pairs.
    same(torch.cdist(real, fake).median(), outputs["median"])


# alibi-detect


@SHAPES
@pytest.mark.parametrize("sigmas", [[0.5], [0.5, 1.0, 3.0]])
def test_alibi_detect_averages_over_bandwidths(sigmas, m, n, d):
    gaussian = imported("alibi_detect.utils.pytorch.kernels").GaussianRBF(torch.tensor(sigmas, dtype=torch.float64))
    real, fake = pair(m, n, d)
    same(averaged(sigmas)(real, fake), gaussian(real, fake))
    value = imported("alibi_detect.utils.pytorch.distance").mmd2(real, fake, gaussian)
    same(mmd2(real, fake, averaged(sigmas)), value, real, fake)


def drift(real, fake, **options):
    """Return the p-value and the statistic of MMDDrift."""
    detector = imported("alibi_detect.cd.pytorch.mmd").MMDDriftTorch
    return detector(real.numpy(), device="cpu", **options).score(fake.numpy())[:2]


@SHAPES
def test_alibi_detect_drift(m, n, d):
    real, fake = (sample.detach() for sample in pair(m, n, d))
    sigmas = torch.tensor([0.5, 2.0], dtype=torch.float64)
    options = {"sigma": sigmas.numpy(), "configure_kernel_from_x_ref": False}
    p_value, statistic = drift(real, fake, n_permutations=999, **options)
    ours = mmd_test(real, fake, averaged(sigmas.tolist()), permutations=999)
    same(ours.statistic, torch.tensor(statistic, dtype=torch.float64))
    # Both have drawn their own permutations. Ours counts the division at hand among them.
    expected = (1 + 999 * p_value) / (1 + 999)
    assert float(ours.p_value) == pytest.approx(expected, abs=5 * (2 * 0.25 / 999) ** 0.5)


def test_alibi_detect_p_values_can_be_zero():
    real, fake = scores(20, 2, 1), scores(15, 2, 2, shift=9)
    assert drift(real, fake, n_permutations=99)[0] == 0
    assert float(mmd_test(real, fake, RBFKernel(), permutations=99).p_value) == 1 / 100


@pytest.mark.parametrize(("m", "n", "d"), [(8, 11, 3), (9, 6, 1), (6, 8, 20)])
def test_alibi_detect_takes_the_median_distance_of_the_reference_over_the_root_of_two(m, n, d):
    real, fake = (sample.detach() for sample in pair(m, n, d))
    ours = mmd2(real, fake, RBFKernel(median_distance(real) / 2**0.5))
    # It keeps the logarithm of this bandwidth in float32.
    assert float(ours) == pytest.approx(drift(real, fake, n_permutations=1)[1], rel=1e-5, abs=1e-7)


# TorchDrift


@SHAPES
@pytest.mark.parametrize("lengthscale", [0.7, 2.0])
def test_torchdrift_keeps_the_diagonals(lengthscale, m, n, d):
    module = imported("torchdrift.detectors.mmd")
    real, fake = (sample.detach() for sample in pair(m, n, d))
    kernels = {
        RBFKernel(lengthscale): module.GaussianKernel(lengthscale),
        LaplaceKernel(lengthscale): module.ExpKernel(lengthscale),
        RationalQuadraticKernel(0.6, lengthscale): module.RationalQuadraticKernel(lengthscale, alpha=0.6),
    }
    for kernel, theirs in kernels.items():
        value = module.kernel_mmd(real, fake, n_perm=None, kernel=theirs)
        same(mmd2(real, fake, kernel) + 1 / (m - 1) + 1 / (n - 1), value)


def test_torchdrift_takes_the_median_of_all_pairs_with_their_diagonal():
    module = imported("torchdrift.detectors.mmd")
    real, fake = (sample.detach() for sample in pair(6, 4, 2))
    pooled = torch.cat([real, fake])
    kernel = RBFKernel(float(torch.cdist(pooled, pooled).median()))
    same(mmd2(real, fake, kernel) + 1 / 5 + 1 / 3, module.kernel_mmd(real, fake, n_perm=None))


# PyTorch-Ignite


@pytest.mark.parametrize("var", [0.5, 4.0])
def test_ignite_returns_the_root_of_the_mean_over_batches(var):
    metric = imported("ignite.metrics").MaximumMeanDiscrepancy(var=var)
    batches = [(scores(9, 3, seed), scores(9, 3, seed + 10, shift=0.8)) for seed in (1, 2)]
    for batch in batches:
        metric.update(batch)
    mean = torch.stack([mmd2(*batch, RBFKernel(var**0.5)) for batch in batches]).mean()
    assert float(mean) > 0
    # It adds up in float32.
    assert metric.compute() == pytest.approx(float(mean.sqrt()), rel=1e-6)


def test_ignite_cuts_negative_values_off():
    metric = imported("ignite.metrics").MaximumMeanDiscrepancy()
    real = scores(9, 3, 1)
    metric.update((real, real))
    assert float(mmd2(real, real, RBFKernel())) < 0
    assert metric.compute() == 0
