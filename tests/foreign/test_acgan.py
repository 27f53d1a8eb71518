"""A discriminator with a second head trains both heads, in the order that updates the generator first."""

import pytest
import torch
from foreign import small_digits as digits
from foreign.acgan import Discriminator, Trainer, accuracy, train, wrap_all, wrap_scores
from torch.nn.utils import parametrize

from torch_mmd_losses import MMDLoss, UsageWarning


def test_each_head_is_trained_by_its_own_loss():
    images, labels = digits.load()
    trainer = Trainer(weight=0.3)
    for _ in range(4):  # the warnings of the first calls are errors
        trainer.step(images[:64], labels[:64])
    gradients = {name: parameter.grad for name, parameter in trainer.discriminator.named_parameters()}
    assert all(gradient.any() for gradient in gradients.values())
    assert all(parameter.grad.any() for parameter in trainer.generator.parameters())


def test_the_class_head_is_wrapped_with_the_network_and_only_then():
    for wrap, wrapped in ((wrap_all, [True] * 4), (wrap_scores, [True, True, True, False])):
        D = wrap(Discriminator())
        layers = [D.features[0], D.features[2], D.adv_layer, D.aux_layer]
        assert [parametrize.is_parametrized(layer, "weight") for layer in layers] == wrapped


def test_class_probabilities_as_scores_are_warned_of():
    _, classes = Discriminator()(torch.randn(8, 1, 8, 8))
    with pytest.warns(UsageWarning, match="expected scores without a softmax"):
        MMDLoss().discriminator(real=classes.softmax(1), fake=classes.softmax(1))


@pytest.mark.slow
def test_a_wrapped_class_head_learns_the_classes():
    images, labels = digits.load()
    trained = train(images[:-1:2], labels[:-1:2], 1.0, steps=100)
    assert accuracy(trained.discriminator, images[1::2], labels[1::2]) > 0.8
