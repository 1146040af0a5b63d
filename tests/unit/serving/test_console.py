from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from codedance_verl import cli
from codedance_verl.formats import get_format
from codedance_verl.formats.base import ParsedTurn
from codedance_verl.runtime.text import visible
from codedance_verl.serving.cli import _check_output
from codedance_verl.serving.console import ConsoleRenderer
from codedance_verl.types import Execution, ExecutionError, ExecutionStatus, FinishReason, Turn

ATTACK = "\x1b]52;c;ZXZpbA==\x07 \x9d0;title\x9c \x1b[2J \x08\x7f\r\tseen\nbelow"


def _answer(text: str) -> Any:
    return SimpleNamespace(answer=text, finish=FinishReason.ANSWER, turns=())


def _told(renderer: ConsoleRenderer, place: str) -> None:
    turn = Turn(ATTACK, 0, 1)
    failed = ExecutionError("ValueError", ATTACK, ATTACK)
    if place == "thought":
        renderer.turn_sampled(turn, ParsedTurn())
    elif place == "code":
        renderer.turn_sampled(turn, ParsedTurn(code=ATTACK))
    elif place == "output":
        renderer.code_ran(Turn("", 0, 1, "x", Execution(ExecutionStatus.OK, stdout=ATTACK)))
    elif place == "traceback":
        renderer.code_ran(Turn("", 0, 1, "x", Execution(ExecutionStatus.ERROR, error=failed)))
    else:
        renderer.answered(_answer(ATTACK))


@pytest.mark.parametrize("place", ["thought", "code", "output", "traceback", "answer"])
def test_a_terminal_gets_no_control_characters_of_the_models(place: str, tmp_path: Path) -> None:
    written = io.StringIO()
    console = Console(file=written, color_system=None, width=100)
    _told(ConsoleRenderer(console, tmp_path), place)
    shown = written.getvalue()
    assert "seen" in shown and "below" in shown
    assert not [character for character in shown if character != "\n" and not character.isprintable()]


def test_text_of_any_language_with_its_lines_and_tabs_stays_as_it_is() -> None:
    text = "Größe\t30 %\n東京 🚋\n"
    assert visible(text) == text


def test_a_thought_that_names_tags_is_shown_whole(tmp_path: Path) -> None:
    written = io.StringIO()
    renderer = ConsoleRenderer(Console(file=written, color_system=None, width=100), tmp_path)
    call = "<think>into <code> with it, no <answer> yet</think>\n<code>\n```python\nprint(1)\n```\n</code>"
    answer = "<think>now the <answer> tag</think><answer>1</answer>"
    for text in (call, answer):
        renderer.turn_sampled(Turn(text, 0, 1), get_format("code").parse(text))
    shown = written.getvalue()
    assert "with it, no <answer> yet" in shown and "now the <answer> tag</think>" in shown
    assert shown.count("print(1)") == 1 and "<answer>1" not in shown


def test_what_was_cut_of_an_output_is_said(tmp_path: Path) -> None:
    written = io.StringIO()
    renderer = ConsoleRenderer(Console(file=written, color_system=None, width=100), tmp_path)
    renderer.code_ran(Turn("", 0, 1, "x", Execution(ExecutionStatus.OK, "1\n", truncated=("stdout", "images"))))
    assert "cut: stdout, images" in written.getvalue()


def test_a_folder_that_takes_no_pictures_is_told_before_vllm_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("picture.png", "config.json"):
        (tmp_path / name).write_text("{}")
    output = tmp_path / "picture.png" / "shown"
    with pytest.raises(SystemExit) as ended:
        cli.main(
            ["chat", str(tmp_path / "picture.png"), "How many?", "--model", str(tmp_path), "--output", str(output)]
        )
    assert ended.value.code == 2
    told = f"error: --output {output}: cannot be written (Not a directory); choose another folder\n"
    assert capsys.readouterr().err == told


def test_no_folder_is_made_before_there_is_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (Path("chat_images"), tmp_path / "a" / "b"):
        _check_output(folder)
    assert not list(tmp_path.iterdir())
