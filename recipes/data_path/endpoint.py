"""Teacher behind a chat endpoint on loopback: `python -m recipes.data_path.endpoint --count 1500`.

It prints its address, and ends when its standard input does, so that it does not outlive what has started it. A process
of its own keeps what its programs print apart.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from codedance_verl.errors import UserError
from recipes.data_path.pool import pool_task
from recipes.data_path.teacher import NAME, Teacher, Unknown

_END_S = 10.0


@contextlib.contextmanager
def serving(reply: Callable[[Mapping[str, Any]], str]) -> Iterator[str]:
    """Serves replies to chat requests on a free port of loopback; gives the base URL. It ends with the block."""
    # programs are run with the output of the whole process redirected: one at a time
    one = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(404, {"error": {"message": "no such page"}})

        def do_POST(self) -> None:
            try:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with one:
                    text = reply(body)
            except (Unknown, KeyError, TypeError, ValueError) as error:
                self._send(400, {"error": {"message": f"{type(error).__name__}: {error}"}})
                return
            message = {"role": "assistant", "content": text}
            self._send(200, {"model": NAME, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

        def _send(self, status: int, value: Mapping[str, Any]) -> None:
            data = json.dumps(value).encode()
            with contextlib.suppress(OSError):  # the client may have been killed
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, format: str, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def started(count: int) -> Iterator[str]:
    """Starts the teacher of the first `count` questions in a process; gives its base URL. It ends with the block.

    Raises UserError: it does not start.
    """
    command = (sys.executable, "-m", "recipes.data_path.endpoint", "--count", str(count))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise UserError("the scripted teacher did not start; its error stands above")
            yield url
        finally:
            process.stdin.close()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()


def main(arguments: list[str] | None = None) -> int:
    """Command-line entry; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m recipes.data_path.endpoint", description="Serves the teacher.")
    parser.add_argument("--count", type=int, required=True, help="questions of the pool")
    options = parser.parse_args(arguments)
    teacher = Teacher((index, pool_task(index)) for index in range(options.count))
    with serving(teacher.reply) as url:
        print(url, flush=True)
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
