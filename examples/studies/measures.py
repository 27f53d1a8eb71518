"""Measures of the samples of a checkpoint, by a classifier that is not used in any loss and by an encoder that is."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import evaluate
import torch
from classifier import restore
from evaluation import features, metrics, provenance
from one_step import encoders
from one_step.data import classes_of
from torch import Tensor
from training import checkpoints
from training.batches import centred
from training.images import Images

BATCH, SEED = 500, 0
"""Number of images that go through a network at once; seed of noise, real images and subsets."""
FAKE = 256
"""Number of images in the data set `fake`, which rehearsals use in place of real images."""


class Real(NamedTuple):
    """Features and shares of classes of real images of the test split."""

    features: Tensor
    shares: Tensor
    of_encoder: Tensor


class Judge:
    """Compares images with those of the test split, outside the CPU time of a training.

    Args:
        path: a network that examples/classifier.py trained and that is not used in any loss.
        encoder: name of an encoder in `one_step.encoders` that losses use.
        images: number of generated images, and of real images.
        data_root: folder of the data sets.
    """

    def __init__(self, path: Path, encoder: str, *, images: int, data_root: Path) -> None:
        shape = restore(path)[0].shape
        channels, size = shape["channels"], shape["size"]
        self._shape: dict[str, Any] = {"channels": channels, "size": size}
        self._unseen, self._about = features.load(str(path), shape=(channels, size, size))
        self._encoder = encoders.load(encoder, channels=channels)
        self._images, self._root = images, data_root
        self._known: Real | None = None

    @property
    def provenance(self) -> dict[str, Any]:
        """All that determines the numbers, with versions, machine, date and command."""
        return {
            "unseen": self._about,
            "encoder": {"name": self._encoder.name, "sha256": provenance.digest_of_network(self._encoder)},
            "images": {"measured": self._images, "real": self._images, "split": "test"},
            "seed_of_measures": SEED,
            "kid": {"subsets": metrics.SUBSETS, "subset_size": min(metrics.SUBSET_SIZE, self._images)},
            **provenance.circumstances(),
        }

    def checkpoint(self, path: Path, *, whole: bool) -> dict[str, Any]:
        """Return the line of a raw log with the measures of a checkpoint.

        Args:
            path: the checkpoint.
            whole: add the measures that take longer, KID and the Frechet distance by the encoder.
        """
        compared = evaluate.generated(self._options(run=path), path)
        state = checkpoints.read(path)
        # The noise of the images, which contains their classes.
        settings = compared.origin["configuration"]
        asked = None
        if settings.get("conditional"):
            sampler = import_module(f"{state['paper']}.train").sampler(settings)
            noise = sampler.noise(self._images, torch.Generator().manual_seed(SEED))
            asked = noise[:, settings["noise"] :].argmax(1)
        at = {"iteration": state["iteration"], "cpu_seconds": round(state["clock"]["seconds"], 2)}
        return at | self._measured(compared.measured(self._images), compared.real, asked, whole)

    def floor(self, dataset: str) -> dict[str, Any]:
        """Return the measures of training images in place of generated images."""
        compared = evaluate.floor(self._options(floor=dataset), dataset)
        pixels = compared.measured(self._images)
        classes = classes_of(dataset, self._root, FAKE)
        asked = evaluate.picked(classes, self._images, SEED)
        return self._measured(pixels, compared.real, asked, True)

    def _options(self, **which: Any) -> evaluate.Options:  # noqa: ANN401
        return evaluate.Options(
            split="test", data_root=self._root, device="cpu", batch_size=BATCH, seed=SEED, **self._shape, **which
        )

    def _measured(self, pixels: Tensor, real: Images, asked: Tensor | None, whole: bool) -> dict[str, Any]:
        ours, logits = self._seen_by_classifier(pixels)
        if self._known is None:
            others = evaluate.picked(real, self._images, SEED)
            found, of_real = self._seen_by_classifier(others)
            self._known = Real(found, metrics.class_shares(of_real), self._seen_by_encoder(others))
        shares = metrics.class_shares(logits)
        numbers = metrics.frechet_distance(ours, self._known.features)
        numbers |= metrics.class_coverage(shares, self._known.shares)
        if asked is not None:
            numbers["agreement"] = (logits.argmax(1) == asked).double().mean().item()
        if whole:
            torch.manual_seed(SEED)
            subset = min(metrics.SUBSET_SIZE, self._images)
            numbers |= metrics.kernel_distance(ours, self._known.features, subset)
            of_encoder = metrics.frechet_distance(self._seen_by_encoder(pixels), self._known.of_encoder)
            numbers["fid_of_encoder"] = of_encoder["fid"]
        return {"metrics": numbers, "class_shares": shares.tolist()}

    def _seen_by_classifier(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return features.extract(self._unseen, pixels, BATCH, torch.device("cpu"))

    @torch.no_grad()
    def _seen_by_encoder(self, pixels: Tensor) -> Tensor:
        return torch.cat([self._encoder(centred(part)) for part in pixels.split(BATCH)]).double()
