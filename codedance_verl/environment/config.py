"""Limits of the multi-turn environment (`conf/environment.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from codedance_verl.config.checks import check_known
from codedance_verl.errors import UserError
from codedance_verl.formats import FORMATS

_WHOLE = {
    "max_turns": (1, 100),
    "max_images": (1, 1000),
    "max_image_pixels": (56 * 56, 100_000_000),
    "max_observation_chars": (200, 1_000_000),
    "answer_tokens": (1, 100_000),
    "sandbox_retries": (0, 100),
    "max_faults_in_a_row": (1, 1_000_000),
    "max_in_flight": (1, 100_000),
}
_SECONDS = {"max_seconds": (1.0, 86_400.0), "stall_seconds": (10.0, 86_400.0)}


@dataclass(frozen=True)
class EnvironmentConfig:
    """What one trajectory may use up, and what happens where something outside of it fails.

    Attributes:
        format: how the model writes a call: `code` (a fence in code tags), `tool_call` (JSON) or `fence`.
        instructions: lead a record that has no system message with one of ours: how to call and to answer, and what
            coordinates mean. Off for a model that was trained without it.
        max_turns: assistant turns per trajectory, 1 to 100 (the paper trains with 6, evaluates with 10). Before the
            last one the model is told to answer; code of the last turn is not run.
        max_images: images per trajectory, the question's own included, 1 to 1000. Further ones are left out of the
            observation; each costs prompt tokens and memory.
        max_image_pixels: of every picture the model sees, the question's included, 3,136 to 100 million; larger ones
            are scaled down for it. Code has `input_image` in full.
        max_observation_chars: of stdout and of an error, each, 200 to 1,000,000; of longer ones head and tail are
            shown.
        answer_tokens: tokens that an observation must leave for the turn after it, 1 to 100,000. One that does not fit
            is made smaller; where nothing fits the trajectory ends as `length`.
        max_seconds: wall time of a trajectory, 1 to 86,400, pauses for training left out; then it ends as `time_limit`.
        stall_seconds: how long no trajectory of a rollout worker may go on to anything else before all of them are
            ended as `infrastructure`, with a report of who waits for what; 10 to 86,400. It must be longer than the
            longest turn takes to generate.
        sandbox_retries: how often a session that was refused is asked for again, 0 to 100, after half a second, one,
            two, ...; then the trajectory ends as `infrastructure`.
        max_faults_in_a_row: so many trajectories of a worker that end as `infrastructure` without one in between that
            does not end the run with an error: what is broken does not mend itself. 1 to 1,000,000.
        max_in_flight: trajectories of a rollout worker under way at once, 1 to 100,000; the others wait their turn.
            Each holds its pictures, tokens and a sandbox session; with fewer than vLLM can take it has less to do.
        save_trajectories: write rollouts to `<run_dir>/trajectories`; the node `trajectories` says which of them.
    """

    format: str = "code"
    instructions: bool = True
    max_turns: int = 6
    max_images: int = 16
    max_image_pixels: int = 1_003_520
    max_observation_chars: int = 2_000
    answer_tokens: int = 32
    max_seconds: float = 1800.0
    stall_seconds: float = 1800.0
    sandbox_retries: int = 4
    max_faults_in_a_row: int = 256
    max_in_flight: int = 256
    save_trajectories: bool = True

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> EnvironmentConfig:
        """Build from a config node.

        Raises:
            UserError: names the dotted key, the value seen and what is allowed.
        """
        check_known(values, [field.name for field in fields(cls)], "environment")
        config = cls(**values)
        if config.format not in FORMATS:
            raise UserError(f"environment.format={config.format!r}: must be one of {', '.join(FORMATS)}")
        for name, (low, high) in _WHOLE.items():
            value = getattr(config, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UserError(f"environment.{name}={value!r}: must be a whole number from {low} to {high}")
        for name, (least, most) in _SECONDS.items():
            value = getattr(config, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise UserError(f"environment.{name}={value!r}: must be a number of seconds, {least:g} to {most:g}")
        return config
