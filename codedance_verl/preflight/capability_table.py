"""Table of verl's features, whose form `capabilities` explains; docs/configuration.md shows it."""

from __future__ import annotations

from codedance_verl.config.run import RunConfig
from codedance_verl.preflight.capability_algorithms import ALGORITHMS
from codedance_verl.preflight.capability_rollouts import AGENTS, REWARDS, ROLLOUTS
from codedance_verl.preflight.capability_runs import DATA, RUNS
from codedance_verl.preflight.capability_training import MODEL_ROWS, TRAINING
from codedance_verl.preflight.settings import OURS

OWN = (*OURS, *RunConfig.model_fields, "run_dir", "env_vars")
"""Keys of this project; what reads them checks them."""

TABLE = (*ALGORITHMS, *TRAINING, *MODEL_ROWS, *ROLLOUTS, *AGENTS, *REWARDS, *DATA, *RUNS)
"""Every row, in the order of the documentation."""
