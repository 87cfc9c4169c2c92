"""Makes audit events of requests: the pipeline tells it what happens, it tells the log what the policy wants.

One `Record` a request that is told: begun when the user is known, ended with the answer; a long-running request is told
when it starts and when it ends. Bodies are decoded in the log's thread. Annotations come from authorization and, by
`Request.notes`, from admission.

Spec: Kubernetes documentation, "Auditing"; audit.k8s.io/v1 Event. DIFFERS: what is refused before the user is known
(wrong credentials, a bad timeout) is told at level Metadata when any rule could tell it; request bodies that are not
JSON are not in the events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from tiphys.api.kinds.deprecations import deprecated_resources
from tiphys.apiserver.audit.log import AuditLog
from tiphys.apiserver.audit.policy import (
    COMPLETE,
    LEVEL_NAMES,
    METADATA,
    NONE,
    RECEIVED,
    REQUEST,
    REQUEST_RESPONSE,
    STARTED,
    Policy,
    Rule,
)
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import User
from tiphys.base.clock import Clock, Randomness, format_micro_time
from tiphys.base.metrics import Metrics
from tiphys.wire.message import Answer, Request, Response

DECISION, REASON = "authorization.k8s.io/decision", "authorization.k8s.io/reason"
DEPRECATED, REMOVED = "k8s.io/deprecated", "k8s.io/removed-release"
ID_HEADER = "Audit-Id"
ID_LIMIT = 64
DETAILS = "patch.webhook.admission.k8s.io/"
"""Prefix of annotations that tell parts of objects: they are in events of the levels that tell objects."""
_WRITING = frozenset({"create", "update", "patch", "delete"})
_NOT_OBJECT = frozenset({"log", "exec", "attach", "portforward", "proxy"})


class Record:
    """One request on its way."""

    __slots__ = ("_info", "_log", "_received", "_request", "_rule", "_user", "acting", "notes", "request_id")

    def __init__(
        self, log: AuditLog, rule: Rule, request: Request, info: RequestInfo, user: User, received: str, request_id: str
    ) -> None:
        self._log = log
        self._rule = rule
        self._request = request
        self._info = info
        self._user = user
        self._received = received
        self.request_id = request_id
        self.acting: User | None = None
        """Who is impersonated."""
        self.notes: dict[str, str] = {}

    def decided(self, allowed: bool, reason: str) -> None:
        """Note the authorizers' decision."""
        self.notes[DECISION] = "allow" if allowed else "forbid"
        self.notes[REASON] = reason

    def tell(self, stage: str, at: str, status: int = 0, body: bytes | None = None) -> None:
        """Queue the event of a stage. `body` is the answer's, for its status or its object."""
        rule = self._rule
        if stage in rule.omitted_stages:
            return
        acting, notes = self.acting, dict(self.notes)
        self._log.write(lambda: orjson.dumps(self._event(stage, at, status, body, acting, notes)))

    def _event(
        self, stage: str, at: str, status: int, body: bytes | None, acting: User | None, notes: dict[str, str]
    ) -> dict[str, Any]:
        request, info, level = self._request, self._info, self._rule.level
        path = request.raw_path or request.path
        event: dict[str, Any] = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": LEVEL_NAMES[level],
            "auditID": self.request_id,
            "stage": stage,
            "requestURI": f"{path}?{request.raw_query}" if request.raw_query else path,
            "verb": info.verb,
            "user": self._user.info(),
        }
        if acting is not None:
            event["impersonatedUser"] = acting.info()
        event["sourceIPs"] = _sources(request)
        event["userAgent"] = request.headers.get("user-agent", "")
        answer = _decoded(body)
        if info.is_resource:
            event["objectRef"] = _reference(info, answer)
        if stage != RECEIVED:
            event["responseStatus"] = _status(status, answer)
            if level >= REQUEST and request.body:
                self._add(event, "requestObject", _decoded(request.body))
            if level >= REQUEST_RESPONSE and info.subresource not in _NOT_OBJECT:
                self._add(event, "responseObject", answer)
        event["requestReceivedTimestamp"] = self._received
        event["stageTimestamp"] = at
        told = notes if level >= REQUEST else {key: note for key, note in notes.items() if not key.startswith(DETAILS)}
        if told:
            event["annotations"] = told
        return event

    def _add(self, event: dict[str, Any], key: str, obj: Any) -> None:
        if not isinstance(obj, dict):
            return
        if self._rule.omits_managed_fields:
            for each in (obj, *(obj.get("items") or ())):
                (each.get("metadata") or {}).pop("managedFields", None)
        event[key] = obj


class Recorder:
    """See the module's docstring."""

    def __init__(
        self, policy: Policy, log: AuditLog, clock: Clock, randomness: Randomness, kubernetes_minor: int = 37
    ) -> None:
        self._deprecated = deprecated_resources(kubernetes_minor)
        self._policy = policy
        self.log = log
        self._clock = clock
        self._randomness = randomness
        self.levels = [0, 0, 0, 0]
        """Requests by level."""
        self.told = 0
        """Events that were made."""

    def begin(self, request: Request, info: RequestInfo, user: User, received_s: float) -> Record | None:
        """Return the record of a request that the policy wants told, and tell that it has come."""
        rule = self._policy.find(user, info)
        self.levels[rule.level] += 1
        if rule.level == NONE:
            return None
        given = request.headers.get("audit-id", "")
        request_id = given[:ID_LIMIT] if given else self._randomness.uid()
        record = Record(self.log, rule, request, info, user, format_micro_time(received_s), request_id)
        request.notes = record.notes
        deprecation = self._deprecated.get((info.group, info.version, info.resource))
        if deprecation is not None:
            record.notes[DEPRECATED] = "true"
            if deprecation.removed_release:
                record.notes[REMOVED] = deprecation.removed_release
        self._tell(record, RECEIVED)
        return record

    def refused(self, request: Request, info: RequestInfo, received_s: float, answer: Response) -> None:
        """Tell of a request that was refused before anybody was known."""
        if all(rule.level == NONE for rule in self._policy.rules):
            return
        rule = Rule(METADATA)
        self.levels[METADATA] += 1
        received = format_micro_time(received_s)
        record = Record(self.log, rule, request, info, User(""), received, self._randomness.uid())
        self._tell(record, COMPLETE, answer.status, answer.body_bytes())

    def end(self, record: Record, answer: Answer) -> None:
        """Tell what came of a request; a stream is told now and when it ends."""
        headers = (*answer.headers, (ID_HEADER, record.request_id))
        answer.headers = headers
        if isinstance(answer, Response):
            self._tell(record, COMPLETE, answer.status, answer.body_bytes())
            return
        self._tell(record, STARTED, getattr(answer, "status", 101))

    def over(self, record: Record, status: int) -> None:
        """Tell that a long-running request has ended, or that one was cut off."""
        self._tell(record, COMPLETE, status)

    def publish(self, metrics: Metrics) -> None:
        """Publish what was told."""
        metrics.collect(
            "counter", "apiserver_audit_event_total", "Audit events that were made.", (), lambda: [((), self.told)]
        )
        metrics.collect(
            "counter",
            "apiserver_audit_level_total",
            "Requests by how much the policy wants told of them.",
            ("level",),
            lambda: [((name,), self.levels[at]) for at, name in enumerate(LEVEL_NAMES)],
        )
        metrics.collect(
            "counter",
            "apiserver_audit_error_total",
            "Audit events that were not written.",
            ("plugin",),
            lambda: [(("log",), self.log.lost)],
        )

    def _tell(self, record: Record, stage: str, status: int = 0, body: bytes | None = None) -> None:
        self.told += 1
        record.tell(stage, format_micro_time(self._clock.now_s()), status, body)

    def stop(self) -> None:
        """Write what waits."""
        self.log.stop()


def _sources(request: Request) -> list[str]:
    """Return the addresses on the way, the peer last."""
    forwarded = [part.strip() for part in request.headers.get("x-forwarded-for", "").split(",") if part.strip()]
    real = request.headers.get("x-real-ip", "")
    found = forwarded + ([real] if real and real not in forwarded else [])
    peer = request.peer.address
    return found if peer in found or not peer else [*found, peer]


def _reference(info: RequestInfo, answer: Any) -> dict[str, str]:
    """Return what the request was about; names that the server chose are in its answer."""
    metadata: Mapping[str, Any] = {}
    if isinstance(answer, dict) and info.verb in _WRITING and answer.get("kind") != "Status":
        metadata = answer.get("metadata") or {}
    told = {
        "resource": info.resource,
        "namespace": info.namespace,
        "name": info.name or str(metadata.get("name") or ""),
        "uid": str(metadata.get("uid") or "") if not info.subresource else "",
        "apiGroup": info.group,
        "apiVersion": info.version,
        "resourceVersion": str(metadata.get("resourceVersion") or "") if info.verb == "update" else "",
        "subresource": info.subresource,
    }
    return {key: value for key, value in told.items() if value}


def _status(code: int, answer: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"metadata": {}}
    if isinstance(answer, dict) and answer.get("kind") == "Status":
        told.update((key, answer[key]) for key in ("status", "message", "reason", "details") if answer.get(key))
    return {**told, "code": code}


def _decoded(body: bytes | None) -> Any:
    if not body or body[:1] not in (b"{", b"["):
        return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
