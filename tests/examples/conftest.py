"""What holds for the tests of all scripts."""

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
