"""Dispatch of a benchmark's items to a model: images read ahead, as many at once as it takes, records as they come."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from codedance_verl.errors import UserError
from codedance_verl.harness.blank import blank_like
from codedance_verl.harness.concurrency import AdaptiveLimit
from codedance_verl.harness.reply import Answerer, ImageFolder, Overloaded, Question, Reply, Unanswered
from codedance_verl.records.record import Status
from codedance_verl.records.store import Store
from codedance_verl.records.writer import Work, Writer
from codedance_verl.tasks.item import Item, UnreadableImage

logger = logging.getLogger(__name__)

READ_AHEAD = 16
"""Questions whose images are read before a place is free."""

REFUSALS = 10
"""Refusals in a row after which a question is left unanswered."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Pause after a refusal that names none; it doubles with each."""

FAILURES_IN_A_ROW = 32
"""Failures of the endpoint, or of the sandbox, without an answer between them, after which the evaluation ends."""

_DOWN = {
    Status.ENDPOINT_FAILURE: "failures of the model or its endpoint",
    Status.SANDBOX_FAULT: "faults of the sandbox",
}


@dataclass(frozen=True)
class Dispatch:
    """What is asked, of whom, and where it is kept.

    Attributes:
        store: records of the benchmark under their key.
        items: makes an iterator over the items.
        answerer: the model.
        images: images that code returned.
        most_at_once: questions at once, at most.
        again: failures on record that are asked again.
        blank: whether the images of questions are replaced by grey ones.
    """

    store: Store
    items: Callable[[], Iterable[Item]]
    answerer: Answerer
    images: ImageFolder
    most_at_once: int
    again: Collection[Status] = ()
    blank: bool = False


class EndpointDown(UserError):
    """End of an evaluation whose endpoint fails all the time. What is on record stays."""


async def ask_all(dispatch: Dispatch, told: Callable[[Writer], None]) -> None:
    """Asks what is left, and waits for items that other processes have; `told` is called after each record.

    Raises:
        EndpointDown: `FAILURES_IN_A_ROW`.
        ChangedKey, OSError: as `Writer.work`, `Writer.add`.
    """
    with dispatch.store.writer() as writer:
        # bounded, as the images of a benchmark need not fit into memory
        questions: asyncio.Queue[_Read | None] = asyncio.Queue(READ_AHEAD)
        run = _Run(dispatch, writer, questions, told)
        try:
            # the workers inside: the reader is stopped only when none of them waits for it
            async with _reader(dispatch, writer, questions) as read, asyncio.TaskGroup() as workers:
                for _ in range(dispatch.most_at_once):
                    workers.create_task(run.work())
        except BaseExceptionGroup as faults:
            raise faults.exceptions[0] from None  # the others are of workers that met the same
        await asyncio.wrap_future(read)  # a fault of the reader ended the queue as the last item does


@dataclass(frozen=True)
class _Read:
    """Sample of an item with its images, or the fault for which it cannot be asked."""

    work: Work[Item]
    images: tuple[bytes, ...] = ()
    fault: str = ""


class _Run:
    """Workers of one dispatch, which share the limit and the counts of failures."""

    def __init__(
        self,
        dispatch: Dispatch,
        writer: Writer,
        questions: asyncio.Queue[_Read | None],
        told: Callable[[Writer], None],
    ) -> None:
        self._dispatch, self._writer, self._questions, self._told = dispatch, writer, questions, told
        self._limit = AdaptiveLimit(dispatch.most_at_once)
        self._failed: Counter[Status] = Counter()

    async def work(self) -> None:
        """Takes questions until there are no more; each once there is a place for it, so that few wait in memory."""
        while True:
            async with self._limit.place() as sent_in:
                if (read := await self._questions.get()) is None:
                    self._questions.put_nowait(None)  # for the next worker
                    return
                await self._record(read, sent_in)

    async def _record(self, read: _Read, sent_in: int) -> None:
        if read.fault:
            await self._add(read.work, Status.IMAGE_UNREADABLE, reason=read.fault)
            return
        try:
            reply = await self._answered(Question(read.work.item, read.images, read.work.sample), sent_in)
        except Unanswered as fault:
            # on record before the count may end the evaluation
            await self._add(read.work, fault.status, reason=fault.reason)
            self._count(fault)
            return
        self._failed.clear()  # one answer shows that endpoint and sandbox work
        await self._add(read.work, Status.ANSWERED, reply)

    def _count(self, fault: Unanswered) -> None:
        """Counts a failure. Raises EndpointDown: there were too many in a row."""
        if fault.of_item or fault.status not in _DOWN:
            return
        self._failed[fault.status] += 1
        if self._failed[fault.status] >= FAILURES_IN_A_ROW:
            raise EndpointDown(
                f"{self._failed[fault.status]} {_DOWN[fault.status]} in a row, the last: {fault.reason}; what was "
                "answered is on record, run the same command again once it works"
            ) from None

    async def _answered(self, question: Question, sent_in: int) -> Reply:
        try:
            return await self._answer(question, sent_in)
        except (Unanswered, UserError):
            raise
        except Exception as error:  # a defect of ours: it costs this item alone
            logger.exception("item %s", question.item.id)
            reason = f"{type(error).__name__}: {error}; please report this"
            raise Unanswered(Status.ENDPOINT_FAILURE, reason, of_item=True) from error

    async def _answer(self, question: Question, sent_in: int) -> Reply:
        """Reply, asked for again after refusals; the place is kept meanwhile, so that fewer are asked."""
        pause_s = FIRST_PAUSE_S
        for _ in range(REFUSALS):
            try:
                return await self._asked(question, sent_in)
            except Overloaded as refusal:
                # an endpoint that names no pause, or a short one, is left alone longer each time
                await asyncio.sleep(min(LONGEST_PAUSE_S, max(refusal.retry_after_s or 0.0, pause_s)))
            pause_s *= 2
        try:
            return await self._asked(question, sent_in)
        except Overloaded as refusal:
            reason = f"refused {REFUSALS + 1} times, the last: {refusal.reason}"
            raise Unanswered(Status.ENDPOINT_FAILURE, reason) from None

    async def _asked(self, question: Question, sent_in: int) -> Reply:
        try:
            reply = await self._dispatch.answerer.answer(question, self._dispatch.images)
        except Overloaded:
            self._limit.refused(sent_in)
            raise
        await self._limit.answered()
        return reply

    async def _add(self, work: Work[Item], status: Status, reply: Reply | None = None, reason: str = "") -> None:
        data = None if reply is None else reply.as_json()
        await asyncio.to_thread(self._writer.add, work, status, data, reason)
        self._told(self._writer)


@contextlib.asynccontextmanager
async def _reader(
    dispatch: Dispatch, writer: Writer, questions: asyncio.Queue[_Read | None]
) -> AsyncIterator[Future[None]]:
    """Runs the thread that claims items and reads their images; it ends with the block. Gives its future."""
    loop, stopped = asyncio.get_running_loop(), threading.Event()
    done: Future[None] = Future()

    def put(read: _Read | None) -> bool:
        if stopped.is_set():
            return False
        sent = asyncio.run_coroutine_threadsafe(questions.put(read), loop)
        while not stopped.is_set():
            with contextlib.suppress(TimeoutError):
                sent.result(0.2)  # in short waits: with the workers gone a full queue never gets a place
                return True
        sent.cancel()
        return False

    def read() -> None:
        try:
            for work in writer.work(dispatch.items, dispatch.again):
                if stopped.is_set() or not put(_read(work, dispatch.blank)):
                    break
        except BaseException as error:  # a thread has no caller: `ask_all` takes it from the future
            done.set_exception(error)
        else:
            done.set_result(None)
        finally:
            put(None)  # after a fault too, or the workers would wait for ever

    thread = threading.Thread(target=read, name="items", daemon=True)
    thread.start()
    try:
        yield done
    finally:
        stopped.set()  # not joined: it may be asleep, waiting for items of other processes


def _read(work: Work[Item], blank: bool) -> _Read:
    item = work.item
    if item.fault:
        return _Read(work, fault=item.fault)
    try:
        images = tuple(image.read() for image in item.images)
        return _Read(work, tuple(map(blank_like, images)) if blank else images)
    except UnreadableImage as fault:
        return _Read(work, fault=str(fault))
    except Exception as error:  # decoders raise almost anything for broken files
        return _Read(work, fault=f"{type(error).__name__}: {error}")
