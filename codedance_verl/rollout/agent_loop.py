"""The multi-turn environment as a verl agent loop: generate, parse, execute, observe, until an answer or a limit.

Registered with verl as ``codedance`` (`verl.experimental.agent_loop`). It ends with an `AgentLoopOutput` whose
`extra_fields["trajectory"]` holds the typed record of what happened; nothing downstream reads decoded text for that.
"""

from __future__ import annotations

import asyncio
import functools
import io
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

from PIL import Image
from ray.exceptions import RayError
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register

from codedance_verl.rollout.config import EnvironmentConfig
from codedance_verl.rollout.formats import ParsedTurn, get_format
from codedance_verl.rollout.generation import TurnSampler
from codedance_verl.rollout.instructions import with_instructions
from codedance_verl.rollout.invariants import InvariantError, VisionTokens
from codedance_verl.rollout.observations import IMAGE_PLACEHOLDER, Sizes, fit, observation_text, refused
from codedance_verl.rollout.sampling import kept_tokens
from codedance_verl.rollout.sampling_config import SamplingConfig
from codedance_verl.rollout.sandboxing import Sandboxed
from codedance_verl.rollout.tokens import TokenStream, Vocabulary
from codedance_verl.rollout.views import SharedViews, image_parts, make_view, patch_count, put_views, source_bytes
from codedance_verl.rollout.watch import Phase, Progress, Watch
from codedance_verl.sandbox.pool import SandboxError, SandboxPool
from codedance_verl.types import Execution, ExecutionStatus, FinishReason, Trajectory, Turn

logger = logging.getLogger(__name__)

AGENT_NAME = "codedance"
END_OF_TURN = "<|im_end|>"
VIEWS = "views"
"""Field of a record that holds the `SharedViews` of its group."""

TURN_MARKS = 16
"""Tokens that the chat template puts around a feedback turn, at most."""


@dataclass
class Timing:
    """Wall seconds of one trajectory by activity. `queue_s`: waiting for a session or a slot in the sandbox."""

    generate_s: float = 0.0
    execute_s: float = 0.0
    queue_s: float = 0.0
    observe_s: float = 0.0
    total_s: float = 0.0


@dataclass
class _Rollout:
    """A trajectory in the making."""

    messages: list[dict[str, Any]]
    images: list[Image.Image]
    stream: TokenStream
    progress: Progress
    sandbox: Sandboxed
    turns: list[Turn] = field(default_factory=list)
    observations: list[str] = field(default_factory=list)
    timing: Timing = field(default_factory=Timing)
    weight_versions: list[int] = field(default_factory=list)
    answer: str | None = None


@functools.cache
def _watch(limit_s: float) -> Watch:
    """The one watch of this process."""
    return Watch(limit_s)


_places_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def _places(most: int) -> asyncio.Semaphore:
    """The places for trajectories of this process's event loop."""
    return _places_by_loop.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(most))


@register(AGENT_NAME)
class CodeDanceAgentLoop(AgentLoopBase):  # type: ignore[misc]  # verl ships no types
    """One trajectory of one record; verl builds an instance per trajectory (see `AgentLoopBase`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.environment = EnvironmentConfig.from_mapping(self.config.environment)
        self.sampling = SamplingConfig.from_mapping(self.config.sampling)
        self.format = get_format(self.environment.format)
        self.watch = _watch(self.environment.stall_seconds)
        self.max_response_length = int(self.rollout_config.response_length)
        self.end_of_turn_id = int(self.tokenizer.convert_tokens_to_ids(END_OF_TURN))

    async def run(self, sampling_params: dict[str, Any], **record: Any) -> AgentLoopOutput:
        """Roll out one record.

        What fails outside of the model ends the trajectory as `infrastructure`, and no more than the trajectory.

        Args:
            sampling_params: vLLM sampling parameters of the trainer; a validation record's `extra_info.variant`
                "greedy" sets the temperature to 0.
            record: fields of the dataset row; `raw_prompt` (messages with images in place), `reward_model`,
                `data_source` and `extra_info` are read.
        """
        async with _places(self.environment.max_in_flight):
            return await self._run(sampling_params, record)

    async def _run(self, sampling_params: dict[str, Any], record: dict[str, Any]) -> AgentLoopOutput:
        started = time.perf_counter()
        with self.watch.trajectory(_record_id(record)) as progress:
            try:
                rollout = await self._start(record, progress)
            except asyncio.CancelledError:
                if progress.stalled:
                    raise RuntimeError(f"record {progress.record_id}: its prompt was not rendered in time") from None
                raise
            finish = await self._to_the_end(rollout, _variant_sampling(sampling_params, record), record)
        rollout.timing.total_s = time.perf_counter() - started
        return self._output(rollout, finish, record)

    async def _start(self, record: dict[str, Any], progress: Progress) -> _Rollout:
        """Render the prompt. A record that cannot be rendered is an error of the data and ends its group."""
        messages = list(record["raw_prompt"])
        if self.environment.instructions:
            messages = with_instructions(messages, self.format)
        shared: SharedViews = record.get(VIEWS) or SharedViews()
        images = await shared.get(lambda: self._views(messages))
        prompt_ids = await self.ct_build_initial_tokens(messages, images=images)
        stream = TokenStream.from_prompt(prompt_ids, self._vocabulary(), self._features(images))
        connect = functools.partial(SandboxPool.connect, self.config.sandbox)
        sandbox = Sandboxed(connect, _first_image(messages), self.environment.sandbox_retries)
        return _Rollout(messages, images, stream, progress, sandbox)

    async def _views(self, messages: list[dict[str, Any]]) -> list[Image.Image]:
        given = (await self.process_multi_modal_info(messages)).get("images") or []
        views = [make_view(image, self.environment.max_image_pixels) for image in given]
        put_views(messages, views)
        return views

    async def _to_the_end(
        self, rollout: _Rollout, sampling_params: dict[str, Any], record: dict[str, Any]
    ) -> FinishReason:
        """Interact until something ends the trajectory; says what did."""
        limit = asyncio.timeout(self.environment.max_seconds)
        try:
            async with AsyncExitStack() as resources, limit:
                return await self._interact(rollout, sampling_params, resources)
        except TimeoutError as error:
            if limit.expired():
                return FinishReason.TIME_LIMIT
            reason = f"TimeoutError: {error}"
        except (SandboxError, RayError, InvariantError) as error:
            reason = f"{type(error).__name__}: {error}"
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not rollout.progress.stalled or task is None or task.uncancel() > 0:
                raise
            reason = "no rollout made progress"
        except Exception as error:  # a fault of ours; it is told in full, counted, and costs this trajectory
            logger.exception("record %s", _record_id(record))
            reason = f"{type(error).__name__}: {error}; please report this"
        logger.warning("record %s: the rollout is masked: %s", _record_id(record), reason)
        return FinishReason.INFRASTRUCTURE

    async def _interact(
        self, rollout: _Rollout, sampling_params: dict[str, Any], resources: AsyncExitStack
    ) -> FinishReason:
        """Alternate turns and observations."""
        request_id = uuid4().hex
        while True:
            budget = self.max_response_length - rollout.stream.response_length
            if budget <= 0:
                return FinishReason.LENGTH
            rollout.progress.turn = len(rollout.turns) + 1
            parsed, span, aborted = await self._generate(rollout, request_id, sampling_params, budget)
            if aborted:
                return FinishReason.INFRASTRUCTURE
            if parsed.code is None and parsed.fault is None:
                rollout.answer = parsed.answer
                if parsed.answer is not None:
                    return FinishReason.ANSWER
                return FinishReason.LENGTH if span[1] - span[0] >= budget else FinishReason.NO_ACTION
            if len(rollout.turns) >= self.environment.max_turns:
                return FinishReason.TURN_LIMIT
            execution = await self._execute(rollout, parsed, resources)
            if execution.status is ExecutionStatus.KILLED:
                return FinishReason.INFRASTRUCTURE
            if not await self._observe(rollout, execution):
                return FinishReason.LENGTH

    async def _generate(
        self, rollout: _Rollout, request_id: str, sampling_params: dict[str, Any], budget: int
    ) -> tuple[ParsedTurn, tuple[int, int], bool]:
        """Sample one assistant turn; returns what it asks for, its span, and whether vLLM aborted it."""
        self.watch.enter(rollout.progress, Phase.GENERATE)
        started = time.perf_counter()
        sampler = TurnSampler(
            self.server_manager,
            self.tokenizer,
            self.format,
            rollout.stream.vocabulary.reserved,
            self.sampling.code_temperature,
        )
        output = await sampler.sample(request_id, rollout.stream.ids, sampling_params, rollout.images or None, budget)
        rollout.timing.generate_s += time.perf_counter() - started
        rollout.weight_versions.extend(output.versions)
        whole = output.token_ids
        kept = kept_tokens(self.tokenizer, whole[: rollout.stream.sampled_prefix(whole)], self.format.stop_strings)
        logprobs = None if output.log_probs is None else output.log_probs[: len(kept)]
        span = rollout.stream.append_sampled(kept, logprobs)
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        parsed = self.format.parse(text)
        rollout.turns.append(Turn(text, *span, code=parsed.code))
        return parsed, span, output.aborted

    async def _execute(self, rollout: _Rollout, parsed: ParsedTurn, resources: AsyncExitStack) -> Execution:
        """Run the turn's code, or refuse a call that cannot be read."""
        if parsed.code is None:
            execution = refused(parsed.fault or "")
        else:
            self.watch.enter(rollout.progress, Phase.EXECUTE)
            execution, waited_s = await rollout.sandbox.run(parsed.code, resources)
            rollout.timing.queue_s += waited_s
            rollout.timing.execute_s += execution.duration_s
        turn = rollout.turns[-1]
        rollout.turns[-1] = Turn(turn.text, turn.token_start, turn.token_end, parsed.code, execution)
        return execution

    async def _observe(self, rollout: _Rollout, execution: Execution) -> bool:
        """Append the feedback turn. False, with nothing appended, when it would leave too few tokens to answer with."""
        self.watch.enter(rollout.progress, Phase.OBSERVE)
        started = time.perf_counter()
        room = self.max_response_length - rollout.stream.response_length - self.environment.answer_tokens
        sizes = self._fit(rollout, execution, room)
        appended = sizes is not None and await self._append_observation(rollout, execution, sizes, room)
        rollout.timing.observe_s += time.perf_counter() - started
        return appended

    def _fit(self, rollout: _Rollout, execution: Execution, room: int) -> Sizes | None:
        environment = self.environment
        largest = Sizes(
            chars=environment.max_observation_chars,
            pixels=environment.max_image_pixels,
            images=max(environment.max_images - len(rollout.images), 0),
            last_turn=len(rollout.turns) == environment.max_turns - 1,
        )

        def text_cost(text: str) -> int:
            return len(self.tokenizer.encode(text, add_special_tokens=False)) + TURN_MARKS

        patches = patch_count(self.processor) if execution.images else lambda width, height: 0
        return fit(execution, largest, room, text_cost, patches)

    async def _append_observation(self, rollout: _Rollout, execution: Execution, sizes: Sizes, room: int) -> bool:
        shown = await asyncio.to_thread(_views, execution, sizes)
        text = observation_text(execution, sizes)
        assistant = {"role": "assistant", "content": [{"type": "text", "text": rollout.turns[-1].text}]}
        previous = [*rollout.messages, assistant]
        updated = [*previous, {"role": "user", "content": _with_images(text, shown)}]
        ids = rollout.stream.ids
        boundary = [] if ids[-1] == self.end_of_turn_id else [self.end_of_turn_id]
        merged, _, _ = await self.ct_merge_context_msg(previous, updated, [*ids, *boundary], [])
        added = merged.token_ids[len(ids) :]
        if len(added) > room:
            return False
        rollout.stream.append_context(added, self._features(shown))
        rollout.messages = updated
        rollout.images.extend(shown)
        rollout.observations.append(text)
        return True

    def _vocabulary(self) -> Vocabulary:
        return _vocabulary(self.processor or self.tokenizer, self.end_of_turn_id)

    def _features(self, images: list[Image.Image]) -> list[int]:
        """Merged patches of each picture."""
        if not images:
            return []
        patches = patch_count(self.processor)
        return [patches(*image.size) for image in images]

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
            format=self.format.name,
            style=str(record["reward_model"].get("style") or "rule"),
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
                "sandbox_retries": rollout.sandbox.retries,
                "min_global_steps": min(rollout.weight_versions, default=None),
                "max_global_steps": max(rollout.weight_versions, default=None),
            },
        )


@functools.lru_cache(maxsize=4)
def _vocabulary(processor: Any, end_of_turn_id: int) -> Vocabulary:
    tokenizer = getattr(processor, "tokenizer", processor)
    ends = {end_of_turn_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    vision = VisionTokens.of(processor) if processor is not tokenizer else None
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return Vocabulary(frozenset(special - ends), vision)


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


def _first_image(messages: list[dict[str, Any]]) -> Callable[[], bytes] | None:
    """Reads the first picture as the record has it, whatever the model gets to see of it; None without one."""
    first = next(image_parts(messages), None)
    return None if first is None else functools.partial(source_bytes, first)


def _views(execution: Execution, sizes: Sizes) -> list[Image.Image]:
    """Decode the pictures that are shown and scale them down."""
    shown = execution.images[: sizes.images]
    return [make_view(Image.open(io.BytesIO(image.png)), sizes.pixels) for image in shown]


def _with_images(text: str, images: list[Image.Image]) -> list[dict[str, Any]]:
    """Message content with each image in the place of its placeholder."""
    parts: list[dict[str, Any]] = []
    for position, piece in enumerate(text.split(IMAGE_PLACEHOLDER)):
        if position > 0:
            parts.append({"type": "image", "image": images[position - 1]})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts
