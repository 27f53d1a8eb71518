"""Inception score, Frechet and kernel distance, computed by torch-fidelity in any features."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch_fidelity
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from evaluation.features import Features, outputs
from evaluation.images import Pixels
from evaluation.metrics import SUBSETS, Settings

NAMES = {
    torch_fidelity.KEY_METRIC_ISC_MEAN: "inception_score_mean",
    torch_fidelity.KEY_METRIC_ISC_STD: "inception_score_std",
    torch_fidelity.KEY_METRIC_FID: "fid",
    torch_fidelity.KEY_METRIC_KID_MEAN: "kid_mean",
    torch_fidelity.KEY_METRIC_KID_STD: "kid_std",
}
"""What torch-fidelity calls the numbers, and what they are called in the results."""


def measure(features: Features, measured: Pixels, real: Pixels, how: Settings) -> dict[str, float]:
    """Return those of the metrics `is`, `fid` and `kid` that are asked for.

    Args:
        features: the extractor.
        measured: what is measured, mostly generated images.
        real: what it is compared with.
        how: the settings, of which the seed decides the subsets of the kernel distance.
    """
    on_gpu = how.device.type == "cuda"
    with torch.cuda.device(how.device) if on_gpu else contextlib.nullcontext():
        found = torch_fidelity.calculate_metrics(
            input1=_Images(measured, features.channels),
            input2=_Images(real, features.channels),
            isc="is" in how.metrics,
            fid="fid" in how.metrics,
            kid="kid" in how.metrics,
            **_extractor(features),
            isc_splits=how.splits,
            kid_subsets=SUBSETS,
            kid_subset_size=how.subset_size,
            rng_seed=how.seed,
            batch_size=how.batch_size,
            cuda=on_gpu,
            cache=False,
            save_cpu_ram=True,  # which means here: no workers, as the images are in memory
            verbose=False,
        )
    return {NAMES[name]: value for name, value in found.items()}


def _extractor(features: Features) -> dict[str, Any]:
    if features.network is None:
        return {"feature_extractor": "inception-v3-compat", "feature_extractor_weights_path": str(features.weights)}
    name = f"{features.name}-{len(FEATURE_EXTRACTORS_REGISTRY)}"  # which is new: none can be taken out of the registry
    torch_fidelity.register_feature_extractor(name, _registrable(features.network))
    return {"feature_extractor": name}


def _registrable(network: torch.nn.Module) -> type[torch_fidelity.FeatureExtractorBase]:
    class Extractor(torch_fidelity.FeatureExtractorBase):  # type: ignore[misc]
        """A network in the interface of torch-fidelity."""

        def __init__(self, name: str, features_list: list[str], **options: object) -> None:
            super().__init__(name, features_list)
            self.network = network

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return "features", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
            found: dict[str, Any] = dict(zip(("features", "logits"), outputs(self.network, pixels), strict=True))
            return tuple(found[name] for name in self.features_list)

    return Extractor


class _Images(Dataset[Tensor]):
    """Images in memory, the grey ones repeated if the extractor wants colours."""

    def __init__(self, pixels: Pixels, channels: int | None) -> None:
        self._pixels = torch.from_numpy(pixels)
        self._repeats = 1 if channels is None else channels // pixels.shape[1]

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self._pixels[index].repeat(self._repeats, 1, 1)
