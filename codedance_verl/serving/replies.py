"""Replies to chat completions in OpenAI's format, whole or in chunks, made of a trajectory.

The answer is the `content`. Turns and feedback before it, as the model wrote and read them, are the
`reasoning_content`; images that code displayed are `images`, and `codedance` has the trajectory as data.
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
    """Next part of the text before the answer: of a turn, or of feedback."""

    text: str


@dataclass(frozen=True)
class ToolExecuted:
    """Event of a turn whose code has run, or was refused."""

    turn: Turn


Piece = Reasoning | ToolExecuted | Outcome


class Transcript(StreamListener):
    """Listener that puts events into a queue, but for the answer, which ends the trajectory with the `Outcome`."""

    def __init__(self, queue: asyncio.Queue[Piece | None]) -> None:
        self._queue = queue
        self._turn = ""  # text of the turn in progress
        self._sent = 0  # characters of it that are in the queue

    def text_sampled(self, text: str) -> None:
        self._turn += text
        self._send(self._turn, _before_answer(self._turn))

    def turn_sampled(self, turn: Turn, parsed: ParsedTurn) -> None:
        # the loop may have cut the turn at its end; what was sent of it cannot be taken back
        if turn.text.startswith(self._turn[: self._sent]):
            self._send(turn.text, parsed.start if parsed.answer is not None else len(turn.text))
        self._turn, self._sent = "", 0

    def code_ran(self, turn: Turn) -> None:
        self._queue.put_nowait(ToolExecuted(turn))

    def feedback_given(self, text: str) -> None:
        self._queue.put_nowait(Reasoning(f"\n{text}\n"))

    def _send(self, text: str, end: int) -> None:
        if end > self._sent:
            self._queue.put_nowait(Reasoning(text[self._sent : end]))
            self._sent = end


def _before_answer(text: str) -> int:
    """Returns the number of characters before the tag of an answer, or before a beginning of the tag at the end."""
    if (start := text.find(ANSWER_START)) >= 0:
        return start
    longest = next((n for n in range(len(ANSWER_START) - 1, 0, -1) if text.endswith(ANSWER_START[:n])), 0)
    return len(text) - longest


async def pieces(service: Service, request: ChatRequest) -> AsyncGenerator[Piece, None]:
    """Yields the events of a trajectory, at last its outcome; closing the generator ends trajectory and session.

    Raises `RequestError` as `Service.answer` does.
    """
    queue: asyncio.Queue[Piece | None] = asyncio.Queue()
    task = asyncio.create_task(service.answer(request, Transcript(queue)))
    # the end mark also comes where the trajectory fails; awaiting the task raises its error
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (piece := await queue.get()) is not None:
            yield piece
        yield await task
    finally:
        task.cancel()
        await asyncio.wait([task])


class Reply:
    """Builder of one reply: its id, and the JSON of its parts."""

    def __init__(self, model: str, request: ChatRequest) -> None:
        self._request = request
        self._head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": model}
        self._images = 0
        self._turns = 0

    async def whole(self, parts: AsyncIterator[Piece]) -> dict[str, Any]:
        """Returns the body of a reply that is not streamed."""
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
        """Returns the chunk that opens a stream."""
        return self._chunk({"role": "assistant", "content": ""})

    def chunks(self, piece: Piece) -> list[dict[str, Any]]:
        """Returns the chunks of an event."""
        if isinstance(piece, Reasoning):
            return [self._chunk({"reasoning_content": piece.text})]
        if isinstance(piece, ToolExecuted):
            return [self._executed(piece.turn)]
        last = self._chunk({}, finish_reason(piece))
        last["choices"][0]["delta"] = {"codedance": self._summary(piece)}
        # a client may stop at the finish_reason, so that the answer goes before it
        ending = [self._chunk({"content": content(piece)}), last]
        if self._request.with_usage:
            ending.append({**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage(piece)})
        return ending

    def _executed(self, turn: Turn) -> dict[str, Any]:
        images = turn.execution.images if turn.execution else ()
        parts = [_image_part(image, self._images + index) for index, image in enumerate(images)]
        delta: dict[str, Any] = {"codedance": {"turns": [_turn(turn, self._turns, self._images)]}}
        self._turns += 1  # indices count over all chunks of a stream
        self._images += len(images)
        return self._chunk({**delta, "images": parts} if parts else delta)

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def _all_turns(self, outcome: Outcome) -> list[dict[str, Any]]:
        turns, images = [], 0
        for index, turn in enumerate(outcome.turns):
            turns.append(_turn(turn, index, images) | _shown(turn))
            images += len(turn.execution.images) if turn.execution else 0
        return turns

    def _summary(self, outcome: Outcome) -> dict[str, Any]:
        summary: dict[str, Any] = {
            "finish": str(outcome.finish),
            "answer": outcome.answer,
            "control": self._request.control,
            "max_turns": self._request.max_turns,
            "timing": {name: round(seconds, 4) for name, seconds in asdict(outcome.timing).items()},
        }
        if self._request.with_token_ids:
            summary["prompt_token_ids"] = list(outcome.prompt_ids)
            summary["turn_token_ids"] = [list(ids) for ids in outcome.turn_ids]
        return summary


def content(outcome: Outcome) -> str:
    """Returns the `content` of the reply."""
    return final_text(outcome.answer, outcome.finish, outcome.turns[-1].text if outcome.turns else "")


def final_text(answer: str | None, finish: FinishReason, last_turn: str) -> str:
    """Returns the answer; without one the last turn, if it had no call either, else an empty text."""
    if answer is not None:
        return answer
    return last_turn.strip() if finish is FinishReason.NO_ACTION else ""


def finish_reason(outcome: Outcome) -> str:
    """Returns `stop` where the model ended the trajectory, `length` where a limit did."""
    return "stop" if outcome.finish in (FinishReason.ANSWER, FinishReason.NO_ACTION) else "length"


def usage(outcome: Outcome) -> dict[str, int]:
    """Returns the tokens of prompt and turns; feedback is in neither."""
    prompt, written = len(outcome.prompt_ids), sum(map(len, outcome.turn_ids))
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _turn(turn: Turn, index: int, first_image: int) -> dict[str, Any]:
    execution = turn.execution
    # images are referred to by their index in the reply, which has their bytes once
    done = None if execution is None else _execution(execution, first_image)
    return {"index": index, "text": turn.text, "code": turn.code, "execution": done}


def _shown(turn: Turn) -> dict[str, Any]:
    """Returns what the model was shown of a turn's execution, and the tokens that it wrote."""
    shown, tokens = turn.observation, turn.token_end - turn.token_start
    if shown is None:
        return {"observation": None, "images_shown": None, "tokens": tokens}
    return {"observation": shown.text, "images_shown": shown.images, "tokens": tokens}


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
