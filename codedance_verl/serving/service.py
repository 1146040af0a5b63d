"""Service that answers requests: the loop of training over vLLM and the sandbox of this process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from codedance_verl.data.conditions import Control
from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.environment.loop import Listener, MultiTurnLoop, Rollout, Timing, resized_images_of
from codedance_verl.environment.sandbox_client import SandboxClient
from codedance_verl.environment.stall_watchdog import StallWatchdog, TrackedRollout
from codedance_verl.environment.system_prompt import with_instructions
from codedance_verl.formats import get_format
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.serving.engine import Engine, EngineClient, Renderer, load_tokens
from codedance_verl.serving.errors import Fault, RequestError
from codedance_verl.serving.request_images import Bounds
from codedance_verl.serving.requests import ChatRequest
from codedance_verl.serving.settings import Settings
from codedance_verl.types import ExecutionStatus, FinishReason, Turn

logger = logging.getLogger(__name__)


class StreamListener(Listener):
    """Listener that also gets the text of a turn while it is sampled."""

    def text_sampled(self, text: str) -> None:
        """Gets the next text of the turn, as far as the loop will not cut it."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a trajectory.

    Attributes:
        turns: of the model, with executions and the feedback that still fitted.
        finish: reason of its end, never `INFRASTRUCTURE`.
        answer: text between the answer tags of the last turn, if any.
        prompt_ids: tokens of the prompt.
        turn_ids: tokens of each turn.
        timing: wall seconds by activity.
    """

    turns: tuple[Turn, ...]
    finish: FinishReason
    answer: str | None
    prompt_ids: tuple[int, ...]
    turn_ids: tuple[tuple[int, ...], ...]
    timing: Timing


class Service:
    """Service over one model; get one from `started`."""

    def __init__(self, settings: Settings, engine: Engine, pool: SandboxPool) -> None:
        self.settings = settings
        self.engine = engine
        self._pool = pool
        self._watch = StallWatchdog(settings.environment.stall_limit_s)

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, settings: Settings) -> AsyncIterator[Service]:
        """Starts vLLM and interpreters, which end with the block. Raises `UserError` where one does not start."""
        serving, environment = settings.serving, settings.environment
        tokens = await asyncio.to_thread(load_tokens, settings.model, serving.max_model_len)
        # they end in reverse order: no trajectory is left to send calls when the interpreters end
        async with (
            SandboxPool.local(settings.sandbox) as pool,
            Engine.started(settings.model, serving.engine, tokens, environment.max_images) as engine,
        ):
            yield cls(settings, engine, pool)

    @functools.cached_property
    def special_tokens(self) -> tuple[str, ...]:
        """Special tokens as text, which only the chat template may write."""
        return tuple(self.engine.tokens.tokenizer.convert_ids_to_tokens(sorted(self._special_ids)))

    @functools.cached_property
    def _special_ids(self) -> frozenset[int]:
        added = self.engine.tokens.tokenizer.added_tokens_decoder
        return frozenset(token_id for token_id, token in added.items() if token.special)

    @property
    def bounds(self) -> Bounds:
        """Bounds of the images in a request."""
        serving = self.settings.serving
        return Bounds(self.settings.environment.max_images, serving.max_image_pixels, serving.max_request_pixels)

    async def answer(self, request: ChatRequest, listener: StreamListener | None = None) -> Outcome:
        """Runs the loop until the model answers or a limit is met. Cancelled, it ends vLLM's request and the session.

        Raises:
            RequestError: the prompt does not fit into the model, more turns are asked for than the server allows, or
                something outside of the model failed (503).
        """
        environment = _limited(self.settings.environment, request.max_turns)
        name = uuid4().hex[:12]
        started = time.perf_counter()
        with self._watch.trajectory(name) as progress:
            try:
                loop, rollout = await self._begin(request, environment, listener or StreamListener(), progress)
            except asyncio.CancelledError:
                if progress.stalled:  # by the watchdog, not by a client that left
                    raise _failed(name, "its prompt was not rendered in time") from None
                raise
            finish = await loop.run(rollout, self._sampling(request))
        rollout.timing.total_s = time.perf_counter() - started
        if finish is FinishReason.INFRASTRUCTURE:
            reason = rollout.fault or "its session or its vLLM request was ended"
            raise _failed(name, reason, _fault_of(rollout))
        return _outcome(rollout, finish)

    async def _begin(
        self, request: ChatRequest, environment: EnvironmentConfig, listener: StreamListener, progress: TrackedRollout
    ) -> tuple[MultiTurnLoop, Rollout]:
        tokens = self.engine.tokens
        messages = list(request.messages)
        if environment.add_system_prompt:
            messages = with_instructions(messages, get_format(environment.format))
        renderer = Renderer(tokens)
        images = await renderer.images(messages)
        # the model reads resized images; the sandbox gets the files as they came (`request.images`)
        resized = await asyncio.to_thread(resized_images_of, images, environment)
        prompt_ids = await renderer.prompt(messages, resized)
        loop = MultiTurnLoop(
            environment=environment,
            server=EngineClient(self.engine, _on_text(listener, request.control), self._special_ids),
            tokenizer=tokens.tokenizer,
            processor=tokens.processor,
            append=renderer.append,
            watchdog=self._watch,
            response_length=self._room(len(prompt_ids), request.max_tokens),
            code_temperature=self.settings.serving.code_temperature,
            listener=listener,
        )
        sandbox = SandboxClient(lambda: self._pool, lambda: request.images, environment.sandbox_retries)
        rollout = loop.begin(messages, resized, prompt_ids, sandbox, progress)
        rollout.control = request.control
        return loop, rollout

    def _room(self, prompt: int, wanted: int | None) -> int:
        """Returns the tokens that may follow a prompt of `prompt` tokens; `wanted` is the client's own limit."""
        serving, longest = self.settings.serving, self.engine.tokens.max_model_len
        left = longest - prompt
        # fewer tokens leave no room for an answer
        if left < self.settings.environment.min_answer_tokens:
            raise RequestError(
                f"the prompt has {prompt} tokens, images included, of at most {longest} together with the reply",
                param="messages",
                code="context_length_exceeded",
            )
        return min(left, serving.response_tokens, wanted or serving.response_tokens)

    def _sampling(self, request: ChatRequest) -> dict[str, Any]:
        temperature = self.settings.serving.temperature if request.temperature is None else request.temperature
        # top_k -1 is all tokens, as in training
        params: dict[str, Any] = {"temperature": temperature, "top_p": request.top_p, "top_k": -1}
        return params if request.seed is None else {**params, "seed": request.seed}


def _limited(environment: EnvironmentConfig, max_turns: int | None) -> EnvironmentConfig:
    """Returns the environment with no more turns than a request allows."""
    if max_turns is None:
        return environment
    if max_turns > environment.max_turns:
        raise RequestError(
            f"codedance.max_turns is {max_turns}; at most {environment.max_turns} are allowed (environment.max_turns)",
            param="codedance.max_turns",
        )
    return environment.replace(max_turns=max_turns)


def _on_text(listener: StreamListener, control: Control | None) -> Callable[[str], None]:
    """Returns what gets text as it is sampled: nothing where a ban may take text back, so that turns come whole."""
    banning = control in (Control.NO_TOOLS, Control.FORCED_TOOLS)
    return StreamListener().text_sampled if banning else listener.text_sampled


def _fault_of(rollout: Rollout) -> Fault:
    """Returns what has failed: the sandbox, as far as the trajectory shows it, else the engine."""
    last = rollout.turns[-1].execution if rollout.turns else None
    killed = last is not None and last.status is ExecutionStatus.KILLED
    return Fault.SANDBOX if killed or rollout.lost_sandbox else Fault.ENGINE


def _failed(name: str, reason: str, fault: Fault = Fault.ENGINE) -> RequestError:
    # the reason may have paths and texts of the machine: the log gets it, the client a number to ask about
    logger.error("request %s failed: %s", name, reason)
    message = f"something outside of the model failed (request {name} in the server's log); ask again"
    return RequestError(message, status=503, code="infrastructure", fault=fault)


def _outcome(rollout: Rollout, finish: FinishReason) -> Outcome:
    stream = rollout.stream
    response = stream.response_ids
    return Outcome(
        turns=tuple(rollout.turns),
        finish=finish,
        answer=rollout.answer,
        prompt_ids=tuple(stream.ids[: stream.prompt_length]),
        turn_ids=tuple(tuple(response[turn.token_start : turn.token_end]) for turn in rollout.turns),
        timing=rollout.timing,
    )
