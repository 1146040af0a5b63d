"""CPU seconds and memory of what each kind of process of a run imports, with and without our work-arounds.

`python -m benchmarks.start_imports [--only NAME,NAME] [--repeats N] [--output FILE]`. Each import is a process of its
own, whose user + system seconds count: they depend less on what else the machine does than wall time. *Before* is
verl 0.9.1 without the work-arounds, its actors' classes pickled by name; *after* is what a run does; *forked* is what
is left to do with `warm_start`, where one fork server has made most imports for all. Its memory is shared with others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from codedance_verl.runtime.warm_start import warm_python
from codedance_verl.verl_compat.warm_workers import PRELOADED

_SERVER = "verl.workers.rollout.vllm_rollout.vllm_async_server"
_ROUTER = "verl.workers.rollout.router"
_TIMEOUT_S = 900
_ENVIRON = {"VERL_PLATFORM": "cpu", "TORCHDYNAMO_DISABLE": "1"}

_PICKLE = f"""
import sys
from pathlib import Path
from ray import cloudpickle, remote
from {_ROUTER} import GlobalRequestLoadBalancer
from codedance_verl.verl_compat.light_actors import balance_without_verl, imported_where_made
from codedance_verl.verl_compat.watching_server import WatchingServer
balance_without_verl()
for name, cls in (("server", imported_where_made(WatchingServer)), ("balancer", GlobalRequestLoadBalancer)):
    actor = remote(cls).__ray_metadata__.modified_class  # what Ray sends
    Path(sys.argv[1], name).write_bytes(cloudpickle.dumps(actor))
"""

_WITHOUT = """
from codedance_verl.verl_compat import light_imports
light_imports.skip_scikit_learn = light_imports.skip_ascend_transfer = lambda: None
"""

_ALIAS = """
from codedance_verl.verl_compat.vllm_cpu import answer_to_the_name_vllm
answer_to_the_name_vllm()
"""

_MEASURE = """
import importlib, json, pickle, resource, sys
for name in json.loads(sys.argv[1]):
    if name.startswith("/"):
        pickle.load(open(name, "rb"))
    else:
        importlib.import_module(name)
used = resource.getrusage(resource.RUSAGE_SELF)
# not ru_maxrss, which begins with that of the process this one was forked from
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([used.ru_utime + used.ru_stime, peak / 1024, len(sys.modules)]))
"""


@dataclass(frozen=True)
class Kind:
    """A kind of process: modules that it imports, and actor classes (`server`, `balancer`) whose handles reach it."""

    name: str
    modules: tuple[str, ...]
    handles: tuple[str, ...] = ()


KINDS = (
    Kind("driver", ("codedance_verl.trainer.runner", "verl.checkpoint_engine")),
    Kind("task_runner", ("codedance_verl.trainer.runner", _SERVER)),
    Kind("rollout_worker", ("codedance_verl.rollout.worker",), ("balancer", "server")),
    Kind("vllm_server", (_SERVER, "codedance_verl.verl_compat.watching_server")),
    Kind("vllm_engine", ("vllm.v1.engine.core", "vllm.v1.worker.cpu_worker")),
    Kind("fsdp_worker", ("verl.workers.engine_workers",)),
    Kind("load_balancer", ("ray",), ("balancer", "server")),
    Kind("transfer_queue", ("transfer_queue",)),
    Kind("sandbox_actor", ("codedance_verl.sandbox.ray_node",)),
)


@dataclass(frozen=True)
class Cost:
    """Medians over the repeats of a process: CPU seconds (user + system), MiB of peak memory, modules loaded."""

    cpu_s: float
    peak_mib: float
    modules: int


def measure(kind: Kind, pickles: Path, before: bool, repeats: int = 1, python: str = sys.executable) -> Cost:
    """Cost of the imports of a kind of process, started by `python`.

    Raises:
        subprocess.CalledProcessError: an import failed; its output has been shown.
    """
    by_name = {"server": _SERVER, "balancer": _ROUTER}
    handles = [by_name[handle] if before else str((pickles / handle).resolve()) for handle in kind.handles]
    arguments = [json.dumps([*kind.modules, *handles])]
    alias = _ALIAS * any("vllm" in module for module in kind.modules)
    code = _WITHOUT * before + alias + _MEASURE
    found = [json.loads(_run(code, arguments, python).splitlines()[-1]) for _ in range(repeats)]
    cpu_s, peak_mib, modules = (median(column) for column in zip(*found, strict=True))
    return Cost(round(cpu_s, 2), round(peak_mib, 1), int(modules))


def write_pickles(folder: Path) -> None:
    """Writes the classes of the actors `server` and `balancer` as a run sends them."""
    _run(_PICKLE, [str(folder)])


def _run(code: str, arguments: Sequence[str], python: str = sys.executable) -> str:
    done = subprocess.run(
        [python, "-c", code, *arguments],
        env={**os.environ, **_ENVIRON},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    done.check_returncode()
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="kinds of process, separated by commas")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/start_imports.json"))
    arguments = parser.parse_args()
    chosen = arguments.only.split(",") if arguments.only else [kind.name for kind in KINDS]
    if unknown := set(chosen) - {kind.name for kind in KINDS}:
        parser.error(f"unknown {sorted(unknown)}: choose from {[kind.name for kind in KINDS]}")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, warm_python([PRELOADED], _ENVIRON) as warm:
        write_pickles(Path(folder))
        preload = measure(Kind("fork_server", (PRELOADED,)), Path(folder), before=False)
        print(f"{'fork_server':15} {preload.cpu_s:.1f} CPU s, {preload.peak_mib:.0f} MiB", flush=True)
        for kind in KINDS:
            if kind.name in chosen:
                costs = {
                    "before": measure(kind, Path(folder), True, arguments.repeats),
                    "after": measure(kind, Path(folder), False, arguments.repeats),
                    "forked": measure(kind, Path(folder), False, arguments.repeats, str(warm)),
                }
                results[kind.name] = {when: asdict(cost) for when, cost in costs.items()}
                print(f"{kind.name:15} {_line(costs)}", flush=True)
    total = {when: round(sum(row[when]["cpu_s"] for row in results.values()), 2) for when in costs}
    total["forked"] = round(total["forked"] + preload.cpu_s, 2)
    print(f"{'sum':15} {' -> '.join(f'{seconds:.1f}' for seconds in total.values())} CPU s, fork server included")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    found = {"kinds": results, "fork_server": asdict(preload), "sum_cpu_s": total, "load": os.getloadavg()}
    arguments.output.write_text(json.dumps(found, indent=1))


def _line(costs: Mapping[str, Cost]) -> str:
    seconds = " -> ".join(f"{cost.cpu_s:.1f}" for cost in costs.values())
    return f"{seconds} CPU s, {costs['before'].peak_mib:.0f} -> {costs['after'].peak_mib:.0f} MiB"


if __name__ == "__main__":
    main()
