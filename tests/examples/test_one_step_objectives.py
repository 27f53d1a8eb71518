"""Floors, shares of several encoders, clusters and joint samples against plain formulas."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from one_step.objectives import Objective, Rows, check_floors, k_means, make_kernel, shares, total
from one_step.presets import OneStep
from torch import Tensor
from torch.testing import assert_close
from training.errors import RefusedError

from torch_mmd_losses import (
    EnergyKernel,
    InverseMultiquadricKernel,
    LaplaceKernel,
    MaternKernel,
    MMDReference,
    RBFKernel,
    UsageWarning,
    median_distance,
    mmd2,
    ratio_to_real,
)

ROWS = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
HELD_OUT = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
FAKE = torch.randn(40, 6, generator=torch.Generator().manual_seed(2)) * 0.8 + 0.1
CLASSES = torch.arange(300) % 3


def settings(**options: Any) -> OneStep:
    return OneStep(out=Path(), **options)


def objective(held_out: Tensor = HELD_OUT, name: str = "it", **options: Any) -> Objective:
    return Objective(
        name, Rows(ROWS, None, 0), held_out, settings=settings(**options), fabric=Fabric(accelerator="cpu")
    )


@pytest.mark.parametrize("kernel", ["gaussian", "laplace", "energy"])
@pytest.mark.parametrize("reference", ["exact", "resampled"])
def test_the_terms_are_those_of_the_biased_mmd2(kernel: str, reference: str):
    found = objective(kernel=kernel, reference=reference)
    terms = found.terms(FAKE, Fabric(accelerator="cpu"))
    value = mmd2(ROWS, FAKE, found.kernel, estimator="biased")
    assert terms["mmd2"] == pytest.approx(value.item(), rel=1e-4)
    gram = found.kernel(FAKE, FAKE)
    assert terms["attraction"] == pytest.approx(found.kernel(FAKE, ROWS).mean().item(), rel=1e-4)
    assert terms["repulsion"] == pytest.approx(gram.mean().item(), rel=1e-4)
    alone = gram.mean() - (gram.sum() - gram.diagonal().sum()) / (40 * 39)
    assert terms["diagonal_share"] == pytest.approx((alone / value).item(), rel=1e-3)
    expected = ratio_to_real(MMDReference(ROWS, found.kernel), FAKE, HELD_OUT) if kernel != "energy" else None
    if expected is not None:
        assert terms["ratio_to_real"] == pytest.approx(expected.item(), rel=1e-3)


def test_the_floor_of_fewer_images_is_the_mean_over_all_choices_of_those_held_out():
    found = objective(held_out=HELD_OUT[:8])
    values = [found.reference.mmd2(HELD_OUT[list(chosen)]).item() for chosen in combinations(range(8), 3)]
    assert found.floor(3) == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_floors_that_are_too_small_to_be_true_are_warned_of_once_or_refused():
    # Two images far from each other, but near to many rows.
    apart = 1.5 * torch.eye(6)[:1] * torch.tensor([[1.0], [-1.0]])
    few, others, enough = objective(apart), objective(apart, "others"), objective(name="enough")
    assert few.floor(1024) < 0
    message = r"estimate MMD\^2 of 1024 real images, got -0\S* instead of at least 0\S* \(it\).*\. Raise --held-out"
    with pytest.warns(UsageWarning, match=message) as caught:
        check_floors([few, others, enough], settings(batch_size=1024))
    assert [str(each.message).count("instead of") for each in caught] == [2]
    with pytest.raises(RefusedError, match=message):
        check_floors([few], settings(batch_size=1024, balance="floors"))
    # Above zero, the shares of the encoders are defined, but the floor is still too small.
    small = next(count for count in range(1024, 1, -1) if few.floor(count) > 0)
    with pytest.warns(UsageWarning, match=f"estimate MMD.2 of {small} real images"):
        check_floors([few], settings(batch_size=small, balance="floors"))
    check_floors([enough], settings(batch_size=40, balance="floors"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gaussian", RBFKernel),
        ("laplace", LaplaceKernel),
        ("matern", lambda width: MaternKernel(1.5, width)),
        ("imq", InverseMultiquadricKernel),
        ("energy", lambda width: EnergyKernel()),
    ],
)
def test_kernels_have_widths_in_units_of_the_median_distance(name: str, kind: Any):
    kernel = make_kernel(settings(kernel=name, factor=(0.5,)), Rows(ROWS, None, 0), torch.Generator())
    assert_close(kernel(ROWS[:5], FAKE), kind(0.5 * median_distance(ROWS))(ROWS[:5], FAKE))


def test_several_widths_are_added_and_classes_multiplied():
    rows = Rows(ROWS, CLASSES, 3)
    kernel = make_kernel(settings(factor=(0.5, 2.0), conditional=True, class_width=2.0), rows, torch.Generator())
    median = median_distance(ROWS)
    values = sum(RBFKernel(factor * median)(ROWS[:6], ROWS[6:12]) for factor in (0.5, 2.0))
    same = CLASSES[:6, None] == CLASSES[None, 6:12]
    expected = values * torch.where(same, 1.0, torch.exp(torch.tensor(-1 / 4)))
    assert_close(kernel(rows.joint()[:6], rows.joint()[6:12]), expected)


def test_classes_have_equal_weights_and_guidance_takes_away_images_of_any_class():
    classes = torch.tensor([0] * 200 + [1] * 70 + [2] * 30)
    rows, weights = Rows(ROWS, classes, 3).guided(1.5, torch.Generator().manual_seed(0))
    assert weights is not None
    assert_close(weights[:300].double(), 1.5 * Rows(ROWS, classes, 3).weights())  # type: ignore[operator]
    assert_close(weights[300:], -weights[:300] / 3)
    for number in range(3):
        assert weights[:300][classes == number].sum() == pytest.approx(0.5)
    assert torch.equal(rows[300:, :6], ROWS)
    assert 60 < (rows[300:, 6] == 1).sum() < 140
    assert_close(rows[:, 6:].sum(1), torch.ones(600))


def test_with_guidance_generated_and_real_images_are_measured_from_the_guided_target():
    """So images of the target are nearer to it than real images are, which are those of the data."""
    rows, chosen = Rows(ROWS + 2 * torch.eye(6)[CLASSES], CLASSES, 3), {"conditional": True, "guidance": 3.0}
    real = torch.cat([HELD_OUT[:39] + 2 * torch.eye(6)[CLASSES[:39]], torch.eye(3)[CLASSES[:39]]], 1)
    found = Objective("it", rows, real, settings=settings(**chosen), fabric=Fabric(accelerator="cpu"))
    target, weights = rows.guided(3.0, torch.Generator().manual_seed(0))
    assert weights is not None
    within = weights @ found.kernel(target, target).to(weights) @ weights

    def distance(samples: Tensor) -> float:
        """Return the biased MMD^2 of samples and the guided target."""
        across = found.kernel(target, samples).to(weights).mean(1) @ weights
        return float(within - 2 * across + found.kernel(samples, samples).mean())

    farther = real + torch.cat([2 * torch.eye(6)[CLASSES[:39]], torch.zeros(39, 3)], 1)
    terms = found.terms(farther, Fabric(accelerator="cpu"))
    assert terms["ratio_to_real"] == pytest.approx(distance(farther) / distance(real), rel=1e-3)
    assert terms["ratio_to_real"] < 0.9


def test_encoders_above_their_floor_share_a_budget():
    losses = [torch.tensor(value) for value in (2.0, 30.0, 0.4)]
    found = shares(losses, [1.0, 10.0, 0.5])
    weights = torch.softmax(
        torch.tensor([1 / 3, 2 / 3], dtype=torch.float64), 0
    )  # excess 1 and 2 over twice their mean
    assert_close(found, torch.cat([10 * weights, torch.zeros(1)]))
    assert_close(shares(losses, [3.0, 40.0, 0.5]), torch.full((3,), 10 / 3, dtype=torch.float64))
    assert total(losses, [1.0, 10.0, 0.5], "none") == pytest.approx(32.4)
    assert total(losses, [1.0, 10.0, 0.5], "relative").item() == pytest.approx(3)
    assert total(losses, [1.0, 10.0, 0.5], "floors").item() == pytest.approx(10)


def test_centres_are_means_of_the_rows_next_to_them():
    # 20 for each centre, so that all are clustered
    rows = torch.cat([ROWS + 20, ROWS - 20, ROWS * 0.1])
    centres = k_means(rows, 45, torch.Generator().manual_seed(0), iterations=100)
    nearest = torch.cdist(rows, centres).argmin(1)
    for number in nearest.unique():
        assert_close(centres[number], rows[nearest == number].mean(0), rtol=1e-4, atol=1e-4)
    assert len(nearest.unique()) == 45


@pytest.mark.filterwarnings("error::torch_mmd_losses.UsageWarning")
def test_landmarks_that_leave_out_too_much_are_warned_of():
    with pytest.warns(UsageWarning, match="expected landmarks that represent the reference"):
        objective(reference="nystrom", landmarks=2, factor=(0.2,))
