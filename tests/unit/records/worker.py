"""Process that does items of a store: `python worker.py FOLDER COUNT SAMPLES LEASE_S SECONDS_AN_ITEM`.

Prints the id of each item that it has taken, then waits, then records it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.records.key import Key, replies_key
from codedance_verl.records.record import Status
from codedance_verl.records.store import open_store


@dataclass(frozen=True)
class Question:
    """Item by its number."""

    id: str
    sha256: str


def questions(count: int) -> Iterator[Question]:
    for number in range(count):
        yield Question(f"item/{number}", f"{number:064x}")


def key_of(samples: int = 1, **changed: object) -> Key:
    sampling = {"temperature": 0.0, "seed": 1}
    values = {"task": "vstar", "revision": "abc", "model": "tiny", "prompt": "Look.", "sampling": sampling, "limits": 4}
    return replies_key(**{**values, "samples": samples, **changed})  # type: ignore[arg-type]


def reply_to(item: Question, sample: int) -> dict[str, str]:
    return {"reply": f"{item.id} {sample} " + "x" * 2000}


def main(folder: str, count: int, samples: int, lease_s: float, pause_s: float) -> None:
    with open_store(Path(folder), key_of(samples)).writer(lease_s) as writer:
        for work in writer.work(lambda: questions(count), poll_s=0.1):
            print(work.item.id, flush=True)
            time.sleep(pause_s)
            writer.add(work, Status.ANSWERED, reply_to(work.item, work.sample))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
