"""The image files of a session are there for every cell that may read them, and for no other."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy
import pytest
from PIL import Image

from sandbox_image.codedance_interpreter import offered, room
from sandbox_image.codedance_interpreter.input_images import decode
from sandbox_image.codedance_interpreter.offered import OfferedFiles
from sandbox_image.codedance_interpreter.room import NoRoom
from sandbox_image.codedance_interpreter.session import offer_input_images

ALL = ["input_image.jpg", "input_image.png", "input_image_0.png", "input_image_1.png"]
NOISE = numpy.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=numpy.uint8)


def encoded(form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, form, **options)
    return buffer.getvalue()


def files_of(folder: Path, *images: bytes) -> OfferedFiles:
    session: Any = SimpleNamespace(namespace={})
    offer_input_images(session, [decode(data) for data in images], str(folder))
    files: OfferedFiles = session.files
    return files


@pytest.fixture
def files(tmp_path: Path) -> OfferedFiles:
    return files_of(tmp_path, encoded(), encoded())


def there(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))  # noqa: PTH208  hidden ones too


@pytest.mark.parametrize(
    "code",
    [
        "input_image.crop((0, 0, 10, 10))",
        "import numpy as np, cv2\na = np.array(input_image); cv2.cvtColor(a, cv2.COLOR_RGB2GRAY)",
        "import matplotlib.pyplot as plt\nplt.imshow(input_image); plt.title('input image'); plt.savefig('out.png')",
        "print(f'input_image size: {input_image.size}')",
        "import io, os\nb = io.BytesIO(); input_image.save(b, 'PNG'); Image.open(io.BytesIO(b.getvalue()))",
        "with open('notes.txt', 'w') as f: f.write('x')",
        "input_image.save('crop.png'); copy = input_image.copy()",
        "import shutil, subprocess, glob",
        'print("""\nWhat the image shows:\n""".replace("a", "b"))',
        "x = = 1",
        "",
    ],
)
def test_a_cell_that_reads_no_file_finds_none_written(files: OfferedFiles, code: str) -> None:
    files.provide(code)
    assert there(files.directory) == []


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import cv2\ncv2.imread('input_image.jpg')", ["input_image.jpg"]),
        ("from PIL import Image\nImage.open('./input_image_1.png')", ["input_image_1.png"]),
        ("p = 'input_image.png'\nimport cv2\ncv2.imread(p)", ["input_image.png"]),
        ("from pathlib import Path\nPath('input_image.png').read_bytes()", ["input_image.png"]),
        ("open(b'input_image_0.png', 'rb')", ["input_image_0.png"]),
        ("for n in ('input_image_0.png', 'input_image_1.png'): print(open(n, 'rb').read(4))", ALL[2:]),
        ("%%writefile load.py\nimport cv2\nimage = cv2.imread('input_image.png')", ["input_image.png"]),
        ("!file input_image.jpg", ["input_image.jpg"]),
    ],
)
def test_a_named_file_is_written_and_no_other(files: OfferedFiles, code: str, names: list[str]) -> None:
    files.provide(code)
    assert there(files.directory) == names


@pytest.mark.parametrize(
    "code",
    [
        "import os\nprint(os.listdir('.'))",
        "from glob import glob\nglob('*')",
        "from pathlib import Path\nlist(Path.cwd().iterdir())",
        "import os\nfor a, b, c in os.walk('.'): print(c)",
        "import subprocess\nsubprocess.run(['ls'])",
        "from PIL import Image\n[Image.open(f'input_image_{i}.png') for i in range(2)]",
        "import cv2\ncv2.imread('input_image_{}.png'.format(1))",
        "name = 'input_image' + '.png'",
        "import cv2\nn = 'in' + 'put' + '_image.jpg'\ncv2.imread(n)",
        "import cv2\nread = cv2.imread",
        "from PIL.Image import open as load",
        "exec(text)",
        "def f(path):\n    with open(path, 'rb') as file: return file.read()",
        "import shutil\nshutil.copy(name, 'b')",
        "from IPython.display import Image\nImage(filename=name)",
        "import os, cv2\nroot, ext = os.path.splitext('input_image.png'); cv2.imread(root + '.jpg')",
        "p = 'input_image_0.png'; [Image.open(p.replace('0', str(i))) for i in range(2)]",
        "import cv2\np = 'input_image.png'; cv2.imread(p[:-4] + '_1.png')",
        "import shutil as s\ns.move(name, 'b')",
        "%%writefile helper.py\nfrom PIL import Image\ndef load(i): return Image.open(f'input_image_{i}.png')",
        "%%writefile helper.py\nimport os\ndef names():\n    return os.listdir('.')",
        "open('helper.py', 'w').write('import cv2\\ndef load(p): return cv2.imread(p)')",
        "f = open('helper.py', 'w'); f.write('def names():\\n'); f.write('    return os.listdir()\\n')",
        "code = f'''\nimport os\nos.listdir({folder!r})\n'''",
    ],
)
def test_a_cell_that_may_reach_any_file_finds_all(files: OfferedFiles, code: str) -> None:
    files.provide(code)
    assert there(files.directory) == ALL


def test_a_computed_name_is_taken_for_the_file_that_was_named_before(files: OfferedFiles) -> None:
    files.provide("path = 'input_image.png'")
    files.provide("import cv2\nimage = cv2.imread(path)")
    assert there(files.directory) == ["input_image.png"]
    files.provide("import os\nos.listdir()")
    assert there(files.directory) == ALL


@pytest.mark.parametrize(
    "cells",
    [
        ["from pathlib import Path\np = Path('input_image.png')", "import cv2\ncv2.imread(str(p.with_suffix('.jpg')))"],
        ["p = Path('input_image.png')\nq = p.with_suffix('.jpg')", "import cv2\ncv2.imread(str(q))"],
        ["p = 'input_image.png'", "def load(path): return Image.open(path)", "load(p.replace('.png', '_1.png'))"],
    ],
)
def test_a_name_made_of_one_that_was_named_before_is_found(files: OfferedFiles, cells: list[str]) -> None:
    for code in cells:
        files.provide(code)
    assert there(files.directory) == ALL


def test_a_cell_is_not_warned_about_before_it_runs(files: OfferedFiles) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        files.provide("import re\nre.findall('\\d', open('input_image.png').name) is 'x'")
    assert not caught and there(files.directory) == ["input_image.png"]


def test_an_image_is_decoded_once_and_packed_once_for_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = files_of(tmp_path, encoded("WEBP", lossless=True), encoded("JPEG"))
    opened, packed = [], []
    really_open, really_write = Image.open, offered.png.write
    monkeypatch.setattr(Image, "open", lambda *args: opened.append(args) or really_open(*args))
    monkeypatch.setattr(offered.png, "write", lambda *args: packed.append(args) or really_write(*args))
    files.provide("import os\nos.listdir()")
    assert (len(opened), len(packed)) == (2, 2) and there(tmp_path) == ALL
    assert (tmp_path / "input_image.png").read_bytes() == (tmp_path / "input_image_0.png").read_bytes()
    assert (numpy.asarray(really_open(tmp_path / "input_image_0.png")) == NOISE).all()


@pytest.mark.parametrize(("form", "packed"), [("PNG", 100), ("JPEG", 100), ("PNG", 20_000)])
def test_no_file_of_an_image_takes_more_than_is_said(tmp_path: Path, form: str, packed: int) -> None:
    """Also one that comes with much beside its pixels, and is handed on as it is."""
    data = encoded(form, **({"icc_profile": os.urandom(packed * 10)} if form == "PNG" else {"quality": 100}))
    files = files_of(tmp_path, data)
    files.provide("import os\nos.listdir()")
    largest = max(path.stat().st_size for path in tmp_path.iterdir())
    assert largest <= files.most_bytes < 1.02 * largest + (1 << 17)
    assert files_of(tmp_path).most_bytes == 0


def test_a_file_is_written_once_and_never_over_what_code_made_of_it(files: OfferedFiles) -> None:
    path = files.directory / "input_image.png"
    files.provide("open('input_image.png', 'w').write('mine')")
    path.write_text("mine")
    files.provide("open('input_image.png').read()")
    assert path.read_text() == "mine"
    path.unlink()
    files.provide("open('input_image.png').read()")
    assert not path.exists()


def test_a_file_that_a_failed_cell_left_stays_as_it_is(tmp_path: Path) -> None:
    """The checkpoint that goes on has not seen the file written."""
    (tmp_path / "input_image.png").write_text("mine")
    files_of(tmp_path, encoded()).provide("open('input_image.png')")
    assert (tmp_path / "input_image.png").read_text() == "mine"


def test_the_rest_of_a_killed_write_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / ".input_image.png").write_bytes(b"half")
    files_of(tmp_path, encoded()).provide("open('input_image.png')")
    assert there(tmp_path) == ["input_image.png"]
    assert (tmp_path / "input_image.png").read_bytes() == encoded()


def test_files_go_to_the_session_s_folder_wherever_code_is(files: OfferedFiles, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with contextlib.chdir(tmp_path / "elsewhere"):
        files.provide("open('../input_image.png')")
    assert (files.directory / "input_image.png").exists()


def test_the_record_s_own_file_is_kept_where_it_shows_the_same_pixels(tmp_path: Path) -> None:
    photo = encoded("JPEG", quality=70)
    files_of(tmp_path, photo).provide("import os; os.listdir()")
    assert (tmp_path / "input_image.jpg").read_bytes() == photo
    wanted = numpy.asarray(Image.open(io.BytesIO(photo)))
    for name in ("input_image.png", "input_image_0.png"):
        assert (cv2.imread(str(tmp_path / name))[:, :, ::-1] == wanted).all()


def test_a_turned_photo_is_upright_in_both_formats(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    files_of(tmp_path, encoded("JPEG", exif=turned)).provide("import os; os.listdir()")
    for name in ("input_image.png", "input_image.jpg"):
        assert Image.open(tmp_path / name).size == (90, 70)


class FullFile(io.FileIO):
    """A file on a disk that is full after some bytes."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 4_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.parametrize("name", ["input_image.png", "input_image.jpg"])
def test_no_room_is_said_and_leaves_nothing_half_written(
    files: OfferedFiles, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(Path, "open", lambda self, mode: FullFile(self, mode))
        with pytest.raises(NoRoom) as lacking:
            files.provide(f"open('{name}')")
    assert lacking.value.lacks == room.FILES and there(files.directory) == []
    files.provide(f"open('{name}')")
    assert there(files.directory) == [name], "once there is room it is written"


@pytest.mark.parametrize("code", ["plt.title('input_image')", "import os\nos.listdir()"])
def test_a_cell_that_reads_no_file_runs_where_there_is_no_room(
    files: OfferedFiles, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(Path, "open", lambda self, mode: FullFile(self, mode))
        files.provide(code)
    assert there(files.directory) == []
    files.provide(code)
    assert there(files.directory) == ALL, "once there is room they are written"


def space(free: int = 0, used: int = 1 << 30, free_files: int = 9) -> Any:
    """Returns what `statvfs` says of a file space with so many bytes."""
    blocks = {"f_blocks": free + used, "f_bfree": free, "f_bavail": free}
    return SimpleNamespace(f_frsize=1, f_favail=free_files, **blocks)


def test_a_session_that_fills_the_file_space_itself_finds_no_file(
    files: OfferedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files.directory / "folder").mkdir()
    (files.directory / "folder" / "mine").write_bytes(bytes(1 << 16))
    monkeypatch.setattr(os, "statvfs", lambda _: space(used=3 << 15))
    with monkeypatch.context() as full:
        full.setattr(Path, "open", lambda self, mode: FullFile(self, mode))
        files.provide("open('input_image.png')")
    assert there(files.directory) == ["folder"]


@pytest.mark.parametrize(
    ("found", "used_up"),
    [
        (space(free=99), True),
        (space(free=100), False),
        (space(free=1000, free_files=0), True),
        (space(free=99, used=1 << 15), False),
    ],
)
def test_room_is_used_up_where_a_file_may_not_fit_and_the_session_itself_is_not_the_cause(
    tmp_path: Path, found: Any, used_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_bytes(bytes(1 << 15))
    (tmp_path / "input_image_0.png").write_bytes(bytes(1 << 20))
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    assert room.is_used_up(tmp_path, 100) == used_up


@pytest.mark.parametrize(("number", "later"), [(errno.EFBIG, []), (errno.EACCES, ["input_image.png"])])
def test_a_file_larger_than_a_file_may_be_is_left_out_and_another_failure_may_pass(
    files: OfferedFiles, number: int, later: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(image: Any, file: Any) -> None:
        raise OSError(number, os.strerror(number))

    files = files_of(files.directory, encoded("JPEG"))
    with monkeypatch.context() as failing:
        failing.setattr(offered.png, "write", fails)
        files.provide("open('input_image.png')")
    assert there(files.directory) == []
    files.provide("open('input_image.png')")
    assert there(files.directory) == later


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (OSError(errno.ENOSPC, ""), room.FILES),
        (OSError(errno.EDQUOT, ""), room.FILES),
        (OSError(errno.ENOMEM, ""), room.MEMORY),
        (OSError(errno.EAGAIN, ""), room.PROCESSES),
        (MemoryError(), room.SESSION_MEMORY),
        (OSError("image file is truncated"), ""),
        (ValueError("no picture"), ""),
    ],
)
def test_what_is_lacking_is_told_from_what_is_wrong_with_an_image(error: Exception, lacks: str) -> None:
    assert room.lacking(error) == lacks


def test_a_process_killed_by_the_kernel_lacked_memory_and_one_that_crashed_did_not() -> None:
    assert room.lacking_by_end(9) == room.MEMORY
    assert room.lacking_by_end(11) == "" and room.lacking_by_end(0) == ""
