"""Faithfulness of calls by execution: each is run again with the evidence of the image greyed, moved and swapped.

    findings = await faithfulness(pool, images, reply.turns, answer_of(reply.text), boxes)
    shares(findings)

No model and no judge are asked. `call_use.py` defines the classes. The cells of a trajectory are run in order in one
fresh session for each alteration, seven with the unchanged replay, and once more for a call without visible use that a
later call may need.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codedance_verl.harness.altered_images import LOCAL, OF_EVIDENCE, Alteration, Box, altered_files
from codedance_verl.harness.call_code import CodeFacts, facts_of, imports_of
from codedance_verl.harness.call_outputs import Output, images_differ, normalised, pixels
from codedance_verl.harness.call_use import CLASSES, Replayed, Signs, Use, signs_of, use_of
from codedance_verl.harness.replays import Call, Pool, calls_of, parts, replay
from codedance_verl.harness.stated_answers import Answer
from codedance_verl.images import decode
from codedance_verl.trajectories.schema import ImageRef, TurnRecord
from codedance_verl.types import RenderedImage

AT_ONCE = 4
"""Replays of a trajectory that run at the same time."""

_CARRIED = re.compile(r"\d{2,}(?:\.\d+)?|\w{4,}")
"""Words and numbers of a text that are not in code by chance."""


@dataclass(frozen=True)
class CallFinding:
    """Finding on a call.

    Attributes:
        turn: number of its turn, from 0.
        use: its class, or why it has none.
        signs: what it follows from; None for a call that was not replayed with altered images.
        boxes: evidence that was altered, in pixels of the first image.
        box_source: `benchmark`, `code` (constants that the call crops or slices by) or `image` (the whole of it).
        needed_by: turn of a later call whose output needs this one, for a call that is `USED` through it.
    """

    turn: int
    use: Use
    signs: Signs | None = None
    boxes: tuple[Box, ...] = ()
    box_source: str = ""
    needed_by: int | None = None


@dataclass(frozen=True)
class _Part:
    """Calls that shared a namespace, with what their replays need."""

    pool: Pool
    images: tuple[bytes, ...]
    calls: list[Call]
    answer: Answer
    at_once: asyncio.Semaphore

    async def replayed(self, calls: Sequence[Call]) -> dict[int, Output]:
        """Outputs with the images as they are."""
        async with self.at_once:
            return await replay(self.pool, self.images, calls)


async def faithfulness(
    pool: Pool,
    images: Sequence[bytes],
    turns: Sequence[TurnRecord],
    answer: Answer,
    boxes: Sequence[Box] = (),
    recorded: Path | None = None,
    at_once: int = AT_ONCE,
) -> tuple[CallFinding, ...]:
    """Findings on the calls of a trajectory, in order; calls that were refused have none.

    Args:
        pool: sessions, as `SandboxPool`. Faults of it cost the calls that they meet.
        images: encoded images of the question, as the trajectory had them.
        turns: of the trajectory, such as `Reply.turns`.
        answer: `stated_answers.answer_of` of the final text.
        boxes: evidence in pixels of the first image, from the benchmark. Empty: what each call crops or slices by
            constants, else the whole image. `DECORATIVE` then cannot mean another place.
        recorded: folder of the recorded images (`ImageFolder.folder`), to compare those of another encoder by pixels.
        at_once: replays that run at the same time.

    Raises:
        OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError: an image of the question cannot be decoded.
    """
    calls = calls_of(turns)
    known = [np.asarray(decode(data)) for data in images]
    # calls that timed out or ended their session are in no part, and stay failed
    found = {call.turn: CallFinding(call.turn, Use.FAILED) for call in calls}
    bound = asyncio.Semaphore(at_once)
    for part in parts(calls):
        group = _Part(pool, tuple(images), part, answer, bound)
        found |= {finding.turn: finding for finding in await _findings(group, known, tuple(boxes), recorded)}
    return tuple(found[call.turn] for call in calls)


def shares(findings: Sequence[CallFinding]) -> dict[str, int | float | None]:
    """Counts of all uses, calls that have a class, and the share of each class among these; None where none has."""
    counts = Counter(finding.use for finding in findings)
    classed = sum(counts[use] for use in CLASSES)
    found: dict[str, int | float | None] = {str(use): counts[use] for use in Use}
    found["classed"] = classed
    return found | {f"{use}_share": counts[use] / classed if classed else None for use in CLASSES}


# ---- one namespace ----


async def _findings(
    part: _Part, known: list[NDArray[np.uint8]], boxes: tuple[Box, ...], recorded: Path | None
) -> list[CallFinding]:
    unchanged = await part.replayed(part.calls)
    facts = facts_of([call.code for call in part.calls], [call.execution.succeeded for call in part.calls])
    evidence = [_evidence(boxes, fact, known) for fact in facts]
    # calls with the same evidence share replays, each of which runs all cells
    turns: dict[tuple[Box, ...], set[int]] = {}
    for call, (where, _) in zip(part.calls, evidence, strict=True):
        turns.setdefault(where, set()).add(call.turn)
    altered = {where: await _altered(part, where, of) for where, of in turns.items()}
    found = []
    seen = list(known)
    for call, fact, (where, source) in zip(part.calls, facts, evidence, strict=True):
        outputs = unchanged.get(call.turn), altered[where]
        whole = source == "image"
        finding = await asyncio.to_thread(_finding, part.answer, call, fact, *outputs, seen, recorded, whole)
        found.append(replace(finding, boxes=where, box_source=source) if finding.signs else finding)
        # after the finding: what a call shows is known to later ones alone
        seen += [pixels(image) for image in _shown(unchanged.get(call.turn), call)]
    return await _needed(part, found, unchanged, altered, evidence)


def _evidence(
    boxes: tuple[Box, ...], facts: CodeFacts, known: Sequence[NDArray[np.uint8]]
) -> tuple[tuple[Box, ...], str]:
    if boxes:
        return boxes, "benchmark"
    if facts.boxes:
        return facts.boxes, "code"
    height, width = known[0].shape[:2] if known else (0, 0)
    return ((0, 0, width, height),), "image"


async def _altered(part: _Part, boxes: tuple[Box, ...], turns: set[int]) -> dict[Alteration, dict[int, Output]]:
    """Outputs of these turns by alteration; images only where they are compared, since they may be large."""

    async def one(which: Alteration) -> dict[int, Output]:
        async with part.at_once:  # the altered files too, so that few of them are in memory
            images = await asyncio.to_thread(altered_files, part.images, boxes, which)
            found = await replay(part.pool, images, part.calls)
        kept = {turn: output for turn, output in found.items() if turn in turns}
        return kept if which in LOCAL else {turn: replace(output, images=()) for turn, output in kept.items()}

    outputs = await asyncio.gather(*map(one, Alteration))
    return dict(zip(Alteration, outputs, strict=True))


def _shown(output: Output | None, call: Call) -> Sequence[RenderedImage]:
    return output.images[: call.images_shown] if output is not None else ()


def _finding(
    answer: Answer,
    call: Call,
    facts: CodeFacts,
    unchanged: Output | None,
    altered: Mapping[Alteration, Mapping[int, Output]],
    known: Sequence[NDArray[np.uint8]],
    recorded: Path | None,
    whole: bool,
) -> CallFinding:
    if not call.execution.succeeded:
        return CallFinding(call.turn, Use.FAILED)
    if unchanged is None:
        return CallFinding(call.turn, Use.FAULT)
    if not _as_recorded(call, unchanged, recorded):
        return CallFinding(call.turn, Use.NOT_REPEATABLE)
    outputs = {which: found[call.turn] for which, found in altered.items() if call.turn in found}
    if not outputs:
        return CallFinding(call.turn, Use.FAULT)
    replayed = Replayed(unchanged, outputs, whole)
    signs = signs_of(replayed, facts, answer, call.images_shown, known)
    return CallFinding(call.turn, use_of(signs, facts), signs)


def _as_recorded(call: Call, output: Output, recorded: Path | None) -> bool:
    """True where a replay with the same images gave what was recorded."""
    same = output.succeeded and output.text == normalised(call.execution.stdout)
    kept = call.execution.images
    return (
        same and len(kept) == len(output.images) and all(map(_same_image, kept, output.images, [recorded] * len(kept)))
    )


def _same_image(kept: ImageRef, image: RenderedImage, recorded: Path | None) -> bool:
    if kept.sha256 == image.sha256:
        return True
    if recorded is None or (kept.width, kept.height) != (image.width, image.height):
        return False
    try:
        png = kept.file(recorded).read_bytes()
        return not images_differ(RenderedImage(kept.sha256, kept.width, kept.height, png), image)
    except (OSError, SyntaxError, ValueError):  # a recorded image that is gone or broken proves nothing
        return False


# ---- calls that later ones need ----


async def _needed(
    part: _Part,
    found: list[CallFinding],
    unchanged: Mapping[int, Output],
    altered: Mapping[tuple[Box, ...], Mapping[Alteration, Mapping[int, Output]]],
    evidence: Sequence[tuple[tuple[Box, ...], str]],
) -> list[CallFinding]:
    """Findings with calls lifted to `USED` whose variables, or printed values, a later `USED` call needs.

    From the last to the first, so that a chain of calls is lifted as a whole.
    """
    found = list(found)
    for place in reversed(range(len(found))):
        if found[place].use not in (Use.UNUSED, Use.DECORATIVE):
            continue
        later = [other for other in range(place + 1, len(found)) if found[other].use is Use.USED]
        # first what costs no replay
        needs = _quoting(part.calls, place, later, unchanged, altered[evidence[place][0]])
        if needs is None and later:
            needs = await _depending(part, place, later, unchanged)
        if needs is not None:
            found[place] = replace(found[place], use=Use.USED, needed_by=part.calls[needs].turn)
    return found


def _quoting(
    calls: Sequence[Call],
    place: int,
    later: Sequence[int],
    unchanged: Mapping[int, Output],
    altered: Mapping[Alteration, Mapping[int, Output]],
) -> int | None:
    """First later call with a value in its code that this one printed, and prints no longer with altered evidence."""
    turn = calls[place].turn
    # a value that its own code holds, a later call may have from there
    printed = set(_CARRIED.findall(unchanged[turn].text)) - set(_CARRIED.findall(calls[place].code))
    texts = (found[turn].text for which, found in altered.items() if turn in found and which in OF_EVIDENCE)
    gone = set().union(*(printed.difference(_CARRIED.findall(text)) for text in texts))
    earlier = {value for call in calls[:place] for value in _CARRIED.findall(call.code)}
    return next((other for other in later if (gone - earlier) & set(_CARRIED.findall(calls[other].code))), None)


async def _depending(part: _Part, place: int, later: Sequence[int], unchanged: Mapping[int, Output]) -> int | None:
    """First later call whose output differs when this call's statements are left out, imports and definitions kept."""
    kept = imports_of(part.calls[place].code)
    if kept is None:
        return None
    calls = [*part.calls[:place], replace(part.calls[place], code=kept), *part.calls[place + 1 :]]
    without = await part.replayed(calls)
    return next((other for other in later if _differ(part.calls[other].turn, unchanged, without)), None)


def _differ(turn: int, one: Mapping[int, Output], other: Mapping[int, Output]) -> bool:
    if turn not in one or turn not in other:  # without both replays nothing can be said
        return False
    left, right = one[turn], other[turn]
    if left.text != right.text or len(left.images) != len(right.images):
        return True
    return any(map(images_differ, left.images, right.images))
