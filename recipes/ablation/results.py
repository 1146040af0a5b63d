"""Result of a run, as a small file: `python -m recipes.ablation.results` writes it when the run has ended.

A comparison takes hours or days. These files outlive the folders of its runs, can be moved to another machine, where
the comparison goes on, and are all that table and plot are drawn from.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codedance_verl.errors import UserError
from codedance_verl.evaluation.outcomes import EvaluationRun, Outcome, Question, read_evaluation, read_questions
from codedance_verl.runtime.atomic import replacing
from codedance_verl.types import FinishReason, Verdict
from recipes.ablation.variants import run_name
from recipes.cpu_demo.markers import fingerprint

VERSION = 2
"""Files of another version hold answers to other questions, and count as not there."""

_KEY = b"codedance"
_START = "start.parquet"


@dataclass(frozen=True)
class Origin:
    """Settings that runs have to share to be compared.

    Attributes:
        steps: RL steps; 0 for the model that training began with.
        model: hash of the SFT model that training began with.
        questions: hash of the file of questions that the evaluation asked.
    """

    steps: int
    model: str
    questions: str


@dataclass(frozen=True)
class Result:
    """The evaluation of one run, and what it came from."""

    origin: Origin
    evaluation: EvaluationRun


def result_file(folder: Path, variant: str, seed: int) -> Path:
    """Path of the result of one run."""
    return folder / f"{run_name(variant, seed)}.parquet"


def start_file(folder: Path) -> Path:
    """Path of the result of the model that training began with."""
    return folder / _START


def is_kept(path: Path) -> bool:
    """True where there is a result that can be read."""
    try:
        facts = json.loads((pq.read_schema(path).metadata or {})[_KEY])
        return bool(facts["version"] == VERSION)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return False


def write_result(result: Result, path: Path) -> None:
    """Writes a parquet file with a row a rollout, whole or not at all."""
    table = pa.Table.from_pylist([asdict(outcome) for outcome in result.evaluation.outcomes])
    facts = {
        "version": VERSION,
        "origin": asdict(result.origin),
        "missing": [asdict(question) for question in result.evaluation.missing],
        "cut_off": result.evaluation.cut_off,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        pq.write_table(table.replace_schema_metadata({_KEY: json.dumps(facts).encode()}), partial)


def read_result(path: Path) -> Result:
    """Raises UserError where there is no such file, or it is none of ours."""
    try:
        table = pq.read_table(path)
        facts = json.loads((table.schema.metadata or {})[_KEY])
        if facts["version"] != VERSION:
            raise ValueError(f"version {facts['version']}, this code reads {VERSION}")
        evaluation = EvaluationRun(
            outcomes=tuple(_outcome(row) for row in table.to_pylist()),
            missing=tuple(Question(**question) for question in facts["missing"]),
            cut_off=facts["cut_off"],
        )
        return Result(Origin(**facts["origin"]), evaluation)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not the result of a run ({error}); delete it and run the ablation again") from None


def only_asked(evaluation: EvaluationRun, test_file: Path) -> EvaluationRun:
    """The part of an evaluation that answers the rows of another test file, for a run that was asked more."""
    asked = {(question.record_id, question.variant) for question in read_questions(test_file)}
    return EvaluationRun(
        outcomes=tuple(item for item in evaluation.outcomes if (item.record_id, item.variant) in asked),
        missing=tuple(item for item in evaluation.missing if (item.record_id, item.variant) in asked),
        cut_off=evaluation.cut_off,
    )


def _outcome(row: dict[str, Any]) -> Outcome:
    known = {field.name: row[field.name] for field in fields(Outcome)}
    return Outcome(**{**known, "finish": FinishReason(row["finish"]), "verdict": Verdict(row["verdict"])})


def main(arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.ablation.results", description="Keeps what a run has measured in a small file."
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--test", type=Path, required=True, help="the questions of the comparison, a parquet file")
    parser.add_argument("--evaluated", type=Path, help="test file of the run, where it holds more than --test")
    parser.add_argument("--model", type=Path, required=True, help="the SFT model that training began with")
    parser.add_argument("--steps", type=int, required=True, help="RL steps; 0 for the model itself")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args(arguments)
    origin = Origin(options.steps, fingerprint((), (options.model,)), fingerprint((), (options.test,)))
    try:
        evaluation = read_evaluation(options.run / "trajectories", options.evaluated or options.test)
        write_result(Result(origin, only_asked(evaluation, options.test)), options.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
