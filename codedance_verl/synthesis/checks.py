"""Checks of a trajectory, each a plain function, in a fixed order from cheap to dear.

A check returns the reason of a rejection, or None. The first that returns one decides; `verdicts.py` grades the answer
and runs the calls again where the order comes to the checks that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from codedance_verl.harness.altered_images import Box
from codedance_verl.harness.call_code import facts_of
from codedance_verl.harness.call_use import Use
from codedance_verl.harness.faithfulness import CallFinding
from codedance_verl.harness.reply import Reply
from codedance_verl.harness.stated_answers import answer_of
from codedance_verl.reward.format import malformation
from codedance_verl.synthesis.settings import Rules
from codedance_verl.tasks.item import Item
from codedance_verl.trajectories.schema import TurnRecord
from codedance_verl.types import IMAGE_PLACEHOLDER, FinishReason, Grade, Trajectory, Turn


class Stage(StrEnum):
    """Stage at which a trajectory is rejected, in the order of the checks."""

    ANSWERED = "answered"
    WELL_FORMED = "well_formed"
    EXECUTED = "executed"
    RIGHT = "right"
    BOX_HOLDS = "box_holds"
    BOX_SIZE = "box_size"
    FAITHFUL = "faithful"


@dataclass(frozen=True)
class Attempt:
    """Trajectory under check.

    Attributes:
        item: as it was asked.
        reply: the trajectory.
        format: name of the turn format.
        image_size: width and height of the first image in pixels.
        grade: verdict on the answer, from `Stage.RIGHT` on.
        findings: uses of the calls, from `Stage.FAITHFUL` on.
    """

    item: Item
    reply: Reply
    format: str
    image_size: tuple[int, int]
    grade: Grade | None = None
    findings: tuple[CallFinding, ...] = ()

    @property
    def regions(self) -> tuple[Box, ...]:
        """Regions of the evidence in pixels of the first image; empty where the record states none."""
        return tuple(self.item.facts.get("boxes", ()))

    @property
    def cells(self) -> list[TurnRecord]:
        """Turns whose code ran."""
        return [turn for turn in self.reply.turns if turn.execution is not None and turn.execution.executed]

    @property
    def crops(self) -> tuple[Box, ...]:
        """Boxes that code which ran to its end crops or slices by constants."""
        codes, ran = [turn.code or "" for turn in self.cells], [_succeeded(turn) for turn in self.cells]
        facts = zip(facts_of(codes, ran), ran, strict=True)
        # a call that failed has shown nothing
        return tuple(box for fact, done in facts if done for box in fact.boxes)


Check = Callable[[Attempt, Rules], str | None]


def answered(attempt: Attempt, _: Rules) -> str | None:
    """The trajectory ends with an answer."""
    if attempt.reply.finish is FinishReason.ANSWER and attempt.reply.text:
        return None
    finish = attempt.reply.finish or FinishReason.NO_ACTION
    return f"no answer: the trajectory ended by {finish}"


def well_formed(attempt: Attempt, rules: Rules) -> str | None:
    """Turns are well-formed as the strict format reward has it, and images stand in observations alone."""
    # the form is that of the texts alone: tokens and executions are left empty
    turns = tuple(Turn(turn.text, 0, 0) for turn in attempt.reply.turns)
    bare = Trajectory("", "", "", "", turns, FinishReason.ANSWER, format=attempt.format)
    if fault := malformation(bare, rules.max_answer_chars):
        return fault
    for number, turn in enumerate(attempt.reply.turns):
        # SFT counts placeholders over all messages: one too many shifts every later image
        if IMAGE_PLACEHOLDER in turn.text:
            return f"turn {number} has {IMAGE_PLACEHOLDER} in its text"
        shown = turn.images_shown or 0
        if (turn.observation or "").count(IMAGE_PLACEHOLDER) != shown:
            return f"turn {number}: {IMAGE_PLACEHOLDER} in what the code printed"
    return None


def executed(attempt: Attempt, rules: Rules) -> str | None:
    """Code was run, no more calls failed than may, and the last one did not."""
    if not attempt.cells:
        return "no code was run"
    # a refused call has no cell, and is a failure all the same
    calls = [turn for turn in attempt.reply.turns if turn.execution is not None]
    failed = [turn for turn in calls if not _succeeded(turn)]
    if not failed or (len(failed) <= rules.most_failed_calls and _succeeded(calls[-1])):
        return None
    return f"{len(failed)} of {len(calls)} calls failed: {_error(failed[0])}"


def right(attempt: Attempt, _: Rules) -> str | None:
    """The answer is graded as right."""
    grade = attempt.grade
    assert grade is not None, "graded before this check"
    if grade.correct:
        return None
    return f"answer {attempt.reply.text!r:.200} instead of {attempt.item.truth!r:.200} ({grade.rule})"


def box_holds(attempt: Attempt, rules: Rules) -> str | None:
    """A crop holds a region of the evidence. Holds too where there are no regions, or no crops by constants."""
    regions, crops = attempt.regions, attempt.crops
    if not regions or not crops or any(_held(crop, regions, rules) for crop in crops):
        return None
    best = max(cover(crop, region) for crop in crops for region in regions)
    return f"no crop holds the evidence: {100 * best:.0f} % of a region at best, {list(crops[:3])}"


def box_size(attempt: Attempt, rules: Rules) -> str | None:
    """A crop that holds a region is no larger than it may be; as `box_holds` where there is nothing to compare."""
    holding = [crop for crop in attempt.crops if _held(crop, attempt.regions, rules)]
    width, height = attempt.image_size
    if not holding or not width * height:
        return None
    # the smallest that holds it: a first look at a larger part is no fault
    share = min(_area(_inside(crop, attempt.image_size)) for crop in holding) / (width * height)
    return None if share <= rules.largest_box else f"the crop has {100 * share:.0f} % of the image"


def faithful(attempt: Attempt, _: Rules) -> str | None:
    """The result of a call matters: with altered evidence it is another one; or it is a calculation of the answer.

    No call may print a constant as if it were found.
    """
    uses = [finding.use for finding in attempt.findings]
    # even beside a call that is used: it would teach to print what is known
    if Use.HARD_CODED in uses:
        return "a call prints the answer as a constant"
    if Use.USED in uses or _calculated(attempt):
        return None
    return f"no call's result matters: {', '.join(uses) or 'no call was replayed'}"


CHECKS: tuple[tuple[Stage, Check], ...] = (
    (Stage.ANSWERED, answered),
    (Stage.WELL_FORMED, well_formed),
    (Stage.EXECUTED, executed),
    (Stage.RIGHT, right),
    (Stage.BOX_HOLDS, box_holds),
    (Stage.BOX_SIZE, box_size),
    (Stage.FAITHFUL, faithful),
)
"""Checks of a trajectory with code, in order."""


def cover(crop: Box, region: Box) -> float:
    """Part of a region's area within a crop, 0 to 1."""
    edges = max(crop[0], region[0]), max(crop[1], region[1]), min(crop[2], region[2]), min(crop[3], region[3])
    return _area(edges) / _area(region) if _area(region) else 0.0


def _calculated(attempt: Attempt) -> bool:
    """True where a call that reads no image printed the answer that it had calculated."""
    printed = {number: turn.execution.stdout for number, turn in enumerate(attempt.reply.turns) if turn.execution}
    question = attempt.item.graded_question or attempt.item.question
    stated = answer_of(attempt.reply.text, attempt.item.choices, question)
    calculations = [finding.turn for finding in attempt.findings if finding.use is Use.CALCULATION]
    return any(stated.stated_in(printed.get(turn, "")) for turn in calculations)


def _held(crop: Box, regions: Sequence[Box], rules: Rules) -> bool:
    return any(cover(crop, region) >= rules.least_cover for region in regions)


def _inside(box: Box, size: tuple[int, int]) -> Box:
    return box[0], box[1], min(box[2], size[0]), min(box[3], size[1])


def _area(box: Box) -> int:
    return max(0, box[2] - box[0]) * max(0, box[3] - box[1])


def _succeeded(turn: TurnRecord) -> bool:
    return turn.execution is not None and turn.execution.succeeded


def _error(turn: TurnRecord) -> str:
    execution = turn.execution
    if execution is None or execution.error is None:
        return str(execution.status) if execution is not None else ""
    return f"{execution.error.kind}: {execution.error.message}"[:300]
