"""Attacks that run longer than allowed, or on after the end."""

from __future__ import annotations

from sandbox_security.attacks.attack import (
    DENIED,
    ERROR,
    KILLED,
    OK,
    STOPPED,
    TIMEOUT,
    Attack,
    Fate,
    Needs,
    cell,
)

GROUP = "time"


def _stopped(name: str, code: str) -> Attack:
    return Attack(name, GROUP, (cell(code),), TIMEOUT, needs=Needs.NOTHING, timeout_s=0.5)


ATTACKS = (
    _stopped("loop", "while True: pass"),
    _stopped(
        # an exception raised in it, as by a signal handler, is not enough
        "catch every exception",
        """
        while True:
            try:
                while True: pass
            except BaseException:
                pass
        """,
    ),
    _stopped(
        "block and ignore every signal",
        """
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True: pass
        """,
    ),
    _stopped("sleep in C", "ctypes.CDLL(None).sleep(1000)"),
    # one operation in C: Python handles signals between bytecodes, so no handler ever runs
    _stopped("hold the interpreter's lock", "x = 7 ** (10 ** 9)"),
    _stopped("match a regular expression that never ends", "import re; re.match(r'(a+)+$', 'a' * 64 + 'b')"),
    # the value of the last line is shown after the code has ended; that is part of the cell's time
    _stopped("be shown for ever", "class Slow:\n    def __repr__(self):\n        while True: pass\nSlow()"),
    _stopped(
        "be drawn for ever",
        """
        import matplotlib.pyplot as plt
        class Slow(plt.Line2D):
            def draw(self, *_):
                while True: pass
        plt.gca().add_line(Slow([0], [0]));
        """,
    ),
    _stopped(
        "fail for ever",
        """
        class Slow(Exception):
            def __str__(self):
                while True: pass
        raise Slow
        """,
    ),
    _stopped("stop itself", "os.kill(os.getpid(), signal.SIGSTOP)"),
    Attack(
        "stop the supervisor of its session",
        GROUP,
        ("os.kill(os.getppid(), signal.SIGSTOP)\nwhile True: pass",),
        ERROR,
        DENIED,
        needs=Needs.OWN_UIDS,
    ),
    _stopped(
        # the host measures, not the session
        "stop its own clocks",
        """
        import time
        time.monotonic = time.time = time.perf_counter = lambda: 0.0
        while True: pass
        """,
    ),
    Attack(
        # forked twice, so that it is no child of the runner, and in a session of its own
        "work on in a daemon",
        GROUP,
        (
            cell("""
            def work():
                while True:
                    open('alive', 'a').write('x')
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    work()
                os._exit(0)
            until(lambda: os.path.exists('alive'))
            """),
            cell("""
            import time
            before = os.path.getsize('alive'); time.sleep(0.3)
            if os.path.getsize('alive') != before:
                breach('it still works')
            """),
        ),
        OK,
        needs=Needs.NOTHING,
    ),
    Attack(
        "work on in a thread",
        GROUP,
        (
            cell("""
            import threading
            def work():
                while True:
                    open('alive', 'a').write('x')
            threading.Thread(target=work).start()
            until(lambda: os.path.exists('alive'))
            """),
            cell("""
            import time
            before = os.path.getsize('alive'); time.sleep(0.3)
            if os.path.getsize('alive') != before:
                breach('it still works')
            """),
        ),
        OK,
        needs=Needs.NOTHING,
    ),
    Attack(
        "leave a daemon to the session's end, and let nothing stop it",
        GROUP,
        (
            cell("""
            for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_IGN)
            import codedance_interpreter.process_kill as process_kill
            process_kill.kill = lambda *_: None
            if os.fork() == 0:
                os.setsid()
                while True: pass
            """),
        ),
        OK,
        fate=Fate.SPOILED,
        needs=Needs.OWN_UIDS,
    ),
    Attack(
        # kill(-1) under a shared uid reaches the killer too, if it is under that uid
        "strike at what comes to kill it",
        GROUP,
        (
            cell("""
            if os.fork() == 0:
                os.setsid()
                while True:
                    try:
                        os.kill(-1, signal.SIGKILL)
                    except OSError:
                        pass
            while True: pass
            """),
        ),
        KILLED,
        needs=Needs.CONTAINER,
    ),
    Attack(
        # what is made between the kill and the clean-up would stay behind
        "make files while it is killed",
        GROUP,
        (
            cell("""
            import codedance_interpreter.process_kill as process_kill
            process_kill.kill = lambda *_: None
            if os.fork() == 0:
                os.setsid()
                while True:
                    open(f'/tmp/{os.urandom(8).hex()}', 'w').close()
                    open('alive', 'w').close()
            until(lambda: os.path.exists('alive'))
            """),
        ),
        OK,
        fate=Fate.SPOILED,
        needs=Needs.CONTAINER,
        alone=True,
    ),
    Attack(
        "leave an alarm for the next cell",
        GROUP,
        ("signal.setitimer(signal.ITIMER_REAL, 0.2)", "import time; time.sleep(0.5)"),
        OK | STOPPED,
        fate=Fate.SPOILED,
        needs=Needs.NOTHING,
    ),
    Attack(
        "report that it is done, and continue",
        GROUP,
        ("supervisor_channel().sendall(success(mark()))\nwhile True: pass", "1"),
        TIMEOUT | KILLED,
        fate=Fate.SPOILED,
        needs=Needs.OWN_UIDS,
        timeout_s=0.5,
    ),
    Attack(
        "answer the order to stop as if it had ended in time",
        GROUP,
        (
            cell("""
            report, channel = success(mark()), supervisor_channel()
            signal.signal(signal.SIGINT, lambda *_: channel.sendall(report))
            while True: pass
            """),
        ),
        TIMEOUT,
        needs=Needs.NOTHING,
        timeout_s=0.5,
    ),
)
