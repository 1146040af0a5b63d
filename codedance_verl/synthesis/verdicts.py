"""Verdicts on the replies of a round, on record under the bounds and the grader they were made with.

A reply that nothing could decide on, since a judge or the sandbox failed, has no verdict and is checked again by the
next run.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from omegaconf import OmegaConf

import codedance_verl
from codedance_verl.errors import UserError
from codedance_verl.formats import FORMATS
from codedance_verl.grading.grader import Grader
from codedance_verl.harness.at_once import said
from codedance_verl.harness.call_use import Use
from codedance_verl.harness.faithfulness import faithfulness
from codedance_verl.harness.replay_sandbox import replay_sandbox
from codedance_verl.harness.reply import Reply
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.harness.stated_answers import answer_of
from codedance_verl.images import shown_size
from codedance_verl.records.key import Key, Part
from codedance_verl.records.record import Record, Status, plain_id
from codedance_verl.records.store import Store, open_store
from codedance_verl.records.writer import Work, Writer
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.synthesis.checks import CHECKS, Attempt, Stage, answered, well_formed
from codedance_verl.synthesis.kinds import DIRECT, kind_of
from codedance_verl.synthesis.rounds import Questions, Round
from codedance_verl.synthesis.settings import Rules
from codedance_verl.tasks.item import Item
from codedance_verl.types import Grade, Verdict

AT_ONCE = 4
"""Replies that are checked at the same time; the calls of each run again in up to `faithfulness.AT_ONCE` sessions."""

CHECKED_AGAIN = (Status.SANDBOX_FAULT, Status.JUDGE_FAILURE)

VERSION = 1
"""Part of the key: rises when a check changes its meaning."""

_logger = logging.getLogger(__name__)


class Checked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Verdict on a reply.

    Attributes:
        stage: at which it was rejected; empty for one that passed all checks.
        reason: of the rejection.
        right: its answer is right; false too where no check came so far.
        kind: of a trajectory whose code ran, `direct` for an answer without tools.
        boxed: crops were compared with regions.
        uses: of the calls, in order, where they were run again.
    """

    stage: str = ""
    reason: str = ""
    right: bool = False
    kind: str = ""
    boxed: bool = False
    uses: tuple[str, ...] = ()


class Undecided(Exception):
    """Check that a fault outside of the teacher kept from a verdict."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class _Answered:
    """Reply on record with its item, in the form that a store takes."""

    item: Item
    record: Record

    @property
    def id(self) -> str:
        return self.item.id

    @property
    def sha256(self) -> str:
        content = json.dumps([self.item.sha256, self.record.data], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()


async def verdicts(
    questions: Questions,
    which: Round,
    replies: Store,
    settings: EvalSettings,
    grader: Grader,
    tell: Callable[[str], None],
) -> dict[str, Checked]:
    """Verdicts on the replies of a round by id of the item; those on record are not made again.

    Raises:
        UserError: the sandbox does not start, or records cannot be used.
        OSError: a verdict cannot be written.
    """
    rules = questions.synthesis.rules
    key = verdicts_key(replies.key, rules, settings)
    store = await asyncio.to_thread(open_store, _folder(questions, which, key), key)
    # as the round asked them, since the digest on record is that of the question with its request
    items = {plain_id(item): item for item in questions.items(which)}

    def answers() -> Iterator[_Answered]:
        for record in replies.records():
            item = items.get(record.item)
            # a record of a question that has changed since says nothing about it
            if record.status is Status.ANSWERED and item is not None and record.item_sha256 == item.sha256:
                yield _Answered(item, record)

    left = (await asyncio.to_thread(lambda: store.plan(answers(), CHECKED_AGAIN))).left
    if left:
        tell(f"{questions.benchmark.task.name}, {which.name}: checking {left:,} replies")
        format = _format(replies.key, settings)
        if which.direct:
            checker = _Checker(rules, format, grader, settings, None)
            await _check_all(checker, store, answers)
        else:
            given: Any = OmegaConf.to_container(settings.tree.sandbox, resolve=True)
            sandbox = replay_sandbox(given, replies.key, replies.folder)
            async with SandboxPool.local(sandbox) as pool:
                await _check_all(_Checker(rules, format, grader, settings, pool), store, answers)
    return {
        record.item: msgspec.convert(record.data, Checked)
        for record in store.records()
        if record.status is Status.ANSWERED
    }


def verdicts_key(replies: Key, rules: Rules, settings: EvalSettings) -> Key:
    """Key of verdicts: the replies, the checks with their bounds, and the grader."""
    grading = settings.grading.model_dump(mode="json", exclude={"judge", "custom_timeout_s", "custom_processes"})
    judge = settings.grading.judge.model if settings.grading.judge.endpoints else ""
    return Key(
        (
            Part("replies", replies.digest),
            Part("checks", {"version": VERSION, **asdict(rules)}),
            Part("grader", {"version": codedance_verl.__version__, "judge": judge, **grading}),
        )
    )


@dataclass(frozen=True)
class _Checker:
    """What the checks of a round need; `pool` is None for answers without tools."""

    rules: Rules
    format: str
    grader: Grader
    settings: EvalSettings
    pool: SandboxPool | None

    async def check(self, one: _Answered) -> Checked:
        """Verdict on a reply. Raises Undecided."""
        reply = Reply.from_json(one.record.data)
        images = await asyncio.to_thread(lambda: [image.read() for image in one.item.images])
        attempt = Attempt(one.item, reply, self.format, shown_size(images[0]) if images else (0, 0))
        return await (self._direct(attempt) if self.pool is None else self._with_code(attempt, images))

    async def _direct(self, attempt: Attempt) -> Checked:
        """Verdict on an answer without tools: right ones are so in whatever form, which decides on being kept."""
        answer = said(attempt.reply, self.format)
        grade = await self._graded(attempt.item, answer)
        if not grade.correct:
            return Checked(stage=Stage.RIGHT, reason=f"answer {answer!r:.200} ({grade.rule})", kind=DIRECT)
        for stage, check in ((Stage.ANSWERED, answered), (Stage.WELL_FORMED, well_formed)):
            if (reason := check(attempt, self.rules)) is not None:
                return Checked(stage=stage, reason=reason, right=True, kind=DIRECT)
        return Checked(right=True, kind=DIRECT)

    async def _with_code(self, attempt: Attempt, images: list[bytes]) -> Checked:
        found = Checked(boxed=bool(attempt.regions and attempt.crops))
        for stage, check in CHECKS:
            if stage is Stage.RIGHT:
                found = msgspec.structs.replace(found, kind=kind_of(attempt.reply))
                attempt = replace(attempt, grade=await self._graded(attempt.item, attempt.reply.text))
            elif stage is Stage.FAITHFUL:  # last, as it runs every call seven times and more
                attempt = await self._replayed(attempt, images)
                uses = tuple(str(finding.use) for finding in attempt.findings)
                found = msgspec.structs.replace(found, uses=uses)
            # formulas, syntax trees and long texts take their time
            reason = await asyncio.to_thread(check, attempt, self.rules)
            if reason is not None:
                if stage is Stage.FAITHFUL and Use.FAULT in found.uses:
                    raise Undecided(Status.SANDBOX_FAULT, "a call could not be run again")
                return msgspec.structs.replace(found, stage=stage, reason=reason)
            if stage is Stage.RIGHT:
                found = msgspec.structs.replace(found, right=True)
        return found

    async def _graded(self, item: Item, answer: str) -> Grade:
        source, question = item.strata.get("data_source", ""), item.graded_question or item.question
        grade = await self.grader.grade(question, answer or None, item.truth or "", item.style, source, item.id)
        if grade.verdict is Verdict.UNGRADED:
            raise Undecided(Status.JUDGE_FAILURE, f"{grade.rule}: {grade.evidence}"[:300])
        return grade

    async def _replayed(self, attempt: Attempt, images: list[bytes]) -> Attempt:
        assert self.pool is not None, "there is a pool with tools"
        item, reply = attempt.item, attempt.reply
        answer = answer_of(reply.text, item.choices, item.graded_question or item.question)
        findings = await faithfulness(self.pool, images, reply.turns, answer, attempt.regions, self.settings.out)
        return replace(attempt, findings=findings)


async def _check_all(checker: _Checker, store: Store, answers: Callable[[], Iterator[_Answered]]) -> None:
    with store.writer() as writer:
        work, taken = writer.work(answers, CHECKED_AGAIN), asyncio.Lock()

        async def worker() -> None:
            while True:
                async with taken:  # one iterator for all; a look at the files is no work of the event loop
                    one = await asyncio.to_thread(next, work, None)
                if one is None:
                    return
                await _check(checker, writer, one)

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(AT_ONCE):
                    workers.create_task(worker())
        except BaseExceptionGroup as faults:
            raise faults.exceptions[0] from None  # the others met the same


async def _check(checker: _Checker, writer: Writer, work: Work[_Answered]) -> None:
    """Puts the verdict on a reply on record; whatever fails costs this reply alone."""
    status, reason, data = Status.ANSWERED, "", None
    try:
        data = msgspec.to_builtins(await checker.check(work.item))
    except Undecided as fault:
        status, reason = fault.status, fault.reason
    except UserError:  # of the settings or the machine, which every reply would meet
        raise
    except Exception as error:  # a defect of ours, or an image that is gone
        _logger.exception("item %s", work.item.id)
        status, reason = Status.SANDBOX_FAULT, f"{type(error).__name__}: {error}"[:300]
    await asyncio.to_thread(writer.add, work, status, data, reason)


def _folder(questions: Questions, which: Round, key: Key) -> Path:
    folder = questions.folder(which)
    return folder.with_name(f"{folder.name}.checks-{key.digest[:8]}")


def _format(key: Key, settings: EvalSettings) -> str:
    """Turn format of the replies: that of a server or of a trained model, else the one of the settings."""
    stated = next((part.value.get("format") for part in key.parts if part.name == "prompt"), None)
    return stated if stated in FORMATS else str(OmegaConf.select(settings.tree, "environment.format"))
