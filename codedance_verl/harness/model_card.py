"""Model card of an evaluation for the Hugging Face Hub: `model-index` as YAML in front, then a table and settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from codedance_verl.harness.figures import OFFICIAL
from codedance_verl.harness.report import BenchmarkReport, EvaluationReport, ReportedFigure, Scoring
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.runtime.text import visible

_TASK = {"type": "visual-question-answering", "name": "Visual Question Answering"}
_BUDGET_CHARS = 400
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~!])")


def write_card(report: EvaluationReport, path: Path) -> None:
    """Writes the card atomically. Raises OSError."""
    write_atomically(path, card(report))


def card(report: EvaluationReport) -> str:
    """Text of the card: front matter, table with intervals and rules, budgets. Nothing that was not scored is in it."""
    front = yaml.safe_dump({"model-index": [model_index(report)]}, sort_keys=False, allow_unicode=True, width=1_000)
    return "\n".join(["---", front.rstrip("\n"), "---", "", *_body(report)]) + "\n"


def model_index(report: EvaluationReport) -> dict[str, Any]:
    """Entry of `model-index`: a result for each benchmark, with a metric for each figure, in percent."""
    results = [
        {
            "task": dict(_TASK),
            "dataset": {"type": one.source, "name": one.title, "revision": one.revision},
            "metrics": [_metric(scoring, figure) for scoring, figure in _figures(one)],
        }
        for one in report.benchmarks
        if any(_figures(one))
    ]
    return {"name": _line(report.model), "results": results}


def _metric(scoring: Scoring, figure: ReportedFigure) -> dict[str, Any]:
    value, found = figure.estimate.value, figure.estimate
    args: dict[str, Any] = {"rule": _line(scoring.rule)}
    if scoring.judge:
        args["judge" if scoring.which == OFFICIAL else "grader"] = _line(scoring.judge)
    if found.low is not None and found.high is not None:
        args["interval_95"] = [_percent(found.low), _percent(found.high)]
    return {
        "type": "accuracy",
        "name": f"{figure.name} ({scoring.which})",
        "value": _percent(value or 0.0),  # never 0.0 by default: `_figures` leaves out what has no value
        "args": args,
    }


def _body(report: EvaluationReport) -> Iterable[str]:
    yield "## Evaluation"
    yield ""
    control = f" under the control `{_plain(report.control)}`" if report.control else ""
    yield f"Measured with `codedance eval`{control} on {report.created}. Percent, with 95 % intervals by cluster."
    yield "Items without a score count as wrong; *official* is the benchmark's rule, *ours* the grader of codedance."
    yield ""
    yield "| benchmark | figure | scored by | value | items | without a score |"
    yield "|---|---|---|---|---|---|"
    for one in report.benchmarks:
        for scoring, figure in _figures(one):
            cells = [one.title, figure.name, scoring.which, figure.estimate.in_words, f"{figure.items:,}"]
            yield "| " + " | ".join(map(_plain, [*cells, f"{sum(scoring.without_score.values()):,}"])) + " |"
    yield from _faithfulness(report)
    yield ""
    yield "### Rules and budgets"
    for one in report.benchmarks:
        yield ""
        yield from _settings(one)
    yield from ("", *(f"{_plain(note)}." for note in report.notes))


def _faithfulness(report: EvaluationReport) -> Iterable[str]:
    """Table of the use of the evidence by calls; empty where none ran again."""
    found = [(one.title, one.faithfulness) for one in report.benchmarks if one.faithfulness and one.faithfulness.calls]
    if not found:
        return
    yield from ("", "### Faithfulness of calls", "")
    yield "Calls on record ran again with the evidence in the image altered. Percent of the calls that have a class."
    yield ""
    yield "| benchmark | use of the evidence | share | calls |"
    yield "|---|---|---|---|"
    for title, use in found:
        for row in use.classes:
            cells = (title, row.use.replace("_", " "), row.share.in_words, f"{row.calls:,} of {use.calls:,}")
            yield "| " + " | ".join(map(_plain, cells)) + " |"


def _settings(one: BenchmarkReport) -> Sequence[str]:
    lines = [f"- **{_plain(one.title)}**: `{one.source}` at `{one.revision[:12]}`, {one.denominator.items:,} items"]
    lines += [
        f"  - {scoring.which}: {_plain(scoring.rule)}" + (f" ({_plain(scoring.judge)})" if scoring.judge else "")
        for scoring in one.scorings
        if scoring.figures
    ]
    lines += [f"  - {_plain(name)}: {_plain(value[:_BUDGET_CHARS])}" for name, value in one.budget.items()]
    return [*lines, f"  - {_plain(one.denominator.note)}"] if one.denominator.note else lines


def _figures(one: BenchmarkReport) -> list[tuple[Scoring, ReportedFigure]]:
    return [
        (scoring, figure) for scoring in one.scorings for figure in scoring.figures if figure.estimate.value is not None
    ]


def _percent(share: float) -> float:
    return round(100 * share, 1)


def _plain(text: str) -> str:
    """Text on one line that Markdown and HTML take as it is."""
    return _MARKDOWN.sub(r"\\\1", _line(text))


def _line(text: str) -> str:
    return visible(" ".join(text.split()))
