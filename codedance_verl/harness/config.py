"""Settings of `eval` (`conf/eval.yaml`): which benchmarks are asked, of which model, and how."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from codedance_verl.config.node import Allowed, Node, null_as
from codedance_verl.data.conditions import Control
from codedance_verl.records.record import Status
from codedance_verl.tasks.own_records import is_own
from codedance_verl.tasks.registry import TASKS

BLANK = "blank"
"""Control that is a change of the question; the others are the service's own (`data.conditions.Control`)."""


def _known(name: str) -> str:
    if name not in TASKS and not is_own(name):
        raise ValueError(f"must be a parquet file of questions, or of {', '.join(TASKS)}")
    return name


ASKED_AGAIN = (Status.ENDPOINT_FAILURE, Status.SANDBOX_FAULT, Status.IMAGE_UNREADABLE)
"""Failures that another try may not meet. What a judge has not decided is asked by every scoring."""


def _failure(name: str) -> str:
    if name not in ASKED_AGAIN:
        raise ValueError(f"must be of {', '.join(ASKED_AGAIN)}")
    return name


Names = Annotated[
    tuple[Annotated[str, AfterValidator(_known)], ...],
    Field(strict=False),  # a list of YAML is none of Python's tuples
    null_as(()),
    Allowed("a list of names of benchmarks, and of parquet files of one's own questions"),
]
Failures = Annotated[
    tuple[Annotated[str, AfterValidator(_failure)], ...],
    Field(strict=False),
    null_as(()),
    Allowed(f"a list of {', '.join(ASKED_AGAIN)}"),
]


Folders = Annotated[tuple[str, ...], Field(strict=False), null_as(()), Allowed("a list of folders")]


class EvalConfig(Node):
    """Benchmarks, the model that is asked, and how."""

    KEY: ClassVar[str] = "eval"

    model: str = ""
    """A run's folder, a Hugging Face folder, or a name on the Hub; with `endpoint` the name of the model there."""
    model_revision: str = ""
    """What else tells the model of a chat endpoint apart from another of its name; part of the records' key."""
    benchmarks: Names = ()
    """Names of benchmarks (`tasks.registry`), and parquet files of one's own questions (`tasks.own_records`)."""
    data: str = ""
    """Folder that holds a folder of files for each benchmark, by its name; or the files of a single one."""
    out: str = Field("outputs/eval", min_length=1)
    """Folder of records, scores and report; run again with the same one, an evaluation continues."""
    endpoint: str | None = None
    """Base URL of a running `codedance serve`, or of any OpenAI-compatible server; null: the model runs here."""
    loop: Literal["auto", "chat", "plain"] = "auto"
    """Loop of an endpoint: `auto` leaves it to `codedance serve`, `chat` runs it here, `plain` has none."""
    api_key_env: str = "CODEDANCE_API_KEY"
    """Environment variable that holds the key of the endpoint; empty for no key."""
    samples: int = Field(1, ge=1, le=1000)
    """Replies to an item; the mean of their scores counts."""
    temperature: float | None = Field(0.0, ge=0, le=2)
    """Sampling temperature; null: none is sent, and the endpoint's own counts, or `serving.temperature`."""
    top_p: float | None = Field(1.0, ge=0.01, le=1)
    """Probability mass that is sampled from; null as for the temperature."""
    seed: int | None = Field(0, ge=0, le=2**31 - 1)  # 31 bits, which every server takes
    """Seed of the first reply to an item; the next reply has the next one. Null: none is sent."""
    control: Literal["no_tools", "forced_tools", "grey_observations", "blank"] | None = None
    """What is changed on purpose."""
    max_turns: int | None = Field(None, ge=1, le=100)
    """Turns of a trajectory; null: those of the model's own settings."""
    concurrency: int | None = Field(None, ge=1, le=4096)
    """Questions at once; null: as many as engine and sandbox take."""
    limit: int | None = Field(None, ge=1, le=10_000_000)
    """Items of each benchmark, from the first; null: all."""
    # not images: the same file stays unreadable until someone replaces it
    again: Failures = ("endpoint_failure", "sandbox_fault")
    """Failures on record that are asked again when the evaluation is run once more."""

    score_only: bool = False
    """Asks nothing: what is on record is scored and reported."""
    judge_agreement: int = Field(0, ge=0, le=100_000)
    """Items of each benchmark on which the judge is compared with the official score; 0 for none."""
    beside: Folders = ()
    """Output folders of runs of the same model under a control, or with another limit of turns."""

    @property
    def service_control(self) -> Control | None:
        """Control of the service; None where there is none, or the question is changed."""
        return Control(self.control) if self.control not in (None, BLANK) else None

    @property
    def asked_again(self) -> tuple[Status, ...]:
        """Statuses of `again`."""
        return tuple(Status(name) for name in self.again)
