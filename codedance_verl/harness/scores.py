"""Scores of a benchmark in a run folder: what reports and comparisons need of each item, without the benchmark's files.

`OUT/<task>/` holds the records of replies, and `OUT/scores/<task>.json` the scores of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from codedance_verl.errors import UserError
from codedance_verl.harness.measured import Measured
from codedance_verl.records.key import Json, Key
from codedance_verl.records.record import Status
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.tasks.item import Item, Score
from codedance_verl.tasks.task import Task
from codedance_verl.trajectories.schema import encodable
from codedance_verl.types import FinishReason

FOLDER = "scores"
VERSION = 1
"""Of the files that are written. It rises when a field changes its meaning, not when one is added."""


class SampleScores(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Scores of one reply to an item.

    Attributes:
        sample: number of the reply, from 0.
        status: what came of it; `reason` says why, for a failure.
        official: score by the benchmark's rule; None where it was not asked for, or there is no reply.
        ours: score by the grader of this project, as `official`.
        calls: cells that ran; None without a reply, as all that follows.
        turns: of the model.
        prompt_tokens, completion_tokens: None also where they are not known.
        finish: reason of the trajectory's end; None also from an endpoint that does not say.
    """

    sample: int
    status: Status
    reason: str = ""
    official: Score | None = None
    ours: Score | None = None
    calls: int | None = None
    turns: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish: FinishReason | None = None


class ItemScores(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Scores of an item: of `samples` that were asked. The other fields are those of `tasks.Item`."""

    key: str
    id: str
    cluster: str
    strata: dict[str, str] = {}
    samples: tuple[SampleScores, ...] = ()


class TaskScores(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Scores of a benchmark.

    Attributes:
        task, revision: name and revision of the benchmark.
        expected: items of that revision; `items` has those of the folder that was read.
        key: digest of the key of the replies.
        samples: replies to an item that were asked for.
        rule: official rule, in a sentence.
        judge: what tells the judge apart from another; None where none was asked.
        grader: what tells the grader's settings apart from others.
        items: in the order of the benchmark.
    """

    version: int = VERSION
    task: str
    revision: str
    expected: int
    key: str
    samples: int
    rule: str
    judge: Json = None
    grader: Json = None
    items: tuple[ItemScores, ...]

    def encode(self) -> bytes:
        """JSON; half a surrogate pair in a text becomes `?`."""
        try:
            return msgspec.json.encode(self) + b"\n"
        except UnicodeEncodeError:
            return msgspec.json.encode(encodable(msgspec.to_builtins(self))) + b"\n"

    @classmethod
    def decode(cls, text: bytes) -> TaskScores:
        """Scores of a text. Raises ValueError: it holds none, or those of a newer version."""
        found = msgspec.json.decode(text, type=cls)
        if found.version > VERSION:
            raise ValueError(f"version {found.version} is newer than {VERSION}, which this program reads")
        return found


def scores_of(
    task: Task,
    key: Key,
    measured: Iterable[Measured],
    *,
    items: Iterable[Item] = (),
    judge: Json = None,
    grader: Json = None,
) -> TaskScores:
    """Scores of what was measured.

    Args:
        key: of the replies (`records.existing_store(folder).key`).
        measured: samples of items, each once.
        items: all that are to count, in order; those without a sample count as not asked. Without them the items of
            `measured` are all.
        judge, grader: name, digest of the prompt and settings.

    Raises:
        ValueError: a sample comes twice.
    """
    return TaskScores(
        task=task.name,
        revision=task.revision,
        expected=task.expected,
        key=key.digest,
        samples=key.samples,
        rule=task.rule,
        judge=judge,
        grader=grader,
        items=item_scores(measured, items),
    )


def item_scores(measured: Iterable[Measured], items: Iterable[Item] = ()) -> tuple[ItemScores, ...]:
    """Scores of items, and of those that `measured` has besides. Raises ValueError: a sample comes twice."""
    found: dict[str, Item] = {item.key: item for item in items}
    samples: dict[str, dict[int, SampleScores]] = {name: {} for name in found}
    for one in measured:
        found.setdefault(one.item.key, one.item)
        of_item = samples.setdefault(one.item.key, {})
        if one.sample in of_item:
            raise ValueError(f"sample {one.sample} of item {one.item.key} comes twice")
        of_item[one.sample] = _sample(one)
    return tuple(_item(item, samples[name]) for name, item in found.items())


def scores_path(run: Path, task: str) -> Path:
    """File of a benchmark's scores in a run folder."""
    return run / FOLDER / f"{task}.json"


def write_scores(run: Path, scores: TaskScores) -> Path:
    """Path of the file, written anew. Raises OSError."""
    path = scores_path(run, scores.task)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, scores.encode())
    return path


def scored_tasks(run: Path) -> Sequence[str]:
    """Names of the benchmarks with scores in a run folder, sorted. Raises UserError: there are none."""
    names = sorted(path.stem for path in (run / FOLDER).glob("*.json"))
    if not names:
        raise UserError(f"{run}: no scores; name the output folder of an evaluation that has ended")
    return names


def read_scores(run: Path, task: str) -> TaskScores:
    """Scores of a benchmark in a run folder. Raises UserError: there are none, or the file cannot be read."""
    path = scores_path(run, task)
    try:
        return TaskScores.decode(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: no scores ({error.strerror or error}); run the evaluation to its end") from error
    except ValueError as error:
        raise UserError(f"{path}: no scores of an evaluation ({error}); score the run again") from error


def _item(item: Item, samples: dict[int, SampleScores]) -> ItemScores:
    return ItemScores(
        key=item.key,
        id=item.id,
        cluster=item.cluster or item.id,
        strata=dict(item.strata),
        samples=tuple(samples[number] for number in sorted(samples)),
    )


def _sample(one: Measured) -> SampleScores:
    reply = one.reply
    return SampleScores(
        sample=one.sample,
        status=one.status,
        reason=one.reason,
        official=one.official,
        ours=one.ours,
        calls=None if reply is None else reply.calls,
        turns=None if reply is None else len(reply.turns),
        prompt_tokens=None if reply is None else reply.prompt_tokens,
        completion_tokens=None if reply is None else reply.completion_tokens,
        finish=None if reply is None else reply.finish,
    )
