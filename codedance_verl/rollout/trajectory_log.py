"""Writes finished rollouts to `<run>/trajectories`: one JSON line each, images stored once under their hash."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from codedance_verl.types import Execution, Grade, RenderedImage, RewardTerms, Trajectory


class TrajectoryLog:
    """Appends rollouts of one worker process. Several workers write side by side, each to files of its own.

    Layout: `<folder>/{train,val}/step_<6 digits>.<worker>.jsonl` and `<folder>/images/<sha256>.png`. Every line is
    flushed whole, so the log can be read while the run goes on.
    """

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder = folder
        self._worker = worker

    def write(
        self,
        trajectory: Trajectory,
        grade: Grade,
        terms: RewardTerms,
        *,
        step: int,
        split: str,
        group: str,
        sample: int,
        extra_info: Mapping[str, Any],
        observations: tuple[str, ...],
        input_images: list[Image.Image],
        timing: Mapping[str, float],
    ) -> None:
        """Append one rollout.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        record = {
            "step": step,
            "split": split,
            "group": group,
            "sample": sample,
            "record_id": trajectory.record_id,
            "data_source": trajectory.data_source,
            "kind": extra_info.get("kind", trajectory.data_source),
            "difficulty": extra_info.get("difficulty"),
            "variant": extra_info.get("variant"),
            "format": trajectory.format,
            "question": trajectory.question,
            "ground_truth": trajectory.ground_truth,
            "input_images": [self._store(_rendered(image)) for image in input_images],
            "turns": self._turns(trajectory, observations),
            "finish": trajectory.finish,
            "answer": trajectory.answer,
            "grade": asdict(grade),
            "reward": asdict(terms),
            "timing": dict(timing),
        }
        path = self._folder / split / f"step_{step:06d}.{self._worker}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def _turns(self, trajectory: Trajectory, observations: tuple[str, ...]) -> list[dict[str, Any]]:
        told = iter(observations)
        return [
            {
                "text": turn.text,
                "code": turn.code,
                "observation": next(told, None) if turn.execution is not None else None,
                "execution": self._execution(turn.execution) if turn.execution is not None else None,
            }
            for turn in trajectory.turns
        ]

    def _execution(self, execution: Execution) -> dict[str, Any]:
        return {
            "status": execution.status,
            "stdout": execution.stdout,
            "error": asdict(execution.error) if execution.error is not None else None,
            "images": [self._store(image) for image in execution.images],
            "duration_s": execution.duration_s,
            "queue_s": execution.queue_s,
            "truncated": list(execution.truncated),
        }

    def _store(self, image: RenderedImage) -> dict[str, Any]:
        relative = f"images/{image.sha256}.png"
        target = self._folder / relative
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(f".{self._worker}.{os.getpid()}.partial")
            partial.write_bytes(image.png)
            partial.replace(target)
        return {"sha256": image.sha256, "width": image.width, "height": image.height, "path": relative}


def _rendered(image: Image.Image) -> RenderedImage:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    png = buffer.getvalue()
    return RenderedImage(hashlib.sha256(png).hexdigest(), image.width, image.height, png)
