"""kubectl against fairness, health, impersonation and warnings: what an administrator looks at."""

from __future__ import annotations

import json

from kubectl_cli import Kubectl


def test_flow_schemas_are_shown_and_one_can_be_added(kubectl: Kubectl) -> None:
    kubectl("wait", "--for=create", "flowschema/catch-all", "--timeout=30s")
    kubectl("wait", "--for=condition=Dangling=false", "flowschema/catch-all", "--timeout=30s")
    shown = kubectl("get", "flowschemas", "--no-headers")
    assert len(shown.splitlines()) >= 13
    levels = json.loads(kubectl("get", "prioritylevelconfigurations", "-o", "json"))["items"]
    assert {"exempt", "catch-all", "workload-low"} <= {level["metadata"]["name"] for level in levels}
    pages = kubectl("get", "--raw", "/debug/api_priority_and_fairness/dump_priority_levels")
    assert pages.startswith("PriorityLevelName, ")
    refused = kubectl.refused(
        "patch", "flowschema", "catch-all", "--type=merge", "-p", '{"spec":{"matchingPrecedence":9}}'
    )
    assert "spec of 'catch-all' must equal the fixed value" in refused


def test_checks_are_told_one_by_one(kubectl: Kubectl) -> None:
    told = kubectl("get", "--raw", "/readyz?verbose&exclude=etcd")
    assert told.startswith("[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\n")
    assert told.endswith("[+]shutdown ok\nreadyz check passed\n")


def test_acting_as_somebody(kubectl: Kubectl) -> None:
    who = json.loads(
        kubectl("auth", "whoami", "-o", "json", "--as=eve", "--as-group=a,b", "--as-group=c", "--as-uid=7")
    )["status"]["userInfo"]
    assert (who["username"], who["uid"]) == ("eve", "7")
    assert who["groups"] == ["a,b", "c", "system:authenticated"]
    assert "cannot list resource" in kubectl.refused("get", "secrets", "--as=eve")
