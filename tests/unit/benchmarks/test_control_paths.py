"""Costs of the control paths grow with the cluster, not with its square."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import control_paths


@pytest.fixture(scope="module")
def found() -> dict[int, dict]:  # type: ignore[type-arg]
    return {size: control_paths.measured(size) for size in (16, 128)}


def test_a_step_of_metrics_is_one_call_for_each_worker_and_each_actor(found: dict[int, dict]) -> None:  # type: ignore[type-arg]
    for size, costs in found.items():
        assert costs["metrics"]["a step"]["calls"] == size * (control_paths.WORKERS_A_NODE + 2)
        assert costs["metrics"]["first step"]["calls"] < size * (control_paths.WORKERS_A_NODE + 5)
    assert found[16]["metrics"]["a step, every worker asking every node"]["calls"] == 8192


@pytest.mark.parametrize(("path", "kind"), [("handles", "at the start"), ("refused", "a session each")])
def test_what_a_worker_does_is_bounded_in_any_cluster(found: dict[int, dict], path: str, kind: str) -> None:  # type: ignore[type-arg]
    a_worker = [costs[path][kind]["calls"] / costs["workers"] for costs in found.values()]
    assert all(calls <= 10 for calls in a_worker)


def test_sessions_are_spread_where_interpreters_are_elsewhere(found: dict[int, dict]) -> None:  # type: ignore[type-arg]
    for costs in found.values():
        spread = costs["sessions elsewhere"]
        assert 0.8 * spread["mean"] < spread["least"] <= spread["most"] < 1.25 * spread["mean"]


def test_the_command_writes_its_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "costs.json"
    control_paths.main(["--sizes", "2", "--output", str(file)])
    assert json.loads(file.read_text()) == json.loads(capsys.readouterr().out)
