"""Samples one turn from the engine, the tokens of a call at a temperature of their own where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from codedance_verl.rollout.formats import TurnFormat
from codedance_verl.rollout.seeds import for_part


@dataclass(frozen=True)
class Sampled:
    """What was sampled for a turn: `log_probs` as long as `token_ids`, or None; `versions` of the weights."""

    token_ids: list[int]
    log_probs: list[float] | None
    versions: tuple[int, ...]
    aborted: bool


@dataclass(frozen=True)
class TurnSampler:
    """Asks the engine for turns.

    With `code_temperature` a turn is sampled in two parts (GRPO-ATS of Thyme): up to where a call begins at the
    temperature of the request, from there to its end at this one. The second part is a request of its own whose prompt
    the engine has in its prefix cache. `reserved` are tokens that the model may not write: what follows one is cut, so
    nothing is sampled behind it.
    """

    server: Any
    tokenizer: Any
    format: TurnFormat
    reserved: frozenset[int]
    code_temperature: float | None = None

    async def sample(
        self, request_id: str, prompt_ids: list[int], sampling_params: dict[str, Any], images: Any, budget: int
    ) -> Sampled:
        """One turn of at most `budget` tokens."""
        stops = list(self.format.stop_strings)
        if self.code_temperature is None or sampling_params.get("temperature") == 0:
            return await self._request(request_id, prompt_ids, sampling_params, images, budget, stops)
        first = await self._request(
            request_id, prompt_ids, sampling_params, images, budget, [*stops, self.format.call_start]
        )
        left = budget - len(first.token_ids)
        if first.aborted or left <= 0 or not self._call_is_open(first.token_ids, stops):
            return first
        in_call = {**for_part(sampling_params, "call"), "temperature": self.code_temperature}
        prompt_ids = [*prompt_ids, *first.token_ids]
        return _joined(first, await self._request(request_id, prompt_ids, in_call, images, left, stops))

    def _call_is_open(self, token_ids: Sequence[int], stops: Sequence[str]) -> bool:
        if not self.reserved.isdisjoint(token_ids):
            return False
        text = self.tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return self.format.call_start in text and not any(stop in text for stop in stops)

    async def _request(
        self,
        request_id: str,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        images: Any,
        budget: int,
        stops: list[str],
    ) -> Sampled:
        output = await self.server.generate(
            request_id=request_id,
            prompt_ids=prompt_ids,
            sampling_params={
                **sampling_params,
                "max_tokens": budget,
                "stop": stops,
                "include_stop_str_in_output": True,
            },
            image_data=images,
        )
        version = output.extra_fields.get("global_steps")
        return Sampled(
            token_ids=list(output.token_ids),
            log_probs=None if output.log_probs is None else list(output.log_probs),
            versions=() if version is None else (version,),
            aborted=output.stop_reason == "aborted",
        )


def _joined(first: Sampled, second: Sampled) -> Sampled:
    known = first.log_probs is not None and second.log_probs is not None
    return Sampled(
        [*first.token_ids, *second.token_ids],
        [*(first.log_probs or ()), *(second.log_probs or ())] if known else None,
        (*first.versions, *second.versions),
        second.aborted,
    )
