"""Settings of a synthesis beside those of the teacher: tries, kinds that are asked for, bounds of the checks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from codedance_verl.errors import UserError
from codedance_verl.synthesis.kinds import Kind


@dataclass(frozen=True)
class Rules:
    """Bounds of the checks.

    Attributes:
        most_failed_calls: calls that may fail in a trajectory; the last one never may.
        least_cover: part of a region's area that a crop has to hold, above 0, to 1.
        largest_box: part of the image's area that this crop may have, above 0, to 1.
        max_answer_chars: characters from which an answer is malformed.
    """

    most_failed_calls: int = 0
    least_cover: float = 0.9
    largest_box: float = 0.5
    max_answer_chars: int = 1000

    def __post_init__(self) -> None:
        for name in ("least_cover", "largest_box"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"--{name.replace('_', '-')}: must be above 0 and at most 1")
        if self.most_failed_calls < 0:
            raise UserError("--most-failed-calls: must be 0 or more")


@dataclass(frozen=True)
class Synthesis:
    """What is asked of each question, and how it is checked.

    Attributes:
        direct: answers without tools; a question that all of them solve is easy. 0: none is asked for.
        tries: trajectories with tools for a question that is not easy, until one of them is kept.
        kinds: that the teacher is asked for in turn, another one first from question to question; empty: none is named.
        rules: bounds of the checks.
    """

    direct: int = 2
    tries: int = 3
    kinds: tuple[Kind, ...] = tuple(Kind)
    rules: Rules = Rules()

    def __post_init__(self) -> None:
        if self.direct < 0 or self.tries < 0 or not self.direct + self.tries:
            raise UserError("--direct and --tries: must be 0 or more, and one of them above 0")

    def as_json(self) -> dict[str, Any]:
        """Values for the report."""
        return {**asdict(self), "kinds": [str(kind) for kind in self.kinds]}


def kinds_of(text: str) -> tuple[Kind, ...]:
    """Kinds of a list with commas; `any` and an empty text name none. Raises UserError: one is not known."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["any"]:
        return ()
    try:
        return tuple(dict.fromkeys(map(Kind, names)))
    except ValueError:
        raise UserError(f"--kinds is {text}; must be any, or of {', '.join(Kind)}") from None
