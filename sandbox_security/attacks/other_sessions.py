"""Attacks on the next session in the same container, whose secret, processes and files the attacker can name."""

from __future__ import annotations

from sandbox_security.attacks.attack import DENIED, ERROR, KILLED, OK, Attack, Fate, Needs, cell

GROUP = "other sessions"


def _denied(name: str, code: str, needs: Needs = Needs.OWN_UIDS) -> Attack:
    """An attack that is refused; one on the neighbour's process is alone with it, since that changes with each cell."""
    return Attack(name, GROUP, (cell(code),), ERROR, DENIED, needs=needs, alone="NEIGHBOUR['pid']" in code)


ATTACKS = (
    _denied("kill it", "os.kill(NEIGHBOUR['pid'], 9); breach('killed')"),
    _denied("stop it", "os.kill(NEIGHBOUR['pid'], signal.SIGSTOP); breach('stopped')"),
    # kill(-1) reaches every process of the uid: with uids of their own that is the session itself
    Attack("kill all it may", GROUP, (cell("os.kill(-1, 9)\nimport time; time.sleep(1)"),), KILLED | ERROR | OK),
    _denied("list its folder", "breach(os.listdir(NEIGHBOUR['folder']))"),
    _denied("read its file", "unreadable(NEIGHBOUR['folder'] + '/secret.txt')"),
    _denied("read what it left in the shared folder", "unreadable(NEIGHBOUR['shared_file'])"),
    _denied("write into its folder", "unwritable(NEIGHBOUR['folder'] + '/secret.txt', NEIGHBOUR['folder'] + '/new')"),
    _denied(
        "remove or replace its files",
        """
        for strike in (lambda: os.rename(NEIGHBOUR['folder'], '/tmp/mine'), lambda: os.unlink(NEIGHBOUR['shared_file']),
                       lambda: os.rmdir(NEIGHBOUR['folder']), lambda: os.chmod(NEIGHBOUR['folder'], 0o777)):
            try:
                strike()
                breach('its files')
            except PermissionError as error:
                refusal = error
        raise refusal
        """,
        Needs.CONTAINER,
    ),
    _denied(
        # sessions share the zygote's pages by a memfd; the name in map_files is the range without leading zeros
        "write to the memory that all sessions were forked from",
        """
        shared = next(line.split()[0] for line in open('/proc/self/maps') if 'memfd:zygote' in line)
        name = '-'.join(f'{int(address, 16):x}' for address in shared.split('-'))
        with open(f'/proc/self/map_files/{name}', 'r+b') as memory:
            breach(memory.write(b'x'))
        """,
        Needs.CONTAINER,
    ),
    _denied(
        "list the shared folders",
        "breach([name for name in os.listdir('/scratch')])",
        Needs.CONTAINER,
    ),
    _denied(
        "read its memory and descriptors",
        """
        of = f"/proc/{NEIGHBOUR['pid']}"
        unreadable(f'{of}/environ', f'{of}/maps', f'{of}/mem', f'{of}/stack', f'{of}/cwd/secret.txt', f'{of}/fd/3')
        """,
    ),
    _denied("trace it", "forbidden('ptrace', 16, NEIGHBOUR['pid'], 0, 0)", Needs.CONTAINER),
    _denied(
        "change its limits, priority or cores",
        """
        import resource
        pid = NEIGHBOUR['pid']
        for strike in (lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0)),
                       lambda: os.sched_setaffinity(pid, {0}), lambda: os.setpriority(os.PRIO_PROCESS, pid, 19)):
            try:
                strike()
                breach('its limits')
            except PermissionError as error:
                refusal = error
        raise refusal
        """,
    ),
    _denied("have it killed first when memory runs out", "unwritable(f\"/proc/{NEIGHBOUR['pid']}/oom_score_adj\")"),
    Attack(
        # every session with this image maps the same memory file
        "change an image that sessions share",
        GROUP,
        (
            cell("""
            import mmap
            input_image.paste((0, 0, 0), (0, 0, 64, 48))  # a copy of its own
            paths = [f'/proc/self/fd/{number}' for number in os.listdir('/proc/self/fd')]
            (path,) = [path for path in paths if os.path.exists(path) and os.readlink(path).startswith('/memfd:image')]
            file = os.open(path, os.O_RDWR)
            for strike in (lambda: os.pwrite(file, bytes(8192), 0), lambda: os.ftruncate(file, 0),
                           lambda: os.posix_fallocate(file, 0, 1 << 20), lambda: os.sendfile(file, file, 0, 4096),
                           lambda: mmap.mmap(file, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)):
                try:
                    strike()
                    breach('the image')
                except PermissionError as error:
                    refusal = error
            raise refusal
            """),
        ),
        ERROR,
        DENIED,
        needs=Needs.NOTHING,
        with_image=True,
    ),
    Attack(
        # sessions are forked from one process: what one writes must be its own copy
        "poison the libraries both share",
        GROUP,
        (
            cell("""
            import builtins, json, numpy, PIL.Image
            numpy.zeros = numpy.ones
            PIL.Image.Image.show = PIL.Image.Image.save = json.dumps = lambda *a, **k: 'poisoned'
            builtins.open = lambda *a, **k: 1/0
            ctypes.memset(id(251) + 24, 252, 1)  # the number 251 is 252 from here on
            """),
        ),
        OK,
        fate=Fate.SPOILED,
        needs=Needs.NOTHING,
    ),
    Attack(
        "leave a module where it looks for them",
        GROUP,
        (
            cell("""
            import sys
            folders = [item for item in sys.path if os.path.isdir(item)]
            unwritable(*(f'{item}/sitecustomize.py' for item in folders), *(f'{item}/colorsys.py' for item in folders))
            """),
        ),
        ERROR,
        DENIED | {"OSError"},
    ),
    Attack(
        "search all that can be read for secrets",
        GROUP,
        (
            cell("""
            import time
            ended = time.monotonic() + 2
            paths = [f'/proc/{pid}/{name}' for pid in os.listdir('/proc') if pid.isdigit()
                     for name in ('environ', 'cmdline', 'comm', 'mountinfo', 'cgroup', 'status', 'maps')]
            for top in ('/tmp', '/dev', '/run', '/etc', '/var', '/home', '/root', '/mnt', '/opt/codedance/program'):
                paths += [f'{folder}/{name}' for folder, _, names in os.walk(top) for name in names]
            for path in paths:
                try:
                    if path.startswith('/proc') or os.path.isfile(path):
                        text = open(path, 'rb').read(1 << 16)
                except OSError:
                    continue
                at = text.find(b'codedance-secret-')
                if at >= 0:
                    print(path, text[at : at + 64])
                if time.monotonic() > ended:
                    break
            """),
        ),
        OK,
    ),
)
