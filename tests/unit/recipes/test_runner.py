from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from codedance_verl.errors import UserError
from recipes.cpu_demo.console import Console
from recipes.cpu_demo.processes import end_processes
from recipes.cpu_demo.progress import Progress
from recipes.cpu_demo.runner import Runner, StageFailed, check_free_space, last_lines
from recipes.cpu_demo.stages import REPOSITORY, Stage
from tests.unit.recipes.small_stages import number_in, stage, wait_for

COUNT = (
    "count = out / (folder.name + '.count')\ncount.write_text((count.read_text() if count.exists() else '') + 'x')\n"
)
"""Code that leaves one x per run beside the stage's folder."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path


def run(out: Path, *stages: Stage, **settings: float) -> str:
    """Run stages with a runner of its own; returns what was printed."""
    stream = io.StringIO()
    Runner(out, Console(stream), min_free_bytes=0, grace_s=settings.get("grace_s", 2.0)).run(stages)
    return stream.getvalue()


def runs(out: Path, name: str) -> int:
    file = out / f"{name}.count"
    return len(file.read_text()) if file.exists() else 0


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_stages_run_in_order_and_are_recorded(out: Path) -> None:
    first = stage(out, "first", "print('hello'); (folder / 'a').write_text('1')", outputs=(out / "first" / "a",))
    second = stage(out, "second", "assert (out / 'first' / 'a').exists()", inputs=(out / "first",))
    printed = run(out, first, second)
    assert "[1/2] first ..." in printed and "[2/2] second:" in printed
    assert "hello" in (out / "logs" / "first.log").read_text()
    marker = json.loads((out / "stages" / "first.json").read_text())
    assert marker["name"] == "first" and 0 < marker["wall_s"] < 20
    assert not list((out / "stages").glob("*.attempt.json"))


def test_what_is_left_is_estimated_from_like_stages_that_have_finished(out: Path) -> None:
    """Three stages of an hour each by the plan; the first takes less than a minute, and so will the others."""
    names = ("first", "second", "third")
    printed = run(out, *(replace(stage(out, name, "pass"), expected_s=3_600.0, alike=names) for name in names))
    assert re.search(r"first: 0:\d\d, about 2:00:00 to go", printed)
    assert re.search(r"second: 0:\d\d, about 0:\d\d to go", printed)


def test_a_finished_stage_is_not_run_again(out: Path) -> None:
    only = stage(out, "only", COUNT)
    run(out, only)
    printed = run(out, only)
    assert runs(out, "only") == 1 and "done before" in printed


def test_a_stage_runs_again_when_what_it_was_made_from_changes(out: Path) -> None:
    source = out / "source.txt"
    source.write_text("1")
    run(out, stage(out, "only", COUNT, inputs=(source,)))
    source.write_text("2")
    run(out, stage(out, "only", COUNT, inputs=(source,)))
    run(out, stage(out, "only", COUNT + "# another command", inputs=(source,)))
    assert runs(out, "only") == 3


def test_a_stage_whose_output_is_gone_runs_again(out: Path) -> None:
    only = stage(out, "only", COUNT + "(folder / 'model').write_text('1')", outputs=(out / "only" / "model",))
    run(out, only)
    (out / "only" / "model").unlink()
    run(out, only)
    assert runs(out, "only") == 2


def test_a_stage_that_always_runs_keeps_its_longest_time(out: Path) -> None:
    code = COUNT + "import time\nif count.read_text() == 'x': time.sleep(0.8)"
    always = stage(out, "image", code, always=True)
    run(out, always)
    long = json.loads((out / "stages" / "image.json").read_text())["wall_s"]
    run(out, always)
    assert runs(out, "image") == 2 and long > 0.8
    assert json.loads((out / "stages" / "image.json").read_text())["wall_s"] == long


def test_a_failure_quotes_the_log_and_stops_the_plan(out: Path) -> None:
    code = """
import sys
for number in range(50):
    print("line", number, flush=True)
print("error: data.train_files: no such file", file=sys.stderr)
sys.exit(2)
"""
    with pytest.raises(StageFailed) as failure:
        run(out, stage(out, "bad", code), stage(out, "later", COUNT))
    assert re.fullmatch(
        rf"stage bad failed after 0:0\d: data.train_files: no such file \(log: {out}/logs/bad.log\)", str(failure.value)
    )
    assert len(failure.value.log_tail) == 20 and failure.value.log_tail[-2] == "line 49"
    assert runs(out, "later") == 0 and not (out / "stages" / "bad.json").exists()


def test_a_failure_does_not_quote_an_earlier_try(out: Path) -> None:
    with pytest.raises(StageFailed):
        run(out, stage(out, "bad", "print('error: the first reason'); raise SystemExit(1)"))
    with pytest.raises(StageFailed, match="ended with exit code 7"):
        run(out, stage(out, "bad", "raise SystemExit(7)"))
    assert "the first reason" in (out / "logs" / "bad.previous.log").read_text()


def test_success_without_its_output_is_a_failure(out: Path) -> None:
    with pytest.raises(StageFailed, match=r"its command succeeded but did not write .*/model"):
        run(out, stage(out, "bad", "pass", outputs=(out / "bad" / "model",)))


RESUMING = """
import os, time
checkpoint = folder / 'checkpoint'
if not checkpoint.exists():
    checkpoint.write_text('halfway')
    (out / 'pid').write_text(str(os.getpid()))
    time.sleep(60)
(folder / 'done').write_text(checkpoint.read_text())
"""


def kill_once_started(out: Path, only: Stage) -> None:
    """Run a stage and kill -9 its command in the middle, from another process."""
    killer = f"""
import os, signal, time
for _ in range(1000):
    try: pid = int(open({str(out / "pid")!r}).read())
    except (OSError, ValueError): time.sleep(0.02)
    else: break
time.sleep(0.4)
os.kill(pid, signal.SIGKILL)
"""
    with subprocess.Popen([sys.executable, "-c", killer]), pytest.raises(StageFailed, match="killed by signal 9"):
        run(out, only)


def test_a_killed_stage_resumes_and_its_seconds_add_up(out: Path) -> None:
    only = stage(out, "rl", RESUMING, resumable=True, outputs=(out / "rl" / "done",))
    kill_once_started(out, only)
    first = json.loads((out / "stages" / "rl.attempt.json").read_text())["wall_s"]
    assert first > 0.3
    printed = run(out, only)
    assert "resumes after 0:0" in printed
    assert (out / "rl" / "done").read_text() == "halfway"
    assert json.loads((out / "stages" / "rl.json").read_text())["wall_s"] > first


def test_a_stage_that_cannot_resume_starts_from_nothing(out: Path) -> None:
    kill_once_started(out, stage(out, "eval", RESUMING))
    again = stage(out, "eval", "assert not (folder / 'checkpoint').exists()")
    run(out, again)


def test_a_checkpoint_made_from_other_inputs_is_not_resumed(out: Path) -> None:
    source = out / "source.txt"
    source.write_text("1")
    kill_once_started(out, stage(out, "rl", RESUMING, resumable=True, inputs=(source,)))
    source.write_text("2")
    run(out, stage(out, "rl", "assert not (folder / 'checkpoint').exists()", resumable=True, inputs=(source,)))


FAMILY = """
import os, signal, subprocess, sys, time
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
children = [
    subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE),
    subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE, start_new_session=True),
]
for index, child in enumerate(children):
    child.stdout.readline()
    (out / f'child{index}').write_text(str(child.pid))
(out / 'pid').write_text(str(os.getpid()))
"""


def test_a_stage_over_its_limit_is_ended_with_all_it_started(out: Path) -> None:
    """One child ignores SIGTERM, the other has also left the process group."""
    began = time.monotonic()
    slow = stage(out, "slow", FAMILY + "time.sleep(60)", timeout_s=2.0)
    with pytest.raises(StageFailed, match="it was ended at its limit of 2 s"):
        run(out, slow, grace_s=1.0)
    assert time.monotonic() - began < 20
    numbers = [number_in(out / name) for name in ("pid", "child0", "child1")]
    assert all(number is not None and not alive(number) for number in numbers)


def test_what_a_crashed_stage_leaves_behind_is_ended(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.cpu_demo.runner._LOOK_S", 0.2)
    crash = stage(out, "crash", FAMILY + "time.sleep(1); os._exit(3)", timeout_s=20.0)
    with pytest.raises(StageFailed, match="exit code 3"):
        run(out, crash, grace_s=0.5)
    assert not [name for name in ("child0", "child1") if alive(number_in(out / name) or 0)]


def test_a_docker_engine_that_a_stage_started_is_left_running(out: Path) -> None:
    engine = out / "dockerd"
    shutil.copy("/bin/sleep", engine)
    code = f"""
import subprocess
child = subprocess.Popen([{str(engine)!r}, "60"], start_new_session=True)
(out / 'engine').write_text(str(child.pid))
raise SystemExit(1)
"""
    with pytest.raises(StageFailed):
        run(out, stage(out, "image", code))
    pid = number_in(out / "engine")
    assert pid is not None and alive(pid)
    os.kill(pid, signal.SIGKILL)


DRIVER = """
import sys
from pathlib import Path
from recipes.cpu_demo.console import Console
from recipes.cpu_demo.run import guarded
from recipes.cpu_demo.runner import Runner
from tests.unit.recipes.small_stages import stage

out, code = Path(sys.argv[1]), sys.argv[2]
console = Console()
only = stage(out, "rl", code, resumable=True)
sys.exit(guarded(lambda: Runner(out, console, min_free_bytes=0, grace_s=1.0).run([only]) or 0, console))
"""


def start_driver(out: Path, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(out), code],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_children_and_says_how_to_go_on(out: Path, number: signal.Signals) -> None:
    with start_driver(out, FAMILY + "time.sleep(60)") as driver:
        pids = [wait_for(lambda name=name: number_in(out / name)) for name in ("pid", "child0", "child1")]
        driver.send_signal(number)
        printed, _ = driver.communicate(timeout=30)
    assert driver.returncode == 128 + number
    assert f"interrupted by {number.name}; run it again" in printed
    assert not [pid for pid in pids if alive(pid)]


def test_what_a_killed_driver_left_running_is_ended_by_the_next(out: Path) -> None:
    """The command ignores the SIGTERM it gets when its driver dies."""
    code = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY + "time.sleep(60)"
    with start_driver(out, code) as driver:
        pids = [wait_for(lambda name=name: number_in(out / name)) for name in ("pid", "child0", "child1")]
        wait_for(lambda: json.loads((out / "stages" / "rl.attempt.json").read_text())["pid"])
        driver.kill()
        driver.communicate(timeout=30)
    assert alive(pids[0])
    printed = run(out, stage(out, "rl", "pass", resumable=True), grace_s=0.5)
    assert "ended what an interrupted run had left running of rl" in printed
    assert not [pid for pid in pids if alive(pid)]


def test_a_driver_killed_outright_takes_its_command_with_it(out: Path) -> None:
    code = "import os, time\n(out / 'pid').write_text(str(os.getpid()))\ntime.sleep(60)"
    with start_driver(out, code) as driver:
        pid = wait_for(lambda: number_in(out / "pid"))
        driver.kill()
    wait_for(lambda: not alive(pid))


def test_a_foreign_process_of_the_same_number_is_left_alone(out: Path) -> None:
    """The note of a dead driver names a number that another process has by now."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as bystander:
        note = {"inputs": "x", "wall_s": 1.0, "pid": bystander.pid, "started": time.time() + 1_000}
        (out / "stages").mkdir()
        (out / "stages" / "only.attempt.json").write_text(json.dumps(note))
        run(out, stage(out, "only", "pass"))
        assert alive(bystander.pid)
        bystander.kill()


def test_a_full_disk_under_the_driver_is_one_clear_line(out: Path) -> None:
    (out / "stages").mkdir()
    (out / "stages" / "only.attempt.json.partial").symlink_to("/dev/full")  # every write there fails with ENOSPC
    with pytest.raises(UserError, match=rf"the disk of {out} is full .* free some space and run the demo again"):
        run(out, stage(out, "only", "pass"))


def test_a_full_disk_under_a_stage_is_named_as_the_cause(out: Path) -> None:
    with pytest.raises(StageFailed, match=rf"stage only failed: the disk of {out} is full .* it resumes where it was"):
        run(out, stage(out, "only", "Path('/dev/full').write_text('x')"))


def test_too_little_space_is_said_before_anything_runs(out: Path) -> None:
    with pytest.raises(
        UserError, match=r"MiB free on its disk, at least 1099511627776 MiB are needed; free some space"
    ):
        Runner(out, Console(io.StringIO()), min_free_bytes=1 << 60).run([stage(out, "only", COUNT)])
    assert runs(out, "only") == 0
    check_free_space(out, 1)


def test_progress_and_the_remainder_are_shown(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.cpu_demo.console.QUIET_S", 0.0)
    slow = stage(out, "slow", "import time; time.sleep(1.2)", progress=lambda: Progress("step 3/16, reward 0.50", 61.0))
    printed = run(out, slow, stage(out, "later", "pass", expected_s=59.0))
    assert "[1/2] slow: step 3/16, reward 0.50, 0:0" in printed
    assert "so far, about 2:00 to go" in printed


def test_a_live_line_is_rewritten_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    console = Console(stream)
    console.update("working " + "x" * 1_000)
    console.line("done")
    first, last = stream.getvalue().rsplit("\r\x1b[K", 1)
    assert first.startswith("\r\x1b[Kworking") and "\n" not in first and len(first) < 300
    assert last == "done\n"


def test_the_tail_of_a_large_log_with_progress_bars(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\xff\n" * 100_000 + b"step 1\rstep 2\rstep 3\r\n\nlast\n")
    assert last_lines(log, 3) == ["\ufffd", "step 3", "last"]
    assert last_lines(tmp_path / "missing") == []


def test_ending_nothing_takes_no_time() -> None:
    began = time.monotonic()
    end_processes([], grace_s=10.0)
    assert time.monotonic() - began < 1
