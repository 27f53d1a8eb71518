"""Networks that map images to features: Inception of 2015, a small classifier, or a network of the user."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from classifier import restore
from torch import Tensor, nn
from training import find_modules_here, need
from training.batches import centred, to_pixels

from evaluation.provenance import digest_of_file, digest_of_network

INCEPTION = "inception"


class Features(NamedTuple):
    """A network for features, in eval mode and without gradients."""

    name: str  # used in the names of result files
    network: nn.Module  # maps images in [-1, 1] to features (n, d), or to a pair of features and logits
    provenance: dict[str, Any]  # includes the `dimension` of the features and the number of `logits`


class Inception(nn.Module):
    """The Inception network of 2015, in torch-fidelity's conversion, for images in [-1, 1] that were bytes."""

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

        try:
            parts = ["2048", "logits_unbiased"]
            self.network = FeatureExtractorInceptionV3(INCEPTION, parts, weights and str(weights))
        except OSError as error:
            place = f"{torch.hub.get_dir()}/checkpoints"
            advice = f"Fetch {URL_INCEPTION_V3} elsewhere and put it into {place}"
            message = (
                f"features: the weights of Inception cannot be read ({error}). {advice}, or name the file by "
                "--inception-weights of evaluate.py; or choose other features."
            )
            raise ValueError(message) from error

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features `(n, 2048)` and the logits `(n, 1008)`; grey images get three equal channels."""
        return self.network(to_pixels(images).expand(-1, 3, -1, -1))


def load(choice: str, *, shape: tuple[int, ...], inception_weights: Path | None = None) -> Features:
    """Return the network that a user chooses, for images of a shape; raise an error if it cannot be used.

    The choice is `"inception"`, with weights that torch-fidelity downloads by default; the path of a file that
    `examples/classifier.py` wrote; or the path of a Python file for `of_python`.
    """
    network: nn.Module
    path = Path(choice)
    about: dict[str, Any] = {"name": path.name, "resize": "none"}
    if choice == INCEPTION:
        need("torch_fidelity", "torchvision")
        network = Inception(inception_weights)
        about["name"] = "inception-v3-compat of torch-fidelity (2015-12-05)"
        about["resize"] = "to 299 x 299, bilinear as in TensorFlow 1"
    elif not path.is_file():
        raise ValueError(f"features: expected {INCEPTION} or the path of a file, got {choice}")
    elif path.suffix == ".py":
        network = of_python(path)
    else:
        network, about["origin"] = restore(path)
    network.eval().requires_grad_(False)
    try:
        features, logits = outputs(network, torch.zeros(2, *shape, dtype=torch.uint8))
    except RuntimeError as error:
        raise ValueError(f"features: {choice} cannot take images of shape {shape}: {error}") from error
    if choice != INCEPTION:
        about["sha256"] = digest_of_file(path)
    about["sha256_of_weights"] = digest_of_network(network)
    about |= {"dimension": features.shape[1], "logits": logits.shape[1]}
    return Features(path.stem, network, about)


def of_python(path: Path) -> nn.Module:
    """Return the network that `load()` in a Python file returns; the file may import modules in the current folder."""
    find_modules_here()
    try:
        network = runpy.run_path(str(path)).get("load", object)()
    except Exception as error:  # of any kind, since the code of users may raise any
        raise ValueError(f"features: {path} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"features: expected {path} to have a function load() that returns a torch.nn.Module")
    return network


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
