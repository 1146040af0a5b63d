"""What a test does when something it needs is not on this machine."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from benchmarks.prometheus import NoPrometheus, find_prometheus


def lacks(what: str) -> NoReturn:
    """Fail in CI (`CI=true`), where everything has to be there; skip elsewhere."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"CI needs {what}", pytrace=False)
    pytest.skip(f"needs {what}")


def require_prometheus() -> None:
    """Fail or skip without Prometheus."""
    try:
        find_prometheus()
    except NoPrometheus as error:
        lacks(f"Prometheus: {error}")
