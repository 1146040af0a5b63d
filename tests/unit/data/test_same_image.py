"""Whatever image a record has, of whatever source: the model's view is made of the pixels that its code gets."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from codedance_verl.data.checking import check_file
from codedance_verl.environment.resized_images import image_parts, load_resized, source_bytes
from codedance_verl.images import pixels_sha256
from sandbox_image.codedance_interpreter.input_images import decode
from sandbox_image.codedance_interpreter.session import offer_input_images
from tests.unit.data.loading import dataset

FORMATS = {
    "1": ("PNG", "TIFF", "GIF"),
    "L": ("PNG", "JPEG", "TIFF", "BMP"),
    "LA": ("PNG", "TIFF"),
    "P": ("PNG", "GIF", "TIFF", "BMP"),
    "P transparent": ("PNG", "GIF"),
    "RGB": ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM"),
    "RGB transparent": ("PNG",),
    "RGBA": ("PNG", "WEBP", "TIFF"),
    "CMYK": ("JPEG", "TIFF"),
    "YCbCr": ("JPEG", "TIFF"),
    "I;16": ("PNG", "TIFF"),
    "I": ("TIFF",),
    "F": ("TIFF",),
}


@st.composite
def encoded(draw: st.DrawFn) -> bytes:
    """An encoded image of any mode, format and orientation."""
    kind = draw(st.sampled_from(sorted(FORMATS)))
    form = draw(st.sampled_from(FORMATS[kind]))
    size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    image, options = _image(kind, size, random), dict[str, Any]()
    if kind.endswith("transparent"):
        options["transparency"] = (0, 0, 0) if kind.startswith("RGB") else 3
    if form in ("PNG", "JPEG", "WEBP", "TIFF"):
        exif = Image.Exif()
        exif[0x0112] = draw(st.integers(1, 8))
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _image(kind: str, size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    width, height = size
    if kind == "I;16":
        return Image.fromarray(random.integers(0, 2**16, (height, width), dtype=np.uint16))
    if kind == "I":
        return Image.fromarray(random.integers(-(2**20), 2**20, (height, width), dtype=np.int32))
    if kind == "F":
        return Image.fromarray(random.random((height, width), dtype=np.float32))
    rgba = Image.fromarray(random.integers(0, 256, (height, width, 4), dtype=np.uint8))
    mode = kind.split()[0]
    return rgba if mode == "RGBA" else rgba.convert("RGB").convert(mode) if mode not in ("LA",) else rgba.convert(mode)


def _row(image: Any) -> dict[str, Any]:
    return {
        "data_source": "own/x",
        "prompt": [{"role": "user", "content": "<image>What?"}],
        "images": [image],
        "reward_model": {"style": "rule", "ground_truth": "1"},
    }


def _write(data: bytes, folder: Path) -> list[Path]:
    """One file for each source of the same image."""
    (folder / "ein bild").mkdir()
    (folder / "ein bild" / "图.img").write_bytes(data)
    forms = {"raw": data, "struct": {"bytes": data, "path": "x"}, "path": {"bytes": None, "path": "ein bild/图.img"}}
    for name, form in forms.items():
        pq.write_table(pa.Table.from_pylist([_row(form)]), folder / f"{name}.parquet")
    plain = pa.Table.from_pylist([_row(data)])
    wide = plain.cast(plain.schema.set(2, pa.field("images", pa.large_list(pa.large_binary()))))
    pq.write_table(wide, folder / "large.parquet")
    column = datasets.Dataset.from_list([_row({"bytes": data, "path": None})]).cast_column(
        "images", datasets.Sequence(datasets.Image())
    )
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar an example
        column.to_parquet(folder / "hf.parquet")
    return [folder / f"{name}.parquet" for name in (*forms, "large", "hf")]


def _seen_by_code(files: list[bytes], folder: Path) -> list[str]:
    """Hashes of what the interpreter offers as `input_images`."""
    session: Any = SimpleNamespace(namespace={})
    offer_input_images(session, [decode(data) for data in files], str(folder))
    return [pixels_sha256(image) for image in session.namespace["input_images"]]


@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=encoded())
def test_model_and_code_see_the_same_pixels(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = _write(data, folder)
        assert all(check_file(file).good == 1 for file in files)
        found = dataset(files, folder / "table")
        messages = [message for index in range(len(found)) for message in found[index]["raw_prompt"]]
        model = [view.pixels_sha256 for view in load_resized(messages, 1_003_520)]
        (folder / "code").mkdir()
        code = _seen_by_code([source_bytes(part) for part in image_parts(messages)], folder / "code")
        assert model == code and len(set(model)) == 1 and len(model) == len(files)
