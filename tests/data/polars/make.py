"""Writes the two files beside it as polars does: `python make.py`, where polars is installed (the project lacks it)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import polars


def png(red: int, green: int, blue: int) -> bytes:
    """A PNG of 40 x 30 pixels of one colour, without an image library."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = (b"\0" + bytes((red, green, blue)) * 40) * 30
    head = struct.pack(">IIBBBBB", 40, 30, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def rows() -> list[dict[str, object]]:
    """Three questions with categorical sources and integer truths."""
    return [
        {
            "data_source": "own/polars",
            "prompt": [{"role": "user", "content": "<image>How many?"}],
            "images": [{"bytes": png(200, 30 * index, 10)}],
            "ability": "count",
            "reward_model": {"style": "rule", "ground_truth": index},
            "extra_info": {"index": index, "split": "train", "question": "How many?"},
        }
        for index in range(3)
    ]


if __name__ == "__main__":
    frame = polars.DataFrame(rows()).with_columns(polars.col("data_source").cast(polars.Categorical))
    frame.write_parquet(Path(__file__).parent / "structs.parquet")
    raw = frame.with_columns(polars.col("images").list.eval(polars.element().struct.field("bytes")))
    raw.write_parquet(Path(__file__).parent / "raw.parquet")
