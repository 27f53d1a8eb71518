"""Hypothesis profiles: examples are derived from the test, so that a run says the same on every machine."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from torch_mmd_losses import usage_warnings

settings.register_profile("library", deadline=None, derandomize=True, max_examples=20)
settings.register_profile("quick", settings.get_profile("library"), max_examples=5)
settings.load_profile("library")

# Tensors here are small: more threads only wait for each other.
torch.set_num_threads(1)


# The sdist does not have this folder.
REPOSITORY = (Path(__file__).parents[1] / ".github").is_dir()
OF_PROGRAMS = [Path(__file__).parent / name for name in ("examples", "foreign")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests whose files are missing, distribute whole files, and take the coverage from the package's quick tests.

    Whenever a test ends, pytest-xdist goes through all the pieces that its worker was given: single tests are too many.
    Tracing takes a third of the time of a test, and nearly half if the test compiles something.
    """
    for item in items:
        if item.get_closest_marker("repository") and not REPOSITORY:
            item.add_marker(pytest.mark.skip(reason="the sdist lacks a file that this test reads; it runs in a clone"))
        if item.get_closest_marker("slow") or item.path.parent in OF_PROGRAMS:
            item.add_marker("no_cover")
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


GPU = torch.cuda.is_available()


@pytest.fixture(autouse=True)
def _seed() -> None:
    # `torch.manual_seed` formats the stack of its caller for each kind of device that is not there, which takes longer
    # than many a test.
    torch.default_generator.manual_seed(0)
    if GPU:
        torch.cuda.manual_seed_all(0)


@pytest.fixture(autouse=True)
def _forget_warnings() -> None:
    """Let each test be warned of its own mistakes, whatever ran before it."""
    usage_warnings._warned.clear()


@pytest.fixture
def gpu() -> torch.device:
    """Return where tests marked `gpu` run: on a GPU, or on a CPU if `GPU_TESTS_ON` says so, as in rehearsals."""
    device = torch.device(os.environ.get("GPU_TESTS_ON", "cuda"))
    if device.type == "cuda" and not GPU:
        pytest.skip("needs a CUDA device")
    return device


@pytest.fixture
def without_synchronisation(gpu: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """Return a context in which PyTorch raises an error where the host waits for the GPU."""

    @contextmanager
    def context() -> Iterator[None]:
        if gpu.type != "cuda":
            yield
            return
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return context
