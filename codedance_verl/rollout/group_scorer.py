"""Scorer of groups: all rollouts of one prompt are graded, chosen and rewarded together; free of verl and Ray."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.grading import Grader, GradingConfig
from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.custom_term import CustomTerm
from codedance_verl.reward.encoding import Cut
from codedance_verl.reward.monitors import CollapseMonitor, MonitorConfig
from codedance_verl.reward.redraw import CallPlace, choose_call, cuts_of, score_with_branches
from codedance_verl.reward.resample import resample_on_correct
from codedance_verl.reward.terms import CustomValue, is_masked, score_group
from codedance_verl.rollout.fault_count import FaultCount, MaskedGroupCount, TooManyFaults
from codedance_verl.rollout.sampling_config import Keep, SamplingConfig
from codedance_verl.rollout.telemetry import LeftOut, group_outcomes, record_window
from codedance_verl.runtime.run_limits import request_stop
from codedance_verl.types import Branch, Grade, RewardTerms, Trajectory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroupScores:
    """Scores of a finished group.

    Attributes:
        kept: indices of the rollouts to train on among those that were drawn, ascending; all of them in a validation.
        grades: of every rollout drawn.
        terms: rewards of the kept rollouts, in the order of `kept`.
        left_out: by index, the others.
        cuts: what is left untrained of each kept rollout, None where it is trained whole.
        outcomes: of the kept rollouts, see `telemetry.group_outcomes`.
        judged: the judge's work since the last group, a kept rollout's share of it.
        grade_s: wall seconds of grading, by rollout drawn.
    """

    kept: tuple[int, ...]
    grades: tuple[Grade, ...]
    terms: tuple[RewardTerms, ...]
    left_out: dict[int, LeftOut]
    cuts: tuple[Cut | None, ...]
    outcomes: tuple[float, ...]
    judged: JudgeStats
    grade_s: float

    @property
    def all_terms(self) -> tuple[RewardTerms | LeftOut, ...]:
        """Terms of every rollout drawn, in order."""
        by_index: dict[int, RewardTerms | LeftOut] = {**self.left_out, **dict(zip(self.kept, self.terms, strict=True))}
        return tuple(by_index[k] for k in range(len(self.grades)))


@dataclass(frozen=True)
class Graded:
    """Grades of the rollouts of a group that were drawn first, and the wall seconds that grading took."""

    grades: tuple[Grade, ...] = ()
    seconds: float = 0.0


class GroupScorer:
    """Scorer of the groups of one rollout worker. Use it from one event loop and close it there.

    It watches over what it scores too: faults in a row, groups without a rollout that counts, a collapse of tool use, a
    function of the user's own that was given up. Each of these may ask for the end of the run.
    """

    def __init__(
        self,
        grader: Grader,
        reward: RewardConfig,
        *,
        run_dir: Path,
        sampling: SamplingConfig | None = None,
        monitor: CollapseMonitor | None = None,
        faults: FaultCount | None = None,
        masked_groups: MaskedGroupCount | None = None,
        seed: int = 0,
    ) -> None:
        """Builds a scorer; what is left out is as the defaults of its configuration, and counts without a limit.

        Args:
            grader: of answers.
            reward: preset, with the user's own term if it names one.
            run_dir: folder of the run, where its end is asked for.
            sampling: rollouts to draw, to keep and to draw again.
            monitor: of tool use, fed with the rollouts of training.
            faults: infrastructure faults in a row.
            masked_groups: groups of training in a row that come to nothing.
            seed: of the run; the choice of rollouts follows from it.
        """
        self.grader, self.reward = grader, reward
        self.monitor = monitor or CollapseMonitor(MonitorConfig())
        self._custom_term = CustomTerm(reward)
        self._sampling = sampling or SamplingConfig()
        self._faults = faults or FaultCount(None)
        self._masked_groups = masked_groups or MaskedGroupCount(None, masked=False, failed=False)
        self._run_dir, self._seed = run_dir, seed

    @classmethod
    def of_run(cls, config: Any) -> GroupScorer:
        """Returns the scorer of a worker of a run with this configuration."""
        run_dir = Path(config.run_dir)
        return cls(
            Grader(GradingConfig.from_mapping(config.grading), run_dir),
            RewardConfig.from_mapping(config.reward_preset),
            run_dir=run_dir,
            sampling=SamplingConfig.from_mapping(config.sampling),
            monitor=CollapseMonitor(MonitorConfig.from_mapping(config.monitors)),
            faults=FaultCount(EnvironmentConfig.from_mapping(config.environment).max_faults_in_a_row),
            masked_groups=MaskedGroupCount.of_run(config),
            seed=config.seed,
        )

    def drawn(self, size: int) -> int:
        """Returns the number of rollouts to draw in training where `size` are to be trained on."""
        return self._sampling.drawn(size)

    def redrawn(self, size: int) -> int:
        """Returns the rollouts of a training group of `size` that wait for the others, see `call_to_redraw`."""
        return self._sampling.redrawn(size)

    async def grade(self, rollouts: Sequence[Trajectory]) -> Graded:
        """Grades rollouts of a group that is not finished; pass the result to `score`."""
        started = time.perf_counter()
        grades = await asyncio.gather(*(self.grader.grade_rollout(rollout) for rollout in rollouts))
        return Graded(tuple(grades), time.perf_counter() - started)

    def call_to_redraw(
        self, rollouts: Sequence[Trajectory], graded: Graded, calls: Sequence[Sequence[CallPlace]], step: int
    ) -> Branch | None:
        """Returns the call that the rest of a group draws again; None where it is drawn from the start.

        Args:
            rollouts: those of the group that were drawn first.
            graded: their grades.
            calls: of each of them, in order.
            step: training step.
        """
        masked = [is_masked(*pair, self.reward) for pair in zip(rollouts, graded.grades, strict=True)]
        chance = self._chance(rollouts, step)
        return choose_call(rollouts, graded.grades, masked, calls, self._sampling.redraw_at, chance)

    async def score(
        self,
        rollouts: Sequence[Trajectory],
        keep: int | None = None,
        step: int = 0,
        graded: Graded | None = None,
    ) -> GroupScores:
        """Grades and scores a finished group.

        Args:
            rollouts: all that were drawn, of one record.
            keep: number to train on; None in a validation, where all are kept and tool use is not monitored.
            step: training step.
            graded: grades of the first of the rollouts, where they have some already.

        Raises:
            TooManyFaults: infrastructure has failed too often in a row; the end of the run is asked for.
        """
        started = time.perf_counter()
        self._ask_for_end_after(lambda: self._faults.add(rollout.finish for rollout in rollouts))
        graded = graded or Graded()
        others = await self.grade(rollouts[len(graded.grades) :])
        grades = [*graded.grades, *others.grades]
        custom = await self._custom_term.values(rollouts, grades)
        self._stop_if_given_up()
        kept = list(range(len(rollouts)))
        if keep is not None:
            # a branch makes its call because its source did: it says nothing of the use of tools
            self._watch_tool_use([rollout for rollout in rollouts if rollout.branch is None])
            kept = self._choose(rollouts, grades, custom, keep, step)
        # The accuracy of a group is part of its rewards, and the group that is trained on is the kept one: so rewards
        # are made once, after the choice. The choice itself needs grades, and which rollouts are masked, alone.
        members = [rollouts[k] for k in kept]
        branched = any(member.branch is not None for member in members)
        score = score_with_branches if branched else score_group
        terms = score(members, [grades[k] for k in kept], self.reward, [custom[k] for k in kept])
        left_out = {
            k: LeftOut(is_masked(rollouts[k], grades[k], self.reward, custom[k]), custom[k].fault)
            for k in range(len(rollouts))
            if k not in kept
        }
        return GroupScores(
            kept=tuple(kept),
            grades=tuple(grades),
            terms=tuple(terms),
            left_out=left_out,
            cuts=tuple(cuts_of(members, terms, kept)) if branched else (None,) * len(members),
            outcomes=tuple(group_outcomes([grades[k] for k in kept], terms)),
            judged=self.grader.take_judge_stats().shared(len(kept)),
            grade_s=(time.perf_counter() - started + graded.seconds) / len(rollouts),
        )

    def count_ended(self, scores: GroupScores | None) -> None:
        """Counts a group of training that has ended, None for one that has failed; may ask for the end of the run."""
        with contextlib.suppress(TooManyFaults):  # the end is asked for; verl's queue gets the group's status too
            self._ask_for_end_after(lambda: self._masked_groups.add(None if scores is None else scores.all_terms))

    async def close(self) -> None:
        """Ends the processes, threads and connections of grading and of the user's own term."""
        self._custom_term.close()
        await self.grader.close()

    def _choose(
        self,
        rollouts: Sequence[Trajectory],
        grades: Sequence[Grade],
        custom: Sequence[CustomValue],
        keep: int,
        step: int,
    ) -> list[int]:
        """Returns the indices of the rollouts to train on, ascending."""
        if self._sampling.keep is Keep.ALL:
            return list(range(len(rollouts)))
        return resample_on_correct(rollouts, grades, keep, self.reward, self._chance(rollouts, step), custom)

    def _chance(self, rollouts: Sequence[Trajectory], step: int) -> random.Random:
        """Returns a source of choices in a group: seeded by what the group is, so they are the same after a resume."""
        return random.Random(f"{self._seed}/{step}/{rollouts[0].record_id}")

    def _ask_for_end_after(self, count: Callable[[], None]) -> None:
        """Counts, and asks for the end of the run where the count is too high: verl would do without this group."""
        try:
            count()
        except TooManyFaults as error:
            request_stop(self._run_dir, f"{error}; mend it and start the run again to resume from the last checkpoint")
            raise

    def _stop_if_given_up(self) -> None:
        """Asks for the end of the run where a function of the user's own was given up: nothing would be trained on."""
        if reason := self.grader.given_up or self._custom_term.given_up:
            request_stop(self._run_dir, f"{reason}; mend it and start the run again to resume")

    def _watch_tool_use(self, rollouts: Sequence[Trajectory]) -> None:
        """Warns of a collapse of tool use, and asks for the end of the run where the configuration says so."""
        before = self.monitor.rates
        findings = self.monitor.add(rollouts)
        if self.monitor.rates is not None and self.monitor.rates is not before:  # a window has become full
            record_window(self.monitor.rates, findings)
        for finding in findings:
            logger.warning("%s", finding)
        if self.monitor.must_stop(findings):
            worst = max(findings, key=lambda finding: finding.windows)
            reason = f"monitors.stop_after={self.monitor.stop_after}: {worst}; look into it, then resume or start again"
            request_stop(self._run_dir, reason)
