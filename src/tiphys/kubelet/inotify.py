"""Await changes of a directory through inotify(7), on the event loop."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable

IN_MODIFY = 0x2
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
_MASK = IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE


class DirectoryWatch:
    """Calls `changed` after each change in a directory until `close`."""

    def __init__(self, directory: str, changed: Callable[[], None]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        if self._descriptor >= 0:
            libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _MASK)
            self._loop.add_reader(self._descriptor, self._read)

    def _read(self) -> None:
        try:
            os.read(self._descriptor, 64 * 1024)
        except BlockingIOError:
            return
        self._changed()

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
