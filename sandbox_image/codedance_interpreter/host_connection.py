"""Connections from the container outward to the host, and the options of an interpreter."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from . import wire
from .wire import Message

CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class InterpreterOptions:
    """Options of an interpreter, as its command line has them.

    `socket_path` is the host's socket and `name` the name by which the host addresses this interpreter.
    `own_uids` is true in a container, where PID 1 is root and every session gets a uid. `root` holds the sessions'
    working directories. `preload` names the set of libraries imported before sessions are forked: each costs every cell
    a little, since a fork copies what they have mapped, and spares the session that uses it the import. `niceness` is
    that of the processes that run cells.
    """

    socket_path: str
    name: str
    root: str
    own_uids: bool
    preload: str
    niceness: int


def connect(options: InterpreterOptions, hello: Message) -> socket.socket:
    """Opens a connection outward to the host and introduces it."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(CONNECT_SECONDS)
    peer.connect(options.socket_path)
    peer.settimeout(None)
    wire.send(peer, {"op": "hello", "version": wire.VERSION, "name": options.name, **hello})
    return peer
