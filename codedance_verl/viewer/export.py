"""Export of trajectories as one HTML file that needs nothing else: style and images are in it, and no script."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from codedance_verl.trajectories.index import Found, Index
from codedance_verl.trajectories.query import Query
from codedance_verl.trajectories.schema import ImageRef
from codedance_verl.viewer.pages import GROUP_COLUMNS, STATIC, GroupView, Missing, render
from codedance_verl.viewer.trajectory_view import trajectory_view

MOST = 200
"""Trajectories in one file."""

PICTURE_BYTES = 64 << 20
"""Bytes of images in one file, before they are encoded, each as often as it is shown; further ones are left out."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

_PNG = b"\x89PNG\r\n\x1a\n"


class Budget:
    """The images of a file within `PICTURE_BYTES`. One that is shown twice is in the file twice, and counts twice:
    without a script a `data:` address cannot be shared."""

    def __init__(self) -> None:
        self._left = PICTURE_BYTES

    def address(self, folder: Path, sha256: str) -> str:
        """A `data:` address; empty where the image is gone, is none, or exceeds what is left."""
        try:
            path = folder / "images" / f"{sha256}.png"
            if path.stat().st_size > self._left:
                return ""
            content = path.read_bytes()
        except OSError:
            return ""
        # Only what is a PNG goes into a page: the name alone does not make it one.
        if not content.startswith(_PNG):
            return ""
        self._left -= len(content)
        return f"data:image/png;base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True)
class Exported(GroupView):
    """A trajectory in a file: images are in it, and whole texts are not available."""

    folder: Path
    budget: Budget

    def image(self, image: ImageRef) -> str:
        return self.budget.address(self.folder, image.sha256)

    def raw(self, part: str) -> str | None:
        return None


def of_query(index: Index, run: int, query: Query, most: int = MOST) -> str:
    """File of the first `most` trajectories that a query finds."""
    return _file(index, run, index.find(run, query, limit=most))


def of_trajectory(index: Index, number: int, *, whole_group: bool) -> str:
    """One trajectory, or its group."""
    row = index.row(number)
    if row is None:
        raise Missing(f"there is no trajectory {number}")
    found = index.group(row, GROUP_COLUMNS) if whole_group else Found((row,), 1)
    return _file(index, row.run, found)


def _file(index: Index, run: int, found: Found) -> str:
    folder = index.run_folder(run)
    if folder is None:
        raise Missing(f"there is no run {run}")
    name = dict(index.runs_named())[run]
    budget = Budget()
    entries = [
        Exported(row, trajectory_view(record), folder, budget) for row in found.rows if (record := index.record(row.id))
    ]
    style = (STATIC / "view.css").read_text()
    return render("export.html", name=name, entries=entries, total=found.total, style=style, policy=POLICY)
