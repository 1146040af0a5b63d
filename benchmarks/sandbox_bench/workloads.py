"""Cells that are measured, the image they are given, and the check of their answers."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from codedance_verl.types import Execution, RenderedImage

CROP_BOX = (128, 0, 384, 256)


@cache
def sample_image() -> bytes:
    """The question's image of every session: the photograph `astronaut.png` of scikit-image, 512 x 512, encoded."""
    spec = find_spec("skimage")
    assert spec is not None and spec.origin is not None
    return (Path(spec.origin).parent / "data" / "astronaut.png").read_bytes()


def _anything(_image: RenderedImage) -> bool:
    return True


def _is_the_crop(image: RenderedImage) -> bool:
    with Image.open(io.BytesIO(sample_image())) as whole, Image.open(io.BytesIO(image.png)) as shown:
        return whole.convert("RGB").crop(CROP_BOX).tobytes() == shown.convert("RGB").tobytes()


def _is_drawn(image: RenderedImage) -> bool:
    with Image.open(io.BytesIO(image.png)) as shown:
        return len(shown.convert("RGB").getcolors(1 << 20) or ()) > 2


@dataclass(frozen=True)
class Workload:
    """A cell and what it must show. `verify` looks into the image; it runs on calls that are not timed."""

    name: str
    cell: str
    stdout: str = ""
    image_size: tuple[int, int] | None = None
    verify: Callable[[RenderedImage], bool] = _anything

    def fault(self, execution: Execution, thorough: bool = False) -> str:
        """Fault of an answer; empty when there is none."""
        if not execution.succeeded:
            return f"{execution.status}: {execution.error.traceback if execution.error else 'no reason given'}"
        if execution.stdout.strip() != self.stdout:
            return f"printed {execution.stdout[:200]!r}, not {self.stdout!r}"
        sizes = [(image.width, image.height) for image in execution.images]
        if sizes != ([self.image_size] if self.image_size else []):
            return f"showed images of sizes {sizes}, not {self.image_size}"
        if thorough and not all(self.verify(image) for image in execution.images):
            return "showed another image"
        return ""


TRIVIAL = Workload("trivial", "x = 1 + 1; print(x)", stdout="2")
CROP = Workload("crop", f"input_image.crop({CROP_BOX})", image_size=(256, 256), verify=_is_the_crop)
FIGURE = Workload(
    "figure",
    "import matplotlib.pyplot as plt\n"
    "plt.figure(figsize=(6.4, 4.8), dpi=100)\n"
    "plt.plot([1, 2, 3, 4], [1, 4, 2, 3])\n"
    "plt.title('title')\n"
    "plt.show()",
    image_size=(640, 480),
    verify=_is_drawn,
)
WORKLOADS = (TRIVIAL, CROP, FIGURE)
OPEN, FIRST_CALL = "open", "first call"
MEASURES = (OPEN, FIRST_CALL, *(workload.name for workload in WORKLOADS))
