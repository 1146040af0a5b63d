"""Trajectories for the reward tests, written as the model writes them."""

from __future__ import annotations

from codedance_verl.formats import get_format, render_answer, render_think
from codedance_verl.types import Execution, ExecutionStatus, FinishReason, Grade, Trajectory, Turn, Verdict

RIGHT = Grade(Verdict.CORRECT, "exact_text")
WRONG = Grade(Verdict.WRONG, "text")
UNGRADED = Grade(Verdict.UNGRADED, "judge")

CODE = "print(1)"


def trajectory(
    *statuses: str,
    codes: tuple[str, ...] = (),
    answer: str | None = "3",
    finish: FinishReason = FinishReason.ANSWER,
) -> Trajectory:
    """One code turn for each status, then an answer unless it is None. `codes` replaces the first turns' code."""
    texts = [
        render_think("look") + get_format("code").render_call(code)
        for code in (*codes, *[CODE] * (len(statuses) - len(codes)))
    ]
    executions: list[Execution | None] = [Execution(ExecutionStatus(status)) for status in statuses]
    if answer is not None:
        texts.append(render_think("so") + render_answer(answer))
        executions.append(None)
    return from_texts(texts, executions, finish)


def from_texts(
    texts: list[str], executions: list[Execution | None] | None = None, finish: FinishReason = FinishReason.ANSWER
) -> Trajectory:
    """Turns of 10 tokens each with 5 tokens of feedback between them."""
    executions = executions or [None] * len(texts)
    turns = tuple(
        Turn(text, 15 * k, 15 * k + 10, get_format("code").parse(text).code, execution)
        for k, (text, execution) in enumerate(zip(texts, executions, strict=True))
    )
    answer = get_format("code").parse(texts[-1]).answer if texts else None
    return Trajectory("r", "test", "How many?", "3", turns, finish, answer)
