"""A program in the shape of HiFi-GAN, whose discriminators return lists of scores."""

import pytest
import torch
from foreign import vocoder
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import MMDLoss, RBFBKernel, UsageWarning, conv_spectral_norm, mmd2


@pytest.fixture(scope="module")
def data():
    return vocoder.sounds(32, 0)


def outputs(data, discriminators):
    """Return lists of real and fake scores of untrained networks."""
    fake = vocoder.Generator()(vocoder.log_spectrogram(data))
    return discriminators(data)[0], discriminators(fake)[0]


@pytest.fixture
def scores(data):
    torch.manual_seed(0)
    return outputs(data, vocoder.build(by_mmd=True)[1])


@pytest.mark.parametrize("by_mmd", [False, True])
def test_each_program_trains_all_networks_without_a_warning(data, by_mmd):
    untrained = vocoder.train(data, by_mmd=by_mmd, seed=0, steps=0)
    trained = vocoder.train(data, by_mmd=by_mmd, seed=0, steps=2)
    for before, after in zip(untrained, trained, strict=True):
        for old, new in zip(before.parameters(), after.parameters(), strict=True):
            assert new.isfinite().all()
            assert (old != new).any()
    assert vocoder.errors(trained[0], data)[0] < vocoder.errors(untrained[0], data)[0]


def test_the_loss_of_a_list_is_the_sum_over_its_entries(scores):
    real, fake = scores
    assert len({len(r) for r in real}) == len({r.shape for r in real}) == 1  # a sample has 16 scores everywhere
    _, generator_loss = vocoder.mmd()
    loss = generator_loss(real, fake)
    assert_close(loss, sum(mmd2(r, f, RBFBKernel()) for r, f in zip(real, fake, strict=True)))


def test_a_remembering_loss_for_each_entry_is_the_same(scores):
    """For a program whose generator's loss gets the list of fake scores only."""
    real, fake = scores
    losses = [MMDLoss(remember_real=True) for _ in real]
    for loss, r, f in zip(losses, real, fake, strict=True):
        loss.discriminator(real=r, fake=f)
    remembered = sum(loss.generator(fake=f) for loss, f in zip(losses, fake, strict=True))
    assert_close(remembered, vocoder.mmd()[1](real, fake))


def test_naive_forms_are_refused_or_warned_of(scores):
    real, fake = scores
    with pytest.raises(TypeError, match="^real: expected a tensor of scores, got list of length 5; take the scores ou"):
        MMDLoss().discriminator(real=real, fake=fake)
    loss = MMDLoss(remember_real=True)
    for r, f in zip(real, fake, strict=True):
        loss.discriminator(real=r, fake=f)
    with pytest.warns(UsageWarning, match="^MMDLoss: expected fake scores of the discriminator that computed the rem"):
        sum(loss.generator(fake=f) for f in fake)
    with_weight_norm = vocoder.Discriminators(nn.utils.parametrizations.weight_norm, 16)
    with pytest.raises(ValueError, match="such as weight_norm"):
        conv_spectral_norm(with_weight_norm, replace=True)


def test_pooling_with_the_norm_of_one_keeps_the_scores_in_reach_of_the_kernel(data):
    """A plain mean brings all scores of an untrained discriminator together, and a sum puts them far apart."""

    def means(pool):
        torch.manual_seed(0)
        return vocoder.kernel_means(*vocoder.build(True, vocoder.POOLS[pool])[:2], data)

    assert min(means("mean")) > 0.97
    assert max(means("sum")[:-1]) < 0.1  # the last one sees half the sampling rate, so fewer places
    assert min(means("norm one")) > 0.1
    assert max(means("norm one")) < 0.97
