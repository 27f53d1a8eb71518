"""Domain adaptation by the recipe of docs/features.md."""

from statistics import fmean

import pytest
import torch
from foreign import adaptation_choices, class_shares, large_shifts
from foreign import small_digits as digits
from foreign.domain_adaptation import FixedAtStart, accuracy, no_penalty, of_each_batch, too_narrow
from torch.nn import functional as F
from torch.testing import assert_close

from torch_mmd_losses import UsageWarning, mmd2


def mean_accuracy(make_penalty):
    images, labels = digits.load()
    return fmean(accuracy(images, labels, make_penalty(), seed=seed) for seed in range(5))


def test_a_bandwidth_that_does_not_suit_is_warned_of():
    images, labels = digits.load()
    with pytest.warns(UsageWarning, match=r"too far apart.*median_distance\(scores\)"):
        accuracy(images, labels, too_narrow, seed=0, steps=1)


@pytest.mark.slow
def test_the_median_of_each_batch_adapts():
    """Measured, means of seeds 0 to 4: .462 without a penalty, .615 with it, .521 with the bandwidth of the start."""
    none = mean_accuracy(lambda: no_penalty)
    adapted = mean_accuracy(lambda: of_each_batch)
    fixed = mean_accuracy(FixedAtStart)
    assert adapted > none + 0.08
    assert adapted > fixed + 0.03


@pytest.mark.parametrize("choice", adaptation_choices.CHOICES)
def test_each_choice_trains(choice):
    images, labels = digits.load()
    assert 0 < adaptation_choices.accuracy(images, labels, *adaptation_choices.CHOICES[choice], seed=0, steps=2) < 1


def test_the_penalty_within_classes_matches_classes_and_not_all_samples():
    """Two domains with the same samples but swapped labels: alike as a whole, different within each class."""
    points = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    logits = 100 * F.one_hot(torch.tensor([0, 0, 1, 1]), adaptation_choices.CLASSES).float()
    target = adaptation_choices.Domain(points, points, logits, None)
    same, swapped = (
        adaptation_choices.within_classes(
            adaptation_choices.Domain(points, points, logits, torch.tensor(labels)), target
        )
        for labels in ([0, 0, 1, 1], [1, 1, 0, 0])
    )
    assert same < 0
    assert swapped > 1


def test_no_class_that_both_batches_contain_gives_no_penalty():
    """`grouped_mmd2` refuses a call without groups."""
    points, logits = torch.randn(4, 3), torch.zeros(4, adaptation_choices.CLASSES)
    source = adaptation_choices.Domain(points, points, logits, torch.arange(4))
    assert adaptation_choices.within_classes(source, source) == 0


def test_balanced_weights_remove_the_difference_of_class_shares():
    """The classes of both domains lie at the same two points, but one is more frequent in the target."""
    of_source, of_target = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 1, 1])
    source, target = (
        adaptation_choices.Domain(
            classes[:, None].float(), classes[:, None].float(), 100 * F.one_hot(classes, 10).float(), classes
        )
        for classes in (of_source, of_target)
    )
    shares = torch.tensor([2 / 6 / 4] * 4 + [4 / 6 / 2] * 2)
    kernel = adaptation_choices.mixture(source.features, target.features)
    expected = mmd2(source.features, target.features, kernel, real_weights=shares)
    assert_close(adaptation_choices.balanced(source, target), expected)
    assert adaptation_choices.of_layers("features")(source, target) > expected + 0.2


@pytest.mark.parametrize("way", large_shifts.WAYS)
def test_each_way_gives_answers(way):
    found, distance, loss = large_shifts.answers(*digits.load(), way, shift=2, seed=0, steps=2)
    assert found.shape == (897,)
    assert loss > 0
    assert distance == distance


def test_images_move_by_up_to_three_pixels_to_either_side():
    torch.manual_seed(0)
    images = torch.full((200, 1, 2, 8), -1.0)
    images[..., 4] = 1.0
    found = large_shifts.randomly_moved(images)
    assert found.shape == images.shape
    assert set(found[:, 0, 0].argmax(1).tolist()) == set(range(1, 8))
    assert_close(found.sum((1, 2, 3)), images.sum((1, 2, 3)))


def test_agreement_is_the_mean_over_pairs():
    found = [torch.tensor(classes) for classes in ([0, 1, 2, 3], [0, 1, 2, 4], [0, 5, 6, 4])]
    assert large_shifts.agreement(found) == pytest.approx((0.75 + 0.25 + 0.5) / 3)


@pytest.mark.slow
def test_a_large_shift_shows_in_the_agreement_of_seeds_and_augmentation_undoes_it():
    """Measured with seeds 0 to 4: .708 of the answers agree without a penalty, .499 with it; accuracy .123 and .870."""
    runs = {
        way: [large_shifts.answers(*digits.load(), way, shift=2, seed=seed)[0] for seed in range(3)]
        for way in ("neither", "MMD^2", "augmentation")
    }
    agreement = {way: large_shifts.agreement(found) for way, found in runs.items()}
    assert agreement["MMD^2"] < agreement["neither"] - 0.1
    truth = digits.load()[1][900:]
    right = {way: fmean((found == truth).float().mean().item() for found in runs[way]) for way in runs}
    assert right["augmentation"] > right["neither"] + 0.5


@pytest.mark.parametrize("skewed", [False, True])
def test_the_target_table_has_a_batch_effect_and_perhaps_skewed_classes(skewed):
    source, _, target, labels = class_shares.tables(*digits.load(), skewed=skewed)
    assert source.shape[1] == target.shape[1]
    assert ((target.mean(0) - source.mean(0)).abs() > 0.3).float().mean() > 0.5
    rare = (labels >= 5).float().mean()
    assert 0.05 < rare < 0.15 if skewed else 0.4 < rare < 0.6


def test_tables_are_standardised_by_their_own_rows_or_by_others():
    table, other = torch.randn(50, 3) * 5 + 2, torch.randn(50, 3)
    assert_close(class_shares.standardised(table).mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert_close(class_shares.standardised(table).std(0), torch.ones(3))
    assert_close(class_shares.standardised(table, other) * other.std(0) + other.mean(0), table)


@pytest.mark.parametrize("penalty", class_shares.PENALTIES)
def test_each_penalty_trains_on_tables(penalty):
    options = {"skewed": True, "each_by_itself": False, "seed": 0, "steps": 2}
    assert 0 < class_shares.accuracy(*digits.load(), penalty, **options) < 1


@pytest.mark.slow
def test_plain_mmd_costs_accuracy_under_skewed_shares_and_balanced_weights_do_not():
    found = {
        penalty: fmean(
            class_shares.accuracy(*digits.load(), penalty, skewed=True, each_by_itself=True, seed=seed)
            for seed in range(2)
        )
        for penalty in ("none", "plain", "balanced")
    }
    assert found["plain"] < found["none"] - 0.02
    assert found["balanced"] > found["plain"] + 0.02
