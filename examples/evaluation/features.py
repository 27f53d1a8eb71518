"""What turns images into features: the Inception network of 2015, or a network of the user."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from dcgan.batches import to_images
from torch import Tensor, nn

from evaluation import classifier
from evaluation.provenance import digest_of_file, digest_of_network

INCEPTION = "inception"


@dataclass(frozen=True)
class Features:
    """An extractor of features."""

    name: str
    """What it is called in the names of files."""
    channels: int | None
    """How many channels its images have to have; None for those of the data set."""
    network: nn.Module | None
    """Maps images in [-1, 1] to features `(n, d)`, or to features and logits; None for Inception."""
    weights: Path | None
    """The file of Inception's weights."""
    has_logits: bool
    provenance: dict[str, Any] = field(repr=False)
    """What to write down about it."""


class FeaturesError(ValueError):
    """A network's output is not what features have to be."""


def load(choice: str, *, inception_weights: Path | None, shape: tuple[int, ...]) -> Features:
    """Return Inception, or the network in a file.

    Args:
        choice: `"inception"`; or the path of weights that `examples/classifier.py` wrote; or that of a Python file with
            a function `load()` that returns a module.
        inception_weights: a file of Inception's weights; by default that which torch-fidelity downloads.
        shape: the shape of one image of the data set.

    Raises:
        FeaturesError: if the network's output is no matrix of features, or no pair of features and logits.
        ValueError: if a file is missing, or is none of these.
    """
    if choice == INCEPTION:
        return _inception(inception_weights or downloaded_inception())
    path = Path(choice)
    if not path.is_file():
        raise ValueError(f"features: expected {INCEPTION} or the path of a file, got {choice}")
    network, origin = _from_python(path) if path.suffix == ".py" else classifier.load(path)
    network.eval().requires_grad_(False)
    try:
        features, logits = outputs(network, torch.zeros(2, *shape, dtype=torch.uint8))
    except RuntimeError as error:
        raise FeaturesError(f"features: {path} cannot take images of shape {shape}: {error}") from error
    return Features(
        name=path.stem,
        channels=None,
        network=network,
        weights=None,
        has_logits=logits is not None,
        provenance={
            "name": path.name,
            "sha256": digest_of_file(path),
            "sha256_of_weights": digest_of_network(network),
            "dimension": features.shape[1],
            "resize": "none",
            "origin": origin,
        },
    )


def outputs(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return a network's features of images of unsigned bytes, and its logits if it has any, in float64.

    Raises:
        FeaturesError: if they are not matrices of finite numbers with a row for each image.
    """
    found = network(to_images(pixels, pixels.device))
    pair = found if isinstance(found, tuple | list) else (found,)
    if len(pair) not in (1, 2) or not all(isinstance(part, Tensor) and part.ndim == 2 for part in pair):
        raise FeaturesError("features: expected a network that returns (n, d), or a pair of such, features and logits")
    for what, part in zip(("features", "logits"), pair, strict=False):
        if len(part) != len(pixels):
            raise FeaturesError(f"features: expected a row of {what} for each of {len(pixels)} images, got {len(part)}")
        if not part.isfinite().all():
            raise FeaturesError(f"features: some {what} of the network are no finite numbers")
    return pair[0].double(), pair[1].double() if len(pair) == 2 else None


def downloaded_inception() -> Path:
    """Return the file of Inception's weights where torch-fidelity looks for it; download it if it is not there.

    Raises:
        ModuleNotFoundError: if torch-fidelity is not installed.
        ValueError: if it cannot be downloaded.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: pip install -e '.[paper]'") from error
    path = Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rpartition("/")[2]
    if not path.exists():
        try:
            torch.hub.load_state_dict_from_url(URL_INCEPTION_V3, progress=False, check_hash=True)
        except (URLError, OSError, RuntimeError) as error:
            raise ValueError(
                f"features: the weights of Inception cannot be downloaded ({error}). Fetch {URL_INCEPTION_V3} "
                f"elsewhere and put it at {path}, or name it by --inception-weights; or measure with a network of your "
                "own by --features."
            ) from error
    return path


def _inception(weights: Path) -> Features:
    if not weights.is_file():
        raise ValueError(f"inception_weights: there is no file {weights}")
    return Features(
        name=INCEPTION,
        channels=3,
        network=None,
        weights=weights,
        has_logits=True,
        provenance={
            "name": "inception-v3-compat of torch-fidelity (2015-12-05)",
            "sha256": digest_of_file(weights),
            "dimension": 2048,
            "layers": {"is": "logits_unbiased", "fid": "2048", "kid": "2048"},
            "resize": "to 299 x 299, bilinear as in TensorFlow 1, inside the extractor",
        },
    )


def _from_python(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    found = importlib.util.spec_from_file_location(f"features_{path.stem}", path)
    assert found is not None  # as for every name that ends in .py
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    network = module.load() if hasattr(module, "load") else None
    if not isinstance(network, nn.Module):
        raise ValueError(f"features: expected {path} to have a function load() that returns a torch.nn.Module")
    return network, {}
