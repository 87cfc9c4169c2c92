"""The FlowSchemas and PriorityLevelConfigurations that every cluster has: a table.

Mandatory ones (`exempt`, `catch-all`) are always as they are here; suggested ones are kept so unless their annotation
says otherwise (apiserver/fairness/upkeep.py). Objects are made in the newest version; older ones are converted when they are written.

Spec: Kubernetes documentation, "API Priority and Fairness: Defaults"; names and numbers are those that users find.
"""

from __future__ import annotations

from collections.abc import Sequence

from tiphys.api.kind import JsonObject

GROUP = "flowcontrol.apiserver.k8s.io"
AUTOUPDATE = "apf.kubernetes.io/autoupdate-spec"
EXEMPT = "exempt"
CATCH_ALL = "catch-all"
MANDATORY = frozenset({EXEMPT, CATCH_ALL})

MASTERS, NODES = "system:masters", "system:nodes"
AUTHENTICATED, UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"
_CONTROLLERS, _SCHEDULER = "system:kube-controller-manager", "system:kube-scheduler"
_LEASING = ["get", "create", "update"]
_EVERYBODY = (UNAUTHENTICATED, AUTHENTICATED)


def _level(name: str, shares: int, lendable: int, queues: int = 0, hand: int = 0) -> JsonObject:
    """A limited level; without queues it refuses what exceeds its limit."""
    response: JsonObject = {"type": "Reject"}
    if queues:
        response = {"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}}
    limited = {"nominalConcurrencyShares": shares, "limitResponse": response, "lendablePercent": lendable}
    return _object("PriorityLevelConfiguration", name, {"type": "Limited", "limited": limited})


def _schema(name: str, level: str, precedence: int, by: str, rule: JsonObject) -> JsonObject:
    spec: JsonObject = {
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        **({"distinguisherMethod": {"type": by}} if by else {}),
        "rules": [rule],
    }
    return _object("FlowSchema", name, spec)


def _object(kind: str, name: str, spec: JsonObject) -> JsonObject:
    metadata = {"name": name, "annotations": {AUTOUPDATE: "true"}}
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _users(*names: str) -> list[JsonObject]:
    return [{"kind": "User", "user": {"name": name}} for name in names]


def _groups(*names: str) -> list[JsonObject]:
    return [{"kind": "Group", "group": {"name": name}} for name in names]


def _accounts(*names: str) -> list[JsonObject]:
    return [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": n}} for n in names]


def _resources(verbs: Sequence[str], group: str, resources: Sequence[str], *, cluster: bool = False) -> JsonObject:
    rule: JsonObject = {"verbs": list(verbs), "apiGroups": [group], "resources": list(resources)}
    if cluster:
        rule["clusterScope"] = True
    return {**rule, "namespaces": ["*"]}


def _everything(subjects: list[JsonObject]) -> JsonObject:
    return {
        "subjects": subjects,
        "resourceRules": [_resources(["*"], "*", ["*"], cluster=True)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }


LEVELS: tuple[JsonObject, ...] = (
    _object(
        "PriorityLevelConfiguration",
        EXEMPT,
        {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}},
    ),
    _level(CATCH_ALL, 5, 0),
    _level("system", 30, 33, 64, 6),
    _level("node-high", 40, 25, 64, 6),
    _level("leader-election", 10, 0, 16, 4),
    _level("workload-high", 40, 50, 128, 6),
    _level("workload-low", 100, 90, 128, 6),
    _level("global-default", 20, 50, 128, 6),
)
SCHEMAS: tuple[JsonObject, ...] = (
    _schema(EXEMPT, EXEMPT, 1, "", _everything(_groups(MASTERS))),
    _schema(
        "probes",
        EXEMPT,
        2,
        "",
        {
            "subjects": _groups(*_EVERYBODY),
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
        },
    ),
    _schema(
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        {
            "subjects": [*_users(_CONTROLLERS, _SCHEDULER), *_accounts("*")],
            "resourceRules": [_resources(_LEASING, "coordination.k8s.io", ["leases"])],
        },
    ),
    _schema(
        "endpoint-controller",
        "workload-high",
        150,
        "ByUser",
        {
            "subjects": [
                *_users(_CONTROLLERS),
                *_accounts("endpoint-controller", "endpointslicemirroring-controller"),
            ],
            "resourceRules": [_resources(_LEASING, "", ["endpoints"])],
        },
    ),
    _schema(
        "workload-leader-election",
        "leader-election",
        200,
        "ByUser",
        {
            "subjects": _accounts("*"),
            "resourceRules": [
                _resources(_LEASING, "", ["endpoints", "configmaps"]),
                _resources(_LEASING, "coordination.k8s.io", ["leases"]),
            ],
        },
    ),
    _schema(
        "system-node-high",
        "node-high",
        400,
        "ByUser",
        {
            "subjects": _groups(NODES),
            "resourceRules": [
                _resources(["*"], "", ["nodes", "nodes/status"], cluster=True),
                _resources(["*"], "coordination.k8s.io", ["leases"]),
            ],
        },
    ),
    _schema("system-nodes", "system", 500, "ByUser", _everything(_groups(NODES))),
    _schema("kube-controller-manager", "workload-high", 800, "ByNamespace", _everything(_users(_CONTROLLERS))),
    _schema("kube-scheduler", "workload-high", 800, "ByNamespace", _everything(_users(_SCHEDULER))),
    _schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", _everything(_accounts("*"))),
    _schema("service-accounts", "workload-low", 9000, "ByUser", _everything(_groups("system:serviceaccounts"))),
    _schema("global-default", "global-default", 9900, "ByUser", _everything(_groups(*_EVERYBODY))),
    _schema(CATCH_ALL, CATCH_ALL, 10000, "ByUser", _everything(_groups(*_EVERYBODY))),
)


def mandatory(objects: Sequence[JsonObject]) -> list[JsonObject]:
    """Return those of a table that cannot be changed."""
    return [obj for obj in objects if obj["metadata"]["name"] in MANDATORY]
