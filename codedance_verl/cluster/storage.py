"""Check of shared storage: every node that a run may use must see the same files.

Rollout workers write trajectories, the actor's ranks their checkpoints, verl's task runner the metrics, each on its own
node; the driver reads them, and requests to stop, from the run's folder. So on several nodes the run's folder, data and
model must lie where all see them: on a shared file system, under the same path.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import ray

from codedance_verl.cluster.remote_call import answer, call_on
from codedance_verl.errors import UserError
from codedance_verl.sandbox.placement import RayNode, living_nodes

ANSWER_SECONDS = 60.0


def check_shared(run_dir: Path, inputs: Mapping[str, str]) -> None:
    """Checks that every node the run may use reads and writes `run_dir` and sees the same `inputs`.

    Nodes without CPUs and GPUs run interpreters only, or the driver alone, and are not asked. Nor is the driver's own
    node where it is the only other one.

    Args:
        run_dir: the run's folder; it exists.
        inputs: paths of data files and models by configuration key; those that do not exist here (the name of a model
            on a hub) are left out.

    Raises:
        UserError: a node does not, or does not answer within a minute; names the key, the path and the node.
    """
    nodes = [node for node in living_nodes() if node.resources.get("CPU", 0) or node.resources.get("GPU", 0)]
    if all(node.node_id == ray.get_runtime_context().get_node_id() for node in nodes):
        return
    seen_here = {key: (path, _size(Path(path))) for key, path in inputs.items() if Path(path).exists()}
    # random: another start in the same folder has a probe of its own, and a file system's cache has none of this name
    probe = run_dir / f".cluster-probe-{secrets.token_hex(8)}"
    probe.write_text(probe.name)
    try:
        _ask(nodes, probe, seen_here)
    finally:
        for file in run_dir.glob(f"{probe.name}*"):
            file.unlink(missing_ok=True)


def _ask(nodes: Sequence[RayNode], probe: Path, inputs: Mapping[str, tuple[str, int]]) -> None:
    asked = [(node, call_on(node, missing, str(probe), node.node_id, dict(inputs))) for node in nodes]
    for node, reference in asked:
        if found := answer(node, reference, ANSWER_SECONDS):
            raise UserError(
                f"{found} on node {node.address}; a run on several nodes needs its folder, data and model on a file "
                "system that all of them share, under the same path (docs/clusters.md)"
            )


def missing(probe: str, node_id: str, inputs: Mapping[str, tuple[str, int]]) -> str:
    """Returns what this node lacks of what the driver sees, as the start of an error message; empty for nothing."""
    path = Path(probe)
    try:
        seen = path.read_text() == path.name
    except OSError:
        seen = False
    if not seen:
        return f"run_dir={path.parent}: what the driver writes there cannot be read"
    try:
        path.with_name(f"{path.name}-{node_id}").write_text(node_id)
    except OSError as error:
        return f"run_dir={path.parent}: cannot be written ({error.strerror})"
    for key, (name, size) in inputs.items():
        if _size(Path(name)) != size:
            return f"{key}={name}: not there as the driver sees it"
    return ""


def _size(path: Path) -> int:
    """Returns the bytes of a file, or of the files in a folder; -1 where there is nothing."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return path.stat().st_size if path.is_file() else -1
