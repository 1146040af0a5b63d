"""What unit tests share."""

from __future__ import annotations

import pytest

from codedance_verl.metrics import emit
from codedance_verl.metrics.emit import Recorder


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Gets what the code under test tells of its metrics, in place of Ray's."""
    found = Recorder(lambda: True)
    for name in ("add", "put", "observe", "take"):
        monkeypatch.setattr(emit, name, getattr(found, name))
    return found
