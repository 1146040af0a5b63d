"""Weak and strong model of a filter, each asked plainly and with tools."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace

from codedance_verl.errors import UserError
from codedance_verl.harness import answerers
from codedance_verl.harness.reply import Answerer, ImageFolder, Question, Reply
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.harness.ways import both_ways
from codedance_verl.records.key import ChangedKey, Json, Key, replies_key
from codedance_verl.records.store import Store

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Mode:
    """Model in one mode. The number of a sample stands in its item (`rows.item_of`)."""

    answerer: Answerer
    settings: EvalSettings

    @property
    def most_at_once(self) -> int:
        """Questions at once, at most."""
        most = self.answerer.most_at_once
        return min(self.settings.evaluation.concurrency or most, most)

    def describe(self) -> dict[str, Json]:
        return self.answerer.describe()

    async def answer(self, question: Question, images: ImageFolder) -> Reply:
        """Reply with the seed of the item's sample (`Answerer.answer`)."""
        return await self.answerer.answer(replace(question, sample=question.item.facts["sample"]), images)

    def key(self) -> Key:
        """Key of its records: thresholds and numbers of samples are not in it, since they change no reply."""
        return _key(self.settings, self.settings.evaluation.control or "", self.describe())


def check_recorded(store: Store, settings: EvalSettings) -> None:
    """Raises ChangedKey: records are of another model or sampling, as far as that is known without the model."""
    known = {part.name: part.value for part in store.key.parts}
    described = {name: known[name] for name in ("model", "prompt", "limits")}
    if changes := store.key.changes_to(_key(settings, known["control"], described)):
        first = f"{store.folder}: its records were made with other settings; restore these, or choose another folder"
        raise ChangedKey("\n".join([first, *changes]))


def check_model(settings: EvalSettings, name: str, samples: int, tool_samples: int) -> None:
    """Raises UserError: settings of a model that contradict its numbers of samples."""
    asked = settings.evaluation
    if asked.control is not None or asked.samples != 1:
        raise UserError(f"{name}: eval.control and eval.samples are set by the filter itself; leave them out")
    if asked.limit is not None or asked.score_only:
        raise UserError(
            f"{name}: eval.limit and eval.score_only are not for a filter; `codedance data sample` draws rows"
        )
    if asked.loop == "plain" and tool_samples:
        raise UserError(f"{name}: eval.loop=plain runs no code; leave it out, or set --{name}-tool-samples 0")
    samples = max(samples, tool_samples)
    if samples > 1 and asked.temperature == 0:
        raise UserError(f"{name}: eval.temperature=0 draws {samples} times the same reply; set it over 0")


@contextlib.asynccontextmanager
async def opened(settings: EvalSettings, tell: Tell) -> AsyncIterator[Mapping[bool, Mode]]:
    """Starts a model, which ends with the block; gives its modes, by whether there are tools.

    With `eval.loop=plain` there is the one without tools alone. Raises UserError: it does not start.
    """
    if settings.evaluation.loop == "plain":
        async with answerers.started(settings, tell) as answerer:
            yield {False: Mode(answerer, settings)}
        return
    async with both_ways(settings, tell) as ways:
        yield {tools: Mode(way.answerer, way.settings) for tools, way in ((False, ways.direct), (True, ways.tools))}


def _key(settings: EvalSettings, control: str, described: Mapping[str, Json]) -> Key:
    asked = settings.evaluation
    # as it was asked for: without the model itself nothing else tells it apart
    model = {**described["model"], "asked": asked.model, "asked_revision": asked.model_revision}
    return replies_key(
        task="filter",
        revision="",
        model=model,
        prompt=described["prompt"],
        sampling={"temperature": asked.temperature, "top_p": asked.top_p, "seed": asked.seed},
        limits=described["limits"],
        control=control,
    )
