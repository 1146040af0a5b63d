"""Distribution of the sandbox image to every node of a cluster: built once, shipped through Ray, digests compared.

The tag is a hash of `sandbox_image/`; two builds of it may still differ in what the distribution delivered that day. So
one node builds and all others load its image, and every node's digest (the engine's image id, a SHA-256) is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import ray

from codedance_verl.cluster.remote_call import answer, call_on
from codedance_verl.errors import UserError
from codedance_verl.sandbox.docker import engine, image
from codedance_verl.sandbox.placement import RayNode

FIND_SECONDS = 420.0  # an engine may have to be installed and started first
BUILD_SECONDS = 1200.0
SHIP_SECONDS = 1200.0
CHUNK_BYTES = 32 << 20

Progress = Callable[[str], None]


@dataclass(frozen=True)
class NodeEngine:
    """Container engine of a node: its version, and the digest of the image asked for, empty where it has none.

    A node without an engine has a `problem`, which says why.
    """

    node: RayNode
    version: str = ""
    digest: str = ""
    problem: str = ""


def find_image(tag: str, may_start: bool) -> tuple[str, str]:
    """Returns the version of this machine's engine and the digest of its image, empty for none.

    Raises `UserError` where none answers, and none can be started.
    """
    with closing(engine.ensure_engine(may_start)) as client:
        digest = str(client.images.get(tag).id) if image.has_image(client, tag) else ""
        return str(client.version().get("Version", "?")), digest


def build() -> str:
    """Builds the image of this checkout here, unless it is there; returns its digest."""
    with closing(engine.ensure_engine(may_start=True)) as client:
        return str(client.images.get(image.build_image(client, lambda line: None)).id)


def save(tag: str) -> Iterator[bytes]:
    """Yields the image as a tar file, in pieces of at most `CHUNK_BYTES`."""
    with closing(engine.ensure_engine(may_start=False)) as client:
        yield from client.api.get_image(tag, chunk_size=CHUNK_BYTES)


def load(tag: str, pieces: Sequence[Any]) -> str:
    """Loads an image from Ray's references to the pieces of its tar file; returns the digest the tag has then."""
    with closing(engine.ensure_engine(may_start=False)) as client:
        # streamed: an image need not fit into memory
        client.images.load(ray.get(piece) for piece in pieces)  # type: ignore[arg-type]
        return str(client.images.get(tag).id)


def survey(nodes: Sequence[RayNode], tag: str, may_start: bool = False) -> list[NodeEngine]:
    """Returns the engine of each node and its image."""
    asked = [(node, call_on(node, find_image, tag, may_start)) for node in nodes]
    found = []
    for node, reference in asked:
        try:
            found.append(NodeEngine(node, *answer(node, reference, FIND_SECONDS)))
        except UserError as error:
            found.append(NodeEngine(node, problem=str(error).removeprefix(f"node {node.address}: ")))
    return found


def prepare(nodes: Sequence[RayNode], setting: str = "auto", progress: Progress = print) -> list[NodeEngine]:
    """Puts the same image on all nodes with an engine; others are left out and named.

    Args:
        nodes: where interpreters are to run.
        setting: as `sandbox.image`. Only that of this checkout (`auto`) can be built; another must be on one node.
        progress: called with a line for each thing done.

    Raises:
        UserError: no node has an engine, the image cannot be had, or a digest differs in the end.
    """
    tag = image.image_tag(setting)
    found = survey(nodes, tag, may_start=True)
    with_engine = [entry for entry in found if not entry.problem]
    for entry in found:
        if entry.problem:
            progress(f"{entry.node.address}: left out: {entry.problem}")
    if not with_engine:
        raise UserError(f"none of {len(nodes)} nodes has a container engine; {found[0].problem if found else ''}")
    source, digest = _source(with_engine, setting, progress)
    lacking = [  # the source has no digest yet in `found` where the image was built just now
        entry.node for entry in with_engine if entry.digest != digest and entry.node.node_id != source.node_id
    ]
    if lacking:
        _ship(source, lacking, tag, progress)
    # asked again: what counts is the image that each engine has in the end
    return _verified(survey([entry.node for entry in with_engine], tag), tag, digest, progress)


def _source(found: Sequence[NodeEngine], setting: str, progress: Progress) -> tuple[RayNode, str]:
    """Returns the node whose image the others get, and its digest; builds it there if no node has it."""
    for entry in found:
        if entry.digest:
            return entry.node, entry.digest
    node = found[0].node
    if setting != "auto":
        raise UserError(f"sandbox.image={setting}: on none of the nodes; pull or load it on {node.address} first")
    progress(f"{node.address}: building {image.image_tag()} ...")
    return node, answer(node, call_on(node, build), BUILD_SECONDS)


def _ship(source: RayNode, targets: Sequence[RayNode], tag: str, progress: Progress) -> None:
    """Saves the image on one node and loads it on the others, all at the same time, through the object store."""
    progress(f"{source.address}: sending {tag} to {', '.join(node.address for node in targets)} ...")
    pieces = list(call_on(source, save, tag))
    loads = [(node, call_on(node, load, tag, pieces)) for node in targets]
    for node, reference in loads:
        answer(node, reference, SHIP_SECONDS)


def _verified(found: list[NodeEngine], tag: str, digest: str, progress: Progress) -> list[NodeEngine]:
    for entry in found:
        if entry.digest != digest:
            raise UserError(f"node {entry.node.address}: {tag} is {entry.digest or 'missing'}, {digest} on the others")
        progress(f"{entry.node.address}: {tag} {digest}")
    return found
