"""Gradient caching: the gradients of the whole batch, from chunks."""

import weakref

import pytest
import torch
import torch.distributed as dist
from processes import leave, meeting_file, start
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from torch_mmd_losses import MMDLoss, RBFKernel, UsageWarning, cached_backward, mmd2
from torch_mmd_losses.losses import gradient_caching

KERNEL = RBFKernel(3.0)


def network(dtype=torch.float64, dropout=0.0):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 5)).to(dtype)


@pytest.fixture
def real():
    return torch.randn(11, 5, dtype=torch.float64)


@pytest.fixture
def noise():
    return torch.randn(10, 3, dtype=torch.float64)


def grads(module):
    return [parameter.grad for parameter in module.parameters()]


@pytest.mark.parametrize("size", [1, 4, 5, 10, 99])
def test_gradients_are_those_of_the_whole_batch(real, noise, size):
    whole, chunked = network(), network()
    expected = mmd2(real, whole(noise), KERNEL)
    expected.backward()
    found = cached_backward(noise.split(size), chunked, lambda fake: mmd2(real, fake, KERNEL))
    assert_close(found, expected.detach(), rtol=1e-12, atol=1e-14)
    assert_close(grads(chunked), grads(whole), rtol=1e-12, atol=1e-14)


def test_gradients_are_added(real, noise):
    module = network()
    for _ in range(2):
        cached_backward(noise.split(4), module, lambda fake: mmd2(real, fake, KERNEL))
    twice = grads(module)
    module = network()
    cached_backward(noise.split(4), module, lambda fake: mmd2(real, fake, KERNEL))
    assert_close(twice, [2 * gradient for gradient in grads(module)])


def test_both_passes_have_the_same_dropout_and_leave_the_generator_as_one_would(real, noise):
    whole, chunked = network(dropout=0.5), network(dropout=0.5)
    torch.manual_seed(5)
    expected = mmd2(real, torch.cat([whole(part) for part in noise.split(4)]), KERNEL)
    expected.backward()
    then = torch.rand(1)
    torch.manual_seed(5)
    found = cached_backward(noise.split(4), chunked, lambda fake: mmd2(real, fake, KERNEL))
    assert_close(torch.rand(1), then, rtol=0, atol=0)
    assert_close(found, expected.detach(), rtol=1e-12, atol=1e-14)
    assert_close(grads(chunked), grads(whole), rtol=1e-12, atol=1e-14)


class OnGPU(torch.Tensor):
    """A tensor that says that it is on a GPU."""

    device = torch.device("cuda", 1)


def test_the_states_of_the_generators_of_devices_are_saved_and_restored(real, noise, monkeypatch):
    # There is no GPU here: PyTorch's own functions for their states are replaced by ones that take notes.
    saved, restored = [], []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cpu"))
    monkeypatch.setattr(
        gradient_caching, "get_device_states", lambda *found: (saved.append([type(x) for x in found]), [len(saved)])
    )
    monkeypatch.setattr(gradient_caching, "set_device_states", lambda *state, device_type: restored.append(state[1]))
    module = network()
    chunks = [part.as_subclass(OnGPU) for part in noise.split(5)]
    cached_backward(chunks, lambda z: module(z.as_subclass(torch.Tensor)), lambda fake: mmd2(real, fake, KERNEL))
    # The states before each chunk, and after the loss.
    assert saved == [[OnGPU, torch.Tensor], [OnGPU, torch.Tensor], [OnGPU, OnGPU, torch.Tensor]]
    assert restored == [[1], [2], [3]]


def test_random_numbers_of_the_loss_come_once(real, noise):
    def loss(fake):
        return mmd2(real, fake + torch.rand_like(fake), KERNEL)

    whole, chunked = network(dropout=0.5), network(dropout=0.5)
    torch.manual_seed(5)
    loss(torch.cat([whole(part) for part in noise.split(4)])).backward()
    then = torch.rand(1)
    torch.manual_seed(5)
    cached_backward(noise.split(4), chunked, loss)
    assert_close(torch.rand(1), then, rtol=0, atol=0)
    assert_close(grads(chunked), grads(whole), rtol=1e-12, atol=1e-14)


def test_several_encoders_and_parameters_of_the_loss(real, noise):
    def features(generator, heads, z):
        made = generator(z)
        return {name: head(made) for name, head in heads.items()} | {"constant": torch.ones(len(z))}

    def loss(scale, found):
        return scale.exp() * mmd2(real, found["a"], KERNEL) + found["b"].square().mean() + found["constant"].sum()

    modules = []
    for chunked in (False, True):
        parts = nn.ModuleDict(
            {"generator": network(), "a": nn.Linear(5, 5), "b": nn.Linear(5, 2), "unused": nn.Linear(5, 1)}
        )
        parts.double().load_state_dict(modules[0].state_dict() if modules else parts.state_dict())
        modules.append(parts)
        heads = {name: parts[name] for name in ("a", "b", "unused")}
        scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
        if chunked:
            cached_backward(
                noise.split(3),
                lambda z, p=parts, h=heads: features(p["generator"], h, z),
                lambda f, s=scale: loss(s, f),
            )
        else:
            loss(scale, features(parts["generator"], heads, noise)).backward()
        parts.scale = scale
    assert_close(modules[1].scale.grad, modules[0].scale.grad, rtol=1e-12, atol=1e-14)
    assert modules[1]["unused"].weight.grad is None
    for name in ("generator", "a", "b"):
        assert_close(grads(modules[1][name]), grads(modules[0][name]), rtol=1e-12, atol=1e-14)


def test_the_activations_of_one_chunk_are_alive_at_a_time(real, noise):
    module, alive, most = network(), weakref.WeakSet(), 0

    class Activation:
        pass

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            nonlocal most
            if any(ctx.needs_input_grad):
                ctx.activation = Activation()
                alive.add(ctx.activation)
            most = max(most, len(alive))
            return x.clone()

        @staticmethod
        def backward(ctx, outer):
            return outer

    cached_backward(noise.split(2), lambda z: Watched.apply(module(z)), lambda fake: mmd2(real, fake, KERNEL))
    assert most == 1


def test_features_of_autocast_and_scaled_losses(real, noise):
    z, target = noise.float(), real.float()
    found = []
    for chunked in (False, True):
        module, scaler = network(torch.float32), torch.amp.GradScaler("cpu", init_scale=1024.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if chunked:
                value = cached_backward(
                    z.split(3), module, lambda fake: mmd2(target, fake.float(), KERNEL), scaler=scaler
                )
            else:
                value = mmd2(target, module(z).float(), KERNEL)
                scaler.scale(value).backward()
        found.append((value.detach(), grads(module)))
    assert_close(found[1][0], found[0][0], rtol=1e-4, atol=1e-5)
    scale = max(float(gradient.abs().max()) for gradient in found[0][1])
    for gradient, expected in zip(found[1][1], found[0][1], strict=True):
        assert_close(gradient, expected, rtol=0, atol=0.01 * scale)
    assert scale > 10


def _train_on_a_share(rank, meeting, target, noise, loss_kind, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    module = DistributedDataParallel(network(dropout=0.0))
    loss = MMDLoss(KERNEL, global_batch=True)
    real, fake = target.chunk(2)[rank], noise.chunk(2)[rank]
    # The processes have other numbers of chunks: gradients are averaged once.
    value = cached_backward(
        fake.split(2 + rank), module, lambda scores: loss.generator(real=real, fake=scores), no_sync=module.no_sync
    )
    torch.save((value, grads(module.module)), f"{folder}/{rank}.pt")
    leave()


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_the_batch_of_both(tmp_path, noise):
    target = torch.randn(10, 5, dtype=torch.float64)
    start(_train_on_a_share, 2, meeting_file(tmp_path), target, noise, "generator", str(tmp_path))
    whole = network()
    expected = MMDLoss(KERNEL).generator(real=target, fake=whole(noise))
    expected.backward()
    for rank in range(2):
        value, gradients = torch.load(tmp_path / f"{rank}.pt")
        assert_close(value, expected.detach(), rtol=1e-12, atol=1e-14)
        assert_close(gradients, grads(whole), rtol=1e-12, atol=1e-14)


def test_features_that_differ_between_the_passes_are_warned_of_once(real, noise):
    module, generator = network(), torch.Generator().manual_seed(0)

    def encode(z):
        return module(z + torch.randn(z.shape, generator=generator, dtype=z.dtype))

    def step():
        cached_backward(noise.split(4), encode, lambda fake: mmd2(real, fake, KERNEL))

    with pytest.warns(UsageWarning, match="got different ones.*as part of the chunks") as caught:
        step()
    assert len(caught) == 1
    step()  # from the same place


@pytest.mark.parametrize("shape", ["module", "function", "partial", "method"])
def test_batch_norm_in_training_mode_is_warned_of(real, noise, shape):
    from functools import partial

    module = nn.Sequential(network(), nn.BatchNorm1d(5).double())
    encode = {
        "module": module,
        "function": lambda z: module(z),
        "partial": partial(lambda first, z: first(z), module),
        "method": module.forward,
    }[shape]
    with pytest.warns(UsageWarning, match=r"got BatchNorm1d '1' in training mode.*eval mode"):
        cached_backward(noise.split(5), encode, lambda fake: mmd2(real, fake, KERNEL))
    module.eval()
    cached_backward(noise.split(5), encode, lambda fake: mmd2(real, fake, KERNEL))


def test_batch_norm_that_encode_does_not_use_is_right(real, noise):
    class GAN(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator, self.classifier = network(), nn.BatchNorm1d(5).double()

        def generate(self, z):
            return self.generator(z)

    cached_backward(noise.split(5), GAN().generate, lambda fake: mmd2(real, fake, KERNEL))  # warnings are errors


@pytest.mark.parametrize("make", [nn.BatchNorm1d, nn.LazyBatchNorm1d], ids=["eager", "lazy"])
@pytest.mark.parametrize("statistics", [True, False])
def test_batch_norm_of_any_kind_is_warned_of(real, noise, make, statistics):
    features = () if make is nn.LazyBatchNorm1d else (5,)
    module = nn.Sequential(network(), make(*features, track_running_stats=statistics, dtype=torch.float64))
    with pytest.warns(UsageWarning, match=r"got BatchNorm1d '1' in training mode"):
        cached_backward(noise.split(5), module, lambda fake: mmd2(real, fake, KERNEL))


class OfAnotherLibrary(nn.BatchNorm1d):
    """A batch norm that does not count how often it is used, as those that are synchronised between processes."""

    def forward(self, x):
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training)


def test_batch_norm_that_does_not_count_itself_is_warned_of(real, noise):
    module = nn.Sequential(network(), OfAnotherLibrary(5).double())
    with pytest.warns(UsageWarning, match=r"got OfAnotherLibrary '1' in training mode"):
        cached_backward(noise.split(5), module, lambda fake: mmd2(real, fake, KERNEL))


def test_a_callable_that_cannot_be_looked_into_is_called_all_the_same(real, noise):
    class Encode:
        def __init__(self):
            self.module = network()

        def __call__(self, z):
            return self.module(z)

    encode = Encode()
    cached_backward(noise.split(5), encode, lambda fake: mmd2(real, fake, KERNEL))
    assert grads(encode.module)[0].abs().sum() > 0


class Growing:
    """An encoder whose features have one more column in each call."""

    def __init__(self, start):
        self.columns = start

    def __call__(self, z):
        self.columns += 1
        return z.sum(1, keepdim=True).repeat(1, self.columns).requires_grad_()


def test_a_loss_without_any_gradient_is_warned_of(real, noise):
    def loss(fake):
        value = mmd2(real, fake, KERNEL, estimator="biased")
        return value / value

    with pytest.warns(
        UsageWarning, match="gradients of exactly zero for all features.*detach the divisor, as relative"
    ):
        cached_backward(noise.split(4), network(), loss)


def test_no_number_is_read_where_the_host_may_not(real, noise, monkeypatch):
    from torch_mmd_losses.pairs import reach

    monkeypatch.setattr(reach, "is_readable", lambda *_: False)
    cached_backward(noise.split(4), network(), lambda fake: fake.sum() * 0)


Z = torch.zeros(4, 3)
MODULE = nn.Linear(3, 2)
USES = {
    "encode": ((Z.split(2), None, torch.sum), TypeError, "encode: expected a function, got None"),
    "loss": ((Z.split(2), MODULE, 3), TypeError, "loss: expected a function, got 3"),
    "a tensor": ((Z, MODULE, torch.sum), ValueError, "chunks: expected parts of a batch, .*, got a tensor of shape"),
    "loss of a pair": (
        (Z.split(2), MODULE, lambda x: (x.sum(), {})),
        TypeError,
        "loss: expected a scalar tensor.*for logging",
    ),
    "no chunk": (([], MODULE, torch.sum), ValueError, "chunks: expected at least one chunk, got none"),
    "no tensor": (
        (Z.split(2), lambda z: 1.0, torch.sum),
        TypeError,
        "encode: expected a tensor of features.*got 1.0 for chunk 0",
    ),
    "no tensors": (
        (Z.split(2), lambda z: {}, torch.sum),
        ValueError,
        "encode: expected features, got an empty dictionary for chunk 0",
    ),
    "list": ((Z.split(2), lambda z: {"a": [z]}, torch.sum), TypeError, "got .* for 'a' of chunk 0"),
    "integers": (
        (Z.split(2), lambda z: z.long(), torch.sum),
        ValueError,
        "floating-point features .*got torch.int64 of shape \\(2, 3\\)",
    ),
    "scalar": (
        (Z.split(2), lambda z: z.sum(), torch.sum),
        ValueError,
        "floating-point features .*got torch.float32 of shape \\(\\)",
    ),
    "loss of no tensor": ((Z.split(2), MODULE, lambda x: 2.0), TypeError, "loss: expected a scalar tensor, got 2.0"),
    "loss of a vector": (
        (Z.split(2), MODULE, lambda x: x.sum(1)),
        ValueError,
        "loss: expected a scalar, got a tensor of shape \\(4,\\)",
    ),
    "loss without gradient": (
        (Z.split(2), MODULE, lambda x: x.detach().sum()),
        ValueError,
        "loss: expected a differentiable function of the features",
    ),
    "features without gradient": (
        (Z.split(2), lambda z: z, torch.sum),
        ValueError,
        "encode: expected features that depend on parameters that require gradients, got none for chunk 0",
    ),
    "other names": (
        ((Z + torch.tensor([[0.0]] * 2 + [[1.0]] * 2)).split(2), lambda z: {"ab"[int(z[0, 0])]: z}, torch.sum),
        ValueError,
        "the same features of every chunk, got 'a' \\(3,\\) for chunk 0 and 'b' \\(3,\\) for chunk 1",
    ),
    "other shapes": (
        ([Z, Z], Growing(0), torch.sum),
        ValueError,
        "the same features of every chunk, got \\(1,\\) for chunk 0 and \\(2,\\) for chunk 1",
    ),
    "other shapes in the second pass": (
        ([Z], Growing(0), torch.sum),
        ValueError,
        "the same features in both passes, got \\(4, 1\\) and then \\(4, 2\\) for chunk 0",
    ),
}


@pytest.mark.parametrize("use", USES)
def test_wrong_arguments_are_named(use):
    arguments, error, message = USES[use]
    with pytest.raises(error, match=message):
        cached_backward(*arguments)


def test_wrong_options_are_named(noise):
    with pytest.raises(TypeError, match="no_sync: expected a function, got True"):
        cached_backward(noise.split(2), network(), torch.sum, no_sync=True)
    with pytest.raises(TypeError, match="scaler: expected a torch.amp.GradScaler, got 2.0"):
        cached_backward(noise.split(2), network(), torch.sum, scaler=2.0)
    with torch.no_grad(), pytest.raises(RuntimeError, match="gradients enabled, got one under torch.no_grad()"):
        cached_backward(noise.split(2), network(), torch.sum)
