"""Filter from the survey to the files: both models are asked one after the other, then strata are written."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import codedance_verl
from codedance_verl.data.rows import Kind
from codedance_verl.datasets.commands import check_files
from codedance_verl.datasets.pieces import pieces_of
from codedance_verl.datasets.select import Target, kind_of, shared_stems
from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.errors import UserError
from codedance_verl.filtering import estimate
from codedance_verl.filtering.models import Tell, check_model, opened
from codedance_verl.filtering.output import file_of, write_outputs
from codedance_verl.filtering.rows import Chunk, Survey, chunks_of, survey
from codedance_verl.filtering.rule import Arm, Rule, Stratum
from codedance_verl.filtering.sampling import RECORDS, Pace, Sampler, recorded_chunk, sample_chunk
from codedance_verl.filtering.strata import Totals, write_strata
from codedance_verl.filtering.verdicts import Grading
from codedance_verl.grading.grader import Grader
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.runtime.atomic import write_atomically
from codedance_verl.runtime.locks import exclusive_lock
from codedance_verl.serving.config import ServingConfig

REPORT = "filter.json"
MODELS = ("weak", "strong")


@dataclass(frozen=True)
class FilterSettings:
    """What is filtered, by what.

    Attributes:
        files: of questions, in the order of the outputs.
        out: folder that is made.
        models: settings of `weak` and `strong`; grading is that of the weak one.
        rule: numbers of samples and thresholds.
        images: folder of stored images; None for `images` in `out`.
        workers: processes that write.
        skip_bad: whether bad rows are left out and listed.
    """

    files: tuple[Path, ...]
    out: Path
    models: Mapping[str, EvalSettings]
    rule: Rule
    images: Path | None = None
    workers: int = 1
    skip_bad: bool = False


async def filter_records(settings: FilterSettings, tell: Tell) -> dict[str, Any]:
    """Samples what is not settled yet, writes `<stratum>.parquet` and `filter.json`, and returns the report.

    Raises:
        UserError: files, models or settings are at fault; a row is bad; the endpoint fails all the time; or another
            process filters into the same folder.
        ChangedKey: the records were made with other settings of a model.
    """
    chunks, measured = _surveyed(settings, tell)
    for line in cost_lines(settings, measured):
        tell(line)
    _make_folder(settings.out)
    busy = f"{settings.out}: another process filters into it; wait for its end or name another --out"
    with exclusive_lock(settings.out / ".lock", busy):
        async with _grading(settings) as grading:
            sampler = Sampler(settings.out, settings.rule, grading, tell)
            for model in MODELS:
                await _sample(settings, sampler, chunks, model)
            return await asyncio.to_thread(_write, settings, sampler, chunks, measured)


def _make_folder(out: Path) -> None:
    """Makes the folder of a filter. Raises UserError: it cannot be made, or has files of these names by others."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: no folder can be made there ({error.strerror}); name another --out") from None
    there = [path for path in (file_of(out, stratum) for stratum in Stratum) if path.exists()]
    if there and not (out / RECORDS).is_dir():
        raise UserError(f"{there[0]}: is there, and is no filter's; it would be replaced: name another --out")


def plan_lines(settings: FilterSettings, tell: Tell) -> Sequence[str]:
    """Lines on what the filter may ask; nothing is started. Raises UserError as `filter_records`."""
    _, measured = _surveyed(settings, tell)
    return cost_lines(settings, measured)


def cost_lines(settings: FilterSettings, measured: Survey) -> Sequence[str]:
    """Lines on samples and tokens before the first of them."""
    weak = settings.models["weak"]
    environment = EnvironmentConfig.from_mapping(_plain(weak, "environment"))
    if weak.evaluation.max_turns is not None:
        environment = environment.replace(max_turns=weak.evaluation.max_turns)
    tokens = ServingConfig.from_mapping(_plain(weak, "serving")).response_tokens
    lines = list(estimate.lines_of(measured, settings.rule, environment, tokens))
    if measured.open_answers and weak.grading.open_answers == "judge" and not weak.grading.judge.endpoints:
        lines.append(
            f"{measured.open_answers:,} questions ask a judge where no rule decides, and grading.judge.endpoints names "
            "none: such answers have no verdict"
        )
    return lines


def _surveyed(settings: FilterSettings, tell: Tell) -> tuple[tuple[Chunk, ...], Survey]:
    rule = settings.rule
    for name in MODELS:
        plain, tools = (Arm(name), Arm(f"{name}_tools"))
        check_model(settings.models[name], name, rule.samples[plain], rule.samples[tools])
    check_files(settings.files, [file_of(settings.out, stratum) for stratum in Stratum])
    if shared := shared_stems(settings.files):
        raise UserError(f"several files are named {shared[0]}, by which records of replies go; rename them")
    if kind_of(settings.files) is not Kind.QUESTIONS:
        raise UserError("a filter takes questions for RL, not demonstrations; name files with a column reward_model")
    pieces = pieces_of(settings.files)
    environment = EnvironmentConfig.from_mapping(_plain(settings.models["weak"], "environment"))
    measured = survey(pieces, environment.max_image_pixels, settings.skip_bad)
    for line in measured.lines:
        tell(f"left out: {line}")
    if not measured.rows:
        raise UserError(f"{', '.join(file.name for file in settings.files)}: no record can be used")
    return chunks_of(pieces), measured


async def _sample(settings: FilterSettings, sampler: Sampler, chunks: Sequence[Chunk], model: str) -> None:
    """Asks a model about all chunks; it is not started where nothing is left for it."""
    most = {chunk: await recorded_chunk(sampler, chunk, settings.models[model], model) for chunk in chunks}
    left = [chunk for chunk in chunks if most[chunk]]
    if not left:
        sampler.tell(f"{model} model: nothing is left to ask")
        return
    pace = Pace()
    async with opened(settings.models[model], sampler.tell) as modes:
        for number, chunk in enumerate(left, 1):
            samples = sum(most[later] for later in left[number - 1 :])
            time_left = pace.remaining(samples)
            sampler.tell(
                f"{model} model: chunk {number:,} of {len(left):,}, at most {samples:,} samples left"
                f"{f', {time_left} at the present rate' if time_left else ''}"
            )
            await sample_chunk(sampler, chunk, modes, model, pace)


def _write(settings: FilterSettings, sampler: Sampler, chunks: Sequence[Chunk], measured: Survey) -> dict[str, Any]:
    totals = Totals()
    for chunk in chunks:
        write_strata(sampler, chunk, totals)
    images = settings.images or settings.out / "images"
    target = Target(file_of(settings.out, Stratum.EASY).absolute(), images.absolute(), Kind.QUESTIONS, ())
    files = write_outputs(settings.out, target, chunks, settings.workers, settings.skip_bad)
    report = {
        "version": codedance_verl.__version__,
        "files": [str(file) for file in settings.files],
        "bad_rows": measured.bad,
        "models": {name: _stated(settings.models[name]) for name in MODELS},
        "rule": asdict(settings.rule),
        **totals.document(),
        "outputs": {stratum.value: str(path) for stratum, path in files.items()},
    }
    write_atomically(settings.out / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report


@contextlib.asynccontextmanager
async def _grading(settings: FilterSettings) -> AsyncIterator[Grading]:
    config = settings.models["weak"].grading
    grader = Grader(config, settings.out)
    grader.check_custom()
    # a judge that is asked in other words, or another version of the rules, may give other verdicts
    stated = json.dumps([codedance_verl.__version__, config.model_dump(mode="json")], sort_keys=True)
    try:
        yield Grading(grader, hashlib.sha256(stated.encode()).hexdigest()[:16], config.judge.concurrency)
    finally:
        await grader.close()


def _stated(settings: EvalSettings) -> dict[str, Any]:
    asked = settings.evaluation
    names = ("model", "model_revision", "endpoint", "temperature", "top_p", "seed")
    return {name: getattr(asked, name) for name in names}


def _plain(settings: EvalSettings, node: str) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(OmegaConf.select(settings.tree, node), resolve=True)
    return dict(values)
