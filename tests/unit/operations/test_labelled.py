"""The catalogue agrees with the labels of programs that were labelled by hand."""

from __future__ import annotations

import pytest

from benchmarks.operations import DATA, PARTS, agreement, disagreements, read_part
from codedance_verl.operations.catalogue import Category

LEAST = 0.95


@pytest.mark.parametrize("part", PARTS)
def test_precision_and_recall(part: str) -> None:
    found = agreement(read_part(DATA / part))
    assert found.precision >= LEAST, disagreements(read_part(DATA / part))
    assert found.recall >= LEAST, disagreements(read_part(DATA / part))


@pytest.mark.parametrize("kind", ["demo", "vision", "adversarial"])
@pytest.mark.parametrize("part", ["held_out", "development"])
def test_each_third(part: str, kind: str) -> None:
    programs = [item for item in read_part(DATA / part) if item.name.startswith(f"{kind}:")]
    found = agreement(programs)
    assert len(programs) >= {"held_out": 33, "development": 66}[part]
    assert min(found.precision, found.recall) >= LEAST


def test_the_labels_hold_every_category_and_300_programs() -> None:
    programs = [item for part in ("held_out", "development") for item in read_part(DATA / part)]
    assert len(programs) >= 300 and len({item.cells for item in programs}) > 290
    assert {label for item in programs for label in item.labels} == set(Category)
    assert all(item.labels == {Category.NONE} or Category.NONE not in item.labels for item in programs)


def test_agreement_counts_both_kinds_of_errors() -> None:
    first, *_ = [item for item in read_part(DATA / "development") if item.labels == {Category.CROP}]
    wrong = type(first)(first.name, frozenset((Category.COUNT, Category.EDGES)), first.cells)
    assert (agreement([wrong]).both, agreement([wrong]).extra, agreement([wrong]).missing) == (0, 1, 2)
    assert disagreements([wrong]) == {first.name: {"extra": ["crop"], "missing": ["count", "edges"]}}
    assert disagreements([first]) == {}
