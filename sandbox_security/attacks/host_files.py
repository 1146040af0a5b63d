"""Attacks on files of the host, and on those of the container that sessions must not change."""

from __future__ import annotations

from sandbox_security.attacks.attack import DENIED, ERROR, NO_SUCH, OK, Attack, Needs, cell

GROUP = "host files"
READ_ONLY = frozenset({"OSError"})  # EROFS has no class of its own


def _fails(name: str, code: str, refusals: frozenset[str] = DENIED | NO_SUCH | READ_ONLY) -> Attack:
    return Attack(name, GROUP, (cell(code),), ERROR, refusals)


ATTACKS = (
    _fails("read a file of the host by its path", "unreadable(HOST['secret_file'])"),
    _fails(
        # /proc/PID/root is the root of that process, whatever this one's is
        "read a file of the host through another process",
        "unreadable('/proc/1/root' + HOST['secret_file'], '/proc/1/cwd' + HOST['secret_file'],"
        " f\"/proc/{os.getppid()}/root\" + HOST['secret_file'])",
    ),
    _fails(
        "read a file of the host through a link",
        """
        os.symlink('/proc/1/root', 'way'); os.symlink('../' * 40 + HOST['secret_file'], 'other')
        unreadable('way' + HOST['secret_file'], 'other')
        """,
    ),
    Attack(
        "find the host's environment",
        GROUP,
        (
            cell("""
            import subprocess
            print(dict(os.environ), subprocess.run(['env'], capture_output=True, text=True).stdout)
            for pid in ('self', '1', str(os.getppid())):
                try:
                    print(open(f'/proc/{pid}/environ').read())
                except OSError as error:
                    print(error)
            """),
        ),
        OK,
        needs=Needs.NOTHING,
    ),
    _fails(
        "change the container's accounts", "unwritable('/etc/passwd', '/etc/shadow', '/etc/ld.so.preload', '/etc/new')"
    ),
    _fails(
        # these files are run in every later session
        "change the interpreter",
        "import msgpack, codedance_interpreter.session as program\n"
        "unwritable(program.__file__, msgpack.__file__, os.path.dirname(program.__file__) + '/new.py')",
    ),
    _fails("write beside the host's socket", "unwritable('/run/codedance/new', '/run/new')"),
    _fails("take the place of the host's socket", "os.unlink('/run/codedance/host.sock'); breach('removed')"),
    Attack(
        # os.access asks the kernel with the real uid; opening a file is the proof
        "find a place to write outside the scratch space",
        GROUP,
        (
            cell("""
            allowed = ('/tmp', '/dev/shm', '/proc', '/sys', os.getcwd())
            for folder, folders, _ in os.walk('/'):
                folders[:] = [name for name in folders if os.path.join(folder, name) not in allowed]
                if os.access(folder, os.W_OK):
                    try:
                        open(f'{folder}/mine', 'w')
                        breach(folder)
                    except OSError:
                        pass
            """),
        ),
        OK,
    ),
    _fails("read the kernel's memory", "unreadable('/proc/kcore', '/dev/mem', '/dev/kmem')"),
    _fails(
        # the mounts of a container name the devices below its file systems
        "read the disks of the host",
        """
        devices = {line.split()[0] for line in open('/proc/mounts') if line.startswith('/dev/')}
        unreadable(*devices, '/dev/sda', '/dev/vda', '/dev/nvme0n1')
    """,
    ),
    _fails(
        "read keys and firmware of the host",
        """
        for folder in ('/sys/firmware', '/proc/acpi', '/proc/scsi'):
            if os.path.isdir(folder) and os.listdir(folder):
                breach(folder)
        for path in ('/proc/keys', '/proc/timer_list', '/proc/sched_debug', '/proc/latency_stats'):
            if os.path.exists(path) and open(path, 'rb').read(16):
                breach(path)
        unreadable('/sys/firmware/dmi/tables/DMI')
    """,
    ),
)
