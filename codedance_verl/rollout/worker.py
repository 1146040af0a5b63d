"""verl's rollout workers with a reward that knows the group: all rollouts of a prompt are graded and scored together.

`AgentLoopWorkerTQ._run_prompt` of verl holds the n rollouts of one prompt. Here they are kept until the last one is
in, scored as a group, and then handed to verl's TransferQueue with token-level rewards (`rm_scores`). Chosen with
`actor_rollout_ref.rollout.agent.agent_loop_manager_class`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
import torch
import transfer_queue as tq
from PIL import Image
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.environment.fault_count import FaultCount, MaskedGroupCount, TooManyFaults
from codedance_verl.environment.resized_images import SharedImages
from codedance_verl.environment.seeds import seed_of
from codedance_verl.environment.stall_watchdog import StallWatchdog
from codedance_verl.environment.time_limit import pauses_of_process
from codedance_verl.grading import Grader, GradingConfig
from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.metrics import emit
from codedance_verl.reward import advantage
from codedance_verl.reward.advantage import Advantage, group_advantages
from codedance_verl.reward.config import RewardConfig
from codedance_verl.reward.custom_term import CustomTerm
from codedance_verl.reward.encoding import encode_rewards
from codedance_verl.reward.monitors import CollapseMonitor, MonitorConfig
from codedance_verl.reward.resample import resample_on_correct
from codedance_verl.reward.terms import CustomValue, score_group, turn_rewards_summed
from codedance_verl.rollout.agent_loop import AGENT_NAME, VIEWS, record_id_of, watch_of
from codedance_verl.rollout.metrics import group_outcomes, reward_extra_info
from codedance_verl.rollout.packing import GroupImages, images_of, without_pictures
from codedance_verl.rollout.sampling_config import Keep, SamplingConfig
from codedance_verl.rollout.telemetry import RolloutStats, record_group, record_window
from codedance_verl.rollout.trajectory_log import TrajectoryLog
from codedance_verl.runtime.run_limits import request_stop
from codedance_verl.trajectories.config import TrajectoriesConfig
from codedance_verl.types import FinishReason, Grade, RewardTerms, Trajectory
from codedance_verl.verl_compat.pixel_bytes import PatchLayout, layout_of

logger = logging.getLogger(__name__)

advantage.register()  # this module is loaded in the process that computes advantages, through the manager below

_VerlWorker: Any = AgentLoopWorkerTQ.__ray_metadata__.modified_class  # the class under verl's @ray.remote


class ScoredOutput(AgentLoopOutput):  # type: ignore[misc]  # verl ships no types
    """An agent-loop output with one reward per response token, and with its images as the trainer gets them."""

    token_rewards: Any = None
    """Float tensor [response_length], see `codedance_verl.reward.encoding`."""

    image_inputs: Any = None
    """The model's inputs of the images, see `codedance_verl.rollout.packing`; None: not made yet."""

    def as_dict(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().as_dict()
        fields.pop("image_inputs", None)
        fields["rm_scores"] = fields.pop("token_rewards")
        return fields


@dataclass(frozen=True)
class GroupRollout:
    """One finished rollout of a group, waiting for the others."""

    output: AgentLoopOutput
    fields: dict[str, Any]

    @property
    def trajectory(self) -> Trajectory:
        return self.output.extra_fields["trajectory"]  # type: ignore[no-any-return]


class CodeDanceAgentLoopWorker(_VerlWorker):  # type: ignore[misc]
    """Rolls out prompts, scores each group, writes the trajectory log, and feeds the TransferQueue."""

    _patches: PatchLayout | None = None
    _heard = 0
    """The highest number of a `pause` or `resume` so far."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._reward = RewardConfig.from_mapping(config.reward_preset)
        self._sampling = SamplingConfig.from_mapping(config.sampling)
        self._monitor = CollapseMonitor(MonitorConfig.from_mapping(config.monitors))
        self._faults = FaultCount(EnvironmentConfig.from_mapping(config.environment).max_faults_in_a_row)
        self._masked_groups = MaskedGroupCount.of_run(config)
        self._custom_term = CustomTerm(self._reward)
        self._patches = layout_of(getattr(self.processor, "image_processor", None))
        self._grader = Grader(GradingConfig.from_mapping(config.grading), Path(config.run_dir))
        self._written = TrajectoriesConfig.from_mapping(config.trajectories)
        self._log = None
        if config.environment.save_trajectories:
            worker = ray.get_runtime_context().get_actor_id()[:8]
            self._log = TrajectoryLog(Path(config.run_dir) / "trajectories", worker, self._written.max_bytes)

    async def state(self) -> dict[str, Any]:
        """What a checkpoint holds of this worker; plain JSON."""
        return {"monitor": self._monitor.state()}

    async def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._monitor.restore(state["monitor"])

    async def take_metrics(self) -> dict[str, emit.Sample]:
        """What this worker has told since the last call, for verl's trackers."""
        return emit.drain()

    async def waiting(self) -> str:
        """Who waits for what, a line each; empty where nobody does."""
        return self._watch_of_rollouts.report()

    @property
    def _watch_of_rollouts(self) -> StallWatchdog:
        return watch_of(EnvironmentConfig.from_mapping(self.config.environment).stall_limit_s)

    async def pause(self, number: int) -> None:
        """Stop the clocks of the rollouts: training, or a transfer of weights, has what they wait for.

        Args:
            number: rises with every call of this and of `resume`; one that a later call has overtaken does nothing.
        """
        if self._is_latest(number):
            pauses_of_process().begin()
            self._watch_of_rollouts.pause()

    async def resume(self, number: int) -> None:
        """Let the clocks of the rollouts run on; `number` as in `pause`."""
        if self._is_latest(number):
            pauses_of_process().end()
            self._watch_of_rollouts.resume()

    def _is_latest(self, number: int) -> bool:
        latest, self._heard = number > self._heard, max(number, self._heard)
        return latest

    async def abandon(self) -> None:
        """Drop the rollouts under way; their sandbox sessions are closed, and nothing of them is logged or queued."""
        tasks = tuple(self.background_tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_prompt(
        self, prompt: dict[str, Any], sampling_params: dict[str, Any], trajectory: dict[str, Any], trace: bool = False
    ) -> None:
        """Roll out one group (see verl's `AgentLoopWorkerTQ._run_prompt`, whose contract with the queue this keeps)."""
        uid, validate = prompt["uid"], bool(trajectory["validate"])
        partition = "val" if validate else "train"
        await tq.async_kv_put(key=uid, partition_id=partition, tag={"status": "running"})
        terms: Sequence[RewardTerms] | None = None
        try:
            terms = await self._run_group(prompt, sampling_params, trajectory, trace)
            status = "finished"
        except Exception:
            logger.exception("group %s of record %s failed", uid, prompt.get("index"))
            status = "failure"
        if not validate:
            with contextlib.suppress(TooManyFaults):  # the end is asked for; the queue is told all the same
                self._count(lambda: self._masked_groups.add(terms))
        await tq.async_kv_put(key=uid, partition_id=partition, tag={"status": status})

    async def _run_group(
        self, prompt: dict[str, Any], sampling_params: dict[str, Any], trajectory: dict[str, Any], trace: bool
    ) -> Sequence[RewardTerms]:
        """Rolls out, scores and queues a group; returns the rewards of all that was drawn, also of what is left out."""
        rollout = self.config.actor_rollout_ref.rollout
        validate = bool(trajectory["validate"])
        size = prompt.pop("__rollout_n__", rollout.val_kwargs.n if validate else rollout.n)
        prompt.pop("__do_sample__", None)
        prompt.setdefault("agent_name", AGENT_NAME)
        prompt[VIEWS] = SharedImages()
        members: list[GroupRollout] = await asyncio.gather(
            *(
                self._run_agent_loop(
                    self._seeded(sampling_params, trajectory, prompt, index),
                    trajectory=trajectory,
                    trace=trace,
                    session_id=index,
                    **prompt,
                )
                for index in range(size if validate else self._sampling.drawn(size))
            )
        )
        started = time.perf_counter()
        trajectories = [member.trajectory for member in members]
        self._count(lambda: self._faults.add(trajectories))
        grades = await asyncio.gather(*(self._grader.grade_rollout(item) for item in trajectories))
        custom = await self._custom_term.values(trajectories, grades)
        self._stop_if_given_up()
        drawn = terms = score_group(trajectories, grades, self._reward, custom)
        grade_s = (time.perf_counter() - started) / len(members)
        left_out: list[RolloutStats] = []
        if not validate:
            self._watch(trajectories)
            kept = self._kept(trajectories, grades, custom, size, int(trajectory["step"]))
            others = [k for k in range(len(members)) if k not in kept]
            left_out = [_facts(members[k], grades[k], terms[k], kept=False) for k in others]
            members, grades, custom = [members[k] for k in kept], [grades[k] for k in kept], [custom[k] for k in kept]
            terms = score_group([member.trajectory for member in members], grades, self._reward, custom)
        judged = self._grader.take_judge_stats().shared(len(members))
        scored = list(zip(members, grades, terms, group_outcomes(grades, terms), strict=True))
        self._write_group(members, grades, terms, trajectory, grade_s)  # before anything is awaited: whole
        facts = [_facts(member, verdict, reward) for member, verdict, reward, _ in scored]
        record_group([*facts, *left_out], "val" if validate else "train", grade_s)
        images = GroupImages([images_of(member.output) for member in members], self._inputs_of_image, self._patches)
        for member, verdict, reward, outcome in scored:
            output = _scored(member.output, verdict, self._as_encoded(reward), grade_s, outcome, judged)
            # a validation trains nothing: its pixels would go through the queue for nobody
            output.image_inputs = await images.inputs(images_of(output), pixels=not validate)
            await super()._agent_loop_postprocess(output, validate, **without_pictures(member.fields))
        return drawn

    def _seeded(
        self, sampling_params: dict[str, Any], trajectory: dict[str, Any], prompt: dict[str, Any], index: int
    ) -> dict[str, Any]:
        """A deterministic run draws a rollout from a generator of its own, whoever else is served."""
        if not self.config.deterministic:
            return sampling_params
        seed = seed_of(self.config.seed, trajectory["step"], trajectory["validate"], record_id_of(prompt), index)
        return {**sampling_params, "seed": seed}

    def _count(self, add: Callable[[], None]) -> None:
        """Count a group, and ask for the end of the run where too many in a row came to nothing."""
        try:
            add()
        except TooManyFaults as error:
            reason = f"{error}; mend it and start the run again to resume from the last checkpoint"
            request_stop(Path(self.config.run_dir), reason)  # verl itself would go on without this group
            raise

    def _stop_if_given_up(self) -> None:
        """Ask for the end of the run where a function of the user's own was given up: nothing would be trained on."""
        if reason := self._grader.given_up or self._custom_term.given_up:
            request_stop(Path(self.config.run_dir), f"{reason}; mend it and start the run again to resume")

    def _kept(
        self, trajectories: list[Trajectory], grades: list[Grade], custom: list[CustomValue], size: int, step: int
    ) -> list[int]:
        """Indices of the rollouts to train on."""
        if self._sampling.keep is Keep.ALL:
            return list(range(len(trajectories)))
        chance = random.Random(f"{self.config.seed}/{step}/{trajectories[0].record_id}")
        return resample_on_correct(trajectories, grades, size, self._reward, chance, custom)

    def _as_encoded(self, reward: RewardTerms) -> RewardTerms:
        """What goes into the token rewards: other estimators than ours add them up."""
        return (
            reward
            if self.config.algorithm.adv_estimator == advantage.NAME
            else turn_rewards_summed(reward, self._reward)
        )

    def _watch(self, trajectories: list[Trajectory]) -> None:
        """Warn of a collapse of tool use, and ask for the end of the run where the configuration says so."""
        before = self._monitor.rates
        findings = self._monitor.add(trajectories)
        if self._monitor.rates is not None and self._monitor.rates is not before:
            record_window(self._monitor.rates, findings)
        for finding in findings:
            logger.warning("%s", finding)
        if self._monitor.must_stop(findings):
            worst = max(findings, key=lambda finding: finding.windows)
            reason = f"monitors.stop_after={self._monitor.stop_after}: {worst}; look into it, then resume or start anew"
            request_stop(Path(self.config.run_dir), reason)

    def _compute_multi_modal_inputs(self, output: AgentLoopOutput, input_ids: torch.Tensor) -> Any:
        """The model's inputs of the images, which `_run_group` has made in a thread: verl asks in the event loop.

        verl decodes all tokens for that and has the processor read the text anew, where a placeholder that the model
        has typed letter by letter would count as one. The inputs depend on the images alone.
        """
        made = getattr(output, "image_inputs", None)
        return dict(made) if made is not None else super()._compute_multi_modal_inputs(output, input_ids[..., :0])

    def _inputs_of_image(self, image: Image.Image) -> dict[str, Any]:
        """What verl makes of one image, as floats."""
        output = SimpleNamespace(multi_modal_data={"images": [image]}, mm_processor_kwargs=None)
        return super()._compute_multi_modal_inputs(output, torch.zeros(0, dtype=torch.int64))  # type: ignore[no-any-return]

    async def _agent_loop_postprocess(self, output: AgentLoopOutput, validate: bool, **fields: Any) -> GroupRollout:
        """Hold a finished rollout back: verl would queue it at once, before its group is known."""
        return GroupRollout(output, fields)

    def _write_group(
        self,
        members: Sequence[GroupRollout],
        grades: Sequence[Grade],
        terms: Sequence[RewardTerms],
        info: dict[str, Any],
        grade_s: float,
    ) -> None:
        """Log a group, where the configuration keeps it."""
        if self._log is None:
            return
        split = "val" if info["validate"] else "train"
        faulty = any(member.trajectory.finish is FinishReason.INFRASTRUCTURE for member in members)
        group = str(members[0].fields["uid"])
        if not self._written.keeps(step=int(info["step"]), split=split, group=group, faulty=faulty):
            return
        advantages: Sequence[Advantage | None] = [None] * len(members)
        if split == "train" and self.config.algorithm.adv_estimator == advantage.NAME:
            by_std = bool(self.config.algorithm.get("norm_adv_by_std_in_grpo", True))
            advantages = group_advantages(terms, self._reward, divide_by_std=by_std)
        with self._log.group(split):
            for member, verdict, reward, known in zip(members, grades, terms, advantages, strict=True):
                self._write_log(self._log, member, verdict, reward, known, info, grade_s)

    def _write_log(
        self,
        log: TrajectoryLog,
        member: GroupRollout,
        verdict: Grade,
        reward: RewardTerms,
        known: Advantage | None,
        info: dict[str, Any],
        grade_s: float,
    ) -> None:
        extra, shown = member.output.extra_fields, member.output.multi_modal_data.get("images", [])
        returned = sum(observation.count("<image>") for observation in extra["observations"])
        log.write(
            member.trajectory,
            verdict,
            reward,
            step=int(info["step"]),
            split="val" if info["validate"] else "train",
            group=str(member.fields["uid"]),
            sample=int(member.fields["session_id"]),
            extra_info=member.fields.get("extra_info") or {},
            observations=extra["observations"],
            input_images=shown[: len(shown) - returned],
            image_hashes=extra.get("image_hashes", ()),
            timing={**asdict(extra["timing"]), "grade_s": grade_s},
            advantage=asdict(known) if known is not None else None,
        )


def _facts(member: GroupRollout, verdict: Grade, reward: RewardTerms, kept: bool = True) -> RolloutStats:
    extra, mask = member.output.extra_fields, member.output.response_mask
    sampled = int(sum(mask))
    return RolloutStats(
        member.trajectory,
        verdict,
        reward,
        extra["timing"],
        extra["sandbox_retries"],
        sampled,
        len(mask) - sampled,
        kept,
    )


def _scored(
    output: AgentLoopOutput,
    verdict: Grade,
    reward: RewardTerms,
    grade_s: float,
    outcome: float,
    judged: JudgeStats,
) -> ScoredOutput:
    """The output as verl queues it: token rewards in, typed records out (they are not tensors and stay here)."""
    trajectory: Trajectory = output.extra_fields["trajectory"]
    spans = [(turn.token_start, turn.token_end) for turn in trajectory.turns]
    length = len(output.response_ids)
    mask = [0] * length if reward.masked else output.response_mask
    output.metrics.compute_score = grade_s
    return ScoredOutput(
        prompt_ids=output.prompt_ids,
        response_ids=output.response_ids,
        response_mask=mask,
        response_logprobs=output.response_logprobs,
        multi_modal_data=output.multi_modal_data,
        num_turns=output.num_turns,
        metrics=output.metrics,
        reward_score=reward.score,
        token_rewards=torch.as_tensor(encode_rewards(spans, reward, length), dtype=torch.float32),
        extra_fields={
            "reward_extra_info": reward_extra_info(
                trajectory,
                verdict,
                reward,
                output.extra_fields["timing"],
                output.extra_fields["sandbox_retries"],
                outcome,
                judged,
            ),
            "min_global_steps": output.extra_fields["min_global_steps"],
            "max_global_steps": output.extra_fields["max_global_steps"],
        },
    )


class CodeDanceAgentLoopManager(AgentLoopManagerTQ):  # type: ignore[misc]
    """verl's manager, starting our workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(CodeDanceAgentLoopWorker)
