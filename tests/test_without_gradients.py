"""Every public function gives the same in inference mode as without gradients, also where it differentiates itself."""

import pytest
import torch
from gpu_calls import CALLS, Call, Samples, samples
from torch import Tensor
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves

CASES = [
    (name, label)
    for name, calls in CALLS.items()
    for label, call in calls.items()
    if call.without_gradients and label != "generator, remembered"  # which remembers calls with gradients only
]


def numbers(call: Call, s: Samples) -> list[Tensor]:
    torch.manual_seed(0)
    return [x for x in tree_leaves(call.run(s)) if isinstance(x, Tensor)]


@pytest.mark.parametrize(("name", "label"), CASES)
def test_equals_a_call_without_gradients(name: str, label: str):
    call = CALLS[name][label]
    s = Samples(*(x.detach() for x in samples(call.sizes[0], torch.device("cpu"))))
    with torch.no_grad():
        expected = numbers(call, s)
    assert expected
    with torch.inference_mode():
        # The references of these calls have no numbers of their own, so that one of their results is NaN.
        assert_close(numbers(call, Samples(*(x.clone() for x in s))), expected, equal_nan=True)
