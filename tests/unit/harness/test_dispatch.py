"""Dispatch: every item is on record once, whatever fails on the way."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from codedance_verl.harness import dispatch as dispatching
from codedance_verl.harness.concurrency import FIRST
from codedance_verl.harness.dispatch import Dispatch, EndpointDown, ask_all
from codedance_verl.harness.reply import ImageFolder, Overloaded, Question, Reply, Unanswered
from codedance_verl.records.record import Record, Status
from codedance_verl.records.store import Store, open_store
from codedance_verl.tasks.item import Item
from tests.unit.harness.asked_items import Held, Scripted, item, key, png


def ask(folder: Path, items: Sequence[Item], answerer: Scripted, **fields: object) -> list[Record]:
    samples = int(fields.pop("samples", 1))  # type: ignore[call-overload]
    store: Store = open_store(folder, key(samples))
    settings = {"most_at_once": answerer.most_at_once, **fields}
    dispatch = Dispatch(store, lambda: iter(items), answerer, ImageFolder(folder), **settings)  # type: ignore[arg-type]
    asyncio.run(ask_all(dispatch, lambda _: None))
    return list(store.records())


def echo(question: Question) -> Reply:
    return Reply(text=question.item.id)


def test_every_sample_of_every_item_is_asked_once(tmp_path: Path) -> None:
    model = Scripted(echo, wait_s=0.001)
    records = ask(tmp_path, [item(f"i{number}") for number in range(50)], model, samples=2)
    assert Counter((record.item, record.sample) for record in records) == Counter(
        {(f"i{number}", sample): 1 for number in range(50) for sample in range(2)}
    )
    assert all(Reply.from_json(record.data).text == record.item for record in records)
    assert ask(tmp_path, [item(f"i{number}") for number in range(50)], model, samples=2) == records
    assert len(model.asked) == 100


def test_an_image_that_cannot_be_read_is_on_record_and_not_asked(tmp_path: Path) -> None:
    model = Scripted(echo)
    broken = [item("a", b""), item("b", fault="table.parquet, row 4: there is no image x.png"), item("c")]
    records = {record.item: record for record in ask(tmp_path, broken, model)}
    assert [records[name].status for name in "abc"] == [
        Status.IMAGE_UNREADABLE,
        Status.IMAGE_UNREADABLE,
        Status.ANSWERED,
    ]
    assert records["a"].reason == "held, row 3: the image is empty"
    assert records["b"].reason == "table.parquet, row 4: there is no image x.png"
    assert [question.item.id for question in model.asked] == ["c"]


def test_a_refused_question_is_asked_again_and_fewer_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "FIRST_PAUSE_S", 0.001)
    refused: set[str] = set()

    def busy(question: Question) -> Reply:
        if model.running > 3:
            refused.add(question.item.id)
            raise Overloaded("HTTP 429", 0.001)
        return echo(question)

    model = Scripted(busy, wait_s=0.005)
    records = ask(tmp_path, [item(f"i{number}") for number in range(60)], model)
    assert refused
    assert Counter(record.status for record in records) == {Status.ANSWERED: 60}
    assert len(model.asked) < 60 * 2


def test_a_question_that_is_always_refused_is_left_unanswered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "FIRST_PAUSE_S", 0.0001)

    def refuse(question: Question) -> Reply:
        if question.item.id == "b":
            raise Overloaded("HTTP 503")
        return echo(question)

    records = {record.item: record for record in ask(tmp_path, [item("a"), item("b"), item("c")], Scripted(refuse))}
    assert (records["b"].status, records["b"].reason) == (
        Status.ENDPOINT_FAILURE,
        "refused 11 times, the last: HTTP 503",
    )
    assert records["a"].status == records["c"].status == Status.ANSWERED


def test_faults_and_defects_cost_their_item_and_are_asked_again_on_demand(tmp_path: Path) -> None:
    def fail(question: Question) -> Reply:
        match question.item.id:
            case "a":
                raise Unanswered(Status.SANDBOX_FAULT, "its session was lost")
            case "b":
                raise ZeroDivisionError("division by zero")
        return echo(question)

    items = [item("a"), item("b"), item("c")]
    records = {record.item: record for record in ask(tmp_path, items, Scripted(fail))}
    assert (records["a"].status, records["a"].reason) == (Status.SANDBOX_FAULT, "its session was lost")
    assert records["b"].reason == "ZeroDivisionError: division by zero; please report this"
    model = Scripted(echo)
    again = {record.item: record for record in ask(tmp_path, items, model, again=(Status.SANDBOX_FAULT,))}
    assert [question.item.id for question in model.asked] == ["a"]
    assert (again["a"].status, again["a"].attempt, again["b"].status) == (
        Status.ANSWERED,
        1,
        Status.ENDPOINT_FAILURE,
    )


def test_an_endpoint_that_is_down_ends_the_evaluation_and_keeps_what_there_is(tmp_path: Path) -> None:
    def dead(question: Question) -> Reply:
        if question.item.id < "i005":
            return echo(question)
        raise Unanswered(Status.ENDPOINT_FAILURE, "connection refused")

    items = [item(f"i{number:03}") for number in range(200)]
    with pytest.raises(EndpointDown, match="the last: connection refused; what was answered is on record"):
        ask(tmp_path, items, Scripted(dead, most_at_once=2))
    records = list(open_store(tmp_path, key()).records())
    assert sum(record.status is Status.ANSWERED for record in records) == 5
    assert len(records) < 60


def test_refusals_that_lie_in_the_questions_do_not_end_the_evaluation(tmp_path: Path) -> None:
    def too_long(_: Question) -> Reply:
        raise Unanswered(Status.ENDPOINT_FAILURE, "HTTP 400: the prompt is too long", of_item=True)

    records = ask(tmp_path, [item(f"i{number}") for number in range(100)], Scripted(too_long))
    assert Counter(record.status for record in records) == {Status.ENDPOINT_FAILURE: 100}


def test_a_dead_sandbox_ends_it_under_its_own_name(tmp_path: Path) -> None:
    def lost(_: Question) -> Reply:
        raise Unanswered(Status.SANDBOX_FAULT, "no interpreter is left")

    with pytest.raises(EndpointDown, match=r"32 faults of the sandbox in a row, the last: no interpreter is left"):
        ask(tmp_path, [item(f"i{number:03}") for number in range(100)], Scripted(lost, most_at_once=2))


def test_an_image_whose_reading_fails_in_any_way_costs_its_item(tmp_path: Path) -> None:
    class Odd:
        where = "odd"

        def fault(self) -> str:
            return ""

        def read(self) -> bytes:
            raise SyntaxError("broken PNG file")

    broken = replace(item("a"), images=(Odd(),))
    records = {record.item: record for record in ask(tmp_path, [broken, item("b")], Scripted(echo))}
    assert (records["a"].status, records["a"].reason) == (Status.IMAGE_UNREADABLE, "SyntaxError: broken PNG file")
    assert records["b"].status == Status.ANSWERED


def test_no_more_questions_are_taken_than_there_are_places(tmp_path: Path) -> None:
    read: list[str] = []

    class Counted(Held):
        def read(self) -> bytes:
            read.append(self.where)
            return super().read()

    def noted(question: Question) -> Reply:
        ahead.append(len(read))
        return echo(question)

    ahead: list[int] = []
    items = [replace(item(f"i{n}"), images=(Counted(png(), f"i{n}"),)) for n in range(60)]
    ask(tmp_path, items, Scripted(noted, most_at_once=256, wait_s=0.3))
    assert ahead[0] <= dispatching.READ_AHEAD + FIRST + 2


def test_replies_that_show_the_same_image_keep_it_at_the_same_time(tmp_path: Path) -> None:
    folder, data = ImageFolder(tmp_path), png(300, 200)
    with ThreadPoolExecutor(16) as threads:
        found = set(threads.map(folder.keep, [data] * 200))
    assert len(found) == 1
    assert [path.name for path in (tmp_path / "images").iterdir()] == [f"{found.pop().sha256}.png"]


def test_a_blank_image_has_the_size_of_the_one_it_stands_for(tmp_path: Path) -> None:
    model = Scripted(echo)
    ask(tmp_path, [item("a")], model, blank=True)
    with Image.open(io.BytesIO(model.asked[0].images[0])) as blank:
        assert (blank.size, blank.getcolors()) == ((8, 6), [(48, (128, 128, 128))])
