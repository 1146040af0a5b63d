"""A Ray cluster on one machine whose nodes are as far apart as namespaces make them.

Each node has a network namespace of its own with one interface, a process namespace (its death kills all of it, like
the loss of a machine), and a /dev/shm of its own. A namespace with a bridge connects them; nothing leads outside, and
the machine's own network is left alone. They share the file system, but for folders that a node is told to hide.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SUBNET = "10.83.17"
PORT, DASHBOARD_PORT = 6379, 8265
START_SECONDS = 180.0
COMMAND_SECONDS = 60.0
BIN = Path(sys.executable).parent


def why_not() -> str:
    """What keeps such a cluster from running here; empty when nothing does."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    for tool in ("ip", "nsenter", "setpriv", "unshare"):
        if shutil.which(tool) is None:
            return f"the command {tool} is missing"
    name = f"cdprobe{secrets.token_hex(3)}"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"
    try:
        _ip("-n", name, "link", "add", "probe", "type", "bridge")
        _ip("-n", name, "link", "add", "one", "type", "veth", "peer", "name", "other")
    except subprocess.CalledProcessError as error:
        return f"no bridges or veth pairs here: {error.stderr.strip()}"
    finally:
        _ip("netns", "del", name)
    return ""


@dataclass
class Node:
    """A node: `ray start --block` in its namespaces. `address` is its only one."""

    namespace: str
    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """End all of its processes at once, as a power cut would."""
        self.process.kill()  # `unshare --kill-child` takes the first process along, and that the whole namespace
        self.process.wait(timeout=COMMAND_SECONDS)


@dataclass
class Cluster:
    """Nodes by number; 1 is the head. Made by `cluster`, which removes all of it."""

    folder: Path
    prefix: str
    token: Path
    nodes: dict[int, Node] = field(default_factory=dict)
    commands: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def dashboard(self) -> str:
        return f"http://{SUBNET}.1:{DASHBOARD_PORT}"

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """What processes of the cluster run with: this Python, token authentication, nothing else of Ray's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        kept.pop("PYTHONPATH", None)  # the code is shipped
        ours = {
            "PATH": f"{BIN}:{kept.get('PATH', '')}",
            "HOME": str(self.folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
        }
        return {**kept, **ours, **(more or {})}

    def start_node(
        self,
        number: int,
        options: Sequence[str],
        environment: Mapping[str, str] | None = None,
        hidden: Sequence[Path] = (),
        own_engine: bool = False,
        ready: bool = True,
    ) -> Node:
        """Start a node and, with `ready`, wait until it has joined.

        In place of `hidden` folders it sees empty ones. With `own_engine` it has a Docker engine of its own, without
        images; others use the machine's.
        """
        namespace, address = f"{self.prefix}-n{number}", f"{SUBNET}.{number}"
        self._connect(namespace, address, number)
        head = ["--head", f"--port={PORT}", f"--dashboard-host={address}", f"--dashboard-port={DASHBOARD_PORT}"]
        joining = [f"--address={SUBNET}.1:{PORT}"]
        ray = [
            "ray",
            "start",
            "--block",
            f"--node-ip-address={address}",
            f"--temp-dir={self.folder / str(number)}",
            "--object-store-memory=200000000",
            *(head if number == 1 else joining),
            *options,
        ]
        before = "".join(f"mount -t tmpfs tmpfs {folder} && " for folder in [Path("/dev/shm"), *hidden])
        more = dict(environment or {})
        if own_engine:
            before += f"{{ {self._engine(number)} & }} && "
            more["DOCKER_HOST"] = self.engine_address(number)
        log = self.folder / f"node{number}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *_inside(namespace),
                    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *("sh", "-c", f'{before}exec "$@"', "sh", *ray),
                ],
                cwd=self.folder,
                env=self.environment(more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        node = Node(namespace, address, process, log)
        self.nodes[number] = node
        if ready:
            self._wait_until_joined(node)
        return node

    def engine_address(self, number: int) -> str:
        """Where the engine of a node that has its own answers, in words of `DOCKER_HOST`."""
        return f"unix://{self.folder / f'engine{number}.sock'}"

    def _engine(self, number: int) -> str:
        """The shell command of such an engine: in the node's namespaces, so that it goes with the node."""
        home = self.folder / f"engine{number}"
        return (
            f"dockerd --data-root {home}/data --exec-root {home}/exec --pidfile {home}.pid "
            f"--host {self.engine_address(number)} --bridge=none --iptables=false >{home}.log 2>&1"
        )

    def wait_until_joined(self, *numbers: int) -> None:
        """Until these nodes, started without waiting, are part of the cluster."""
        for number in numbers:
            self._wait_until_joined(self.nodes[number])

    def run(
        self,
        *command: str,
        at: int = 1,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = COMMAND_SECONDS,
        folder: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a node to its end; does not raise when it fails."""
        done = subprocess.run(
            [*_inside(self.nodes[at].namespace), *command],
            cwd=folder or self.folder,
            env=self.environment({"RAY_ADDRESS": f"{SUBNET}.1:{PORT}", **(environment or {})}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        print("\n".join((done.stdout + done.stderr).splitlines()[-40:]))
        return done

    def start(
        self, *command: str, log: Path, folder: Path, environment: Mapping[str, str], at: int = 1
    ) -> subprocess.Popen[bytes]:
        """Start a command on a node, its output in `log`; it ends with the cluster at the latest."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*_inside(self.nodes[at].namespace), *command],
                cwd=folder,
                env=self.environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.commands.append(process)
        return process

    def _connect(self, namespace: str, address: str, number: int) -> None:
        switch = f"{self.prefix}-sw"
        _ip("netns", "add", namespace)
        _ip("-n", switch, "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("-n", switch, "link", "set", f"p{number}", "master", "bridge0", "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        _ip("-n", namespace, "route", "add", "default", "via", f"{SUBNET}.254")

    def _wait_until_joined(self, node: Node) -> None:
        """`ray start --block` says so; the head's dashboard must answer, too."""
        deadline = time.monotonic() + START_SECONDS
        while "Ray runtime started." not in node.log.read_text(errors="replace"):
            assert node.process.poll() is None, node.log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < deadline, node.log.read_text(errors="replace")[-3000:]
            time.sleep(0.2)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster without nodes yet; all of it is gone with the block, also when that is interrupted."""
    folder = Path(tempfile.mkdtemp(prefix="cdr-", dir="/tmp"))  # short: Ray's sockets lie below it
    made = Cluster(folder, f"cd{os.getpid()}", folder / "token")
    made.token.write_text(secrets.token_hex(16))
    made.token.chmod(0o600)
    switch = f"{made.prefix}-sw"
    _ip("netns", "add", switch)
    try:
        _ip("-n", switch, "link", "add", "bridge0", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge0", "up")
        yield made
    finally:
        for node in made.nodes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.kill()
        for command in made.commands:
            command.kill()
        for namespace in [*(f"{made.prefix}-n{number}" for number in range(1, 10)), switch]:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", namespace)
        shutil.rmtree(folder, ignore_errors=True)


def resources(**amounts: float) -> str:
    """The option of `ray start` for custom resources."""
    return f"--resources={json.dumps(amounts)}"


def _inside(namespace: str) -> list[str]:
    """What runs a command there, which ends with this process at the latest, however that ends."""
    return ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{namespace}", "--"]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=COMMAND_SECONDS)
