from __future__ import annotations

import pytest

from codedance_verl.evaluation.metrics import blank_control, gain, rl_figures, sft_figures
from codedance_verl.evaluation.outcomes import EvaluationRun, Outcome, Question
from codedance_verl.statistics.intervals import wilson
from codedance_verl.types import FinishReason, Verdict
from tests.unit.evaluation.logs import outcome


def run(*outcomes: Outcome, missing: int = 0, cut_off: int = 0) -> EvaluationRun:
    asked = tuple(Question(f"m{index}", "sampled", "count_photo", "hard") for index in range(missing))
    return EvaluationRun(outcomes, asked, cut_off)


def test_every_figure_of_one_run_by_hand() -> None:
    figures = sft_figures(
        run(
            outcome("a", True, executed=2, succeeded=1, turns=3),
            outcome("b", False, executed=1, turns=2, well_formed=False),
            outcome("c", True, executed=0, turns=1, kind="sum", difficulty="easy"),
            outcome("d", False, executed=0, turns=1, kind="sum", difficulty="easy"),
            outcome("a", True, variant="greedy", executed=1),
            outcome("b", True, variant="greedy", executed=1),
        )
    )
    overall = figures.overall
    assert overall.questions == 4
    assert (overall.accuracy.value, overall.accuracy.n) == (0.5, 4)
    assert overall.tool_rate.value == 0.5
    assert overall.turns.value == pytest.approx(7 / 4)
    assert overall.execution_success.value == pytest.approx(2 / 3) and overall.execution_success.n == 3
    assert overall.format.value == 0.75
    assert (overall.accuracy_greedy.value, overall.accuracy_greedy.n) == (1.0, 2)
    assert figures.easy.tool_rate.value == 0.0 and figures.hard.tool_rate.value == 1.0
    assert figures.kinds["sum"].accuracy.value == 0.5 and sorted(figures.kinds) == ["count_photo", "sum"]
    interval = wilson(2, 4)
    assert (overall.accuracy.low, overall.accuracy.high) == (interval.low, interval.high)
    assert overall.accuracy.per_seed == ()


def test_what_was_not_measured_is_null() -> None:
    figures = sft_figures(run(outcome("c", executed=0, difficulty="easy")))
    assert figures.easy.execution_success.value is None and figures.easy.execution_success.n == 0
    assert figures.hard.accuracy.value is None and figures.hard.accuracy.low is None
    assert figures.overall.accuracy_greedy.value is None


def test_infrastructure_faults_leave_numerator_and_denominator_and_are_counted() -> None:
    broken = outcome("b", False, finish=FinishReason.INFRASTRUCTURE, verdict=Verdict.UNGRADED, well_formed=False)
    figures = sft_figures(run(outcome("a", True), broken))
    assert figures.overall.accuracy.value == 1.0 and figures.overall.accuracy.n == 1
    assert figures.overall.format.value == 1.0 and figures.overall.questions == 1
    assert figures.excluded.infrastructure == 1 and figures.excluded.ungraded == 0


def test_truncated_and_missing_rollouts_do_not_vanish() -> None:
    figures = sft_figures(
        run(outcome("a", True), outcome("b", False, finish=FinishReason.LENGTH), missing=2, cut_off=1)
    )
    assert figures.overall.accuracy.value == 0.5
    assert figures.excluded.missing == 2 and figures.excluded.cut_off == 1
    assert figures.excluded.total == 4 and figures.excluded.share == 0.5


def test_ungraded_answers_leave_the_accuracy_alone() -> None:
    figures = sft_figures(run(outcome("a", True), outcome("b", verdict=Verdict.UNGRADED)))
    assert figures.overall.accuracy.value == 1.0 and figures.overall.accuracy.n == 1
    assert figures.overall.tool_rate.n == 2 and figures.excluded.ungraded == 1


def test_rl_is_the_mean_over_seeds() -> None:
    first = run(outcome("a", True), outcome("b", True), outcome("c", True))
    second = run(outcome("a", True), outcome("b", False), outcome("c", False))
    figures = rl_figures([first, second], [0, 7])
    accuracy = figures.overall.accuracy
    assert figures.seeds == (0, 7)
    assert accuracy.per_seed == (1.0, pytest.approx(1 / 3))
    assert accuracy.value == pytest.approx(2 / 3) and accuracy.n == 6
    assert accuracy.low is not None and accuracy.high is not None
    assert accuracy.low <= 2 / 3 <= accuracy.high


def test_a_seed_with_more_faults_weighs_the_same() -> None:
    fault = outcome("b", finish=FinishReason.INFRASTRUCTURE)
    figures = rl_figures([run(outcome("a", True), fault), run(outcome("a", False), outcome("b", False))], [0, 1])
    assert figures.overall.accuracy.value == 0.5
    assert figures.excluded.infrastructure == 1


def test_gain_is_paired_by_question() -> None:
    before = run(outcome("a", False), outcome("b", True), outcome("x", False), outcome("a", False, variant="greedy"))
    after = [
        run(outcome("a", True), outcome("b", True), outcome("y", True), outcome("a", True, variant="greedy")),
        run(outcome("a", True), outcome("b", False), outcome("x", True), outcome("a", False, variant="greedy")),
    ]
    result = gain(before, after)
    assert result.overall.accuracy.n == 2  # a and b; x and y are not in every run
    assert result.overall.accuracy.value == pytest.approx((1.0 + 0.5) / 2 - 0.5)
    assert result.overall.accuracy_greedy.value == pytest.approx(0.5)
    assert result.easy.accuracy.value is None


def test_a_clear_gain_has_an_interval_clear_of_zero() -> None:
    before = run(*(outcome(f"q{index}", index % 3 == 0) for index in range(300)))
    after = run(*(outcome(f"q{index}", index % 3 != 2 or index % 2 == 0) for index in range(300)))
    accuracy = gain(before, [after, after]).overall.accuracy
    assert accuracy.value == pytest.approx(0.5) and accuracy.n == 300
    assert accuracy.low is not None and accuracy.high is not None
    assert 0.4 < accuracy.low < 0.5 < accuracy.high < 0.6


def test_the_blank_control_stands_beside_the_same_questions() -> None:
    outcomes = run(
        outcome("a", True),
        outcome("b", True),
        outcome("c", False),
        outcome("a", False, variant="blank"),
        outcome("b", True, variant="blank"),
    )
    control = blank_control([outcomes])
    assert control.overall.blank.value == 0.5 and control.overall.blank.n == 2
    assert control.overall.real.value == 1.0 and control.overall.real.n == 2
    assert sft_figures(outcomes).overall.accuracy.n == 3


def test_several_samples_of_a_question_are_no_independent_questions() -> None:
    repeated = run(*(outcome("a" if index < 10 else "b", index < 10, sample=index) for index in range(20)))
    accuracy = sft_figures(repeated).overall.accuracy
    assert accuracy.value == 0.5 and accuracy.n == 20
    assert (accuracy.low, accuracy.high) == (0.0, 1.0)
