"""The promises of the demo, held against its figures."""

from __future__ import annotations

from codedance_verl.evaluation.report import Criterion, Figure, Gain, RlFigures, SftFigures

MIN_GAIN = 0.25
MAX_EASY_TOOL_RATE = 0.15
MIN_HARD_TOOL_RATE = 0.85
MIN_QUESTIONS = 300
MIN_SEEDS = 2
MAX_EXCLUDED = 0.02


def criteria(
    sft: SftFigures, rl: RlFigures, gain: Gain, wall_s: float, max_wall_s: float | None = None
) -> dict[str, Criterion]:
    """Each criterion by name. A figure that was not measured keeps no promise."""
    found = {
        "accuracy_gain": _accuracy_gain(sft, gain.overall.accuracy),
        "greedy_not_lower": _greedy(sft, gain.overall.accuracy_greedy),
        "tool_rate_easy": _tool_rate("easy", sft.easy.tool_rate, rl.easy.tool_rate, MAX_EASY_TOOL_RATE, -1),
        "tool_rate_hard": _tool_rate("hard", sft.hard.tool_rate, rl.hard.tool_rate, MIN_HARD_TOOL_RATE, 1),
        "questions": _at_least("held-out questions", MIN_QUESTIONS, gain.overall.accuracy.n),
        "seeds": _at_least("RL seeds", MIN_SEEDS, len(rl.seeds)),
        "completeness": _completeness(max(sft.excluded.share, rl.excluded.share)),
    }
    if max_wall_s is not None:
        target = f"the whole run takes less than {max_wall_s / 60:.0f} minutes (figure in seconds)"
        found["wall_time"] = Criterion(target, wall_s < max_wall_s, None, wall_s, None, None)
    return found


def _accuracy_gain(sft: SftFigures, gained: Figure) -> Criterion:
    passed = gained.value is not None and gained.value >= MIN_GAIN and gained.low is not None and gained.low > 0
    target = f"RL raises sampled accuracy by at least {MIN_GAIN * 100:.0f} points, its interval clear of zero"
    return Criterion(target, passed, sft.overall.accuracy.value, gained.value, gained.low, gained.high)


def _greedy(sft: SftFigures, gained: Figure) -> Criterion:
    # Equal accuracies differ by the rounding of their means.
    passed = gained.value is not None and gained.value > -1e-9
    target = "RL does not lower greedy accuracy"
    return Criterion(target, passed, sft.overall.accuracy_greedy.value, gained.value, gained.low, gained.high)


def _tool_rate(questions: str, before: Figure, after: Figure, bound: float, sign: int) -> Criterion:
    """`sign` is 1 where the rate should rise or stay over the bound, -1 where it should fall or stay under it."""
    way = "rises or stays over" if sign > 0 else "falls or stays under"
    target = f"the tool rate on {questions} questions {way} {bound:.0%}"
    limits = [limit for limit in (bound, before.value) if limit is not None]
    passed = after.value is not None and any(sign * after.value > sign * limit for limit in limits)
    return Criterion(target, passed, before.value, after.value, after.low, after.high)


def _completeness(excluded: float) -> Criterion:
    target = f"at most {MAX_EXCLUDED:.0%} of the test rollouts are missing, broken or without a verdict"
    return Criterion(target, excluded <= MAX_EXCLUDED, None, excluded, None, None)


def _at_least(what: str, least: int, found: int) -> Criterion:
    return Criterion(f"at least {least} {what}", found >= least, None, float(found), None, None)
