"""Rollout workers that ask the sandbox which images code gets, for every record, whether or not its model runs code.

Chosen as `actor_rollout_ref.rollout.agent.agent_loop_manager_class=benchmarks.audited_rollouts.AuditingManager`. A
session of its own is opened for each rollout; what a cell in it says of `input_images` goes to
`<run_dir>/code_images.jsonl`, to be held against `pixels_sha256` of the trajectory log.
"""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import ray
from verl.experimental.agent_loop.agent_loop import register

from codedance_verl.environment.loop import Rollout
from codedance_verl.environment.sandbox_client import SandboxClient
from codedance_verl.environment.stall_watchdog import TrackedRollout
from codedance_verl.rollout.agent_loop import AGENT_NAME, CodeDanceAgentLoop
from codedance_verl.rollout.worker import CodeDanceAgentLoopManager, CodeDanceAgentLoopWorker

CELL = """
import hashlib
assert input_image is input_images[0]
for image in input_images:
    print(hashlib.sha256(f'{image.width}x{image.height}:'.encode() + image.tobytes()).hexdigest())
"""
"""Prints `codedance_verl.images.pixels_sha256` of each image, computed by the sandbox."""


class AuditedAgentLoop(CodeDanceAgentLoop):
    """An agent loop that writes down what code gets before the model is asked anything."""

    async def _start(self, record: dict[str, Any], progress: TrackedRollout) -> Rollout:
        rollout = await super()._start(record, progress)
        sandbox = rollout.sandbox
        of_its_own = SandboxClient(sandbox._connect, sandbox._images, self.environment.sandbox_retries)
        async with AsyncExitStack() as resources:
            execution, _ = await of_its_own.run(CELL, resources)
        line = {"record_id": progress.record_id, "status": execution.status, "code": execution.stdout.split()}
        with (Path(self.config.run_dir) / "code_images.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return rollout


class AuditingWorker(CodeDanceAgentLoopWorker):
    """A rollout worker with that agent loop."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        register(AGENT_NAME)(AuditedAgentLoop)


class AuditingManager(CodeDanceAgentLoopManager):
    """The manager that starts these workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(AuditingWorker)
