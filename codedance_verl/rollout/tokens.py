"""Token book-keeping of one trajectory: what was sampled is what is trained."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TokenStream:
    """Prompt and response tokens of a trajectory as it grows.

    `mask` is 1 exactly on sampled tokens; `logprobs` (natural log, rollout policy) is 0.0 elsewhere. Both are as long
    as the response, that is `ids[prompt_length:]`.
    """

    ids: list[int]
    prompt_length: int
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @classmethod
    def from_prompt(cls, prompt_ids: list[int]) -> TokenStream:
        return cls(ids=list(prompt_ids), prompt_length=len(prompt_ids))

    @property
    def response_ids(self) -> list[int]:
        return self.ids[self.prompt_length :]

    @property
    def response_length(self) -> int:
        return len(self.mask)

    def append_sampled(self, ids: list[int], logprobs: list[float] | None) -> tuple[int, int]:
        """Append sampled tokens; returns their half-open span of the response.

        Raises:
            ValueError: log-probs were given for another number of tokens.
        """
        if logprobs is not None and len(logprobs) != len(ids):
            raise ValueError(f"{len(ids)} sampled tokens came with {len(logprobs)} log-probs")
        start = self.response_length
        self._append(ids, 1, logprobs if logprobs is not None else [0.0] * len(ids))
        return start, self.response_length

    def append_context(self, ids: list[int]) -> None:
        """Append tokens the model did not sample: turn boundaries and observations."""
        self._append(ids, 0, [0.0] * len(ids))

    def _append(self, ids: list[int], mask: int, logprobs: list[float]) -> None:
        self.ids.extend(ids)
        self.mask.extend([mask] * len(ids))
        self.logprobs.extend(logprobs)
