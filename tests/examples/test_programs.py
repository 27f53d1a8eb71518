"""The programs of one file: what they train gets better, and they draw it."""

import pytest
import torch

pytest.importorskip("matplotlib")
import guidance
import moment_matching
import particles


def test_particles_come_nearer_to_their_target_in_each_way(tmp_path, capsys):
    options = ["--particles", "60", "--out", str(tmp_path / "picture.png")]
    start = particles.main([*options, "--steps", "0"])
    end = particles.main([*options, "--steps", "60"])
    assert set(start) == set(end) == {way.name for way in particles.WAYS}
    assert all(end[name] < 0.6 * start[name] for name in start)
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert "after 60 steps" in capsys.readouterr().out


def test_samples_in_few_steps_come_nearer_to_the_data_than_noise(tmp_path):
    # Two steps are learnt in a quarter of the time that one step takes.
    sizes = ["--groups", "16", "--group-size", "16", "--samples", "300"]
    found = moment_matching.main([*sizes, "--steps", "400", "--out", str(tmp_path / "picture.png")])
    assert found["two steps"] < 0.5 * found["noise"]
    assert found["data"] < 0.1 * found["noise"]
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.slow
def test_samples_in_one_step_come_nearer_to_the_data_than_noise(tmp_path):
    sizes = ["--groups", "16", "--group-size", "16", "--samples", "300"]
    found = moment_matching.main([*sizes, "--steps", "1000", "--out", str(tmp_path / "picture.png")])
    assert found["one step"] < 0.5 * found["noise"]


def test_times_are_in_order_and_their_weights_have_mean_one():
    times = moment_matching.Times.draw(1000, torch.Generator().manual_seed(0))
    assert ((times.s <= times.r) & (times.r < times.t)).all()
    assert times.s.min() >= moment_matching.FIRST
    assert times.t.max() <= moment_matching.LAST
    torch.testing.assert_close(times.weights().mean(), torch.tensor(1.0))


def test_guidance_moves_samples_away_from_other_classes(tmp_path, capsys):
    found = guidance.main(["--samples", "200", "--steps", "80", "--out", str(tmp_path / "picture.png")])
    assert found[1.0] < 0.95
    assert found[2.0] > found[1.0] + 0.03
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert "standard deviation" in capsys.readouterr().out
