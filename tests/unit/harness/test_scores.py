from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from codedance_verl.errors import UserError
from codedance_verl.harness.measured import Measured
from codedance_verl.harness.reply import Reply
from codedance_verl.harness.scores import (
    TaskScores,
    read_scores,
    scored_tasks,
    scores_of,
    scores_path,
    write_scores,
)
from codedance_verl.records.key import replies_key
from codedance_verl.records.record import Status
from codedance_verl.tasks.countbench import COUNTBENCH
from codedance_verl.tasks.item import Item, Score
from codedance_verl.types import FinishReason

KEY = replies_key(task="countbench", revision="main", model={"name": "m"}, prompt={}, sampling={}, limits={}, samples=2)


def item(name: str) -> Item:
    return Item(id=name, question=f"How many {name}?", images=(), truth="3", cluster=f"c{name}", strata={"kind": "cup"})


def answered(of: Item, sample: int = 0, value: float = 1.0) -> Measured:
    reply = Reply(text="3", finish=FinishReason.ANSWER, prompt_tokens=10, completion_tokens=4)
    return Measured(of, sample, Status.ANSWERED, reply=reply, official=Score(value, "counting", "3"))


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    failed = Measured(item("b"), 0, Status.ENDPOINT_FAILURE, "refused: 500")
    measured = [answered(item("a"), 1, 0.0), failed, answered(item("a"))]
    scores = scores_of(
        COUNTBENCH, KEY, measured, items=[item(name) for name in "cab"], judge={"model": "j"}, grader="rules 1"
    )
    assert [one.id for one in scores.items] == ["c", "a", "b"]
    assert [len(one.samples) for one in scores.items] == [0, 2, 1]
    first, second = scores.items[1].samples
    assert (first.sample, first.official, first.turns, first.calls) == (0, Score(1.0, "counting", "3"), 0, 0)
    assert (second.official, second.finish, second.completion_tokens) == (
        Score(0.0, "counting", "3"),
        FinishReason.ANSWER,
        4,
    )
    assert scores.items[2].samples[0].reason == "refused: 500" and scores.items[2].samples[0].turns is None
    assert (scores.key, scores.samples, scores.expected) == (KEY.digest, 2, COUNTBENCH.expected)
    write_scores(tmp_path, scores)
    assert scored_tasks(tmp_path) == ["countbench"] and read_scores(tmp_path, "countbench") == scores


def test_half_a_surrogate_pair_is_written(tmp_path: Path) -> None:
    broken = replace(answered(item("a")), official=Score(0.0, "counting", "\ud83d"))
    write_scores(tmp_path, scores_of(COUNTBENCH, KEY, [broken]))
    found = read_scores(tmp_path, "countbench").items[0].samples[0].official
    assert found == Score(0.0, "counting", "?")


def test_a_sample_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="sample 0 of item a#"):
        scores_of(COUNTBENCH, KEY, [answered(item("a")), answered(item("a"))])


def test_files_that_hold_no_scores_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no scores; name the output folder"):
        scored_tasks(tmp_path)
    with pytest.raises(UserError, match="run the evaluation to its end"):
        read_scores(tmp_path, "vstar")
    path = write_scores(tmp_path, scores_of(COUNTBENCH, KEY, []))
    newer = path.read_bytes().replace(b"{", b'{"version":2,', 1)
    with pytest.raises(ValueError, match="version 2 is newer"):
        TaskScores.decode(newer)
    path.write_text('{"task": "countbench"}')
    with pytest.raises(UserError, match=r"countbench\.json: no scores of an evaluation"):
        read_scores(tmp_path, "countbench")
    assert scores_path(tmp_path, "countbench") == path
