"""Attacks on the connections: between the runner of a session and its supervisor, and to the host."""

from __future__ import annotations

from sandbox_security.attacks.attack import (
    DENIED,
    ERROR,
    KILLED,
    NO_SUCH,
    OK,
    TIMEOUT,
    Attack,
    Evidence,
    Fate,
    Needs,
    cell,
    said,
)

GROUP = "protocol"
DEATHS = frozenset({"ProcessExit", "Crash"})


def _noise(name: str, code: str) -> Attack:
    """Something said to the supervisor that is no honest report: the cell has failed then, and nothing else has."""
    return Attack(name, GROUP, (cell(code),), ERROR, DEATHS, needs=Needs.NOTHING)


def _forged_image(name: str, code: str, alone: bool = False) -> Attack:
    """An image that the host must not believe. It ends the session."""
    statuses = KILLED
    return Attack(
        name, GROUP, (cell(code),), statuses, check=_frugal, fate=Fate.SPOILED, needs=Needs.NOTHING, alone=alone
    )


def _frugal(evidence: Evidence) -> str:
    return f"the host needed {evidence.host_growth_mb:.0f} MiB for it" if evidence.host_growth_mb > 300 else ""


def _flood(name: str, data: str) -> Attack:
    code = f"data, channel = {data}, supervisor_channel()\nwhile True: channel.sendall(data)"
    return Attack(
        name,
        GROUP,
        (code,),
        KILLED | TIMEOUT | ERROR,
        check=_frugal,
        fate=Fate.SPOILED,
        needs=Needs.NOTHING,
        alone=True,
        timeout_s=1.0,
    )


ATTACKS = (
    _noise("send the supervisor noise", "supervisor_channel().sendall(os.urandom(1000))\nos._exit(0)"),
    # a frame begins with its length, four bytes, the first the highest
    _noise("announce a frame of 4 GiB", "supervisor_channel().sendall(b'\\xff\\xff\\xff\\xff')\nos._exit(0)"),
    _noise("send it half a frame", "supervisor_channel().sendall(success(mark())[:-2])\nos._exit(0)"),
    _noise(
        "send it nonsense in a frame", "supervisor_channel().sendall(frame({'cell': mark(), 'done': 5}))\nos._exit(0)"
    ),
    _noise(
        "show it an image without pixels",
        "supervisor_channel().sendall(frame({'cell': mark(), 'image': {}}))\nos._exit(0)",
    ),
    _noise(
        "report that the container is full, which is not so",
        "supervisor_channel().sendall(frame({'cell': mark(), 'lacks': 'files'}))\nwhile True: pass",
    ),
    _noise(
        "report that memory has run out",
        "supervisor_channel().sendall(frame({'cell': mark(), 'lacks': 'memory'}))\nwhile True: pass",
    ),
    # 0x91 is an array of one: 5,000 levels are more than a decoder that recurses can take
    _noise("send it a map nested without end", "supervisor_channel().sendall(frame(b'\\x91' * 5000))\nos._exit(0)"),
    _flood(
        "flood the supervisor with images",
        "frame({'cell': mark(), 'image': {'png': bytes(8 << 20), 'sha256': '', 'width': 1, 'height': 1}})",
    ),
    _flood("flood the supervisor with noise", "bytes(1 << 20)"),
    _flood("flood the supervisor with reports of no cell", "frame({'cell': b'', 'done': {}}) * 10_000"),
    _flood(
        # 16 MiB on the wire: an array of as many empty ones, each a Python list once decoded
        "send the supervisor a frame that is huge once decoded",
        "frame(b'\\x81\\xa1a\\xdd\\x01\\x00\\x00\\x00' + b'\\x90' * 16777216)",
    ),
    _flood(
        # the same in two levels, each of them within a bound on the length of an array
        "send the supervisor many small maps",
        "frame(b'\\x81\\xa1a\\xdc\\x00\\xff' + (b'\\xdc\\x00\\xff' + b'\\x90' * 255) * 255)",
    ),
    _forged_image(
        "show a forged image that is none",
        """
        image = {'png': b'junk', 'sha256': 'f' * 64, 'width': 9, 'height': 9}
        supervisor_channel().sendall(frame({'cell': mark(), 'image': image}))
        """,
    ),
    _forged_image(
        # 16 kB that claim 65,535 x 65,535 pixels: the size must be looked at before anything is decoded
        "show a forged image of 4 thousand million pixels",
        """
        import zlib
        def chunk(kind, data):
            return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        bomb = b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 65535, 65535, 8, 2, 0, 0, 0))
        bomb += chunk(b'IDAT', zlib.compress(bytes(1 << 24))) + chunk(b'IEND', b'')
        image = {'png': bomb, 'sha256': '', 'width': 1, 'height': 1}
        supervisor_channel().sendall(frame({'cell': mark(), 'image': image}))
        """,
        alone=True,
    ),
    Attack(
        "close every connection it can find",
        GROUP,
        ("os.closerange(3, 256)\nos._exit(0)",),
        ERROR,
        DEATHS,
        needs=Needs.NOTHING,
    ),
    Attack(
        "connect to the host itself",
        GROUP,
        (
            cell("""
            peer = socket.socket(socket.AF_UNIX)
            peer.settimeout(1)
            peer.connect('/run/codedance/host.sock')
            name = open('/proc/1/cmdline').read().split('\\0--name\\0')[1].split('\\0')[0]
            for role in ('init process', 'zygote', 'session'):
                peer.sendall(frame({'op': 'hello', 'version': 1, 'name': name, 'role': role, 'session': 'x'}))
            if not peer.recv(1):
                raise PermissionError('the host hung up')
            breach('the host answers')
            """),
        ),
        ERROR,
        DENIED | NO_SUCH | {"BrokenPipeError", "ConnectionResetError"},
        needs=Needs.CONTAINER,
    ),
    Attack(
        "hold the host's connections open",
        GROUP,
        (
            cell("""
            held = []
            for _ in range(200):
                peer = socket.socket(socket.AF_UNIX)
                peer.settimeout(1)
                peer.connect('/run/codedance/host.sock')
                held.append(peer)
            if not held[-1].recv(1):
                raise PermissionError('the host hung up')
            breach('a connection')
            """),
        ),
        ERROR,
        DENIED | NO_SUCH | {"BrokenPipeError", "ConnectionResetError"},
    ),
    Attack(
        "use the connection to the host",
        GROUP,
        (
            cell("""
            if host_connection() is None:
                raise PermissionError('there is none')
            breach('a connection to the host')
            """),
        ),
        ERROR,
        DENIED,
        needs=Needs.NOTHING,
    ),
    Attack(
        "report a later cell before it has begun",
        GROUP,
        (
            "report = success(mark())\nwhen_idle(lambda: supervisor_channel().sendall(report * 100))",
            "import time; time.sleep(0.5); print('slept')",
        ),
        OK,
        check=lambda evidence: said(evidence, "slept"),
        fate=Fate.SPOILED,
        needs=Needs.NOTHING,
        pause_s=0.6,
    ),
    Attack(
        # a report bears the mark of its cell, which no process knows before the cell has begun
        "report every later cell from a daemon",
        GROUP,
        (
            cell("""
            report, channel = success(mark()), supervisor_channel()
            if os.fork() == 0:
                os.setsid()
                while True: channel.sendall(report)
            """),
            "while True: pass",
        ),
        TIMEOUT,
        needs=Needs.NOTHING,
        timeout_s=0.5,
    ),
    Attack(
        "pass a strange process off as the runner",
        GROUP,
        ("supervisor_channel().sendall(frame({'runner': 1}))\nwhile True: pass",),
        TIMEOUT,
        fate=Fate.SPOILED,
        needs=Needs.NOTHING,
        timeout_s=0.5,
    ),
    Attack(
        "answer in the place of the checkpoint",
        GROUP,
        (
            cell("""
            answer, call = frame({'runner': os.getpid(), 'names': ['forged'] * 10}), checkpoint_call()
            if os.fork() == 0:
                os.setsid()
                while True: call.sendall(answer)
            while True: pass
            """),
        ),
        TIMEOUT | KILLED,
        fate=Fate.SPOILED,
        needs=Needs.NOTHING,
        timeout_s=0.5,
    ),
    Attack(
        "let no call reach the checkpoint",
        GROUP,
        (
            cell("""
            call = checkpoint_call()
            for _ in range(4):
                if os.fork() == 0:
                    while True: call.recv(1)
            while True: pass
            """),
        ),
        TIMEOUT | KILLED,
        fate=Fate.SPOILED,
        needs=Needs.OWN_UIDS,
        timeout_s=0.5,
    ),
)
