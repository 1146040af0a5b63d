"""Scripted teacher of the path of data, asked over real HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from PIL import Image

from codedance_verl.environment.resized_images import resize_image
from codedance_verl.formats import get_format
from codedance_verl.harness.at_once import direct_item
from codedance_verl.harness.image_urls import png_url, user_message
from codedance_verl.tasks.item import Item
from recipes.cpu_demo.demo_sizes import DEFAULT_SIZE, DEMO_KINDS
from recipes.cpu_demo.tasks.base import Task
from recipes.cpu_demo.trusted_execution import run_program
from recipes.data_path.endpoint import serving, started
from recipes.data_path.pool import pool_task
from recipes.data_path.teacher import Teacher, first_try

COUNT = len(DEMO_KINDS)
CODE = get_format("code")
STOP: dict[str, Any] = {"stop": list(CODE.stop_strings)}


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    return {task.kind: task for task in map(pool_task, range(COUNT))}


@pytest.fixture(scope="module")
def url(tasks: dict[str, Task]) -> Iterator[str]:
    with serving(Teacher(enumerate(tasks.values())).reply) as found:
        yield found


def ask(
    url: str,
    task: Task,
    seed: int,
    said: Sequence[str] = (),
    question: str = "",
    image: Image.Image | None = None,
    **more: Any,
) -> str:
    """Reply to a task as a loop asks it; behind each turn that was said stands some observation."""
    view = resize_image(task.image, DEFAULT_SIZE**2) if image is None else image
    messages: list[dict[str, Any]] = [user_message([png_url(view)], question or task.question)]
    for turn in said:
        messages += [{"role": "assistant", "content": turn}, {"role": "user", "content": "some output"}]
    body = json.dumps({"model": "teacher", "messages": messages, "seed": seed, **more}).encode()
    request = urllib.request.Request(f"{url}/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return str(json.load(reply)["choices"][0]["message"]["content"])


def test_without_tools_easy_kinds_are_right_and_others_guessed(url: str, tasks: dict[str, Task]) -> None:
    for task in tasks.values():
        answers = {ask(url, task, seed) for seed in range(30)}
        if task.difficulty == "easy":
            assert answers == {task.answer}
        else:
            assert answers <= set(task.guesses)
            assert len(answers) > 1


def test_a_demonstration_without_tools_has_its_form(url: str, tasks: dict[str, Task]) -> None:
    task = tasks["easy"]
    asked = direct_item(Item(id="q", question=task.question, images=(), truth=task.answer)).question
    said = ask(url, task, 0, question=asked)
    assert CODE.parse(said).answer == task.answer
    assert said.startswith("<think>")


def test_it_answers_in_the_shares_of_the_mixture(url: str, tasks: dict[str, Task]) -> None:
    # 0.35, 1 - 1.0 and 0.6 have code; 120 draws are within 0.14 of these but for one time in 1,000
    for kind, share in (("look", 0.35), ("count_digits", 0.0), ("easy", 0.6)):
        replies = [CODE.parse(ask(url, tasks[kind], seed, **STOP)) for seed in range(120)]
        assert sum(reply.code is not None for reply in replies) / 120 == pytest.approx(share, abs=0.15 if share else 0)


def test_what_follows_a_call_is_the_end_of_that_demonstration(url: str, tasks: dict[str, Task]) -> None:
    for kind in ("count_photo", "extremes", "look"):
        task = tasks[kind]
        for program in (*task.right_code, *task.flawed_code):
            (cell,) = program
            turn = _first_with(url, task, cell)
            # each turn comes with another seed
            answers = {CODE.parse(ask(url, task, seed, [turn], **STOP)).answer for seed in range(900, 906)}
            if task.answer_is_printed:
                printed = run_program(program, task.image)[-1].stdout.strip()
                assert answers == {printed} or not printed
            else:
                assert (answers == {task.answer}) == (program in task.right_code)


def _first_with(url: str, task: Task, cell: str) -> str:
    for seed in range(400):
        turn = ask(url, task, seed, **STOP)
        if CODE.parse(turn).code == cell:
            return turn
    raise AssertionError(f"no demonstration of {task.kind} runs {cell}")


def test_the_same_seed_gives_the_same_reply(url: str, tasks: dict[str, Task]) -> None:
    first = [ask(url, tasks["extremes"], seed, **STOP) for seed in range(20)]
    assert first == [ask(url, tasks["extremes"], seed, **STOP) for seed in range(20)]
    assert len(set(first)) > 1


def test_a_question_is_known_in_full_size_too(url: str, tasks: dict[str, Task]) -> None:
    task = tasks["look_large"]
    assert ask(url, task, 0, image=task.image) == task.answer


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"question": "How many moons?"}, "no question of the pool"),
        ({"image": Image.new("RGB", (30, 30))}, "no question of the pool"),
        ({"said": ["I have said something else."], **STOP}, "begins with"),
    ],
)
def test_what_it_does_not_know_is_refused(
    url: str, tasks: dict[str, Task], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(url, tasks["count_digits"], 0, **changes)
    assert refused.value.code == 400
    assert words in refused.value.read().decode()


def test_two_questions_that_look_alike_are_refused(tasks: dict[str, Task]) -> None:
    with pytest.raises(ValueError, match="questions 0 and 1 cannot be told apart"):
        Teacher([(0, tasks["easy"]), (1, tasks["easy"])])


def test_a_first_try_is_drawn_by_task_and_seed(tasks: dict[str, Task]) -> None:
    tries = [first_try(0, tasks["extremes"], seed) for seed in range(12)]
    assert tries[0] == first_try(0, tasks["extremes"], 0)
    assert len({one.messages for one in tries}) > 1


def test_its_process_ends_with_the_block() -> None:
    task = pool_task(5)
    with started(COUNT) as url:
        assert task.difficulty == "easy" and ask(url, task, 0) == task.answer
    with pytest.raises(urllib.error.URLError):
        ask(url, task, 0)
