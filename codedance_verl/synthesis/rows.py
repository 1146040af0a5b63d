"""Rows of a demonstration file from kept replies, and lines on rejected ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from codedance_verl.data.parquet import GroupWriter
from codedance_verl.datasets.image_store import ImageStore, reference
from codedance_verl.datasets.stored import DEMONSTRATION_SCHEMA
from codedance_verl.harness.reply import Reply
from codedance_verl.records.record import Status, plain_id
from codedance_verl.runtime.atomic import replacing
from codedance_verl.synthesis.kinds import kind_to_ask
from codedance_verl.synthesis.solving import RoundResult, Solved
from codedance_verl.synthesis.verdicts import Checked
from codedance_verl.tasks.item import Item
from codedance_verl.types import IMAGE_PLACEHOLDER

IMAGES = "sft_images"
"""Folder of the images of the demonstrations, in that of the synthesis."""

_TEXT_CHARS = 20_000
"""Characters of a rejected trajectory that its line has."""


@dataclass(frozen=True)
class Judged:
    """Reply of a round with its item as the record states it, and the verdict."""

    item: Item
    result: RoundResult
    reply: Reply
    checked: Checked

    @property
    def name(self) -> str:
        """Id of the item as records have it."""
        return plain_id(self.item)

    @property
    def rejected(self) -> bool:
        """True for a reply that failed a check; a wrong answer without tools only makes its question no easy one."""
        return bool(self.checked.stage) and (not self.result.which.direct or self.checked.right)


def judged(solved: Solved) -> Iterator[Judged]:
    """Replies with a verdict, round by round, in the order of the records."""
    items = {plain_id(item): item for item in solved.questions.benchmark.items()}
    for result in solved.rounds:
        for record in result.store.records():
            checked = result.verdicts.get(record.item)
            if record.status is Status.ANSWERED and checked is not None:
                yield Judged(items[record.item], result, Reply.from_json(record.data), checked)


def write_outputs(out: Path, solved: Sequence[Solved], seen: Callable[[Judged], None]) -> int:
    """Writes `sft.parquet` with its images, and `rejections.jsonl`, each whole or not at all; returns the rows.

    Args:
        out: folder of the synthesis.
        solved: results by file; ids of items get the name of the file where there are several.
        seen: called with each reply that has a verdict.

    Raises:
        UserError: the disk does not take it.
        OSError: an image of a record is gone, or the lines cannot be written.
    """
    rows = 0
    with (
        replacing(out / "rejections.jsonl") as partial,
        partial.open("w", encoding="utf-8", errors="replace") as lines,
        GroupWriter(out / "sft.parquet", DEMONSTRATION_SCHEMA) as writer,
    ):
        for one in solved:
            prefix = f"{one.questions.benchmark.task.name}/" if len(solved) > 1 else ""
            for found in judged(one):
                if found.rejected:
                    lines.write(json.dumps(rejection(found, one), ensure_ascii=False) + "\n")
                elif one.kept.get(found.name) == found.result.which.name:
                    row = demonstration(found, out, prefix)
                    # row by row: a trajectory holds texts and paths, and any number of them is to fit
                    writer.add(pa.Table.from_pylist([row], schema=DEMONSTRATION_SCHEMA))
                    rows += 1
                seen(found)
    return rows


def demonstration(found: Judged, out: Path, prefix: str = "") -> dict[str, Any]:
    """Row of `DEMONSTRATION_SCHEMA`: the conversation, without the request for a kind that the teacher got.

    Raises OSError: an image that code returned is gone. UnreadableImage: one of the question is.
    """
    item, reply = found.item, found.reply
    store, file = ImageStore(out / IMAGES), out / "sft.parquet"
    question = {"role": "user", "content": IMAGE_PLACEHOLDER * len(item.images) + item.question}
    messages = [{"role": "system", "content": item.system}] if item.system else []
    messages.append(question)
    images = [store.put(image.read()) for image in item.images]
    for turn in reply.turns:
        messages.append({"role": "assistant", "content": turn.text})
        if turn.observation is not None and turn.execution is not None:
            messages.append({"role": "user", "content": turn.observation})
            # code may have displayed more than the model was shown
            shown = turn.execution.images[: turn.images_shown or 0]
            images += [store.put(image.file(out).read_bytes()) for image in shown]
    direct = found.result.which.direct
    return {
        "messages": messages,
        "images": [reference(image, file) for image in images],
        "record_id": prefix + found.name,
        "kind": found.checked.kind,
        # the record's own stratum; what the teacher solves without tools is easy for it
        "difficulty": item.strata.get("difficulty") or ("easy" if direct else "hard"),
        "style": "direct" if direct else "tools",
    }


def rejection(found: Judged, solved: Solved) -> dict[str, Any]:
    """Line on a rejected reply: stage, reason, and the text of its turns."""
    which, kinds = found.result.which, solved.questions.synthesis.kinds
    asked_for = None if which.direct else kind_to_ask(found.item.id, which.number, kinds)
    return {
        "item": found.name,
        "file": solved.questions.benchmark.task.source,
        "round": which.name,
        "asked_for": asked_for,
        "stage": found.checked.stage,
        "reason": found.checked.reason,
        "question": found.item.question,
        "truth": found.item.truth,
        "answer": found.reply.text,
        "uses": list(found.checked.uses),
        "text": transcript(found.reply)[:_TEXT_CHARS],
    }


def transcript(reply: Reply) -> str:
    """Turns and observations of a reply as one text."""
    parts = [part for turn in reply.turns for part in (turn.text, turn.observation) if part]
    return "\n\n".join(parts)
