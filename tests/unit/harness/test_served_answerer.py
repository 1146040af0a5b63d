"""Answers of a running server: HTTP, service and loop are real, turns and executions by script."""

from __future__ import annotations

import asyncio
import copy
import io
import math
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from PIL import Image

from codedance_verl.data.conditions import Control
from codedance_verl.errors import UserError
from codedance_verl.harness.faults import status_of
from codedance_verl.harness.http import Endpoint
from codedance_verl.harness.reply import ImageFolder, Overloaded, Reply, Unanswered
from codedance_verl.harness.sampling import Sampling
from codedance_verl.harness.served_answerer import ServedAnswerer, ServedSettings
from codedance_verl.records.record import Status
from codedance_verl.serving.config import ServingConfig
from codedance_verl.serving.errors import Fault, RequestError
from codedance_verl.types import FinishReason
from tests.unit.environment.harness import tokenizer
from tests.unit.harness.asked import encoded, question
from tests.unit.serving.chats import CALL, MODEL, SHOWN, Running, messages, running


def against(
    test: Callable[[ServedAnswerer, Running], Awaitable[Any]],
    settings: ServedSettings | None = None,
    endpoint: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Runs a test against a server of its own."""

    async def run() -> Any:
        async with running(**options) as server, asyncio.timeout(60):
            address = Endpoint(server.url, **{"pause_s": 0.001, **(endpoint or {})})
            async with ServedAnswerer.opened(address, settings or ServedSettings(), {"KEY": "secret"}) as answerer:
                return await test(answerer, server)

    return asyncio.run(run())


def reply_to(word: str, folder: Path, settings: ServedSettings | None = None, **options: Any) -> Reply:
    found: Reply = against(
        lambda answerer, server: answerer.answer(question(f"please {word}"), ImageFolder(folder)), settings, **options
    )
    return found


def test_a_trajectory_comes_back_with_its_images(tmp_path: Path) -> None:
    reply = reply_to("look", tmp_path)
    assert (reply.text, reply.finish, reply.served_by) == ("3 &lt; 4", FinishReason.ANSWER, MODEL)
    assert reply.calls == 1
    first, second = reply.turns
    assert (first.text, first.code, second.execution) == (f"<think>so</think>\n{CALL('show')}", "show", None)
    assert first.observation == "<tool_response>\nseen\n<image>\n</tool_response>" and first.images_shown == 1
    assert first.execution is not None and first.execution.stdout == "seen\n"
    (image,) = first.execution.images
    assert (image.sha256, image.width, image.height) == (SHOWN.sha256, SHOWN.width, SHOWN.height)
    assert image.file(tmp_path).read_bytes() == SHOWN.png
    assert reply.completion_tokens == sum(turn.tokens or 0 for turn in reply.turns) > 0
    assert (reply.prompt_tokens or 0) > 0 and reply.timing is not None and reply.timing.total_s > 0
    assert Reply.from_json(reply.as_json()) == reply


def test_turn_without_answer_and_limits_come_back_as_they_are(tmp_path: Path) -> None:
    mumbled = reply_to("mumble", tmp_path)
    assert (mumbled.text, mumbled.finish) == ("<think>hm</think> it is a tram", FinishReason.NO_ACTION)
    endless = reply_to("endless", tmp_path, ServedSettings(max_turns=3))
    assert (endless.text, endless.finish, len(endless.turns)) == ("", FinishReason.TURN_LIMIT, 3)
    assert "last turn" in (endless.turns[1].observation or "")


def test_sampling_and_switches_are_asked_for(tmp_path: Path) -> None:
    async def twice(answerer: ServedAnswerer, server: Running) -> Any:
        replies = [
            await answerer.answer(question("please look", sample=sample), ImageFolder(tmp_path)) for sample in (0, 1)
        ]
        return replies, server.engine.params

    settings = ServedSettings(Sampling(0.5, 0.9, 7, 300), Control.GREY_OBSERVATIONS, 4)
    replies, params = against(twice, settings)
    assert {(one["temperature"], one["top_p"]) for one in params} == {(0.5, 0.9)}
    assert params[0]["max_tokens"] == 300
    assert len({one["seed"] for one in params}) == 4, "of each sample, and of each of its turns"
    (image,) = replies[0].turns[0].execution.images
    shown = Image.open(image.file(tmp_path)).convert("RGB")
    assert shown.getcolors() == [(shown.width * shown.height, (128, 128, 128))]


def test_a_system_message_of_the_item_goes_with_it(tmp_path: Path) -> None:
    async def asked(answerer: ServedAnswerer, server: Running) -> str:
        await answerer.answer(question("please look", system="count the circles"), ImageFolder(tmp_path))
        return tokenizer().decode(server.engine.prompts[0])

    assert "count the circles" in against(asked)


def test_files_reach_the_sandbox_as_they_are(tmp_path: Path) -> None:
    files = [encoded(40 + number, 30, kind) for number, kind in enumerate(("PNG", "JPEG", "WEBP", "GIF", "BMP"))]

    async def asked(answerer: ServedAnswerer, server: Running) -> list[bytes]:
        await answerer.answer(question("please look", *files, encoded(30, 40, "TIFF")), ImageFolder(tmp_path))
        return server.pool.images

    *given, converted = against(asked)
    assert given == files
    with Image.open(io.BytesIO(converted)) as image:
        assert (image.format, image.size) == ("PNG", (30, 40))


def test_an_image_that_the_server_refuses_is_unreadable_as_it_is_here(tmp_path: Path) -> None:
    """A file whose head Pillow reads here, and whose pixels the server cannot."""

    async def asked(answerer: ServedAnswerer, server: Running) -> None:
        await answerer.answer(question("please look", encoded(200, 200)[:200]), ImageFolder(tmp_path))

    with pytest.raises(Unanswered) as raised:
        against(asked)
    assert raised.value.status is Status.IMAGE_UNREADABLE and raised.value.reason.startswith("HTTP 400")
    for error in (
        RequestError("no image", code="invalid_image"),
        RequestError("large", code="image_too_large"),
        RequestError("many", code="too_many_images"),
    ):
        assert status_of(error.code, error.fault) is Status.IMAGE_UNREADABLE
    assert status_of("infrastructure", Fault.SANDBOX) is status_of(None, "sandbox") is Status.SANDBOX_FAULT
    assert status_of("infrastructure", Fault.ENGINE) is status_of("", "") is Status.ENDPOINT_FAILURE


def test_what_is_no_image_is_unreadable(tmp_path: Path) -> None:
    async def asked(answerer: ServedAnswerer, server: Running) -> None:
        await answerer.answer(question("please look", b"no image"), ImageFolder(tmp_path))

    with pytest.raises(Unanswered) as raised:
        against(asked)
    assert raised.value.status is Status.IMAGE_UNREADABLE


def test_the_key_of_records_has_the_servers_identity(tmp_path: Path) -> None:
    async def described(answerer: ServedAnswerer, server: Running) -> Any:
        return answerer.describe(), answerer.most_at_once

    plain, at_once = against(described, max_requests=5)
    assert plain["model"]["name"] == MODEL and plain["prompt"]["format"] == "code"
    assert plain["limits"]["environment"]["max_turns"] == 6 and plain["limits"]["response_tokens"] == 1_000
    assert at_once == 5
    limited, _ = against(described, ServedSettings(Sampling(max_tokens=64), max_turns=2))
    assert limited["limits"]["environment"]["max_turns"] == 2 and limited["limits"]["response_tokens"] == 64
    assert limited["model"] == plain["model"] and limited["prompt"] == plain["prompt"]
    own, _ = against(described, ServedSettings(Sampling(temperature=None)))
    assert own["limits"] == {**plain["limits"], "temperature": ServingConfig().temperature}
    with pytest.raises(UserError, match=r"max_turns=9: .* allows 6; start it with environment\.max_turns=9"):
        against(described, ServedSettings(max_turns=9))


def test_a_sandbox_that_dies_is_counted_as_one(tmp_path: Path) -> None:
    with pytest.raises(Unanswered) as raised:
        reply_to("die", tmp_path)
    assert raised.value.status is Status.SANDBOX_FAULT


def test_a_crowded_server_is_overloaded_and_a_refused_request_unanswered(tmp_path: Path) -> None:
    async def crowd(answerer: ServedAnswerer, server: Running) -> None:
        first = asyncio.create_task(answerer.answer(question("please hang"), ImageFolder(tmp_path)))
        while not server.pool.open_sessions:
            await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="too many requests at once"):
            await answerer.answer(question("please look"), ImageFolder(tmp_path))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    against(crowd, max_requests=1)
    with pytest.raises(Unanswered, match="of at most 2000 together") as raised:
        reply_to("a" * 9000, tmp_path)
    assert raised.value.status is Status.ENDPOINT_FAILURE and raised.value.of_item


def test_a_key_is_sent_and_its_lack_is_told() -> None:
    async def named(answerer: ServedAnswerer, server: Running) -> str:
        return str(answerer.describe()["model"]["name"])

    assert against(named, endpoint={"api_key_env": "KEY"}, api_key="secret") == MODEL
    with pytest.raises(UserError, match="set OTHER to its key"):
        against(named, endpoint={"api_key_env": "OTHER"}, api_key="secret")


async def _changed(body: Any, change: Callable[[Any], None]) -> tuple[str, web.AppRunner]:
    """A server that states an identity and gives a changed reply, and its runner."""

    async def reply(request: web.Request) -> web.Response:
        changed = copy.deepcopy(body)
        change(changed)
        return web.json_response(changed)

    async def identity(request: web.Request) -> web.Response:
        limits = {"environment": {"max_turns": 6}, "response_tokens": 10}
        stated = {"model": {"name": "m"}, "prompt": {}, "limits": limits, "capacity": {"max_requests": 1}}
        return web.json_response({**stated, "sampling": {"temperature": 0.0}})

    application = web.Application(client_max_size=1 << 26)
    application.router.add_post("/v1/chat/completions", reply)
    application.router.add_get("/v1/codedance", identity)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}/v1", runner


def _set(path: str, value: Any) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        *way, last = path.split(".")
        for step in way:
            message = message[int(step)] if step.isdigit() else message[step]
        message[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("choices", []),
        ("choices.0.message.codedance", None),
        ("choices.0.message.content", 7),
        ("choices.0.message.images", []),
        ("choices.0.message.images.0.image_url.url", "https://example.org/a.png"),
        ("choices.0.message.images.0.image_url.url", "data:image/png;base64,AAAA"),
        ("choices.0.message.codedance.finish", "bored"),
        ("choices.0.message.codedance.turns.0.execution.status", "fine"),
        ("choices.0.message.codedance.turns.0.execution.images.0.sha256", "../../etc/passwd"),
        ("choices.0.message.codedance.turns.0.execution.images.0.width", 9),
        ("choices.0.message.codedance.timing.total_s", math.nan),
        ("choices.0.message.codedance.timing.observe_s", math.inf),
        ("choices.0.message.codedance.turns.0.tokens", 1 << 70),
        ("choices.0.message.codedance.turns.0.execution.duration_s", math.nan),
        ("choices.0.message.codedance.turns.0.images_shown", -1),
        ("usage.completion_tokens", 1 << 64),
        ("usage.prompt_tokens", "many"),
        ("usage", None),
    ],
)
def test_a_reply_that_is_none_is_a_failure_of_the_endpoint(path: str, value: Any, tmp_path: Path) -> None:
    async def raw(server: Running) -> Any:
        reply = await server.client.chat.completions.create(model=MODEL, messages=messages("look"))
        return reply.model_dump(mode="json")

    async def run() -> Any:
        async with running() as server:
            body = await raw(server)
        url, runner = await _changed(body, _set(path, value))
        try:
            async with ServedAnswerer.opened(Endpoint(url), ServedSettings(), {}) as answerer:
                with pytest.raises(Unanswered) as raised:
                    await answerer.answer(question("please look"), ImageFolder(tmp_path))
                return raised.value
        finally:
            await runner.cleanup()

    fault = asyncio.run(run())
    assert fault.status is Status.ENDPOINT_FAILURE and fault.reason.startswith("the reply is none of")
