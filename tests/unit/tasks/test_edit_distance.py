"""Levenshtein distance against its definition."""

from __future__ import annotations

import functools

from hypothesis import given
from hypothesis import strategies as st

from codedance_verl.tasks.edit_distance import levenshtein


def _by_definition(first: str, second: str) -> int:
    @functools.cache
    def between(left: int, right: int) -> int:
        if not left or not right:
            return left + right
        replaced = between(left - 1, right - 1) + (first[left - 1] != second[right - 1])
        return min(between(left - 1, right) + 1, between(left, right - 1) + 1, replaced)

    return between(len(first), len(second))


def test_known_distances() -> None:
    assert levenshtein("kitten", "sitting") == 3
    assert levenshtein("", "abc") == 3
    assert levenshtein("abc", "abc") == 0
    assert levenshtein("145°", "145") == 1


@given(st.text("abc°", max_size=12), st.text("abc°", max_size=12))
def test_distance_is_that_of_the_definition(first: str, second: str) -> None:
    assert levenshtein(first, second) == _by_definition(first, second)


@given(st.text("ab", min_size=60, max_size=90), st.text("ab", max_size=8))
def test_distance_of_a_long_text(first: str, second: str) -> None:
    assert levenshtein(first, second) == _by_definition(first, second)
