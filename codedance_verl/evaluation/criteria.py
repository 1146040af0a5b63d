"""Criteria of the demo, held against its figures."""

from __future__ import annotations

from collections.abc import Sequence

from codedance_verl.data.conditions import GREEDY, GREY, SAMPLED
from codedance_verl.evaluation.effects import NO_ROLES, KindRoles
from codedance_verl.evaluation.figures import Figure
from codedance_verl.evaluation.outcomes import Question
from codedance_verl.evaluation.report import Criterion, Report

MIN_GAIN = 0.25
MIN_DISCOVERY_GAIN = 0.40
MAX_ABOVE_CHANCE = 0.08
MIN_WITH_IMAGES = 0.75
MAX_EASY_TOOL_RATE = 0.20
MIN_HARD_TOOL_RATE = 0.85
MIN_PAIRS_RIGHT = 0.75
MIN_QUESTIONS = 300
MIN_SEEDS = 2
MAX_EXCLUDED = 0.02

_UNMEASURED = Figure(None, None, None, 0)


def criteria(
    report: Report, roles: KindRoles = NO_ROLES, max_wall_s: float | None = None, asked: Sequence[Question] = ()
) -> dict[str, Criterion]:
    """Each criterion by name. A figure that was not measured meets none.

    Criteria on kinds that `roles` does not name, or the test set does not have, are left out, as is the wall time
    without `max_wall_s` (seconds). `asked` are the rows of the test file: a kind that is among them and was not
    measured fails.
    """
    sft, rl = report.sft, report.rl
    of_variant = {name: {item.kind for item in asked if item.variant == name} for name in (GREEDY, GREY, SAMPLED)}
    found = {
        "greedy_gain": _gain(
            "greedy accuracy on hard questions", sft.hard.accuracy_greedy, report.gain.hard.accuracy_greedy
        ),
        "accuracy_gain": _gain("sampled accuracy on hard questions", sft.hard.accuracy, report.gain.hard.accuracy),
        "tool_rate_easy": _below("easy", sft.easy.tool_rate, rl.easy.tool_rate, MAX_EASY_TOOL_RATE),
        "tool_rate_hard": _above("hard", sft.hard.tool_rate, rl.hard.tool_rate, MIN_HARD_TOOL_RATE),
        **_discovery(report, roles.undemonstrated, of_variant[GREEDY]),
        **_returned_image(report, roles.returned_image, of_variant[GREY]),
        **_look_alikes(report, roles.look_alikes, of_variant[SAMPLED]),
        "questions": _at_least("held-out questions", MIN_QUESTIONS, report.gain.overall.accuracy.n),
        "seeds": _at_least("RL seeds", MIN_SEEDS, len(rl.seeds)),
        "completeness": _completeness(max(sft.excluded.share, rl.excluded.share)),
    }
    if max_wall_s is not None:
        target = f"the whole run takes less than {max_wall_s / 60:.0f} minutes (figure in seconds)"
        found["wall_time"] = Criterion(target, report.wall_s < max_wall_s, None, report.wall_s, None, None)
    return found


def _gain(of: str, before: Figure, gained: Figure) -> Criterion:
    passed = gained.value is not None and gained.value >= MIN_GAIN and gained.low is not None and gained.low > 0
    target = f"RL raises {of} by at least {MIN_GAIN * 100:.0f} points, its interval clear of zero"
    return Criterion(target, passed, before.value, gained.value, gained.low, gained.high)


def _discovery(report: Report, kinds: tuple[str, ...], asked: set[str]) -> dict[str, Criterion]:
    """Of several kinds the one that gains least decides."""
    measured = report.greedy_gain.kinds if report.greedy_gain else {}
    gains = {kind: measured.get(kind, _UNMEASURED) for kind in kinds if kind in measured or kind in asked}
    if not gains:
        return {}
    kind, gained = min(gains.items(), key=lambda item: _or(item[1].value, -1.0))
    passed = _or(gained.value, -1.0) >= MIN_DISCOVERY_GAIN
    points = f"{MIN_DISCOVERY_GAIN * 100:.0f} points"
    target = (
        f"RL raises greedy accuracy by at least {points} on kinds never demonstrated with code ({', '.join(gains)})"
    )
    before = report.sft.kinds[kind].accuracy_greedy.value if kind in report.sft.kinds else None
    return {"discovery": Criterion(target, passed, before, gained.value, gained.low, gained.high)}


def _returned_image(report: Report, kinds: tuple[str, ...], asked: set[str]) -> dict[str, Criterion]:
    """Accuracy with the images that code returns, and without them; of several kinds the worst decides."""
    measured = report.controls.rl.kinds if report.controls else {}
    found = {kind: grey for kind in kinds if kind in measured and (grey := measured[kind].grey) is not None}
    judged = [kind for kind in kinds if kind in found or kind in asked]
    if not judged:
        return {}
    names = ", ".join(judged)
    as_is = {kind: found[kind].as_is.accuracy if kind in found else _UNMEASURED for kind in judged}
    greyed = {kind: found[kind].accuracy if kind in found else _UNMEASURED for kind in judged}
    chances = {kind: measured[kind].chance if kind in found else None for kind in judged}
    lowest = min(as_is.values(), key=lambda figure: _or(figure.value, 0.0))
    above = {kind: _above_chance(greyed[kind].value, chances[kind]) for kind in judged}
    worst = max(above, key=above.__getitem__)
    return {
        "returned_image_shown": Criterion(
            f"with returned images, greedy accuracy after RL is over {MIN_WITH_IMAGES:.0%} ({names})",
            _or(lowest.value, 0.0) > MIN_WITH_IMAGES,
            None,
            lowest.value,
            lowest.low,
            lowest.high,
        ),
        "returned_image_grey": Criterion(
            f"with returned images greyed out it is at most {MAX_ABOVE_CHANCE * 100:.0f} points above chance, which "
            f"stands under before ({names})",
            above[worst] <= MAX_ABOVE_CHANCE,
            chances[worst],
            greyed[worst].value,
            greyed[worst].low,
            greyed[worst].high,
        ),
    }


def _above_chance(accuracy: float | None, chance: float | None) -> float:
    """Accuracy less chance; 1, the largest there is, where one is not known. Rounded against means of thirds.

    Below chance it is negative: that is no sign that the answer shows without the image.
    """
    return 1.0 if accuracy is None or chance is None else round(accuracy - chance, 9)


def _look_alikes(report: Report, pairs: tuple[tuple[str, str], ...], asked: set[str]) -> dict[str, Criterion]:
    """Of several pairs of kinds the worst decides."""
    found = {
        (pair.needs_code, pair.needs_none): (pair.sft.pairs_right, pair.rl.pairs_right) for pair in report.look_alikes
    }
    unmeasured = [pair for pair in pairs if pair not in found and asked.issuperset(pair)]
    found |= dict.fromkeys(unmeasured, (_UNMEASURED, _UNMEASURED))
    if not found:
        return {}
    (needs_code, needs_none), (before, right) = min(found.items(), key=lambda item: _or(item[1][1].value, 0.0))
    target = (
        f"code is called for the right question in at least {MIN_PAIRS_RIGHT:.0%} of look-alike pairs "
        f"({needs_code}, not {needs_none})"
    )
    passed = _or(right.value, 0.0) >= MIN_PAIRS_RIGHT
    return {"look_alikes": Criterion(target, passed, before.value, right.value, right.low, right.high)}


def _below(questions: str, before: Figure, after: Figure, bound: float) -> Criterion:
    target = f"the sampled tool rate on {questions} questions is under {bound:.0%} after RL"
    return Criterion(target, _or(after.value, 1.0) < bound, before.value, after.value, after.low, after.high)


def _above(questions: str, before: Figure, after: Figure, bound: float) -> Criterion:
    target = f"the sampled tool rate on {questions} questions is over {bound:.0%} after RL"
    return Criterion(target, _or(after.value, 0.0) > bound, before.value, after.value, after.low, after.high)


def _completeness(excluded: float) -> Criterion:
    target = f"at most {MAX_EXCLUDED:.0%} of the test rollouts are missing, broken or without a verdict"
    return Criterion(target, excluded <= MAX_EXCLUDED, None, excluded, None, None)


def _at_least(what: str, least: int, found: int) -> Criterion:
    return Criterion(f"at least {least} {what}", found >= least, None, float(found), None, None)


def _or(value: float | None, missing: float) -> float:
    """The value, or for one that was not measured the worst."""
    return missing if value is None else value
