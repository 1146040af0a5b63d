"""Prediction tables as VLMEvalKit writes and scores them, so that a second harness can score the same replies.

With `PRED_FORMAT=tsv` VLMEvalKit reads `MODEL_DATASET.tsv`: the columns of its dataset without the image, and
`prediction`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from codedance_verl.grading.rules.alternatives import alternatives_of
from codedance_verl.harness.measured import Measured
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.tasks.item import Item

DATASETS = {
    "countbench": "CountBenchQA",
    "vstar": "VStarBench",
    "hrbench_4k": "HRBench4K",
    "hrbench_8k": "HRBench8K",
    "chartqa": "ChartQA_TEST",
    "charxiv": "CharXiv_reasoning_val",
    "mathvision": "MathVision",
    "mathvision_testmini": "MathVision_MINI",
    "mathvista": "MathVista_MINI",
    "mathverse": "MathVerse_MINI",
    "mathverse_text_dominant": "MathVerse_MINI_Text_Dominant",
    "mathverse_text_lite": "MathVerse_MINI_Text_Lite",
    "mathverse_vision_intensive": "MathVerse_MINI_Vision_Intensive",
    "mathverse_vision_dominant": "MathVerse_MINI_Vision_Dominant",
    "mathverse_vision_only": "MathVerse_MINI_Vision_Only",
    "wemath": "WeMath",
}
"""VLMEvalKit's names by those of this project; it has no PixmoCount."""

FAILED = "Failed to obtain answer via API."
"""VLMEvalKit's own prediction for an item without a reply, which its scorers take for wrong."""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# What pandas reads as a missing value, which VLMEvalKit would score as the text "nan".
_READ_AS_MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
    | {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
_FILE_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def table_path(folder: Path, model: str, task: str) -> Path | None:
    """File that VLMEvalKit would look for, in a folder; None for a benchmark that it does not have."""
    if task not in DATASETS:
        return None
    # a model named by `./folder` must make no hidden file
    return folder / f"{_FILE_NAME.sub('_', model).strip('._') or 'model'}_{DATASETS[task]}.tsv"


def write_table(path: Path, measured: Iterable[Measured]) -> None:
    """Writes the first reply to each item atomically. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # half a surrogate pair has no UTF-8
    write_atomically(path, table([one for one in measured if one.sample == 0]).encode("utf-8", "replace"))


def table(measured: Sequence[Measured]) -> str:
    """Table of replies with tabs: index, question, options, answer, strata, prediction.

    An empty reply is a blank, and one that pandas would read as a missing value has a blank behind it.
    """
    most = max((len(one.item.choices) for one in measured), default=0)
    letters = _LETTERS[:most]
    strata = sorted({name for one in measured for name in one.item.strata})
    out = io.StringIO()
    # the module's own end of a row has a carriage return
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(["index", "question", *letters, "answer", *strata, "prediction"])
    writer.writerows(_row(one, len(letters), strata) for one in measured)
    return out.getvalue()


def _row(one: Measured, options: int, strata: Sequence[str]) -> list[str]:
    item = one.item
    choices = list(item.choices[:options])  # columns of options are single letters, and end with Z
    cells = [item.id, item.question, *choices, *[""] * (options - len(choices)), _answer(item)]
    cells += [item.strata.get(name, "") for name in strata]
    return [_cell(cell) for cell in cells] + [_prediction(one)]


def _answer(item: Item) -> str:
    # the table has one cell for what may be several right answers
    return "" if item.truth is None else alternatives_of(item.truth)[0]


def _prediction(one: Measured) -> str:
    if one.reply is None:
        return FAILED
    text = _cell(one.reply.text)
    return f"{text} " if text in _READ_AS_MISSING else text


def _cell(text: str) -> str:
    """Text without what readers of tables stumble over: NUL, and carriage returns, which end a row for some."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
