"""What unit tests share."""

from __future__ import annotations

import pytest

from codedance_verl.metrics import emit
from codedance_verl.metrics.emit import Recorder


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Receives the metrics of the code under test, in place of Ray."""
    found = Recorder(lambda: True)
    for name in ("add", "set_gauge", "observe", "drain"):
        monkeypatch.setattr(emit, name, getattr(found, name))
    return found
