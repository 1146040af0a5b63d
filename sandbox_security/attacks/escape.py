"""Attacks that break out of the container, or deeper into the kernel than a Python program needs."""

from __future__ import annotations

from sandbox_security.attacks.attack import DENIED, ERROR, NO_SUCH, OK, Attack, cell

GROUP = "escape"
CRASH = frozenset({"Crash"})


def _denied(name: str, code: str) -> Attack:
    return Attack(name, GROUP, (cell(code),), ERROR, DENIED)


ATTACKS = (
    _denied("trace a process", "forbidden('ptrace', 0, 0, 0, 0)"),
    _denied("read and write the memory of a process", "all_forbidden('process_vm_readv', 'process_vm_writev')"),
    # CLONE_NEWUSER: in a user namespace of its own a process would hold every capability
    _denied("leave for a namespace of its own", "forbidden('unshare', 0x10000000)"),
    _denied(
        # all CLONE_NEW flags but that of time, and SIGCHLD: a filter must look into the flags of clone too
        "fork into namespaces of its own",
        """
        try:
            pid = syscall('clone', 0x7E020000 | 17, 0, 0, 0, 0)
            if pid == 0:
                os._exit(0)
            breach('a process in new namespaces')
        except OSError as error:
            raise PermissionError(str(error)) from None
        """,
    ),
    _denied(
        # clone3 takes its flags by pointer, which no seccomp filter can follow: the call must not exist at all
        "hide the flags of a fork in memory",
        """
        try:
            syscall('clone3', 0, 0)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                breach(f'clone3 reached the kernel: {error}')
            raise PermissionError(str(error)) from None
        """,
    ),
    _denied(
        # the init process has a session's user id while it kills it, and would be slow for all from then on
        "take cores or priority from another process",
        """
        child = os.fork()
        if child == 0:
            time.sleep(60)
        for strike in (lambda: os.setpriority(os.PRIO_PROCESS, child, 19), lambda: os.sched_setaffinity(child, {0}),
                       lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19)):
            try:
                strike()
                breach('another process')
            except PermissionError as error:
                refusal = error
        raise refusal
        """,
    ),
    _denied("join another namespace", "forbidden('setns', -1, 0)"),
    _denied(
        "mount a file system",
        "all_forbidden('mount', 'umount2', 'pivot_root', 'fsopen', 'open_tree', 'move_mount', 'mount_setattr')",
    ),
    _denied("change the root", "forbidden('chroot', b'.')"),
    _denied("load a program into the kernel", "all_forbidden('bpf')"),
    _denied("count what other programs do", "all_forbidden('perf_event_open')"),
    _denied("use the kernel's keyrings", "all_forbidden('add_key', 'request_key', 'keyctl')"),
    # a fault handler that waits holds the kernel in the middle of a copy, which makes its races easy to win
    _denied("handle page faults itself", "forbidden('userfaultfd', 1)"),
    _denied(
        # the kernel runs what is submitted there without asking the filter of the thread
        "pass calls by the filter through io_uring",
        "all_forbidden('io_uring_setup', 'io_uring_enter', 'io_uring_register')",
    ),
    # a handle names a file of the whole file system, outside of the root of the container too
    _denied("open files by handle", "all_forbidden('name_to_handle_at', 'open_by_handle_at')"),
    _denied("watch what others do with files", "all_forbidden('inotify_init1', 'fanotify_init')"),
    _denied("load a kernel module", "all_forbidden('init_module', 'finit_module', 'delete_module')"),
    _denied("start another kernel", "all_forbidden('kexec_load', 'kexec_file_load', 'reboot')"),
    # ADDR_NO_RANDOMIZE
    _denied("weaken address randomisation", "forbidden('personality', 0x0040000)"),
    _denied("reach hardware ports", "all_forbidden('iopl', 'ioperm', 'modify_ldt')"),
    _denied("set the clock", "all_forbidden('clock_settime', 'settimeofday', 'adjtimex')"),
    _denied("take descriptors of another process", "all_forbidden('pidfd_open', 'pidfd_getfd', 'kcmp')"),
    _denied(
        "administer the machine",
        "all_forbidden('acct', 'swapon', 'swapoff', 'quotactl', 'sethostname', 'setdomainname', 'vhangup', 'syslog')",
    ),
    _denied("filter system calls itself", "forbidden('seccomp', 2, 0, 0)"),
    _denied(
        "call rarely used and often broken parts of the kernel",
        "all_forbidden('splice', 'tee', 'vmsplice', 'remap_file_pages', 'move_pages', 'migrate_pages', 'mbind',"
        " 'memfd_secret', 'process_madvise', 'sched_setattr', 'ioprio_set', 'pkey_alloc', 'lookup_dcookie',"
        " 'landlock_create_ruleset')",
    ),
    Attack(
        # int 0x80 enters by the 32-bit table, whose numbers mean other calls to a filter for x86_64
        "call the kernel as a 32-bit program",
        GROUP,
        (
            cell("""
            import mmap
            if platform.machine() != 'x86_64':
                raise PermissionError('no such entry on this machine')
            memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
            memory.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')  # mov eax, getpid; int 0x80; ret
            address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            if ctypes.CFUNCTYPE(ctypes.c_int)(address)() == os.getpid():
                breach('the 32-bit calls')
            raise PermissionError('the kernel does not offer 32-bit calls')
            """),
        ),
        ERROR,
        CRASH | DENIED,
    ),
    Attack(
        # bit 30 marks an x32 call: the same entry, other numbers
        "call the kernel by its x32 numbers",
        GROUP,
        (
            cell("""
            if _libc.syscall(ctypes.c_long(0x40000000 + 39)) == os.getpid() and platform.machine() == 'x86_64':
                breach('the x32 calls')
            raise PermissionError('refused')
            """),
        ),
        ERROR,
        CRASH | DENIED,
    ),
    _denied(
        # TIOCSTI types into the terminal that the container was started from; 0x541C is TIOCLINUX
        "type into a terminal",
        """
        import fcntl, termios
        for request in (termios.TIOCSTI, termios.TIOCCONS, 0x541C):
            try:
                fcntl.ioctl(0, request, b'x')
                breach(f'ioctl {request:#x}')
            except OSError as error:
                if error.errno != errno.EPERM:
                    breach(f'ioctl {request:#x} reached the kernel: {error}')
        raise PermissionError('refused')
        """,
    ),
    _denied(
        "become root",
        """
        for become in (os.setuid, os.setgid, os.seteuid, os.setegid, lambda uid: os.setgroups([uid])):
            try:
                become(0)
                breach('an id of root')
            except PermissionError as error:
                refusal = error
        raise refusal
        """,
    ),
    Attack(
        # a program with file capabilities would gain them at exec, unless no_new_privs is set
        "hold a capability, or gain one by running a program",
        GROUP,
        (
            cell("""
            import subprocess
            told = open('/proc/self/status').read() + subprocess.run(
                ['cat', '/proc/self/status'], capture_output=True, text=True, check=True).stdout
            for line in told.splitlines():
                name, _, value = line.partition(':')
                if name in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb') and int(value, 16):
                    breach(line)
                if name == 'NoNewPrivs' and value.strip() != '1' or name == 'Seccomp' and value.strip() != '2':
                    breach(line)
            """),
        ),
        OK,
    ),
    _denied(
        # PR_SET_DUMPABLE: the files below /proc/PID of a process that is not dumpable belong to root
        "become inspectable, to rewrite the supervisor of its session from the next cell",
        "forbidden('prctl', 4, 1, 0, 0, 0)",
    ),
    Attack(
        "rewrite the memory of the supervisor of its session",
        GROUP,
        (
            cell("ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)"),
            cell("open(f'/proc/{os.getppid()}/mem', 'r+b', buffering=0); breach('the memory of the supervisor')"),
        ),
        ERROR,
        DENIED,
    ),
    _denied(
        "make a device",
        """
        import stat
        for kind in (stat.S_IFBLK, stat.S_IFCHR):
            try:
                os.mknod('device', kind | 0o600, os.makedev(8, 0))
                breach('a device')
            except PermissionError as error:
                refusal = error
        raise refusal
        """,
    ),
    Attack(
        "find a device of the host",
        GROUP,
        (
            cell("""
            known = {'full', 'null', 'random', 'tty', 'urandom', 'zero', 'ptmx', 'console'}
            for folder, _, names in os.walk('/dev'):
                for name in names:
                    mode = os.lstat(f'{folder}/{name}').st_mode
                    if mode & 0o170000 in (0o060000, 0o020000) and name not in known and 'pts' not in folder:
                        breach(f'{folder}/{name}')
            unreadable('/dev/mem', '/dev/kmsg', '/dev/sda', '/dev/vda', '/dev/kvm', '/dev/fuse')
            """),
        ),
        ERROR,
        DENIED | NO_SUCH,
    ),
    Attack(
        "change settings of the kernel",
        GROUP,
        (
            cell("""
            unwritable('/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sys/vm/panic_on_oom',
                       '/proc/sysrq-trigger', '/sys/kernel/uevent_helper', '/proc/self/uid_map')
            """),
        ),
        ERROR,
        DENIED | NO_SUCH | {"OSError"},
    ),
    Attack(
        "escape through its control group",
        GROUP,
        (
            cell("""
            refusal = FileNotFoundError('no control groups in sight')
            for folder, folders, names in os.walk('/sys/fs/cgroup'):
                for name in {'release_agent', 'notify_on_release', 'cgroup.procs', 'memory.max'} & set(names):
                    try:
                        open(f'{folder}/{name}', 'a').write('0')
                        breach(f'{folder}/{name}')
                    except OSError as error:
                        refusal = error
            raise refusal
            """),
        ),
        ERROR,
        DENIED | NO_SUCH | {"OSError"},
    ),
    _denied(
        "run a program of its own from the scratch space",
        """
        import shutil, subprocess
        for folder in ('.', '/tmp', '/dev/shm'):
            path = f'{folder}/program-{os.getpid()}'
            shutil.copyfile('/bin/true', path)
            os.chmod(path, 0o700)
            try:
                subprocess.run([path])
                breach(f'ran {path}')
            except PermissionError as error:
                refusal = error
            finally:
                os.unlink(path)
        raise refusal
        """,
    ),
    _denied(
        "kill what runs the container",
        """
        import signal
        for pid in (1, 2, *(int(name) for name in os.listdir('/proc') if name.isdigit())):
            try:
                status = open(f'/proc/{pid}/status').read()
            except (FileNotFoundError, ProcessLookupError):  # it has ended since the listing
                continue
            if '\\nUid:\\t0\\t' in status:
                try:
                    os.kill(pid, signal.SIGKILL)
                    breach(f'killed {pid}')
                except PermissionError as error:
                    refusal = error
        raise refusal
        """,
    ),
    Attack(
        "read what runs the container",
        GROUP,
        (cell("unreadable('/proc/1/mem', '/proc/1/environ', '/proc/1/maps', '/proc/1/root/etc/passwd')"),),
        ERROR,
        DENIED,
    ),
)
