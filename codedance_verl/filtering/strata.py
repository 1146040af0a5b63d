"""Strata of all questions with their evidence: a file for each chunk, and the totals of a report."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codedance_verl.errors import UserError
from codedance_verl.filtering.rows import Chunk, Row, rows_of
from codedance_verl.filtering.rule import Arm, Stratum, rate_bound
from codedance_verl.filtering.sampling import Sampler, on_record
from codedance_verl.filtering.verdicts import Verdicts
from codedance_verl.runtime.atomic import write_atomically

STRATA = "strata"
"""Folder, in that of the filter, with a file for each chunk."""

Found = Mapping[str, tuple[str, str]]
"""Stratum of each row of a chunk, and its evidence as JSON text."""


@dataclass
class Totals:
    """Counts over all chunks: strata by data source, samples and cost by arm, reasons of failures."""

    strata: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    arms: dict[str, Counter[str]] = field(default_factory=lambda: {arm.value: Counter() for arm in Arm})
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row, stratum: Stratum, samples: Mapping[Arm, Verdicts]) -> None:
        """Takes in a question with its samples."""
        self.strata[stratum.value] += 1
        self.sources.setdefault(row.row.data_source, Counter())[stratum.value] += 1
        for arm, verdicts in samples.items():
            for sample in verdicts.of(row.id).values():
                self.arms[arm.value].update(
                    samples=1,
                    right=sample.right is True,
                    wrong=sample.right is False,
                    without_verdict=sample.right is None,
                    requests=sample.requests,
                    calls=sample.calls,
                    prompt_tokens=sample.prompt_tokens,
                    completion_tokens=sample.completion_tokens,
                )
                # a few are shown, and memory must not grow with their kinds
                if sample.right is None and (len(self.reasons) < 1000 or sample.reason in self.reasons):
                    self.reasons[sample.reason] += 1

    def document(self) -> dict[str, Any]:
        """Counts as JSON takes them."""
        return {
            "strata": {stratum.value: self.strata[stratum.value] for stratum in Stratum},
            "data_sources": {name: dict(found) for name, found in sorted(self.sources.items())},
            "arms": {name: dict(found) for name, found in self.arms.items() if found},
            "failures": dict(self.reasons.most_common(20)),
        }


def write_strata(sampler: Sampler, chunk: Chunk, totals: Totals) -> Path:
    """Writes the strata of a chunk by what is on record, adds them to the totals, and returns the file."""
    samples = on_record(sampler, chunk)
    found: dict[str, tuple[str, str]] = {}
    for row in rows_of(chunk):
        counts = {arm: verdicts.count(row.id, sampler.rule.samples[arm]) for arm, verdicts in samples.items()}
        stratum = sampler.rule.stratum(counts)
        totals.add(row, stratum, samples)
        found[row.id] = (stratum.value, json.dumps(_evidence(sampler, row, samples), ensure_ascii=False))
    path = strata_file(sampler.out, chunk)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(found, ensure_ascii=False))
    return path


def strata_file(out: Path, chunk: Chunk) -> Path:
    """File of the strata of a chunk."""
    return out / STRATA / f"{chunk.name}.json"


@functools.lru_cache(maxsize=2)
def read_strata(path: Path, digest: str) -> Found:
    """Strata of a file, whose content has this digest; the last two files are held.

    Raises UserError: it has another one; OSError.
    """
    content = path.read_bytes()
    if digest_of(content) != digest:
        raise UserError(f"{path} was changed by another process; start the command again")
    found: Found = json.loads(content)
    return found


def digest_of(content: bytes) -> str:
    """Digest (hex) of a file's content."""
    return hashlib.sha256(content).hexdigest()


def lines_of(document: Mapping[str, Any]) -> Sequence[str]:
    """Lines of the terminal on what came of the questions."""
    strata, rows = document["strata"], sum(document["strata"].values())
    lines = [f"{name}: {count:,} of {rows:,} ({100 * count / max(1, rows):.1f} %)" for name, count in strata.items()]
    for name, found in document["arms"].items():
        lines.append(
            f"{name.replace('_', ' with ')}: {found['samples']:,} samples, {found['right']:,} right, "
            f"{found['without_verdict']:,} without a verdict; {found['requests']:,} requests, "
            f"{found['prompt_tokens']:,} + {found['completion_tokens']:,} tokens"
        )
    lines += [f"without a verdict, {count:,} times: {reason}" for reason, count in document["failures"].items()][:5]
    return lines


def _evidence(sampler: Sampler, row: Row, samples: Mapping[Arm, Verdicts]) -> dict[str, Any]:
    """Samples of each arm that was asked, the rate that none right leaves possible, and what the file had stated."""
    found: dict[str, Any] = {}
    for arm, verdicts in samples.items():
        most = sampler.rule.samples[arm]
        known = {number: sample for number, sample in verdicts.of(row.id).items() if number < most}
        if not known:
            continue
        right, wrong = verdicts.count(row.id, most)
        counts = {
            "right": right,
            "wrong": wrong,
            "unknown": len(known) - right - wrong,
            "of": most,
        }
        found[arm.value] = {**counts, "calls": sum(sample.calls for sample in known.values())}
        if not right and wrong:
            found[arm.value]["rate_at_most"] = round(rate_bound(wrong), 3)
    if stated := row.row.extra_info.get("difficulty"):
        found["stated_difficulty"] = str(stated)
    return found
