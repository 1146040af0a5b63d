"""Verdicts on the samples of one chunk and arm: replies on record are graded once, verdicts are kept beside them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from codedance_verl.data.fields import Source
from codedance_verl.data.rows import CanonicalRow
from codedance_verl.errors import UserError
from codedance_verl.filtering.rule import Arm, Count
from codedance_verl.grading.grader import Grader
from codedance_verl.harness.at_once import said
from codedance_verl.harness.in_order import in_order
from codedance_verl.harness.reply import Reply
from codedance_verl.records.record import Record, Status
from codedance_verl.records.store import Store
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.types import Verdict

_BATCH = 256
"""Replies that are in memory to be graded."""

_FILE = "verdicts.json"

_FORMAT = "code"
"""All formats have its tags of thoughts and answers."""


class Sampled(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a sample.

    Attributes:
        attempt: number of the try.
        right: verdict; None where the reply failed or has none.
        reason: why there is no verdict.
        status: of the record; `answered` unless the reply failed.
        requests: turns of the model.
        calls: cells that ran.
        prompt_tokens, completion_tokens: as the endpoint counts them, 0 where it does not.
    """

    attempt: int
    right: bool | None
    reason: str = ""
    status: Status = Status.ANSWERED
    requests: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Kept(msgspec.Struct, frozen=True):
    grading: str
    samples: dict[str, dict[int, Sampled]]


@dataclass
class Verdicts:
    """Samples of an arm by the id of their row and their number."""

    arm: Arm
    samples: dict[str, dict[int, Sampled]]

    def count(self, row: str, samples: int) -> Count:
        """Right and wrong ones among the first `samples` of a row: an earlier run may have asked for more."""
        found = [sample.right for number, sample in self.samples.get(row, {}).items() if number < samples]
        return Count(found.count(True), found.count(False))

    def of(self, row: str) -> Mapping[int, Sampled]:
        """Samples of a row that were asked, by their number."""
        return self.samples.get(row, {})


@dataclass(frozen=True)
class Grading:
    """Grader with a text that changes when its verdicts may."""

    grader: Grader
    name: str
    at_once: int


def load(folder: Path, arm: Arm, grading: Grading) -> Verdicts:
    """Verdicts that were kept in a folder by the same grading; else none."""
    try:
        kept = msgspec.json.decode((folder / _FILE).read_bytes(), type=_Kept)
    except FileNotFoundError:
        return Verdicts(arm, {})
    except ValueError as error:
        raise UserError(f"{folder / _FILE}: cannot be read ({error}); remove it, the replies are graded anew") from None
    return Verdicts(arm, kept.samples if kept.grading == grading.name else {})


async def grade_new(
    verdicts: Verdicts,
    store: Store,
    folder: Path,
    rows: Mapping[str, CanonicalRow[Source]],
    grading: Grading,
    again: bool = False,
) -> None:
    """Grades the replies that were not graded yet, adds them to `verdicts`, and keeps all in the folder.

    With `again` also those that have no verdict: the judge may be back. Records of rows that are not among `rows` are
    passed over.
    """

    async def one(record: Record) -> Sampled:
        return await _graded(record, rows[_row_of(record)], grading.grader)

    records = (record for record in store.records() if _row_of(record) in rows and _is_new(record, verdicts, again))
    while batch := list(itertools.islice(records, _BATCH)):
        for record, sampled in zip(batch, await in_order(batch, one, grading.at_once), strict=True):
            verdicts.samples.setdefault(_row_of(record), {})[_sample_of(record)] = sampled
    write_atomically(folder / _FILE, msgspec.json.encode(_Kept(grading.name, verdicts.samples)))


def _is_new(record: Record, verdicts: Verdicts, again: bool) -> bool:
    known = verdicts.of(_row_of(record)).get(_sample_of(record))
    return known is None or known.attempt != record.attempt or (again and known.right is None)


async def _graded(record: Record, row: CanonicalRow[Source], grader: Grader) -> Sampled:
    if record.status is not Status.ANSWERED:
        return Sampled(record.attempt, None, f"{record.status}: {record.reason}"[:300], record.status)
    reply = Reply.from_json(record.data)
    # an empty text is a reply without an answer, which is wrong
    own = (said(reply, _FORMAT) or None, row.ground_truth, row.style, row.data_source)
    try:
        grade = await grader.grade(row.question, *own, record.item, row.extra_info)
    except Exception as error:  # a defect of a rule costs this sample alone
        right, reason = None, f"the grader failed ({type(error).__name__}: {error})"[:300]
    else:
        right = {Verdict.CORRECT: True, Verdict.WRONG: False}.get(grade.verdict)
        reason = (grade.evidence or grade.rule) if right is None else ""
    return Sampled(
        attempt=record.attempt,
        right=right,
        reason=reason,
        requests=max(1, len(reply.turns)),
        calls=reply.calls,
        prompt_tokens=reply.prompt_tokens or 0,
        completion_tokens=reply.completion_tokens or 0,
    )


def _row_of(record: Record) -> str:
    return record.item.rpartition("#")[0]


def _sample_of(record: Record) -> int:
    return int(record.item.rpartition("#")[2])
