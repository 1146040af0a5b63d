"""SFT trajectories, made by really running code: right, plausibly flawed, guessed, and needlessly careful ones.

The mixture leaves reinforcement learning more than sharpening to do, as the most likely behaviour after SFT is wrong in
most kinds: a flawed program (`extremes`), a guess (`look`), a guess with code never shown (`count_digits`), a needless
call (`easy`, `look_large`). Only in `count_photo` the right program is the most likely one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from codedance_verl.data.fields import Message
from codedance_verl.environment.observations import observation_text
from codedance_verl.formats import get_format, render_answer, render_think
from codedance_verl.types import IMAGE_PLACEHOLDER, Execution
from recipes.cpu_demo.tasks.base import Task, choose
from recipes.cpu_demo.trusted_execution import render_png, run_program


class Style(StrEnum):
    """Style of a demonstration."""

    RIGHT = "right"  # hard question, code that answers it
    FLAWED = "flawed"  # hard question, code that runs and mostly misleads
    GUESS = "guess"  # hard question, answered at once without looking
    DIRECT = "direct"  # easy question, answered from the image
    NEEDLESS = "needless"  # easy question, with a call that was not needed


@dataclass(frozen=True)
class Mixture:
    """Demonstrations of one kind: how many, relative to the other kinds, and probabilities of their styles.

    Of the hard questions `p_guess` are guessed; `p_right` of the others get right code, the rest flawed code.
    Of the easy ones `p_needless` get a call; of those calls `p_needless_flawed` look in the wrong place.
    """

    weight: float = 1.0
    p_right: float = 0.5
    p_guess: float = 0.25
    p_needless: float = 0.6
    p_needless_flawed: float = 0.0


DEMO_MIXTURE: Mapping[str, Mixture] = {
    "count_photo": Mixture(8.0, p_guess=0.25, p_right=0.65),
    "count_digits": Mixture(0.5, p_guess=1.0),
    "extremes": Mixture(8.0, p_guess=0.2, p_right=0.38),
    "look": Mixture(14.0, p_guess=0.65, p_right=0.8),
    "look_large": Mixture(8.0),
    "easy": Mixture(6.0),
}
"""By kind; a kind that is not here gets `Mixture()`."""

_FORMAT = get_format("code")

_AFTER_PRINT = ("The output is {answer}.", "It printed {answer}.")
_AFTER_LOOK = ("Now I can answer.", "Now I can see it.")


@dataclass(frozen=True)
class Demonstration:
    """A conversation with its images (PNG bytes, one per `<image>`, in order)."""

    messages: tuple[Message, ...]
    images: tuple[bytes, ...]
    style: Style
    answer: str

    def as_row(self, record_id: str, task: Task) -> Mapping[str, Any]:
        """A row of SFT_SCHEMA."""
        return {
            "messages": [{"role": message.role, "content": message.content} for message in self.messages],
            "images": [{"bytes": data} for data in self.images],
            "record_id": record_id,
            "kind": task.kind,
            "difficulty": task.difficulty,
            "style": str(self.style),
        }


def draw_style(rng: np.random.Generator, task: Task, mixture: Mixture) -> Style:
    # both are drawn whatever the style: the draws that follow do not depend on the mixture
    first, second = rng.random(2)
    if task.difficulty == "easy":
        return Style.NEEDLESS if first < mixture.p_needless else Style.DIRECT
    if first < mixture.p_guess:
        return Style.GUESS
    return Style.RIGHT if second < mixture.p_right else Style.FLAWED


def demonstrate(rng: np.random.Generator, task: Task, mixture: Mapping[str, Mixture] = DEMO_MIXTURE) -> Demonstration:
    """One demonstration of a task, its style drawn from the mixture of its kind."""
    of_kind = mixture.get(task.kind, Mixture())
    style = draw_style(rng, task, of_kind)
    question = Message("user", IMAGE_PLACEHOLDER + task.question)
    image = render_png(task.image).png
    if style is Style.DIRECT or style is Style.GUESS:
        answer = task.answer if style is Style.DIRECT else choose(rng, task.guesses)
        return Demonstration(
            (question, _answer_turn(rng, task.at_once, answer)),
            (image,),
            style,
            answer,
        )
    flawed = style is Style.FLAWED or (style is Style.NEEDLESS and rng.random() < of_kind.p_needless_flawed)
    programs = task.flawed_code if flawed else task.right_code
    program = choose(rng, programs)
    executions = run_program(program, task.image)
    turns: list[Message] = [question]
    for cell, execution in zip(program, executions, strict=True):
        thought = choose(rng, task.before_code).format(verb=task.verb, focus=task.focus)
        turns.append(Message("assistant", f"{render_think(thought)}\n{_FORMAT.render_call(cell)}"))
        turns.append(Message("user", observation_text(execution)))
    answer = _answer_after(rng, task, executions[-1], flawed)
    turns.append(_answer_turn(rng, _AFTER_PRINT if task.answer_is_printed else _AFTER_LOOK, answer))
    shown = tuple(image.png for execution in executions for image in execution.images)
    return Demonstration(tuple(turns), (image, *shown), style, answer)


def _answer_turn(rng: np.random.Generator, thoughts: tuple[str, ...], answer: str) -> Message:
    thought = choose(rng, thoughts).format(answer=answer)
    return Message("assistant", f"{render_think(thought)}\n{render_answer(answer)}")


def _answer_after(rng: np.random.Generator, task: Task, last: Execution, flawed: bool) -> str:
    """The printed line where the task is answered by printing; otherwise what the code made visible, or a guess."""
    if task.answer_is_printed:
        lines = last.stdout.strip().splitlines()
        return lines[-1] if lines else choose(rng, task.guesses)
    return choose(rng, task.guesses) if flawed else task.answer
