from __future__ import annotations

import re

import numpy as np
import pytest

from codedance_verl.errors import UserError
from recipes.cpu_demo.tasks import (
    GENERATORS,
    chart,
    count_shapes,
    counting,
    easy,
    extremes,
    generate_task,
    photos,
    search,
)
from recipes.cpu_demo.tasks.base import COLOURS, OPENERS, Phrasings, Split, combination_allowed
from recipes.cpu_demo.tasks.count_digits import glyphs
from recipes.cpu_demo.trusted_execution import run_program

KINDS = sorted(GENERATORS)


def _tasks(kind: str, split: Split, count: int = 12):
    return [generate_task(kind, seed=3, split=split, index=index) for index in range(count)]


@pytest.mark.parametrize("split", [Split.TRAIN, Split.TEST])
@pytest.mark.parametrize("kind", KINDS)
def test_right_code_gives_the_answer_and_flawed_code_mostly_does_not(kind: str, split: Split) -> None:
    flawed_hits = flawed_runs = 0
    for task in _tasks(kind, split):
        for program in task.right_code:
            executions = run_program(program, task.image)
            assert all(execution.succeeded for execution in executions)
            if task.answer_is_printed:
                assert executions[-1].stdout.strip() == task.answer
        for program in task.flawed_code:
            executions = run_program(program, task.image)
            assert all(execution.succeeded for execution in executions)
            flawed_runs += 1
            flawed_hits += executions[-1].stdout.strip() == task.answer
        assert task.kind == kind
        assert task.answer in task.guesses
    assert flawed_hits < flawed_runs / 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_give_the_same_task_and_others_do_not(kind: str) -> None:
    first, again, other = (generate_task(kind, 5, Split.TRAIN, index) for index in (7, 7, 8))
    assert (first.question, first.answer, first.right_code) == (again.question, again.answer, again.right_code)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.image.tobytes() != other.image.tobytes()
    assert generate_task(kind, 6, Split.TRAIN, 7).image.tobytes() != first.image.tobytes()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "search"])
def test_pictures_are_rgb_of_the_size_asked_for(kind: str) -> None:
    assert generate_task(kind, 0, Split.TRAIN, 0).image.size == (112, 112)
    larger = generate_task(kind, 0, Split.TRAIN, 0, size=168).image
    assert larger.size == (168, 168) and larger.mode == "RGB"


def test_search_shows_detail_only_in_the_crop() -> None:
    task = generate_task("search", 0, Split.TRAIN, 0)
    assert task.image.width == 448
    (shown,) = run_program(task.right_code[0], task.image)[-1].images
    assert (shown.width, shown.height) == (112, 112)


def test_easy_questions_are_easy_and_need_no_tool() -> None:
    assert {task.difficulty for task in _tasks("easy", Split.TRAIN)} == {"easy"}
    assert {task.difficulty for kind in KINDS if kind != "easy" for task in _tasks(kind, Split.TRAIN, 2)} == {"hard"}


@pytest.mark.parametrize(
    "phrasings",
    [
        OPENERS,
        counting.COUNT_PHRASINGS,
        count_shapes._SHAPE_PHRASINGS,
        extremes._PHRASINGS,
        easy._PHRASINGS,
        search._PHRASINGS,
        chart._VALUE_PHRASINGS,
        chart._BAR_PHRASINGS,
        chart._LINE_PHRASINGS,
    ],
)
def test_held_out_phrasings_are_not_seen(phrasings: Phrasings) -> None:
    assert phrasings.held_out
    assert not (set(phrasings.seen) & set(phrasings.held_out)) - {""}


@pytest.mark.parametrize("kind", KINDS)
def test_no_question_of_the_test_split_is_worded_as_in_training(kind: str) -> None:
    train = {task.question for task in _tasks(kind, Split.TRAIN, 30)}
    test = {task.question for task in _tasks(kind, Split.TEST, 30)}
    assert not train & test


@pytest.mark.parametrize("kind", ["count_photo", "count_digits"])
def test_pairs_of_colour_and_number_are_held_out(kind: str) -> None:
    def pairs(split: Split) -> set[tuple[str, str]]:
        found = set()
        for task in _tasks(kind, split, 80):
            colour = re.search("|".join(COLOURS), task.question)
            assert colour is not None
            found.add((colour.group(), task.answer))
        return found

    train, validation, test = (pairs(split) for split in Split)
    assert not (train | validation) & test
    assert {answer for _, answer in test} == {answer for _, answer in train}


@pytest.mark.parametrize("every", [3, 5])
def test_a_combination_belongs_to_training_or_to_the_test(every: int) -> None:
    for first in range(6):
        for second in range(10):
            train, validation, test = (combination_allowed(split, first, second, every) for split in Split)
            assert train == validation != test


def test_test_photographs_and_handwriting_are_not_seen_in_training() -> None:
    assert not set(photos._SEEN) & set(photos._HELD_OUT)
    train = {ink.tobytes() for ink, _ in glyphs(Split.TRAIN, 18)}
    test = [ink.tobytes() for ink, _ in glyphs(Split.TEST, 18)]
    assert len(test) > 200
    assert np.mean([ink in train for ink in test]) < 0.02  # two people may write a plain stroke alike


def test_unknown_kinds_and_too_small_pictures_are_refused() -> None:
    with pytest.raises(UserError, match=rf"unknown task kind 'maze'; choose from {', '.join(KINDS)}"):
        generate_task("maze", 0, Split.TRAIN, 0)
    with pytest.raises(UserError, match=r"24 pixels are too small .* use at least 84"):
        generate_task("count_photo", 0, Split.TRAIN, 0, size=24)
