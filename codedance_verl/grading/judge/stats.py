"""Statistics of the judge: answers, requests, tokens, cost, waits."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass
class JudgeStats:
    """Counts since they were last taken.

    Attributes:
        asked: answers for the judge, the cached ones included.
        cached: of them, those that were judged before or at the same time.
        no_verdict: of them, those that stayed without a verdict.
        requests: requests that were sent.
        failures: of them, those without a usable reply: refused, broken off, too late, no verdict.
        prompt_tokens, completion_tokens: as the servers counted them.
        cost: of the tokens, in the currency of the configured prices.
        wait_s: wall seconds that answers waited for their verdicts, summed up.
    """

    asked: float = 0
    cached: float = 0
    no_verdict: float = 0
    requests: float = 0
    failures: float = 0
    prompt_tokens: float = 0
    completion_tokens: float = 0
    cost: float = 0.0
    wait_s: float = 0.0

    def shared(self, parts: int) -> JudgeStats:
        """An equal part of everything."""
        return JudgeStats(**{item.name: getattr(self, item.name) / parts for item in fields(self)})

    def take(self) -> JudgeStats:
        """Counts so far; counting starts again from 0."""
        taken = replace(self)
        for item in fields(self):
            setattr(self, item.name, item.default)
        return taken
