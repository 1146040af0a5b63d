"""The cluster files: `ray up`'s by Ray's own schema, KubeRay's by the fields its API reference documents.

No package carries KubeRay's resource definition, so what it would check is written here for the fields that are used:
RayJobSpec, RayClusterSpec and their groups (KubeRay 1.6, ray.io/v1), pods by a few rules of Kubernetes.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from codedance_verl.config.compose import compose_config
from codedance_verl.preflight.nodes import check_room
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.placement import RayNode

FOLDER = Path(__file__).resolve().parents[3] / "cluster"

STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0}
QUANTITIES = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"},
}
MOUNT = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "mountPath": {"type": "string", "pattern": "^/"}},
    "required": ["name", "mountPath"],
    "additionalProperties": False,
}
CONTAINER = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "image": {"type": "string"},
        "args": {"type": "array", "items": {"type": "string"}},
        "env": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
                "required": ["name", "value"],
                "additionalProperties": False,
            },
        },
        "resources": {
            "type": "object",
            "properties": {"requests": QUANTITIES, "limits": QUANTITIES},
            "additionalProperties": False,
        },
        "securityContext": {"type": "object", "properties": {"privileged": {"type": "boolean"}}},
        "volumeMounts": {"type": "array", "items": MOUNT},
    },
    "required": ["name", "image"],
    "additionalProperties": False,
}
POD = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "containers": {"type": "array", "items": CONTAINER, "minItems": 1},
                "volumes": {"type": "array", "items": {"type": "object", "required": ["name"], "minProperties": 2}},
            },
            "required": ["containers"],
            "additionalProperties": False,
        }
    },
    "required": ["spec"],
    "additionalProperties": False,
}
HEAD = {
    "type": "object",
    "properties": {"rayStartParams": STRINGS, "template": POD},
    "required": ["template"],
    "additionalProperties": False,
}
WORKERS = {
    "type": "object",
    "properties": {
        "groupName": {"type": "string"},
        "replicas": COUNT,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "rayStartParams": STRINGS,
        "template": POD,
    },
    "required": ["groupName", "template"],
    "additionalProperties": False,
}
RAY_JOB = {
    "type": "object",
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "properties": {
                "entrypoint": {"type": "string"},
                "runtimeEnvYAML": {"type": "string"},
                "backoffLimit": COUNT,
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": COUNT,
                "rayClusterSpec": {
                    "type": "object",
                    "properties": {
                        "rayVersion": {"type": "string"},
                        "authOptions": {
                            "type": "object",
                            "properties": {"mode": {"enum": ["disabled", "token"]}},
                            "additionalProperties": False,
                        },
                        "headGroupSpec": HEAD,
                        "workerGroupSpecs": {"type": "array", "items": WORKERS},
                    },
                    "required": ["headGroupSpec"],
                    "additionalProperties": False,
                },
            },
            "required": ["rayClusterSpec"],
            "additionalProperties": False,
        },
    },
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
}


def _load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.fixture
def job() -> Any:
    return _load("kuberay-rayjob.yaml")


def _groups(job: Any) -> list[Any]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_ray_up_takes_its_file() -> None:
    config = prepare_config(_load("ray-up.yaml"))
    validate_config(config)  # against Ray's ray-schema.json
    assert config["max_workers"] == len(config["provider"]["worker_ips"])


def test_ray_up_starts_no_node_without_a_token() -> None:
    config = _load("ray-up.yaml")
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token" in command for command in starts)


def test_the_job_has_the_fields_that_kuberay_documents(job: Any) -> None:
    jsonschema.validate(job, RAY_JOB)


def test_a_field_that_kuberay_does_not_know_is_found(job: Any) -> None:
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        jsonschema.validate(job, RAY_JOB)


def test_every_mount_has_its_volume_and_the_runs_are_shared_by_all_that_run_verl(job: Any) -> None:
    for group in _groups(job):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        mounts = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
        assert mounts <= volumes
        if group.get("groupName") != "sandbox":
            assert "runs" in mounts


def _run_script(folder: Path, fails: str) -> list[str]:
    """The commands that `rayjob.sh a=1 'b=[x y]'` runs, where those that contain `fails` fail."""
    python, log = folder / "python", folder / "log"
    python.write_text(f'#!/bin/sh\necho "$*" >> {log}\ncase "$*" in *{fails}*) exit 2;; esac\n')
    python.chmod(0o755)
    command = ["sh", str(FOLDER / "rayjob.sh"), "a=1", "b=[x y]"]
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, timeout=30, check=False)
    assert done.returncode == 2
    return log.read_text().splitlines()


def test_the_image_is_on_the_engines_before_training_starts(job: Any, tmp_path: Path) -> None:
    """A cluster that is made for the job has engines without it."""
    wanted = compose_config("train", shlex.split(job["spec"]["entrypoint"])[2:]).sandbox.node_resource
    prepare = f"-m codedance_verl.cli cluster prepare --resource {wanted}"
    assert _run_script(tmp_path, fails="codedance_verl.train") == [prepare, "-m codedance_verl.train a=1 b=[x y]"]
    (tmp_path / "log").unlink()
    assert _run_script(tmp_path, fails="prepare") == [prepare]


def test_its_entry_point_is_one_command(job: Any) -> None:
    """KubeRay writes it into a line of the submitter's shell."""
    assert not set(job["spec"]["entrypoint"]) & set("&|;<>`$()\\\n*?#")


def test_its_entry_point_is_a_configuration_of_ours_with_nodes_for_its_interpreters(job: Any) -> None:
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:2] == ["sh", "cluster/rayjob.sh"]
    config = compose_config("train", words[2:])
    wanted = SandboxConfig.from_mapping(config.sandbox).node_resource
    (group,) = [group for group in _groups(job) if "resources" in group["rayStartParams"]]
    assert json.loads(json.loads(group["rayStartParams"]["resources"])) == {wanted: 1}, "as KubeRay quotes it"
    assert yaml.safe_load(job["spec"]["runtimeEnvYAML"])["working_dir"].startswith("/")
    gpus = [group for group in _groups(job) if "nvidia.com/gpu" in str(group["template"]["spec"]["containers"][0])]
    assert sum(group["replicas"] for group in gpus) == config.trainer.nnodes


def _ray_nodes(job: Any) -> list[RayNode]:
    """The nodes that Ray makes of the pods: CPUs and GPUs by their limits, unless its parameters say otherwise."""
    nodes = []
    for group in _groups(job):
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        cpus = float(group["rayStartParams"].get("num-cpus", limits["cpu"]))
        for index in range(group.get("replicas", 1)):
            name = f"{group.get('groupName', 'head')}{index}"
            nodes.append(RayNode(name, name, {"CPU": cpus, "GPU": float(limits.get("nvidia.com/gpu", 0))}))
    return nodes


@pytest.mark.parametrize("more", [[], ["recipe=codedance_7b"], ["recipe=codedance_7b_async"]])
def test_its_pods_have_the_cpus_that_verl_asks_for(more: list[str], job: Any) -> None:
    """Also with the recipes of sixteen GPUs."""
    config = compose_config("train", [*shlex.split(job["spec"]["entrypoint"])[2:], *more])
    check_room(config, _ray_nodes(job))


def test_its_head_takes_no_part_of_the_run(job: Any) -> None:
    head, *_ = _ray_nodes(job)
    assert not any(head.resources.values())
    (start,) = [command for command in _load("ray-up.yaml")["head_start_ray_commands"] if "ray start" in command]
    assert {"--num-gpus=0", "--num-cpus=0"} <= set(start.split())


def test_a_pod_of_eight_gpus_has_the_memory_of_7_b(job: Any) -> None:
    (pod,) = [group["template"]["spec"] for group in _groups(job) if group.get("groupName") == "gpu"]
    (container,) = pod["containers"]
    assert int(container["resources"]["limits"]["memory"].removesuffix("Gi")) >= 512
