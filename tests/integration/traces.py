"""Traces that one trajectory may leave and another would notice: cells in pairs, by name.

The cell above the line changes something; the one below it shows the change to the session that made it, and must show
every other session the value that it shows where nothing was changed. `(varies)`: sessions see different values by
themselves, random draws for one, so they must only not see what the one that made the change sees.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.integration.named_cells import named_cells

_VARIES = " (varies)"


@dataclass(frozen=True)
class Trace:
    """Two cells: one that leaves a trace and one that looks for it."""

    leave: str
    look: str
    varies: bool


def _traces(text: str) -> dict[str, Trace]:
    pairs = {name: code.split("\n---\n") for name, code in named_cells(text).items()}
    return {name.removesuffix(_VARIES): Trace(*pair, varies=name.endswith(_VARIES)) for name, pair in pairs.items()}


IN_THE_PROCESS = _traces("""
# variable
x = 1
---
globals().get('x')
# function
def area(w, h): return w * h
---
'area' in globals()
# input image
input_image.putpixel((0, 0), (1, 2, 3))
---
input_image.getpixel((0, 0))
# input image replaced
input_image = input_image.resize((9, 9))
---
input_image.size
# builtin
import builtins; builtins.abs = lambda _: 7
---
abs(-1)
# new builtin
import builtins; builtins.mark = 1
---
import builtins
hasattr(builtins, 'mark')
# display function
import builtins; display = None
---
display is None
# function of a module
import json; json.dumps = lambda *_: 'no'
---
import json
json.dumps([])
# method of a class
from PIL import Image; Image.Image.rotate = lambda *_: None
---
from PIL import Image
Image.new('L', (2, 2)).rotate(90) is None
# module added
import sys, types; sys.modules['mine'] = types.ModuleType('mine')
---
import sys
'mine' in sys.modules
# module removed
import sys; del sys.modules['cv2']
---
import sys
'cv2' in sys.modules
# module replaced
import sys, types; sys.modules['math'] = types.SimpleNamespace(pi=3)
---
import math
math.pi
# module search path
import sys; sys.path.insert(0, '/tmp/evil')
---
import sys
'/tmp/evil' in sys.path
# import hook
import sys; sys.meta_path.insert(0, 1)
---
import sys
sys.meta_path[0] == 1
# environment
import os; os.environ['MARK'] = '1'
---
import os
os.environ.get('MARK')
# environment of C
import os; os.putenv('MARK', '2')
---
import subprocess
subprocess.run('echo $MARK', shell=True, capture_output=True, text=True).stdout
# time zone
import os, time; os.environ['TZ'] = 'XYZ-5'; time.tzset()
---
import time
time.tzname[0]
# working directory
import os; os.mkdir('d'); os.chdir('d')
---
import os
os.path.basename(os.getcwd()) == 'd'
# file mode mask
import os; os.umask(0)
---
import os
old = os.umask(0o77)
_ = os.umask(old)
old
# recursion limit
import sys; sys.setrecursionlimit(4321)
---
import sys
sys.getrecursionlimit()
# switch interval
import sys; sys.setswitchinterval(0.25)
---
import sys
sys.getswitchinterval()
# digits of integers
import sys; sys.set_int_max_str_digits(5000)
---
import sys
sys.get_int_max_str_digits()
# signal handler
import signal; _ = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
---
import signal
signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
# signal mask
import signal; _ = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
---
import signal
len(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
# soft limit
import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (99, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
---
import resource
resource.getrlimit(resource.RLIMIT_NOFILE)[0]
# hard limit
import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9999, 9999))
---
import resource
resource.getrlimit(resource.RLIMIT_FSIZE)
# niceness
import os; _ = os.nice(5)
---
import os
os.nice(0)
# cores
import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
---
import os
len(os.sched_getaffinity(0))
# name of the process
import ctypes; _ = ctypes.CDLL(None).prctl(15, b'mark')
---
open('/proc/self/comm').read()
# garbage collector
import gc; gc.disable(); gc.set_threshold(9, 9, 9)
---
import gc
gc.isenabled(), gc.get_threshold()
# default time-out of sockets
import socket; socket.setdefaulttimeout(3)
---
import socket
socket.getdefaulttimeout()
# warnings filter
import warnings; warnings.simplefilter('error', BytesWarning)
---
import warnings
warnings.filters[0][:3]
# logging handler
import logging; logging.getLogger().addHandler(logging.StreamHandler()); logging.getLogger().setLevel(3)
---
import logging
len(logging.getLogger().handlers), logging.getLogger().level
# locale
import locale; _ = locale.setlocale(locale.LC_ALL, 'C')
---
import locale
locale.setlocale(locale.LC_CTYPE)
# decimal context
import decimal; decimal.getcontext().prec = 3
---
import decimal
decimal.Decimal(1) / 3
# decimal default
import decimal; decimal.DefaultContext.prec = 4
---
import decimal
decimal.DefaultContext.prec
# codec
import codecs; codecs.register(lambda name: None if name != 'mark' else codecs.lookup('ascii'))
---
import codecs
try: r = codecs.lookup('mark').name
except LookupError: r = None
r
# copy protocol
import copyreg; copyreg.pickle(complex, lambda c: (int, ()))
---
import pickle
pickle.loads(pickle.dumps(1j))
# hidden state of the interpreter
import codedance_interpreter.display as d; d.SMALLEST_IMAGE_SIDE = 3
---
import codedance_interpreter.display as d
d.SMALLEST_IMAGE_SIDE
# regular expression cache
import re; re.purge(); re._cache['mark'] = 1
---
import re
'mark' in re._cache
# abstract class
import collections.abc as c; _ = c.Sized.register(int)
---
import collections.abc as c
issubclass(int, c.Sized)
""")

IN_LIBRARIES = _traces("""
# seed of random (varies)
import random; random.seed(7)
---
import random
random.getrandbits(60)
# seed of numpy (varies)
import numpy; numpy.random.seed(7)
---
import numpy
numpy.random.rand()
# seed of OpenCV (varies)
import cv2; cv2.setRNGSeed(7)
---
import cv2, numpy as np
state = cv2.randu(np.zeros((2, 2), np.float64), 0, 1)
state.sum()
# print options of numpy
import numpy as np; np.set_printoptions(precision=2)
---
import numpy as np
np.array([1 / 3])
# error handling of numpy
import numpy as np; _ = np.seterr(all='raise')
---
import numpy as np
np.geterr()['divide']
# constant of numpy
import numpy as np; np.pi = 3
---
import numpy as np
np.pi
# shared array of numpy
import numpy as np; np.mark = np.zeros(3)
---
import numpy as np
hasattr(np, 'mark')
# matplotlib settings
import matplotlib.pyplot as plt; plt.rcParams['figure.dpi'] = 33
---
import matplotlib.pyplot as plt
plt.rcParams['figure.dpi']
# matplotlib style
import matplotlib.pyplot as plt; plt.style.use('ggplot')
---
import matplotlib.pyplot as plt
plt.rcParams['axes.facecolor']
# matplotlib fonts
import matplotlib.font_manager as f; f.fontManager.ttflist.clear()
---
import matplotlib.font_manager as f
len(f.fontManager.ttflist)
# matplotlib colour map
import matplotlib as m; m.colormaps.register(m.colormaps['jet'], name='mark')
---
import matplotlib as m
'mark' in list(m.colormaps)
# numbers of figures
import matplotlib.pyplot as plt; plt.new_figure_manager = None
---
import matplotlib.pyplot as plt
plt.new_figure_manager is None
# interactive mode
import matplotlib.pyplot as plt; _ = plt.ion()
---
import matplotlib.pyplot as plt
plt.isinteractive()
# largest picture of Pillow
from PIL import Image; Image.MAX_IMAGE_PIXELS = 5
---
from PIL import Image
Image.MAX_IMAGE_PIXELS
# broken pictures in Pillow
from PIL import ImageFile; ImageFile.LOAD_TRUNCATED_IMAGES = True
---
from PIL import ImageFile
ImageFile.LOAD_TRUNCATED_IMAGES
# formats of Pillow
from PIL import Image; Image.OPEN.pop('PNG')
---
from PIL import Image
'PNG' in Image.OPEN
# OpenCV optimised
import cv2; cv2.setUseOptimized(False)
---
import cv2
cv2.useOptimized()
# show function of OpenCV
import cv2; cv2.imshow = None
---
import cv2
cv2.imshow is None
# show method of Pillow
from PIL import Image; Image.Image.show = None
---
from PIL import Image
Image.Image.show is None
""")

ON_DISK = _traces("""
# file
open('mark', 'w').write('1');
---
import os
os.path.exists('mark')
# input file
open('input_image.png', 'w').write('1');
---
import os
os.path.getsize('input_image.png')
# temporary file
import tempfile; f = tempfile.NamedTemporaryFile(delete=False, prefix='mark')
---
import os, tempfile
[n for n in os.listdir(tempfile.gettempdir()) if n.startswith('mark')] != []
# library in the working directory
open('fractions.py', 'w').write('Fraction = 1');
---
import os
os.path.exists('fractions.py')
# file in /tmp
open('/tmp/mark.txt', 'w').write('1');
---
import os
os.path.exists('/tmp/mark.txt')
# file in /tmp for everybody
import os; open('/tmp/all.txt', 'w').write('1'); os.chmod('/tmp/all.txt', 0o666)
---
try: r = open('/tmp/all.txt').read()
except FileNotFoundError: r = None
r
# name taken in /tmp
open('/tmp/out.png', 'w').write('a');
---
open('/tmp/out.png', 'a').tell()
# file in /dev/shm
open('/dev/shm/mark', 'w').write('1');
---
import os
os.path.exists('/dev/shm/mark')
# shared memory by name
from multiprocessing import shared_memory, resource_tracker
m = shared_memory.SharedMemory('mark', create=True, size=9)
resource_tracker.unregister(m._name, 'shared_memory')
---
import os
os.path.exists('/dev/shm/mark')
# fonts of a user
import os; os.makedirs(os.path.expanduser('~/.fonts'))
---
import os
os.path.exists(os.path.expanduser('~/.fonts'))
""")
