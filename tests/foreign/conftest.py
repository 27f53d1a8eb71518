"""Programs that need packages of the extra `foreign` are left out where these are not installed."""

from importlib.util import find_spec

import pytest

from torch_mmd_losses import usage_warnings

collect_ignore = [
    f"{program}.py"
    for program, package in (
        ("accelerate_gan", "accelerate"),
        ("fabric_gan", "lightning"),
        ("lightning_gan", "lightning"),
    )
    if find_spec(package) is None
]


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    """Let each test be warned of its own mistakes."""
    monkeypatch.setattr(usage_warnings, "_warned", set())
