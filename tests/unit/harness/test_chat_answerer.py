"""Loop over a chat endpoint: a scripted endpoint over real HTTP, real interpreters of the process backend."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from PIL import Image

from codedance_verl.data.conditions import Control
from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.environment.system_prompt import instructions
from codedance_verl.errors import UserError
from codedance_verl.formats import get_format
from codedance_verl.harness import chat_answerer
from codedance_verl.harness.chat_answerer import ChatAnswerer, ChatSettings
from codedance_verl.harness.http import Endpoint, Transport
from codedance_verl.harness.reply import ImageFolder, Overloaded, Reply, Unanswered
from codedance_verl.harness.sampling import Sampling
from codedance_verl.records.record import Status
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.pool import SandboxPool
from codedance_verl.types import ExecutionStatus, FinishReason
from tests.unit.harness.asked import encoded, question
from tests.unit.harness.chat_endpoint import Scripted, completion, refusal, running

FORMAT = get_format("code")
CALL = FORMAT.render_call
SANDBOX = SandboxConfig(backend="process", containers=1, standby_containers=0, cell_timeout_s=20)
KEY = "sk-verysecret"


def settings_of(tools: bool = True, control: Control | None = None, **given: Any) -> ChatSettings:
    names = set(Sampling.__dataclass_fields__)
    sampling = Sampling(**{name: value for name, value in given.items() if name in names})
    environment = {name: value for name, value in given.items() if name not in names}
    return ChatSettings("vlm", sampling, EnvironmentConfig.from_mapping(environment), tools, control)


@dataclass(frozen=True)
class Asking:
    """Event loop of these tests, with interpreters that all of them share."""

    runner: asyncio.Runner
    pool: SandboxPool

    def __call__(
        self,
        folder: Path,
        endpoint: Scripted,
        settings: ChatSettings | None = None,
        files: Sequence[bytes] = (),
        sample: int = 0,
        system: str = "",
    ) -> Reply:
        """Reply to a question about a 40 x 30 image, or about `files`."""

        async def run() -> Reply:
            async with running(endpoint) as url, asyncio.timeout(120):
                address = Endpoint(url, "A_KEY", tries=2, pause_s=0.001)
                async with Transport.opened(address, {"A_KEY": KEY}) as transport:
                    answerer = ChatAnswerer(transport, settings or settings_of(), SANDBOX, self.pool)
                    asked = question("How many?", *files, sample=sample, system=system)
                    return await answerer.answer(asked, ImageFolder(folder))

        return self.runner.run(run())


@pytest.fixture(scope="module")
def ask() -> Iterator[Asking]:
    with asyncio.Runner() as runner:
        local = SandboxPool.local(SANDBOX)
        pool = runner.run(local.__aenter__())  # type: ignore[arg-type]
        yield Asking(runner, pool)
        runner.run(local.__aexit__(None, None, None))  # type: ignore[arg-type]


def images_of(message: Mapping[str, Any]) -> list[Image.Image]:
    urls = [part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"]
    return [Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))) for url in urls]


def text_of(message: Mapping[str, Any]) -> str:
    return "".join(part.get("text", "") for part in message["content"])


def test_code_runs_here_and_its_output_goes_back(ask: Asking, tmp_path: Path) -> None:
    crop = CALL("print(input_image.size)\ninput_image.crop((0, 0, 20, 10)).show()\ninput_image.crop((0, 0, 9, 9))")
    later = CALL("print(input_image.size[0] + 1)")
    endpoint = Scripted([f"<think>closer</think>\n{crop}", later, "<think>so</think><answer> 7 </answer>"])
    reply = ask(tmp_path, endpoint, settings_of(seed=3, max_tokens=100, temperature=0.5, top_p=0.9))
    assert (reply.text, reply.finish, reply.served_by) == ("7", FinishReason.ANSWER, "vlm-2026")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.calls) == (11, 15, 2)
    first, second, third = reply.turns
    assert first.execution is not None and first.execution.status is ExecutionStatus.OK
    assert first.execution.stdout == "(40, 30)\n" and first.images_shown == len(first.execution.images) > 0
    assert all(image.file(tmp_path).is_file() for image in first.execution.images)
    assert second.execution is not None and second.execution.stdout == "41\n"
    assert (third.code, third.execution, third.observation) == (None, None, None)
    assert reply.timing is not None and reply.timing.execute_s > 0
    assert Reply.from_json(reply.as_json()) == reply

    asked = endpoint.bodies
    assert asked[0]["messages"][0] == {"role": "system", "content": instructions(FORMAT)}
    assert [image.size for image in images_of(asked[0]["messages"][1])] == [(40, 30)]
    assert text_of(asked[0]["messages"][1]) == "How many?"
    assert asked[1]["messages"][2] == {"role": "assistant", "content": first.text}
    fed_back = asked[1]["messages"][3]
    assert fed_back["role"] == "user" and len(images_of(fed_back)) == first.images_shown
    assert "(40, 30)" in text_of(fed_back) and text_of(fed_back).startswith("<tool_response>")
    assert [body["max_tokens"] for body in asked] == [100, 95, 90]
    assert {(body["model"], body["temperature"], body["top_p"]) for body in asked} == {("vlm", 0.5, 0.9)}
    assert len({body["seed"] for body in asked}) == 3 and all(0 <= body["seed"] < 2**31 for body in asked)
    assert endpoint.keys == [f"Bearer {KEY}"] * 3


def test_turns_and_images_are_limited_as_in_the_environment(ask: Asking, tmp_path: Path) -> None:
    show = CALL("for _ in range(3):\n    input_image.resize((400, 300)).show()\nprint('x' * 900)")
    endpoint = Scripted([show, show, show])
    limits = {"max_turns": 3, "max_images": 3, "max_image_pixels": 56 * 56, "max_observation_chars": 200}
    reply = ask(tmp_path, endpoint, settings_of(**limits), [encoded(800, 600)])
    assert (reply.text, reply.finish) == ("", FinishReason.TURN_LIMIT)
    assert [turn.images_shown for turn in reply.turns] == [2, 0, None]
    assert reply.turns[2].execution is None, "code of the last turn is not run"
    assert "characters left out" in (reply.turns[0].observation or "")
    assert ["last turn" in (turn.observation or "") for turn in reply.turns] == [False, True, False]
    sent = [image for message in endpoint.bodies[1]["messages"][1:] for image in images_of_any(message)]
    assert len(sent) == 3 and all(image.width * image.height <= 56 * 56 for image in sent)
    assert reply.turns[0].execution is not None and reply.turns[0].execution.images[0].width == 400, "kept whole"


def images_of_any(message: Mapping[str, Any]) -> list[Image.Image]:
    return images_of(message) if isinstance(message["content"], list) else []


def test_a_call_that_cannot_be_read_is_refused_and_the_trajectory_continues(ask: Asking, tmp_path: Path) -> None:
    endpoint = Scripted(["<code>no fence</code>", "it is a tram"])
    reply = ask(tmp_path, endpoint)
    assert reply.turns[0].execution is not None
    assert reply.turns[0].execution.status is ExecutionStatus.REJECTED and reply.calls == 0
    assert "there is no fenced Python block" in text_of(endpoint.bodies[1]["messages"][3])
    assert (reply.text, reply.finish) == ("it is a tram", FinishReason.NO_ACTION)


def test_feedback_that_the_model_makes_up_is_cut_off(ask: Asking, tmp_path: Path) -> None:
    made_up = f"{CALL('print(2)')}\n<tool_response>\n3\n</tool_response>\n<answer>3</answer>"
    endpoint = Scripted([made_up, "<answer>2</answer>"], takes=frozenset())
    reply = ask(tmp_path, endpoint)
    assert (reply.text, reply.turns[0].text) == ("2", CALL("print(2)"))
    assert "stop" not in endpoint.bodies[0]


@pytest.mark.parametrize(
    ("takes", "sent"),
    [
        ({"stop", "include_stop_str_in_output"}, [True, True]),
        ({"stop"}, [True, False]),
        (set(), [False, False]),
    ],
)
def test_stop_strings_go_to_endpoints_that_take_them(
    ask: Asking, takes: set[str], sent: list[bool], tmp_path: Path
) -> None:
    endpoint = Scripted(["<answer>7</answer>"], takes=frozenset(takes))
    assert ask(tmp_path, endpoint).text == "7"
    (body,) = endpoint.bodies
    assert ["stop" in body, "include_stop_str_in_output" in body] == sent


@pytest.mark.parametrize("named", [True, False])
def test_a_stop_string_that_was_cut_off_is_put_back(ask: Asking, named: bool, tmp_path: Path) -> None:
    call, answer = CALL("print(input_image.size)"), "<think>so</think><answer>7</answer>"
    cut = [text.removesuffix(stop) for text, stop in ((call, "</code>"), (answer, "</answer>"))]
    names = [{"stop_reason": stop} if named else {} for stop in ("</code>", "</answer>")]
    endpoint = Scripted([completion(text, **name) for text, name in zip(cut, names, strict=True)])
    reply = ask(tmp_path, endpoint)
    assert [turn.text for turn in reply.turns] == [call, answer]
    assert reply.turns[0].execution is not None and reply.turns[0].execution.stdout == "(40, 30)\n"
    assert reply.text == "7"


@pytest.mark.parametrize("kept", [True, False])
def test_a_stop_string_within_a_thought_ends_no_turn(ask: Asking, kept: bool, tmp_path: Path) -> None:
    whole = "<think>I could write </answer> now</think><answer>7</answer>"
    begun = "<think>I could write " + ("</answer>" if kept else "")
    endpoint = Scripted([completion(begun, stop_reason="</answer>"), whole])
    assert ask(tmp_path, endpoint).text == "7"
    assert ["stop" in body for body in endpoint.bodies] == [True, False]


def test_an_answer_that_the_model_left_open_is_none_where_the_endpoint_says_so(ask: Asking, tmp_path: Path) -> None:
    reply = ask(tmp_path, Scripted([completion("<answer>7", stop_reason=None)]))
    assert reply.finish is FinishReason.NO_ACTION and reply.text == "<answer>7"


def test_tokens_end_a_trajectory(ask: Asking, tmp_path: Path) -> None:
    cut = ask(tmp_path, Scripted([completion("<think>well", finish="length")]))
    assert (cut.text, cut.finish) == ("", FinishReason.LENGTH)
    spent = Scripted([completion(CALL("1"), tokens=20)])
    assert ask(tmp_path, spent, settings_of(max_tokens=20)).finish is FinishReason.LENGTH
    full = Scripted([CALL("1"), refusal(400, "This model's maximum context length is 8192 tokens")])
    reply = ask(tmp_path, full)
    assert (reply.finish, len(reply.turns)) == (FinishReason.LENGTH, 1)
    unknown = ask(tmp_path, Scripted([completion("<answer>7</answer>", tokens=None)]), settings_of(max_tokens=9))
    assert (unknown.text, unknown.completion_tokens, unknown.prompt_tokens) == ("7", None, None)


def test_time_ends_a_trajectory(ask: Asking, tmp_path: Path) -> None:
    slow = Scripted([CALL("import time\ntime.sleep(30)")])
    reply = ask(tmp_path, slow, settings_of(trajectory_limit_s=1.0))
    assert (reply.text, reply.finish) == ("", FinishReason.TIME_LIMIT)


class Stalled(Scripted):
    """Endpoint that does not reply once its script is over."""

    async def reply(self, request: web.Request) -> web.Response:
        if len(self.bodies) == len(self.says):
            await asyncio.Event().wait()
        return await super().reply(request)


@pytest.mark.parametrize(("tools", "says"), [(True, []), (True, [CALL("print(1)")]), (False, [])])
def test_an_endpoint_that_does_not_reply_in_time_has_failed(
    ask: Asking, tools: bool, says: list[str], tmp_path: Path
) -> None:
    turn = len(says) + 1
    with pytest.raises(Unanswered, match=rf"turn {turn}: no reply within .* 3 s \(environment\.trajectory") as raised:
        ask(tmp_path, Stalled(says), settings_of(tools, trajectory_limit_s=3.0))
    assert raised.value.status is Status.ENDPOINT_FAILURE


def test_a_base_model_gets_the_plain_question(ask: Asking, tmp_path: Path) -> None:
    endpoint = Scripted([completion(" There are 4. ", message={"reasoning_content": "I count"})])
    reply = ask(tmp_path, endpoint, settings_of(tools=False, seed=5), sample=2)
    (body,) = endpoint.bodies
    (message,) = body["messages"]
    assert text_of(message) == "How many?" and len(images_of(message)) == 1
    assert "stop" not in body and "max_tokens" not in body and body["seed"] == 7
    assert (reply.text, reply.finish, reply.calls) == ("There are 4.", FinishReason.ANSWER, 0)
    assert reply.turns[0].text == "<think>I count</think>\n There are 4. "
    cut = ask(tmp_path, Scripted([completion("There", finish="length")]), settings_of(tools=False))
    assert (cut.text, cut.finish) == ("There", FinishReason.LENGTH)


def test_a_system_message_of_the_item_takes_the_place_of_ours(ask: Asking, tmp_path: Path) -> None:
    endpoint = Scripted(["<answer>7</answer>"])
    ask(tmp_path, endpoint, system="Be brief.")
    assert [message["role"] for message in endpoint.bodies[0]["messages"]] == ["system", "user"]
    assert endpoint.bodies[0]["messages"][0]["content"] == "Be brief."


def test_the_newer_name_of_the_limit_is_used_where_it_is_asked_for(ask: Asking, tmp_path: Path) -> None:
    endpoint = Scripted(["4"], takes=frozenset())
    ask(tmp_path, endpoint, settings_of(tools=False, max_tokens=50))
    assert endpoint.bodies[0]["max_completion_tokens"] == 50 and "max_tokens" not in endpoint.bodies[0]


@pytest.mark.parametrize("tools", [True, False])
def test_requests_at_the_same_time_learn_the_newer_name_together(ask: Asking, tools: bool, tmp_path: Path) -> None:
    endpoint = Scripted(["<answer>4</answer>"] * 8, takes=frozenset({"stop", "include_stop_str_in_output"}))
    everyone = asyncio.Barrier(8)

    class Together(Scripted):
        async def reply(self, request: web.Request) -> web.Response:
            if "max_tokens" in await request.json():
                await everyone.wait()  # all have been sent before one is refused
            return await super().reply(request)

    together = Together(endpoint.says, endpoint.takes)

    async def run() -> list[Reply]:
        async with running(together) as url, asyncio.timeout(60), Transport.opened(Endpoint(url), {}) as transport:
            answerer = ChatAnswerer(transport, settings_of(tools, max_tokens=50), SANDBOX, ask.pool)
            asked = [answerer.answer(question("How many?"), ImageFolder(tmp_path)) for _ in range(8)]
            return await asyncio.gather(*asked)

    assert {reply.finish for reply in ask.runner.run(run())} == {FinishReason.ANSWER}
    assert all(body["max_completion_tokens"] == 50 for body in together.bodies) and len(together.bodies) == 8
    assert {"stop" in body for body in together.bodies} == {tools}, "the refusal is not taken for one of stop strings"


def test_images_that_code_returns_are_greyed(ask: Asking, tmp_path: Path) -> None:
    endpoint = Scripted([CALL("input_image.resize((50, 60)).show()"), "<answer>7</answer>"])
    reply = ask(tmp_path, endpoint, settings_of(control=Control.GREY_OBSERVATIONS))
    (shown,) = images_of(endpoint.bodies[1]["messages"][3])
    assert shown.convert("RGB").getcolors() == [(50 * 60, (128, 128, 128))]
    assert len(images_of(endpoint.bodies[1]["messages"][1])[0].getcolors() or ()) == 1
    assert reply.turns[0].execution is not None
    kept = Image.open(reply.turns[0].execution.images[0].file(tmp_path)).convert("RGB")
    assert kept.getcolors() == [(50 * 60, (128, 128, 128))]
    for control in (Control.NO_TOOLS, Control.FORCED_TOOLS):
        with pytest.raises(UserError, match="cannot ban what is sampled"):
            settings_of(control=control)


def test_a_crowded_endpoint_is_overloaded_at_first_and_waited_for_later(
    ask: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Overloaded) as raised:
        ask(tmp_path, Scripted([refusal(429, "slow down", **{"Retry-After": "4"})]))
    assert raised.value.retry_after_s == 4.0
    monkeypatch.setattr(chat_answerer, "FIRST_WAIT_S", 0.01)
    later = Scripted([CALL("print(1)"), refusal(503, "busy"), refusal(429, "busy"), "<answer>1</answer>"])
    assert ask(tmp_path, later).text == "1"


def test_waits_become_longer_whatever_the_endpoint_asks_for(
    ask: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_answerer, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(chat_answerer, "LONGEST_WAIT_S", 0.1)
    times: list[float] = []

    def busy(after: str) -> Callable[[Mapping[str, Any]], web.Response]:
        def said(_: Mapping[str, Any]) -> web.Response:
            times.append(time.monotonic())
            return refusal(429, "busy", **{"Retry-After": after})

        return said

    def done(_: Mapping[str, Any]) -> web.Response:
        times.append(time.monotonic())
        return completion("<answer>1</answer>")

    # 0.05 s, then its double, then no more than the longest
    assert ask(tmp_path, Scripted([CALL("print(1)"), busy("0"), busy("0"), busy("9"), done])).text == "1"
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert waits[0] >= 0.05 and waits[1] >= 0.1 and 0.1 <= waits[2] < 5


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (refusal(400, "the model takes no images"), "HTTP 400: the model takes no images"),
        (refusal(401, f"wrong key {KEY}"), r"HTTP 401: wrong key \[key\]"),
        (refusal(400, "prompt is too long"), "prompt is too long"),
        (web.json_response({"choices": []}), "the reply is no chat completion"),
        (web.json_response({"choices": [{"message": {"content": 7}}]}), "the reply is no chat completion"),
        (completion("x", tokens=-1), "the reply is no chat completion"),
    ],
)
def test_what_is_no_reply_leaves_the_question_unanswered(
    ask: Asking, said: web.Response, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(Unanswered, match=reason) as raised:
        ask(tmp_path, Scripted([said]), settings_of(tools=False))
    assert raised.value.status is Status.ENDPOINT_FAILURE
    assert raised.value.of_item == said_of_the_question(reason)


def said_of_the_question(reason: str) -> bool:
    return "takes no images" in reason or "too long" in reason


def test_what_is_no_image_is_unreadable_and_a_dead_session_a_fault_of_the_sandbox(ask: Asking, tmp_path: Path) -> None:
    with pytest.raises(Unanswered) as raised:
        ask(tmp_path, Scripted([]), files=[encoded()[:40]])
    assert raised.value.status is Status.IMAGE_UNREADABLE
    with pytest.raises(Unanswered) as raised:
        ask(tmp_path, Scripted([CALL("import os\nos.kill(os.getppid(), 9)\nos.kill(os.getpid(), 9)")]))
    assert raised.value.status is Status.SANDBOX_FAULT


def test_the_key_of_records_follows_what_decides_about_replies() -> None:
    async def described(settings: ChatSettings, url: str = "http://127.0.0.1:9/v1") -> Any:
        async with ChatAnswerer.opened(Endpoint(url, at_once=3), settings, SANDBOX, {}) as answerer:
            assert answerer.most_at_once == 3
            return answerer.describe()

    async def tooled(settings: ChatSettings) -> Any:
        async with Transport.opened(Endpoint("http://127.0.0.1:9/v1"), {}) as transport:
            return ChatAnswerer(transport, settings, SANDBOX, None).describe()

    async def all_of_them() -> list[Any]:
        chosen = [
            settings_of(tools=False),
            settings_of(tools=False, max_turns=2),
            settings_of(tools=False, max_tokens=9),
        ]
        other = ChatSettings("vlm", tools=False, revision="b")
        return [await described(one) for one in [*chosen, other]] + [await described(chosen[0], "http://other/v1")]

    plain, turns, tokens, revision, elsewhere = asyncio.run(all_of_them())
    assert plain == turns == elsewhere and plain["model"] == {"name": "vlm", "revision": ""}
    assert plain["limits"]["trajectory_limit_s"] == EnvironmentConfig().trajectory_limit_s
    assert tokens["limits"] != plain["limits"] and revision["model"] != plain["model"]
    with_tools = asyncio.run(tooled(settings_of(max_turns=2)))
    assert with_tools["limits"]["environment"]["max_turns"] == 2 and with_tools["prompt"]["format"] == "code"
