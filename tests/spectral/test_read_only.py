"""In-place changes of a normalised weight are refused; everything else works as with a tensor."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from wrapped_layers import original

from torch_mmd_losses import conv_spectral_norm

IN_PLACE = {
    "nn.init": lambda layer: nn.init.normal_(layer.weight, 0.0, 0.02),
    "nn.init orthogonal": lambda layer: nn.init.orthogonal_(layer.weight),
    "nn.init of data": lambda layer: nn.init.xavier_uniform_(layer.weight.data),
    "data": lambda layer: layer.weight.data.normal_(),
    "detach": lambda layer: layer.weight.detach().zero_(),
    "view": lambda layer: layer.weight.data.view(-1).fill_(1.0),
    "item": lambda layer: layer.weight.data.__setitem__(0, 0.0),
    "operator": lambda layer: layer.weight.data.__imul__(2.0),
    "out": lambda layer: torch.add(torch.ones(6, 3, 3, 3), 1.0, out=layer.weight.data),
    "foreach": lambda layer: torch._foreach_mul_([layer.weight.data], 2.0),
    "assigned data": lambda layer: setattr(layer.weight, "data", torch.zeros(6, 3, 3, 3)),
}


@pytest.mark.parametrize("change", IN_PLACE.values(), ids=IN_PLACE)
def test_changing_the_computed_weight_in_place_is_refused(change):
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=8)
    before = original(layer).clone()
    message = "expected a tensor that can be changed in place, got a normalised weight"
    with torch.no_grad(), pytest.raises(RuntimeError, match=message):
        change(layer)
    assert_close(original(layer), before, rtol=0, atol=0)


def test_the_computed_weight_is_an_ordinary_tensor_otherwise():
    layer = conv_spectral_norm(nn.Conv2d(3, 6, 3, padding=1), input_size=8)
    weight = layer.weight
    for value in (weight + 1, weight.clone(), weight.T if weight.dim() == 2 else weight.transpose(0, 1).contiguous()):
        assert type(value) is torch.Tensor
        value.detach().zero_()
    assert weight.requires_grad
    assert "NormalisedWeight" in repr(weight)
    assert_close(torch.func.grad(lambda x: (x * layer.weight).sum())(torch.ones(6, 3, 3, 3)), weight.detach())
    assert_close(torch.func.vmap(lambda x: layer.weight.detach() * x)(torch.ones(2, 6, 3, 3, 3))[0], weight.detach())
    (weight.square().sum()).backward()
    assert original(layer).grad is not None
