"""On a GPU: numbers are those of a CPU in float64, the host never waits, graphs are captured, memory is bounded.

`GPU_TESTS_ON=cpu` runs this code on a CPU, as `examples/benchmarks/gpu.py --rehearse` does.
"""

from __future__ import annotations

import copy

import pytest
import torch
from cases import CASES, KernelCase, scores
from gpu_calls import CALLS, LAYERS, METHODS, SIZES, Samples, check, samples
from reference_kinds import KINDS, taken_by
from torch import Tensor, nn
from torch.testing import assert_close

from torch_mmd_losses import (
    MMDLoss,
    MMDReference,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    cached_backward,
    conv_spectral_norm,
    mmd2,
    mmd_test,
    relative_mmd_test,
    spectral_norms,
)

pytestmark = pytest.mark.gpu

every_kernel = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
both_sizes = pytest.mark.parametrize("n", SIZES)


def value_and_gradients(loss: MMDLoss, real: Tensor, fake: Tensor) -> list[Tensor]:
    """Return both losses, the terms and the gradient of the discriminator's loss, in float64 on the CPU."""
    real, fake = (x.detach().clone().requires_grad_() for x in (real, fake))
    losses = loss.both(real, fake)
    gradients = torch.autograd.grad(losses.discriminator, [real, fake])
    return [x.detach().cpu().double() for x in (*losses, *loss.terms(real, fake), *gradients)]


@every_kernel
@both_sizes
def test_losses_are_those_of_a_cpu_in_float64(case: KernelCase, n: int, gpu: torch.device):
    real, fake = scores(n, 16, 1, scale=0.3).float(), scores(n, 16, 2, scale=0.33, shift=0.1).float()
    found = value_and_gradients(MMDLoss(case.make(), 0.5), real.to(gpu), fake.to(gpu))
    expected = value_and_gradients(MMDLoss(case.make(), 0.5), real.double(), fake.double())
    # A GPU computes in float32 what does not cancel, relative to the largest gradient and to values of order one.
    for got, exact in zip(found, expected, strict=True):
        assert_close(got, exact, rtol=1e-4, atol=1e-5 * max(1.0, float(exact.abs().max())))


@both_sizes
def test_tensor_float_does_not_reach_the_losses(n: int, gpu: torch.device, monkeypatch: pytest.MonkeyPatch):
    real, fake = scores(n, 16, 1).float().to(gpu), scores(n, 16, 2).float().to(gpu)
    kernel = RBFMix()
    expected = mmd2(real.cpu().double(), fake.cpu().double(), kernel)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    # Distances are expanded in float64, where GPUs are fast in it and in small batches, so that TF32 changes nothing.
    if n > SIZES[0] and gpu.type == "cuda" and torch.cuda.get_device_properties(gpu).minor:
        pytest.skip("a GPU that is slow in float64 expands the distances of large batches in float32")
    assert_close(mmd2(real, fake, kernel).cpu().double(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", CALLS)
def test_the_host_never_waits(name: str, gpu: torch.device, without_synchronisation):
    complaints = []
    for label, call in CALLS[name].items():
        for n in call.sizes if gpu.type == "cuda" else call.sizes[:1]:
            s = samples(n, gpu)
            check(call, s)
            try:
                with without_synchronisation():
                    check(call, s)
            except RuntimeError as error:
                complaints.append(f"{label}, {n} samples: {error}")
    assert not complaints


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("method", METHODS)
def test_spectral_norms_are_those_of_a_cpu(layer: str, method: str, gpu: torch.device, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    make, shape = LAYERS[layer]
    torch.manual_seed(0)
    here = conv_spectral_norm(nn.Sequential(make()), **METHODS[method])
    x = torch.randn(2, *shape)
    here(x)
    there = copy.deepcopy(here).to(gpu)
    found = []
    for model, inputs in ((here, x), (there, x.to(gpu))):
        outputs = []
        for _ in range(3):
            with torch.no_grad():
                model.get_parameter("0.parametrizations.weight.original").mul_(1.1).add_(0.01)
            out = model(inputs)
            outputs += [out, *torch.autograd.grad(out.square().sum(), list(model.parameters()))]
        found.append([y.detach().cpu() for y in (*outputs, *spectral_norms(model).values(), model.eval()(inputs))])
    assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)


@both_sizes
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_change_the_losses(dtype: torch.dtype, n: int, gpu: torch.device):
    real, fake = scores(n, 16, 1).to(gpu, dtype), scores(n, 16, 2).to(gpu, dtype)
    loss = MMDLoss(RBFMix(), 0.5)
    expected = value_and_gradients(loss, real, fake)
    with torch.autocast(gpu.type, dtype):
        found = value_and_gradients(loss, real, fake)
        assert loss.both(real, fake).generator.dtype == torch.float32
    assert_close(found, expected)


@both_sizes
@pytest.mark.parametrize("kernel", [RBFBKernel(), RBFMix()], ids=["bounded", "mix"])
def test_both_losses_with_gradients_fit_into_a_cuda_graph(kernel, n: int, gpu: torch.device):
    real, fake = (scores(n, 16, seed).float().to(gpu).requires_grad_() for seed in (1, 2))
    loss = MMDLoss(kernel)

    def step() -> list[Tensor]:
        losses = loss.both(real, fake)
        return [*losses, *torch.autograd.grad(losses.discriminator, [real, fake])]

    def changed() -> list[Tensor]:
        with torch.no_grad():
            real.mul_(1.5)
        return [x.detach().clone() for x in step()]

    if gpu.type != "cuda":
        changed()
        pytest.skip("CPUs have no CUDA graphs")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(4):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    expected = changed()
    graph.replay()
    assert_close([x.detach() for x in found], expected)


def test_memory_grows_with_the_samples_and_not_with_the_pairs(gpu: torch.device):
    n = 16_384 if gpu.type == "cuda" else 600
    real, fake = (scores(n, 64, seed).float().to(gpu).requires_grad_() for seed in (1, 2))
    kernel = RBFKernel(8.0)
    mmd2(real, fake, kernel).backward()
    if gpu.type != "cuda":
        pytest.skip("PyTorch does not count the memory of a CPU")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    mmd2(real, fake, kernel).backward()
    gram = 4 * n**2
    assert torch.cuda.max_memory_allocated() - before < gram / 2


def test_tests_of_samples_have_the_same_results(gpu: torch.device):
    real, fake, other = (scores(80, 3, seed).float() for seed in range(3))
    found = []
    for device in (torch.device("cpu"), gpu):
        sets: Samples | list[Tensor] = [x.to(device) for x in (real, fake, other)]
        for kernel in (None, RBFMix()):
            generator = torch.Generator().manual_seed(0)
            found.append([*mmd_test(*sets[:2], kernel, permutations=99, generator=generator)])
        found.append([*relative_mmd_test(*sets, RBFMix())])
    for got, exact in zip(found[3:], found[:3], strict=True):
        for a, b in zip(got, exact, strict=True):
            assert_close(torch.as_tensor(a).cpu(), torch.as_tensor(b), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reference_that_is_made_lets_the_host_wait_no_more(kind: str, gpu: torch.device, without_synchronisation):
    real, fake = scores(600, 16, 1).float().to(gpu), scores(90, 16, 2).float().to(gpu).requires_grad_()
    sizes = taken_by(kind, landmarks=64, frequencies=64)
    reference = MMDReference(real, RBFKernel(4.0), kind=kind, generator=torch.Generator().manual_seed(0), **sizes)

    def values() -> list[Tensor]:
        value = reference.mmd2(fake)
        return [value, reference.attraction(fake), *torch.autograd.grad(value, fake)]

    expected = values()
    with without_synchronisation():
        found = values()
    assert_close(found, expected)


def test_cached_gradients_are_those_of_one_backward_pass(gpu: torch.device):
    torch.manual_seed(0)
    encoder = nn.Linear(5, 16).to(gpu)
    real, inputs = scores(64, 16, 1).float().to(gpu), scores(90, 5, 2).float().to(gpu)
    expected = torch.autograd.grad(mmd2(real, encoder(inputs), RBFMix()), list(encoder.parameters()))
    value = cached_backward(inputs.split(40), encode=encoder, loss=lambda fake: mmd2(real, fake, RBFMix()))
    assert value.device == real.device
    assert_close([x.grad for x in encoder.parameters()], list(expected), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_compiled_losses_and_layers(gpu: torch.device):
    torch.compiler.reset()
    torch.manual_seed(0)
    model = conv_spectral_norm(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 16))).to(gpu)
    x, y = torch.randn(8, 3, 8, 8, device=gpu), torch.randn(8, 3, 8, 8, device=gpu)
    model(x)
    loss = MMDLoss(RBFMix())

    def step(real: Tensor, fake: Tensor) -> Tensor:
        return loss.both(model(real), model(fake)).discriminator

    model.eval()
    expected = step(x, y)
    value = torch.compile(step, fullgraph=True)(x, y)
    assert_close(value, expected, rtol=1e-2, atol=1e-3)  # convolutions use TF32 on a GPU by default
    (gradient,) = torch.autograd.grad(value, model.get_parameter("0.bias"))
    assert_close(gradient, torch.autograd.grad(expected, model.get_parameter("0.bias"))[0], rtol=1e-2, atol=1e-3)
