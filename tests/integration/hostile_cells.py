"""Two hundred cells that never end by themselves, by name, and some that reach for more than their own process."""

from __future__ import annotations

from tests.integration.named_cells import named_cells

# Each defines hang(), which does not return.
LOOPS = named_cells("""
# spin
def hang():
    while True: pass
# sleep
import time
def hang():
    while True: time.sleep(1000)
# sleep in C
import ctypes
def hang(): ctypes.CDLL(None).sleep(1000)
# sleep in C with the GIL held
import ctypes
def hang(): ctypes.PyDLL(None).sleep(1000)
# backtracking
import re
def hang(): re.match(r'(a+)+$', 'a' * 64 + 'b')
# C loop with the GIL held
import itertools
def hang(): sum(itertools.repeat(0))
# matrices
import numpy as np
def hang():
    a = np.eye(600)
    while True: a = a @ a
# one long numpy call
import numpy as np
def hang(): np.convolve(np.ones(10**6), np.ones(10**6))
# one long hash
import hashlib
def hang(): hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)
# factorial
import math
def hang(): math.factorial(10**8)
# stdout flood
def hang():
    while True: print('late ' * 1000)
# descriptor flood
import os
def hang():
    while True:
        try: os.write(1, b'late ' * 1000)
        except OSError: pass
# deadlock
import threading
def hang():
    lock = threading.Lock(); lock.acquire(); lock.acquire()
# pipe
import os
def hang(): os.read(os.pipe()[0], 1)
""")

# Ways to call it.
DISGUISES = named_cells("""
# plain
hang()
# deaf
import signal
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    try: signal.signal(number, signal.SIG_IGN)
    except OSError: pass
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
hang()
# swallowing
while True:
    try: hang()
    except BaseException: pass
# thread
import threading
thread = threading.Thread(target=hang)
thread.start(); thread.join()
# six threads
import threading
for _ in range(6): threading.Thread(target=hang, daemon=True).start()
hang()
# child
import os
if os.fork() == 0:
    os.setsid(); hang()
os.waitpid(-1, 0)
# daemon
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid(); hang()
    os._exit(0)
os.wait(); hang()
# repr
class Endless:
    def __repr__(self): hang()
Endless()
# del
class Endless:
    def __del__(self): hang()
endless = Endless(); del endless
# alarm
import signal
signal.signal(signal.SIGALRM, lambda *_: hang())
signal.setitimer(signal.ITIMER_REAL, 0.01)
while True: pass
""")

# Cells of their own.
SINGLE = named_cells("""
# leaves a loop by exit, in vain
import sys
while True:
    try: sys.exit()
    finally: continue
# recursion that recovers
def f():
    try: f()
    except RecursionError: f()
f()
# pause
import ctypes; ctypes.CDLL(None).pause()
# select
import select; select.select([], [], [])
# poll
import select; select.poll().poll()
# sigwait
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
signal.sigwait({signal.SIGUSR1})
# stops itself
import os, signal; os.kill(os.getpid(), signal.SIGSTOP)
# alarm storm
import signal
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
while True: pass
# every alarm starts another
import signal, time
def again(*_): signal.alarm(1); time.sleep(1000)
signal.signal(signal.SIGALRM, again); signal.setitimer(signal.ITIMER_REAL, 0.01)
time.sleep(1000)
# virtual timer storm
import signal
signal.signal(signal.SIGVTALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_VIRTUAL, 1e-4, 1e-4)
while True: pass
# signals itself for ever
import os, signal
signal.signal(signal.SIGUSR1, lambda *_: None)
while True: os.kill(os.getpid(), signal.SIGUSR1)
# exit functions
import atexit
def spin():
    while True: pass
atexit.register(spin); atexit._run_exitfuncs()
# message of an exception
class Fault(Exception):
    def __str__(self):
        while True: pass
raise Fault()
# class of the value shown
class Endless:
    @property
    def __class__(self):
        while True: pass
Endless()
# width of the picture shown
from PIL import Image
class Endless(Image.Image):
    @property
    def width(self):
        while True: pass
Endless()
# picture that never becomes bytes
from PIL import Image
def tobytes(*_a, **_k):
    while True: pass
Image.Image.tobytes = tobytes
Image.new('L', (4, 4))
# figure that is never drawn
import matplotlib.pyplot as plt
from matplotlib.artist import Artist
class Endless(Artist):
    def draw(self, renderer):
        while True: pass
plt.gca().add_artist(Endless());
# collector
import gc
def spin(*_):
    while True: pass
gc.callbacks.append(spin); gc.collect()
# trace
import sys
def trace(*_):
    while True: pass
sys.settrace(trace)
def f(): pass
f()
# profile
import sys
def trace(*_):
    while True: pass
sys.setprofile(trace)
len('')
# import hook
import sys
class Finder:
    def find_spec(self, *_):
        while True: pass
sys.meta_path.insert(0, Finder())
import antigravity
# stdout that never flushes
import sys
class Endless:
    def write(self, text): return len(text)
    def flush(self):
        while True: pass
sys.stdout = Endless()
# isinstance replaced
import builtins
def isinstance(*_):
    while True: pass
builtins.isinstance = isinstance
1
# the display replaced
import codedance_interpreter.display as d
def spin(self):
    while True: pass
d.Display.show_open_figures = spin
# the report replaced
import codedance_interpreter.wire as w
def spin(*_):
    while True: pass
w.send = spin
# standard streams closed
import os
os.close(1); os.close(2)
while True: pass
# comparison
class Endless:
    def __lt__(self, other):
        while True: pass
sorted([Endless(), Endless()])
# hash
class Endless:
    def __hash__(self):
        while True: pass
{Endless()}
# metaclass
class Meta(type):
    def __new__(*_):
        while True: pass
class Endless(metaclass=Meta): pass
# generator that cannot be closed
def endless():
    while True:
        try: yield
        except GeneratorExit:
            while True: pass
g = endless(); next(g); g.close()
# weak reference
import weakref
class A: pass
def spin(_):
    while True: pass
a = A(); r = weakref.ref(a, spin); del a
# context manager
class Endless:
    def __enter__(self): return self
    def __exit__(self, *_):
        while True: pass
with Endless(): 1/0
# event loop asleep
import asyncio; asyncio.run(asyncio.sleep(1000))
# event loop at work
import asyncio
async def main():
    while True: await asyncio.sleep(0)
asyncio.run(main())
# thread pool
from concurrent.futures import ThreadPoolExecutor
def spin():
    while True: pass
with ThreadPoolExecutor(4) as pool: [pool.submit(spin) for _ in range(4)]
# queue
import queue; queue.Queue().get()
# event
import threading; threading.Event().wait()
# file lock
import fcntl
a, b = open('lock', 'w'), open('lock', 'w')
fcntl.flock(a, fcntl.LOCK_EX)
fcntl.flock(b, fcntl.LOCK_EX)
# socket
import socket; pair = socket.socketpair(); pair[0].recv(1)
# named pipe
import os; os.mkfifo('pipe'); open('pipe')
# program asleep
import subprocess; subprocess.run(['sleep', '1000'])
# program at work
import subprocess; subprocess.run(['sh', '-c', 'while :; do :; done'])
# program that traps signals
import subprocess
subprocess.run(['sh', '-c', "trap '' 1 2 3 10 12 14 15; while :; do echo late; done"])
# program in a session of its own
import subprocess, time
subprocess.Popen(['sh', '-c', 'while :; do echo late; done'], start_new_session=True)
while True: time.sleep(1)
# children that spin
import os
for _ in range(8):
    if os.fork() == 0:
        while True: pass
while True:
    try: os.wait()
    except ChildProcessError: pass
# children that are born again
import os
while True:
    try:
        if os.fork() == 0:
            os.setsid()
            if os.fork(): os._exit(0)
    except OSError: pass
# orphans that write files
import os
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork(): os._exit(0)
        while True: open('alive', 'a').write('x')
while True: pass
# many threads
import threading
def spin():
    while True: pass
while True:
    try: threading.Thread(target=spin).start()
    except RuntimeError: pass
# large integers
3 ** (10 ** 9)
# digits
import sys
sys.set_int_max_str_digits(0)
len(str(7 ** (10 ** 8)))
# decimal
import decimal
decimal.getcontext().prec = 10**8
decimal.getcontext().Emax = decimal.MAX_EMAX
decimal.Decimal(2).sqrt()
# permutations
import collections, itertools
collections.deque(itertools.permutations(range(30)), maxlen=0)
# membership
import itertools; 1 in itertools.repeat(0)
# eigenvalues
import numpy as np
while True: np.linalg.eigvals(np.random.rand(400, 400))
# random numbers
import numpy as np
while True: np.random.standard_normal(10**6)
# OpenCV
import cv2, numpy as np
while True: cv2.bilateralFilter(np.zeros((2000, 2000, 3), np.uint8), 99, 100, 100)
# Pillow
from PIL import Image, ImageFilter
Image.new('L', (3000, 3000)).filter(ImageFilter.MedianFilter(101))
# scipy
import numpy as np, scipy.ndimage
scipy.ndimage.median_filter(np.random.rand(3000, 3000), size=101)
# figures
import matplotlib.pyplot as plt
while True:
    plt.figure(); plt.plot(range(1000)); plt.gcf().canvas.draw()
    plt.close('all')
# memory walked through
import numpy as np
a = np.zeros(10**7)
while True: a += 1
""")

HOSTILE = {
    **{f"{loop}, {disguise}": f"{LOOPS[loop]}\n{DISGUISES[disguise]}" for loop in LOOPS for disguise in DISGUISES},
    **SINGLE,
}

# These reach for the process that keeps the last good state, which may cost the session its variables.
AT_THE_SUPERVISOR = named_cells(r"""
# stops its supervisor
import os, signal
os.kill(os.getppid(), signal.SIGSTOP)
while True: pass
# stops all it may
import os, signal
os.kill(-1, signal.SIGSTOP)
while True: pass
# stops its supervisor from an orphan
import os, signal
supervisor = os.getppid()
if os.fork() == 0:
    os.setsid()
    while True: os.kill(supervisor, signal.SIGSTOP)
while True: pass
# starves its supervisor
import os
os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)
for _ in range(6):
    if os.fork() == 0: break
while True: pass
# binds its supervisor to one core
import os
os.sched_setaffinity(os.getppid(), {0})
for _ in range(6):
    if os.fork() == 0: break
os.sched_setaffinity(0, {0})
while True: pass
# limits its supervisor
import os, resource
try: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))
except OSError: pass
while True: pass
# floods the channel
import os
while True:
    for descriptor in range(3, 40):
        try: os.write(descriptor, bytes(4))
        except OSError: pass
# announces a frame and stalls
import os, stat
for descriptor in range(3, 40):
    try:
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode): os.write(descriptor, b'\x01\x00\x00\x00')
    except OSError: pass
while True: pass
""")
