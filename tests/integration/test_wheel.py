"""The wheel, installed into an empty environment outside the checkout, in the commands a user types."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from codedance_verl.sandbox.docker.image import image_tag

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("codedance_verl", "conf", "recipes", "requirements", "sandbox_image", "sandbox_security")
FILES = ("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py")
COMMAND_SECONDS = 140
TORCHVISION_HOOK = "codedance_torchvision_ops"
"""Start-up module that `scripts/install.py` may have put into the running environment."""


@dataclass(frozen=True)
class Installed:
    """An environment that has the wheel, and an empty folder to call its commands in."""

    environment: Path
    folder: Path

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run("python", *arguments)

    def codedance(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run("codedance", *arguments)

    def _run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [self.environment / "bin" / command, *arguments],
            cwd=self.folder,
            env=variables,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        print("\n".join((done.stdout + done.stderr).splitlines()[-40:]))
        return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel built from a source distribution, which checks both, and of a copy, which keeps the checkout clean."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    for name in FOLDERS:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(REPOSITORY / name, source / name)
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=COMMAND_SECONDS)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, str(unpacked)], check=True, capture_output=True, timeout=COMMAND_SECONDS)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Environment with the wheel and the third-party packages of the running one, but not its editable checkout."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install"]
    pip += ["--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True, timeout=COMMAND_SECONDS)
    # A folder that a .pth file names is searched for modules, and its own .pth files are not read.
    lines = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    if find_spec(TORCHVISION_HOOK) is not None:
        lines[f"import {TORCHVISION_HOOK}"] = None
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "third_party.pth").write_text("\n".join(lines) + "\n")
    return Installed(environment, tmp_path_factory.mktemp("elsewhere"))


def test_the_wheel_holds_what_the_checkout_has(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("conf", "codedance_verl/conf"), ("sandbox_image", "sandbox_image")):
        paths = (path for path in (REPOSITORY / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")
        wanted = {f"{inside}/{path.relative_to(REPOSITORY / folder).as_posix()}" for path in paths}
        assert wanted and wanted <= held, sorted(wanted - held)
    assert not [name for name in held if name.endswith(".pyc") or name.startswith(("tests", "benchmarks"))]


def test_what_an_earlier_build_left_is_not_in_the_wheel(wheel: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(next((wheel.parent / "unpacked").iterdir()), source)
    left = source / "build" / "lib" / "codedance_verl" / "deleted.py"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([*pip, str(source)], check=True, capture_output=True, timeout=COMMAND_SECONDS)
    (built,) = tmp_path.glob("*.whl")
    assert set(zipfile.ZipFile(built).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_the_package_is_the_installed_one_and_its_image_that_of_the_checkout(installed: Installed) -> None:
    code = (
        "import codedance_verl, recipes, sandbox_image, sandbox_security; "
        "from codedance_verl.sandbox.docker.image import image_tag; "
        "print(codedance_verl.__file__, recipes.__file__, sandbox_image.__file__, sandbox_security.__file__); "
        "print(image_tag())"
    )
    files, tag = installed.python("-c", code).stdout.splitlines()
    assert all(Path(file).is_relative_to(installed.environment) for file in files.split())
    assert tag == image_tag()


def test_the_doctor(installed: Installed) -> None:
    done = installed.codedance("doctor")
    assert "verl plugin" in done.stdout and "as locked" in done.stdout
    assert "make setup" not in done.stdout  # there is no Makefile
    assert done.returncode == 0


def test_data_and_a_dry_run(installed: Installed, tmp_path: Path) -> None:
    data = tmp_path / "data"
    sizes = ("--sft", "4", "--rl-train", "32", "--rl-val", "4", "--test", "4", "--blank", "0")
    assert installed.codedance("data", "make", "--out", str(data), *sizes).returncode == 0
    build = ("-m", "recipes.cpu_demo.tiny_model", "--data", str(data / "sft.parquet"), "--out", str(tmp_path / "tiny"))
    assert installed.python(*build).returncode == 0
    done = installed.python(
        "-m",
        "codedance_verl.train",
        "recipe=cpu_demo",
        "dry_run=true",
        "sandbox.backend=process",
        f"run_dir={tmp_path / 'run'}",
        f"data.train_files={data / 'rl_train.parquet'}",
        f"data.val_files={data / 'rl_val.parquet'}",
        f"actor_rollout_ref.model.path={tmp_path / 'tiny'}",
    )
    assert done.returncode == 0
    assert (tmp_path / "run" / "dry_run" / "config.yaml").is_file()


@pytest.mark.parametrize("backend", ["process", pytest.param("docker", marks=pytest.mark.docker)])
def test_a_cell(installed: Installed, backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if backend == "docker":
        request.getfixturevalue("sandbox_image")
    cell = tmp_path / "cell.py"
    cell.write_text("print(6 * 7)\n")
    done = installed.codedance("sandbox", "run", "--backend", backend, str(cell))
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "42"


def test_the_self_check_is_there_and_the_bench_says_where_it_is(installed: Installed) -> None:
    assert "--attacks" in installed.codedance("sandbox", "selfcheck", "--help").stdout
    bench = installed.codedance("sandbox", "bench", "--quick")
    assert bench.returncode == 2
    (line,) = bench.stderr.splitlines()
    assert line.startswith("error: the bench lies in benchmarks/")
