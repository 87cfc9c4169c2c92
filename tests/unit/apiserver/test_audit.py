"""The audit log: what a policy chooses, how events look, and files that are rotated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from assembled_server import peer_of

from tiphys.apiserver.assembly import ApiServerConfig, assemble
from tiphys.apiserver.audit.log import AuditLog
from tiphys.apiserver.audit.policy import METADATA, NONE, REQUEST, BadPolicy, load_policy, parse_policy
from tiphys.apiserver.audit.recorder import Recorder
from tiphys.apiserver.requestinfo import RequestInfo
from tiphys.apiserver.user import User
from tiphys.base.clock import ManualClock, Randomness
from tiphys.store.memory import MemoryStore
from tiphys.wire.message import Request, Response, Stream

HEAD = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy"}
POD = RequestInfo(True, "get", "/api/v1/namespaces/a/pods/p", "", "v1", "a", "pods", "p")
LOG = RequestInfo(True, "get", "/api/v1/namespaces/a/pods/p/log", "", "v1", "a", "pods", "p", "log")
PATH = RequestInfo(False, "get", "/healthz/etcd")


@pytest.mark.parametrize(
    ("rule", "info", "matches"),
    [
        ({}, POD, True),
        ({"users": ["eve"]}, POD, True),
        ({"users": ["bob"]}, POD, False),
        ({"userGroups": ["g"]}, POD, True),
        ({"verbs": ["list"]}, POD, False),
        ({"namespaces": ["a"]}, POD, True),
        ({"namespaces": ["b"]}, POD, False),
        ({"namespaces": ["a"]}, PATH, False),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, POD, True),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, LOG, False),
        ({"resources": [{"group": "", "resources": ["pods/*"]}]}, LOG, True),
        ({"resources": [{"group": "", "resources": ["*/log"]}]}, LOG, True),
        ({"resources": [{"group": "apps"}]}, POD, False),
        ({"resources": [{"group": "", "resources": ["pods"], "resourceNames": ["q"]}]}, POD, False),
        ({"nonResourceURLs": ["/healthz*"]}, PATH, True),
        ({"nonResourceURLs": ["/healthz"]}, PATH, False),
        ({"nonResourceURLs": ["*"]}, POD, False),
    ],
)
def test_rules(rule: dict[str, Any], info: RequestInfo, matches: bool) -> None:
    policy = parse_policy({**HEAD, "rules": [{"level": "Request", **rule}, {"level": "Metadata"}]})
    assert policy.find(User("eve", ("g",)), info).level == (REQUEST if matches else METADATA)
    only = parse_policy({**HEAD, "rules": [{"level": "Metadata", "users": ["nobody"]}]})
    assert only.find(User("eve"), info).level == NONE


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({}, "apiVersion audit.k8s.io/v1 and kind Policy"),
        ({**HEAD}, "no rules"),
        ({**HEAD, "rules": [{"level": "All"}]}, r"rules\[0\].level: 'All' is none of None, Metadata"),
        ({**HEAD, "omitStages": ["Later"], "rules": [{"level": "None"}]}, "omitStages: 'Later'"),
        ({**HEAD, "rules": [{"level": "None", "nonResourceURLs": ["/x"], "namespaces": ["a"]}]}, "both regular"),
        ({**HEAD, "rules": [{"level": "None", "nonResourceURLs": ["x"]}]}, "begin with a slash"),
    ],
)
def test_mistakes_are_told(policy: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadPolicy, match=said):
        parse_policy(policy)
    file = tmp_path / "policy.yaml"
    file.write_bytes(orjson.dumps(policy))
    with pytest.raises(BadPolicy, match=r"policy\.yaml cannot be used"):
        load_policy(str(file))


async def test_events_of_requests(tmp_path: Path) -> None:
    rules = [
        {"level": "None", "users": ["system:apiserver"]},
        {
            "level": "RequestResponse",
            "resources": [{"group": "", "resources": ["configmaps"]}],
            "omitManagedFields": True,
        },
        {"level": "Metadata", "omitStages": ["RequestReceived"]},
    ]
    clock, store, path = ManualClock(), MemoryStore(), tmp_path / "audit.log"
    await store.start()
    log = AuditLog(str(path), clock, max_bytes=1 << 20, backups=1)
    recorder = Recorder(parse_policy({**HEAD, "rules": rules}), log, clock, Randomness(1))
    server = await assemble(ApiServerConfig(recorder=recorder), store, clock, Randomness(1))
    maps = "/api/v1/namespaces/default/configmaps"

    async def ask(method: str, to: str, body: Any = None, user: str = "admin", **headers: str) -> Any:
        target, _, query = to.partition("?")
        sent = {"user-agent": "test/1", "content-type": "application/json", **headers}
        data = orjson.dumps(body) if body is not None else b""
        return await server.handle(Request(method, target, query, sent, data, peer_of(user)))

    made = await ask("POST", maps, {"metadata": {"generateName": "m-"}, "data": {"a": "b"}})
    assert isinstance(made, Response)
    assert made.status == 201
    await ask("GET", "/api/v1/secrets?limit=1", user="eve,devs")
    await ask("GET", maps, **{"impersonate-user": "bob", "audit-id": "given"})
    watch = await ask("GET", f"{maps}?watch=1")
    assert isinstance(watch, Stream)
    await server.stop()
    await store.stop()
    recorder.stop()
    events = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [(e["stage"], e["verb"], e["level"]) for e in events] == [
        ("RequestReceived", "create", "RequestResponse"),
        ("ResponseComplete", "create", "RequestResponse"),
        ("ResponseComplete", "list", "Metadata"),
        ("RequestReceived", "list", "RequestResponse"),
        ("ResponseComplete", "list", "RequestResponse"),
        ("RequestReceived", "watch", "RequestResponse"),
        ("ResponseStarted", "watch", "RequestResponse"),
    ]
    name = orjson.loads(made.body_bytes())["metadata"]["name"]
    create = events[1]
    assert create["auditID"] == events[0]["auditID"] == dict(made.headers)["Audit-Id"]
    assert create["objectRef"]["name"] == name
    assert create["responseStatus"] == {"metadata": {}, "code": 201}
    assert create["requestObject"]["data"] == {"a": "b"}
    assert create["responseObject"]["metadata"]["name"] == name
    assert "managedFields" not in create["responseObject"]["metadata"]
    assert create["annotations"] == {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""}
    assert create["user"]["username"] == "admin"
    assert create["requestReceivedTimestamp"] == "2026-01-01T00:00:00.000000Z"
    denied = events[2]
    assert denied["requestURI"] == "/api/v1/secrets?limit=1"
    assert denied["responseStatus"]["code"] == 403
    assert denied["responseStatus"]["reason"] == "Forbidden"
    assert denied["annotations"]["authorization.k8s.io/decision"] == "forbid"
    assert "requestObject" not in denied
    assert denied["sourceIPs"] == ["127.0.0.1"]
    assert events[4]["impersonatedUser"]["username"] == "bob"
    assert events[4]["auditID"] == "given"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("level", "tells"), [("Metadata", False), ("Request", True), ("RequestResponse", True)])
def test_patches_of_webhooks_are_told_where_objects_are(level: str, tells: bool, tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "audit.log"
    log = AuditLog(str(path), clock, max_bytes=1 << 20, backups=1)
    recorder = Recorder(parse_policy({**HEAD, "rules": [{"level": level}]}), log, clock, Randomness(1))
    request = Request("POST", POD.path, "", {}, b"", peer_of("admin"))
    record = recorder.begin(request, POD, User("eve"), 0.0)
    assert record is not None
    key = "webhook.admission.k8s.io/round_0_index_0"
    record.notes.update({f"patch.{key}": "{}", f"mutation.{key}": "{}"})
    recorder.end(record, Response(200, b""))
    recorder.stop()
    told = orjson.loads(path.read_bytes().splitlines()[-1])["annotations"]
    assert (f"mutation.{key}" in told, f"patch.{key}" in told) == (True, tells)


async def test_pod_security_is_recorded(tmp_path: Path) -> None:
    clock, store, path = ManualClock(), MemoryStore(), tmp_path / "audit.log"
    await store.start()
    log = AuditLog(str(path), clock, max_bytes=1 << 20, backups=1)
    rules = [{"level": "Metadata", "resources": [{"group": "", "resources": ["pods"]}]}]
    recorder = Recorder(
        parse_policy({**HEAD, "omitStages": ["RequestReceived"], "rules": rules}), log, clock, Randomness(1)
    )
    server = await assemble(ApiServerConfig(recorder=recorder), store, clock, Randomness(1))
    prefix = "pod-security.kubernetes.io"

    async def make(to: str, body: Any) -> int:
        sent = {"content-type": "application/json"}
        answer = await server.handle(Request("POST", to, "", sent, orjson.dumps(body), peer_of("admin")))
        assert isinstance(answer, Response)
        return answer.status

    labels = {f"{prefix}/enforce": "baseline", f"{prefix}/audit": "restricted"}
    assert await make("/api/v1/namespaces", {"metadata": {"name": "safe", "labels": labels}}) == 201
    assert await make("/api/v1/namespaces/safe/serviceaccounts", {"metadata": {"name": "default"}}) == 201
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    assert await make("/api/v1/namespaces/safe/pods", pod) == 201
    await server.stop()
    await store.stop()
    recorder.stop()
    notes = orjson.loads(path.read_bytes())["annotations"]
    assert notes[f"{prefix}/enforce-policy"] == "baseline:latest"
    assert notes[f"{prefix}/audit-violations"].startswith('would violate PodSecurity "restricted:latest": ')


def test_files_are_rotated_and_old_ones_go(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "audit.log"
    log = AuditLog(str(path), clock, max_bytes=100, backups=2)
    for number in range(12):
        clock.current_s += 1
        log.write(lambda n=number: b"%040d" % n)
    log.stop()
    old = sorted(tmp_path.glob("audit-*.log"))
    assert len(old) == 2
    lines = [line for file in [*old, path] for line in file.read_bytes().splitlines()]
    assert lines == [b"%040d" % number for number in range(6, 12)]
    assert log.lost == 0


def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "dir.log").mkdir()
    with pytest.raises(IsADirectoryError):
        AuditLog(str(tmp_path / "dir.log"), ManualClock(), max_bytes=100, backups=2)
