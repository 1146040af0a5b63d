"""A node actor of a real Ray tells of its calls and sessions, and a client takes what it has told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.short_folder import short_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

REPOSITORY = Path(__file__).resolve().parents[2]

DRIVER = """
import asyncio, json, os, sys
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
import ray
from codedance_verl.metrics.emit import for_trackers
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.pool import SandboxPool, get_or_start_pool
from codedance_verl.sandbox.ray_node import node_metrics

CONFIG = {"backend": "process", "containers": 1, "standby_containers": 0}

async def use():
    pool = SandboxPool.connect(CONFIG)
    async with pool.session() as session:
        for code in ("print(1)", "1/0", "x = 1"):
            await session.run(code)
    await asyncio.sleep(6)  # until it tells of itself again
    nodes = node_metrics(SandboxConfig.from_mapping(CONFIG))
    nodes.ask()
    first = for_trackers(nodes.take(10))
    nodes.ask()
    return first, for_trackers(nodes.take(10))

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[1])
pool = get_or_start_pool(CONFIG)
print("TOLD" + json.dumps(asyncio.run(use())))
pool.shutdown()
ray.shutdown()
"""


def test_a_node_tells_of_its_calls_once() -> None:
    with short_folder() as folder:
        command = [sys.executable, "-c", DRIVER, str(folder)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("TOLD")]
    first, second = json.loads(line[4:])
    calls = {name.rsplit("/", 1)[1]: value for name, value in first.items() if "/calls_total/" in name}
    assert calls == {"ok": 1, "error": 1, "no_output": 1, "timeout": 0, "killed": 0, "rejected": 0}
    assert first["codedance/sandbox/sessions_opened_total"] == 1
    assert first["codedance/sandbox/interpreters/serving"] > 0
    assert first["codedance/sandbox/orphan_containers"] == 0
    assert second.get("codedance/sandbox/calls_total/ok", 0) == 0
