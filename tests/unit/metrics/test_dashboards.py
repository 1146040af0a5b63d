"""Panels and alerts ask for metrics of the catalogue alone, by the labels these have, and Ray's set-up gets them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard as GrafanaDashboard

from codedance_verl.errors import UserError
from codedance_verl.metrics.alerts import ALERTS, rules
from codedance_verl.metrics.catalogue import METRICS, RUN, Kind, Metric, Unit
from codedance_verl.metrics.dashboards import DASHBOARDS, Dashboard, runnable, with_default_panels
from codedance_verl.metrics.grafana import grafana
from codedance_verl.metrics.provision import RULES_FILE, metrics_folder, provision

OF_RAY = {"NodeAddress", "WorkerId", "le"}
SERIES = {name: metric for metric in METRICS for name in metric.series}
PANELS = [
    (f"{page.title}: {panel.title}", query)
    for page in DASHBOARDS
    for panel in page.panels
    for query, _ in panel.queries
]
QUERIES = [*PANELS, *((alert.name, alert.query) for alert in ALERTS)]
FUNCTIONS = {"sum", "avg", "max", "min", "rate", "increase", "histogram_quantile", "clamp_min", "time"}
WORDS = FUNCTIONS | {"by", "or", "and", "unless", "on", "ignoring", "group_left"}


def _names(query: str) -> set[str]:
    """The series that a query asks for: every word of it that is no label, no function, no number and no duration."""
    bare = re.sub(r'"[^"]*"', "", query.replace("$__rate_interval", "1m"))
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(by|on|ignoring|group_left) \([^)]*\)", " ", bare)
    return set(re.findall(r"[A-Za-z_][A-Za-z0-9_:]*", bare)) - WORDS


def _labels(query: str) -> set[str]:
    """The labels that a query chooses or groups by."""
    groups = [
        name.strip() for inside in re.findall(r"\b(?:by|on|ignoring) \(([^)]*)\)", query) for name in inside.split(",")
    ]
    chosen = [name for inside in re.findall(r"\{([^}]*)\}", query) for name in re.findall(r"(\w+)=", inside)]
    return {*groups, *chosen} - {""}


@pytest.mark.parametrize(("where", "query"), QUERIES)
def test_a_query_asks_for_what_is_emitted_by_labels_it_has(where: str, query: str) -> None:
    names = _names(query)
    assert names and names <= set(SERIES), where
    known = {RUN, *OF_RAY, *(label for name in names for label in SERIES[name].labels)}
    assert _labels(query) <= known, where


@pytest.mark.parametrize(("where", "query"), QUERIES)
def test_a_counter_is_asked_for_by_its_growth(where: str, query: str) -> None:
    for name in _names(query):
        if SERIES[name].kind is Kind.COUNTER and "cost" not in name:
            assert re.search(rf"(rate|increase)\({name}[{{\[]", query), where


def test_a_panel_that_names_no_metric_would_be_noticed() -> None:
    assert _names("sum by (run) (rate(ray_codedance_nothing_total[1m]))") == {"ray_codedance_nothing_total"}


def test_every_metric_is_on_a_dashboard_or_needs_none() -> None:
    shown = {SERIES[name].name for _, query in QUERIES for name in _names(query)}
    assert {metric.name for metric in METRICS} - shown == {"codedance_training_steps_planned"}


@pytest.mark.parametrize(
    ("kind", "query"),
    [
        (Kind.GAUGE, 'avg by (phase) (ray_codedance_judge_new{run=~"$run"})'),
        (Kind.COUNTER, 'sum by (phase) (rate(ray_codedance_judge_new{run=~"$run"}[$__rate_interval]))'),
        (
            Kind.HISTOGRAM,
            "histogram_quantile(0.5, sum by (le) "
            '(rate(ray_codedance_judge_new_bucket{run=~"$run"}[$__rate_interval])))',
        ),
    ],
)
def test_a_new_metric_gets_a_panel_by_its_kind(kind: Kind, query: str) -> None:
    new = Metric("codedance_judge_new", kind, Unit.SECONDS, "A metric that is new.", ("phase",))
    grown = with_default_panels(DASHBOARDS, [*METRICS, new])
    panels = [panel for page in grown for panel in page.panels]
    added = [panel for panel in panels if panel.queries[0][0] == query]
    assert len(added) == 1 and added[0].unit == "s" and added[0] in grown[-1].panels


@pytest.mark.parametrize("page", DASHBOARDS, ids=lambda page: page.uid)
def test_grafana_gets_panels_that_do_not_overlap_and_say_what_they_show(page: object) -> None:
    made = json.loads(json.dumps(grafana(page)))  # type: ignore[arg-type]
    places = [(item["gridPos"]["x"], item["gridPos"]["y"]) for item in made["panels"]]
    assert len(set(places)) == len(places) and max(x for x, _ in places) < 24
    assert len({item["id"] for item in made["panels"]}) == len(places)
    assert all(len(item["description"]) > 20 and item["targets"] for item in made["panels"])


def test_a_query_for_prometheus_itself_has_no_variable_of_grafana() -> None:
    assert not any("$" in runnable(query) for _, query in PANELS)


@pytest.mark.parametrize("page", DASHBOARDS, ids=lambda page: page.uid)
def test_grafanas_own_types_read_the_json_and_lose_nothing(page: Dashboard) -> None:
    given = json.loads(json.dumps(grafana(page)))
    read = json.loads(JSONEncoder().encode(GrafanaDashboard.from_json(given)))
    assert list(_lost(given, read)) == []


def _lost(given: object, read: object, path: str = "") -> Iterator[str]:
    """Yields paths at which the read JSON differs from the given one; Grafana may add defaults."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            yield from _lost(value, read.get(key), f"{path}/{key}")
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for index, pair in enumerate(zip(given, read, strict=True)):
            yield from _lost(*pair, f"{path}/{index}")
    elif given != read:
        yield path


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    (group,) = rules()["groups"]
    assert len({rule["alert"] for rule in group["rules"]}) == len(ALERTS) == 5
    for alert in ALERTS:
        assert "$labels" in alert.what and len(alert.cure) > 40


def test_rays_set_up_keeps_what_it_has_and_gets_ours_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR", raising=False)
    folder = tmp_path / "metrics"
    (folder / "prometheus").mkdir(parents=True)
    of_ray = {"global": {"scrape_interval": "10s"}, "scrape_configs": [{"job_name": "ray"}], "rule_files": ["own.yml"]}
    (folder / "prometheus" / "prometheus.yml").write_text(yaml.safe_dump(of_ray))
    provision(folder)
    written = provision(folder)
    config = yaml.safe_load(written.prometheus.read_text())
    assert config["rule_files"] == ["own.yml", str(folder / "prometheus" / RULES_FILE)]
    assert config["scrape_configs"] == of_ray["scrape_configs"]
    assert {path.stem for path in written.dashboards.glob("*.json")} == {page.uid for page in DASHBOARDS}
    assert yaml.safe_load((folder / "prometheus" / RULES_FILE).read_text()) == rules()
    assert not list(folder.rglob("*.partial"))


def test_dashboards_go_to_the_folder_that_ray_was_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's set-up has Grafana look there and nowhere else."""
    monkeypatch.setenv("RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR", str(tmp_path / "boards"))
    written = provision(tmp_path / "metrics")
    assert written.dashboards == tmp_path / "boards"
    assert {path.stem for path in written.dashboards.glob("*.json")} == {page.uid for page in DASHBOARDS}
    assert not (tmp_path / "metrics" / "grafana").exists()


def test_without_rays_dashboard_the_targets_are_those_given(tmp_path: Path) -> None:
    written = provision(tmp_path, ["127.0.0.1:1234"])
    (scrape,) = yaml.safe_load(written.prometheus.read_text())["scrape_configs"]
    (file,) = scrape["file_sd_configs"][0]["files"]
    assert json.loads(Path(file).read_text())[0]["targets"] == ["127.0.0.1:1234"]


def test_without_a_cluster_the_error_says_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_METRICS_OUTPUT_ROOT", raising=False)
    with pytest.raises(UserError, match="ray start --head"):
        metrics_folder(tmp_path)
    monkeypatch.setenv("RAY_METRICS_OUTPUT_ROOT", str(tmp_path))
    assert metrics_folder(tmp_path / "none") == tmp_path
