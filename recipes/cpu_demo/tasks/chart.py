"""Reads a bar or line chart drawn by matplotlib: a value off its axis, or which bar or line is at an extreme."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from recipes.cpu_demo.tasks.base import COLOURS, RGB, Phrasings, Program, Split, Task, choose, combination_allowed
from recipes.cpu_demo.tasks.counting import TOLERANCE

KIND = "chart"
_TOP = 10
"""The axis goes from 0 to this; values are whole numbers from 1 to one less."""

_VALUE_PHRASINGS = Phrasings(
    seen=(
        "The axis goes from 0 to 10. What is the value of the {colour} bar?",
        "The axis goes from 0 to 10. How high is the {colour} bar?",
        "Read off the value of the {colour} bar. The axis ends at 10.",
    ),
    held_out=("What value does the {colour} bar have? The axis goes from 0 to 10.",),
)
_BAR_PHRASINGS = Phrasings(
    seen=("Which colour is the {extreme} bar?", "What is the colour of the {extreme} bar?"),
    held_out=("Name the colour of the {extreme} bar.",),
)
_LINE_PHRASINGS = Phrasings(
    seen=("Which colour is the line that ends {extreme}?", "Name the colour of the line that ends {extreme}."),
    held_out=("What is the colour of the line that ends {extreme}?",),
)


def generate(rng: np.random.Generator, split: Split, size: int) -> Task:
    return choose(rng, (_bar_value, _bar_extreme, _line_end))(rng, split, size)


def _bar_value(rng: np.random.Generator, split: Split, size: int) -> Task:
    while True:
        first, value = int(rng.integers(len(COLOURS))), int(rng.integers(1, _TOP))
        if combination_allowed(split, first, value):
            break
    colours = _with_others(rng, COLOURS[first], int(rng.integers(2, 5)))
    values = [value if colour == COLOURS[first] else int(rng.integers(1, _TOP)) for colour in colours]
    wrong = colours[0] if colours[0] != COLOURS[first] else colours[1]
    return Task(
        kind=KIND,
        difficulty="hard",
        question=_VALUE_PHRASINGS.pick(rng, split, colour=COLOURS[first]),
        focus=COLOURS[first],
        answer=str(value),
        image=_draw(rng, colours, values, size),
        right_code=(_value_program(COLOURS[first]),),
        flawed_code=(_value_program(wrong), _value_program(COLOURS[first], "len(a)")),
        guesses=tuple(str(n) for n in range(1, _TOP)),
    )


def _bar_extreme(rng: np.random.Generator, split: Split, size: int) -> Task:
    extreme, pick = choose(rng, (("highest", "max"), ("lowest", "min")))
    colours = _with_others(rng, _held_apart_colour(rng, split, extreme), int(rng.integers(2, 5)))
    values = _with_winner(rng, len(colours), pick)
    winner = colours[0]
    order = rng.permutation(len(colours))
    return Task(
        kind=KIND,
        difficulty="hard",
        question=_BAR_PHRASINGS.pick(rng, split, extreme=extreme),
        focus=extreme,
        answer=winner,
        image=_draw(rng, [colours[i] for i in order], [values[i] for i in order], size),
        right_code=(_compare_program("len(set(y))", pick),),
        flawed_code=(
            _compare_program("len(set(y))", "min" if pick == "max" else "max"),
            _compare_program("x.min()", pick),
        ),
        guesses=tuple(colours),
    )


def _line_end(rng: np.random.Generator, split: Split, size: int) -> Task:
    extreme, pick = choose(rng, (("highest", "min"), ("lowest", "max")))
    colours = _with_others(rng, _held_apart_colour(rng, split, extreme), int(rng.integers(1, 3)))
    ends = _with_winner(rng, len(colours), "max" if pick == "min" else "min")
    lines = [[*(int(v) for v in rng.integers(1, _TOP, size=4)), end] for end in ends]
    at_end, at_start = "y[x > x.max() - 2].mean()", "y[x < x.min() + 2].mean()"
    return Task(
        kind=KIND,
        difficulty="hard",
        question=_LINE_PHRASINGS.pick(rng, split, extreme=extreme),
        focus=extreme,
        answer=colours[0],
        image=_draw(rng, colours, lines, size),
        right_code=(_compare_program(at_end, pick),),
        flawed_code=(_compare_program(at_end, "min" if pick == "max" else "max"), _compare_program(at_start, pick)),
        guesses=tuple(colours),
    )


def _held_apart_colour(rng: np.random.Generator, split: Split, extreme: str) -> str:
    """A winning colour whose pair with the extreme belongs to the split."""
    while True:
        first = int(rng.integers(len(COLOURS)))
        if combination_allowed(split, first, len(extreme), every=3):
            return COLOURS[first]


def _with_others(rng: np.random.Generator, colour: str, number: int) -> list[str]:
    others = [name for name in COLOURS if name != colour]
    return [colour, *(others[int(i)] for i in rng.permutation(len(others))[:number])]


def _with_winner(rng: np.random.Generator, number: int, pick: str) -> list[int]:
    """Values of which the first is the greatest (`max`) or smallest (`min`), by two at least."""
    best = int(rng.integers(4, _TOP)) if pick == "max" else int(rng.integers(1, _TOP - 3))
    low, high = (1, best - 1) if pick == "max" else (best + 2, _TOP)
    return [best, *(int(v) for v in rng.integers(low, high, size=number - 1))]


def _draw(rng: np.random.Generator, colours: list[str], values: Sequence[int | list[int]], size: int) -> Image.Image:
    """Bars where a value is a number, lines where it is a list of them."""
    figure = Figure(figsize=(size / 100, size / 100), dpi=100)
    axes = figure.add_axes((0.16, 0.14, 0.8, 0.8))
    for position, (colour, value) in enumerate(zip(colours, values, strict=True)):
        shade = tuple(channel / 255 for channel in RGB[colour])
        if isinstance(value, list):
            axes.plot(range(len(value)), value, color=shade, linewidth=size / 50)
        else:
            axes.bar(position, value, color=shade, width=float(rng.uniform(0.5, 0.8)))
    axes.set_ylim(0, _TOP)
    axes.set_yticks((0, _TOP // 2, _TOP))
    axes.set_xticks(())
    axes.tick_params(labelsize=6, length=2, pad=1)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def _value_program(colour: str, scale: str = "(d[-1] - d[0])") -> Program:
    """Rows of the frame give the scale, the top row of the bar's colour the value."""
    lines = (
        "import numpy as np",
        "from PIL import ImageColor",
        "a = np.array(input_image, int)",
        "d = ((a.max(-1) < 90).mean(1) > 0.5).nonzero()[0]",
        f"y, x = (abs(a - ImageColor.getrgb('{colour}')).max(-1) < {TOLERANCE}).nonzero()",
        f"print(round(10 * (d[-1] - y.min()) / {scale}))",
    )
    return ("\n".join(lines),)


def _compare_program(measure: str, pick: str) -> Program:
    lines = (
        "import numpy as np",
        "from PIL import ImageColor",
        "a = np.array(input_image, int)",
        "s = {}",
        f"for c in '{' '.join(COLOURS)}'.split():",
        f"    y, x = (abs(a - ImageColor.getrgb(c)).max(-1) < {TOLERANCE}).nonzero()",
        f"    if len(x) > 20: s[c] = {measure}",
        f"print({pick}(s, key=s.get))",
    )
    return ("\n".join(lines),)
