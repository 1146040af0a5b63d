"""Dials of difficulty: whole numbers with a range, which a level sets all at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from codedance_verl.errors import UserError
from codedance_verl.generators.choices import Split
from codedance_verl.generators.item import Item

LEVELS = (1, 2, 3, 4, 5)

STRATA = ("easy", "medium", "medium", "hard", "hard")
"""Stratum of difficulty of each level, by which mixtures go."""

Dials = Mapping[str, int]


@dataclass(frozen=True)
class Dial:
    """Whole number that makes a kind harder or easier.

    Attributes:
        name: as `--dial` takes it.
        meaning: what it sets, with the unit.
        levels: its value at each of `LEVELS`.
        least, most: range that it may be set to.
    """

    name: str
    meaning: str
    levels: tuple[int, int, int, int, int]
    least: int
    most: int

    def check(self, value: int) -> int:
        """Returns the value. Raises UserError where it is out of range."""
        if not self.least <= value <= self.most:
            raise UserError(f"--dial {self.name}={value} is out of range; choose {self.least} to {self.most}")
        return value


@dataclass(frozen=True)
class Kind:
    """Kind of questions: its dials, and the function that draws one item.

    `draw` takes a random source, the split, a value for each dial, and the pixels of an image that the model sees at
    most. It raises `DoesNotFit` for a draw to be thrown away.
    """

    name: str
    dials: tuple[Dial, ...]
    draw: Callable[[np.random.Generator, Split, Dials, int], Item]

    def settings(self, level: int, own: Mapping[str, int]) -> dict[str, int]:
        """Value of each dial at a level, those of `own` in their place. Names in `own` of other kinds are passed over.

        Raises UserError: the level or a value is out of range.
        """
        if level not in LEVELS:
            raise UserError(f"--level is {level}; choose {LEVELS[0]} to {LEVELS[-1]}")
        place = LEVELS.index(level)
        return {dial.name: dial.check(own.get(dial.name, dial.levels[place])) for dial in self.dials}


def parse_dials(texts: Sequence[str], kinds: Sequence[Kind]) -> dict[str, int]:
    """Dials of texts `NAME=VALUE`. Raises UserError where one is no such text, or no kind has the dial."""
    # a name that several kinds have means the same in each, if with another range, which `settings` checks
    known = {dial.name: dial for kind in kinds for dial in kind.dials}
    found = dict[str, int]()
    for text in texts:
        match = re.fullmatch(r"(\w+)=(-?\d{1,9})", text)
        if match is None:
            raise UserError(f"--dial {text} is no dial; write NAME=VALUE with a whole number")
        name = match[1]
        if name not in known:
            raise UserError(f"no dial {name} in {', '.join(kind.name for kind in kinds)}; there are {_listed(known)}")
        found[name] = known[name].check(int(match[2]))
    return found


def _listed(dials: Mapping[str, Dial]) -> str:
    return ", ".join(f"{name} ({dial.least} to {dial.most})" for name, dial in sorted(dials.items()))
