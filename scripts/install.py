"""Makes the Python environment of this checkout: `python3 scripts/install.py`, or `make setup`.

Needs Python 3.11 or 3.12 and pip's package index, nothing else. It is idempotent: a finished environment is recognised
by the hash of everything it was made from and left alone; anything else is completed or made again, and flash-attn is
tried again where no source of it worked. The CPU build of torch comes from PyTorch's own index where that answers, else
from wherever pip is configured to look; flash-attn as a prebuilt wheel where there is one, else it is built.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
TORCHVISION_OPS = ROOT / "codedance_verl" / "verl_compat" / "torchvision_ops.py"
TORCHVISION_MODULE = "codedance_torchvision_ops"
STAMP = ".codedance-install"

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
FLASH_ATTENTION_INDEX = "https://wheels.astral.sh/simple/{channel}/"
"""Prebuilt wheels by CUDA version (`cu130`), of Astral; each is built for one minor version of torch."""
FLASH_ATTENTION_CURE = (
    "actor_rollout_ref.model.override_config.attn_implementation=sdpa actor_rollout_ref.model.use_remove_padding=false"
)
"""What has RL training do without flash-attn; `codedance_verl/preflight/attention.py` says the same."""
FLASH_ATTENTION_CURE_SFT = "model.override_config.attn_implementation=sdpa model.use_remove_padding=false"
PROBE_SECONDS = 5
INSTALL_SECONDS = 3600
FLASH_ATTENTION_SECONDS = 4 * 3600
CHECK_SECONDS = 300
PROGRESS_SECONDS = 10

LOCKS = {"cpu": ("cpu",), "gpu": ("gpu",), "cpu-gpu-versions": ("cpu", "cpu-gpu-versions")}
"""Lock files of each kind of environment, besides `dev.txt`; a pin of a later one takes the place of an earlier one."""

INSTALL = ("install", "--no-deps", "--no-compile")

TORCH_PACKAGES = ("torch", "torchvision")
BUILT_LAST = "flash-attn"


class InstallError(Exception):
    """One line that names cause and cure."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the Python environment of this checkout.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the environment")
    parser.add_argument("--hardware", choices=("auto", *LOCKS), default="auto", help="which lock to install")
    parser.add_argument("--no-flash-attn", action="store_true", help="skip flash-attn, whose build may take an hour")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        if not (3, 11) <= sys.version_info[:2] <= (3, 12):
            raise InstallError(
                f"Python {sys.version.split()[0]} at {sys.executable}: 3.11 or 3.12 is needed; "
                "call `make PYTHON=/path/to/python3.11 ...`"
            )
        hardware = detect_hardware() if options.hardware == "auto" else options.hardware
        made = make_environment(options.venv.resolve(), hardware, with_flash_attention=not options.no_flash_attn)
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except subprocess.TimeoutExpired as error:
        command = " ".join(map(str, error.cmd))
        print(f"error: `{command}` did not end in {error.timeout:.0f} s; try again", file=sys.stderr)
        return 2
    if made:
        print(f"{options.venv} is ready ({hardware}, {time.monotonic() - started:.0f} s)")
    return 0


def detect_hardware() -> str:
    """`gpu` where the NVIDIA driver lists one, else `cpu`."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return "cpu"
    try:
        listed = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return "cpu"
    return "gpu" if listed.returncode == 0 and "GPU" in listed.stdout else "cpu"


def make_environment(folder: Path, hardware: str, *, with_flash_attention: bool) -> bool:
    """Makes or completes the environment in `folder`; False when it was complete already."""
    locks = [REQUIREMENTS / f"{name}.txt" for name in LOCKS[hardware]]
    wanted = fingerprint([*locks, REQUIREMENTS / "dev.txt", ROOT / "pyproject.toml", TORCHVISION_OPS, Path(__file__)])
    locked = {name: version for lock in locks for name, version in read_pins(lock).items()}
    pins = locked | read_pins(REQUIREMENTS / "dev.txt")
    pinned = pins.pop(BUILT_LAST, None)
    built_last = pinned if with_flash_attention else None
    stamp, whole = folder / STAMP, f"{wanted} {BUILT_LAST}"
    enough = (whole,) if built_last is not None else (whole, wanted)
    if stamp.is_file() and stamp.read_text() in enough and (folder / "bin" / "python").exists():
        return False
    stamp.unlink(missing_ok=True)
    python = create_venv(folder)
    if hardware != "gpu":
        install_libnuma()
        install_cpu_torch(python, pins)
    install(python, pins)
    compile_bytecode(python)
    if hardware != "gpu":
        declare_torchvision_operators(python)
    pip(python, ["install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
    built = built_last is not None and install_flash_attention(python, built_last, locked)
    check_imports(python)
    stamp.write_text(whole if built else wanted)
    return True


def fingerprint(files: Sequence[Path]) -> str:
    """Hash of everything the environment is made from, the Python version and the place of the checkout included."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def read_pins(file: Path) -> dict[str, str]:
    """Version of each package of a lock file (`name==version` lines and comments)."""
    lines = (line.split("#")[0].strip() for line in file.read_text().splitlines())
    return dict(line.split("==", 1) for line in lines if line)


def create_venv(folder: Path) -> Path:
    """The environment's python; one of another Python version is replaced."""
    python = folder / "bin" / "python"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python.exists() and not (folder / "lib" / f"python{version}" / "site-packages" / "pip").is_dir():
        print(f"{folder} is of another Python version or incomplete; making it again")
        shutil.rmtree(folder)
    if not python.exists():
        print(f"making {folder} with Python {sys.version.split()[0]}")
        try:
            venv.create(folder, with_pip=True)
        except (subprocess.CalledProcessError, OSError) as error:
            raise InstallError(
                f"{folder}: the environment cannot be made ({error}); on Debian or Ubuntu install python{version}-venv"
            ) from error
    return python


def install_libnuma() -> None:
    """vLLM's CPU kernels link against libnuma; as root on Debian or Ubuntu it is installed where missing."""
    try:
        ctypes.CDLL("libnuma.so.1")
        return
    except OSError:
        pass
    cure = "install it (Debian, Ubuntu: apt-get install libnuma1; Fedora: dnf install numactl-libs)"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise InstallError(f"libnuma.so.1 is missing, vLLM needs it on a CPU; {cure}")
    print("installing libnuma1")
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-remove", "libnuma1"]):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False)
    if done.returncode != 0:
        raise InstallError(f"libnuma.so.1 is missing and `apt-get install libnuma1` failed; {cure}")


def install_cpu_torch(python: Path, pins: dict[str, str]) -> None:
    """Installs torch and torchvision from PyTorch's CPU index if it answers, else from where pip is configured to look.

    It comes first, so that a machine which can have neither learns it at once.
    """
    wanted = {name: pins.pop(name) for name in TORCH_PACKAGES}
    if answers(f"{CPU_INDEX}/torch/"):
        builds = [f"{name}=={version.removesuffix('+cpu')}+cpu" for name, version in wanted.items()]
        if pip(python, [*INSTALL, "--index-url", CPU_INDEX, *builds], check=False) == 0:
            return
        print("PyTorch's CPU index has no fitting build; looking where pip is configured to look")
    else:
        print("PyTorch's CPU index does not answer; looking where pip is configured to look")
    builds = [f"{name}=={version}" for name, version in wanted.items()]
    if pip(python, [*INSTALL, *builds], check=False) != 0:
        raise InstallError(
            f"torch {wanted['torch']} for Python {sys.version_info.major}.{sys.version_info.minor} is neither at "
            f"{CPU_INDEX} nor where pip looks (`pip config list`); make one of them reachable, or give pip the wheel "
            "through PIP_FIND_LINKS"
        )


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):  # a proxy may answer with anything
        return False


def install(python: Path, pins: dict[str, str]) -> None:
    """Installs exactly these versions and none of what they ask for beyond them."""
    print(f"installing {len(pins)} packages")
    requirements = [f"{name}=={version}" for name, version in pins.items()]
    pip(python, [*INSTALL, "--prefer-binary", *requirements])


def compile_bytecode(python: Path) -> None:
    """Compiles what was installed on all cores; pip would use one. Files that are no Python of today do not matter."""
    print("compiling")
    command = [python, "-m", "compileall", "-q", "-j", "0", site_packages(python)]
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=INSTALL_SECONDS, check=False)


def declare_torchvision_operators(python: Path) -> None:
    """Installs `verl_compat/torchvision_ops.py` as a start-up module where torchvision's binary cannot load."""
    site = site_packages(python)
    module, hook = site / f"{TORCHVISION_MODULE}.py", site / f"{TORCHVISION_MODULE}.pth"
    without_hooks = ["-S", "-c", f"import sys; sys.path.append({str(site)!r}); import torchvision"]
    if "operator torchvision::nms does not exist" in errors_of([python, *without_hooks]):
        shutil.copyfile(TORCHVISION_OPS, module)
        hook.write_text(f"import {TORCHVISION_MODULE}\n")
    else:
        hook.unlink(missing_ok=True)
        module.unlink(missing_ok=True)


def install_flash_attention(python: Path, version: str, pins: dict[str, str]) -> bool:
    """Tries every source; true if it can be imported then. Training works without it, slower: failure is no error.

    Args:
        python: of the environment, in which everything else is installed.
        version: the one of the lock.
        pins: the lock, whose versions of torch and CUDA choose the wheel.
    """
    for arguments in flash_attention_sources(version, pins):
        if pip(python, arguments, check=False, timeout_s=FLASH_ATTENTION_SECONDS) != 0:
            continue
        if not (errors := errors_of([python, "-c", "import flash_attn"])):
            return True
        print(f"  it cannot be imported: {errors.splitlines()[-1]}")
        pip(python, ["uninstall", "--yes", BUILT_LAST], check=False)
    print(
        f"warning: {BUILT_LAST} could not be installed: no prebuilt wheel, and building it needs nvcc of the CUDA "
        f"toolkit; train without it with {FLASH_ATTENTION_CURE} (SFT: {FLASH_ATTENTION_CURE_SFT}); --no-flash-attn "
        "leaves it out next time"
    )
    return False


def flash_attention_sources(version: str, pins: dict[str, str]) -> Iterator[list[str]]:
    """Arguments of pip, one attempt each: prebuilt wheels first, then what the package index has, which is built.

    A wheel's local version names CUDA and torch. It is asked for in full: with --no-deps pip would take the wheel of
    the newest torch. `.post1` is the same release, packed again.
    """
    cuda, torch = (".".join(pins[name].split(".")[:2]) for name in ("nvidia-cuda-runtime", "torch"))
    index = FLASH_ATTENTION_INDEX.format(channel=f"cu{cuda.replace('.', '')}")
    if answers(f"{index}{BUILT_LAST}/"):
        for release in (version, f"{version}.post1"):
            wheel = f"{BUILT_LAST}=={release}+cu.{cuda}.torch.{torch}"
            print(f"installing {wheel} from {index}")
            yield [*INSTALL, "--only-binary", ":all:", "--index-url", index, wheel]
    else:
        print(f"{index} does not answer")
    print(f"installing {BUILT_LAST} {version}; without a fitting wheel it is built, which may take an hour")
    yield ["install", "--no-deps", "--no-build-isolation", f"{BUILT_LAST}=={version}"]


def check_imports(python: Path) -> None:
    print("checking that torch, torchvision, vLLM and verl can be imported")
    if errors := errors_of([python, "-c", "import torch, torchvision, vllm, verl"]):
        raise InstallError(
            f"the environment does not work: {errors.splitlines()[-1]}; delete {python.parent.parent} and try again"
        )


def errors_of(command: Sequence[str | Path]) -> str:
    """Standard error of a command that failed; else an empty text."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False)
    return done.stderr.strip() or "no message" if done.returncode else ""


def site_packages(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip())


def pip(python: Path, arguments: list[str], *, check: bool = True, timeout_s: float = INSTALL_SECONDS) -> int:
    """Runs pip of the environment, showing how far it is; its whole output is in `pip.log` of the environment.

    Raises:
        InstallError: pip failed and `check` is set.
    """
    log_path = python.parent.parent / "pip.log"
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    deadline = time.monotonic() + timeout_s
    with log_path.open("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            [*command, "--progress-bar", "off"],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},  # so that the log shows how far it is
        )
        next_report = time.monotonic() + PROGRESS_SECONDS
        while process.poll() is None:
            time.sleep(0.2)
            if time.monotonic() > deadline:
                process.kill()
            if time.monotonic() > next_report:
                next_report += PROGRESS_SECONDS
                print(f"  {describe_progress(log_path)}", flush=True)
    if process.returncode != 0:
        errors = [
            line for line in log_path.read_text(errors="replace").splitlines() if line.upper().startswith("ERROR")
        ]
        print("\n".join(f"  {line}" for line in errors[:5]) or f"  pip failed, see {log_path}")
        if check:
            raise InstallError(f"`pip {' '.join(arguments[:3])} ...` failed; its output is in {log_path}")
    return process.returncode


def describe_progress(log_path: Path) -> str:
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    collected = sum(line.startswith("Collecting ") for line in lines)
    if any(line.startswith("Installing collected packages") for line in lines):
        return f"installing {collected} packages"
    return f"{collected} packages collected"


if __name__ == "__main__":
    sys.exit(main())
