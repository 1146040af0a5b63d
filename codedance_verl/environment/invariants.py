"""Invariants of the tokens of a trajectory, checked after everything that is appended or cut.

A violation is a defect of this project or of a processor, never of the model; it costs the one trajectory, which is
masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_ROUNDING = 1e-6


class InvariantError(Exception):
    """Broken rule, with its place."""


@dataclass(frozen=True)
class VisionTokens:
    """Ids of the tokens that stand for images: one `pad` per merged patch, between `start` and `end`."""

    pad: int
    start: int
    end: int

    @classmethod
    def of(cls, processor: Any) -> VisionTokens:
        ids = processor.tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|vision_start|>", "<|vision_end|>"])
        return cls(*ids)


def check_lengths(ids: Sequence[int], prompt_length: int, mask: Sequence[int], logprobs: Sequence[float]) -> None:
    """Checks that mask and log-probs are as long as the response."""
    response = len(ids) - prompt_length
    if not len(mask) == len(logprobs) == response:
        raise InvariantError(f"{response} response tokens, {len(mask)} mask values, {len(logprobs)} log-probs")


def check_mask(mask: Sequence[int], spans: Sequence[tuple[int, int]]) -> None:
    """Checks that the mask is 1 exactly on sampled tokens; `spans` are the half-open spans of the turns, in order."""
    expected = [0] * len(mask)
    for start, end in spans:
        if not 0 <= start <= end <= len(mask):
            raise InvariantError(f"turn {start} to {end} is outside of a response of {len(mask)} tokens")
        expected[start:end] = [1] * (end - start)
    if expected != list(mask):
        at = next(index for index, (want, got) in enumerate(zip(expected, mask, strict=True)) if want != got)
        raise InvariantError(f"response token {at} has mask {mask[at]}, it was {'' if expected[at] else 'not '}sampled")


def check_logprobs(mask: Sequence[int], logprobs: Sequence[float]) -> None:
    """Checks that log-probs are those of sampled tokens: none above 0, and 0 for all other tokens."""
    for index, (sampled, value) in enumerate(zip(mask, logprobs, strict=True)):
        if value > _ROUNDING or (not sampled and value != 0.0):
            raise InvariantError(f"response token {index} with mask {sampled} has log-prob {value}")


def check_images(ids: Sequence[int], vision: VisionTokens, features: Sequence[int]) -> None:
    """Checks that every image has its placeholders, whole and between its marks.

    `features`: merged patches of each image, in order.
    """
    found = list(_runs(ids, vision))
    if found != list(features):
        raise InvariantError(f"placeholders of {found} patches for images of {list(features)}")


def _runs(ids: Sequence[int], vision: VisionTokens) -> Iterator[int]:
    """Yields the lengths of the runs of placeholders; raises `InvariantError` for one not between marks of its own."""
    open_at: int | None = None
    for index, token in enumerate(ids):
        if token == vision.start:
            if open_at is not None:
                raise InvariantError(f"token {index} begins an image within the one that begins at {open_at}")
            open_at = index
        elif token == vision.end:
            if open_at is None:
                raise InvariantError(f"token {index} ends an image that never began")
            yield index - open_at - 1
            open_at = None
        elif (token == vision.pad) != (open_at is not None):
            raise InvariantError(f"token {index} is {'outside' if open_at is None else 'inside'} of an image")
    if open_at is not None:
        raise InvariantError(f"the image that begins at {open_at} does not end")


def check_sampled(response_ids: Sequence[int], spans: Sequence[tuple[int, int]], reserved: frozenset[int]) -> None:
    """Checks that no sampled token is one of those that only the chat template may write."""
    for start, end in spans:
        for index in range(start, end):
            if response_ids[index] in reserved:
                raise InvariantError(f"response token {index} was sampled and is the reserved {response_ids[index]}")
