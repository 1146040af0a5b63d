"""Answers of any OpenAI-compatible chat endpoint: the loop runs here, over texts, with a sandbox of this process.

The environment's own functions read calls, run them, word observations and scale images, under the same limits as in
training (`environment/loop.py`). What an endpoint does not have is tokens: `max_tokens` counts those it reports, an
observation is bounded by characters and pixels alone, and earlier turns are rendered again by the endpoint's template.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from codedance_verl import images as image_files
from codedance_verl.data.conditions import Control
from codedance_verl.environment import controls
from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.environment.generation import seed_of
from codedance_verl.environment.loop import largest_limits, resized_images_of, shown_images, with_images
from codedance_verl.environment.observations import observation_text, refused
from codedance_verl.environment.sandbox_client import SandboxClient
from codedance_verl.environment.system_prompt import with_instructions
from codedance_verl.errors import UserError
from codedance_verl.formats import TurnFormat, get_format, render_think
from codedance_verl.harness.completions import Completion, Completions, ContextFull
from codedance_verl.harness.http import Endpoint, Refusal, Transport
from codedance_verl.harness.image_urls import image_part, png_url
from codedance_verl.harness.reply import ImageFolder, Overloaded, Question, Reply, Unanswered
from codedance_verl.harness.sampling import Sampling
from codedance_verl.records.key import Json
from codedance_verl.records.record import Status
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.errors import SandboxError, SandboxInputError
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.serving.identity import limits_of, prompt_of
from codedance_verl.serving.replies import final_text
from codedance_verl.trajectories.schema import ExecutionRecord, Timing, TurnRecord
from codedance_verl.types import Execution, ExecutionStatus, FinishReason

OVERLOADED_WAITS, FIRST_WAIT_S, LONGEST_WAIT_S = 6, 1.0, 60.0
"""Waits of a trajectory that has begun for an endpoint with too much to do; then it is asked anew as a whole."""


@dataclass(frozen=True)
class ChatSettings:
    """Model at the endpoint, and the rules of a trajectory.

    Attributes:
        model: name at the endpoint.
        sampling: of the replies; `max_tokens` is that of all turns together.
        environment: limits, format and system message.
        tools: code is run; without it the plain question is asked once, and the whole content is the answer.
        control: intervention, of which `grey_observations` alone needs nothing of the endpoint; None for none.
        revision: what else tells the model apart from another of its name; empty for nothing.
    """

    model: str
    sampling: Sampling = field(default_factory=Sampling)
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    tools: bool = True
    control: Control | None = None
    revision: str = ""

    def __post_init__(self) -> None:
        if self.control not in (None, Control.GREY_OBSERVATIONS):
            raise UserError(
                f"control={self.control}: a chat endpoint cannot ban what is sampled; evaluate the checkpoint itself "
                "or a running `codedance serve`, or ask without tools"
            )
        if self.control is not None and not self.tools:
            raise UserError(f"control={self.control}: there are no observations without tools; leave one of them out")


class ChatAnswerer:
    """Answerer over one endpoint; get one from `opened`."""

    def __init__(
        self, transport: Transport, settings: ChatSettings, sandbox: SandboxConfig, pool: SandboxPool | None
    ) -> None:
        self._endpoint = transport.endpoint
        self._completions = Completions(transport, settings.model)
        self._settings = settings
        self._sandbox = sandbox
        self._pool = pool

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls,
        endpoint: Endpoint,
        settings: ChatSettings,
        sandbox: SandboxConfig,
        variables: Mapping[str, str] | None = None,
    ) -> AsyncIterator[ChatAnswerer]:
        """Starts the interpreters, with tools, and opens connections; both end with the block.

        `variables` hold the key, as `os.environ`. Raises UserError: the sandbox does not start.
        """
        async with AsyncExitStack() as resources:
            # first in, last out: no trajectory is left to send calls when the interpreters end
            pool = await resources.enter_async_context(SandboxPool.local(sandbox)) if settings.tools else None
            transport = await resources.enter_async_context(Transport.opened(endpoint, variables))
            yield cls(transport, settings, sandbox, pool)

    @property
    def most_at_once(self) -> int:
        return self._endpoint.at_once

    def describe(self) -> dict[str, Json]:
        """Parts of the key. The address is in none of them: a model may move."""
        settings, environment = self._settings, self._settings.environment
        limits = {"max_tokens": settings.sampling.max_tokens}
        if settings.tools:
            prompt, ours = prompt_of(environment), limits_of(environment, self._sandbox)
        else:
            prompt, ours = (
                {"format": None, "system_prompt_sha256": None},
                {
                    "max_image_pixels": environment.max_image_pixels,
                    "trajectory_limit_s": environment.trajectory_limit_s,
                },
            )
        return {
            "model": {"name": settings.model, "revision": settings.revision},
            # the endpoint renders messages by a template that it does not show
            "prompt": {**prompt, "chat_template_sha256": None, "loop": "chat" if settings.tools else "plain"},
            "limits": {**ours, **limits},
        }

    async def answer(self, question: Question, images: ImageFolder) -> Reply:
        """Reply after a trajectory, or to the plain question (`Answerer.answer`)."""
        # `Overloaded` passes: the dispatcher asks again
        trajectory = _Trajectory(self._settings, self._completions, self._pool, question, images)
        try:
            return await trajectory.run()
        except Refusal as refusal:
            raise refusal.unanswered() from None
        except SandboxInputError as error:
            raise Unanswered(Status.IMAGE_UNREADABLE, str(error)[:300]) from None
        except SandboxError as error:
            raise Unanswered(Status.SANDBOX_FAULT, f"{type(error).__name__}: {error}"[:300]) from None


class _Trajectory:
    """Trajectory of one question."""

    def __init__(
        self,
        settings: ChatSettings,
        completions: Completions,
        pool: SandboxPool | None,
        question: Question,
        folder: ImageFolder,
    ) -> None:
        self._settings, self._completions, self._pool = settings, completions, pool
        self._question, self._folder = question, folder
        self._format: TurnFormat = get_format(settings.environment.format)
        self._messages: list[dict[str, Any]] = []
        self._images = 0
        self._turns: list[TurnRecord] = []
        self._answer: str | None = None
        self._last_text = ""
        self._served_by = ""
        self._prompt_tokens: int | None = None
        self._written: int | None = 0
        self._generate_s = self._execute_s = self._queue_s = self._observe_s = 0.0
        self._waiting_since: float | None = None

    async def run(self) -> Reply:
        started = time.perf_counter()
        self._messages = await asyncio.to_thread(self._asked)  # images are slow to decode, and others wait on this loop
        finish = await self._in_time(self._interact if self._settings.tools else self._plain)
        timing = Timing(
            self._generate_s, self._execute_s, self._queue_s, time.perf_counter() - started, self._observe_s
        )
        text = final_text(self._answer, finish, self._last_text)
        return Reply(
            text=text,
            finish=finish,
            turns=tuple(self._turns),
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._written,
            timing=timing,
            served_by=self._served_by,
        )

    def _asked(self) -> list[dict[str, Any]]:
        """Messages of the question, with its images as the model sees them. Raises Unanswered: one is unreadable."""
        environment = self._settings.environment
        try:
            decoded = [image_files.decode(image) for image in self._question.images]
            resized = resized_images_of(decoded, environment)
        except Exception as error:  # Pillow's decoders raise almost anything for broken files
            raise Unanswered(Status.IMAGE_UNREADABLE, f"{type(error).__name__}: {error}"[:300]) from None
        self._images = len(resized)
        parts: list[dict[str, Any]] = [{"type": "image", "image": image} for image in resized]
        messages = [{"role": "user", "content": [*parts, {"type": "text", "text": self._question.item.question}]}]
        if self._question.item.system:
            messages.insert(0, {"role": "system", "content": self._question.item.system})
        if self._settings.tools and environment.add_system_prompt:
            messages = with_instructions(messages, self._format)
        return [{**message, "content": _as_openai(message["content"])} for message in messages]

    async def _in_time(self, finish: Callable[[AsyncExitStack], Awaitable[FinishReason]]) -> FinishReason:
        limit = asyncio.timeout(self._settings.environment.trajectory_limit_s)
        try:
            # the limit inside, so that the session is closed after it has struck
            async with AsyncExitStack() as resources, limit:
                return await finish(resources)
        except TimeoutError as error:
            if limit.expired():  # a time-out of the sandbox's own is the same exception
                return self._out_of_time()
            raise Unanswered(Status.SANDBOX_FAULT, f"TimeoutError: {error}"[:300]) from None

    def _out_of_time(self) -> FinishReason:
        """End at the time limit. Raises Unanswered: the endpoint owed a reply then, which is no fault of the model."""
        if self._waiting_since is None:
            return FinishReason.TIME_LIMIT  # the model's code, or showing its output, took the time
        waited_s, limit_s = time.perf_counter() - self._waiting_since, self._settings.environment.trajectory_limit_s
        raise Unanswered(
            Status.ENDPOINT_FAILURE,
            f"turn {len(self._turns) + 1}: no reply within {waited_s:.0f} s, and the trajectory's {limit_s:g} s "
            "(environment.trajectory_limit_s) are over",
        ) from None

    async def _plain(self, _: AsyncExitStack) -> FinishReason:
        """Asks once, without tools."""
        try:
            found = await self._sampled(None)
        except ContextFull as error:
            # of the item: a question that is too long says nothing of the endpoint's health
            raise Unanswered(Status.ENDPOINT_FAILURE, str(error), of_item=True) from None
        self._turns.append(TurnRecord(_whole_text(found), None, None, None, found.completion_tokens))
        self._answer = found.text.strip()
        return FinishReason.LENGTH if found.cut else FinishReason.ANSWER

    async def _interact(self, resources: AsyncExitStack) -> FinishReason:
        """Alternates turns and observations, as `MultiTurnLoop` does."""
        environment = self._settings.environment
        pool = self._pool
        assert pool is not None, "there is a pool with tools"
        sandbox = SandboxClient(lambda: pool, lambda: self._question.images, environment.sandbox_retries)
        while True:
            if self._left() == 0:  # servers refuse a request for no tokens
                return FinishReason.LENGTH
            try:
                found = await self._sampled(self._format)
            except ContextFull as error:
                if not self._turns:
                    raise Unanswered(Status.ENDPOINT_FAILURE, str(error), of_item=True) from None
                # turns and observations have filled the context: an end like that of the tokens
                return FinishReason.LENGTH
            parsed = self._format.parse(found.text)
            self._last_text = found.text
            self._turns.append(TurnRecord(_whole_text(found), parsed.code, None, None, found.completion_tokens))
            if parsed.code is None and parsed.fault is None:
                self._answer = parsed.answer
                if parsed.answer is not None:
                    return FinishReason.ANSWER
                return FinishReason.LENGTH if found.cut else FinishReason.NO_ACTION
            if len(self._turns) >= environment.max_turns:
                return FinishReason.TURN_LIMIT
            execution = await self._executed(parsed.code, parsed.fault, sandbox, resources)
            await self._observe(found.text, execution)

    async def _sampled(self, format: TurnFormat | None) -> Completion:
        """Next message of the model, up to the end of its turn by the format; whole without one."""
        started, turn = time.perf_counter(), len(self._turns) + 1
        fields, left = self._fields(turn), self._left()
        if left is not None:
            fields["max_tokens"] = left
        wait_s, self._waiting_since = FIRST_WAIT_S, started
        for waits in range(OVERLOADED_WAITS + 1):
            try:
                if format is None:
                    found = await self._completions.once(self._messages, fields)
                else:
                    found = await self._completions.turn(self._messages, fields, format)
                break
            except Overloaded as refusal:
                # before the first turn nothing is lost: the question gives its place to another one
                if turn == 1 or waits == OVERLOADED_WAITS:
                    raise
                # an endpoint that always asks for 0 or 1 s is to be left alone for longer and longer too
                await asyncio.sleep(min(max(refusal.retry_after_s or 0.0, wait_s), LONGEST_WAIT_S))
                wait_s *= 2
        self._waiting_since = None
        self._generate_s += time.perf_counter() - started
        self._count(found)
        return found

    def _fields(self, turn: int) -> dict[str, Any]:
        sampling = self._settings.sampling
        seed = sampling.seed_of_sample(self._question.sample)
        # each turn has a seed of its own, as in training; 31 bits, which every server takes
        return sampling.fields(seed if seed is None or not self._settings.tools else seed_of(seed, turn) & 0x7FFFFFFF)

    def _left(self) -> int | None:
        """Tokens that may still be written; None for as many as the endpoint allows."""
        most = self._settings.sampling.max_tokens
        # where the endpoint reports no tokens, each turn has them all
        return None if most is None else max(most - (self._written or 0), 0)

    def _count(self, found: Completion) -> None:
        if not self._served_by:
            # of the first turn that names its model: later prompts hold turns and observations too
            self._served_by, self._prompt_tokens = found.model, found.prompt_tokens
        tokens = found.completion_tokens
        self._written = None if tokens is None or self._written is None else self._written + tokens

    async def _executed(
        self, code: str | None, fault: str | None, sandbox: SandboxClient, resources: AsyncExitStack
    ) -> Execution:
        """Runs the code, or refuses a call that cannot be read. Raises Unanswered: the session has died."""
        if code is None:
            return refused(fault or "")
        execution, waited_s = await sandbox.run(code, resources)
        if execution.status is ExecutionStatus.KILLED:
            raise Unanswered(Status.SANDBOX_FAULT, "the interpreter of the session was stopped")
        if self._settings.control is not None:
            execution = await asyncio.to_thread(controls.as_shown, self._settings.control, execution)
        self._queue_s += waited_s
        self._execute_s += execution.duration_s
        return execution

    async def _observe(self, text: str, execution: Execution) -> None:
        started = time.perf_counter()
        limits = largest_limits(self._settings.environment, self._images, len(self._turns))
        observation = observation_text(execution, limits)
        shown = await asyncio.to_thread(shown_images, execution, limits)
        content = await asyncio.to_thread(_as_openai, with_images(observation, shown))
        self._messages += [{"role": "assistant", "content": text}, {"role": "user", "content": content}]
        self._images += len(shown)
        record = await asyncio.to_thread(_record, execution, self._folder)
        # it was noted before its code ran, so that a turn cut off by the time limit is on record
        turn = self._turns[-1]
        self._turns[-1] = TurnRecord(turn.text, turn.code, observation, record, turn.tokens, len(shown))
        self._observe_s += time.perf_counter() - started


def _record(execution: Execution, folder: ImageFolder) -> ExecutionRecord:
    return ExecutionRecord(
        status=execution.status,
        stdout=execution.stdout,
        error=execution.error,
        images=tuple(folder.keep(image.png) for image in execution.images),
        duration_s=execution.duration_s,
        queue_s=execution.queue_s,
        truncated=execution.truncated,
    )


def _as_openai(content: Any) -> Any:
    """Content of a message of the environment as the API has it; texts stay as they are."""
    if isinstance(content, str):
        return content
    return [image_part(png_url(part["image"])) if part["type"] == "image" else part for part in content]


def _whole_text(found: Completion) -> str:
    """Text of a turn with the thoughts that the endpoint gave apart from it."""
    return f"{render_think(found.reasoning)}\n{found.text}" if found.reasoning else found.text
