from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codedance_verl.errors import UserError
from codedance_verl.evaluation.outcomes import outcome_of, read_evaluation, read_questions
from codedance_verl.rollout.agent_loop import record_id_of
from codedance_verl.trajectories.schema import TrajectoryRecord, convert
from codedance_verl.types import Verdict
from tests.unit.evaluation.logs import line, write_log, write_test_file


def parsed(**given: Any) -> TrajectoryRecord:
    return convert(line(**given), TrajectoryRecord)


def test_refused_code_counts_as_no_call() -> None:
    outcome = outcome_of(parsed(calls=("rejected", "ok", "no_output", "timeout", "error", "killed")))
    assert (outcome.executed, outcome.succeeded, outcome.turns) == (5, 2, 7)
    assert outcome_of(parsed(calls=("rejected",))).executed == 0


def test_a_repeated_rollout_counts_once_the_newest(tmp_path: Path) -> None:
    first = [line("a", verdict="wrong"), line("b", verdict="wrong")]
    test_file = write_test_file(tmp_path / "test.parquet", first)
    write_log(tmp_path / "log", first, worker="zz", written_at=1_000)
    write_log(tmp_path / "log", [line("a", verdict="correct")], worker="aa", written_at=2_000)
    run = read_evaluation(tmp_path / "log", test_file)
    assert {item.record_id: item.verdict for item in run.outcomes} == {"a": Verdict.CORRECT, "b": Verdict.WRONG}


def test_only_the_last_step_counts(tmp_path: Path) -> None:
    early = [line("a", step=20, verdict="wrong"), line("b", step=20)]
    test_file = write_test_file(tmp_path / "test.parquet", early)
    write_log(tmp_path / "log", early, tail='{"cut', written_at=2_000)
    write_log(tmp_path / "log", [line("a", step=40)], worker="aa", written_at=1_000)
    run = read_evaluation(tmp_path / "log", test_file)
    assert [(item.record_id, item.verdict) for item in run.outcomes] == [("a", Verdict.CORRECT)]
    assert [item.record_id for item in run.missing] == ["b"] and run.cut_off == 0


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


def test_rows_without_a_record_id_have_the_name_that_the_rollout_gives_them(tmp_path: Path) -> None:
    rows = [
        {"data_source": "published", "extra_info": {"index": index, "split": "test"}, "prompt": [{"role": "user"}]}
        for index in (0, 7)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    names = [record_id_of(row) for row in rows]
    assert names == ["published/0", "published/7"]
    lines = [line(names[0], variant=None, kind="published")]
    run = read_evaluation(_log(tmp_path, lines), tmp_path / "test.parquet")
    assert [item.record_id for item in run.outcomes] == names[:1]
    assert [(item.record_id, item.variant, item.kind) for item in run.missing] == [(names[1], None, "published")]


@pytest.mark.parametrize("info", [None, {"split": "test"}, {"record_id": None, "index": None}])
def test_rows_that_say_nothing_of_themselves_have_a_name_too(tmp_path: Path, info: dict[str, Any] | None) -> None:
    row = {"data_source": "bare", "extra_info": info}
    schema = pa.schema([("data_source", pa.string()), ("extra_info", pa.struct([("split", pa.string())]))])
    keep = None if info is not None and "index" in info else schema
    pq.write_table(pa.Table.from_pylist([row, row], schema=keep), tmp_path / "test.parquet")
    named = [question.record_id for question in read_questions(tmp_path / "test.parquet")]
    assert named == ["bare/test:0", "bare/test:1"], "as the dataset names them for the rollout"
    assert record_id_of(row) == "bare/?", "what did not come through the dataset"


@pytest.mark.parametrize(
    "infos",
    [
        pa.array(['{"index": 1, "difficulty": 0.5}', '{"index": 2}']),
        pa.array([[("index", "1"), ("difficulty", "0.5")], [("index", "2")]], pa.map_(pa.string(), pa.string())),
    ],
)
def test_extra_info_of_any_form_names_a_question(tmp_path: Path, infos: pa.Array) -> None:
    pq.write_table(pa.table({"data_source": ["own", "own"], "extra_info": infos}), tmp_path / "test.parquet")
    first, second = read_questions(tmp_path / "test.parquet")
    assert (first.record_id, first.difficulty, first.kind) == ("own/1", "0.5", "own")
    assert (second.record_id, second.difficulty) == ("own/2", None)


def test_a_file_without_extra_info_is_evaluated_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"data_source": ["own", "own"]}), tmp_path / "test.parquet")
    assert [question.record_id for question in read_questions(tmp_path / "test.parquet")] == [
        "own/test:0",
        "own/test:1",
    ]


def test_only_what_names_a_question_is_read(tmp_path: Path) -> None:
    """The published files have each image a second time in `extra_info.tools_kwargs`."""
    image = os.urandom(1 << 20)
    infos = [{"index": index, "tools_kwargs": {"image": image}} for index in range(60)]
    table = pa.table({"data_source": ["published"] * 60, "extra_info": infos})
    pq.write_table(table, tmp_path / "test.parquet", row_group_size=10)
    del table, infos
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    try:
        assert len(read_questions(tmp_path / "test.parquet")) == 60
    finally:
        pa.set_memory_pool(usual)
    assert pool.max_memory() < 5 << 20


def test_an_unreadable_test_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "test.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="is not a readable parquet file"):
        read_evaluation(_log(tmp_path, [line("a")]), tmp_path / "test.parquet")


def _log(folder: Path, lines: list[dict[str, object]]) -> Path:
    write_log(folder / "log", lines)
    return folder / "log"
