"""The fingerprint of a weight changes with the weight, and with nothing else."""

import pytest
import torch
from cases import scores

from torch_mmd_losses.spectral import fingerprint as module
from torch_mmd_losses.spectral.fingerprint import NO_FINGERPRINT, fingerprint

WEIGHTS = {
    "linear": scores(5, 12).float(),
    "double": scores(5, 12),
    "row": scores(1, 3).float(),
    "kernel": scores(6, 27).float().reshape(6, 3, 3, 3),
    "eye": torch.eye(8),
    "zeros": torch.zeros(4, 6),
}
every_weight = pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)


def swapped_rows(weight):
    return weight.flip(0)


CHANGES = {
    "sign of all": lambda weight: -weight,
    "sign of two": lambda weight: weight * torch.tensor([-1.0] * 2 + [1.0] * (weight.numel() - 2)).view_as(weight),
    "twice": lambda weight: 2 * weight,
    "a quarter": lambda weight: weight / 4,
    "rows": swapped_rows,
    "columns": lambda weight: weight.flip(-1),
    "transposed": lambda weight: weight.flatten(1).T.reshape(weight.shape),
    "sorted": lambda weight: weight.flatten().sort().values.view_as(weight),
    "one ulp": lambda weight: torch.nextafter(weight, torch.full_like(weight, torch.inf)),
    "one step": lambda weight: weight + 1e-3 * weight.sign(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@every_weight
def test_changes_with_the_weight(weight, change):
    other = change(weight).to(weight.dtype)
    if torch.equal(other.view(torch.int32), weight.view(torch.int32)):
        pytest.skip("this weight does not change so")
    assert fingerprint(other) != fingerprint(weight)


@every_weight
def test_changes_with_every_single_entry(weight):
    seen = {int(fingerprint(weight))}
    for entry in range(weight.numel()):
        other = weight.clone()
        other.view(-1)[entry] += 0.5
        seen.add(int(fingerprint(other)))
    assert len(seen) == weight.numel() + 1


@every_weight
def test_does_not_depend_on_the_layout_of_the_memory_or_the_way_of_adding(weight):
    expected = fingerprint(weight)
    assert (expected.shape, expected.dtype, int(expected) == NO_FINGERPRINT) == ((), torch.int64, False)
    layouts = [
        weight.clone(),
        weight.transpose(0, 1).contiguous().transpose(0, 1),
        torch.stack([weight] * 2, -1)[..., 1],
    ]
    if weight.dim() == 4:
        layouts.append(weight.to(memory_format=torch.channels_last))
    for layout in layouts:
        assert fingerprint(layout) == expected
    bits = weight.reshape(len(weight), -1).view(torch.int32).long()
    as_elsewhere = fingerprint_by_sums(bits)
    assert int(expected) == as_elsewhere


def fingerprint_by_sums(bits):
    """Return the fingerprint by Python's integers, from the bits of a weight."""

    def signed(x):
        return (x + 2**31) % 2**32 - 2**31

    rows, columns = bits.shape
    factors = []
    for i in range(1, rows + columns + 1):
        mixed = signed(i * -1640531535)
        mixed = signed((mixed ^ (mixed >> 15)) * -2048144789)
        factors.append((mixed ^ (mixed >> 13)) | 1)
    mixed_bits = (bits ^ (bits >> 16)).tolist()
    total = sum(x * factors[i] * factors[rows + j] for i, row in enumerate(mixed_bits) for j, x in enumerate(row))
    return signed(total)


def test_the_sum_of_other_devices_is_that_of_a_cpu(monkeypatch):
    weight = WEIGHTS["kernel"]
    expected = fingerprint(weight)

    class Elsewhere(torch.Tensor):
        device = property(lambda self: torch.device("xpu"))

        def __matmul__(self, other):
            raise AssertionError

    arange = torch.arange
    monkeypatch.setattr(torch, "arange", lambda *args, dtype, device: arange(*args, dtype=dtype))
    assert fingerprint(weight.as_subclass(Elsewhere)) == expected


def test_large_weights_are_processed_in_blocks(monkeypatch):
    weight = WEIGHTS["kernel"]
    expected = fingerprint(weight)
    for block in (1, 27, 60, 27 * 6):
        monkeypatch.setattr(module, "_BLOCK", block)
        assert fingerprint(weight) == expected
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert fingerprint(weight) == expected


def test_random_weights_have_different_fingerprints():
    found = {int(fingerprint(scores(3, 5, seed).float())) for seed in range(2000)}
    assert len(found) == 2000
