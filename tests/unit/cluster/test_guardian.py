"""The guardian with small children, in a process of its own: what dies comes back, and nothing outlives it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tiphys.cluster.pidfiles import guardian_pid, living, read_pid, start_time, stop_processes, take_lock

SCRIPT = """
import os, signal, sys
from pathlib import Path
from tiphys.base.errors import TiphysError
from tiphys.cluster.guardian import Child, fork_guardian
directory = Path(sys.argv[1])
reader, writer = os.pipe()
def steady():
    os.write(writer, b"steady\\n")
    signal.sigwait({signal.SIGTERM})
def failing():
    raise TiphysError("it cannot be done; do something else")
children = [Child("steady", steady), *([Child("failing", failing)] if "failing" in sys.argv else [])]
try:
    fork_guardian(children, directory, directory, [], writer)
except TiphysError as error:
    print(error)
    sys.exit(1)
os.close(writer)
with open(reader, "rb", buffering=0) as pipe:
    for _ in range(int(sys.argv[2])):
        print(pipe.readline().decode().strip(), flush=True)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
        stop_processes(Path(name), guardian_s=10)


def start(directory: Path, lines: int, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, str(directory), str(lines), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def wait_for_death(pid: int) -> None:
    """Return when the process is dead, whether reaped or not."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([handle], [], [], 10)[0]
    os.close(handle)


def test_children_run_and_end_with_the_guardian(directory: Path) -> None:
    assert start(directory, 1).stdout == "steady\n"
    pids = living(directory)
    assert list(pids) == ["guardian", "steady"] and guardian_pid(directory) == pids["guardian"]
    stop_processes(directory, guardian_s=10)
    assert not living(directory) and guardian_pid(directory) == 0
    assert not any(start_time(pid) for pid in pids.values())


def test_a_second_guardian_is_refused(directory: Path) -> None:
    start(directory, 1)
    again = start(directory, 0)
    assert again.returncode == 1 and "already running (pid" in again.stdout


def test_a_killed_guardian_takes_its_children_along(directory: Path) -> None:
    start(directory, 1)
    pids = living(directory)
    os.kill(pids["guardian"], signal.SIGKILL)
    wait_for_death(pids["guardian"])
    assert guardian_pid(directory) == 0, "the lock tells, not the file"
    wait_for_death(pids["steady"])
    assert start(directory, 1).stdout == "steady\n"


def test_deaths_are_told_and_the_reason_is_one_line_of_the_log(directory: Path) -> None:
    told = start(directory, 4, "failing").stdout.split("\n")
    assert told.count("died failing") >= 2
    log = (directory / "failing.log").read_text()
    assert "it cannot be done; do something else" in log and "Traceback" not in log


def test_a_pid_that_another_process_got_is_not_ours(directory: Path) -> None:
    (directory / "steady.pid").write_text(f"{os.getpid()} 12345\n")
    assert read_pid(directory, "steady") == 0
    (directory / "steady.pid").write_text(f"{os.getpid()} {start_time(os.getpid())}\n")
    assert read_pid(directory, "steady") == os.getpid()
    (directory / "steady.pid").write_bytes(b"\xff\xfe nonsense")
    assert living(directory) == {}


def test_the_lock_ends_with_its_holder(directory: Path) -> None:
    descriptor = take_lock(directory)
    assert guardian_pid(directory) == os.getpid()
    os.close(descriptor)
    assert guardian_pid(directory) == 0
