from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import evaluation_records


def test_a_killed_evaluation_is_planned_resumed_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "found" / "records.json"
    options = ["--items", "200", "--reply-kib", "64", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["evaluation_records", *options])
    evaluation_records.main()
    found = json.loads(output.read_text())
    assert set(found["phases"]) == {"plan", "plan_half", "resume", "plan_done", "list"}
    assert found["records_mib"] > 12  # 200 replies of 64 KiB
    assert all(row["peak_mib"] < 6 for row in found["phases"].values())
    assert "resume" in capsys.readouterr().out
