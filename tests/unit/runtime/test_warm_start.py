from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from codedance_verl.runtime.fork_server import Request, refusal, split
from codedance_verl.runtime.warm_start import warm_python

MODULE = "colorsys"  # of the standard library, and imported by nothing else here

_LOOK = """
import json, os, signal, sys
print(json.dumps({
    "imported": "colorsys" in sys.modules,
    "arguments": sys.argv,
    "directory": os.getcwd(),
    "given": os.environ.get("GIVEN"),
    "name": __name__,
    "interrupts": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
}))
"""


@pytest.fixture(scope="module")
def python() -> Iterator[Path]:
    with warm_python([MODULE]) as path:
        yield path


def _look(
    python: Path, *command: str, cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> dict[str, object]:
    done = subprocess.run(
        [python, *command], env={**os.environ, **(environ or {})}, cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_process_has_the_modules_and_all_that_it_was_given(python: Path, tmp_path: Path) -> None:
    found = _look(python, "-c", _LOOK, "a", "b c", cwd=tmp_path, environ={"GIVEN": "value"})
    assert found == {
        "imported": True,
        "arguments": ["-c", "a", "b c"],
        "directory": str(tmp_path),
        "given": "value",
        "name": "__main__",
        "interrupts": True,
    }


def test_a_script_finds_the_modules_beside_it(python: Path, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 7\n")
    script = tmp_path / "script.py"
    script.write_text(f"import beside\nassert beside.VALUE == 7\n{_LOOK}")
    found = _look(python, "-u", str(script), "--flag")
    assert found["imported"]
    assert found["arguments"] == [str(script), "--flag"]


def test_a_module_is_run_with_standard_input_and_output(python: Path) -> None:
    done = subprocess.run([python, "-m", "json.tool", "--compact"], input=b"[1,  2]", capture_output=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, b"[1,2]\n")


def test_open_files_keep_their_numbers(python: Path) -> None:
    reading, writing = os.pipe()
    code = "import os, sys; os.write(int(sys.argv[1]), b'through')"
    subprocess.run([python, "-c", code, str(writing)], pass_fds=[writing], check=True, timeout=120)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"through"  # and the process has closed it at its end


def test_it_ends_as_its_process_ends(python: Path) -> None:
    ends = ("import sys; sys.exit(7)", "raise ValueError('reason')", "import os; os.kill(os.getpid(), 9)")
    done = [subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=120) for code in ends]
    assert [each.returncode for each in done] == [7, 1, -signal.SIGKILL]
    assert "ValueError: reason" in done[1].stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_it_ends_the_process(python: Path, number: int) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
    with subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert child != process.pid
        process.send_signal(number)
        assert process.wait(60) == -number
        _wait_for_the_end_of(child)


def test_exit_handlers_run(python: Path) -> None:
    code = "import atexit; atexit.register(print, 'at the end')"
    assert subprocess.run([python, "-c", code], capture_output=True, timeout=120).stdout == b"at the end\n"


def test_multiprocessing_spawns_by_it(python: Path) -> None:
    code = f"""
import multiprocessing, sys
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        print(pool.map(len, ["a", "bc"]), multiprocessing.spawn.get_executable().decode() == {str(python)!r})
"""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[0] == "[1, 2] True", done.stderr


@pytest.mark.parametrize("variable", ["LD_PRELOAD_OF_TEST", "PYTHONHASHSEED", "OMP_PROC_BIND"])
def test_a_variable_that_is_read_at_the_imports_starts_python_itself(python: Path, variable: str) -> None:
    found = _look(python, "-c", _LOOK, environ={variable: "1", "GIVEN": "value"})
    assert found["imported"] is False
    assert found["given"] == "value"


def test_imports_that_fail_start_python_itself(capfd: pytest.CaptureFixture[str]) -> None:
    with warm_python([MODULE, "no_such_module"]) as python:
        assert _look(python, "-c", _LOOK, "a")["arguments"] == ["-c", "a"]
        assert _look(python, "-c", _LOOK)["imported"] is False
    assert "no_such_module" in capfd.readouterr().err


def test_imports_that_take_too_long_start_python_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(300)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    started = time.monotonic()
    with warm_python(["slow_module"]) as python:
        command = [str(python.with_name("socket")), "-c", _LOOK]
        code = f"from codedance_verl.runtime import fork_client as c; c.READY_SECONDS = 0.5; c.main({command!r})"
        assert _look(Path(sys.executable), "-c", code)["imported"] is False
    assert time.monotonic() - started < 250  # neither waits for the import


def test_processes_that_are_left_end_with_the_block() -> None:
    with warm_python([MODULE]) as python:
        code = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
        process = subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        child = int(process.stdout.readline())
    assert process.wait(60) != 0
    process.stdout.close()
    _wait_for_the_end_of(child)
    assert not python.parent.exists()


def test_processes_draw_numbers_of_their_own() -> None:
    with warm_python(["numpy"]) as python:
        code = "import numpy, random; print(numpy.random.random(), random.random())"
        drawn = [subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.split() for _ in range(2)]
    assert len({number for numbers in drawn for number in numbers}) == 4


def test_options_of_python_are_told_from_the_command() -> None:
    assert split(["-u", "-X", "dev", "-c", "code"]) == (["-u", "-X"], ["dev", "-c", "code"])
    assert split(["-u", "script.py", "-x"]) == (["-u"], ["script.py", "-x"])


def test_options_that_change_python_are_refused() -> None:
    assert refusal(_request(["-O", "-c", "code"]), [{}]) == "options ['-O']"
    assert refusal(_request(["-u", "-c", "code"]), [{}]) == ""
    own = ["-B"] if sys.flags.dont_write_bytecode else []
    assert refusal(_request([*own, "-c", "code"]), [{}]) == ""


def test_a_variable_may_have_its_value_before_or_after_the_imports() -> None:
    environs: list[dict[str, str]] = [{}, {"LD_LIBRARY_PATH": "set by a library"}]
    assert refusal(_request(["-c", "code"]), environs) == ""
    assert refusal(_request(["-c", "code"], LD_LIBRARY_PATH="set by a library"), environs) == ""
    assert refusal(_request(["-c", "code"], LD_LIBRARY_PATH="other"), environs) == "LD_LIBRARY_PATH=other"
    assert refusal(_request(["-c", "code"], OMP_NUM_THREADS="1"), environs) == ""


def _request(command: list[str], **environ: str) -> Request:
    return Request(command, environ, "/", {}, 0, [], False, None)  # type: ignore[arg-type]


def _wait_for_the_end_of(pid: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")
