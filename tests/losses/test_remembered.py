"""`remember_real=True`: the generator's loss takes the real scores of the last discriminator's loss."""

import copy
import pickle

import pytest
import torch
from critics import network
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from torch_mmd_losses import LinearKernel, MMDLoss, ScaledMMDLoss


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
