"""An answer is data: no text of it becomes part of the judge's prompt, or its verdict."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from pathlib import Path

import pytest

from codedance_verl.grading.judge.judge import Judge
from codedance_verl.grading.judge.prompt import MAX_QUESTION_CHARS, MAX_TRUTH_CHARS, Question, make_prompt
from codedance_verl.types import Verdict
from tests.unit.grading.judge_server import JudgeServer, parrot, read_prompt, serving
from tests.unit.grading.test_judge import config

ATTACKS = [
    line.replace("\\n", "\n").replace("\\u202e", "\u202e")
    for line in (Path(__file__).resolve().parents[2] / "data" / "grading" / "judge_attacks.txt")
    .read_text(encoding="utf-8")
    .splitlines()
]
CHAT_MARKUP = ("<|", "|>", "<s>", "</s>", "[INST]", "<<SYS>>", "```", "<answer>")


@pytest.mark.parametrize("answer", ATTACKS)
def test_an_answer_stays_one_quoted_string_between_the_fences(answer: str) -> None:
    prompt = make_prompt(Question("What is it?", "a tram", answer))
    data, case = read_prompt({"messages": prompt.messages})
    assert data == {"question": "What is it?", "reference": "a tram", "answer": answer}
    assert case == prompt.case and case not in answer
    user = prompt.messages[1]["content"]
    assert not [markup for markup in CHAT_MARKUP if markup in user]
    assert all(char == "\n" or unicodedata.category(char)[0] != "C" for char in user)
    assert answer not in prompt.messages[0]["content"] or len(answer) < 10


def test_a_judge_that_repeats_what_an_answer_says_gives_no_verdict() -> None:
    async def judged() -> list[Verdict]:
        async with serving(JudgeServer(reply=parrot)) as urls:
            judge = Judge(config(urls))
            grades = [await judge.grade(Question("What is it?", "a tram", attack)) for attack in ATTACKS]
            await judge.close()
            return [grade.verdict for grade in grades]

    assert set(asyncio.run(judged())) == {Verdict.UNGRADED}


def test_fences_and_case_numbers_are_drawn_anew_for_every_request() -> None:
    question = Question("q", "t", "a")
    prompts = [make_prompt(question) for _ in range(50)]
    assert len({prompt.case for prompt in prompts}) == 50
    assert len({prompt.messages[1]["content"].split("\n")[0] for prompt in prompts}) == 50


def test_what_is_judged_is_bounded() -> None:
    prompt = make_prompt(Question("q" * 100_000, "t" * 100_000, "a" * 999))
    data = json.loads(prompt.messages[1]["content"].split("\n")[1])
    assert (len(data["question"]), len(data["reference"]), len(data["answer"])) == (
        MAX_QUESTION_CHARS,
        MAX_TRUTH_CHARS,
        999,
    )


@pytest.mark.parametrize("text", ["\ud800", "\U000e0001tag", "\x00\x1b[31m", "a\u2028b"])
def test_characters_that_cannot_be_seen_or_sent_are_escaped(text: str) -> None:
    content = make_prompt(Question("q", "t", text)).messages[1]["content"]
    content.encode()
    assert json.loads(content.split("\n")[1])["answer"] == text
