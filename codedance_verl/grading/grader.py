"""Grades answers as the configuration says: the ladder first, a judge for what stays open."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from codedance_verl.grading.alternatives import show_alternatives
from codedance_verl.grading.config import GradingConfig
from codedance_verl.grading.judge.prompt import Question
from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.grading.ladder import ASKS_JUDGE, RULE, STYLES, grade, settle
from codedance_verl.types import FinishReason, Grade, Trajectory, Verdict

if TYPE_CHECKING:
    from codedance_verl.grading.judge.judge import Judge

logger = logging.getLogger(__name__)

COMPARING_THREADS = 2
"""The ladder runs beside the event loop, as a formula may take seconds, and in few threads, as most is instant."""

ERROR = "error"
"""In the place of a rung, where grading failed."""

MAX_EVIDENCE_CHARS = 300


class Grader:
    """Grades the answers of one process. Use it from one event loop and close it there."""

    def __init__(self, config: GradingConfig, run_dir: Path | None = None) -> None:
        """With `run_dir`, the judge's verdicts are kept in `<run_dir>/judge` and read from there."""
        self._config = config
        self._run_dir = run_dir
        self._threads = ThreadPoolExecutor(COMPARING_THREADS, thread_name_prefix="grading")
        self._judge: Judge | None = None
        if config.judge.endpoints:
            from codedance_verl.grading.judge.judge import Judge

            self._judge = Judge(config.judge, run_dir / "judge" if run_dir is not None else None)

    async def grade_rollout(self, trajectory: Trajectory) -> Grade:
        """Grade the answer of a rollout; one that infrastructure ended is ungraded, and no judge is asked for it.

        An error in the grading costs this rollout its verdict, and no other one. It is logged here, and counted with
        the other metrics of a group (`rollout.telemetry`).
        """
        if trajectory.finish is FinishReason.INFRASTRUCTURE:
            return Grade(Verdict.UNGRADED, "infrastructure")
        own = (trajectory.answer, trajectory.ground_truth, trajectory.style, trajectory.data_source)
        try:
            return await self.grade(trajectory.question, *own)
        except Exception as error:
            logger.exception("%s: record %s could not be graded", self._run_dir or "no run", trajectory.record_id)
            return Grade(Verdict.UNGRADED, ERROR, f"{type(error).__name__}: {error}"[:MAX_EVIDENCE_CHARS])

    async def grade(
        self, question: str, answer: str | None, ground_truth: str, style: str = RULE, data_source: str = ""
    ) -> Grade:
        """Grade one answer.

        Args:
            question: the question's text, without images.
            answer: the text between the answer tags; None where there were none.
            ground_truth: of the record.
            style: `reward_model.style` of the record (`ladder.STYLES`); one that is not known leaves it ungraded.
            data_source: of the record, which may have settings of its own.

        Returns:
            `UNGRADED`, with the reason as evidence, wherever there is no verdict; nothing is raised for that.
        """
        if style not in STYLES:
            return Grade(Verdict.UNGRADED, "style", f"unknown style {style!r}")
        context = self._config.context(question, data_source)
        asks = style in ASKS_JUDGE and self._config.open_answers == "judge"
        compare = settle if asks else grade
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, compare, answer, ground_truth, style, context)
        if found is not None:
            return found
        if self._judge is None:
            return Grade(Verdict.UNGRADED, "judge", "the question is open and grading.judge.endpoints names no judge")
        return await self._judge.grade(Question(question, show_alternatives(ground_truth), answer or ""))

    def take_judge_stats(self) -> JudgeStats:
        """What the judge was asked since this was last called, and what it cost."""
        return self._judge.stats.take() if self._judge is not None else JudgeStats()

    async def close(self) -> None:
        """Close connections and threads."""
        if self._judge is not None:
            await self._judge.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
