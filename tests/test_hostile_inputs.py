# ruff: noqa: E501 (each row of the large table is a line)
"""Hostile input: each error names the argument, what was expected and what came.

A row of a table is a use: what the user wrote, the type of the error, and the error's text from its first character, in
which `...` stands for anything.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parametrizations
from torch.testing import assert_close

import torch_mmd_losses
from torch_mmd_losses import (
    EnergyKernel,
    InverseMultiquadricKernel,
    Kernel,
    L1LaplaceKernel,
    LaplaceKernel,
    LinearKernel,
    MaternKernel,
    MMDLoss,
    MMDReference,
    PolynomialKernel,
    RationalQuadraticKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    ScaledMMDLoss,
    UsageWarning,
    cached_backward,
    conv_spectral_norm,
    distance_quantiles,
    drift,
    drift_loss,
    gradient_constrained_mmd2,
    gradient_penalty,
    grouped_mmd2,
    interpolation_points,
    kernel_sums,
    l2_penalty,
    median_distance,
    mmd2,
    mmd2_and_variance,
    mmd2_blocks,
    mmd2_fourier,
    mmd_test,
    ratio_to_real,
    relative,
    relative_mmd_test,
    spectral_norms,
    witness,
    witness_gradient,
)

# What PyTorch says about tensors of experimental kinds, and the library about unusual networks, is not the subject.
pytestmark = pytest.mark.filterwarnings("ignore")

K = RBFKernel()
HUGE = 10**5000  # Python refuses to print it


class OwnRadial(Kernel):
    def from_sq_dist(self, sq_dist):
        return 1 / (1 + sq_dist)


def good(m=8, d=3):
    """Return scores that are all right."""
    return torch.randn(m, d, generator=torch.Generator().manual_seed(m))


LAYER = nn.Linear(3, 4)
X, Y, Z = good(), good() + 0.1, good() + 0.2


def inputs_and_scores():
    """Return samples and the scores of a critic for them."""
    inputs = good().requires_grad_()
    return inputs, inputs.square()


def with_parameter():
    """Return a kernel with a trained parameter."""

    class Trained(RBFKernel):
        pass

    kernel = Trained()
    kernel.scale = nn.Parameter(torch.ones(()))
    return kernel


def linear(**options):
    """Return a layer to wrap."""
    return nn.Linear(3, 4, **options)


def conv(**options):
    """Return a layer whose norm depends on the input size."""
    return nn.Conv2d(3, 4, 3, **options)


def with_weight(weight):
    """Return a layer with the weight."""
    layer = linear()
    layer.weight = nn.Parameter(weight)
    return layer


def without_a_channel(layer):
    """Cut a channel off as programs do that change the weight only."""
    layer.weight = nn.Parameter(layer.weight[:, :2])
    return layer


def assigned(value, layer=None):
    """Assign to the weight of a wrapped layer."""
    layer = conv_spectral_norm(linear() if layer is None else layer)
    layer.weight = value


def check(use: Callable[[], object], error: type[Exception], text: str) -> None:
    """Check that a use raises an error with the text."""
    pattern = re.escape(text).replace(r"\.\.\.", ".*")
    with pytest.raises(error, match=f"^{pattern}") as caught:
        use()
    assert caught.type is error


# Values that are not tensors of scores, for each argument that takes scores

DENSE = "expected scores in a dense tensor, got the layout"
ALIKE = "expected scores of equal shape, got a nested tensor"
REAL_NUMBERS = "expected floating-point scores, got"
SHAPED = "expected scores of shape (m, d) with m >= 1 and d >= 1, got"
A_TENSOR = "expected a tensor of scores, got"

NO_SCORES = {
    "sparse": (lambda: good().to_sparse(), ValueError, f"{DENSE} torch.sparse_coo"),
    "sparse vector": (lambda: good()[:, 0].to_sparse(), ValueError, f"{DENSE} torch.sparse_coo"),
    "csr": (lambda: good().to_sparse_csr(), ValueError, f"{DENSE} torch.sparse_csr"),
    "mkldnn": (lambda: good().to_mkldnn(), ValueError, f"{DENSE} torch._mkldnn"),
    "nested": (lambda: torch.nested.nested_tensor([good(4)[0], good(5)[0]]), ValueError, ALIKE),
    "jagged": (lambda: torch.nested.nested_tensor([good(4), good(5)], layout=torch.jagged), ValueError, ALIKE),
    "masked": (
        lambda: torch.masked.masked_tensor(good(), good() > 0),
        TypeError,
        "expected a plain tensor of scores, got a MaskedTensor; leave out the masked scores",
    ),
    "quantized": (
        lambda: torch.quantize_per_tensor(good(), 0.1, 0, torch.qint8),
        ValueError,
        f"{REAL_NUMBERS} torch.qint8",
    ),
    "complex": (lambda: good().to(torch.complex64), ValueError, f"{REAL_NUMBERS} torch.complex64"),
    "integers": (lambda: good().long(), ValueError, f"{REAL_NUMBERS} torch.int64"),
    "booleans": (lambda: good() > 0, ValueError, f"{REAL_NUMBERS} torch.bool"),
    "no samples": (lambda: good()[:0], ValueError, f"{SHAPED} (0, 3)"),
    "no scores": (lambda: good()[:, :0], ValueError, f"{SHAPED} (8, 0)"),
    "scalar": (lambda: good().sum(), ValueError, f"{SHAPED} ()"),
    "array": (lambda: good().numpy(), TypeError, f"{A_TENSOR} ndarray; call torch.from_numpy"),
    "list": (lambda: good().tolist(), TypeError, f"{A_TENSOR} list of length 8"),
    "scores and features": (
        lambda: (good(), good()),
        TypeError,
        f"{A_TENSOR} tuple of length 2; take the scores out of it: ...[0] is a tensor of shape (8, 3), ...[1] is a",
    ),
    "two heads in lists": (
        lambda: [[good()], [good()]],
        TypeError,
        f"{A_TENSOR} list of length 2; take the scores out of it",
    ),
    "output with names": (lambda: OrderedDict(logits=good()), TypeError, f"{A_TENSOR} OrderedDict of length 1; take"),
    "network": (lambda: nn.Sequential(linear()), TypeError, f"{A_TENSOR} Sequential"),
    "None": (lambda: None, TypeError, f"{A_TENSOR} NoneType"),
    "text": (lambda: "scores", TypeError, f"{A_TENSOR} str"),
}
if hasattr(torch, "float4_e2m1fn_x2"):  # not in PyTorch 2.6
    NO_SCORES["float4"] = (
        lambda: torch.zeros(8, 3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        ValueError,
        "expected scores with one number in each entry, got torch.float4_e2m1fn_x2, which packs two",
    )


def scaled(method, **given):
    """Call a method of a scaled loss."""
    inputs, found = inputs_and_scores()
    return getattr(ScaledMMDLoss(), method)(**{"real": found, "fake": good(), "inputs": inputs} | given)


def reference(**options):
    """Return a reference."""
    return MMDReference(good(), K, **options)


TAKE_SCORES = {
    "mmd2 real": lambda x: mmd2(x, good(), K),
    "mmd2 fake": lambda x: mmd2(good(), x, K),
    "mmd2_and_variance real": lambda x: mmd2_and_variance(x, good(), K),
    "mmd2_and_variance fake": lambda x: mmd2_and_variance(good(), x, K),
    "mmd2_blocks real": lambda x: mmd2_blocks(x, good(), K, block_size=2),
    "mmd2_blocks fake": lambda x: mmd2_blocks(good(), x, K, block_size=2),
    "mmd2_fourier real": lambda x: mmd2_fourier(x, good(), K, frequencies=2),
    "mmd2_fourier fake": lambda x: mmd2_fourier(good(), x, K, frequencies=2),
    "grouped_mmd2 real": lambda x: grouped_mmd2(x, good(), K),
    "grouped_mmd2 fake": lambda x: grouped_mmd2(good(), x, K),
    "witness points": lambda x: witness(x, good(), good(), K),
    "witness real": lambda x: witness(good(), x, good(), K),
    "witness_gradient points": lambda x: witness_gradient(x, real=good(), fake=good(), kernel=K),
    "witness_gradient fake": lambda x: witness_gradient(good(), real=good(), fake=x, kernel=K),
    "witness fake": lambda x: witness(good(), good(), x, K),
    "gradient_constrained_mmd2 real": lambda x: gradient_constrained_mmd2(x, good(), K),
    "gradient_constrained_mmd2 fake": lambda x: gradient_constrained_mmd2(good(), x, K),
    "mmd_test real": lambda x: mmd_test(x, good(), permutations=9),
    "mmd_test fake": lambda x: mmd_test(good(), x, K, permutations=9),
    "relative_mmd_test real": lambda x: relative_mmd_test(x, good(), good(), K),
    "relative_mmd_test fake": lambda x: relative_mmd_test(good(), x, good(), K),
    "relative_mmd_test other": lambda x: relative_mmd_test(good(), good(), x, K),
    "MMDLoss real": lambda x: MMDLoss()(real=x, fake=good()),
    "MMDLoss.discriminator fake": lambda x: MMDLoss().discriminator(real=good(), fake=x),
    "MMDLoss.generator real": lambda x: MMDLoss().generator(real=x, fake=good()),
    "MMDLoss.both fake": lambda x: MMDLoss().both(real=good(), fake=x),
    "MMDLoss.terms real": lambda x: MMDLoss().terms(real=x, fake=good()),
    "ScaledMMDLoss.discriminator fake": lambda x: scaled("discriminator", fake=x),
    "ScaledMMDLoss.generator real": lambda x: scaled("generator", real=x),
    "ScaledMMDLoss.both fake": lambda x: scaled("both", fake=x),
    "ScaledMMDLoss.terms fake": lambda x: scaled("terms", fake=x),
    "RBFKernel a": lambda x: K(x, good()),
    "RBFKernel b": lambda x: K(good(), x),
    "RBFMix a": lambda x: RBFMix()(x, good()),
    "RBFBKernel b": lambda x: RBFBKernel()(good(), x),
    "RationalQuadraticKernel a": lambda x: RationalQuadraticKernel()(x, good()),
    "RationalQuadraticMix b": lambda x: RationalQuadraticMix()(good(), x),
    "LaplaceKernel a": lambda x: LaplaceKernel()(x, good()),
    "L1LaplaceKernel b": lambda x: L1LaplaceKernel()(good(), x),
    "EnergyKernel a": lambda x: EnergyKernel()(x, good()),
    "LinearKernel b": lambda x: LinearKernel()(good(), x),
    "PolynomialKernel a": lambda x: PolynomialKernel()(x, good()),
    "gradient_penalty scores": lambda x: gradient_penalty(x, inputs=good().requires_grad_()),
    "l2_penalty outputs[1]": lambda x: l2_penalty(good(), x),
    "median_distance samples": lambda x: median_distance(x, good()),
    "MMDReference batch": lambda x: reference().update(x),
    "MMDReference fake": lambda x: reference().mmd2(x),
    "MMDReference.attraction fake": lambda x: reference().attraction(x),
    "MMDReference.witness points": lambda x: reference().witness(x, good()),
    "MMDReference.witness fake": lambda x: reference().witness(good(), x),
    "MMDReference.sums points": lambda x: reference().sums(x),
    "MMDReference.error_bound fake": lambda x: reference().error_bound(x),
    "MMDReference.drmmd2 fake": lambda x: reference().drmmd2(x, lambda_=0.1),
    "MMDReference.drmmd_witness points": lambda x: reference().drmmd_witness(x, good(), lambda_=0.1),
    "MMDReference.drmmd_witness fake": lambda x: reference().drmmd_witness(good(), x, lambda_=0.1),
    "ratio_to_real fake": lambda x: ratio_to_real(reference(), x, good()),
    "ratio_to_real held_out": lambda x: ratio_to_real(reference(), good(), x),
}


@pytest.mark.parametrize("kind", NO_SCORES)
@pytest.mark.parametrize("place", TAKE_SCORES)
def test_what_is_no_tensor_of_scores_is_refused(place, kind):
    make, error, text = NO_SCORES[kind]
    if place.startswith("grouped_mmd2"):
        text = text.replace("(m, d)", "(*G, m, d)")
    check(lambda: TAKE_SCORES[place](make()), error, f"{place.split()[1]}: {text}")


TAKE_GROUPS = {
    "kernel_sums points": lambda x: kernel_sums(x, good(), K),
    "kernel_sums samples": lambda x: kernel_sums(good(), x, K),
    "drift fake": lambda x: drift(x, good(), kernel=K),
    "drift_loss real": lambda x: drift_loss(good(), x),
}


@pytest.mark.parametrize("kind", NO_SCORES)
@pytest.mark.parametrize("place", TAKE_GROUPS)
def test_what_is_no_tensor_of_groups_of_scores_is_refused(place, kind):
    make, error, text = NO_SCORES[kind]
    check(lambda: TAKE_GROUPS[place](make()), error, f"{place.split()[1]}: {text.replace('(m, d)', '(*G, m, d)')}")


# All other mistakes, by public name

# fmt: off
REFUSED = {
    "mmd2": [
        (lambda: mmd2(K, X, Y), TypeError, "kernel: expected a Kernel such as ..., got a tensor of shape (8, 3)"),
        (lambda: mmd2(X, Y, RBFKernel), TypeError, "kernel: expected a Kernel such as ..., got the class RBFKernel"),
        (lambda: mmd2(X, Y, None), TypeError, "kernel: expected a Kernel such as ..., got None"),
        (lambda: mmd2(X, Y, "rbf"), TypeError, "kernel: expected a Kernel such as ..., got 'rbf'"),
        (lambda: mmd2(X, Y, HUGE), TypeError, "kernel: expected a Kernel such as ..., got a number of type int that is too long"),
        (lambda: mmd2(X, good(d=2), K), ValueError, "real, fake: expected the same score dimension d, got 3 and 2"),
        (lambda: mmd2(X.expand(4, -1, -1), Y[:5].expand(4, -1, -1), K), ValueError, "real, fake: expected the same score dimension d, got 24 and 15 (shapes (4, 8, 3) and (4, 5, 3)); scores (m, ...) are flattened from dim 1, and grouped_mmd2 takes groups"),
        (lambda: mmd2(X, Y[:0], K), ValueError, "fake: expected scores of shape (m, d) with m >= 1 and d >= 1, got (0, 3); leave out a class or group without samples"),
        (lambda: mmd2(X, Y[:1], K), ValueError, "real, fake: expected at least 2 samples each for estimator='unbiased', ..., got 8 and 1 (if the last batch has a single sample, use drop_last=True; leave out a class or group that has fewer)"),
        (lambda: mmd2(X, Y[:, 0], K), ValueError, "real, fake: expected the same score dimension d, got 3 and 1 (shapes (8, 3) and (8,))"),
        (lambda: mmd2(X, Y.double(), K), ValueError, "real, fake: expected the same dtype, got torch.float32 and torch.float64"),
        (lambda: mmd2(X, Y.to("meta"), K), ValueError, "real, fake: expected the same device, got cpu and meta"),
        (lambda: mmd2(good(1), X, K), ValueError, "real, fake: expected at least 2 samples each for estimator='unbiased', ..., got 1 and 8"),
        (lambda: mmd2(good(6), X, K, estimator="u_statistic"), ValueError, "real, fake: expected equally many samples for estimator='u_statistic', got 6 and 8"),
        (lambda: mmd2(X, Y, K, estimator="ustat"), ValueError, "estimator: expected one of 'unbiased', 'u_statistic', 'biased', got 'ustat'"),
        (lambda: mmd2(X, Y, K, estimator=None), ValueError, "estimator: expected one of ..., got None"),
        (lambda: mmd2(X, Y, K, estimator=np.array(["biased"] * 2)), ValueError, "estimator: expected one of ..., got array(['biased', 'biased']"),
        (lambda: mmd2(X, Y, K, tile_size=0), ValueError, "tile_size: expected an integer >= 1, got 0"),
        (lambda: mmd2(X, Y, K, tile_size=2.0), TypeError, "tile_size: expected an integer, got 2.0 of type float"),
        (lambda: mmd2(X, Y, K, tile_size=True), TypeError, "tile_size: expected an integer, got True of type bool"),
        (lambda: mmd2(X, Y, K, tile_size=torch.tensor(2)), TypeError, "tile_size: expected an integer, got a tensor of shape () of type Tensor"),
        (lambda: mmd2(X, Y, K, tile_size=2**63), ValueError, "tile_size: expected an integer < 2**63, got 9223372036854775808"),
        (lambda: mmd2(X, Y, K, real_weights=[1.0] * 8), TypeError, "real_weights: expected a tensor of weights, got list of length 8"),
        (lambda: mmd2(X, Y, K, real_weights=0.5), TypeError, "real_weights: expected a tensor of weights, got float"),
        (lambda: mmd2(X, Y, K, fake_weights=torch.ones(8).long()), ValueError, "fake_weights: expected floating-point weights, got torch.int64"),
        (lambda: mmd2(X, Y, K, fake_weights=torch.ones(8).to_sparse()), ValueError, "fake_weights: expected weights in a dense tensor, got the layout torch.sparse_coo"),
        (lambda: mmd2(X, Y, K, real_weights=torch.ones(7)), ValueError, "real_weights: expected weights of shape (8,), one for each sample, got (7,)"),
        (lambda: mmd2(X, Y, K, real_weights=torch.ones(8, 1)), ValueError, "real_weights: expected weights of shape (8,), one for each sample, got (8, 1)"),
        (lambda: mmd2(X, Y, K, real_weights=torch.ones(8, device="meta")), ValueError, "real_weights: expected weights on the device of the scores, cpu, got meta"),
        (lambda: mmd2(X, Y, K, real_weights=-torch.ones(8)), ValueError, "real_weights: expected finite weights >= 0, not all zero, got -1"),
        (lambda: mmd2(X, Y, K, fake_weights=torch.zeros(8)), ValueError, "fake_weights: expected finite weights >= 0, not all zero, got weights that sum to 0"),
        (lambda: mmd2(X, Y, K, fake_weights=torch.ones(8) * math.nan), ValueError, "fake_weights: expected finite weights >= 0, not all zero, got nan"),
        (lambda: mmd2(X, Y, K, real_weights=torch.eye(8)[0]), ValueError, "real_weights: expected at least 2 samples of weight > 0 for estimator='unbiased', ..., got 1"),
        (lambda: mmd2(X, Y, K, estimator="u_statistic", real_weights=torch.ones(8)), ValueError, "estimator: expected 'unbiased' or 'biased' with weights, got 'u_statistic'"),
    ],
    "grouped_mmd2": [
        (lambda: grouped_mmd2(X, Y, RBFKernel), TypeError, "kernel: expected a Kernel such as ..., got the class RBFKernel, not an instance"),
        (lambda: grouped_mmd2(X[:, 0], Y, K), ValueError, "real: expected scores of shape (*G, m, d) with m >= 1 and d >= 1, got (8,)"),
        (lambda: grouped_mmd2(X[:0, None], Y[:0, None], K), ValueError, "real: expected scores of shape (*G, m, d) with at least one group, got (0, 1, 3)"),
        (lambda: grouped_mmd2(X[None], Y.expand(0, 8, 3), K), ValueError, "fake: expected scores of shape (*G, m, d) with at least one group, got (0, 8, 3)"),
        (lambda: grouped_mmd2(X[:0, None, :0], Y, K), ValueError, "real: expected scores of shape (*G, m, d) with m >= 1 and d >= 1, got (0, 1, 0)"),
        (lambda: grouped_mmd2(X, Y[None], K), ValueError, "real, fake: expected the same groups, got () and (1,) (shapes (8, 3) and (1, 8, 3))"),
        (lambda: grouped_mmd2(X, good(d=2), K), ValueError, "real, fake: expected the same score dimension d, got 3 and 2 (shapes (8, 3) and (8, 2))"),
        (lambda: grouped_mmd2(X, Y.double(), K), ValueError, "real, fake: expected the same dtype, got torch.float32 and torch.float64"),
        (lambda: grouped_mmd2(X, Y.to("meta"), K), ValueError, "real, fake: expected the same device, got cpu and meta"),
        (lambda: grouped_mmd2(good(1), X, K, estimator="unbiased"), ValueError, "real, fake: expected at least 2 samples each for estimator='unbiased', ..., got 1 and 8"),
        (lambda: grouped_mmd2(good(6), X, K, estimator="u_statistic"), ValueError, "real, fake: expected equally many samples for estimator='u_statistic', got 6 and 8"),
        (lambda: grouped_mmd2(X, Y, K, estimator="v"), ValueError, "estimator: expected one of 'unbiased', 'u_statistic', 'biased', got 'v'"),
        (lambda: grouped_mmd2(X, Y, K, scale=2.0), TypeError, "scale: expected a tensor of numbers, got float"),
        (lambda: grouped_mmd2(X, Y, K, scale=torch.tensor(2)), ValueError, "scale: expected floating-point numbers, got torch.int64"),
        (lambda: grouped_mmd2(X[None], Y[None], K, scale=torch.tensor(2.0)), ValueError, "scale: expected one number for each group, of shape (1,), got ()"),
        (lambda: grouped_mmd2(X, Y, K, scale=torch.ones((), device="meta")), ValueError, "scale: expected numbers on the device of the scores, cpu, got meta"),
        (lambda: grouped_mmd2(X, Y, K, scale=torch.tensor(0.0)), ValueError, "scale: expected numbers from 1e-30 to 1e+30, got 0"),
        (lambda: grouped_mmd2(X, Y, K, scale=torch.tensor(math.nan)), ValueError, "scale: expected numbers from 1e-30 to 1e+30, got nan"),
        (lambda: grouped_mmd2(X, Y, LinearKernel(), scale=torch.tensor(1.0)), ValueError, "scale: expected None for kernels that are not functions of the distance, such as LinearKernel, got a tensor of shape ()"),
        (lambda: grouped_mmd2(X, Y, K, fake_weights=torch.ones(7)), ValueError, "fake_weights: expected weights of shape (8,), one for each sample, got (7,)"),
        (lambda: grouped_mmd2(X, Y, K, estimator="u_statistic", fake_weights=torch.ones(8)), ValueError, "estimator: expected 'unbiased' or 'biased' with weights, got 'u_statistic'"),
    ],
    "mmd2_and_variance": [
        (lambda: mmd2_and_variance(good(3), X, K), ValueError, "real, fake: expected at least 4 samples each, got 3 and 8"),
        (lambda: mmd2_and_variance(X, Y, 1.0), TypeError, "kernel: expected a Kernel such as ..., got 1.0"),
        (lambda: mmd2_and_variance(X, Y, K, tile_size=HUGE), ValueError, "tile_size: expected an integer < 2**63, got a number of type int that is too long to print"),
    ],
    "mmd2_blocks": [
        (lambda: mmd2_blocks(X, Y, RBFKernel, block_size=2), TypeError, "kernel: expected a Kernel such as ..., got the class RBFKernel, not an instance"),
        (lambda: mmd2_blocks(X, Y, K, block_size=1), ValueError, "block_size: expected an integer >= 2, got 1"),
        (lambda: mmd2_blocks(X, Y, K, block_size=2.0), TypeError, "block_size: expected an integer, got 2.0 of type float"),
        (lambda: mmd2_blocks(X, Y, K, block_size="2"), TypeError, "block_size: expected an integer, got '2' of type str"),
        (lambda: mmd2_blocks(X, Y, K, block_size=-2), ValueError, "block_size: expected an integer >= 2, got -2"),
        (lambda: mmd2_blocks(X, Y, K, block_size=8), ValueError, "block_size: expected at most half of the 8 samples, got 8"),
        (lambda: mmd2_blocks(X, Y, K, block_size=3), ValueError, "real, fake: expected a multiple of block_size=3 samples each, got 8"),
        (lambda: mmd2_blocks(X, Y, K, block_size=10**400), ValueError, "block_size: expected an integer < 2**63, got 1000..."),
        (lambda: mmd2_blocks(good(6), X, K, block_size=2), ValueError, "real, fake: expected equally many samples, got 6 and 8"),
        (lambda: mmd2_blocks(X, Y, K, block_size=2, estimator=1), ValueError, "estimator: expected one of ..., got 1"),
    ],
    "mmd2_fourier": [
        (lambda: mmd2_fourier(X, Y, K, frequencies=0), ValueError, "frequencies: expected an integer >= 1, got 0"),
        (lambda: mmd2_fourier(X, Y, K, frequencies=math.inf), TypeError, "frequencies: expected an integer, got inf of type float"),
        (lambda: mmd2_fourier(X, Y, K, frequencies=None), TypeError, "frequencies: expected an integer, got None of type NoneType"),
        (lambda: mmd2_fourier(X, Y, K, frequencies=10**400), ValueError, "frequencies: expected an integer < 2**63, got 1000..."),
        (lambda: mmd2_fourier(X, Y, K, frequencies=2, generator=0), TypeError, "generator: expected a torch.Generator or None, got 0"),
        (lambda: mmd2_fourier(X, Y, K, frequencies=2, estimator="x"), ValueError, "estimator: expected one of ..., got 'x'"),
        (lambda: mmd2_fourier(X, Y, EnergyKernel(), frequencies=2), TypeError, "kernel: expected an RBFKernel, ..., got EnergyKernel, whose spectral measure is unknown"),
    ],
    "cached_backward": [
        (lambda: cached_backward([], X.sum, torch.sum), ValueError, "chunks: expected at least one chunk, got none"),
        (lambda: cached_backward(X.split(4), K, 1.0), TypeError, "loss: expected a function, got 1.0"),
        (lambda: cached_backward(X.split(4), lambda x: None, torch.sum), TypeError, "encode: expected a tensor of features or a dictionary of tensors, got None for chunk 0"),
    ],
    "median_distance": [
        (lambda: median_distance(X, [Y]), TypeError, "other: expected a tensor of scores, got list of length 1; take the scores out"),
        (lambda: median_distance(X, Y.to_sparse()), ValueError, "other: expected scores in a dense tensor, got the layout torch.sparse_coo"),
        (lambda: median_distance(X, good(d=2)), ValueError, "samples, other: expected the same score dimension d, got 3 and 2"),
        (lambda: median_distance(X, X.to("meta")), ValueError, "samples, other: expected the same device, got cpu and meta"),
        (lambda: median_distance(X.to("meta")), ValueError, "samples: expected a tensor with values, got one of shape (8, 3) on meta"),
        (lambda: median_distance(X / 0), ValueError, "samples: expected finite scores, got NaN or infinity in 8 of 8 samples"),
        (lambda: median_distance(good(1)), ValueError, "samples: expected at least 2 samples, got 1"),
        (lambda: median_distance(X * 0), ValueError, "samples: expected a median distance from 1e-150 to 1e+150, got 0; 28 of 28 pairs of samples coincide"),
        (lambda: median_distance(X, max_samples=1), ValueError, "max_samples: expected an integer >= 2, got 1"),
        (lambda: median_distance(X, max_samples=2e3), TypeError, "max_samples: expected an integer, got 2000.0 of type float"),
        (lambda: median_distance(X, max_samples=10**400), ValueError, "max_samples: expected an integer < 2**63, got 1000..."),
        (lambda: median_distance(X, generator=0), TypeError, "generator: expected a torch.Generator or None, got 0"),
    ],
    "distance_quantiles": [
        (lambda: distance_quantiles(3), TypeError, "samples: expected a tensor of scores or an iterable of such tensors, got 3 of type int"),
        (lambda: distance_quantiles("scores"), TypeError, "samples: expected a tensor of scores or an iterable of such tensors, got 'scores' of type str"),
        (lambda: distance_quantiles(linear()), TypeError, "samples: expected a tensor of scores or an iterable of such tensors, got Linear(..."),
        (lambda: distance_quantiles([]), ValueError, "samples: expected at least one batch of scores, got none"),
        (lambda: distance_quantiles([X, None]), TypeError, "samples[1]: expected a tensor of scores, got NoneType"),
        (lambda: distance_quantiles([X, X[:, :2]]), ValueError, "samples[0], samples[1]: expected the same score dimension d, got 3 and 2"),
        (lambda: distance_quantiles([X, X.half()]), ValueError, "samples[0], samples[1]: expected the same dtype, got torch.float32 and torch.float16"),
        (lambda: distance_quantiles(X, X.double()), ValueError, "samples, other: expected the same dtype, got torch.float32 and torch.float64"),
        (lambda: distance_quantiles(X / 0), ValueError, "samples: expected finite scores, got NaN or infinity in 8 of 8 samples"),
        (lambda: distance_quantiles(X[:1]), ValueError, "samples: expected at least 2 samples, got 1"),
        (lambda: distance_quantiles(X * 0), ValueError, "samples: expected quantiles of distances from 1e-150 to 1e+150, got 0 (leave out"),
        (lambda: distance_quantiles(X.double() * 1e160), ValueError, "samples: expected quantiles of distances from 1e-150 to 1e+150, got "),
        (lambda: distance_quantiles(X, q=0.5), TypeError, "q: expected a sequence of numbers from 0 to 1, got 0.5"),
        (lambda: distance_quantiles(X, q=()), TypeError, "q: expected a sequence of numbers from 0 to 1, got ()"),
        (lambda: distance_quantiles(X, q=(0.5, 50)), ValueError, "q[1]: expected a number from 0 to 1, got 50"),
        (lambda: distance_quantiles(X, q=("half",)), TypeError, "q[0]: expected a real number, got 'half' of type str"),
        (lambda: distance_quantiles(X, max_samples=1), ValueError, "max_samples: expected an integer >= 2, got 1"),
        (lambda: distance_quantiles(X, generator=0), TypeError, "generator: expected a torch.Generator or None, got 0"),
        (lambda: distance_quantiles(X, grouped=1), TypeError, "grouped: expected True or False, got 1 of type int"),
        (lambda: distance_quantiles(X[:, 0], grouped=True), ValueError, "samples: expected scores of shape (*G, m, d) with m >= 1 and d >= 1 for grouped=True, got (8,)"),
        (lambda: distance_quantiles(X[:0, None], grouped=True), ValueError, "samples: expected scores of shape (*G, m, d) with at least one group for grouped=True, got (0, 1, 3)"),
        (lambda: distance_quantiles([X], grouped=True), TypeError, "samples: expected a tensor of scores, got list of length 1"),
        (lambda: distance_quantiles(X.view(2, 4, 3), X.view(4, 2, 3), grouped=True), ValueError, "samples, other: expected the same groups, got (2,) and (4,)"),
    ],
    "relative": [
        (lambda: relative(1.0), TypeError, "loss: expected a tensor of losses, got float"),
        (lambda: relative((X.mean(), Y.mean())), TypeError, "loss: expected a tensor of losses, got tuple of length 2; take the losses out"),
        (lambda: relative(X[:, 0]), ValueError, "loss: expected a scalar, got a tensor of shape (8,); call .mean() or .sum()"),
        (lambda: relative(torch.tensor(1)), ValueError, "loss: expected floating-point losses, got torch.int64"),
        (lambda: relative(X.mean(), eps=0), ValueError, "eps: expected a number > 0, got 0"),
        (lambda: relative(X.mean(), eps=None), TypeError, "eps: expected a real number, got None of type NoneType"),
    ],
    "ratio_to_real": [
        (lambda: ratio_to_real(X, X, Y), TypeError, "reference: expected an MMDReference, got a tensor of shape (8, 3)"),
        (lambda: ratio_to_real(MMDReference, X, Y), TypeError, "reference: expected an MMDReference, got the class MMDReference"),
        (lambda: ratio_to_real(reference().shard(0, 2), X, Y), ValueError, "reference: expected a whole reference, got the shard 0 of 2"),
        (lambda: ratio_to_real(reference(), X, good(6)), ValueError, "fake, held_out: expected equally many samples, ..., got 8 and 6"),
        (lambda: ratio_to_real(reference(), X, Y[:, :2]), ValueError, "fake, held_out: expected the same score dimension d, got 3 and 2"),
        (lambda: ratio_to_real(reference(), X[:, :2], Y[:, :2]), ValueError, "fake: expected scores of the dimension of the reference, d=3, got d=2"),
        (lambda: ratio_to_real(reference(), X, Y.double()), ValueError, "fake, held_out: expected the same dtype, got torch.float32 and torch.float64"),
        (lambda: ratio_to_real(reference(), X.to("meta"), Y.to("meta")), ValueError, "fake, held_out: expected scores with values, ..., got scores on the meta device"),
        (lambda: ratio_to_real(MMDReference(X, K), Y, X), ValueError, "held_out: expected real samples that are not the rows of the reference, got samples whose MMD^2 of"),
    ],
    "MMDReference": [
        (lambda: MMDReference(None, K), TypeError, "real: expected a tensor of scores or an iterable of such tensors, got None of type NoneType"),
        (lambda: MMDReference({"features": X}, K), TypeError, "real: expected a tensor of scores or an iterable of such tensors, got {'features': ... of type dict"),
        (lambda: MMDReference(X.long(), K), ValueError, "real: expected floating-point scores, got torch.int64"),
        (lambda: MMDReference([(X, Y)], K), TypeError, "real[0]: expected a tensor of scores, got tuple of length 2; take the scores out"),
        (lambda: MMDReference([X, X[:, :2]], K), ValueError, "real[0], real[1]: expected the same score dimension d, got 3 and 2"),
        (lambda: MMDReference([X, X.to("meta")], K), ValueError, "real[1]: expected a tensor with values, got one of shape (8, 3) on meta"),
        (lambda: MMDReference(X / 0, K), ValueError, "real: expected finite scores, got NaN or infinity in 8 of 8 samples"),
        (lambda: MMDReference(X, RBFKernel), TypeError, "kernel: expected a Kernel such as ..., got the class RBFKernel"),
        (lambda: MMDReference(X, with_parameter()), ValueError, "kernel: expected a kernel without trained parameters, ..., got Trained with some; call kernel.requires_grad_(False)"),
        (lambda: MMDReference(X, K, kind="exakt"), ValueError, "kind: expected one of 'exact', 'nystrom', 'fourier', got 'exakt'"),
        (lambda: MMDReference(X, K, landmarks=Y), ValueError, "kind: expected 'nystrom' for given landmarks, got 'exact'"),
        (lambda: MMDReference(X, K, landmarks=500), ValueError, "kind: expected 'nystrom' for given landmarks, got 'exact'"),
        (lambda: MMDReference(X, K, kind="fourier", landmarks=4096), ValueError, "kind: expected 'nystrom' for given landmarks, got 'fourier'"),
        (lambda: MMDReference(X, K, frequencies=4096), ValueError, "kind: expected 'fourier' for given frequencies, got 'exact'"),
        (lambda: MMDReference(X, K, kind="nystrom", frequencies=9), ValueError, "kind: expected 'fourier' for given frequencies, got 'nystrom'"),
        (lambda: MMDReference(X, K, kind="fourier", self_rows=9), ValueError, "kind: expected 'exact' or 'nystrom' for given self_rows, got 'fourier'"),
        (lambda: MMDReference(X, K, generator=0), TypeError, "generator: expected a torch.Generator or None, got 0"),
        (lambda: MMDReference(X, K, self_rows=1), ValueError, "self_rows: expected an integer >= 2, got 1"),
        (lambda: MMDReference(X, K, weights=[1.0] * 8), TypeError, "weights: expected a tensor of weights, got list of length 8"),
        (lambda: MMDReference(X, K, weights=X), ValueError, "weights: expected weights of shape (8,), one for each sample, got (8, 3)"),
        (lambda: MMDReference(X, K, weights=torch.ones(8, dtype=int)), ValueError, "weights: expected floating-point weights, got torch.int64"),
        (lambda: MMDReference(X, K, weights=torch.ones(8) / 0), ValueError, "weights: expected finite weights, got NaN or infinity"),
        (lambda: MMDReference(X, K, weights=torch.ones(8, device="meta")), ValueError, "weights: expected weights on the device of the scores, cpu, got meta"),
        (lambda: MMDReference(X, K, weights=torch.tensor([1.0, -1.0] * 4)), ValueError, "weights: expected weights whose sum is not zero, got 0 as the sum of weights whose absolute values add up to 8"),
        (lambda: MMDReference([X], K, weights=torch.ones(8)), TypeError, "weights: expected an iterable with one tensor for each batch of real, got a tensor of shape (8,)"),
        (lambda: MMDReference([X, X], K, weights=[torch.ones(8)]), ValueError, "weights: expected one tensor for each batch of real, got 1 for more batches"),
        (lambda: MMDReference([X], K, weights=[torch.ones(8)] * 2), ValueError, "weights: expected one tensor for each batch of real, got more tensors than batches"),
        (lambda: MMDReference(X, K, kind="nystrom", landmarks=0), ValueError, "landmarks: expected an integer >= 1, got 0"),
        (lambda: MMDReference(X, K, kind="nystrom", landmarks=2.5), TypeError, "landmarks: expected an integer, got 2.5 of type float"),
        (lambda: MMDReference(X, K, kind="nystrom", landmarks=X[:, :2]), ValueError, "landmarks, real: expected the same score dimension d, got 2 and 3"),
        (lambda: MMDReference(iter([X]), K, kind="nystrom"), ValueError, "landmarks: expected a tensor of landmarks, ..., got 4096; a list or a DataLoader can be read twice"),
        (lambda: MMDReference(X, EnergyKernel(), kind="nystrom"), ValueError, "kernel: expected a positive definite kernel for kind='nystrom', got one whose"),
        (lambda: MMDReference(X, K, kind="fourier", frequencies=0), ValueError, "frequencies: expected an integer >= 1, got 0"),
        (lambda: MMDReference(X, LinearKernel(), kind="fourier"), TypeError, "kernel: expected kernels with a known spectral measure for kind='fourier', ..., got LinearKernel"),
        (lambda: reference().mmd2(X[:, :2]), ValueError, "fake: expected scores of the dimension of the reference, d=3, got d=2"),
        (lambda: reference().mmd2(X, estimator="u_statistic"), ValueError, "estimator: expected one of 'biased', 'unbiased', got 'u_statistic'"),
        (lambda: reference().mmd2(X[:1], estimator="unbiased"), ValueError, "fake: expected at least 2 samples for estimator='unbiased', got 1"),
        (lambda: MMDReference(X[:1], K).mmd2(X, estimator="unbiased"), ValueError, "estimator: expected 'biased' for a reference whose squared weights ..., got 'unbiased'"),
        (lambda: reference().witness(X, Y.double()), ValueError, "points, fake: expected the same dtype, got torch.float32 and torch.float64"),
        (lambda: reference().sums(X[:, :2]), ValueError, "points: expected scores of the dimension of the reference, d=3, got d=2"),
        (lambda: reference(kind="fourier").error_bound(X), TypeError, "kind: expected 'exact' or 'nystrom' for error_bound, got 'fourier'"),
        (lambda: reference(kind="fourier").drmmd2(X, lambda_=0.1), TypeError, "kind: expected 'exact' or 'nystrom' for drmmd2, got 'fourier'"),
        (lambda: reference().drmmd2(X, lambda_=0), ValueError, "lambda_: expected a number > 0, got 0"),
        (lambda: reference().drmmd2(X, lambda_=1e-40), ValueError, "lambda_: expected a number between 1e-30 and 1e+30, got 1e-40"),
        (lambda: reference().drmmd2(X, lambda_=torch.tensor(0.1)), TypeError, "lambda_: expected a real number, got a tensor of shape ()"),
        (lambda: reference().drmmd2(X[:, :2], lambda_=0.1), ValueError, "fake: expected scores of the dimension of the reference, d=3, got d=2"),
        (lambda: reference().drmmd_witness(X, Y.double(), lambda_=0.1), ValueError, "points, fake: expected the same dtype, got torch.float32 and torch.float64"),
        (lambda: reference().drmmd_witness(X[:, :2], Y[:, :2], lambda_=0.1), ValueError, "points: expected scores of the dimension of the reference, d=3, got d=2"),
        (lambda: reference().drmmd_witness(X, Y, lambda_="1"), TypeError, "lambda_: expected a real number, got '1' of type str"),
        (lambda: reference().shard(0, 2).drmmd2(X, lambda_=0.1), ValueError, "world: expected a whole reference for drmmd2, got the shard 0 of 2"),
        (lambda: MMDReference(X, EnergyKernel()).drmmd2(X, lambda_=0.1), ValueError, "kernel, lambda_: expected a positive definite kernel and a number ..., got EnergyKernel() and 0.1"),
        (lambda: MMDReference(X, K, weights=torch.tensor([-0.5] + [1.0] * 7)).drmmd2(X, lambda_=0.1), ValueError, "weights: expected weights >= 0 for drmmd2, ..., got weights of both signs"),
        (lambda: reference().update(X[:, :2]), ValueError, "real, batch: expected the same score dimension d, got 3 and 2"),
        (lambda: reference().update(X.double()), ValueError, "real, batch: expected the same dtype, got torch.float32 and torch.float64"),
        (lambda: reference().update(X, weights=-torch.ones(8)), ValueError, "weights: expected weights whose sum is not zero, got 0 as the sum"),
        (lambda: reference().shard(0, 2).update(X), ValueError, "batch: expected a whole reference to add rows to, got the shard 0 of 2"),
        (lambda: reference().shard(0, 2).shard(0, 2), ValueError, "rank, world: expected a whole reference to divide, got the shard 0 of 2"),
        (lambda: reference().shard(2, 2), ValueError, "rank: expected an integer from 0 to 1, got 2"),
        (lambda: reference().shard(0.0, 2), TypeError, "rank: expected an integer, got 0.0 of type float"),
        (lambda: reference().shard(0, 0), ValueError, "world: expected an integer >= 1, got 0"),
        (lambda: reference().shard(0, 2).mmd2(X), RuntimeError, "world: expected 2 processes, as many as shards, got 1"),
    ],
    "witness": [
        (lambda: witness(X, Y, Z, [K]), TypeError, "kernel: expected a Kernel such as ..., got [RBFKernel(sigma=1.0)]"),
        (lambda: witness(good(d=2), X, Y, K), ValueError, "points, real: expected the same score dimension d, got 2 and 3"),
        (lambda: witness(X, Y, Z.half(), K), ValueError, "real, fake: expected the same dtype, got torch.float32 and torch.float16"),
    ],
    "witness_gradient": [
        (lambda: witness_gradient(X, real=Y, fake=Z, kernel=RBFKernel), TypeError, "kernel: expected a Kernel such as ..., got the class RBFKernel"),
        (lambda: witness_gradient(good(d=2), real=X, fake=Y, kernel=K), ValueError, "points, real: expected the same score dimension d, got 2 and 3"),
        (lambda: witness_gradient(X, real=Y, fake=Z.double(), kernel=K), ValueError, "real, fake: expected the same dtype, got torch.float32 and torch.float64"),
    ],
    "drift": [
        (lambda: drift(X, Y, kernel="laplace"), TypeError, "kernel: expected a Kernel such as ..., got 'laplace'"),
        (lambda: drift(X, Y, kernel=K, normalise="both"), ValueError, "normalise: expected one of 'none', 'rows', 'rows_and_columns', 'sharp', got 'both'"),
        (lambda: drift(X, Y, kernel=K, normalise=None), ValueError, "normalise: expected one of ..., got None"),
        (lambda: drift(X, good(d=2), kernel=K), ValueError, "fake, real: expected the same score dimension d, got 3 and 2"),
        (lambda: drift(X, Y[None], kernel=K), ValueError, "fake, real: expected the same groups, got () and (1,)"),
        (lambda: drift(X, Y.half(), kernel=K), ValueError, "fake, real: expected the same dtype, got torch.float32 and torch.float16"),
        (lambda: drift(X, Y, kernel=K, negatives=Z.double()), ValueError, "fake, negatives: expected the same dtype, got torch.float32 and torch.float64"),
        (lambda: drift(X[:1], Y, kernel=K), ValueError, "fake: expected at least 2 samples, the negatives of one another, got 1"),
        (lambda: drift(X, Y, kernel=K, negatives=Z[:7], exclude_self=True), ValueError, "fake, negatives: expected at least 8 negatives for exclude_self=True, ..., got 7"),
        (lambda: drift(X[:1], Y, kernel=K, negatives=X[:1], exclude_self=True), ValueError, "fake, negatives: expected at least 2 negatives for exclude_self=True, ..., got 1"),
        (lambda: drift(X, Y, kernel=K, exclude_self="yes"), TypeError, "exclude_self: expected True or False, got 'yes' of type str"),
        (lambda: drift(X, Y, kernel=K, real_weights=torch.ones(7)), ValueError, "real_weights: expected weights of shape (8,), one for each sample, got (7,)"),
        (lambda: drift(X, Y, kernel=K, negative_weights=-torch.ones(8)), ValueError, "negative_weights: expected weights >= 0, got -1"),
        (lambda: drift(X, Y, kernel=LinearKernel(), normalise="none"), TypeError, "kernel: expected a kernel of the distance such as ..., got LinearKernel, which is not one"),
        (lambda: drift(X, Y, kernel=K + PolynomialKernel()), TypeError, "kernel: expected a kernel of the distance such as ..., got PolynomialKernel, which is not one"),
        (lambda: drift(X, Y, kernel=EnergyKernel(), normalise="rows"), TypeError, "kernel: expected a kernel with values > 0 for normalise='rows', got EnergyKernel"),
        (lambda: torch.autograd.functional.jacobian(lambda x: drift(x, Y, kernel=K), X, vectorize=True), RuntimeError, "vectorize, is_grads_batched: expected one gradient at a time in the backward pass of a function of torch_mmd_losses, got a batch of them; use torch.func.jacrev ..."),
        (lambda: drift(X, Y, kernel=LaplaceKernel(1.0, floor=0.1), normalise="sharp"), TypeError, "kernel: expected an RBFKernel, ... for normalise='sharp', got LaplaceKernel(scale=1.0, floor=0.1), whose sharp kernel is unknown"),
        (lambda: drift(X, Y, kernel=OwnRadial(), normalise="sharp"), TypeError, "kernel: expected an RBFKernel, ... for normalise='sharp', got OwnRadial, whose sharp kernel is unknown"),
        (lambda: drift(X, Y, kernel=K * LaplaceKernel(), normalise="sharp"), TypeError, "kernel: expected an RBFKernel, ... for normalise='sharp', got a product of kernels, whose sharp kernel is unknown"),
        (lambda: drift(X, Y, kernel=RationalQuadraticKernel(1.0), normalise="sharp"), ValueError, "kernel: expected a rational quadratic with alpha > 1, ..., got RationalQuadraticKernel(alpha=1.0"),
    ],
    "drift_loss": [
        (lambda: drift_loss(X, Y, temperatures=[]), ValueError, "temperatures: expected at least one number > 0, got an empty sequence"),
        (lambda: drift_loss(X, Y, temperatures=0.2), TypeError, "temperatures: expected a sequence of numbers > 0, got 0.2"),
        (lambda: drift_loss(X, Y, temperatures=[0.2, -1]), ValueError, "temperatures[1]: expected a number > 0, got -1"),
        (lambda: drift_loss(X, Y, distance_floor=-1e-4), ValueError, "distance_floor: expected a number >= 0, got -0.0001"),
        (lambda: drift_loss(X, Y, affinity_floor="0"), TypeError, "affinity_floor: expected a real number, got '0' of type str"),
        (lambda: drift_loss(X, Y, per_group=1), TypeError, "per_group: expected True or False, got 1 of type int"),
        (lambda: drift_loss(X[:1], Y), ValueError, "fake: expected at least 2 samples, the negatives of one another, got 1"),
        (lambda: drift_loss(X, Y, real_weights=-torch.ones(8)), ValueError, "real_weights: expected weights >= 0, got -1"),
    ],
    "kernel_sums": [
        (lambda: kernel_sums(X, Y, "rbf"), TypeError, "kernel: expected a Kernel such as ..., got 'rbf'"),
        (lambda: kernel_sums(X[:, 0], Y, K), ValueError, "points: expected scores of shape (*G, m, d) with m >= 1 and d >= 1, got (8,)"),
        (lambda: kernel_sums(X[:0, None], Y[:0, None], K), ValueError, "points: expected scores of shape (*G, m, d) with at least one group, got (0, 1, 3)"),
        (lambda: kernel_sums(X, good(d=2), K), ValueError, "points, samples: expected the same score dimension d, got 3 and 2"),
        (lambda: kernel_sums(X, Y[None], K), ValueError, "points, samples: expected the same groups, got () and (1,) (shapes (8, 3) and (1, 8, 3))"),
        (lambda: kernel_sums(X, Y.double(), K), ValueError, "points, samples: expected the same dtype, got torch.float32 and torch.float64"),
        (lambda: kernel_sums(X, Y.half(), K), ValueError, "points, samples: expected the same dtype, got torch.float32 and torch.float16"),
        (lambda: kernel_sums(X, Y.to("meta"), K), ValueError, "points, samples: expected the same device, got cpu and meta"),
        (lambda: kernel_sums(X, Y, K, weights=[1.0] * 8), TypeError, "weights: expected a tensor of weights, got list of length 8"),
        (lambda: kernel_sums(X, Y, K, weights=torch.ones(7)), ValueError, "weights: expected weights of shape (8,), one for each sample, got (7,)"),
        (lambda: kernel_sums(X, Y, K, weights=torch.ones(8).long()), ValueError, "weights: expected floating-point weights, got torch.int64"),
        (lambda: kernel_sums(X, Y, K, weights=torch.ones(8, device="meta")), ValueError, "weights: expected weights on the device of the scores, cpu, got meta"),
        (lambda: kernel_sums(X, Y, K, exclude_self=1), TypeError, "exclude_self: expected True or False, got 1 of type int"),
        (lambda: kernel_sums(X, good(7), K, exclude_self=True), ValueError, "points, samples: expected as many points as samples for exclude_self=True, got 8 and 7"),
    ],
    "gradient_constrained_mmd2": [
        (lambda: gradient_constrained_mmd2(X, Y, K, lambda_=0), ValueError, "lambda_: expected a number > 0, got 0"),
        (lambda: gradient_constrained_mmd2(X, Y, K, lambda_=math.nan), ValueError, "lambda_: expected a finite number, got nan"),
        (lambda: gradient_constrained_mmd2(X, Y, K, lambda_="1"), TypeError, "lambda_: expected a real number, got '1' of type str"),
        (lambda: gradient_constrained_mmd2(X, Y, K, lambda_=10**400), ValueError, "lambda_: expected a finite number, got 1000..."),
        (lambda: gradient_constrained_mmd2(X, Y, K, rank=0), ValueError, "rank: expected an integer >= 1, got 0"),
        (lambda: gradient_constrained_mmd2(X, Y, K, rank=1.5), TypeError, "rank: expected an integer, got 1.5 of type float"),
        (lambda: gradient_constrained_mmd2(X, Y, K, rank=10**6), ValueError, "rank: expected at most 32, ..., got 1000000"),
        (lambda: gradient_constrained_mmd2(X, Y, K, features=3), TypeError, "features: expected a function of a batch of samples, ..., got 3"),
        (lambda: gradient_constrained_mmd2(X, Y, K, features=lambda x: (x, x)), TypeError, "features: expected a tensor of scores, got tuple of length 2"),
        (lambda: gradient_constrained_mmd2(X, Y, K, features=lambda x: x[:2]), ValueError, "features: expected one row of scores for each of the 8 samples in real, got shape (2, 3)"),
        (lambda: gradient_constrained_mmd2(X, Y, K, features=torch.detach), ValueError, "features: expected scores that are differentiable ..., got scores without a graph"),
        (lambda: gradient_constrained_mmd2(X, Y, K, mu=good(d=2)), ValueError, "real, mu: expected the same score dimension d, got 3 and 2"),
        (lambda: gradient_constrained_mmd2(X, Y, K, mu=3), TypeError, "mu: expected a tensor of scores, got int"),
        (lambda: gradient_constrained_mmd2(X, Y, K, estimator=None), ValueError, "estimator: expected one of ..., got None"),
        (lambda: gradient_constrained_mmd2(X, Y, EnergyKernel()), TypeError, "kernel: expected a kernel that is twice differentiable ..., got a kernel that contains an EnergyKernel"),
    ],
    "mmd_test": [
        (lambda: mmd_test(X, Y, RBFKernel), TypeError, "kernel: expected a Kernel such as ..., got the class RBFKernel"),
        (lambda: mmd_test(X, Y, permutations=0), ValueError, "permutations: expected an integer >= 1, got 0"),
        (lambda: mmd_test(X, Y, permutations=99.0), TypeError, "permutations: expected an integer, got 99.0 of type float"),
        (lambda: mmd_test(X, Y, permutations=np.array([9, 9])), TypeError, "permutations: expected an integer, got array([9, 9]) of type ndarray"),
        (lambda: mmd_test(X, Y, permutations=10**400), ValueError, "permutations: expected an integer < 2**63, got 1000..."),
        (lambda: mmd_test(X, Y, generator=np.random.default_rng(0)), TypeError, "generator: expected a torch.Generator or None, got Generator(PCG64)"),
        (lambda: mmd_test(X, Y, tile_size=-1), ValueError, "tile_size: expected an integer >= 1, got -1"),
        (lambda: mmd_test(good(1), X), ValueError, "real, fake: expected at least 2 samples each, got 1 and 8"),
        (lambda: mmd_test(X.to("meta"), X.to("meta")), ValueError, "real, fake: expected scores with values, from which the bandwidths are computed ..., got scores on the meta device"),
        (lambda: mmd_test(X, Y, [K, RBFKernel]), TypeError, "kernel[1]: expected a Kernel such as ..., got the class RBFKernel"),
        (lambda: mmd_test(X, Y, []), ValueError, "kernel: expected at least one Kernel, got an empty sequence"),
        (lambda: mmd_test(X, Y, {K}), TypeError, "kernel: expected a Kernel such as ..., got {RBFKernel(sigma=1.0)}"),
        (lambda: mmd_test(X, Y, statistic="agg"), ValueError, "statistic: expected one of 'max', 'fuse', got 'agg'"),
        (lambda: mmd_test(X, Y, statistic=None), ValueError, "statistic: expected one of 'max', 'fuse', got None"),
        (lambda: mmd_test(X, Y, features="rff"), ValueError, "features: expected one of 'nystrom', 'fourier', got 'rff'"),
        (lambda: mmd_test(X, Y, features=100), TypeError, "features: expected 'nystrom', 'fourier' or a function of scores, got 100"),
        (lambda: mmd_test(X, Y, features=K), TypeError, "features: expected 'nystrom', 'fourier' or a function of scores, got RBFKernel(sigma=1.0)"),
        (lambda: mmd_test(X, Y, K, features=torch.sin), ValueError, "kernel: expected None with a function as features, ..., got RBFKernel(sigma=1.0)"),
        (lambda: mmd_test(X, Y, [K, K], features=torch.sin), ValueError, "kernel: expected None with a function as features, ..., got [RBFKernel(sigma=1.0), RBFKernel(sigma=1.0)]"),
        (lambda: mmd_test(X, Y, feature_count=10), ValueError, "feature_count: expected None unless features is 'nystrom' or 'fourier', got 10"),
        (lambda: mmd_test(X, Y, features="nystrom", tile_size=64), ValueError, "tile_size: expected None with features, which need no tiles, got 64"),
        (lambda: mmd_test(X, Y, features=torch.sin, tile_size=64), ValueError, "tile_size: expected None with features, which need no tiles, got 64"),
        (lambda: mmd_test(X, Y, features=torch.sin, feature_count=10), ValueError, "feature_count: expected None unless features is 'nystrom' or 'fourier', got 10"),
        (lambda: mmd_test(X, Y, features="nystrom", feature_count=1), ValueError, "feature_count: expected an integer >= 2, got 1"),
        (lambda: mmd_test(X, Y, features="nystrom", feature_count=2.0), TypeError, "feature_count: expected an integer, got 2.0 of type float"),
        (lambda: mmd_test(X, Y, features="nystrom", feature_count=17), ValueError, "feature_count: expected at most 16, the number of samples, got 17"),
        (lambda: mmd_test(X, Y, features="fourier", feature_count=7), ValueError, "feature_count: expected an even number, ..., got 7"),
        (lambda: mmd_test(X, Y, K + LinearKernel(), features="fourier"), TypeError, "kernel: expected kernels with a known spectral measure ..., got LinearKernel"),
        (lambda: mmd_test(X, Y, EnergyKernel(), features="nystrom"), ValueError, "kernel: expected a positive definite kernel for features='nystrom', got one whose values at the landmarks have the eigenvalue -..."),
        (lambda: mmd_test(X * torch.nan, Y), ValueError, "real: expected finite scores, got NaN or infinity in 8 of 8 samples"),
        (lambda: mmd_test(X, Y / 0, K), ValueError, "fake: expected finite scores, got NaN or infinity in 8 of 8 samples"),
        (lambda: mmd_test(X, Y, features=lambda x: x / 0), ValueError, "features: expected finite features, got NaN or infinity in 16 of 16 samples"),
        (lambda: mmd_test(X, Y, features=lambda x: x[:1]), ValueError, "features: expected features of shape (16, M) for scores (16, 3), got (1, 3)"),
        (lambda: mmd_test(X, Y, features=lambda x: x.sum(1)), ValueError, "features: expected features of shape (16, M) for scores (16, 3), got (16,)"),
        (lambda: mmd_test(X, Y, features=lambda x: x.numpy()), TypeError, "features: expected a tensor of features, got ndarray"),
        (lambda: mmd_test(X, Y, features=lambda x: x > 0), ValueError, "features: expected floating-point features, got torch.bool"),
        (lambda: mmd_test(X, Y, features=lambda x: x.to("meta")), ValueError, "features: expected features on the device of the scores, cpu, got meta"),
        (lambda: mmd_test(X.to("meta"), X.to("meta"), K, features="nystrom"), ValueError, "real, fake: expected scores with values, from which features are computed, got scores on the meta device"),
    ],
    "relative_mmd_test": [
        (lambda: relative_mmd_test(X, Y, Z, X), TypeError, "kernel: expected a Kernel such as ..., got a tensor of shape (8, 3)"),
        (lambda: relative_mmd_test(X, Y, Z * torch.inf, K), ValueError, "other: expected finite scores, got NaN or infinity in 8 of 8 samples"),
        (lambda: relative_mmd_test(X, Y, good(2), K), ValueError, "real, fake, other: expected at least 4 samples each, got 8 and 8 and 2"),
        (lambda: relative_mmd_test(X, Y, good(d=1), K), ValueError, "real, other: expected the same score dimension d, got 3 and 1"),
        (lambda: relative_mmd_test(X, Y, Z, K, tile_size="big"), TypeError, "tile_size: expected an integer, got 'big' of type str"),
    ],
    "MMDLoss": [
        (lambda: MMDLoss(X), TypeError, "kernel: expected a Kernel such as ..., got a tensor of shape (8, 3)"),
        (lambda: MMDLoss(RBFKernel), TypeError, "kernel: expected a Kernel such as ..., got the class RBFKernel, not an instance"),
        (lambda: MMDLoss("rbf"), TypeError, "kernel: expected a Kernel such as ..., got 'rbf'"),
        (lambda: MMDLoss(lambda_=None), TypeError, "lambda_: expected a real number, got None of type NoneType"),
        (lambda: MMDLoss(lambda_=True), TypeError, "lambda_: expected a real number, got True of type bool"),
        (lambda: MMDLoss(lambda_=torch.tensor(1.0)), TypeError, "lambda_: expected a real number, got a tensor of shape () of type Tensor"),
        (lambda: MMDLoss(lambda_=1j), TypeError, "lambda_: expected a real number, got 1j of type complex"),
        (lambda: MMDLoss(lambda_=math.inf), ValueError, "lambda_: expected a finite number, got inf"),
        (lambda: MMDLoss(lambda_=-(10**400)), ValueError, "lambda_: expected a finite number, got -1000..."),
        (lambda: MMDLoss(estimator="u"), ValueError, "estimator: expected one of ..., got 'u'"),
        (lambda: MMDLoss(global_batch=1), TypeError, "global_batch: expected True or False, got 1 of type int"),
        (lambda: MMDLoss(global_batch="yes"), TypeError, "global_batch: expected True or False, got 'yes' of type str"),
        (lambda: MMDLoss(tile_size=0), ValueError, "tile_size: expected an integer >= 1, got 0"),
        (lambda: MMDLoss()(real=X, fake=X.to("meta")), ValueError, "real, fake: expected the same device, got cpu and meta"),
        (lambda: MMDLoss()(real=X, fake=X.bfloat16()), ValueError, "real, fake: expected the same dtype, got torch.float32 and torch.bfloat16"),
        (lambda: MMDLoss()(real=X, fake=good(d=2)), ValueError, "real, fake: expected the same score dimension d, got 3 and 2"),
        (lambda: MMDLoss()(X, Y), TypeError, "real, fake: expected scores by keyword, loss(real=..., fake=...), ..., got 2 positional arguments: a tensor of shape (8, 3), a tensor of shape (8, 3)"),
        (lambda: MMDLoss()(X[:, 0], 1.0), TypeError, "real, fake: expected scores by keyword, ..., got 2 positional arguments: ..., 1.0. Write loss.discriminator(..."),
        (lambda: MMDLoss()(fake=X), TypeError, "real: expected a tensor of scores, got NoneType; MMDLoss(remember_real=True) takes ..."),
        (lambda: MMDLoss().generator(good().requires_grad_(), Y), ValueError, "real, fake: expected fake scores that require gradients, got real scores that require gradients and fake scores that do not. Are they swapped?"),
        (lambda: MMDLoss(remember_real=True).generator(fake=X), RuntimeError, "real: expected real scores, or an earlier call of discriminator or both with gradients enabled, got neither ..."),
        (lambda: MMDLoss(remember_real=True).generator(X), TypeError, "fake: expected a tensor of scores, got NoneType; fake scores by keyword are fake=..."),
        (lambda: MMDLoss(remember_real=1), TypeError, "remember_real: expected True or False, got 1 of type int"),
        (lambda: setattr(MMDLoss(), "lambda_", math.nan), ValueError, "lambda_: expected a finite number, got nan"),
        (lambda: setattr(MMDLoss(), "tile_size", 0), ValueError, "tile_size: expected an integer >= 1, got 0"),
        (lambda: setattr(MMDLoss(), "estimator", "u"), ValueError, "estimator: expected one of ..., got 'u'"),
        (lambda: setattr(MMDLoss(), "kernel", 3), TypeError, "kernel: expected a Kernel such as ..., got 3"),
        (lambda: setattr(MMDLoss(), "global_batch", None), TypeError, "global_batch: expected True or False, got None of type NoneType"),
        (lambda: MMDLoss()(real=good(1), fake=X), ValueError, "real, fake: expected at least 2 samples each ..., got 1 and 8"),
        (lambda: MMDLoss(estimator="u_statistic").both(real=good(6), fake=X), ValueError, "real, fake: expected equally many samples ..., got 6 and 8"),
    ],
    "ScaledMMDLoss": [
        (lambda: ScaledMMDLoss(RBFKernel), TypeError, "kernel: expected a Kernel such as ..., got the class RBFKernel"),
        (lambda: ScaledMMDLoss(EnergyKernel()), TypeError, "kernel: expected a kernel that is positive and smooth at distance zero, ..., got EnergyKernel"),
        (lambda: ScaledMMDLoss(PolynomialKernel()), TypeError, "kernel: expected a kernel of the distance, ..., got PolynomialKernel"),
        (lambda: ScaledMMDLoss(scale=1.0), ValueError, "scale: expected one of 'practical', 'exact', got 1.0"),
        (lambda: ScaledMMDLoss(lambda_=0), ValueError, "lambda_: expected a number > 0, got 0"),
        (lambda: ScaledMMDLoss(lambda_="0.1"), TypeError, "lambda_: expected a real number, got '0.1' of type str"),
        (lambda: ScaledMMDLoss(squared=0), TypeError, "squared: expected True or False, got 0 of type int"),
        (lambda: ScaledMMDLoss()(X, Y, X), TypeError, "real, fake, inputs: expected scores by keyword, loss(real=..., fake=..., inputs=...), ..., got 3 positional arguments"),
        (lambda: ScaledMMDLoss(remember_real=True).generator(fake=X), RuntimeError, "real: expected real scores, or an earlier call of discriminator or both ..., got neither ..."),
        (lambda: setattr(ScaledMMDLoss(), "lambda_", -1), ValueError, "lambda_: expected a number > 0, got -1"),
        (lambda: setattr(ScaledMMDLoss(), "scale", "big"), ValueError, "scale: expected one of 'practical', 'exact', got 'big'"),
        (lambda: setattr(ScaledMMDLoss(), "squared", "no"), TypeError, "squared: expected True or False, got 'no' of type str"),
        (lambda: setattr(ScaledMMDLoss(), "squared", False), ValueError, "squared: expected True for all kernels except LinearKernel, got False"),
        (lambda: scaled("both", inputs=None), TypeError, "inputs: expected a tensor of samples, got NoneType"),
        (lambda: scaled("both", inputs=[X]), TypeError, "inputs: expected a tensor of samples, got list of length 1; take the samples out"),
        (lambda: scaled("both", inputs=X.long()), ValueError, "inputs: expected floating-point samples, got torch.int64"),
        (lambda: scaled("both", inputs=X.to_sparse()), ValueError, "inputs: expected samples in a dense tensor, got the layout torch.sparse_coo"),
        (lambda: scaled("both", inputs=good(6)), ValueError, "inputs: expected one sample for each of the 8 rows of real, got shape (6, 3)"),
        (lambda: scaled("both", inputs=X), ValueError, "inputs: expected samples that require gradients, got requires_grad=False"),
        (lambda: scaled("both", inputs=good().requires_grad_()), ValueError, "inputs: expected the tensor that real was computed from, got a tensor that real does not depend on"),
        (lambda: scaled("both", real=X), ValueError, "real: expected scores that are differentiable ..., got scores without a graph"),
    ],
    "gradient_penalty": [
        (lambda: gradient_penalty(X, inputs=X.tolist()), TypeError, "inputs: expected a tensor of samples, got list of length 8"),
        (lambda: gradient_penalty(X, inputs=X.to_sparse_csr()), ValueError, "inputs: expected samples in a dense tensor, got the layout torch.sparse_csr"),
        (lambda: gradient_penalty(X, inputs=X.sum()), ValueError, "inputs: expected one sample for each of the 8 rows of scores, got shape ()"),
        (lambda: gradient_penalty(X, inputs=X), ValueError, "inputs: expected samples that require gradients, got requires_grad=False"),
        (lambda: gradient_penalty(X, inputs=good().requires_grad_()), ValueError, "scores: expected scores that are differentiable ..., got scores without a graph"),
        (lambda: gradient_penalty(X, inputs=X, target=-1), ValueError, "target: expected a number >= 0, got -1"),
        (lambda: gradient_penalty(X, inputs=X, target=None), TypeError, "target: expected a real number, got None of type NoneType"),
        (lambda: gradient_penalty(X, inputs=X, target=HUGE), ValueError, "target: expected a finite number, got a number of type int that is too long"),
    ],
    "interpolation_points": [
        (lambda: interpolation_points(None, X), TypeError, "real: expected a tensor of samples, got NoneType"),
        (lambda: interpolation_points(X, Y.numpy()), TypeError, "fake: expected a tensor of samples, got ndarray"),
        (lambda: interpolation_points([X], X), TypeError, "real: expected a tensor of samples, got list of length 1; take the samples out"),
        (lambda: interpolation_points(X.to_sparse(), X), ValueError, "real: expected samples in a dense tensor, got the layout torch.sparse_coo"),
        (lambda: interpolation_points(X, Y.to_mkldnn()), ValueError, "fake: expected samples in a dense tensor, got the layout torch._mkldnn"),
        (lambda: interpolation_points(NO_SCORES["nested"][0](), X), ValueError, "real: expected samples of equal shape, got a nested tensor"),
        (lambda: interpolation_points(X, NO_SCORES["jagged"][0]()), ValueError, "fake: expected samples of equal shape, got a nested tensor"),
        (lambda: interpolation_points(NO_SCORES["masked"][0](), X), TypeError, "real: expected a plain tensor of samples, got a MaskedTensor"),
        (lambda: interpolation_points(X.long(), X), ValueError, "real: expected floating-point samples, got torch.int64"),
        (lambda: interpolation_points(*[X.to(torch.float8_e4m3fn)] * 2), ValueError, "real: expected samples of at least 16 bits, got torch.float8_e4m3fn"),
        (lambda: interpolation_points(*[X.to(torch.float8_e5m2)] * 2), ValueError, "real: expected samples of at least 16 bits, got torch.float8_e5m2"),
        (lambda: interpolation_points(X[:0], X[:0]), ValueError, "real: expected samples of shape (m, ...) with at least one entry, got shape (0, 3)"),
        (lambda: interpolation_points(X, Y.sum()), ValueError, "fake: expected samples of shape (m, ...) with at least one entry, got shape ()"),
        (lambda: interpolation_points(X, good(6)), ValueError, "real, fake: expected the same shape, got torch.Size([8, 3]) and torch.Size([6, 3])"),
        (lambda: interpolation_points(X, Y.double()), ValueError, "real, fake: expected the same dtype, got torch.float32 and torch.float64"),
        (lambda: interpolation_points(X, Y.to("meta")), ValueError, "real, fake: expected the same device, got cpu and meta"),
        (lambda: interpolation_points(X, Y, generator=1), TypeError, "generator: expected a torch.Generator or None, got 1"),
    ],
    "l2_penalty": [
        (lambda: l2_penalty(), TypeError, "outputs: expected at least one tensor, got none"),
        (lambda: l2_penalty([X, Y]), TypeError, "outputs[0]: expected a tensor of scores, got list of length 2; take the scores out"),
        (lambda: l2_penalty(X, 1.0), TypeError, "outputs[1]: expected a tensor of scores, got float"),
        (lambda: l2_penalty(X, Y.to("meta")), ValueError, "outputs[0], outputs[1]: expected the same device, got cpu and meta"),
    ],
    "Kernel": [
        (lambda: K(X, good(d=2)), ValueError, "a, b: expected the same score dimension d, got 3 and 2"),
        (lambda: K(X, Y.double()), ValueError, "a, b: expected the same dtype, got torch.float32 and torch.float64"),
        (lambda: K(X, Y.to("meta")), ValueError, "a, b: expected the same device, got cpu and meta"),
        (lambda: K * 0, ValueError, "factor: expected a number > 0, got 0"),
        (lambda: -1 * K, ValueError, "factor: expected a number > 0, got -1"),
        (lambda: K * "2", TypeError, "factor: expected a real number, got '2' of type str"),
        (lambda: K.on(3), TypeError, "columns: expected a slice such as slice(0, 512), got 3"),
        (lambda: K.on([0, 1]), TypeError, "columns: expected a slice such as slice(0, 512), got [0, 1]"),
        (lambda: K.on(slice(0, 4, 2)), ValueError, "columns: expected a slice without a step, got slice(0, 4, 2)"),
        (lambda: K.on(slice(-3, None)), ValueError, "columns: expected bounds >= 0, counted from the first column, got slice(-3, None, None)"),
        (lambda: K.on(slice(0, -1)), ValueError, "columns: expected bounds >= 0, counted from the first column, got slice(0, -1, None)"),
        (lambda: K.on(slice(0.5, 2)), TypeError, "columns: expected a slice of integers, got slice(0.5, 2, None)"),
        (lambda: K.on(slice(2, 2)), ValueError, "columns: expected a slice of at least one column, got slice(2, 2, None)"),
        (lambda: K.on(slice(0, 0)), ValueError, "columns: expected a slice of at least one column, got slice(0, 0, None)"),
        (lambda: K.on(slice(2, 4))(X, Y), ValueError, "columns: expected scores of at least 4 dimensions for kernel.on(slice(2, 4)), got 3"),
        (lambda: mmd2(X, Y, K.on(slice(3, None))), ValueError, "columns: expected scores of at least 4 dimensions for kernel.on(slice(3, None)), got 3"),
        (lambda: ScaledMMDLoss(K.on(slice(0, 1))), TypeError, "kernel: expected a kernel of the distance, ..., got _OnColumns"),
        (lambda: K * EnergyKernel(), TypeError, "kernel, other: expected positive definite kernels, ..., got a kernel that contains EnergyKernel"),
        (lambda: (K + 2 * EnergyKernel()).on(slice(0, 1)) * K, TypeError, "kernel, other: expected positive definite kernels, ..., got a kernel that contains EnergyKernel"),
        (lambda: 10**400 * K, ValueError, "factor: expected a finite number, got 1000..."),
    ],
    "RBFKernel": [
        (lambda: RBFKernel(0), ValueError, "sigma: expected a number > 0, got 0"),
        (lambda: RBFKernel(math.nan), ValueError, "sigma: expected a finite number, got nan"),
        (lambda: RBFKernel("1"), TypeError, "sigma: expected a real number, got '1' of type str"),
        (lambda: RBFKernel(X), TypeError, "sigma: expected a real number, got a tensor of shape (8, 3) of type Tensor"),
        (lambda: RBFKernel(X.std()), TypeError, "sigma: expected a real number, got a tensor of shape () of type Tensor; for a constant, such as the bandwidth of a batch, call .item() or .tolist(); to train"),
        (lambda: RBFKernel(Decimal(1)), TypeError, "sigma: expected a real number, got Decimal('1') of type Decimal"),
        (lambda: RBFKernel(10**400), ValueError, "sigma: expected a finite number, got 1000..."),
        (lambda: RBFKernel(Fraction(10**400)), ValueError, "sigma: expected a finite number, got Fraction(1000..."),
        (lambda: RBFKernel(Fraction(1, HUGE)), ValueError, "sigma: expected a number > 0, got a number of type Fraction that is too long to print"),
    ],
    "RBFMix": [
        (lambda: RBFMix(1.0), TypeError, "sigmas: expected a sequence of numbers > 0, got 1.0"),
        (lambda: RBFMix("12"), TypeError, "sigmas: expected a sequence of numbers > 0, got '12'"),
        (lambda: RBFMix(b"12"), TypeError, "sigmas: expected a sequence of numbers > 0, got b'12'"),
        (lambda: RBFMix(bytearray(b"12")), TypeError, "sigmas: expected a sequence of numbers > 0, got bytearray(b'12')"),
        (lambda: RBFMix({1.0, 2.0}), TypeError, "sigmas: expected a sequence of numbers > 0, got {1.0, 2.0}"),
        (lambda: RBFMix({1.0: 0.5}), TypeError, "sigmas: expected a sequence of numbers > 0, got {1.0: 0.5}"),
        (lambda: RBFMix(np.array(1.0)), TypeError, "sigmas: expected a sequence of numbers > 0, got array(1.)"),
        (lambda: RBFMix(X), TypeError, "sigmas: expected a sequence of numbers > 0, got a tensor of shape (8, 3)"),
        (lambda: RBFMix(()), ValueError, "sigmas: expected at least one number > 0, got an empty sequence"),
        (lambda: RBFMix((1, -1)), ValueError, "sigmas[1]: expected a number > 0, got -1"),
        (lambda: RBFMix((1, 2), weights=(1,)), ValueError, "weights: expected one weight for each of the 2 kernels, got 1"),
        (lambda: RBFMix((1, 2), weights={1: 2, 3: 4}), TypeError, "weights: expected a sequence of numbers > 0, got {1: 2, 3: 4}"),
    ],
    "RBFBKernel": [
        (lambda: RBFBKernel(lower=4.0, upper=0.25), ValueError, "lower, upper: expected lower < upper, got 4.0 and 0.25"),
        (lambda: RBFBKernel(upper=math.inf), ValueError, "upper: expected a finite number, got inf"),
        (lambda: RBFBKernel(lower=None), TypeError, "lower: expected a real number, got None of type NoneType"),
    ],
    "RationalQuadraticKernel": [
        (lambda: RationalQuadraticKernel(-1), ValueError, "alpha: expected a number > 0, got -1"),
        (lambda: RationalQuadraticKernel([1.0]), TypeError, "alpha: expected a real number, got [1.0] of type list"),
    ],
    "RationalQuadraticMix": [
        (lambda: RationalQuadraticMix(0.2), TypeError, "alphas: expected a sequence of numbers > 0, got 0.2"),
        (lambda: RationalQuadraticMix((1, "2")), TypeError, "alphas[1]: expected a real number, got '2' of type str"),
        (lambda: RationalQuadraticMix((1, 2), weights=(1, math.nan)), ValueError, "weights[1]: expected a finite number, got nan"),
    ],
    "EnergyKernel": [
        (lambda: EnergyKernel()(X, good(d=1)), ValueError, "a, b: expected the same score dimension d, got 3 and 1"),
    ],
    "InverseMultiquadricKernel": [
        (lambda: InverseMultiquadricKernel(0), ValueError, "c: expected a number > 0, got 0"),
        (lambda: InverseMultiquadricKernel(beta=0.5), ValueError, "beta: expected a number between -1e+30 and -1e-30, got 0.5"),
        (lambda: InverseMultiquadricKernel(beta=0), ValueError, "beta: expected a number between -1e+30 and -1e-30, got 0"),
        (lambda: InverseMultiquadricKernel(beta="x"), TypeError, "beta: expected a real number, got 'x' of type str"),
        (lambda: InverseMultiquadricKernel(beta=-(10**400)), ValueError, "beta: expected a finite number, got -1000..."),
    ],
    "L1LaplaceKernel": [
        (lambda: L1LaplaceKernel(-1), ValueError, "scale: expected a number > 0, got -1"),
        (lambda: L1LaplaceKernel(1e31), ValueError, "scale: expected a number between 1e-30 and 1e+30, got 1e+31"),
        (lambda: L1LaplaceKernel()(X, good(d=1)), ValueError, "a, b: expected the same score dimension d, got 3 and 1"),
        (lambda: gradient_constrained_mmd2(X, Y, L1LaplaceKernel()), TypeError, "kernel: expected a kernel that is twice differentiable ..., got a kernel that contains a L1LaplaceKernel"),
    ],
    "LaplaceKernel": [
        (lambda: LaplaceKernel(X), TypeError, "scale: expected a real number, got a tensor of shape (8, 3) of type Tensor"),
        (lambda: LaplaceKernel(1e-31), ValueError, "scale: expected a number between 1e-30 and 1e+30, got 1e-31"),
        (lambda: LaplaceKernel(floor=-1), ValueError, "floor: expected a number > 0, got -1"),
        (lambda: LaplaceKernel(floor=None), TypeError, "floor: expected a real number, got None of type NoneType"),
        (lambda: LaplaceKernel(floor=math.nan), ValueError, "floor: expected a finite number, got nan"),
        (lambda: LaplaceKernel(floor=2), ValueError, "scale, floor: expected floor <= scale, got 1.0 and 2.0"),
        (lambda: ScaledMMDLoss(LaplaceKernel()), TypeError, "kernel: expected a kernel that is positive and smooth at distance zero, ..., got LaplaceKernel"),
        (lambda: ScaledMMDLoss(K * LaplaceKernel()), TypeError, "kernel: expected a kernel that is positive and smooth at distance zero, ..., got _Product"),
        (lambda: gradient_constrained_mmd2(X, Y, 2 * LaplaceKernel()), TypeError, "kernel: expected a kernel that is twice differentiable ..., got a kernel that contains a LaplaceKernel"),
        (lambda: mmd2_fourier(X, Y, LaplaceKernel(floor=1), frequencies=2), TypeError, "kernel: expected an RBFKernel, ..., got LaplaceKernel, whose spectral measure is unknown"),
    ],
    "MaternKernel": [
        (lambda: MaternKernel(1), ValueError, "nu: expected 0.5, 1.5 or 2.5, got 1"),
        (lambda: MaternKernel("1.5"), TypeError, "nu: expected a real number, got '1.5' of type str"),
        (lambda: setattr(MaternKernel(), "nu", 3.5), ValueError, "nu: expected 0.5, 1.5 or 2.5, got 3.5"),
        (lambda: MaternKernel(length=0), ValueError, "length: expected a number > 0, got 0"),
        (lambda: gradient_constrained_mmd2(X, Y, MaternKernel(0.5)), TypeError, "kernel: expected a kernel that is twice differentiable ..., got a kernel that contains a MaternKernel"),
    ],
    "LinearKernel": [
        (lambda: LinearKernel()(X, Y.double()), ValueError, "a, b: expected the same dtype, got torch.float32 and torch.float64"),
    ],
    "PolynomialKernel": [
        (lambda: PolynomialKernel(2.0), TypeError, "degree: expected an integer, got 2.0 of type float"),
        (lambda: PolynomialKernel(0), ValueError, "degree: expected an integer >= 1, got 0"),
        (lambda: PolynomialKernel(10**400), ValueError, "degree: expected an integer..., got 1000..."),
        (lambda: PolynomialKernel(offset=-1), ValueError, "offset: expected a number >= 0, got -1"),
        (lambda: PolynomialKernel(offset="0"), TypeError, "offset: expected a real number, got '0' of type str"),
    ],
    "conv_spectral_norm": [
        (lambda: conv_spectral_norm(None), TypeError, "module: expected a torch.nn.Module, got NoneType"),
        (lambda: conv_spectral_norm(nn.Linear), TypeError, "module: expected a torch.nn.Module, got type"),
        (lambda: conv_spectral_norm([linear()]), TypeError, "module: expected a torch.nn.Module, got list"),
        (lambda: conv_spectral_norm(nn.ReLU()), ValueError, "module: expected a layer of type Linear, ..., got ReLU"),
        (lambda: conv_spectral_norm(nn.Embedding(3, 4)), ValueError, "module: expected a layer of type Linear, ..., got Embedding"),
        (lambda: conv_spectral_norm(nn.LSTM(3, 4)), ValueError, "module: expected a layer of type Linear, ..., got LSTM"),
        (lambda: conv_spectral_norm(nn.MultiheadAttention(4, 2)), ValueError, "module: expected layers that are called in a forward pass, got 'out_proj'"),
        (lambda: conv_spectral_norm(nn.Sequential(linear(), nn.LSTM(4, 4)), strict=True), ValueError, "module: expected weights in Linear and convolutional layers only, got '1' (LSTM)"),
        (lambda: conv_spectral_norm(torch.ao.nn.quantized.Linear(3, 4)), ValueError, "module: expected a layer of type Linear, ..., got Linear"),
        (lambda: conv_spectral_norm(nn.LazyLinear(3)), ValueError, "module: expected layers with initialised weights, got 'LazyLinear', whose weight has no shape yet"),
        (lambda: conv_spectral_norm(nn.LazyConv2d(3, 3)), ValueError, "module: expected layers with initialised weights, got 'LazyConv2d', whose weight has no shape yet"),
        (lambda: conv_spectral_norm(nn.Linear(0, 3)), ValueError, "module: expected layers with at least one weight, got 'Linear', whose 'weight' has the shape (3, 0)"),
        (lambda: conv_spectral_norm(conv_spectral_norm(linear())), ValueError, "module: expected layers whose 'weight' is not parametrized yet, got 'ParametrizedLinear', whose 'weight' is"),
        (lambda: conv_spectral_norm(parametrizations.spectral_norm(linear())), ValueError, "module: expected layers whose 'weight' is not parametrized yet, got ...; replace=True removes"),
        (lambda: conv_spectral_norm(nn.utils.spectral_norm(linear())), ValueError, "name: expected a parameter of layer 'Linear', got 'weight', which is computed by a hook, ...replace=True"),
        (lambda: conv_spectral_norm(linear(dtype=torch.complex64)), ValueError, "name: expected a floating-point parameter of layer 'Linear' ..., got 'weight', torch.complex64"),
        (lambda: conv_spectral_norm(linear().to(torch.float8_e4m3fn)), ValueError, "module: expected layers with dense weights of at least 16 bits, got 'Linear', whose 'weight' is torch.float8_e4m3fn"),
        (lambda: conv_spectral_norm(with_weight(good(4).to_sparse())), ValueError, "module: expected layers with dense weights ..., got 'Linear', whose 'weight' is torch.float32 with the layout torch.sparse_coo"),
        (lambda: conv_spectral_norm(linear(), "bias"), ValueError, "name: expected a floating-point parameter of layer 'Linear' shaped like its weight, got 'bias', torch.float32 of shape (4,)"),
        (lambda: conv_spectral_norm(linear(), "wieght"), ValueError, "name: expected a floating-point parameter of layer 'Linear' ..., got 'wieght', which does not exist"),
        (lambda: conv_spectral_norm(linear(), "forward"), ValueError, "name: expected a floating-point parameter of layer 'Linear' ..., got 'forward', of type method"),
        (lambda: conv_spectral_norm(linear(), "training"), ValueError, "name: expected a floating-point parameter of layer 'Linear' ..., got 'training', of type bool"),
        (lambda: conv_spectral_norm(linear(), 1 / 0.55), TypeError, "name: expected the name of a parameter, got 1.81818... (options such as scale= are keyword-only)"),
        (lambda: conv_spectral_norm(linear(), HUGE), TypeError, "name: expected the name of a parameter, got a number of type int that is too long to print"),
        (lambda: conv_spectral_norm(linear(), scale=0), ValueError, "scale: expected a number > 0, got 0"),
        (lambda: conv_spectral_norm(linear(), scale=math.nan), ValueError, "scale: expected a finite number, got nan"),
        (lambda: conv_spectral_norm(linear(), scale=-1), ValueError, "scale: expected a number > 0, got -1"),
        (lambda: conv_spectral_norm(linear(), scale=True), TypeError, "scale: expected a real number, got True of type bool"),
        (lambda: conv_spectral_norm(linear(), scale="x"), TypeError, "scale: expected a real number, got 'x' of type str"),
        (lambda: conv_spectral_norm(linear(), scale=torch.tensor(2.0)), TypeError, "scale: expected a real number, got a tensor of shape () of type Tensor"),
        (lambda: conv_spectral_norm(linear(), scale=1e300), ValueError, "scale: expected a number that torch.float32 can hold, ..., got 1e+300"),
        (lambda: conv_spectral_norm(linear(), scale=10**400), ValueError, "scale: expected a finite number, got 1000..."),
        (lambda: conv_spectral_norm(linear(), method="x"), ValueError, "method: expected one of 'conv', 'pico', 'matrix', got 'x'"),
        (lambda: conv_spectral_norm(linear(), method=np.array([1, 2])), ValueError, "method: expected one of 'conv', 'pico', 'matrix', got array([1, 2])"),
        (lambda: conv_spectral_norm(linear(), n_power_iterations=0), ValueError, "n_power_iterations: expected an integer >= 1, got 0"),
        (lambda: conv_spectral_norm(linear(), n_power_iterations=1.5), TypeError, "n_power_iterations: expected an integer, got 1.5 of type float"),
        (lambda: conv_spectral_norm(linear(), n_power_iterations=10**400), ValueError, "n_power_iterations: expected an integer < 2**63, got 1000..."),
        (lambda: conv_spectral_norm(linear(), eps=0), ValueError, "eps: expected a number > 0, got 0"),
        (lambda: conv_spectral_norm(linear(), eps=1e39), ValueError, "eps: expected a number that torch.float32 can hold, got 1e+39"),
        (lambda: conv_spectral_norm(linear(), learn_scale=1), TypeError, "learn_scale: expected True or False, got 1 of type int"),
        (lambda: conv_spectral_norm(linear(), strict=None), TypeError, "strict: expected True or False, got None of type NoneType"),
        (lambda: conv_spectral_norm(linear(), replace="yes"), TypeError, "replace: expected True or False, got 'yes' of type str"),
        (lambda: conv_spectral_norm(linear(), input_size=8), ValueError, "input_size: expected None unless module is a single convolution ..., got 8 for 1 layer(s)"),
        (lambda: conv_spectral_norm(nn.Sequential(conv(), conv()), input_size=8), ValueError, "input_size: expected None unless module is a single convolution ..., got 8 for 2 layer(s)"),
        (lambda: conv_spectral_norm(conv(), input_size=8, method="matrix"), ValueError, "input_size: expected None unless ..., got 8 for 1 layer(s) with method='matrix'"),
        (lambda: conv_spectral_norm(conv(), input_size=(8,)), ValueError, "input_size: expected 2 integer(s) >= 1, without channels, got (8,)"),
        (lambda: conv_spectral_norm(conv(), input_size=(3, 8, 8)), ValueError, "input_size: expected 2 integer(s) >= 1, without channels, got (3, 8, 8)"),
        (lambda: conv_spectral_norm(conv(), input_size=0), ValueError, "input_size: expected 2 integer(s) >= 1, without channels, got 0"),
        (lambda: conv_spectral_norm(conv(), input_size=True), ValueError, "input_size: expected 2 integer(s) >= 1, without channels, got True"),
        (lambda: conv_spectral_norm(conv(), input_size=(8, True)), ValueError, "input_size: expected 2 integer(s) >= 1, without channels, got (8, True)"),
        (lambda: conv_spectral_norm(conv(), input_size=(8, 8.0)), ValueError, "input_size: expected 2 integer(s) >= 1, without channels, got (8, 8.0)"),
        (lambda: conv_spectral_norm(conv(), input_size="88"), ValueError, "input_size: expected 2 integer(s) >= 1, without channels, got '88'"),
        (lambda: conv_spectral_norm(conv(), input_size=b"88"), ValueError, "input_size: expected 2 integer(s) >= 1, without channels, got b'88'"),
        (lambda: conv_spectral_norm(conv(), input_size=torch.tensor(8)), ValueError, "input_size: expected 2 integer(s) >= 1, without channels, got a tensor of shape ()"),
        (lambda: conv_spectral_norm(conv(), input_size=10**400), ValueError, "input_size: expected 2 integer(s) >= 1, without channels, got 1000..."),
        (lambda: conv_spectral_norm(conv(), input_size=(2, 2)), ValueError, "input_size: expected a size that the layer accepts, got (2, 2)"),
        (lambda: conv_spectral_norm(conv(), example_input=[X]), TypeError, "example_input: expected a tensor or a tuple of arguments, got [tensor(... of type list"),
        (lambda: conv_spectral_norm(conv(), example_input=X, input_size=8), ValueError, "example_input: expected None if input_size is given, got both (input_size=8)"),
        (lambda: conv_spectral_norm(conv(), example_input=(None,)), TypeError, "input: expected a tensor, got NoneType"),
        (lambda: conv_spectral_norm(conv())(np.zeros((1, 3, 8, 8))), TypeError, "input: expected a tensor, got ndarray"),
        (lambda: conv_spectral_norm(conv())(torch.zeros(1, 3, 0, 8)), ValueError, "input: expected spatial dimensions of at least one pixel, got shape (1, 3, 0, 8)"),
        (lambda: conv_spectral_norm(conv())(torch.zeros(1, 4, 8, 8)), ValueError, "input: expected 3 channels, got shape (1, 4, 8, 8)"),
        (lambda: conv_spectral_norm(conv())(torch.zeros(3, 8)), ValueError, "input: expected 2 spatial dimensions after (batch and) channels, got shape (3, 8)"),
        (lambda: conv_spectral_norm(conv()).weight, RuntimeError, "weight: expected a layer that has seen an input, got one that has not"),
        (lambda: assigned("x"), TypeError, "weight: expected a tensor to assign, got 'x' of type str"),
        (lambda: assigned(None), TypeError, "weight: expected a tensor to assign, got None of type NoneType"),
        (lambda: assigned(good(4).numpy()), TypeError, "weight: expected a tensor to assign, got array(... of type ndarray"),
        (lambda: assigned(good(3)), ValueError, "weight: expected a tensor of shape (4, 3) and torch.float32 to assign, got (3, 3) and torch.float32"),
        (lambda: assigned(good(4).double()), ValueError, "weight: expected a tensor of shape (4, 3) and torch.float32 to assign, got (4, 3) and torch.float64"),
        (lambda: assigned(good(4).to("meta")), ValueError, "weight: expected a dense tensor on cpu to assign, got one on meta"),
        (lambda: assigned(good(4).to_sparse()), ValueError, "weight: expected a dense tensor on cpu to assign, got one on cpu with the layout torch.sparse_coo"),
        (lambda: assigned("x", conv()), TypeError, "weight: expected a tensor to assign, got 'x' of type str"),
    ],
    "spectral_norms": [
        (lambda: spectral_norms(None), TypeError, "model: expected a torch.nn.Module, got NoneType"),
        (lambda: spectral_norms([conv_spectral_norm(linear())]), TypeError, "model: expected a torch.nn.Module, got list"),
        (lambda: spectral_norms(linear()), ValueError, "model: expected a module with layers wrapped by conv_spectral_norm, got one without"),
        (lambda: spectral_norms(parametrizations.spectral_norm(linear())), ValueError, "model: expected a module with layers wrapped by conv_spectral_norm, got one without"),
        (lambda: spectral_norms(conv_spectral_norm(conv())), RuntimeError, "model: expected layers that have seen an input, got '', which has not"),
    ],
}
# fmt: on


@pytest.mark.parametrize(
    ("use", "error", "text"),
    [pytest.param(*row, id=f"{name}-{i}") for name, rows in REFUSED.items() for i, row in enumerate(rows)],
)
def test_mistakes_are_refused(use, error, text):
    check(use, error, text)


def test_each_row_names_the_argument_what_was_expected_and_what_came():
    rows = [text for rows in REFUSED.values() for _, _, text in rows]
    rows += [f"{place.split()[1]}: {text}" for place in TAKE_SCORES for _, _, text in NO_SCORES.values()]
    unclear = [
        text for text in rows if not re.match(r"[a-z]\w*(\[\d\])?(, [a-z]\w*(\[\d\])?)*: expected .+, got ", text)
    ]
    assert not unclear
    assert len(rows) >= 120


# What looks odd and is right: the same as a plain use


def fake_tensors(use):
    """Call a function in the mode in which tensors have no values."""
    with FakeTensorMode():
        return use(good(), good()).shape


class Named(torch.Tensor):
    """A subclass of tensors."""


ACCEPTED = {
    "mmd2": [
        (
            lambda: mmd2(X.to(torch.float8_e4m3fn), Y.to(torch.float8_e4m3fn), K),
            lambda: mmd2(X.to(torch.float8_e4m3fn).float(), Y.to(torch.float8_e4m3fn).float(), K),
        ),
        (
            lambda: mmd2(X.to(torch.float8_e5m2), Y.to(torch.float8_e5m2), K),
            lambda: mmd2(X.to(torch.float8_e5m2).float(), Y.to(torch.float8_e5m2).float(), K),
        ),
        (lambda: mmd2(nn.Parameter(X), Y, K).detach(), lambda: mmd2(X, Y, K)),
        (lambda: mmd2(X.as_subclass(Named), Y, K).as_subclass(torch.Tensor), lambda: mmd2(X, Y, K)),
        (
            lambda: torch.func.vmap(lambda x: mmd2(x, Y, K))(torch.stack([X, Z])),
            lambda: torch.stack([mmd2(X, Y, K), mmd2(Z, Y, K)]),
        ),
        (lambda: fake_tensors(lambda x, y: mmd2(x, y, K)), lambda: torch.Size()),
        (lambda: mmd2(X.to("meta"), Y.to("meta"), K).shape, lambda: torch.Size()),
        (lambda: mmd2(X, Y, K, tile_size=np.int64(2)), lambda: mmd2(X, Y, K, tile_size=2)),
        (lambda: mmd2(X, Y, K, tile_size=2**63 - 1), lambda: mmd2(X, Y, K)),
        (lambda: mmd2(X, Y, K, estimator=np.str_("biased")), lambda: mmd2(X, Y, K, estimator="biased")),
    ],
    "mmd2_and_variance": [
        (lambda: mmd2_and_variance(X, Y, K, tile_size=2**63 - 1), lambda: mmd2_and_variance(X, Y, K))
    ],
    "mmd2_blocks": [(lambda: mmd2_blocks(X, Y, K, block_size=np.int32(2)), lambda: mmd2_blocks(X, Y, K, block_size=2))],
    "gradient_constrained_mmd2": [
        (
            lambda: gradient_constrained_mmd2(X, Y, K, lambda_=Fraction(1, 2)),
            lambda: gradient_constrained_mmd2(X, Y, K, lambda_=0.5),
        )
    ],
    "mmd_test": [
        (lambda: mmd_test(X.to("meta"), Y.to("meta"), K, permutations=9).statistic.shape, lambda: torch.Size())
    ],
    "interpolation_points": [(lambda: interpolation_points(X.half(), Y.half()).dtype, lambda: torch.float16)],
    "RBFKernel": [
        (lambda: RBFKernel(np.float32(2)).sigma, lambda: 2.0),
        (lambda: RBFKernel(Fraction(1, 2)).sigma, lambda: 0.5),
    ],
    "RBFMix": [(lambda: RBFMix(np.arange(1, 3)).sigmas, lambda: (1.0, 2.0))],
    "MMDLoss": [(lambda: MMDLoss(lambda_=np.float16(-1)).lambda_, lambda: -1.0)],
    "conv_spectral_norm": [
        (
            lambda: conv_spectral_norm(conv(), input_size=[np.int64(8), 8]).parametrizations.weight[0].v.shape,
            lambda: torch.Size([3, 8, 8]),
        ),
        (
            lambda: conv_spectral_norm(without_a_channel(conv()))(torch.ones(1, 2, 8, 8)).shape,
            lambda: torch.Size([1, 4, 6, 6]),
        ),
        (lambda: conv_spectral_norm(nn.Linear(3, 4, device="meta"))(X.to("meta")).shape, lambda: torch.Size([8, 4])),
    ],
    "spectral_norms": [
        (
            lambda: spectral_norms(conv_spectral_norm(without_a_channel(LAYER)))[""],
            lambda: torch.linalg.matrix_norm(LAYER.parametrizations.weight.original.detach(), 2),
        )
    ],
    "UsageWarning": [(lambda: issubclass(UsageWarning, UserWarning), lambda: True)],
}


@pytest.mark.parametrize(
    ("use", "plain"),
    [pytest.param(*row, id=f"{name}-{i}") for name, rows in ACCEPTED.items() for i, row in enumerate(rows)],
)
def test_what_is_right_is_accepted(use, plain):
    found, expected = use(), plain()
    if isinstance(expected, (torch.Size, torch.dtype)):
        assert found == expected
    else:
        assert_close(found, expected)


def test_every_public_name_has_a_row():
    places = {place.split()[0].split(".")[0] for place in (*TAKE_SCORES, *TAKE_GROUPS)}
    assert places | set(REFUSED) | set(ACCEPTED) == set(torch_mmd_losses.__all__)


@pytest.fixture
def sharded():
    """Return a score tensor that is distributed over a group of this process alone."""
    from torch.distributed.tensor import distribute_tensor, init_device_mesh

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield distribute_tensor(X, init_device_mesh("cpu", (1,)))
    dist.destroy_process_group()


def test_distributed_tensors_are_refused_with_what_to_call(sharded):
    text = "expected a plain tensor of scores, got a DTensor; call .full_tensor() for the scores of all processes, or .to_local() for those of this one"
    for place in ("mmd2 real", "mmd2 fake", "MMDLoss.both fake", "l2_penalty outputs[1]", "RBFKernel a"):
        check(partial(TAKE_SCORES[place], sharded), TypeError, f"{place.split()[1]}: {text}")
    check(
        lambda: interpolation_points(X, sharded), TypeError, "fake: expected a plain tensor of samples, got a DTensor"
    )
    assert_close(mmd2(sharded.full_tensor(), Y, K), mmd2(X, Y, K))
