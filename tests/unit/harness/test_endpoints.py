"""Choice of what is asked at an address, by the settings of an evaluation."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from codedance_verl.data.conditions import Control
from codedance_verl.errors import UserError
from codedance_verl.harness import endpoints
from codedance_verl.harness.chat_answerer import ChatAnswerer
from codedance_verl.harness.endpoints import chat_settings, connected
from codedance_verl.harness.http import Endpoint
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


async def asked(settings: EvalSettings, folder: Path, told: list[str] | None = None) -> tuple[type[Answerer], Reply]:
    tell = (told if told is not None else []).append
    async with asyncio.timeout(120), connected(settings, tell) as answerer:
        return type(answerer), await answerer.answer(question("please look"), ImageFolder(folder))


def test_a_server_of_this_project_runs_the_loop_itself(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving() as server:
            chosen, told = settings_of(server.url, "eval.control=grey_observations", model=MODEL), list[str]()
            kind, reply = await asked(chosen, tmp_path, told)
            assert kind is ServedAnswerer and (reply.served_by, reply.text) == (MODEL, "3 &lt; 4")
            assert told == [f"{server.url}: `codedance serve` with {MODEL}, whose loop it is"]
            with pytest.raises(UserError, match=rf"^eval\.model=other: {server.url} serves {MODEL}; give this name"):
                await asked(settings_of(server.url, model="other"), tmp_path)
            with pytest.raises(UserError, match=r"^eval\.model_revision=b: .* states its weights itself; leave it out"):
                await asked(settings_of(server.url, "eval.model_revision=b", model=MODEL), tmp_path)
            with pytest.raises(
                UserError, match=r"^serving\.settings_of: .* has settings of its own; start it with this"
            ):
                await asked(settings_of(server.url, "serving.settings_of=r", model=MODEL), tmp_path)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        (web.Response(text="<html>Welcome</html>", content_type="text/html"), "the reply is no JSON: <html>Welcome"),
        (web.Response(status=502, text="bad gateway"), "HTTP 502: bad gateway"),
        (web.Response(status=503, text="later"), "HTTP 503: later"),
        (web.json_response({"model": {"name": "vlm"}, "limits": {}}), "states no model and limits"),
        (web.json_response({"object": "list"}), "states no model and limits"),
    ],
)
def test_an_endpoint_that_does_not_say_what_it_is_gets_no_question(
    identity: web.Response, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "Endpoint", functools.partial(Endpoint, pause_s=0.001))

    async def run() -> None:
        endpoint = Scripted(["<answer>7</answer>"], identity=identity)
        async with chatting(endpoint) as url:
            with pytest.raises(UserError, match=f"{reason}.*eval.loop=chat runs the loop here"):
                await asked(settings_of(url), tmp_path)
            assert not endpoint.bodies
            kind, _ = await asked(settings_of(url, "eval.loop=chat"), tmp_path)
            assert kind is ChatAnswerer

    asyncio.run(run())


def test_null_sends_no_field_and_an_empty_name_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEDANCE_API_KEY", "sk-secret")
    nulls = ("eval.temperature=null", "eval.top_p=null", "eval.seed=null")

    async def run() -> None:
        endpoint = Scripted(["7", "7"])
        async with chatting(endpoint) as url:
            plain = settings_of(url, "eval.loop=plain", "eval.api_key_env=''", *nulls)
            await asked(plain, tmp_path)
            await asked(settings_of(url, "eval.loop=plain"), tmp_path)
        fields = [{"temperature", "top_p", "seed"} & set(body) for body in endpoint.bodies]
        assert fields == [set(), {"temperature", "top_p", "seed"}]
        assert endpoint.keys == [None, "Bearer sk-secret"]

    asyncio.run(run())


def test_a_revision_stands_in_the_key_of_a_chat_endpoint_alone() -> None:
    url = "http://127.0.0.1:9/v1"
    assert chat_settings(settings_of(url, "eval.model_revision=2026-11")).revision == "2026-11"
    with pytest.raises(UserError, match=r"eval\.model_revision: for a chat endpoint alone"):
        load(["eval.model=m", "eval.benchmarks=[vstar]", "eval.data=d", "eval.model_revision=b"])


def test_for_another_server_the_loop_runs_here_unless_it_is_asked_plainly(tmp_path: Path) -> None:
    async def run() -> None:
        endpoint = Scripted(["<answer>7</answer>", "<answer>7</answer>"])
        async with chatting(endpoint) as url:
            told: list[str] = []
            kind, reply = await asked(settings_of(url, "eval.seed=4", "serving.response_tokens=99"), tmp_path, told)
            assert kind is ChatAnswerer and reply.text == "7"
            kind, reply = await asked(settings_of(url, "eval.loop=plain"), tmp_path, told)
            assert kind is ChatAnswerer and reply.text == "<answer>7</answer>"
            assert [("the loop runs here" in line, "asked once" in line) for line in told] == [
                (True, False),
                (False, True),
            ]
        first, second = endpoint.bodies
        assert first["max_tokens"] == 99 and first["messages"][0]["role"] == "system"
        assert (second["seed"], [message["role"] for message in second["messages"]]) == (0, ["user"])

    asyncio.run(run())


def test_the_loop_here_takes_the_settings_of_a_run(tmp_path: Path) -> None:
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    trained = {"environment": {"add_system_prompt": False}, "data": {"max_response_length": 77}}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(trained))

    async def run() -> None:
        endpoint = Scripted(["<answer>7</answer>"])
        async with chatting(endpoint) as url:
            await asked(settings_of(url, f"serving.settings_of={tmp_path / 'run'}"), tmp_path)
        (body,) = endpoint.bodies
        assert (body["max_tokens"], [message["role"] for message in body["messages"]]) == (77, ["user"])

    asyncio.run(run())


def test_turns_and_controls_are_those_of_the_evaluation() -> None:
    url = "http://127.0.0.1:9/v1"
    found = chat_settings(settings_of(url, "eval.max_turns=2", "eval.control=grey_observations", model="/models/vlm"))
    assert (found.model, found.environment.max_turns, found.tools) == ("/models/vlm", 2, True)
    assert found.control is Control.GREY_OBSERVATIONS
    with pytest.raises(UserError, match="control=no_tools: a chat endpoint cannot ban"):
        chat_settings(settings_of(url, "eval.control=no_tools"))
