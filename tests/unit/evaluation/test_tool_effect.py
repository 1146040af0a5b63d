from __future__ import annotations

import random
from itertools import product

import pytest

from codedance_verl.evaluation.effects import GroupEffect
from codedance_verl.evaluation.outcomes import Outcome, Question
from codedance_verl.evaluation.tool_effect import tool_effect
from codedance_verl.types import FinishReason, Verdict
from tests.unit.evaluation.logs import outcome


def asked(*names: str, kind: str = "count_photo", difficulty: str = "hard") -> list[Question]:
    return [Question(name, variant, kind, difficulty) for name in names for variant in ("greedy", "no_tools")]


def answers(name: str, with_tools: bool, without: bool, **given: object) -> list[Outcome]:
    return [
        outcome(name, with_tools, variant="greedy", **given),  # type: ignore[arg-type]
        outcome(name, without, variant="no_tools", **{**given, "executed": 0}),  # type: ignore[arg-type]
    ]


def adds_up(effect: GroupEffect) -> None:
    """The terms of a group, and those of its change, add up to 1e-6."""
    terms = (effect.accuracy.value, effect.accuracy_without.value, effect.gain.value, effect.harm.value)
    accuracy, without, gain, harm = (0.0 if term is None else term for term in terms)
    assert accuracy == pytest.approx(without + gain - harm, abs=1e-6)
    if effect.change is not None and effect.questions:
        change = effect.change
        values = [figure.value for figure in (change.accuracy, change.drift, change.gain, change.harm)]
        total, drift, gained, harmed = (value if value is not None else float("nan") for value in values)
        assert total == pytest.approx(drift + gained - harmed, abs=1e-6)


def test_the_four_cases_by_hand() -> None:
    """One question of each of the four cases after RL; before it none was right."""
    cases = list(product((False, True), repeat=2))
    names = [f"q{index}" for index in range(4)]
    start = [item for name in names for item in answers(name, False, False)]
    after = [item for name, case in zip(names, cases, strict=True) for item in answers(name, *case)]
    first, last = tool_effect(start, {5: {20: after}}, asked(*names))
    assert (first.seed, first.step, last.seed, last.step) == (None, 0, 5, 20)
    effect = last.groups.overall
    assert (effect.questions, effect.left_out) == (4, 0)
    assert (effect.accuracy.value, effect.accuracy_without.value) == (0.5, 0.5)
    assert (effect.gain.value, effect.harm.value) == (0.25, 0.25)
    assert effect.change is not None
    values = (effect.change.accuracy, effect.change.drift, effect.change.gain, effect.change.harm)
    assert [figure.value for figure in values] == [0.5, 0.5, 0.25, 0.25]
    assert first.groups.overall.change is None and first.groups.hard == first.groups.overall


@pytest.mark.parametrize("seed", range(5))
def test_terms_add_up_on_random_outcomes_whatever_is_missing(seed: int) -> None:
    draw = random.Random(seed)
    questions, runs = [], [list[Outcome]() for _ in range(3)]
    for number in range(60):
        kind, difficulty = draw.choice((("look", "hard"), ("count", "hard"), ("easy", "easy")))
        questions += asked(f"q{number}", kind=kind, difficulty=difficulty)
        for run, variant in product(runs, ("greedy", "no_tools")):
            fate = draw.random()
            finish = FinishReason.INFRASTRUCTURE if fate < 0.05 else FinishReason.ANSWER
            verdict = Verdict.UNGRADED if fate > 0.95 else None
            if not 0.05 < fate < 0.1:
                found = outcome(f"q{number}", draw.random() < 0.5, variant=variant, kind=kind, difficulty=difficulty,
                                finish=finish, verdict=verdict, executed=draw.randint(0, 1))  # fmt: skip
                run.append(found)
    checkpoints = tool_effect(runs[0], {0: {10: runs[1], 20: runs[2]}}, questions)
    assert [item.step for item in checkpoints] == [0, 10, 20]
    for item in checkpoints:
        groups = item.groups
        for effect in (groups.overall, groups.easy, groups.hard, *groups.kinds.values()):
            adds_up(effect)
        assert groups.overall.questions + groups.overall.left_out == 60
        assert groups.overall.left_out > 0 and set(groups.kinds) == {"look", "count", "easy"}


def test_a_question_without_a_verdict_in_one_of_four_is_left_out_of_all() -> None:
    start = answers("a", True, True) + answers("b", True, False)
    after = [*answers("a", True, True), outcome("b", variant="greedy")]
    _, last = tool_effect(start, {0: {1: after}}, asked("a", "b", "c"))
    effect = last.groups.overall
    assert (effect.questions, effect.left_out) == (1, 2) and effect.change is not None
    assert effect.change.accuracy.value == 0.0, "b is not counted at the start either"


def test_gain_and_harm_are_split_by_whether_code_ran() -> None:
    after = [*answers("a", True, False, executed=1), *answers("b", True, False, executed=0)]
    after += [*answers("c", False, True, executed=1), *answers("d", False, False, executed=1)]
    _, last = tool_effect(after, {0: {1: after}}, asked("a", "b", "c", "d"))
    effect = last.groups.overall
    assert (effect.gain.value, effect.gain_by_call, effect.harm.value, effect.harm_by_call) == (0.5, 0.25, 0.25, 0.25)


def test_a_test_set_without_the_variant_has_no_effect() -> None:
    assert tool_effect([], {}, [Question("a", "greedy", "count", "hard")]) == ()
    assert tool_effect([], {}, [Question("a", "no_tools", "count", "hard")]) == ()


def test_a_group_without_questions_is_null() -> None:
    start = answers("a", True, True)
    checkpoint = tool_effect(start, {0: {1: start}}, asked("a"))[1]
    easy = checkpoint.groups.easy
    assert (easy.questions, easy.accuracy.value, easy.gain_by_call) == (0, None, None)
    assert easy.change is not None and easy.change.drift.value is None
