"""How processes are started here, and what can be learned of how one ended.

`spawn` starts a command of the OCI runtime, `hold_pid_namespace` the first process of a pod's PID namespace. The rest
reads /proc, pidfds and cgroup files: of processes that are no children of this one, after a predecessor was killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import struct

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15
CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
MS_REC, MS_PRIVATE, MNT_DETACH = 0x4000, 1 << 18, 2
PIDFD_GET_INFO, PIDFD_INFO_EXIT = 0xC040FF0B, 1 << 3

OWN_FILE_LIMITS = resource.getrlimit(resource.RLIMIT_NOFILE)
"""As we were started; containers get the same, though we raise ours."""
LIBC = ctypes.CDLL(None, use_errno=True)


def spawn(argv: list[str], fds: list[int] | None, hide: str) -> int:
    """Start a command with `fds` as its first three. `hide` is a mount that it must not see (a cgroup v2 mount beside
    v1 ones, which crun refuses): then it gets a mount namespace of its own, everything else still shared."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        for caught in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(caught, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_NOFILE, OWN_FILE_LIMITS)
        os.setsid()
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a half-made start ends with us; a running one does not
        if fds is None:
            null = os.open("/dev/null", os.O_RDWR)
            fds = [null, null, null]
        for number, fd in enumerate(fds):
            os.dup2(fd, number, inheritable=True)
        if hide:
            parent = os.path.dirname(hide).encode()
            if (
                LIBC.unshare(CLONE_NEWNS)
                or LIBC.mount(None, parent, None, MS_REC | MS_PRIVATE, None)
                or LIBC.umount2(hide.encode(), MNT_DETACH)
            ):
                os.write(2, f"cannot hide {hide}: {os.strerror(ctypes.get_errno())}\n".encode())
                os._exit(126)
        os.execv(argv[0], argv)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def hold_pid_namespace() -> tuple[int, int]:
    """Start the first process of a new PID namespace, which reaps and otherwise sleeps. Return its pid and a pipe: it
    ends unless something is written there, so that a crash before it is recorded leaves no process behind."""
    wait, go = os.pipe2(os.O_CLOEXEC)
    read, write = os.pipe2(os.O_CLOEXEC)
    middle = os.fork()
    if middle == 0:
        try:
            if LIBC.unshare(CLONE_NEWPID):
                os._exit(1)
            holder = os.fork()
            if holder:
                os.write(write, str(holder).encode())
                os._exit(0)
            os.setsid()
            os.close(go)
            if not os.read(wait, 1):
                os._exit(1)
            LIBC.prctl(PR_SET_NAME, b"pod-init", 0, 0, 0)
            os.closerange(0, 4096)
            os.chdir("/")
            signal.set_wakeup_fd(-1)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
            while True:
                with contextlib.suppress(ChildProcessError):
                    while os.waitpid(-1, os.WNOHANG)[0]:
                        pass
                signal.sigwait({signal.SIGCHLD})
        finally:
            os._exit(1)
    os.close(write)
    os.close(wait)
    said = os.read(read, 32)
    os.close(read)
    if not said:
        os.close(go)
        raise OSError(errno.EPERM, "cannot make a PID namespace")
    return int(said), go


def read_stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def read_start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when it is gone. With the pid it names a process."""
    try:
        return int(read_stat(pid)[19])
    except (OSError, IndexError):
        return 0


def decode_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def read_zombie_code(pid: int, start_time: int) -> int | None:
    try:
        fields = read_stat(pid)
        if fields[0] == "Z" and int(fields[19]) == start_time:
            return decode_status(int(fields[49]))
    except (OSError, IndexError, ValueError):
        pass
    return None


def read_pidfd_code(pidfd: int) -> int | None:
    """Return the exit code of a process that somebody else reaped; kernels before 6.15 cannot tell."""
    info = bytearray(64)
    struct.pack_into("=Q", info, 0, PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask, status = struct.unpack_from("=Q", info, 0)[0], struct.unpack_from("=i", info, 60)[0]
    return decode_status(status) if mask & PIDFD_INFO_EXIT else None


def oom_killed(path: str) -> bool:
    """Say whether the kernel killed something in the cgroup whose oom file (v1 or v2) this is."""
    try:
        with open(path) as file:
            return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in file)
    except OSError:
        return False
