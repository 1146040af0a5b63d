"""Cost of a filter before anything is asked: samples and tokens, at least and at most."""

from __future__ import annotations

from collections.abc import Iterator

from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.filtering.rows import Survey
from codedance_verl.filtering.rule import NOTHING, Arm, Rule

CHARS_PER_TOKEN = 4
"""Characters of English text to a token, roughly."""


def lines_of(survey: Survey, rule: Rule, environment: EnvironmentConfig, max_tokens: int) -> Iterator[str]:
    """Yields what may be asked. The rate of a model and the lengths of its replies are known when it has begun.

    Args:
        survey: measures of the rows.
        rule: numbers of samples.
        environment: turns of a trajectory with tools.
        max_tokens: tokens that a sample may write.
    """
    rows = max(1, survey.rows)
    prompt = survey.question_chars / rows / CHARS_PER_TOKEN + survey.image_tokens
    least = survey.rows * rule.least(Arm.WEAK, dict.fromkeys(Arm, NOTHING))
    yield (
        f"{survey.rows:,} questions, about {prompt:,.0f} tokens each ({survey.image_tokens:,.0f} of images at 28 x 28 "
        "pixels a token)"
    )
    yield f"at least {least:,} samples of the weak model; at most:"
    for arm in Arm:
        if not rule.samples[arm]:
            continue
        samples = survey.rows * rule.samples[arm]
        requests = samples * (environment.max_turns if arm.tools else 1)
        yield (
            f"  {arm.value.replace('_', ' with ')}: {samples:,} samples, {requests:,} requests, "
            f"{samples * prompt:,.0f} tokens of questions, {samples * max_tokens:,} written"
        )
    if any(arm.tools and rule.samples[arm] for arm in Arm):
        yield "with tools each turn sends the earlier ones again, which the tokens of questions do not count"
