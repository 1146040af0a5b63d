"""Columns of the comparison: each a rate over some of the rollouts of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from codedance_verl.data.conditions import GREEDY, SAMPLED
from codedance_verl.evaluation.metrics import ACCURACY, TOOL_RATE, Measure
from codedance_verl.evaluation.outcomes import Outcome
from codedance_verl.types import Verdict

UNDEMONSTRATED = "count_digits"
"""The kind that no demonstration answers with code."""

LOOK, LOOK_LARGE = "look", "look_large"
"""Kinds asked in the same words: the first needs code, the second does not, and only the image says which it is."""

FOUND_SHARE = 0.5
"""A seed has found code for the undemonstrated kind where it answers this share of it right with code, greedily."""


@dataclass(frozen=True)
class Column:
    """A rate that methods are compared in.

    Attributes:
        name: key in `ablation.json`.
        variant: "greedy" or "sampled".
        choose: says of a rollout whether it counts.
    """

    name: str
    title: str
    variant: str
    choose: Callable[[Outcome], bool]
    measure: Measure = ACCURACY


def _hard(outcome: Outcome) -> bool:
    return outcome.difficulty == "hard"


def _easy(outcome: Outcome) -> bool:
    return outcome.difficulty == "easy"


def _look_alike(outcome: Outcome) -> bool:
    return outcome.kind in (LOOK, LOOK_LARGE)


RIGHT_CALL = Measure(lambda outcome: (float((outcome.executed > 0) == (outcome.kind == LOOK)), 1.0))
"""Share of the look-alikes that were given code where it is needed, and only there; 0.5 without looking."""

HEADLINE = (
    Column("greedy_hard", "greedy accuracy, hard", GREEDY, _hard),
    Column("sampled_hard", "sampled accuracy, hard", SAMPLED, _hard),
    Column("needless", "needless calls", SAMPLED, _easy, TOOL_RATE),
    Column("needless_greedy", "needless calls, greedy", GREEDY, _easy, TOOL_RATE),
    Column("calls_hard", "calls, hard", SAMPLED, _hard, TOOL_RATE),
    Column("look_alikes", "look-alikes told apart", SAMPLED, _look_alike, RIGHT_CALL),
)
"""Columns of the first table and panels of the plot."""

DISCOVERY = Column(
    "discovery", f"greedy accuracy, {UNDEMONSTRATED}", GREEDY, lambda outcome: outcome.kind == UNDEMONSTRATED
)
"""Compared like those of the first table; its values stand in the table of the kinds."""

COMPARED = (*HEADLINE, DISCOVERY)


@dataclass(frozen=True)
class KindTable:
    """A table with a column for each kind of question."""

    name: str
    title: str
    variant: str
    measure: Measure

    def column(self, kind: str) -> Column:
        """The column of one kind."""
        return Column(f"{self.name}_{kind}", kind, self.variant, lambda outcome: outcome.kind == kind, self.measure)


KIND_TABLES = (
    KindTable("greedy", "Greedy accuracy by kind", GREEDY, ACCURACY),
    KindTable("sampled", "Sampled accuracy by kind", SAMPLED, ACCURACY),
    KindTable("calls", "Calls by kind, sampled", SAMPLED, TOOL_RATE),
)


def kinds_of(outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    """Kinds of question, those that need code first."""
    difficulty = {outcome.kind: outcome.difficulty for outcome in outcomes}
    return tuple(sorted(difficulty, key=lambda kind: (difficulty[kind] != "hard", kind)))


def has_found(outcomes: Sequence[Outcome]) -> bool | None:
    """True where a run answers the undemonstrated kind right with code, greedily; None where it was not asked."""
    greedy = [
        item for item in outcomes if item.variant == GREEDY and DISCOVERY.choose(item) and not item.infrastructure
    ]
    right = sum(outcome.verdict is Verdict.CORRECT and outcome.succeeded > 0 for outcome in greedy)
    return right >= FOUND_SHARE * len(greedy) if greedy else None
