"""Networks that map images to features: Inception of 2015, a small classifier, or a network of the user."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import torch
from classifier import restore
from torch import Tensor, nn
from training import find_modules_here, need
from training.batches import centred, to_pixels

from evaluation.provenance import digest_of_file, digest_of_network

INCEPTION = "inception"


class Inception(nn.Module):
    """The Inception network of 2015, in torch-fidelity's conversion, for images in [-1, 1] that were bytes."""

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

        try:
            parts = ["2048", "logits_unbiased"]
            self.network = FeatureExtractorInceptionV3(INCEPTION, parts, weights and str(weights))
        except OSError as error:
            problem = f"the weights of Inception cannot be read ({error}). Fetch {URL_INCEPTION_V3} elsewhere"
            place = f"put it into {torch.hub.get_dir()}/checkpoints, or name the file by --inception-weights"
            raise ValueError(f"features: {problem} and {place} of evaluate.py; or choose other features.") from error

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features `(n, 2048)` and the logits `(n, 1008)`; grey images get three equal channels."""
        return self.network(to_pixels(images).expand(-1, 3, -1, -1))


def load(choice: str, shape: tuple[int, ...], weights: Path | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network that maps images of a shape in [-1, 1] to features, or features and logits, and its provenance.

    The choice is `"inception"`, whose `weights` torch-fidelity downloads by default; the path of a file of
    `examples/classifier.py`; or that of a Python file for `of_python`. The provenance has the `dimension` of the
    features and the number of `logits`. A choice that cannot be used raises `ValueError` or `RefusedError`.
    """
    network: nn.Module
    path = Path(choice)
    about: dict[str, Any] = {"name": path.name, "resize": "none"}
    if choice == INCEPTION:
        need("torch_fidelity", "torchvision")
        network, about["name"] = Inception(weights), "inception-v3-compat of torch-fidelity (2015-12-05)"
        about["resize"] = "to 299 x 299, bilinear as in TensorFlow 1"
    elif not path.is_file():
        raise ValueError(f"features: expected {INCEPTION} or the path of a file, got {choice}")
    elif path.suffix == ".py":
        network, about["sha256"] = of_python(path), digest_of_file(path)
    else:
        network, about["origin"] = restore(path)
    network.eval().requires_grad_(False)
    try:
        features, logits = outputs(network, torch.zeros(2, *shape, dtype=torch.uint8))
    except RuntimeError as error:
        raise ValueError(f"features: {choice} cannot take images of shape {shape}: {error}") from error
    about |= {"dimension": features.shape[1], "logits": logits.shape[1]}
    return network, about | {"sha256_of_weights": digest_of_network(network)}


def of_python(path: Path) -> nn.Module:
    """Return the network that `load()` in a Python file returns; the file may import modules in the current folder."""
    find_modules_here()
    try:
        return runpy.run_path(str(path))["load"]().eval().requires_grad_(False)
    except Exception as error:  # of any kind, since the code of users may raise any
        expected = f"expected a function load() in {path} that returns a torch.nn.Module"
        raise ValueError(f"features: {expected}, got {type(error).__name__}: {error}") from error


def outputs(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return a network's features of images in bytes and its logits, in float64; `(n, 0)` if it has no logits."""
    found = network(centred(pixels))
    pair = found if isinstance(found, tuple | list) else (found,)
    tensors = all(isinstance(part, Tensor) and part.ndim == 2 and len(part) == len(pixels) for part in pair)
    if len(pair) > 2 or not tensors or not all(part.isfinite().all() for part in pair):
        rows = f"{len(pixels)} rows of finite numbers"
        raise ValueError(f"features: expected features of {rows}, or a pair with logits, got {found}")
    return pair[0].double(), pair[1].double() if len(pair) == 2 else pair[0].new_empty(len(pixels), 0)


@torch.no_grad()  # and not in inference mode, in which processes could not average the features in place
def extract(network: nn.Module, pixels: Tensor, batch_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the features and logits of many images, on the CPU."""
    parts = [outputs(network.to(device), part.to(device)) for part in pixels.split(batch_size)]
    return torch.cat([features.cpu() for features, _ in parts]), torch.cat([logits.cpu() for _, logits in parts])
