"""SFT trajectories, made by really running code: right, plausibly flawed, guessed, and needlessly careful ones.

The mixture leaves reinforcement learning something to do: flawed programs to drop, guesses to replace by code, needless
code to leave out. Where all flawed programs of a kind are alike (`extremes`) one of them is as likely as the right one,
so the most likely program is often wrong; where they are scattered it is right.
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
    """Probabilities of the styles.

    Of the hard questions `p_guess` are guessed; `p_right` of the others get right code, the rest flawed code.
    Of the easy ones `p_needless` get a call; of those calls `p_needless_flawed` look in the wrong place.
    """

    p_right: float = 0.5
    p_guess: float = 0.25
    p_needless: float = 0.22
    p_needless_flawed: float = 0.4


DEMO_MIXTURE = Mixture()
_FORMAT = get_format("code")

_BEFORE_CODE = {
    "easy": ("Let me check a pixel.", "I read one pixel to be sure."),
    "hard": ("I use code to find {focus}.", "Code can tell: {focus}."),
}
_AFTER_PRINT = ("The output is {answer}.", "It printed {answer}.")
_AFTER_LOOK = ("Now I can answer.", "Now I can see it.")
_WITHOUT_CODE = ("I can see this.", "This is easy to see.")


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


def demonstrate(rng: np.random.Generator, task: Task, mixture: Mixture = DEMO_MIXTURE) -> Demonstration:
    """One demonstration of a task, its style drawn from the mixture."""
    style = draw_style(rng, task, mixture)
    question = Message("user", IMAGE_PLACEHOLDER + task.question)
    image = render_png(task.image).png
    if style is Style.DIRECT or style is Style.GUESS:
        answer = task.answer if style is Style.DIRECT else choose(rng, task.guesses)
        return Demonstration(
            (question, _answer_turn(rng, _WITHOUT_CODE, answer)),
            (image,),
            style,
            answer,
        )
    # a needless call that looks in the wrong place makes an easy question wrong: RL can learn to leave it out
    flawed = style is Style.FLAWED or (style is Style.NEEDLESS and rng.random() < mixture.p_needless_flawed)
    program = choose(rng, task.flawed_code if flawed else task.right_code)
    executions = run_program(program, task.image)
    turns: list[Message] = [question]
    for cell, execution in zip(program, executions, strict=True):
        thought = choose(rng, _BEFORE_CODE[task.difficulty]).format(focus=task.focus)
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
