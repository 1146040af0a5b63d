"""Behaviour of a model over a benchmark, and what became of the samples, from the scores of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from codedance_verl.harness.estimate import Estimate
from codedance_verl.harness.figures import OFFICIAL
from codedance_verl.harness.report import Behaviour, Denominator
from codedance_verl.harness.scores import ItemScores, SampleScores, TaskScores
from codedance_verl.harness.tool_use import Answered
from codedance_verl.records.record import Status
from codedance_verl.runtime.text import visible
from codedance_verl.statistics.clusters import cluster_rate, sums_by_cluster
from codedance_verl.tasks.item import Score

NOT_STATED = "not stated"
_MOST_REASONS = 10
_REASON_CHARS = 200


def answered(scores: TaskScores, which: str) -> tuple[Answered, ...]:
    """Samples of a run as `tool_use` takes them, under one way of scoring; those nobody asked have no value."""
    return tuple(
        Answered(
            key=item.key,
            cluster=item.cluster or item.id,
            value=_value(sample, which),
            calls=0 if sample is None else sample.calls or 0,
            turns=None if sample is None else sample.turns,
        )
        for item, sample in _samples(scores)
    )


def denominator(scores: TaskScores, note: str = "") -> Denominator:
    """Items that figures divide by, and what became of their samples."""
    samples = [sample for _, sample in _samples(scores)]
    failed = [sample for sample in samples if sample is not None and sample.status is not Status.ANSWERED]
    return Denominator(
        expected=scores.expected,
        items=len(scores.items),
        samples=scores.samples,
        answered=sum(sample is not None and sample.status is Status.ANSWERED for sample in samples),
        faults=_counts(sample.status.value for sample in failed),
        reasons=_counts((visible(sample.reason[:_REASON_CHARS]) for sample in failed if sample.reason), _MOST_REASONS),
        not_asked=sum(sample is None for sample in samples),
        note=note,
    )


def behaviour(scores: TaskScores) -> Behaviour:
    """Calls, turns, tokens and ends of the replies; the interval of the use of tools is by cluster."""
    # a failure has no calls either, but it is no reply without tools
    replies = [(item, sample) for item, sample in _samples(scores) if sample is not None and sample.calls is not None]
    used = [float((sample.calls or 0) > 0) for _, sample in replies]
    clusters = [item.cluster or item.id for item, _ in replies]  # an item of no cluster is its own
    return Behaviour(
        replies=len(replies),
        use=Estimate.of_rate(cluster_rate(sums_by_cluster(used, [1.0] * len(used), clusters))) if used else Estimate(),
        calls=_mean(replies, lambda sample: sample.calls),
        turns=_mean(replies, lambda sample: sample.turns),
        completion_tokens=_mean(replies, lambda sample: sample.completion_tokens),
        finish=_counts(sample.finish.value if sample.finish else NOT_STATED for _, sample in replies),
    )


def rules_applied(scores: TaskScores, which: str) -> dict[str, int]:
    """Rules that scores name, with the number of scores each, the most frequent first."""
    found = (_score(sample, which) for _, sample in _samples(scores) if sample is not None)
    return _counts(score.rule for score in found if score is not None)


def _samples(scores: TaskScores) -> Iterable[tuple[ItemScores, SampleScores | None]]:
    """Every sample that there is to be; None for one that nobody asked."""
    for item in scores.items:
        found = {sample.sample: sample for sample in item.samples}
        for number in range(scores.samples):
            yield item, found.get(number)


def _score(sample: SampleScores, which: str) -> Score | None:
    return sample.official if which == OFFICIAL else sample.ours


def _value(sample: SampleScores | None, which: str) -> float | None:
    score = None if sample is None else _score(sample, which)
    return None if score is None else score.value


def _counts(names: Iterable[str], most: int | None = None) -> dict[str, int]:
    """Counts by name, the most frequent first, equal ones by name."""
    ranked = sorted(Counter(names).items(), key=lambda item: (-item[1], item[0]))
    return dict(ranked[:most])


def _mean(replies: Sequence[tuple[ItemScores, SampleScores]], of: Callable[[SampleScores], int | None]) -> float | None:
    # None is unknown and not 0: an endpoint need not report its tokens
    values = [value for _, sample in replies if (value := of(sample)) is not None]
    return sum(values) / len(values) if values else None
