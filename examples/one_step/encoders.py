"""The frozen networks whose features are compared: built here, or loaded from files by their projects' own loaders."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training import find_modules_here
from training.errors import RefusedError

from one_step.networks import RandomFeatures

KINDS = """
random:SEED               convolutional network with random weights
pixels:SIZE               the image itself, reduced to SIZE x SIZE pixels
classifier:PATH           last hidden layer of a network trained by examples/classifier.py
classifier-maps:PATH      the same layer, and averages of the network's feature maps
jit:PATH                  network saved by torch.jit.save
export:PATH               network saved by torch.export.save
dinov2:FOLDER:NAME=PATH   DINOv2: clone of its repository, name of the model, weights
clip:NAME=PATH            CLIP by open_clip: name of the model, weights
inception=PATH            Inception of the FID by torch-fidelity: weights
MODULE:FUNCTION[=PATH]    network returned by your function, with weights from a file
"""
"""Encoders that can be named. Networks of users get images in [-1, 1] and return features `(n, d)`."""

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation by which the networks expect the colours of images in [0, 1] to be normalised."""


class Encoder(nn.Module):
    """A frozen network whose features can be standardised. Gradients flow to the images.

    Args:
        name: name in logs.
        network: the network, whose weights are frozen.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        self.name = name
        with suppress(NotImplementedError):  # an exported network has no modes
            network.eval()
        for weight in network.parameters():  # a ScriptModule has no requires_grad_
            weight.requires_grad_(False)
        self.network = network
        self.register_buffer("mean", torch.zeros(()), persistent=False)
        self.register_buffer("deviation", torch.ones(()), persistent=False)

    def train(self, mode: bool = True) -> Encoder:
        """Stay in eval mode."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return features `(n, d)` in float32 or float64 of images `(n, channels, h, w)` in [-1, 1].

        Raises:
            RefusedError: if the network fails, or returns anything but features.
        """
        try:
            features = self.network(images)
        except RuntimeError as error:
            shape = "x".join(map(str, images.shape[1:]))
            raise RefusedError(f"encoder: {self.name} cannot take images of {shape}: {error}") from error
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
            found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise RefusedError(f"encoder: expected {self.name} to return ({len(images)}, d), got {found}")
        return self._standardised(features.to(torch.promote_types(features.dtype, torch.float32)))

    def standardise_by(self, features: Tensor) -> Callable[[Tensor], Tensor]:
        """Standardise all later features by the mean and the standard deviation of features `(n, d)`.

        Features that are the same for all images are only shifted.

        Returns:
            The function that standardises features.
        """
        deviation, mean = torch.std_mean(features.double(), 0)
        varies = deviation > 1e-6 * deviation.max()
        self.mean = mean.float().to(self.mean.device)
        self.deviation = deviation.where(varies, 1.0).float().to(self.mean.device)
        return self._standardised

    def _standardised(self, features: Tensor) -> Tensor:
        return (features - self.mean.to(features)) / self.deviation.to(features)


class Resized(nn.Module):
    """Resizes and normalises images in [-1, 1] for a network that expects colour images of one size."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: Callable[[Tensor], Tensor], network: nn.Module, size: int, of: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.network, self.size = network, size
        self._features = features
        mean, deviation = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in of)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return features of images of any size, with one channel or three."""
        size = (self.size, self.size)
        fitted = F.interpolate(coloured(images), size, mode="bicubic", antialias=True, align_corners=False)
        return self._features(((fitted + 1) / 2 - self.mean) / self.deviation)


class Maps(nn.Module):
    """Features of a classifier, and its feature maps averaged over the four quarters of the image."""

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        """Return features `(n, d)`."""
        found, outputs = [], images
        for layer in self.features:
            outputs = layer(outputs)
            if isinstance(layer, nn.ReLU):
                found.append(F.adaptive_avg_pool2d(outputs, 2).flatten(1))
        return torch.cat([*found, outputs], 1)


class Inception(nn.Module):
    """The 2048 features of the FID with gradients; torch-fidelity's own `forward` only takes bytes."""

    def __init__(self, network: nn.Module, resize: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network, self._resize = network, resize

    def forward(self, images: Tensor) -> Tensor:
        """Return the output of the last pooling layer, `(n, 2048)`."""
        outputs = self._resize(coloured(images) * 127.5 + 127.5, size=(299, 299), align_corners=False)
        outputs = (outputs - 128) / 128
        for name, layer in self.network.named_children():  # in the order in which they are applied
            if name != "fc":
                outputs = layer(outputs)
        return outputs.flatten(1)


def coloured(images: Tensor) -> Tensor:
    """Return images with three channels."""
    return images.expand(-1, 3, -1, -1)


def load(choice: str, *, channels: int) -> Encoder:
    """Return the encoder named by an option, on the CPU.

    Args:
        choice: see `KINDS`.
        channels: number of channels of the images, for random networks.

    Raises:
        RefusedError: if the encoder cannot be loaded.
    """
    head, _, path = choice.partition("=")
    kind, _, rest = head.partition(":")
    try:
        if kind in _LOADERS:
            network = _LOADERS[kind](rest, path, channels)
        elif rest:
            network = _of_function(kind, rest, path)
        else:
            raise ValueError(f"expected one of{KINDS}")
    except RefusedError:
        raise
    except Exception as error:  # of any kind, since files and functions of users may raise any
        reason = str(error) or type(error).__name__
        raise RefusedError(f"encoder: {choice} cannot be loaded: {reason}") from error
    return Encoder(choice, network)


def _random(seed: str, _: str, channels: int) -> nn.Module:
    return RandomFeatures(channels, int(seed or 0))


def _pixels(size: str, _: str, __: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(int(size or 16)), nn.Flatten())


def _classifier(path: str, _: str, __: int) -> nn.Module:
    return _trained_features(path)


def _classifier_maps(path: str, _: str, __: int) -> nn.Module:
    return Maps(_trained_features(path))


def _trained_features(path: str) -> nn.Sequential:
    from classifier import restore  # needs packages that no other encoder needs

    return restore(_file(path))[0].features


def _jit(path: str, _: str, __: int) -> nn.Module:
    return torch.jit.load(_file(path), map_location="cpu")


def _export(path: str, _: str, __: int) -> nn.Module:
    return torch.export.load(_file(path)).module()


def _dinov2(which: str, weights: str, _: int) -> nn.Module:
    folder, name = which.rpartition(":")[::2]
    network = torch.hub.load(str(Path(folder).expanduser()), name, source="local", pretrained=False)
    _put_in(network, weights)
    return Resized(network, network, 224, IMAGENET)


def _clip(name: str, weights: str, _: int) -> nn.Module:
    import open_clip

    network = open_clip.create_model(name, pretrained=str(_file(weights)))
    size = network.visual.image_size
    of = (getattr(network.visual, "image_mean", CLIP[0]), getattr(network.visual, "image_std", CLIP[1]))
    return Resized(network.encode_image, network, size[0] if isinstance(size, Sequence) else size, of)


def _inception(_: str, weights: str, __: int) -> nn.Module:
    from torch_fidelity import feature_extractor_inceptionv3 as found

    network = found.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=_file(weights))
    return Inception(network, found.interpolate_bilinear_2d_like_tensorflow1x)


def _of_function(module: str, function: str, weights: str) -> nn.Module:
    find_modules_here()
    make = getattr(importlib.import_module(module), function)
    with suppress(ValueError):  # raised for functions that are not written in Python
        needed = [name for name, each in inspect.signature(make).parameters.items() if _is_needed(each)]
        if needed:
            raise TypeError(f"{function} is called without arguments, but needs {', '.join(needed)}")
    network = make()
    if not isinstance(network, nn.Module):
        raise TypeError(f"expected {function}() to return a torch.nn.Module, got {type(network).__name__}")
    if weights:
        _put_in(network, weights)
    return network


def _is_needed(parameter: inspect.Parameter) -> bool:
    """Return whether a call has to pass this parameter."""
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in optional


def _put_in(network: nn.Module, weights: str) -> None:
    network.load_state_dict(torch.load(_file(weights), map_location="cpu", weights_only=True))


def _file(path: str) -> Path:
    file = Path(path).expanduser()  # the shell leaves a ~ within an option as it is
    if not file.is_file():
        raise RefusedError(f"encoder: there is no file {path or 'of weights; name it by =PATH'}")
    return file


_LOADERS: dict[str, Callable[[str, str, int], nn.Module]] = {
    "random": _random,
    "pixels": _pixels,
    "classifier": _classifier,
    "classifier-maps": _classifier_maps,
    "jit": _jit,
    "export": _export,
    "dinov2": _dinov2,
    "clip": _clip,
    "inception": _inception,
}
