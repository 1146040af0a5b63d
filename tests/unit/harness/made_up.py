"""Scores and replies that were made up, for tests of what is made of them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from codedance_verl.harness.call_use import Signs, Use
from codedance_verl.harness.faithfulness import CallFinding
from codedance_verl.harness.measured import Measured
from codedance_verl.harness.reply import ImageFolder, Reply
from codedance_verl.harness.reply_findings import FOLDER, ReplyFindings, write_summary
from codedance_verl.harness.report_build import ScoredBenchmark
from codedance_verl.harness.scores import scores_of
from codedance_verl.records.key import Key, replies_key
from codedance_verl.records.record import Status
from codedance_verl.tasks.item import Item, Score
from codedance_verl.tasks.registry import task_of
from codedance_verl.trajectories.schema import ExecutionRecord, ImageRef, TurnRecord
from codedance_verl.types import ExecutionStatus, FinishReason


@dataclass(frozen=True)
class Picture:
    """Image in memory."""

    png: bytes
    where: str = "made up"

    def fault(self) -> str:
        return ""

    def read(self) -> bytes:
        return self.png


def png(width: int = 8, height: int = 8, colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def items(number: int, task: str = "vstar", in_cluster: int = 1) -> list[Item]:
    return [
        Item(
            id=str(index),
            question=f"Question {index}?\n(A) red\n(B) blue",
            images=(Picture(png()),),
            truth="A",
            choices=("red", "blue"),
            task=task,
            revision=task_of(task).revision,
            cluster=str(index // in_cluster),
            strata={"category": "direct_attributes" if index % 2 else "relative_position"},
        )
        for index in range(number)
    ]


def reply(text: str = "A", calls: int = 0, images: Sequence[ImageRef] = (), code: str | None = None) -> Reply:
    """Reply after so many calls, with an answer turn behind them."""
    ran = ExecutionRecord(ExecutionStatus.OK, "12\n", None, tuple(images), 0.1, 0.0, ())
    written = code or "image = input_images[0].crop((0, 0, 4, 4))\ndisplay(image)"
    turns = [
        TurnRecord(f"Looking.\n<code>\n```python\n{written}\n```\n</code>", written, "12", ran, 30, len(images))
        for _ in range(calls)
    ]
    turns.append(TurnRecord(f"<answer>{text}</answer>", None, None, None, 12))
    return Reply(text=text, finish=FinishReason.ANSWER, turns=tuple(turns), completion_tokens=12 + 30 * calls)


def measured(item: Item, right: float | None, found: Reply | None = None, sample: int = 0) -> Measured:
    """Answered sample with one verdict of both ways of scoring; None for no verdict."""
    score = Score(right, "made_up", "A", "" if right is not None else "no truth")
    return Measured(item, sample, Status.ANSWERED, reply=found or reply(), official=score, ours=score)


def failed(item: Item, status: Status = Status.ENDPOINT_FAILURE, reason: str = "503") -> Measured:
    return Measured(item, 0, status, reason)


def key(task: str = "vstar", control: str = "", max_turns: int = 10, model: str = "tiny", samples: int = 1) -> Key:
    return replies_key(
        task=task,
        revision=task_of(task).revision,
        model={"name": model, "weights": "abc"},
        prompt={"format": "code", "system_prompt": "1234"},
        sampling={"temperature": 0.0},
        limits={"environment": {"max_turns": max_turns}},
        control=control,
        samples=samples,
    )


def benchmark(
    found: Sequence[Measured], asked: Sequence[Item], task: str = "vstar", of: Key | None = None
) -> ScoredBenchmark:
    chosen = of or key(task)
    return ScoredBenchmark(task_of(task), chosen, scores_of(task_of(task), chosen, found, items=asked), tuple(found))


def every(asked: Sequence[Item], right: Callable[[int], float], calls: Callable[[int], int]) -> list[Measured]:
    return [measured(item, right(index), reply(calls=calls(index))) for index, item in enumerate(asked)]


def kept(folder: Path, image: bytes) -> ImageRef:
    """Image in the output folder of a run."""
    return ImageFolder(folder).keep(image)


def missing() -> ImageRef:
    return ImageRef(hashlib.sha256(b"gone").hexdigest(), 8, 8)


def ran_again(out: Path, of: Key, uses: Sequence[Sequence[Use]]) -> None:
    """Findings on disk, a reply for each row of uses; a row without any is a fault."""
    (out / FOLDER).mkdir(parents=True)
    found = [
        ReplyFindings(
            of=str(number),
            item=str(number),
            sample=0,
            calls=tuple(CallFinding(turn, use, Signs(), box_source="code") for turn, use in enumerate(row)),
            fault="" if row else "<b>unreadable</b>",
        )
        for number, row in enumerate(uses)
    ]
    write_summary(out, "vstar", of, 40, found)
