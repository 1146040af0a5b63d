"""Writer of finished rollouts to `<run>/trajectories`: one JSON line each, images stored once under their hash."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import xxhash
from PIL import Image

from codedance_verl.isolated.plain import plain_extra_info
from codedance_verl.metrics import catalogue, emit
from codedance_verl.runtime.atomic import replacing
from codedance_verl.trajectories import disk
from codedance_verl.trajectories.schema import (
    VERSION,
    Advantage,
    ExecutionRecord,
    GradeRecord,
    ImageRef,
    Timing,
    TrajectoryRecord,
    TurnRecord,
    encode,
)
from codedance_verl.types import Execution, Grade, RenderedImage, RewardTerms, Trajectory, Turn, label_of

logger = logging.getLogger(__name__)

LOOKS_PER_LIMIT = 50
"""A worker measures the disk each time it has written this fraction of the limit."""

ENCODED_KEPT = 16
"""Images of questions that are kept as PNG, the ones used last."""


class TrajectoryLog:
    """Appends rollouts of one worker process. Several workers write side by side, each to files of its own.

    Layout: `<folder>/{train,val}/step_<6 digits>.<worker>.jsonl` and `<folder>/images/<sha256>.png`. Every line is
    flushed whole, so the log can be read during the run.

    With `max_bytes` the folder is kept within that by a thread (`codedance_verl.trajectories.disk`); where only
    validation is left to delete, rollouts of training are no longer written.
    """

    def __init__(self, folder: Path, worker: str, max_bytes: int | None = None) -> None:
        self._folder = folder
        self._worker = worker
        self._max_bytes = max_bytes
        self._unlooked = max_bytes or 0  # the first line already looks at what an earlier run has left
        self._full = False
        self._fails = False
        self._encoded: dict[str, RenderedImage] = {}
        self._looking: threading.Thread | None = None

    @contextlib.contextmanager
    def group(self, split: str) -> Iterator[None]:
        """Write a group inside the block. One that cannot be written is counted, and still trained on."""
        failed = False
        try:
            yield
        except OSError as error:
            failed = True
            if not self._fails:  # once until it works again: a disk that is full fails every group
                logger.warning(
                    "trajectories cannot be written to %s (%s); the run continues without them", self._folder, error
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
        input_images: Sequence[Image.Image],
        timing: Mapping[str, float],
        advantage: Mapping[str, Any] | None = None,
        image_hashes: Sequence[str] = (),
    ) -> None:
        """Append one rollout.

        `input_images` are the question's as the model saw them, `image_hashes` those of the whole images they were made
        of (`images.pixels_sha256`), which code can compare with what it got; logged as `pixels_sha256` of each.
        `advantage` holds `sequence` and `turns` as `schema.Advantage` has them; None where it is not known.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        if self._full and split == "train":
            # Counts a little as if written, so that the disk is measured again: space may have been made.
            self._wrote((self._max_bytes or 0) // (100 * LOOKS_PER_LIMIT))
            return
        record = TrajectoryRecord(
            version=VERSION,
            step=step,
            split=split,
            group=group,
            sample=sample,
            record_id=trajectory.record_id,
            data_source=trajectory.data_source,
            kind=label_of(extra_info.get("kind")) or trajectory.data_source,
            difficulty=label_of(extra_info.get("difficulty")),
            variant=label_of(extra_info.get("variant")),
            control=label_of(extra_info.get("control")),
            format=trajectory.format,
            question=trajectory.question,
            ground_truth=trajectory.ground_truth,
            extra_info=plain_extra_info(trajectory.extra_info),
            input_images=tuple(
                self._store(self._rendered(image), pixels)
                for image, pixels in zip(input_images, chain(image_hashes, repeat(None)), strict=False)
            ),
            turns=tuple(self._turn(turn) for turn in trajectory.turns),
            finish=trajectory.finish,
            answer=trajectory.answer,
            style=trajectory.style,
            grade=GradeRecord(grade.verdict, grade.rule, grade.evidence),
            reward=terms,
            advantage=Advantage(**advantage) if advantage is not None else None,
            timing=Timing(**timing),
            written_at=time.time(),
            branch=trajectory.branch,
        )
        path = self._folder / split / f"step_{step:06d}.{self._worker}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        line = encode(record)
        append_line(path, line)
        self._wrote(len(line))

    def _wrote(self, count: int) -> None:
        """Measure the disk, in a thread, once enough was written since the last time."""
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

    def _turn(self, turn: Turn) -> TurnRecord:
        return TurnRecord(
            text=turn.text,
            code=turn.code,
            observation=turn.observation.text if turn.observation is not None else None,
            execution=self._execution(turn.execution) if turn.execution is not None else None,
            tokens=turn.token_end - turn.token_start,
            images_shown=turn.observation.images if turn.observation is not None else None,
        )

    def _execution(self, execution: Execution) -> ExecutionRecord:
        return ExecutionRecord(**execution.as_record([self._store(image) for image in execution.images]))

    def _store(self, image: RenderedImage, pixels_sha256: str | None = None) -> ImageRef:
        relative = f"images/{image.sha256}.png"
        target = self._folder / relative
        try:
            os.utime(target)  # marks it as in use: `disk` leaves young images alone
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            # without a flush, as lines are: a crash of the machine may cost both
            with replacing(target, writer=f"{self._worker}.{os.getpid()}", durable=False) as partial:
                partial.write_bytes(image.png)
            self._wrote(len(image.png))
        return ImageRef(image.sha256, image.width, image.height, relative, pixels_sha256)

    def _rendered(self, image: Image.Image) -> RenderedImage:
        """The image as PNG; the rollouts of a prompt share theirs, and making one costs more than all the rest."""
        # Hashing the pixels costs less than a hundredth of encoding them.
        key = f"{image.mode} {image.size} {xxhash.xxh3_128_hexdigest(image.tobytes())}"
        if (found := self._encoded.pop(key, None)) is None:
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            png = buffer.getvalue()
            found = RenderedImage(hashlib.sha256(png).hexdigest(), image.width, image.height, png)
        self._encoded[key] = found  # reinserted behind the others: a dict keeps the order, the first is the oldest
        while len(self._encoded) > ENCODED_KEPT:
            del self._encoded[next(iter(self._encoded))]
        return found


def append_line(path: Path, line: bytes) -> None:
    """Appends a line, or nothing: half a line would spoil the next one. Raises OSError, after nothing was added."""
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(line)
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, size)
        raise
