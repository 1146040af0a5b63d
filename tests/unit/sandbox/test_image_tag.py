"""The image's tag follows what the image is made of."""

from __future__ import annotations

import shutil
from pathlib import Path

from codedance_verl.sandbox.docker.image import content_hash, image_folder, image_tag


def test_the_tag_changes_with_the_interpreter_and_not_with_bytecode(tmp_path: Path) -> None:
    folder = tmp_path / "sandbox_image"
    shutil.copytree(image_folder(), folder)
    before = content_hash(folder)
    assert image_tag() == f"codedance-sandbox:{before}"
    (folder / "codedance_interpreter" / "__pycache__").mkdir(exist_ok=True)
    (folder / "codedance_interpreter" / "__pycache__" / "x.pyc").write_bytes(b"1")
    assert content_hash(folder) == before
    program = folder / "codedance_interpreter" / "cell.py"
    program.write_text(program.read_text() + "\n")
    assert content_hash(folder) != before
    assert image_tag("other:1") == "other:1"
