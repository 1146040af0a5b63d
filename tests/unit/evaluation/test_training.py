from __future__ import annotations

import json
from pathlib import Path

import pytest

from codedance_verl.errors import UserError
from codedance_verl.evaluation.training import TrainingLog, read_metrics, read_training, rl_steps
from tests.unit.evaluation.experiment import make_training
from tests.unit.evaluation.logs import line, write_log

NOTHING = TrainingLog((), {})


def metrics_file(run: Path, name: str, lines: list[tuple[int, dict[str, object]]], tail: str = "") -> None:
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [json.dumps({"step": step, "data": data}) for step, data in lines]
    path.write_text("\n".join(texts) + "\n" + tail)


def test_curves_by_hand(tmp_path: Path) -> None:
    make_training(tmp_path)
    points = read_training(tmp_path / "trajectories").points
    assert [point.step for point in points] == [1, 2, 3]
    assert [point.accuracy for point in points] == [0.25, 0.5, 0.75]
    assert [point.reward for point in points] == [0.25, 0.5, 0.75]
    assert points[0].tool_rate_easy == 0.0 and points[0].tool_rate_hard == 1.0
    assert points[0].turns == pytest.approx(1.75) and points[0].execution_success == 1.0 and points[0].format == 1.0


def test_faults_leave_the_curve_and_are_counted(tmp_path: Path) -> None:
    lines = [
        line("a", step=1, split="train"),
        line("b", step=1, split="train", finish="infrastructure", verdict="ungraded"),
    ]
    write_log(tmp_path, lines)
    (point,) = read_training(tmp_path).points
    assert (point.rollouts, point.excluded, point.accuracy) == (1, 1, 1.0)


def test_branches_leave_the_curve_and_their_seconds_count(tmp_path: Path) -> None:
    whole = line("a", step=1, split="train", verdict="wrong")
    branch = line("a", step=1, split="train", sample=1) | {"branch": {"parent": 0, "turn": 0, "token": 7}}
    write_log(tmp_path, [whole, branch])
    found = read_training(tmp_path)
    (point,) = found.points
    assert (point.rollouts, point.accuracy) == (1, 0.0)
    assert found.seconds[1].generate == 2 * whole["timing"]["generate_s"]


def test_a_step_repeated_after_a_resume_counts_once(tmp_path: Path) -> None:
    first = [line("a", step=5, split="train", verdict="wrong"), line("b", step=5, split="train", verdict="wrong")]
    write_log(tmp_path, first, worker="z-killed", written_at=1_000, tail='{"step"')
    again = [line("a", step=5, split="train"), line("b", step=5, split="train", verdict="wrong")]
    write_log(tmp_path, again, worker="a-resumed", written_at=2_000)
    found = read_training(tmp_path)
    (point,) = found.points
    assert point.rollouts == 2 and point.accuracy == 0.5
    assert found.seconds[5].generate == 2 * first[0]["timing"]["generate_s"], "those of the first try count twice"


def test_metrics_of_all_starts_are_joined_the_latest_winning(tmp_path: Path) -> None:
    metrics_file(tmp_path, "metrics/0000.jsonl", [(1, {"x": 1}), (2, {"x": 2})], tail='{"step": 3, "da')
    metrics_file(tmp_path, "metrics/0001.jsonl", [(2, {"x": 20, "name": "text", "nan": None}), (3, {"x": 30})])
    assert [(item.step, dict(item.values)) for item in read_metrics(tmp_path)] == [
        (1, {"x": 1.0}),
        (2, {"x": 20.0}),
        (3, {"x": 30.0}),
    ]


def test_a_single_metrics_file_is_read_too(tmp_path: Path) -> None:
    metrics_file(tmp_path, "metrics.jsonl", [(4, {"x": 1})])
    assert [item.step for item in read_metrics(tmp_path)] == [4]


def test_a_broken_line_of_metrics_is_named(tmp_path: Path) -> None:
    metrics_file(tmp_path, "metrics/0000.jsonl", [(1, {})], tail='{"step": 2}\n')
    with pytest.raises(UserError, match=r"0000.jsonl:2: not a line of metrics"):
        read_metrics(tmp_path)


def test_a_step_is_split_by_hand(tmp_path: Path) -> None:
    """Rollouts spent 8 s generating and 4 s executing, so the rollout phase of 6 s divides into 4 and 2."""
    make_training(tmp_path)
    result = rl_steps([(0, read_metrics(tmp_path), read_training(tmp_path / "trajectories"))])
    seconds = result.per_seed[0].steps[0].seconds
    assert result.measured == 3
    assert (seconds.total, seconds.generate, seconds.execute, seconds.update, seconds.weight_sync) == (10, 4, 2, 2, 1)
    assert seconds.sandbox_wait == 0.0
    assert seconds.grade is None and seconds.log_prob is None
    assert seconds.other == pytest.approx(1.0)
    assert result.mean_seconds.generate == pytest.approx(4.0)


def test_grading_is_split_off_where_the_log_times_it(tmp_path: Path) -> None:
    rollout = line(step=1, split="train", timing=(2.0, 1.0, 0.5))
    rollout["timing"]["grade_s"] = 0.5
    write_log(tmp_path / "trajectories", [rollout])
    metrics_file(tmp_path, "metrics/0000.jsonl", [(1, {"timing_s/step": 9.0, "timing_s/gen": 8.0})])
    seconds = rl_steps([(0, read_metrics(tmp_path), read_training(tmp_path / "trajectories"))]).mean_seconds
    assert (seconds.generate, seconds.execute, seconds.sandbox_wait, seconds.grade) == (4.0, 2.0, 1.0, 1.0)


def test_our_own_rollout_metrics_come_first_and_include_grading(tmp_path: Path) -> None:
    data = {
        "timing_s/step": 20.0,
        "timing_s/gen": 12.0,
        "timing_s/testing": 5.0,
        "timing_s/save_checkpoint": 1.0,
        "timing_s/old_log_prob": 2.0,
        "timing_s/ref": 1.0,
        "rollout/generate_s": 3.0,
        "rollout/execute_s": 2.0,
        "rollout/queue_s": 0.5,
        "rollout/grade_s": 0.5,
    }
    metrics_file(tmp_path, "metrics/0000.jsonl", [(1, data)])
    seconds = rl_steps([(0, read_metrics(tmp_path), NOTHING)]).mean_seconds
    assert (seconds.generate, seconds.execute, seconds.sandbox_wait, seconds.grade) == (6.0, 4.0, 1.0, 1.0)
    assert seconds.total == 25.0 and seconds.validation == 5.0 and seconds.log_prob == 3.0
    assert seconds.update is None and seconds.weight_sync is None
    assert seconds.other == pytest.approx(25 - 12 - 5 - 1 - 3)


def test_a_run_without_any_timing_states_null(tmp_path: Path) -> None:
    metrics_file(tmp_path, "metrics/0000.jsonl", [(0, {"val/acc": 1.0})])
    result = rl_steps([(0, read_metrics(tmp_path), NOTHING)])
    assert result.measured == 0 and result.mean_seconds.total is None
