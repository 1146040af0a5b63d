"""Trajectories that a page shows: a few of each benchmark, with images of bounded number and size.

Replies, names and images come from a model, its code and data files: nothing here trusts them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from codedance_verl.formats import DEFAULT_FORMAT
from codedance_verl.grading.rules.alternatives import show_alternatives
from codedance_verl.harness.measured import Measured
from codedance_verl.harness.reply import Reply
from codedance_verl.tasks.item import Score, UnreadableImage
from codedance_verl.trajectories.schema import GradeRecord, ImageRef, Timing, TrajectoryRecord
from codedance_verl.types import FinishReason, RewardTerms, Verdict
from codedance_verl.viewer.trajectory_view import Bounds, TrajectoryView, trajectory_view

MAX_IMAGE_SIDE = 640
"""Pixels; larger images are made smaller before they are inlined."""

MAX_IMAGES = 120
"""Images of a page."""

MAX_IMAGE_BYTES = 12_000_000
"""Bytes of all images of a page, before base64."""

_FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP"]  # hostile files reach these decoders of Pillow alone
_QUALITY = 85
_BOUNDS = Bounds(chars=4_000, code=8_000, images=6, turns=20)
_INPUT_IMAGES = 4


@dataclass
class PageImages:
    """Images of one page, re-encoded and made smaller, up to a number and a size of all together.

    Attributes:
        folder: output folder of the run, which has `images/`.
        left_out: images that the bounds have kept from the page.
    """

    folder: Path
    most: int = MAX_IMAGES
    most_bytes: int = MAX_IMAGE_BYTES
    left_out: int = 0
    _number: int = field(default=0, repr=False)
    _bytes: int = field(default=0, repr=False)

    def of(self, encoded: bytes) -> str | None:
        """Data URI of an encoded image; None where it is broken or beyond the bounds."""
        if self._number >= self.most:
            self.left_out += 1
            return None
        try:
            with Image.open(io.BytesIO(encoded), formats=_FORMATS) as opened:
                opened.draft("RGB", (2 * MAX_IMAGE_SIDE, 2 * MAX_IMAGE_SIDE))  # a large JPEG is decoded smaller
                bounded = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
        return self._kept(bounded)

    def reference(self, image: ImageRef) -> str | None:
        """Data URI of an image that code returned; None where it is gone, broken or beyond the bounds."""
        try:
            encoded = image.file(self.folder).read_bytes()
        except OSError:
            return None
        return self.of(encoded)

    def _kept(self, image: Image.Image) -> str | None:
        image.thumbnail((MAX_IMAGE_SIDE, MAX_IMAGE_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=_QUALITY)
        # known only once it is encoded: the size of the source tells little
        if self._bytes + buffer.tell() > self.most_bytes:
            self.left_out += 1
            return None
        self._number += 1
        self._bytes += buffer.tell()
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@dataclass(frozen=True)
class ShownTrajectory:
    """Trajectory as a page shows it.

    Attributes:
        title: why it was chosen.
        item, sample: id of the item, and number of the reply.
        official, ours: verdicts in words.
        view: turns, bounded.
        inputs: data URIs of the question's images; None for one that is not shown.
        images: images of the page, for those that code returned.
    """

    title: str
    item: str
    sample: int
    official: str
    ours: str
    view: TrajectoryView
    inputs: tuple[str | None, ...]
    images: PageImages

    def image(self, image: ImageRef) -> str | None:
        """Data URI of an image that code returned."""
        return self.images.reference(image)


def _right(one: Measured) -> bool | None:
    """Verdict of the official rule, else of the grader; None where neither has one, or for a part of a point."""
    values = [score.value for score in (one.official, one.ours) if score is not None and score.value is not None]
    return {0.0: False, 1.0: True}.get(values[0]) if values else None


def _called(one: Measured) -> bool:
    return one.reply is not None and one.reply.calls > 0


_KINDS: tuple[tuple[str, Callable[[Measured], bool]], ...] = (
    ("Right, code ran", lambda one: _right(one) is True and _called(one)),
    ("Wrong, code ran", lambda one: _right(one) is False and _called(one)),
    ("Right, no code", lambda one: _right(one) is True and not _called(one)),
    ("Wrong, no code", lambda one: _right(one) is False and not _called(one)),
)


def choose(measured: Iterable[Measured]) -> tuple[tuple[str, Measured], ...]:
    """One reply of each kind, by whether it is right and whether code ran; those with returned images before others.

    Among equals the first counts. At most four are held, however many come.
    """
    found: dict[str, tuple[bool, Measured]] = {}
    for one in measured:
        for title, fits in _KINDS if one.reply is not None else ():
            if fits(one) and (title not in found or _has_images(one) > found[title][0]):
                found[title] = (_has_images(one), one)
    return tuple((title, found[title][1]) for title, _ in _KINDS if title in found)


def shown(title: str, one: Measured, images: PageImages, format_name: str = DEFAULT_FORMAT) -> ShownTrajectory:
    """A measured reply as the page shows it. Raises ValueError: it has no reply."""
    if one.reply is None:
        raise ValueError(f"item {one.item.id} has no reply")
    return ShownTrajectory(
        title=title,
        item=one.item.id,
        sample=one.sample,
        official=in_words(one.official),
        ours=in_words(one.ours),
        view=trajectory_view(trajectory_of(one, one.reply, format_name), _BOUNDS),
        inputs=tuple(_input(one, number, images) for number in range(min(len(one.item.images), _INPUT_IMAGES))),
        images=images,
    )


def trajectory_of(one: Measured, reply: Reply, format_name: str = DEFAULT_FORMAT) -> TrajectoryRecord:
    """Reply as a trajectory of the viewer's form. It has no reward; images of the question are not among its images.

    The verdict is that of the official rule where it has one, else of the grader.
    """
    right = _right(one)
    verdict = Verdict.UNGRADED if right is None else Verdict.CORRECT if right else Verdict.WRONG
    score = one.official or one.ours
    return TrajectoryRecord(
        step=0,
        split="eval",
        group=one.item.key,
        sample=one.sample,
        record_id=one.item.id,
        data_source=one.item.task,
        kind=one.item.task,
        difficulty=None,
        variant=None,
        format=format_name,
        question=one.item.question,
        ground_truth=show_alternatives(one.item.truth or ""),
        input_images=(),
        turns=reply.turns,
        finish=reply.finish or (FinishReason.ANSWER if reply.text else FinishReason.NO_ACTION),
        answer=reply.text or None,
        style=one.item.style,
        grade=GradeRecord(verdict, score.rule if score else ""),
        reward=RewardTerms(0.0, 0.0, 0.0, 0.0, 0.0, ()),  # an evaluation has none, and the form asks for one
        timing=reply.timing or Timing(0.0, 0.0, 0.0, 0.0),
    )


def in_words(score: Score | None) -> str:
    """Verdict in words, with the rule that gave it."""
    if score is None:
        return "not scored"
    if score.value is None:
        return f"no verdict ({score.reason or score.rule})"
    word = {0.0: "wrong", 1.0: "right"}.get(score.value, f"{score.value:.2f}")
    return f"{word} ({score.rule})"


def _input(one: Measured, number: int, images: PageImages) -> str | None:
    try:
        return images.of(one.item.images[number].read())
    except (UnreadableImage, OSError, ValueError):
        return None


def _has_images(one: Measured) -> bool:
    turns = one.reply.turns if one.reply is not None else ()
    return any(turn.execution is not None and bool(turn.execution.images) for turn in turns)
