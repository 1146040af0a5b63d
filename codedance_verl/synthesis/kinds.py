"""Kinds of trajectories: what a teacher is asked for, and what its code turns out to be."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum

from codedance_verl.harness.at_once import asking
from codedance_verl.harness.reply import Reply
from codedance_verl.operations.analysis import analyse
from codedance_verl.operations.catalogue import Category
from codedance_verl.tasks.item import Item

DIRECT = "direct"
"""Kind of an answer without code."""


class Kind(StrEnum):
    """Kind of a trajectory with code, as the paper's SFT data has them (arXiv 2512.17312)."""

    VISUAL = "visual"  # crop, enlarge, filter, and look at the result
    COMPUTATION = "computation"  # measure, count, calculate, and read what is printed
    DRAWING = "drawing"  # draw, annotate, and look at the result


_REQUESTS = {
    Kind.VISUAL: "Use Python to cut out, enlarge or filter the part of the image that matters, and look at the result "
    "before you answer.",
    Kind.COMPUTATION: "Use Python to measure or calculate what the answer needs, and print it before you answer.",
    Kind.DRAWING: "Use Python to draw on the image what helps, such as marks, boxes or auxiliary lines, and look at it "
    "before you answer.",
}
_DRAWN = frozenset((Category.DRAW, Category.GRID))


def item_for(item: Item, kind: Kind | None) -> Item:
    """Item with a request for a kind behind its question; as it is for None. Demonstrations leave the request out."""
    return item if kind is None else asking(item, _REQUESTS[kind])


def kind_to_ask(item: str, number: int, kinds: Sequence[Kind]) -> Kind | None:
    """Kind of the try `number` of an item by its id: all kinds in turn, from one that differs by item."""
    if not kinds:
        return None
    # by a digest: the same kind for the same id in every run and process, which the records' key relies on
    first = int.from_bytes(hashlib.sha256(item.encode("utf-8", "replace")).digest()[:4], "big")
    return kinds[(first + number) % len(kinds)]


def kind_of(reply: Reply) -> Kind:
    """Kind of a reply whose code ran: what is shown decides."""
    ran = [turn for turn in reply.turns if turn.code is not None and turn.execution is not None]
    cells = [turn.code or "" for turn in ran]
    done = [turn.execution is not None and turn.execution.succeeded for turn in ran]
    # live operations only: a drawing that nobody is shown makes none
    if analyse(cells, done).categories & _DRAWN:
        return Kind.DRAWING
    return Kind.VISUAL if any(turn.images_shown for turn in ran) else Kind.COMPUTATION
