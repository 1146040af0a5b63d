"""Token book-keeping of one trajectory: the sampled tokens are the ones that are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from codedance_verl.environment import invariants
from codedance_verl.environment.invariants import VisionTokens


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
    """Prompt and response tokens of a trajectory as it grows; every append is checked (`invariants.py`).

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
        invariants.check_lengths(self.ids, self.prompt_length, self.mask, self.logprobs)
        invariants.check_mask(self.mask, self.spans)
        invariants.check_logprobs(self.mask, self.logprobs)
        invariants.check_sampled(self.response_ids, self.spans, self.special_tokens.reserved)
        if self.special_tokens.vision is not None:
            invariants.check_images(self.ids, self.special_tokens.vision, self.features)

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
        except invariants.InvariantError:
            # the stream stays as it was: what was whole before can still be trained on
            grown = (self.ids, self.mask, self.logprobs, self.features, self.spans)
            for values, length in zip(grown, before, strict=True):
                del values[length:]  # type: ignore[attr-defined]
            raise
