"""The start of vLLM: its limit, and what ends it. vLLM itself is stood in for; tests/e2e has the real one."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from codedance_verl.environment.call_watch import CallWatch
from codedance_verl.errors import UserError
from codedance_verl.serving import engine
from codedance_verl.serving.config import EngineConfig
from codedance_verl.serving.engine import Engine, EngineClient, Tokens

HANGING = """
import contextlib, multiprocessing, signal, sys, threading, time
from types import SimpleNamespace
from codedance_verl import cli
from codedance_verl.serving import engine, service

def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("CHILD", multiprocessing.current_process().pid, flush=True)
    time.sleep(120)

def start(arguments):
    multiprocessing.get_context("fork").Process(target=stubborn).start()
    threading.Event().wait()

service.load_tokens = lambda *_: SimpleNamespace(max_model_len=2048)
service.SandboxPool.local = lambda config: contextlib.nullcontext()
sys.modules["vllm.engine.arg_utils"] = SimpleNamespace(AsyncEngineArgs=SimpleNamespace)
sys.modules["vllm.v1.engine.async_llm"] = SimpleNamespace(AsyncLLM=SimpleNamespace(from_engine_args=start))
engine.START_SECONDS, engine.END_SECONDS = float(sys.argv[1]), 0.5
cli.main(sys.argv[2:])
"""


def _started(command: str, folder: Path, limit_s: float) -> tuple[subprocess.Popen[str], psutil.Process]:
    """The command with a vLLM that hangs and ignores SIGTERM, and the process of that vLLM."""
    for name in ("config.json", "picture.png"):
        (folder / name).write_text("{}")
    asked = [str(folder / "picture.png"), "How many?"] if command == "chat" else []
    arguments = [sys.executable, "-c", HANGING, str(limit_s), command, "--model", str(folder), *asked]
    process = subprocess.Popen(
        [*arguments, "hardware=cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as in the background of a shell's script
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("CHILD"):
            return process, psutil.Process(int(line.split()[1]))
    pytest.fail(process.communicate()[1])


def _ended(process: subprocess.Popen[str], child: psutil.Process) -> tuple[int, str]:
    """Exit code and stderr of the command, which leaves nothing behind."""
    try:
        told = process.communicate(timeout=30)[1]
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
        return process.returncode, told
    finally:
        for left in (process, child):
            if left.poll() is None if isinstance(left, subprocess.Popen) else left.is_running():
                left.kill()


@pytest.mark.slow
def test_vllm_that_does_not_come_up_ends_with_its_command(tmp_path: Path) -> None:
    code, told = _ended(*_started("serve", tmp_path, limit_s=1.0))
    assert code == 2
    assert told.splitlines()[-1].startswith(f"error: {tmp_path}: vLLM does not start: not up after 1 s; ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "number"), [("serve", signal.SIGTERM), ("chat", signal.SIGTERM), ("serve", signal.SIGINT)]
)
def test_a_signal_during_the_start_ends_the_command_and_vllm(
    command: str, number: signal.Signals, tmp_path: Path
) -> None:
    process, child = _started(command, tmp_path, limit_s=600.0)
    process.send_signal(number)
    code, told = _ended(process, child)
    assert code not in (0, -number) and "Traceback" not in told


def test_a_client_that_comes_too_late_is_shut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    shut_down = threading.Event()

    def start(arguments: Any) -> Any:
        time.sleep(0.5)
        return SimpleNamespace(shutdown=shut_down.set)

    monkeypatch.setitem(sys.modules, "vllm.engine.arg_utils", SimpleNamespace(AsyncEngineArgs=SimpleNamespace))
    stub = SimpleNamespace(AsyncLLM=SimpleNamespace(from_engine_args=start))
    monkeypatch.setitem(sys.modules, "vllm.v1.engine.async_llm", stub)
    monkeypatch.setattr(engine, "START_SECONDS", 0.1)

    async def use() -> None:
        async with Engine.started("tiny", EngineConfig(), Tokens(None, None, "", (), 64), max_images=1):
            pytest.fail("it is up")

    with pytest.raises(UserError, match=r"^tiny: vLLM does not start: not up after 0\.1 s; "):
        asyncio.run(use())
    assert shut_down.wait(5.0)


def test_a_tag_in_the_stream_is_reported_once_and_before_the_turn_ends() -> None:
    events: list[str] = []

    class Streaming:
        async def sample(self, prompt_ids: Any, params: Any, images: Any, on_text: Any) -> str:
            for text in ("<think>so", "</think><co", "de>", "\nprint(1)", "</code>"):
                on_text(text, [7])
                events.append(text)
            return "sampled"

    async def run() -> None:
        shown: list[str] = []
        client = EngineClient(Streaming(), shown.append, frozenset())  # type: ignore[arg-type]
        watch = CallWatch("<code>", lambda: events.append("seen"))
        assert await client.generate("id", [1], {}, None, call_watch=watch) == "sampled"
        assert "".join(shown) == "<think>so</think><code>\nprint(1)</code>"
        assert events.index("seen") == events.index("de>") - 1 and events.count("seen") == 1

    asyncio.run(run())
