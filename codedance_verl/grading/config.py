"""Settings of grading (`conf/grading.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from codedance_verl.config.node import Allowed, Node, null_as
from codedance_verl.grading.context import Context
from codedance_verl.grading.custom import CustomGraders
from codedance_verl.grading.judge.config import JudgeConfig
from codedance_verl.isolated.function import check_path


class SourceConfig(Node):
    """Settings of one data source; null for those of all others."""

    relative_tolerance: float | None = Field(None, ge=0, le=1)
    box_iou: float | None = Field(None, ge=0.01, le=1)


class GradingConfig(Node):
    """Comparison of answers, and the judge of those that no rule decides."""

    KEY: ClassVar[str] = "grading"

    relative_tolerance: float = Field(0.0, ge=0, le=1)
    """Distance of a number from the true one that still counts, as a share of the true one."""
    box_iou: float = Field(0.5, ge=0.01, le=1)
    """Intersection over union from which on two boxes are the same."""
    math_timeout_s: float = Field(5.0, ge=0.1, le=60)
    """Run time of one comparison of formulas in seconds; without a result by then the answer is ungraded."""
    open_answers: Literal["judge", "text"] = "judge"
    """Treatment of an answer that no rule decides, of a record whose style asks for a judge. `text`: another text is
    wrong."""
    custom: CustomGraders = Field(default_factory=CustomGraders)
    """Graders of the user's own by dotted path: one for all records, or by style and data source."""
    custom_timeout_s: float = Field(10.0, ge=0.1, le=600)
    """Run time of one call of such a grader in seconds; without a verdict by then the answer is ungraded, and its
    process is killed and started again."""
    custom_processes: int = Field(1, ge=1, le=64)
    """Processes of each such grader in a rollout worker; further answers wait."""
    data_sources: Annotated[
        dict[str, SourceConfig],
        null_as({}),
        Allowed("a mapping of data sources to settings, such as {chartqa: {box_iou: 0.7}}"),
    ] = Field(default_factory=dict)
    """Settings of single data sources, by `data_source` of their records."""
    judge: Annotated[JudgeConfig, null_as({})] = Field(default_factory=JudgeConfig)
    """Endpoints of the judge and their limits."""

    @field_validator("custom", mode="before")
    @classmethod
    def _read_short_forms(cls, value: Any) -> Any:
        """Null stands for no grader, a path for the grader of all records."""
        if isinstance(value, Mapping | CustomGraders):
            return value
        return {} if value is None else {"default": check_path(value)}

    def context(self, question: str = "", data_source: str = "") -> Context:
        """Context that an answer to a question of this data source is compared in."""
        own = self.data_sources.get(data_source, _NO_SETTINGS)
        return Context(
            question=question,
            relative_tolerance=self.relative_tolerance if own.relative_tolerance is None else own.relative_tolerance,
            box_iou=self.box_iou if own.box_iou is None else own.box_iou,
            math_timeout_s=self.math_timeout_s,
        )


_NO_SETTINGS = SourceConfig()
