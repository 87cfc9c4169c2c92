"""The debug pages of fairness: levels, queues and waiting requests as tables for people.

Pure but for reading the gate. The columns and their alignment are those that upstream prints.

Spec: Kubernetes documentation, "API Priority and Fairness: Debug endpoints".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from tiphys.apiserver.fairness.gate import Gate
from tiphys.apiserver.pipeline import PathHandler
from tiphys.apiserver.user import User
from tiphys.wire.message import Answer, Request, Response

PREFIX = "/debug/api_priority_and_fairness/"
_MIN_WIDTH = 8


def debug_paths(gate: Gate) -> dict[str, PathHandler]:
    """Return the handlers of the pages by path."""

    def handler(page: Callable[[Request], list[list[str]]]) -> PathHandler:
        async def answer(request: Request, user: User) -> Answer:
            gate.refresh()
            return Response(200, _align(page(request)), "text/plain; charset=utf-8")

        return answer

    return {
        f"{PREFIX}dump_priority_levels": handler(lambda request: _levels(gate)),
        f"{PREFIX}dump_queues": handler(lambda request: _queues(gate)),
        f"{PREFIX}dump_requests": handler(
            lambda request: _requests(gate, details=bool(request.param("includeRequestDetails")))
        ),
    }


def _levels(gate: Gate) -> list[list[str]]:
    header = ["PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests"]
    header += ["DispatchedRequests", "RejectedRequests", "TimedoutRequests", "CancelledRequests"]
    rows = [header]
    for name, level in sorted(gate.levels.items()):
        counts = [schema.counts for schema in gate.schemas if schema.level == name]
        dispatched = sum(sum(c.by_duration()) for c in counts)

        def rejected(*reasons: str) -> str:
            return str(sum(c.rejected.get(reason, 0) for c in counts for reason in reasons))  # noqa: B023

        rows.append(
            [
                name,
                str(level.queues.active_count() if level.queues is not None else 0),
                _bool(level.is_idle()),
                _bool(level.quiescing),
                str(level.waiting),
                str(level.in_use),
                str(dispatched),
                rejected("queue-full", "concurrency-limit"),
                rejected("time-out"),
                rejected("cancelled"),
            ]
        )
    return rows


def _queues(gate: Gate) -> list[list[str]]:
    header = ["PriorityLevelName", "Index", "PendingRequests", "ExecutingRequests", "SeatsInUse", "NextDispatchR"]
    header += ["InitialSeatsSum", "MaxSeatsSum", "TotalWorkSum"]
    rows = [header]
    for name, level in sorted(gate.levels.items()):
        if level.queues is None:
            rows.append([name, *["<none>"] * 8])
            continue
        for index, queue in enumerate(level.queues.queues):
            numbers = [index, len(queue.requests), queue.executing, queue.executing_seats]
            sums = [str(queue.seats), str(queue.seats), f"{queue.seats * 0.003:.8f}ss"]
            rows.append([name, *map(str, numbers), f"{queue.start:.8f}ss", *sums])
    return rows


def _requests(gate: Gate, *, details: bool) -> list[list[str]]:
    header = ["PriorityLevelName", "FlowSchemaName", "QueueIndex", "RequestIndexInQueue", "FlowDistingsher"]
    header += ["ArriveTime", "InitialSeats", "FinalSeats", "AdditionalLatency", "StartTime"]
    if details:
        header += ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"]
    rows = [header]
    for name, level in sorted(gate.levels.items()):
        for at, queue in enumerate(level.queues.queues if level.queues is not None else ()):
            for index, waiting in enumerate(queue.requests):
                arrived = datetime.fromtimestamp(waiting.arrived_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                row = [name, waiting.schema.name, str(at), str(index), waiting.distinguisher, arrived]
                row += [str(waiting.seats), "0", "0s", "0001-01-01T00:00:00Z"]
                if details:
                    info = waiting.info
                    version = f"{info.group}/{info.version}" if info.group else info.version
                    row += [waiting.user, info.verb, info.path, info.namespace, info.name, version]
                    row += [info.resource, info.subresource]
                rows.append(row)
    return rows


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _align(rows: Sequence[Sequence[str]]) -> bytes:
    """Return rows with commas and aligned columns: each cell but the last is padded to the widest of its column."""
    widths = [max(_MIN_WIDTH, max(len(row[at]) for row in rows) + 2) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [f"{cell},".ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("".join(cells) + row[-1] + "\n")
    return "".join(lines).encode()
