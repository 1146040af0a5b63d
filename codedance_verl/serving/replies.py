"""A trajectory as OpenAI's chat completions have it, whole or in chunks.

The answer is the `content`. What led to it, turns and feedback as the model wrote and read them, is the
`reasoning_content`; pictures that code displayed are `images`, and `codedance` has the trajectory as data.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

from codedance_verl.formats import ANSWER_START, ParsedTurn
from codedance_verl.serving.requests import ChatRequest
from codedance_verl.serving.service import Outcome, Service, StreamListener
from codedance_verl.types import Execution, FinishReason, RenderedImage, Turn


@dataclass(frozen=True)
class Reasoning:
    """More of what the model wrote on its way to the answer, or of the feedback it read."""

    text: str


@dataclass(frozen=True)
class ToolExecuted:
    """A turn's code ran, or was refused."""

    turn: Turn


Piece = Reasoning | ToolExecuted | Outcome


class Transcript(StreamListener):
    """Puts what happens into a queue, the answer left out: it is known to be one when its turn is complete."""

    def __init__(self, queue: asyncio.Queue[Piece | None]) -> None:
        self._queue = queue
        self._turn = ""  # of the turn under way, what came
        self._told = 0  # and how many characters of it were passed on

    def text_sampled(self, text: str) -> None:
        self._turn += text
        self._tell(self._turn, _before_answer(self._turn))

    def turn_sampled(self, turn: Turn, parsed: ParsedTurn) -> None:
        if turn.text.startswith(self._turn[: self._told]):
            self._tell(turn.text, parsed.start if parsed.answer is not None else len(turn.text))
        self._turn, self._told = "", 0

    def code_ran(self, turn: Turn) -> None:
        self._queue.put_nowait(ToolExecuted(turn))

    def feedback_given(self, text: str) -> None:
        self._queue.put_nowait(Reasoning(f"\n{text}\n"))

    def _tell(self, text: str, end: int) -> None:
        if end > self._told:
            self._queue.put_nowait(Reasoning(text[self._told : end]))
            self._told = end


def _before_answer(text: str) -> int:
    """Characters before an answer that begins, or may be about to."""
    if (start := text.find(ANSWER_START)) >= 0:
        return start
    longest = next((n for n in range(len(ANSWER_START) - 1, 0, -1) if text.endswith(ANSWER_START[:n])), 0)
    return len(text) - longest


async def pieces(service: Service, ask: ChatRequest) -> AsyncGenerator[Piece, None]:
    """A trajectory as it happens, at last its outcome. Whoever stops listening ends it, sandbox session included.

    Raises `RequestError` as `Service.answer` does.
    """
    queue: asyncio.Queue[Piece | None] = asyncio.Queue()
    task = asyncio.create_task(service.answer(ask, Transcript(queue)))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (piece := await queue.get()) is not None:
            yield piece
        yield await task
    finally:
        task.cancel()
        await asyncio.wait([task])


class Reply:
    """One reply: its id and what its parts look like."""

    def __init__(self, model: str, ask: ChatRequest) -> None:
        self._ask = ask
        self._head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": model}
        self._images = 0
        self._turns = 0

    async def whole(self, parts: AsyncIterator[Piece]) -> dict[str, Any]:
        """The body of a reply that is not streamed."""
        reasoning: list[str] = []
        async for piece in parts:
            if isinstance(piece, Reasoning):
                reasoning.append(piece.text)
            elif isinstance(piece, Outcome):
                outcome = piece
        images = [image for turn in outcome.turns if turn.execution for image in turn.execution.images]
        message = {
            "role": "assistant",
            "content": content(outcome),
            "reasoning_content": "".join(reasoning),
            "images": [_image_part(image, index) for index, image in enumerate(images)],
            "codedance": self._summary(outcome) | {"turns": self._all_turns(outcome)},
        }
        choice = {"index": 0, "message": message, "finish_reason": finish_reason(outcome), "logprobs": None}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": usage(outcome)}

    def first(self) -> dict[str, Any]:
        """The chunk that opens a stream."""
        return self._chunk({"role": "assistant", "content": ""})

    def chunks(self, piece: Piece) -> list[dict[str, Any]]:
        """What a piece adds to a stream."""
        if isinstance(piece, Reasoning):
            return [self._chunk({"reasoning_content": piece.text})]
        if isinstance(piece, ToolExecuted):
            return [self._ran(piece.turn)]
        last = self._chunk({}, finish_reason(piece))
        last["choices"][0]["delta"] = {"codedance": self._summary(piece)}
        ending = [self._chunk({"content": content(piece)}), last]
        if self._ask.with_usage:
            ending.append({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage(piece)})
        return ending

    def _ran(self, turn: Turn) -> dict[str, Any]:
        images = turn.execution.images if turn.execution else ()
        parts = [_image_part(image, self._images + index) for index, image in enumerate(images)]
        delta: dict[str, Any] = {"codedance": {"turns": [_turn(turn, self._turns, self._images)]}}
        self._turns += 1
        self._images += len(images)
        return self._chunk({**delta, "images": parts} if parts else delta)

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def _all_turns(self, outcome: Outcome) -> list[dict[str, Any]]:
        turns, images = [], 0
        for index, turn in enumerate(outcome.turns):
            observation = turn.observation.text if turn.observation is not None else None
            turns.append(_turn(turn, index, images) | {"observation": observation})
            images += len(turn.execution.images) if turn.execution else 0
        return turns

    def _summary(self, outcome: Outcome) -> dict[str, Any]:
        summary: dict[str, Any] = {
            "finish": str(outcome.finish),
            "answer": outcome.answer,
            "timing": {name: round(seconds, 4) for name, seconds in asdict(outcome.timing).items()},
        }
        if self._ask.with_token_ids:
            summary["prompt_token_ids"] = list(outcome.prompt_ids)
            summary["turn_token_ids"] = [list(ids) for ids in outcome.turn_ids]
        return summary


def content(outcome: Outcome) -> str:
    """The answer; where there is none, the last turn if it ended the trajectory by asking for nothing."""
    if outcome.answer is not None:
        return outcome.answer
    return outcome.turns[-1].text.strip() if outcome.finish is FinishReason.NO_ACTION else ""


def finish_reason(outcome: Outcome) -> str:
    """`stop` where the model came to an end of its own, `length` where a limit ended it."""
    return "stop" if outcome.finish in (FinishReason.ANSWER, FinishReason.NO_ACTION) else "length"


def usage(outcome: Outcome) -> dict[str, int]:
    """Tokens of the prompt and of what the model wrote; feedback is in neither."""
    prompt, written = len(outcome.prompt_ids), sum(map(len, outcome.turn_ids))
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _turn(turn: Turn, index: int, first_image: int) -> dict[str, Any]:
    execution = turn.execution
    done = None if execution is None else _execution(execution, first_image)
    return {"index": index, "text": turn.text, "code": turn.code, "execution": done}


def _execution(execution: Execution, first_image: int) -> dict[str, Any]:
    return execution.as_record(
        [
            {"index": first_image + index, "sha256": image.sha256, "width": image.width, "height": image.height}
            for index, image in enumerate(execution.images)
        ]
    )


def _image_part(image: RenderedImage, index: int) -> dict[str, Any]:
    encoded = base64.b64encode(image.png).decode()
    return {"type": "image_url", "index": index, "image_url": {"url": f"data:image/png;base64,{encoded}"}}
