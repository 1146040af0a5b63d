"""Token book-keeping of one trajectory: the sampled tokens are the ones that are trained.

Invariants are checked after everything that is appended or cut. A violation is a defect of this project or of a
processor, never of the model; it costs the one trajectory, which is masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class SpecialTokens:
    """Special tokens of a tokenizer.

    `reserved` holds those that only the chat template may write; those that end a turn are not among them. `vision` is
    None for a model without images.
    """

    reserved: frozenset[int] = frozenset()
    vision: VisionTokens | None = None


@dataclass
class TokenStream:
    """Prompt and response tokens of a trajectory as it grows; every append is checked.

    `mask` is 1 exactly on sampled tokens; `logprobs` (natural log, rollout policy) is 0.0 elsewhere. Both are as long
    as the response, that is `ids[prompt_length:]`. `features` are the merged patches of each image, in order; `spans`
    are the half-open spans of the response that were sampled. All methods that append raise `InvariantError`, and
    leave the stream as it was, when it would break a rule.
    """

    ids: list[int]
    prompt_length: int
    special_tokens: SpecialTokens = field(default_factory=SpecialTokens)
    features: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def from_prompt(
        cls, prompt_ids: Sequence[int], special_tokens: SpecialTokens | None = None, features: Sequence[int] = ()
    ) -> TokenStream:
        stream = cls(list(prompt_ids), len(prompt_ids), special_tokens or SpecialTokens(), list(features))
        stream.check()
        return stream

    @property
    def response_ids(self) -> list[int]:
        return self.ids[self.prompt_length :]

    @property
    def response_length(self) -> int:
        return len(self.mask)

    def first(self, length: int, images: int) -> TokenStream:
        """Returns a copy of the prompt and the first `length` response tokens, which hold the first `images` images."""
        stream = TokenStream(
            self.ids[: self.prompt_length + length],
            self.prompt_length,
            self.special_tokens,
            self.features[:images],
            self.mask[:length],
            self.logprobs[:length],
            [span for span in self.spans if span[1] <= length],
        )
        stream.check()
        return stream

    def sampled_prefix(self, ids: Sequence[int]) -> int:
        """Returns the number of sampled tokens to keep: those before the first that only the template may write."""
        reserved = self.special_tokens.reserved
        return next((index for index, token in enumerate(ids) if token in reserved), len(ids))

    def append_sampled(self, ids: Sequence[int], logprobs: Sequence[float] | None) -> tuple[int, int]:
        """Appends sampled tokens; returns their half-open span of the response."""
        span = (self.response_length, self.response_length + len(ids))
        self._append(ids, 1, [0.0] * len(ids) if logprobs is None else logprobs, span=span)
        return span

    def append_context(self, ids: Sequence[int], features: Sequence[int] = ()) -> None:
        """Appends tokens that the model did not sample: turn boundaries and observations with their images."""
        self._append(ids, 0, [0.0] * len(ids), features=features)

    def check(self) -> None:
        """Raises `InvariantError` where a rule is broken."""
        _check_lengths(self.ids, self.prompt_length, self.mask, self.logprobs)
        _check_mask(self.mask, self.spans)
        _check_logprobs(self.mask, self.logprobs)
        _check_sampled(self.response_ids, self.spans, self.special_tokens.reserved)
        if self.special_tokens.vision is not None:
            _check_images(self.ids, self.special_tokens.vision, self.features)

    def _append(
        self,
        ids: Sequence[int],
        mask: int,
        logprobs: Sequence[float],
        *,
        features: Sequence[int] = (),
        span: tuple[int, int] | None = None,
    ) -> None:
        before = (len(self.ids), len(self.mask), len(self.logprobs), len(self.features), len(self.spans))
        self.ids.extend(ids)
        self.mask.extend([mask] * len(ids))
        self.logprobs.extend(logprobs)
        self.features.extend(features)
        if span is not None:
            self.spans.append(span)
        try:
            self.check()
        except InvariantError:
            # the stream stays as it was: what was whole before can still be trained on
            grown = (self.ids, self.mask, self.logprobs, self.features, self.spans)
            for values, length in zip(grown, before, strict=True):
                del values[length:]  # type: ignore[attr-defined]
            raise


# ---- invariants ----


def _check_lengths(ids: Sequence[int], prompt_length: int, mask: Sequence[int], logprobs: Sequence[float]) -> None:
    """Checks that mask and log-probs are as long as the response."""
    response = len(ids) - prompt_length
    if not len(mask) == len(logprobs) == response:
        raise InvariantError(f"{response} response tokens, {len(mask)} mask values, {len(logprobs)} log-probs")


def _check_mask(mask: Sequence[int], spans: Sequence[tuple[int, int]]) -> None:
    """Checks that the mask is 1 exactly on sampled tokens; `spans` are the half-open spans of the turns, in order."""
    expected = [0] * len(mask)
    for start, end in spans:
        if not 0 <= start <= end <= len(mask):
            raise InvariantError(f"turn {start} to {end} is outside of a response of {len(mask)} tokens")
        expected[start:end] = [1] * (end - start)
    if expected != list(mask):
        at = next(index for index, (want, got) in enumerate(zip(expected, mask, strict=True)) if want != got)
        raise InvariantError(f"response token {at} has mask {mask[at]}, it was {'' if expected[at] else 'not '}sampled")


def _check_logprobs(mask: Sequence[int], logprobs: Sequence[float]) -> None:
    """Checks that log-probs are those of sampled tokens: none above 0, and 0 for all other tokens."""
    for index, (sampled, value) in enumerate(zip(mask, logprobs, strict=True)):
        if value > _ROUNDING or (not sampled and value != 0.0):
            raise InvariantError(f"response token {index} with mask {sampled} has log-prob {value}")


def _check_images(ids: Sequence[int], vision: VisionTokens, features: Sequence[int]) -> None:
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


def _check_sampled(response_ids: Sequence[int], spans: Sequence[tuple[int, int]], reserved: frozenset[int]) -> None:
    """Checks that no sampled token is one of those that only the chat template may write."""
    for start, end in spans:
        for index in range(start, end):
            if response_ids[index] in reserved:
                raise InvariantError(f"response token {index} was sampled and is the reserved {response_ids[index]}")
