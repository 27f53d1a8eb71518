"""Learning rates by the relative KID test, rule by rule."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from arbel2018.kid_schedule import KIDSchedule
from arbel2018.presets import Arbel2018
from cases import scores
from torch.testing import assert_close

from torch_mmd_losses import PolynomialKernel, relative_mmd_test

SAMPLES = 60


class Outcome(NamedTuple):
    p_value: float | None
    failures: int


def optimiser(*rates):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.Adam(groups)


def rates(schedule):
    return [group["lr"] for one in schedule.optimisers for group in one.param_groups]


def schedule_of(real, *learning_rates, **options):
    return KIDSchedule([optimiser(*learning_rates or (1e-4,))], lambda features: features, real, **options)


class Run:
    """A schedule that is fed with samples whose mean is `distance` away from that of the data."""

    def __init__(self, *learning_rates, **options):
        self.seed = 0
        self.real = scores(SAMPLES, 4, 10**6)
        self.schedule = schedule_of(self.real, *learning_rates, **{"memory": 4, **options})

    def features(self, distance):
        self.seed += 1
        return scores(SAMPLES, 4, self.seed, shift=distance)

    def judge(self, samples):
        self.schedule.step(samples)
        return Outcome(self.schedule.p_value, self.schedule.failures)

    def step(self, *distances):
        return [self.judge(self.features(distance)) for distance in distances]


def test_defaults_are_those_of_arbel_et_al():
    settings, schedule = Arbel2018(out=Path()), schedule_of(torch.zeros(3, 1))
    assert (settings.kid_every, settings.kid_memory, settings.kid_failures) == (2000, 10, 3)
    assert (settings.lr_factor, settings.lr_least) == (schedule.factor, schedule.floor) == (0.8, 1e-6)
    assert (schedule.memory, schedule.patience, schedule.level) == (10, 3, 0.1)
    assert repr(schedule.kernel) == repr(PolynomialKernel())


def test_each_sample_is_tested_against_the_oldest():
    run = Run()
    remembered = [run.features(distance) for distance in (1.0, 0.9, 1.0, 0.8)]
    for sample in remembered:
        run.schedule.step(sample)
    for distance in (0.6, 0.5):
        new = run.features(distance)
        expected = relative_mmd_test(run.real, new, remembered.pop(0), PolynomialKernel())
        outcome = run.judge(new)
        assert 1e-9 < outcome.p_value <= 0.1
        assert outcome.p_value == pytest.approx(float(expected.p_value), rel=1e-9)
        assert (outcome.failures, rates(run.schedule)) == (0, [1e-4])
        remembered.append(new)  # a success is remembered, and the oldest forgotten


def test_a_failure_leaves_reference_and_memory_alone():
    run = Run()
    remembered = [run.features(distance) for distance in (1.5, 1.0, 1.0, 1.0)]
    for sample in remembered:
        run.schedule.step(sample)
    kept = run.schedule.state_dict()["remembered"]
    (outcome,) = run.step(3.0)
    assert outcome.p_value > 0.1
    assert (outcome.failures, rates(run.schedule)) == (1, [1e-4])
    assert_close(run.schedule.state_dict()["remembered"], kept, rtol=0, atol=0)
    new = run.features(0.0)
    expected = relative_mmd_test(run.real, new, remembered[0], PolynomialKernel())
    assert run.judge(new).p_value == pytest.approx(float(expected.p_value))


def test_three_failures_in_a_row_lower_all_rates():
    run = Run(1e-4, 2e-4)
    run.step(1.0, 1.0, 1.0, 1.0)
    outcomes = run.step(3.0, 3.0)
    assert [outcome.failures for outcome in outcomes] == [1, 2]
    assert rates(run.schedule) == [1e-4, 2e-4]
    (outcome,) = run.step(3.0)
    assert outcome.failures == 0
    assert rates(run.schedule) == pytest.approx([0.8e-4, 1.6e-4])


def test_a_success_in_between_starts_the_count_again():
    run = Run()
    run.step(2.0, 2.0, 2.0, 2.0)
    failures = [outcome.failures for outcome in run.step(3.0, 3.0, 0.5, 3.0, 3.0)]
    assert failures == [1, 2, 0, 1, 2]
    assert rates(run.schedule) == [1e-4]


def test_a_decay_keeps_the_last_three_and_the_new_one_is_among_them():
    run = Run(memory=5)
    samples = [run.features(distance) for distance in (1.0, 1.0, 1.1, 1.2, 1.3, 3.0, 3.0, 3.1)]
    for sample in samples[:-1]:
        run.schedule.step(sample)
    before = run.schedule.state_dict()["remembered"]
    run.schedule.step(samples[-1])
    assert rates(run.schedule) == pytest.approx([0.8e-4])
    after = run.schedule.state_dict()["remembered"]
    assert len(after) == 3
    assert_close(after[:2], before[-2:], rtol=0, atol=0)
    # No tests until there are five again, and then the oldest of the three is the reference.
    assert [outcome.p_value for outcome in run.step(1.0, 1.0)] == [None, None]
    new = run.features(0.2)
    expected = relative_mmd_test(run.real, new, samples[3], PolynomialKernel())
    assert run.judge(new).p_value == pytest.approx(float(expected.p_value))


def test_no_test_for_ten_evaluations_nor_for_seven_after_a_decay_and_failures_start_at_zero():
    run = Run(memory=10)
    outcomes, rate = [], []
    for distance in (*[1.0] * 10, *[3.0] * 3, *[1.0] * 7, 9.0, 9.0, 9.0):
        rate += rates(run.schedule)
        outcomes += run.step(distance)
    assert outcomes[:10] == [Outcome(None, 0)] * 10
    assert [outcome.p_value is None for outcome in outcomes] == [True] * 10 + [False] * 3 + [True] * 7 + [False] * 3
    assert [outcome.failures for outcome in outcomes[-3:]] == [1, 2, 0]
    assert [*rate, *rates(run.schedule)] == pytest.approx([1e-4] * 13 + [0.8e-4] * 10 + [0.64e-4])


def test_rates_do_not_fall_below_the_floor_nor_rise_to_it():
    run = Run(1.1e-6, 1e-7, factor=0.5)
    run.step(1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0)
    assert rates(run.schedule) == [1e-6, 1e-7]


def test_without_a_variance_there_is_no_improvement():
    run = Run(memory=3)
    run.schedule = schedule_of(torch.ones(5, 2), memory=3)
    outcomes = [run.judge(torch.ones(5, 2)) for _ in range(6)]
    assert outcomes == [Outcome(None, failures) for failures in (0, 0, 0, 1, 2, 0)]
    assert rates(run.schedule) == pytest.approx([0.8e-4])


@pytest.mark.parametrize("after", [2, 5, 6, 8])
def test_a_resumed_schedule_goes_on_as_if_nothing_had_happened(tmp_path, after):
    distances = (1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 1.0, 0.5, 0.4, 0.3)
    whole, first, second = Run(), Run(), Run()
    expected = whole.step(*distances)
    outcomes = first.step(*distances[:after])
    state = {"schedule": first.schedule.state_dict(), "adam": first.schedule.optimisers[0].state_dict()}
    torch.save(state, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    second.schedule.load_state_dict(loaded["schedule"])
    second.schedule.optimisers[0].load_state_dict(loaded["adam"])
    second.seed = first.seed
    assert (second.schedule.p_value, second.schedule.failures) == outcomes[-1]
    assert outcomes + second.step(*distances[after:]) == expected
    assert rates(second.schedule) == rates(whole.schedule)
    assert rates(whole.schedule) == pytest.approx([0.8e-4])


def test_a_state_of_another_number_of_real_features_is_refused():
    run, schedule = Run(), schedule_of(torch.zeros(5, 2))
    run.step(1.0)
    with pytest.raises(ValueError, match="^state: expected one of 5 real features, got one of 60"):
        schedule.load_state_dict(run.schedule.state_dict())
