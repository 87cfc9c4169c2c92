"""The kubelet's HTTPS API: logs, exec, attach, port-forward, pods, stats.

The API server is its client. Every request needs a verified client certificate of an allowed name; errors are plain
text, which the API server wraps into a Status. Invariant: a path names a pod of this node, or the answer is 404.

Spec: the kubelet's endpoints as the API server proxies them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from tiphys.base.clock import parse_time
from tiphys.base.errors import ApiError, TiphysError, bad_request
from tiphys.kubelet import commands
from tiphys.kubelet.logs import LogOptions
from tiphys.kubelet.logstream import follow_log, log_target
from tiphys.kubelet.nodedocuments import kubelet_configuration, log_file
from tiphys.kubelet.pod import BoundPod, find_container
from tiphys.kubelet.stats import metrics_text, resource_metrics_text, stats_summary
from tiphys.kubelet.worker import PodWorker
from tiphys.runtime.interface import ContainerState
from tiphys.wire.message import Answer, Request, Response
from tiphys.wire.server import HttpServer

if TYPE_CHECKING:
    from tiphys.kubelet.run import Kubelet

TEXT = "text/plain; charset=utf-8"
RUN_TIMEOUT_S = 120.0


async def serve(kubelet: Kubelet, group: asyncio.TaskGroup) -> int:
    """Start the server; return its port. It stops with the group."""
    deps = kubelet.deps
    server = HttpServer(KubeletApi(kubelet).handle, ssl_context=deps.server_tls)
    port = await server.start(deps.server_address, deps.port)

    async def stay() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await server.stop(0.5)

    group.create_task(stay(), name="kubelet server")
    return port


class KubeletApi:
    """Routes requests. See the module's docstring."""

    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet
        self._runtime = kubelet.deps.runtime

    async def handle(self, request: Request) -> Answer:
        """Answer one request; the request boundary of this server."""
        try:
            self._authorize(request)
            return await self._route(request)
        except ApiError as error:
            return Response(error.code, error.message.encode(), TEXT, error.headers)
        except (TiphysError, OSError) as error:
            return Response(500, str(error).encode(), TEXT)

    def _authorize(self, request: Request) -> None:
        peer = request.peer
        if peer.common_name is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        allowed = self._kubelet.deps.allowed_clients
        if peer.common_name not in allowed and not any(name in allowed for name in peer.organizations):
            verb = "get" if request.method == "GET" else "create"
            raise ApiError(
                403, "Forbidden",
                f"Forbidden (user={peer.common_name}, verb={verb}, resource=nodes, subresource(s)=[proxy])",
            )  # fmt: skip

    async def _route(self, request: Request) -> Answer:
        parts = [part for part in request.path.split("/") if part]
        match parts:
            case ["healthz"]:
                return Response(200, b"ok", TEXT)
            case ["pods"]:
                return _json(
                    {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._pods(running=False)}
                )
            case ["runningpods"]:
                return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._pods(running=True)})
            case ["configz"]:
                return _json(self._configuration())
            case ["logs", *rest] if self._kubelet.deps.files.disk_root():
                return log_file("/var/log", rest)
            case ["stats", "summary"]:
                return _json(await stats_summary(self._kubelet))
            case ["metrics"]:
                return Response(200, metrics_text(self._kubelet).encode(), "text/plain; version=0.0.4")
            case ["metrics", "resource"]:
                body = await resource_metrics_text(self._kubelet)
                return Response(200, body.encode(), "text/plain; version=0.0.4")
            case ["containerLogs", namespace, pod, container]:
                return self._logs(request, namespace, pod, container)
            case ["exec", namespace, pod, *rest] if len(rest) in (1, 2):
                return commands.exec_upgrade(self._runtime, request, self._container(namespace, pod, rest))
            case ["attach", namespace, pod, *rest] if len(rest) in (1, 2):
                return commands.attach_upgrade(self._runtime, request, self._container(namespace, pod, rest))
            case ["run", namespace, pod, *rest] if len(rest) in (1, 2):
                return await self._run(request, self._container(namespace, pod, rest))
            case ["portForward", namespace, pod, *rest] if len(rest) <= 1:
                return commands.port_forward_upgrade(self._runtime, request, self._sandbox(namespace, pod, rest))
        raise ApiError(404, "NotFound", "404 page not found")

    def _configuration(self) -> dict[str, Any]:
        deps = self._kubelet.deps
        return kubelet_configuration(
            address=deps.server_address,
            port=deps.port,
            cluster_dns=deps.cluster_dns,
            cluster_domain=deps.cluster_domain,
            max_pods=deps.machine.max_pods,
        )

    # Finding

    def _worker(self, namespace: str, name: str, uid: str = "") -> PodWorker:
        for worker in self._kubelet.workers.values():
            meta = worker.pod.metadata
            if (meta.namespace, meta.name) == (namespace, name) and uid in ("", meta.uid):
                return worker
        raise ApiError(404, "NotFound", "pod does not exist")

    def _container(self, namespace: str, name: str, rest: list[str]) -> str:
        """Return the id of a running container. `rest` is [container] or [uid, container]."""
        worker = self._worker(namespace, name, rest[0] if len(rest) == 2 else "")
        container = worker.runtime.newest(rest[-1])
        if container is None or container.state is not ContainerState.RUNNING:
            raise ApiError(404, "NotFound", f'container not found ("{rest[-1]}")')
        return container.id

    def _sandbox(self, namespace: str, name: str, rest: list[str]) -> str:
        worker = self._worker(namespace, name, rest[0] if rest else "")
        sandbox = worker.runtime.ready_sandbox()
        if sandbox is None:
            raise ApiError(404, "NotFound", f'pod "{name}" has no sandbox that runs; wait until it is Running')
        return sandbox.id

    # Answers

    def _pods(self, *, running: bool) -> list[dict[str, Any]]:
        items = []
        for worker in self._kubelet.workers.values():
            if running and not worker.runtime.running():
                continue
            pod: BoundPod = msgspec.structs.replace(worker.pod, status=worker.writer.known)
            items.append(_without_empty(msgspec.to_builtins(pod)))
        return items

    def _logs(self, request: Request, namespace: str, name: str, container: str) -> Answer:
        worker = self._worker(namespace, name)
        if find_container(worker.pod, container) is None:
            raise ApiError(404, "NotFound", f'container "{container}" not found in pod "{name}"')
        options = log_options(request, self._kubelet.deps.clock.now_s())
        target = log_target(worker, container, previous=_flag(request, "previous"))
        return follow_log(self._kubelet, worker, target, options)

    async def _run(self, request: Request, container_id: str) -> Answer:
        command = request.query.get("command") or request.query.get("cmd") or []
        if len(command) == 1 and "cmd" in request.query:
            command = command[0].split()
        if not command:
            raise bad_request("you must specify at least one command")
        result = await self._runtime.exec_sync(container_id, command, RUN_TIMEOUT_S)
        output = result.stdout + result.stderr
        if result.exit_code:
            output += f"command exited with code {result.exit_code}\n".encode()
        return Response(200, output, TEXT)


def _flag(request: Request, name: str) -> bool:
    return request.param(name).lower() in ("true", "1")


def log_options(request: Request, now_s: float) -> LogOptions:
    """Return the options of a log request. Raises ApiError for values that make no sense."""

    def number(name: str) -> int | None:
        text = request.param(name)
        if not text:
            return None
        try:
            value = int(text)
        except ValueError:
            value = -1
        if value < 0:
            raise ApiError(422, "Invalid", f"{name}: Invalid value: {text}: must be greater than or equal to 0")
        return value

    since_s: float | None = None
    seconds = number("sinceSeconds")
    if seconds is not None:
        since_s = now_s - seconds
    elif request.param("sinceTime"):
        try:
            since_s = parse_time(request.param("sinceTime"))
        except ValueError as error:
            raise bad_request(f"sinceTime is no RFC 3339 time: {request.param('sinceTime')}") from error
    stream = request.param("stream").lower()
    return LogOptions(
        follow=_flag(request, "follow"),
        tail=number("tailLines"),
        since_s=since_s,
        timestamps=_flag(request, "timestamps"),
        limit_bytes=number("limitBytes"),
        stream=stream if stream in ("stdout", "stderr") else "",
    )


def _json(value: Any) -> Response:
    return Response(200, msgspec.json.encode(value))


def _without_empty(value: Any) -> Any:
    """Return a view's JSON without the empty values that stand for absent ones."""
    if isinstance(value, dict):
        return {k: kept for k, v in value.items() if (kept := _without_empty(v)) not in (None, "", {}, [])}
    if isinstance(value, list | tuple):
        return [_without_empty(v) for v in value]
    return value
