"""Writes finished rollouts to `<run>/trajectories`: one JSON line each, images stored once under their hash."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import xxhash
from PIL import Image

from codedance_verl.isolated.plain import plain_extra_info
from codedance_verl.metrics import catalogue, emit
from codedance_verl.trajectories import disk
from codedance_verl.types import Execution, Grade, RenderedImage, RewardTerms, Trajectory, label_of

logger = logging.getLogger(__name__)

LOOKS_PER_LIMIT = 50
"""The disk is looked at each time a worker has written this part of the limit."""

ENCODED_KEPT = 16
"""Pictures of questions that are kept as PNG, the ones used last."""


class TrajectoryLog:
    """Appends rollouts of one worker process. Several workers write side by side, each to files of its own.

    Layout: `<folder>/{train,val}/step_<6 digits>.<worker>.jsonl` and `<folder>/images/<sha256>.png`. Every line is
    flushed whole, so the log can be read while the run goes on.

    With `max_bytes` the folder is kept within that by a thread (`codedance_verl.trajectories.disk`); where only
    validation is left to delete, rollouts of training are no longer written.
    """

    def __init__(self, folder: Path, worker: str, max_bytes: int | None = None) -> None:
        self._folder = folder
        self._worker = worker
        self._max_bytes = max_bytes
        self._unlooked = max_bytes or 0  # what a run before this one has left is looked at with the first line
        self._full = False
        self._fails = False
        self._encoded: dict[str, RenderedImage] = {}
        self._looking: threading.Thread | None = None

    @contextlib.contextmanager
    def group(self, split: str) -> Iterator[None]:
        """Inside the block a group is written. One that cannot be is counted, and what was rolled out is not lost."""
        failed = False
        try:
            yield
        except OSError as error:
            failed = True
            if not self._fails:  # once until it works again: a disk that is full fails every group
                logger.warning(
                    "trajectories cannot be written to %s (%s); the run goes on without them", self._folder, error
                )
        self._fails = failed
        emit.add(catalogue.ROLLOUT_UNWRITTEN, failed, split=split)

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
        advantage: Mapping[str, Any] | None = None,
        image_hashes: Sequence[str] = (),
    ) -> None:
        """Append one rollout.

        `input_images` are the question's as the model saw them, `image_hashes` those of the whole images they were made
        of (`images.pixels_sha256`), which code can compare with what it got; logged as `pixels_sha256` of each.
        `advantage` holds `sequence` and `turns` as `codedance_verl.reward.known` has them; None where not known.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        if self._full and split == "train":
            self._wrote((self._max_bytes or 0) // (100 * LOOKS_PER_LIMIT))  # so that it is looked at again
            return
        record = {
            "step": step,
            "split": split,
            "group": group,
            "sample": sample,
            "record_id": trajectory.record_id,
            "data_source": trajectory.data_source,
            "kind": label_of(extra_info.get("kind")) or trajectory.data_source,
            "difficulty": label_of(extra_info.get("difficulty")),
            "variant": label_of(extra_info.get("variant")),
            "format": trajectory.format,
            "question": trajectory.question,
            "ground_truth": trajectory.ground_truth,
            "extra_info": plain_extra_info(trajectory.extra_info),
            "input_images": [
                {**self._store(self._rendered(image)), "pixels_sha256": pixels}
                for image, pixels in zip(input_images, chain(image_hashes, repeat(None)), strict=False)
            ],
            "turns": self._turns(trajectory, observations),
            "finish": trajectory.finish,
            "answer": trajectory.answer,
            "style": trajectory.style,
            "grade": grade.to_json(),
            "reward": asdict(terms),
            "advantage": advantage,
            "timing": dict(timing),
            "written_at": time.time(),
        }
        path = self._folder / split / f"step_{step:06d}.{self._worker}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "replace")  # a text may hold half a pair
        _append(path, line)
        self._wrote(len(line))

    def _wrote(self, count: int) -> None:
        """Look at the disk, in a thread, once enough was written since."""
        if self._max_bytes is None:
            return
        self._unlooked += count
        idle = self._looking is None or not self._looking.is_alive()
        if idle and self._unlooked * LOOKS_PER_LIMIT >= self._max_bytes:
            self._unlooked = 0
            self._looking = threading.Thread(target=self._look, args=(self._max_bytes,), daemon=True)
            self._looking.start()

    def _look(self, max_bytes: int) -> None:
        try:
            usage = disk.enforce(self._folder, max_bytes)
        except OSError as error:
            logger.warning("trajectories.max_gib: the folder cannot be looked through (%s)", error)
            return
        full = usage.settled and usage.used > max_bytes
        if full and not self._full:
            logger.warning("trajectories.max_gib: nothing is left to delete; training is not written any more")
        self._full = full

    def _turns(self, trajectory: Trajectory, observations: tuple[str, ...]) -> list[dict[str, Any]]:
        told = iter(observations)
        return [
            {
                "text": turn.text,
                "tokens": turn.token_end - turn.token_start,
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
        try:
            os.utime(target)  # in use: `disk` leaves young pictures alone
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(f".{self._worker}.{os.getpid()}.partial")
            partial.write_bytes(image.png)
            partial.replace(target)
            self._wrote(len(image.png))
        return {"sha256": image.sha256, "width": image.width, "height": image.height, "path": relative}

    def _rendered(self, image: Image.Image) -> RenderedImage:
        """The picture as PNG; the rollouts of a prompt share theirs, and making one costs more than all the rest."""
        key = f"{image.mode} {image.size} {xxhash.xxh3_128_hexdigest(image.tobytes())}"
        if (found := self._encoded.pop(key, None)) is None:
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            png = buffer.getvalue()
            found = RenderedImage(hashlib.sha256(png).hexdigest(), image.width, image.height, png)
        self._encoded[key] = found
        while len(self._encoded) > ENCODED_KEPT:
            del self._encoded[next(iter(self._encoded))]
        return found


def _append(path: Path, line: bytes) -> None:
    """Append a line, or nothing: half a line would spoil the next one."""
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(line)
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, size)
        raise
