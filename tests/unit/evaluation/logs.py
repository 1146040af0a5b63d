"""Builds trajectory logs and test files as the rollout workers and the data generators write them."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from codedance_verl.evaluation.outcomes import Outcome
from codedance_verl.types import FinishReason, Verdict

Line = dict[str, Any]


def png(colour: str = "red", size: tuple[int, int] = (8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def image(data: bytes, width: int = 8, height: int = 6) -> Line:
    sha256 = hashlib.sha256(data).hexdigest()
    return {"sha256": sha256, "width": width, "height": height, "path": f"images/{sha256}.png"}


def code_turn(status: str = "ok", code: str = "print(1)", stdout: str = "1\n", images: Sequence[Line] = ()) -> Line:
    error = (
        {"kind": "ValueError", "message": "no", "traceback": "line 1: ValueError: no"} if status == "error" else None
    )
    return {
        "text": f"<think>look</think>\n<code>\n```python\n{code}\n```\n</code>",
        "code": code,
        "observation": "<tool_response>\n1\n</tool_response>",
        "execution": {
            "status": status,
            "stdout": stdout,
            "error": error,
            "images": list(images),
            "duration_s": 0.01,
            "queue_s": 0.0,
            "truncated": [],
        },
    }


def answer_turn(answer: str = "3") -> Line:
    return {
        "text": f"<think>so</think>\n<answer>{answer}</answer>",
        "code": None,
        "observation": None,
        "execution": None,
    }


def line(
    record_id: str = "count-0",
    *,
    step: int = 0,
    split: str = "val",
    sample: int = 0,
    kind: str = "count_photo",
    difficulty: str | None = "hard",
    variant: str | None = "sampled",
    calls: Sequence[str] = ("ok",),
    verdict: str = "correct",
    finish: str = "answer",
    well_formed: bool = True,
    question: str = "How many red discs?",
    answer: str | None = "3",
    turns: Sequence[Line] | None = None,
    input_images: Sequence[Line] = (),
    timing: tuple[float, float, float] = (1.0, 0.5, 0.0),
) -> Line:
    """One rollout: a code turn per entry of `calls` (execution statuses), then the answer."""
    built = [*(code_turn(status) for status in calls), answer_turn(answer or "")] if turns is None else list(turns)
    accuracy = float(verdict == "correct")
    return {
        "step": step,
        "split": split,
        "group": f"g-{record_id}",
        "sample": sample,
        "record_id": record_id,
        "data_source": f"codedance_demo/{kind}",
        "kind": kind,
        "difficulty": difficulty,
        "variant": variant,
        "question": question,
        "ground_truth": "3",
        "input_images": list(input_images),
        "turns": built,
        "finish": finish,
        "answer": answer,
        "grade": {"verdict": verdict, "rung": "number", "evidence": ""},
        "reward": {
            "accuracy": accuracy,
            "format": 0.0 if well_formed else -1.0,
            "difficulty": 0.3,
            "sequence": 0.0,
            "score": accuracy,
            "turns": [0.0] * len(built),
            "masked": finish == "infrastructure",
        },
        "timing": {"generate_s": timing[0], "execute_s": timing[1], "queue_s": timing[2], "total_s": sum(timing)},
    }


def write_log(
    folder: Path, lines: Iterable[Line], *, worker: str = "w0", tail: str = "", written_at: float | None = None
) -> list[Path]:
    """Write lines to the files of their split and step below `folder`; `tail` is appended raw to each file."""
    paths: dict[Path, list[str]] = {}
    for item in lines:
        path = folder / item["split"] / f"step_{item['step']:06d}.{worker}.jsonl"
        paths.setdefault(path, []).append(json.dumps(item))
    for path, texts in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(texts) + "\n" + tail, encoding="utf-8")
        if written_at is not None:
            os.utime(path, (written_at, written_at))
    return list(paths)


def write_test_file(path: Path, lines: Iterable[Line]) -> Path:
    """The test file whose rows these rollouts answer."""
    names = ("record_id", "variant", "kind", "difficulty", "ground_truth")
    keys = {tuple(item[name] for name in names): None for item in lines}
    infos = [dict(zip(names[:-1], key, strict=False)) for key in keys]
    truths = [{"style": "rule", "ground_truth": key[-1]} for key in keys]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"extra_info": infos, "reward_model": truths}), path)
    return path


def outcome(
    record_id: str = "q0",
    correct: bool = True,
    *,
    variant: str | None = "sampled",
    kind: str = "count_photo",
    difficulty: str | None = "hard",
    executed: int = 1,
    succeeded: int | None = None,
    turns: int = 2,
    well_formed: bool = True,
    finish: FinishReason = FinishReason.ANSWER,
    verdict: Verdict | None = None,
    sample: int = 0,
) -> Outcome:
    return Outcome(
        record_id=record_id,
        sample=sample,
        variant=variant,
        kind=kind,
        difficulty=difficulty,
        finish=finish,
        verdict=verdict or (Verdict.CORRECT if correct else Verdict.WRONG),
        executed=executed,
        succeeded=executed if succeeded is None else succeeded,
        turns=turns,
        well_formed=well_formed,
        score=float(correct),
    )
