from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from codedance_verl.environment.observations import observation_text
from codedance_verl.formats import get_format
from codedance_verl.types import ExecutionStatus
from recipes.cpu_demo.demonstrations import DEMO_MIXTURE, Mixture, Style, demonstrate, draw_style
from recipes.cpu_demo.tasks import GENERATORS, generate_task
from recipes.cpu_demo.tasks.base import Split
from recipes.cpu_demo.trusted_execution import TrustedSession, run_program

KINDS = sorted(GENERATORS)
ALWAYS_RIGHT = dict.fromkeys(KINDS, Mixture(p_right=1, p_guess=0, p_needless=1, p_needless_flawed=0))
ALWAYS_FLAWED = dict.fromkeys(KINDS, Mixture(p_right=0, p_guess=0, p_needless=1, p_needless_flawed=1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_demonstration_is_what_running_its_code_gives(kind: str) -> None:
    for index in range(6):
        task = generate_task(kind, 0, Split.TRAIN, index)
        shown = demonstrate(np.random.default_rng(index), task, ALWAYS_RIGHT)
        assert [message.role for message in shown.messages] == ["user", "assistant"] * (len(shown.messages) // 2)
        assert shown.messages[0].content == f"<image>{task.question}"
        cells = tuple(get_format("code").parse(message.content).code for message in shown.messages[1:-1:2])
        assert cells in task.right_code
        executions = run_program(cells, task.image)
        assert [message.content for message in shown.messages[2::2]] == [observation_text(e) for e in executions]
        assert get_format("code").parse(shown.messages[-1].content).answer == shown.answer == task.answer
        placeholders = sum(message.content.count("<image>") for message in shown.messages)
        assert placeholders == len(shown.images)


def test_demonstrations_of_look_show_the_crop() -> None:
    task = generate_task("look", 0, Split.TRAIN, 0)
    assert len(demonstrate(np.random.default_rng(0), task, ALWAYS_RIGHT).images) == 2


@pytest.mark.parametrize("kind", ["count_photo", "extremes"])
def test_flawed_demonstrations_answer_what_their_code_printed(kind: str) -> None:
    wrong = 0
    for index in range(10):
        task = generate_task(kind, 0, Split.TRAIN, index)
        shown = demonstrate(np.random.default_rng(index), task, ALWAYS_FLAWED)
        assert f"\n{shown.answer}\n" in shown.messages[2].content
        wrong += shown.answer != task.answer
    assert wrong >= 6


def test_guesses_and_direct_answers_call_nothing() -> None:
    hard, easy = (generate_task(kind, 0, Split.TRAIN, 0) for kind in ("count_photo", "easy"))
    guess = demonstrate(np.random.default_rng(0), hard, {hard.kind: Mixture(p_guess=1)})
    direct = demonstrate(np.random.default_rng(0), easy, {easy.kind: Mixture(p_needless=0)})
    assert (guess.style, direct.style) == (Style.GUESS, Style.DIRECT)
    assert len(guess.messages) == len(direct.messages) == 2
    assert guess.answer in hard.guesses and direct.answer == easy.answer


MODES = {
    "count_photo": Style.RIGHT,
    "count_digits": Style.GUESS,
    "extremes": Style.FLAWED,
    "look": Style.GUESS,
    "look_large": Style.NEEDLESS,
    "easy": Style.NEEDLESS,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_most_likely_demonstration_is_wrong_but_for_one_kind(kind: str) -> None:
    task, mixture = generate_task(kind, 0, Split.TRAIN, 0), DEMO_MIXTURE[kind]
    rng = np.random.default_rng(0)
    styles = Counter(draw_style(rng, task, mixture) for _ in range(4000))
    assert styles.most_common(1)[0][0] is MODES[kind]
    if task.difficulty == "easy":
        assert styles[Style.NEEDLESS] / 4000 == pytest.approx(mixture.p_needless, abs=0.03)
    else:
        assert styles[Style.GUESS] / 4000 == pytest.approx(mixture.p_guess, abs=0.03)


def test_no_demonstration_of_handwriting_has_code() -> None:
    for index in range(40):
        task = generate_task("count_digits", 0, Split.TRAIN, index)
        assert demonstrate(np.random.default_rng(index), task).style is Style.GUESS


def test_a_session_keeps_variables_displays_the_last_expression_and_reports_errors() -> None:
    session = TrustedSession(generate_task("easy", 0, Split.TRAIN, 0).image)
    assert session.run("x = 4").status is ExecutionStatus.NO_OUTPUT
    assert session.run("print('is')\nx + 1").stdout == "is\n5\n"
    (picture,) = session.run("input_image.resize((30, 20))").images
    assert (picture.width, picture.height) == (30, 20)
    failed = session.run("y")
    assert failed.status is ExecutionStatus.ERROR
    assert failed.error is not None and failed.error.kind == "NameError"
