"""Trajectories that mean harm: markup everywhere, 10 MB of output, 200 pictures, broken UTF-8, wrong types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.sample_run import rendered

MARKUP = (
    '"><script>window.owned = 1</script><img src=x onerror="window.owned = 1"><svg onload="window.owned=1">\'{{7*191}}'
)
MEGABYTES = 10
PICTURES = 200


def write_hostile_run(run_dir: Path) -> Path:
    """One line for each kind of harm."""
    folder = run_dir / "trajectories"
    (folder / "train").mkdir(parents=True)
    (folder / "images").mkdir()
    lines = [
        json.dumps(_with_markup()).encode(),
        json.dumps(_line("output", stdout="x" * 1000 + "\u202e\x1b[31m" + "y" * (MEGABYTES << 20))).encode(),
        json.dumps(_line("pictures", images=[_picture(folder, number) for number in range(PICTURES)])).encode(),
        json.dumps(_line("bytes", stdout="BROKEN")).encode().replace(b"BROKEN", b"\xff\xfe\xc3(\xf0\x9f"),
        json.dumps(_line("half", stdout="\ud800 alone")).encode(),
        json.dumps(
            {"record_id": "types", "question": ["a"], "turns": [None, 3, {"text": {}, "execution": []}]}
        ).encode(),
        json.dumps(_line("turns", turns=500)).encode(),
        json.dumps(_line("paths", images=[{"sha256": "../../etc/passwd", "path": "/etc/passwd"}])).encode(),
        b"\xff\xff not json",
        b'{"turns": [], "record_id": "cut off',
    ]
    path = folder / "train" / "step_000001.x.jsonl"
    path.write_bytes(b"\n".join(lines))
    return run_dir


def _with_markup() -> dict[str, Any]:
    line = _line("markup", stdout=MARKUP)
    turn = {**line["turns"][0], "text": MARKUP, "code": f"print('{MARKUP}')", "observation": MARKUP}
    turn["execution"] = {
        **turn["execution"],
        "status": MARKUP,
        "error": {"kind": MARKUP, "message": MARKUP, "traceback": MARKUP},
    }
    return {
        **line,
        **dict.fromkeys(("group", "question", "ground_truth", "answer", "kind", "finish", "record_id"), MARKUP),
        "grade": {"verdict": "wrong", "rung": MARKUP, "evidence": MARKUP},
        "turns": [turn],
    }


def _line(name: str, *, stdout: str = "", images: list[Any] | None = None, turns: int = 1) -> dict[str, Any]:
    execution = {"status": "ok", "stdout": stdout, "images": images or [], "duration_s": 0.1, "truncated": []}
    turn = {"text": f"a turn of {name}", "code": "print(1)", "observation": "seen", "execution": execution}
    return {
        "step": 1,
        "group": name,
        "sample": 0,
        "record_id": name,
        "question": f"What about {name}?",
        "turns": [turn] * turns,
        "reward": {"score": 1.0, "turns": [0.5], "accuracy": 1.0},
        "grade": {"verdict": "correct", "rung": "number", "evidence": ""},
    }


def _picture(folder: Path, number: int) -> dict[str, Any]:
    picture = rendered(Image.new("RGB", (16, 16), (number, 0, 0)))
    (folder / "images" / f"{picture.sha256}.png").write_bytes(picture.png)
    return {"sha256": picture.sha256, "width": 16, "height": 16}
