"""Turns valid messages into streams of bytes with one broken frame, at random but repeatable from a seed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import msgpack  # type: ignore[import-untyped]

from codedance_verl.sandbox.wire import MAX_FRAME_BYTES
from tests.fuzz.corpus import LARGE_PNG, MESSAGES, PNGS, RESULTS

Message = dict[str, Any]

BODIES: list[bytes] = [msgpack.packb(message) for message in MESSAGES]
_COMPANIONS = [(message, struct.pack(">I", len(body)) + body) for message, body in zip(MESSAGES, BODIES, strict=True)]

_TAGS = bytes([0x80, 0x81, 0x8F, 0x90, 0x91, 0x9F, 0xA0, 0xA1, 0xBF, *range(0xC0, 0xE1), 0xFF, 0x00, 0x7F])
_LONG = struct.pack(">I", 0xFFFFFFFF)
_ANNOUNCED = [
    *(bytes([tag]) + _LONG for tag in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)),  # bin, ext, str, array and map of 4 GiB
    *(bytes([tag]) + struct.pack(">I", size) for tag in (0xC6, 0xDB, 0xDD, 0xDF) for size in (1 << 20, 1 << 28)),
    *(bytes([tag, 0xFF, 0xFF]) for tag in (0xC5, 0xC8, 0xDA, 0xDC, 0xDE)),
]
_BROKEN_TEXT = [b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"a\x80b", b"\xf8\x88\x80"]
_ODD_KEYS = [
    b"\x01",
    b"\xc0",
    b"\xc3",
    b"\xca\x7f\xc0\x00\x00",
    b"\x90",
    b"\x91\xa1a",
    b"\x80",
    b"\xc4\x01a",
    b"\xd4\x05a",
]
_EXTENSIONS = [
    *(bytes([tag, code]) + bytes(size) for tag, size in ((0xD4, 1), (0xD5, 2), (0xD8, 16)) for code in (0, 127, 255)),
    *(b"\xd6\xff" + part for part in (_LONG, bytes(4))),  # timestamps, of sizes that are right …
    *(b"\xd7\xff" + part for part in (_LONG + _LONG, bytes(8))),
    b"\xc7\x0c\xff" + _LONG * 3,
    *(bytes([0xC7, size, 0xFF]) + bytes(size) for size in (0, 3, 5, 13)),  # … and of sizes that are not
]
_ODD_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 2**63, 2**64 - 1, -(2**63), 0.5, float("nan"), float("inf"), 1e308),
    *("", "x", "done", "error", "died", "cancelled", "result", "x" * 3000, "\x00", "é" * 20_000, "9" * 400),
    *(b"", b"\x89PNG\r\n\x1a\n", *PNGS, LARGE_PNG, PNGS[1][:-20], PNGS[1][:40] + b"\xff" * 30 + PNGS[1][40:]),
    *(
        [],
        [None],
        [[]],
        ["stdout", "images", 3],
        [{}] * 5,
        [{"png": PNGS[0]}] * 5,
        [{"png": LARGE_PNG}],
        {},
        {"png": None},
        {"kind": "E"},
    ),
]
for _depth in (20, 400):
    _value: Any = []
    for _ in range(_depth):
        _value = [_value] if _depth % 3 else {"a": _value}
    _ODD_VALUES.append(_value)
_LENGTHS = [0, 1, 3, 0x7FFFFFFF, 0xFFFFFFFF, MAX_FRAME_BYTES, MAX_FRAME_BYTES + 1, 0x80818283, 256, 65536]


@dataclass(frozen=True, slots=True)
class Case:
    """A stream with one fuzzed frame: valid messages `before`, the frame, valid messages `after`.

    `framed` says that the fuzzed frame announces its true length, so that what follows it can be found. `kind` names
    the mutation. `chunks` is the stream as it arrives.
    """

    kind: str
    framed: bool
    before: list[Message]
    after: list[Message]
    chunks: list[bytes]

    @property
    def stream(self) -> bytes:
        return b"".join(self.chunks)


def cases(seed: int, count: int) -> Iterator[Case]:
    """`count` streams; the same ones for the same seed."""
    rng = Random(seed)
    bodies, frames = list(_BODY_MUTATIONS.items()), list(_FRAME_MUTATIONS.items())
    for _ in range(count):
        body = _pick(rng, BODIES)
        if rng.random() < 0.85:
            kind, mutate = _pick(rng, bodies)
            body = mutate(rng, body)
            if rng.random() < 0.15:
                body = _pick(rng, bodies)[1](rng, body)
            yield _case(rng, kind, True, struct.pack(">I", len(body)) + body)
        else:
            kind, mutate = _pick(rng, frames)
            yield _case(rng, kind, False, mutate(rng, struct.pack(">I", len(body)) + body))


def frames_like(messages: list[Message], seed: int, count: int) -> Iterator[bytes]:
    """`count` broken frames made of these messages alone; the same ones for the same seed."""
    rng = Random(seed)
    for _ in range(count):
        message = _pick(rng, messages)
        if rng.random() < 0.5:
            body = bytes(msgpack.packb(_changed(rng, message)))
        else:
            body = _pick(rng, list(_BODY_MUTATIONS.values()))(rng, msgpack.packb(message))
        frame = struct.pack(">I", len(body)) + body
        yield frame if rng.random() < 0.8 else _pick(rng, list(_FRAME_MUTATIONS.values()))(rng, frame)


def _case(rng: Random, kind: str, framed: bool, frame: bytes) -> Case:
    before = [_pick(rng, _COMPANIONS)] if rng.random() < 0.25 else []
    after = [_pick(rng, _COMPANIONS)] if rng.random() < 0.25 else []
    stream = b"".join([*(data for _, data in before), frame, *(data for _, data in after)])
    return Case(kind, framed, [item for item, _ in before], [item for item, _ in after], _chunks(rng, stream))


def _chunks(rng: Random, stream: bytes) -> list[bytes]:
    """The stream in one piece, in a few, or byte by byte."""
    how = rng.random()
    if how < 0.6 or len(stream) < 2:
        return [stream] if stream else []
    if how < 0.603 and len(stream) < 400:
        return [stream[place : place + 1] for place in range(len(stream))]
    cuts = sorted({1 + int(rng.random() * (len(stream) - 1)) for _ in range(1 + int(rng.random() * 4))})
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def _pick(rng: Random, items: Any) -> Any:
    return items[int(rng.random() * len(items))]


def _place(rng: Random, body: bytes) -> int:
    return int(rng.random() * (len(body) + 1))


def _nothing(_rng: Random, body: bytes) -> bytes:
    return body


def _flip_bits(rng: Random, body: bytes) -> bytes:
    data = bytearray(body)
    for _ in range(1 + int(rng.random() * 8) if data else 0):
        data[int(rng.random() * len(data))] ^= 1 << int(rng.random() * 8)
    return bytes(data)


def _write_tags(rng: Random, body: bytes) -> bytes:
    data = bytearray(body)
    for _ in range(1 + int(rng.random() * 3) if data else 0):
        data[int(rng.random() * len(data))] = _pick(rng, _TAGS)
    return bytes(data)


def _truncate(rng: Random, body: bytes) -> bytes:
    return body[: _place(rng, body)]


def _splice(rng: Random, body: bytes) -> bytes:
    other = _pick(rng, BODIES)
    return body[: _place(rng, body)] + other[_place(rng, other) :]


def _insert(rng: Random, body: bytes) -> bytes:
    place = _place(rng, body)
    return body[:place] + rng.randbytes(1 + int(rng.random() * 8)) + body[place:]


def _remove(rng: Random, body: bytes) -> bytes:
    place = _place(rng, body)
    return body[:place] + body[place + 1 + int(rng.random() * 8) :]


def _repeat(rng: Random, body: bytes) -> bytes:
    start, end = sorted((_place(rng, body), _place(rng, body)))
    return body[:end] + body[start:end] * (1 + int(rng.random() * 3)) + body[end:]


def _nest(rng: Random, body: bytes) -> bytes:
    step = _pick(rng, (b"\x91", b"\x81\xa1a", b"\x92\xc0", b"\xdd\x00\x00\x00\x01", b"\xdc\x00\xff"))
    return b"\x81\xa2op" + step * int(rng.random() ** 3 * 1200) + (body if rng.random() < 0.5 else b"\xc0")


def _announce(rng: Random, body: bytes) -> bytes:
    announced = _pick(rng, _ANNOUNCED)
    if rng.random() < 0.5:
        return b"\x81\xa6images" + announced * (1 + int(rng.random() * 5)) + body[: _place(rng, body)]
    place = _place(rng, body)
    return body[:place] + announced + body[place:]


def _break_text(rng: Random, _body: bytes) -> bytes:
    text = _pick(rng, _BROKEN_TEXT)
    item = bytes([0xA0 + len(text)]) + text
    return b"\x82\xa2op\xa6result" + (item + b"\xc0" if rng.random() < 0.5 else b"\xa6stdout" + item)


def _double_keys(rng: Random, body: bytes) -> bytes:
    key = _pick(rng, (b"\xa2op", b"\xa4call", b"\xa7outcome", b"\xa6images"))
    value = _pick(rng, (b"\xc0", b"\x01", b"\xa6result", b"\xa4done", b"\x90"))
    return b"\x83\xa2op\xa6result" + (key + value) * 2 + (body if rng.random() < 0.2 else b"")


def _odd_keys(rng: Random, body: bytes) -> bytes:
    key = _pick(rng, _ODD_KEYS)
    inner = b"\x81" + key + b"\xc0"
    return inner if rng.random() < 0.5 else b"\x82\xa2op\xa6result\xa5error" + inner + body[: _place(rng, body) // 8]


def _extend(rng: Random, body: bytes) -> bytes:
    extension = _pick(rng, _EXTENSIONS)
    if rng.random() < 0.5:
        return b"\x83\xa2op\xa6result\xa4call" + extension + b"\xa6images" + _pick(rng, _EXTENSIONS)
    place = _place(rng, body)
    return body[:place] + extension + body[place:]


def _noise(rng: Random, _body: bytes) -> bytes:
    return rng.randbytes(int(rng.random() ** 2 * 300))


def _odd_value(rng: Random, _body: bytes) -> bytes:
    """A message of the right shape but for one value, key or absence."""
    message = _pick(rng, RESULTS if rng.random() < 0.8 else MESSAGES)
    return bytes(msgpack.packb(_changed(rng, message)))


def _changed(rng: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = _pick(rng, list(value))
        fate = rng.random()
        if fate < 0.1:
            return {name: part for name, part in value.items() if name != key}
        return {**value, "?" if fate < 0.15 else key: _changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = int(rng.random() * len(value))
        return [*value[:place], _changed(rng, value[place]), *value[place + 1 :]]
    if isinstance(value, bytes) and rng.random() < 0.6:
        return _pick(rng, (_flip_bits, _truncate, _insert, _write_tags, _resize_png))(rng, value)
    return _pick(rng, _ODD_VALUES)


def _resize_png(rng: Random, png: bytes) -> bytes:
    """Another width and height in a header whose checksum is right."""
    if len(png) < 33:
        return png
    size = struct.pack(">II", *(_pick(rng, (0, 1, 3, 64, 65, 4096, 65_536, 2**31 - 1, 2**32 - 1)) for _ in "wh"))
    header = b"IHDR" + size + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def _lie_about_length(rng: Random, frame: bytes) -> bytes:
    true = len(frame) - 4
    wrong = max(0, true + int(rng.random() * 20) - 10) if rng.random() < 0.5 else _pick(rng, _LENGTHS)
    return struct.pack(">I", wrong) + frame[4:]


def _stop_short(rng: Random, frame: bytes) -> bytes:
    return frame[: _place(rng, frame)]


_BODY_MUTATIONS: dict[str, Callable[[Random, bytes], bytes]] = {
    "none": _nothing,
    "bits": _flip_bits,
    "tags": _write_tags,
    "truncated": _truncate,
    "spliced": _splice,
    "inserted": _insert,
    "removed": _remove,
    "repeated": _repeat,
    "nested": _nest,
    "announced": _announce,
    "text": _break_text,
    "double keys": _double_keys,
    "odd keys": _odd_keys,
    "extensions": _extend,
    "noise": _noise,
    "value": _odd_value,
    "value of a result": _odd_value,
}

_FRAME_MUTATIONS: dict[str, Callable[[Random, bytes], bytes]] = {
    "length": _lie_about_length,
    "stops short": _stop_short,
    "bits of a frame": _flip_bits,
    "spliced frames": _splice,
    "unframed noise": _noise,
}
