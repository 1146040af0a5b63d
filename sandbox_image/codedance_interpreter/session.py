"""What makes a session, and how it comes into being: two processes that part ways at once.

The *supervisor* (`supervisor.py`) holds the connection to the host and nothing else. The *runner* (`runner.py`) holds
the variables and runs the cells. They talk over a socket pair; the runner's output goes to a memory file both hold.
"""

from __future__ import annotations

import io
import socket
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import output, png
from .limits import Limits
from .reach import Reach


@dataclass(frozen=True)
class Links:
    """One side's ends of what supervisor and runner share.

    `channel` carries cells one way, images and ends of cells the other; `wake` is only for calling a checkpoint;
    `capture` is the descriptor of the memory file that collects stdout and stderr.
    """

    channel: socket.socket
    wake: socket.socket
    capture: int

    def close(self) -> None:
        """Close the two sockets; the memory file is the same one on both sides."""
        self.channel.close()
        self.wake.close()


@dataclass
class Session:
    """The runner's state, as it is copied by fork."""

    reach: Reach
    limits: Limits
    namespace: dict[str, Any]
    keep_on_error: bool = False
    given_names: frozenset[str] = frozenset()
    cells: int = 0


def make_links() -> tuple[Links, Links]:
    """The supervisor's ends and the runner's."""
    channels, wakes = socket.socketpair(), socket.socketpair()
    capture = output.open_capture()
    return Links(channels[0], wakes[0], capture), Links(channels[1], wakes[1], capture)


def new_namespace(show: Any) -> dict[str, Any]:
    """Globals of a fresh session, as those of a module `__main__` so that classes defined in cells can be pickled."""
    module = types.ModuleType("__main__")
    module.__dict__["display"] = show
    sys.modules["__main__"] = module
    return module.__dict__


def check_input_image(data: bytes | None) -> None:
    """Find out whether `data` is a picture, as far as that goes without decoding it. Raises `ValueError` if not."""
    if data is not None:
        from PIL import Image

        try:
            with Image.open(io.BytesIO(data)) as image:
                image.verify()
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{len(data)} bytes that are no picture: {error}") from None


def load_input_image(session: Session, data: bytes | None) -> None:
    """Offer the question's image as `input_image` (PIL, RGB) and as files `input_image.png` and `input_image.jpg`."""
    if data is not None:
        from PIL import Image

        with Image.open(io.BytesIO(data)) as opened:
            plain_png = opened.format == "PNG" and opened.mode == "RGB"
            image = opened.convert("RGB")
        Path("input_image.png").write_bytes(data if plain_png else png.encode(image))
        image.save("input_image.jpg", quality=95)
        session.namespace["input_image"] = image
    session.given_names = frozenset(session.namespace)
