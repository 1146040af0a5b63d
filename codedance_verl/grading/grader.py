"""Grader of a process: a function of the user's own where the record has one, else the rules, then the judge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codedance_verl.grading.config import GradingConfig
from codedance_verl.grading.custom import functions
from codedance_verl.grading.judge.prompt import Question
from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.grading.matchers import ASKS_JUDGE, RULE, STYLES, grade, grade_by_rules
from codedance_verl.grading.rules.alternatives import alternatives_of, show_alternatives
from codedance_verl.isolated.function import Fault, check_all
from codedance_verl.isolated.plain import plain_extra_info
from codedance_verl.types import FinishReason, Grade, Trajectory, Verdict

if TYPE_CHECKING:
    from codedance_verl.grading.judge.judge import Judge

logger = logging.getLogger(__name__)

# Rules run beside the event loop, as a formula may take seconds, and in few threads, as most take microseconds.
COMPARING_THREADS = 2

# Stands for the rule where grading failed.
ERROR = "error"

MAX_EVIDENCE_CHARS = 300


class Grader:
    """Grades the answers of one process. Use it from one event loop and close it there."""

    def __init__(self, config: GradingConfig, run_dir: Path | None = None) -> None:
        """Verdicts of the judge are kept in `<run_dir>/judge` and read from there, where `run_dir` is given."""
        self._config = config
        self._run_dir = run_dir
        self._threads = ThreadPoolExecutor(COMPARING_THREADS, thread_name_prefix="grading")
        self._custom = functions(config.custom, config.custom.KEY, config.custom_timeout_s, config.custom_processes)
        self._judge: Judge | None = None
        if config.judge.endpoints:
            from codedance_verl.grading.judge.judge import Judge

            self._judge = Judge(config.judge, run_dir / "judge" if run_dir is not None else None)

    async def grade_rollout(self, trajectory: Trajectory) -> Grade:
        """Grades the answer of a rollout; one that infrastructure ended is ungraded, and no judge is asked for it.

        An error in the grading costs this rollout its verdict, and no other one. It is logged here, and counted with
        the other metrics of a group (`rollout.telemetry`).
        """
        if trajectory.finish is FinishReason.INFRASTRUCTURE:
            return Grade(Verdict.UNGRADED, "infrastructure")
        own = (trajectory.answer, trajectory.ground_truth, trajectory.style, trajectory.data_source)
        try:
            return await self.grade(trajectory.question, *own, trajectory.record_id, trajectory.extra_info)
        except Exception as error:
            logger.exception("%s: record %s could not be graded", self._run_dir or "no run", trajectory.record_id)
            return Grade(Verdict.UNGRADED, ERROR, f"{type(error).__name__}: {error}"[:MAX_EVIDENCE_CHARS])

    async def grade(
        self,
        question: str,
        answer: str | None,
        ground_truth: str,
        style: str = RULE,
        data_source: str = "",
        record_id: str = "",
        extra_info: Mapping[str, Any] | None = None,
    ) -> Grade:
        """Grades one answer.

        Args:
            question: the question's text, without images.
            answer: the text between the answer tags; None where there were none.
            ground_truth: of the record.
            style: `reward_model.style` of the record (`matchers.STYLES`); one that is not known leaves it ungraded.
            data_source: of the record, which may have settings and a grader of its own.
            record_id: name of the record, for a grader of the user's own and for messages.
            extra_info: of the record, for a grader of the user's own.

        Returns:
            `UNGRADED`, with the reason as evidence, wherever there is no verdict; nothing is raised for that.
        """
        path = self._config.custom.path_for(style, data_source)
        if path is not None:
            if answer is None or not answer.strip():
                return Grade(Verdict.WRONG, "no_answer")
            record = {
                "record_id": record_id,
                "data_source": data_source,
                "style": style,
                "extra_info": plain_extra_info(extra_info or {}),
            }
            return await self._ask_custom(path, answer, ground_truth, question, record)
        if style not in STYLES:
            return Grade(Verdict.UNGRADED, "style", f"unknown style {style!r}")
        context = self._config.context(question, data_source)
        asks = style in ASKS_JUDGE and self._config.open_answers == "judge"
        compare = grade_by_rules if asks else grade
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, compare, answer, ground_truth, style, context)
        if found is not None:
            return found
        if self._judge is None:
            return Grade(Verdict.UNGRADED, "judge", "the question is open and grading.judge.endpoints names no judge")
        return await self._judge.grade(Question(question, show_alternatives(ground_truth), answer or ""))

    @property
    def given_up(self) -> str:
        """Reason, in one line, why a grader of the user's own is no longer called; empty while all are."""
        return next((function.given_up for function in self._custom.values() if function.given_up), "")

    def check_custom(self) -> None:
        """Raises `UserError`, a line for each, where graders of the user's own cannot be imported or called."""
        check_all(self._custom.values())

    async def _ask_custom(self, path: str, answer: str, truth: str, question: str, record: dict[str, Any]) -> Grade:
        function = self._custom[path]
        try:
            alternatives = alternatives_of(truth)
            given = truth if len(alternatives) == 1 else list(alternatives)
            return await function.call(answer, given, question, record)
        except Fault as fault:
            if str(fault) != function.given_up:  # reported once, as the reason for the end of the run
                logger.warning("record %s is ungraded: %s", record["record_id"], fault)
            return Grade(Verdict.UNGRADED, ERROR, str(fault)[:MAX_EVIDENCE_CHARS])

    def take_judge_stats(self) -> JudgeStats:
        """Counts and cost of the judge since the last call."""
        return self._judge.stats.take() if self._judge is not None else JudgeStats()

    async def close(self) -> None:
        """Closes connections and threads."""
        if self._judge is not None:
            await self._judge.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for function in self._custom.values():
            function.close()
