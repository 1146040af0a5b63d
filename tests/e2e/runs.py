"""What the tests of whole runs look at: metrics, rollouts, containers."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from docker import DockerClient

from codedance_verl.evaluation.training import read_metrics
from codedance_verl.sandbox.docker.reaper import list_containers


def metrics_of(run_dir: Path) -> dict[int, Mapping[str, float]]:
    """Metrics by step, over all starts of the run."""
    return {line.step: line.values for line in read_metrics(run_dir)}


def rollout_files(run_dir: Path, split: str = "train") -> set[Path]:
    return set((run_dir / "trajectories" / split).glob("*.jsonl"))


def rollouts_in(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Lines of the trajectory log, from the file written to first to that written to last."""
    in_order = sorted(files, key=lambda path: path.stat().st_mtime)
    return [json.loads(line) for path in in_order for line in path.read_text().splitlines()]


def containers(engine: DockerClient) -> list[str]:
    """Names of all containers of this project."""
    return [container.name for container in list_containers(engine)]


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Until the condition holds; fails when it does not within so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no {what} within {seconds:g} s"
        time.sleep(0.2)


def wait_for_run(
    condition: Callable[[], bool],
    run: subprocess.Popen[bytes],
    log: Path,
    seconds: float,
    what: str,
    pause_s: float = 0.2,
) -> None:
    """As `wait_until`; fails also when the run ends before, and shows the end of its log."""
    end = time.monotonic() + seconds
    while not condition():
        ended, late = run.poll() is not None, time.monotonic() > end
        assert not ended, f"the run has ended before {what}:\n{_tail(log)}"
        assert not late, f"no {what} within {seconds:g} s:\n{_tail(log)}"
        time.sleep(pause_s)


def exit_code(run: subprocess.Popen[bytes], log: Path, seconds: float) -> int:
    """Wait for the run's end; fails when it does not end within so many seconds, and shows the end of its log."""
    try:
        return run.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"the run has not ended within {seconds:g} s:\n{_tail(log)}") from None


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-6000:]
