"""The workload of the comparison with verl: verl's tool parser and this project read the same calls in it."""

from __future__ import annotations

import asyncio
import io
import json

from PIL import Image
from verl.experimental.agent_loop.tool_parser import ToolParser

from benchmarks.rollout import Engine, running
from benchmarks.step_workload import BOX, BarePool, Said, Script, Workload, code, recorded
from codedance_verl.environment.call_watch import CallWatch
from codedance_verl.formats import get_format
from tests.unit.environment.harness import picture, tokenizer

WORKLOAD = Workload(groups=2, size=2, calls=3, tool_s=0.005)


def test_both_loops_read_the_same_call_in_every_turn_and_an_answer_in_the_last() -> None:
    trajectories = recorded(tokenizer(), WORKLOAD, seed=0)
    assert len(trajectories) == 4 and all(len(turns) == 4 for turns in trajectories)
    parser = ToolParser.get_tool_parser("hermes", tokenizer())
    for *calls, last in trajectories:
        for said in calls:
            assert get_format("tool_call").parse(tokenizer().decode(said.ids)).code == code(0.005)
            _, (call,) = asyncio.run(parser.extract_tool_calls(said.ids))
            assert tokenizer().decode(said.ids[: said.until_tag]).endswith("<tool_call>")
            assert json.loads(call.arguments) == {"code": code(0.005)}
        assert get_format("tool_call").parse(tokenizer().decode(last.ids)).answer == "1"
        assert asyncio.run(parser.extract_tool_calls(last.ids))[1] == []


def test_a_trajectory_gets_its_own_turns_in_order_at_the_pace_of_the_engine() -> None:
    async def run() -> None:
        engine = Engine(None, rate=1e9, rate_each=1e9)
        script = Script(engine, [[Said([1], 1), Said([2], 1)], [Said([3, 3], 1), Said([4], 1)]])
        async with running(engine):
            said = [(await script.generate(request)).token_ids for request in ("a", "b", "b", "a")]
        assert said == [[1], [3, 3], [4], [2]] and engine.tokens == 5

    asyncio.run(run())


def test_a_watch_is_told_between_the_tag_and_the_end_of_the_turn() -> None:
    async def run() -> None:
        engine = Engine(None, rate=1e9, rate_each=1e9)
        at: list[int] = []
        script = Script(engine, [[Said([1, 2, 3], 2), Said([4], 1)]])
        watch = CallWatch("<tool_call>", lambda: at.append(engine.tokens))
        async with running(engine):
            await script.generate("a", call_watch=watch)
            await script.generate("a", call_watch=watch)
        assert at == [2]

    asyncio.run(run())


def test_the_bare_tool_shows_what_the_code_would_show() -> None:
    async def run() -> None:
        image = picture(224, 224, 9).png
        async with BarePool(0.0).session(image) as session:
            (shown,) = (await session.run(code(0.0))).images
        namespace = {"input_image": Image.open(io.BytesIO(image))}
        *body, last = code(0.0).split("\n")
        exec("\n".join(body), namespace)
        assert eval(last, namespace).tobytes() == Image.open(io.BytesIO(shown.png)).tobytes()
        assert (shown.width, shown.height) == (BOX[2] - BOX[0], BOX[3] - BOX[1])

    asyncio.run(run())
