"""What `docs/gan.md` and `docs/losses.md` say of naive forms that run without an error or a warning."""

import torch
from torch import nn
from torch.testing import assert_close

from torch_mmd_losses import MMDLoss, RBFKernel, gradient_penalty, median_distance, mmd2


def networks():
    D = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 4))
    return D, nn.Linear(3, 2)


def gradients(network):
    return [parameter.grad for parameter in network.parameters()]


def test_opposite_losses_cancel_if_both_are_differentiated_with_respect_to_everything():
    D, G = networks()
    real, fake = torch.randn(20, 2), G(torch.randn(20, 3))
    loss_d, loss_g = MMDLoss(RBFKernel(), lambda_=-1).both(real=D(real), fake=D(fake))
    loss_d.backward(retain_graph=True)
    assert all(gradient.abs().sum() > 0 for gradient in gradients(G))
    loss_g.backward()
    for gradient in gradients(D) + gradients(G):
        assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-7)


def test_detached_fake_samples_leave_the_generator_without_a_gradient():
    D, G = networks()
    _, loss_g = MMDLoss().both(real=D(torch.randn(20, 2)), fake=D(G(torch.randn(20, 3)).detach()))
    loss_g.backward(inputs=list(G.parameters()))
    assert gradients(G) == [None, None]


def test_called_as_a_criterion_the_loss_is_that_of_the_generator():
    loss, real, fake = MMDLoss(), torch.randn(20, 4), torch.randn(20, 4) + 1
    assert_close(loss(real=real, fake=fake), loss.generator(real=real, fake=fake))
    assert loss(real=real, fake=fake) != loss.discriminator(real=real, fake=fake)


def test_swapped_scores_turn_the_repulsive_loss_around():
    loss, real, fake = MMDLoss(RBFKernel()), torch.randn(20, 4), torch.randn(20, 4) + 1
    assert_close(loss.discriminator(fake, real), -loss.discriminator(real, fake))


def test_a_bandwidth_of_each_batch_hides_the_size_of_the_scores():
    real, fake = torch.randn(30, 4), torch.randn(30, 4) + 1
    values = [
        MMDLoss(RBFKernel(median_distance(c * real, c * fake))).discriminator(real=c * real, fake=c * fake)
        for c in (1.0, 1e-3)
    ]
    assert_close(*values)


def test_patches_of_one_image_as_samples_leave_a_floor_that_falls_with_the_batch():
    """The patches of an image share a part of their scores; both groups have the same distribution."""
    generator = torch.Generator().manual_seed(0)

    def mean_value(images, draws=200):
        values = []
        for _ in range(draws):
            of_images = torch.randn(2, images, 1, 4, generator=generator)
            real, fake = (of_images + torch.randn(2, images, 9, 4, generator=generator)).flatten(1, 2)
            values.append(mmd2(real, fake, RBFKernel(2.0)))
        values = torch.stack(values)
        return values.mean(), values.std() / draws**0.5

    (few, error), (many, error_of_many) = mean_value(4), mean_value(16)
    assert few > 10 * error
    assert many > 3 * error_of_many
    assert many < few / 2


def test_batch_norm_mixes_the_gradients_of_samples():
    critic = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    points = torch.randn(10, 3).requires_grad_()
    scores = critic(points)
    (own,) = torch.autograd.grad(scores[0].sum(), points, retain_graph=True)
    (summed,) = torch.autograd.grad(scores.sum(), points, retain_graph=True)
    assert (own[1:].abs() > 0).all()  # the score of the first sample depends on all others
    assert not torch.allclose(own[0], summed[0], rtol=0.01)
    assert_close(gradient_penalty(scores, inputs=points, target=0), summed.square().sum(1).mean())
