"""The multi-turn environment, whoever asks the question: generate, parse, execute, observe, until an answer or a limit.

Training (`agent_loop.py`) and serving (`codedance_verl.serving`) run this one loop. It samples from anything that has
the `generate` of verl's server client, and tells a listener what happens as it happens.
"""

from __future__ import annotations

import asyncio
import functools
import io
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from PIL import Image
from ray.exceptions import RayError

from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.environment.generation import TurnSampler
from codedance_verl.environment.invariants import InvariantError, VisionTokens
from codedance_verl.environment.observations import ObservationLimits, fit, observation_text, refused
from codedance_verl.environment.resized_images import image_parts, patch_count, resize_image, source_bytes
from codedance_verl.environment.sampling import kept_tokens
from codedance_verl.environment.sandbox_client import SandboxClient
from codedance_verl.environment.seeds import for_part
from codedance_verl.environment.stall_watchdog import Phase, Progress, StallWatchdog
from codedance_verl.environment.time_limit import Pauses
from codedance_verl.environment.tokens import SpecialTokens, TokenStream
from codedance_verl.formats import ParsedTurn, TurnFormat, get_format
from codedance_verl.sandbox.errors import SandboxError
from codedance_verl.types import IMAGE_PLACEHOLDER, Execution, ExecutionStatus, FinishReason, Turn

logger = logging.getLogger(__name__)

Message = dict[str, Any]

END_OF_TURN = "<|im_end|>"
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
class Rollout:
    """A trajectory in the making.

    `images` are the images as the model sees them, the question's first; `image_hashes` those of the question's whole
    images (`resized_images.ResizedImage`); `fault` says what raised an error outside of the model.
    """

    messages: list[Message]
    images: list[Image.Image]
    stream: TokenStream
    sandbox: SandboxClient
    progress: Progress
    turns: list[Turn] = field(default_factory=list)
    observations: list[str] = field(default_factory=list)
    timing: Timing = field(default_factory=Timing)
    weight_versions: list[int] = field(default_factory=list)
    answer: str | None = None
    fault: str | None = None
    image_hashes: tuple[str, ...] = ()


class Listener:
    """What wants to know how a trajectory goes on; this one does not."""

    def turn_sampled(self, turn: Turn, parsed: ParsedTurn) -> None:
        """A turn of the model is complete."""

    def code_ran(self, turn: Turn) -> None:
        """The turn's code ran, or its call was refused: `turn.execution`."""

    def feedback_given(self, text: str) -> None:
        """The feedback turn as the model gets it, a placeholder in the place of each picture."""


@dataclass(frozen=True)
class MultiTurnLoop:
    """The rules under which trajectories go on, and what they go on with.

    Attributes:
        environment: limits of a trajectory.
        server: samples tokens; has the `generate` of verl's server client.
        tokenizer: of the model.
        processor: of the model; None for one without pictures.
        append: renders messages that were added: (messages before, messages now, tokens before) to all tokens now.
        watch: ends trajectories when none makes progress.
        response_length: tokens of a trajectory behind its prompt, feedback included.
        code_temperature: see `SamplingConfig`.
        listener: is told of every step.
        pauses: in which the time of a trajectory stands still.
    """

    environment: EnvironmentConfig
    server: Any
    tokenizer: Any
    processor: Any
    append: Callable[[list[Message], list[Message], list[int]], Awaitable[list[int]]]
    watch: StallWatchdog
    response_length: int
    code_temperature: float | None = None
    listener: Listener = field(default_factory=Listener)
    pauses: Pauses = field(default_factory=Pauses)

    @property
    def format(self) -> TurnFormat:
        return get_format(self.environment.format)

    @functools.cached_property
    def end_of_turn_id(self) -> int:
        return int(self.tokenizer.convert_tokens_to_ids(END_OF_TURN))

    def begin(
        self,
        messages: list[Message],
        images: list[Image.Image],
        prompt_ids: list[int],
        sandbox: SandboxClient,
        progress: Progress,
    ) -> Rollout:
        """A trajectory of which only the prompt is there; `images` are the views of its pictures."""
        vocabulary = _vocabulary(self.processor or self.tokenizer, self.end_of_turn_id)
        stream = TokenStream.from_prompt(prompt_ids, vocabulary, self._features(images))
        return Rollout(messages, images, stream, sandbox, progress)

    async def run(self, rollout: Rollout, sampling_params: dict[str, Any]) -> FinishReason:
        """Interact until something ends the trajectory; says what did.

        What fails outside of the model ends the trajectory as `infrastructure`, and no more than the trajectory.
        """
        limit: asyncio.Timeout | None = None
        try:
            async with AsyncExitStack() as resources, self.pauses.limit(self.environment.max_seconds) as limit:
                return await self._interact(rollout, sampling_params, resources)
        except TimeoutError as error:
            if limit is not None and limit.expired():
                return FinishReason.TIME_LIMIT
            rollout.fault = f"TimeoutError: {error}"
        except (SandboxError, RayError, InvariantError) as error:
            rollout.fault = f"{type(error).__name__}: {error}"
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not rollout.progress.stalled or task is None or task.uncancel() > 0:
                raise
            rollout.fault = "no rollout made progress"
        except Exception as error:  # a fault of ours; it is told in full, counted, and costs this trajectory
            logger.exception("record %s", rollout.progress.record_id)
            rollout.fault = f"{type(error).__name__}: {error}; please report this"
        return FinishReason.INFRASTRUCTURE

    async def _interact(
        self, rollout: Rollout, sampling_params: dict[str, Any], resources: AsyncExitStack
    ) -> FinishReason:
        """Alternate turns and observations."""
        request_id = uuid4().hex
        while True:
            budget = self.response_length - rollout.stream.response_length
            if budget <= 0:
                return FinishReason.LENGTH
            turn = rollout.progress.turn = len(rollout.turns) + 1
            drawn = for_part(sampling_params, turn)
            parsed, span, aborted = await self._generate(rollout, request_id, drawn, budget)
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
        self, rollout: Rollout, request_id: str, sampling_params: dict[str, Any], budget: int
    ) -> tuple[ParsedTurn, tuple[int, int], bool]:
        """Sample one assistant turn; returns what it asks for, its span, and whether vLLM aborted it."""
        self.watch.enter(rollout.progress, Phase.GENERATE)
        started = time.perf_counter()
        sampler = TurnSampler(
            self.server,
            self.tokenizer,
            self.format,
            rollout.stream.vocabulary.reserved,
            self.code_temperature,
        )
        output = await sampler.sample(request_id, rollout.stream.ids, sampling_params, rollout.images or None, budget)
        rollout.timing.generate_s += time.perf_counter() - started
        rollout.weight_versions.extend(output.versions)
        whole = output.token_ids
        kept = kept_tokens(self.tokenizer, whole[: rollout.stream.sampled_prefix(whole)], self.format)
        logprobs = None if output.log_probs is None else output.log_probs[: len(kept)]
        span = rollout.stream.append_sampled(kept, logprobs)
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        parsed = self.format.parse(text)
        rollout.turns.append(Turn(text, *span, code=parsed.code))
        self.listener.turn_sampled(rollout.turns[-1], parsed)
        return parsed, span, output.aborted

    async def _execute(self, rollout: Rollout, parsed: ParsedTurn, resources: AsyncExitStack) -> Execution:
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
        self.listener.code_ran(rollout.turns[-1])
        return execution

    async def _observe(self, rollout: Rollout, execution: Execution) -> bool:
        """Append the feedback turn. False, with nothing appended, when it would leave too few tokens to answer with."""
        self.watch.enter(rollout.progress, Phase.OBSERVE)
        started = time.perf_counter()
        room = self.response_length - rollout.stream.response_length - self.environment.answer_tokens
        sizes = self._fit(rollout, execution, room)
        appended = sizes is not None and await self._append_observation(rollout, execution, sizes, room)
        rollout.timing.observe_s += time.perf_counter() - started
        return appended

    def _fit(self, rollout: Rollout, execution: Execution, room: int) -> ObservationLimits | None:
        environment = self.environment
        largest = ObservationLimits(
            chars=environment.max_observation_chars,
            pixels=environment.max_image_pixels,
            images=max(environment.max_images - len(rollout.images), 0),
            last_turn=len(rollout.turns) == environment.max_turns - 1,
        )

        def text_cost(text: str) -> int:
            return len(self.tokenizer.encode(text, add_special_tokens=False)) + TURN_MARKS

        patches = patch_count(self.processor) if execution.images else lambda width, height: 0
        return fit(execution, largest, room, text_cost, patches)

    async def _append_observation(
        self, rollout: Rollout, execution: Execution, sizes: ObservationLimits, room: int
    ) -> bool:
        shown = await asyncio.to_thread(_views, execution, sizes)
        text = observation_text(execution, sizes)
        assistant = {"role": "assistant", "content": [{"type": "text", "text": rollout.turns[-1].text}]}
        previous = [*rollout.messages, assistant]
        updated = [*previous, {"role": "user", "content": _with_images(text, shown)}]
        ids = rollout.stream.ids
        boundary = [] if ids[-1] == self.end_of_turn_id else [self.end_of_turn_id]
        added = (await self.append(previous, updated, [*ids, *boundary]))[len(ids) :]
        if len(added) > room:
            return False
        rollout.stream.append_context(added, self._features(shown))
        rollout.messages = updated
        rollout.images.extend(shown)
        rollout.observations.append(text)
        self.listener.feedback_given(text)
        return True

    def _features(self, images: list[Image.Image]) -> list[int]:
        """Merged patches of each picture."""
        if not images:
            return []
        patches = patch_count(self.processor)
        return [patches(*image.size) for image in images]


@functools.lru_cache(maxsize=4)
def _vocabulary(processor: Any, end_of_turn_id: int) -> SpecialTokens:
    tokenizer = getattr(processor, "tokenizer", processor)
    ends = {end_of_turn_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    vision = VisionTokens.of(processor) if processor is not tokenizer else None
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return SpecialTokens(frozenset(special - ends), vision)


def resized_images_of(images: Sequence[Image.Image], environment: EnvironmentConfig) -> list[Image.Image]:
    """The question's pictures as the model sees them."""
    return [resize_image(image, environment.max_image_pixels) for image in images]


def question_images(messages: list[Message]) -> Callable[[], list[bytes]] | None:
    """Reads the images as the record has them, whatever the model gets to see of them; None without any."""
    parts = list(image_parts(messages))
    return (lambda: [source_bytes(part) for part in parts]) if parts else None


def _views(execution: Execution, sizes: ObservationLimits) -> list[Image.Image]:
    """Decode the pictures that are shown and scale them down."""
    shown = execution.images[: sizes.images]
    return [resize_image(Image.open(io.BytesIO(image.png)), sizes.pixels) for image in shown]


def _with_images(text: str, images: list[Image.Image]) -> list[dict[str, Any]]:
    """Message content with each image in the place of its placeholder."""
    parts: list[dict[str, Any]] = []
    for position, piece in enumerate(text.split(IMAGE_PLACEHOLDER)):
        if position > 0:
            parts.append({"type": "image", "image": images[position - 1]})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts
