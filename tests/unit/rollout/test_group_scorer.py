"""Scores of a group without a worker: no verl, no torch, no Ray."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from codedance_verl.grading import Grader, GradingConfig
from codedance_verl.reward.presets import ROBUST
from codedance_verl.reward.resample import resample_on_correct
from codedance_verl.reward.terms import score_group
from codedance_verl.rollout.fault_count import FaultCount, TooManyFaults
from codedance_verl.rollout.group_scorer import GroupScorer, GroupScores
from codedance_verl.rollout.sampling_config import Keep, SamplingConfig
from codedance_verl.runtime.run_limits import STOP_FILE
from codedance_verl.types import FinishReason, Trajectory
from tests.unit.reward.rollouts import trajectory

RIGHT, WRONG = trajectory("error", "ok"), trajectory(answer="4")
CUT = trajectory("ok", answer=None, finish=FinishReason.LENGTH)
LOST = trajectory(answer=None, finish=FinishReason.INFRASTRUCTURE)


def scores_of(folder: Path, rollouts: list[Trajectory], keep: int | None, sampling: SamplingConfig) -> GroupScores:
    async def score() -> GroupScores:
        scorer = GroupScorer(
            Grader(GradingConfig(), folder), ROBUST, run_dir=folder, sampling=sampling, faults=FaultCount(3), seed=5
        )
        try:
            return await scorer.score(rollouts, keep, step=2)
        finally:
            await scorer.close()

    return asyncio.run(score())


@pytest.mark.parametrize("seed", range(12))
def test_the_kept_are_chosen_and_scored_as_by_two_scorings(tmp_path: Path, seed: int) -> None:
    """Scoring all, choosing, and scoring the kept ones again gives the same, bit by bit."""
    drawn = random.Random(seed).choices([RIGHT, WRONG, CUT, LOST], [4, 3, 1, 0.5], k=8)
    if sum(rollout is LOST for rollout in drawn) >= 3:
        drawn = [WRONG if rollout is LOST else rollout for rollout in drawn]
    found = scores_of(tmp_path, drawn, 4, SamplingConfig(oversample=2.0, keep=Keep.ON_CORRECT))
    chance = random.Random(f"5/2/{drawn[0].record_id}")
    kept = resample_on_correct(drawn, found.grades, 4, ROBUST, chance)
    assert list(found.kept) == kept and len(kept) == 4
    assert list(found.terms) == score_group([drawn[k] for k in kept], [found.grades[k] for k in kept], ROBUST)
    of_all = score_group(drawn, found.grades, ROBUST)
    assert [terms.masked for terms in found.all_terms] == [terms.masked for terms in of_all]
    assert set(found.left_out) == set(range(8)) - set(kept)


def test_in_a_validation_all_are_kept(tmp_path: Path) -> None:
    found = scores_of(tmp_path, [RIGHT, RIGHT, WRONG], None, SamplingConfig(oversample=2.0, keep=Keep.ON_CORRECT))
    assert found.kept == (0, 1, 2) and found.outcomes == (1.0, 1.0, 0.0) and not found.left_out
    assert found.grade_s > 0


def test_too_many_faults_in_a_row_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(TooManyFaults):
        scores_of(tmp_path, [RIGHT, LOST, LOST, LOST], 4, SamplingConfig())
    assert "3 rollouts in a row have failed" in (tmp_path / STOP_FILE).read_text()


@pytest.mark.parametrize("module", ["environment.loop", "rollout.group_scorer"])
def test_it_is_imported_without_verl_torch_and_ray(module: str) -> None:
    loaded = "sorted({'verl', 'torch', 'ray'} & set(sys.modules))"
    program = f"import sys, codedance_verl.{module}; print({loaded})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
