"""Multi-turn environment as a verl agent loop.

Registered with verl as ``codedance`` (`verl.experimental.agent_loop`); the rules of a trajectory are in
`environment/loop.py`. It ends with a `RolloutOutput` whose `extra_fields["trajectory"]` holds the typed record of the
trajectory; nothing downstream reads decoded text for that.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import Any
from weakref import WeakKeyDictionary

from ray.exceptions import RayError
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, register

from codedance_verl.data.conditions import Condition
from codedance_verl.environment.branch import Kept, ReplayDiffers
from codedance_verl.environment.call_watch import CallWatch
from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.environment.generation import EngineError, seed_of
from codedance_verl.environment.loop import Message, MultiTurnLoop, Rollout, question_images
from codedance_verl.environment.resized_images import ResizedImage, SharedImages, load_resized
from codedance_verl.environment.sandbox_client import SandboxClient
from codedance_verl.environment.stall_watchdog import TrackedRollout, watchdog_of_process
from codedance_verl.environment.system_prompt import with_instructions
from codedance_verl.environment.time_limit import pauses_of_process
from codedance_verl.errors import UserError
from codedance_verl.formats import get_format
from codedance_verl.rollout.output import KEPT, RESIZED_IMAGES, RolloutOutput
from codedance_verl.rollout.sampling_config import SamplingConfig
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.types import FinishReason, Trajectory, question_of, record_id_of
from codedance_verl.verl_compat.call_watch import watching

logger = logging.getLogger(__name__)

AGENT_NAME = "codedance"

_slots_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def _slots(most: int) -> asyncio.Semaphore:
    """Returns the slots for trajectories in flight on this process's event loop; a semaphore belongs to one loop."""
    return _slots_by_loop.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(most))


class _EngineClient:
    """Client of verl's vLLM servers whose errors of Ray are those of the environment, which is free of Ray.

    Watches are used where `has_watches` says so, and of verl's own client alone: that of a test has none.
    """

    def __init__(self, client: Any, has_watches: bool) -> None:
        self._client = client
        self._watching = watching(client) if has_watches else None

    async def generate(self, call_watch: CallWatch | None = None, **request: Any) -> Any:
        try:
            if call_watch is None or self._watching is None:
                return await self._client.generate(**request)
            return await self._watching.generate(call_watch, **request)
        except RayError as error:
            raise EngineError(f"{type(error).__name__}: {error}") from error


@register(AGENT_NAME)
class CodeDanceAgentLoop(AgentLoopBase):  # type: ignore[misc]  # verl ships no types
    """Agent loop of one trajectory of one record; verl builds an instance per trajectory (see `AgentLoopBase`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.environment = EnvironmentConfig.from_mapping(self.config.environment)
        self.format = get_format(self.environment.format)
        self.multi_turn = MultiTurnLoop(
            environment=self.environment,
            server=_EngineClient(self.server_manager, has_watches=self.environment.open_early),
            tokenizer=self.tokenizer,
            processor=self.processor,
            append=self._append,
            watchdog=watchdog_of_process(self.environment.stall_limit_s),
            response_length=int(self.rollout_config.response_length),
            code_temperature=SamplingConfig.from_mapping(self.config.sampling).code_temperature,
            pauses=pauses_of_process(),
        )

    async def run(self, sampling_params: dict[str, Any], **record: Any) -> RolloutOutput:
        """Rolls out one record.

        A failure outside of the model ends the trajectory as `infrastructure`, and no other one.

        Args:
            sampling_params: vLLM sampling parameters of the trainer; a record may state a temperature of its own
                (`data.conditions.Condition`).
            record: fields of the dataset row; `raw_prompt` (messages with images in place), `reward_model`,
                `data_source` and `extra_info` are read.

        Raises:
            UserError: the record states a condition that there is not.
        """
        async with _slots(self.environment.max_in_flight):
            return await self._run(sampling_params, record)

    async def _run(self, sampling_params: dict[str, Any], record: dict[str, Any]) -> RolloutOutput:
        started, differs = time.perf_counter(), False
        condition = _condition(record)
        params = _at_temperature(sampling_params, condition.temperature)
        with self.multi_turn.watchdog.trajectory(record_id_of(record)) as progress:
            try:
                rollout = await self._begin(record, progress)
                rollout.control = condition.control
                finish = await self.multi_turn.run(rollout, params)
            except ReplayDiffers as error:
                # the kept thought would be about a session that is no longer there: a whole rollout takes its place
                logger.info("record %s: drawn from its start: %s", progress.record_id, error)
                differs = True
                # branches are drawn in training alone, where there are no controls
                rollout = await self._begin({**record, KEPT: None}, progress)
                finish = await self.multi_turn.run(rollout, params)
        if rollout.fault is not None:
            logger.warning("record %s: the rollout is masked: %s", progress.record_id, rollout.fault)
        rollout.timing.total_s = time.perf_counter() - started
        output = self._output(rollout, finish, record)
        output.replay_differs = differs
        return output

    async def _begin(self, record: dict[str, Any], progress: TrackedRollout) -> Rollout:
        """Returns a trajectory at its start, or a branch at the end of what it keeps."""
        kept: Kept | None = record.get(KEPT)
        if kept is not None:
            return self.multi_turn.begin_branch(kept, self._sandbox(self._messages(record)), progress)
        try:
            return await self._start(record, progress)
        except asyncio.CancelledError:
            if progress.stalled:
                raise RuntimeError(f"record {progress.record_id}: its prompt was not rendered in time") from None
            raise

    async def _start(self, record: dict[str, Any], progress: TrackedRollout) -> Rollout:
        """Renders the prompt. A record that cannot be rendered is an error of the data and ends its group."""
        messages = self._messages(record)
        shared: SharedImages = record.get(RESIZED_IMAGES) or SharedImages()
        resized = await shared.get(lambda: self._resized(messages))
        images = [item.image for item in resized]
        prompt_ids = await self.ct_build_initial_tokens(messages, images=images)
        rollout = self.multi_turn.begin(messages, images, prompt_ids, self._sandbox(messages), progress)
        rollout.image_hashes = tuple(item.pixels_sha256 for item in resized)
        return rollout

    def _messages(self, record: dict[str, Any]) -> list[Message]:
        messages = list(record["raw_prompt"])
        return with_instructions(messages, self.format) if self.environment.add_system_prompt else messages

    def _sandbox(self, messages: list[Message]) -> SandboxClient:
        connect = functools.partial(SandboxPool.connect, self.config.sandbox)
        return SandboxClient(connect, question_images(messages), self.environment.sandbox_retries)

    async def _resized(self, messages: list[Message]) -> list[ResizedImage]:
        return await asyncio.to_thread(load_resized, messages, self.environment.max_image_pixels)

    async def _append(self, before: list[Message], now: list[Message], ids: list[int]) -> list[int]:
        merged, _, _ = await self.ct_merge_context_msg(before, now, ids, [])
        return list(merged.token_ids)

    def _output(self, rollout: Rollout, finish: FinishReason, record: dict[str, Any]) -> RolloutOutput:
        stream, timing = rollout.stream, rollout.timing
        versions = rollout.weight_versions or [_version_at_submission(record)]
        if not stream.mask:  # verl needs at least one response token; masked, it trains nothing
            stream.append_context([self.multi_turn.end_of_turn_id])
        trajectory = Trajectory(
            record_id=record_id_of(record),
            data_source=str(record.get("data_source", "")),
            question=question_of(
                record.get("extra_info"), ((one["role"], _text(one["content"])) for one in record["raw_prompt"])
            ),
            ground_truth=str(record["reward_model"]["ground_truth"]),
            turns=tuple(rollout.turns),
            finish=finish,
            answer=rollout.answer,
            format=self.format.name,
            style=str(record["reward_model"].get("style") or "rule"),
            extra_info=record.get("extra_info") or {},
            branch=None if rollout.kept is None else rollout.kept.branch,
        )
        return RolloutOutput(
            prompt_ids=stream.ids[: stream.prompt_length],
            response_ids=stream.response_ids,
            response_mask=stream.mask,
            response_logprobs=stream.logprobs,
            multi_modal_data={"images": rollout.images} if rollout.images else {},
            num_turns=len(rollout.turns) + sum(turn.observation is not None for turn in rollout.turns) + 1,
            metrics=AgentLoopMetrics(generate_sequences=timing.generate_s, tool_calls=timing.execute_s),
            extra_fields={
                "trajectory": trajectory,
                "image_hashes": rollout.image_hashes,
                "timing": timing,
                "sandbox_retries": rollout.sandbox.retries,
                "early_opening": rollout.sandbox.early,
                "min_global_steps": min(versions),
                "max_global_steps": max(versions),
            },
            rollout=rollout,
        )


def seeded(
    sampling_params: dict[str, Any], config: Any, info: dict[str, Any], record: dict[str, Any], index: int
) -> dict[str, Any]:
    """Returns the sampling parameters of a rollout, in a deterministic run with a seed from what the rollout is.

    Args:
        sampling_params: of the trainer.
        config: of the run.
        info: verl's `step` and `validate` of the rollout.
        record: fields of its dataset row.
        index: of the rollout in its group.
    """
    if not config.deterministic:
        return sampling_params
    seed = seed_of(config.seed, info["step"], info["validate"], record_id_of(record), index)
    return {**sampling_params, "seed": seed}


def _condition(record: dict[str, Any]) -> Condition:
    try:
        return Condition.of(record.get("extra_info"))
    except ValueError as fault:  # `data.rows.canonical_row` refuses it at the start, in a data set of ours
        raise UserError(f"record {record_id_of(record)}: {fault}") from None


def _at_temperature(sampling_params: dict[str, Any], temperature: float | None) -> dict[str, Any]:
    """Returns the sampling parameters at a temperature, None for their own; greedy ones have no other limits."""
    if temperature is None:
        return dict(sampling_params)
    if temperature == 0:
        return {**sampling_params, "temperature": 0.0, "top_p": 1.0, "top_k": -1}
    return {**sampling_params, "temperature": temperature}


def _version_at_submission(record: dict[str, Any]) -> int:
    """Returns the version of the weights when verl handed the record out: step N begins with those of step N - 1.

    It stands in where no request was answered, as verl makes arrays of integers of all versions of a batch.
    """
    return max(int(record.get("global_steps", 0)) - 1, 0)


def _text(content: str | list[dict[str, Any]]) -> str:
    """Returns the text of a message, whose content may be a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if part.get("type") == "text")
