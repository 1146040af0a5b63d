"""Survival of a run with a fault in every step: `python -m benchmarks.faults --demo outputs/demo`.

Ten steps of RL on the tiny model as the demo left it, 4 questions x 4 rollouts each, one fault a step
(`benchmarks/faulty_steps.py`), no containers. Printed and written for each step: rollouts that were logged and masked,
and whether weights and optimizer are those of the step before. The exit code is 1 where they do not add up.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.faulty_steps import PLAN, StepFault
from codedance_verl.evaluation.training import read_metrics
from codedance_verl.trajectories.reader import TrajectoryReader

GROUPS, ROLLOUTS = 4, 4
TIMEOUT_S = 3_600.0
SMALL = (
    "recipe=cpu_demo",
    "hardware=cpu",
    "sandbox=process",
    f"data.train_batch_size={GROUPS}",
    f"actor_rollout_ref.rollout.n={ROLLOUTS}",
    f"actor_rollout_ref.actor.ppo_mini_batch_size={GROUPS}",
    # so that there are micro-batches of padding alone
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1",
    "actor_rollout_ref.rollout.agent.num_workers=1",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class=benchmarks.faulty_steps.FaultyStepsManager",
    f"trainer.total_training_steps={len(PLAN)}",
    "trainer.save_freq=1",
    "trainer.max_actor_ckpt_to_keep=null",
)
IN_A_GROUP, IN_A_STEP = ROLLOUTS, GROUPS * ROLLOUTS
LOGGED = {StepFault.GROUP: IN_A_STEP - IN_A_GROUP, StepFault.GROUPS: 0}
"""Rollouts of a step where it is not all of them: a group that fails is not logged."""
MASKED = {StepFault.REQUEST: IN_A_GROUP, StepFault.JUDGE: IN_A_STEP, StepFault.ENGINE: IN_A_STEP}
SKIPPED = (StepFault.JUDGE, StepFault.ENGINE, StepFault.GROUPS)


@dataclass(frozen=True)
class Step:
    """Outcome of a step.

    Attributes:
        step: its number.
        fault: what went wrong in it.
        logged, masked: rollouts in the trajectory log.
        told: masked rollouts by the run's metrics.
        skipped: whether the metrics call it a step without a rollout that counts.
        changed, equal: tensors of weights and optimizer that differ from those of the step before, and that do not.
    """

    step: int
    fault: str
    logged: int
    masked: int
    told: int
    skipped: bool
    changed: int
    equal: int


def run(model: Path, data: Path, run_dir: Path, log: Path, *more: str) -> int:
    """Trains with the faults; returns the exit code."""
    command = [
        *(sys.executable, "-m", "codedance_verl.train", *SMALL, f"run_dir={run_dir}"),
        *(f"data.train_files={data / 'rl_train.parquet'}", f"data.val_files={data / 'rl_val.parquet'}"),
        *(f"actor_rollout_ref.model.path={model}", *more),
    ]
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("w") as output:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=False,
        )
    return done.returncode


def steps_of(run_dir: Path) -> list[Step]:
    """Outcome of each step that has metrics."""
    logged, masked = Counter[int](), Counter[int]()
    for trajectory in TrajectoryReader(run_dir / "trajectories", "train"):
        logged[trajectory.step] += 1
        masked[trajectory.step] += trajectory.reward.masked
    found, before = list[Step](), dict[str, torch.Tensor]()
    for line in read_metrics(run_dir):
        state = saved_tensors(run_dir / "checkpoints" / f"global_step_{line.step}" / "actor")
        equal = sum(name in before and torch.equal(before[name], value) for name, value in state.items())
        found.append(
            Step(
                line.step,
                PLAN[line.step - 1].value,
                logged[line.step],
                masked[line.step],
                int(line.values.get("codedance/rollout/masked_total/train", 0)),
                bool(line.values["codedance/training/masked_steps_total"]),
                len(state) - equal,
                equal,
            )
        )
        before = state
    return found


def saved_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of weights and optimizer in the actor's folder of a checkpoint of one rank, by file and key."""
    found: dict[str, torch.Tensor] = {}
    for name in ("model", "optim"):
        state = torch.load(folder / f"{name}_world_size_1_rank_0.pt", weights_only=False)
        found |= {f"{name}{key}": value for key, value in _tensors(state)}
    return found


def _tensors(value: Any, key: str = "") -> list[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        local = value.to_local() if hasattr(value, "to_local") else value
        return [(key, local)]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return [found for name, item in items for found in _tensors(item, f"{key}/{name}")]


def faults_of(steps: list[Step]) -> list[str]:
    """Contradictions, a line each."""
    wrong = [] if len(steps) == len(PLAN) else [f"{len(steps)} steps have metrics, not {len(PLAN)}"]
    for step in steps:
        fault = StepFault(step.fault)
        expected = (LOGGED.get(fault, IN_A_STEP), MASKED.get(fault, 0), fault in SKIPPED)
        if (step.logged, step.masked, step.skipped) != expected:
            wrong.append(f"step {step.step}: logged, masked, skipped should be {expected}: {step}")
        if step.told != step.masked:
            wrong.append(f"step {step.step}: {step.masked} rollouts are logged as masked, metrics have {step.told}")
        if step.step > 1 and bool(step.changed) == step.skipped:
            wrong.append(f"step {step.step}: {step.changed} tensors have changed and {step.equal} have not")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("outputs/demo"), help="what `make demo` made")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks/faults"))
    given = parser.parse_args()
    model, output = given.demo.resolve() / "sft" / "model", given.output.resolve()
    if not model.is_dir():
        parser.exit(2, f"error: no model at {model}; run `make demo` first\n")
    shutil.rmtree(output / "run", ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    code = run(model, given.demo.resolve() / "data", output / "run", output / "log.txt")
    steps = steps_of(output / "run")
    for step in steps:
        print(
            f"step {step.step:2}  {step.fault:36} {step.logged:3} logged {step.masked:3} masked  "
            f"{'skipped' if step.skipped else 'trained'}  {step.changed:3} tensors changed {step.equal:3} equal"
        )
    wrong = [*([f"the run has ended with {code}; see {output}/log.txt"] if code else []), *faults_of(steps)]
    (output / "results.json").write_text(json.dumps({"steps": [asdict(step) for step in steps], "wrong": wrong}))
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
