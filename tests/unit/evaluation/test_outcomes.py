from __future__ import annotations

from pathlib import Path

import pytest

from codedance_verl.errors import UserError
from codedance_verl.evaluation.outcomes import outcome_of, read_evaluation
from codedance_verl.evaluation.trajectories import parse_trajectory
from codedance_verl.types import Verdict
from tests.unit.evaluation.logs import line, write_log, write_test_file


def test_refused_code_counts_as_no_call() -> None:
    outcome = outcome_of(parse_trajectory(line(calls=("rejected", "ok", "no_output", "timeout", "error", "killed"))))
    assert (outcome.executed, outcome.succeeded, outcome.turns) == (5, 2, 7)
    assert outcome_of(parse_trajectory(line(calls=("rejected",)))).executed == 0


def test_a_repeated_rollout_counts_once_the_newest(tmp_path: Path) -> None:
    first = [line("a", verdict="wrong"), line("b", verdict="wrong")]
    test_file = write_test_file(tmp_path / "test.parquet", first)
    write_log(tmp_path / "log", first, worker="zz", written_at=1_000)
    write_log(tmp_path / "log", [line("a", verdict="correct")], worker="aa", written_at=2_000)
    run = read_evaluation(tmp_path / "log", test_file)
    assert {item.record_id: item.verdict for item in run.outcomes} == {"a": Verdict.CORRECT, "b": Verdict.WRONG}


def test_samples_and_variants_of_a_question_are_kept_apart(tmp_path: Path) -> None:
    lines = [line("a"), line("a", sample=1), line("a", variant="greedy")]
    run = read_evaluation(_log(tmp_path, lines), write_test_file(tmp_path / "test.parquet", lines))
    assert len(run.outcomes) == 3 and run.missing == ()


def test_rows_without_a_rollout_are_named(tmp_path: Path) -> None:
    test_file = write_test_file(tmp_path / "test.parquet", [line("a"), line("b"), line("b", variant="greedy")])
    run = read_evaluation(_log(tmp_path, [line("a"), line("b", variant="greedy")]), test_file)
    assert [(item.record_id, item.variant) for item in run.missing] == [("b", "sampled")]


def test_rollouts_of_another_test_file_are_refused(tmp_path: Path) -> None:
    test_file = write_test_file(tmp_path / "test.parquet", [line("a")])
    with pytest.raises(UserError, match=r"holds a rollout of stranger \(sampled\), which .*test.parquet does not have"):
        read_evaluation(_log(tmp_path, [line("a"), line("stranger")]), test_file)


def test_an_unreadable_test_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "test.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="not a test file in the record schema"):
        read_evaluation(_log(tmp_path, [line("a")]), tmp_path / "test.parquet")


def _log(folder: Path, lines: list[dict[str, object]]) -> Path:
    write_log(folder / "log", lines)
    return folder / "log"
