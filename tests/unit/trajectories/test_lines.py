from __future__ import annotations

import json
from pathlib import Path

import pytest

from codedance_verl.errors import UserError
from codedance_verl.trajectories import schema
from codedance_verl.trajectories.lines import decode, read_line, whole_lines
from codedance_verl.trajectories.runs import find_runs
from codedance_verl.trajectories.schema import repaired
from codedance_verl.trajectories.summary import Summary


def test_whole_lines_alone_and_where_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"turns": [], "sample": 1}\n{"turns": [], "sample": 2}\n{"turns": [], "sample"')
    first = list(whole_lines(path))
    assert [line.record and line.record.sample for line in first] == [1, 2]
    end = first[-1].offset + first[-1].length
    with path.open("ab") as file:
        file.write(b": 3}\n")
    (third,) = whole_lines(path, end)
    assert third.record is not None and third.record.sample == 3
    assert read_line(path, third.offset, third.length) == third.record


@pytest.mark.parametrize("broken", [b"{\n", b"[]\n", b"\x00\x00\n", b"\n", b'{"other": 1}\n', b"[" * 100_000 + b"\n"])
def test_a_broken_line_is_told_and_passed_over(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(broken + b'{"turns": []}\n')
    assert [line.record for line in whole_lines(path)] == [None, decode(b'{"turns": []}')] and decode(b'{"turns": []}')


def test_bytes_that_are_no_utf_8_are_replaced() -> None:
    record = decode(b'{"turns": [], "question": "a\xff\xfeb"}\n')
    assert record is not None and record.question == "a\ufffd\ufffdb"


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MAX_LINE_BYTES", 100)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"turns": [], "q": "' + b"x" * 1000 + b'"}\n{"turns": []}\n')
    found = list(whole_lines(path))
    assert [line.record is None for line in found] == [True, False]
    assert found[1].offset == found[0].length


def test_what_verl_writes() -> None:
    line = {"input": "q", "output": "a", "gts": "7", "score": 0.5, "step": 4, "uid": "g-1_3_0"}
    record = decode(json.dumps(line).encode())
    assert record is not None
    summary = Summary.of(record, step=9, split="train")
    assert (summary.step, summary.group, summary.sample, summary.score) == (4, "g-1", 3, 0.5)
    assert (summary.turns, summary.calls, summary.correct) == (1, 0, None)


@pytest.mark.parametrize("value", [None, [], {}, "x", 1, True, float("nan"), 10**400])
def test_no_field_is_trusted(value: object) -> None:
    names = ("step", "group", "sample", "question", "turns", "grade", "reward", "timing", "finish", "answer")
    for name in names:
        summary = Summary.of(repaired({"turns": [], name: value}), step=1, split="val")
        assert isinstance(summary.question, str) and isinstance(summary.step, int)
    Summary.of(repaired({"turns": [value, {"execution": {"status": value, "images": value}}]}), step=1, split="val")


def test_a_folder_without_trajectories_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_runs(tmp_path / "nothing")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "0000.jsonl").write_text('{"step":1,"data":{}}\n')
    with pytest.raises(UserError, match="holds no trajectories"):
        find_runs(tmp_path)
