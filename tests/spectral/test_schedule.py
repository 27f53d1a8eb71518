"""Which forward passes iterate."""

import copy

import pytest
import torch
from cases import scores
from wrapped_layers import change, moves, original, unconverged, vector


def test_skips_two_forward_passes_after_the_first_one_at_a_detected_change():
    layer, x = unconverged()
    change(layer)
    assert [moves(layer, x) for _ in range(5)] == [True, False, False, True, True]
    layer(x)
    change(layer)
    assert [moves(layer, x) for _ in range(2)] == [True, False]
    change(layer)  # a GAN step of two forwards
    assert [moves(layer, x) for _ in range(2)] == [True, False]
    change(layer)
    assert not moves(layer.eval(), x)
    assert moves(layer.train(), x)


@pytest.mark.parametrize("kind", ["data", "fused"])
def test_iterates_in_every_forward_pass_if_changes_are_not_detected(kind):
    layer, x = unconverged()
    adam = torch.optim.Adam([original(layer)], lr=1e-3, fused=True)
    for seed in range(4):
        version = original(layer)._version
        if kind == "data":
            original(layer).data.add_(0.01 * scores(1, 162, seed).reshape(6, 3, 3, 3).float())
        else:
            original(layer).grad = scores(1, 162, seed).reshape(6, 3, 3, 3).float()
            adam.step()
        assert original(layer)._version == version
        assert moves(layer, x)
        assert moves(layer, x)


def test_a_copied_or_replaced_weight_is_not_a_detected_change():
    layer, x = unconverged()
    twin = copy.deepcopy(layer)
    change(twin)
    assert [moves(twin, x) for _ in range(3)] == [True, True, True]
    layer.weight = torch.randn(6, 3, 3, 3)
    vector(layer).copy_(torch.randn(3, 8, 8))  # away from where the start has converged to
    assert [moves(layer, x) for _ in range(3)] == [True, True, True]


def test_inference_tensors_have_no_version_and_iterate_in_every_forward_pass():
    with torch.inference_mode():
        layer, x = unconverged()
        vector(layer).copy_(torch.randn(3, 8, 8))
        assert [moves(layer, x) for _ in range(4)] == [True, True, True, True]
