from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
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


def test_limits_are_inherited(python: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (200, {hard}))"
    code = "import os, resource; print(os.nice(0), resource.getrlimit(resource.RLIMIT_NOFILE))"
    asks = f"import os, sys; os.nice(2); {files}; os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", asks, python, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == f"{min(os.nice(0) + 2, 19)} (200, {hard})\n", done.stderr


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


@pytest.mark.parametrize(
    "variable",
    [
        *("LD_PRELOAD_OF_TEST", "PYTHONHASHSEED", "OMP_PROC_BIND"),
        *("HF_HUB_OFFLINE", "HUGGINGFACE_CO_STAGING", "TRANSFORMERS_VERBOSITY", "VLLM_BATCH_INVARIANT"),
    ],
)
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


@pytest.fixture
def failing_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a module for the server in whose process the second fork, and all later ones, raise an error."""

    def write(error: str) -> str:
        (tmp_path / "failing_fork.py").write_text(
            "import itertools, os\n"
            "real, calls = os.fork, itertools.count(1)\n"
            "def fork():\n"
            "    if next(calls) > 1:\n"
            f"        raise {error}\n"
            "    return real()\n"
            "os.fork = fork\n"
        )
        return "failing_fork"

    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return write


def test_a_fork_that_fails_starts_python_itself_and_ends_nothing(
    failing_fork: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    with warm_python([failing_fork("OSError('no memory')"), MODULE]) as python, _sleeping(python) as (process, _):
        for _ in range(2):
            assert _look(python, "-c", _LOOK)["imported"] is False
        assert process.poll() is None
    assert capfd.readouterr().err.count("a process starts without what is imported here: no memory") == 2


def test_a_server_that_fails_leaves_no_process(
    failing_fork: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    with warm_python([failing_fork("RuntimeError('a defect')"), MODULE]) as python:
        with _sleeping(python) as (process, child):
            assert _look(python, "-c", _LOOK)["imported"] is False
            assert process.wait(60) != 0
            _wait_for_the_end_of(child)
        assert _look(python, "-c", _LOOK)["imported"] is False
    assert "RuntimeError: a defect" in capfd.readouterr().err


_BOTH_END = """
import os, selectors, socket
from codedance_verl.runtime.fork_server import Server

life, hold = os.pipe()
server = Server(socket.socket(socket.AF_UNIX), life, [{}])
child = os.fork()
if child == 0:
    os._exit(7)
own, other = socket.socketpair()
server._clients[child] = own
server._selector.register(own, selectors.EVENT_READ, data=child)
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
server._reap()  # the selector has told of the process and of its client in one go
server._end(child)
print(int.from_bytes(other.recv(4)), other.recv(1), len(server._selector.get_map()))
"""


def test_a_process_that_ends_together_with_its_client_does_not_end_the_server() -> None:
    done = subprocess.run([sys.executable, "-c", _BOTH_END], capture_output=True, text=True, timeout=120)
    assert done.stdout == "7 b'' 3\n", done.stderr


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
    assert refusal(_request(["-c", "code"], HF_TOKEN="secret"), environs) == ""


def _request(command: list[str], **environ: str) -> Request:
    return Request(command, environ, "/", {}, 0, [], False, (256, 256), 0, None)  # type: ignore[arg-type]


@contextlib.contextmanager
def _sleeping(python: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yields what asks for a process that sleeps, and the id of that one; kills the first."""
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
    with subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


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
