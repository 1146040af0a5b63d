"""Agreement of a judge with the scores of a rule, or of another judge, on the same replies."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.grading.judge.judge import RULE as JUDGE_RULE
from codedance_verl.grading.judge.judge import Judge
from codedance_verl.grading.judge.prompt import Question
from codedance_verl.grading.rules.alternatives import show_alternatives
from codedance_verl.harness.in_order import in_order
from codedance_verl.harness.measured import Measured
from codedance_verl.statistics.intervals import Interval, wilson
from codedance_verl.statistics.kappa import Kappa, kappa
from codedance_verl.statistics.pairs import PairedCounts
from codedance_verl.tasks.item import Score
from codedance_verl.tasks.task import clipped
from codedance_verl.types import Grade, Verdict


@dataclass(frozen=True)
class Opinion:
    """Two verdicts on one reply: the score that stands, and what the judge says."""

    measured: Measured
    score: Score
    grade: Grade

    @property
    def differs(self) -> bool:
        """True where one is right and the other wrong."""
        return (self.score.value == 1.0) is not self.grade.correct


@dataclass(frozen=True)
class Agreement:
    """Agreement on a sample of items of which no two are in one cluster.

    Attributes:
        which: score that the judge is compared with, `official` or `ours`.
        drawn: items that were drawn; `undecided` of them have no verdict of the judge and are left out.
        counts: the others by who says right; A is the score, B the judge.
        rate: share of equal verdicts, with Wilson's interval; None where nothing was compared, as `interval`.
        kappa: Cohen's; None where both say the same one thing of all.
        disagreements: what they differ in, in the order of the items.
    """

    which: str
    drawn: int
    undecided: int
    counts: PairedCounts
    rate: float | None
    interval: Interval | None
    kappa: Kappa | None
    disagreements: tuple[Opinion, ...]

    @property
    def sentence(self) -> str:
        """Result in one sentence."""
        if self.rate is None or self.interval is None:
            return f"judge and {self.which} score: no reply that both decide"
        beyond = "kappa cannot be given, as both say the same of all"
        if self.kappa is not None:
            low, high = self.kappa.interval
            beyond = f"kappa {self.kappa.value:.2f} ({low:.2f} to {high:.2f})"
        low, high = (100 * end for end in self.interval)
        return (
            f"judge and {self.which} score agree on {100 * self.rate:.1f} % of {self.counts.pairs} replies "
            f"({low:.1f} to {high:.1f}), {beyond}"
        )


async def judge_agreement(
    measured: Sequence[Measured],
    count: int,
    judge: JudgeConfig,
    folder: Path | None = None,
    which: str = "official",
    seed: int = 0,
) -> Agreement:
    """Asks the judge of this project's grader about replies that a rule, or the official judge, has decided.

    Args:
        measured: samples with scores.
        count: items to draw, at most one of each cluster.
        judge: judge to ask, also where the rules of the grader decide.
        folder: folder of a `Scorer`, whose verdicts cost no request; None: none are kept.
        which: score to compare with, `official` or `ours`; of the latter those that the judge gave are left out.
        seed: of the draw.

    Raises:
        UserError: there is no judge.
    """
    if not judge.endpoints:
        raise UserError("no judge to compare with; name its servers in grading.judge.endpoints")
    drawn = _drawn(measured, count, which, seed)
    asked = Judge(judge, folder / "judge" if folder is not None else None)
    try:
        grades = await in_order(drawn, lambda one: asked.grade(_question(one[0])), judge.concurrency)
    finally:
        await asked.close()
    return agreement_of(which, [Opinion(*one, grade) for one, grade in zip(drawn, grades, strict=True)])


def agreement_of(which: str, opinions: Sequence[Opinion]) -> Agreement:
    """Agreement of opinions on independent items."""
    decided = [opinion for opinion in opinions if opinion.grade.verdict is not Verdict.UNGRADED]
    says = [(opinion.score.value == 1.0, opinion.grade.correct) for opinion in decided]
    both, neither = says.count((True, True)), says.count((False, False))
    counts = PairedCounts(both, says.count((True, False)), says.count((False, True)), neither)
    return Agreement(
        which=which,
        drawn=len(opinions),
        undecided=len(opinions) - len(decided),
        counts=counts,
        rate=(both + neither) / counts.pairs if decided else None,
        interval=wilson(both + neither, counts.pairs) if decided else None,
        kappa=kappa(counts.both, counts.only_a, counts.only_b, counts.neither),
        disagreements=tuple(opinion for opinion in decided if opinion.differs),
    )


def _drawn(measured: Sequence[Measured], count: int, which: str, seed: int) -> list[tuple[Measured, Score]]:
    """Decided samples with their scores, in order: one of each drawn cluster, as those of a cluster are alike."""
    order = list(range(len(measured)))
    random.Random(seed).shuffle(order)
    chosen: dict[str, int] = {}
    for number in order:
        if len(chosen) < count and _decided(measured[number], which) is not None:
            # a later one of the same cluster changes nothing: the draw is one of each
            chosen.setdefault(measured[number].item.cluster or measured[number].item.id, number)
    found = [(measured[number], _decided(measured[number], which)) for number in sorted(chosen.values())]
    return [(one, score) for one, score in found if score is not None]


def _decided(one: Measured, which: str) -> Score | None:
    """Score of right or wrong; None where there is none, or the judge would be compared with itself."""
    score = one.official if which == "official" else one.ours
    if score is None or score.value not in (0.0, 1.0) or one.item.truth is None:
        return None
    if one.reply is None or not one.reply.text.strip() or (which == "ours" and score.rule == JUDGE_RULE):
        return None
    return score


def _question(one: Measured) -> Question:
    """Question as the grader asks it."""
    answer = clipped(one.reply.text) if one.reply is not None else ""
    return Question(one.item.graded_question or one.item.question, show_alternatives(one.item.truth or ""), answer)
