"""Choice of what is asked at an address, by the settings of an evaluation."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from codedance_verl.data.conditions import Control
from codedance_verl.errors import UserError
from codedance_verl.harness.chat_answerer import ChatAnswerer
from codedance_verl.harness.endpoints import chat_settings, connected
from codedance_verl.harness.reply import Answerer, ImageFolder, Reply
from codedance_verl.harness.served_answerer import ServedAnswerer
from codedance_verl.harness.settings import EvalSettings, load
from tests.unit.harness.asked import question
from tests.unit.harness.chat_endpoint import Scripted
from tests.unit.harness.chat_endpoint import running as chatting
from tests.unit.serving.chats import MODEL
from tests.unit.serving.chats import running as serving

SANDBOX = ["sandbox.backend=process", "sandbox.containers=1", "sandbox.standby_containers=0"]


def settings_of(url: str, *overrides: str, model: str = "vlm") -> EvalSettings:
    given = [f"eval.model={model}", "eval.benchmarks=[vstar]", "eval.data=d", f"eval.endpoint={url}"]
    return load([*given, *SANDBOX, *overrides])


async def asked(settings: EvalSettings, folder: Path) -> tuple[type[Answerer], Reply]:
    async with asyncio.timeout(120), connected(settings) as answerer:
        return type(answerer), await answerer.answer(question("please look"), ImageFolder(folder))


def test_a_server_of_this_project_runs_the_loop_itself(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving() as server:
            kind, reply = await asked(settings_of(server.url, "eval.control=grey_observations"), tmp_path)
            assert kind is ServedAnswerer and (reply.served_by, reply.text) == (MODEL, "3 &lt; 4")

    asyncio.run(run())


def test_for_another_server_the_loop_runs_here_unless_it_is_asked_plainly(tmp_path: Path) -> None:
    async def run() -> None:
        endpoint = Scripted(["<answer>7</answer>", "<answer>7</answer>"])
        async with chatting(endpoint) as url:
            kind, reply = await asked(settings_of(url, "eval.seed=4", "serving.response_tokens=99"), tmp_path)
            assert kind is ChatAnswerer and reply.text == "7"
            kind, reply = await asked(settings_of(url, "eval.loop=plain"), tmp_path)
            assert kind is ChatAnswerer and reply.text == "<answer>7</answer>"
        first, second = endpoint.bodies
        assert first["max_tokens"] == 99 and first["messages"][0]["role"] == "system"
        assert (second["seed"], [message["role"] for message in second["messages"]]) == (0, ["user"])

    asyncio.run(run())


def test_turns_and_controls_are_those_of_the_evaluation() -> None:
    url = "http://127.0.0.1:9/v1"
    found = chat_settings(settings_of(url, "eval.max_turns=2", "eval.control=grey_observations", model="/models/vlm"))
    assert (found.model, found.environment.max_turns, found.tools) == ("/models/vlm", 2, True)
    assert found.control is Control.GREY_OBSERVATIONS
    with pytest.raises(UserError, match="control=no_tools: a chat endpoint cannot ban"):
        chat_settings(settings_of(url, "eval.control=no_tools"))
