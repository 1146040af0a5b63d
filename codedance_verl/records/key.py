"""Key of records: the named settings that replies must agree in to be counted together, and how two keys differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codedance_verl.errors import UserError
from codedance_verl.runtime.text import visible

Json = Any
"""A value of JSON: texts, numbers, booleans, null, lists and mappings of them."""

_SHOWN = 80
"""Characters of a value that a message shows; of a longer one it gives length and digest."""


class ChangedKey(UserError):
    """Records that hold for other settings than those asked for; a line for each setting that differs."""


@dataclass(frozen=True)
class Part:
    """Setting of a key: a plain JSON value under a name."""

    name: str
    value: Json

    @property
    def sha256(self) -> str:
        """Digest (hex) of the value as JSON with sorted names."""
        # a prompt may hold half a surrogate pair, which has no UTF-8
        return hashlib.sha256(_text(self.value).encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True)
class Key:
    """Parts by name, in order. Two keys agree if they have the same names and values."""

    parts: tuple[Part, ...]

    @property
    def digest(self) -> str:
        """First 16 hex characters of the SHA-256 over names and digests of the parts; it stands in every record."""
        return Part("", [[part.name, part.sha256] for part in self.parts]).sha256[:16]

    @property
    def samples(self) -> int:
        """Replies to an item; 1 where the key does not say."""
        return next((int(part.value) for part in self.parts if part.name == "samples"), 1)

    def changes_to(self, other: Key) -> tuple[str, ...]:
        """What differs, a line a setting: `sampling.temperature: 0.0 -> 1.0`. Empty for keys that agree."""
        mine, theirs = (dict(key._leaves()) for key in (self, other))
        names = [*mine, *(name for name in theirs if name not in mine)]
        return tuple(
            f"{visible(name)}: {mine.get(name, 'absent')} -> {theirs.get(name, 'absent')}"
            for name in names
            if mine.get(name) != theirs.get(name)
        )

    def encode(self) -> str:
        """JSON text, as `decode` reads it, with the digest of each part for other readers."""
        parts = [{"name": part.name, "sha256": part.sha256, "value": part.value} for part in self.parts]
        return json.dumps({"digest": self.digest, "parts": parts}, indent=1) + "\n"

    @classmethod
    def decode(cls, text: str | bytes) -> Key:
        """The key of a text. Raises ValueError: it holds none."""
        try:
            return cls(tuple(Part(part["name"], part["value"]) for part in json.loads(text)["parts"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no key of records ({error})") from None

    def _leaves(self) -> Iterator[tuple[str, str]]:
        for part in self.parts:
            yield from _leaves(part.name, part.value)


def replies_key(
    *,
    task: str,
    revision: str,
    model: Json,
    prompt: Json,
    sampling: Json,
    limits: Json,
    control: str = "",
    samples: int = 1,
) -> Key:
    """Key of the replies to a benchmark. The items' own digests stand in the records.

    Args:
        task, revision: benchmark and the commit of its files.
        model: what tells the model apart from another, such as name and digest of the weights.
        prompt: system prompt, template and format of calls.
        sampling: temperature, top-p, seed and the like.
        limits: turns, tokens, seconds, pixels.
        control: switch of the service, such as `no_tools`; empty for none.
        samples: replies to an item, numbered from 0.
    """
    values = {"task": task, "revision": revision, "model": model, "prompt": prompt, "sampling": sampling}
    return _key(values | {"limits": limits, "control": control, "samples": samples})


def _key(values: Mapping[str, Json]) -> Key:
    # through JSON, so that a key agrees with itself after it was written: tuples become lists, names texts
    return Key(tuple(Part(name, json.loads(_text(value))) for name, value in values.items()))


def _leaves(name: str, value: Json) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for inner, item in value.items():
            yield from _leaves(f"{name}.{inner}", item)
    else:
        yield name, _shown(value)


def _shown(value: Json) -> str:
    text = _text(value)
    if len(text) <= _SHOWN:
        return visible(text)
    # never a mapping: `_leaves` shows what is in it, and an empty one is short
    kind = "characters" if isinstance(value, str) else "items" if isinstance(value, Sequence) else "digits"
    size = len(value) if isinstance(value, Sequence) else len(text)
    return f"{size:,} {kind} (sha256 {Part('', value).sha256[:12]})"


def _text(value: Json) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
