"""Keys agree where every setting does; otherwise each setting that differs is named with both values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from codedance_verl.errors import UserError
from codedance_verl.records.key import ChangedKey, Key, replies_key
from codedance_verl.records.store import open_store

SETTINGS: dict[str, Any] = {
    "task": "vstar",
    "revision": "d5a67a2",
    "model": {"name": "tiny", "weights": "aa"},
    "prompt": "Look at the image. " * 20,
    "sampling": {"temperature": 0.0, "stop": ("</answer>",)},
    "limits": {"turns": 4},
}


def test_a_key_agrees_with_itself_after_it_was_written() -> None:
    key = replies_key(**SETTINGS)
    assert Key.decode(key.encode()) == key and Key.decode(key.encode()).digest == key.digest
    reordered = SETTINGS | {"model": {"weights": "aa", "name": "tiny"}}
    assert replies_key(**reordered).digest == key.digest and not key.changes_to(replies_key(**reordered))


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"task": "hrbench"}, 'task: "vstar" -> "hrbench"'),
        ({"revision": "0"}, 'revision: "d5a67a2" -> "0"'),
        ({"model": {"name": "tiny", "weights": "bb"}}, 'model.weights: "aa" -> "bb"'),
        ({"sampling": {"temperature": 1.0, "stop": ["</answer>"]}}, "sampling.temperature: 0.0 -> 1.0"),
        ({"sampling": {"temperature": 0.0}}, 'sampling.stop: ["</answer>"] -> absent'),
        ({"limits": {"turns": 4, "tokens": 9}}, "limits.tokens: absent -> 9"),
        ({"control": "no_tools"}, 'control: "" -> "no_tools"'),
        ({"samples": 4}, "samples: 1 -> 4"),
    ],
)
def test_a_changed_setting_is_named_with_both_values(tmp_path: Path, changed: dict[str, Any], line: str) -> None:
    open_store(tmp_path, replies_key(**SETTINGS))
    other = replies_key(**{**SETTINGS, **changed})
    assert other.digest != replies_key(**SETTINGS).digest
    with pytest.raises(ChangedKey) as caught:
        open_store(tmp_path, other)
    first, *lines = str(caught.value).splitlines()
    assert str(tmp_path) in first and lines == [line]


def test_long_values_are_told_apart_by_their_digests_and_terminals_are_safe() -> None:
    key = replies_key(**SETTINGS)
    (line,) = key.changes_to(replies_key(**{**SETTINGS, "prompt": SETTINGS["prompt"] + "\x1b[2J"}))
    assert line.startswith("prompt: 380 characters (sha256 ") and " -> 384 characters (sha256 " in line
    (line,) = key.changes_to(replies_key(**{**SETTINGS, "task": "\u202evstar"}))
    assert "⟨U+202E⟩" in line
    assert replies_key(**{**SETTINGS, "task": "\ud800"}).digest  # half a surrogate pair has a digest


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"parts": [{"name": "task"}]}', '{"parts": 3}'])
def test_a_damaged_key_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "key.json").write_text(text)
    with pytest.raises(UserError, match=r"key\.json: .*; restore it, or choose another folder$") as caught:
        open_store(tmp_path, replies_key(**SETTINGS))
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot hold records"):
        open_store(tmp_path / "file" / "records", replies_key(**SETTINGS))
