"""Both scores of samples: rule, judge and grader together, with judges on loopback."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.errors import UserError
from codedance_verl.grading.config import GradingConfig
from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.harness.judging import NO_JUDGE, NOT_ASKED
from codedance_verl.harness.measured import Measured
from codedance_verl.harness.reply import Reply
from codedance_verl.harness.scoring import Scorer, score
from codedance_verl.records.record import Status
from codedance_verl.tasks.item import Item, JudgeRequest, Score
from codedance_verl.tasks.registry import task_of
from codedance_verl.tasks.task import Task
from tests.unit.grading.judge_server import Fault, JudgeServer, honest, read_prompt, serving

DEAD = "http://127.0.0.1:9/v1"
QUICK = {"first_pause_s": 0.01, "longest_pause_s": 0.05, "request_timeout_s": 1.0, "total_timeout_s": 5.0}

COUNTBENCH, HRBENCH = task_of("countbench"), task_of("hrbench_4k")


def grading(urls: Sequence[str] = (), **judge: object) -> GradingConfig:
    settings = {"endpoints": list(urls), "model": "judge", **QUICK, **judge}
    return GradingConfig.from_mapping({"judge": settings} if urls else {})


def scored(
    measured: Sequence[Measured], task: Task, server: JudgeServer | None = None, folder: Path | None = None
) -> tuple[list[Measured], Any]:
    """Scored samples, and the names of the judges."""

    async def run() -> tuple[list[Measured], Any]:
        if server is None:
            return await _score(grading())
        async with serving(server) as urls:
            return await _score(grading(urls))

    async def _score(settings: GradingConfig) -> tuple[list[Measured], Any]:
        async with aclosing(Scorer(settings, folder)) as scorer:
            return await score(measured, task, scorer), scorer.judge_name(task)

    return asyncio.run(run())


def sample(item: Item, text: str, number: int = 0) -> Measured:
    return Measured(item, number, Status.ANSWERED, reply=Reply(text=text))


def count(number: int, truth: str | None = "4") -> Item:
    return Item(str(number), "How many cats are there?", (), truth, task="countbench", style="count")


def option(number: int) -> Item:
    return Item(
        str(number), "Which colour?\nA. red\nB. blue", (), "B", "hrbench_4k", choices=("red", "blue"), style="choice",
        facts={"question": "Which colour?"},
    )  # fmt: skip


def open_item() -> Item:
    return Item("o", "What drives there?", (), "a tram", style="model", facts={"question": "What?", "answer_type": 2})


def both(body: dict[str, Any]) -> str:
    """Judge of the grader where the prompt is its own, else one of official rules."""
    if len(body["messages"]) == 2:
        return honest(*read_prompt(body))
    prompt = body["messages"][0]["content"]
    data = json.loads(next(line for line in prompt.splitlines() if line.startswith("{")))
    if "extracted_answer" in prompt:
        right = data["reference"] in data["answer"]
        return json.dumps({"extracted_answer": data["answer"], "score": int(right)})
    return "B" if "azure" in data["answer"] else "Z"


def test_rule_and_grader_score_without_a_judge_and_in_order() -> None:
    texts = [f"{number % 7}" for number in range(60)]
    found, names = scored([sample(count(n), text, n % 2) for n, text in enumerate(texts)], COUNTBENCH)
    assert [one.item.id for one in found] == [str(number) for number in range(60)]
    expected = [float(text == "4") for text in texts]
    assert [one.official.value for one in found if one.official] == expected
    assert [one.ours.value for one in found if one.ours] == expected
    assert {one.status for one in found} == {Status.ANSWERED} and names is None


def test_samples_without_a_reply_stay_as_they_are() -> None:
    failed = [
        Measured(count(1), 0, Status.ENDPOINT_FAILURE, "HTTP 500"),
        Measured(count(2), 0, Status.IMAGE_UNREADABLE, "no such file"),
        Measured(count(3), 0, Status.SANDBOX_FAULT, "no engine", Reply(text="4")),
    ]
    found, _ = scored(failed, COUNTBENCH)
    assert found == [replace(one, item=replace(one.item, revision=COUNTBENCH.revision)) for one in failed]


def test_an_item_without_a_truth_has_no_verdict_of_the_grader() -> None:
    (found,), _ = scored([sample(count(1, truth=None), "4")], COUNTBENCH)
    assert found.official is not None and found.official.value is None
    assert found.ours == Score(None, "no_ground_truth", reason="the item has no truth")
    assert found.status is Status.ANSWERED


def test_without_a_judge_what_needs_one_has_no_score_and_says_so() -> None:
    found, _ = scored([sample(option(1), "B"), sample(option(2), "an azure one")], HRBENCH)
    assert [one.official.value for one in found if one.official] == [1.0, None]
    assert found[1].official is not None and found[1].official.reason == NO_JUDGE
    assert found[1].status is Status.ANSWERED, "nothing has failed"
    (charxiv,), _ = scored([sample(_charxiv(), "the red tram")], task_of("charxiv"))
    assert charxiv.ours is not None and charxiv.ours.value is None and "no judge" in charxiv.ours.reason


def _charxiv() -> Item:
    item = open_item()
    return replace(item, facts=dict(item.facts) | {"prompts": ""})


def test_judges_of_rule_and_grader_are_asked_and_named() -> None:
    server = JudgeServer(answer=both)
    samples = [sample(_charxiv(), "a tram of line 3"), sample(_charxiv(), "it is a bus")]
    found, names = scored(samples, task_of("charxiv"), server)
    assert [one.official.value for one in found if one.official] == [1.0, 0.0]
    assert [one.ours.value for one in found if one.ours] == [1.0, 0.0]
    assert len(server.requests) == 4
    assert names["official"].startswith("judge (prompt ") and names["ours"].startswith("judge (prompt ")
    assert names["official"] != names["ours"]


def test_a_rule_that_needed_no_judge_names_none() -> None:
    server = JudgeServer(answer=both)
    _, names = scored([sample(option(1), "B")], HRBENCH, server)
    assert list(names) == ["ours"] and server.requests == []


def test_a_judge_without_a_usable_reply_is_a_failure_of_the_judge() -> None:
    server = JudgeServer(always=Fault(text="hm"))
    found, _ = scored([sample(option(1), "an azure one"), sample(option(2), "A")], HRBENCH, server)
    assert [one.status for one in found] == [Status.JUDGE_FAILURE, Status.ANSWERED]
    assert found[0].reason == "the judge picked no option"
    assert [one.official.value for one in found if one.official] == [None, 0.0]
    assert len(server.requests) == 3


def test_a_failure_of_the_judge_is_mended_by_scoring_again(tmp_path: Path) -> None:
    async def dead() -> list[Measured]:
        async with aclosing(Scorer(grading([DEAD], attempts=2), tmp_path)) as scorer:
            return await score([sample(option(1), "an azure one")], HRBENCH, scorer)

    (down,) = asyncio.run(dead())
    assert down.status is Status.JUDGE_FAILURE and down.reason.startswith(NOT_ASKED)
    (found,), _ = scored([down], HRBENCH, JudgeServer(answer=both), tmp_path)
    assert found.official is not None and found.official.value == 1.0
    assert (found.status, found.reason) == (Status.ANSWERED, "")


def test_scoring_again_asks_no_judge(tmp_path: Path) -> None:
    samples = [sample(_charxiv(), f"a tram of line {number}") for number in range(20)]
    first, _ = scored(samples, task_of("charxiv"), JudgeServer(answer=both), tmp_path)
    idle = JudgeServer(always=Fault(status=500))
    second, _ = scored(samples, task_of("charxiv"), idle, tmp_path)
    assert second == first and idle.requests == []


def test_a_scoring_that_was_broken_off_asks_for_the_rest_alone(tmp_path: Path) -> None:
    """The first ten requests are answered, the others hang until the scoring is given up."""
    samples = [sample(option(number), f"an azure {number}") for number in range(24)]
    hanging = JudgeServer(faults=[Fault(text="B")] * 10, always=Fault(wait_s=30.0))

    async def broken_off() -> None:
        async with serving(hanging) as urls, aclosing(Scorer(grading(urls, concurrency=4), tmp_path)) as scorer:
            scoring = asyncio.create_task(score(samples, HRBENCH, scorer))
            while len(hanging.requests) < 14:
                await asyncio.sleep(0.01)
            scoring.cancel()
            with suppress(asyncio.CancelledError):
                await scoring

    asyncio.run(broken_off())
    server = JudgeServer(answer=both)
    found, _ = scored(samples, HRBENCH, server, tmp_path)
    assert [one.official.value for one in found if one.official] == [1.0] * 24
    assert len(server.requests) == 14


def test_no_more_requests_at_once_than_configured_and_none_waits_in_vain() -> None:
    """Queueing is not in the time of a question: 40 questions at 2 at once take longer than one may."""
    server = JudgeServer(answer=both, always=Fault(wait_s=0.1))
    samples = [sample(_charxiv(), f"a tram {number}") for number in range(20)]

    async def run() -> list[Measured]:
        async with (
            serving(server) as urls,
            aclosing(Scorer(grading(urls, concurrency=2, total_timeout_s=1.5))) as scorer,
        ):
            return await score(samples, task_of("charxiv"), scorer)

    found = asyncio.run(run())
    assert [one.official.value for one in found if one.official] == [1.0] * 20
    assert server.most_at_once == 2 and len(server.requests) == 40


def test_the_official_judge_may_be_another_one() -> None:
    ours, official = JudgeServer(answer=both), JudgeServer(answer=both)

    async def run() -> Any:
        async with serving(ours, official) as (first, second):
            other = JudgeConfig.from_mapping({"endpoints": [second], "model": "gpt", **QUICK})
            async with aclosing(Scorer(grading([first]), None, other)) as scorer:
                await score([sample(_charxiv(), "a tram of line 3")], task_of("charxiv"), scorer)
                return scorer.judge_name(task_of("charxiv")), scorer.take_stats()

    names, stats = asyncio.run(run())
    assert names["official"].startswith("gpt (") and names["ours"].startswith("judge (")
    assert [body["model"] for body in official.requests] == ["gpt"] and len(ours.requests) == 1
    assert stats["official"].requests == stats["ours"].requests == 1


def test_replies_of_another_benchmark_are_scored_by_this_rule() -> None:
    corrected = task_of("mathvista_corrected")
    facts = {"question_type": "free_form", "answer_type": "float", "query": "How much?", "precision": 2}
    item = Item("1", "How much?", (), "2.00", task="mathvista", style="number", facts=facts | {"answer": "2.00"})
    published, _ = scored([sample(item, "2")], task_of("mathvista"))
    found, _ = scored([sample(item, "2")], corrected)
    assert published[0].official is not None and published[0].official.value == 0.0
    assert found[0].official is not None and found[0].official.value == 1.0
    assert found[0].item.task == "mathvista_corrected" and found[0].item.key == item.key


def test_items_of_another_benchmark_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"item 1 is of countbench and cannot be scored as hrbench_4k; give"):
        scored([sample(count(1), "4")], HRBENCH)


def _ruled(rule: Any) -> Task:
    return replace(COUNTBENCH, score=rule)


def test_a_rule_that_fails_costs_its_item_alone(caplog: pytest.LogCaptureFixture) -> None:
    def rule(item: Item, reply: str) -> Score:
        return Score.of(int(reply) == 4, "strict", reply)

    found, _ = scored([sample(count(1), "4"), sample(count(2), "four")], _ruled(rule))
    assert [one.official.value for one in found if one.official] == [1.0, None]
    assert found[1].official is not None and "ValueError" in found[1].official.reason
    assert [one.ours.value for one in found if one.ours] == [1.0, 1.0]
    assert "item 2 could not be scored" in caplog.text


def test_a_rule_that_hangs_holds_up_neither_the_others_nor_the_end() -> None:
    def rule(item: Item, reply: str) -> Score:
        if reply == "slow":
            time.sleep(4.0)
        return Score(1.0, "slow")

    samples = [sample(count(number), "slow" if number < 3 else "4") for number in range(10)]

    async def run() -> list[Measured]:
        async with aclosing(Scorer(grading(), rule_seconds=0.5)) as scorer:
            return await score(samples, _ruled(rule), scorer)

    started = time.monotonic()
    found = asyncio.run(run())
    assert time.monotonic() - started < 3.5
    values = [one.official.value for one in found if one.official]
    assert values == [None] * 3 + [1.0] * 7


def test_an_error_of_the_user_ends_the_scoring_with_its_own_message() -> None:
    def rule(item: Item, reply: str) -> JudgeRequest:
        raise UserError("prompts.py is gone; restore it")

    with pytest.raises(UserError, match=r"^prompts\.py is gone; restore it$"):
        scored([sample(count(1), "4"), sample(count(2), "4")], _ruled(rule))


def test_each_sample_is_reported() -> None:
    seen: list[int] = []

    async def run() -> None:
        async with aclosing(Scorer(grading())) as scorer:
            await score([sample(count(n), "4") for n in range(5)], COUNTBENCH, scorer, lambda: seen.append(1))
            assert scorer.grader_name["relative_tolerance"] == 0.0

    asyncio.run(run())
    assert len(seen) == 5
