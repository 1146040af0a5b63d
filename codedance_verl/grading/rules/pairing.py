"""Pairs things off, each with one that it fits and that no other is paired with."""

from __future__ import annotations

from collections.abc import Sequence


def most_pairs(fits: Sequence[Sequence[int]]) -> int:
    """How many pairs there can be at once, found by augmenting paths; `fits` holds the places that each item fits."""
    partner: dict[int, int] = {}

    def place_for(item: int, tried: set[int]) -> bool:
        for place in fits[item]:
            if place not in tried:
                tried.add(place)
                if place not in partner or place_for(partner[place], tried):
                    partner[place] = item
                    return True
        return False

    return sum(place_for(item, set()) for item in range(len(fits)))
