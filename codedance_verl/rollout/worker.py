"""verl's rollout workers, connected to `GroupScorer`: all rollouts of a prompt are graded and scored together.

`AgentLoopWorkerTQ._run_prompt` of verl queues each of the n rollouts of a prompt by itself. Here they wait for the last
one, are scored as a group, and then handed to verl's TransferQueue with token-level rewards (`rm_scores`). Chosen with
`actor_rollout_ref.rollout.agent.agent_loop_manager_class`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
import torch
import transfer_queue as tq
from PIL import Image
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from codedance_verl.environment.branch import Kept, call_places, kept_of
from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.environment.resized_images import SharedImages
from codedance_verl.environment.time_limit import Clocks
from codedance_verl.formats import get_format
from codedance_verl.metrics import emit
from codedance_verl.reward import advantage
from codedance_verl.reward.advantage import Advantage, group_advantages
from codedance_verl.reward.encoding import Cut
from codedance_verl.reward.terms import turn_rewards_summed
from codedance_verl.rollout.agent_loop import AGENT_NAME, seeded
from codedance_verl.rollout.group_scorer import Graded, GroupScorer, GroupScores
from codedance_verl.rollout.output import (
    KEPT,
    RESIZED_IMAGES,
    GroupImages,
    RolloutOutput,
    images_of,
    scored_output,
    without_images,
)
from codedance_verl.rollout.telemetry import RolloutStats, record_branches, record_group
from codedance_verl.trajectories.config import TrajectoriesConfig
from codedance_verl.trajectories.writer import TrajectoryLog
from codedance_verl.types import FinishReason, Grade, RewardTerms
from codedance_verl.verl_compat.pixel_bytes import PatchLayout, layout_of

logger = logging.getLogger(__name__)

advantage.register()  # this module is loaded in the process that computes advantages, through the manager below

_VerlWorker: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class  # the class under verl's @ray.remote


class CodeDanceAgentLoopWorker(_VerlWorker):  # type: ignore[misc]
    """Rollout worker: rolls out prompts, has each group scored, writes the trajectory log, feeds the TransferQueue."""

    def __init__(self, config: Any, *args: Any, scorer: GroupScorer | None = None, **kwargs: Any) -> None:
        """Builds verl's worker; `scorer`: of the groups, by default as the configuration has it."""
        super().__init__(config, *args, **kwargs)
        self.scorer = scorer or GroupScorer.of_run(config)
        self._reward = self.scorer.reward
        self._patches: PatchLayout | None = layout_of(getattr(self.processor, "image_processor", None))
        self._clocks = Clocks(EnvironmentConfig.from_mapping(config.environment).stall_limit_s)
        self._written = TrajectoriesConfig.from_mapping(config.trajectories)
        self._log: TrajectoryLog | None = None
        if config.environment.save_trajectories:
            worker = ray.get_runtime_context().get_actor_id()[:8]
            self._log = TrajectoryLog(Path(config.run_dir) / "trajectories", worker, self._written.max_bytes)

    # ---- calls of the trainer (`trainer/fault_tolerance.py`) ----

    async def state(self) -> dict[str, Any]:
        """Returns this worker's part of a checkpoint; plain JSON."""
        return {"monitor": self.scorer.monitor.state()}

    async def restore(self, state: dict[str, Any]) -> None:
        """Takes up a `state` of a checkpoint."""
        self.scorer.monitor.restore(state["monitor"])

    async def take_metrics(self) -> dict[str, emit.Sample]:
        """Returns the metrics since the last call, for verl's trackers."""
        return emit.drain()

    async def waiting(self) -> str:
        """Returns the waits of the rollouts in flight, a line each; empty where none is."""
        return self._clocks.watchdog.report()

    async def pause(self, number: int) -> None:
        """Stops the clocks of the rollouts: training, or a transfer of weights, has what they wait for."""
        self._clocks.pause(number)

    async def resume(self, number: int) -> None:
        """Starts the clocks of the rollouts again; `number` as in `Clocks.pause`."""
        self._clocks.resume(number)

    async def abandon(self) -> None:
        """Drops the rollouts in flight: their sandbox sessions are closed, and none of them is logged or queued."""
        tasks = tuple(self.background_tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- one group ----

    async def _run_prompt(
        self, prompt: dict[str, Any], sampling_params: dict[str, Any], trajectory: dict[str, Any], trace: bool = False
    ) -> None:
        """Rolls out one group; keeps the contract of verl's `AgentLoopWorkerTQ._run_prompt` with the queue."""
        uid, validate = prompt["uid"], bool(trajectory["validate"])
        partition = "val" if validate else "train"
        await tq.async_kv_put(key=uid, partition_id=partition, tag={"status": "running"})
        scores: GroupScores | None = None
        try:
            scores = await self._run_group(prompt, sampling_params, trajectory, trace)
            status = "finished"
        except Exception:
            logger.exception("group %s of record %s failed", uid, prompt.get("index"))
            status = "failure"
        if not validate:
            self.scorer.count_ended(scores)
        await tq.async_kv_put(key=uid, partition_id=partition, tag={"status": status})

    async def _run_group(
        self, prompt: dict[str, Any], sampling_params: dict[str, Any], trajectory: dict[str, Any], trace: bool
    ) -> GroupScores:
        """Rolls out a group, has it scored, and logs and queues its kept rollouts."""
        rollout = self.config.actor_rollout_ref.rollout
        validate = bool(trajectory["validate"])
        size = prompt.pop("__rollout_n__", rollout.val_kwargs.n if validate else rollout.n)
        prompt.pop("__do_sample__", None)
        prompt.setdefault("agent_name", AGENT_NAME)
        prompt[RESIZED_IMAGES] = SharedImages()
        keep, step = None if validate else size, int(trajectory["step"])
        drawn, graded = await self._draw_group(prompt, sampling_params, trajectory, trace, size)
        scores = await self.scorer.score([member.trajectory for member in drawn], keep, step, graded)
        members, grades = [drawn[k] for k in scores.kept], [scores.grades[k] for k in scores.kept]
        # before anything is awaited: a group that is abandoned is logged whole or not at all
        self._write_group(members, grades, scores, trajectory)
        scored = zip(drawn, scores.grades, scores.all_terms, strict=True)
        record_group([RolloutStats.of_output(*each) for each in scored], "val" if validate else "train", scores.grade_s)
        if graded is not None:
            differs = sum(member.replay_differs for member in drawn)
            record_branches([member.trajectory for member in drawn], scores, differs)
        await self._queue_group(members, grades, scores, validate)
        return scores

    async def _draw_group(
        self, prompt: dict[str, Any], sampling_params: dict[str, Any], info: dict[str, Any], trace: bool, size: int
    ) -> tuple[list[RolloutOutput], Graded | None]:
        """Draws the rollouts of a group of `size`, and grades those for which others wait; in order.

        The grades are None where all are drawn at once: in a validation, and without `sampling.redraw_calls`.
        """

        async def draw(index: int, **part: Kept) -> RolloutOutput:
            params = seeded(sampling_params, self.config, info, prompt, index)
            output: RolloutOutput = await self._run_agent_loop(
                params, trajectory=info, trace=trace, session_id=index, **prompt, **part
            )
            return output

        validate = bool(info["validate"])
        number, later = (size, 0) if validate else (self.scorer.drawn(size), self.scorer.redrawn(size))
        first = await asyncio.gather(*(draw(index) for index in range(number - later)))
        if not later:
            return first, None
        graded = await self.scorer.grade([member.trajectory for member in first])
        parts = self._kept(first, graded, later, int(info["step"]))
        rest = zip(range(number - later, number), parts, strict=True)
        return [*first, *await asyncio.gather(*(draw(index, **part) for index, part in rest))], graded

    def _kept(self, drawn: Sequence[RolloutOutput], graded: Graded, later: int, step: int) -> list[dict[str, Kept]]:
        """Returns the fields of the records of the rollouts that are drawn later: what each keeps of one of `drawn`."""
        rollouts = [member.trajectory for member in drawn]
        calls = [call_places(member.rollout, self.tokenizer, get_format(member.trajectory.format)) for member in drawn]
        branch = self.scorer.call_to_redraw(rollouts, graded, calls, step)
        if branch is None:
            return [{}] * later
        return [{KEPT: kept_of(drawn[branch.parent].rollout, branch)} for _ in range(later)]

    async def _queue_group(
        self, members: Sequence[RolloutOutput], grades: Sequence[Grade], scores: GroupScores, validate: bool
    ) -> None:
        """Puts the kept rollouts of a group into verl's queue."""
        images = GroupImages([images_of(member) for member in members], self._inputs_of_image, self._patches)
        scored = zip(members, grades, scores.terms, scores.outcomes, self._cuts(scores), strict=True)
        for member, grade, terms, outcome, cut in scored:
            encoded = self._as_encoded(terms)
            output = scored_output(member, grade, encoded, outcome, scores.judged, scores.grade_s, cut)
            # a validation trains nothing, so its pixels would go through the queue unread
            output.image_inputs = await images.inputs(images_of(output), pixels=not validate)
            await super()._agent_loop_postprocess(output, validate, **without_images(member.record))

    def _as_encoded(self, terms: RewardTerms) -> RewardTerms:
        """Returns the reward for the token rewards: estimators other than ours add them up."""
        if self.config.algorithm.adv_estimator == advantage.NAME:
            return terms
        return turn_rewards_summed(terms, self._reward)

    def _cuts(self, scores: GroupScores) -> tuple[Cut | None, ...]:
        """Returns what is left untrained of the kept rollouts.

        Other estimators than ours have one group a question and no recovery: a source is trained there as it was drawn.
        """
        if self.config.algorithm.adv_estimator == advantage.NAME:
            return scores.cuts
        return tuple(None if cut is None or cut.recovery is not None else cut for cut in scores.cuts)

    # ---- hooks of verl's worker ----

    async def _agent_loop_postprocess(self, output: RolloutOutput, validate: bool, **fields: Any) -> RolloutOutput:
        """Holds a finished rollout back: verl would queue it at once, before its group is known."""
        output.record = fields
        return output

    def _compute_multi_modal_inputs(self, output: RolloutOutput, input_ids: torch.Tensor) -> Any:
        """Returns the model inputs of the images, which `_queue_group` has made in a thread.

        verl asks for them in the event loop, decodes all tokens for that and has the processor read the text again,
        where a placeholder that the model has typed letter by letter would count as one. The inputs depend on the
        images alone.
        """
        made = getattr(output, "image_inputs", None)
        return dict(made) if made is not None else super()._compute_multi_modal_inputs(output, input_ids[..., :0])

    def _inputs_of_image(self, image: Image.Image) -> dict[str, Any]:
        """Returns verl's model inputs of one image, as floats."""
        output = SimpleNamespace(multi_modal_data={"images": [image]}, mm_processor_kwargs=None)
        return super()._compute_multi_modal_inputs(output, torch.zeros(0, dtype=torch.int64))  # type: ignore[no-any-return]

    # ---- trajectory log ----

    def _write_group(
        self,
        members: Sequence[RolloutOutput],
        grades: Sequence[Grade],
        scores: GroupScores,
        info: dict[str, Any],
    ) -> None:
        """Log a group, where the configuration keeps it."""
        if self._log is None:
            return
        split = "val" if info["validate"] else "train"
        faulty = any(member.trajectory.finish is FinishReason.INFRASTRUCTURE for member in members)
        group = str(members[0].record["uid"])
        if not self._written.keeps(step=int(info["step"]), split=split, group=group, faulty=faulty):
            return
        advantages: Sequence[Advantage | None] = [None] * len(members)
        if split == "train" and self.config.algorithm.adv_estimator == advantage.NAME:
            by_std = bool(self.config.algorithm.get("norm_adv_by_std_in_grpo", True))
            advantages = group_advantages(scores.terms, self._reward, divide_by_std=by_std, cuts=scores.cuts)
        with self._log.group(split):
            for member, verdict, reward, known in zip(members, grades, scores.terms, advantages, strict=True):
                self._write_log(self._log, member, verdict, reward, known, info, scores.grade_s)

    def _write_log(
        self,
        log: TrajectoryLog,
        member: RolloutOutput,
        verdict: Grade,
        reward: RewardTerms,
        known: Advantage | None,
        info: dict[str, Any],
        grade_s: float,
    ) -> None:
        extra, shown = member.extra_fields, images_of(member)
        # The question's images come first; those that feedback turns showed follow in order.
        returned = sum(turn.observation.images for turn in member.trajectory.turns if turn.observation is not None)
        log.write(
            member.trajectory,
            verdict,
            reward,
            step=int(info["step"]),
            split="val" if info["validate"] else "train",
            group=str(member.record["uid"]),
            sample=int(member.record["session_id"]),
            extra_info=member.record.get("extra_info") or {},
            input_images=shown[: len(shown) - returned],
            image_hashes=extra.get("image_hashes", ()),
            timing={**asdict(extra["timing"]), "grade_s": grade_s},
            advantage=asdict(known) if known is not None else None,
        )


class CodeDanceAgentLoopManager(AgentLoopManagerTQ):  # type: ignore[misc]
    """Manager of verl's that starts our workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(CodeDanceAgentLoopWorker)
