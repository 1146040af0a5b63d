"""Multi-turn loop of a trajectory: generate, parse, execute, observe, until an answer or a limit.

Training (`rollout/agent_loop.py`) and serving (`codedance_verl.serving`) run this one loop. It samples from anything
that has the `generate` of verl's server client, and calls a listener at every step.
"""

from __future__ import annotations

import asyncio
import functools
import io
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from PIL import Image

from codedance_verl.data.conditions import Control
from codedance_verl.environment import controls
from codedance_verl.environment.banned_strings import BanningSampler
from codedance_verl.environment.branch import Kept, ReplayDiffers, check_replayed
from codedance_verl.environment.call_watch import CallWatch
from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.environment.generation import EngineError, TurnSampler, for_part, kept_tokens
from codedance_verl.environment.observations import ObservationLimits, fit, observation_text, refused
from codedance_verl.environment.resized_images import image_parts, patch_count, resize_image, source_bytes
from codedance_verl.environment.sandbox_client import SandboxClient
from codedance_verl.environment.stall_watchdog import Phase, StallWatchdog, TrackedRollout
from codedance_verl.environment.time_limit import Pauses
from codedance_verl.environment.tokens import InvariantError, SpecialTokens, TokenStream, VisionTokens
from codedance_verl.formats import ParsedTurn, TurnFormat, get_format
from codedance_verl.sandbox.errors import SandboxError
from codedance_verl.types import IMAGE_PLACEHOLDER, Execution, ExecutionStatus, FinishReason, Observation, Turn

logger = logging.getLogger(__name__)

Message = dict[str, Any]

END_OF_TURN = "<|im_end|>"
TURN_MARKS = 16
"""Most tokens that the chat template puts around a feedback turn."""


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
    """Trajectory in the making.

    Attributes:
        images: as the model sees them, the question's first.
        image_hashes: `pixels_sha256` of the question's whole images (`resized_images.ResizedImage`).
        fault: error outside of the model that ended it.
        lost_sandbox: that error is the sandbox's.
        control: intervention of an evaluation; None for the environment as it is.
        kept: part of an earlier rollout that it begins with.
    """

    messages: list[Message]
    images: list[Image.Image]
    stream: TokenStream
    sandbox: SandboxClient
    progress: TrackedRollout
    turns: list[Turn] = field(default_factory=list)
    timing: Timing = field(default_factory=Timing)
    weight_versions: list[int] = field(default_factory=list)
    answer: str | None = None
    fault: str | None = None
    lost_sandbox: bool = False
    image_hashes: tuple[str, ...] = ()
    control: Control | None = None
    kept: Kept | None = None


class Listener:
    """Receiver of the events of a trajectory; this one ignores them."""

    def turn_sampled(self, turn: Turn, parsed: ParsedTurn) -> None:
        """Receives a complete turn of the model."""

    def code_ran(self, turn: Turn) -> None:
        """Receives a turn whose code ran, or whose call was refused: `turn.execution`."""

    def feedback_given(self, text: str) -> None:
        """Receives the feedback turn as the model gets it, a placeholder in the place of each image."""


@dataclass(frozen=True)
class MultiTurnLoop:
    """Rules and resources of trajectories.

    Attributes:
        environment: limits of a trajectory.
        server: samples tokens; has the `generate` of verl's server client, which may get a `call_watch` (`CallWatch`).
        tokenizer: of the model.
        processor: of the model; None for one without images.
        append: renders messages that were added: (messages before, messages now, tokens before) to all tokens now.
        watchdog: ends trajectories when none makes progress.
        response_length: tokens of a trajectory behind its prompt, feedback included.
        code_temperature: see `SamplingConfig`.
        listener: called at every step.
        pauses: during which the clock of a trajectory stands still.
    """

    environment: EnvironmentConfig
    server: Any
    tokenizer: Any
    processor: Any
    append: Callable[[list[Message], list[Message], list[int]], Awaitable[list[int]]]
    watchdog: StallWatchdog
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
        progress: TrackedRollout,
    ) -> Rollout:
        """Returns a trajectory that has its prompt alone; `images` are resized (`resized_images.resize_image`)."""
        special_tokens = _special_tokens(self.processor or self.tokenizer, self.end_of_turn_id)
        stream = TokenStream.from_prompt(prompt_ids, special_tokens, self._features(images))
        return Rollout(messages, images, stream, sandbox, progress)

    def begin_branch(self, kept: Kept, sandbox: SandboxClient, progress: TrackedRollout) -> Rollout:
        """Returns a trajectory that has what it keeps of an earlier one, but for the turn that it begins within."""
        rollout = Rollout(kept.messages, kept.images, kept.stream, sandbox, progress, turns=list(kept.turns))
        rollout.image_hashes, rollout.kept = kept.image_hashes, kept
        return rollout

    async def run(self, rollout: Rollout, sampling_params: dict[str, Any]) -> FinishReason:
        """Interacts until something ends the trajectory; returns what did.

        A failure outside of the model ends this trajectory as `infrastructure`, and no other one.

        Raises:
            ReplayDiffers: of a branch, whose session cannot be brought into the state of its parent's.
        """
        limit: asyncio.Timeout | None = None
        try:
            async with AsyncExitStack() as resources, self.pauses.limit(self.environment.trajectory_limit_s) as limit:
                return await self._interact(rollout, sampling_params, resources)
        except TimeoutError as error:
            if limit is not None and limit.expired():
                return FinishReason.TIME_LIMIT
            rollout.fault = f"TimeoutError: {error}"
        except (SandboxError, EngineError, InvariantError) as error:
            rollout.fault = f"{type(error).__name__}: {error}"
            rollout.lost_sandbox = isinstance(error, SandboxError)
        except asyncio.CancelledError:
            # the watchdog's own cancellation is taken back, and ends the trajectory alone; any other one goes through
            task = asyncio.current_task()
            if not rollout.progress.stalled or task is None or task.uncancel() > 0:
                raise
            rollout.fault = "no rollout made progress"
        except ReplayDiffers:
            raise
        except Exception as error:  # a defect of ours: logged in full, counted, and costs this trajectory alone
            logger.exception("record %s", rollout.progress.record_id)
            rollout.fault = f"{type(error).__name__}: {error}; please report this"
        return FinishReason.INFRASTRUCTURE

    async def _interact(
        self, rollout: Rollout, sampling_params: dict[str, Any], resources: AsyncExitStack
    ) -> FinishReason:
        """Alternates turns and observations."""
        request_id = uuid4().hex
        if not await self._replay(rollout, resources):
            return FinishReason.INFRASTRUCTURE
        while True:
            budget = self.response_length - rollout.stream.response_length
            if budget <= 0:
                return FinishReason.LENGTH
            turn = rollout.progress.turn = len(rollout.turns) + 1
            drawn = for_part(sampling_params, turn)
            watch = self._watch(rollout, turn, resources)
            parsed, span, aborted = await self._generate(rollout, request_id, drawn, budget, watch)
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

    async def _replay(self, rollout: Rollout, resources: AsyncExitStack) -> bool:
        """Runs the cells that a branch has kept in a session of its own; returns False where the sandbox is lost."""
        if rollout.kept is None:
            return True
        self.watchdog.enter(rollout.progress, Phase.EXECUTE)
        for turn in rollout.turns:
            if turn.code is None:  # a call that was refused has run nothing
                continue
            execution, waited_s = await rollout.sandbox.run(turn.code, resources)
            rollout.timing.queue_s += waited_s
            rollout.timing.execute_s += execution.duration_s
            if execution.status is ExecutionStatus.KILLED:
                return False
            check_replayed(turn.execution, execution)
        return True

    def _watch(self, rollout: Rollout, turn: int, resources: AsyncExitStack) -> CallWatch | None:
        """Returns what opens the session once a call is begun; None where it is open, or where no call would be run."""
        if not self.environment.open_early or not rollout.sandbox.unopened or turn >= self.environment.max_turns:
            return None
        if rollout.control is Control.NO_TOOLS:
            return None
        return CallWatch(self.format.call_prefix, functools.partial(rollout.sandbox.open_early, resources))

    async def _generate(
        self,
        rollout: Rollout,
        request_id: str,
        sampling_params: dict[str, Any],
        budget: int,
        watch: CallWatch | None,
    ) -> tuple[ParsedTurn, tuple[int, int], bool]:
        """Samples one assistant turn; returns it parsed, its span of the response, and whether vLLM aborted it."""
        self.watchdog.enter(rollout.progress, Phase.GENERATE)
        started = time.perf_counter()
        number = len(rollout.turns) + 1
        sampler = self._sampler(rollout, number, watch)
        kept = rollout.kept
        begun = kept.begun if kept is not None and len(rollout.turns) == kept.branch.turn else None
        output = await sampler.sample(
            request_id, rollout.stream.ids, sampling_params, rollout.images or None, budget, begun
        )
        rollout.timing.generate_s += time.perf_counter() - started
        rollout.weight_versions.extend(output.versions)
        whole = output.token_ids
        # cut before the first reserved token, then behind the end of the turn; log-probs are cut to the same length
        ids = kept_tokens(self.tokenizer, whole[: rollout.stream.sampled_prefix(whole)], self.format)
        logprobs = None if output.log_probs is None else output.log_probs[: len(ids)]
        span = rollout.stream.append_sampled(ids, logprobs)
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        parsed = self.format.parse(text)
        if rollout.control is not None:
            parsed = controls.allowed(rollout.control, parsed, number)
        rollout.turns.append(Turn(text, *span, code=parsed.code))
        self.listener.turn_sampled(rollout.turns[-1], parsed)
        return parsed, span, output.aborted

    def _sampler(self, rollout: Rollout, turn: int, watch: CallWatch | None) -> TurnSampler:
        """Returns what samples a turn, numbered from 1."""
        reserved = rollout.stream.special_tokens.reserved
        sampler = TurnSampler(self.server, self.tokenizer, self.format, reserved, self.code_temperature, watch=watch)
        if rollout.control is None:
            return sampler
        return BanningSampler(**vars(sampler), banned=controls.banned_strings(rollout.control, self.format, turn))

    async def _execute(self, rollout: Rollout, parsed: ParsedTurn, resources: AsyncExitStack) -> Execution:
        """Runs the turn's code, or refuses a call that cannot be read."""
        if parsed.code is None:
            execution = refused(parsed.fault or "")
        else:
            self.watchdog.enter(rollout.progress, Phase.EXECUTE)
            execution, waited_s = await rollout.sandbox.run(parsed.code, resources)
            if rollout.control is not None:
                execution = await asyncio.to_thread(controls.as_shown, rollout.control, execution)
            rollout.timing.queue_s += waited_s
            rollout.timing.execute_s += execution.duration_s
        rollout.turns[-1] = replace(rollout.turns[-1], execution=execution)
        self.listener.code_ran(rollout.turns[-1])
        return execution

    async def _observe(self, rollout: Rollout, execution: Execution) -> bool:
        """Appends the feedback turn; returns False, nothing appended, where it leaves too few tokens to answer with."""
        self.watchdog.enter(rollout.progress, Phase.OBSERVE)
        started = time.perf_counter()
        room = self.response_length - rollout.stream.response_length - self.environment.min_answer_tokens
        limits = self._fit(rollout, execution, room)
        appended = limits is not None and await self._append_observation(rollout, execution, limits, room)
        rollout.timing.observe_s += time.perf_counter() - started
        return appended

    def _fit(self, rollout: Rollout, execution: Execution, room: int) -> ObservationLimits | None:
        largest = largest_limits(self.environment, len(rollout.images), len(rollout.turns))

        def text_cost(text: str) -> int:
            return len(self.tokenizer.encode(text, add_special_tokens=False)) + TURN_MARKS

        patches = patch_count(self.processor) if execution.images else lambda width, height: 0
        return fit(execution, largest, room, text_cost, patches)

    async def _append_observation(
        self, rollout: Rollout, execution: Execution, limits: ObservationLimits, room: int
    ) -> bool:
        shown = await asyncio.to_thread(shown_images, execution, limits)
        text = observation_text(execution, limits)
        assistant = {"role": "assistant", "content": [{"type": "text", "text": rollout.turns[-1].text}]}
        previous = [*rollout.messages, assistant]
        updated = [*previous, {"role": "user", "content": with_images(text, shown)}]
        ids = rollout.stream.ids
        # a turn that ended at a stop string lacks the template's end of turn, which no one sampled
        boundary = [] if ids[-1] == self.end_of_turn_id else [self.end_of_turn_id]
        added = (await self.append(previous, updated, [*ids, *boundary]))[len(ids) :]
        if len(added) > room:  # `fit` estimates; whole or not at all, so no limit cuts through an image
            return False
        rollout.stream.append_context(added, self._features(shown))
        rollout.messages = updated
        rollout.images.extend(shown)
        rollout.turns[-1] = replace(rollout.turns[-1], observation=Observation(text, len(shown)))
        self.listener.feedback_given(text)
        return True

    def _features(self, images: list[Image.Image]) -> list[int]:
        """Returns the merged patches of each image, that is its tokens."""
        if not images:
            return []
        patches = patch_count(self.processor)
        return [patches(*image.size) for image in images]


@functools.lru_cache(maxsize=4)
def _special_tokens(processor: Any, end_of_turn_id: int) -> SpecialTokens:
    tokenizer = getattr(processor, "tokenizer", processor)
    # the model itself may write what ends a turn; all other special tokens are the chat template's
    ends = {end_of_turn_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    vision = VisionTokens.of(processor) if processor is not tokenizer else None
    special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return SpecialTokens(frozenset(special - ends), vision)


def resized_images_of(images: Sequence[Image.Image], environment: EnvironmentConfig) -> list[Image.Image]:
    """Returns the question's images as the model sees them."""
    return [resize_image(image, environment.max_image_pixels) for image in images]


def question_images(messages: list[Message]) -> Callable[[], list[bytes]] | None:
    """Returns a reader of the images in full, as the record has them; None without any."""
    parts = list(image_parts(messages))
    return (lambda: [source_bytes(part) for part in parts]) if parts else None


def largest_limits(environment: EnvironmentConfig, images: int, turns: int) -> ObservationLimits:
    """Returns the most that the observation of turn `turns`, from 1, may show, `images` being in the trajectory."""
    return ObservationLimits(
        chars=environment.max_observation_chars,
        pixels=environment.max_image_pixels,
        images=max(environment.max_images - images, 0),
        last_turn=turns == environment.max_turns - 1,
    )


def shown_images(execution: Execution, limits: ObservationLimits) -> list[Image.Image]:
    """Decodes the images that are shown and scales them down."""
    shown = execution.images[: limits.images]
    return [resize_image(Image.open(io.BytesIO(image.png)), limits.pixels) for image in shown]


def with_images(text: str, images: list[Image.Image]) -> list[dict[str, Any]]:
    """Returns message content with each image in the place of its placeholder."""
    parts: list[dict[str, Any]] = []
    for position, piece in enumerate(text.split(IMAGE_PLACEHOLDER)):
        if position > 0:
            parts.append({"type": "image", "image": images[position - 1]})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts
