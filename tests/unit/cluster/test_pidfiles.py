"""Which processes live: what a process holds must be free when it is said to be gone."""

from __future__ import annotations

import subprocess
import sys

from tiphys.cluster.pidfiles import start_time, stop_process

LEADER_ENDS_FIRST = """
import ctypes, platform, sys, threading, time
def hold():
    while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.001)
    print("zombie", flush=True)
    sys.stdin.read()
threading.Thread(target=hold).start()
ctypes.CDLL(None).syscall(93 if platform.machine() == "aarch64" else 60, 0)  # exit(2): this thread alone
"""


def test_a_process_whose_first_thread_ended_lives_until_its_last_one_has() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEADER_ENDS_FIRST], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"zombie\n"
        assert start_time(process.pid)
        stop_process(process.pid)
        assert not start_time(process.pid)


def test_a_process_that_nobody_reaped_yet_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        stop_process(process.pid)
        assert not start_time(process.pid)
