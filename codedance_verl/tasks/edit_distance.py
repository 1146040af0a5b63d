"""Levenshtein distance in time linear in the longer text, as replies may be long."""

from __future__ import annotations


def levenshtein(first: str, second: str) -> int:
    """Fewest insertions, deletions and substitutions of characters that turn one text into the other.

    Myers' algorithm in Hyyrö's form: a column of the table is held as two integers, with a bit for each row where the
    distance rises or falls by one, so that a step of the longer text costs a few operations on integers.
    """
    pattern, text = sorted((first, second), key=len)
    if not pattern:
        return len(text)
    places: dict[str, int] = {}  # by character: bit r is set where row r of the shorter text has it
    for row, sign in enumerate(pattern):
        places[sign] = places.get(sign, 0) | 1 << row
    every, last = (1 << len(pattern)) - 1, 1 << (len(pattern) - 1)
    # the column of the empty text is 0, 1, 2, ...: it rises in every row
    rises, falls, distance = every, 0, len(pattern)
    for sign in text:
        equal = places.get(sign, 0)
        diagonal = (((equal & rises) + rises) ^ rises) | equal | falls
        level_rises = falls | ~(diagonal | rises)
        level_falls = rises & diagonal
        # only the last row is the distance of the whole shorter text
        distance += bool(level_rises & last) - bool(level_falls & last)
        level_rises = level_rises << 1 | 1  # the row above the first rises with each character
        # Python's integers have no width: shifts and `~` leave bits that are no rows
        rises = (level_falls << 1 | ~(diagonal | level_rises)) & every
        falls = level_rises & diagonal & every
    return distance
