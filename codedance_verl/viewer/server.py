"""The web server of `codedance view`: pages over an index that follows the run while it is written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler

from codedance_verl.errors import UserError
from codedance_verl.trajectories.index import Index
from codedance_verl.trajectories.query import Query
from codedance_verl.viewer import export, pages
from codedance_verl.viewer.access import add_headers, admission
from codedance_verl.viewer.pages import Missing

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often files are looked at for new lines."""

HEARTBEAT_SECONDS = 15.0
MOST_LISTENERS = 64
THREADS = 4

_IMAGE = re.compile(r"[0-9a-f]{64}")
_STATIC = {"app.js": "text/javascript", "view.css": "text/css", "icon.svg": "image/svg+xml"}

_Result = TypeVar("_Result")


class Viewer:
    """Handlers, the threads in which they ask the index, and the task that keeps it up to date."""

    def __init__(self, index: Index, token: str | None) -> None:
        self._index = index
        self._token = token
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="view")
        self._changed = asyncio.Event()
        self._listeners = 0
        self._first_read: int | None = None  # number of the newest row once all that lay there at the start was read

    @property
    def _indexing(self) -> bool:
        return self._first_read is None

    def application(self) -> web.Application:
        """The routes; the index is followed from start to cleanup."""
        application = web.Application(client_max_size=1 << 16, middlewares=[self._errors, admission(self._token)])
        application.on_response_prepare.append(add_headers)
        application.cleanup_ctx.append(self._following)
        number = r"{number:\d{1,15}}"
        run = r"/runs/{run:\d{1,9}}"
        for path, handler in {
            "/": self._runs,
            run: self._run,
            f"{run}/list": self._list,
            f"{run}/rows": self._rows,
            f"{run}/export": self._export_list,
            run + r"/images/{sha256}.png": self._image,
            f"/t/{number}": self._trajectory,
            f"/t/{number}/group": self._group,
            f"/t/{number}/export": self._export_one,
            f"/t/{number}/line": self._line,
            f"/t/{number}" + r"/raw/{part:[a-z0-9_.]{1,40}}": self._raw,
            f"/t/{number}" + r"/against/{other:\d{1,15}}": self._diff,
            "/events": self._events,
            "/static/{name}": self._static,
        }.items():
            application.router.add_get(path, handler)
        return application

    async def _following(self, _: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._follow())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _follow(self) -> None:
        while True:
            try:
                await self._update()
            except asyncio.CancelledError:
                raise
            except UserError as error:  # the run's folder is gone, and may come back
                logger.warning("%s", error)
            except Exception:
                logger.exception("the files cannot be read; tried again")
            await asyncio.sleep(LOOK_SECONDS)

    async def _update(self) -> None:
        batches = self._index.update()
        try:
            while (added := await self._ask(lambda: next(batches, None))) is not None:
                if added:
                    self._wake()
        finally:
            if self._indexing:
                self._first_read = await self._ask(self._index.newest_id)
                self._wake()  # pages that say that files are being read came with the last rows

    def _wake(self) -> None:
        """Wakes all that wait for this event; later ones wait for the next."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _ask(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Missing as error:
            return _page(pages.problem(404, str(error)), status=404)
        except UserError as error:
            return _page(pages.problem(400, str(error)), status=400)
        except web.HTTPNotFound:
            return _page(pages.problem(404, f"there is nothing at {request.path[:200]}"), status=404)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception:
            logger.exception("an error at %s", request.path)
            return _page(pages.problem(500, "an error of the viewer; its log says more"), status=500)

    async def _runs(self, request: web.Request) -> web.Response:
        return _page(await self._ask(lambda: pages.runs_page(self._index, indexing=self._indexing)))

    async def _run(self, request: web.Request) -> web.Response:
        run = _number(request, "run")
        return _page(await self._ask(lambda: pages.run_page(self._index, run, indexing=self._indexing)))

    async def _list(self, request: web.Request) -> web.Response:
        run, query = _number(request, "run"), Query.from_fields(request.query)
        page = max(1, _field(request, "page", 1))
        return _page(await self._ask(lambda: pages.list_page(self._index, run, query, page, indexing=self._indexing)))

    async def _rows(self, request: web.Request) -> web.Response:
        run, query, after = _number(request, "run"), Query.from_fields(request.query), _field(request, "after", 0)
        # Rows that were on the disk at the start are no news, although the index found them later.
        fresh = None if self._first_read is None else max(after, self._first_read)
        return web.json_response(await self._ask(lambda: pages.new_rows(self._index, run, query, fresh)))

    async def _trajectory(self, request: web.Request) -> web.Response:
        number, query = _number(request, "number"), Query.from_fields(request.query)
        all_images, first = request.query.get("images") == "all", max(0, _field(request, "from", 0))
        return _page(
            await self._ask(
                lambda: pages.trajectory_page(self._index, number, query, all_images=all_images, first_turn=first)
            )
        )

    async def _group(self, request: web.Request) -> web.Response:
        number = _number(request, "number")
        return _page(await self._ask(lambda: pages.group_page(self._index, number)))

    async def _diff(self, request: web.Request) -> web.Response:
        number, other = _number(request, "number"), _number(request, "other")
        return _page(await self._ask(lambda: pages.diff_page(self._index, number, other)))

    async def _raw(self, request: web.Request) -> web.Response:
        number, part = _number(request, "number"), request.match_info["part"]
        content = await self._ask(lambda: pages.raw_part(self._index, number, part))
        return web.Response(body=content.encode("utf-8", "replace"), content_type="text/plain", charset="utf-8")

    async def _line(self, request: web.Request) -> web.StreamResponse:
        number = _number(request, "number")
        place = await self._ask(lambda: self._index.place(number))
        if place is None:
            raise Missing(f"there is no trajectory {number}")
        path, offset, length = place
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        response.content_length = length
        await response.prepare(request)
        # In blocks: a line may be as long as `MAX_LINE_BYTES`.
        for start in range(0, length, 1 << 20):
            block = await self._ask(lambda at=start: _block(path, offset + at, min(1 << 20, length - at)))  # type: ignore[misc]
            await response.write(block)
        await response.write_eof()
        return response

    async def _image(self, request: web.Request) -> web.StreamResponse:
        run, sha256 = _number(request, "run"), request.match_info["sha256"]
        folder = await self._ask(lambda: self._index.run_folder(run))
        if folder is None or not _IMAGE.fullmatch(sha256):
            raise Missing("there is no such image")
        path = folder / "images" / f"{sha256}.png"
        if not await self._ask(path.is_file):
            raise Missing(f"image {sha256} is gone")
        # Named by its hash, an image never changes.
        headers = {"Content-Type": "image/png", "Cache-Control": "private, max-age=86400, immutable"}
        return web.FileResponse(path, headers=headers)

    async def _export_list(self, request: web.Request) -> web.Response:
        run, query = _number(request, "run"), Query.from_fields(request.query)
        content = await self._ask(lambda: export.of_query(self._index, run, query))
        return _download(content, f"run-{run}.html")

    async def _export_one(self, request: web.Request) -> web.Response:
        number, whole_group = _number(request, "number"), request.query.get("group") == "1"
        content = await self._ask(lambda: export.of_trajectory(self._index, number, whole_group=whole_group))
        return _download(content, f"trajectory-{number}.html")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the number of the newest row, whenever there is a newer one."""
        if self._listeners >= MOST_LISTENERS:
            raise web.HTTPServiceUnavailable(text="too many pages follow the run at once\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self._listeners += 1
        try:
            while True:
                changed = self._changed  # taken before the number is asked for, so that no row falls between
                newest = await self._ask(self._index.newest_id)
                await response.write(f"data: {json.dumps({'newest': newest})}\n\n".encode())
                while not changed.is_set():
                    try:
                        await asyncio.wait_for(changed.wait(), HEARTBEAT_SECONDS)
                    except TimeoutError:
                        await response.write(b": still here\n\n")
        except ConnectionError:
            return response
        finally:
            self._listeners -= 1

    async def _static(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in _STATIC:
            raise Missing("there is no such file")
        return web.Response(body=(pages.STATIC / name).read_bytes(), content_type=_STATIC[name], charset="utf-8")


def _block(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(length)


def _page(html: str, status: int = 200) -> web.Response:
    return web.Response(body=html.encode("utf-8", "replace"), status=status, content_type="text/html", charset="utf-8")


def _download(html: str, name: str) -> web.Response:
    response = _page(html)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["Content-Security-Policy"] = export.POLICY
    return response


def _number(request: web.Request, name: str) -> int:
    return int(request.match_info[name])


def _field(request: web.Request, name: str, default: int) -> int:
    value = request.query.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else default


@contextlib.asynccontextmanager
async def listening(index: Index, token: str | None, host: str, port: int) -> AsyncIterator[str]:
    """Serve for as long as the block lasts; yields the address to open.

    Raises:
        OSError: the address cannot be listened on.
    """
    runner = web.AppRunner(
        Viewer(index, token).application(), handler_cancellation=True, shutdown_timeout=1.0, access_log=None
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, reuse_address=True).start()
        bound = runner.addresses[0][1]
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        address = f"http://{f'[{shown}]' if ':' in shown else shown}:{bound}/"
        yield address if token is None else f"{address}?token={token}"
    finally:
        await runner.cleanup()
