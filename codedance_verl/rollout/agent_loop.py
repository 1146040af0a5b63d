"""The multi-turn environment as a verl agent loop: generate, parse, execute, observe, until an answer or a limit.

Registered with verl as ``codedance`` (`verl.experimental.agent_loop`). It ends with an `AgentLoopOutput` whose
`extra_fields["trajectory"]` holds the typed record of what happened; nothing downstream reads decoded text for that.
"""

from __future__ import annotations

import io
import logging
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from PIL import Image
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register

from codedance_verl.rollout.config import EnvironmentConfig
from codedance_verl.rollout.observations import IMAGE_PLACEHOLDER, observation_text
from codedance_verl.rollout.parsing import STOP_STRINGS, parse_turn
from codedance_verl.rollout.tokens import TokenStream
from codedance_verl.sandbox.pool import SandboxError, SandboxPool, SandboxSession
from codedance_verl.types import Execution, FinishReason, Trajectory, Turn

logger = logging.getLogger(__name__)

AGENT_NAME = "codedance"
END_OF_TURN = "<|im_end|>"


@dataclass
class Timing:
    """Wall seconds of one trajectory by activity."""

    generate_s: float = 0.0
    execute_s: float = 0.0
    queue_s: float = 0.0
    total_s: float = 0.0


@dataclass
class _Rollout:
    """A trajectory in the making."""

    messages: list[dict[str, Any]]
    images: list[Image.Image]
    stream: TokenStream
    turns: list[Turn] = field(default_factory=list)
    observations: list[str] = field(default_factory=list)
    timing: Timing = field(default_factory=Timing)
    weight_versions: list[int] = field(default_factory=list)
    answer: str | None = None


@register(AGENT_NAME)
class CodeDanceAgentLoop(AgentLoopBase):  # type: ignore[misc]  # verl ships no types
    """One trajectory of one record; verl builds an instance per trajectory (see `AgentLoopBase`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.environment = EnvironmentConfig.from_mapping(self.config.environment)
        self.max_response_length = int(self.rollout_config.response_length)
        self.end_of_turn_id = int(self.tokenizer.convert_tokens_to_ids(END_OF_TURN))

    async def run(self, sampling_params: dict[str, Any], **record: Any) -> AgentLoopOutput:
        """Roll out one record.

        Args:
            sampling_params: vLLM sampling parameters of the trainer; a validation record's `extra_info.variant`
                "greedy" sets the temperature to 0.
            record: fields of the dataset row; `raw_prompt` (messages with images in place), `reward_model`,
                `data_source` and `extra_info` are read.
        """
        started = time.perf_counter()
        messages = list(record["raw_prompt"])
        images = list((await self.process_multi_modal_info(messages)).get("images") or [])
        prompt_ids = await self.ct_build_initial_tokens(messages, images=images)
        rollout = _Rollout(messages=messages, images=images, stream=TokenStream.from_prompt(prompt_ids))
        async with AsyncExitStack() as resources:
            try:
                finish = await self._interact(rollout, _variant_sampling(sampling_params, record), resources)
            except SandboxError as error:
                logger.warning("record %s: no sandbox, rollout is masked: %s", _record_id(record), error)
                finish = FinishReason.INFRASTRUCTURE
        rollout.timing.total_s = time.perf_counter() - started
        return self._output(rollout, finish, record)

    async def _interact(
        self, rollout: _Rollout, sampling_params: dict[str, Any], resources: AsyncExitStack
    ) -> FinishReason:
        """Alternate turns and observations until something ends the trajectory; says what did."""
        session: SandboxSession | None = None
        request_id = uuid4().hex
        while True:
            budget = self.max_response_length - rollout.stream.response_length
            if budget <= 0:
                return FinishReason.LENGTH
            text, span, aborted = await self._generate(rollout, request_id, sampling_params, budget)
            if aborted:
                return FinishReason.INFRASTRUCTURE
            parsed = parse_turn(text)
            rollout.turns.append(Turn(text=text, token_start=span[0], token_end=span[1], code=parsed.code))
            if parsed.code is None:
                rollout.answer = parsed.answer
                if parsed.answer is not None:
                    return FinishReason.ANSWER
                return FinishReason.LENGTH if span[1] - span[0] >= budget else FinishReason.NO_ACTION
            if len(rollout.turns) >= self.environment.max_turns:
                return FinishReason.TURN_LIMIT
            if session is None:
                opened = time.perf_counter()
                session = await resources.enter_async_context(self._open_session(rollout))
                rollout.timing.queue_s += time.perf_counter() - opened
            execution = await session.run(parsed.code)
            rollout.timing.execute_s += execution.duration_s
            rollout.timing.queue_s += execution.queue_s
            rollout.turns[-1] = Turn(text, span[0], span[1], parsed.code, execution)
            if not await self._observe(rollout, execution):
                return FinishReason.LENGTH

    def _open_session(self, rollout: _Rollout) -> AbstractAsyncContextManager[SandboxSession]:
        pool = SandboxPool.connect(self.config.sandbox)
        return pool.session(_png(rollout.images[0]) if rollout.images else None)

    async def _generate(
        self, rollout: _Rollout, request_id: str, sampling_params: dict[str, Any], budget: int
    ) -> tuple[str, tuple[int, int], bool]:
        """Sample one assistant turn; returns its text, its span of response tokens, and whether vLLM aborted it."""
        started = time.perf_counter()
        output = await self.server_manager.generate(
            request_id=request_id,
            prompt_ids=rollout.stream.ids,
            sampling_params={
                **sampling_params,
                "max_tokens": budget,
                "stop": list(STOP_STRINGS),
                "include_stop_str_in_output": True,
            },
            image_data=rollout.images or None,
        )
        rollout.timing.generate_s += time.perf_counter() - started
        token_ids = list(output.token_ids)
        version = output.extra_fields.get("global_steps")
        if version is not None:
            rollout.weight_versions.append(version)
        span = rollout.stream.append_sampled(token_ids, output.log_probs)
        aborted = output.stop_reason == "aborted"
        return self.tokenizer.decode(token_ids, skip_special_tokens=True), span, aborted

    async def _observe(self, rollout: _Rollout, execution: Execution) -> bool:
        """Append the feedback turn. False, with nothing appended, when it would leave no token to answer with."""
        room = self.environment.max_images - len(rollout.images)
        shown = [Image.open(io.BytesIO(image.png)).convert("RGB") for image in execution.images[: max(room, 0)]]
        text = observation_text(execution, shown=len(shown))
        assistant = {"role": "assistant", "content": [{"type": "text", "text": rollout.turns[-1].text}]}
        previous = [*rollout.messages, assistant]
        updated = [*previous, {"role": "user", "content": _with_images(text, shown)}]
        boundary = [] if rollout.stream.ids[-1] == self.end_of_turn_id else [self.end_of_turn_id]
        merged, _, _ = await self.ct_merge_context_msg(previous, updated, [*rollout.stream.ids, *boundary], [])
        added = merged.token_ids[len(rollout.stream.ids) :]
        if rollout.stream.response_length + len(added) >= self.max_response_length:
            return False
        rollout.stream.append_context(added)
        rollout.messages = updated
        rollout.images.extend(shown)
        rollout.observations.append(text)
        return True

    def _output(self, rollout: _Rollout, finish: FinishReason, record: dict[str, Any]) -> AgentLoopOutput:
        stream, timing = rollout.stream, rollout.timing
        if not stream.mask:  # verl needs at least one response token; masked, it trains nothing
            stream.append_context([self.end_of_turn_id])
        trajectory = Trajectory(
            record_id=_record_id(record),
            data_source=str(record.get("data_source", "")),
            question=_question(record),
            ground_truth=str(record["reward_model"]["ground_truth"]),
            turns=tuple(rollout.turns),
            finish=finish,
            answer=rollout.answer,
        )
        return AgentLoopOutput(
            prompt_ids=stream.ids[: stream.prompt_length],
            response_ids=stream.response_ids,
            response_mask=stream.mask,
            response_logprobs=stream.logprobs,
            multi_modal_data={"images": rollout.images} if rollout.images else {},
            num_turns=len(rollout.turns) + len(rollout.observations) + 1,
            metrics=AgentLoopMetrics(generate_sequences=timing.generate_s, tool_calls=timing.execute_s),
            extra_fields={
                "trajectory": trajectory,
                "observations": tuple(rollout.observations),
                "timing": timing,
                "min_global_steps": min(rollout.weight_versions, default=None),
                "max_global_steps": max(rollout.weight_versions, default=None),
            },
        )


def _variant_sampling(sampling_params: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    if (record.get("extra_info") or {}).get("variant") == "greedy":
        return {**sampling_params, "temperature": 0.0, "top_p": 1.0, "top_k": -1}
    return dict(sampling_params)


def _record_id(record: dict[str, Any]) -> str:
    extra = record.get("extra_info") or {}
    return str(extra.get("record_id") or f"{record.get('data_source', '')}/{extra.get('index', '?')}")


def _question(record: dict[str, Any]) -> str:
    """The question as the record states it, else the text of the last prompt message."""
    if question := (record.get("extra_info") or {}).get("question"):
        return str(question)
    content = record["raw_prompt"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if part.get("type") == "text")


def _with_images(text: str, images: list[Image.Image]) -> list[dict[str, Any]]:
    """Message content with each image in the place of its placeholder."""
    parts: list[dict[str, Any]] = []
    for position, piece in enumerate(text.split(IMAGE_PLACEHOLDER)):
        if position > 0:
            parts.append({"type": "image", "image": images[position - 1]})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
