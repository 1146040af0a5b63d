"""Command `codedance sandbox`: build the image, run cells, see and remove containers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from docker import DockerClient
from rich.console import Console

from codedance_verl.config.files import checkout
from codedance_verl.errors import UserError
from codedance_verl.sandbox.config import BACKENDS, SandboxConfig
from codedance_verl.sandbox.docker import engine, image, reaper
from codedance_verl.sandbox.errors import SandboxError
from codedance_verl.types import Execution

sandbox_app = typer.Typer(help="The interpreters in which model-written code runs.", no_args_is_help=True)


@sandbox_app.command()
def build() -> None:
    """Builds the sandbox image unless it is up to date. Starts an engine where there is none and root may."""
    with _engine(may_start=True) as client:
        image.build_image(client, lambda line: print(line, flush=True))


@sandbox_app.command()
def clean(
    everything: Annotated[bool, typer.Option("--all", help="also containers whose owner still runs")] = False,
    images: Annotated[bool, typer.Option("--images", help="also images of earlier states of sandbox_image/")] = False,
) -> None:
    """Removes the containers and temporary folders that dead runs have left."""
    with _engine() as client:
        for name in reaper.remove_orphans(client, everything):
            print(f"removed container {name}")
        for tag in image.remove_outdated(client) if images else []:
            print(f"removed image {tag}")
    reaper.remove_dead_directories()


@sandbox_app.command()
def ps() -> None:
    """Lists the project's containers with their state and owner."""
    with _engine() as client:
        for container in reaper.list_containers(client):
            owner = reaper.owner_of(container)
            whose = "unknown owner" if owner is None else f"owner {owner.pid} {'dead' if owner.is_dead() else 'alive'}"
            print(f"{container.name}  {container.status}  {whose}")


@sandbox_app.command()
def run(
    files: Annotated[list[Path], typer.Argument(help="Python files, one cell each, run in one session")],
    input_images: Annotated[
        list[Path] | None, typer.Option("--image", help="image offered in input_images, repeatable")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON line per cell")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", help="run time of one cell, seconds")] = 15.0,
    backend: Annotated[str, typer.Option(help=" | ".join(BACKENDS))] = "auto",
    output: Annotated[Path, typer.Option(help="folder for the images that come back")] = Path("sandbox_images"),
) -> None:
    """Runs files as cells of one session, and prints what each shows; images are stored in a folder by their hash.

    Exits with 0 when every cell ran to its end, with 1 when one did not.
    """
    with _one_line_errors():
        config = SandboxConfig.from_mapping({"backend": backend, "containers": 1, "cell_timeout_s": timeout_s})
        cells = [_read(path) for path in files]
        images = [_read(path) for path in input_images or []]
        executions = asyncio.run(_run_cells(config, [cell.decode("utf-8", "replace") for cell in cells], images))
        for execution in executions:
            stored = _store_images(execution, output)
            print(json.dumps(execution.as_record(stored)) if as_json else _text(execution, stored), flush=True)
    sys.exit(0 if all(execution.succeeded for execution in executions) else 1)


@sandbox_app.command()
def selfcheck(
    attacks: Annotated[bool, typer.Option("--attacks", help="also run every attack of the catalogue")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
    backend: Annotated[str, typer.Option(help=" | ".join(BACKENDS))] = "auto",
    runtime: Annotated[str, typer.Option(help="OCI runtime by the engine's name for it, e.g. runsc")] = "",
) -> None:
    """Checks that the sandbox works here and, with --attacks, that it contains hostile code.

    Exits with 0 when all is as it should be, with 1 when something is not.
    """
    from sandbox_security import selfcheck as check

    with _one_line_errors():
        pids = check.RUNTIME_PIDS if runtime else check.SMALL.pids
        config = check.SMALL.replace(backend=backend, runtime=runtime, pids=pids)
        console = Console(stderr=as_json)
        logging.getLogger("codedance_verl.sandbox").setLevel(logging.ERROR)  # what attacks cause is no news
        with console.status("starting the sandbox") as status:
            report = asyncio.run(check.run(config, attacks, status.update))
        if as_json:
            print(json.dumps(report.as_json()))
        else:
            check.show(report, console)
    sys.exit(0 if report.passed else 1)


@sandbox_app.command()
def bench(
    levels: Annotated[str, typer.Option(help="numbers of concurrent sessions")] = "1,8,64",
    seconds: Annotated[float, typer.Option(help="duration of one measurement")] = 2.0,
    quick: Annotated[bool, typer.Option("--quick", help="a rough idea: levels 1 and 8, half a second each")] = False,
    backend: Annotated[str, typer.Option(help=" | ".join(BACKENDS))] = "docker",
    output: Annotated[Path | None, typer.Option("--json", help="file for all figures")] = None,
) -> None:
    """Measures this machine's pool: opening, first call, a trivial cell, an image, a figure."""
    with _one_line_errors():
        root = checkout()
        if root is None:
            raise UserError("the bench lies in benchmarks/, which the wheel leaves out; run it in a checkout")
        sys.path.append(str(root))  # an editable install finds the packages of the wheel alone
        from benchmarks.sandbox_bench import report
        from benchmarks.sandbox_bench.contender import PoolContender
        from benchmarks.sandbox_bench.loop import Plan, measure_levels, parse_levels

        counts = (1, 8) if quick else parse_levels(levels)
        plan = Plan(seconds=0.5 if quick else seconds)
        config = SandboxConfig.from_mapping({"backend": backend})
        contender = PoolContender(config)
        machine = report.machine_facts()
        found = asyncio.run(measure_levels(contender, counts, plan, lambda line: print(line, file=sys.stderr)))
        Console().print(report.table(contender.name, found))
        for level in (level for level in found if level.incomplete):
            print(f"{level.sessions} sessions, incomplete: {level.incomplete}", file=sys.stderr)
        if output is not None:
            report.write(output, report.document(machine, plan, counts, [report.record(contender, found)]))
    sys.exit(1 if any(level.incomplete for level in found) else 0)


async def _run_cells(config: SandboxConfig, cells: list[str], images: list[bytes]) -> list[Execution]:
    from codedance_verl.sandbox.pool import SandboxPool

    async with SandboxPool.local(config) as pool, pool.session(*images) as session:
        return [await session.run(cell) for cell in cells]


def _store_images(execution: Execution, folder: Path) -> list[dict[str, Any]]:
    stored = []
    for image_file in execution.images:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{image_file.sha256}.png"
        path.write_bytes(image_file.png)
        size = {"width": image_file.width, "height": image_file.height}
        stored.append({"sha256": image_file.sha256, **size, "path": str(path)})
    return stored


def _text(execution: Execution, stored: list[dict[str, Any]]) -> str:
    lines = [f"[{execution.status.value}, {execution.duration_s * 1000:.1f} ms]"]
    lines += [execution.stdout.rstrip("\n")] if execution.stdout else []
    lines += [execution.error.traceback] if execution.error else []
    lines += [f"image {item['width']} x {item['height']}: {item['path']}" for item in stored]
    return "\n".join(lines)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def _engine(may_start: bool = False) -> Iterator[DockerClient]:
    with _one_line_errors(), contextlib.closing(engine.ensure_engine(may_start)) as client:
        yield client


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (UserError, SandboxError) as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
