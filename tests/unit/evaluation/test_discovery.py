from __future__ import annotations

from pathlib import Path

import pytest

from codedance_verl.data.parquet import write_rows
from codedance_verl.data.schema import SFT_SCHEMA
from codedance_verl.errors import UserError
from codedance_verl.evaluation.demonstrated import undemonstrated_kinds
from codedance_verl.evaluation.discovery import KEPT, discovery, discovery_examples
from codedance_verl.formats import get_format
from tests.unit.evaluation.logs import Line, line, write_log, write_test_file


def rollout(
    step: int, sample: int, calls: tuple[str, ...], verdict: str = "wrong", kind: str = "digits", **given: object
) -> Line:
    written = {"written_at": given.pop("written_at", float(sample))}
    return (
        line(
            f"{kind}-{step}", step=step, split="train", sample=sample, kind=kind, calls=calls, verdict=verdict, **given
        )
        | written
    )  # type: ignore[arg-type]


def test_first_steps_and_shares_by_hand(tmp_path: Path) -> None:
    lines = [
        rollout(1, 0, ()),
        rollout(1, 1, ("rejected",)),
        rollout(1, 0, ("ok",), "correct", kind="photo"),
        rollout(2, 0, ("error",)),
        rollout(2, 1, (), "correct"),
        rollout(2, 2, ("ok",), finish="infrastructure", verdict="ungraded"),
        rollout(3, 0, (), "wrong"),
        rollout(4, 0, ("ok",), "correct", written_at=9.0),
        rollout(4, 1, ("ok",), "correct", written_at=5.0),
        rollout(4, 2, ("ok",), "wrong", written_at=1.0),
    ]
    write_log(tmp_path, lines)
    (found,) = discovery(["digits"], [(7, tmp_path)])["digits"].seeds
    assert found.seed == 7 and found.first_call is not None and found.first_right is not None
    assert (found.first_call.step, found.first_right.step) == (2, 4)
    assert [(item.record_id, item.sample) for item in found.first_call.trajectories] == [("digits-2", 0)]
    assert [item.sample for item in found.first_right.trajectories] == [1, 0], "the one written first leads"
    points = [(item.step, item.rollouts, item.called, item.right) for item in found.points]
    assert points == [(1, 2, 0, 0), (2, 2, 1, 0), (3, 1, 0, 0), (4, 3, 3, 2)]
    assert (found.points[3].share, found.points[3].share_right) == (1.0, pytest.approx(2 / 3))


def test_a_behaviour_that_no_rollout_shows_is_null(tmp_path: Path) -> None:
    write_log(tmp_path, [rollout(1, 0, ()), rollout(2, 0, ("ok",))])
    (found,) = discovery(["digits"], [(0, tmp_path)])["digits"].seeds
    assert found.first_call is not None and found.first_right is None
    (absent,) = discovery(["chart"], [(0, tmp_path)])["chart"].seeds
    assert (absent.first_call, absent.points) == (None, ())
    assert discovery([], [(0, tmp_path / "none")]) == {}


def test_at_most_five_first_trajectories_are_named(tmp_path: Path) -> None:
    write_log(tmp_path, [rollout(1, sample, ("ok",)) for sample in range(8)])
    (found,) = discovery(["digits"], [(0, tmp_path)])["digits"].seeds
    assert found.first_call is not None and len(found.first_call.trajectories) == KEPT


def test_the_trajectories_shown_are_those_of_the_last_try_of_a_step(tmp_path: Path) -> None:
    write_log(tmp_path, [rollout(3, 0, ("ok",), "wrong")], worker="z", written_at=1_000)
    write_log(tmp_path, [rollout(3, 0, ("ok",), "correct")], worker="a", written_at=2_000)
    found = discovery(["digits"], [(0, tmp_path)])
    (group,) = discovery_examples(found, {0: tmp_path})
    (example,) = group.examples
    assert example.trajectory.grade.correct and group.title == "digits, seed 0", "one trajectory is shown once"


def demonstration(kind: str, *turns: str) -> Line:
    answers = [{"role": "assistant", "content": turn} for turn in turns]
    messages = [{"role": "user", "content": "<image>?"}, *answers]
    return {"messages": messages, "images": [], "record_id": kind, "kind": kind, "difficulty": "hard", "style": "x"}


def test_kinds_without_a_demonstrated_call(tmp_path: Path) -> None:
    call, answer = get_format("code").render_call("print(1)"), "<answer>1</answer>"
    rows = [
        demonstration("photo", call, answer),
        demonstration("photo", answer),
        demonstration("digits", answer),
        demonstration("digits", "<think><code> would help</think>\n" + answer),
        demonstration("easy", answer),
    ]
    write_rows(tmp_path / "sft.parquet", rows, SFT_SCHEMA)
    kinds = {"photo": "hard", "digits": "hard", "chart": "hard", "easy": "easy"}
    lines = [line(kind, kind=kind, difficulty=difficulty) for kind, difficulty in kinds.items()]
    test_file = write_test_file(tmp_path / "test.parquet", lines)
    assert undemonstrated_kinds(tmp_path / "sft.parquet", test_file) == ("chart", "digits")


def test_a_file_that_holds_no_demonstrations_is_one_clear_line(tmp_path: Path) -> None:
    test_file = write_test_file(tmp_path / "test.parquet", [line()])
    with pytest.raises(UserError, match=r"test\.parquet: not a file of demonstrations with kinds, it has no column"):
        undemonstrated_kinds(test_file, test_file)
