"""Shares of calls by their use of the evidence, as the report shows them, from the findings of a run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from codedance_verl.harness.call_use import CLASSES, Use
from codedance_verl.harness.estimate import Estimate
from codedance_verl.harness.reply_findings import Findings, read_summary, summary_path
from codedance_verl.harness.report import Faithfulness, UseShare
from codedance_verl.records.key import Key
from codedance_verl.statistics.clusters import cluster_rate, sums_by_cluster

MEANINGS = {
    Use.USED: "the evidence was shown, or the answer was stated as it follows from it",
    Use.UNUSED: "it depends on the evidence, and does not state the answer or was not shown",
    Use.DECORATIVE: "nothing that it showed depends on the evidence",
    Use.HARD_CODED: "it stated the answer as a constant",
}


def faithfulness_on_disk(out: Path, benchmark: str, key: Key) -> tuple[Faithfulness | None, str]:
    """Shares of a benchmark in a run's folder, and why there are none although there is a file; empty without one.

    Args:
        key: of the replies that are reported; findings on others are left out.
    """
    path = summary_path(out, benchmark)
    again = "run `codedance eval faithfulness` again"
    if not path.exists():
        return None, ""
    try:
        found = read_summary(path)
    except (OSError, ValueError, RecursionError) as error:  # a broken file beside it must not cost the report
        return None, f"faithfulness of calls is left out: {path.name} cannot be read ({error}); {again}"
    if found.key != key.digest:
        return None, f"faithfulness of calls is left out: {path.name} is of replies under other settings; {again}"
    return call_shares(found), ""


def call_shares(found: Findings) -> Faithfulness:
    """Shares among the calls that have a class; intervals are by item, as calls of a reply are alike."""
    calls = [(reply.item, call) for reply in found.findings for call in reply.calls]
    classed = [(item, call) for item, call in calls if call.use in CLASSES]
    counts = Counter(call.use for _, call in calls)
    return Faithfulness(
        replies=found.replies,
        drawn=len(found.findings),
        faults=sum(bool(reply.fault) for reply in found.findings),
        with_class=sum(any(call.use in CLASSES for call in reply.calls) for reply in found.findings),
        calls=len(classed),
        classes=tuple(
            UseShare(use, MEANINGS[use], counts[use], _share([(item, call.use is use) for item, call in classed]))
            for use in CLASSES
        ),
        apart={use.value: counts[use] for use in Use if use not in CLASSES and counts[use]},
        evidence=dict(Counter(call.box_source for _, call in classed).most_common()),
    )


def _share(rows: list[tuple[str, bool]]) -> Estimate:
    """Share of calls; Wilson's interval for as many answers as the items of these calls are worth."""
    if not rows:
        return Estimate()
    values = [float(has) for _, has in rows]
    # the share is of calls, so each weighs the same however many its item has
    return Estimate.of_rate(cluster_rate(sums_by_cluster(values, [1.0] * len(rows), [item for item, _ in rows])))
