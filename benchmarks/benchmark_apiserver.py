"""An API server alone, in a process of its own, that can tell what held its event loop.

Shared by the benchmarks that need to look inside; prints nothing when run. The server is the one that `tiphys up`
runs (SQLite, TLS), without controllers and nodes.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import tempfile
import threading
import time
import traceback
import types
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmark_cluster import Target

TEARDOWN_S = 10.0
PODS_A_COMMIT = 1000
BEAT_S = 0.002
"""How often the loop shows that it is alive."""
HELD_S = 0.02
"""A callback that runs longer than this is caught by its stack."""


@dataclass
class Held:
    """One step that held the loop: seconds of the loop thread's CPU and of the wall clock, and what it was."""

    cpu_s: float
    wall_s: float
    what: str


class LoneServer:
    """A running server. `held()` returns what held its loop since the last call, worst first."""

    def __init__(self, target: Target, pipe: Connection) -> None:
        self.target = target
        self._pipe = pipe

    def held(self) -> list[Held]:
        self._pipe.send("held")
        held: list[Held] = self._pipe.recv()
        return held


@contextmanager
def lone_apiserver(stored_pods: int = 0) -> Iterator[LoneServer]:
    """Start a server on a store in a temporary directory, empty or with pods of 4 KB; stop it at the end."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="tb") as directory:
        process = context.Process(target=_serve, args=(directory, theirs, stored_pods), daemon=True)
        process.start()
        theirs.close()
        try:
            url, token = ours.recv()
            assert process.pid is not None
            yield LoneServer(Target(url, token, {"apiserver": process.pid}, {}), ours)
        finally:
            ours.close()
            process.join(TEARDOWN_S)
            if process.is_alive():
                process.terminate()
                process.join()


def _serve(directory: str, pipe: Connection, stored_pods: int) -> None:
    import uvloop

    uvloop.run(_run(Path(directory), pipe, stored_pods))


async def _store_pods(store: Any, count: int) -> None:
    """Write pods into a store as the API server stores them."""
    from tiphys.store.interface import ABSENT, Operation

    text = (
        '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"%s","namespace":"stored","uid":"%s",'
        '"creationTimestamp":"2026-01-01T00:00:00Z","labels":{"app":"bench","tenth":"%d"},"annotations":{"note":"%s"}},'
        '"spec":{"nodeName":"node-%d","containers":[{"name":"main","image":"registry.example/app:v1"}]},'
        '"status":{"phase":"Running"}}'
    )
    for start in range(0, count, PODS_A_COMMIT):
        operations = []
        for number in range(start, min(start + PODS_A_COMMIT, count)):
            name, uid = f"pod-{number:06d}", f"00000000-0000-4000-8000-{number:012d}"
            value = text % (name, uid, number % 10, "x" * 3650, number % 1500)
            operations.append(Operation(f"/registry/core/pods/stored/{name}", value.encode(), ABSENT))
        await store.commit(operations)


async def _run(folder: Path, pipe: Connection, stored_pods: int) -> None:
    from tiphys.apiserver.assembly import ApiServerConfig, assemble
    from tiphys.base.clock import Randomness, SystemClock
    from tiphys.base.memory import settle_memory
    from tiphys.store.sqlite import SqliteStore
    from tiphys.wire import tls
    from tiphys.wire.message import Answer, Peer, Request
    from tiphys.wire.server import HttpServer

    pair = tls.issue(tls.create_ca("bench"), "bench", ip_addresses=["127.0.0.1"], server=True)
    pair.write(folder / "tls.crt", folder / "tls.key")
    store = SqliteStore(str(folder / "store.db"))
    await store.start()
    if stored_pods:
        await _store_pods(store, stored_pods)
        await store.stop()
        store = SqliteStore(str(folder / "store.db"))
        await store.start()
    assembled = await assemble(ApiServerConfig(), store, SystemClock(), Randomness())
    stalls = Stalls()

    def handle(request: Request) -> Awaitable[Answer]:
        query = f"?{request.raw_query}" if request.raw_query else ""
        accept = request.headers.get("accept", "")
        return stalls.watch(assembled.handle(request), f"{request.method} {request.path}{query} {accept}".rstrip())

    async def post(path: str, body: bytes) -> bytes:
        local = Peer("local", trusted_user=("bench", ("system:masters",)))
        headers = {"content-type": "application/json"}
        answer = await assembled.handle(Request("POST", path, headers=headers, body=body, peer=local))
        return answer.body_bytes()  # type: ignore[union-attr]

    token = await _make_token(post)
    server = HttpServer(handle, ssl_context=tls.server_context(folder / "tls.crt", folder / "tls.key"))
    port = await server.start("127.0.0.1", 0)
    ended = asyncio.Event()

    def command() -> None:
        try:
            pipe.recv()
        except EOFError:
            ended.set()
            loop.remove_reader(pipe.fileno())
            return
        pipe.send(stalls.take())

    loop = asyncio.get_running_loop()
    loop.add_reader(pipe.fileno(), command)
    stalls.start()
    settle_memory()
    pipe.send((f"https://127.0.0.1:{port}", token))
    await ended.wait()
    await server.stop(0.5)
    await assembled.stop()
    await store.stop()


async def _make_token(post: Callable[[str, bytes], Awaitable[bytes]]) -> str:
    import json

    await post("/api/v1/namespaces/kube-system/serviceaccounts", b'{"metadata":{"name":"bench"}}')
    binding = {
        "metadata": {"name": "bench"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "kube-system", "name": "bench"}],
    }
    await post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", json.dumps(binding).encode())
    path = "/api/v1/namespaces/kube-system/serviceaccounts/bench/token"
    answer = await post(path, b'{"spec":{"expirationSeconds":7200}}')
    return str(json.loads(answer)["status"]["token"])


class Stalls:
    """What held the loop: steps of requests by their own time, everything else by a beat that came late."""

    def __init__(self) -> None:
        self._held: list[Held] = []
        self._beat_s = time.perf_counter()
        self._beat_cpu_s = time.thread_time()
        self._caught = ""

    def start(self) -> None:
        self._thread_id = threading.get_ident()
        self._loop = asyncio.get_running_loop()
        self._beat()
        threading.Thread(target=self._catch, daemon=True).start()

    def take(self) -> list[Held]:
        """Return the worst of each kind, and forget them."""
        worst: dict[str, Held] = {}
        for held in self._held:
            if held.what not in worst or held.cpu_s > worst[held.what].cpu_s:
                worst[held.what] = held
        self._held.clear()
        return sorted(worst.values(), key=lambda held: -held.cpu_s)

    def _beat(self) -> None:
        now_s, cpu_s = time.perf_counter(), time.thread_time()
        if self._caught:
            self._held.append(Held(cpu_s - self._beat_cpu_s, now_s - self._beat_s, self._caught))
            self._caught = ""
        self._beat_s, self._beat_cpu_s = now_s, cpu_s
        self._loop.call_later(BEAT_S, self._beat)

    def _catch(self) -> None:
        """Run in a thread: note what the loop does while its beat is late."""
        while True:
            time.sleep(HELD_S / 2)
            if time.perf_counter() - self._beat_s > HELD_S and not self._caught:
                frame = sys._current_frames().get(self._thread_id)
                calls = [f for f in traceback.extract_stack(frame) if "/tiphys/" in f.filename]
                places = [f"{Path(call.filename).stem}.{call.name}:{call.lineno}" for call in calls[-3:]]
                self._caught = "loop busy in " + (" > ".join(places) or "the event loop itself")

    @types.coroutine
    def watch(self, coroutine: Any, what: str) -> Generator[Any, Any, Any]:
        """Run a request's coroutine and note its longest step."""
        value: Any = None
        thrown: BaseException | None = None
        while True:
            wall_s, cpu_s = time.perf_counter(), time.thread_time()
            try:
                waits_for = coroutine.send(value) if thrown is None else coroutine.throw(thrown)
            except StopIteration as stop:
                return stop.value
            finally:
                cpu_s = time.thread_time() - cpu_s
                if cpu_s > HELD_S / 10:
                    self._held.append(Held(cpu_s, time.perf_counter() - wall_s, what))
            thrown = None
            try:
                value = yield waits_for
            except BaseException as error:  # noqa: BLE001 - thrown on into the request
                thrown = error
