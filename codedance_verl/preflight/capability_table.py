"""The table of verl's features, whose form `capabilities` explains; docs/configuration.md shows it."""

from __future__ import annotations

from codedance_verl.preflight.capability_algorithms import ALGORITHMS
from codedance_verl.preflight.capability_rollouts import AGENTS, REWARDS, ROLLOUTS
from codedance_verl.preflight.capability_runs import DATA, RUNS
from codedance_verl.preflight.capability_training import MODEL_ROWS, TRAINING

OWN = (
    "environment",
    "sandbox",
    "grading",
    "reward_preset",
    "sampling",
    "monitors",
    "trajectories",
    "env_vars",
    "gpu_memory_gib",
    "run_dir",
    "dry_run",
    "seed",
    "time_limit_s",
    "placement_limit_s",
    "step_limit_s",
    "stop_grace_s",
    "deterministic",
    "skip_bad_records",
)
"""Keys of this project; what reads them checks them."""

TABLE = (*ALGORITHMS, *TRAINING, *MODEL_ROWS, *ROLLOUTS, *AGENTS, *REWARDS, *DATA, *RUNS)
"""Every row, in the order of the documentation."""
