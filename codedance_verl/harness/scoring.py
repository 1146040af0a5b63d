"""Scores of replies: by the official rule of a benchmark with the judge that it asks, and by this project's grader."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import codedance_verl
from codedance_verl.errors import UserError
from codedance_verl.grading.config import GradingConfig
from codedance_verl.grading.grader import ERROR, Grader
from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.harness.in_order import in_order
from codedance_verl.harness.judging import OURS_SHA256, OfficialJudge, judge_name, without_judge
from codedance_verl.harness.measured import Measured
from codedance_verl.harness.rule_calls import RULE_SECONDS, RuleCalls
from codedance_verl.records.key import Json
from codedance_verl.records.record import Status
from codedance_verl.tasks.item import Item, JudgeRequest, Score
from codedance_verl.tasks.task import Task
from codedance_verl.types import Grade, Verdict

NO_TRUTH = "no_ground_truth"

_GRADED = (Status.ANSWERED, Status.JUDGE_FAILURE)
"""Statuses of samples with a reply; the second one is what an earlier scoring left."""

_VALUES = {Verdict.CORRECT: 1.0, Verdict.WRONG: 0.0, Verdict.UNGRADED: None}

_logger = logging.getLogger(__name__)


class Scorer:
    """Rules, judges and grader of one process. Use it from one event loop and close it there."""

    def __init__(
        self,
        grading: GradingConfig,
        folder: Path | None = None,
        official_judge: JudgeConfig | None = None,
        rule_seconds: float = RULE_SECONDS,
    ) -> None:
        """Starts nothing yet.

        Args:
            grading: settings of this project's grader; without endpoints in `grading.judge` its rules alone decide.
            folder: what judges reply is kept in `<folder>/judge` and read from there; None: it is not kept.
            official_judge: judge of the official rules; None: the one of `grading`.
            rule_seconds: run time of one official rule, after which the item has no score.

        Raises:
            UserError: the key of a judge's endpoints cannot be sent.
        """
        self._grading = grading
        self._official = official_judge or grading.judge
        self._grader = Grader(grading, folder)
        self._calls = RuleCalls(rule_seconds)
        self._judge: OfficialJudge | None = None
        if self._official.endpoints:
            self._judge = OfficialJudge(self._official, self._calls, folder / "judge" if folder is not None else None)
        self._templates: dict[str, frozenset[str]] = {}

    @property
    def at_once(self) -> int:
        """Samples that are scored at the same time; each has at most one request to a judge in flight."""
        return min(judge.concurrency for judge in (self._official, self._grading.judge))

    @property
    def grader_name(self) -> Json:
        """Version and settings of the grader, the judge aside."""
        settings = self._grading.model_dump(mode="json", exclude={"judge", "custom_timeout_s", "custom_processes"})
        return {"version": codedance_verl.__version__, **settings}

    def judge_name(self, task: Task) -> Json:
        """Names of the judges of what was scored so far, under `official` and `ours`; None where there is no judge.

        `official` is there for a benchmark whose rule has asked one.
        """
        names: dict[str, str] = {}
        if self._judge is not None and task.name in self._templates:
            names["official"] = judge_name(self._official.model, self._templates[task.name])
        if self._grading.judge.endpoints:
            names["ours"] = judge_name(self._grading.judge.model, [OURS_SHA256])
        return names or None

    def take_stats(self) -> dict[str, JudgeStats]:
        """Counts and cost of the judges since the last call, under `official` and `ours`."""
        official = self._judge.stats.take() if self._judge is not None else JudgeStats()
        return {"official": official, "ours": self._grader.take_judge_stats()}

    async def aclose(self) -> None:
        """Closes connections and threads."""
        if self._judge is not None:
            await self._judge.close()
        await self._grader.close()

    async def official(self, task: Task, item: Item, reply: str) -> tuple[Score, bool]:
        """Score of a final answer by the benchmark's rule, and whether a judge gave it, or failed to.

        An error of the rule costs this item its score, and no other one. It is logged.

        Raises:
            UserError: the authors' texts that the item names cannot be read.
        """
        try:
            found = await self._calls.call(task.official, item, reply)
            if isinstance(found, Score):
                return found, False
            if self._judge is None:
                return without_judge(found), False
            return await self._judged(task, self._judge, found), True
        except TimeoutError:
            return Score(None, task.name, reason="the rule did not end in time"), False
        except UserError:  # texts that cannot be read are a fault of the set-up, for all items alike
            raise
        except Exception as error:
            _logger.exception("%s: item %s could not be scored", task.name, item.id)
            return Score(None, task.name, reason=f"the rule failed ({type(error).__name__})"), False

    async def ours(self, task: Task, item: Item, reply: str) -> Score:
        """Score of a final answer by the grader of this project; its settings for a data source go by the benchmark.

        It has no value without a truth, and where neither rule nor judge decides.
        """
        if item.truth is None:
            return Score(None, NO_TRUTH, reason="the item has no truth")
        question, source = item.graded_question or item.question, task.replies_of or task.name
        try:
            grade = await self._grader.grade(question, reply, item.truth, item.style, source, item.id)
        except Exception as error:
            _logger.exception("%s: item %s could not be graded", task.name, item.id)
            return Score(None, ERROR, reason=f"the grader failed ({type(error).__name__})")
        return score_of(grade)

    async def _judged(self, task: Task, judge: OfficialJudge, request: JudgeRequest) -> Score:
        judged = await judge.score(request)
        self._templates[task.name] = self._templates.get(task.name, frozenset()) | judged.templates
        return judged.score


async def score(
    measured: Sequence[Measured], task: Task, scorer: Scorer, scored: Callable[[], None] | None = None
) -> list[Measured]:
    """Samples with both scores, in their order.

    A sample without a reply stays as it is. One whose rule asked a judge that gave no score has the status
    `JUDGE_FAILURE` with the reason; what the grader of this project lacks is in the reason of its own score.

    Args:
        measured: samples of the benchmark, or of the one whose replies it scores (`Task.replies_of`).
        task: benchmark whose rule is used.
        scorer: rules, judges and grader.
        scored: called after each sample.

    Raises:
        UserError: an item is of another benchmark; the authors' texts that it names cannot be read.
    """

    async def one(sample: Measured) -> Measured:
        found = await _scored(sample, task, scorer)
        if scored is not None:
            scored()
        return found

    return await in_order([_of(sample, task) for sample in measured], one, scorer.at_once)


def score_of(grade: Grade) -> Score:
    """Verdict of the grader as a score."""
    value = _VALUES[grade.verdict]
    if value is None:
        return Score(None, grade.rule, reason=grade.evidence or grade.rule)
    return Score(value, grade.rule, grade.evidence or None)


def _of(sample: Measured, task: Task) -> Measured:
    """Sample as one of the benchmark, which may score the replies of another one."""
    if sample.item.task not in ("", task.name, task.replies_of):
        raise UserError(
            f"item {sample.item.id} is of {sample.item.task} and cannot be scored as {task.name}; give the replies of "
            f"{task.replies_of or task.name}"
        )
    return replace(sample, item=replace(sample.item, task=task.name, revision=task.revision))


async def _scored(sample: Measured, task: Task, scorer: Scorer) -> Measured:
    if sample.reply is None or sample.status not in _GRADED:
        return sample
    official, by_judge = await scorer.official(task, sample.item, sample.reply.text)
    ours = await scorer.ours(task, sample.item, sample.reply.text)
    failed = by_judge and official.value is None
    return replace(
        sample,
        status=Status.JUDGE_FAILURE if failed else Status.ANSWERED,  # a failure of an earlier scoring does not stay
        reason=official.reason if failed else "",
        official=official,
        ours=ours,
    )
