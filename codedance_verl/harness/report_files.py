"""Files of a finished evaluation: `report.json`, `report.html`, `model_card.md` and tables for VLMEvalKit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.harness.export import table_path, write_table
from codedance_verl.harness.model_card import write_card
from codedance_verl.harness.report import EvaluationReport, write_report
from codedance_verl.harness.report_build import ScoredBenchmark, evaluation_report
from codedance_verl.harness.report_html import write_html

REPORT, PAGE, CARD, TABLES = "report.json", "report.html", "model_card.md", "vlmevalkit"
"""Names in the output folder."""


@dataclass(frozen=True)
class Written:
    """The report, and the files that were written, the report first."""

    report: EvaluationReport
    files: tuple[Path, ...]


def write_files(
    out: Path, model: str, benchmarks: Sequence[ScoredBenchmark], others: Sequence[Path] = (), notes: Sequence[str] = ()
) -> Written:
    """Writes the files into the output folder of a run, each atomically.

    Args:
        out: folder of the run, which has `images/`, and `faithfulness/` where calls ran again.
        model, benchmarks, others, notes: as of `evaluation_report`.

    Raises:
        UserError: one of `others` cannot stand beside this run.
        OSError: a file cannot be written.
    """
    report = evaluation_report(model, benchmarks, others, notes, out)
    write_report(report, out / REPORT)
    write_html(report, out / PAGE, {one.task.name: one.measured for one in benchmarks}, out)
    write_card(report, out / CARD)
    return Written(report, (out / REPORT, out / PAGE, out / CARD, *_tables(out, model, benchmarks)))


def _tables(out: Path, model: str, benchmarks: Sequence[ScoredBenchmark]) -> tuple[Path, ...]:
    written = []
    for one in benchmarks:
        path = table_path(out / TABLES, model, one.task.name)
        if path is not None and one.measured:
            write_table(path, one.measured)
            written.append(path)
    return tuple(written)
