"""Modes of a model at a running `codedance serve`: the plain one under the control `no_tools`, by the same address."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from codedance_verl.filtering.models import opened
from codedance_verl.harness.reply import ImageFolder
from codedance_verl.harness.served_answerer import ServedAnswerer
from codedance_verl.harness.settings import load
from tests.unit.harness.asked import question
from tests.unit.serving.chats import MODEL
from tests.unit.serving.chats import running as serving


def test_a_served_model_is_asked_in_its_own_loop_with_tools_and_under_no_tools(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving() as server, asyncio.timeout(120):
            given = [f"eval.model={MODEL}", f"eval.endpoint={server.url}", "eval.benchmarks=[a.parquet]"]
            async with opened(load([*given, "eval.temperature=1", "eval.concurrency=2"]), lambda _: None) as modes:
                assert all(isinstance(mode.answerer, ServedAnswerer) for mode in modes.values())
                controls = {tools: mode.settings.evaluation.control for tools, mode in modes.items()}
                assert controls == {False: "no_tools", True: None}
                # replies of the two are never counted together
                assert modes[False].key().digest != modes[True].key().digest
                assert modes[False].most_at_once <= 2
                asked = question("please look")
                numbered = replace(asked, item=replace(asked.item, facts={"sample": 3}))
                reply = await modes[True].answer(numbered, ImageFolder(tmp_path))
                assert reply.served_by == MODEL and reply.text == "3 &lt; 4"

    asyncio.run(run())
