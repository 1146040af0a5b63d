"""The table of the catalogue, and the classes of PyVision."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest

from codedance_verl.operations.catalogue import CONVERSIONS, TABLE, Category, Kind, look_up
from codedance_verl.operations.pyvision import CLASS_OF, PyVisionClass, classes

# Installed with this package; the others of the table are not.
_INSTALLED = ("PIL", "cv2", "math", "numpy", "scipy", "skimage", "itertools", "builtins")


def _names() -> Iterator[str]:
    for row in (CONVERSIONS, *TABLE.values()):
        for names in row.values():
            yield from names.split()


_PLAIN = sorted({name for name in _names() if not {"*", "("} & set(name) and name.partition(".")[0] in _INSTALLED})


@pytest.mark.parametrize("name", _PLAIN)
def test_names_of_installed_libraries_exist(name: str) -> None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return
    raise AssertionError(f"no module of {name}")


def test_an_exact_name_comes_before_a_pattern() -> None:
    hysteresis = look_up("skimage.filters.apply_hysteresis_threshold")
    assert hysteresis is not None and hysteresis.categories == (Category.THRESHOLD,)
    rank = look_up("skimage.filters.rank.otsu")
    assert rank is not None and rank.categories == (Category.THRESHOLD,)
    disk = look_up("skimage.morphology.disk")
    assert disk is not None and not disk.categories
    found = look_up("cv2.threshold")
    assert found is not None and found.result == (Kind.NUMBER, Kind.MASK)
    assert look_up("cv2.unheard_of") is None


def test_every_category_has_a_class_or_says_that_it_has_none() -> None:
    assert set(CLASS_OF) == set(Category)
    assert set(CLASS_OF.values()) == {*PyVisionClass, None}
    assert classes([Category.CROP, Category.COUNT, Category.DISPLAY]) == {PyVisionClass.BASIC, PyVisionClass.ADVANCED}
