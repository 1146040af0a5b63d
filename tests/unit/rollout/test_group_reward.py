"""A worker's way from a finished group to verl's queue: rollouts kept, token rewards, log, warnings."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

from codedance_verl.environment.loop import Timing
from codedance_verl.environment.sandbox_client import EarlyOpening
from codedance_verl.environment.time_limit import Clocks, pauses_of_process
from codedance_verl.grading import Grader, GradingConfig, matchers
from codedance_verl.grading.rules import number
from codedance_verl.metrics.emit import Recorder, for_trackers
from codedance_verl.reward.monitors import CollapseMonitor, MonitorConfig
from codedance_verl.reward.presets import PAPER, ROBUST
from codedance_verl.rollout import worker as module
from codedance_verl.rollout.agent_loop import seeded
from codedance_verl.rollout.fault_count import FaultCount, MaskedGroupCount
from codedance_verl.rollout.group_scorer import GroupScorer
from codedance_verl.rollout.output import RolloutOutput
from codedance_verl.rollout.sampling_config import Keep, SamplingConfig
from codedance_verl.runtime.run_limits import STOP_FILE
from codedance_verl.trajectories.writer import TrajectoryLog
from codedance_verl.types import FinishReason, Trajectory
from codedance_verl.verl_compat.pixel_bytes import BYTES, VALUES
from tests.unit.environment.harness import worker_of
from tests.unit.isolated.functions import on_path
from tests.unit.reward.rollouts import trajectory

RIGHT, WRONG = trajectory("error", "ok"), trajectory(answer="4")


def output_of(rollout: Trajectory) -> RolloutOutput:
    length = rollout.turns[-1].token_end
    mask = [0] * length
    for turn in rollout.turns:
        mask[turn.token_start : turn.token_end] = [1] * (turn.token_end - turn.token_start)
    extra = {"trajectory": rollout, "timing": Timing(), "sandbox_retries": 0, "early_opening": EarlyOpening.NONE}
    extra |= {"min_global_steps": 0, "max_global_steps": 0}
    return RolloutOutput(
        prompt_ids=[1],
        response_ids=[2] * length,
        response_mask=mask,
        multi_modal_data={},
        metrics=AgentLoopMetrics(),
        extra_fields=extra,
    )


def worker_in(folder: Path, **parts: Any) -> Any:
    """A worker whose run has this folder, with these parts of its scorer and changes of its configuration."""
    grader, reward = Grader(parts.pop("grading", GradingConfig()), folder), parts.pop("reward", ROBUST)
    named = {name: parts.pop(name) for name in ("sampling", "monitor", "masked_groups") if name in parts}
    scorer = GroupScorer(grader, reward, run_dir=folder, faults=FaultCount(10), **named)
    return worker_of("qwen3_vl", scorer, run_dir=str(folder), **parts)


def run(
    folder: Path,
    rollouts: list[Trajectory],
    *,
    validate: bool = False,
    estimator: str = "codedance_grpo",
    images: Sequence[Image.Image] = (),
    log: TrajectoryLog | None = None,
    n: int | None = None,
    **parts: Any,
) -> list[Any]:
    """What the worker queues of a group whose rollouts are these, as long as there are any."""
    queued: list[Any] = []
    left = iter(rollouts)
    counts = {"n": n or len(rollouts), "val_kwargs.n": len(rollouts)}
    changes = {f"actor_rollout_ref.rollout.{name}": count for name, count in counts.items()}
    worker = worker_in(folder, **{"algorithm.adv_estimator": estimator}, **changes, **parts)
    worker._log = log

    async def roll_out(*_: Any, **fields: Any) -> Any:
        output = output_of(next(left))
        output.multi_modal_data = {"images": list(images)}
        output.record = {"uid": "u", **fields}
        return output

    async def queue(_: Any, output: Any, *__: Any, **___: Any) -> None:
        queued.append(output)

    async def run_group() -> None:
        try:
            await worker._run_group({"uid": "u"}, {}, {"validate": validate, "step": 1}, False)
        finally:
            await worker.scorer.close()

    worker._run_agent_loop = roll_out
    parent: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parent, "_agent_loop_postprocess", queue)
        asyncio.run(run_group())
    return queued


def test_turn_rewards_stand_on_their_tokens(tmp_path: Path) -> None:
    right, wrong = run(tmp_path, [RIGHT, WRONG])
    assert right.token_rewards[[9, 24, 39]].tolist() == pytest.approx([-0.5, 0.2, right.reward_score])
    assert right.token_rewards.count_nonzero() == 3 and not wrong.token_rewards.any()
    info = right.extra_fields["reward_extra_info"]
    assert (info["acc"], info["outcome"], info["calls"], info["calls_idle"]) == (1, 1, 2, 0)


def test_images_are_queued_as_bytes_and_those_of_a_validation_without_pixels(tmp_path: Path) -> None:
    image = Image.new("RGB", (90, 60), "teal")
    trained = run(tmp_path, [RIGHT, WRONG], images=[image])
    assert all(output.image_inputs[BYTES].dtype == torch.uint8 for output in trained)
    for output in run(tmp_path, [RIGHT, WRONG], images=[image], validate=True):
        assert "image_grid_thw" in output.image_inputs and not {BYTES, VALUES} & output.image_inputs.keys()


def test_other_estimators_get_rewards_that_add_up(tmp_path: Path) -> None:
    harsh = ROBUST.replace(max_turn_penalty=0.15)
    right, _ = run(tmp_path, [RIGHT, WRONG], estimator="gae", reward=harsh)
    assert right.token_rewards.sum().item() == pytest.approx(right.reward_score - 0.15)
    paper, _ = run(tmp_path, [RIGHT, WRONG], estimator="gae", reward=PAPER)
    assert paper.token_rewards[9].item() == pytest.approx(0.2 * -0.5)


def test_a_masked_rollout_is_queued_without_mask_and_repeats_the_outcome_of_another(tmp_path: Path) -> None:
    cut = trajectory("ok", answer=None, finish=FinishReason.LENGTH)
    masked, right = run(tmp_path, [cut, RIGHT])
    assert not any(masked.response_mask) and not masked.token_rewards.any()
    assert [item.extra_fields["reward_extra_info"]["outcome"] for item in (masked, right)] == [1, 1]


def test_an_error_in_grading_costs_one_rollout_its_verdict_and_not_its_group(
    tmp_path: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = number.compare

    def fails_for_four(answer: str, *others: Any) -> Any:
        if answer == "4":
            raise ZeroDivisionError("no such luck")
        return compare(answer, *others)

    failing = tuple(fails_for_four if matcher is compare else matcher for matcher in matchers.MATCHERS)
    monkeypatch.setattr(matchers, "STYLES", {"rule": failing})
    log = TrajectoryLog(tmp_path / "trajectories", "w")
    right, lost = run(tmp_path, [RIGHT, WRONG], log=log)
    assert right.extra_fields["reward_extra_info"]["acc"] == 1 and right.token_rewards.any()
    info = lost.extra_fields["reward_extra_info"]
    assert (info["ungraded"], info["masked"]) == (1, 1) and not any(lost.response_mask)
    grade = _lines(tmp_path / "trajectories")[1]["grade"]
    assert grade == {"verdict": "ungraded", "rung": "error", "evidence": "ZeroDivisionError: no such luck"}
    assert f"{tmp_path}: record r could not be graded" in caplog.text and "Traceback" in caplog.text
    told = for_trackers([recorder.drain()])
    assert told["codedance/reward/grading_errors_total/train"] == told["codedance/reward/ungraded_total/train"] == 1


def test_a_grader_and_a_term_of_the_users_own_cost_a_group_no_more_than_the_rollouts_that_they_fail_for(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path(tmp_path, monkeypatch)
    grading = GradingConfig.from_mapping({"custom": "user_graders:by_answer"})
    reward = ROBUST.replace(custom_term="user_terms:by_answer", custom_weight=0.5)
    log = TrajectoryLog(tmp_path / "trajectories", "w")
    drawn = [trajectory(answer=answer) for answer in ("3", "exit", "4")]
    right, crashed, refused = run(tmp_path, drawn, grading=grading, reward=reward, log=log)
    info = [item.extra_fields["reward_extra_info"] for item in (right, crashed, refused)]
    assert [(item["acc"], item["masked"], item["ungraded"]) for item in info] == [(1, 0, 0), (0, 1, 1), (0, 1, 0)]
    assert [item["custom_reward"] for item in info] == [0.5, 0, 0]
    assert right.reward_score == pytest.approx(1.25)  # a right answer without a call, and half of the term
    assert not any(crashed.response_mask) and not any(refused.response_mask)
    lines = _lines(tmp_path / "trajectories")
    assert [line["grade"]["rung"] for line in lines] == ["custom", "error", "custom"]
    assert lines[2]["reward"]["custom_fault"].endswith("it returned 11; it must return a number from -10 to 10")
    told = for_trackers([recorder.drain()])
    assert told["codedance/reward/grading_errors_total/train"] == told["codedance/reward/term_errors_total/train"] == 1
    assert told["codedance/reward/term/train/custom"] == 0.5
    assert not (tmp_path / STOP_FILE).exists()


def test_a_function_that_is_given_up_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path(tmp_path, monkeypatch)
    grading = GradingConfig.from_mapping({"custom": "no_such_module:grade"})
    assert all(not any(item.response_mask) for item in run(tmp_path, [RIGHT, WRONG], grading=grading))
    reason = (tmp_path / STOP_FILE).read_text()
    assert reason.startswith("grading.custom=no_such_module:grade: given up: it cannot be started: module no_such")
    assert reason.endswith("; mend it and start the run again to resume") and "\n" not in reason


def test_more_are_drawn_than_kept_in_training_only(tmp_path: Path) -> None:
    sampling = SamplingConfig(oversample=2.0, keep=Keep.ON_CORRECT)
    drawn = [RIGHT, RIGHT, WRONG, WRONG]
    kept = run(tmp_path, drawn, n=2, sampling=sampling)
    assert sorted(item.extra_fields["reward_extra_info"]["acc"] for item in kept) == [0, 1]
    assert len(run(tmp_path, drawn, validate=True, sampling=sampling)) == 4


def test_what_is_left_out_is_told_as_rolled_out_and_has_no_part_in_the_reward(
    tmp_path: Path, recorder: Recorder
) -> None:
    sampling = SamplingConfig(oversample=2.0, keep=Keep.ON_CORRECT)
    cut = trajectory("ok", answer=None, finish=FinishReason.LENGTH)
    kept = run(tmp_path, [RIGHT, RIGHT, RIGHT, WRONG, cut, cut], n=3, sampling=sampling)
    told = for_trackers([recorder.drain()])
    assert len(kept) == 3
    told_of = {
        "rollout/trajectories_total/train/answer": 4,
        "rollout/trajectories_total/train/length": 2,
        "rollout/tokens_total/train/sampled": 3 * 30 + 10 + 2 * 10,
        "rollout/masked_total/train": 2,
        "reward/correct_total/train": 3,
    }
    assert {name: told[f"codedance/{name}"] for name in told_of} == told_of
    share = sum(item.extra_fields["reward_extra_info"]["acc"] for item in kept) / 3
    assert told["codedance/reward/term/train/accuracy"] == told["codedance/reward/group_accuracy_ratio/train"] == share
    assert sum(value for name, value in told.items() if "/groups_total/" in name and "reward" in name) == 1


def test_a_group_that_cannot_be_logged_is_queued_counted_and_warned_of_once(
    tmp_path: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "trajectories"
    folder.touch()  # where a folder should be
    log = TrajectoryLog(folder, "w")
    for _ in range(2):
        assert len(run(tmp_path, [RIGHT, WRONG], log=log)) == 2
    assert caplog.text.count(f"trajectories cannot be written to {folder} (") == 1
    assert _unwritten(recorder) == 2
    folder.unlink()
    run(tmp_path, [RIGHT, WRONG], log=log)
    assert _unwritten(recorder) == 0 and len(_lines(folder)) == 2


def test_a_disk_that_was_full_for_a_while_leaves_whole_lines(tmp_path: Path, recorder: Recorder) -> None:
    log = TrajectoryLog(tmp_path, "w")
    run(tmp_path, [RIGHT, WRONG], log=log)
    (file,) = tmp_path.rglob("*.jsonl")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 100, limits[1]))  # room for a part of a line
    try:
        assert len(run(tmp_path, [RIGHT, WRONG], log=log)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    run(tmp_path, [RIGHT, WRONG], log=log)
    assert _unwritten(recorder) == 1 and len(_lines(tmp_path)) == 4


def _unwritten(recorder: Recorder) -> float:
    return for_trackers([recorder.drain()])["codedance/rollout/unwritten_groups_total/train"]


def _lines(folder: Path) -> list[Any]:
    return [json.loads(line) for file in folder.rglob("*.jsonl") for line in file.read_text().splitlines()]


def test_a_collapse_is_told_and_ends_the_run_only_where_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    direct = [trajectory()] * 8
    with caplog.at_level(logging.WARNING):
        run(tmp_path, direct, monitor=CollapseMonitor(MonitorConfig(window=8)))
    assert "tool_rate is 0.0%, below its bound of 1.0%" in caplog.text
    assert not (tmp_path / STOP_FILE).exists()
    run(tmp_path, direct, validate=True, monitor=CollapseMonitor(MonitorConfig(window=8, stop_after=1)))
    assert not (tmp_path / STOP_FILE).exists()
    run(tmp_path, direct, monitor=CollapseMonitor(MonitorConfig(window=8, stop_after=1)))
    assert (tmp_path / STOP_FILE).read_text().startswith("monitors.stop_after=1: tool_rate is 0.0%")


def test_groups_that_fail_and_are_drawn_anew_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that takes no image of this kind, say: the group is scored, and fails when it is to be queued."""
    told: list[str] = []

    async def put(key: str, partition_id: str, tag: dict[str, Any]) -> None:
        told.append(tag["status"])

    async def rolled_out(*_: Any, **__: Any) -> Any:
        output = output_of(RIGHT)
        output.multi_modal_data = {"images": [object()]}
        output.record = {"uid": "u"}
        return output

    async def fail(validate: bool) -> None:
        await worker._run_prompt({"uid": "u"}, {}, {"validate": validate, "step": 1})

    monkeypatch.setattr(module.tq, "async_kv_put", put)
    worker = worker_in(tmp_path, masked_groups=MaskedGroupCount(3, masked=False, failed=True))
    worker._run_agent_loop = rolled_out
    for validate in (True, True, True, False, False):
        asyncio.run(fail(validate))
    assert not (tmp_path / STOP_FILE).exists()
    asyncio.run(fail(validate=False))
    assert told == ["running", "failure"] * 6
    assert (tmp_path / STOP_FILE).read_text().startswith("monitors.max_masked_steps=3: of 3 groups in a row no rollout")


def test_a_pause_that_was_overtaken_by_its_end_stops_no_clock() -> None:
    """Ray runs calls of an asynchronous actor as they come, which need not be as they were sent."""

    async def told(*calls: tuple[str, int]) -> bool:
        clocks = Clocks(60)
        for what, number_of_call in calls:
            getattr(clocks, what)(number_of_call)
        on = pauses_of_process().on
        pauses_of_process().end()
        return on

    assert asyncio.run(told(("pause", 1)))
    assert not asyncio.run(told(("pause", 1), ("resume", 2)))
    assert not asyncio.run(told(("resume", 2), ("pause", 1)))
    assert asyncio.run(told(("pause", 3), ("resume", 2)))


def test_in_a_deterministic_run_each_rollout_has_a_seed_that_follows_from_what_it_is() -> None:
    config = SimpleNamespace(deterministic=True, seed=3)
    prompt = {"extra_info": {"record_id": "a/1"}}

    def seed(step: int = 1, validate: bool = False, index: int = 0) -> int:
        params = seeded({"temperature": 1.0}, config, {"step": step, "validate": validate}, prompt, index)
        assert params["temperature"] == 1.0
        return int(params["seed"])

    assert seed() == seed()
    assert len({seed(), seed(step=2), seed(validate=True), seed(index=1)}) == 4
    config.deterministic = False
    assert seeded({}, config, {"step": 1, "validate": False}, prompt, 0) == {}
