from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from codedance_verl.environment.resized_images import resize_image
from codedance_verl.errors import UserError
from recipes.cpu_demo.tasks import (
    GENERATORS,
    counting,
    easy,
    extremes,
    generate_task,
    look,
    photos,
)
from recipes.cpu_demo.tasks.base import COLOURS, OPENERS, RGB, Phrasings, Split, combination_allowed
from recipes.cpu_demo.tasks.count_digits import glyphs
from recipes.cpu_demo.trusted_execution import run_program

KINDS = sorted(GENERATORS)


def _tasks(kind: str, split: Split, count: int = 12):
    return [generate_task(kind, seed=3, split=split, index=index) for index in range(count)]


@pytest.mark.parametrize("split", [Split.TRAIN, Split.TEST])
@pytest.mark.parametrize("kind", KINDS)
def test_right_code_gives_the_answer_and_flawed_code_mostly_does_not(kind: str, split: Split) -> None:
    flawed_hits = flawed_runs = 0
    for task in _tasks(kind, split, 24):
        for program in task.right_code:
            executions = run_program(program, task.image)
            assert all(execution.succeeded for execution in executions)
            if task.answer_is_printed:
                assert executions[-1].stdout.strip() == task.answer
        for program in task.flawed_code:
            executions = run_program(program, task.image)
            assert all(execution.succeeded for execution in executions)
            if task.answer_is_printed:
                flawed_runs += 1
                flawed_hits += executions[-1].stdout.strip() == task.answer
        assert task.kind == kind
        assert task.answer in task.guesses
    assert flawed_hits <= 0.6 * flawed_runs


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_give_the_same_task_and_others_do_not(kind: str) -> None:
    first, again, other = (generate_task(kind, 5, Split.TRAIN, index) for index in (7, 7, 8))
    assert (first.question, first.answer, first.right_code) == (again.question, again.answer, again.right_code)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.image.tobytes() != other.image.tobytes()
    assert generate_task(kind, 6, Split.TRAIN, 7).image.tobytes() != first.image.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_rgb_of_the_size_asked_for(kind: str) -> None:
    scale = 4 if kind.startswith("look") else 1  # these are seen scaled down
    for size in (112, 128):
        image = generate_task(kind, 0, Split.TRAIN, 0, size=size).image
        assert image.size == (scale * size, scale * size) and image.mode == "RGB"


def _laid(colour: str, seed: int) -> Image.Image:
    """An image with a hidden card of the colour; the same seed, the same place and noise."""
    rng, pixels = np.random.default_rng(seed), np.zeros((448, 448, 3), np.uint8)
    look._lay(rng, pixels, seed % 4, look.hidden_card(rng, colour))
    return Image.fromarray(pixels)


@pytest.mark.parametrize("seed", range(8))
def test_the_view_of_a_hidden_card_holds_nothing_of_its_colour(seed: int) -> None:
    views = np.array([resize_image(_laid(colour, seed), 112 * 112) for colour in COLOURS], int)
    assert views.shape == (6, 112, 112, 3) and views.max() > 60  # the card is seen, as grey
    assert np.ptp(views, axis=0).max() <= 1  # rounding to whole grey levels


def test_code_shows_the_colour_of_a_card_where_the_view_does_not() -> None:
    for task in (task for kind in ("look", "look_large") for task in _tasks(kind, Split.TRAIN)):
        (shown,) = run_program(task.right_code[0], task.image)[-1].images
        assert (shown.width, shown.height) == (112, 112)
        middle = np.asarray(Image.open(io.BytesIO(shown.png)))[40:72, 40:72].mean(axis=(0, 1))
        assert min(COLOURS, key=lambda name: np.abs(middle - RGB[name]).sum()) == task.answer


@pytest.mark.parametrize("kind", ["look", "look_large"])
def test_every_colour_of_a_card_is_asked_for_in_every_split(kind: str) -> None:
    for split in Split:
        assert {task.answer for task in _tasks(kind, split, 60)} == set(COLOURS)


def test_hidden_and_large_cards_are_asked_for_in_the_same_words() -> None:
    hidden, large = (
        {task.question for task in _tasks(kind, split, 60)}
        for kind in ("look", "look_large")
        for split in (Split.TRAIN,)
    )
    assert len(hidden & large) > 10


def test_easy_questions_are_easy_and_need_no_tool() -> None:
    easy_kinds = {kind for kind in KINDS for task in _tasks(kind, Split.TRAIN, 2) if task.difficulty == "easy"}
    assert easy_kinds == {"easy", "look_large"}


@pytest.mark.parametrize(
    "phrasings",
    [
        OPENERS,
        counting.COUNT_PHRASINGS,
        extremes._PHRASINGS,
        easy._PHRASINGS,
        look._PHRASINGS,
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


def test_unknown_kinds_and_too_small_images_are_refused() -> None:
    with pytest.raises(UserError, match=rf"unknown task kind 'maze'; choose from {', '.join(KINDS)}"):
        generate_task("maze", 0, Split.TRAIN, 0)
    with pytest.raises(UserError, match=r"24 pixels are too small .* use at least 84"):
        generate_task("count_photo", 0, Split.TRAIN, 0, size=24)
