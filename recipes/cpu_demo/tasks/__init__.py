"""Seeded task generators, one file per kind."""

from __future__ import annotations

from codedance_verl.errors import UserError
from codedance_verl.generators.drawing import DoesNotFit
from recipes.cpu_demo.tasks import count_digits, count_photo, easy, extremes, look
from recipes.cpu_demo.tasks.base import (
    DEFAULT_SIZE,
    Generator,
    Program,
    Split,
    Task,
    task_rng,
)
from recipes.cpu_demo.trusted_execution import run_program

GENERATORS: dict[str, Generator] = {
    module.KIND: module.generate for module in (count_photo, count_digits, extremes, look, easy)
} | {look.LARGE_KIND: look.generate_large}


MIN_SIZE = 84
"""Side in pixels below which objects shrink to a few pixels each."""

_MAX_DRAWS = 1_000
"""Draws before giving up on a task; a handful is the rule, so this many mean that a generator cannot succeed."""


def generate_task(kind: str, seed: int, split: Split, index: int, size: int = DEFAULT_SIZE) -> Task:
    """Task number `index` of a kind, split and seed: the same arguments always give the same task.

    Its right programs have been run and print its answer; a draw whose programs do not (a photograph that shows the
    colour asked for, say) is thrown away. Raises UserError for an unknown kind or a size too small for it.
    """
    if kind not in GENERATORS:
        raise UserError(f"unknown task kind {kind!r}; choose from {', '.join(sorted(GENERATORS))}")
    if size < MIN_SIZE:
        raise UserError(f"images of {size} pixels are too small for their objects; use at least {MIN_SIZE}")
    # one source for all draws of a task: a draw that is thrown away changes this task alone
    rng = task_rng(seed, split, kind, index)
    for _ in range(_MAX_DRAWS):
        try:
            task = GENERATORS[kind](rng, split, size)
        except DoesNotFit:
            continue
        if all(_answers(task, program) for program in task.right_code):
            return task
    raise RuntimeError(f"no {kind} task of {size} pixels came out right in {_MAX_DRAWS} draws")


def _answers(task: Task, program: Program) -> bool:
    executions = run_program(program, task.image)
    if not all(execution.succeeded for execution in executions):
        return False
    return not task.answer_is_printed or executions[-1].stdout.strip() == task.answer
