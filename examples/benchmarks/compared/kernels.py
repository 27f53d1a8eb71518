"""The kernels of each library, and the formula in which its bandwidth stands."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

import torch
from bare_import import bare
from torch import Tensor, nn

from compared.libraries import Value
from compared.probes import FORMS, samples
from torch_mmd_losses import (
    EnergyKernel,
    InverseMultiquadricKernel,
    Kernel,
    L1LaplaceKernel,
    LaplaceKernel,
    LinearKernel,
    MaternKernel,
    PolynomialKernel,
    RationalQuadraticKernel,
    RBFKernel,
    RBFMix,
    mmd2,
)

Gram = Callable[[Tensor, Tensor], Tensor]

SIZE = 1.7
"""The bandwidth that is passed to all of them."""

TOLERANCE = 1e-4
"""geomloss takes 1e-4 for smaller distances, and some libraries compute in float32."""


class Named(NamedTuple):
    """A kernel of a library: MMD^2 with it, and its Gram matrix written out."""

    name: str
    value: Value
    gram: Gram


class Offer(NamedTuple):
    """The name of a library's bandwidth, MMD^2 with its Gaussian kernel of a given bandwidth, and its other kernels."""

    parameter: str
    gaussian: Callable[[float], Value] | None
    others: list[Named]


def squared(a: Tensor, b: Tensor) -> Tensor:
    """Return squared distances."""
    return (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Return distances."""
    return squared(a, b).sqrt()


FORMULAS: dict[str, Callable[[float], Gram]] = {
    "exp(-e / (2 s^2))": lambda s: lambda a, b: torch.exp(-squared(a, b) / (2 * s**2)),
    "exp(-e / (2 s))": lambda s: lambda a, b: torch.exp(-squared(a, b) / (2 * s)),
    "exp(-e / s)": lambda s: lambda a, b: torch.exp(-squared(a, b) / s),
    "exp(-s e)": lambda s: lambda a, b: torch.exp(-s * squared(a, b)),
    "exp(-e / s^2)": lambda s: lambda a, b: torch.exp(-squared(a, b) / s**2),
}
"""Gaussian kernels of e = |a - b|^2 that a bandwidth s may stand in."""

GRAMS: dict[str, Gram] = {
    "Laplace": lambda a, b: torch.exp(-distance(a, b) / SIZE),
    "Laplace of the 1-norm": lambda a, b: torch.exp(-(a.unsqueeze(-2) - b.unsqueeze(-3)).abs().sum(-1) / SIZE),
    "rational quadratic": lambda a, b: 1 / (1 + squared(a, b) / (2 * SIZE**2)),
    "inverse multiquadric": lambda a, b: (1 + squared(a, b) / SIZE**2).rsqrt(),
    "Matérn": lambda a, b: (1 + 3**0.5 * distance(a, b) / SIZE) * torch.exp(-(3**0.5) * distance(a, b) / SIZE),
    "energy": lambda a, b: -distance(a, b),
    "linear": lambda a, b: a @ b.mT,
    "polynomial": lambda a, b: (a @ b.mT / a.shape[-1] + 1) ** 3,
    "own": lambda a, b: 1 / (1 + squared(a, b)),
}


def mixture(sigmas: tuple[float, ...], *, mean: bool) -> Gram:
    """Return the sum, or the mean, of Gaussian kernels."""

    def gram(a: Tensor, b: Tensor) -> Tensor:
        grams = torch.stack([torch.exp(-squared(a, b) / (2 * sigma**2)) for sigma in sigmas])
        return grams.mean(0) if mean else grams.sum(0)

    return gram


class _Own(Kernel):
    def from_sq_dist(self, sq_dist: Tensor) -> Tensor:
        """Return the kernel's values."""
        return 1 / (1 + sq_dist)


class _OwnGram(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the Gram matrix."""
        return GRAMS["own"](a, b)


def of_ours() -> Offer:
    """Return the kernels of this library."""
    kernels: dict[str, Kernel] = {
        "Laplace": LaplaceKernel(SIZE),
        "Laplace of the 1-norm": L1LaplaceKernel(SIZE),
        "rational quadratic": RationalQuadraticKernel(1.0, SIZE),
        "inverse multiquadric": InverseMultiquadricKernel(SIZE),
        "Matérn": MaternKernel(1.5, SIZE),
        "energy": EnergyKernel(),
        "linear": LinearKernel(),
        "polynomial": PolynomialKernel(),
        "own": _Own(),
    }

    def value(kernel: Kernel) -> Value:
        return lambda x, y: mmd2(x, y, kernel)

    several = Named("sum of Gaussians", value(RBFMix((1.0, 2.0))), mixture((1.0, 2.0), mean=False))
    others = [several, *(Named(name, value(kernel), GRAMS[name]) for name, kernel in kernels.items())]
    return Offer("sigma", lambda s: value(RBFKernel(s)), others)


def of_geomloss() -> Offer:
    """Return the kernels of geomloss."""
    loss = importlib.import_module("geomloss").SamplesLoss

    def value(kind: str, **options: object) -> Value:
        made = loss(kind, backend="tensorized", **options)
        return lambda x, y: 2 * made(x, y)

    def own(a: Tensor, b: Tensor, **_: object) -> Tensor:
        return GRAMS["own"](a, b)

    others = [
        Named("Laplace", value("laplacian", blur=SIZE), GRAMS["Laplace"]),
        Named("energy", value("energy"), GRAMS["energy"]),
        Named("own", value("gaussian", kernel=own), GRAMS["own"]),
    ]
    return Offer("blur", lambda s: value("gaussian", blur=s), others)


def of_pytorch_adapt() -> Offer:
    """Return the kernels of pytorch-adapt."""
    loss = bare("pytorch_adapt.layers.mmd_loss").MMDLoss
    scales = torch.tensor([1 / 2.0, 1 / 8.0], dtype=torch.float64)  # sigma of 1 and 2
    several = loss(mmd_type="quadratic", bandwidth=1.0, kernel_scales=scales)
    others = [Named("mean of Gaussians", several, mixture((1.0, 2.0), mean=True))]
    return Offer("bandwidth", lambda s: loss(mmd_type="quadratic", bandwidth=s), others)


def of_sbi() -> Offer:
    """Return the kernel of sbi."""
    function = bare("sbi.utils.metrics").unbiased_mmd_squared
    return Offer("scale", lambda s: lambda x, y: function(x, y, scale=s), [])


def of_alibi_detect() -> Offer:
    """Return the kernels of alibi-detect."""
    module, function = bare("alibi_detect.utils.pytorch.kernels"), bare("alibi_detect.utils.pytorch.distance").mmd2

    def value(*sigmas: float) -> Value:
        kernel = module.GaussianRBF(torch.tensor(sigmas, dtype=torch.float64))
        return lambda x, y: function(x, y, kernel)

    others = [
        Named("mean of Gaussians", value(1.0, 2.0), mixture((1.0, 2.0), mean=True)),
        Named("own", lambda x, y: function(x, y, _OwnGram()), GRAMS["own"]),
    ]
    return Offer("sigma", value, others)


def of_torchdrift() -> Offer:
    """Return the kernels of TorchDrift."""
    module = importlib.import_module("torchdrift.detectors.mmd")

    def value(kernel: object) -> Value:
        return lambda x, y: module.kernel_mmd(x, y, n_perm=None, kernel=kernel)

    others = [
        Named("Laplace", value(module.ExpKernel(SIZE)), GRAMS["Laplace"]),
        Named("rational quadratic", value(module.RationalQuadraticKernel(SIZE)), GRAMS["rational quadratic"]),
        Named("own", value(lambda dists: 1 / (1 + dists.square())), GRAMS["own"]),
    ]
    return Offer("lengthscale", lambda s: value(module.GaussianKernel(s)), others)


def of_torchmetrics() -> Offer:
    """Return the kernel of KID of torchmetrics."""
    function = importlib.import_module("torchmetrics.image.kid").poly_mmd
    return Offer("", None, [Named("polynomial", function, GRAMS["polynomial"])])


def of_torch_fidelity() -> Offer:
    """Return the kernels of KID of torch-fidelity."""
    module = importlib.import_module("torch_fidelity.metric_kid")

    def value(kind: str, **options: object) -> Value:
        def of_features(x: Tensor, y: Tensor) -> Tensor:
            found = module.kid_features_to_metric(
                x, y, kid_subsets=1, kid_subset_size=len(x), verbose=False, kid_kernel=kind, **options
            )
            return torch.tensor(found[module.KEY_METRIC_KID_MEAN])

        return of_features

    polynomial = Named("polynomial", value("poly"), GRAMS["polynomial"])
    return Offer("kid_kernel_rbf_sigma", lambda s: value("rbf", kid_kernel_rbf_sigma=s), [polynomial])


def of_ignite() -> Offer:
    """Return the kernel of PyTorch-Ignite."""
    metric_class = importlib.import_module("ignite.metrics").MaximumMeanDiscrepancy

    def value(var: float) -> Value:
        def squared_root(x: Tensor, y: Tensor) -> Tensor:
            metric = metric_class(var=var)
            metric.update((x, y))
            return torch.tensor(metric.compute()).square()

        return squared_root

    return Offer("var", value, [])


OFFERS: dict[str, Callable[[], Offer]] = {
    "this library": of_ours,
    "geomloss": of_geomloss,
    "pytorch-adapt": of_pytorch_adapt,
    "sbi": of_sbi,
    "alibi-detect": of_alibi_detect,
    "TorchDrift": of_torchdrift,
    "torchmetrics": of_torchmetrics,
    "torch-fidelity": of_torch_fidelity,
    "PyTorch-Ignite": of_ignite,
}


def _is(value: Value, gram: Gram) -> bool:
    """Return whether a value is one of the estimates of MMD^2 with the kernel of a Gram matrix."""
    x, y = samples()
    found = value(x, y).double()
    return any(bool((found - form(gram, x, y)).abs() < TOLERANCE * (1 + found.abs())) for form in FORMS)


def formula(offer: Offer) -> str:
    """Return the formula that a library's bandwidth stands in, or an empty string."""
    if offer.gaussian is None:
        return ""
    value = offer.gaussian(SIZE)
    fitting = [name for name, of_size in FORMULAS.items() if _is(value, of_size(SIZE))]
    return fitting[0] if len(fitting) == 1 else "another"


def kernels(offer: Offer) -> list[str]:
    """Return the names of the kernels whose values are as written out."""
    gaussians = ["Gaussian"] if offer.gaussian is not None else []
    return [*gaussians, *(kernel.name for kernel in offer.others if _is(kernel.value, kernel.gram))]
