"""`codedance view`."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codedance_verl.errors import UserError
from codedance_verl.runtime.loopback import is_loopback

if TYPE_CHECKING:
    from codedance_verl.trajectories.index import Index

TOKEN_VARIABLE = "CODEDANCE_VIEW_TOKEN"


def view(
    run: Annotated[Path, typer.Argument(help="a run's folder, a folder of runs, or a trainer.rollout_data_dir")],
    host: Annotated[str, typer.Option(help="address to listen on; another one than loopback asks for a token")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 for any free one")] = 8400,
    cache: Annotated[Path | None, typer.Option(help="folder of the index; ~/.cache/codedance by default")] = None,
    export: Annotated[Path | None, typer.Option(help="write one HTML file and end")] = None,
    where: Annotated[list[str] | None, typer.Option(help="for --export, e.g. outcome=wrong; can be repeated")] = None,
    most: Annotated[int, typer.Option(min=1, max=10_000, help="for --export: trajectories in the file")] = 200,
) -> None:
    """Show what the model did, in a browser, also during the run. Ends with Ctrl-C."""
    from codedance_verl.trajectories.index import Index, cache_folder

    index = Index(run, cache or cache_folder())
    if export is not None:
        _export(index, export, where or [], most)
        return
    token = os.environ.get(TOKEN_VARIABLE) or (None if is_loopback(host) else secrets.token_urlsafe(24))
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_serve(index, token, host, port, run))


def _export(index: Index, target: Path, where: list[str], most: int) -> None:
    from codedance_verl.trajectories.query import RENAMED, Query
    from codedance_verl.viewer.export import of_query

    index.update_fully()
    pairs = [item.partition("=") for item in where]
    known = ", ".join(sorted(Query.__dataclass_fields__))
    for name, equals, _ in pairs:
        if not equals:
            raise UserError(f"--where {name}: must be FIELD=VALUE; fields are {known}")
        if name in RENAMED:
            raise UserError(f"--where {name}: is called {RENAMED[name]} now")
        if name not in Query.__dataclass_fields__:
            raise UserError(f"--where {name}: unknown field; known are {known}")
    query = Query.from_fields({name: value for name, _, value in pairs})
    runs = [known_run for known_run in index.runs() if known_run.count]
    if len(runs) != 1:
        names = ", ".join(known_run.name for known_run in runs)
        raise UserError(f"--export takes one run; name the folder of one of these: {names or 'none has a trajectory'}")
    if not index.find(runs[0].id, query, limit=1).total:
        raise UserError(f"no trajectory of {runs[0].name} matches --where {' '.join(where)}")
    content = of_query(index, runs[0].id, query, most)
    try:
        target.write_text(content, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror})") from None
    print(f"wrote {target} ({len(content) / 2**20:.1f} MiB)")


async def _serve(index: Index, token: str | None, host: str, port: int, run: Path) -> None:
    from codedance_verl.viewer.server import listening

    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        async with listening(index, token, host, port) as address:
            print(f"{run}: open {address}", flush=True)
            await ended.wait()
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot be listened on ({error.strerror or error})") from None
