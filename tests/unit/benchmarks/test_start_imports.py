from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import start_imports


@pytest.mark.slow
def test_each_kind_of_process_is_measured_with_and_without_the_work_arounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "found" / "imports.json"
    monkeypatch.setattr(sys, "argv", ["start_imports", "--only", "load_balancer", "--output", str(output)])
    start_imports.main()
    found = json.loads(output.read_text())["kinds"]["load_balancer"]
    assert found["after"]["cpu_s"] < 0.3 * found["before"]["cpu_s"]
    assert found["after"]["peak_mib"] < 150 < found["before"]["peak_mib"]
    assert "load_balancer" in capsys.readouterr().out


def test_an_unknown_kind_of_process_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["start_imports", "--only", "balancer"])
    with pytest.raises(SystemExit):
        start_imports.main()
    assert "unknown ['balancer']: choose from" in capsys.readouterr().err
