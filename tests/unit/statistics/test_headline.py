from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedance_verl.statistics.clusters import ClusterSums, sums_by_cluster
from codedance_verl.statistics.headline import Scenarios, headline

FAULTS = ("endpoint failure", "judge failure", "sandbox fault", "unreadable image")

Rows = list[list[float | str]]


def accuracy(rows: Rows, right: tuple[str, ...] = ()) -> ClusterSums:
    """Sums of items by cluster, each a value or a fault; items of the faults `right` are right."""
    values = [
        (float(value in right) if isinstance(value, str) else value, n) for n, row in enumerate(rows) for value in row
    ]
    return sums_by_cluster([value for value, _ in values], [1.0] * len(values), [f"{n:03}" for _, n in values])


def all_right(rows: Rows, right: tuple[str, ...] = ()) -> ClusterSums:
    sums = accuracy(rows, right)
    return ClusterSums((sums.numerators == sums.denominators).astype(float), np.ones(len(rows)))


def scenarios(rows: Rows, figure=accuracy) -> Scenarios:  # type: ignore[no-untyped-def]
    faults = Counter(value for row in rows for value in row if isinstance(value, str))
    whole = [row for row in rows if not any(isinstance(value, str) for value in row)]
    return Scenarios(
        items=sum(map(len, rows)),
        faults=faults,
        wrong=figure(rows),
        measured=figure(whole),
        right=figure(rows, FAULTS),
        right_by_fault={fault: figure(rows, (fault,)) for fault in faults},
    )


benchmarks = st.lists(st.lists(st.sampled_from([0.0, 1.0, *FAULTS]), min_size=1, max_size=4), min_size=2, max_size=20)


def test_what_was_not_measured_counts_wrong_and_is_bounded() -> None:
    found = headline(
        scenarios([[1.0], [1.0], [0.0], ["judge failure"], [1.0], ["endpoint failure"], ["judge failure"], [0.0]])
    )
    assert found is not None
    assert found.value.value == 3 / 8 and found.best == 6 / 8 and found.not_measured == 3
    assert found.faults == {"endpoint failure": 1, "judge failure": 2}
    assert found.could_add == {"endpoint failure": 1 / 8, "judge failure": 2 / 8}
    assert found.measured is not None and found.measured.value == 3 / 5
    assert found.bounds is not None and found.value.interval is not None
    assert found.bounds.low == found.value.interval.low and found.bounds.high > found.best
    assert found.sentence.startswith("37.5 % (")
    assert "3 of 8 items were not measured and count as wrong (1 endpoint failure, 2 judge failure)" in found.sentence
    assert "Had they all been right: 75.0 %" in found.sentence


def test_all_measured_has_no_room() -> None:
    found = headline(scenarios([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
    assert found is not None
    assert found.value.value == found.best == 0.5 and found.bounds == found.value.interval and not found.faults
    assert found.sentence.endswith("of 6 items in 3 clusters; all were measured.")


def test_a_composite_is_right_where_all_of_it_is() -> None:
    rows: Rows = [[1.0] * 4, [1.0, 1.0, 1.0, "judge failure"], [0.0, 1.0, 1.0, "judge failure"]]
    found = headline(scenarios(rows, all_right))
    assert found is not None and (found.items, found.cases) == (12, 3)
    assert found.value.value == pytest.approx(1 / 3) and found.best == pytest.approx(2 / 3)
    assert found.could_add == {"judge failure": pytest.approx(1 / 3)}
    assert "of 3 cases; 2 of 12 items were not measured" in found.sentence


def test_faults_elsewhere_do_not_change_a_figure() -> None:
    rows: Rows = [[0.0, "judge failure"], [1.0, 1.0]]
    found = headline(scenarios(rows, all_right))
    assert found is not None and found.best == found.value.value == 0.5
    assert found.sentence.endswith("They could not have changed this figure.")


def test_a_figure_that_can_fall_has_no_bounds() -> None:
    rows: Rows = [["judge failure", 0.0], [1.0, 0.0], [0.0, 0.0]]
    sums = Scenarios(6, {"judge failure": 1}, accuracy(rows), accuracy(rows[1:]), right=None)
    found = headline(sums)
    assert found is not None and found.best is None and found.bounds is None and not found.could_add
    assert found.value.interval is not None
    assert found.sentence.endswith("(1 judge failure). They could have moved this figure either way.")


def test_samples_are_counted_where_items_have_several() -> None:
    sums = Scenarios(2, {"judge failure": 3}, accuracy([[0.5], [0.25]]), accuracy([]), accuracy([[1.0], [0.75]]), {}, 4)
    found = headline(sums)
    assert found is not None and "3 of 8 samples were not measured" in found.sentence and found.measured is None


def test_a_figure_that_counts_nothing_has_no_headline() -> None:
    nothing = ClusterSums(np.zeros(3), np.zeros(3))
    assert headline(Scenarios(3, {}, nothing, nothing, nothing)) is None


@settings(deadline=None, max_examples=30)
@given(benchmarks)
def test_bounds_hold_every_way_in_which_the_rest_could_have_come_out(rows: Rows) -> None:
    found = headline(scenarios(rows))
    come_out = [
        [float((i + n) % 2) if isinstance(value, str) else value for i, value in enumerate(row)]
        for n, row in enumerate(rows)
    ]
    some = headline(scenarios(come_out))
    assert found is not None and some is not None and found.best is not None and found.bounds is not None
    assert found.value.value - 1e-12 <= some.value.value <= found.best + 1e-12
    assert found.bounds.low - 1e-12 <= some.value.value <= found.bounds.high + 1e-12
    assert found.best - found.value.value == pytest.approx(sum(found.could_add.values()))
