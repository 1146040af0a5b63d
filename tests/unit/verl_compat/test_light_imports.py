from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
import transformers.utils.import_utils
from ray import cloudpickle

from benchmarks.start_imports import write_pickles
from codedance_verl.verl_compat import light_actors, light_imports

REPOSITORY = Path(__file__).resolve().parents[3]


def in_new_process(code: str, *arguments: str) -> object:
    """What the code prints last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=600, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


_ROLLOUT_WORKER = """
import json, sys
import codedance_verl.rollout.worker
unused = [name for name in ("sklearn", "scipy", "vllm") if name in sys.modules]
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2_5_VLForConditionalGeneration
from sklearn.metrics import roc_curve
from verl.checkpoint_engine import CheckpointEngineRegistry
import codedance_verl.verl_compat.object_store_transfer
print(json.dumps([unused, CheckpointEngineRegistry.get("ray_object_store").__name__]))
"""


@pytest.mark.slow
def test_a_rollout_worker_imports_nothing_it_does_not_use_and_finds_all_it_needs() -> None:
    unused, engine = in_new_process(_ROLLOUT_WORKER)  # type: ignore[misc]
    assert unused == []
    assert engine


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the classes of the load balancer and the vLLM server as a run sends them."""
    folder = tmp_path_factory.mktemp("sent")
    write_pickles(folder)
    return folder


_RECEIVE = """
import inspect, json, pickle, sys
from pathlib import Path
import ray
balancer = pickle.loads(Path(sys.argv[1], "balancer").read_bytes())({"a": "first", "b": "second"})
server = pickle.loads(Path(sys.argv[1], "server").read_bytes())
routed = [balancer.acquire_server(request) for request in ("one", "two", "one")]
print(json.dumps({
    "routed": routed,
    "inflight": balancer.get_total_inflight(),
    "loaded": [name for name in ("verl", "torch", "vllm", "transformers", "codedance_verl") if name in sys.modules],
    "coroutines": [inspect.iscoroutinefunction(getattr(server, name)) for name in ("generate", "get_server_address")],
    "name": server.__name__,
}))
"""


@pytest.mark.slow
def test_whoever_gets_the_load_balancer_and_a_servers_handle_imports_neither_verl_nor_vllm(sent: Path) -> None:
    found: dict[str, object] = in_new_process(_RECEIVE, str(sent))  # type: ignore[assignment]
    first, second, again = found["routed"]  # type: ignore[misc]
    assert first == again != second  # one request stays with its server, another goes to the one with less to do
    assert found["inflight"] == 3
    assert found["loaded"] == []
    assert found["coroutines"] == [True, False]
    assert found["name"] == "WatchingServer"


def test_a_class_that_is_imported_where_it_is_made_behaves_as_the_class() -> None:
    sent = cloudpickle.loads(cloudpickle.dumps(light_actors.imported_where_made(asyncio.Queue)))

    async def use() -> tuple[int, str, bool]:
        queue = sent(maxsize=1)
        await queue.put("item")
        return queue.qsize(), await queue.get(), queue.empty()

    assert asyncio.run(use()) == (1, "item", True)


def test_another_transformers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(transformers.utils.import_utils, "is_sklearn_available")
    with pytest.raises(RuntimeError, match=r"has no is_sklearn_available: .* transformers 5\.5 to 5\.10"):
        light_imports.skip_scikit_learn()


def test_another_verl_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(light_imports, "ASCEND_ENGINE", "verl.checkpoint_engine.another")
    with pytest.raises(RuntimeError, match=r"no module verl\.checkpoint_engine\.another: .* verl 0\.9\.1"):
        light_imports.skip_ascend_transfer()
