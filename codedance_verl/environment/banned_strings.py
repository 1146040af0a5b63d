"""Sampling of turns that never contain given strings, however the tokenizer splits them.

vLLM's `bad_words` bans the tokens that a string has by itself. The tag of a call is one token in some models, but in a
tokenizer of the Qwen family `<code>` is written as `<`, `code`, `>` and a line break in one token, and its first letter
melts into what stands before it: `><`, ` <`, `.<`. So strings are banned in two ways. Tokens that hold one whole get a
bias under which they are not sampled. One that several tokens make up stops the generation, and is taken back to the
token with which it began to differ from the other tags; that token is drawn again without those drawn there before,
and generation continues. What precedes it was sampled freely, so the ban changes no other choice of the model.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from codedance_verl.environment.generation import Sampled, TurnSampler, for_part, joined
from codedance_verl.formats import FORMATS, TURN_TAGS

NEVER = -100.0
"""Bias on the logit of a token that must not be sampled; vLLM allows no lower one."""

MOST_REDRAWS = 64
"""Most tokens drawn again in one request of a turn: a model that writes a banned string for ever is cut before it."""


@dataclass(frozen=True)
class BanningSampler(TurnSampler):
    """Source of turns without the strings `banned`; without any of them it is a `TurnSampler`."""

    banned: tuple[str, ...] = ()

    async def _request(
        self,
        request_id: str,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        images: Any,
        budget: int,
        stops: list[str],
    ) -> Sampled:
        if not self.banned:
            return await super()._request(request_id, prompt_ids, sampling_params, images, budget, stops)
        params = _biased(sampling_params, _holding(self.tokenizer, self.banned))
        ends = list(dict.fromkeys([*stops, *self.banned]))

        async def continued(drawn: Sampled, params: dict[str, Any], tokens: int) -> Sampled:
            prompt = [*prompt_ids, *drawn.token_ids]
            part = await super(BanningSampler, self)._request(request_id, prompt, params, images, tokens, ends)
            return joined(drawn, part)

        drawn = await continued(Sampled([], [], (), False), params, budget)
        refused: dict[int, set[int]] = {}  # by place, with the same tokens before it
        for number in range(MOST_REDRAWS):
            at = self._begin(drawn)
            if drawn.aborted or at is None:
                break
            refused = {place: tokens for place, tokens in refused.items() if place <= at}
            refused.setdefault(at, set()).add(drawn.token_ids[at])
            once = _biased(for_part(params, f"redraw {number}"), refused[at])
            drawn = await continued(_cut(drawn, at), once, 1)
            left = budget - len(drawn.token_ids)
            if not drawn.aborted and left > 0 and not self._ends(drawn, ends):
                drawn = await continued(drawn, for_part(params, f"behind redraw {number}"), left)
        at = self._begin(drawn)
        return drawn if at is None else _cut(drawn, at)

    def _begin(self, drawn: Sampled) -> int | None:
        """Returns the place of the token with which the first banned string began to differ from other tags."""
        text = self._text(drawn)
        found = [(start, string) for string in self.banned if (start := text.find(string)) >= 0]
        if not found:
            return None
        start, string = min(found)
        ids, least = drawn.token_ids, start + _distinct(string)
        return bisect.bisect_left(
            range(len(ids)), least, key=lambda at: len(self.tokenizer.decode(ids[: at + 1], skip_special_tokens=True))
        )

    def _ends(self, drawn: Sampled, ends: Collection[str]) -> bool:
        """Returns whether the last token ends the request: a special one, or one that completes a stop string."""
        last = drawn.token_ids[-1:]
        if not self.reserved.isdisjoint(last) or not self.tokenizer.decode(last, skip_special_tokens=True):
            return True
        text = self._text(drawn)
        return any(end in text for end in ends)


def _cut(drawn: Sampled, at: int) -> Sampled:
    logprobs = None if drawn.log_probs is None else drawn.log_probs[:at]
    return replace(drawn, token_ids=drawn.token_ids[:at], log_probs=logprobs)


def _biased(sampling_params: dict[str, Any], tokens: Collection[int]) -> dict[str, Any]:
    """Returns the sampling parameters with a bias against these tokens, beside those that they have."""
    bias = {**(sampling_params.get("logit_bias") or {}), **dict.fromkeys(sorted(tokens), NEVER)}
    return {**sampling_params, "logit_bias": bias} if bias else dict(sampling_params)


@functools.lru_cache(maxsize=16)
def _holding(tokenizer: Any, banned: tuple[str, ...]) -> frozenset[int]:
    """Returns the tokens of the vocabulary that hold a banned string whole.

    Entries of a vocabulary are compared as they are: in those of the byte-level and SentencePiece kinds the signs of
    tags stand for themselves.
    """
    entries = tokenizer.get_vocab().items()
    return frozenset(int(token_id) for entry, token_id in entries if any(string in entry for string in banned))


@functools.cache
def _distinct(banned: str) -> int:
    """Returns the least number of characters of a tag with which no other tag begins."""
    others = {*TURN_TAGS, *(kind.call_prefix for kind in FORMATS.values())} - {banned}
    shared = (length for length in range(1, len(banned)) if any(tag.startswith(banned[:length]) for tag in others))
    return max(shared, default=0) + 1
