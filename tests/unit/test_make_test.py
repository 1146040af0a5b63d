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


def _stand_in(folder: Path, most: str, sandbox: str = "exit 0") -> Path:
    """A program that does one thing for each part of the tests."""
    path = folder / "python"
    path.write_text(
        f"""#!/usr/bin/env bash
cd {folder}
case "${{*: -1}}" in
"(e2e or not docker) "*) {most} ;;
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


@pytest.mark.parametrize("failing", [None, 0, 1])
def test_it_passes_when_both_parts_do(failing: int | None, tmp_path: Path) -> None:
    parts = [f"echo part {number}; exit {int(number == failing)}" for number in range(2)]
    run = _start(tmp_path, _stand_in(tmp_path, *parts), "30")
    said, _ = run.communicate(timeout=30)
    assert run.returncode == (0 if failing is None else 1)
    assert [line for line in said.splitlines() if line.startswith("part ")] == ["part 0", "part 1"]
    assert not list((tmp_path / "tmp").iterdir())


def test_the_sandbox_has_the_machine_for_itself(tmp_path: Path) -> None:
    most = "echo begun >>order; sleep 1; echo ended >>order"
    run = _start(tmp_path, _stand_in(tmp_path, most, "echo alone >>order"), "30")
    run.communicate(timeout=30)
    assert run.returncode == 0
    assert (tmp_path / "order").read_text().split() == ["begun", "ended", "alone"]


def test_what_failed_is_said_last(tmp_path: Path) -> None:
    fails = "echo 'FAILED tests/a.py::test_b - no'; echo '== 1 failed in 2.00s =='; exit 1"
    run = _start(tmp_path, _stand_in(tmp_path, fails, "echo many lines; exit 0"), "30")
    said, _ = run.communicate(timeout=30)
    assert said.endswith("in short:\nFAILED tests/a.py::test_b - no\n== 1 failed in 2.00s ==\n")


def test_what_a_test_leaves_running_holds_nothing_up(tmp_path: Path) -> None:
    run = _start(tmp_path, _stand_in(tmp_path, "sleep 25 & echo done; exit 0"), "30")
    started = time.monotonic()
    run.communicate(timeout=30)
    assert run.returncode == 0 and time.monotonic() - started < 20


def test_all_is_ended_when_the_time_is_over(tmp_path: Path) -> None:
    run = _start(tmp_path, _stand_in(tmp_path, HANGS, "echo too late"), "2")
    said, _ = run.communicate(timeout=30)
    assert run.returncode != 0 and said.count("interrupted") == 1 and "too late" not in said


def test_all_is_ended_by_a_signal(tmp_path: Path) -> None:
    run = _start(tmp_path, _stand_in(tmp_path, HANGS, "echo too late"), "60")
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("began*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    said, _ = run.communicate(timeout=30)
    assert run.returncode != 0 and said.count("interrupted") == 1 and "too late" not in said
    assert not list((tmp_path / "tmp").iterdir())
