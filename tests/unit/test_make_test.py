"""`scripts/test.sh`, which `make test` calls, with a stand-in for Python: what it says, how it ends, what it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "test.sh"
HANGS = "trap 'echo interrupted; exit 2' INT; touch began$$; while true; do sleep 0.1; done"


def _stand_in(folder: Path, runs: str, without: str, sandbox: str = "exit 0") -> Path:
    """A program that does one thing for each part of the tests."""
    path = folder / "python"
    path.write_text(
        f"""#!/usr/bin/env bash
cd {folder}
case "${{*: -1}}" in
"docker and e2e "*) {runs} ;;
"not docker "*) {without} ;;
"docker and not e2e "*) {sandbox} ;;
esac
"""
    )
    path.chmod(0o755)
    return path


def _start(folder: Path, program: Path, seconds: str) -> subprocess.Popen[str]:
    (folder / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    return subprocess.Popen([SCRIPT, program, seconds], stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("failing", [None, 0, 1, 2])
def test_it_passes_when_all_parts_do(failing: int | None, tmp_path: Path) -> None:
    parts = [f"echo part {number}; exit {int(number == failing)}" for number in range(3)]
    run = _start(tmp_path, _stand_in(tmp_path, *parts), "30")
    said, _ = run.communicate(timeout=30)
    assert run.returncode == (0 if failing is None else 1)
    assert [line for line in said.splitlines() if line.startswith("part ")] == ["part 0", "part 1", "part 2"]
    assert not list((tmp_path / "tmp").iterdir())


def test_the_sandbox_has_the_machine_for_itself(tmp_path: Path) -> None:
    work = "echo begun >>order; sleep 1; echo ended >>order"
    run = _start(tmp_path, _stand_in(tmp_path, work, work, "echo alone >>order"), "30")
    run.communicate(timeout=30)
    assert run.returncode == 0
    assert (tmp_path / "order").read_text().split() == ["begun", "begun", "ended", "ended", "alone"]


def test_what_failed_is_said_last(tmp_path: Path) -> None:
    fails = "echo 'FAILED tests/a.py::test_b - no'; echo '== 1 failed in 2.00s =='; exit 1"
    run = _start(tmp_path, _stand_in(tmp_path, fails, "echo many lines; exit 0"), "30")
    said, _ = run.communicate(timeout=30)
    assert said.endswith("in short:\nFAILED tests/a.py::test_b - no\n== 1 failed in 2.00s ==\n")


def test_both_are_ended_when_the_time_is_over(tmp_path: Path) -> None:
    run = _start(tmp_path, _stand_in(tmp_path, HANGS, HANGS), "2")
    said, _ = run.communicate(timeout=30)
    assert run.returncode != 0 and said.count("interrupted") == 2


def test_both_are_ended_by_a_signal(tmp_path: Path) -> None:
    run = _start(tmp_path, _stand_in(tmp_path, HANGS, HANGS), "60")
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob("began*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    said, _ = run.communicate(timeout=30)
    assert run.returncode != 0 and said.count("interrupted") == 2
    assert not list((tmp_path / "tmp").iterdir())
