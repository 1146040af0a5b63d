"""Actors whose handles import nothing, through a real Ray: what the load balancer and the rollout workers hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_HEAVY = """
class Engine:
    def __init__(self, prefix):
        self.prefix = prefix

    async def generate(self, prompt, *, suffix=""):
        return self.prefix + prompt + suffix

    def get_address(self):
        return "here"
"""

_RUN = """
import json, sys
import ray
from heavy_engine import Engine
from verl.workers.rollout import router
from codedance_verl.verl_compat import light_actors

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
light_actors.balance_without_verl()
server = ray.remote(light_actors.imported_where_made(Engine)).options(max_concurrency=4).remote(prefix="<")
balancer = router.get_router_handle({"one": server})

@ray.remote(num_cpus=0)
def ask(balancer):
    name, server = ray.get(balancer.acquire_server.remote("request"))
    said = ray.get([server.generate.remote("a", suffix=">"), server.get_address.remote()])
    ray.get(balancer.release_server.remote(name))
    return said, "heavy_engine" in sys.modules

said, imported = ray.get(ask.remote(balancer), timeout=120)
loaded = ray.get(balancer.__ray_call__.remote(
    lambda self: [name for name in ("heavy_engine", "verl", "torch") if name in __import__("sys").modules]
), timeout=120)
print(json.dumps([said, imported, ray.get(balancer.get_total_inflight.remote()), loaded]))
"""


def test_requests_reach_the_server_through_processes_that_import_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "heavy_engine.py").write_text(_HEAVY)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", _RUN],
        env={**os.environ, "PYTHONPATH": path, "VERL_PLATFORM": "cpu"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said, imported, inflight, loaded = json.loads(done.stdout.splitlines()[-1])
    assert said == ["<a>", "here"]
    assert not imported
    assert inflight == 0
    assert loaded == []
