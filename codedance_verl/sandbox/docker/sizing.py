"""Memory and file space of a container, by the number of its sessions and the size of the images they hold.

A session holds the decoded images and may write each of them as a file; its code makes copies. Files lie in a tmpfs,
which counts as memory. What is computed here are limits: nothing is reserved, and a session with small images takes
little of it.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

from codedance_verl.sandbox.config import LEAST_FILE_MB, MIB, SandboxConfig, highest
from codedance_verl.sandbox.errors import SandboxFull

CONTAINER_MB = 384
"""MiB of a container without sessions: init process, zygote, and the pages of libraries that were read."""

SESSION_MB = 12
"""MiB of an idle session that supervisor, runner and checkpoint do not share; 10.8 MiB measured, with a small image."""

OWN_FILES_MB = 8
"""MiB of files that the code of a session writes itself."""

CELL_MB = 16
"""MiB of a running cell beside copies of the image: imports, a figure."""

DECODED, KEPT, COMPUTED = 4.0, 3.0, 24.0
"""Bytes a pixel: of a decoded image as Pillow holds it, of one copy that code keeps (uint8 RGB), and of one copy that a
cell computes with (float64 RGB, `np.array(image, float)`)."""

PNG, JPEG = 3.003, 0.75
"""Bytes a pixel of an image's files: a PNG that does not shrink, and a JPEG of quality 95 of a detailed photograph."""

LEAST_MEMORY_MB, LEAST_SCRATCH_MB = 4096, 512
_SCRATCH_MB = 64
"""MiB of the container itself in its file space: font caches, the folders of sessions."""


@dataclass(frozen=True)
class ImageLoad:
    """Size of the images of one question.

    Attributes:
        pixels: of all its images together, in the size code gets them.
        first_pixels: of the first one, which is there as three files.
        encoded_bytes: of their encoded files together.
        largest: width and height in pixels of its largest image.
        row: of the data file, for messages; -1 where it is of none.
    """

    pixels: int
    first_pixels: int
    encoded_bytes: int
    largest: tuple[int, int] = (0, 0)
    row: int = -1

    @property
    def file_bytes(self) -> float:
        """Bytes of all files of the images."""
        return PNG * (self.pixels + self.first_pixels) + JPEG * self.first_pixels

    def joined(self, other: ImageLoad) -> ImageLoad:
        """Returns a load that covers both: the larger of each number, and the row with more pixels."""
        row = self if self.pixels >= other.pixels else other
        return ImageLoad(
            pixels=row.pixels,
            first_pixels=max(self.first_pixels, other.first_pixels),
            encoded_bytes=max(self.encoded_bytes, other.encoded_bytes),
            largest=max(self.largest, other.largest, key=lambda size: size[0] * size[1]),
            row=row.row,
        )


ASSUMED = ImageLoad(pixels=1_000_000, first_pixels=1_000_000, encoded_bytes=1_000_000, largest=(1000, 1000))
"""Load where no data are given: an image of a megapixel."""


@dataclass(frozen=True)
class Room:
    """MiB of a container, `scratch_mb` of files included in `memory_mb`, and of the largest file of a session."""

    memory_mb: int
    scratch_mb: int
    session_file_mb: int


def predicted(config: SandboxConfig, load: ImageLoad) -> Room:
    """Predicts the use of a container whose sessions all have such images, have written all files and run code."""
    # Files of all sessions at once, none of which shrinks.
    scratch = _SCRATCH_MB + config.sessions_per_container * (load.file_bytes / MIB + OWN_FILES_MB)
    # Every session holds its images decoded and encoded, and one copy that code keeps.
    idle = SESSION_MB + (load.pixels * (DECODED + KEPT) + load.encoded_bytes) / MIB
    # Only cells that run compute, on the first image; they are fewer than sessions.
    computing = CELL_MB + load.first_pixels * COMPUTED / MIB
    memory = CONTAINER_MB + config.kept_images_mb + config.sessions_per_container * idle
    memory += cells_at_once(config) * computing + scratch
    return Room(math.ceil(memory), math.ceil(scratch), math.ceil(PNG * _largest_pixels(load) / MIB) + 1)


def needed(config: SandboxConfig, load: ImageLoad) -> Room:
    """Returns the least with which every session can open such images and read one file of each, without any code."""
    sessions = config.sessions_per_container
    scratch = sessions * PNG * load.pixels / MIB
    idle = SESSION_MB + (load.pixels * DECODED + load.encoded_bytes) / MIB
    memory = CONTAINER_MB + sessions * idle + scratch
    return Room(math.ceil(memory), math.ceil(scratch), math.ceil(PNG * _largest_pixels(load) / MIB))


def needed_by_session(load: ImageLoad) -> int:
    """Returns the least `session_memory_mb`, in MiB, with which a session can decode such images, without any code.

    Images are copied one after another, so the largest one counts twice.
    """
    return math.ceil((DECODED * (load.pixels + _largest_pixels(load)) + load.encoded_bytes) / MIB)


def cells_at_once(config: SandboxConfig) -> int:
    """Returns the number of cells that run at once in one container, where sessions are spread over all of the node."""
    return min(config.sessions_per_container, math.ceil(config.cell_slots / config.containers))


def sized(config: SandboxConfig, load: ImageLoad = ASSUMED) -> SandboxConfig:
    """Returns the configuration with a number for every size that is None; explicit ones stay.

    An explicit `scratch_mb` counts in a `memory_mb` that is computed.
    """
    room = predicted(config, load)
    scratch = config.scratch_mb if config.scratch_mb is not None else max(room.scratch_mb, LEAST_SCRATCH_MB)
    # A tmpfs is memory of the container: file space beyond the predicted one needs as much more.
    memory = room.memory_mb + max(scratch - room.scratch_mb, 0)
    return config.replace(
        scratch_mb=scratch,
        memory_mb=config.memory_mb if config.memory_mb is not None else max(memory, LEAST_MEMORY_MB),
        session_file_mb=config.session_file_mb or max(room.session_file_mb, LEAST_FILE_MB),
    )


def most_sessions(config: SandboxConfig, load: ImageLoad) -> int:
    """Returns the most sessions whose needs (`needed`) fit in the explicit sizes; 0 where not even one fits."""
    fits = 0
    for sessions in range(1, config.sessions_per_container + 1):
        least = needed(config.replace(sessions_per_container=sessions), load)
        if least.memory_mb > (config.memory_mb or math.inf) or least.scratch_mb > (config.scratch_mb or math.inf):
            break
        fits = sessions
    return fits


def most_sessions_sized(config: SandboxConfig, load: ImageLoad) -> int:
    """Returns the most sessions for which the computed sizes are within their ranges; 0 where not even one fits."""

    def fits(sessions: int) -> bool:
        room = predicted(config.replace(sessions_per_container=sessions), load)
        scratch = config.scratch_mb if config.scratch_mb is not None else max(room.scratch_mb, LEAST_SCRATCH_MB)
        memory = config.memory_mb or room.memory_mb + max(scratch - room.scratch_mb, 0)
        return memory <= highest("memory_mb") and scratch <= highest("scratch_mb")

    # What is computed grows with the sessions, so the first number that does not fit can be bisected.
    return bisect.bisect_left(range(1, config.sessions_per_container + 1), True, key=lambda count: not fits(count))


def _largest_pixels(load: ImageLoad) -> int:
    # `first_pixels` where sizes are not given (0, 0).
    width, height = load.largest
    return max(width * height, load.first_pixels)


_BY_IMAGES = "null sizes it by the images of the data"
_FEWER = "or lower sandbox.sessions_per_container={0.sessions_per_container}"
_CURES = {
    "files": f"its files fill sandbox.scratch_mb={{0.scratch_mb}}: raise it ({_BY_IMAGES}), {_FEWER}",
    "memory": f"its sessions fill sandbox.memory_mb={{0.memory_mb}}: raise it ({_BY_IMAGES}), {_FEWER}",
    "session_memory": "its images do not fit in sandbox.session_memory_mb={0.session_memory_mb}: raise it",
    "processes": f"its sessions fill sandbox.pids={{0.pids}}: raise it, {_FEWER}",
}
"""Cure for each thing that a container may lack, by the words of `codedance_interpreter.room`."""

LACKS = frozenset(_CURES)


def full(name: str, lacks: str, config: SandboxConfig) -> SandboxFull:
    """Returns the error of a container that lacks one of `LACKS`, with the setting that cures it."""
    return SandboxFull(f"{name} has no room for the session: {_CURES[lacks].format(config)}")
