"""Settings of grading (`conf/grading.yaml`), each with its unit and its allowed values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from codedance_verl.config.checks import check_choice, check_known, check_number, check_whole
from codedance_verl.errors import UserError
from codedance_verl.grading.context import Context
from codedance_verl.grading.custom import CustomGraders
from codedance_verl.grading.judge.config import JudgeConfig

# Where the settings stand in the configuration.
CONFIG_NODE = "grading"

OPEN_ANSWERS = ("judge", "text")

_RANGES: dict[str, tuple[float, float]] = {
    "relative_tolerance": (0.0, 1.0),
    "box_iou": (0.01, 1.0),
    "math_timeout_s": (0.1, 60.0),
    "custom_timeout_s": (0.1, 600.0),
}
_MOST_PROCESSES = 64
_PER_SOURCE = ("relative_tolerance", "box_iou")


@dataclass(frozen=True)
class GradingConfig:
    """How answers are compared, and who is asked about those that comparing does not settle.

    Attributes:
        relative_tolerance: how far a number may be off, as a share of the true one, 0 to 1.
        box_iou: intersection over union from which on two boxes are the same, 0.01 to 1.
        math_timeout_s: run time of one comparison of formulas, 0.1 to 60 seconds; without a result by then the answer
            is ungraded.
        open_answers: what happens with an answer that no rung settles, of a record whose style asks for a judge.
            `judge`: it is asked; `text`: another text is wrong.
        custom: graders of the user's own by dotted path (`CustomGraders`), for all records, by style or by data source.
        custom_timeout_s: run time of one call of such a grader, 0.1 to 600 seconds; without a verdict by then the
            answer is ungraded, and its process is killed and started again.
        custom_processes: processes of each such grader in a rollout worker, 1 to 64: that many answers are graded at
            once, the others wait.
        data_sources: `relative_tolerance` and `box_iou` of single data sources, by `data_source` of their records.
        judge: the endpoints and their limits (`JudgeConfig`).
    """

    relative_tolerance: float = 0.0
    box_iou: float = 0.5
    math_timeout_s: float = 5.0
    open_answers: str = "judge"
    custom: CustomGraders = field(default_factory=CustomGraders)
    custom_timeout_s: float = 10.0
    custom_processes: int = 1
    data_sources: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    judge: JudgeConfig = field(default_factory=JudgeConfig)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], node: str = CONFIG_NODE) -> GradingConfig:
        """Builds from the config node that stands at the dotted key `node`; absent keys take their default.

        Raises:
            UserError: names the dotted key, the value seen and what is allowed.
        """
        check_known(values, [item.name for item in fields(cls)], node)
        given: dict[str, Any] = {str(key): value for key, value in values.items()}
        for name, (low, high) in _RANGES.items():
            if name in given:
                given[name] = check_number(given[name], low, high, f"{node}.{name}")
        if "open_answers" in given:
            check_choice(given["open_answers"], OPEN_ANSWERS, f"{node}.open_answers")
        given["custom"] = CustomGraders.from_value(given.get("custom"), f"{node}.custom")
        if "custom_processes" in given:
            check_whole(given["custom_processes"], 1, _MOST_PROCESSES, f"{node}.custom_processes")
        given["data_sources"] = _data_sources(given.get("data_sources") or {}, f"{node}.data_sources")
        given["judge"] = JudgeConfig.from_mapping(given.get("judge") or {}, f"{node}.judge")
        return cls(**given)

    def context(self, question: str = "", data_source: str = "") -> Context:
        """What an answer to a question of this data source is compared with."""
        own = self.data_sources.get(data_source, {})
        return Context(
            question=question,
            relative_tolerance=own.get("relative_tolerance", self.relative_tolerance),
            box_iou=own.get("box_iou", self.box_iou),
            math_timeout_s=self.math_timeout_s,
        )


def _data_sources(values: Any, node: str) -> Mapping[str, Mapping[str, float]]:
    if not isinstance(values, Mapping):
        raise UserError(f"{node}={values}: must map data sources to settings, such as {{chartqa: {{box_iou: 0.7}}}}")
    checked: dict[str, Mapping[str, float]] = {}
    for source, settings in values.items():
        key = f"{node}.{source}"
        if not isinstance(settings, Mapping):
            raise UserError(f"{key}={settings}: must be a mapping; known are {', '.join(_PER_SOURCE)}")
        check_known(settings, _PER_SOURCE, key)
        checked[str(source)] = {
            str(name): check_number(value, *_RANGES[str(name)], f"{key}.{name}") for name, value in settings.items()
        }
    return checked
