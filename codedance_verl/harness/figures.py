"""Figures of a benchmark with their uncertainty: from scores of samples to headlines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from codedance_verl.harness.measured import Measured
from codedance_verl.harness.scores import ItemScores, SampleScores, TaskScores, item_scores
from codedance_verl.records.record import Status
from codedance_verl.statistics.clusters import ClusterSums, sums_by_cluster
from codedance_verl.statistics.headline import Headline, Scenarios, headline
from codedance_verl.statistics.power import PowerLine, assumed_discordance, smallest_paired
from codedance_verl.tasks.figures import Figure, Figures, Mark
from codedance_verl.tasks.task import Task

OFFICIAL, OURS = "official", "ours"
WAYS = (OFFICIAL, OURS)
"""Ways of scoring: by the benchmark's rule, and by the grader of this project."""

_CONSTANT_REASON = re.compile(r"[a-z][a-z ,]{0,60}")
"""Reasons that quote nothing of a reply, so that they name a kind of fault."""

Worth = Callable[[str], float]
"""Value of a sample that was not measured, by its fault."""


@dataclass(frozen=True)
class ValuedItem:
    """Item with what its samples are worth under one way of scoring.

    Attributes:
        key: name by which evaluations are compared.
        mark: id, cluster and strata; its value is not used.
        samples: 0 to 1 each, or the kind of fault for which there is no score.
    """

    key: str
    mark: Mark
    samples: tuple[float | str, ...]

    @property
    def measured(self) -> bool:
        """True where every sample has a score."""
        return not any(isinstance(value, str) for value in self.samples)


@dataclass(frozen=True)
class NamedHeadline:
    """Figure of a benchmark.

    Attributes:
        name, definition: of the figure.
        usual: True for the one usually quoted.
        headline: value, interval by cluster, faults and bounds.
        power: smallest difference that a second model on the same items would show, if it were as good and half of
            what one of them has right were right by chance (correlation 0.5).
    """

    name: str
    definition: str
    usual: bool
    headline: Headline
    power: PowerLine

    @property
    def sentence(self) -> str:
        """Figure and power in words."""
        return f"{self.name}: {self.headline.sentence} {self.power.sentence}"


def headlines(task: Task, measured: Sequence[Measured], which: str) -> tuple[NamedHeadline, ...]:
    """Figures of what was measured, the one usually quoted first.

    An item counts with every sample up to the highest number in `measured`. `headlines_of` is for scores of a run,
    which know the items that nobody asked.

    Args:
        which: `official` or `ours`.

    Raises:
        ValueError: a sample comes twice, or there is no such way of scoring.
    """
    samples = 1 + max((one.sample for one in measured), default=0)
    return _headlines(task.figures, valued(item_scores(measured), samples, which))


def headlines_of(figures: Figures, scores: TaskScores, which: str) -> tuple[NamedHeadline, ...]:
    """Figures of the scores of a run, as `headlines`."""
    return _headlines(figures, valued(scores.items, scores.samples, which))


def valued(items: Iterable[ItemScores], samples: int, which: str) -> tuple[ValuedItem, ...]:
    """Items with the worth of `samples` replies to each. Empty where replies came and none was scored in this way.

    Raises ValueError: there is no such way of scoring.
    """
    if which not in WAYS:
        raise ValueError(f"no way of scoring {which!r}; there are {', '.join(WAYS)}")
    listed = list(items)
    came = [one for item in listed for one in item.samples if one.status is Status.ANSWERED]
    # without any reply there are figures all the same: every sample is a fault
    if came and all(getattr(one, which) is None for one in came):
        return ()
    return tuple(_valued(item, samples, which) for item in listed)


def _valued(item: ItemScores, samples: int, which: str) -> ValuedItem:
    found: dict[int, SampleScores] = {one.sample: one for one in item.samples}
    strata = tuple(sorted(item.strata.items()))
    worths = tuple(_worth(found.get(number), which) for number in range(samples))
    return ValuedItem(item.key, Mark(item.id, item.cluster, strata, 0.0), worths)


def _worth(sample: SampleScores | None, which: str) -> float | str:
    """Value of a sample, or the kind of fault for which it has none. A score counts, whatever else has failed."""
    if sample is None:
        return "not asked"
    score = sample.official if which == OFFICIAL else sample.ours
    if score is not None and score.value is not None:
        return score.value
    if sample.status is not Status.ANSWERED:
        return sample.status.value.replace("_", " ")
    if score is None:
        return "not scored"
    return score.reason if _CONSTANT_REASON.fullmatch(score.reason) else "no verdict"


def faults_of(items: Iterable[ValuedItem]) -> Counter[str]:
    """Samples without a score by the kind of their fault."""
    return Counter(value for item in items for value in item.samples if isinstance(value, str))


def whole_clusters(*sides: Iterable[ValuedItem]) -> Callable[[ValuedItem], bool]:
    """Test for items of clusters in which every sample of all sides has a score."""
    # by cluster, as a composite of several items has no value where one of them has none
    broken = {item.mark.cluster for side in sides for item in side if not item.measured}
    return lambda item: item.mark.cluster not in broken


@dataclass(frozen=True)
class FigureSums:
    """Figure without its units, and what its clusters add to numerator and denominator, averaged over the samples."""

    figure: Figure
    sums: ClusterSums


def cluster_sums(figure: Figure) -> ClusterSums:
    """Sums of a figure's units by cluster, in the order of the clusters' names."""
    amounts, weights = [unit.amount for unit in figure.units], [unit.weight for unit in figure.units]
    return sums_by_cluster(amounts, weights, [unit.cluster for unit in figure.units])


def sums_of(figures: Figures, items: Sequence[ValuedItem], worth: Worth) -> dict[str, FigureSums]:
    """Sums of each figure by its name.

    A figure is taken of the first sample of all items, of the second, and so on, and these are averaged. For a mean
    of items that is the mean of their averages; a composite, which needs right answers together, has them in one run.
    """
    samples = len(items[0].samples) if items else 0
    runs = [figures([_mark(item, number, worth) for item in items]) for number in range(samples)]
    found: dict[str, FigureSums] = {}
    for same in zip(*runs, strict=True):
        of_runs = [cluster_sums(figure) for figure in same]
        # (samples, clusters) to (clusters,); clusters go by name, so they are in the same order in all runs
        above, below = (
            np.mean([getattr(sums, side) for sums in of_runs], axis=0) for side in ("numerators", "denominators")
        )
        # units of a single run would contradict the averaged sums
        found[same[0].name] = FigureSums(replace(same[0], units=()), ClusterSums(above, below))
    return found


def _mark(item: ValuedItem, number: int, worth: Worth) -> Mark:
    value, mark = item.samples[number], item.mark
    return Mark(mark.id, mark.cluster, mark.strata, worth(value) if isinstance(value, str) else value)


def wrong(_: str) -> float:
    """Worth of what was not measured in a headline."""
    return 0.0


def right(_: str) -> float:
    """Worth of what was not measured at the upper bound."""
    return 1.0


def _right_if(fault: str, found: str) -> float:
    return float(found == fault)


def _headlines(figures: Figures, items: Sequence[ValuedItem]) -> tuple[NamedHeadline, ...]:
    """Headlines of the figures that count anything."""
    named = ((sums.figure, headline(scenario)) for sums, scenario in _scenarios(figures, items))
    return tuple(
        NamedHeadline(figure.name, figure.definition, place == 0, found, _power(found))
        for place, (figure, found) in enumerate(named)
        if found is not None
    )


def _scenarios(figures: Figures, items: Sequence[ValuedItem]) -> list[tuple[FigureSums, Scenarios]]:
    faults = faults_of(items)
    worst, best = sums_of(figures, items, wrong), sums_of(figures, items, right)
    one_right = {fault: sums_of(figures, items, partial(_right_if, fault)) for fault in faults}
    measured = sums_of(figures, list(filter(whole_clusters(items), items)), wrong)
    return [
        (
            sums,
            Scenarios(
                items=len(items),
                faults=faults,
                wrong=sums.sums,
                # a figure of a part is missing where nothing of the part was measured
                measured=measured[name].sums if name in measured else cluster_sums(Figure(name, "", ())),
                right=best[name].sums if sums.figure.rises else None,
                right_by_fault=_named(one_right, name) if sums.figure.rises else {},
                samples=len(items[0].samples),  # without items there are no figures, and this is not reached
            ),
        )
        for name, sums in worst.items()
    ]


def _named(found: Mapping[str, Mapping[str, FigureSums]], name: str) -> dict[str, ClusterSums]:
    return {fault: sums[name].sums for fault, sums in found.items()}


def _power(found: Headline) -> PowerLine:
    """Power of a comparison; of an accuracy a little nearer to 1/2 than was found, as none is 0 or 1."""
    accuracy = (found.value.value * found.cases + 1) / (found.cases + 2)
    # a single cluster shows no variance; it counts as one case
    design_effect = found.cases if found.value.clusters < 2 else found.design_effect
    return smallest_paired(found.cases, assumed_discordance(accuracy), design_effect=design_effect)
