"""One container's log file in CRI format, rotated by its size.

Spec: CRI log format: "<RFC3339Nano> <stdout|stderr> <F|P> <text>"; a line that is longer than 16 KiB comes in parts (P).
"""

from __future__ import annotations

import contextlib
import os
import time

LOG_LIMIT_BYTES = 10 << 20
LOG_FILES = 5
LINE_LIMIT_BYTES = 16 << 10


class Log:
    """One container's log file in CRI format. A full disk loses lines, never the container."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.partial: dict[bytes, bytearray] = {b"stdout": bytearray(), b"stderr": bytearray()}
        self.fd = -1
        self.size = 0
        self.reopen()

    def reopen(self) -> None:
        self.close()
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self.fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self.size = os.fstat(self.fd).st_size

    def write(self, stream: bytes, data: bytes, *, final: bool = False) -> None:
        buffer = self.partial[stream]
        buffer += data
        now_ns = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ns // 1_000_000_000))
        prefix = b"%s.%09dZ %s " % (stamp.encode(), now_ns % 1_000_000_000, stream)
        out = []
        start = 0
        while True:
            end = buffer.find(b"\n", start)
            stop = end if end >= 0 else len(buffer)
            while stop - start > LINE_LIMIT_BYTES:
                out += [prefix, b"P ", bytes(buffer[start : start + LINE_LIMIT_BYTES]), b"\n"]
                start += LINE_LIMIT_BYTES
            if end < 0:
                if final and stop > start:
                    out += [prefix, b"P ", bytes(buffer[start:stop]), b"\n"]
                    start = stop
                break
            out += [prefix, b"F ", bytes(buffer[start:end]), b"\n"]
            start = end + 1
        del buffer[:start]
        if out:
            self._append(b"".join(out))

    def _append(self, data: bytes) -> None:
        if self.size and self.size + len(data) > LOG_LIMIT_BYTES:
            self._rotate()
        if self.fd < 0:
            self.reopen()
        view = memoryview(data)
        while view and self.fd >= 0:
            try:
                written = os.write(self.fd, view)
            except OSError:
                return
            self.size += written
            view = view[written:]

    def _rotate(self) -> None:
        with contextlib.suppress(OSError):
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            os.rename(self.path, f"{self.path}.{stamp}.{time.monotonic_ns():020d}")
            directory, name = os.path.split(self.path)
            old = sorted(entry for entry in os.listdir(directory) if entry.startswith(name + "."))
            for entry in old[: -(LOG_FILES - 1)]:
                os.unlink(os.path.join(directory, entry))
        self.reopen()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
