"""What is told while a turn is written, however its text is cut into pieces, and what the terminal shows."""

from __future__ import annotations

import asyncio
import io
import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from codedance_verl.environment.loop import Timing
from codedance_verl.formats import get_format
from codedance_verl.serving.console import ConsoleRenderer
from codedance_verl.serving.replies import Piece, Reasoning, Transcript
from codedance_verl.serving.service import Outcome
from codedance_verl.types import Execution, ExecutionError, ExecutionStatus, FinishReason, Turn
from tests.unit.environment.harness import picture

FORMAT = get_format("code")
CALL = FORMAT.render_call("print(1)")
TURNS = {
    "<think>so</think>\n<answer>7</answer>": "<think>so</think>\n",
    "<answer>7</answer>": "",
    f"why <answer>no</answer> {CALL}": f"why <answer>no</answer> {CALL}",
    "<answer>a</answer> or <answer>b</answer>": "<answer>a</answer> or ",
    "<answer>never closed": "<answer>never closed",
    "a < b and <ans": "a < b and <ans",
    CALL: CALL,
}
"""Turns with what is reasoning of them: all but the answer that counts."""


def told(text: str, cuts: list[int]) -> list[str]:
    queue: asyncio.Queue[Piece | None] = asyncio.Queue()
    transcript = Transcript(queue)
    ends = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    for start, end in itertools.pairwise(ends):
        transcript.text_sampled(text[start:end])
    transcript.turn_sampled(Turn(text, 0, 1), FORMAT.parse(text))
    pieces = [queue.get_nowait() for _ in range(queue.qsize())]
    return [piece.text for piece in pieces if isinstance(piece, Reasoning)]


@given(st.sampled_from(sorted(TURNS)), st.lists(st.integers(0, 60), max_size=60))
def test_an_answer_is_no_reasoning_however_its_turn_comes(text: str, cuts: list[int]) -> None:
    assert "".join(told(text, cuts)) == TURNS[text]


def test_text_is_told_as_soon_as_it_is_no_answer() -> None:
    queue: asyncio.Queue[Piece | None] = asyncio.Queue()
    transcript = Transcript(queue)
    for text, expected in (("I ", "I "), ("see <", "see "), ("b", "<b"), (" <answer", " "), (">3", None)):
        transcript.text_sampled(text)
        assert (queue.get_nowait() if not queue.empty() else None) == (expected and Reasoning(expected))


def test_nothing_is_said_twice_where_the_loop_has_cut_a_turn() -> None:
    queue: asyncio.Queue[Piece | None] = asyncio.Queue()
    transcript = Transcript(queue)
    transcript.text_sampled("more than is kept")
    transcript.turn_sampled(Turn("more than", 0, 1), FORMAT.parse("more than"))
    transcript.text_sampled("next")
    assert [queue.get_nowait() for _ in range(2)] == [Reasoning("more than is kept"), Reasoning("next")]


def test_an_answer_tag_that_a_thought_names_is_reasoning() -> None:
    queue: asyncio.Queue[Piece | None] = asyncio.Queue()
    transcript = Transcript(queue)
    thought = "<think>the <answer> tag</think>"
    text = f"{thought}<answer>3</answer>"
    transcript.text_sampled(text)
    transcript.turn_sampled(Turn(text, 0, 1), FORMAT.parse(text))
    told = [queue.get_nowait() for _ in range(queue.qsize())]
    assert "".join(piece.text for piece in told if isinstance(piece, Reasoning)) == thought


def test_the_terminal_shows_thought_code_output_picture_and_answer(tmp_path: Path) -> None:
    out = io.StringIO()
    renderer = ConsoleRenderer(Console(file=out, force_terminal=True, width=80, highlight=False), tmp_path / "shown")
    ran = Turn(
        f"<think>so</think>\n{CALL}", 0, 1, "print(1)", Execution(ExecutionStatus.OK, "1\n", images=(picture(40, 30),))
    )
    failed = Execution(ExecutionStatus.ERROR, error=ExecutionError("ValueError", "no", "line 1: ValueError: no"))
    for turn in (ran, Turn(CALL, 1, 2, "print(1)", failed)):
        renderer.turn_sampled(turn, FORMAT.parse(turn.text))
        renderer.code_ran(turn)
    renderer.answered(Outcome((ran,), FinishReason.ANSWER, "seven", (), (), Timing()))
    renderer.answered(Outcome((ran,), FinishReason.TURN_LIMIT, None, (), (), Timing()))
    shown = out.getvalue()
    for text in ("turn 1", "so", "print", "ok, 0 ms", "40 x 30", "line 1: ValueError: no", "seven", "turn_limit", "▀"):
        assert text in shown, text
    (stored,) = renderer.stored
    assert Image.open(stored).size == (40, 30) and stored.parent == tmp_path / "shown"
