"""Runs of the same model beside an evaluation: under a control, or with another limit of turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.harness.scores import FOLDER, TaskScores, read_scores, scores_path
from codedance_verl.records.key import Json, Key
from codedance_verl.records.store import existing_store
from codedance_verl.tasks.registry import TASKS

_MUST_AGREE = ("task", "revision", "model")
_MAY_DIFFER = ("control: ", "limits.environment.max_turns: ")


@dataclass(frozen=True)
class Beside:
    """Scores of a benchmark in other runs.

    Attributes:
        controls: by the control that the run was under.
        limits: by `max_turns`, of runs without a control, the evaluation itself among them where there is another one.
        notes: settings in which a run differs besides.
    """

    controls: Mapping[str, TaskScores] = field(default_factory=dict)
    limits: Mapping[int, TaskScores] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def runs_beside(key: Key, scores: TaskScores, folders: Iterable[Path]) -> Beside:
    """Scores of the benchmark in these output folders; one without the benchmark is passed over.

    Raises:
        UserError: a run is of another model or another revision, two are under one control or limit, or scores of a
            run cannot be read.
    """
    controls: dict[str, TaskScores] = {}
    limits: dict[int, TaskScores] = {}
    notes: list[str] = []
    for folder in folders:
        if not (folder / FOLDER).is_dir():
            raise UserError(f"{folder}: no evaluation with scores there; name its output folder")
        if not scores_path(folder, scores.task).exists():
            continue
        found = existing_store(folder / _replies(scores.task)).key
        notes += _checked(folder, key, found)
        # a run under a control is no point of the curve of limits, whatever its limit
        if control := str(_part(found, "control") or ""):
            _put(controls, control, read_scores(folder, scores.task), folder)
        elif (limit := max_turns(found)) is not None:
            _put(limits, limit, read_scores(folder, scores.task), folder)
    own = max_turns(key)
    if limits and own is not None and not _part(key, "control"):
        _put(limits, own, scores, Path(scores.task))
    return Beside(controls, dict(sorted(limits.items())) if len(limits) > 1 else {}, tuple(notes))


def max_turns(key: Key) -> int | None:
    """Limit of turns of a key; None where it states none."""
    limits = _part(key, "limits")
    environment = limits.get("environment") if isinstance(limits, Mapping) else None
    found = environment.get("max_turns") if isinstance(environment, Mapping) else None
    return found if isinstance(found, int) else None


def budget(key: Key) -> dict[str, str]:
    """Settings of a key in words, by name, but for benchmark and revision."""
    return {
        part.name: "; ".join(_words("", part.value)) or "none"
        for part in key.parts
        if part.name not in ("task", "revision")
    }


def control_of(key: Key) -> str:
    """Control of a key; empty for none."""
    return str(_part(key, "control") or "")


def format_of(key: Key) -> str | None:
    """Name of the format of calls; None where the key states none."""
    prompt = _part(key, "prompt")
    found = prompt.get("format") if isinstance(prompt, Mapping) else None
    return found if isinstance(found, str) else None


def _replies(name: str) -> str:
    """Benchmark whose replies are scored, which is another one where only the rule differs."""
    task = TASKS.get(name)
    return task.replies_of or name if task is not None else name


def _checked(folder: Path, key: Key, found: Key) -> Sequence[str]:
    """Lines for what differs besides control and limit of turns. Raises UserError for another model or revision."""
    changes = key.changes_to(found)
    for change in changes:
        # a change begins with the dotted path of what changed, such as `model.name: `
        if change.split(":")[0].split(".")[0] in _MUST_AGREE:
            raise UserError(f"{folder}: not a run of the same model and benchmark ({change}); leave it out")
    return [f"{folder.name} differs in {change}" for change in changes if not change.startswith(_MAY_DIFFER)]


def _put(runs: dict[str, TaskScores] | dict[int, TaskScores], name: str | int, scores: TaskScores, run: Path) -> None:
    if name in runs:
        raise UserError(f"{run}: a second run with {name} for {scores.task}; name one of them")
    runs[name] = scores  # type: ignore[index]


def _part(key: Key, name: str) -> Json:
    return next((part.value for part in key.parts if part.name == name), None)


def _words(name: str, value: Json) -> Iterable[str]:
    """Leaves of a value, such as `temperature 0.0`; those that are empty left out."""
    if isinstance(value, Mapping):
        for inner, item in value.items():
            yield from _words(f"{name}.{inner}" if name else str(inner), item)
    elif value not in (None, "", []):
        yield f"{name} {value}" if name else str(value)
