"""Novelty against demonstrations, rates, and usage."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from codedance_verl.operations.analysis import analyse
from codedance_verl.operations.catalogue import Category
from codedance_verl.operations.novelty import New, new_in, novelty, repertoire, usage
from codedance_verl.operations.rates import rate

CROP = "input_image.crop((0, 0, 9, 9))"
TURN = "input_image.rotate(5)"
BOTH = "input_image.crop((0, 0, 9, 9)).rotate(5)"
EDGES = "import cv2\nimport numpy as np\ncv2.Canny(np.array(input_image), 1, 2)"


def test_demonstrations_hold_nothing_new_against_themselves() -> None:
    sessions = [analyse([code]) for code in (CROP, TURN, BOTH, EDGES, "print(1)")]
    found = novelty(sessions, repertoire(sessions))
    assert found.any.count == found.category.count == found.call.count == found.composition.count == 0
    assert not found.categories and not found.calls and not found.compositions


def test_a_composition_of_known_atoms_is_new() -> None:
    known = repertoire(map(analyse, [[CROP], [TURN]]))
    assert new_in(analyse([BOTH]), known) == New(
        frozenset(), frozenset(), frozenset(((Category.CROP, Category.ROTATE),))
    )
    found = novelty([analyse([BOTH]), analyse([CROP])], known)
    assert (found.composition.count, found.composition_of_known.count, found.across_turns.count) == (1, 1, 0)
    assert found.compositions == {"crop > rotate": 1} and found.any.per_1000 == 500


def test_a_composition_over_turns_is_counted_apart() -> None:
    known = repertoire(map(analyse, [[CROP], [TURN]]))
    assert novelty([analyse([f"x = {CROP}", "x.rotate(5)"])], known).across_turns.count == 1


def test_a_category_that_no_demonstration_has() -> None:
    known = repertoire([analyse([CROP])])
    found = novelty([analyse([EDGES]), analyse([EDGES]), analyse([TURN])], known)
    assert found.categories == {"edges": 2, "rotate": 1}
    assert found.calls == {"cv2.Canny": 2, "PIL.Image.Image.rotate": 1}
    assert found.category.count == found.any.count == 3 and found.composition.count == 0


def test_dead_operations_are_nothing_new() -> None:
    known = repertoire([analyse([CROP])])
    assert not new_in(analyse([f"x = {TURN}\nprint('turned')"]), known)
    assert not new_in(analyse(["print(1)"]), known)


@pytest.mark.parametrize(("count", "rollouts"), [(0, 10), (1, 10), (5, 10), (10, 10), (17, 4096), (512, 1024)])
def test_the_interval_is_wilsons(count: int, rollouts: int) -> None:
    found = rate(count, rollouts)
    expected = binomtest(count, rollouts).proportion_ci(0.95, method="wilson")
    assert found.low == pytest.approx(1000 * expected.low, abs=1e-9)
    assert found.high == pytest.approx(1000 * expected.high, abs=1e-9)
    assert found.low <= found.per_1000 <= found.high


@pytest.mark.parametrize(("count", "rollouts"), [(0, 0), (2, 1), (-1, 5)])
def test_no_rate_of_no_rollouts(count: int, rollouts: int) -> None:
    with pytest.raises(ValueError, match="no rate"):
        rate(count, rollouts)


def test_usage_counts_rollouts_by_category_and_cells_apart() -> None:
    sessions = [
        analyse(cells) for cells in ([CROP, "print(1)"], [BOTH], ["no python !"], [], [f"x = {TURN}\nprint(2)"])
    ]
    found = usage(sessions)
    assert (found.rollouts, found.with_code.count, found.cells) == (5, 4, 5)
    assert found.categories["crop"].count == 2 and found.categories["none"].count == 1
    assert (found.idle_cells, found.no_python, found.too_large) == (2, 1, 0)
    assert found.on_image.count == 2 and found.dead.count == 1
    assert found.compositions == {"crop > rotate": 1}
