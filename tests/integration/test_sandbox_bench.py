"""`codedance sandbox bench` from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.sandbox_bench.workloads import MEASURES

pytestmark = [pytest.mark.docker, pytest.mark.slow]


def test_the_quick_benchmark_measures_everything(sandbox_image: str, tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    command = [sys.executable, "-m", "codedance_verl.cli", "sandbox", "bench", "--quick", "--json", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in MEASURES)
    found = json.loads(target.read_text())
    assert found["machine"]["engine"]["version"]
    (ours,) = found["contenders"]
    assert ours["name"] == "ours (docker)" and ours["isolated"] is True
    assert [level["sessions"] for level in ours["levels"]] == [1, 8]
    for level in ours["levels"]:
        assert level["incomplete"] == "" and tuple(level["measures"]) == MEASURES
        assert level["memory_mib"] > 0 and level["base_mib"] > 0
        assert all(item["latency_ms"]["count"] > 0 and not item["failed"] for item in level["measures"].values())
