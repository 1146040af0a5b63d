"""Directory of the nodes that serve a job, written once by the process that starts them, in pages of a few nodes.

A client reads whether its own node serves, and one page where it needs others: what it reads does not grow with the
cluster. Ray's list of named actors has every actor of every job, and would go to each client whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol

from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_put

PAGE_NODES = 16
"""Most nodes of a page: a client that needs another node chooses among them."""

_SPACE = "codedance-sandbox"


class Store(Protocol):
    """Keys and values that every process of a cluster sees."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes) -> None: ...

    def delete_below(self, prefix: str) -> None: ...


class RayStore:
    """Ray's own key-value store, in its head's memory.

    Its functions are private in Ray 2.60, which has no public store; an actor would be one more process to start and to
    lose. A Ray that has none cannot import this module.
    """

    def get(self, key: str) -> bytes | None:
        """Returns the value of a key; None without one."""
        value: bytes | None = _internal_kv_get(key, namespace=_SPACE)
        return value

    def put(self, key: str, value: bytes) -> None:
        """Sets the value of a key."""
        _internal_kv_put(key, value, namespace=_SPACE)

    def delete_below(self, prefix: str) -> None:
        """Removes every key that begins with the prefix."""
        _internal_kv_del(prefix, del_by_prefix=True, namespace=_SPACE)


class Directory:
    """The nodes of one job and configuration; `name` is of these two."""

    def __init__(self, name: str, store: Store) -> None:
        self._name = name
        self._store = store

    def publish(self, actors: Mapping[str, int]) -> None:
        """Writes the ids of the nodes, each with its number of node actors.

        The number of pages comes last, so that a reader finds the directory whole or not at all.
        """
        nodes = list(actors.items())
        pages = -(-len(nodes) // PAGE_NODES)  # rounded up
        for page in range(pages):
            # Every `pages`-th node, so that pages differ by one at most.
            self._store.put(self._key(f"page/{page}"), json.dumps(dict(nodes[page::pages])).encode())
        for node_id, number in nodes:
            self._store.put(self._key(f"node/{node_id}"), str(number).encode())
        self._store.put(self._key("pages"), str(pages).encode())

    def pages(self) -> int:
        """Returns the number of pages; 0 where nobody has published."""
        return int(self._store.get(self._key("pages")) or 0)

    def page(self, number: int) -> dict[str, int]:
        """Returns the nodes of a page with their numbers of actors; pages differ by one node at most."""
        return dict(json.loads(self._store.get(self._key(f"page/{number}")) or b"{}"))

    def actors(self, node_id: str) -> int:
        """Returns the number of node actors of a node; 0 where it is not of the directory."""
        return int(self._store.get(self._key(f"node/{node_id}")) or 0)

    def all(self) -> dict[str, int]:
        """Returns all nodes with their numbers of actors: for the one process that asks them all."""
        return {node_id: number for page in range(self.pages()) for node_id, number in self.page(page).items()}

    def remove(self) -> None:
        """Removes what was published."""
        self._store.delete_below(self._key(""))

    def _key(self, rest: str) -> str:
        return f"{self._name}/{rest}"
