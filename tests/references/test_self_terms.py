"""Self terms that are estimated: nothing is computed for them that they do not need, and nothing twice."""

import copy

import pytest
import torch
from cases import scores
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from torch_mmd_losses import MMDReference, RBFKernel

pytestmark = pytest.mark.filterwarnings("ignore:MMDReference. expected landmarks that represent")


class Factorisations(TorchDispatchMode):
    """Counts the Cholesky factors that are computed."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket is torch.ops.aten.linalg_cholesky_ex
        return func(*args, **(kwargs or {}))


def nystrom(count, **options):
    return MMDReference(scores(count, 2, count), RBFKernel(), kind="nystrom", landmarks=count // 2, **options)


def test_the_landmarks_of_an_exact_reference_are_factorised_once():
    reference = MMDReference(scores(50, 2), RBFKernel(), self_rows=10)
    with Factorisations() as found:
        assert reference.self_term > 0
    assert found.count == 1


def test_landmarks_are_factorised_once_for_all_batches():
    with Factorisations() as found:
        reference = nystrom(12)
        for seed in (1, 2):
            reference.update(scores(5, 2, seed))
            reference.mmd2(scores(4, 2, 3))
    assert found.count == 1


def test_an_exact_reference_computes_no_moments_for_its_self_term():
    rows, some, dimension = 300, 20, 64
    reference = MMDReference(scores(rows, dimension), RBFKernel(8.0), self_rows=some)
    with FlopCounterMode(display=False) as counter:
        assert reference.self_term > 0
    # Kernel values of the landmarks with all rows, with themselves and with the chosen rows, and of the chosen rows.
    assert 0 < counter.get_total_flops() <= 2 * dimension * (rows * some + 3 * some * some)


@pytest.mark.parametrize("first", ["self_term", "mmd2", "drmmd2"])
def test_a_loaded_state_has_the_factor_of_its_own_landmarks(first):
    saved, other, fake = nystrom(12), nystrom(20), scores(4, 2, 3)
    saved.update(scores(5, 2, 1))  # the self term is not known, so it is not in the state
    other.load_state_dict(copy.deepcopy(saved.state_dict()))
    options = {"drmmd2": {"lambda_": 0.1}}.get(first, {})
    found, expected = (
        each.self_term if first == "self_term" else getattr(each, first)(fake, **options) for each in (other, saved)
    )
    assert_close(found, expected, rtol=1e-12, atol=0)
