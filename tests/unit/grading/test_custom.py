"""Graders of the user's own: which records they grade, what they are given, and what comes of what they return."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.config.compose import compose_config
from codedance_verl.errors import UserError
from codedance_verl.grading import Grader, GradingConfig
from codedance_verl.grading.custom import CustomGraders
from codedance_verl.types import FinishReason, Grade, Trajectory, Verdict
from tests.unit.isolated.functions import on_path

NAME = "grading.custom=user_graders:by_answer"


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path(tmp_path, monkeypatch)


def rollout(
    answer: str | None, style: str = "rule", source: str = "chartqa", finish: FinishReason = FinishReason.ANSWER
) -> Trajectory:
    return Trajectory(f"id-{answer}", source, "How many?", "3", (), finish, answer, style=style, extra_info={"n": 1})


def graded(settings: dict[str, Any], *rollouts: Trajectory) -> list[Grade]:
    async def run() -> list[Grade]:
        grader = Grader(GradingConfig.from_mapping(settings))
        try:
            return list(await asyncio.gather(*(grader.grade_rollout(item) for item in rollouts)))
        finally:
            await grader.close()

    return asyncio.run(run())


def test_its_verdict_comes_with_its_evidence() -> None:
    right, wrong = graded({"custom": "user_graders:told"}, rollout("3"), rollout("three", "number"))
    assert right == Grade(Verdict.CORRECT, "custom", "3 of chartqa, rule, id-3: How many?")
    assert wrong == Grade(Verdict.WRONG, "custom", "three of chartqa, number, id-three: How many?")
    (found,) = graded({"custom": "user_graders:extra"}, rollout("3"))
    assert found.evidence == "{'n': 1}"


def test_a_bare_verdict_names_the_function_and_none_is_no_verdict() -> None:
    found = graded({"custom": "user_graders:by_answer"}, rollout("3"), rollout("4"), rollout("none"))
    assert [grade.verdict for grade in found] == [Verdict.CORRECT, Verdict.WRONG, Verdict.UNGRADED]
    assert {(grade.rule, grade.evidence) for grade in found} == {("custom", "user_graders:by_answer")}
    assert [grade.correct for grade in graded({"custom": "user_graders:numpy_bool"}, rollout("3"))] == [True]


def test_the_most_particular_grader_grades_a_record_and_the_ladder_the_rest() -> None:
    custom = {"by_source": {"chartqa": "user_graders:told"}, "by_style": {"count": "user_graders:right"}}
    found = graded(
        {"custom": custom},
        rollout("3", "count"),
        rollout("3.0", "count", "geo"),
        rollout("3.0", "number", "geo"),
    )
    assert [(grade.rule, grade.correct) for grade in found] == [("custom", True), ("custom", False), ("number", True)]
    assert found[1].evidence == "user_graders:right"
    (others,) = graded({"custom": {**custom, "default": "user_graders:extra"}}, rollout("9", "number", "geo"))
    assert others.correct and others.rule == "custom"


def test_no_answer_is_wrong_and_a_fault_of_infrastructure_is_ungraded_without_a_question() -> None:
    lost = rollout("hang", finish=FinishReason.INFRASTRUCTURE)
    found = graded({"custom": "user_graders:extra"}, rollout(None), rollout("  "), lost)
    wrong = Grade(Verdict.WRONG, "no_answer")
    assert found == [wrong, wrong, Grade(Verdict.UNGRADED, "infrastructure")]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("raise", "ZeroDivisionError: no such luck at user_graders.py:32"),
        ("exit", "the process ended with exit code 7"),
        ("one", "it returned 1; it must return a truth value, None, or a pair of one of these and a text"),
        ("text", "it returned 'yes'; it must return a truth value"),
        ("set", "it returned a value of type set"),
        ("pair", "it returned [True, 3]; it must return a truth value"),
        ("triple", "it returned [True, 'a', 'b']; it must return a truth value"),
        ("nan", "it returned nan; it must return a truth value"),
    ],
)
def test_what_is_no_verdict_costs_one_answer_and_is_logged_once(
    answer: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        before, lost, after = graded({"custom": "user_graders:by_answer"}, rollout("3"), rollout(answer), rollout("4"))
    assert (before.verdict, after.verdict) == (Verdict.CORRECT, Verdict.WRONG)
    assert (lost.verdict, lost.rule) == (Verdict.UNGRADED, "error")
    assert lost.evidence.startswith(f"{NAME}: {reason}")
    (line,) = caplog.messages
    assert line.startswith(f"record id-{answer} is ungraded: {NAME}: {reason}") and "\n" not in line


def test_hanging_answers_cost_their_time_and_the_others_of_their_group_are_graded() -> None:
    settings = {"custom": "user_graders:by_answer", "custom_timeout_s": 0.5, "custom_processes": 2}
    started = time.monotonic()
    found = graded(settings, *(rollout(answer) for answer in ("hang", "3", "spin", "4", "hang", "3")))
    assert time.monotonic() - started < 90
    ungraded, right, wrong = Verdict.UNGRADED, Verdict.CORRECT, Verdict.WRONG
    assert [grade.verdict for grade in found] == [ungraded, right, ungraded, wrong, ungraded, right]
    assert {grade.evidence for grade in found if grade.verdict is ungraded} == {f"{NAME}: no result within 0.5 s"}


BAD = [
    ({"custom": "my_grader"}, "grading.custom=my_grader: must be package.module:function, such as my_grader:grade"),
    ({"custom": 3}, "grading.custom=3: must be package.module:function"),
    ({"custom": {"default": 3}}, "grading.custom.default=3: must be package.module:function"),
    ({"custom": {"styles": {}}}, "grading.custom.styles: unknown key; known are default, by_style, by_source"),
    ({"custom": {"by_style": {"magic": "a:b"}}}, "grading.custom.by_style.magic=a:b: no such style; known are rule"),
    ({"custom": {"by_style": {"rule": "a"}}}, "grading.custom.by_style.rule=a: must be package.module:function"),
    ({"custom": {"by_source": "a:b"}}, "grading.custom.by_source=a:b: must be a mapping to package.module:function"),
    ({"custom": {"by_source": {"geo": None}}}, "grading.custom.by_source.geo=None: must be package.module:function"),
    ({"custom_timeout_s": 0}, "grading.custom_timeout_s=0: must be a number from 0.1 to 600"),
    ({"custom_processes": 65}, "grading.custom_processes=65: must be a whole number from 1 to 64"),
]


@pytest.mark.parametrize(("values", "told"), BAD, ids=[told[:50] for _, told in BAD])
def test_bad_settings_are_named(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        GradingConfig.from_mapping(values)
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("grading.custom=my.grader:grade", CustomGraders(default="my.grader:grade")),
        (
            "grading.custom={by_source: {chartqa: my_grader:grade}, by_style: {count: b:c}}",
            CustomGraders(by_source={"chartqa": "my_grader:grade"}, by_style={"count": "b:c"}),
        ),
        ("grading.custom=null", CustomGraders()),
    ],
)
def test_every_form_can_be_given_on_the_command_line(override: str, expected: CustomGraders) -> None:
    for name in ("train", "evaluate"):
        config = compose_config(name, ["hardware=cpu", "run_dir=/tmp/run", override])
        assert GradingConfig.from_mapping(config.grading).custom == expected
