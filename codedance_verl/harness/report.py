"""Records of `report.json`: what `codedance eval` has measured, benchmark by benchmark. Reading checks the file.

A benchmark has never one figure: those of its official rule, those of this project's grader, and the variants that
papers quote (means of cycles, strict and loose scores, versions), each with its interval and with what items without a
score could add.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from codedance_verl.errors import UserError
from codedance_verl.harness.estimate import Estimate
from codedance_verl.harness.published import PublishedFigure
from codedance_verl.harness.tool_use import Calibration, ControlEffect, LimitOfTurns, ToolEffect, TurnsPoint
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.trajectories.schema import encodable, in_words

SCHEMA_VERSION = 1
"""Of the reports that are written. It rises when a field changes its meaning, not when one is added."""


class ReportedFigure(msgspec.Struct, frozen=True, kw_only=True):
    """Figure over all items of a benchmark, those without a score counted wrong.

    Attributes:
        name: such as `accuracy` or `score (strict)`.
        definition: the same in a sentence.
        estimate: the headline, with the interval by cluster.
        best: the figure, had every item without a score been right; None where that is no bound, as for a rate of one
            class among some.
        bounds: 95 %, from the lower end for the headline to the upper end for `best`; without a value of its own.
        items: what the figure divides by; problems or questions for figures of those.
        clusters: those that are independent.
        design_effect: variance by that of as many independent items; None where it is not known.
        sentence: the headline in words.
        power: smallest difference that the benchmark shows at this accuracy, in words; empty where it is not known.
    """

    name: str
    definition: str
    estimate: Estimate
    best: float | None = None
    bounds: Estimate = Estimate()
    items: int
    clusters: int
    design_effect: float | None = None
    sentence: str = ""
    power: str = ""


class Scoring(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one way of scoring.

    Attributes:
        which: `official` or `ours`.
        rule: name of the rule, with what differs from the published one.
        rules_applied: rules that scores name, with the number of scores each.
        judge: model and prompt of the judge; empty where none was asked.
        figures: the one usually quoted first, then the published variants.
        without_score: samples without a score, by why; they are wrong in the figures.
    """

    which: str
    rule: str
    rules_applied: dict[str, int] = {}
    judge: str = ""
    figures: tuple[ReportedFigure, ...] = ()
    without_score: dict[str, int] = {}

    @property
    def headline(self) -> ReportedFigure | None:
        """Figure that is usually quoted; None where nothing was scored."""
        return self.figures[0] if self.figures else None


class Denominator(msgspec.Struct, frozen=True, kw_only=True):
    """Items that figures divide by, and what became of their samples.

    Attributes:
        expected: items of the revision.
        items: items that were to be asked.
        samples: replies to each.
        answered: samples with a reply.
        faults: samples without one, by status; they are wrong in every figure.
        reasons: the most frequent reasons of these, with how many have each.
        not_asked: samples that were not asked yet.
        note: line that says that the items are not those of the revision; empty where they are.
    """

    expected: int
    items: int
    samples: int
    answered: int
    faults: dict[str, int] = {}
    reasons: dict[str, int] = {}
    not_asked: int = 0
    note: str = ""

    @property
    def not_answered(self) -> int:
        """Samples without a reply, for whatever reason."""
        return self.not_asked + sum(self.faults.values())


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """Behaviour of the model over the replies.

    Attributes:
        replies: how many there are.
        use: share in which a call ran.
        calls, turns: means; None where there is no reply.
        completion_tokens: mean over the replies that state them; None where none does.
        finish: replies by reason of their end; `not stated` for endpoints that give none.
    """

    replies: int
    use: Estimate
    calls: float | None = None
    turns: float | None = None
    completion_tokens: float | None = None
    finish: dict[str, int] = {}


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """Effect of tools by runs under controls; parts without a run are None or empty.

    Attributes:
        which: way of scoring that these figures use.
        effect: gain and harm against the run without tools.
        calibration: use against difficulty without tools.
        controls: runs under a control beside the run without one.
        turns: right answers by the turn in which they came.
        limits: accuracy by `max_turns`.
    """

    which: str
    effect: ToolEffect | None = None
    calibration: Calibration | None = None
    controls: tuple[ControlEffect, ...] = ()
    turns: tuple[TurnsPoint, ...] = ()
    limits: tuple[LimitOfTurns, ...] = ()


class OperationRate(msgspec.Struct, frozen=True):
    """Replies with a category of operations, per 1,000, with Wilson's interval."""

    category: str
    count: int
    per_1000: float
    low: float
    high: float


class Operations(msgspec.Struct, frozen=True, kw_only=True):
    """Operations in the code of the replies (`docs/operations.md`).

    Attributes:
        replies: replies whose code was analysed.
        with_code, on_image, dead: replies with code, with an operation on what derives from the image, and with an
            operation from which nothing shown derives.
        categories: by category, those that no reply has left out.
        compositions: the most frequent ones along the data flow, with the number of replies.
        not_analysed: cells that are no Python or too large.
    """

    replies: int
    with_code: OperationRate
    on_image: OperationRate
    dead: OperationRate
    categories: tuple[OperationRate, ...]
    compositions: dict[str, int]
    not_analysed: int


class UseShare(msgspec.Struct, frozen=True):
    """Calls of a class among those that have one, with its interval by item.

    Attributes:
        use: name of the class (`call_use.Use`).
        meaning: the same in words.
        calls: how many have it.
        share: of the calls that have a class.
    """

    use: str
    meaning: str
    calls: int
    share: Estimate


class Faithfulness(msgspec.Struct, frozen=True, kw_only=True):
    """Use of the evidence by calls that ran again with it altered (`docs/evaluation.md`).

    Attributes:
        replies: replies in which code ran.
        drawn: those whose calls ran again.
        faults: those of `drawn` that have no findings.
        with_class: those of `drawn` with a call that has a class.
        calls: calls that have a class.
        classes: `used`, `unused`, `decorative`, `hard_coded`.
        apart: calls without a class, by why.
        evidence: calls that have a class, by what their evidence was: `benchmark`, `code`, `image`.
    """

    replies: int
    drawn: int
    faults: int = 0
    with_class: int
    calls: int
    classes: tuple[UseShare, ...]
    apart: dict[str, int] = {}
    evidence: dict[str, int] = {}


class BenchmarkReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on one benchmark.

    Attributes:
        task, title: name on the command line, name in texts.
        source, revision: dataset on the hub, and commit of it that counts and rule were written for.
        key: digest of the settings that replies must agree in.
        budget: these settings in words, by name: model, prompt, sampling, limits, control.
        call_format: name of the format of calls; empty where the settings state none.
        denominator: items, and what became of them.
        scorings: `official`, `ours`.
        published: figures of papers that compare with the first official figure.
        behaviour: calls, turns, tokens and ends of the replies.
        tools: effect of tools; None where no run under a control was given.
        operations: operations in the code; None where no code ran.
        faithfulness: use of the evidence by calls; None where no calls ran again.
    """

    task: str
    title: str
    source: str
    revision: str
    key: str
    budget: dict[str, str]
    call_format: str = ""
    denominator: Denominator
    scorings: tuple[Scoring, ...]
    published: tuple[PublishedFigure, ...] = ()
    behaviour: Behaviour
    tools: Tools | None = None
    operations: Operations | None = None
    faithfulness: Faithfulness | None = None

    def scoring(self, which: str) -> Scoring | None:
        """Figures of a way of scoring; None where there are none."""
        return next((scoring for scoring in self.scorings if scoring.which == which), None)


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report.

    Attributes:
        schema_version: version of this form.
        model: name of what was evaluated.
        created: time of the report in UTC, as ISO 8601.
        control: control that the run was under; empty for none.
        benchmarks: in the order of the run.
        notes: lines that a reader must see, such as what was left out.
        versions: of Python, the system and the packages.
    """

    schema_version: int = SCHEMA_VERSION
    model: str
    created: str
    control: str = ""
    benchmarks: tuple[BenchmarkReport, ...]
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = {}


def write_report(report: EvaluationReport, path: Path) -> None:
    """Writes `report.json` atomically; half a surrogate pair in a text becomes `?`. Raises OSError."""
    plain = encodable(msgspec.to_builtins(report))
    # a NaN would be written as a word that is no JSON: better no file
    write_atomically(path, json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_report(path: Path) -> EvaluationReport:
    """Report of a file. Raises UserError: there is none, it is no report, or of a newer version."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no report ({error}); name a report.json of codedance eval") from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    # before the form is checked, or a newer report would look like a broken one
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise UserError(f"{path}: schema_version is {version}, this code reads up to {SCHEMA_VERSION}; update the code")
    try:
        return msgspec.convert(value, EvaluationReport)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: no report of codedance eval ({in_words(error)})") from error
