"""Limits of the multi-turn environment (`conf/environment.yaml`)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from codedance_verl.config.node import Node, OneOf
from codedance_verl.formats import FORMATS


class EnvironmentConfig(Node):
    """Resources of one trajectory, and the reaction to faults outside of it."""

    KEY: ClassVar[str] = "environment"

    format: Annotated[str, OneOf(FORMATS)] = "code"
    """Form in which the model writes a call."""
    add_system_prompt: bool = True
    """Leads a record that has no system message with one of ours. Off for a model that was trained without it."""
    max_turns: int = Field(6, ge=1, le=100)
    """Assistant turns of a trajectory. Code of the last one is not run."""
    max_images: int = Field(16, ge=1, le=1000)
    """Images of a trajectory, those of the question included. Each costs prompt tokens and memory."""
    max_image_pixels: int = Field(1_003_520, ge=56 * 56, le=100_000_000)
    """Pixels of every image the model sees; larger ones are scaled down for it, not for code."""
    max_observation_chars: int = Field(2_000, ge=200, le=1_000_000)
    """Characters of stdout and of an error, each; of longer ones head and tail are shown."""
    min_answer_tokens: int = Field(32, ge=1, le=100_000)
    """Tokens that an observation leaves for the turn after it; where none is small enough the finish is `length`."""
    trajectory_limit_s: float = Field(1800.0, ge=1, le=86_400)
    """Wall seconds of a trajectory without the pauses for training; then it ends as `time_limit`."""
    stall_limit_s: float = Field(1800.0, ge=10, le=86_400)
    """Seconds without progress of any trajectory of a worker, after which all of them end as `infrastructure`."""
    open_early: bool = True
    """Opens the sandbox session while the turn with the first call is still being sampled."""
    sandbox_retries: int = Field(4, ge=0, le=100)
    """Repetitions of a refused request for a session, after half a second, one, two, and so on."""
    max_faults_in_a_row: int = Field(256, ge=1, le=1_000_000)
    """Trajectories of a worker in a row that may end as `infrastructure` before the run ends with an error."""
    max_in_flight: int = Field(256, ge=1, le=100_000)
    """Trajectories of a worker at once. Each holds its images, its tokens and a sandbox session."""
    save_trajectories: bool = True
    """Writes rollouts to `<run_dir>/trajectories`; the node `trajectories` says which of them."""
