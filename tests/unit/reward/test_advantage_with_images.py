"""Advantages of rollouts that come out of the agent loop, with pictures between their turns, against the formulas."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from codedance_verl.formats import get_format, render_answer, render_think
from codedance_verl.reward.advantage import token_advantages
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.encoding import encode_rewards
from codedance_verl.reward.presets import GTPO, PAPER, ROBUST
from codedance_verl.reward.terms import score_group
from codedance_verl.types import Execution, ExecutionError, ExecutionStatus, Trajectory
from tests.unit.environment.harness import FAMILIES, Say, Script, picture, play, processor
from tests.unit.reward.rollouts import RIGHT, WRONG
from tests.unit.reward.test_advantage import Row, batch_z_reference
from tests.unit.reward.test_credit_modes import fixed_reference, returns_reference

Reference = Callable[[list[Row], int, RewardConfig, bool], np.ndarray]  # type: ignore[type-arg]
SHOWN = Execution(ExecutionStatus.OK, stdout="7\n", images=(picture(90, 60), picture(31, 120)))
FAILED = Execution(ExecutionStatus.ERROR, error=ExecutionError("NameError", "name 'x' is not defined", "line 1"))
SILENT = Execution(ExecutionStatus.NO_OUTPUT)


def roll_out(chance: random.Random, family: str) -> AgentLoopOutput:
    """One to four turns, a call each but the last, with pictures in most observations; now and then a refusal."""
    executions = [chance.choice([SHOWN, SHOWN, FAILED, SILENT]) for _ in range(chance.randint(0, 3))]
    calls = [
        Say(render_think("so " * chance.randint(1, 9)) + get_format("code").render_call("f(1)")) for _ in executions
    ]
    answer = Say(render_think("so") + render_answer(chance.choice(["1", "2"])))
    refused: list[Execution | None] = [None] if executions and chance.random() < 0.15 else []
    return play(
        Script([*calls, answer], [*executions[: len(executions) - len(refused)], *refused], family=family)
    ).output


def row_of(output: AgentLoopOutput, group: str, score: float, turns: tuple[float, ...], masked: bool) -> Row:
    found: Trajectory = output.extra_fields["trajectory"]
    return Row(group, [(turn.token_start, turn.token_end) for turn in found.turns], score, list(turns), masked)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("preset", "reference"), [(PAPER, batch_z_reference), (ROBUST, fixed_reference), (GTPO, returns_reference)]
)
def test_sums_and_places_agree_with_a_slow_reference(preset: RewardConfig, reference: Reference, family: str) -> None:
    chance = random.Random(f"{family} {preset.preset}")
    groups = [[roll_out(chance, family) for _ in range(6)] for _ in range(3)]
    outputs = [output for group in groups for output in group]
    length = max(len(output.response_ids) for output in outputs) + 2
    rows, rewards, mask = [], np.zeros((len(outputs), length), np.float32), np.zeros((len(outputs), length), np.int64)
    for name, group in zip("abc", groups, strict=True):
        trajectories = [output.extra_fields["trajectory"] for output in group]
        grades = [RIGHT if item.answer == item.ground_truth else WRONG for item in trajectories]
        for output, terms in zip(group, score_group(trajectories, grades, preset), strict=True):
            row = row_of(output, name, terms.score, terms.turns, terms.masked)
            size = len(output.response_ids)
            rewards[len(rows), :size] = encode_rewards(row.spans, terms, size)
            mask[len(rows), :size] = np.array(output.response_mask) * (not terms.masked)
            rows.append(row)
    assert 0 < sum(row.masked for row in rows) < len(rows) and len({len(row.spans) for row in rows}) > 2

    got = token_advantages(rewards, mask, [row.group for row in rows], preset)

    np.testing.assert_allclose(got, reference(rows, length, preset, True), atol=2e-5)
    patch = processor(family).tokenizer.convert_tokens_to_ids("<|image_pad|>")
    patches = [[k for k, token in enumerate(output.response_ids) if token == patch] for output in outputs]
    assert sum(map(len, patches)) > 50
    assert all((got[index, places] == 0).all() for index, places in enumerate(patches)), "pictures are not trained"
