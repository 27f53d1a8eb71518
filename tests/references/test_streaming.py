"""References from batches: the same as from one tensor, whatever the order and the sizes of the batches."""

import pytest
import torch
from cases import scores
from hypothesis import given
from hypothesis import strategies as st
from reference_kinds import KINDS, taken_by
from torch.testing import assert_close
from torch.utils.data import DataLoader

from torch_mmd_losses import MMDReference, RBFKernel
from torch_mmd_losses.references import fourier, nystrom, self_terms

pytestmark = pytest.mark.filterwarnings("ignore:MMDReference. expected landmarks that represent")

LANDMARKS = scores(6, 2, 7)


def made(kind, real, **options):
    """Return a reference whose random choices are always the same."""
    generator = torch.Generator().manual_seed(3)
    sizes = taken_by(kind, landmarks=LANDMARKS, frequencies=30)
    return MMDReference(real, RBFKernel(1.5), kind=kind, generator=generator, **sizes, **options)


def results(reference, fake):
    """Return everything that a reference says."""
    fake = fake.detach().requires_grad_()
    values = [reference.mmd2(fake, estimator=estimator) for estimator in ("biased", "unbiased")]
    gradients = torch.autograd.grad(values[0], fake)
    bound = [] if reference.kind == "fourier" else [reference.error_bound(fake)]
    return [*values, *gradients, reference.self_term, *reference.sums(fake), *bound]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_batches_are_one_tensor(kind, data):
    count = data.draw(st.integers(2, 20))
    ends = sorted(data.draw(st.sets(st.integers(1, count - 1), max_size=4)))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    real, fake = scores(count, 2, 1), scores(5, 2, 2)
    weights = scores(count, 1, 3)[:, 0] + 1 if data.draw(st.booleans()) else None
    expected = results(made(kind, real, weights=weights), fake)
    parts = order.tensor_split(ends)
    batches = [real[part] for part in parts]
    given_weights = None if weights is None else [weights[part] for part in parts]
    assert_close(results(made(kind, batches, weights=given_weights), fake), expected, rtol=1e-8, atol=1e-9)

    updated = made(kind, batches[:1], weights=given_weights and given_weights[:1])
    assert updated.self_term.isfinite()  # what is known of the first batch is forgotten
    for i, batch in enumerate(batches[1:], start=1):
        updated.update(batch, weights=given_weights and given_weights[i])
    assert_close(results(updated, fake), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_with_and_without_weights(kind):
    real, fake = scores(9, 2, 1), scores(5, 2, 2)
    weights = torch.tensor([1, 1, 1, 1, 0.5, 2, 3, 1, 1], dtype=torch.float64)
    expected = results(made(kind, real, weights=weights), fake)
    reference = made(kind, real[:4])
    reference.update(real[4:7], weights=weights[4:7])
    reference.update(real[7:])
    assert_close(results(reference, fake), expected)


def test_an_iterable_may_mix_batches_with_and_without_weights():
    real, fake = scores(9, 2, 1), scores(5, 2, 2)
    weights = torch.cat([torch.ones(4), torch.full((5,), 2.0)])
    found = made("exact", [real[:4], real[4:]], weights=[None, weights[4:]])
    assert_close(results(found, fake), results(made("exact", real, weights=weights), fake))


@pytest.mark.parametrize("kind", KINDS)
def test_a_loader_is_an_iterable(kind):
    real, fake = scores(40, 2, 1), scores(5, 2, 2)
    expected = results(made(kind, real), fake)
    loader = DataLoader(real, batch_size=7)
    assert_close(results(made(kind, loader), fake), expected, rtol=1e-8, atol=1e-9)


def test_landmarks_are_chosen_among_all_batches():
    real = torch.arange(40.0).unsqueeze(1)
    found = [
        MMDReference(
            real.split(7),
            RBFKernel(20.0),
            kind="nystrom",
            landmarks=10,
            generator=torch.Generator().manual_seed(seed),
        ).form.landmarks
        for seed in range(30)
    ]
    assert all(len(set(each[:, 0].tolist())) == 10 for each in found)
    counts = torch.cat(found)[:, 0].long().bincount(minlength=40)
    assert counts.min() >= 1
    assert counts.max() <= 16  # 7.5 with a standard deviation of 2.4


def test_landmarks_as_a_tensor_allow_an_iterator():
    real, fake = scores(40, 2, 1), scores(5, 2, 2)
    found = made("nystrom", list(real.split(7)))
    once = MMDReference(
        (batch for batch in real.split(7)), RBFKernel(1.5), kind="nystrom", landmarks=LANDMARKS, generator=None
    )
    assert_close(results(once, fake), results(found, fake))


def test_rows_that_are_kept_for_the_self_term_are_chosen_among_all_batches(monkeypatch):
    monkeypatch.setattr(nystrom, "SELF_ROWS", 10)
    real = torch.arange(40.0).unsqueeze(1)
    found = [
        MMDReference(
            real.split(7),
            RBFKernel(20.0),
            kind="nystrom",
            landmarks=real[::4],
            generator=torch.Generator().manual_seed(seed),
        ).form.chosen
        for seed in range(30)
    ]
    assert all(len(set(each[:, 0].tolist())) == 10 for each in found)
    counts = torch.cat(found)[:, 0].long().bincount(minlength=40)
    assert counts.min() >= 1
    assert counts.max() <= 16


def test_the_choices_from_batches_of_equal_size_are_independent():
    real = torch.arange(20.0).unsqueeze(1)
    options = {"kind": "nystrom", "landmarks": real[::4], "self_rows": 10}
    pairs = 0
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        chosen = MMDReference(real.split(10), RBFKernel(20.0), generator=generator, **options).form.chosen[:, 0]
        pairs += 10 - len(set((chosen % 10).tolist()))
    assert pairs < 40  # 2.6 of 5 are expected


def test_a_refused_update_changes_nothing():
    real, fake = scores(9, 2, 1), scores(5, 2, 2)
    for kind in KINDS:
        reference = made(kind, real)
        expected = results(reference, fake)
        for batch, weights in ((real[:, :1], None), (real / 0, None), (real, -torch.ones(9)), (real, torch.ones(8))):
            with pytest.raises(ValueError, match="expected"):
                reference.update(batch, weights=weights)
        assert_close(results(reference, fake), expected, rtol=0, atol=0)


class Failing(RBFKernel):
    """A kernel whose evaluation fails after a given number of calls."""

    calls = 99

    def from_sq_dist(self, sq_dist):
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("out of memory")
        return super().from_sq_dist(sq_dist)


@pytest.mark.parametrize("kind", ["exact", "nystrom"])
def test_an_update_in_which_the_kernel_fails_changes_nothing(kind, monkeypatch):
    monkeypatch.setattr(self_terms, "AT_ONCE", 2 * len(LANDMARKS))
    kernel = Failing(1.5)
    reference = MMDReference(scores(9, 2, 1), kernel, kind=kind, **taken_by(kind, landmarks=LANDMARKS))
    kernel, before = reference.form.kernel, {name: kept.clone() for name, kept in reference.form.named_buffers()}
    for kernel.calls in range(1 if kind == "exact" else 4):
        with pytest.raises(RuntimeError, match="out of memory"):
            reference.update(scores(5, 2, 2))
        assert_close(dict(reference.form.named_buffers()), before, rtol=0, atol=0, equal_nan=True)
    kernel.calls = 99
    reference.update(scores(5, 2, 2))
    assert reference.form.weight == 14


def test_an_update_whose_memory_does_not_suffice_changes_nothing(monkeypatch):
    reference = made("fourier", scores(9, 2, 1))
    before = {name: kept.clone() for name, kept in reference.form.named_buffers()}
    chunks = fourier.chunks

    def failing(*arguments, **options):
        yield next(chunks(*arguments, **options))
        raise torch.OutOfMemoryError

    monkeypatch.setattr(fourier, "chunks", failing)
    with pytest.raises(torch.OutOfMemoryError):
        reference.update(scores(5, 2, 2))
    assert_close(dict(reference.form.named_buffers()), before, rtol=0, atol=0, equal_nan=True)
