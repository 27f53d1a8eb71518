"""The calls of each library that the probes use, converted to MMD^2 with the same kernel.

A library is a record of functions. None stands for a feature for which the library has no call, to my knowledge: its
documentation and source were searched. All other answers come from running the functions.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from bare_import import bare
from torch import Tensor, nn

import torch_mmd_losses
from torch_mmd_losses import (
    MMDLoss,
    PolynomialKernel,
    RBFKernel,
    conv_spectral_norm,
    grouped_mmd2,
    mmd2,
    mmd2_blocks,
    mmd_test,
)

Value = Callable[[Tensor, Tensor], Tensor]
"""MMD^2 of real and fake samples."""

Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Library:
    """What the probes call."""

    package: str
    """The distribution, whose version is reported."""
    value: Value
    """The estimate of MMD^2 that is nearest to the unbiased one, in float64 where the library can."""
    kernel: Value
    """The Gram matrix of its kernel, written out."""
    trains: bool = True
    """Whether it is meant to be differentiated."""
    weighted: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    """The biased MMD^2 with weights of the real samples."""
    groups: Value | None = None
    """One value for each of the groups `(G, n, d)`."""
    linear_time: Value | None = None
    """An estimate from a number of pairs that grows with the samples."""
    p_value: Callable[[Tensor, Tensor], float] | None = None
    """The p-value of a permutation test with 99 permutations."""
    accumulated: Callable[[Batches], float] | None = None
    """The value of a metric object that was given batches, and shares its state among processes."""
    shared: Callable[[Tensor, Tensor], Tensor] | None = None
    """A differentiable loss of the joint batch of all processes."""
    gan: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    """The losses of discriminator and generator."""
    wrapped: Callable[[nn.Conv2d, Tensor], nn.Module] | None = None
    """A convolution divided by its norm, for inputs like the given one."""

    @property
    def version(self) -> str:
        """The installed version."""
        if self.package == "torch-mmd-losses":
            return torch_mmd_losses.__version__
        return version(self.package)


def gaussian(a: Tensor, b: Tensor) -> Tensor:
    """Return the Gram matrix of the Gaussian kernel with sigma 1."""
    return torch.exp(-(a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1) / 2)


def cubic(a: Tensor, b: Tensor) -> Tensor:
    """Return the Gram matrix of the kernel of KID."""
    return (a @ b.mT / a.shape[-1] + 1) ** 3


def ours() -> Library:
    """Return this library."""
    kernel, loss, joint = RBFKernel(), MMDLoss(), MMDLoss(RBFKernel(), global_batch=True)

    def wrapped(layer: nn.Conv2d, like: Tensor) -> nn.Module:
        return conv_spectral_norm(layer, example_input=like)

    return Library(
        "torch-mmd-losses",
        lambda x, y: mmd2(x, y, kernel),
        gaussian,
        weighted=lambda x, y, w: mmd2(x, y, kernel, estimator="biased", real_weights=w),
        groups=lambda x, y: grouped_mmd2(x, y, kernel, estimator="unbiased"),
        linear_time=lambda x, y: mmd2_blocks(x, y, kernel, block_size=2, estimator="u_statistic").value,
        p_value=lambda x, y: float(mmd_test(x, y, permutations=99).p_value),
        shared=lambda x, y: joint.generator(real=x, fake=y),
        gan=lambda x, y: loss.both(real=x, fake=y),
        wrapped=wrapped,
    )


def ours_as_kid() -> Library:
    """Return this library with the kernel of KID."""
    kernel = PolynomialKernel()
    return Library("torch-mmd-losses", lambda x, y: mmd2(x, y, kernel), cubic)


def geomloss() -> Library:
    """Return geomloss without KeOps; its value is half of the biased MMD^2."""
    loss = importlib.import_module("geomloss").SamplesLoss("gaussian", blur=1.0, backend="tensorized")

    def weighted(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return 2 * loss(w / w.sum(), x, torch.full_like(y[:, 0], 1 / len(y)), y)

    return Library(
        "geomloss",
        lambda x, y: 2 * loss(x, y),
        gaussian,
        weighted=weighted,
        groups=lambda x, y: 2 * loss(x, y),
    )


def geomloss_with_keops() -> Library:
    """Return geomloss with KeOps, which compiles code when it is first called."""
    importlib.import_module("pykeops")
    loss = importlib.import_module("geomloss").SamplesLoss("gaussian", blur=1.0, backend="online")
    return Library("geomloss", lambda x, y: 2 * loss(x, y), gaussian)


def pytorch_adapt() -> Library:
    """Return pytorch-adapt with a fixed bandwidth."""
    mmd_loss = bare("pytorch_adapt.layers.mmd_loss").MMDLoss
    loss = mmd_loss(mmd_type="quadratic", bandwidth=2.0)
    return Library("pytorch-adapt", loss, gaussian, linear_time=mmd_loss(bandwidth=2.0))


def sbi() -> Library:
    """Return the metric of sbi."""
    function = bare("sbi.utils.metrics").unbiased_mmd_squared
    return Library("sbi", lambda x, y: function(x, y, scale=1.0), gaussian)


def alibi_detect() -> Library:
    """Return the function and the drift detector of alibi-detect."""
    distance = bare("alibi_detect.utils.pytorch.distance")
    rbf = bare("alibi_detect.utils.pytorch.kernels").GaussianRBF
    kernels = {dtype: rbf(torch.ones(1, dtype=dtype)) for dtype in (torch.bfloat16, torch.float32, torch.float64)}
    detector = bare("alibi_detect.cd.pytorch.mmd").MMDDriftTorch

    def value(x: Tensor, y: Tensor) -> Tensor:
        return distance.mmd2(x, y, kernels[x.dtype])

    def p_value(x: Tensor, y: Tensor) -> float:
        found, *_ = detector(x.detach().numpy(), n_permutations=99, device="cpu").score(y.detach().numpy())
        return float(found)

    return Library("alibi-detect", value, gaussian, p_value=p_value)


def hyppo() -> Library:
    """Return the test of hyppo, of which only p-values are asked: its statistic is a normalised HSIC."""
    mmd = importlib.import_module("hyppo.ksample").MMD

    def value(x: Tensor, y: Tensor) -> Tensor:
        return torch.tensor(float(mmd(gamma=0.5).statistic(x.detach().numpy(), y.detach().numpy())))

    def p_value(x: Tensor, y: Tensor) -> float:
        _, found = mmd().test(x.detach().numpy(), y.detach().numpy(), reps=99, auto=False)
        return float(found)

    return Library("hyppo", value, gaussian, trains=False, p_value=p_value)


def torchdrift() -> Library:
    """Return the test of TorchDrift."""
    module = importlib.import_module("torchdrift.detectors.mmd")

    def value(x: Tensor, y: Tensor) -> Tensor:
        return module.kernel_mmd(x, y, n_perm=None, kernel=module.GaussianKernel(1.0))

    def p_value(x: Tensor, y: Tensor) -> float:
        return float(module.kernel_mmd(x, y, n_perm=99)[1])

    return Library("torchdrift", value, gaussian, trains=False, p_value=p_value)


def torchmetrics() -> Library:
    """Return KID of torchmetrics, of all samples as the only subset."""
    metric_class = importlib.import_module("torchmetrics.image.kid").KernelInceptionDistance

    def accumulated(batches: Batches) -> float:
        total = sum(len(x) for x, _ in batches)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that it keeps all features
            metric = metric_class(feature=nn.Identity(), subsets=1, subset_size=total)
        for x, y in batches:
            metric.update(x, real=True)
            metric.update(y, real=False)
        metric.subset_size = total * _processes()
        return float(metric.compute()[0])

    def value(x: Tensor, y: Tensor) -> Tensor:
        metric = metric_class(feature=nn.Identity(), subsets=1, subset_size=min(len(x), len(y)))
        metric.update(x, real=True)
        metric.update(y, real=False)
        return metric.compute()[0]

    return Library("torchmetrics", value, cubic, trains=False, accumulated=accumulated)


def _processes() -> int:
    dist: Any = torch.distributed
    return int(dist.get_world_size()) if dist.is_initialized() else 1


def torch_fidelity() -> Library:
    """Return KID of torch-fidelity, of all samples as the only subset."""
    module = importlib.import_module("torch_fidelity.metric_kid")

    def value(x: Tensor, y: Tensor) -> Tensor:
        size = min(len(x), len(y))
        found = module.kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=size, verbose=False)
        return torch.tensor(found[module.KEY_METRIC_KID_MEAN])

    return Library("torch-fidelity", value, cubic, trains=False)


def ignite() -> Library:
    """Return the metric of PyTorch-Ignite, squared."""
    metric_class = importlib.import_module("ignite.metrics").MaximumMeanDiscrepancy

    def accumulated(batches: Batches) -> float:
        metric = metric_class()
        for batch in batches:
            metric.update(batch)
        return float(metric.compute())

    def value(x: Tensor, y: Tensor) -> Tensor:
        return torch.tensor(accumulated([(x, y)])).square()

    return Library("pytorch-ignite", value, gaussian, trains=False, accumulated=accumulated)


LIBRARIES: dict[str, Callable[[], Library]] = {
    "this library": ours,
    "this library, KID": ours_as_kid,
    "geomloss": geomloss,
    "geomloss, KeOps": geomloss_with_keops,
    "pytorch-adapt": pytorch_adapt,
    "sbi": sbi,
    "alibi-detect": alibi_detect,
    "hyppo": hyppo,
    "TorchDrift": torchdrift,
    "torchmetrics": torchmetrics,
    "torch-fidelity": torch_fidelity,
    "PyTorch-Ignite": ignite,
}
