"""Cells that models write, run in the real sandbox: habits of notebook users, fonts, and what is not there.

`tests/data/cases/sandbox/index.json` holds cells of bug reports in files, `own.json` more of the same kinds. `shows`
says what must come of a case's last cell: `status` (default `ok`), `stdout` (a regular expression for all of it),
`error` (one to be found in the error), `line` (text of the traceback), sizes of `images`, and text of the
`observation`. In no case may a path of the interpreter be shown.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image, ImageStat

from codedance_verl.environment.observations import observation_text
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.node import SandboxNode
from codedance_verl.sandbox.pool import SandboxPool

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.docker, pytest.mark.slow]

CASES = Path(__file__).parents[1] / "data" / "cases" / "sandbox"
OWN_PATHS = ("/opt/codedance/program", "codedance_interpreter", "/scratch/matplotlib", "/run/codedance")
CELL_SECONDS = 60.0  # generous: other jobs may share the machine


def _cases() -> list[Any]:
    found = []
    for name in ("index.json", "own.json"):
        for case in json.loads((CASES / name).read_text(encoding="utf-8")):
            cells = case.get("code") or [(CASES / cell).read_text(encoding="utf-8") for cell in case["cells"]]
            found.append(pytest.param(cells, case["shows"], id=case["id"]))
    return found


def _photograph() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((200, 150), 60).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(sandbox_image: str) -> AsyncIterator[SandboxPool]:
    node = SandboxNode(SandboxConfig(backend="docker", containers=1, standby_containers=0, cell_timeout_s=CELL_SECONDS))
    await node.start()
    yield SandboxPool([node])
    await node.shutdown()


@pytest.mark.parametrize(("cells", "shows"), _cases())
async def test_a_cell_shows_what_its_writer_expects(pool: SandboxPool, cells: list[str], shows: dict[str, Any]) -> None:
    async with pool.session(_photograph()) as session:
        for cell in cells:
            execution = await session.run(cell)
    error = execution.error.traceback if execution.error is not None else ""
    assert execution.status.value == shows.get("status", "ok"), error
    assert "stdout" not in shows or re.fullmatch(shows["stdout"], execution.stdout, re.DOTALL), execution.stdout
    assert re.search(shows.get("error", ""), error, re.MULTILINE), error
    assert shows.get("line", "") in error
    assert [[image.width, image.height] for image in execution.images] == shows.get("images", [])
    assert shows.get("observation", "") in observation_text(execution)
    assert not any(path in execution.stdout + error for path in OWN_PATHS)


async def test_a_float_image_is_as_bright_as_its_bytes(pool: SandboxPool) -> None:
    async with pool.session(_photograph()) as session:
        execution = await session.run("import numpy as np, cv2\na = np.array(input_image)\na / 255")
        shown = await session.run("cv2.imshow('w', a[:, :, ::-1].astype('float32') / 255)")
    question = Image.open(io.BytesIO(_photograph())).size
    for image in (*execution.images, *shown.images):
        pixels = Image.open(io.BytesIO(image.png))
        assert pixels.size == question and 100 < ImageStat.Stat(pixels.convert("L")).mean[0] < 156


async def test_all_images_of_a_question_are_offered(pool: SandboxPool) -> None:
    red, blue = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(red, "PNG")
    Image.new("RGB", (40, 50), "blue").save(blue, "PNG")
    async with pool.session(red.getvalue(), blue.getvalue()) as session:
        execution = await session.run(
            "from PIL import Image\n"
            "print([image.size for image in input_images], input_image is input_images[0])\n"
            "Image.open('input_image_1.png')"
        )
    assert execution.stdout == "[(30, 20), (40, 50)] True\n"
    (image,) = execution.images
    assert Image.open(io.BytesIO(image.png)).getpixel((0, 0)) == (0, 0, 255)
