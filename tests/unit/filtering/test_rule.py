"""Rule by which sampling stops: exhaustively for few samples, by simulation for many."""

from __future__ import annotations

import itertools
import random

import pytest

from codedance_verl.errors import UserError
from codedance_verl.filtering.rule import Arm, Count, Rule, Stratum, rate_bound

FEW = Rule({Arm.WEAK: 2, Arm.WEAK_TOOLS: 1, Arm.STRONG: 2, Arm.STRONG_TOOLS: 3}, easy=0.75, medium=0.5)
OUTCOMES = list(itertools.product(*(range(FEW.samples[arm] + 1) for arm in Arm)))


def all_asked(rule: Rule, rights: tuple[int, ...]) -> dict[Arm, Count]:
    return {arm: Count(right, rule.samples[arm] - right) for arm, right in zip(Arm, rights, strict=True)}


def by_definition(rule: Rule, rights: tuple[int, ...]) -> Stratum:
    """Stratum by the shares of right samples, in the words of the documentation."""
    shares = {arm: right / rule.samples[arm] for arm, right in zip(Arm, rights, strict=True) if rule.samples[arm]}
    if shares[Arm.WEAK] >= rule.easy:
        return Stratum.EASY
    strong = [shares[arm] for arm in (Arm.STRONG, Arm.STRONG_TOOLS) if arm in shares]
    if shares.get(Arm.WEAK_TOOLS, 0.0) >= rule.easy or max(strong) >= rule.medium:
        return Stratum.MEDIUM
    return Stratum.HARD if max(strong) > 0 else Stratum.UNANSWERABLE


def test_strata_of_complete_samples_are_those_of_the_definition() -> None:
    for rights in OUTCOMES:
        assert FEW.stratum(all_asked(FEW, rights)) is by_definition(FEW, rights), rights


def partial_counts() -> list[dict[Arm, Count]]:
    each = [[Count(r, w) for r in range(n + 1) for w in range(n + 1 - r)] for n in (FEW.samples[arm] for arm in Arm)]
    return [dict(zip(Arm, found, strict=True)) for found in itertools.product(*each)]


def completions(counts: dict[Arm, Count]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(counts[arm].right, FEW.samples[arm] - counts[arm].wrong + 1) for arm in Arm)))


def test_a_question_is_settled_exactly_where_no_unknown_sample_could_change_it() -> None:
    for counts in partial_counts():
        possible = {by_definition(FEW, rights) for rights in completions(counts)}
        assert FEW.stratum(counts) is (possible.pop() if len(possible) == 1 else Stratum.UNGRADED), counts
        # while it is not settled, some arm is left to ask
        assert any(FEW.matters(arm, counts) for arm in Arm) is (FEW.stratum(counts) is Stratum.UNGRADED)


def test_no_arm_ends_before_the_least_number_of_samples() -> None:
    for counts in partial_counts():
        for arm in Arm:
            count, least = counts[arm], FEW.least(arm, counts)
            assert (least == 0) is not FEW.matters(arm, counts)
            if not least:
                continue

            def ended_after(more: int, arm: Arm = arm, count: Count = count, known: dict[Arm, Count] = counts) -> bool:
                further = [Count(count.right + good, count.wrong + more - good) for good in range(more + 1)]
                return any(not FEW.matters(arm, {**known, arm: one}) for one in further)

            assert not ended_after(least - 1) and ended_after(least), (counts, arm)


def sample_until_settled(rule: Rule, drawn: dict[Arm, list[bool]]) -> tuple[Stratum, int]:
    counts, asked = dict.fromkeys(Arm, Count()), 0
    for arm in Arm:
        while rule.matters(arm, counts):
            at = sum(counts[arm])
            news = drawn[arm][at : at + rule.least(arm, counts)]
            counts[arm] = Count(counts[arm].right + sum(news), counts[arm].wrong + len(news) - sum(news))
            asked += len(news)
    return rule.stratum(counts), asked


@pytest.mark.parametrize("samples", [(8, 8, 8, 8), (5, 0, 7, 0), (16, 4, 3, 9)])
def test_stopping_gives_the_stratum_of_all_samples_with_fewer_of_them(samples: tuple[int, ...]) -> None:
    draw = random.Random(7)
    rule = Rule(dict(zip(Arm, samples, strict=True)))
    asked = 0
    for _ in range(3000):
        rates = [draw.random() for _ in Arm]
        drawn = {
            arm: [draw.random() < rate for _ in range(rule.samples[arm])] for arm, rate in zip(Arm, rates, strict=True)
        }
        stratum, took = sample_until_settled(rule, drawn)
        assert stratum is by_definition(rule, tuple(sum(drawn[arm]) for arm in Arm))
        asked += took
    assert asked < 0.65 * 3000 * sum(samples)


def test_of_no_right_sample_the_bound_is_the_exact_binomial_one() -> None:
    for samples in (1, 8, 16):
        assert (1 - rate_bound(samples)) ** samples == pytest.approx(0.05)
    assert rate_bound(0) == 1


@pytest.mark.parametrize("wrong", [{"easy": 0.0}, {"medium": 1.5}, {"samples": {**FEW.samples, Arm.STRONG: 0}}])
def test_impossible_rules_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match="must be"):
        Rule(**{"samples": FEW.samples, **wrong})  # type: ignore[arg-type]
