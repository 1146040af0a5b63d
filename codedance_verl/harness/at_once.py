"""Questions that are asked at once, without tools, and the answers of replies in whatever form."""

from __future__ import annotations

from dataclasses import replace

from codedance_verl.formats import get_format, render_answer, render_think
from codedance_verl.formats.base import THINK_END
from codedance_verl.harness.reply import Reply
from codedance_verl.tasks.item import Item

_REQUEST = (
    "Think first, then answer, in this form and without code:\n" + render_think("...") + "\n" + render_answer("...")
)


def asking(item: Item, request: str) -> Item:
    """Item with a request behind its question; graders still read the question alone."""
    return replace(
        item, question=f"{item.question}\n\n{request}", graded_question=item.graded_question or item.question
    )


def direct_item(item: Item) -> Item:
    """Item that asks for an answer without tools, in the form of a demonstration."""
    return asking(item, _REQUEST)


def answer_in_turn(reply: Reply, format: str) -> str | None:
    """Answer of the last turn by its format; None where it states none."""
    return get_format(format).parse(reply.turns[-1].text).answer if reply.turns else None


def said(reply: Reply, format: str) -> str:
    """Answer of the last turn by its format; else the text of the reply behind its thoughts."""
    stated = answer_in_turn(reply, format) or get_format(format).parse(reply.text or "").answer
    return stated or (reply.text or "").rpartition(THINK_END)[2].strip()
