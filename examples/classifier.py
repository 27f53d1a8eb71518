"""Train a small classifier of Fashion-MNIST or CIFAR-10, whose features measure the samples of a GAN.

One thread, so that the same command on the same machine gives the same weights bit for bit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from dcgan import labels, prepared, randomness
from dcgan.batches import to_images
from dcgan.configuration import FORMATS
from dcgan.sources import MissingDataError
from evaluation import provenance
from evaluation.arguments import integer
from evaluation.classifier import Classifier, save
from torch import Tensor
from torch.nn import functional as F

BATCH, RATE = 128, 3e-3


@dataclass(frozen=True)
class Split:
    """Images `(n, channels, size, size)` of unsigned bytes, and their classes `(n,)`."""

    images: Tensor
    labels: Tensor


def read(dataset: str, root: Path, split: str) -> Split:
    """Return a split of a data set."""
    size, channels = FORMATS[dataset] or (0, 0)
    images = prepared.load(dataset, root, size=size, channels=channels, split=split)
    return Split(torch.from_numpy(np.array(images)), torch.from_numpy(labels.load(dataset, root, split=split)))


def train(data: Split, classes: int, epochs: int) -> Classifier:
    """Return a classifier that saw all images in each epoch, some of them mirrored."""
    network = Classifier(size=data.images.shape[-1], channels=data.images.shape[1], classes=classes)
    adam = torch.optim.Adam(network.parameters())
    steps = len(data.images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, total_steps=epochs * steps)
    for epoch in range(epochs):
        for picked in torch.randperm(len(data.images))[: steps * BATCH].split(BATCH):
            adam.zero_grad()
            _, logits = network(_mirrored(to_images(data.images[picked], torch.device("cpu"))))
            loss = F.cross_entropy(logits, data.labels[picked])
            loss.backward()
            adam.step()
            schedule.step()
        print(f"Epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
    return network.eval().requires_grad_(False)


def accuracy(network: Classifier, data: Split) -> float:
    """Return the share of images whose class is recognised."""
    parts = zip(data.images.split(1000), data.labels.split(1000), strict=True)
    right = [network(to_images(images, torch.device("cpu")))[1].argmax(1) == classes for images, classes in parts]
    return torch.cat(right).double().mean().item()


def main(arguments: Sequence[str] | None = None) -> Path:
    """Do what the command line says, and return the path of the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--dataset", choices=tuple(labels.CLASSES), default="fashion-mnist", help="what to classify (%(default)s)")
    add("--data-root", type=Path, default=Path("data"), help="folder of the data sets (%(default)s)")
    add("--epochs", type=integer(1), default=8, help="how often all images are seen (%(default)s)")
    add("--seed", type=integer(0, 2**32 - 1), default=0, help="decides all that is random (%(default)s)")
    add("--out", type=Path, help="where to write the weights (runs/classifiers/DATASET.pt)")
    options = parser.parse_args(arguments)
    out: Path = options.out or Path("runs/classifiers") / f"{options.dataset}.pt"
    torch.set_num_threads(1)
    try:
        training, test = (read(options.dataset, options.data_root, split) for split in ("train", "test"))
    except (MissingDataError, ValueError) as error:
        parser.error(str(error))
    start = time.perf_counter()
    randomness.seed(options.seed)
    network = train(training, len(labels.CLASSES[options.dataset]), options.epochs)
    share = accuracy(network, test)
    origin = {
        "dataset": options.dataset,
        "test_accuracy": share,
        "epochs": options.epochs,
        "seed": options.seed,
        "seconds": round(time.perf_counter() - start, 1),
        **provenance.circumstances("examples/classifier.py", arguments),
    }
    save(out, network, origin)
    print(f"Recognises {share:.2%} of {len(test.images):,} test images. Weights: {out}")
    print(f"SHA-256 of the weights: {provenance.digest_of_network(network)}")
    return out


def _mirrored(images: Tensor) -> Tensor:
    """Return images of which a random half is mirrored."""
    return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)


if __name__ == "__main__":
    main()
