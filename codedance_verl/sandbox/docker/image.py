"""Builds the sandbox image from the folder `sandbox_image/`, tagged by a hash of its contents."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from docker import DockerClient
from docker.errors import APIError, BuildError, DockerException, ImageNotFound

import sandbox_image
from codedance_verl.errors import UserError
from codedance_verl.sandbox.docker import engine

REPOSITORY = "codedance-sandbox"
BASE_REPOSITORY = "codedance-base"
REGISTRY_BASE = "python:3.11-slim"
REGISTRY_SECONDS = 8
BASE_SECONDS = 300
_BUILD_ENVIRONMENT = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
_INGREDIENTS = ("Dockerfile", "requirements.txt", "requirements-fonts.txt", "make_fonts.py", "rebase.c")
_STEP_PREFIXES = ("Step ", "Successfully ", "ERROR")

Progress = Callable[[str], None]


def image_folder() -> Path:
    """Returns the folder `sandbox_image/`, of the checkout or as the wheel has installed it."""
    return Path(sandbox_image.__file__).resolve().parent


def seccomp_profile() -> str:
    """Returns the allowed system calls as JSON text in the engine's format; it is no part of the image."""
    return json.dumps(json.loads((image_folder() / "seccomp.json").read_text(encoding="ascii")))


def content_hash(folder: Path) -> str:
    """Returns the first 12 hex digits of a SHA-256 over names and contents of the files that make the image."""
    digest = hashlib.sha256()
    files = [folder / name for name in _INGREDIENTS]
    # The seccomp profile is left out: it is given at each start and is no part of the image.
    files += (folder / "codedance_interpreter").glob("*.py")
    for path in sorted(files):
        data = path.read_bytes()
        # Name and length first: else bytes moved from one file to the next would give the same hash.
        digest.update(f"{path.relative_to(folder)}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:12]


def image_tag(setting: str = "auto") -> str:
    """Returns the tag that a configuration means: `auto` is that of this checkout."""
    return f"{REPOSITORY}:{content_hash(image_folder())}" if setting == "auto" else setting


def has_image(client: DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True


def require_image(client: DockerClient, setting: str) -> str:
    """Returns the tag of an image that exists. Raises `UserError` when it must be built first."""
    tag = image_tag(setting)
    if not has_image(client, tag):
        cure = "pull or build it, or set sandbox.image=auto"
        if setting == "auto":
            cure = "run `codedance sandbox build`, or on a cluster `codedance cluster prepare`"
        raise UserError(f"the sandbox image {tag} is not there; {cure}")
    return tag


def build_image(client: DockerClient, progress: Progress = print) -> str:
    """Builds the image unless it exists already. Returns its tag.

    The base is `python:3.11-slim` where it is at hand or its registry answers, else one made from this machine's own
    Debian packages. Raises `UserError` when neither can be had or a step fails.
    """
    tag = image_tag()
    if has_image(client, tag):
        progress(f"{tag} is up to date")
        return tag
    base = _base_image(client, progress)
    progress(f"building {tag} from {base} ...")
    _build(client, tag, base, progress)
    progress(f"{tag} is ready")
    return tag


def _base_image(client: DockerClient, progress: Progress) -> str:
    if has_image(client, REGISTRY_BASE):
        return REGISTRY_BASE
    if _registry_answers():
        progress(f"pulling {REGISTRY_BASE} ...")
        try:
            client.images.pull(REGISTRY_BASE)
            return REGISTRY_BASE
        except DockerException as error:
            progress(f"pulling failed ({error}); making a base image here instead")
    return _local_base(client, progress)


def _registry_answers() -> bool:
    # Behind a firewall the usual timeout, a minute, would pass first.
    client = engine.connect(timeout_s=REGISTRY_SECONDS)
    if client is None:
        return False
    with contextlib.closing(client), contextlib.suppress(DockerException, OSError):
        client.images.get_registry_data(REGISTRY_BASE)
        return True
    return False


def _local_base(client: DockerClient, progress: Progress) -> str:
    script = image_folder() / "make_base.sh"
    tag = f"{BASE_REPOSITORY}:{hashlib.sha256(script.read_bytes()).hexdigest()[:12]}"
    if has_image(client, tag):
        return tag
    if shutil.which("mmdebstrap") is None:
        engine.install_packages()
    progress(f"no registry answers: making the base image {tag} from Debian packages ...")
    try:
        done = subprocess.run([str(script), tag], capture_output=True, text=True, timeout=BASE_SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(f"making a base image took more than {BASE_SECONDS} s; see `{script} {tag}`") from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"no base image: no registry has {REGISTRY_BASE} and `{script} {tag}` failed ({reason}); "
            f"load {REGISTRY_BASE} with `docker load`, or set sandbox.backend=process"
        )
    return tag


def _build(client: DockerClient, tag: str, base: str, progress: Progress) -> None:
    arguments = {name: os.environ[name] for name in _BUILD_ENVIRONMENT if os.environ.get(name)}
    lines: list[str] = []
    try:
        events = client.api.build(
            path=str(image_folder()),
            tag=tag,
            buildargs={**arguments, "BASE_IMAGE": base},
            labels={"io.codedance.image": "1"},
            network_mode="host",
            rm=True,
            forcerm=True,
            decode=True,
        )
        for event in events:
            # The engine reports a failed step as an event of a stream that succeeds.
            if "error" in event:
                raise BuildError(event["error"], iter(()))
            line = str(event.get("stream", "")).strip()
            lines.append(line)
            if line.startswith(_STEP_PREFIXES):
                progress("  " + line.splitlines()[0])
    except (APIError, BuildError) as error:
        causes = [line for line in lines if "ERROR" in line][-2:]
        raise UserError(f"building {tag} failed: {' | '.join([*causes, str(error)])[:600]}") from None


def remove_outdated(client: DockerClient) -> list[str]:
    """Removes the tags of earlier states of the folder but those that containers still use. Returns those removed."""
    current = image_tag()
    removed = []
    for image in client.images.list(name=REPOSITORY):
        for tag in image.tags:
            if tag != current:
                # A container still uses it.
                with contextlib.suppress(APIError):
                    client.images.remove(tag)
                    removed.append(tag)
    return removed
