"""Files and forms on the way of one record from parquet through rollout, grade and reward to advantage and log line.

`python scripts/measure_record.py [CHECKOUT]` prints JSON. The record passes through verl's own worker and the recipe
`cpu_demo`; only the engine, the sandbox, Ray and the queue are scripted, so that the driver rests on interfaces of verl
and on commands that users type, whatever the package looks like within.

A file is visited if one of its functions took or gave a part of the record: a text, the image, tokens, rewards. Set-up
(composition of the configuration, the constructor of the worker, the constants that the estimator reads at each call)
and imports do not count, nor do other processes. Files in which anything ran meanwhile, bookkeeping and configuration
included, are counted on their own.

A form is a type that carries the whole record, not a part of it, from one file to another: a class of the package or of
verl, or a dict by its keys, that is seen as an argument or a result of functions of at least two files of the package
with at least two of the texts of `MARKS` (question, code, answer) in it; and in the estimator, where no text is left,
every class of the package. Four forms that verl and the disk prescribe are added: token ids, token rewards, token
advantages, the JSON line. A re-encoding is the step from one form to the next new one: forms less one.

The rules of the grader count as one file, the rule that decides: which of them and of their helpers run depends on the
kind of answer, and a reader looks up one. They are listed on their own. Here the answer equals the truth.

Counted so, commit 326a133 has 40 files and 12 re-encodings.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any
from unittest import mock

PACKAGE = "codedance_verl"
QUESTION, CODE, ANSWER = "How many violet quaggas?", "print('quagga', 6 * 7)", "42 herds"
OUTPUT = "quagga 42"
MARKS = ("violet quaggas", "'quagga'", "42 herds")
PRESCRIBED = ("token ids", "token rewards", "token advantages", "JSON line")
SAID = (
    (
        f"<think>I look.</think>\n<code>\n```python\n{CODE}\n```\n</code>",
        f"<think>So.</think>\n<answer>{ANSWER}</answer>",
    ),
    (f"<think>A guess.</think>\n<answer>{ANSWER}</answer>",),
)
"""Turns of each rollout of the group: one with a call, one without."""
DEPTH = 7
LEAST_TOKENS = 8
NO_RULES = ("__init__", "config", "context", "custom", "explained", "grader", "ladder", "matchers")
"""Modules directly in `grading` that are no rules; an older tree has its rules beside them."""
COMMAND_SECONDS = 120


def main(arguments: list[str]) -> None:
    """Measures a checkout in a process of its own, whose folder and path are that checkout's."""
    root = Path(arguments[0]).resolve() if arguments else Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(root, Path(folder)), indent=1))


def measure(root: Path, folder: Path) -> dict[str, Any]:
    """Runs the record through the package at `root`; `folder` takes the data, the tiny model and the log."""
    environment = {**os.environ, "PYTHONPATH": str(root), "VERL_PLATFORM": "cpu"}

    def run(*command: str) -> None:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        if done.returncode:
            raise SystemExit(f"error: {' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")

    sizes = ("--sft", "8", "--rl-train", "1", "--rl-val", "1", "--test", "1", "--blank", "0")
    run("-m", f"{PACKAGE}.cli", "data", "make", "--out", str(folder), *sizes)
    run("-m", "recipes.cpu_demo.tiny_model", "--data", str(folder / "sft.parquet"), "--out", str(folder / "tiny"))
    run(__file__, "--trace", str(root), str(folder))
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


class Tracer:
    """Profiler that notes the files of the package in which functions run, and the forms that they pass."""

    def __init__(self, root: Path) -> None:
        self._inside = f"{root / PACKAGE}{os.sep}"
        self.on = self.every_class = False
        self.files: dict[str, None] = {}  # in order of the first call
        self.handled: set[str] = set()
        self._seen_in: dict[str, set[str]] = {}  # files by form, in order of first sight
        self._setup: set[type] = set()
        self._dicts: list[tuple[frozenset[str], str]] = []

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(self._inside) or self._imports(frame):
            return
        if event == "return":
            values = [argument]
        else:
            # co_flags: 4 for *args, 8 for **kwargs, whose names follow those of the other arguments
            count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
            values = [frame.f_locals.get(name) for name in code.co_varnames[:count]]
        if not self.on:  # classes of configuration are no forms of the record
            self._setup.update(type(value) for value in values)
            return
        file = code.co_filename.removeprefix(self._inside)
        self.files.setdefault(file)
        for value in values:
            if is_part(value):
                self.handled.add(file)
            if form := self._form(value):
                self._seen_in.setdefault(form, set()).add(file)

    @property
    def forms(self) -> list[str]:
        """Forms that passed between files, in the order of the way."""
        return [form for form, files in self._seen_in.items() if len(files) > 1]

    @staticmethod
    def _imports(frame: FrameType | None) -> bool:
        """An import on the way runs class bodies and decorators."""
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                return True
            frame = frame.f_back
        return False

    def _form(self, value: object) -> str | None:
        kind = type(value)
        if isinstance(value, dict):
            named = all(isinstance(key, str) for key in value)
            return self._dict_form(frozenset(value)) if named and len(marks_in(value)) > 1 else None
        if kind.__module__.split(".")[0] not in (PACKAGE, "verl") or kind in self._setup:
            return None
        derived = self.every_class and kind.__module__.startswith(PACKAGE)
        return f"{kind.__module__}.{kind.__qualname__}" if derived or len(marks_in(value)) > 1 else None

    def _dict_form(self, keys: frozenset[str]) -> str:
        """Name of a dict by its keys. Two that share half of them are one form: a field comes or goes on the way."""
        for other, name in self._dicts:
            if 2 * len(keys & other) >= len(keys | other):
                return name
        name = f"dict({', '.join(sorted(keys)[:5])}{', ...' if len(keys) > 5 else ''})"
        self._dicts.append((keys, name))
        return name


def is_part(value: object, depth: int = DEPTH) -> bool:
    """Tells values that are or hold a text, the image, tokens or rewards of the record."""
    if isinstance(value, str | bytes):
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        return any(mark in text for mark in (*MARKS, OUTPUT, "\x89PNG"))
    if hasattr(value, "dtype") or type(value).__module__.startswith("PIL."):
        return True
    if depth == 0 or value is None or isinstance(value, int | float | type):
        return False
    # tokens are lists everywhere; tuples of whole numbers are constants, as the buckets of a histogram
    if isinstance(value, list) and len(value) >= LEAST_TOKENS and all(type(item) is int for item in value):
        return True
    return any(is_part(part, depth - 1) for part in _parts(value))


def is_rule(file: str) -> bool:
    """Tells files of the grader's rules and of their helpers, by the path in the package."""
    folder, _, rest = file.partition("/")
    return folder == "grading" and not rest.startswith("judge/") and Path(rest).stem not in NO_RULES


def marks_in(value: object, depth: int = DEPTH) -> set[str]:
    """Texts of the record in the fields of a value, down to `depth` levels."""
    if isinstance(value, str | bytes):
        text = value.decode("utf-8", "ignore") if isinstance(value, bytes) else value
        return {mark for mark in MARKS if mark in text}
    if depth == 0 or value is None or isinstance(value, int | float | type):
        return set()
    return {mark for part in _parts(value) for mark in marks_in(part, depth - 1)}


def _parts(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
    elif dataclasses.is_dataclass(value):
        yield from (getattr(value, field.name, None) for field in dataclasses.fields(value))
    elif type(value).__module__.startswith((PACKAGE, "verl")):
        names = [*getattr(type(value), "__struct_fields__", ()), *getattr(value, "__dict__", ())]
        yield from (getattr(value, name, None) for name in names)


def trace(root: Path, folder: Path) -> None:
    """Child process: sends the record through and writes `found.json`."""
    import transfer_queue as tq
    import verl  # noqa: F401  # loads the plugin

    # an editable install of another checkout stands in for a package that is not at `root`
    found_at = Path(str(importlib.import_module(PACKAGE).__file__))
    if not found_at.is_relative_to(root):
        raise SystemExit(f"error: {root} has no {PACKAGE}; {found_at} was imported")
    data = folder / "record.parquet"
    write_record(data)
    config = compose(folder, data)
    tracer, queue = Tracer(root), Queue()
    with (
        mock.patch.object(tq, "init", return_value=None),
        mock.patch.object(tq, "async_kv_put", queue.put),
        mock.patch.object(tq, "async_kv_batch_put", queue.put_batch),
        mock.patch("ray.get_runtime_context", return_value=SimpleNamespace(get_actor_id=lambda: "0" * 16)),
    ):
        # images and logs are handled in threads, which take the profiler that is set when they start
        threading.setprofile(tracer)
        sys.setprofile(tracer)
        try:
            asyncio.run(send(config, tracer, queue))
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]  # takes None as sys.setprofile does
    (log,) = (folder / "run").glob("trajectories/train/*.jsonl")
    assert len(log.read_text().splitlines()) == len(SAID), "the record did not reach the log"
    forms = [*tracer.forms, *PRESCRIBED]
    visited = [file for file in tracer.files if file in tracer.handled and not is_rule(file)]
    rules = [file for file in tracer.files if file in tracer.handled and is_rule(file)]
    found = {
        "files": len(visited) + bool(rules),
        "files_that_ran": len(tracer.files),
        "reencodings": len(forms) - 1,
        "visited": visited,
        "rules": rules,
        "ran_beside": [file for file in tracer.files if file not in tracer.handled],
        "forms": forms,
    }
    (folder / "found.json").write_text(json.dumps(found))


async def send(config: Any, tracer: Tracer, queue: Queue) -> None:
    """Dataset row, group of rollouts, advantage."""
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn
    from verl.utils.dataset.rl_dataset import get_dataset_class

    pool = importlib.import_module(f"{PACKAGE}.sandbox.pool").SandboxPool
    manager = str(config.actor_rollout_ref.rollout.agent.agent_loop_manager_class)
    workers = importlib.import_module(manager.rpartition(".")[0])
    worker = workers.CodeDanceAgentLoopWorker(config, Engine())
    worker.llm_client.tokenizer = worker.tokenizer
    tracer.on = True
    dataset = get_dataset_class(config.data)(
        data_files=[config.data.train_files], tokenizer=worker.tokenizer, processor=worker.processor, config=config.data
    )
    row = dict(dataset[0])
    # verl's collator turns it into a batch dimension, which a single row does not have
    row.pop("dummy_tensor")
    prompt = {**row, "uid": "group", "global_steps": 1, "agent_name": "codedance"}
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "logprobs": True}
    info = {"step": 1, "sample_index": row["index"], "rollout_n": len(SAID), "validate": False}
    with mock.patch.object(pool, "connect", return_value=Pool()):
        await worker._run_prompt(prompt, sampling, trajectory=info)
    assert queue.status == "finished", "the group failed; see the log above"
    tracer.every_class = True
    rewards, mask = queue.padded("rm_scores"), queue.padded("response_mask")
    estimate = get_adv_estimator_fn(config.algorithm.adv_estimator)
    advantages, _ = estimate(
        token_level_rewards=rewards, response_mask=mask, index=queue.groups(), config=config.algorithm
    )
    tracer.on = False
    assert rewards.any() and advantages.shape == rewards.shape, "no rewards reached the estimator"


def write_record(path: Path) -> None:
    """Record in the published form, with one image."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    image = io.BytesIO()
    Image.new("RGB", (90, 60), "violet").save(image, "PNG")
    record = {
        "data_source": "quaggas",
        "prompt": [{"role": "user", "content": f"<image>{QUESTION}"}],
        "images": [{"bytes": image.getvalue()}],
        "ability": "count",
        "reward_model": {"style": "rule", "ground_truth": ANSWER},
        "extra_info": {"split": "train", "index": 0, "record_id": "quaggas-0"},
    }
    pq.write_table(pa.Table.from_pylist([record]), path)


def compose(folder: Path, data: Path) -> Any:
    """Resolved configuration of a run of the recipe, as the mains compose it."""
    try:
        compose_config = importlib.import_module(f"{PACKAGE}.config.compose").compose_config
    except ModuleNotFoundError:  # where `config` is a module
        compose_config = importlib.import_module(f"{PACKAGE}.config").compose_config
    overrides = [
        "recipe=cpu_demo",
        f"run_dir={folder / 'run'}",
        f"data.train_files={data}",
        f"data.val_files={data}",
        f"actor_rollout_ref.model.path={folder / 'tiny'}",
        f"actor_rollout_ref.rollout.n={len(SAID)}",
    ]
    return compose_config("train", overrides)


class Engine:
    """Scripted server client of verl: `generate` gives the turns of `SAID`, rollout by rollout."""

    def __init__(self) -> None:
        self.tokenizer: Any = None
        self._left = [list(turns) for turns in SAID]
        self._of: dict[str, list[str]] = {}

    async def generate(self, request_id: str, *, prompt_ids: list[int], **_: Any) -> Any:
        # rollouts of a group run in tasks of their own and take the scripts in the order of their first request
        task = str(id(asyncio.current_task()))
        turns = self._of.setdefault(task, self._left.pop(0) if task not in self._of else [])
        end = self.tokenizer.convert_tokens_to_ids(["<|im_end|>"])
        ids = [*self.tokenizer.encode(turns.pop(0), add_special_tokens=False), *end]
        return SimpleNamespace(
            token_ids=ids,
            log_probs=[-0.5] * len(ids),
            routed_experts=None,
            num_preempted=0,
            stop_reason="completed",
            extra_fields={"global_steps": 0},
        )


class Pool:
    """Scripted sandbox: pool and session in one."""

    @asynccontextmanager
    async def session(self, *_: bytes) -> Any:
        yield self

    async def run(self, code: str) -> Any:
        types = importlib.import_module(f"{PACKAGE}.types")
        return types.Execution(types.ExecutionStatus.OK, stdout=f"{OUTPUT}\n", duration_s=0.01)


class Queue:
    """Stand-in for verl's TransferQueue that keeps what is put into it."""

    def __init__(self) -> None:
        self.status = ""
        self.fields: Any = None

    async def put(self, *, tag: dict[str, Any], **_: Any) -> None:
        self.status = tag["status"]

    async def put_batch(self, *, fields: Any, **_: Any) -> None:
        self.fields = [*(self.fields or []), fields]

    def padded(self, name: str) -> Any:
        """Tensor [rollouts, longest response], zeros behind each."""
        import torch

        rows = [row for fields in self.fields for row in fields[name].unbind()]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def groups(self) -> Any:
        """Group of each row, [rollouts]."""
        import numpy as np

        return np.array(["group"] * len(self.padded("rm_scores")), dtype=object)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trace"]:
        trace(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(sys.argv[1:])
