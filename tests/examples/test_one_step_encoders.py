"""The frozen encoders: each kind is loaded by its real loader, with a small network in place of the large one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import classifier
import pytest
import torch
from one_step import encoders
from one_step.networks import Blur, RandomFeatures, make_generator
from torch import Tensor, nn
from torch.testing import assert_close
from training.errors import RefusedError


class Small(nn.Module):
    """Maps images of any size to 5 features; in training mode they are random."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(4, 5)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


IMAGES = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1

HUB = """
dependencies = ["torch"]
import torch
from torch import nn

def small(pretrained=True):
    assert not pretrained  # else it would be downloaded
    return nn.Sequential(nn.Conv2d(3, 4, 14, 14), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small()


def check(encoder: nn.Module, expected: nn.Module, images: Tensor = IMAGES) -> None:
    """Compare features and the gradients of images, which go through; weights get none."""
    images = images.clone().requires_grad_()
    features = encoder(images)
    (gradient,) = torch.autograd.grad(features.square().sum(), images)
    wanted = expected.eval()(images)
    (wanted_gradient,) = torch.autograd.grad(wanted.square().sum(), images)
    assert_close(features, wanted)
    assert_close(gradient, wanted_gradient)
    assert not any(weight.requires_grad for weight in encoder.parameters())


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_torchscript(small: Small, tmp_path: Path):
    torch.jit.script(small).save(tmp_path / "small.jit")
    encoder = encoders.load(f"jit:{tmp_path / 'small.jit'}", channels=1)
    encoder.train()  # has no effect
    check(encoder, small)


@pytest.mark.slow
def test_an_exported_network(small: Small, tmp_path: Path):
    shapes = {"images": {0: torch.export.Dim("n")}}
    exported = torch.export.export(small.eval(), (IMAGES,), dynamic_shapes=shapes)
    torch.export.save(exported, tmp_path / "small.pt2")
    encoder = encoders.load(f"export:{tmp_path / 'small.pt2'}", channels=1)
    check(encoder, small)
    check(encoder, small, IMAGES[:3])


def test_a_function_with_weights(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = ModuleType("my_networks")
    module.small, module.no_module = Small, lambda: 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_networks", module)
    torch.save(small.state_dict(), tmp_path / "weights.pt")
    check(encoders.load(f"my_networks:small={tmp_path / 'weights.pt'}", channels=1), small)
    with pytest.raises(RefusedError, match="expected no_module.. to return a torch.nn.Module, got int"):
        encoders.load("my_networks:no_module", channels=1)


def test_a_function_that_needs_an_argument_is_refused(monkeypatch: pytest.MonkeyPatch):
    def load(weights: str, width: int = 3, *others: int, size: int, **options: int) -> nn.Module:
        raise AssertionError("called")

    module = ModuleType("my_networks")
    module.load, module.optional = load, lambda width=3, *others, **options: Small()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_networks", module)
    message = "encoder: my_networks:load cannot be loaded: load is called without arguments, but needs weights, size"
    with pytest.raises(RefusedError, match=message):
        encoders.load("my_networks:load", channels=1)
    assert isinstance(encoders.load("my_networks:optional", channels=1).network, Small)


def test_dinov2_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "hubconf.py").write_text(HUB, encoding="utf-8")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 14, 14), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    encoder = encoders.load(f"dinov2:{tmp_path}:small={tmp_path / 'weights.pt'}", channels=1)
    mean, deviation = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in encoders.IMAGENET)
    levels = (torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1)).expand(3, 1, 16, 16)
    assert_close(encoder(levels), network(((levels[:, :, :1, :1].expand(3, 3, 224, 224) + 1) / 2 - mean) / deviation))
    images = IMAGES.clone().requires_grad_()
    encoder(images).sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).all()
    monkeypatch.setenv("HOME", str(tmp_path.parent))  # the shell leaves these as they are
    home = f"~/{tmp_path.name}"
    same = encoders.load(f"dinov2:{home}:small={home}/weights.pt", channels=1)
    assert torch.equal(same(levels), encoder(levels))


class Backbone(nn.Module):
    """Has the interface of DINOv2 in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 14, 14)

    def forward(self, images: Tensor) -> SimpleNamespace:
        assert images.shape[1:] == (3, 224, 224)
        return SimpleNamespace(pooler_output=self.layer(images).mean((2, 3)))


def test_dinov2_from_a_folder_of_hugging_face_as_on_the_page(monkeypatch: pytest.MonkeyPatch):
    page = (Path(__file__).parents[2] / "docs" / "one_step.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(def dinov2\(\).*?)^```$", page, re.DOTALL | re.MULTILINE)
    module, network = ModuleType("my_networks"), Backbone()
    exec(code, vars(module))
    read = {"dinov2-base": network}
    model = SimpleNamespace(from_pretrained=lambda folder, *, local_files_only: local_files_only and read[folder])
    monkeypatch.setitem(sys.modules, "my_networks", module)
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoModel=model))
    encoder = encoders.load("my_networks:dinov2", channels=1)
    mean, deviation = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in encoders.IMAGENET)
    grey = (torch.full((2, 3, 224, 224), 0.5) - mean) / deviation
    assert_close(encoder(torch.zeros(2, 1, 16, 16)), network.layer(grey).mean((2, 3)))
    assert not any(weight.requires_grad for weight in network.parameters())


def test_clip_by_open_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = nn.Conv2d(3, 2, 8, 8)
            self.visual.image_size = (32, 32)  # type: ignore[assignment]

        def encode_image(self, images: Tensor) -> Tensor:
            assert images.shape[1:] == (3, 32, 32)
            return self.visual(images).mean((2, 3))

    def create_model(name: str, pretrained: str) -> nn.Module:
        assert name == "ViT-L-14"
        network = Clip()
        network.load_state_dict(torch.load(pretrained, weights_only=True))
        return network

    monkeypatch.setitem(sys.modules, "open_clip", SimpleNamespace(create_model=create_model))
    network = Clip()
    torch.save(network.state_dict(), tmp_path / "clip.pt")
    encoder = encoders.load(f"clip:ViT-L-14={tmp_path / 'clip.pt'}", channels=1)
    mean, deviation = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in encoders.CLIP)
    grey = torch.zeros(2, 1, 16, 16)
    assert_close(encoder(grey), network.encode_image((torch.full((2, 3, 32, 32), 0.5) - mean) / deviation))


@pytest.mark.paper
def test_inception_has_the_features_of_torch_fidelity_and_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(extractor.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        patch.setattr(extractor, "load_state_dict_from_url", lambda *args, **kwargs: {})
        network = extractor.FeatureExtractorInceptionV3("inception", ["2048"])
    torch.save(network.state_dict(), tmp_path / "inception.pt")
    encoder = encoders.load(f"inception={tmp_path / 'inception.pt'}", channels=1)
    pixels = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    images = (pixels / 127.5 - 1).requires_grad_()
    features = encoder(images)
    assert features.shape == (2, 2048)
    assert_close(features, network(pixels.expand(-1, 3, -1, -1))[0], rtol=1e-3, atol=1e-4)
    features.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_a_classifier_and_its_maps(tmp_path: Path):
    torch.manual_seed(0)
    network = classifier.Classifier(size=16, channels=1, classes=3)
    network(IMAGES)  # so that its normalisations know something
    classifier.save(tmp_path / "classifier.pt", network.eval(), {})
    plain, maps = (
        encoders.load(f"{kind}:{tmp_path / 'classifier.pt'}", channels=1) for kind in ("classifier", "classifier-maps")
    )
    check(plain, network.features)
    features = maps(IMAGES)
    assert_close(features[:, -64:], network.features(IMAGES))
    first = network.features[:3](IMAGES)
    assert_close(features[:, : 4 * 24].view(6, 24, 2, 2)[:, :, 1, 0], first[:, :, 4:, :4].mean((2, 3)))


def test_random_features_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = encoders.load("random:3", channels=1)(IMAGES)
    torch.manual_seed(2)
    assert torch.equal(first, encoders.load("random:3", channels=1)(IMAGES))
    assert not torch.equal(first, encoders.load("random:4", channels=1)(IMAGES))
    assert_close(first[:, :64], RandomFeatures(1, 3)(IMAGES)[:, :64])


def test_pixels_are_means_over_parts_of_the_image():
    assert_close(encoders.load("pixels:4", channels=1)(IMAGES), nn.functional.avg_pool2d(IMAGES, 4).flatten(1))


def test_standardised_features_have_mean_0_and_deviation_1_unless_they_are_constant(small: Small):
    encoder = encoders.Encoder("small", small)
    with torch.no_grad():
        small.layers[5].weight[2] = 0  # type: ignore[union-attr, index, operator]
    before = encoder(IMAGES)
    expected = (before - before.mean(0)) / before.std(0).masked_fill(torch.arange(5) == 2, 1)
    assert_close(encoder.standardise_by(before)(before), expected)
    assert_close(encoder(IMAGES), expected)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("nothing", "encoder: nothing cannot be loaded: expected one of"),
        ("no_such_module:load", "encoder: no_such_module:load cannot be loaded: No module named"),
        ("random:x", "encoder: random:x cannot be loaded: invalid literal"),
        ("jit:none.pt", "encoder: there is no file none.pt"),
        ("export:none.pt", "encoder: there is no file none.pt"),
        ("classifier:none.pt", "encoder: there is no file none.pt"),
        ("clip:ViT-L-14", "encoder: there is no file of weights; name it by =PATH|No module named 'open_clip'"),
        ("dinov2:none:small=none.pt", "encoder: dinov2:none:small=none.pt cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_refused(choice: str, message: str):
    with pytest.raises(RefusedError, match=message):
        encoders.load(choice, channels=1)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Identity(), r"expected it to return \(6, d\), got \(6, 1, 16, 16\)"),
        (nn.Conv2d(3, 1, 1), "encoder: it cannot take images of 1x16x16"),
    ],
)
def test_what_does_not_return_features_is_refused(network: nn.Module, message: str):
    with pytest.raises(RefusedError, match=message):
        encoders.Encoder("it", network)(IMAGES)


def test_a_generator_makes_images_of_any_power_of_2():
    for size, norm in ((8, "layer"), (32, "batch"), (64, "layer")):
        images = make_generator(size, inputs=7, channels=3, width=1, norm=norm)(torch.randn(2, 7))
        assert images.shape == (2, 3, size, size)
        assert images.abs().max() <= 1


def test_the_blur_takes_a_chessboard_away_and_leaves_what_is_even():
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    images = torch.stack([board.float(), torch.full((8, 8), 0.3)])[None]
    inside = Blur(2)(images)[0, :, 1:-1, 1:-1]
    assert_close(inside, torch.stack([torch.full((6, 6), 0.5), torch.full((6, 6), 0.3)]))
