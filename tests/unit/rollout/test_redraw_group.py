"""Two phases of a group: rollouts, and those that draw a call of one of them again, from the engine to the queue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from PIL import Image
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

from codedance_verl.environment.branch import Kept
from codedance_verl.errors import UserError
from codedance_verl.grading import Grader, GradingConfig
from codedance_verl.metrics.emit import Recorder, for_trackers
from codedance_verl.reward.monitors import CollapseMonitor
from codedance_verl.reward.presets import OUTCOME
from codedance_verl.reward.redraw import RedrawAt
from codedance_verl.rollout.fault_count import FaultCount
from codedance_verl.rollout.group_scorer import GroupScorer
from codedance_verl.rollout.output import KEPT
from codedance_verl.rollout.sampling_config import Keep, SamplingConfig
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.trajectories.writer import TrajectoryLog
from codedance_verl.types import Execution, ExecutionError, ExecutionStatus
from tests.unit.environment.harness import Say, Script, _Model, _Pool, loop_of, worker_of

CALL = "<think>so</think><code>\n```python\nprint(1)\n```\n</code>"
AGAIN = "\n```python\nprint(2)\n```\n</code>"
RIGHT, WRONG = "<answer>1</answer>", "<answer>4</answer>"
FAILED = Execution(ExecutionStatus.ERROR, error=ExecutionError("NameError", "x", "line 1"))
PRINTED = Execution(ExecutionStatus.OK, "1\n")

Says = Mapping[int, tuple[list[str], list[Execution]]]

FIRST: Says = {0: ([RIGHT], []), 1: ([CALL, WRONG], [FAILED]), 2: ([CALL, WRONG], [FAILED])}
BRANCHES: Says = {3: ([AGAIN, RIGHT], [PRINTED]), 4: ([AGAIN, WRONG], [PRINTED])}


def run(
    folder: Path, says: Says, *, redraw: int = 2, at: str = "first_call", estimator: str = "codedance_grpo", **info: Any
) -> tuple[list[Any], dict[int, Kept | None]]:
    """What the worker queues, in order, and what each rollout was given to keep; sessions say what `says` has."""
    kept: dict[int, Kept | None] = {}
    queued: list[Any] = []
    scorer = GroupScorer(
        Grader(GradingConfig(), folder),
        OUTCOME,
        run_dir=folder,
        sampling=SamplingConfig(redraw_calls=redraw, redraw_at=RedrawAt(at)),
        faults=FaultCount(10),
    )
    n = {"actor_rollout_ref.rollout.n": len(says), "actor_rollout_ref.rollout.val_kwargs.n": len(says)}
    worker = worker_of("qwen2_5_vl", scorer, run_dir=str(folder), **{"algorithm.adv_estimator": estimator}, **n)
    worker._log = TrajectoryLog(folder / "trajectories", "w")

    async def roll_out(params: Any, *, trajectory: Any, trace: bool, session_id: int, **fields: Any) -> Any:
        kept[session_id] = fields.get(KEPT)
        texts, executions = says[session_id]
        script = Script([Say(text) for text in texts], executions)
        loop = loop_of(script, _Model(script))
        loop.config.sandbox.number = session_id
        fields.pop("agent_name")
        output = await loop.run(params, **fields)
        return await worker._agent_loop_postprocess(output, False, session_id=session_id, **fields)

    def connect(config: Any) -> Any:
        return _Pool(Script([], says[config.number][1]))

    async def queue(_: Any, output: Any, validate: bool, **fields: Any) -> None:
        assert KEPT not in fields
        queued.append(output)

    content = [{"type": "image", "image": Image.new("RGB", (40, 30), "teal")}, {"type": "text", "text": "How many?"}]
    prompt = {
        "uid": "u",
        "raw_prompt": [{"role": "user", "content": content}],
        "reward_model": {"ground_truth": "1"},
        "data_source": "test",
        "extra_info": {"record_id": "test-0"},
    }

    async def run_group() -> None:
        try:
            await worker._run_group(prompt, {}, {"validate": False, "step": 1, **info}, False)
        finally:
            await worker.scorer.close()

    worker._run_agent_loop = roll_out
    parent: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class
    with mock.patch.object(SandboxPool, "connect", connect), pytest.MonkeyPatch.context() as patch:
        patch.setattr(parent, "_agent_loop_postprocess", queue)
        asyncio.run(run_group())
    return queued, kept


def lines_of(folder: Path) -> list[Any]:
    return [json.loads(line) for file in folder.rglob("*.jsonl") for line in file.read_text().splitlines()]


def test_a_call_of_a_wrong_rollout_is_drawn_again_by_the_rest_of_the_group(tmp_path: Path, recorder: Recorder) -> None:
    queued, kept = run(tmp_path, {**FIRST, **BRANCHES})
    assert len(queued) == 5 and [kept[k] is None for k in range(5)] == [True, True, True, False, False]
    assert kept[3] is not None and kept[4] is not None and kept[4].branch == kept[3].branch
    branch = kept[3].branch
    source, other = queued[branch.parent], queued[3 - branch.parent]
    # the kept thought is trained in its source alone, and the source in nothing else
    assert all(source.response_mask[: branch.token]) and not any(source.response_mask[branch.token :])
    for one in queued[3:]:
        assert one.response_ids[: branch.token] == source.response_ids[: branch.token]
        assert not any(one.response_mask[: branch.token]) and any(one.response_mask[branch.token :])
    assert sum(other.response_mask) > branch.token
    # recovered: the score of the right branch stands on the thought, and the row adds up to the source's own
    assert source.token_rewards[branch.token - 1] == 1 and source.token_rewards.sum() == source.reward_score == 0
    assert [one.reward_score for one in queued[3:]] == [1, 0]
    lines = sorted(lines_of(tmp_path / "trajectories"), key=lambda line: int(line["sample"]))
    assert [line["branch"] for line in lines[:3]] == [None] * 3
    assert lines[3]["branch"] == {"parent": branch.parent, "turn": 0, "token": branch.token}
    assert lines[3]["advantage"]["sequence"] == pytest.approx(-lines[4]["advantage"]["sequence"])
    assert lines[branch.parent]["advantage"]["sequence"] > 0 > lines[3 - branch.parent]["advantage"]["sequence"]
    told = for_trackers([recorder.drain()])
    assert told["codedance/rollout/branches_total/right"] == told["codedance/rollout/branches_total/wrong"] == 1
    assert told["codedance/rollout/redraws_total/recovered"] == 1
    # what was kept was sampled once
    sampled = sum(sum(one.rollout.stream.mask) for one in queued) - 2 * branch.token
    assert told["codedance/rollout/tokens_total/train/sampled"] == sampled
    assert told["codedance/reward/group_accuracy_ratio/train"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("first", [{**FIRST, 1: ([CALL, RIGHT], [PRINTED])}, {k: ([WRONG], []) for k in range(3)}])
def test_the_rest_is_drawn_from_the_start_where_nothing_is_to_be_drawn_again(
    tmp_path: Path, recorder: Recorder, first: Says
) -> None:
    queued, kept = run(tmp_path, {**first, 3: ([CALL, RIGHT], [PRINTED]), 4: ([WRONG], [])})
    assert all(part is None for part in kept.values()) and all(one.response_mask[0] == 1 for one in queued)
    assert for_trackers([recorder.drain()])["codedance/rollout/redraws_total/none"] == 1


def test_a_validation_has_no_branches(tmp_path: Path) -> None:
    queued, kept = run(tmp_path, {**FIRST, 3: ([WRONG], []), 4: ([WRONG], [])}, validate=True)
    assert len(queued) == 5 and all(part is None for part in kept.values())
    assert all(line["branch"] is None for line in lines_of(tmp_path / "trajectories"))


def test_other_estimators_train_a_source_as_it_was_drawn(tmp_path: Path) -> None:
    queued, kept = run(tmp_path, {**FIRST, **BRANCHES}, estimator="gae")
    assert kept[3] is not None
    source, branch = queued[kept[3].branch.parent], kept[3].branch
    assert sum(source.response_mask) > branch.token and source.token_rewards.sum() == 0
    assert not any(queued[3].response_mask[: branch.token]) and queued[3].token_rewards.sum() == 1


def test_a_branch_whose_session_does_not_come_back_is_a_whole_rollout(tmp_path: Path, recorder: Recorder) -> None:
    other = Execution(ExecutionStatus.OK, "another\n")
    says = {
        0: ([RIGHT], []),
        1: ([CALL, CALL, WRONG], [PRINTED, FAILED]),
        2: ([AGAIN, RIGHT], [PRINTED, PRINTED]),
        3: ([WRONG], [other]),
    }
    queued, kept = run(tmp_path, says, at="failed_call")
    assert kept[2] is not None and kept[2].branch.turn == 1
    assert [one.rollout.kept is None for one in queued] == [True, True, False, True]
    told = for_trackers([recorder.drain()])
    assert told["codedance/rollout/branches_total/replay_differs"] == 1
    assert told["codedance/rollout/branches_total/right"] == 1


def test_branches_say_nothing_of_the_use_of_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[int] = []
    monkeypatch.setattr(CollapseMonitor, "add", lambda _, rollouts: watched.append(len(rollouts)) or [])
    run(tmp_path, {**FIRST, **BRANCHES})
    assert watched == [3]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"redraw_calls": 1}, r"sampling\.redraw_calls=1: must be 0 or at least 2"),
        ({"redraw_calls": 2, "keep": "on_correct"}, r"sampling\.redraw_calls=2: needs sampling\.keep=all"),
    ],
)
def test_values_that_do_not_go_together_are_refused(values: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        SamplingConfig.from_mapping(values)


def test_defaults_draw_nothing_again_and_too_small_a_group_has_no_branches() -> None:
    assert SamplingConfig().redrawn(8) == 0 and SamplingConfig().keep is Keep.ALL
    assert [SamplingConfig(redraw_calls=4).redrawn(n) for n in (4, 5, 6, 8)] == [0, 0, 4, 4]
