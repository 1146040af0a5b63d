"""Seconds and memory of one transfer of weights: whole tensors in float32 (before), buckets in bfloat16 (after).

`python -m benchmarks.weight_transfer` sends float32 weights with the shapes of Qwen2.5-VL-7B, 31 GiB, to a rollout in
bfloat16 on this machine, one way after the other, each in a Ray of its own. Every tensor is first compared by its hash,
then a second transfer is timed. With `--nodes 2` actor and rollout are in two network namespaces, which needs root.
Prints the figures and their ratios, and writes them as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.weight_transfer.state import LAYERS, VISION_BLOCKS, State
from codedance_verl.cluster.connection import keep_to_loopback

ROOT = Path(__file__).resolve().parents[2]
WAYS = ("before", "after")
_LIMIT_SECONDS = 3600.0
_COLUMNS = ("seconds", "sent MiB", "sender MiB", "other rank MiB", "receiver MiB", "store MiB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every way that is asked for."""
    given = _parser().parse_args(arguments)
    if given.joined:
        given.out.write_text(json.dumps(_measure_joined(given, given.ways[0])))
        return 0
    found = {way: _on_two_nodes(given, way) if given.nodes == 2 else _on_one_node(given, way) for way in given.ways}
    report = {"settings": {name: value for name, value in vars(given).items() if name != "out"}, "ways": found}
    if len(found) == len(WAYS):
        report["ratios"] = ratios(found)
    given.out.write_text(json.dumps(report, indent=1))
    _show(report)
    return 0


def ratios(found: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    """Before by after, of every column; None where after took nothing."""
    before, after = (_columns(found[way]) for way in WAYS)
    return {name: round(before[name] / after[name], 2) if after[name] else None for name in _COLUMNS}


def _columns(way: dict[str, Any]) -> dict[str, float]:
    receivers, both = way["receivers"], [way["sender"], *way["receivers"]]
    values = (
        way["seconds"],
        way["sent_mib"],
        way["sender"]["own_mib"],
        way["bystander"]["own_mib"],
        max(rank["own_mib"] for rank in receivers),
        max(rank["store_mib"] for rank in both),
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _show(report: dict[str, Any]) -> None:
    for way, found in report["ways"].items():
        figures = ", ".join(f"{name} {value:.1f}" for name, value in _columns(found).items())
        print(f"{way}: {found['equal_tensors']} tensors equal by hash; {figures}")
    for name, ratio in report.get("ratios", {}).items():
        print(f"before / after, {name}: {'-' if ratio is None else f'{ratio:.2f}'}")


def _on_one_node(given: argparse.Namespace, way: str) -> dict[str, Any]:
    keep_to_loopback({})
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=given.store_mib * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": _environment()},
    )
    try:
        return _measure(given, way, nodes=1)
    finally:
        ray.shutdown()


def _on_two_nodes(given: argparse.Namespace, way: str) -> dict[str, Any]:
    """A cluster of two namespaces for this way alone; this program again runs as its driver on the first of them."""
    from tests.e2e import ray_cluster

    if reason := ray_cluster.why_not():
        raise SystemExit(f"error: --nodes 2: {reason}")
    store = f"--object-store-memory={given.store_mib * 2**20}"
    with tempfile.TemporaryDirectory() as folder, ray_cluster.cluster() as nodes:
        nodes.start_node(1, ["--num-cpus=4", store, ray_cluster.resources(first=1)])
        nodes.start_node(2, ["--num-cpus=4", store, ray_cluster.resources(last=1)])
        out = Path(folder) / "way.json"
        command = [sys.executable, "-m", "benchmarks.weight_transfer", "--joined", "--ways", way, "--out", str(out)]
        for name in ("layers", "vision_blocks", "shrink", "bucket_mib", "values", "nodes", "receivers"):
            command += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
        done = nodes.run(*command, environment=_environment(), timeout_s=_LIMIT_SECONDS, folder=ROOT)
        if done.returncode:
            raise SystemExit(f"error: {way}: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def _measure_joined(given: argparse.Namespace, way: str) -> dict[str, Any]:
    import ray

    ray.init(log_to_driver=False, runtime_env={"env_vars": _environment()})
    return _measure(given, way, nodes=given.nodes)


def _measure(given: argparse.Namespace, way: str, nodes: int) -> dict[str, Any]:
    from benchmarks.weight_transfer.ranks import measure

    state = State(given.layers, given.vision_blocks, given.shrink, given.values)
    return measure(way, given.bucket_mib, state, given.receivers, nodes)


def _environment() -> dict[str, str]:
    """Environment of every process: this checkout, and verl without an accelerator: weights lie in host memory."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {"PYTHONPATH": path, "VERL_PLATFORM": "cpu"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the language model")
    parser.add_argument("--vision-blocks", type=int, default=VISION_BLOCKS)
    parser.add_argument("--shrink", type=int, default=1, help="divides the rows of every tensor")
    parser.add_argument("--bucket-mib", type=int, default=1024, help="update_weights_bucket_megabytes")
    parser.add_argument("--values", choices=("zeros", "numbers"), default="zeros")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--nodes", type=int, choices=(1, 2), default=1)
    parser.add_argument("--receivers", type=int, default=1, help="devices of the rollout")
    parser.add_argument("--store-mib", type=int, default=8192, help="Ray's object store on each node")
    parser.add_argument("--out", type=Path, default=Path("weight_transfer.json"))
    parser.add_argument("--joined", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
