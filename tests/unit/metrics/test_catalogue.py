"""The catalogue is complete and well formed, and code emits all of it, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from codedance_verl.metrics import catalogue
from codedance_verl.metrics.catalogue import METRICS, Kind, Metric, Unit

PACKAGE = Path(catalogue.__file__).parents[1]
VERBS = {"add": Kind.COUNTER, "set_gauge": Kind.GAUGE, "observe": Kind.HISTOGRAM}
SUFFIXES = {
    Unit.SECONDS: "_seconds",
    Unit.TIMESTAMP: "_timestamp_seconds",
    Unit.BYTES: "_bytes",
    Unit.RATIO: "_ratio",
    Unit.TOKENS_PER_SECOND: "_tokens_per_second",
    Unit.TRAJECTORIES_PER_SECOND: "_trajectories_per_second",
}
CONSTANTS = {name: value for name, value in vars(catalogue).items() if isinstance(value, Metric)}


def _emissions() -> Iterator[tuple[str, ast.Call]]:
    """Every `emit.add(catalogue.X, ...)` of the package: the name X, and the call."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="emit")), args=[ast.Attribute(attr=name), *_]):
                    yield name, node


def _named_elsewhere() -> set[str]:
    """Constants of the catalogue that stand in a table, from which code emits them."""
    named = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict):
                parts = [*node.keys, *node.values]
                named |= {part.attr for part in parts if isinstance(part, ast.Attribute) and part.attr in CONSTANTS}
    return named


def test_no_two_metrics_have_a_name_and_none_was_left_out() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS) == len(CONSTANTS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_named_as_prometheus_wants_it_and_says_what_it_is(metric: Metric) -> None:
    assert re.fullmatch(r"codedance_[a-z]+(_[a-z]+)+", metric.name)
    assert len(metric.description) > 20 and metric.description.endswith(".")
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert not {"le", "run", "record", "uid", "prompt", "session"} & set(metric.labels)
    stem = metric.name.removesuffix("_total")
    assert stem.endswith(SUFFIXES.get(metric.unit, ""))


def test_code_emits_every_metric_and_by_the_verb_of_its_kind() -> None:
    called = {name for name, _ in _emissions()}
    assert called <= set(CONSTANTS)
    assert called | _named_elsewhere() == set(CONSTANTS)


def test_every_call_gives_the_labels_of_its_metric() -> None:
    for name, call in _emissions():
        metric = CONSTANTS[name]
        assert isinstance(call.func, ast.Attribute)
        assert VERBS[call.func.attr] is metric.kind, name
        assert {keyword.arg for keyword in call.keywords} == set(metric.labels), name


def test_a_description_names_the_values_of_small_sets_of_labels() -> None:
    from codedance_verl.trainer.telemetry import PHASES
    from codedance_verl.types import ExecutionStatus, FinishReason

    for metric, values in (
        (catalogue.SANDBOX_CALLS, ExecutionStatus),
        (catalogue.ROLLOUT_TRAJECTORIES, FinishReason),
        (catalogue.TRAINING_PHASE, PHASES.values()),
    ):
        assert all(str(value) in metric.description for value in values), metric.name
