"""A program in the shape of PyTorch-GAN's LSGAN."""

import pytest
import torch
from foreign import lsgan

from torch_mmd_losses import UsageWarning


@pytest.mark.parametrize("arm", lsgan.ARMS)
def test_each_program_trains_both_networks_without_a_warning(arm):
    images = torch.rand(64, 1, 32, 32) * 2 - 1
    untrained = lsgan.train(images, rates=(2e-4, 1e-3), seed=0, steps=0, **lsgan.ARMS[arm][0])
    trained = lsgan.train(images, rates=(2e-4, 1e-3), seed=0, steps=2, **lsgan.ARMS[arm][0])
    for before, after in zip(untrained.parameters(), trained.parameters(), strict=True):
        assert after.isfinite().all()
        assert (before != after).any()


def test_batch_normalisation_that_is_left_in_the_discriminator_is_warned_of():
    discriminator = lsgan.Discriminator(16, batch_norm=True, dropout=False)
    with pytest.warns(UsageWarning, match="BatchNorm"):
        lsgan.conv_spectral_norm(discriminator, scale=1 / 0.55)
