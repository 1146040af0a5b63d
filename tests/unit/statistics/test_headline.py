from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codedance_verl.statistics.headline import headline
from codedance_verl.statistics.items import Item, Valued, all_right, mean_of_items

FAULTS = ("endpoint failure", "judge failure", "sandbox fault", "unreadable image")


def items(rows: list[list[float | str]]) -> list[Item]:
    """Clusters of items, each a value or a fault."""
    return [
        Item(f"{row}.{place}", str(row), None, value)
        if isinstance(value, str)
        else Item(f"{row}.{place}", str(row), value)
        for row, values in enumerate(rows)
        for place, value in enumerate(values)
    ]


benchmarks = st.lists(st.lists(st.sampled_from([0.0, 1.0, *FAULTS]), min_size=1, max_size=4), min_size=2, max_size=20)


def test_what_was_not_measured_counts_wrong_and_is_bounded() -> None:
    found = headline(
        items([[1.0], [1.0], [0.0], ["judge failure"], [1.0], ["endpoint failure"], ["judge failure"], [0.0]])
    )
    assert found.value.value == 3 / 8 and found.best == 6 / 8 and found.not_measured == 3
    assert found.faults == {"endpoint failure": 1, "judge failure": 2}
    assert found.could_add == {"endpoint failure": 1 / 8, "judge failure": 2 / 8}
    assert found.measured is not None and found.measured.value == 3 / 5
    assert found.bounds is not None and found.value.interval is not None
    assert found.bounds.low == found.value.interval.low and found.bounds.high > found.best
    assert found.sentence.startswith("37.5 % (")
    assert "3 were not measured and count as wrong (1 endpoint failure, 2 judge failure)" in found.sentence
    assert "Had they all been right: 75.0 %" in found.sentence


def test_all_measured_has_no_room() -> None:
    found = headline(items([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
    assert found.value.value == found.best == 0.5 and found.bounds == found.value.interval and not found.faults
    assert found.sentence.endswith("of 6 items in 3 clusters; all were measured.")


def test_a_composite_is_right_where_all_of_it_is() -> None:
    rows: list[list[float | str]] = [[1.0] * 4, [1.0, 1.0, 1.0, "judge failure"], [0.0, 1.0, 1.0, "judge failure"]]
    found = headline(items(rows), all_right)
    assert found.value.value == pytest.approx(1 / 3) and found.best == pytest.approx(2 / 3)
    assert found.could_add == {"judge failure": pytest.approx(1 / 3)}
    assert headline(items(rows)).could_add == {"judge failure": pytest.approx(2 / 12)}


@settings(deadline=None, max_examples=30)
@given(benchmarks)
def test_bounds_hold_every_way_in_which_the_rest_could_have_come_out(rows: list[list[float | str]]) -> None:
    found = headline(items(rows))
    some = headline(
        [
            Item(item.key, item.cluster, item.value if item.fault == "" else float(i % 2))
            for i, item in enumerate(items(rows))
        ]
    )
    assert found.value.value - 1e-12 <= some.value.value <= found.best + 1e-12
    assert found.bounds is not None and found.bounds.low - 1e-12 <= some.value.value <= found.bounds.high + 1e-12
    assert found.best - found.value.value == pytest.approx(sum(found.could_add.values()))


@settings(deadline=None, max_examples=30)
@given(benchmarks, st.randoms(use_true_random=False))
def test_the_order_of_items_does_not_matter(rows: list[list[float | str]], shuffle: Random) -> None:
    shuffled = items(rows)
    shuffle.shuffle(shuffled)
    assert headline(shuffled) == headline(items(rows))


def test_items_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="a value or a fault"):
        Item("1", "1", None)
    with pytest.raises(ValueError, match="a value or a fault"):
        Item("1", "1", 1.0, "judge failure")
    with pytest.raises(ValueError, match="outside"):
        Item("1", "1", 1.5)
    with pytest.raises(ValueError, match="item 1 comes twice"):
        headline([Item("2", "a", 0.0), Item("1", "a", 1.0), Item("1", "b", 1.0)])
    with pytest.raises(ValueError, match="no item"):
        headline([])


def test_figures_of_a_cluster() -> None:
    rows = [Valued("c", "two", 1.0), Valued("a", "one", 1.0), Valued("b", "one", 0.5)]
    mean, whole = mean_of_items(rows), all_right(rows)
    assert mean.numerators.tolist() == [1.5, 1.0] and mean.denominators.tolist() == [2.0, 1.0]
    assert whole.numerators.tolist() == [0.0, 1.0] and whole.denominators.tolist() == [1.0, 1.0]
