"""Checks a machine with GPUs within ten minutes: `python -m recipes.gpu_check.run`, or `make gpu-check`."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from codedance_verl.config.compose import compose_config
from codedance_verl.errors import UserError
from codedance_verl.evaluation.training import read_metrics
from codedance_verl.preflight.doctor import list_gpus
from recipes.gpu_check import runs
from recipes.gpu_check.runs import Inputs, Run

LIMIT_S = 600.0
END_S = 60.0
"""What a run may take to end itself after its time limit."""
MAX_FLASH_ERROR = 0.02
"""Of values of about 1 in bfloat16, whose steps there are 0.008."""
MAX_OVER_ESTIMATE = 1.1
"""Times the estimate that the trainer may allocate."""

PASSED, FAILED, SKIPPED, PLANNED = "passed", "failed", "skipped", "planned"


@dataclass
class Check:
    """A row of the report: passed, failed, skipped (the machine has too few devices) or planned (a dry run)."""

    name: str
    state: str
    seconds: float = 0.0
    figures: dict[str, object] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Checks a machine with GPUs before a long run.")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu_check"), help="folder of models, runs and report")
    parser.add_argument("--sandbox", choices=("auto", "docker", "process"), default="auto", help="where code runs")
    parser.add_argument("--dry-run", action="store_true", help="check every command and the memory; needs no GPU")
    options = parser.parse_args(arguments)
    try:
        passed = check_machine(options.out.resolve(), options.sandbox, dry=options.dry_run)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if passed else 1


def check_machine(out: Path, sandbox: str, dry: bool) -> bool:
    """Makes every check, and writes `report.json` after each; returns whether none has failed.

    Raises:
        UserError: there is no GPU, and it is no dry run.
    """
    gpus, started = list_gpus(), time.monotonic()
    if not gpus and not dry:
        raise UserError("no GPU is listed by nvidia-smi; --dry-run checks without one what can be checked")
    out.mkdir(parents=True, exist_ok=True)
    checks: list[Check] = []
    for check in _checks(out, sandbox, len(gpus), started + LIMIT_S, dry):
        checks.append(check)
        reasons = f": {'; '.join(check.reasons)}" if check.reasons else ""
        print(f"{check.name}: {check.state} ({check.seconds:.0f} s){reasons}", flush=True)
        report = {
            "passed": all(item.state != FAILED for item in checks),
            "dry_run": dry,
            "seconds": round(time.monotonic() - started, 1),
            "gpus": [asdict(gpu) for gpu in gpus],
            "checks": [asdict(item) for item in checks],
        }
        (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"report: {out / 'report.json'}")
    return bool(report["passed"])


def _checks(out: Path, sandbox: str, devices: int, deadline: float, dry: bool) -> Iterator[Check]:
    yield _timed("imports and flash-attn", partial(_kernels, deadline=deadline, dry=dry))
    data = _data(out / "data")
    for run in runs.RUNS:
        inputs = Inputs(data.parent / "rl_train.parquet", out / "models" / run.size, out / "runs" / _folder(run))
        work = partial(_run, run=run, inputs=inputs, sandbox=sandbox, devices=devices, deadline=deadline, dry=dry)
        yield _timed(run.name, work)


def _timed(name: str, work: Callable[[Check], None]) -> Check:
    """A check that counts as passed unless `work` says otherwise; what it raises fails it, and no other."""
    check, started = Check(name, PASSED), time.monotonic()
    try:
        work(check)
    except Exception as error:  # whatever a machine that is being checked makes go wrong
        check.reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
    if check.reasons and check.state != SKIPPED:
        check.state = FAILED
    check.seconds = round(time.monotonic() - started, 1)
    return check


def _kernels(check: Check, deadline: float, dry: bool) -> None:
    command = [sys.executable, "-m", "recipes.gpu_check.kernels"]
    if dry:
        check.state, check.figures = PLANNED, {"command": command}
        return
    left = max(deadline - time.monotonic(), 1)
    done = subprocess.run(command, capture_output=True, text=True, timeout=left, check=False)
    if done.returncode != 0:
        check.reasons.append((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        return
    check.figures = json.loads(done.stdout.splitlines()[-1])
    error = float(str(check.figures["flash_attention_error"]))
    if not error <= MAX_FLASH_ERROR:
        check.reasons.append(f"flash-attn is {error:g} off float32 attention, more than {MAX_FLASH_ERROR:g}")


def _data(folder: Path) -> Path:
    """The file of demonstrations, with questions for the runs beside it."""
    from recipes.cpu_demo.demo_set import make_demo_data
    from recipes.cpu_demo.demo_sizes import DemoSizes

    return make_demo_data(folder, sizes=DemoSizes(sft=64, rl_train=32, rl_val=1, test=1, blank=0, controls=0)).sft


def _folder(run: Run) -> str:
    return run.name.replace(" ", "_")


def _run(check: Check, run: Run, inputs: Inputs, sandbox: str, devices: int, deadline: float, dry: bool) -> None:
    if not dry and devices < run.devices:
        check.state, check.reasons = SKIPPED, [f"needs {run.devices} GPUs, there are {devices}"]
        return
    _make_model(run, inputs, weights=not dry)
    estimate = _estimate(run, inputs, sandbox, check)
    left = max(deadline - time.monotonic(), 1.0)
    command = runs.command(run, inputs, sandbox, left)
    if dry:
        check.state, check.figures = PLANNED, {"command": command, "memory_estimate_gib": estimate}
    elif not check.reasons:
        _train(check, run, inputs, command, left + END_S, estimate)


def _make_model(run: Run, inputs: Inputs, weights: bool) -> None:
    """The model of a run, unless it is there; where a dry run has left one without weights it is made again."""
    wanted = "model*.safetensors" if weights else "config.json"
    if not any(inputs.model.glob(wanted)):
        from recipes.gpu_check.models import make_model

        make_model(inputs.model, run.size, inputs.data.parent / "sft.parquet", weights)


def _train(
    check: Check, run: Run, inputs: Inputs, command: list[str], timeout_s: float, estimate: float | None
) -> None:
    shutil.rmtree(inputs.run_dir, ignore_errors=True)  # else the run would resume an earlier check
    log = inputs.run_dir.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        ended = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=timeout_s, check=False)
    code = ended.returncode
    steps = [line.values for line in read_metrics(inputs.run_dir)]
    if code != 0 or not steps:
        errors = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("error: ")]
        check.reasons.append(f"{errors[-1] if errors else f'exit code {code}'}; see {log}")
        return
    found = runs.figures(steps, estimate)
    check.figures = {**found}
    check.reasons += runs.faults(run, found)
    memory = found["memory_gib"]
    if estimate is not None and memory is not None and memory > MAX_OVER_ESTIMATE * estimate:
        check.reasons.append(f"the trainer has allocated {memory:.1f} GiB, more than the estimate of {estimate:.1f}")


def _estimate(run: Run, inputs: Inputs, sandbox: str, check: Check) -> float | None:
    """GiB a device that training is estimated to take at most; what the dry run finds wrong are the check's reasons."""
    from codedance_verl.preflight.checks import run_checks
    from codedance_verl.preflight.devices import memory_settings
    from codedance_verl.preflight.memory import GIB, estimate
    from codedance_verl.preflight.model_shape import read_shape

    config = compose_config("train", runs.overrides(run, inputs, sandbox))
    check.reasons += run_checks(config, dry=True).findings
    shape = read_shape(inputs.model, "actor_rollout_ref.model.path")
    phases = estimate(shape, memory_settings(config)).phases
    return max((phase.total for phase in phases if phase.name.startswith("actor")), default=0.0) / GIB or None


if __name__ == "__main__":
    sys.exit(main())
