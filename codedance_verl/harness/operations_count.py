"""Operations in the code of a benchmark's replies, counted (`docs/operations.md`)."""

from __future__ import annotations

from collections.abc import Iterable

from codedance_verl.harness.reply import Reply
from codedance_verl.harness.report import OperationRate, Operations
from codedance_verl.operations.analysis import Analysis, analyse
from codedance_verl.operations.novelty import usage
from codedance_verl.operations.rates import Rate

MOST_COMPOSITIONS = 12


def operations_of(replies: Iterable[Reply]) -> Operations | None:
    """Operations by category and compositions along the data flow; None where no reply has a cell that ran."""
    sessions = [_analysed(reply) for reply in replies]
    if not any(session.cells for session in sessions):
        return None
    found = usage(sessions)
    return Operations(
        replies=found.rollouts,
        with_code=_rate("with code", found.with_code),
        on_image=_rate("on the image", found.on_image),
        dead=_rate("dead", found.dead),
        categories=tuple(_rate(name, rate) for name, rate in found.categories.items() if rate.count),
        compositions=dict(list(found.compositions.items())[:MOST_COMPOSITIONS]),
        not_analysed=found.no_python + found.too_large,
    )


def _analysed(reply: Reply) -> Analysis:
    """Operations of a reply; a cell that was refused is left out, one that failed has no live operation."""
    cells = [
        (turn.code, turn.execution.succeeded)
        for turn in reply.turns
        if turn.code is not None and turn.execution is not None and turn.execution.executed
    ]
    return analyse(tuple(code for code, _ in cells), tuple(ran for _, ran in cells))


def _rate(category: str, rate: Rate) -> OperationRate:
    return OperationRate(category, rate.count, rate.per_1000, rate.low, rate.high)
