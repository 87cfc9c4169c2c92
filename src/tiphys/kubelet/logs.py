"""Read container logs: CRI log files, across rotations, from the end, and on as they grow.

Input: the log file's path (older parts are `<path>.<time>`). Output: bytes as clients get them. A line is
`<RFC3339Nano> <stdout|stderr> <F|P> <text>`; a P(artial) line goes on in the next one. Invariant: no line is given
twice or left out when the file is rotated while it is followed.

Spec: CRI log format; `kubectl logs` options of the API (tailLines, sinceSeconds, sinceTime, timestamps, limitBytes).
"""

from __future__ import annotations

import glob
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

from tiphys.base.clock import parse_time

BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class LogOptions:
    follow: bool = False
    tail: int | None = None
    since_s: float | None = None
    """Lines of before are left out."""
    timestamps: bool = False
    limit_bytes: int | None = None
    stream: str = ""
    """"stdout" or "stderr": only that one."""


def log_parts(path: str) -> list[str]:
    """Return the files of a log, the oldest first. Compressed parts are left out."""
    older = sorted(p for p in glob.glob(glob.escape(path) + ".*") if not p.endswith((".gz", ".tmp")))
    return [*older, path] if os.path.exists(path) else older


class LineFormatter:
    """Turns raw CRI lines into what the client gets."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._left = options.limit_bytes
        self._inside = {b"stdout": False, b"stderr": False}
        """Stream -> whether its last line was partial."""

    def full(self) -> bool:
        """Tell whether the byte limit is reached."""
        return self._left is not None and self._left <= 0

    def format(self, raw: bytes) -> bytes:
        """Return the output of one raw line, b"" for a line that is left out."""
        parts = raw.rstrip(b"\n").split(b" ", 3)
        if len(parts) < 3:
            return b""
        stamp, stream, tag = parts[:3]
        text = parts[3] if len(parts) == 4 else b""
        if self._options.stream and stream.decode(errors="replace") != self._options.stream:
            return b""
        if self._options.since_s is not None and parse_stamp(stamp) < self._options.since_s:
            return b""
        begins = not self._inside.get(stream, False)
        partial = tag.startswith(b"P")
        self._inside[stream] = partial
        out = text if partial else text + b"\n"
        if self._options.timestamps and begins:
            out = stamp + b" " + out
        if self._left is not None:
            out = out[: self._left]
            self._left -= len(out)
        return out


def parse_stamp(stamp: bytes) -> float:
    """Return the Unix time of a line, 0 when it has none."""
    try:
        text = stamp.decode()
        head, dot, rest = text.partition(".")
        if dot:
            digits = "".join(c for c in rest if c.isdigit())[:6].ljust(6, "0")
            zone = rest.lstrip("0123456789")
            text = f"{head}.{digits}{zone}"
        return parse_time(text)
    except ValueError:
        return 0.0


def tail_lines(parts: list[str], count: int) -> tuple[list[bytes], int]:
    """Return (the raw lines of the last `count` whole lines, offset in the newest file behind them)."""
    lines: list[bytes] = []
    end = 0
    whole = 0
    for index, path in enumerate(reversed(parts)):
        raw, size = _complete_lines(path)
        if index == 0:
            end = size
        for line in reversed(raw):
            if line.split(b" ", 3)[2:3] == [b"F"] or line.split(b" ", 3)[2:3] == [b"F\n"]:
                whole += 1
                if whole > count:
                    return lines[::-1], end
            elif not lines:
                whole = 1  # an end without a newline is a line too
            elif whole >= count and not _same_line(lines, line):
                return lines[::-1], end
            lines.append(line)
    return lines[::-1], end


def _same_line(lines: list[bytes], line: bytes) -> bool:
    """Tell whether a partial line belongs to the one collected last."""
    return bool(lines) and lines[-1].split(b" ", 2)[1:2] == line.split(b" ", 2)[1:2]


def _complete_lines(path: str) -> tuple[list[bytes], int]:
    """Return the complete lines of a file and where they end."""
    try:
        with open(path, "rb") as source:
            data = source.read()
    except FileNotFoundError:
        return [], 0
    end = data.rfind(b"\n") + 1
    return data[:end].splitlines(keepends=True), end


class LogFile:
    """The open newest file of a log, read line by line; reopens after a rotation."""

    def __init__(self, path: str, offset: int = 0) -> None:
        self._path = path
        self._file = open(path, "rb")  # noqa: SIM115  closed by close()
        self._file.seek(offset)
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        """Yield the complete lines that are there by now."""
        while True:
            block = self._file.read(BLOCK)
            if not block:
                return
            data = self._rest + block
            end = data.rfind(b"\n") + 1
            self._rest = data[end:]
            yield from data[:end].splitlines(keepends=True)

    def rotated(self) -> bool:
        """Reopen and return True if the path leads to another file now. Call when `lines` is at its end."""
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False
        here = os.fstat(self._file.fileno())
        if (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev):
            return False
        self._file.close()
        self._file = open(self._path, "rb")  # noqa: SIM115
        self._rest = b""
        return True

    def close(self) -> None:
        self._file.close()


async def read_log(
    path: str, options: LogOptions, running: Callable[[], bool], changed: Callable[[], Awaitable[None]]
) -> AsyncIterator[bytes]:
    """Yield the log in pieces. When following, wait with `changed` at the end until the container has ended."""
    formatter = LineFormatter(options)
    parts = log_parts(path)
    offset = 0
    if options.tail is not None:
        lines, offset = tail_lines(parts, options.tail) if options.tail else ([], _size(path))
        piece = b"".join(map(formatter.format, lines))
        if piece:
            yield piece
    else:
        for part in parts[:-1]:
            for piece in _pieces(LogFile(part), formatter):
                yield piece
    if formatter.full() or path not in parts:
        return
    log = LogFile(path, offset)
    try:
        while True:
            alive = running()
            for piece in _pieces(log, formatter, keep_open=True):
                yield piece
            if formatter.full():
                return
            if log.rotated():
                continue
            if not options.follow or not alive:
                return
            await changed()
    finally:
        log.close()


def _pieces(log: LogFile, formatter: LineFormatter, *, keep_open: bool = False) -> Iterator[bytes]:
    """Yield formatted output in blocks rather than lines."""
    try:
        held: list[bytes] = []
        size = 0
        for raw in log.lines():
            out = formatter.format(raw)
            held.append(out)
            size += len(out)
            if size >= BLOCK:
                yield b"".join(held)
                held, size = [], 0
            if formatter.full():
                break
        if size:
            yield b"".join(held)
    finally:
        if not keep_open:
            log.close()


def _size(path: str) -> int:
    return _complete_lines(path)[1]


def read_last_text(path: str, lines: int, limit_bytes: int) -> str:
    """Return the end of a log as text, for termination messages."""
    if not path:
        return ""
    raw, _ = tail_lines(log_parts(path), lines)
    formatter = LineFormatter(LogOptions())
    return b"".join(map(formatter.format, raw))[-limit_bytes:].decode(errors="replace")
