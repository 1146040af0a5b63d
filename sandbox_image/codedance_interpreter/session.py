"""State and start of a session, which is two processes.

The *supervisor* (`supervisor.py`) holds the connection to the host and nothing else. The *runner* (`runner.py`) holds
the variables and runs the cells. They talk over a socket pair; the runner's output goes to a memory file both hold.
"""

from __future__ import annotations

import io
import socket
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import output
from .limits import Limits
from .offered import OfferedFiles
from .pixels import as_rgb
from .process_kill import ProcessKiller


@dataclass(frozen=True)
class Links:
    """Ends of one side of what supervisor and runner share.

    `channel` carries cells one way, images and ends of cells the other; `wake` is only for calling a checkpoint;
    `capture` is the descriptor of the memory file that collects stdout and stderr.
    """

    channel: socket.socket
    wake: socket.socket
    capture: int

    def close(self) -> None:
        """Closes the two sockets; the memory file is the same one on both sides."""
        self.channel.close()
        self.wake.close()


@dataclass
class Session:
    """State of the runner, as it is copied by fork."""

    killer: ProcessKiller
    limits: Limits
    namespace: dict[str, Any]
    keep_on_error: bool = False
    given_names: frozenset[str] = frozenset()
    cells: int = 0
    files: OfferedFiles = field(default_factory=OfferedFiles)


def make_links() -> tuple[Links, Links]:
    """Makes the supervisor's ends and the runner's."""
    # Two pairs, so that a runner that floods its channel cannot hold up the call of its checkpoint.
    channels, wakes = socket.socketpair(), socket.socketpair()
    capture = output.open_capture()
    return Links(channels[0], wakes[0], capture), Links(channels[1], wakes[1], capture)


def new_namespace(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the globals of a fresh session: those of a module `__main__`, so that classes of cells can be pickled.

    `given` are the names that are there from the start.
    """
    module = types.ModuleType("__main__")
    module.__dict__.update(given)
    # `pickle` finds a class by its module's name.
    sys.modules["__main__"] = module
    return module.__dict__


def check_input_images(images: Sequence[bytes]) -> None:
    """Checks that each file is an image, as far as that goes without decoding it. Raises `ValueError` if not."""
    for data in images:
        from PIL import Image

        try:
            with Image.open(io.BytesIO(data)) as image:
                # Reads headers and checksums; pixels are decoded after the host has its answer.
                image.verify()
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{len(data)} bytes that are no image: {error}") from None


def load_input_images(session: Session, images: Sequence[bytes]) -> None:
    """Offers the question's images to code.

    `input_images` is the list of them (PIL, RGB) and `input_image` the first. As files there are `input_image_0.png`,
    `input_image_1.png`, ... and, of the first, `input_image.png` and `input_image.jpg`, for cells that read them.
    """
    decoded = [_decoded(data) for data in images]
    if decoded:
        session.namespace["input_image"] = decoded[0]
    session.namespace["input_images"] = decoded
    most_bytes = max(
        (_most_bytes(image.size, len(data)) for image, data in zip(decoded, images, strict=True)), default=0
    )
    session.files = OfferedFiles.of(images, Path.cwd(), most_bytes)
    session.given_names = frozenset(session.namespace)


def _most_bytes(size: tuple[int, int], encoded_bytes: int) -> int:
    """Returns a bound of the bytes of an image's file: as it was sent, or a PNG that does not shrink."""
    width, height = size
    # Rows have a filter byte each; 1 % and 64 KiB are more than zlib and PNG put around stored data.
    return int(1.01 * max((3 * width + 1) * height, encoded_bytes)) + (1 << 16)


def _decoded(data: bytes) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        rgb = as_rgb(opened)
        # The opened one is closed with its file.
        return rgb.copy() if rgb is opened else rgb
