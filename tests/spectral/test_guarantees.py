"""Warnings of networks whose layers have norms that say nothing about the network; errors if strict."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from wrapped_layers import images, network

from torch_mmd_losses import UsageWarning, conv_spectral_norm, usage_warnings

pytestmark = pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")


@pytest.fixture(autouse=True)
def _places_are_new(monkeypatch):
    monkeypatch.setattr(usage_warnings, "_warned", set())


class EqualConv(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight / self.weight.norm(), self.bias)


class StandardisedConv(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


class OwnLinear(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def layer_with_a_forward_of_its_own():
    layer = nn.Conv2d(4, 4, 3)
    layer.forward = lambda x: x
    return layer


class Quiet(nn.ConvTranspose2d):
    """A class with another constructor, and the forward of its base."""

    def __init__(self):
        super().__init__(4, 3, 2)


class Modulated(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(4, 4))
        self.conv = nn.Conv2d(4, 4, 1)


def lstm_with_parametrization():
    layer = nn.LSTM(4, 4)
    parametrizations.weight_norm(layer, "weight_hh_l0")
    return layer


STATISTICS = "expected layers without running statistics between the normalised ones"
OWN_FORWARD = "expected layers with the forward of their class in torch.nn"
OTHER_WEIGHTS = "expected weights in Linear and convolutional layers only"
PROBLEMS = {
    "batch norm": (lambda: nn.BatchNorm2d(4), STATISTICS, "'1' (BatchNorm2d)"),
    "batch norm without statistics": (
        lambda: nn.BatchNorm1d(4, track_running_stats=False),
        STATISTICS,
        "'1' (BatchNorm1d)",
    ),
    "sync batch norm": (lambda: nn.SyncBatchNorm(4), STATISTICS, "'1' (SyncBatchNorm)"),
    "lazy batch norm": (nn.LazyBatchNorm2d, STATISTICS, "'1' (LazyBatchNorm2d)"),
    "instance norm": (
        lambda: nn.InstanceNorm2d(4, track_running_stats=True),
        STATISTICS,
        "'1' (InstanceNorm2d)",
    ),
    "own forward": (lambda: EqualConv(4, 4, 3), OWN_FORWARD, "'1' (EqualConv)"),
    "own inner forward": (lambda: StandardisedConv(4, 4, 3), OWN_FORWARD, "'1' (StandardisedConv)"),
    "own forward of one layer": (layer_with_a_forward_of_its_own, OWN_FORWARD, "'1' (Conv2d)"),
    "own linear": (lambda: OwnLinear(4, 4), OWN_FORWARD, "'1' (OwnLinear)"),
    "embedding": (lambda: nn.Embedding(4, 4), OTHER_WEIGHTS, "'1' (Embedding)"),
    "bilinear": (lambda: nn.Bilinear(4, 4, 4), OTHER_WEIGHTS, "'1' (Bilinear)"),
    "recurrent": (lambda: nn.GRUCell(4, 4), OTHER_WEIGHTS, "'1' (GRUCell)"),
    "own kernel": (Modulated, OTHER_WEIGHTS, "'1' (Modulated)"),
    "parametrized": (lstm_with_parametrization, OTHER_WEIGHTS, "'1' (ParametrizedLSTM)"),
}


@pytest.mark.parametrize(("make", "expected", "got"), PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("method", ["conv", "pico", "matrix"])
def test_a_warning_names_the_part_and_strict_makes_it_an_error(make, expected, got, method):
    with pytest.warns(UsageWarning) as record:
        conv_spectral_norm(nn.Sequential(nn.Conv2d(3, 4, 3), make()), method=method)
    assert len(record) == 1
    message = str(record[0].message)
    assert message.startswith(f"module: {expected}, got {got}: ")
    assert record[0].filename == __file__
    model = nn.Sequential(nn.Conv2d(3, 4, 3), make())
    with pytest.raises(ValueError, match="^module: expected") as error:
        conv_spectral_norm(model, method=method, strict=True)
    assert str(error.value) == message
    assert not parametrize.is_parametrized(model[0])


@pytest.mark.parametrize(
    "part",
    [
        Quiet,
        lambda: nn.InstanceNorm2d(4, affine=True),
        lambda: nn.LayerNorm((4, 3, 3)),
        lambda: nn.GroupNorm(2, 4),
        lambda: nn.PReLU(4),
        lambda: nn.LazyInstanceNorm2d(affine=True, track_running_stats=False),
    ],
)
def test_other_parts_are_no_reason_for_a_warning(part):
    conv_spectral_norm(nn.Sequential(nn.Conv2d(3, 4, 3), part()), strict=True)


def test_a_single_layer_with_an_own_forward_is_named_by_its_class():
    with pytest.raises(ValueError, match=r"got 'EqualConv' \(EqualConv\): an overridden forward may"):
        conv_spectral_norm(EqualConv(3, 4, 3), strict=True)


def test_the_norms_are_void_as_the_warning_says():
    outputs = []
    for scale in (1.0, 5.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-12))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UsageWarning)
            outputs.append(conv_spectral_norm(model, scale=scale)(images()))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)


def test_each_place_warns_once_and_each_kind_by_itself():
    def wrap():
        conv_spectral_norm(nn.Sequential(EqualConv(3, 4, 3), nn.BatchNorm2d(4), nn.Bilinear(2, 2, 2)))

    with pytest.warns(UsageWarning) as record:
        wrap()
    assert len(record) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrap()


def test_strict_has_to_be_a_flag():
    with pytest.raises(TypeError, match="^strict: expected True or False, got 1 of type int"):
        conv_spectral_norm(network(), strict=1)
    with pytest.raises(TypeError, match="^replace: expected True or False, got 'yes' of type str"):
        conv_spectral_norm(network(), replace="yes")
