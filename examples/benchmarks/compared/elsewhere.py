"""What this library does not have: each entry runs the call of a library that has it."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bare_import import bare
from torch import Tensor, nn

from compared.probes import samples


class Elsewhere(NamedTuple):
    """A feature, the distribution that has it, and a computation that shows it."""

    feature: str
    library: str
    package: str
    shows: Callable[[], bool | int]


def _is_a_distance(function: Callable[[Tensor, Tensor], Any]) -> bool:
    """Return whether a function of two samples is about zero for equal ones and larger for different ones."""
    x, y = samples(20, 20)
    return abs(float(function(x, x))) < 1e-3 < float(function(x, y + 3))


def _geomloss(kind: str, **options: object) -> bool:
    return _is_a_distance(importlib.import_module("geomloss").SamplesLoss(kind, **options))


def _sinkhorn_of_pot() -> bool:
    ot = importlib.import_module("ot")
    return _is_a_distance(lambda x, y: ot.bregman.empirical_sinkhorn_divergence(x, y, reg=1.0))


def _exact_transport() -> bool:
    ot, (x, _) = importlib.import_module("ot"), samples(20, 20)
    weights = torch.full((20,), 1 / 20, dtype=torch.float64)
    cost = ot.emd2(weights, weights, torch.cdist(x, x + 2).square())  # a shift by 2 in each of 3 coordinates
    return abs(float(cost) - 12) < 1e-6


def _unbalanced_transport() -> bool:
    ot, (x, y) = importlib.import_module("ot"), samples(20, 10)
    masses = torch.full((20,), 1 / 20, dtype=torch.float64), torch.full((10,), 1 / 5, dtype=torch.float64)
    return float(ot.unbalanced.sinkhorn_unbalanced2(*masses, torch.cdist(x, y), reg=1.0, reg_m=1.0)) > 0


def _gromov_wasserstein() -> bool:
    ot, (x, _) = importlib.import_module("ot"), samples(10, 10)
    weights = torch.full((10,), 1 / 10, dtype=torch.float64)
    turned = x.flip(1) + 5  # the same shape elsewhere
    return float(ot.gromov.gromov_wasserstein2(torch.cdist(x, x), torch.cdist(turned, turned), weights, weights)) < 1e-3


def _barycenter() -> bool:
    ot = importlib.import_module("ot")
    x, y = samples(20, 20)
    weights = [torch.full((20,), 1 / 20, dtype=torch.float64)] * 2
    return bool(ot.lp.free_support_barycenter([x, y], weights, x[:5].clone()).isfinite().all())


def _keops() -> bool:
    if importlib.util.find_spec("pykeops") is None:
        raise ModuleNotFoundError("pykeops is not installed", name="pykeops")
    return _geomloss("gaussian", blur=1.0, backend="online")


def _online_detector() -> bool:
    detector = bare("alibi_detect.cd.pytorch.mmd_online").MMDDriftOnlineTorch
    torch.manual_seed(0)
    found = detector(torch.randn(200, 2).numpy(), ert=50, window_size=10, n_bootstraps=200, device="cpu", verbose=False)
    states = [bool(found.predict((torch.randn(2) + 5).numpy())["data"]["is_drift"]) for _ in range(20)]
    return any(states)


def _detectors() -> int:
    spec = importlib.util.find_spec("alibi_detect")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("alibi-detect is not installed", name="alibi_detect")
    text = (Path(spec.submodule_search_locations[0]) / "cd" / "__init__.py").read_text(encoding="utf-8")
    assigned = next(node for node in ast.parse(text).body if isinstance(node, ast.Assign))
    return len(ast.literal_eval(assigned.value))


def _joint_mmd() -> bool:
    loss = bare("pytorch_adapt.layers.mmd_loss").MMDLoss(mmd_type="quadratic", bandwidth=2.0)
    x, y = samples()
    return bool(loss([x, x**2], [y, y**2]).isfinite())


def _classifier_test() -> bool:
    x, y = samples(60, 60, dtype=torch.float32)
    return float(bare("sbi.utils.metrics").c2st(x, y + 5)) > 0.9


def _frechet_distance() -> bool:
    metric = importlib.import_module("torchmetrics.image.fid").FrechetInceptionDistance(feature=_Features())
    x, y = samples(50, 50, dtype=torch.float32)
    metric.update(x, real=True)
    metric.update(y, real=False)
    return float(metric.compute()) > 0


class _Features(nn.Module):
    """Three numbers of a sample, as the features of an image."""

    num_features = 3

    def forward(self, images: Tensor) -> Tensor:
        """Return the samples themselves."""
        return images if images.ndim == 2 else torch.zeros(len(images), 3)


def _inception() -> bool:
    module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    return issubclass(module.FeatureExtractorInceptionV3, nn.Module)


def _ksample_tests() -> int:
    return len(importlib.import_module("hyppo.ksample").KSAMP_TESTS)


def _independence_tests() -> int:
    return len(importlib.import_module("hyppo.independence").INDEP_TESTS)


ELSEWHERE = (
    Elsewhere("Sinkhorn divergence", "geomloss", "geomloss", lambda: _geomloss("sinkhorn", p=2, blur=0.1)),
    Elsewhere("Sinkhorn divergence", "POT", "pot", _sinkhorn_of_pot),
    Elsewhere("unbalanced optimal transport", "geomloss", "geomloss", lambda: _geomloss("sinkhorn", reach=1.0)),
    Elsewhere("unbalanced optimal transport", "POT", "pot", _unbalanced_transport),
    Elsewhere("exact optimal transport", "POT", "pot", _exact_transport),
    Elsewhere("Gromov-Wasserstein distance", "POT", "pot", _gromov_wasserstein),
    Elsewhere("barycentres of samples", "POT", "pot", _barycenter),
    Elsewhere("sums compiled by KeOps, for millions of samples in few dimensions", "geomloss", "geomloss", _keops),
    Elsewhere("joint MMD of several layers", "pytorch-adapt", "pytorch-adapt", _joint_mmd),
    Elsewhere("online drift detector, one sample at a time", "alibi-detect", "alibi-detect", _online_detector),
    Elsewhere("drift detectors, number of classes", "alibi-detect", "alibi-detect", _detectors),
    Elsewhere("classifier two-sample test", "sbi", "sbi", _classifier_test),
    Elsewhere("Fréchet distance that accumulates batches", "torchmetrics", "torchmetrics", _frechet_distance),
    Elsewhere("Inception network of the published scores", "torch-fidelity", "torch-fidelity", _inception),
    Elsewhere("tests of two or more samples, number of classes", "hyppo", "hyppo", _ksample_tests),
    Elsewhere("independence tests, number of classes", "hyppo", "hyppo", _independence_tests),
)
"""In this order the page lists them."""
