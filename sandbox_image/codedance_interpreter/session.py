"""State and start of a session, which is two processes.

The *supervisor* (`supervisor.py`) holds the connection to the host and nothing else. The *runner* (`runner.py`) holds
the variables and runs the cells. They talk over a socket pair; the runner's output goes to a memory file both hold.
"""

from __future__ import annotations

import socket
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import output
from .input_images import InputImage, largest_file
from .limits import Limits
from .offered import Encoded, OfferedFiles
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


def offer_input_images(session: Session, images: Sequence[InputImage], directory: str) -> None:
    """Offers the question's images to code whose working directory is `directory`.

    `input_images` is the list of them (PIL, RGB) and `input_image` the first. As files there are `input_image_0.png`,
    `input_image_1.png`, ... and, of the first, `input_image.png` and `input_image.jpg`, for cells that read them.
    """
    if images:
        session.namespace["input_image"] = images[0].rgb
    session.namespace["input_images"] = [image.rgb for image in images]
    most_bytes = max(map(largest_file, images), default=0)
    session.files = OfferedFiles.of([Encoded(image.data, image.form) for image in images], directory, most_bytes)
    session.given_names = frozenset(session.namespace)
