from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from benchmarks.sample_run import write_group
from codedance_verl.reward.rollout_lines import read_rollouts
from codedance_verl.trajectories import lines, schema
from codedance_verl.trajectories.lines import whole_lines
from codedance_verl.trajectories.schema import MalformedRecord, TrajectoryRecord, decode, encode, repaired
from codedance_verl.trajectories.summary import Summary
from codedance_verl.trajectories.writer import TrajectoryLog
from codedance_verl.types import Branch
from codedance_verl.viewer.trajectory_view import trajectory_view

RECORDED = Path(__file__).parents[2] / "data" / "trajectories" / "without_version.jsonl"
"""Two rollouts as they were written before lines had a version."""


def recorded() -> list[bytes]:
    return RECORDED.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("line", recorded())
def test_a_line_without_a_version_holds_the_same_when_read_and_written(line: bytes) -> None:
    given, record = json.loads(line), decode(line)
    assert record.version == 0
    written = json.loads(encode(record))
    assert {name: written[name] for name in given if name not in ("turns", "input_images")} == {
        name: value for name, value in given.items() if name not in ("turns", "input_images")
    }
    for was, now in zip(given["turns"], written["turns"], strict=True):
        assert {name: now[name] for name in was} == was
    assert decode(encode(record)) == record


def test_every_reader_takes_lines_without_a_version() -> None:
    (first, second) = [line.record for line in whole_lines(RECORDED)]
    assert first is not None and second is not None
    summary = Summary.of(first, step=9, split="train")
    assert (summary.step, summary.turns, summary.calls, summary.failed, summary.images) == (3, 4, 3, 1, 2)
    assert (summary.correct, summary.statuses) == (1, ",error,ok,")
    view = trajectory_view(first)
    assert [turn.number for turn in view.turns] == [1, 2, 3, 4] and view.turns[1].call is not None
    assert len(view.turns[1].call.images) == 2 and view.sequence_advantage is not None
    explained = read_rollouts(RECORDED)
    assert [item.grade and item.grade.verdict for item in explained] == ["correct", "wrong"]


def test_a_line_of_a_newer_version_is_named_and_still_shown(tmp_path: Path) -> None:
    newer = json.loads(recorded()[0]) | {"version": schema.VERSION + 1, "finish": {"reason": "answer"}}
    line = json.dumps(newer).encode() + b"\n"
    with pytest.raises(MalformedRecord, match=f"version is {schema.VERSION + 1}, this code reads up to"):
        decode(line)
    with pytest.raises(MalformedRecord, match="version is"):
        decode(json.dumps(newer | {"finish": "answer"}).encode())
    shown = lines.decode(line)
    assert shown is not None and shown.question == newer["question"] and shown.finish == ""


def test_what_is_written_states_the_version(tmp_path: Path) -> None:
    write_group(TrajectoryLog(tmp_path, "w"), 1, step=1, split="train", size=2, skill=1.0, pictures=False)
    (path,) = tmp_path.rglob("*.jsonl")
    assert [json.loads(line)["version"] for line in path.read_bytes().splitlines()] == [schema.VERSION] * 2


def test_a_branch_names_its_parent_and_older_lines_have_none(tmp_path: Path) -> None:
    older = decode(recorded()[0])
    assert older.branch is None and trajectory_view(older).branch is None
    line = json.dumps(json.loads(recorded()[0]) | {"branch": {"parent": 2, "turn": 1, "token": 40}, "sample": 5})
    assert decode(line.encode()).branch == Branch(parent=2, turn=1, token=40)
    assert json.loads(encode(decode(line.encode())))["branch"] == {"parent": 2, "turn": 1, "token": 40}
    (tmp_path / "one.jsonl").write_text(line)
    (read,) = read_rollouts(tmp_path / "one.jsonl")
    assert (read.sample, read.trajectory.branch) == (5, Branch(2, 1, 40))


def test_half_a_surrogate_pair_and_nan_are_no_reason_to_lose_a_line() -> None:
    record = decode(recorded()[0])
    written = encode(structs.replace(record, question="half \ud800"))
    assert written.endswith(b"\n") and decode(written).question == "half ?"
    assert decode(encode(structs.replace(record, extra_info={"id": 2**70}))).extra_info == {"id": 2**70}
    nan = schema.Advantage(float("nan"), (float("nan"),))
    assert decode(encode(structs.replace(record, advantage=nan))).advantage == schema.Advantage(None, (None,))
    older = json.loads(recorded()[0]) | {"answer": "\ud800"}
    older["timing"]["total_s"] = float("nan")
    assert decode(json.dumps(older).encode()).timing.total_s != 0


@pytest.mark.parametrize("name", json.loads(recorded()[0]))
@pytest.mark.parametrize("value", [None, [], {}, "x", 1, True, float("nan"), 10**400, [None], [[]], {"turns": 3}])
def test_one_damaged_field_leaves_the_others(name: str, value: Any) -> None:
    given = json.loads(recorded()[0])
    whole, mended = repaired(given), repaired({**given, name: value})
    for field in TrajectoryRecord.__struct_fields__:
        if field != name:
            assert getattr(mended, field) == getattr(whole, field)
    Summary.of(mended, step=1, split="train")
    trajectory_view(mended)
    encode(mended)


def test_an_undamaged_line_needs_no_repair() -> None:
    for line in recorded():
        assert repaired(json.loads(line)) == decode(line)


def test_a_field_is_named_by_its_path() -> None:
    given = json.loads(recorded()[0])
    given["turns"][1]["execution"]["images"][0]["width"] = "wide"
    with pytest.raises(MalformedRecord, match=r"^turns\[1\]\.execution\.images\[0\]\.width: Expected `int`, got `str`"):
        decode(json.dumps(given).encode())


def test_the_rule_of_a_grade_stands_under_its_key_in_files() -> None:
    line = json.loads(recorded()[0])
    assert line["grade"]["rung"] == decode(recorded()[0]).grade.rule == "number"
    assert json.loads(encode(decode(recorded()[0])))["grade"] == line["grade"]
    assert schema.repaired(line).grade.rule == "number"
