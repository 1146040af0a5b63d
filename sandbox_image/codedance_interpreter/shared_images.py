"""Images that sessions share: decoded once, by a process that does nothing else, into a memory file.

The rollouts of a question have the same images. Each session maps the memory file privately: the pixels are there once
until it draws on them, and what it draws is its own. The file is sealed before any session uses it, so nobody can
change it any more.

The memory file: a header of `_PIXELS_AT` bytes, the pixels (4 bytes each, as Pillow holds them), the encoded file as it
came, and Pillow's `info`. The header: one of the states below, the length of a msgpack map, and that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
from dataclasses import dataclass
from typing import Any

import msgpack  # type: ignore[import-untyped]

from . import input_images, room
from .input_images import InputImage

_HEAD = struct.Struct("<4sI")
_PIXELS_AT = 4096
_IS_IMAGE, _DECODED, _NO_IMAGE, _BROKEN = b"imag", b"done", b"none", b"brok"
"""States: known to be an image; decoded; no image; an image that cannot be decoded."""

_BAND_BYTES = 1 << 20
_REASON_CHARS = 500
_LONGEST_INFO = 1 << 16
"""Bytes of one entry of `info` that is kept, such as a colour profile."""

_NEVER_AGAIN = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class Unusable(Exception):
    """An image that cannot be used. `lacks` is what the container was short of, as in `room.py`; else empty."""

    def __init__(self, reason: str, lacks: str = "") -> None:
        super().__init__(reason)
        self.lacks = lacks


@dataclass(frozen=True)
class SharedImage:
    """Descriptors of one image: its memory file, and two pipes that end.

    `checked` ends when it is known to be an image, `decoded` when the memory file is sealed, or it has failed.
    """

    file: int
    checked: int
    decoded: int

    @property
    def descriptors(self) -> tuple[int, ...]:
        return self.file, self.checked, self.decoded

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


def write(file: int, checked: int, data: bytes) -> None:
    """Decodes an image into a memory file. Closes `checked` as soon as it is known to be one, or none."""
    try:
        try:
            input_images.check(data)
            _set_header(file, _IS_IMAGE, {})
        finally:
            os.close(checked)
        image = input_images.decode(data)
        info = _packed_info(image.rgb.info)
        os.lseek(file, _PIXELS_AT, os.SEEK_SET)
        _write_pixels(file, image.rgb)
        _write_all(file, data)
        _write_all(file, info)
        sizes = {"size": image.rgb.size, "form": image.form, "data": len(data), "info": len(info)}
        _set_header(file, _DECODED, sizes)
    except Exception as error:  # whatever a decoder makes of a broken file
        # The bound on the memory file is the memory of a session, which would have to map it.
        is_large = isinstance(error, OSError) and error.errno == errno.EFBIG
        fail(file, f"{type(error).__name__}: {error}", room.SESSION_MEMORY if is_large else room.lacking(error))


def fail(file: int, reason: str, lacks: str) -> None:
    """Notes in a memory file that its image cannot be used."""
    state = _BROKEN if _state(file) == _IS_IMAGE else _NO_IMAGE
    os.ftruncate(file, _PIXELS_AT)
    _set_header(file, state, {"reason": reason[:_REASON_CHARS], "lacks": lacks})


def is_finished(file: int) -> bool:
    """Returns true where an image has been decoded, or has failed."""
    return _state(file) in (_DECODED, _NO_IMAGE, _BROKEN)


def is_decoded(file: int) -> bool:
    return _state(file) == _DECODED


def seal(file: int) -> None:
    """Makes a memory file unchangeable. Raises `OSError` where somebody may still write to it."""
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, _NEVER_AGAIN)


def await_check(image: SharedImage) -> None:
    """Waits until it is known to be an image. Raises `Unusable` where it is none."""
    os.read(image.checked, 1)
    if _state(image.file) not in (_IS_IMAGE, _DECODED, _BROKEN):
        os.read(image.decoded, 1)
        raise _failure(image.file)


def take(image: SharedImage) -> InputImage:
    """Waits until it is decoded, and maps it; each call gives a mapping of its own.

    Raises `Unusable` where it cannot be used.
    """
    os.read(image.decoded, 1)
    file = image.file
    if not is_decoded(file):
        raise _failure(file)
    if fcntl.fcntl(file, fcntl.F_GET_SEALS) & _NEVER_AGAIN != _NEVER_AGAIN:
        raise Unusable("its memory file can still be changed", room.MEMORY)  # the zygote has died before it sealed it
    header = _header(file)
    (width, height), data_bytes, info_bytes = header["size"], int(header["data"]), int(header["info"])
    data_at = _PIXELS_AT + 4 * width * height
    if min(width, height) < 1 or os.fstat(file).st_size != data_at + data_bytes + info_bytes:
        raise Unusable("its memory file has another size than it should")
    # Private and writable: Pillow draws into it, which makes copies of the pages drawn on.
    try:
        mapped = mmap.mmap(file, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    except OSError as error:  # its address space has ended (RLIMIT_AS)
        raise Unusable(str(error), room.SESSION_MEMORY) from None
    view = memoryview(mapped)
    info = msgpack.unpackb(view[data_at + data_bytes :], use_list=False, strict_map_key=False)
    return InputImage(_as_pil(mapped, (width, height), info), view[data_at : data_at + data_bytes], str(header["form"]))


def _as_pil(mapped: mmap.mmap, size: tuple[int, int], info: dict[Any, Any]) -> Any:
    """Returns an image over mapped pixels; `Image.frombuffer` would copy those of mode RGB."""
    from PIL import Image

    core = Image.core.map_buffer(mapped, size, "raw", _PIXELS_AT, ("RGB", 0, 1))  # type: ignore[attr-defined]
    image = Image.new("RGB", (0, 0))._new(core)
    image.info = info
    return image


def _write_pixels(file: int, rgb: Any) -> None:
    """Writes pixels with one band of rows in memory beside the image."""
    width, height = rgb.size
    rows = max(1, _BAND_BYTES // (4 * width))
    for top in range(0, height, rows):
        band = rgb.crop((0, top, width, min(top + rows, height)))
        _write_all(file, band.tobytes("raw", "RGBX"))


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _packed_info(info: dict[Any, Any]) -> bytes:
    """Packs the entries of an image's `info` that are plain values; colour profiles and the like are left out."""
    kept = {}
    for key, value in info.items():
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            if len(msgpack.packb({key: value})) <= _LONGEST_INFO:
                kept[key] = value
    packed: bytes = msgpack.packb(kept)
    return packed


def _state(file: int) -> bytes:
    return os.pread(file, 4, 0)


def _set_header(file: int, state: bytes, fields: dict[str, Any]) -> None:
    packed = msgpack.packb(fields)
    os.pwrite(file, _HEAD.pack(state, len(packed)) + packed, 0)


def _header(file: int) -> dict[str, Any]:
    head = os.pread(file, _PIXELS_AT, 0)
    _, length = _HEAD.unpack_from(head)
    fields: dict[str, Any] = msgpack.unpackb(head[_HEAD.size : _HEAD.size + length])
    return fields


def _failure(file: int) -> Unusable:
    if not is_finished(file):
        return Unusable("it was given up before it was decoded", room.MEMORY)  # the zygote has died
    fields = _header(file)
    return Unusable(str(fields["reason"]), str(fields["lacks"]))
