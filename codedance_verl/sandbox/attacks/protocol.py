"""Against the connections: between the copy that runs a cell and its head, and between the head and the host."""

from __future__ import annotations

from codedance_verl.sandbox.attacks.attack import (
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
)

GROUP = "protocol"
WAIT = "import time; time.sleep(6)"
DEATHS = frozenset({"ProcessExit", "Crash"})


def _to_head(name: str, code: str) -> Attack:
    """Something said to the head that is no honest report: the cell has failed then, and the head is unharmed."""
    return Attack(name, GROUP, (cell(code),), ERROR, DEATHS, needs=Needs.NOTHING)


def _to_host(name: str, act: str, check: str = "", pause_s: float = 0.0) -> Attack:
    """Something said to the host by a session that has made itself head. The host ends the session and says so."""
    code = f"def act(host):\n    {act}\nonce_head(act)"
    return Attack(
        name, GROUP, (code, WAIT), KILLED, fate=Fate.SPOILED, needs=Needs.NOTHING, pause_s=pause_s, timeout_s=8.0
    )


def _frugal(evidence: Evidence) -> str:
    return f"the host needed {evidence.host_growth_mb:.0f} MiB for it" if evidence.host_growth_mb > 300 else ""


def _flood(name: str, act: str) -> Attack:
    code = f"def act(host):\n    {act}\nonce_head(act)"
    return Attack(
        name,
        GROUP,
        (code, WAIT),
        KILLED,
        check=_frugal,
        fate=Fate.SPOILED,
        needs=Needs.NOTHING,
        alone=True,
        timeout_s=8.0,
    )


ATTACKS = (
    _to_head("tell the head noise", "head_channel().sendall(os.urandom(1000))\nos._exit(0)"),
    _to_head("tell the head of a frame of 4 GiB", "head_channel().sendall(b'\\xff\\xff\\xff\\xff')\nos._exit(0)"),
    _to_head("tell the head half a frame", "head_channel().sendall(frame({'done': 1})[:-2])\nos._exit(0)"),
    _to_head("tell the head nonsense in a frame", "head_channel().sendall(frame({'done': 5}))\nos._exit(0)"),
    _to_head("tell the head an image without a picture", "head_channel().sendall(frame({'image': {}}))\nos._exit(0)"),
    _to_head("tell the head a map nested without end", "head_channel().sendall(frame(b'\\x91' * 5000))\nos._exit(0)"),
    Attack(
        "flood the head with images",
        GROUP,
        (
            cell("""
            picture = {'image': {'png': bytes(8 << 20), 'sha256': '', 'width': 1, 'height': 1}}
            data, channel = frame(picture), head_channel()
            while True: channel.sendall(data)
            """),
        ),
        KILLED | TIMEOUT | ERROR,
        fate=Fate.SPOILED,
        needs=Needs.NOTHING,
        alone=True,
        timeout_s=1.0,
    ),
    Attack(
        "show a forged picture that is none",
        GROUP,
        (
            cell("""
            head_channel().sendall(frame({'image': {'png': b'junk', 'sha256': 'f' * 64, 'width': 9, 'height': 9}}))
            """),
        ),
        KILLED,
        fate=Fate.SPOILED,
        needs=Needs.NOTHING,
    ),
    Attack(
        "show a forged picture of 4 thousand million pixels",
        GROUP,
        (
            cell("""
            import zlib
            def chunk(kind, data):
                return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
            bomb = b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 65535, 65535, 8, 2, 0, 0, 0))
            bomb += chunk(b'IDAT', zlib.compress(bytes(1 << 24))) + chunk(b'IEND', b'')
            head_channel().sendall(frame({'image': {'png': bomb, 'sha256': '', 'width': 1, 'height': 1}}))
            """),
        ),
        KILLED,
        check=_frugal,
        fate=Fate.SPOILED,
        needs=Needs.NOTHING,
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
            for role in ('keeper', 'zygote', 'session'):
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
    _to_host("answer the host before it has asked", "host.sendall(result(3, stdout='forged'))", pause_s=1.5),
    _to_host("answer the host for a later call", "host.sendall(result(99))"),
    _to_host("tell the host that it was stopped", "host.sendall(result(3, outcome='cancelled', error={}))"),
    _to_host("tell the host noise", "host.sendall(os.urandom(1000))"),
    _to_host("tell the host of a frame of 4 GiB", "host.sendall(b'\\xff\\xff\\xff\\xff')"),
    _to_host("tell the host a result of the wrong kinds", "host.sendall(result(3, stdout=5, images='many'))"),
    _to_host("tell the host a result without end", "host.sendall(result(3, stdout='x' * 10_000_000))"),
    _to_host("show the host too many images", "host.sendall(result(3, images=[{'png': b''}] * 100))"),
    _to_host("hang up on the host", "host.shutdown(socket.SHUT_RDWR)"),
    _flood("flood the host with results", "while True: host.sendall(result(3, stdout='x' * 30_000_000))"),
    _flood(
        "send the host a frame that is huge once decoded",
        "host.sendall(frame(b'\\x81\\xa1a\\xdd\\x03\\x00\\x00\\x00' + b'\\x90' * 50331648))",
    ),
    _flood(
        "send the host many small maps",
        "host.sendall(frame(b'\\x81\\xa1a\\xdc\\x00\\xff' + (b'\\xdc\\x00\\xff' + b'\\x90' * 255) * 255))",
    ),
    Attack(
        "answer every later call from a daemon",
        GROUP,
        (
            cell("""
            def serve(host):
                import codedance_interpreter.wire as wire
                for _ in range(3):
                    request = wire.receive(host)
                    if request['op'] == 'run':
                        host.sendall(result(request['call'], stdout='forged'))
                os._exit(0)
            once_head(serve)
            """),
            "1",
            "2",
        ),
        OK | KILLED,
        fate=Fate.SPOILED,
        needs=Needs.OWN_UIDS,
    ),
)
