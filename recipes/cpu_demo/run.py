"""The CPU demo, whole: `python -m recipes.cpu_demo.run` (what `make demo` calls).

Sandbox image, data, a tiny model, SFT, its evaluation, RL and evaluation per seed, a report. Run again, it resumes
where it was. Exit codes: 0 done, 1 a stage failed, 2 something the user can mend, 128 + n ended by signal n, and with
`--strict` 3 if the figures miss a criterion.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import FrameType

from codedance_verl.errors import UserError
from codedance_verl.evaluation.report import Report, read_report
from codedance_verl.runtime.locks import RUN_LOCK, run_lock
from codedance_verl.runtime.progress import clock
from recipes.cpu_demo.console import Console
from recipes.cpu_demo.demo_models import DEFAULT_MODEL, DEMO_MODELS
from recipes.cpu_demo.environment import (
    BACKENDS,
    Backend,
    choose_backend,
    describe,
    read_environment,
    remove_orphan_containers,
    write_environment,
)
from recipes.cpu_demo.kind_roles import RETURNED_IMAGE
from recipes.cpu_demo.runner import (
    MIN_FREE_BYTES,
    Runner,
    StageFailed,
    check_free_space,
    explained_disk_errors,
)
from recipes.cpu_demo.stages import REPOSITORY, Layout, parse_seeds, plan

OUTPUTS = REPOSITORY / "outputs"
EXIT_FAILED, EXIT_USER, EXIT_MISSED = 1, 2, 3


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    options, console = _options(arguments), Console()
    return guarded(lambda: _demo(options, console), console)


def guarded(work: Callable[[], int], console: Console) -> int:
    """Runs `work` and says in one line what ended it; returns the exit code. Signals end its stage first."""
    _raise_on_signals()
    try:
        return work()
    except StageFailed as failure:
        for line in failure.log_tail:
            console.line(f"      | {line}")
        _error(failure)
        return EXIT_FAILED
    except UserError as error:
        _error(error)
        return EXIT_USER
    except Interrupted as interrupt:
        console.line(f"interrupted by {signal.Signals(interrupt.number).name}; run it again to resume from here")
        return 128 + interrupt.number


def _demo(options: argparse.Namespace, console: Console) -> int:
    out: Path = (options.out or OUTPUTS / DEMO_MODELS[options.model].folder).resolve()
    seeds = parse_seeds(options.seeds)
    with explained_disk_errors(out):
        make_folder(out)
        with demo_lock(out):
            if options.fresh:
                _clear(out)
            check_free_space(out, MIN_FREE_BYTES)
            backend = choose_backend(options.sandbox)
            prepare(out, backend, options.setup_seconds, console)
            try:
                Runner(out, console).run(plan(out, seeds, backend.name, options.model))
            finally:
                remove_orphan_containers(backend)
    report = read_report(out / "report.json")
    _summarise(report, out, seeds, console)
    return EXIT_MISSED if options.strict and not report.all_passed else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.cpu_demo.run", description="Runs the CPU demo, whole.")
    folders = ", ".join(f"outputs/{model.folder}" for model in DEMO_MODELS.values())
    parser.add_argument(
        "--model", choices=DEMO_MODELS, default=DEFAULT_MODEL, help="Qwen2.5-VL or Qwen3-VL (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help=f"output folder (default by model: {folders})")
    parser.add_argument("--fresh", action="store_true", help="throw away what an earlier run left and start over")
    parser.add_argument("--seeds", default="0,1", help="RL seeds, separated by commas (default: 0,1)")
    parser.add_argument("--sandbox", choices=BACKENDS, default="auto", help="where model code runs (default: auto)")
    parser.add_argument("--strict", action="store_true", help="exit with 3 if the figures miss a criterion")
    parser.add_argument("--setup-seconds", type=float, default=0.0, help="what the set-up took, for the report")
    return parser.parse_args(arguments)


def make_folder(out: Path) -> None:
    """Makes the output folder. Raises UserError where that cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"--out {out}: cannot be made ({error.strerror}); choose another folder") from None


def _clear(out: Path) -> None:
    """Empties the folder of an earlier demo; the lock stays. Raises UserError for a folder that is none."""
    entries = [entry for entry in out.iterdir() if entry.name != RUN_LOCK]
    if entries and not (out / "stages").is_dir():
        raise UserError(f"--fresh: {out} holds other things than a demo; choose an empty folder with --out")
    for entry in entries:
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def prepare(out: Path, backend: Backend, setup_s: float, console: Console) -> None:
    """Prints and stores the facts about the machine; the longest set-up counts, a repeated one takes no time."""
    with suppress(UserError):  # the first run has none
        setup_s = max(setup_s, read_environment(out).setup_s)
    environment = describe(backend, out, setup_s)
    write_environment(out, environment)
    for note in environment.notes:
        console.line(note)
    if backend.name == "process":
        console.line("*" * 100)
        console.line(
            "NOTICE: no containers. Code written by the model runs as plain processes of this user, limited in"
        )
        console.line("time and memory but NOT isolated from your files and network. Reason:")
        console.line(f"  {backend.missing}")
        console.line("*" * 100)


def _summarise(report: Report, out: Path, seeds: Sequence[int], console: Console) -> None:
    before, after, gained = report.sft, report.rl, report.gain.overall
    console.line()
    console.line(f"accuracy at temperature 1   {_change(before.overall.accuracy.value, after.overall.accuracy.value)}")
    if gained.accuracy.low is not None and gained.accuracy.high is not None:
        console.line(f"  gain, 95 % interval       {gained.accuracy.low:+.1%} to {gained.accuracy.high:+.1%}")
    greedy = _change(before.overall.accuracy_greedy.value, after.overall.accuracy_greedy.value)
    console.line(f"accuracy, greedy            {greedy}")
    hard = _change(before.hard.accuracy_greedy.value, after.hard.accuracy_greedy.value)
    console.line(f"  on hard questions         {hard}")
    console.line(f"tool rate, easy questions   {_change(before.easy.tool_rate.value, after.easy.tool_rate.value)}")
    console.line(f"tool rate, hard questions   {_change(before.hard.tool_rate.value, after.hard.tool_rate.value)}")
    for line in _effects(report):
        console.line(line)
    console.line(f"wall time                   {clock(report.wall_s)}")
    for criterion in report.passed.values():
        if not criterion.passed:
            console.line(f"NOT MET: {criterion.target}")
    layout = Layout(out)
    console.line()
    console.line(f"report       {out / 'report.html'}")
    console.line(f"figures      {out / 'report.json'}")
    console.line(f"calls        {out / 'ledger.jsonl'}")
    for seed in seeds:
        console.line(f"TensorBoard  {layout.rl(seed) / 'tensorboard'}")


def _effects(report: Report) -> Iterator[str]:
    """Lines on what the demo is about beyond accuracy, as far as it was measured."""
    for kind in RETURNED_IMAGE:
        found = report.controls.rl.kinds.get(kind) if report.controls else None
        if found is not None and found.grey is not None:
            rates = _change(found.grey.as_is.accuracy.value, found.grey.accuracy.value)
            yield f"{kind}, images greyed out".ljust(28) + f"{rates} (chance {_percent(found.chance)})"
    for kind, discovered in report.discovery.items():
        steps = ", ".join(str(seed.first_right.step) if seed.first_right else "never" for seed in discovered.seeds)
        yield f"{kind}, first found".ljust(28) + f"step {steps} (by seed; never demonstrated with code)"
    for pair in report.look_alikes:
        rates = _change(pair.sft.pairs_right.value, pair.rl.pairs_right.value)
        yield f"{pair.needs_code} / {pair.needs_none} pairs".ljust(28) + rates
    if report.tool_effect:
        # Steps of a seed are in order: its last one stays.
        last = {item.seed: item.groups.hard for item in report.tool_effect if item.seed is not None}.values()
        gain, harm = _mean([effect.gain.value for effect in last]), _mean([effect.harm.value for effect in last])
        yield "tools, hard questions".ljust(28) + f"win {_percent(gain)}, lose {_percent(harm)}"


def _change(before: float | None, after: float | None) -> str:
    return " -> ".join(map(_percent, (before, after)))


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that were measured."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"


def _error(error: Exception) -> None:
    print(f"error: {error}", file=sys.stderr, flush=True)


def _raise_on_signals() -> None:
    """The first of these signals raises `Interrupted`; further ones wait until everything was ended."""

    def interrupt(number: int, _: FrameType | None) -> None:
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def demo_lock(out: Path) -> AbstractContextManager[None]:
    """Keeps a second demo out of the folder. Raises UserError when there is one."""
    return run_lock(out, f"another demo runs in {out}; wait for it, or choose another folder with --out")


if __name__ == "__main__":
    sys.exit(main())
