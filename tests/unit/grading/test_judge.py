"""The judge's client against real servers on loopback that fail in every way a server can."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from codedance_verl.errors import UserError
from codedance_verl.grading.judge.cache import VerdictCache, cache_key
from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.grading.judge.endpoints import EndpointPool
from codedance_verl.grading.judge.judge import Judge
from codedance_verl.grading.judge.probe import unreachable
from codedance_verl.grading.judge.prompt import Question
from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.grading.judge.verdict import Judgement
from codedance_verl.types import Grade, Verdict
from tests.sockets import answering_once
from tests.unit.grading.judge_server import Fault, JudgeServer, serving, verdict

RIGHT = Question("What is it?", "a tram", "it is a tram")
WRONG = Question("What is it?", "a tram", "it is a bus")


def config(urls: Sequence[str], **settings: object) -> JudgeConfig:
    quick = {"first_pause_s": 0.01, "longest_pause_s": 0.2, "request_timeout_s": 1.0, "total_timeout_s": 5.0}
    return JudgeConfig.from_mapping({"endpoints": list(urls), "model": "judge", **quick, **settings})


async def ask(
    servers: Sequence[JudgeServer], *questions: Question, **settings: object
) -> tuple[list[Grade], JudgeStats]:
    async with serving(*servers) as urls:
        judge = Judge(config(urls, **settings))
        try:
            grades = await asyncio.gather(*(judge.grade(question) for question in questions))
        finally:
            await judge.close()
    return grades, judge.stats


def verdicts(
    servers: Sequence[JudgeServer], *questions: Question, **settings: object
) -> tuple[list[Verdict], JudgeStats]:
    grades, stats = asyncio.run(ask(servers, *questions, **settings))
    return [grade.verdict for grade in grades], stats


def many(count: int) -> list[Question]:
    return [Question("What is it?", "a tram", f"a tram of line {number}") for number in range(count)]


def test_right_and_wrong() -> None:
    found, stats = verdicts([JudgeServer()], RIGHT, WRONG, input_price=2.0, output_price=10.0)
    assert found == [Verdict.CORRECT, Verdict.WRONG]
    assert (stats.asked, stats.requests, stats.prompt_tokens, stats.completion_tokens) == (2, 2, 200, 20)
    assert stats.cost == pytest.approx((200 * 2.0 + 20 * 10.0) / 1e6)
    assert stats.failures == stats.no_verdict == 0


def test_a_request_is_greedy_bounded_and_asks_for_the_form_of_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    server = JudgeServer()
    verdicts([server], RIGHT, api_key_env="JUDGE_KEY", max_tokens=64)
    (body,) = server.requests
    assert (body["temperature"], body["n"], body["max_tokens"], body["model"]) == (0, 1, 64, "judge")
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["verdict"]["enum"] == ["correct", "wrong"] and not schema["additionalProperties"]
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_white_space_around_a_key_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", " sk-abc\n")
    server = JudgeServer()
    assert verdicts([server], RIGHT, api_key_env="JUDGE_KEY")[0] == [Verdict.CORRECT]
    assert server.headers[0]["Authorization"] == "Bearer sk-abc"


@pytest.mark.parametrize("key", ["sk abc", "sk\nabc", "sk\x7fabc", "sk-\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_a_key_that_cannot_be_sent_is_refused_at_the_start_and_not_told(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", key)
    settings = config(["http://127.0.0.1:9/v1"], api_key_env="JUDGE_KEY")

    async def judged() -> None:
        Judge(settings)

    for refused in (lambda: asyncio.run(judged()), lambda: unreachable(settings)):
        with pytest.raises(UserError, match=r"^grading\.judge\.api_key_env=JUDGE_KEY: ") as caught:
            refused()
        assert "sk" not in str(caught.value)


PASSING = {
    "429": Fault(status=429),
    "500": Fault(status=500),
    "503": Fault(status=503),
    "slow": Fault(wait_s=3.0),
    "garbage": Fault(body="<html>proxy error</html>"),
    "empty": Fault(body=""),
    "other JSON": Fault(body='{"choices": []}'),
    "odd JSON": Fault(body='[{"choices": [{"message": "hello"}]}]'),
    "nested": Fault(body="[" * 100_000),
    "cut": Fault(cut=True),
    "endless": Fault(body="x" * (2 << 20)),
    "infinite tokens": Fault(body='{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1e999}}'),
    "tokens of 400 digits": Fault(
        body='{"choices": [{"message": {"content": "x"}}], "usage": {"completion_tokens": 1' + "0" * 400 + "}}"
    ),
    "negative tokens": Fault(body='{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": -1}}'),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_fails_once_is_tried_again(fault: Fault) -> None:
    found, stats = verdicts([JudgeServer(faults=[fault])], RIGHT)
    assert found == [Verdict.CORRECT]
    assert (stats.requests, stats.failures) == (2, 1)


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_fails_always_leaves_the_answer_ungraded_in_bounded_time(fault: Fault) -> None:
    started = time.monotonic()
    grades, stats = asyncio.run(ask([JudgeServer(always=fault)], RIGHT, attempts=3, request_timeout_s=0.2))
    assert grades[0].verdict is Verdict.UNGRADED and grades[0].rule == "judge" and grades[0].evidence
    assert (stats.requests, stats.no_verdict) == (3, 1)
    assert time.monotonic() - started < 5


UNREADABLE = {
    "prose": "The answer is correct.",
    "a 1": "1",
    "sentence around it": 'Sure! {"case": "CASE", "reason": "r", "verdict": "correct"}',
    "two objects": '{"case": "CASE", "reason": "r", "verdict": "correct"} {}',
    "another case": '{"case": "00000000", "reason": "r", "verdict": "correct"}',
    "no case": '{"reason": "r", "verdict": "correct"}',
    "another verdict": '{"case": "CASE", "reason": "r", "verdict": "maybe"}',
    "capitals": '{"case": "CASE", "reason": "r", "verdict": "CORRECT"}',
    "a number": '{"case": "CASE", "reason": "r", "verdict": 1}',
    "a list": '[{"case": "CASE", "reason": "r", "verdict": "correct"}]',
    "twice": '{"case": "CASE", "reason": "r", "verdict": "wrong", "verdict": "correct"}',
    "more fields": '{"case": "CASE", "reason": "r", "verdict": "correct", "score": "1"}',
    "nothing": "",
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_anything_but_the_form_is_no_verdict(text: str) -> None:
    server = JudgeServer(reply=lambda data, case: text.replace("CASE", case))
    found, stats = verdicts([server], RIGHT)
    assert found == [Verdict.UNGRADED]
    assert stats.requests == 2, "asked more often than it can help"


def test_a_reply_that_was_cut_is_no_verdict() -> None:
    found, _ = verdicts([JudgeServer(always=Fault(finish="length"))], RIGHT)
    assert found == [Verdict.UNGRADED]


def test_a_code_fence_around_the_verdict_is_read() -> None:
    server = JudgeServer(reply=lambda data, case: f"```json\n{verdict(case, 'wrong')}\n```\n")
    assert verdicts([server], RIGHT)[0] == [Verdict.WRONG]


def test_a_server_without_schemas_is_asked_without_one_from_then_on() -> None:
    server = JudgeServer(takes_schema=False)
    found, _ = verdicts([server], *many(4), concurrency=1)
    assert found == [Verdict.CORRECT] * 4
    assert ["response_format" in body for body in server.requests] == [True, False, False, False, False]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_request_that_every_server_refuses_is_not_repeated(status: int) -> None:
    servers = [JudgeServer(always=Fault(status=status)), JudgeServer(always=Fault(status=status))]
    grades, stats = asyncio.run(ask(servers, RIGHT))
    assert grades[0].verdict is Verdict.UNGRADED and f"HTTP {status}" in grades[0].evidence
    assert stats.requests <= 4


def test_retry_after_in_seconds_is_honoured() -> None:
    server = JudgeServer(faults=[Fault(status=429, headers=(("Retry-After", "1"),))])
    found, _ = verdicts([server], RIGHT, longest_pause_s=3.0)
    assert found == [Verdict.CORRECT]
    assert server.times[1] - server.times[0] >= 0.95


def test_retry_after_as_a_date_is_honoured_up_to_the_longest_pause() -> None:
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    server = JudgeServer(faults=[Fault(status=503, headers=(("Retry-After", date),))])
    found, _ = verdicts([server], RIGHT, longest_pause_s=0.5)
    assert found == [Verdict.CORRECT]
    assert 0.45 <= server.times[1] - server.times[0] < 3.0


def test_pauses_grow_with_every_failure_in_a_row() -> None:
    server = JudgeServer(faults=[Fault(status=500)] * 4)
    verdicts([server], RIGHT, first_pause_s=0.05, longest_pause_s=10.0)
    gaps = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
    assert len(gaps) == 4
    assert gaps[3] > gaps[0] * 2 and gaps[3] >= 0.05 * 8 * 0.75


def test_work_is_shared_out() -> None:
    servers = [JudgeServer(always=Fault(wait_s=0.02)), JudgeServer(always=Fault(wait_s=0.02))]
    found, _ = verdicts(servers, *many(40))
    assert found == [Verdict.CORRECT] * 40
    assert [len(server.requests) for server in servers] == [20, 20]


def test_the_faster_server_gets_more() -> None:
    slow, fast = JudgeServer(always=Fault(wait_s=0.2)), JudgeServer(always=Fault(wait_s=0.01))
    verdicts([slow, fast], *many(40), concurrency=4)
    assert len(fast.requests) > 2 * len(slow.requests)


def test_a_failing_server_is_left_alone() -> None:
    broken, good = JudgeServer(always=Fault(status=500)), JudgeServer()
    found, _ = verdicts([broken, good], *many(60), concurrency=4, first_pause_s=5.0, longest_pause_s=60.0)
    assert found == [Verdict.CORRECT] * 60
    assert len(broken.requests) <= 4, "only what was under way when it failed first"


def test_a_server_that_failed_is_tried_with_one_request_and_then_shares_the_work() -> None:
    async def takes() -> tuple[list[str], list[str]]:
        pool = EndpointPool(["a", "b"], 0.01, 0.02)
        failed = await pool.take()
        pool.failed(failed)
        await asyncio.sleep(0.1)
        trial = [(await pool.take()).url for _ in range(40)]
        pool.succeeded(failed)
        return trial, [(await pool.take()).url for _ in range(40)]

    trial, after = asyncio.run(takes())
    assert (trial.count("a"), trial.count("b")) == (1, 39)
    assert after.count("a") == 40 - after.count("b") >= 39, "the one with fewer requests under way"


def test_where_all_servers_failed_none_waits_for_another_to_be_tried() -> None:
    async def takes() -> list[str]:
        pool = EndpointPool(["a", "b"], 0.01, 0.02)
        for endpoint in [await pool.take(), await pool.take()]:
            pool.failed(endpoint)
        await asyncio.sleep(0.1)
        return sorted([(await pool.take()).url for _ in range(4)])

    assert asyncio.run(asyncio.wait_for(takes(), 5)) == ["a", "a", "b", "b"]


def test_a_server_that_is_gone_costs_no_verdict() -> None:
    async def one_gone() -> Grade:
        async with serving(JudgeServer()) as (good,):
            judge = Judge(config(["http://127.0.0.1:9/v1", good]))
            try:
                return await judge.grade(RIGHT)
            finally:
                await judge.close()

    assert asyncio.run(one_gone()).correct


def test_no_more_requests_at_once_than_allowed() -> None:
    server = JudgeServer(always=Fault(wait_s=0.02))
    verdicts([server], *many(30), concurrency=5)
    assert server.most_at_once == 5


def test_queueing_counts_against_the_time_of_an_answer() -> None:
    started = time.monotonic()
    found, _ = verdicts(
        [JudgeServer(always=Fault(wait_s=0.4))], *many(10), concurrency=1, total_timeout_s=1.0, request_timeout_s=5.0
    )
    assert time.monotonic() - started < 3
    assert Verdict.UNGRADED in found and Verdict.CORRECT in found


def test_equal_answers_share_one_request() -> None:
    server = JudgeServer(always=Fault(wait_s=0.05))
    found, stats = verdicts([server], *[RIGHT] * 8)
    assert found == [Verdict.CORRECT] * 8
    assert (stats.asked, stats.cached, stats.requests) == (8, 7, 1)


def test_verdicts_are_remembered_over_a_restart_and_failures_are_not(tmp_path: Path) -> None:
    async def twice() -> tuple[int, int, int]:
        server = JudgeServer()
        counts = []
        async with serving(server) as urls:
            for _ in range(2):
                judge = Judge(config(urls), tmp_path)
                await judge.grade(RIGHT)
                await judge.close()
                counts.append(len(server.requests))
            server.always = Fault(text="no verdict")
            judge = Judge(config(urls), tmp_path)
            ungraded = await judge.grade(WRONG)
            server.always = None
            graded = await judge.grade(WRONG)
            await judge.close()
        assert (ungraded.verdict, graded.verdict) == (Verdict.UNGRADED, Verdict.WRONG)
        return counts[0], counts[1], len(server.requests)

    first, second, _ = asyncio.run(twice())
    assert (first, second) == (1, 1)


def test_a_damaged_cache_file_costs_its_damaged_lines_alone(tmp_path: Path) -> None:
    good = {"key": cache_key("judge", RIGHT), "correct": True, "reason": "r"}
    lines = [json.dumps(good), '{"key": "a", "corr', "[]", '{"key": 1, "correct": true, "reason": "r"}', "\x00"]
    (tmp_path / "verdicts.host.1.jsonl").write_text("\n".join(lines))
    cache = VerdictCache(10, tmp_path)
    assert len(cache) == 1
    assert cache.get(good["key"]) == Judgement(True, "r")  # type: ignore[arg-type]


def test_the_cache_is_bounded_and_keeps_what_was_used_last() -> None:
    cache = VerdictCache(2)
    cache.put("a", Judgement(True, ""))
    cache.put("b", Judgement(True, ""))
    assert cache.get("a") is not None
    cache.put("c", Judgement(True, ""))
    assert cache.get("b") is None and cache.get("a") is not None and len(cache) == 2


@pytest.mark.parametrize("other", [("q2", "t", "a"), ("q", "t2", "a"), ("q", "t", "a2")])
def test_the_key_of_a_verdict_depends_on_everything_that_is_judged(other: tuple[str, str, str]) -> None:
    assert cache_key("m", Question("q", "t", "a")) != cache_key("m", Question(*other))
    assert cache_key("m", Question("q", "t", "a")) != cache_key("n", Question("q", "t", "a"))


def test_one_who_gives_up_waiting_leaves_the_request_to_the_others() -> None:
    async def impatient() -> Grade:
        async with serving(JudgeServer(always=Fault(wait_s=0.2))) as urls:
            judge = Judge(config(urls))
            first = asyncio.create_task(judge.grade(RIGHT))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(judge.grade(RIGHT))
            await asyncio.sleep(0.05)
            first.cancel()
            grade = await second
            await judge.close()
            return grade

    assert asyncio.run(impatient()).correct


def test_stats_are_taken_once() -> None:
    stats = JudgeStats(asked=3, cost=0.5)
    assert stats.take() == JudgeStats(asked=3, cost=0.5)
    assert stats == JudgeStats()
    assert JudgeStats(asked=3, cost=0.5).shared(2) == JudgeStats(asked=1.5, cost=0.25)


def test_before_a_run_each_endpoint_that_does_not_answer_is_named() -> None:
    async def probed(model: str) -> list[str]:
        async with serving(JudgeServer()) as (good,):
            settings = JudgeConfig.from_mapping({"endpoints": [good, "http://127.0.0.1:9/v1"], "model": model})
            return await asyncio.to_thread(unreachable, settings)

    (line,) = asyncio.run(probed("judge"))
    assert line.startswith("http://127.0.0.1:9/v1: does not answer")
    assert "serves judge; set grading.judge.model" in asyncio.run(probed("another"))[0]


def test_before_a_run_an_endpoint_that_speaks_no_http_is_named() -> None:
    with answering_once(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        url = f"http://127.0.0.1:{port}/v1"
        (line,) = unreachable(config([url]))
    assert line == f"{url}: is no OpenAI-compatible server; its address ends in /v1 as a rule"
