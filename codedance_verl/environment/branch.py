"""Branches of a rollout: the places of its calls, the state at one of them, and a check that the state came back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codedance_verl.environment.generation import Sampled
from codedance_verl.environment.tokens import TokenStream
from codedance_verl.formats import TurnFormat
from codedance_verl.reward.redraw import CallPlace
from codedance_verl.types import Branch, Execution, Turn

if TYPE_CHECKING:
    from PIL import Image

    from codedance_verl.environment.loop import Message, Rollout


class ReplayDiffers(Exception):
    """Result of a replayed cell that is not the recorded one: the session is not in the state that the thought saw."""


@dataclass(frozen=True)
class Kept:
    """Part of a finished rollout that a branch begins with.

    Attributes:
        branch: parent and place.
        messages, images, turns, image_hashes: those in front of the turn of the call, as in `loop.Rollout`.
        stream: tokens in front of that turn; belongs to one branch.
        begun: tokens of that turn up to the opening of its call.
    """

    branch: Branch
    messages: list[Message]
    images: list[Image.Image]
    turns: tuple[Turn, ...]
    image_hashes: tuple[str, ...]
    stream: TokenStream
    begun: Sampled


def kept_of(parent: Rollout, branch: Branch) -> Kept:
    """Returns what a branch of a finished rollout keeps; each call returns lists of its own."""
    turns = tuple(parent.turns[: branch.turn])
    start = parent.turns[branch.turn].token_start
    # every observation has added a message of the model and one of the environment, and images behind the others
    later = [turn.observation for turn in parent.turns[branch.turn :] if turn.observation is not None]
    images = len(parent.images) - sum(observation.images for observation in later)
    return Kept(
        branch=branch,
        messages=parent.messages[: len(parent.messages) - 2 * len(later)],
        images=parent.images[:images],
        turns=turns,
        image_hashes=parent.image_hashes,
        stream=parent.stream.first(start, images),
        begun=Sampled(
            parent.stream.response_ids[start : branch.token], parent.stream.logprobs[start : branch.token], (), False
        ),
    )


def call_places(rollout: Rollout, tokenizer: Any, format: TurnFormat) -> list[CallPlace]:
    """Returns the places of the calls of a finished rollout that were answered, in order."""
    places = (
        _place(number, turn, rollout.stream, tokenizer, format)
        for number, turn in enumerate(rollout.turns)
        if turn.execution is not None
    )
    return [place for place in places if place is not None]


def _place(number: int, turn: Turn, stream: TokenStream, tokenizer: Any, format: TurnFormat) -> CallPlace | None:
    opening = format.call_opening(turn.text)
    if opening is None or turn.execution is None:
        return None
    ids = stream.response_ids[turn.token_start : turn.token_end]
    first = max(_shortest(tokenizer, ids, opening[0] + 1) - 1, 0)
    kept = _shortest(tokenizer, ids, opening[1])
    text = tokenizer.decode(ids[:kept], skip_special_tokens=True)
    # a token that holds the end of the opening and more than the whole call leaves nothing to draw again
    if kept >= len(ids) or not turn.text.startswith(text):
        return None
    logprobs = stream.logprobs[turn.token_start + first : turn.token_end]
    probability = sum(math.exp(value) for value in logprobs) / len(logprobs)
    return CallPlace(number, turn.token_start + kept, not turn.execution.succeeded, probability)


def _shortest(tokenizer: Any, ids: Sequence[int], chars: int) -> int:
    """Returns the fewest tokens whose text has so many characters."""
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        if len(tokenizer.decode(list(ids[:middle]), skip_special_tokens=True)) >= chars:
            high = middle
        else:
            low = middle + 1
    return low


def check_replayed(recorded: Execution | None, found: Execution) -> None:
    """Raises `ReplayDiffers` where a cell that was run again came to another result; its run time may differ."""
    if recorded is None or _result(recorded) != _result(found):
        was = "none" if recorded is None else recorded.status
        raise ReplayDiffers(f"a replayed cell ended as {found.status}, the recorded one as {was}, with another result")


def _result(execution: Execution) -> tuple[Any, ...]:
    error = execution.error and (execution.error.kind, execution.error.message)
    images = tuple(image.sha256 for image in execution.images)
    return execution.status, execution.stdout, error, images, execution.truncated
