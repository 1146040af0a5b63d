"""Checks of trajectories as plain functions, and the kinds that are asked for and found."""

from __future__ import annotations

from collections import Counter

import pytest

from codedance_verl.errors import UserError
from codedance_verl.formats import get_format, render_answer, render_think
from codedance_verl.harness.at_once import direct_item
from codedance_verl.harness.call_use import Use
from codedance_verl.harness.faithfulness import CallFinding
from codedance_verl.harness.reply import Reply
from codedance_verl.synthesis.checks import (
    Attempt,
    answered,
    box_holds,
    box_size,
    cover,
    executed,
    faithful,
    right,
    well_formed,
)
from codedance_verl.synthesis.kinds import Kind, item_for, kind_of, kind_to_ask
from codedance_verl.synthesis.settings import Rules, Synthesis, kinds_of
from codedance_verl.tasks.item import Item
from codedance_verl.trajectories.schema import ExecutionRecord, ImageRef, TurnRecord
from codedance_verl.types import ExecutionError, ExecutionStatus, FinishReason, Grade

RULES = Rules()
REGION = (10, 10, 20, 20)
LAST = TurnRecord(f"{render_think('So.')}\n{render_answer('7')}", None, None, None)


def turn(code: str, fails: bool = False, stdout: str = "7", images: int = 0, observation: str = "") -> TurnRecord:
    status = ExecutionStatus.ERROR if fails else ExecutionStatus.OK
    error = ExecutionError("ValueError", "no such thing", "") if fails else None
    shown = (ImageRef("0" * 64, 5, 5),) * images
    execution = ExecutionRecord(status, stdout, error, shown, 0.1, 0.0, ())
    text = f"{render_think('I look.')}\n{get_format('code').render_call(code)}"
    return TurnRecord(text, code, observation or "<image>" * images, execution, None, images)


def attempt(
    *turns: TurnRecord,
    finish: FinishReason = FinishReason.ANSWER,
    regions: tuple[tuple[int, int, int, int], ...] = (REGION,),
    text: str = "7",
    grade: Grade | None = None,
    uses: tuple[Use, ...] = (),
) -> Attempt:
    item = Item("q", "How many?", (), "7", facts={"boxes": regions})
    findings = tuple(CallFinding(number, use) for number, use in enumerate(uses))
    return Attempt(item, Reply(text=text, finish=finish, turns=(*turns, LAST)), "code", (100, 50), grade, findings)


def test_a_trajectory_without_an_answer_is_named_by_its_end() -> None:
    assert answered(attempt(turn("print(7)")), RULES) is None
    assert "turn_limit" in str(answered(attempt(finish=FinishReason.TURN_LIMIT, text=""), RULES))


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        (turn("print(7)"), None),
        (TurnRecord("<think>open " + render_answer("7"), None, None, None), "think tags"),
        (turn("print('<image>')", observation="<image>", stdout="<image>"), "<image> in its text"),
        (turn("print(chr(60) + 'image>')", observation="<image>", stdout="<image>"), "what the code printed"),
    ],
)
def test_a_malformed_turn_is_named(written: TurnRecord, fault: str | None) -> None:
    found = well_formed(attempt(written), RULES)
    assert found is None if fault is None else fault in str(found)


def test_failed_calls_are_counted_and_the_last_one_never_fails() -> None:
    good, bad = turn("print(7)"), turn("crash()", fails=True)
    assert executed(attempt(good, good), RULES) is None
    assert "1 of 2 calls failed: ValueError: no such thing" in str(executed(attempt(bad, good), RULES))
    assert executed(attempt(bad, good), Rules(most_failed_calls=1)) is None
    assert "calls failed" in str(executed(attempt(good, bad), Rules(most_failed_calls=1)))
    assert executed(attempt(), RULES) == "no code was run"


def test_a_wrong_answer_is_quoted_with_the_right_one() -> None:
    assert right(attempt(grade=Grade.of(True, "number")), RULES) is None
    assert "'7' instead of '7' (number)" in str(right(attempt(grade=Grade.of(False, "number")), RULES))


@pytest.mark.parametrize(
    ("crop", "held", "size"),
    [
        ("(10, 10, 20, 20)", True, True),
        ("(0, 0, 60, 40)", True, True),
        ("(0, 0, 80, 50)", True, False),
        ("(0, 0, 4000, 3000)", True, False),  # what lies outside of the image is not counted
        ("(10, 10, 20, 18)", False, True),
        ("(60, 10, 70, 20)", False, True),
        ("box", True, True),  # a computed box cannot be compared
    ],
)
def test_a_crop_is_compared_with_the_evidence(crop: str, held: bool, size: bool) -> None:
    found = attempt(turn(f"display(input_image.crop({crop}))", images=1))
    assert (box_holds(found, RULES) is None, box_size(found, RULES) is None) == (held, size)


def test_one_crop_that_holds_one_region_is_enough() -> None:
    cells = [turn(f"display(input_image.crop({box}))", images=1) for box in ("(60, 10, 70, 20)", "(9, 9, 21, 21)")]
    assert box_holds(attempt(*cells, regions=((80, 30, 90, 40), REGION)), RULES) is None
    # the code of a call that failed has shown nothing
    failed = turn("display(input_image.crop((9, 9, 21, 21)))", fails=True)
    assert box_holds(attempt(failed, cells[0]), RULES) is not None


def test_without_regions_no_crop_is_rejected() -> None:
    found = attempt(turn("display(input_image.crop((0, 0, 100, 50)))", images=1), regions=())
    assert (box_holds(found, RULES), box_size(found, RULES)) == (None, None)


def test_cover_is_the_part_of_the_region() -> None:
    assert (cover((0, 0, 15, 20), REGION), cover((30, 30, 40, 40), REGION), cover(REGION, (0, 0, 0, 0))) == (0.5, 0, 0)


@pytest.mark.parametrize(
    ("uses", "printed", "kept"),
    [
        ((Use.USED,), "7", True),
        ((Use.DECORATIVE, Use.USED), "7", True),
        ((Use.USED, Use.HARD_CODED), "7", False),
        ((Use.DECORATIVE,), "7", False),
        ((Use.UNUSED,), "7", False),
        ((Use.NOT_REPEATABLE,), "7", False),
        ((Use.CALCULATION,), "7", True),
        ((Use.CALCULATION,), "8", False),  # it calculates something else than the answer
        ((), "7", False),
    ],
)
def test_the_result_of_a_call_has_to_matter(uses: tuple[Use, ...], printed: str, kept: bool) -> None:
    cells = [turn("print(3 + 4)", stdout=printed) for _ in uses]
    assert (faithful(attempt(*cells, uses=uses), RULES) is None) is kept


@pytest.mark.parametrize(
    ("code", "images", "kind"),
    [
        ("display(input_image.crop((1, 2, 3, 4)))", 1, Kind.VISUAL),
        ("import numpy as np\nprint(np.asarray(input_image).mean())", 0, Kind.COMPUTATION),
        ("import cv2\nimport numpy as np\na = np.asarray(input_image).copy()\n"
         "cv2.rectangle(a, (1, 1), (9, 9), (255, 0, 0))\ndisplay(a)", 1, Kind.DRAWING),
    ],
)  # fmt: skip
def test_the_kind_is_that_of_what_is_shown(code: str, images: int, kind: Kind) -> None:
    assert kind_of(Reply(text="7", turns=(turn(code, images=images), LAST))) is kind


def test_kinds_are_asked_for_in_turn_and_equally_often_first() -> None:
    kinds = tuple(Kind)
    assert all({kind_to_ask(f"q{n}", k, kinds) for k in range(3)} == set(kinds) for n in range(20))
    first = Counter(kind_to_ask(f"q{n}", 0, kinds) for n in range(600))
    assert all(150 < count < 250 for count in first.values())
    assert kind_to_ask("q", 0, ()) is None


def test_requests_stand_behind_the_question_and_the_grader_does_not_see_them() -> None:
    item = Item("q", "How many?", (), "7")
    for asked in (direct_item(item), item_for(item, Kind.DRAWING)):
        assert asked.question.startswith("How many?\n\n") and asked.graded_question == "How many?"
        assert asked.sha256 != item.sha256
    assert item_for(item, None) == item


@pytest.mark.parametrize("text", ["any", "visual,drawing", "painting"])
def test_kinds_of_the_command_line(text: str) -> None:
    if text == "painting":
        with pytest.raises(UserError, match="visual, computation, drawing"):
            kinds_of(text)
    else:
        assert kinds_of(text) == ((Kind.VISUAL, Kind.DRAWING) if text != "any" else ())


def test_bounds_out_of_range_are_refused() -> None:
    for values in ({"least_cover": 0.0}, {"largest_box": 1.5}, {"most_failed_calls": -1}):
        with pytest.raises(UserError, match="must be"):
            Rules(**values)
    with pytest.raises(UserError, match="--tries"):
        Synthesis(direct=0, tries=0)
