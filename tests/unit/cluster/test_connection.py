from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from ray.exceptions import AuthenticationError

from codedance_verl.cluster import connection
from codedance_verl.cluster.connection import (
    PLUGIN,
    check_paths,
    connect,
    joins,
    keep_token_private,
    ray_arguments,
    start,
)
from codedance_verl.config.compose import compose_config, hardware
from codedance_verl.errors import UserError

INIT = {"num_cpus": 16, "num_gpus": 2, "include_dashboard": False, "log_to_driver": True}
RUNTIME = {"env_vars": {"VERL_PLATFORM": "cpu", "MINE": "1"}, "working_dir": None}


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)


def _submit(monkeypatch: pytest.MonkeyPatch, **runtime_env: object) -> None:
    """What Ray's job supervisor sets for an entry point."""
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": runtime_env, "metadata": {}}))


def test_without_an_address_a_run_starts_a_cluster_of_its_own() -> None:
    arguments = ray_arguments(INIT, RUNTIME)
    assert arguments == {**INIT, "address": "local", "runtime_env": RUNTIME}


LISTENERS = """
import os, psutil
from codedance_verl.cluster.connection import keep_to_loopback
keep_to_loopback({})
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
ours = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
listening = [each.laddr.ip for each in psutil.net_connections("tcp") if each.status == "LISTEN" and each.pid in ours]
print("LISTENERS", len(listening), *sorted(set(listening)))
"""


@pytest.mark.slow
def test_a_cluster_of_its_own_listens_on_loopback_alone() -> None:
    done = subprocess.run([sys.executable, "-c", LISTENERS], capture_output=True, text=True, timeout=120)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LISTENERS")] or [done.stderr[-2000:]]
    count, addresses = int(line.split()[1]), set(line.split()[2:])
    assert count > 1 and addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, line


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    return tmp_path


def _open_token(path: Path) -> Path:
    """A token as `ray get-auth-token --generate` leaves it behind."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("secret")
    path.parent.chmod(0o755)
    path.chmod(0o644)
    return path


def test_a_token_that_ray_is_yet_to_write_comes_into_a_closed_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    monkeypatch.setattr(ray, "init", lambda **_: found.append(_mode(home / ".ray")))
    start(ray_arguments(INIT, RUNTIME))
    assert found == [0o700]


def test_a_token_is_closed_to_others_but_where_somebody_chose_its_place(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, named = _open_token(home / ".ray" / "auth_token"), _open_token(home / "elsewhere" / "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(named))
    monkeypatch.setattr(ray, "init", lambda **_: None)
    start(ray_arguments(INIT, RUNTIME))
    assert [_mode(path) for path in (token.parent, token, named)] == [0o700, 0o600, 0o644]


def test_a_token_of_another_user_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token, me = _open_token(home / ".ray" / "auth_token"), os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    keep_token_private()
    assert [_mode(path) for path in (token.parent, token)] == [0o755, 0o644]


def test_it_joins_where_ray_address_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not joins()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert joins() and not joins("local")
    arguments = ray_arguments(INIT, RUNTIME)
    assert arguments.pop("runtime_env")["env_vars"] == {**RUNTIME["env_vars"], "VERL_USE_EXTERNAL_MODULES": PLUGIN}
    assert arguments == {"address": "auto", "log_to_driver": True}


def test_an_address_of_the_configuration_is_kept() -> None:
    arguments = ray_arguments({**INIT, "address": "10.0.0.2:6379"}, RUNTIME)
    assert arguments["address"] == "10.0.0.2:6379" and "num_gpus" not in arguments


def test_what_the_job_was_submitted_with_is_not_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    _submit(monkeypatch, working_dir="gcs://_ray_pkg_1.zip", env_vars={"MINE": "2"})
    runtime_env = ray_arguments(INIT, RUNTIME)["runtime_env"]
    assert "working_dir" not in runtime_env
    assert set(runtime_env["env_vars"]) == {"VERL_PLATFORM", "VERL_USE_EXTERNAL_MODULES"}


def test_the_configurations_own_runtime_env_has_the_last_word() -> None:
    given = {"env_vars": {"MINE": "3"}, "pip": ["x"]}
    runtime_env = ray_arguments({"runtime_env": given}, RUNTIME)["runtime_env"]
    assert runtime_env == {"env_vars": {"VERL_PLATFORM": "cpu", "MINE": "3"}, "working_dir": None, "pip": ["x"]}


INPUTS = {"data.train_files": "data/train.parquet", "data.val_files": "/shared/val.parquet"}


def test_a_job_keeps_nothing_in_its_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    check_paths("outputs/run", INPUTS)
    _submit(monkeypatch)
    check_paths("/shared/run", INPUTS)  # what was shipped is in the working directory of every node
    with pytest.raises(UserError, match=r"^run_dir=outputs/run: relative, .* deleted with the job's working directory"):
        check_paths("outputs/run", INPUTS)


def test_a_driver_that_joins_resolves_no_path_otherwise_than_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    check_paths("/shared/run", {"data.val_files": "/shared/val.parquet"})
    check_paths("outputs/run", INPUTS, address="local")
    with pytest.raises(UserError) as raised:
        check_paths("outputs/run", INPUTS)
    lines = str(raised.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["run_dir=outputs/run", "data.train_files=data/train.parquet"]
    assert all(line.endswith("give an absolute path that all nodes share") for line in lines)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379"), r"^no Ray cluster answers \(Failed to"),
        (AuthenticationError("InvalidAuthToken\nand much more"), r"^the Ray cluster refuses: InvalidAuthToken \("),
    ],
    ids=["dead", "token"],
)
def test_a_cluster_that_cannot_be_joined_is_told_in_a_line(
    raised: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**_: object) -> None:
        raise raised

    monkeypatch.setattr(ray, "init", refused)
    monkeypatch.setattr(connection, "_wait_for_port", lambda address: None)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    for joined in (connect, lambda: start(ray_arguments(INIT, RUNTIME))):
        with pytest.raises(UserError, match=told):
            joined()


def test_a_dead_address_is_told_before_ray_tries_it_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PORT_SECONDS", 0.5)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked"))
    with socket.socket() as unheard:  # bound, but nobody listens
        unheard.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{unheard.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"^ray_kwargs.ray_init.address={dead}: no Ray cluster answers there"):
            start(ray_arguments({**INIT, "address": dead}, RUNTIME))
        monkeypatch.setenv("RAY_ADDRESS", dead)
        with pytest.raises(UserError, match=rf"^RAY_ADDRESS={dead}: no Ray cluster answers there .*unset RAY_ADDRESS$"):
            connect()


@pytest.mark.parametrize("address", ["nonsense", "host:", "host:port", ":6379", "http://10.0.0.1:8265"])
def test_what_is_no_address_of_a_cluster_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=rf"^RAY_ADDRESS={address}: must be HOST:PORT") as raised:
        connect()
    assert ("ray job submit" in str(raised.value)) == address.startswith("http")


def test_an_address_of_null_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert ray_arguments({**INIT, "address": None}, RUNTIME)["address"] == "auto"


def test_an_empty_address_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert not joins()
    assert ray_arguments(INIT, RUNTIME)["address"] == "local"


def test_an_error_of_a_cluster_of_its_own_is_not_about_joining(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: object) -> None:
        raise ConnectionError("mine")

    monkeypatch.setattr(ray, "init", broken)
    with pytest.raises(ConnectionError, match="mine"):
        start(ray_arguments(INIT, RUNTIME))


def test_on_a_cluster_the_hardware_is_said_and_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert hardware.resolve(["hardware=8xgpu", "seed=1"]) == ["hardware=8xgpu", "seed=1"]
    assert compose_config("train", ["hardware=8xgpu", "run_dir=/runs/a"]).trainer.n_gpus_per_node == 8
    for overrides in (["run_dir=/runs/a"], ["run_dir=/runs/a", "hardware=auto"]):
        with pytest.raises(UserError, match=r"^hardware=auto: on a cluster"):
            compose_config("train", overrides)
