"""Ten steps of RL with the real vLLM, FSDP and Ray, each with a fault: the run ends well, and masks add up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.faults import faults_of, run, steps_of
from tests.e2e.conftest import ColdStart

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1500)]


def test_a_fault_in_every_step_costs_its_rollouts_and_nothing_else(cold_start: ColdStart, tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = run(cold_start.model, cold_start.data, tmp_path / "run", log)
    text = log.read_text(errors="replace")
    assert code == 0, text[-6000:]
    assert faults_of(steps_of(tmp_path / "run")) == []
    told = dict(re.findall(r"step (\d+) is skipped: (.*)", text))
    assert sorted(told, key=int) == ["4", "7", "8"]
    assert "16 without a grade" in told["4"] and "16 ended by infrastructure" in told["7"]
    assert "4 groups have failed" in told["8"]
