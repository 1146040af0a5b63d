"""The grader: settings of data sources, styles, and what happens without a judge."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import pytest

from codedance_verl.errors import UserError
from codedance_verl.grading import Grader, GradingConfig
from codedance_verl.grading.context import Context
from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.grading.matchers import STYLES, grade, is_open
from codedance_verl.grading.rules.expression_process import ExpressionProcess, NoResult
from codedance_verl.types import FinishReason, Grade, Trajectory, Verdict
from tests.unit.grading.judge_server import JudgeServer, serving


def graded(settings: dict[str, Any], *answer: str | None) -> Grade:
    async def run() -> Grade:
        grader = Grader(GradingConfig.from_mapping(settings))
        try:
            return await grader.grade(*answer)  # type: ignore[arg-type]
        finally:
            await grader.close()

    return asyncio.run(run())


def test_a_data_source_has_settings_of_its_own() -> None:
    settings = {"data_sources": {"chartqa": {"relative_tolerance": 0.05}}}
    assert graded(settings, "", "10.3", "10.2", "rule", "chartqa").correct
    assert not graded(settings, "", "10.8", "10.2", "rule", "chartqa").correct
    assert not graded(settings, "", "10.3", "10.2", "rule", "another").correct


@pytest.mark.parametrize(
    ("answer", "truth", "question"),
    [
        ("2008", "2014", "In which year was the peak?"),
        ("21", "20", "How many people are there?"),
        ("104", "100", ""),
        ("104.2", "100", ""),
        ("\\sqrt{441}", "20", ""),
        ("1,050", "1,000", ""),
        ("2,100,000", "2 million", ""),
        ("20, 31", "20, 30", ""),
        ("100-210", "100-200", ""),
    ],
)
def test_years_and_counts_have_no_tolerance(answer: str, truth: str, question: str) -> None:
    context = Context(question=question, relative_tolerance=0.05)
    assert grade(answer, truth, "rule", context).verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("answer", "truth"), [("20.5%", "20%"), ("$104", "$100"), ("10.3", "10.2"), ("12.1 cm", "12 cm"), ("0.34", "1/3")]
)
def test_measures_shares_and_decimals_have_the_tolerance(answer: str, truth: str) -> None:
    assert grade(answer, truth, "rule", Context(relative_tolerance=0.05)).correct
    assert not grade(answer, truth).correct


def test_without_a_judge_an_open_answer_is_ungraded_unless_text_is_asked_for() -> None:
    question = ("What is it?", "a bus", "a tram", "model")
    assert graded({}, *question).verdict is Verdict.UNGRADED
    assert graded({"open_answers": "text"}, *question).verdict is Verdict.WRONG
    assert graded({}, "What is it?", "A tram.", "a tram", "model").correct


def test_a_style_that_is_not_known_leaves_the_answer_ungraded() -> None:
    grade = graded({}, "", "3", "3", "magic")
    assert (grade.verdict, grade.evidence) == (Verdict.UNGRADED, "unknown style 'magic'")


def test_what_an_infrastructure_fault_left_is_not_graded() -> None:
    async def run() -> Grade:
        grader = Grader(GradingConfig())
        await grader.close()  # its threads have ended: comparing anything would be an error
        return await grader.grade_rollout(Trajectory("r", "s", "q", "3", (), FinishReason.INFRASTRUCTURE, "3"))

    assert asyncio.run(run()) == Grade(Verdict.UNGRADED, "infrastructure")


@pytest.mark.parametrize("style", sorted(STYLES))
def test_no_answer_is_wrong_in_every_style(style: str) -> None:
    assert graded({}, "q", None, "3", style).verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("style", "truth"), [("count", "many"), ("box", "the left one"), ("choice", "red"), ("math", "")]
)
def test_a_ground_truth_of_another_kind_leaves_the_answer_ungraded(style: str, truth: str) -> None:
    assert grade("3", truth, style).verdict is Verdict.UNGRADED


@pytest.mark.parametrize(
    ("truth", "style", "is_it"),
    [
        ("riding a bicycle", "model", True),
        ("riding a bicycle", "rule", False),
        ("riding a bicycle", "judge", True),
        ("3", "model", False),
        ("3", "judge", True),
        ("B", "model", False),
        ("12 cm", "model", False),
        ("yes", "model", False),
        ("\\frac{1}{2}", "model", False),
        ("{1, 2}", "model", False),
        ("4 July", "model", True),
        ("Paris, France", "model", True),
    ],
)
def test_which_questions_are_open(truth: str, style: str, is_it: bool) -> None:
    assert is_open(truth, style) is is_it


def test_whether_a_letter_with_words_behind_it_is_open_hangs_on_the_question() -> None:
    assert is_open("E. coli", "model", "Which bacterium is it?")
    assert not is_open("E. coli", "model", "Which bacterium is it? A. listeria B. salmonella E. coli")


def test_the_judge_is_asked_last_and_its_work_is_counted() -> None:
    async def run() -> tuple[list[Grade], float]:
        async with serving(JudgeServer()) as urls:
            grader = Grader(GradingConfig.from_mapping({"judge": {"endpoints": list(urls), "model": "judge"}}))
            grades = [
                await grader.grade("What is it?", "a tram of line 3", "a tram", "model"),
                await grader.grade("What is it?", "a bus", "a tram", "model"),
                await grader.grade("How many?", "3", "3", "model"),
                await grader.grade("What is it?", "a bus", "a tram", "rule"),
            ]
            asked = grader.take_judge_stats().asked
            await grader.close()
            return grades, asked

    grades, asked = asyncio.run(run())
    assert [(item.verdict, item.rule) for item in grades] == [
        (Verdict.CORRECT, "judge"),
        (Verdict.WRONG, "judge"),
        (Verdict.CORRECT, "exact_text"),
        (Verdict.WRONG, "text"),
    ]
    assert asked == 2


def test_a_formula_without_a_result_in_time_is_ungraded_and_the_next_one_is_compared() -> None:
    slow = " + ".join(f"\\sin^{{{power}}}(x^{{{power}}})" for power in range(2, 14))
    process = ExpressionProcess()
    try:
        assert process.equal("x+x", "2x", 0.0, 30.0) is True
        first = process.pid
        started = time.monotonic()
        with pytest.raises(NoResult, match=r"no result within 0\.3 s"):
            process.equal("9^{9^{9^9}} + 1", slow, 0.0, 0.3)
        assert time.monotonic() - started < 3
        assert process.equal("x", "y", 0.0, 30.0) is False
        assert process.pid != first
    finally:
        process.close()
    assert process.pid is None


def test_a_comparing_process_that_dies_costs_one_comparison() -> None:
    process = ExpressionProcess()
    try:
        assert process.equal("1", "1", 0.0, 30.0) is True
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process.equal("1", "1", 0.0, 30.0) is True
    finally:
        process.close()


def test_the_event_loop_goes_on_while_a_formula_is_compared() -> None:
    async def run() -> int:
        grader = Grader(GradingConfig())
        work = asyncio.create_task(grader.grade("", "(x+1)^2", "x^2+2x+1"))
        ticks = 0
        while not work.done():
            await asyncio.sleep(0.005)
            ticks += 1
        assert work.result().correct
        await grader.close()
        return ticks

    assert asyncio.run(run()) > 1


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"tolerance": 1}, "grading.tolerance: unknown key; known are relative_tolerance, box_iou"),
        ({"relative_tolerance": 2}, "grading.relative_tolerance=2: must be a number from 0 to 1"),
        ({"box_iou": 0}, "grading.box_iou=0: must be a number from 0.01 to 1"),
        ({"box_iou": float("nan")}, "grading.box_iou=nan: must be a number"),
        ({"math_timeout_s": True}, "grading.math_timeout_s=True: must be a number from 0.1 to 60"),
        ({"open_answers": "maybe"}, "grading.open_answers=maybe: must be one of judge, text"),
        ({"data_sources": 3}, "grading.data_sources=3: must be a mapping of data sources"),
        ({"data_sources": {"a": 3}}, "grading.data_sources.a=3: must be a mapping"),
        ({"data_sources": {"a": {"iou": 1}}}, "grading.data_sources.a.iou: unknown key; known are relative_tolerance"),
        ({"data_sources": {"a": {"box_iou": 9}}}, "grading.data_sources.a.box_iou=9: must be a number"),
        ({"judge": {"temperature": 0.3}}, "grading.judge.temperature: unknown key; known are endpoints, model"),
        ({"judge": {"endpoints": "http://a/v1"}}, "grading.judge.endpoints=http://a/v1: must be a list of URLs"),
        ({"judge": {"endpoints": ["localhost:80"]}}, "grading.judge.endpoints=localhost:80: must be http:// or"),
        ({"judge": {"endpoints": ["http://a:b/v1"]}}, "grading.judge.endpoints=http://a:b/v1: must be http:// or"),
        ({"judge": {"endpoints": ["http://a:99999/v1"]}}, "grading.judge.endpoints=http://a:99999/v1: must be http://"),
        ({"judge": {"endpoints": ["http://a b/v1"]}}, "grading.judge.endpoints=http://a b/v1: must be http:// or"),
        ({"judge": {"endpoints": ["http://[::1/v1"]}}, "grading.judge.endpoints=http://[::1/v1: must be http:// or"),
        ({"judge": {"endpoints": ["http://:80/v1"]}}, "grading.judge.endpoints=http://:80/v1: must be http:// or"),
        ({"judge": {"endpoints": ["http://a/v1"]}}, "grading.judge.model: no value given"),
        ({"judge": {"attempts": 0}}, "grading.judge.attempts=0: must be a whole number from 1 to 20"),
        ({"judge": {"concurrency": 1.5}}, "grading.judge.concurrency=1.5: must be a whole number"),
        ({"judge": {"total_timeout_s": "long"}}, "grading.judge.total_timeout_s=long: must be a number from 0.1 to"),
        ({"judge": {"model": 3}}, "grading.judge.model=3: must be a text"),
    ],
)
def test_bad_settings_are_named(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        GradingConfig.from_mapping(values)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_empty_nodes_are_the_defaults() -> None:
    assert GradingConfig.from_mapping({}) == GradingConfig()
    assert JudgeConfig.from_mapping({"endpoints": ["http://a/v1/"], "model": "m"}).endpoints == ("http://a/v1",)
    assert JudgeConfig.from_mapping({"endpoints": ["http://[::1]:80/v1"], "model": "m"}).endpoints
