"""A real Prometheus: found, started on loopback with our rules, and asked."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from codedance_verl.metrics.alerts import rules
from codedance_verl.metrics.dashboards import DASHBOARDS, runnable
from codedance_verl.metrics.provision import RULES_FILE, provision

START_SECONDS = 60.0


class NoPrometheus(Exception):
    """Prometheus is missing or does not come up; the message says what to do."""


def find_prometheus() -> str:
    """Path of the program.

    Raises:
        NoPrometheus: it is not on the PATH.
    """
    found = shutil.which("prometheus")
    if found is None:
        raise NoPrometheus("prometheus is not on the PATH; scripts/prometheus.sh FOLDER gets it")
    return found


def panel_queries(window: str) -> dict[str, str]:
    """Every panel's queries as Prometheus takes them, by page, panel and legend."""
    return {
        f"{page.title}: {panel.title}: {legend}": runnable(query, window)
        for page in DASHBOARDS
        for panel in page.panels
        for query, legend in panel.queries
    }


def metrics_address(ray_dir: Path) -> str | None:
    """Host and port at which the Ray whose temporary folder this is shows its metrics; None until it does."""
    for path in (ray_dir / "session_latest").glob("metrics_export_port_*"):
        if port := path.read_text().strip():
            return f"127.0.0.1:{port}"
    return None


Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str

    def values(self, query: str) -> list[float]:
        """Result of an instant query, one value a series."""
        result = self._get("query", query=query)["result"]
        return [float(item["value"][1]) for item in result]

    def has_data(self, query: str) -> bool:
        return any(math.isfinite(value) for value in self.values(query))

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        return {item["labels"]["alertname"] for item in self._get("alerts")["alerts"] if item["state"] == "firing"}

    def wait_for(self, missing: Callable[[], Sequence[str]], seconds: float) -> Sequence[str]:
        """Waits until nothing is missing, or so many seconds; returns what is still missing."""
        deadline = time.monotonic() + seconds
        while left := missing():
            if time.monotonic() > deadline:
                return left
            time.sleep(1.0)
        return []

    def ranges(self, query: str, start: float, end: float, step_s: float) -> list[tuple[Mapping[str, str], Points]]:
        """Labels and (Unix time, value) points of every series of a range query; times in seconds."""
        found = self._get("query_range", query=query, start=f"{start}", end=f"{end}", step=f"{step_s}")["result"]
        return [(item["metric"], [(float(at), float(value)) for at, value in item["values"]]) for item in found]

    def without_data(self, queries: dict[str, str]) -> list[str]:
        return [where for where, query in queries.items() if not self.has_data(query)]

    def _get(self, what: str, **parameters: str) -> Any:
        address = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=20) as reply:
            return json.load(reply)["data"]


@contextlib.contextmanager
def prometheus(folder: Path, target: str, lasting: str | None = None) -> Iterator[Prometheus]:
    """A server with our configuration that looks at `target` every second; `lasting` as of `rules`."""
    written = provision(folder, [target])
    config = yaml.safe_load(written.prometheus.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    written.prometheus.write_text(yaml.safe_dump(config))
    if lasting is not None:
        (written.prometheus.parent / RULES_FILE).write_text(yaml.safe_dump(rules(lasting)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [find_prometheus(), f"--config.file={written.prometheus}", f"--web.listen-address={address}"]
    log = (folder / "prometheus.log").open("w")
    server = subprocess.Popen([*command, f"--storage.tsdb.path={folder / 'data'}"], stdout=log, stderr=log)
    try:
        _until_ready(server, address, folder / "prometheus.log")
        yield Prometheus(f"http://{address}")
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
        server.kill()
        log.close()


def _until_ready(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
            return
        time.sleep(0.2)
    raise NoPrometheus(f"Prometheus does not come up:\n{log.read_text()[-2000:]}")
