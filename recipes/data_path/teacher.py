"""Strong model of the path, a script: it plays the demo's demonstrations of a question, turn by turn.

It knows a question by its picture and its words. With tools it answers as `demonstrate` does, in the styles and shares
of the demo's mixture: right code, flawed code, a guess. Without tools it is right on the easy kinds, and guesses on the
others. All draws follow from the task and the seed of the request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from codedance_verl.environment.resized_images import resize_image
from codedance_verl.formats import render_answer, render_think
from codedance_verl.harness.image_urls import png_of
from codedance_verl.images import decode, pixels_sha256
from recipes.cpu_demo.demo_sizes import DEFAULT_SIZE
from recipes.cpu_demo.demonstrations import DEMO_MIXTURE, Demonstration, Mixture, demonstrate
from recipes.cpu_demo.tasks.base import Split, Task, choose, task_rng

NAME = "scripted-teacher"

MOST_DRAWS = 1_000
"""Draws of a demonstration that begins as the conversation does; the rarest beginning is one of thirty."""


class Unknown(Exception):
    """A request is about no question of the pool, or goes on from turns that no demonstration has."""


@dataclass(frozen=True)
class _Known:
    index: int
    task: Task


class Teacher:
    """Replies to chat requests about known tasks, which are given with their numbers.

    Raises ValueError: two tasks look alike and are asked alike.
    """

    def __init__(self, tasks: Iterable[tuple[int, Task]], mixture: Mapping[str, Mixture] = DEMO_MIXTURE) -> None:
        self._mixture = mixture
        self._known: dict[tuple[str, str], _Known] = {}
        for index, task in tasks:
            for digest in _views(task.image):
                known = self._known.setdefault((digest, task.question), _Known(index, task))
                if known.index != index:
                    raise ValueError(f"questions {known.index} and {index} cannot be told apart")

    def reply(self, body: Mapping[str, Any]) -> str:
        """Next message of a conversation.

        A loop with tools sends stop strings, and nothing else does. Behind the question, after an empty line, there may
        be a request; without tools its form is that of a demonstration, and otherwise the answer stands alone.

        Raises Unknown.
        """
        messages = body["messages"]
        known, request = self._asked(messages)
        seed = body.get("seed") or 0
        if "stop" not in body:
            return _at_once(_rng(known.index, known.task, seed), known.task, in_form=bool(request))
        said = [str(message["content"]) for message in messages if message["role"] == "assistant"]
        return self._next(known, seed, said)

    def _asked(self, messages: Sequence[Mapping[str, Any]]) -> tuple[_Known, str]:
        try:
            parts = next(message["content"] for message in messages if message["role"] == "user")
            urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
            text = "".join(part["text"] for part in parts if part["type"] == "text")
            digest = pixels_sha256(decode(png_of(urls[0])))
        except (StopIteration, IndexError, KeyError, TypeError, ValueError, OSError) as error:
            raise Unknown(f"no question with a PNG ({type(error).__name__}: {error})") from None
        question, _, request = text.partition("\n\n")
        known = self._known.get((digest, question))
        if known is None:
            raise Unknown(f"no question of the pool: {question!r:.200}")
        return known, request

    def _next(self, known: _Known, seed: int, said: Sequence[str]) -> str:
        """Turn behind those that were said, of a demonstration that begins with them.

        Each turn of a trajectory has a seed of its own, so the demonstration of the turn before is not known: another
        one is drawn until it fits, which leaves all shares as they are.
        """
        rng = _rng(known.index, known.task, seed)
        for _ in range(MOST_DRAWS):
            turns = _turns(demonstrate(rng, known.task, self._mixture))
            if len(turns) > len(said) and turns[: len(said)] == list(said):
                return turns[len(said)]
        raise Unknown(f"no demonstration of question {known.index} begins with {said[-1]!r:.200}")


def first_try(index: int, task: Task, seed: int) -> Demonstration:
    """Demonstration of a task that nobody checks, by the same mixture."""
    return demonstrate(_rng(index, task, seed), task)


def _turns(demonstration: Demonstration) -> list[str]:
    return [message.content for message in demonstration.messages if message.role == "assistant"]


def _at_once(rng: np.random.Generator, task: Task, in_form: bool) -> str:
    answer = task.answer if task.difficulty == "easy" else choose(rng, task.guesses)
    if not in_form:
        return answer
    return f"{render_think(choose(rng, task.at_once).format(answer=answer))}\n{render_answer(answer)}"


def _rng(index: int, task: Task, seed: int) -> np.random.Generator:
    return task_rng(seed, Split.TRAIN, f"teacher/{task.kind}", index)


def _views(image: Image.Image) -> set[str]:
    """Digests of an image in full, and as the demo's models see it."""
    return {pixels_sha256(view) for view in (image, resize_image(image, DEFAULT_SIZE**2))}
