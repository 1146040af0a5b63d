from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from codedance_verl.evaluation.ledger import LedgerLine, evaluation_lines, training_lines, write_ledger
from codedance_verl.types import FinishReason, Verdict
from tests.unit.evaluation.logs import Line, line, outcome, write_log

RIGHT_WITH, RIGHT_WITHOUT, RIGHT_ANYWAY = 0.85, 0.2, 0.85
"""Shares of right answers of a simulated model: where code is needed with it and without, and where it is not."""


def auc(lines: Sequence[LedgerLine], needed: set[str]) -> float:
    """Probability that a question which needs code has a higher estimate than one which does not; ties count half."""
    with_need = [item.value for item in lines if item.record_id in needed]
    others = [item.value for item in lines if item.record_id not in needed]
    wins = sum((high > low) + 0.5 * (high == low) for high in with_need for low in others)
    return wins / (len(with_need) * len(others))


def simulated(draw: random.Random, questions: int, rollouts: int) -> tuple[list[Line], set[str]]:
    """Training rollouts on questions whose need of code is known: of one kind all, of one none, of a third half.

    How often the model calls code says nothing about the need: it is drawn for each question.
    """
    lines, needed = [], set()
    for number in range(questions):
        kind = ("count", "easy", "look")[number % 3]
        record_id, needs = f"{kind}-{number}", kind == "count" or (kind == "look" and number % 2 == 0)
        needed |= {record_id} if needs else set()
        p_call = draw.betavariate(2, 2)
        for sample in range(rollouts):
            called = draw.random() < p_call
            p_right = (RIGHT_WITH if called else RIGHT_WITHOUT) if needs else RIGHT_ANYWAY
            verdict = "correct" if draw.random() < p_right else "wrong"
            calls = ("ok",) if called else ()
            lines.append(line(record_id, step=1, split="train", sample=sample, kind=kind, calls=calls, verdict=verdict))
    return lines, needed


@pytest.mark.parametrize("seed", range(3))
def test_the_estimate_finds_the_questions_that_need_code(seed: int, tmp_path: Path) -> None:
    lines, needed = simulated(random.Random(seed), questions=120, rollouts=8)
    write_log(tmp_path, lines)
    found = list(training_lines(tmp_path, seed=7))
    assert len(found) == 120 and {(item.source, item.seed, item.step) for item in found} == {("group", 7, 1)}
    assert auc(found, needed) >= 0.9


@pytest.mark.parametrize("seed", range(3))
def test_pairs_of_a_forced_and_no_call_find_them_too(seed: int) -> None:
    draw, rollouts, needed = random.Random(seed), [], set()
    for number in range(200):
        kind, needs = ("count", "easy")[number % 2], number % 2 == 0
        needed |= {f"q{number}"} if needs else set()
        for variant, called in (("forced_tools", True), ("no_tools", False)):
            p_right = (RIGHT_WITH if called else RIGHT_WITHOUT) if needs else RIGHT_ANYWAY
            right = draw.random() < p_right
            rollouts.append(outcome(f"q{number}", right, variant=variant, kind=kind, executed=int(called)))
    found = list(evaluation_lines(rollouts, None, 0))
    assert len(found) == 200 and {item.source for item in found} == {"pair"}
    assert auc(found, needed) >= 0.9


def test_lines_of_a_checkpoint_by_hand() -> None:
    rollouts = [
        outcome("a", True, variant="forced_tools"),
        outcome("a", False, variant="no_tools", executed=0),
        outcome("a", True, variant="sampled"),
        outcome("a", False, variant="sampled", executed=0, sample=1),
        outcome("a", True, variant="greedy"),
        outcome("b", True, variant="no_tools", executed=0),
        outcome("c", variant="sampled", finish=FinishReason.INFRASTRUCTURE),
        outcome("d", variant="sampled", verdict=Verdict.UNGRADED),
    ]
    pair, sampled = evaluation_lines(rollouts, seed=1, step=20)
    for found, source in ((pair, "pair"), (sampled, "sampled")):
        assert (found.source, found.seed, found.step, found.record_id) == (source, 1, 20, "a")
        assert (found.called, found.called_right, found.not_called, found.not_called_right) == (1, 1, 1, 0)
        assert found.value > 0 and found.basis == "both"


def test_a_forced_variant_that_made_no_call_is_no_pair() -> None:
    rollouts = [outcome("a", variant="forced_tools", executed=0), outcome("a", variant="no_tools", executed=0)]
    assert list(evaluation_lines(rollouts, None, 0)) == []


def test_a_forced_rollout_without_a_call_is_on_neither_side() -> None:
    rollouts = [
        outcome("a", True, variant="forced_tools"),
        outcome("a", True, variant="forced_tools", executed=0, sample=1),
        outcome("a", False, variant="no_tools", executed=0),
    ]
    (found,) = evaluation_lines(rollouts, None, 0)
    assert (found.called, found.called_right, found.not_called, found.not_called_right) == (1, 1, 1, 0)
    assert found.forced_without_call == 1


def test_branches_are_no_evidence_of_what_a_call_is_worth(tmp_path: Path) -> None:
    whole = [line("a", step=1, split="train", verdict="wrong"), line("a", step=1, split="train", sample=1, calls=())]
    branch = line("a", step=1, split="train", sample=2) | {"branch": {"parent": 0, "turn": 0, "token": 7}}
    write_log(tmp_path, [*whole, branch])
    (found,) = training_lines(tmp_path, 0)
    assert (found.called, found.called_right, found.not_called) == (1, 0, 1)


def test_the_file_has_a_json_object_a_line(tmp_path: Path) -> None:
    write_log(
        tmp_path / "log", [line("a", step=4, split="train"), line("a", step=4, split="train", sample=1, calls=())]
    )
    path = tmp_path / "ledger.jsonl"
    assert write_ledger(training_lines(tmp_path / "log", 0), path) == 1
    (found,) = [json.loads(text) for text in path.read_text().splitlines()]
    assert (found["record_id"], found["kind"], found["group"]) == ("a", "count_photo", "g-a")
    assert (found["called"], found["not_called"], found["value"]) == (1, 1, pytest.approx(0.0))
