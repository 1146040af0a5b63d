"""A rehearsal runs what sessions run, and leaves the process as it was."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import builtins, os, signal, sys, linecache
from sandbox_image.codedance_interpreter import rehearsal

def state():
    streams = sys.stdout, sys.stderr, sys.modules['__main__']
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGCHLD)
    return streams, handlers, hasattr(builtins, '_'), sorted(os.listdir('/proc/self/fd')), os.path.exists('/nowhere')

ran = []
rehearsal.ROUNDS = 3
rehearsal.CELLS = (*rehearsal.CELLS, "note(input_image.size)")
rehearsal.run({'note': ran.append})  # what libraries open once is open now
before = state()
rehearsal.run({'note': ran.append})
assert state() == before, (before, state())
assert ran == [(64, 64)] * 6, ran
print('as before')
"""


def test_a_rehearsal_runs_its_cells_and_leaves_no_trace() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120)
    assert done.stdout == "as before\n", done.stderr
