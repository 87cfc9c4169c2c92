"""Where audit events go: a file of JSON lines, written and rotated by one thread.

`write` never blocks: when more than QUEUE_LIMIT events wait for the disk, further ones are lost and counted, and the
log says so. Invariant: an event is one whole line in one file; a rotated file is never written again.

Spec: Kubernetes documentation, "Auditing: Log backend" (maxsize, maxbackup, maxage).
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tiphys.base.clock import Clock

log = logging.getLogger(__name__)

QUEUE_LIMIT = 10_000
STOP_S = 5.0


class AuditLog:
    """See the module's docstring. `path` "-" is standard error, which is the process's own log."""

    def __init__(self, path: str, clock: Clock, *, max_bytes: int, backups: int, max_age_s: float = 0.0) -> None:
        """`backups` 0 keeps all old files, `max_age_s` 0 for ever. Raises OSError when the file cannot be written."""
        self._clock = clock
        self._path = Path(path)
        self._standard = path == "-"
        self._max_bytes = max_bytes
        self._backups = backups
        self._max_age_s = max_age_s
        self._queue: queue.Queue[Callable[[], bytes] | None] = queue.Queue(QUEUE_LIMIT)
        self._rotated_ms = 0
        """Time that the last full file was named by; each has a later one."""
        self.lost = 0
        """Events that were not written."""
        self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)
        if not self._standard:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _File(self._path).close()  # what cannot be written is told at the start
        self._thread.start()

    def write(self, line: Callable[[], bytes]) -> None:
        """Queue one event; its text is made in the thread."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            if not self.lost:
                log.error("the audit log %s is too slow: events are lost from now on", self._path)
            self.lost += 1

    def stop(self) -> None:
        """Write what waits and end. Blocks for at most STOP_S."""
        try:
            self._queue.put(None, timeout=STOP_S)
        except queue.Full:
            return
        self._thread.join(STOP_S)

    def _run(self) -> None:
        file: _File | None = None
        while (line := self._queue.get()) is not None:
            try:
                data = line() + b"\n"
                if self._standard:
                    sys.stderr.buffer.write(data)
                    sys.stderr.buffer.flush()
                    continue
                if file is not None and file.size_bytes + len(data) > self._max_bytes:
                    file.close()
                    file = None
                    self._rotate()
                file = file or _File(self._path)
                file.write(data)
            except OSError as error:
                if not self.lost:
                    log.error("the audit log %s cannot be written: %s; events are lost until it can", self._path, error)
                self.lost += 1
        if file is not None:
            file.close()

    def _rotate(self) -> None:
        """Put the full file aside under the time, and remove old ones."""
        now_s = self._clock.now_s()
        path = self._path
        self._rotated_ms = max(int(now_s * 1000), self._rotated_ms + 1)
        while (aside := _aside(path, self._rotated_ms)).exists():
            self._rotated_ms += 1
        path.rename(aside)
        old = sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"), reverse=True)
        for at, each in enumerate(old):
            too_many = self._backups and at >= self._backups
            too_old = self._max_age_s and now_s - each.stat().st_mtime > self._max_age_s
            if too_many or too_old:
                each.unlink()


def _aside(path: Path, at_ms: int) -> Path:
    """Return the name of a file that was full at a time."""
    stamp = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(at_ms // 1000))
    return path.with_name(f"{path.stem}-{stamp}.{at_ms % 1000:03}{path.suffix}")


class _File:
    """An open file of its owner's only, with its size."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size_bytes = os.fstat(self._descriptor).st_size

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self.size_bytes += len(data)

    def close(self) -> None:
        os.close(self._descriptor)
