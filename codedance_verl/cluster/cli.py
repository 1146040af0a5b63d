"""`codedance cluster …`: the sandbox image on all nodes, and what the nodes have."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

import typer

from codedance_verl.cluster.connection import connect
from codedance_verl.config.files import checkout
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker.image import image_tag

cluster_app = typer.Typer(help="The Ray cluster that runs here, or at RAY_ADDRESS.", no_args_is_help=True)

Resource = Annotated[
    str, typer.Option("--resource", help="only nodes with this Ray resource, as sandbox.node_resource")
]
Image = Annotated[str, typer.Option("--image", help="tag of the image, as sandbox.image; auto is this checkout's")]


@cluster_app.command()
def prepare(resource: Resource = "", image: Image = "auto") -> None:
    """Have the same sandbox image on every node: built on one, loaded on the others, digests compared."""
    from codedance_verl.cluster import images
    from codedance_verl.sandbox.placement import sandbox_nodes

    config = SandboxConfig(node_resource=resource, image=image)
    with _connected():
        images.prepare(sandbox_nodes(config), config.image, lambda line: print(line, flush=True))


@cluster_app.command()
def status(resource: Resource = "", image: Image = "auto") -> None:
    """List the nodes with their resources, their container engines, and the digest of the sandbox image there."""
    from codedance_verl.cluster import images
    from codedance_verl.sandbox.placement import living_nodes, sandbox_nodes

    config = SandboxConfig(node_resource=resource, image=image)
    with _connected():
        chosen = {node.node_id for node in sandbox_nodes(config)}
        for entry in images.survey(living_nodes(), image_tag(config.image)):
            node = entry.node
            has = ", ".join(f"{name} {amount:g}" for name, amount in sorted(node.resources.items()) if _shown(name))
            role = "interpreters" if node.node_id in chosen else "no interpreters"
            found = entry.problem or f"engine {entry.version}, image {entry.digest or 'missing'}"
            print(f"{node.address}  {role}  {has or 'no resources'}  {found}", flush=True)


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Connects to the cluster; its nodes get this checkout, or have the wheel installed themselves."""
    import ray

    root = checkout()
    connect({"working_dir": str(root)} if root else {})
    try:
        yield
    finally:
        ray.shutdown()


def _shown(resource: str) -> bool:
    """False for the resources that Ray gives every node, and for bytes of memory."""
    return not resource.startswith("node:") and resource not in ("memory", "object_store_memory")
