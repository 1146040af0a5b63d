"""Report of a synthesis: how many trajectories pass each check, beside the published rates, and what was kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from codedance_verl.harness.estimate import Estimate
from codedance_verl.statistics.intervals import wilson
from codedance_verl.synthesis.checks import Stage
from codedance_verl.synthesis.kinds import Kind, kind_to_ask
from codedance_verl.synthesis.rows import Judged
from codedance_verl.synthesis.solving import Solved

PUBLISHED: Mapping[Stage, tuple[float, str]] = {
    Stage.WELL_FORMED: (0.90, "format"),
    Stage.BOX_HOLDS: (0.15, "box that holds the object"),
    Stage.BOX_SIZE: (0.65, "box size"),
}
"""Pass rates of CodeDance's SA1B branch (arXiv 2512.17312) with the names they have there. Its other stages, an
informative image 20 % and a good question 90 %, come before there is a question, and have no counterpart here."""

_TITLES = {
    Stage.ANSWERED: "ends with an answer",
    Stage.WELL_FORMED: "well-formed",
    Stage.EXECUTED: "code runs",
    Stage.RIGHT: "answer right",
    Stage.BOX_HOLDS: "crop holds the evidence",
    Stage.BOX_SIZE: "crop no larger than allowed",
    Stage.FAITHFUL: "a call's result matters",
}
_OF_BOXES = (Stage.BOX_HOLDS, Stage.BOX_SIZE)


class StageRate(msgspec.Struct, frozen=True, kw_only=True):
    """Check with its counts.

    Attributes:
        stage: name of the check.
        title: what it asks for, in words.
        tried, passed: trajectories that came to it and that passed; of those of boxes, where there was one to compare.
        rate: share with its 95 % interval, as if trajectories were independent.
        published: rate of CodeDance's SA1B branch, 0 to 1; None where none is published.
        published_as: its name there.
    """

    stage: str
    title: str
    tried: int
    passed: int
    rate: Estimate
    published: float | None = None
    published_as: str = ""


class SynthesisReport(msgspec.Struct, frozen=True, kw_only=True):
    """Report of a synthesis, as `report.json` has it.

    Attributes:
        created: date and time, UTC.
        teacher: name of the model.
        settings: tries, kinds and bounds.
        files: of the questions.
        questions: in all files.
        easy: solved by all answers without tools.
        undecided: without a verdict, as endpoint, sandbox or judge failed; the next run goes on with them.
        rows: demonstrations that were kept, `by_kind` of them with each kind.
        asked_for: by the kind that was asked for, trajectories (`tried`) and those that passed all checks (`kept`).
        direct: answers without tools, right ones among them.
        trajectories, kept_trajectories: with tools.
        stages: checks in their order, over trajectories with tools.
        completion_tokens, kept_tokens: that the teacher wrote, where its endpoint says so.
    """

    created: str
    teacher: str
    settings: Mapping[str, Any]
    files: tuple[str, ...]
    questions: int
    easy: int
    undecided: int
    rows: int
    by_kind: Mapping[str, int]
    asked_for: Mapping[str, Mapping[str, int]]
    direct: tuple[int, int]
    trajectories: int
    kept_trajectories: int
    stages: tuple[StageRate, ...]
    completion_tokens: int
    kept_tokens: int


@dataclass
class Counting:
    """Counts of the replies with a verdict, one after the other."""

    rejected: Counter[str] = field(default_factory=Counter)
    unboxed: Counter[str] = field(default_factory=Counter)
    """Trajectories without a box to compare, by the stage at which they were rejected; empty for none."""
    kinds: Counter[str] = field(default_factory=Counter)
    asked_for: dict[str, Counter[str]] = field(default_factory=dict)
    direct: Counter[bool] = field(default_factory=Counter)
    tokens: Counter[bool] = field(default_factory=Counter)
    trajectories: int = 0

    def add(self, found: Judged, solved: Solved) -> None:
        """Takes note of a reply."""
        checked, which = found.checked, found.result.which
        # by the round: other replies to the same item are no demonstrations
        kept = solved.kept.get(found.name) == which.name
        self.tokens[kept] += found.reply.completion_tokens or 0
        if kept:
            self.kinds[checked.kind] += 1
        if which.direct:
            self.direct[checked.right] += 1
            return
        self.trajectories += 1
        self.rejected[checked.stage] += 1
        if not checked.boxed:
            self.unboxed[checked.stage] += 1
        asked = kind_to_ask(found.item.id, which.number, solved.questions.synthesis.kinds)
        of_kind = self.asked_for.setdefault(str(asked or "any"), Counter(tried=0, kept=0))
        of_kind["tried"] += 1
        of_kind["kept"] += kept

    def stages(self) -> tuple[StageRate, ...]:
        """Rates of the checks in their order."""
        found, left, unboxed = [], self.trajectories, sum(self.unboxed.values())
        for stage in Stage:
            # a trajectory without a box passes these unseen, which says nothing about boxes
            tried = left - unboxed if stage in _OF_BOXES else left
            passed = tried - self.rejected[stage]
            published, name = PUBLISHED.get(stage, (None, ""))
            rate = Estimate.of(passed / tried, wilson(passed, tried)) if tried else Estimate()
            found.append(
                StageRate(
                    stage=stage,
                    title=_TITLES[stage],
                    tried=tried,
                    passed=passed,
                    rate=rate,
                    published=published,
                    published_as=name,
                )
            )
            left -= self.rejected[stage]
            unboxed -= self.unboxed[stage]
        return tuple(found)


def report_of(teacher: str, solved: Sequence[Solved], counted: Counting, rows: int) -> SynthesisReport:
    """Report over all files."""
    return SynthesisReport(
        created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        teacher=teacher,
        settings=solved[0].questions.synthesis.as_json(),
        files=tuple(one.questions.benchmark.task.source for one in solved),
        questions=sum(len(one.ids) for one in solved),
        easy=sum(len(one.easy) for one in solved),
        undecided=sum(len(one.undecided) for one in solved),
        rows=rows,
        by_kind={str(kind): counted.kinds[kind] for kind in ("direct", *Kind)},
        asked_for={kind: dict(counts) for kind, counts in sorted(counted.asked_for.items())},
        direct=(counted.direct.total(), counted.direct[True]),
        trajectories=counted.trajectories,
        kept_trajectories=counted.rejected[""],
        stages=counted.stages(),
        completion_tokens=counted.tokens.total(),
        kept_tokens=counted.tokens[True],
    )


def lines_of(report: SynthesisReport) -> list[str]:
    """Lines for the terminal: the checks with their rates beside the published ones, then what was kept."""
    width = max(len(stage.title) for stage in report.stages)
    lines = [f"{'check':{width}}  passed / tried  rate (95 % interval)   published"]
    for stage in report.stages:
        published = "" if stage.published is None else f"{100 * stage.published:.0f} % ({stage.published_as})"
        counts = f"{stage.passed:,} / {stage.tried:,}"
        lines.append(f"{stage.title:{width}}  {counts:>14}  {stage.rate.in_words:21}  {published}".rstrip())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.by_kind.items())
    lines.append(f"{report.questions:,} questions, {report.easy:,} easy; {report.rows:,} demonstrations: {kinds}")
    if report.undecided:
        lines.append(f"{report.undecided:,} questions are undecided after failures; run the same command again")
    return lines
