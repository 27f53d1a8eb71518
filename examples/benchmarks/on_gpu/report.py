"""A plugin for pytest that sends the outcome of each test as soon as it is known."""

from __future__ import annotations

import pytest

from on_gpu.journal import emit


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Send the outcome of a test, or of a phase before or after it that did not pass."""
    if report.when == "call" or report.outcome != "passed":
        record = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 3)}
        if report.outcome == "failed":
            record["why"] = str(report.longreprtext)[-1500:]
        elif report.outcome == "skipped":
            record["why"] = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        emit(record)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Send the errors of collection."""
    if report.failed:
        emit({"test": report.nodeid, "outcome": "not collected", "why": str(report.longreprtext)[-1500:]})
