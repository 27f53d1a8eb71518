"""What holds for the tests of all scripts."""

from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore the warnings of scores that the scripts ignore too: their numbers are options, and shares are logged."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(
                pytest.mark.filterwarnings(
                    "ignore:MMDLoss. expected (several scores|kernel values):torch_mmd_losses.UsageWarning"
                )
            )


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Start a Ray cluster of two cores and, in name, two GPUs for the sweeps of all tests; leave no process behind."""
    ray = pytest.importorskip("ray")
    from sweeps import tuning

    tuning.start(jobs=2, gpus=2)
    started = ray._private.worker._global_node.all_processes.values()
    processes = [each.process for of_kind in started for each in of_kind]
    yield
    ray.shutdown()
    assert all(process.poll() is not None for process in processes)
