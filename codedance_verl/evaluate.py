"""Evaluation of a model: `python -m codedance_verl.evaluate recipe=cpu_demo run_dir=... data.val_files=test.parquet`.

The same environment, prompts, limits and grading as training: it is verl's validation, run once, with the rollouts
written to `<run_dir>/trajectories/val`. `codedance_verl.evaluation` turns those into figures.
"""

from __future__ import annotations

import sys

from codedance_verl.train import main

if __name__ == "__main__":
    sys.exit(main("evaluate"))
