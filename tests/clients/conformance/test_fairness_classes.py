"""Requests are told apart by flow schemas as soon as these are there.

Spec: upstream's test "should ensure that requests can be classified by adding FlowSchema and PriorityLevelConfiguration".
"""

from __future__ import annotations

from typing import Any

from direct_api import Api, soon

Json = dict[str, Any]
GROUP = "/apis/flowcontrol.apiserver.k8s.io/v1"
FLOW, LEVEL = "x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"


def _object(kind: str, name: str, spec: Json) -> Json:
    return {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def test_requests_are_classified(api: Api, unique: str) -> None:
    level_path = f"{GROUP}/prioritylevelconfigurations"
    limited = {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}
    level = api.create(
        level_path, _object("PriorityLevelConfiguration", unique, {"type": "Limited", "limited": limited})
    )
    rule = {
        "subjects": [{"kind": "User", "user": {"name": unique}}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }
    spec = {
        "matchingPrecedence": 1000,
        "priorityLevelConfiguration": {"name": unique},
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [rule],
    }
    flow = api.create(f"{GROUP}/flowschemas", _object("FlowSchema", unique, spec))
    try:
        api.wait(f"{GROUP}/flowschemas/{unique}", _is_not_dangling)
        metric = f'apiserver_flowcontrol_nominal_limit_seats{{priority_level="{unique}"}}'
        soon(lambda: metric in api.ask("GET", "/metrics", headers={"Accept": "text/plain"}).body.decode())
        matching = _headers(api, unique)
        assert matching[LEVEL] == level["metadata"]["uid"]
        assert matching[FLOW] == flow["metadata"]["uid"]
        other = _headers(api, "foo")
        assert other[LEVEL]
        assert other[FLOW]
        assert other[LEVEL] != matching[LEVEL]
    finally:
        api.delete(f"{GROUP}/flowschemas/{unique}")
        api.delete(f"{level_path}/{unique}")


def _is_not_dangling(flow: Json) -> bool:
    conditions = flow.get("status", {}).get("conditions", ())
    return any(c["type"] == "Dangling" and c["status"] == "False" for c in conditions)


def _headers(api: Api, user: str) -> Any:
    other = api.acting_as(user, "system:authenticated")
    try:
        return other.ask("GET", "/version").headers
    finally:
        other.close()
