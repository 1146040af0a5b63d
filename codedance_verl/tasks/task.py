"""Benchmarks as records of plain functions, and the reading of a folder by the layouts that they accept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.tasks.figures import Figures
from codedance_verl.tasks.item import Item, JudgeRequest, Score

MAX_REPLY_CHARS = 32_768
"""Characters of a reply that a rule gets, at most: some rules take time that grows with the square of the length."""


@dataclass(frozen=True)
class Layout:
    """Form in which files of a benchmark lie in a folder.

    Attributes:
        name: words for messages and docs, such as `parquet of lmms-lab/vstar-bench`.
        find: files of this layout in a folder, in order; empty where there are none.
        items: items of these files, one by one.
    """

    name: str
    find: Callable[[Path], tuple[Path, ...]]
    items: Callable[[tuple[Path, ...]], Iterator[Item]]


@dataclass(frozen=True)
class Task:
    """Benchmark.

    Attributes:
        name: name on the command line.
        title: name in reports.
        source: dataset on the hub.
        revision: commit of it that counts and rule were written for.
        expected: items of the revision.
        layouts: accepted layouts; the first that finds files is read.
        score: official rule, for a reply of bounded length; `official` calls it. Never raises, whatever the reply is.
        rule: name of the official rule, with what differs from it, in a sentence.
        figures: figures of one way of scoring.
        hub_files: patterns of the files that are needed of the hub's dataset, `**/` for folders of any depth or none.
        replies_of: benchmark with the same items, whose replies this one scores by another rule; empty for none.
    """

    name: str
    title: str
    source: str
    revision: str
    expected: int
    layouts: tuple[Layout, ...]
    score: Callable[[Item, str], Score | JudgeRequest]
    rule: str
    figures: Figures
    hub_files: tuple[str, ...] = ()
    replies_of: str = ""

    def official(self, item: Item, reply: str) -> Score | JudgeRequest:
        """Official score of an item's reply, or the request to a judge that the rule asks for. Never raises.

        The reply is its final answer as text, empty where there is none; a long one is `clipped`.
        """
        return self.score(item, clipped(reply))

    def items(self, folder: Path) -> Iterator[Item]:
        """Items of the folder, in order, with unique ids; nothing is held but those ids.

        Raises UserError: there is no such folder, no layout fits, or a file is no such file.
        """
        layout, files = self.found_in(folder)
        # stamped behind `unique`, so that an empty cluster takes the id that stands
        return (self._stamped(item) for item in unique(layout.items(files)))

    def _stamped(self, item: Item) -> Item:
        fault = item.fault or next(filter(None, (image.fault() for image in item.images)), "")
        return replace(item, task=self.name, revision=self.revision, cluster=item.cluster or item.id, fault=fault)

    def found_in(self, folder: Path) -> tuple[Layout, tuple[Path, ...]]:
        """Layout and files that `items` reads. Raises UserError where there are none."""
        if not folder.is_dir():
            raise UserError(
                f"no folder {folder}; name the one that holds the files of {self.title} (docs/benchmarks.md)"
            )
        for layout in self.layouts:
            if files := layout.find(folder):
                return layout, files
        accepted = "; ".join(layout.name for layout in self.layouts)
        raise UserError(f"{folder} holds no files of {self.title}; accepted are: {accepted} (docs/benchmarks.md)")

    def count_note(self, counted: int) -> str:
        """Line that says that a folder has not the items of the revision; empty where it has."""
        if counted == self.expected:
            return ""
        return f"{self.name}: {counted:,} items, but {self.expected:,} in {self.source} at {self.revision}"


def clipped(reply: str) -> str:
    """Reply of at most `MAX_REPLY_CHARS` characters: of a longer one its two ends, on lines of their own.

    Answers stand at either end: some rules look for a letter at the beginning, most for a phrase or box at the end.
    """
    if len(reply) <= MAX_REPLY_CHARS:
        return reply
    half = (MAX_REPLY_CHARS - 1) // 2  # less one for the line break between them
    return f"{reply[:half]}\n{reply[-half:]}"


def unique(items: Iterable[Item]) -> Iterator[Item]:
    """Items with N for an empty id, `@N` behind one that came before, N being the number of the item from 0."""
    seen: set[str] = set()
    for number, item in enumerate(items):
        named = item if item.id else replace(item, id=str(number))
        named = named if named.id not in seen else replace(item, id=f"{named.id}@{number}")
        seen.add(named.id)
        yield named
