"""SandboxFusion: named among the contenders, with the reason why it is not measured."""

from __future__ import annotations

from benchmarks.sandbox_bench.contender import Contender
from benchmarks.sandbox_peers.answers import Unavailable

REASON = (
    "not installable from a package index: the package sandbox-fusion holds the client only; the server comes as a "
    "container image, or as a checkout with conda and poetry environments"
)


def contender() -> Contender:
    raise Unavailable(REASON)
