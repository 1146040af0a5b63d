"""Questions about scenes whose evidence is known, and a teacher over real HTTP that answers them by a script."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.faithful_calls import Scene, scene
from codedance_verl.datasets.stored import QUESTION_SCHEMA
from codedance_verl.formats import get_format, render_answer, render_think

CODE = get_format("code")
SMALL = (
    "sandbox.backend=process",
    "sandbox.containers=1",
    "sandbox.standby_containers=0",
    "sandbox.preload=light",
    "environment.trajectory_limit_s=120",
)
"""Keys of a small sandbox without containers."""


def scenes(count: int) -> list[Scene]:
    return [scene(np.random.default_rng(number), patch=True) for number in range(count)]


def cell(name: str, of: Scene) -> str:
    """Code of a behaviour."""
    box, other, (width, height) = of.box, of.other_box, of.size
    return {
        "visual": f"display(input_image.crop({box}).resize((64, 64)))",
        "computation": f"import numpy as np\npatch = np.asarray(input_image.crop({box}))\n"
        "print(tuple(patch.reshape(-1, 3).max(axis=0)))",
        "drawing": f"from PIL import ImageDraw\nImageDraw.Draw(input_image).rectangle({box}, outline='white')\n"
        f"display(input_image.crop({box}))",
        "hard_coded": f"print('{of.colour}')",
        "decorative": "print(1 + len('abc'))",
        "crash": "print(1 / 0)",
        "elsewhere": f"display(input_image.crop({other}))",
        "large": f"display(input_image.crop((0, 0, {width}, {height})))",
        "wrong": f"display(input_image.crop({box}))",
    }[name]


def call(code: str) -> str:
    return f"{render_think('I look.')}\n{CODE.render_call(code)}"


def answer(text: str) -> str:
    return f"{render_think('I see it.')}\n{render_answer(text)}"


@dataclass
class Teacher:
    """Teacher that knows the scenes, and counts what it was asked: `<question>/<direct or tools>/<turn>`.

    The behaviour stands in the question. `slow_s` is the time of an answer; `down` answers with status 500.
    """

    scenes: Sequence[Scene]
    slow_s: float = 0.0
    down: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    prompts: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, body: Mapping[str, Any]) -> str:
        user = next(message for message in body["messages"] if message["role"] == "user")
        text = "".join(part.get("text", "") for part in user["content"])
        found = re.search(r"Question (\d+) \((\w+)\)", text)
        assert found is not None
        number, name, direct = int(found[1]), found[2], "without code" in text
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        with self.lock:
            self.asked[f"{number}/{'direct' if direct else 'tools'}/{turn}/{body.get('seed')}"] += 1
            self.prompts.append(text)
        of = self.scenes[number]
        if direct:
            return answer(of.colour if name == "easy" else "no idea")
        if name == "by_request":
            name = next(
                kind for kind, word in (("drawing", "draw on"), ("visual", "cut out"), ("wrong", "")) if word in text
            )
        if name == "no_call":
            return answer(of.colour)
        if name == "no_answer":
            return "I cannot say."
        if turn == 0:
            return call(cell(name, of))
        return answer(of.other_colour if name == "wrong" else of.colour)


@contextlib.contextmanager
def serving(teacher: Teacher) -> Iterator[str]:
    """Base URL of the teacher's endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(404, {"error": {"message": "no such page"}})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if teacher.down:
                self._send(500, {"error": {"message": "down"}})
                return
            text = teacher.reply(body)
            time.sleep(teacher.slow_s)
            message = {"role": "assistant", "content": text}
            usage = {"prompt_tokens": 10, "completion_tokens": 7}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._send(200, {"model": "scripted", "choices": [choice], "usage": usage})

        def _send(self, status: int, value: Mapping[str, Any]) -> None:
            data = json.dumps(value).encode()
            with contextlib.suppress(OSError):  # the client may have been killed
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def write_questions(folder: Path, names: Sequence[str], of: Sequence[Scene], regions: bool = True) -> Path:
    """File of questions, one a behaviour, in the layout of `codedance data convert`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (name, one) in enumerate(zip(names, of, strict=True)):
        (folder / f"{number}.png").write_bytes(one.png)
        edges = dict(zip(("x1", "y1", "x2", "y2"), map(float, one.box), strict=True))
        question = f"Question {number} ({name}): which colour is the patch on the left?"
        extra = {"record_id": f"q{number}", "question": question, "index": number}
        rows.append(
            {
                "data_source": "scenes",
                "prompt": [{"role": "user", "content": f"<image>{question}"}],
                "images": [f"{number}.png"],
                "ability": "look",
                "reward_model": {"style": "rule", "ground_truth": one.colour},
                "extra_info": extra | ({"regions": [{"label": "patch", **edges}]} if regions else {}),
            }
        )
    path = folder / "questions.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=QUESTION_SCHEMA), path)
    return path
