"""Requests of official rules against a judge on loopback: chains, unusable replies, resumption, dead endpoints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.harness import judging
from codedance_verl.harness.judge_replies import JudgeReply, ReplyCache
from codedance_verl.harness.judging import NOT_ASKED, Judged, OfficialJudge, judge_name
from codedance_verl.harness.rule_calls import RuleCalls
from codedance_verl.tasks.item import Item, JudgeRequest, Score
from codedance_verl.tasks.registry import task_of
from tests.unit.grading.judge_server import Fault, JudgeServer, serving

DEAD = "http://127.0.0.1:9/v1"


def config(urls: Sequence[str], **settings: object) -> JudgeConfig:
    quick = {"first_pause_s": 0.01, "longest_pause_s": 0.05, "request_timeout_s": 1.0, "total_timeout_s": 5.0}
    return JudgeConfig.from_mapping({"endpoints": list(urls), "model": "judge", **quick, **settings})


def ask(
    server: JudgeServer, *requests: JudgeRequest, folder: Path | None = None, **settings: object
) -> tuple[list[Judged], OfficialJudge]:
    async def asked() -> tuple[list[Judged], OfficialJudge]:
        async with serving(server) as urls:
            judge = OfficialJudge(config(urls, **settings), RuleCalls(), folder)
            try:
                return await asyncio.gather(*(judge.score(request) for request in requests)), judge
            finally:
                await judge.close()

    return asyncio.run(asked())


def request(reply: str = "It is 4.", **changes: Any) -> JudgeRequest:
    """Request that is read as right for 1, wrong for 0, and not at all for anything else."""
    values = {"1": 1.0, "0": 0.0}
    made = JudgeRequest(
        rule="counted",
        prompt=f"Is this right? {reply}",
        template_sha256="a" * 64,
        read=lambda text: Score(values[text], "counted", text) if text in values else None,
        failed=Score(None, "counted", reason="the judge gave neither"),
    )
    return replace(made, **changes)


def replies(*texts: str) -> list[Fault]:
    return [Fault(text=text) for text in texts]


def mathverse_item() -> Item:
    return Item("1", "How long?", (), "B", choices=("3", "4"), facts={"question": "How long?\nA:3\nB:4"})


def charxiv_item() -> Item:
    return Item("1", "Which?", (), "Ours", facts={"question": "Which?", "answer_type": 1, "prompts": ""})


def official(task: str, item: Item, reply: str) -> JudgeRequest:
    found = task_of(task).official(item, reply)
    assert isinstance(found, JudgeRequest)
    return found


def data_of(body: dict[str, Any]) -> dict[str, str]:
    """JSON object on a line of its own in the prompt."""
    lines = body["messages"][-1]["content"].splitlines()
    data: dict[str, str] = json.loads(next(line for line in lines if line.startswith("{")))
    return data


def extract_then_compare(body: dict[str, Any]) -> str:
    data = data_of(body)
    if "response" in data:
        return data["response"].rsplit(" ", 1)[-1]
    return str(int(data["answer"] == data["reference"]))


def test_a_chain_of_two_steps_extracts_and_then_compares() -> None:
    server = JudgeServer(answer=extract_then_compare)
    item = mathverse_item()
    found, judge = ask(
        server, official("mathverse", item, "The answer is B"), official("mathverse", item, "I take A"), concurrency=1
    )
    assert [(one.score.value, one.score.extracted) for one in found] == [(1.0, "B"), (0.0, "A")]
    assert len(server.requests) == 4 and judge.stats.prompt_tokens == 400
    assert len(found[0].templates) == 2, "both prompts are named"
    assert {body["max_tokens"] for body in server.requests} == {256}
    assert not any("response_format" in body or "seed" in body for body in server.requests)


def test_a_json_reply_is_asked_for_with_the_settings_of_the_rule() -> None:
    def graded(body: dict[str, Any]) -> str:
        data = data_of(body)
        return json.dumps({"extracted_answer": data["answer"], "score": int(data["answer"] == data["reference"])})

    server = JudgeServer(answer=graded)
    item = charxiv_item()
    found, _ = ask(server, official("charxiv", item, "Ours"), official("charxiv", item, "Theirs"))
    assert [one.score.value for one in found] == [1.0, 0.0]
    body = server.requests[0]
    assert body["response_format"] == {"type": "json_object"}
    assert (body["seed"], body["temperature"], body["max_tokens"], body["model"]) == (42, 0, 256, "judge")


def test_a_server_that_refuses_the_form_is_asked_without_it() -> None:
    server = JudgeServer(takes_schema=False, answer=lambda body: '{"extracted_answer": "x", "score": 0}')
    item = charxiv_item()
    found, _ = ask(
        server, official("charxiv", item, "x"), official("charxiv", item, "y"), official("charxiv", item, "z"),
        concurrency=1,
    )  # fmt: skip
    assert [one.score.value for one in found] == [0.0] * 3
    assert sum("response_format" in body for body in server.requests) == 1


def test_tokens_double_after_each_reply_that_is_cut_or_cannot_be_read() -> None:
    faults = [Fault(text='{"extracted'), Fault(text="1", finish="length"), *replies("", "1")]
    server = JudgeServer(faults=faults)
    (found,), judge = ask(server, request(max_tokens=100, most_tokens=500, attempts=6))
    assert found.score == Score(1.0, "counted", "1")
    assert [body["max_tokens"] for body in server.requests] == [100, 200, 400, 500]
    assert judge.stats.failures == 3


def test_without_a_usable_reply_the_rules_own_score_stands() -> None:
    server = JudgeServer(always=Fault(text="maybe"))
    (found,), _ = ask(server, request(attempts=4))
    assert found.score == Score(None, "counted", reason="the judge gave neither")
    assert [body["max_tokens"] for body in server.requests] == [256] * 4


def test_a_reply_without_text_is_asked_for_again() -> None:
    texts = iter([None, "1"])
    (found,), _ = ask(JudgeServer(answer=lambda body: next(texts)), request())
    assert found.score.value == 1.0


def test_a_rule_that_never_ends_asking_has_no_score() -> None:
    def again(text: str) -> JudgeRequest:
        return request(text, read=again)

    server = JudgeServer(always=Fault(text="more"))
    (found,), _ = ask(server, request(read=again))
    assert found.score.value is None and "16 questions" in found.score.reason


def test_what_was_asked_costs_nothing_after_a_restart_and_a_torn_line_is_asked_again(tmp_path: Path) -> None:
    item = mathverse_item()
    asked = [official("mathverse", item, f"reply {number} B") for number in range(5)] + [request(attempts=3)]

    def answer(body: dict[str, Any]) -> str:
        return "maybe" if "Is this right" in body["messages"][0]["content"] else extract_then_compare(body)

    server = JudgeServer(answer=answer)
    first, _ = ask(server, *asked, folder=tmp_path)
    assert len(server.requests) == 5 + 1 + 3, "equal comparisons are asked once, unusable replies three times"

    again = JudgeServer()
    second, judge = ask(again, *asked, folder=tmp_path)
    assert [one.score for one in second] == [one.score for one in first]
    assert again.requests == [] and judge.stats.requests == 0

    (file,) = tmp_path.glob("replies.*.jsonl")
    file.write_bytes(file.read_bytes()[:-20])
    server.requests.clear()
    third, _ = ask(server, *asked, folder=tmp_path)
    assert [one.score for one in third] == [one.score for one in first] and len(server.requests) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "another"},
        {"system": "Be strict."},
        {"temperature": 0.5},
        {"seed": 1},
        {"max_tokens": 200},
        {"json_reply": True},
    ],
)
def test_whatever_a_reply_depends_on_is_asked_for_anew(tmp_path: Path, change: dict[str, Any]) -> None:
    server = JudgeServer(answer=lambda body: "1")
    ask(server, request(), folder=tmp_path)
    ask(server, replace(request(), **change), folder=tmp_path)
    assert len(server.requests) == 2
    ask(server, request(), folder=tmp_path)
    assert len(server.requests) == 2
    ask(server, request(), folder=tmp_path, model="other")
    assert len(server.requests) == 3


def test_a_cache_that_cannot_be_written_costs_no_reply(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache = ReplyCache(tmp_path / "file" / "judge")
    cache.put("a", JudgeReply("x"))
    cache.put("b", JudgeReply("y"))
    assert cache.get("a") == JudgeReply("x") and len(cache) == 2
    assert len(caplog.records) == 1 and "cannot be written" in caplog.text


def test_a_dead_endpoint_is_no_reply_and_is_not_remembered(tmp_path: Path) -> None:
    async def dead() -> Judged:
        judge = OfficialJudge(config([DEAD], attempts=2), RuleCalls(), tmp_path)
        try:
            return await judge.score(request())
        finally:
            await judge.close()

    score = asyncio.run(dead()).score
    assert score.value is None and score.rule == "counted" and score.reason.startswith(NOT_ASKED)
    (found,), _ = ask(JudgeServer(answer=lambda body: "1"), request(), folder=tmp_path)
    assert found.score.value == 1.0


def test_endpoints_that_are_down_are_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "MAX_FAULTS_IN_A_ROW", 3)
    server = JudgeServer(always=Fault(status=500))

    async def one_by_one(judge: OfficialJudge) -> list[Score]:
        return [(await judge.score(request(str(number)))).score for number in range(6)]

    scores = served(server, one_by_one, attempts=2)
    assert len(server.requests) == 6
    assert "HTTP 500" in scores[0].reason and "3 questions in a row" in scores[-1].reason


def test_a_request_that_is_refused_says_nothing_about_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "MAX_FAULTS_IN_A_ROW", 2)
    server = JudgeServer(faults=[Fault(status=400)] * 4, answer=lambda body: "1")

    async def one_by_one(judge: OfficialJudge) -> list[float | None]:
        return [(await judge.score(request(str(number)))).score.value for number in range(5)]

    assert served(server, one_by_one) == [None] * 4 + [1.0]


def served(server: JudgeServer, work: Callable[[OfficialJudge], Awaitable[Any]], **settings: object) -> Any:
    async def asked() -> Any:
        async with serving(server) as urls:
            judge = OfficialJudge(config(urls, **settings), RuleCalls())
            try:
                return await work(judge)
            finally:
                await judge.close()

    return asyncio.run(asked())


def test_names_of_judges() -> None:
    assert judge_name("m", []) == "m (not asked)"
    assert judge_name("m", ["ab" * 32]) == "m (prompt abababababab)"
    two = judge_name("m", ["cd" * 32, "ab" * 32])
    assert two.startswith("m (2 prompts ") and two == judge_name("m", ["ab" * 32, "cd" * 32, "ab" * 32])
    assert two != judge_name("m", ["ab" * 32, "ce" * 32])
