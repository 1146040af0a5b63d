"""Attacks that use up what sessions share, or keep it when the session has ended."""

from __future__ import annotations

from sandbox_security.attacks.attack import (
    DENIED,
    ERROR,
    OK,
    STOPPED,
    TIMEOUT,
    Attack,
    Check,
    Evidence,
    Needs,
    cell,
)

GROUP = "resources"
MEMORY = frozenset({"MemoryError"})
OS_ERROR = frozenset({"OSError"})
CRASH = frozenset({"Crash"})


def _denied(name: str, code: str) -> Attack:
    return Attack(name, GROUP, (cell(code),), ERROR, DENIED)


def _bounded(images: int, characters: int, growth_mb: float = 200.0) -> Check:
    """Checks that the answer is small, whatever was shown."""

    def check(evidence: Evidence) -> str:
        if len(evidence.last.images) > images:
            return f"{len(evidence.last.images)} images came back"
        if len(evidence.last.stdout) > characters:
            return f"{len(evidence.last.stdout)} characters came back"
        if evidence.host_growth_mb > growth_mb:
            return f"the host needed {evidence.host_growth_mb:.0f} MiB for it"
        return ""

    return check


ATTACKS = (
    Attack("allocate a terabyte", GROUP, ("x = bytearray(1 << 40)",), ERROR, MEMORY, needs=Needs.NOTHING),
    Attack(
        # bytes that are not zero: pages that were never written cost no memory
        "allocate bit by bit",
        GROUP,
        ("x = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))",),
        ERROR,
        MEMORY,
        needs=Needs.NOTHING,
        alone=True,
    ),
    Attack(
        # each is within its own limit; what counts is the limit of the container
        "allocate in many processes",
        GROUP,
        (
            cell("""
            for _ in range(12):
                if os.fork() == 0:
                    x = bytearray(b'x' * (200 << 20))
                    while True: pass
            while True: pass
            """),
        ),
        STOPPED,
        alone=True,
        timeout_s=2.0,
    ),
    Attack(
        # with a score of 0 a process looks to the kernel like one of the interpreter's own
        "allocate in many processes, out of the sight of the kernel's choice of a victim",
        GROUP,
        (
            cell("""
            import subprocess
            bomb = "open('/proc/self/oom_score_adj', 'w').write('0'); x = bytearray(b'x' * (180 << 20)); input()"
            for _ in range(12):
                subprocess.Popen(['python3', '-c', bomb], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
            while True: pass
            """),
        ),
        STOPPED,
        alone=True,
        timeout_s=4.0,
    ),
    Attack(
        # memory of a memfd is in no address space: the limit of a process does not count it
        "hide memory in memory files",
        GROUP,
        (
            cell("""
            files = []
            for _ in range(12):
                if os.fork() == 0:
                    while True:
                        files.append(os.memfd_create('x'))
                        try:
                            while os.write(files[-1], bytes(1 << 20)): pass
                        except OSError:
                            continue
            while True: pass
            """),
        ),
        STOPPED,
        alone=True,
        shared_fate=True,
        timeout_s=3.0,
    ),
    Attack(
        # kernel memory: no process that could be killed for it holds it
        "hide memory in the buffers of sockets and pipes",
        GROUP,
        (
            cell("""
            for _ in range(10):
                if os.fork() == 0:
                    held = []
                    while True:
                        try:
                            held.append(socket.socketpair())
                            held[-1][0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
                            held[-1][0].setblocking(False)
                            while held[-1][0].send(bytes(1 << 16)): pass
                        except OSError:
                            pass
            while True: pass
            """),
        ),
        STOPPED,
        alone=True,
        shared_fate=True,
        timeout_s=2.0,
    ),
    Attack(
        "fill the scratch space",
        GROUP,
        ("for n in range(10_000): open(f'/tmp/{os.getpid()}-{n}', 'wb').write(bytes(1 << 20))",),
        ERROR,
        OS_ERROR,
        alone=True,
    ),
    Attack(
        # a tmpfs has a limit of inodes beside that of bytes
        "use up the names in the scratch space",
        GROUP,
        ("os.mkdir('many')\nfor n in range(200_000): open(f'many/{n}', 'w').close()",),
        ERROR,
        OS_ERROR,
        alone=True,
        timeout_s=15.0,
    ),
    Attack(
        "fill the shared memory",
        GROUP,
        ("for n in range(10_000): open(f'/dev/shm/{os.getpid()}-{n}', 'wb').write(bytes(1 << 20))",),
        ERROR,
        OS_ERROR,
        alone=True,
    ),
    Attack(
        "write a huge file",
        GROUP,
        ("open('large', 'wb').write(bytes(200 << 20))",),
        ERROR,
        OS_ERROR | MEMORY,
        needs=Needs.NOTHING,
    ),
    Attack(
        "open files without end",
        GROUP,
        ("files = []\nwhile True: files.append(os.open('/dev/null', 0))",),
        ERROR,
        OS_ERROR,
        needs=Needs.NOTHING,
    ),
    Attack(
        "fork without end",
        GROUP,
        ("while True:\n    try: os.fork()\n    except OSError: pass",),
        TIMEOUT,
        alone=True,
        timeout_s=1.0,
    ),
    Attack(
        # setsid leaves the group and the session of processes that a kill by either would find
        "fork without end from daemons",
        GROUP,
        (
            cell("""
            while True:
                try:
                    if os.fork() == 0:
                        os.setsid()
                except OSError:
                    pass
                else:
                    os.fork() and os._exit(0)
            """),
        ),
        STOPPED,
        alone=True,
        timeout_s=1.0,
    ),
    Attack(
        "start threads without end",
        GROUP,
        ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",),
        ERROR,
        frozenset({"RuntimeError"}),
    ),
    Attack(
        "start programs without end",
        GROUP,
        ("import subprocess\nwhile True: subprocess.Popen(['sleep', '100'], start_new_session=True)",),
        ERROR,
        frozenset({"BlockingIOError"}),
        alone=True,
    ),
    Attack(
        "keep every core busy",
        GROUP,
        ("for _ in range(10):\n    if os.fork() == 0: break\nwhile True: pass",),
        TIMEOUT,
        alone=True,
        timeout_s=1.0,
    ),
    _denied(
        "raise its own limits",
        """
        import resource
        for which in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
            try:
                resource.setrlimit(which, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                breach('a limit')
            except ValueError as error:
                refusal = PermissionError(str(error))
        raise refusal
        """,
    ),
    _denied(
        "leave memory behind that belongs to no process",
        """
        all_forbidden('shmget', 'msgget', 'semget', 'mq_open')
        """,
    ),
    _denied("leave a message queue behind", "open('/dev/mqueue/left', 'w'); breach('a queue')"),
    # fs.aio-max-nr is one number for the machine; sync waits for every disk of it
    _denied("use up what all containers share", "all_forbidden('io_setup', 'mlockall', 'sync')"),
    Attack(
        "print without end",
        GROUP,
        ("while True: print('x' * 10_000)",),
        TIMEOUT,
        check=_bounded(images=0, characters=70_000),
        needs=Needs.NOTHING,
        alone=True,
        timeout_s=1.0,
    ),
    Attack(
        # descriptor 1 itself: sys.stdout and its bound are not asked
        "print without end past Python",
        GROUP,
        ("while True: os.write(1, b'x' * 10_000)",),
        STOPPED,
        OS_ERROR | CRASH,
        check=_bounded(images=0, characters=70_000),
        needs=Needs.NOTHING,
        alone=True,
        timeout_s=1.0,
    ),
    Attack(
        "show images without end",
        GROUP,
        ("from PIL import Image\nwhile True: Image.effect_noise((256, 256), 99).show()",),
        TIMEOUT,
        check=_bounded(images=8, characters=0),
        needs=Needs.NOTHING,
        alone=True,
        timeout_s=1.0,
    ),
    Attack(
        "show an image of 40 million pixels",
        GROUP,
        ("from PIL import Image\nImage.new('L', (8000, 5000)).show()",),
        OK,
        check=_bounded(images=1, characters=0),
        needs=Needs.NOTHING,
        alone=True,
    ),
)
