"""Directory of the nodes that serve a job, written once by the process that starts them, in pages of a few nodes.

A client reads whether its own node serves, and one page where it needs others: what it reads does not grow with the
cluster. Ray's list of named actors has every actor of every job, and would go to each client whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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

    def publish(self, node_ids: Sequence[str]) -> None:
        """Writes the directory; the number of its pages comes last, so that a reader finds it whole or not at all."""
        pages = -(-len(node_ids) // PAGE_NODES)  # rounded up
        for page in range(pages):
            # Every `pages`-th id, so that pages differ by one at most.
            self._store.put(self._key(f"page/{page}"), json.dumps(node_ids[page::pages]).encode())
        for node_id in node_ids:
            self._store.put(self._key(f"node/{node_id}"), b"1")
        self._store.put(self._key("pages"), str(pages).encode())

    def pages(self) -> int:
        """Returns the number of pages; 0 where nobody has published."""
        return int(self._store.get(self._key("pages")) or 0)

    def page(self, number: int) -> list[str]:
        """Returns the ids of the nodes of a page; pages differ by one node at most."""
        return list(json.loads(self._store.get(self._key(f"page/{number}")) or b"[]"))

    def has(self, node_id: str) -> bool:
        """Returns true for a node of the directory."""
        return self._store.get(self._key(f"node/{node_id}")) is not None

    def all(self) -> list[str]:
        """Returns the ids of all nodes: for the one process that asks them all."""
        return [node_id for page in range(self.pages()) for node_id in self.page(page)]

    def remove(self) -> None:
        """Removes what was published."""
        self._store.delete_below(self._key(""))

    def _key(self, rest: str) -> str:
        return f"{self._name}/{rest}"
