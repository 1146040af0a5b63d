"""Modules of a user's own, written where a process finds them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

GRADERS = '''
import ctypes, os, re, subprocess, sys, time

print("printed at import")


def right(answer, truth, question, record):
    print("printed in a call")
    os.write(1, b"written by C code\\n")
    return answer == truth


def told(answer, truth, question, record):
    return answer == truth, f"{answer} of {record['data_source']}, {record['style']}, {record['record_id']}: {question}"


def extra(answer, truth, question, record):
    return True, repr(record["extra_info"])


def by_answer(answer, truth, question, record):
    """Does what the answer says."""
    if answer == "hang":
        time.sleep(600)
    if answer == "spin":
        re.match("(a+)+$", "a" * 60 + "b")
    if answer == "exit":
        os._exit(7)
    if answer == "segfault":
        ctypes.string_at(0)
    if answer == "raise":
        raise ZeroDivisionError("no such\\nluck")
    if answer == "quit":
        sys.exit(3)
    if answer == "memory":
        return len(bytearray(64 << 30)) > 0
    if answer == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open(question, "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    returned = {"none": None, "one": 1, "text": "yes", "set": {1}, "pair": (True, 3), "triple": (True, "a", "b"),
                "deep": [[True]], "object": object(), "nan": float("nan")}
    if answer == "leave a helper":
        helper = subprocess.Popen(["sleep", "600"])
        with open(question, "w") as file:
            file.write(str(helper.pid))
        os._exit(3)
    return returned[answer] if answer in returned else answer == truth


def numpy_bool(answer, truth, question, record):
    import numpy
    return numpy.bool_(answer == truth)


def three(answer, truth, question):
    return True


async def later(answer, truth, question, record):
    return True


number = 3
'''

TERMS = """
import os, time


def short(rollout, grade):
    return -0.1 * len(rollout["turns"])


def of_extra(rollout, grade):
    return rollout["extra_info"]["bonus"] if grade["verdict"] == "correct" else 0


def by_answer(rollout, grade):
    answer = rollout["answer"]
    if answer == "5":
        os._exit(1)
    if answer == "6":
        time.sleep(600)
    return {"3": 0.5, "4": 11, "7": float("nan"), "8": True, "9": "1"}[answer]


def calls(rollout, grade):
    return sum(turn["execution"]["status"] == "ok" for turn in rollout["turns"] if turn["execution"])
"""


def on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write `user_graders` and `user_terms` to a folder on the path of this process."""
    (folder / "user_graders.py").write_text(GRADERS)
    (folder / "user_terms.py").write_text(TERMS)
    (folder / "user_broken.py").write_text("import there_is_no_such_module\n")
    (folder / "user_exits.py").write_text("import sys\nsys.exit('enough')\n")
    (folder / "user_crashes.py").write_text("import os\nos._exit(9)\n")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
