"""`codedance serve` and `codedance chat`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import mimetypes
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from codedance_verl.errors import UserError

if TYPE_CHECKING:
    from codedance_verl.serving.service import Outcome, Service, StreamListener
    from codedance_verl.serving.settings import Settings

_MODEL_HELP = "a run's folder, a Hugging Face folder, or a name on the Hub"
_OVERRIDES_HELP = "keys of conf/serve.yaml, e.g. environment.max_turns=10 serving.port=8400"


def serve(
    model: Annotated[str, typer.Option(help=_MODEL_HELP)],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help=_OVERRIDES_HELP)] = None,
) -> None:
    """Serves a trained model as OpenAI's chat completions, with the sandbox behind it. Ends with Ctrl-C."""
    settings = _prepare(model, overrides or ())
    api_key = settings.serving.api_key(os.environ)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("codedance_verl").setLevel(logging.INFO)
    with _warm_engine(settings):
        asyncio.run(_serve(settings, api_key))


def chat(
    image: Annotated[Path, typer.Argument(help="image that the question is about")],
    question: Annotated[str, typer.Argument()],
    model: Annotated[str, typer.Option(help=_MODEL_HELP)],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help=_OVERRIDES_HELP)] = None,
    output: Annotated[Path, typer.Option(help="folder for the images that code shows")] = Path("chat_images"),
    temperature: Annotated[float | None, typer.Option(help="0 to 2; serving.temperature by default")] = None,
) -> None:
    """Asks a trained model about an image and prints its thoughts, code and answer. A terminal can ask further."""
    body = _body(image, question, temperature)
    _check_output(output)
    settings = _prepare(model, overrides or (), containers=1, standby_containers=0)
    with _warm_engine(settings):
        asyncio.run(_chat(settings, body, output))


async def _serve(settings: Settings, api_key: str | None) -> None:
    from codedance_verl.serving.server import listening, until_signalled
    from codedance_verl.serving.service import Service

    async with Service.started(settings) as service:
        try:
            async with listening(service, api_key) as url:
                key = f", key in {settings.serving.api_key_env}" if api_key else ", no key"
                print(f"serving {settings.name} at {url}{key}; settings of training: {_origin(settings)}", flush=True)
                await until_signalled()
        except OSError as error:
            where = f"serving.host={settings.serving.host} serving.port={settings.serving.port}"
            raise UserError(f"{where}: cannot be listened on ({error.strerror or error})") from None


async def _chat(settings: Settings, body: dict[str, Any], output: Path) -> None:
    from codedance_verl.serving.console import ConsoleRenderer
    from codedance_verl.serving.replies import content
    from codedance_verl.serving.service import Service

    console = Console(highlight=False)
    async with contextlib.AsyncExitStack() as resources:
        with Console(stderr=True).status("starting vLLM and the sandbox"):
            service = await resources.enter_async_context(Service.started(settings))
        renderer = ConsoleRenderer(console, output)
        while True:
            outcome = await _answer(service, body, renderer)
            renderer.answered(outcome)
            if not (question := await _next_question(console)):
                return
            # of a turn the client keeps question and answer alone, as any client of the server does
            body["messages"] += [
                {"role": "assistant", "content": content(outcome)},
                {"role": "user", "content": question},
            ]


async def _answer(service: Service, body: dict[str, Any], listener: StreamListener) -> Outcome:
    """Sends a request as a client of the server would."""
    from codedance_verl.serving.errors import RequestError
    from codedance_verl.serving.requests import read_request

    try:
        request = await asyncio.to_thread(
            read_request, json.dumps(body).encode(), service.special_tokens, service.bounds
        )
        return await service.answer(request, listener)
    except RequestError as error:
        raise UserError(error.message) from None


async def _next_question(console: Console) -> str:
    """Returns a line from the terminal; empty at its end, or where there is none."""
    if not sys.stdin.isatty():
        return ""
    console.print("[bold]next question[/] (an empty line ends): ", end="")
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    # a blocking read would stop the event loop, which keeps the sandbox's containers alive
    loop.add_reader(sys.stdin, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline().strip()


def _body(image: Path, question: str, temperature: float | None) -> dict[str, Any]:
    try:
        data = base64.b64encode(image.read_bytes()).decode()
    except OSError as error:
        raise UserError(f"{image}: cannot be read ({error.strerror})") from None
    # the server goes by the content, so a wrong name does no harm
    kind = mimetypes.guess_type(image.name)[0] or "image/png"
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}},
        {"type": "text", "text": question},
    ]
    return {"messages": [{"role": "user", "content": parts}], "temperature": temperature}


def _check_output(folder: Path) -> None:
    """Raises `UserError` where no image can be stored, minutes before the first one comes and makes the folder."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written ({error.strerror}); choose another folder") from None


def _prepare(model: str, overrides: Sequence[str], **sandbox: Any) -> Settings:
    """Loads the settings of the model and sets the environment variables of vLLM; call it before vLLM is imported."""
    from codedance_verl.serving.settings import load

    end_by_signals()
    settings = load(model, overrides, **sandbox)
    settings.set_environment()
    return settings


def _warm_engine(settings: Settings) -> contextlib.AbstractContextManager[None]:
    """Has vLLM's engine process forked from one that imports vLLM while this one does, where the settings say so."""
    from codedance_verl.verl_compat.warm_workers import warm_engine

    return warm_engine(settings.warm_start)


def end_by_signals() -> None:
    """Has SIGTERM end a command as Ctrl-C does, which ends vLLM's processes and the sandbox with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with it ignored
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def _origin(settings: Settings) -> str:
    return str(settings.origin) if settings.origin is not None else "unknown, those of conf/serve.yaml hold"
