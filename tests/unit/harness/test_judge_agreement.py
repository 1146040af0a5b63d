"""Agreement of the judge with scores that stand, on replies whose verdicts are known."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from codedance_verl.errors import UserError
from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.harness.judge_agreement import Agreement, judge_agreement
from codedance_verl.harness.measured import Measured
from codedance_verl.harness.reply import Reply
from codedance_verl.records.record import Status
from codedance_verl.statistics.pairs import PairedCounts
from codedance_verl.tasks.item import Item, Score
from tests.unit.grading.judge_server import Fault, JudgeServer, serving


def compare(
    measured: Sequence[Measured], count: int, server: JudgeServer, folder: Path | None = None, which: str = "official"
) -> Agreement:
    async def run() -> Agreement:
        async with serving(server) as (url,):
            settings = {"first_pause_s": 0.01, "longest_pause_s": 0.05, "attempts": 2, "total_timeout_s": 5.0}
            judge = JudgeConfig.from_mapping({"endpoints": [url], "model": "judge", **settings})
            return await judge_agreement(measured, count, judge, folder, which)

    return asyncio.run(run())


def sample(number: int, text: str, value: float | None, rule: str = "rule", cluster: str = "") -> Measured:
    item = Item(str(number), "What is it?", (), "a tram", cluster=cluster or str(number))
    score = Score(value, rule)
    return Measured(item, 0, Status.ANSWERED, reply=Reply(text=text), official=score, ours=score)


def replies(right: int, too_strict: int, too_kind: int, wrong: int) -> list[Measured]:
    """Samples by what the judge (a tram is right) and the rule say."""
    kinds = [("a tram", 1.0)] * right + [("a tram", 0.0)] * too_strict + [("a bus", 1.0)] * too_kind
    kinds += [("a bus", 0.0)] * wrong
    return [sample(number, f"{text} {number}", value) for number, (text, value) in enumerate(kinds)]


def test_counts_rate_kappa_and_disagreements() -> None:
    found = compare(replies(20, 10, 5, 15), 100, JudgeServer())
    assert found.counts == PairedCounts(both=20, only_a=5, only_b=10, neither=15)
    assert (found.drawn, found.undecided, found.rate) == (50, 0, 0.7)
    assert found.kappa is not None and found.kappa.value == pytest.approx(0.4)
    assert [one.measured.item.id for one in found.disagreements] == [str(number) for number in range(20, 35)]
    assert found.disagreements[0].grade.evidence == "so it is"
    assert found.sentence.startswith(
        "judge and official score agree on 70.0 % of 50 replies (56.2 to 80.9), kappa 0.40"
    )


def test_a_draw_is_of_the_size_asked_for_the_same_again_and_one_of_a_cluster() -> None:
    measured = [sample(number, f"a tram {number}", 1.0, cluster=str(number // 4)) for number in range(80)]
    server = JudgeServer()
    found = compare(measured, 12, server)
    assert found.drawn == len(server.requests) == found.counts.pairs == 12
    assert compare(measured, 12, JudgeServer()) == found
    everything = JudgeServer()
    assert compare(measured, 1_000, everything).drawn == len(everything.requests) == 20


def test_what_is_undecided_is_not_drawn_and_what_the_judge_leaves_open_is_counted() -> None:
    measured = [sample(1, "a tram", None), sample(2, " ", 0.0), sample(3, "a tram", 0.5), sample(4, "a tram", 1.0)]
    server = JudgeServer(always=Fault(text="no verdict"))
    found = compare(measured, 10, server)
    assert (found.drawn, found.undecided, found.rate, found.kappa) == (1, 1, None, None)
    assert found.sentence == "judge and official score: no reply that both decide"


def test_verdicts_of_the_judge_are_not_compared_with_themselves() -> None:
    measured = [sample(1, "a tram", 1.0, rule="judge"), sample(2, "a tram", 1.0, rule="number")]
    assert compare(measured, 10, JudgeServer(), which="ours").drawn == 1
    assert compare(measured, 10, JudgeServer(), which="official").drawn == 2


def test_verdicts_that_are_kept_cost_no_request(tmp_path: Path) -> None:
    measured = replies(5, 1, 1, 5)
    first = compare(measured, 10, JudgeServer(), tmp_path)
    idle = JudgeServer(always=Fault(status=500))
    assert compare(measured, 10, idle, tmp_path) == first and idle.requests == []


def test_without_a_judge_one_line_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"^no judge to compare with; name its servers in grading\.judge\.endpoints$"):
        asyncio.run(judge_agreement([], 10, JudgeConfig()))
