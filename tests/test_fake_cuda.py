"""On a GPU, every public function keeps to the device, and the host reads no number. No GPU is needed for these tests.

Calls are in `gpu_calls.py`, and what raises is in `fake_cuda.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from fake_cuda import CONSUMER, HastyCopyError, MixedDevicesError, WaitingCopyError, fake_cuda
from gpu_calls import (
    CALLS,
    CONDITIONED,
    KERNELS,
    LAYERS,
    RBF,
    READING,
    REFERENCES,
    SIZES,
    WITHOUT_CALLS,
    Call,
    D,
    Samples,
    check,
    reference_on,
    samples,
    wrapped,
)
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

import torch_mmd_losses
from torch_mmd_losses import Kernel
from torch_mmd_losses.pairs import plan
from torch_mmd_losses.pairs.batch import LOCAL
from torch_mmd_losses.pairs.objective import GENERATOR
from torch_mmd_losses.spectral import compiled

# Without a GPU, fake tensors abort the process in PyTorch 2.6 and 2.9. Releases 2.10 to 2.13 have not been tried.
needs_cuda_build = pytest.mark.skipif(
    torch.version.cuda is None or torch.__version__ < "2.14", reason="needs a CUDA build of PyTorch 2.14 or newer"
)
CUDA = torch.device("cuda", 0)


def test_every_public_name_is_called():
    kernels = {name for name in torch_mmd_losses.__all__ if _is_kernel(getattr(torch_mmd_losses, name))}
    covered = {name.partition(".")[0] for name in (*CALLS, *READING, *WITHOUT_CALLS)}
    assert covered | kernels == set(torch_mmd_losses.__all__), "add a line to gpu_calls.CALLS"
    tried = {type(kernel).__name__ for kernel in _parts(KERNELS.values())}
    assert kernels - {"Kernel"} <= tried, "add a line to cases.CASES"


def _is_kernel(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Kernel)


def _parts(kernels: Any) -> Iterator[nn.Module]:
    return (part for kernel in kernels for part in kernel.modules())


def cases(names: Iterable[str]) -> pytest.MarkDecorator:
    """Return a mark that asks for each call of these functions at each of its sizes."""
    found = [
        pytest.param(call, n, id=f"{name}-{n}-{label}")
        for name in names
        for label, call in CALLS[name].items()
        for n in call.sizes
    ]
    return pytest.mark.parametrize(("call", "n"), found)


@pytest.mark.paper
@needs_cuda_build
@cases(CALLS)
def test_stays_on_the_device_and_reads_no_number(call: Call, n: int):
    with fake_cuda():
        check(call, samples(n, CUDA))


@pytest.mark.paper
@needs_cuda_build
@cases(CONDITIONED)
def test_the_same_on_a_gpu_that_is_slow_in_float64(call: Call, n: int):
    with fake_cuda(CONSUMER):
        check(call, samples(n, CUDA))


@pytest.mark.paper
@needs_cuda_build
@pytest.mark.parametrize("name", READING)
def test_what_reads_a_number_is_known(name: str):
    _, run = READING[name]
    with fake_cuda(), pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        run(samples(SIZES[0], CUDA))


@pytest.mark.paper
@needs_cuda_build
@pytest.mark.parametrize("n", SIZES)
def test_both_sides_of_the_switch_are_tried_with_hand_written_gradients(n: int):
    with fake_cuda():
        s = samples(n, CUDA)
        found = plan.make_plan(
            RBF._summands(), s.real, s.fake, "biased", objectives=[GENERATOR], tile_size=None, batch=LOCAL
        )
    assert (len(found.dense), len(found.tiled)) == ((1, 0) if n == SIZES[0] else (0, 1))


@pytest.mark.paper
@needs_cuda_build
@pytest.mark.parametrize("method", ["conv", "pico", "matrix"])
def test_operators_of_the_compiler_say_that_their_results_are_on_the_device(method: str, monkeypatch):
    monkeypatch.setattr(compiled, "calls_operators", lambda: True)
    for make, shape in LAYERS.values():
        with fake_cuda():
            layer = wrapped(make, CUDA, method=method)
            outputs = [layer(torch.randn(2, *shape, device="cuda")) for _ in range(2)]
            outputs += layer.state_dict().values()
            assert {x.device.type for x in outputs} == {"cuda"}


@pytest.mark.paper
@needs_cuda_build
@pytest.mark.parametrize("name", REFERENCES)
def test_the_host_waits_for_what_it_reads_of_a_reference_on_the_device(name: str):
    with fake_cuda(), pytest.raises(WaitingCopyError):
        reference_on(CUDA, name).attraction(torch.randn(4, D))


def reads_a_number(s: Samples) -> Tensor:
    return s.real * s.real.sum().item()


def branches_on_a_number(s: Samples) -> Tensor:
    return s.real if s.real.sum() > 0 else -s.real


def has_a_shape_by_values(s: Samples) -> Tensor:
    return s.real[s.real > 0]


def mixes_devices(s: Samples) -> Tensor:
    return s.real + torch.ones(D)


def multiplies_by_a_tensor_of_the_host(s: Samples) -> Tensor:
    return s.real * torch.ones(())


def takes_a_gradient_to_another_device(s: Samples) -> Tensor:
    return torch.autograd.grad(s.real.sum(), s.real, torch.ones(()))[0]


def brings_a_number(s: Samples) -> Tensor:
    return s.real * torch.tensor([2.0], device=s.real.device)


def copies_to_the_host(s: Samples) -> Tensor:
    return s.real.cpu()


def copies_to_the_host_without_waiting(s: Samples) -> Tensor:
    return s.real.to("cpu", non_blocking=True)


def has_its_result_on_the_host(s: Samples) -> Tensor:
    return torch.zeros(()) + s.real.shape[0]


@pytest.mark.paper
@needs_cuda_build
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (reads_a_number, DataDependentOutputException),
        (branches_on_a_number, DataDependentOutputException),
        (has_a_shape_by_values, DynamicOutputShapeException),
        (mixes_devices, RuntimeError),
        (multiplies_by_a_tensor_of_the_host, MixedDevicesError),
        (takes_a_gradient_to_another_device, RuntimeError),
        (brings_a_number, WaitingCopyError),
        (copies_to_the_host, WaitingCopyError),
        (copies_to_the_host_without_waiting, HastyCopyError),
        (has_its_result_on_the_host, AssertionError),
    ],
)
def test_faults_are_found(fault: Callable[[Samples], Tensor], error: type[Exception]):
    with fake_cuda(), pytest.raises(error):
        check(Call(fault, 0), samples(4, CUDA))
