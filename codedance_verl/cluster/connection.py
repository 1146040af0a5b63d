"""Connection of a run to Ray: a cluster of its own on this machine, or one that is running already.

It joins the one at `RAY_ADDRESS`, which Ray itself sets in a job (`ray job submit`), or at
`ray_kwargs.ray_init.address`. Settings of a cluster to be started (`num_cpus`, `num_gpus`, ...) are left out then: the
nodes were started by others.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from codedance_verl.config.hardware import joins
from codedance_verl.errors import UserError

OF_A_NEW_CLUSTER = (
    "num_cpus",
    "num_gpus",
    "resources",
    "labels",
    "object_store_memory",
    "include_dashboard",
    "dashboard_host",
    "dashboard_port",
    "_memory",
    "_node_ip_address",
    "_node_name",
    "_plasma_directory",
    "_system_config",
    "_temp_dir",
)
"""Arguments of `ray.init` that it refuses, or that mean nothing, where it connects to a running cluster."""

PLUGIN = "codedance_verl.plugin"
PORT_SECONDS = 10.0
"""Longest time that a cluster's address is tried: one that is being started comes up meanwhile."""
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray's job supervisor, as JSON


def keep_to_loopback(ray_init: Mapping[str, Any]) -> None:
    """Makes a cluster of the run's own listen on 127.0.0.1 alone; call it before Ray is imported.

    Ray on Linux listens on all interfaces, as other machines might join. This switch of Ray says that none will.
    Nothing is changed where `ray_init` gives an address to join, or `_node_ip_address` to listen on.
    """
    if not joins(ray_init.get("address")) and not ray_init.get("_node_ip_address"):
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def keep_token_private() -> None:
    """Makes Ray's token readable for this user alone: with it anyone on this machine could run code as this user.

    Ray writes it readable for all. Its folder is made first, closed, for the token that Ray is yet to write. Left as
    they are: what belongs to another user, what cannot be changed, and the file of `RAY_AUTH_TOKEN_PATH`, whose owner
    chose its readers.
    """
    folder = Path(os.environ.get("HOME") or "/nonexistent", ".ray")
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    for path in (folder, folder / "auth_token"):
        with contextlib.suppress(OSError):
            found = path.stat()
            if found.st_uid == os.geteuid() and found.st_mode & 0o077:
                path.chmod(found.st_mode & 0o700)


def in_job() -> bool:
    """True in the entry point of a Ray job, whose working directory is a copy that Ray deletes."""
    return _JOB_CONFIG in os.environ


def check_paths(run_dir: str, inputs: Mapping[str, str], address: str | None = None) -> None:
    """Refuses relative paths on a cluster that a run joins: driver and workers would resolve them differently.

    A job's data files and models may be relative all the same: Ray ships the working directory to all nodes, and
    resolves such a path within it.

    Args:
        run_dir: the run's folder. In a job's working directory it would be deleted with it.
        inputs: paths of data files and model folders by configuration key.
        address: `ray_kwargs.ray_init.address`.

    Raises:
        UserError: a line for every relative one.
    """
    if not joins(address):
        return
    reason = (
        "it would be deleted with the job's working directory" if in_job() else "each node takes it for another one"
    )
    paths = {"run_dir": run_dir, **({} if in_job() else inputs)}
    relative = {key: path for key, path in paths.items() if not Path(path).expanduser().is_absolute()}
    if relative:
        raise UserError(
            "\n".join(
                f"{key}={path}: relative, so on a cluster {reason}; give an absolute path that all nodes share"
                for key, path in relative.items()
            )
        )


def ray_arguments(ray_init: Mapping[str, Any], runtime_env: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `ray.init`, `address` always among them.

    Args:
        ray_init: the configuration's `ray_kwargs.ray_init`; its own `runtime_env` has the last word.
        runtime_env: needs of all workers. What the job itself was submitted with is left out: it holds already, and
            Ray refuses it a second time.
    """
    arguments = {name: value for name, value in ray_init.items() if name != "address" or value is not None}
    given = dict(arguments.pop("runtime_env", None) or {})
    env_vars = {**runtime_env.get("env_vars", {}), **(given.get("env_vars") or {})}
    merged = {**runtime_env, **given, "env_vars": env_vars}
    if not joins(arguments.get("address")):
        return {**arguments, "address": "local", "runtime_env": merged}
    # Code that is shipped rather than installed has no entry point by which verl would find the plugin.
    env_vars.setdefault("VERL_USE_EXTERNAL_MODULES", PLUGIN)
    submitted = json.loads(os.environ.get(_JOB_CONFIG, "{}")).get("runtime_env") or {}
    submitted_vars = submitted.get("env_vars") or {}
    # Ray refuses a field, or a variable, that both the job and the driver give
    kept = {name: value for name, value in merged.items() if name not in submitted}
    kept["env_vars"] = {name: value for name, value in env_vars.items() if name not in submitted_vars}
    arguments = {name: value for name, value in arguments.items() if name not in OF_A_NEW_CLUSTER}
    return {"address": "auto", **arguments, "runtime_env": kept}


def connect(runtime_env: Mapping[str, Any] | None = None) -> None:
    """Connects a tool to the cluster that is running here or at `RAY_ADDRESS`.

    Raises:
        UserError: there is none, or it refuses this process's token.
    """
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    start({"address": "auto", "runtime_env": None if in_job() else dict(runtime_env or {}), **quiet})


def start(arguments: Mapping[str, Any]) -> None:
    """Calls `ray.init` with these arguments, `address` among them.

    Raises:
        UserError: there is no cluster to join, its address is none, or it refuses this process's token.
    """
    import ray
    from ray.exceptions import AuthenticationError

    _wait_for_port(arguments["address"])
    keep_token_private()
    try:
        ray.init(**arguments)
    except AuthenticationError as error:
        raise UserError(f"the Ray cluster refuses: {_first_line(error)} (docs/clusters.md, tokens)") from None
    except ConnectionError as error:
        if not joins(arguments["address"]):
            raise
        raise UserError(
            f"no Ray cluster answers ({_first_line(error)}); start one with `ray start --head`, or set RAY_ADDRESS"
        ) from None


def _wait_for_port(address: str) -> None:
    """Waits until the cluster's port answers. Ray itself would try a dead address for two minutes, in lines of its own.

    Raises:
        UserError: nothing listens there, or what is given is not HOST:PORT.
    """
    key, named = (
        ("RAY_ADDRESS", os.environ.get("RAY_ADDRESS") or "auto")
        if address == "auto"
        else ("ray_kwargs.ray_init.address", address)
    )
    if named in ("auto", "local"):
        return  # Ray looks for a cluster on this machine, or starts one
    place = host_and_port(key, named)
    deadline = time.monotonic() + PORT_SECONDS
    while True:
        try:
            socket.create_connection(place, timeout=PORT_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"{key}={named}: no Ray cluster answers there ({error}); start one with `ray start --head`, or "
                    f"unset {key}"
                ) from None
            time.sleep(0.5)


def host_and_port(key: str, named: str) -> tuple[str, int]:
    """Returns host and port of the cluster that `key` names.

    Raises:
        UserError: what is named is not HOST:PORT.
    """
    try:
        found = urlsplit(named if "://" in named else f"//{named}")
        host, port = found.hostname, found.port
    except ValueError:
        host, port = None, None
    if not host or not port or found.scheme not in ("", "ray"):
        web = "; the dashboard's address is for `ray job submit` alone" if named.startswith("http") else ""
        raise UserError(f"{key}={named}: must be HOST:PORT of a Ray head, as in 10.0.0.1:6379{web}")
    if host in ("localhost", "127.0.0.1", "::1"):
        from ray.util import get_node_ip_address

        return get_node_ip_address(), port  # which Ray, too, takes instead
    return host, port


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
