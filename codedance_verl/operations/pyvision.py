"""Classes of tools of PyVision (arXiv 2507.07998, section 3.1), by category of the catalogue.

PyVision found its classes by grouping embeddings of code and reading the groups; here a table maps categories, so that
shares are comparable in kind, not in figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from codedance_verl.operations.catalogue import Category


class PyVisionClass(StrEnum):
    """Class of tools."""

    BASIC = "basic image processing"  # crop, rotate, enhance
    ADVANCED = "advanced image processing"  # segment, detect, read text
    SKETCHING = "visual prompting and sketching"  # marks and lines
    NUMERICAL = "numerical and statistical analysis"  # histograms, areas, lengths
    LONG_TAIL = "long tail"  # difference of images


CLASS_OF: Mapping[Category, PyVisionClass | None] = {
    Category.CROP: PyVisionClass.BASIC,
    Category.RESIZE: PyVisionClass.BASIC,
    Category.ROTATE: PyVisionClass.BASIC,
    Category.COLOUR: PyVisionClass.BASIC,
    Category.FILTER: PyVisionClass.BASIC,
    Category.THRESHOLD: PyVisionClass.ADVANCED,
    Category.EDGES: PyVisionClass.ADVANCED,
    Category.COUNT: PyVisionClass.ADVANCED,
    Category.TEXT: PyVisionClass.ADVANCED,
    Category.DRAW: PyVisionClass.SKETCHING,
    Category.STATISTICS: PyVisionClass.NUMERICAL,
    Category.ARITHMETIC: PyVisionClass.NUMERICAL,
    Category.TABLES: PyVisionClass.NUMERICAL,
    Category.DIFFERENCE: PyVisionClass.LONG_TAIL,
    Category.GRID: PyVisionClass.LONG_TAIL,
    Category.SEARCH: PyVisionClass.LONG_TAIL,
    Category.DISPLAY: None,  # output, which PyVision counts as no tool
    Category.NONE: None,
}
"""Class of each category; None for what is no tool there."""


def classes(categories: Iterable[Category]) -> frozenset[PyVisionClass]:
    """Classes of these categories."""
    return frozenset(found for category in categories if (found := CLASS_OF[category]) is not None)
