"""Ways in which one model is asked: a model of this process is started once, an endpoint is connected to twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from codedance_verl.harness import answerers
from codedance_verl.harness.local_answerer import LocalAnswerer
from codedance_verl.harness.reply import Answerer, ImageFolder, Question, Reply
from codedance_verl.harness.settings import EvalSettings, load
from codedance_verl.harness.ways import Ways
from codedance_verl.synthesis.teachers import Numbered, teachers
from tests.unit.harness.asked_items import Scripted, item


def started(settings: EvalSettings, monkeypatch: pytest.MonkeyPatch, direct: bool) -> tuple[Ways, list[str | None]]:
    """Teachers, and the controls of what was started."""
    controls: list[str | None] = []

    @contextlib.asynccontextmanager
    async def start(chosen: EvalSettings, _: Any) -> AsyncIterator[Answerer]:
        controls.append(chosen.evaluation.control)
        local = chosen.evaluation.endpoint is None
        yield LocalAnswerer(cast(Any, None), chosen.evaluation, {}) if local else Scripted(lambda _: Reply(text="1"))

    async def found() -> Ways:
        async with teachers(settings, lambda _: None, direct) as both:
            return both

    monkeypatch.setattr(answerers, "started", start)
    return asyncio.run(found()), controls


def test_a_model_of_this_process_starts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    both, controls = started(load(["eval.model=m", "eval.benchmarks=[q.parquet]"]), monkeypatch, True)
    direct, tools = cast(LocalAnswerer, both.direct.answerer), cast(LocalAnswerer, both.tools.answerer)
    assert controls == [None]
    assert (direct.asked.control, tools.asked.control) == ("no_tools", None)
    assert direct.service is tools.service
    assert both.direct.settings.evaluation.control == "no_tools"


@pytest.mark.parametrize("direct", [True, False])
def test_a_served_model_is_asked_under_a_control(monkeypatch: pytest.MonkeyPatch, direct: bool) -> None:
    settings = load(["eval.model=m", "eval.benchmarks=[q.parquet]", "eval.endpoint=http://127.0.0.1:9/v1"])
    _, controls = started(settings, monkeypatch, direct)
    assert controls == ([None, "no_tools"] if direct else [None])


def test_a_round_is_drawn_by_its_own_seed(tmp_path: Path) -> None:
    model = Scripted(lambda question: Reply(text=str(question.sample)))
    reply = asyncio.run(Numbered(model, 2).answer(Question(item("1"), (), 0), ImageFolder(tmp_path)))
    assert reply.text == "2"
