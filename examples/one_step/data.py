"""The classes of the images, their split into training and held-out images, and their features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader
from training.batches import centred
from training.errors import RefusedError
from training.images import Images, fashion_mnist_data, files, torchvision

from one_step.encoders import Encoder

FAKE_CLASSES = 4


def classes_of(dataset: str, root: Path, count: int) -> Tensor:
    """Return the class of each image, `(n,)`, as integers from 0 without gaps.

    The classes of a folder are its subfolders in alphabetical order.

    Raises:
        RefusedError: if an image of a folder is not in a subfolder.
    """
    if dataset == "fake":
        return torch.arange(count) % FAKE_CLASSES
    if dataset == "folder":
        names = [path.relative_to(root).parts[0] for path in files(root)]
        alone = next((path for path in files(root) if path.parent == root), None)
        if alone is not None:
            raise RefusedError(f"conditional: expected each image in a subfolder of {root} for its class, got {alone}")
        numbers = {name: number for number, name in enumerate(sorted(set(names)))}
        return torch.tensor([numbers[name] for name in names])
    if dataset == "fashion-mnist":
        return torch.as_tensor(fashion_mnist_data(root, train=True).targets)
    return torch.as_tensor(torchvision().CIFAR10(root, train=True).targets)


def split(count: int, held_out: int, seed: int, learnt: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the indices of the training images and of the held-out images, split at random.

    The training images are all others, or as many of them as `learnt`.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held_out:][:learnt].sort().values, order[:held_out]


@torch.no_grad()
def features_of(
    images: Images, numbers: Tensor, encoders: Sequence[Encoder], *, fabric: Fabric, chunk: int, workers: int
) -> list[Tensor]:
    """Return the features `(n, d)` of the images with the given indices by each encoder, on the CPU.

    Each process encodes its share of the images and returns the features of all.
    """
    world, rank = fabric.world_size, fabric.global_rank
    # All shares have the same length, so the last image may be encoded twice.
    own = numbers[(torch.arange(-(-len(numbers) // world)) * world + rank).clamp(max=len(numbers) - 1)]
    parts: list[list[Tensor]] = [[] for _ in encoders]
    for batch in DataLoader(
        images,  # type: ignore[arg-type]
        batch_size=None,  # the sampler has the indices of whole batches
        sampler=[part.tolist() for part in own.split(chunk)],
        num_workers=workers,
        generator=torch.Generator(),
    ):
        pixels = centred(batch.to(fabric.device))
        for encoder, found in zip(encoders, parts, strict=True):
            features = encoder(pixels)
            if world > 1:  # in the order of the images, which alternates between the processes
                gathered = fabric.all_gather(features)
                features = gathered.transpose(0, 1).flatten(0, 1)  # type: ignore[union-attr]
            found.append(features.cpu())
    return [torch.cat(found)[: len(numbers)] for found in parts]
