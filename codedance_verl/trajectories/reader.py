"""Reader of the trajectory log for figures: one rollout at a time, every field checked.

Layout: `<folder>/{train,val}/step_<6 digits>.<worker>.jsonl`, one JSON object per line, images in
`<folder>/images/<sha256>.png`. At most one line is held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from codedance_verl.errors import UserError
from codedance_verl.trajectories.lines import numbered_lines
from codedance_verl.trajectories.runs import LogFile, log_files
from codedance_verl.trajectories.schema import MalformedRecord, TrajectoryRecord, decode


class TrajectoryReader:
    """Streams the rollouts of one split of a log, files ordered by step and then by time of writing.

    A last line that a killed writer left unfinished is skipped and counted in `cut_off`.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._folder = folder / split
        self.cut_off = 0

    def files(self) -> list[LogFile]:
        """Raises UserError when there is no log for this split."""
        if not self._folder.is_dir():
            raise UserError(f"no trajectory log at {self._folder}; run with environment.save_trajectories=true")
        # The time of writing decides which try of a repeated step comes last, and so counts.
        found = log_files(self._folder.iterdir(), self._folder.name)
        return sorted(found, key=lambda file: (file.step, file.path.stat().st_mtime_ns, file.path.name))

    def __iter__(self) -> Iterator[TrajectoryRecord]:
        """Raises UserError naming file and line where a line is not a rollout."""
        for file in self.files():
            yield from self.read(file.path)

    def read(self, path: Path) -> Iterator[TrajectoryRecord]:
        """The rollouts of one file."""
        for number, line in numbered_lines(path):
            try:
                record = decode(line)
            except MalformedRecord as error:
                if not line.endswith(b"\n"):
                    self.cut_off += 1
                    return
                raise UserError(f"{path}:{number}: not a rollout ({error}); delete the line or the file") from None
            yield record
