"""Attacks that reach for the network, or for any socket but the interpreter's own."""

from __future__ import annotations

from sandbox_security.attacks.attack import DENIED, ERROR, NO_SUCH, OK, Attack, cell

GROUP = "network"
NO_ADDRESS = frozenset({"gaierror"})


def _denied(name: str, code: str) -> Attack:
    return Attack(name, GROUP, (cell(code),), ERROR, DENIED)


ATTACKS = (
    _denied("TCP over IPv4", "no_socket(socket.AF_INET)"),
    _denied("TCP over IPv6", "no_socket(socket.AF_INET6)"),
    _denied("UDP", "no_socket(socket.AF_INET, socket.SOCK_DGRAM)"),
    _denied("raw packets over IP", "no_socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
    _denied("sockets to the hypervisor (vsock)", "no_socket(40)"),
    _denied("the kernel's own protocol (netlink)", "no_socket(16, socket.SOCK_RAW)"),
    _denied("packets on the wire (packet)", "no_socket(17, socket.SOCK_RAW)"),
    _denied("the kernel's ciphers (alg)", "no_socket(38, socket.SOCK_SEQPACKET)"),
    _denied(
        # 1 is AF_UNIX, which the interpreter itself is connected by
        "any other family of sockets",
        """
        for family in [item for item in range(64) if item != 1]:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
                try:
                    no_socket(family, kind)
                except PermissionError:
                    pass
        raise PermissionError('none')
        """,
    ),
    _denied(
        # the kernel reads the family as 32 bits, a filter as 64: one that compares all of them lets this pass
        "a family hidden in the upper half of a register",
        """
        number = {'x86_64': 41, 'aarch64': 198}[platform.machine()]
        for family in (2, 16, 40, 1):
            wide = (ctypes.c_long(item) for item in (number, family | 1 << 32, 1, 0))
            if _libc.syscall(*wide) >= 0:
                breach(f'family {family}')
        raise PermissionError('none')
        """,
    ),
    Attack(
        # metadata of a cloud's machine, the internet, an engine's API on the bridge of Docker
        "fetch a page",
        GROUP,
        (
            cell("""
            import urllib.request
            for url in ('http://169.254.169.254/', 'http://1.1.1.1/', 'http://172.17.0.1:2375/version'):
                try:
                    urllib.request.urlopen(url, timeout=1)
                    breach(url)
                except OSError as error:
                    refusal = error
            raise refusal
            """),
        ),
        ERROR,
        frozenset({"URLError"}),
    ),
    Attack(
        "look up a name", GROUP, (cell("breach(socket.getaddrinfo('example.com', 80))"),), ERROR, NO_ADDRESS | DENIED
    ),
    _denied(
        # an abstract name belongs to the network namespace, which sessions share; a path needs a writable folder
        "offer a server to other sessions",
        """
        for address in ('\\0meeting-place', 'meeting-place'):
            server = socket.socket(socket.AF_UNIX)
            try:
                server.bind(address)
                server.listen()
                breach(f'a server at {address!r}')
            except PermissionError as error:
                refusal = error
        raise refusal
        """,
    ),
    Attack(
        "reach sockets of the host by their abstract names",
        GROUP,
        (
            cell("""
            names = [line.split()[-1] for line in open('/proc/net/unix') if '@' in line]
            for name in [*names, '@/containerd-shim/moby', '@/tmp/.X11-unix/X0', '@/run/dbus']:
                peer = socket.socket(socket.AF_UNIX)
                try:
                    peer.connect('\\0' + name[1:])
                    breach(name)
                except OSError as error:
                    refusal = error
            raise refusal
            """),
        ),
        ERROR,
        DENIED | NO_SUCH,
    ),
    Attack(
        "reach the container engine",
        GROUP,
        (
            cell("""
            for path in ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock',
                         '/run/podman/podman.sock'):
                peer = socket.socket(socket.AF_UNIX)
                try:
                    peer.connect(path)
                    breach(path)
                except OSError as error:
                    refusal = error
            raise refusal
            """),
        ),
        ERROR,
        DENIED | NO_SUCH,
    ),
    Attack(
        "find a network interface",
        GROUP,
        (
            cell("""
            for name in os.listdir('/sys/class/net'):
                if name != 'lo':
                    breach(name)
            """),
        ),
        OK,
    ),
)
