"""`remember_real=True`: the generator's loss takes the real scores of the last discriminator's loss."""

import copy
import pickle
import warnings

import pytest
import torch
from critics import network
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from torch_mmd_losses import LinearKernel, MMDLoss, ScaledMMDLoss, UsageWarning
from torch_mmd_losses.losses import origins
from torch_mmd_losses.losses.remembered import EXAMINED


def batch(seed, m=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, 4, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("method", ["discriminator", "both"])
def test_the_last_real_scores_are_used_without_a_gradient(method):
    loss, fake = MMDLoss(remember_real=True), batch(9)
    for seed in range(2):
        real = batch(seed)
        getattr(loss, method)(real=real, fake=batch(5))
    expected = MMDLoss().generator(real=real.detach(), fake=fake)
    for value in (loss.generator(fake=fake), loss(fake=fake)):
        assert_close(value, expected)
        assert_close(torch.autograd.grad(value, fake), torch.autograd.grad(expected, fake, retain_graph=True))
    assert torch.autograd.grad(loss.generator(fake=fake), real, allow_unused=True) == (None,)
    other = batch(7).detach()
    assert_close(loss.generator(real=other, fake=fake), MMDLoss().generator(real=other, fake=fake))
    assert_close(loss.generator(fake=fake), expected)


def test_only_a_detached_reference_is_kept():
    loss, real = MMDLoss(remember_real=True), batch(0)
    loss.discriminator(real=2 * real, fake=batch(1))
    assert loss._remembered.real.grad_fn is None
    assert MMDLoss().discriminator(real=real, fake=batch(1)) is not None
    scores = real.detach()
    loss.discriminator(real=scores, fake=batch(1))
    assert loss._remembered.real.data_ptr() == scores.data_ptr()


def test_terms_validation_and_refused_calls_are_not_remembered():
    loss, fake = MMDLoss(remember_real=True), batch(3)
    loss.discriminator(real=batch(0), fake=batch(1))
    expected = loss.generator(fake=fake)
    loss.terms(real=batch(5), fake=fake)
    loss.generator(real=batch(5), fake=fake)
    with torch.no_grad():
        loss.both(real=batch(5), fake=fake)
    with torch.inference_mode():
        loss.discriminator(real=batch(5), fake=fake)
    with pytest.raises(ValueError, match="same score dimension"):
        loss.discriminator(real=batch(5)[:, :2], fake=fake)
    with pytest.raises(RuntimeError, match="^remember_real: expected a call outside of function transforms"):
        torch.func.grad(lambda scores: loss.discriminator(real=scores, fake=fake))(batch(5).detach())
    assert_close(loss.generator(fake=fake), expected)


def test_scores_that_are_missing():
    fake = batch(0)
    for loss in (MMDLoss(), ScaledMMDLoss()):
        name = type(loss).__name__
        with pytest.raises(
            TypeError, match=rf"^real: expected a tensor of scores, got NoneType; {name}\(remember_real=True"
        ):
            loss.generator(fake=fake)
    for loss in (MMDLoss(remember_real=True), ScaledMMDLoss(remember_real=True)):
        with pytest.raises(RuntimeError, match="^real: expected real scores, or an earlier call.* got neither"):
            loss.generator(fake=fake)
        for arguments in ({}, {"real": fake}):
            with pytest.raises(TypeError, match="^fake: expected a tensor of scores, got None"):
                loss.generator(**arguments)
    for given, missing in (("real", "inputs"), ("inputs", "real")):
        with pytest.raises(
            TypeError, match=f"^{missing}: expected a tensor, got NoneType; real and inputs belong together"
        ):
            ScaledMMDLoss(remember_real=True).generator(fake=fake, **{given: fake})
    with pytest.raises(TypeError, match="^inputs: expected a tensor, got None"):
        ScaledMMDLoss().generator(real=fake, fake=fake)


@pytest.mark.parametrize("options", [{}, {"kernel": LinearKernel(), "squared": False}, {"scale": "exact"}], ids=str)
@pytest.mark.parametrize("method", ["discriminator", "both"])
def test_a_scaled_loss_remembers_its_scale_too(options, method):
    critic, inputs, fake = network(4, 1), batch(0), batch(2)
    loss = ScaledMMDLoss(**options, remember_real=True)
    getattr(loss, method)(real=critic(inputs), fake=critic(batch(1)), inputs=inputs)
    expected = ScaledMMDLoss(**options).generator(real=critic(inputs), fake=critic(fake), inputs=inputs)
    for value in (loss.generator(fake=critic(fake)), loss(fake=critic(fake))):
        assert_close(value, expected)
        assert_close(torch.autograd.grad(value, fake), torch.autograd.grad(expected, fake, retain_graph=True))
    assert loss._remembered.scale.grad_fn is None


def test_copies_and_states_do_not_have_the_scores():
    loss, fake = MMDLoss(remember_real=True), batch(1)
    loss.discriminator(real=batch(0), fake=fake)
    assert set(loss.state_dict()) == {"kernel._extra_state"}
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert copied.remember_real
        with pytest.raises(RuntimeError, match="copies and pickles remember nothing"):
            copied.generator(fake=fake)
    loss.generator(fake=fake)
    assert "remember_real=True" in repr(loss)


# Several discriminators and one loss.


def steps(loss, order, networks, *, generator, noise=None):
    """Call the loss for the networks in the given order, then for the generator once for each network."""
    noise = torch.randn(8, 3) if noise is None else noise
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in order:
            inputs = {"inputs": torch.randn(8, 4).requires_grad_()} if isinstance(loss, ScaledMMDLoss) else {}
            real = inputs.get("inputs", torch.randn(8, 4))
            loss.discriminator(real=networks[i](real), fake=networks[i](generator(noise)), **inputs)
        for network in networks:
            loss.generator(fake=network(generator(noise)))
    return [str(warning.message) for warning in caught if warning.category is UsageWarning]


def networks_of(count):
    return [nn.Linear(4, 16) for _ in range(count)]


@pytest.mark.parametrize("kind", [MMDLoss, ScaledMMDLoss])
def test_real_scores_of_another_discriminator_are_warned_of(kind):
    messages = steps(kind(remember_real=True), (0, 1, 2), networks_of(3), generator=nn.Sequential(nn.Linear(3, 4)))
    assert len(messages) == 1  # one line of code, so one warning
    assert messages[0].startswith(f"{kind.__name__}: expected fake scores of the discriminator that computed the remem")


@pytest.mark.parametrize("kind", [MMDLoss, ScaledMMDLoss])
def test_one_discriminator_whose_layers_change_from_call_to_call_is_no_other_one(kind):
    generator = nn.Linear(3, 4)
    first, last, *middle = (nn.Linear(4, 4) for _ in range(5))
    dropped = [nn.Sequential(first, layer, last) for layer in middle]  # as with LayerDrop or hard routing
    routed = [nn.Sequential(first, nn.Linear(4, 16)) for _ in range(3)]  # also of heads, which look like scales
    for calls in (dropped, routed):
        assert not steps(kind(remember_real=True), (0, 1, 2), calls, generator=generator)


def test_layers_that_are_trained_in_some_calls_only_are_no_other_discriminator():
    trunk, head, fake = nn.Linear(4, 4), nn.Linear(4, 16), nn.Linear(3, 4)(torch.randn(8, 3))
    critic, loss = nn.Sequential(trunk, head), MMDLoss(remember_real=True)
    for trained in (head, trunk, head, trunk):
        critic.requires_grad_(False)
        trained.requires_grad_(True)
        loss.discriminator(real=critic(torch.randn(8, 4)), fake=critic(fake.detach()))
        for again in (trunk, head):  # the generator's loss need not have the gradients of the discriminator's
            critic.requires_grad_(False)
            again.requires_grad_(True)
            loss.generator(fake=critic(fake))  # warnings are errors


def test_a_parameter_that_is_gone_is_not_taken_for_a_new_one_at_its_address():
    gone, *new = [origins.parameters_of(nn.Parameter(torch.zeros(())) + 1) for _ in range(100)]
    assert gone not in new
    assert not origins.are_from_another_network(torch.zeros(()), [new[0], gone])


@pytest.mark.parametrize("kind", [MMDLoss, ScaledMMDLoss])
def test_steps_of_one_discriminator_and_of_one_loss_for_each_are_right(kind):
    generator = nn.Linear(3, 4)
    for order in ((0,), (0,) * 5):  # several steps of the critic, or small batches
        assert not steps(kind(remember_real=True), order, networks_of(1), generator=generator)
    for one in networks_of(3):
        assert not steps(kind(remember_real=True), (0,), [one], generator=generator)
    # the trained networks are no mistake if the generator's loss is that of the last one
    loss, networks = kind(remember_real=True), networks_of(2)
    steps(loss, (0,), networks[:1], generator=generator)
    assert not steps(loss, (0,), networks[1:], generator=generator)


def test_real_samples_that_require_gradients_are_no_other_discriminator():
    loss, (critic,), generator = MMDLoss(remember_real=True), networks_of(1), nn.Linear(3, 4)
    for real in (torch.randn(8, 4), torch.randn(8, 4).requires_grad_()):  # for a gradient penalty in some steps
        loss.discriminator(real=critic(real), fake=critic(generator(torch.randn(8, 3)).detach()))
    loss.generator(fake=critic(generator(torch.randn(8, 3))))  # warnings are errors


def test_a_layer_that_is_used_in_some_calls_only_makes_no_other_discriminator():
    loss, (critic, layer), fake = MMDLoss(remember_real=True), networks_of(2), nn.Linear(3, 4)(torch.randn(8, 3))
    for scores in (critic, lambda x: critic(x) + layer(x)):
        loss.discriminator(real=scores(torch.randn(8, 4)), fake=critic(fake.detach()))
    loss.generator(fake=critic(fake))


def test_scores_of_both_networks_are_also_those_of_the_last_one():
    loss, (first, second), fake = MMDLoss(remember_real=True), networks_of(2), nn.Linear(3, 4)(torch.randn(8, 3))
    for critic in (first, second):
        loss.discriminator(real=critic(torch.randn(8, 4)), fake=critic(fake.detach()))
    loss.generator(fake=first(fake) + second(fake))


def test_the_graph_of_one_discriminator_s_scores_is_not_searched(monkeypatch):
    loss, (critic,), generator = MMDLoss(remember_real=True), networks_of(1), nn.Linear(3, 4)
    for _ in range(2):
        loss.discriminator(real=critic(torch.randn(8, 4)), fake=critic(torch.randn(8, 4)))
    monkeypatch.setattr(origins, "parameters_of", None)
    loss.generator(fake=critic(generator(torch.randn(8, 3))))


def test_a_list_of_fake_scores_is_refused():
    loss = MMDLoss(remember_real=True)
    loss.discriminator(real=batch(0), fake=batch(1))
    with pytest.raises(
        TypeError, match="^fake: expected a tensor of scores, got list of length 2; take the scores out"
    ):
        loss.generator(fake=[batch(1), batch(2)])


def test_later_losses_and_frozen_discriminators_are_not_examined():
    generator, loss = nn.Linear(3, 4), MMDLoss(remember_real=True)
    assert not steps(loss, (0, 1) * (EXAMINED // 2) + (0,), networks_of(2), generator=generator)
    assert loss._remembered.networks == []
    loss, (first, second) = MMDLoss(remember_real=True), networks_of(2)
    for critic in (first, second):
        loss.discriminator(real=critic(torch.randn(8, 4)), fake=critic(torch.randn(8, 4)))
    first.requires_grad_(False)
    loss.generator(fake=first(generator(torch.randn(8, 3))))


@pytest.mark.slow
def test_compiled_steps_share_the_scores():
    graphs = CompileCounter()
    loss, critic = MMDLoss(remember_real=True), network(4, 3)
    steps = [
        torch.compile(step, backend=graphs, fullgraph=True)
        for step in (
            lambda real, fake: loss.discriminator(real=critic(real), fake=critic(fake)),
            lambda fake: loss.generator(fake=critic(fake)),
        )
    ]
    for seed in range(3):
        real, fake = batch(seed).detach(), batch(seed + 9).detach()
        steps[0](real, fake)
        assert_close(steps[1](fake), MMDLoss().generator(real=critic(real).detach(), fake=critic(fake)))
    assert graphs.frame_count == 2
