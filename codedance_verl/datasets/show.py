"""Page of some records of a file, with their images, for a browser; it needs no server and no other file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from codedance_verl import images
from codedance_verl.data.fields import Source, read_source
from codedance_verl.data.reading import ReadRow, fault_line
from codedance_verl.data.rows import CanonicalRow
from codedance_verl.datasets.pieces import canonical_rows, pieces_of
from codedance_verl.errors import UserError

SHOWN_PIXELS = 640
"""Longer side of an image on the page, at most."""

_MARK = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="generator" content="codedance data show">'

_HEAD = """<title>{title}</title><style>
body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:1rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}}
article{{border-top:1px solid #767676;padding:1rem 0}}img{{max-width:20rem;margin:.3rem;border:1px solid #767676}}
pre{{white-space:pre-wrap;overflow-wrap:anywhere;background:#f3f3f3;padding:.5rem}}dt{{font-weight:600}}
</style><main><h1>{title}</h1>
"""


def rows_of(path: Path, first: int, count: int) -> list[ReadRow]:
    """Rows from number `first` on, of the pieces that hold them. Raises UserError where there are none."""
    found: list[ReadRow] = []
    for piece in pieces_of([path]):
        if piece.first_row + piece.rows <= first:
            continue
        for place, read in enumerate(canonical_rows(piece), piece.first_row):
            if place >= first:
                found.append(read)
            if len(found) == count:
                return found
    if not found:
        raise UserError(f"{path} has no row {first}; name a smaller one with --row")
    return found


def page(path: Path, rows: Sequence[ReadRow]) -> str:
    """HTML page of rows: messages, answer, labels, images; of bad ones the fault."""
    body = "".join(_article(path, read) for read in rows)
    return _MARK + _HEAD.format(title=html.escape(path.name)) + body + "</main></html>\n"


def is_page(path: Path) -> bool:
    """True if a file is a page that `page` made, which another may replace. Raises UserError where it is unreadable."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MARK)) == _MARK.encode()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name another file with --out") from error


def _article(path: Path, read: ReadRow) -> str:
    if read.row is None:
        fault = html.escape(fault_line(path, read.number, read.fault))
        return f"<article><h2>Row {read.number}</h2><p>{fault}</p></article>"
    row = read.row
    messages = "".join(f"<h3>{html.escape(m.role)}</h3><pre>{html.escape(m.content)}</pre>" for m in row.messages)
    labels = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in _labels(row))
    shown = "".join(_image(source, index) for index, source in enumerate(row.sources))
    return f"<article><h2>Row {read.number}</h2>{shown}{messages}<dl>{labels}</dl></article>"


def _labels(row: CanonicalRow[Source]) -> Iterator[tuple[str, str]]:
    stated = {"data_source": row.data_source, "ability": row.ability, "ground truth": row.ground_truth}
    for key, value in (stated | {key: value for key, value in row.extra_info.items() if key != "question"}).items():
        if value not in (None, "", []):
            yield key, str(value)[:2_000]


def _image(source: Source, index: int) -> str:
    try:
        decoded = images.decode(read_source(source, f"images[{index}]"))
    except Exception as error:  # decoders of damaged files raise anything
        return f"<p>images[{index}] cannot be shown ({html.escape(str(error))})</p>"
    size = f"{decoded.width} x {decoded.height}"
    decoded.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    buffer = io.BytesIO()
    decoded.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="image {index}, {size} pixels" title="{size} pixels">'
