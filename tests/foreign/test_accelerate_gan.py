"""A plain loop under Accelerate, with `save_state` before the first forward pass."""

import pytest
import torch
from foreign import small_digits as digits
from torch.testing import assert_close

pytest.importorskip("accelerate")

pytestmark = pytest.mark.paper

TRAINED = 0.1
"""Measured with seed 0: 0.035; untrained about 1."""
EXAMPLES = pytest.mark.parametrize("example_input", [None, torch.zeros(1, 1, 8, 8)], ids=["naive", "example"])


@EXAMPLES
def test_it_trains_from_a_state_saved_before_the_first_forward(tmp_path, example_input):
    from foreign.accelerate_gan import Run, z_dim

    images, _ = digits.halves()
    run = Run(images, example_input)
    run.accelerator.save_state(tmp_path)
    for _ in range(10):
        run.epoch()
    assert digits.judge(run.G, z_dim) < TRAINED


@EXAMPLES
def test_a_state_saved_before_the_first_forward_goes_on_as_the_run(tmp_path, example_input):
    from foreign.accelerate_gan import Run

    images, _ = digits.halves()
    run = Run(images, example_input)
    run.accelerator.save_state(tmp_path)
    torch.manual_seed(1)
    run.epoch()
    resumed = Run(images, example_input)
    resumed.accelerator.load_state(tmp_path)
    torch.manual_seed(1)
    resumed.epoch()
    assert_close(resumed.D.state_dict(), run.D.state_dict(), rtol=0, atol=0)
    assert_close(resumed.G.state_dict(), run.G.state_dict(), rtol=0, atol=0)
