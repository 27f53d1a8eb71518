"""Scores that are a subclass of tensors, such as those computed from BigGAN's noise, count as plain tensors."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from torch_mmd_losses import (
    LaplaceKernel,
    MMDLoss,
    RBFKernel,
    ScaledMMDLoss,
    drift_loss,
    gradient_penalty,
    grouped_mmd2,
    mmd2,
    relative,
    witness,
)


class Noise(Tensor):
    """Passes its type on to whatever is computed from it, and its conversion works for itself only."""

    distribution = None

    def to(self, *args, **kwargs):
        return super().to(*args, **kwargs) if self.distribution else self.distribution["normal"]


REAL, FAKE = torch.randn(2, 3, 8, 4, generator=torch.Generator().manual_seed(0))
CALLS = {
    "discriminator": lambda fake: MMDLoss().discriminator(real=REAL[0], fake=fake[0]),
    "generator": lambda fake: MMDLoss().generator(real=REAL[0], fake=fake[0]),
    "both": lambda fake: sum(MMDLoss().both(real=REAL[0], fake=fake[0])),
    "a trained kernel": lambda fake: mmd2(REAL[0], fake[0], LaplaceKernel(trainable=True)),
    "grouped_mmd2": lambda fake: grouped_mmd2(REAL, fake, RBFKernel()).sum(),
    "weights": lambda fake: mmd2(REAL[0], FAKE[0], RBFKernel(), fake_weights=fake[0, :, 0].square()),
    "scale": lambda fake: grouped_mmd2(REAL, FAKE, RBFKernel(), scale=fake[:, 0, 0].exp()).sum(),
    "relative": lambda fake: relative(fake[0].square().sum()),
    "drift_loss": lambda fake: drift_loss(fake, REAL).sum(),
    "witness": lambda fake: witness(fake[0], real=REAL[0], fake=fake[1], kernel=RBFKernel()).sum(),
}


@pytest.mark.parametrize("name", CALLS)
def test_values_and_gradients_are_plain_and_those_of_a_plain_tensor(name):
    expected_leaf, leaf = FAKE.clone().requires_grad_(), FAKE.clone().requires_grad_()
    expected, found = CALLS[name](expected_leaf * 2), CALLS[name]((leaf * 2).as_subclass(Noise))
    assert type(found) is Tensor
    assert_close(found, expected, rtol=0, atol=0)
    expected.backward()
    found.backward()
    assert_close(leaf.grad, expected_leaf.grad, rtol=0, atol=0)


def test_a_step_of_a_gan_whose_noise_is_a_subclass():
    torch.manual_seed(0)
    G, D = nn.Linear(3, 4), nn.Linear(4, 16)
    noise = torch.randn(8, 3)

    def gradients(z):
        loss = MMDLoss(remember_real=True)
        fake = G(z)
        assert type(D(fake)) is type(z)
        loss_d = loss.discriminator(real=D(REAL[0]), fake=D(fake.detach()))
        loss_g = loss.generator(fake=D(fake))
        return torch.autograd.grad(loss_d + loss_g, [*D.parameters(), *G.parameters()])

    assert_close(gradients(noise.as_subclass(Noise)), gradients(noise), rtol=0, atol=0)


def test_samples_of_a_subclass_can_be_differentiated():
    D = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    values = []
    for samples in (REAL[0].clone(), REAL[0].clone().as_subclass(Noise)):
        samples.requires_grad_()
        penalty = gradient_penalty(D(samples), inputs=samples)
        loss = ScaledMMDLoss().discriminator(real=D(samples), fake=D(FAKE[0]), inputs=samples)
        values.append([value.as_subclass(Tensor) for value in (penalty, loss)])
    assert_close(values[1], values[0])
