"""Settings of the interpreter pool, each with its unit, its allowed values and what it changes."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from codedance_verl.errors import UserError

BACKENDS = ("auto", "docker", "process")
PRELOADS = ("light", "full")
ON_ERROR = ("rollback", "keep")
MIB = 1024 * 1024
LEAST_FILE_MB = 64
"""`session_file_mb` where it is sized by images that are small, or not known."""


@dataclass(frozen=True)
class SandboxConfig:
    """Everything that can be set under `sandbox.` in a recipe. The interpreters of one node share these settings.

    backend: `docker` isolates every session in hardened containers and fails where no engine can be had; `process`
        runs the same interpreter on the host under rlimits and is no security boundary; `auto` takes `docker` where an
        engine answers or can be started, else `process` with a loud notice.
    runtime: OCI runtime of the containers by the name the engine knows it by, e.g. `runsc` (gVisor); empty for the
        engine's default. Another one than runc may ignore the seccomp profile in favour of its own isolation.
    image: tag of the sandbox image; `auto` is the tag of this checkout's `sandbox_image/` folder.
    node_resource: custom Ray resource of the nodes that run interpreters, started with e.g.
        `ray start --resources='{"sandbox": 1}'`; every one of them must be able to. Empty: every node of the cluster
        that can, a node without what `backend` needs being left out with a warning.
    preload: libraries imported before sessions are forked. `light`: numpy, Pillow, OpenCV, matplotlib and
        scipy.ndimage. `full`: also scipy's optimize and stats, scikit-image, sympy and pandas, which spares each
        session that uses one up to half a second, and costs every session up to 0.2 s and every cell up to 60 ms,
        since a fork copies what the libraries have mapped.
    containers: containers per node. More survive the loss of one with fewer sessions struck; each holds about 70 MiB.
    spares: containers per node that are started and empty, and the same number in a second actor beside the node's.
        They take over at once when a container or the node's actor is lost; with 0 a loss takes a start, 2 to 5 s.
    sessions_per_container: sessions one container serves at once; with `containers` the capacity of a node. Further
        `open` calls queue.
    queue_length: `open` calls that may wait for a place on a node; further ones are refused at once.
    concurrent_cells: cells that run at the same time on a node, 0 for `max(8, 4 x cores)`. Cells beyond it queue, which
        keeps their own time limit from being spent on waiting for a core.
    on_error: what a cell that fails leaves. `rollback`: nothing, variables are what they were before it. `keep`: what
        it had done until then, as in a notebook. A cell that crashes or runs out of time is always undone. The model
        is told either way.
    cell_timeout_s: run time one cell may take, in seconds; at the limit all its processes are killed.
    kill_grace_s: seconds within which a session must answer that its cell is gone before it is killed as a whole,
        which costs its variables.
    queue_timeout_s: longest wait for a free session or a free slot, in seconds; then the call is refused.
    open_timeout_s: longest time from a free place to a session that is ready, in seconds, image loading included.
    start_timeout_s: longest time until a fresh container has its libraries imported, in seconds.
    lease_ttl_s: seconds without a call after which a session is closed, so that a lost client costs no place for ever.
    health_interval_s: seconds between signs of life of a container; it is replaced after it missed two in a row.
    recycle_sessions: sessions after which a container gets no more and is replaced once its last has ended; 0: never.
    recycle_growth_mb: growth of what a container's own two processes hold, in MiB, that leads to the same; 0: never.
    max_code_bytes: longest cell, in bytes of UTF-8; a longer one is `rejected` unrun.
    max_stdout_bytes: text kept of one cell, head and tail; the rest is cut and noted in `Execution.truncated`.
    max_images: images kept of one cell; further ones are dropped and noted.
    max_image_pixels: pixels of one image that comes back; a larger one is shrunk and noted.
    memory_mb: memory of one container, in MiB, all sessions and files together, 512 to 1,048,576; beyond it the largest
        session dies. None: sized by the images (`sizing.py`), 4096 at least; a limit, which reserves nothing.
    session_memory_mb: address space one session may add, in MiB; beyond it the code sees `MemoryError`. A run starts
        only where it holds the decoded images of a question, 4 bytes a pixel, and its largest one twice.
    session_processes: processes and threads one session may have, itself included.
    session_open_files: file descriptors of one process.
    session_file_mb: largest file a session may write, in MiB, 1 to 65,536. None: room for the largest image as PNG, 64
        at least.
    scratch_mb: file space of one container (a tmpfs that counts as memory), in MiB, all sessions together, 16 to
        262,144; once it is used up, further sessions are refused (`SandboxFull`). None: sized by the images, 512 at
        least.
    cpus: cores one container may use; 0 for no limit.
    cpu_weight: weight of one container where cores are short, 2 to 262,144; the engine gives every other container
        1,024. Low, so that code leaves the cores to training and vLLM beside it and takes those that are idle. It
        counts among what shares the containers' parent control group: where training runs in a container, too.
    pids: processes and threads of one container.
    """

    backend: str = "auto"
    runtime: str = ""
    image: str = "auto"
    node_resource: str = ""
    preload: str = "light"
    containers: int = 2
    spares: int = 1
    sessions_per_container: int = 128
    queue_length: int = 4096
    concurrent_cells: int = 0
    on_error: str = "rollback"
    cell_timeout_s: float = 15.0
    kill_grace_s: float = 1.0
    queue_timeout_s: float = 60.0
    open_timeout_s: float = 20.0
    start_timeout_s: float = 120.0
    lease_ttl_s: float = 1800.0
    health_interval_s: float = 10.0
    recycle_sessions: int = 20_000
    recycle_growth_mb: int = 256
    max_code_bytes: int = 256 * 1024
    max_stdout_bytes: int = 64 * 1024
    max_images: int = 8
    max_image_pixels: int = 4_000_000
    memory_mb: int | None = None
    session_memory_mb: int = 2048
    session_processes: int = 32
    session_open_files: int = 256
    session_file_mb: int | None = None
    scratch_mb: int | None = None
    cpus: float = 0.0
    cpu_weight: int = 64
    pids: int = 1024

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise _error("backend", self.backend, " | ".join(BACKENDS))
        if self.preload not in PRELOADS:
            raise _error("preload", self.preload, " | ".join(PRELOADS))
        if self.on_error not in ON_ERROR:
            raise _error("on_error", self.on_error, " | ".join(ON_ERROR))
        if not isinstance(self.runtime, str) or self.runtime != "".join(self.runtime.split()):
            raise _error("runtime", self.runtime, "the name of a runtime the engine knows, or nothing for its default")
        if not isinstance(self.node_resource, str) or self.node_resource != "".join(self.node_resource.split()):
            raise _error("node_resource", self.node_resource, "the name of a Ray resource, or nothing for every node")
        if not isinstance(self.image, str) or not self.image.strip():
            raise _error("image", self.image, "auto or the tag of an image")
        for name, (low, high) in _RANGES.items():
            self._check_range(name, low, high)
        if self.pids < self.session_processes:
            raise _error("pids", self.pids, f"at least sandbox.session_processes ({self.session_processes})")

    def _check_range(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is None and _DEFAULTS[name] is None:
            return
        kind = float if isinstance(_DEFAULTS[name], float) else int
        fits = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
        if not fits or not math.isfinite(value) or not low <= value <= high:
            number = "an integer" if kind is int else "a number"
            null = ", or null to size it by the images" if _DEFAULTS[name] is None else ""
            raise _error(name, value, f"{number} from {low:g} to {high:g}{null}")

    @property
    def cell_slots(self) -> int:
        """Cells that run at once on this node."""
        return self.concurrent_cells or max(8, 4 * (os.cpu_count() or 1))

    def session_limits(self) -> dict[str, int]:
        """The bounds of one session as the interpreter wants them (`codedance_interpreter.limits.Limits`)."""
        return {
            "memory_bytes": self.session_memory_mb * MIB,
            "processes": self.session_processes,
            "open_files": self.session_open_files,
            "file_bytes": (self.session_file_mb or LEAST_FILE_MB) * MIB,
            "stdout_bytes": self.max_stdout_bytes,
            "images": self.max_images,
            "image_pixels": self.max_image_pixels,
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> SandboxConfig:
        """Build from the `sandbox` node of a resolved configuration. Unknown keys and bad values raise `UserError`."""
        known = {field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise UserError(f"sandbox.{key}: unknown key; known are {', '.join(sorted(known))}")
        return cls(**{str(key): value for key, value in values.items()})


_DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(SandboxConfig)}

_RANGES: dict[str, tuple[float, float]] = {
    "containers": (1, 64),
    "spares": (0, 64),
    "sessions_per_container": (1, 4096),
    "queue_length": (0, 1 << 20),
    "concurrent_cells": (0, 4096),
    "cell_timeout_s": (0.05, 3600),
    "kill_grace_s": (0.1, 60),
    "queue_timeout_s": (0, 3600),
    "open_timeout_s": (0.1, 600),
    "start_timeout_s": (1, 600),
    "lease_ttl_s": (1, 86400),
    "health_interval_s": (0.1, 3600),
    "recycle_sessions": (0, 1 << 30),
    "recycle_growth_mb": (0, 1 << 20),
    "max_code_bytes": (1, 8 * MIB),
    "max_stdout_bytes": (256, 1 * MIB),
    "max_images": (1, 64),
    "max_image_pixels": (256, 50_000_000),
    "memory_mb": (512, 1 << 20),
    "session_memory_mb": (64, 1 << 20),
    "session_processes": (4, 4096),
    "session_open_files": (32, 16384),
    "session_file_mb": (1, 1 << 16),
    "scratch_mb": (16, 1 << 18),
    "cpus": (0, 1024),
    "cpu_weight": (2, 262_144),
    "pids": (16, 1 << 20),
}


def highest(name: str) -> float:
    """The largest value of a setting that is a number."""
    return _RANGES[name][1]


def _error(name: str, value: object, allowed: str) -> UserError:
    return UserError(f"sandbox.{name}={value!r}: got {value!r}, allowed {allowed}")
