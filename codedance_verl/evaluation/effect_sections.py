"""Charts and rows of the report's sections on what RL changed: greedy answers, controls, effect of tools, discovery."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from codedance_verl.evaluation.bar_plots import grouped_bars, stacked_bars
from codedance_verl.evaluation.effects import (
    Checkpoint,
    ControlFigures,
    DiscoveryPoint,
    FirstSeen,
    GroupControls,
    GroupEffect,
    KindDiscovery,
)
from codedance_verl.evaluation.figures import Figure, Groups
from codedance_verl.evaluation.plots import Point, comparison_chart, line_chart, seed_lines
from codedance_verl.evaluation.report import Report

_AS_IS, _GREY, _NO_TOOLS, _FORCED, _BLANK = 0, 5, 1, 3, 9
CONTROLS = (("as is", _AS_IS), ("returned images grey", _GREY), ("no tools", _NO_TOOLS), ("forced call", _FORCED))
"""Greedy controls as charts have them: label and colour."""

_CONTROL_LABELS = {
    "grey": "returned images grey",
    "no_tools": "no tools",
    "forced_tools": "forced call",
    "blank": "blank input image (sampled)",
}
_EFFECT = (("right without tools", 5), ("won by tools", 2), ("lost by tools", 11))
_CHANGE = (("drift", 5), ("change of gain", 2), ("harm avoided", 0))
_GROUPS = {"overall": "all questions", "hard": "hard questions", "easy": "easy questions"}


@dataclass(frozen=True)
class DiscoveryRow:
    """First calls of one seed on one kind, and the commands that show them in the viewer."""

    kind: str
    seed: int
    first_call: FirstSeen | None
    first_right: FirstSeen | None
    last: DiscoveryPoint | None
    command: str


def sections(report: Report) -> dict[str, object]:
    """Variables of the template `effects.html.j2`."""
    return {
        "greedy_chart": _greedy_chart(report),
        "control_charts": _control_charts(report),
        "control_rows": _control_rows(report),
        "effect_charts": _effect_charts(report.tool_effect),
        "effect_rows": _effect_rows(report.tool_effect),
        "discovery_charts": [_discovery_chart(kind, found) for kind, found in report.discovery.items()],
        "discovery_rows": _discovery_rows(report.discovery),
    }


def _greedy_chart(report: Report) -> Markup:
    after = report.rl.by_title()
    rows = [
        (name, before.accuracy_greedy, after[name].accuracy_greedy)
        for name, before in report.sft.by_title().items()
        if name in after
    ]
    return comparison_chart("Greedy accuracy, with 95 % intervals", rows, ("before RL (SFT)", "after RL"))


def _control_charts(report: Report) -> list[Markup]:
    if report.controls is None or not _control_rows(report):
        return []
    sides = (("before RL (SFT)", report.controls.sft), ("after RL", report.controls.rl))
    return [_control_chart(f"Greedy accuracy {name}; dashed: chance", groups) for name, groups in sides]


def _control_chart(title: str, groups: Groups[GroupControls]) -> Markup:
    found = groups.by_title().items()
    bars = [
        (name, [group.as_is.accuracy, *(_accuracy(group, control) for control in ("grey", "no_tools", "forced_tools"))])
        for name, group in found
    ]
    return grouped_bars(title, bars, CONTROLS, [group.chance for _, group in found])


def _accuracy(group: GroupControls, name: str) -> Figure | None:
    control: ControlFigures | None = getattr(group, name)
    return control.accuracy if control is not None else None


def _control_rows(report: Report) -> list[tuple[str, str, float | None, ControlFigures, ControlFigures]]:
    """Group, control, chance, and the figures before and after RL, of what both have."""
    if report.controls is None:
        return []
    after = report.controls.rl.by_title()
    return [
        (name, label, after[name].chance, old, new)
        for name, before in report.controls.sft.by_title().items()
        for field, label in _CONTROL_LABELS.items()
        if name in after and (old := getattr(before, field)) and (new := getattr(after[name], field))
    ]


def _effect_charts(checkpoints: Sequence[Checkpoint]) -> list[Markup]:
    """For each group of questions the terms at every checkpoint, and their changes since the start."""
    if not checkpoints:
        return []
    effects = {title: [getattr(item.groups, field) for item in checkpoints] for field, title in _GROUPS.items()}
    labels = [checkpoint_label(item) for item in checkpoints]
    return [
        *(_terms_chart(f"{title}, points", found, labels) for title, found in effects.items()),
        # all but the start, which the changes are counted from
        *(_change_chart(f"{title}, change since SFT", found[1:], labels[1:]) for title, found in effects.items()),
    ]


def _terms_chart(title: str, effects: Sequence[GroupEffect], labels: Sequence[str]) -> Markup:
    terms = [(item.accuracy_without.value, item.gain.value, _minus(item.harm.value)) for item in effects]
    marks = [item.accuracy.value for item in effects]
    return stacked_bars(title, list(zip(labels, terms, strict=True)), _EFFECT, marks, "accuracy with tools")


def _change_chart(title: str, effects: Sequence[GroupEffect], labels: Sequence[str]) -> Markup:
    changes = [(label, item.change) for label, item in zip(labels, effects, strict=True) if item.change is not None]
    bars = [(label, (item.drift.value, item.gain.value, _minus(item.harm.value))) for label, item in changes]
    return stacked_bars(title, bars, _CHANGE, [item.accuracy.value for _, item in changes], "change of accuracy")


def _effect_rows(checkpoints: Sequence[Checkpoint]) -> list[tuple[str, str, GroupEffect]]:
    """Group, checkpoint, and figures: of the start and of the last step of each seed."""
    # steps come in order, so the last one of each seed stays
    last = {item.seed: item for item in checkpoints}.values()
    names = list(checkpoints[0].groups.by_title()) if checkpoints else []
    return [(name, checkpoint_label(item), item.groups.by_title()[name]) for name in names for item in last]


def checkpoint_label(checkpoint: Checkpoint) -> str:
    return "SFT" if checkpoint.seed is None else f"s{checkpoint.seed}:{checkpoint.step}"


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _discovery_chart(kind: str, found: KindDiscovery) -> Markup:
    def of(share: str) -> list[tuple[int, list[Point]]]:
        return [(seed.seed, [(point.step, getattr(point, share)) for point in seed.points]) for seed in found.seeds]

    lines = [*seed_lines("code ran", of("share"), 0), *seed_lines("and the answer is right", of("share_right"), 2)]
    return line_chart(f"{kind}: share of training rollouts", lines, percent=True)


def _discovery_rows(found: Mapping[str, KindDiscovery]) -> list[DiscoveryRow]:
    return [
        DiscoveryRow(
            kind,
            seed.seed,
            seed.first_call,
            seed.first_right,
            seed.points[-1] if seed.points else None,
            _view_command(seed.first_right or seed.first_call),
        )
        for kind, discovered in found.items()
        for seed in discovered.seeds
    ]


def _view_command(first: FirstSeen | None) -> str:
    """Command that writes the first trajectory's question of that step as a page; RUN stands for the seed's run."""
    if first is None:
        return ""
    where = ("split=train", f"step={first.step}", f"record={first.trajectories[0].record_id}", "tools=used")
    return "codedance view RUN --export first.html " + " ".join(f"--where {shlex.quote(item)}" for item in where)
