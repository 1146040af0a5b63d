"""Settings of the interpreter pool (`conf/sandbox/docker.yaml`)."""

from __future__ import annotations

import os
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from codedance_verl.config.node import Allowed, KeyFault, Node, Null, OneOf, bounds

BACKENDS = ("auto", "docker", "process")
MIB = 1024 * 1024
LEAST_FILE_MB = 64
"""`session_file_mb` where it is sized by images that are small, or not known."""

Size = Annotated[int | None, Null("to size it by the images")]


class SandboxConfig(Node):
    """Settings that all interpreters of one node share."""

    KEY: ClassVar[str] = "sandbox"

    backend: Annotated[str, OneOf(BACKENDS)] = "auto"
    """`docker`: hardened containers. `process`: rlimits on the host, no security boundary. `auto`: `docker` where an
    engine answers or can be started, else `process` with a loud notice."""
    runtime: Annotated[str, Allowed("the name of a runtime the engine knows, or empty for its default")] = Field(
        "", pattern=r"^\S*$"
    )
    """OCI runtime of the containers by the engine's name for it, such as `runsc` (gVisor); empty for its default.
    Another one than runc may ignore the seccomp profile in favour of its own isolation."""
    image: Annotated[str, Allowed("auto or the tag of an image")] = Field("auto", pattern=r"\S")
    """Tag of the sandbox image; `auto` is the tag of this checkout's `sandbox_image/` folder."""
    node_resource: Annotated[str, Allowed("the name of a Ray resource, or empty for every node")] = Field(
        "", pattern=r"^\S*$"
    )
    """Custom Ray resource of the nodes that run interpreters; every one of them must be able to. Empty: every node of
    the cluster that can."""
    preload: Literal["light", "full"] = "light"
    """Libraries imported before sessions are forked; a fork copies what they have mapped."""
    containers: int = Field(2, ge=1, le=64)
    """Containers of a node. More survive the loss of one with fewer sessions struck; each holds about 70 MiB."""
    cores_per_actor: int = Field(16, ge=1, le=4096)
    """Cores of a node that one node actor serves; a node with twice as many has two, and so on, among which containers,
    queue and cell slots are divided, rounded up. With too many cores an actor, its one event loop holds cells up; each
    actor takes about 100 MiB, and up to 128 MiB for images."""
    standby_containers: int = Field(1, ge=0, le=64)
    """Containers of a node started and empty, and where one actor serves the node as many in a second one beside it;
    with 0 the loss of a container or an actor takes a start, 2 to 5 s."""
    sessions_per_container: int = Field(128, ge=1, le=4096)
    """Sessions that one container serves at once; further `open` calls queue."""
    queue_length: int = Field(4096, ge=0, le=1 << 20)
    """Calls of `open` that may wait for a place on a node; further ones are refused at once."""
    concurrent_cells: int = Field(0, ge=0, le=4096)
    """Cells that run at the same time on a node, 0 for `max(8, 4 x cores)`. The others queue, so that the time limit
    of a cell is not spent on waiting for a core."""
    on_error: Literal["rollback", "keep"] = "rollback"
    """Variables after a cell that fails: as before it, or as far as it came. After a crash or the time limit they are
    always those from before."""
    cell_timeout_s: float = Field(15.0, ge=0.05, le=3600)
    """Run time of one cell in seconds; at the limit all its processes are killed."""
    kill_grace_s: float = Field(1.0, ge=0.1, le=60)
    """Seconds within which a session must answer that its cell is gone, or it is killed with its variables."""
    queue_timeout_s: float = Field(60.0, ge=0, le=3600)
    """Longest wait for a free session or slot in seconds; then the call is refused."""
    open_timeout_s: float = Field(20.0, ge=0.1, le=600)
    """Longest time from a free place to a session that is ready, in seconds, image loading included."""
    start_timeout_s: float = Field(120.0, ge=1, le=600)
    """Longest time until a fresh container has its libraries imported, in seconds."""
    lease_ttl_s: float = Field(1800.0, ge=1, le=86400)
    """Seconds without a call after which a session is closed, so that a lost client gives its place back."""
    health_interval_s: float = Field(10.0, ge=0.1, le=3600)
    """Seconds between signs of life of a container; it is replaced after it missed two in a row."""
    recycle_sessions: int = Field(20_000, ge=0, le=1 << 30)
    """Sessions after which a container gets no more and is replaced once its last has ended; 0: never."""
    recycle_growth_mb: int = Field(256, ge=0, le=1 << 20)
    """Growth of what a container's own processes hold, in MiB, that leads to the same; 0: never."""
    kept_images_mb: int = Field(64, ge=0, le=1 << 16)
    """Decoded images of a container that no session uses, in MiB, kept for further sessions of their questions; 0 keeps
    none, so that a session which comes when all others of its question have ended decodes its images again."""
    max_code_bytes: int = Field(256 * 1024, ge=1, le=8 * MIB)
    """Longest cell in bytes of UTF-8; a longer one is `rejected` unrun."""
    max_stdout_bytes: int = Field(64 * 1024, ge=256, le=MIB)
    """Text kept of one cell, head and tail; the rest is cut and noted in `Execution.truncated`."""
    max_images: int = Field(8, ge=1, le=64)
    """Images kept of one cell; further ones are dropped and noted."""
    max_image_pixels: int = Field(4_000_000, ge=256, le=50_000_000)
    """Pixels of one image that comes back; a larger one is shrunk and noted."""
    memory_mb: Size = Field(None, ge=512, le=1 << 20)
    """Memory of one container in MiB, all sessions and files together; beyond it the largest session dies. A limit,
    which reserves nothing. Null: sized by the images (`docker/sizing.py`), 4096 at least."""
    session_memory_mb: int = Field(2048, ge=64, le=1 << 20)
    """Address space that one session may add, in MiB; beyond it the code sees `MemoryError`. A run starts only where
    it holds the decoded images of a question, 4 bytes a pixel, and its largest one twice."""
    session_processes: int = Field(32, ge=4, le=4096)
    """Processes and threads of one session, itself included."""
    session_open_files: int = Field(256, ge=32, le=16384)
    """File descriptors of one process."""
    session_file_mb: Size = Field(None, ge=1, le=1 << 16)
    """Largest file of a session in MiB. Null: room for the largest image as PNG, 64 at least."""
    scratch_mb: Size = Field(None, ge=16, le=1 << 18)
    """File space of one container (a tmpfs, which counts as memory) in MiB, all sessions together; once it is used up
    further sessions are refused (`SandboxFull`). Null: sized by the images, 512 at least."""
    cpus: float = Field(0.0, ge=0, le=1024)
    """Cores of one container; 0 for no limit."""
    cpu_weight: int = Field(1024, ge=2, le=1 << 24)
    """Weight of all serving containers of a node together where cores are short. Every other control group at the top
    of the hierarchy has 1,024 by default, and so has every thread that is in none. Too little on a busy node makes
    cells reach their time limit; too much slows training and vLLM beside them."""
    pids: int = Field(1024, ge=16, le=1 << 20)
    """Processes and threads of one container."""

    @model_validator(mode="after")
    def _check_pids(self) -> Self:
        if self.pids < self.session_processes:
            text = f"must be at least sandbox.session_processes ({self.session_processes})"
            raise KeyFault("pids", self.pids, text)
        return self

    @property
    def cell_slots(self) -> int:
        """Cells that run at once on this node."""
        return self.concurrent_cells or max(8, 4 * (os.cpu_count() or 1))

    def session_limits(self) -> dict[str, int]:
        """Bounds of one session as the interpreter takes them (`codedance_interpreter.limits.Limits`)."""
        return {
            "memory_bytes": self.session_memory_mb * MIB,
            "processes": self.session_processes,
            "open_files": self.session_open_files,
            "file_bytes": (self.session_file_mb or LEAST_FILE_MB) * MIB,
            "stdout_bytes": self.max_stdout_bytes,
            "images": self.max_images,
            "image_pixels": self.max_image_pixels,
        }


def highest(name: str) -> int:
    """Largest value of a setting that is a whole number."""
    high: int = bounds(SandboxConfig.model_fields[name])[1]
    return high
