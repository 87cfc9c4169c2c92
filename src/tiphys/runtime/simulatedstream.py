"""The streams of a simulated exec or attach: queues instead of pipes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


class SimulatedStream:
    """Implements ProcessStream. `task` is the simulated process of an exec; None for attach."""

    def __init__(self, stdin: bool) -> None:
        self.task: asyncio.Task[None] | None = None
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._output: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._ended = asyncio.Event()
        self._code = 0
        if not stdin:
            self._input.put_nowait(None)

    def put(self, fd: int, data: bytes) -> None:
        """Let the process print."""
        self._output.put_nowait((fd, data))

    def end(self, code: int) -> None:
        """Let the process exit. Later calls do nothing."""
        if not self._ended.is_set():
            self._code = code
            self._ended.set()
            self._output.put_nowait(None)

    async def copy_input(self) -> None:
        """Print what comes in until the input ends."""
        while (data := await self._input.get()) is not None:
            self.put(1, data)

    async def write_stdin(self, data: bytes) -> None:
        if self._ended.is_set():
            raise BrokenPipeError("the process has exited")
        self._input.put_nowait(data)

    async def close_stdin(self) -> None:
        self._input.put_nowait(None)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (item := await self._output.get()) is not None:
            yield item
        self._output.put_nowait(None)

    async def resize(self, width: int, height: int) -> None:
        pass

    async def wait(self) -> int:
        await self._ended.wait()
        return self._code

    async def close(self) -> None:
        if self.task and not self.task.done():
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        self.end(137)
