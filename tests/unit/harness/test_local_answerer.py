"""Answers of a service in this process: service and loop are real, turns and executions by script."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from codedance_verl.harness.config import EvalConfig
from codedance_verl.harness.local_answerer import LocalAnswerer
from codedance_verl.harness.reply import ImageFolder, Unanswered
from codedance_verl.records.record import Status
from tests.unit.harness.asked import encoded, question
from tests.unit.serving.chats import MODEL, SHOWN, ScriptedEngine, ScriptedPool, service_of


def answerer_of(engine: ScriptedEngine, **asked: Any) -> LocalAnswerer:
    service = service_of(engine, ScriptedPool(), {}, temperature=0.25)
    return LocalAnswerer(service, EvalConfig.from_mapping(asked), {})


def test_a_trajectory_is_as_the_server_has_it(tmp_path: Path) -> None:
    asked = answerer_of(ScriptedEngine()).answer(question("please look"), ImageFolder(tmp_path))
    reply = asyncio.run(asked)
    assert (reply.text, reply.served_by, reply.calls) == ("3 &lt; 4", MODEL, 1)
    execution = reply.turns[0].execution
    assert execution is not None and execution.images[0].file(tmp_path).read_bytes() == SHOWN.png


@pytest.mark.parametrize(
    ("asked", "sampled"),
    [
        ({"temperature": 0.5, "top_p": 0.9, "seed": 4}, {"temperature": 0.5, "top_p": 0.9, "seeded": True}),
        ({"temperature": None, "top_p": None, "seed": None}, {"temperature": 0.25, "top_p": 1.0, "seeded": False}),
    ],
)
def test_null_leaves_sampling_to_the_service(asked: dict[str, Any], sampled: dict[str, Any], tmp_path: Path) -> None:
    engine = ScriptedEngine()
    asyncio.run(answerer_of(engine, **asked).answer(question("please glance"), ImageFolder(tmp_path)))
    (params,) = engine.params
    found = {"temperature": params["temperature"], "top_p": params["top_p"], "seeded": params.get("seed") is not None}
    assert found == sampled


@pytest.mark.parametrize(
    ("file", "text", "status", "of_item"),
    [
        (encoded(200, 200)[:200], "look", Status.IMAGE_UNREADABLE, True),
        (encoded(), "a" * 9_000, Status.ENDPOINT_FAILURE, True),
        (encoded(), "die", Status.SANDBOX_FAULT, False),
    ],
)
def test_faults_are_told_apart(file: bytes, text: str, status: Status, of_item: bool, tmp_path: Path) -> None:
    asked = answerer_of(ScriptedEngine()).answer(question(f"please {text}", file), ImageFolder(tmp_path))
    with pytest.raises(Unanswered) as raised:
        asyncio.run(asked)
    assert (raised.value.status, raised.value.of_item) == (status, of_item)
