"""Prometheus itself, on a real Ray that tells all metrics: every panel has data, every alert fires for its fault."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from benchmarks.prometheus import panel_queries, prometheus
from codedance_verl.metrics import catalogue as c
from codedance_verl.metrics.alerts import ALERTS, rules
from codedance_verl.metrics.catalogue import METRICS, RUN, Metric
from tests.required import require_prometheus
from tests.short_folder import short_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
DATA_SECONDS = 90.0
LASTING = "25s"
"""An alert fires when its fault is there so long: longer than Ray remembers a gauge that was told once (10 s)."""


@pytest.fixture(scope="module")
def told() -> Iterator[Path]:
    """A folder of a process that tells metrics (told_metrics.py); its `target` is their address."""
    require_prometheus()
    script = Path(__file__).with_name("told_metrics.py")
    with short_folder() as folder, (folder / "log").open("w") as log:
        teller = subprocess.Popen([sys.executable, script, folder], cwd=REPOSITORY, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not (folder / "target").exists() and teller.poll() is None and time.monotonic() < deadline:
                time.sleep(0.5)
            if not (folder / "target").exists():
                pytest.fail(f"nothing is told:\n{(folder / 'log').read_text()[-2000:]}")
            yield folder
        finally:
            (folder / "end").touch()
            try:
                teller.wait(60)
            finally:
                teller.kill()


def test_every_panel_has_data_and_every_alert_fires_for_its_fault_alone(told: Path) -> None:
    target = (told / "target").read_text()
    with prometheus(told / "metrics", target, lasting=LASTING) as server:
        series = {f"{metric.exposed} {metric.kind}": f"{metric.series[-1]}{{{RUN}='demo'}}" for metric in METRICS}
        queries = {**series, **panel_queries("30s")}
        assert server.wait_for(lambda: server.without_data(queries), DATA_SECONDS) == []
        assert server.firing() == set()
        (told / "fault").touch()
        expected = {alert.name for alert in ALERTS}
        assert server.wait_for(lambda: sorted(expected - server.firing()), DATA_SECONDS) == []
        assert server.without_data(series) == [], "Ray has forgotten what was told once"


def test_the_metrics_are_told_on_loopback_alone(told: Path) -> None:
    host, port = (told / "target").read_text().split(":")
    assert host == "127.0.0.1"
    bound = [item.laddr for item in psutil.net_connections("tcp") if item.laddr]
    assert {address.ip for address in bound if address.port == int(port)} == {"127.0.0.1"}
    here = [item for items in psutil.net_if_addrs().values() for item in items]
    others = {item.address for item in here if item.family == socket.AF_INET}
    for address in others - {"127.0.0.1"}:
        with pytest.raises(OSError), socket.create_connection((address, int(port)), timeout=5):
            pass


def test_prometheus_tells_a_metric_that_nobody_emits(told: Path) -> None:
    with prometheus(told / "other", (told / "target").read_text()) as server:
        assert not server.has_data("sum (rate(ray_codedance_nothing_total[20s]))")


def test_the_rules_and_the_configuration_pass_promtool(told: Path, tmp_path: Path) -> None:
    from codedance_verl.metrics.provision import provision

    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool beside Prometheus")
    written = provision(tmp_path, [(told / "target").read_text()])
    checked = subprocess.run(
        [promtool, "check", "config", str(written.prometheus)], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0 and f"{len(ALERTS)} rules found" in checked.stdout, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("series", "firing"),
    [
        ({c.TRAINING_STARTED: 0, c.TRAINING_STEP_SECONDS: 60, c.TRAINING_VALIDATING: 0}, {"CodeDanceStepStalled"}),
        ({c.TRAINING_STARTED: 0, c.TRAINING_STEP_SECONDS: 60, c.TRAINING_VALIDATING: 1}, set()),
        ({c.TRAINING_STARTED: 0, c.TRAINING_STEP_SECONDS: 3000, c.TRAINING_VALIDATING: 0}, set()),
        ({c.SANDBOX_SESSIONS: 256, c.SANDBOX_CAPACITY: 384, c.SANDBOX_WAITING: 127}, {"CodeDancePoolStarved"}),
        ({c.SANDBOX_SESSIONS: 256, c.SANDBOX_CAPACITY: 256, c.SANDBOX_WAITING: 0}, set()),
    ],
)
def test_what_has_lasted_for_forty_minutes_raises_these_alerts(
    series: dict[Metric, int], firing: set[str], tmp_path: Path
) -> None:
    require_prometheus()
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool beside Prometheus")
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules()))
    given = [{"series": f"{metric.exposed}{{run='demo'}}", "values": f"{at}x60"} for metric, at in series.items()]
    expected = [{"labels": f"{{alertname='{name}'}}", "value": 1} for name in firing]
    asked = {
        "expr": "count by (alertname) (ALERTS{alertstate='firing'})",
        "eval_time": "40m",
        "exp_samples": expected,
    }
    case = {"interval": "1m", "input_series": given, "promql_expr_test": [asked]}
    (tmp_path / "case.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": [case]}))
    command = [promtool, "test", "rules", str(tmp_path / "case.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_trackers_get_every_metric_that_was_told(told: Path) -> None:
    (told / "end").touch()
    deadline = time.monotonic() + 60
    while not (told / "trackers").exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    names = json.loads((told / "trackers").read_text())
    missing = [metric.name for metric in METRICS if not any(name.startswith(metric.tracker) for name in names)]
    assert missing == []
