"""Weak and strong model behind one real HTTP server of a thread, which says what a table has and counts requests."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from codedance_verl.data.fields import Message
from codedance_verl.data.schema import Record, write_records
from tests.unit.datasets.published import png

TRUTH = "4"


@dataclass(frozen=True)
class Request:
    """One request: the model, the number of the question, the seed, and whether the loop with tools sent it."""

    model: str
    question: int
    seed: int
    tools: bool


@dataclass
class Models:
    """`right` says whether a sample is right; `refuse` gives a status with which a request is refused, or 0."""

    right: Callable[[Request], bool]
    refuse: Callable[[Request], int] = lambda _: 0
    answered: Counter[Request] = field(default_factory=Counter)
    refused: Counter[Request] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    seen: Callable[[int], None] = lambda _: None
    url: str = ""

    def reply(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        text = json.dumps(body["messages"])
        tools = any(message["role"] == "system" for message in body["messages"])
        found = re.search(r"Question (\d+):", text)
        assert found is not None
        request = Request(body["model"], int(found[1]), body["seed"], tools)
        if status := self.refuse(request):
            with self.lock:
                self.refused[request] += 1
            return status, {"error": {"message": "out of order"}}
        with self.lock:
            self.answered[request] += 1
            count = self.answered.total()
        self.seen(count)
        said = TRUTH if self.right(request) else "5"
        content = f"<think>Not 3.</think>\n<answer>{said}</answer>"
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 11, "completion_tokens": 5}
        return 200, {"model": body["model"], "choices": [choice], "usage": usage}


@contextlib.contextmanager
def serving(models: Models) -> Iterator[Models]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(*models.reply(body))

        def do_GET(self) -> None:
            self._send(404, {"error": {"message": "no such page"}})

        def _send(self, status: int, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode()
            with contextlib.suppress(OSError):  # the client was killed
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    models.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield models
    finally:
        server.shutdown()
        server.server_close()


def questions(path: Path, count: int, difficulty: str | None = None) -> Path:
    """File of questions, numbered from 0, each with an image of its own."""
    write_records(
        path,
        (
            Record(
                data_source="made_up",
                prompt=(Message("user", f"<image>\nQuestion {number}: how many balls are there?"),),
                images=(png(number),),
                ability="counting",
                ground_truth=TRUTH,
                extra_info={"index": number, "difficulty": difficulty},
            )
            for number in range(count)
        ),
    )
    return path
