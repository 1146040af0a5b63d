from __future__ import annotations

from dataclasses import replace

import pytest

from codedance_verl.evaluation.controls import chances, controls, greedy_gain, look_alikes
from codedance_verl.evaluation.outcomes import EvaluationRun, Outcome, Question
from codedance_verl.types import Verdict
from tests.unit.evaluation.logs import outcome


def run(*outcomes: Outcome) -> EvaluationRun:
    return EvaluationRun(outcomes, (), 0)


def test_a_control_is_compared_on_the_questions_that_were_asked_both_ways() -> None:
    outcomes = [
        *(outcome(name, right, variant="greedy") for name, right in (("a", True), ("b", True), ("c", False))),
        outcome("a", False, variant="grey"),
        outcome("b", True, variant="grey"),
        outcome("d", True, variant="grey"),
        outcome("a", False, variant="no_tools", executed=0),
    ]
    found = controls([run(*outcomes)], {}).overall
    assert found.as_is.accuracy.value == pytest.approx(2 / 3) and found.as_is.accuracy.n == 3
    assert found.grey is not None and found.no_tools is not None
    assert (found.grey.accuracy.value, found.grey.accuracy.n, found.grey.as_is.accuracy.value) == (0.5, 2, 1.0)
    assert (found.no_tools.tool_rate.value, found.no_tools.as_is.tool_rate.value) == (0.0, 1.0)
    assert found.forced_tools is None and found.blank is None


def test_a_blank_image_is_compared_with_sampled_answers() -> None:
    outcomes = [
        outcome("a", False, variant="blank"),
        outcome("a", True, variant="sampled"),
        outcome("a", False, variant="greedy"),
    ]
    found = controls([run(*outcomes)], {}).overall.blank
    assert found is not None and (found.accuracy.value, found.as_is.accuracy.value) == (0.0, 1.0)


def test_a_question_that_one_seed_lacks_a_verdict_on_is_in_no_comparison() -> None:
    whole = run(*(outcome(name, variant=variant) for name in "ab" for variant in ("greedy", "grey")))
    broken = run(
        *(outcome(name, variant="greedy") for name in "ab"),
        outcome("a", variant="grey"),
        outcome("b", variant="grey", verdict=Verdict.UNGRADED),
    )
    found = controls([whole, broken], {}).overall.grey
    assert found is not None and found.accuracy.n == found.as_is.accuracy.n == 2


def test_chance_is_one_over_the_different_answers_of_a_kind() -> None:
    colours = [
        Question(f"look-{index}", "greedy", "look", "hard", ("red", "green ", "blue")[index % 3]) for index in range(9)
    ]
    repeated = [Question(question.record_id, "grey", "look", "hard", question.truth) for question in colours]
    open_answers = [Question(f"read-{index}", "greedy", "read", "hard", str(index)) for index in range(9)]
    unknown = [Question("x", "greedy", "x", "hard")]
    assert chances([*colours, *repeated, *open_answers, *unknown]) == {"look": pytest.approx(1 / 3), "read": None}


def test_chance_of_a_group_is_the_mean_over_its_questions() -> None:
    rollouts = [outcome(f"a{index}", variant="greedy", kind="a") for index in range(3)]
    rollouts.append(outcome("b", variant="greedy", kind="b", difficulty="easy"))
    found = controls([run(*rollouts)], {"a": 0.2, "b": 1.0})
    assert found.overall.chance == pytest.approx((3 * 0.2 + 1.0) / 4) and found.easy.chance == 1.0
    assert controls([run(*rollouts)], {"a": 0.2}).overall.chance is None


def test_the_gain_of_every_seed_stands_beside_the_mean() -> None:
    before = run(*(outcome(name, name == "a", variant="greedy") for name in "abcd"))
    seeds = [run(*(outcome(name, name in right, variant="greedy") for name in "abcd")) for right in ("abcd", "ab")]
    gain = greedy_gain(before, seeds)
    assert gain.hard.value == pytest.approx(0.5) and gain.hard.per_seed == pytest.approx((0.75, 0.25))
    assert gain.hard.n == 4 and set(gain.kinds) == {"count_photo"}


def test_the_gain_of_a_seed_is_over_the_questions_of_all() -> None:
    before = run(*(outcome(name, False, variant="greedy") for name in "abcd"))
    whole = run(*(outcome(name, name in "cd", variant="greedy") for name in "abcd"))
    partial = run(*(outcome(name, True, variant="greedy") for name in "ab"))
    gain = greedy_gain(before, [whole, partial]).hard
    assert (gain.value, gain.n, gain.per_seed) == (0.5, 2, (0.0, 1.0))
    assert greedy_gain(run(), [whole]).hard.per_seed == (None,)


def test_pairs_of_look_alikes_by_hand() -> None:
    """Three of four call code where it is needed, one of two where it is not: 3/8 of the pairs are right."""
    small = [outcome(f"s{index}", kind="look", executed=int(index < 3)) for index in range(4)]
    large = [outcome(f"l{index}", kind="look_large", executed=index, difficulty="easy") for index in range(2)]
    greedy = [outcome("s0", kind="look", executed=0, variant="greedy")]
    model = run(*small, *large, *greedy)
    (found,) = look_alikes([("look", "look_large"), ("a", "b")], model, [model, model])
    rl = found.rl
    assert (rl.called.value, rl.not_called.value, rl.balanced) == (0.75, 0.5, 0.625)
    assert rl.pairs_right.value == pytest.approx(0.375) and rl.pairs_right.per_seed == pytest.approx((0.375, 0.375))
    assert rl.pairs_right.low is not None and rl.pairs_right.high is not None
    assert 0 <= rl.pairs_right.low < 0.375 < rl.pairs_right.high <= 1


def test_the_interval_of_pairs_is_that_of_the_products() -> None:
    """Seeds that call always and never on some questions: the product of the two means' ends lies above their mean."""
    names = [f"q{index}" for index in range(60)]

    def seed(rare: bool) -> EvaluationRun:
        called = [
            outcome(f"s{name}", kind="look", executed=int((at % 10 == 0) == rare)) for at, name in enumerate(names)
        ]
        other = [
            outcome(f"l{name}", kind="large", executed=int((at % 10 > 0) == rare)) for at, name in enumerate(names)
        ]
        return run(*called, *(replace(item, executed=1 - item.executed) for item in other))

    (found,) = look_alikes([("look", "large")], seed(True), [seed(True), seed(False)])
    right = found.rl.pairs_right
    assert right.per_seed == pytest.approx((0.09, 0.09)) and right.value == pytest.approx(0.09)
    assert right.low is not None and right.high is not None and right.low < 0.09 < right.high < 0.2


def test_seeds_are_paired_within_themselves() -> None:
    """One seed always calls, one never: no pair of either is right, although half of all call."""
    kinds = (("s", "look"), ("l", "look_large"))
    always = run(*(outcome(name, kind=kind, executed=1) for name, kind in kinds))
    never = run(*(outcome(name, kind=kind, executed=0) for name, kind in kinds))
    (found,) = look_alikes([("look", "look_large")], always, [always, never])
    assert (found.rl.called.value, found.rl.not_called.value, found.rl.pairs_right.value) == (0.5, 0.5, 0.0)
