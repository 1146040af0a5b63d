from __future__ import annotations

import pytest

from codedance_verl.harness.published import BASE, CODEDANCE, DEEPEYES, half_width, published
from codedance_verl.tasks.registry import TASKS


# Half-widths at the accuracy of CodeDance-7B, in points, by the normal approximation; the tolerance covers Wilson's.
@pytest.mark.parametrize(
    ("task", "percent", "independent", "clusters"),
    [
        ("countbench", 91.2, 2.5, 2.5),
        ("pixmocount", 77.1, 3.5, 3.5),
        ("vstar", 84.8, 5.1, 5.1),
        ("hrbench_4k", 75.2, 3.0, 6.0),
        ("hrbench_8k", 72.3, 3.1, 6.2),
        ("chartqa", 87.5, 1.3, 1.3),
        ("charxiv", 44.1, 3.1, 3.1),
        ("mathvision", 29.6, 1.6, 1.6),
        ("mathvision_testmini", 29.6, 5.1, 5.1),
        ("mathvista", 70.3, 2.8, 2.8),
        ("mathverse", 46.8, 1.6, 3.5),
        ("mathverse_vision_only", 46.8, 3.5, 3.5),
        ("wemath", 39.6, 4.2, 4.2),
    ],
)
def test_rows_of_the_paper_have_the_half_width_of_their_items(
    task: str, percent: float, independent: float, clusters: float
) -> None:
    row = next(row for row in published(task) if row.model == CODEDANCE)
    assert row.value == pytest.approx(percent / 100)
    assert 100 * row.half_width == pytest.approx(independent, abs=0.11)
    assert 100 * row.half_width_clusters == pytest.approx(clusters, abs=0.11)


def test_every_row_is_of_a_known_benchmark_and_names_its_source() -> None:
    rows = {task: published(task) for task in TASKS}
    assert sum(bool(found) for found in rows.values()) == 18
    assert all(row.source and row.items <= TASKS[task].expected for task, found in rows.items() for row in found)
    assert [row.model for row in rows["vstar"]] == [CODEDANCE, BASE, DEEPEYES]
    assert rows["vstar_unshuffled"] == () == published("no such benchmark")


def test_half_widths_are_of_use_at_the_ends() -> None:
    assert 0 < half_width(1.0, 100) < 0.03
    assert half_width(0.5, 1) < 0.5
