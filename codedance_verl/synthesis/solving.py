"""Solving of the questions of a file: rounds without tools find the easy ones, rounds with tools solve the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from codedance_verl.grading.grader import Grader
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.harness.ways import Way, Ways
from codedance_verl.records.record import plain_id
from codedance_verl.records.store import Store
from codedance_verl.synthesis.rounds import Questions, Round, Tell, ask_round, recorded_round, rounds_of
from codedance_verl.synthesis.verdicts import Checked, verdicts


@dataclass(frozen=True)
class RoundResult:
    """Round with its records and the verdicts on the replies that were asked for, by id of the item."""

    which: Round
    store: Store
    verdicts: Mapping[str, Checked]


@dataclass
class Solved:
    """Results on the questions of a file.

    Attributes:
        questions: of the file.
        ids: of all its items, in order.
        rounds: that were asked, in order.
        easy: items that every answer without tools solved.
        kept: name of the round whose reply is kept, by id of the item.
        undecided: items without a verdict in the round they came to, since endpoint, sandbox or judge failed; the next
            run goes on with them.
    """

    questions: Questions
    ids: tuple[str, ...]
    rounds: list[RoundResult] = field(default_factory=list)
    easy: set[str] = field(default_factory=set)
    kept: dict[str, str] = field(default_factory=dict)
    undecided: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Solver:
    """What all rounds need; `teachers` None asks nothing, and checks what is on record."""

    settings: EvalSettings
    teachers: Ways | None
    grader: Grader
    tell: Tell

    async def solve(self, questions: Questions) -> Solved:
        """Asks and checks round after round. Raises what `ask_round` and `verdicts` do."""
        solved = Solved(questions, tuple(plain_id(item) for item in questions.benchmark.items()))
        direct, with_tools = rounds_of(questions.synthesis)
        # all of these first: whether a question is easy does not depend on the other questions' order
        hard = await self._easy_ones(solved, direct)
        for which in with_tools:
            found = await self._round(solved, which, hard)
            if found is None:
                break
            solved.kept |= {item: which.name for item, checked in found.items() if not checked.stage}
            # undecided ones are in neither: the next run asks this round again before it goes on
            hard = {item for item, checked in found.items() if checked.stage}
        return solved

    async def _easy_ones(self, solved: Solved, direct: list[Round]) -> set[str]:
        """Finds the easy items; returns those that are to be solved with tools."""
        if not direct:
            return set(solved.ids)
        right, hard, kept = set(solved.ids), set[str](), dict[str, str]()
        for which in direct:
            found = await self._round(solved, which, right)
            if found is None:
                # a round that nobody asked leaves its items where they are
                return hard
            hard |= {item for item, checked in found.items() if not checked.right}
            right = {item for item, checked in found.items() if checked.right}
            # the first in good form is kept, even if a later one is right too
            for item, checked in found.items():
                if checked.right and not checked.stage:
                    kept.setdefault(item, which.name)
        solved.easy |= right
        solved.kept |= {item: name for item, name in kept.items() if item in right}
        return hard

    async def _round(self, solved: Solved, which: Round, wanted: Collection[str]) -> Mapping[str, Checked] | None:
        """Verdicts of a round on the items that are wanted; None where nobody asks it, or nothing is left."""
        if not wanted:
            return {} if which.direct else None
        questions = solved.questions
        if self.teachers is None:
            store = recorded_round(questions, which)
        else:
            teacher = self._teacher(self.teachers, which)
            store = await ask_round(questions, which, teacher, wanted, self.tell)
        if store is None:
            return None
        # of all replies on record, also of items that other bounds had brought to this round
        every = await verdicts(questions, which, store, self.settings, self.grader, self.tell)
        found = {item: checked for item, checked in every.items() if item in wanted}
        solved.undecided |= set(wanted) - set(found)
        solved.rounds.append(RoundResult(which, store, found))
        return found

    @staticmethod
    def _teacher(teachers: Ways, which: Round) -> Way:
        return teachers.direct if which.direct else teachers.tools
