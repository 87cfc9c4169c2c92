"""Which instance's log a request means, and its delivery to the client.

Errors are worded as clients know them. Delivery waits while the client is slow; following sleeps until inotify or the
pod's worker says that something changed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tiphys.base.errors import bad_request
from tiphys.kubelet.inotify import DirectoryWatch
from tiphys.kubelet.logs import LineFormatter, LogOptions, read_log
from tiphys.kubelet.worker import PodWorker
from tiphys.runtime.interface import Container, ContainerState
from tiphys.wire.message import Response, Sink, Stream

if TYPE_CHECKING:
    from tiphys.kubelet.run import Kubelet

TEXT = "text/plain"
SLOW_BYTES = 1 << 20
_WAITING = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


def log_target(worker: PodWorker, name: str, *, previous: bool) -> Container:
    """Return the instance whose log is meant. Raises ApiError 400 when there is none."""
    pod = worker.pod.metadata.name
    current = worker.runtime.newest(name)
    if previous:
        last = worker.runtime.previous(name)
        if current is not None and current.state is ContainerState.EXITED and _restarts(worker, name):
            # It waits for its restart: the instance that just ended is the previous one.
            last = current
        if last is None:
            raise bad_request(f'previous terminated container "{name}" in pod "{pod}" not found')
        return last
    if current is None or current.state is ContainerState.CREATED:
        last = worker.runtime.previous(name)
        if last is not None:
            return last
        reason = _waiting_reason(worker, name)
        why = _WAITING.get(reason, reason)
        if not why:
            raise bad_request(f'container "{name}" in pod "{pod}" is not available')
        raise bad_request(f'container "{name}" in pod "{pod}" is waiting to start: {why}')
    return current


def _state(worker: PodWorker, name: str) -> dict[str, Any]:
    for group in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for status in worker.writer.known.get(group) or ():
            if status.get("name") == name:
                return dict(status.get("state") or {})
    return {}


def _waiting_reason(worker: PodWorker, name: str) -> str:
    return str((_state(worker, name).get("waiting") or {}).get("reason") or "")


def _restarts(worker: PodWorker, name: str) -> bool:
    return "waiting" in _state(worker, name)


def follow_log(kubelet: Kubelet, worker: PodWorker, target: Container, options: LogOptions) -> Response | Stream:
    """Return the answer with the log."""
    if not target.log_path:
        return _from_memory(kubelet, target, options)

    def start(sink: Sink) -> Callable[[], None]:
        task = asyncio.create_task(_pump(kubelet, worker, target, options, sink), name=f"log of {target.name}")
        return lambda: _end(task)

    return Stream(start, content_type=TEXT)


def _end(task: asyncio.Task[None]) -> None:
    task.cancel()


async def _pump(kubelet: Kubelet, worker: PodWorker, target: Container, options: LogOptions, sink: Sink) -> None:
    changed = asyncio.Event()
    watch = None
    if options.follow:
        watch = DirectoryWatch(os.path.dirname(target.log_path), changed.set)
        worker.observers.add(changed)

    def running() -> bool:
        changed.clear()
        if worker.ended:
            return False
        now = next((c for c in worker.runtime.containers if c.id == target.id), None)
        return now is not None and now.state is ContainerState.RUNNING

    async def wait() -> None:
        await changed.wait()

    try:
        async for piece in read_log(target.log_path, options, running, wait):
            sink.send(piece)
            if sink.pending_bytes() > SLOW_BYTES:
                await sink.drain()
    except OSError as error:
        sink.send(f"failed to read the log of container {target.name}: {error}\n".encode())
    finally:
        if watch is not None:
            watch.close()
        worker.observers.discard(changed)
        sink.close()


def _from_memory(kubelet: Kubelet, target: Container, options: LogOptions) -> Response:
    """Answer from a runtime that keeps logs in memory (simulated nodes without a log directory)."""
    read = getattr(kubelet.deps.runtime, "container_log", None)
    raw: list[bytes] = read(target.id).splitlines(keepends=True) if read is not None else []
    if options.tail is not None:
        raw = raw[-options.tail :] if options.tail else []
    formatter = LineFormatter(options)
    return Response(200, b"".join(map(formatter.format, raw)), TEXT)
