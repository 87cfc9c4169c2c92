"""Hooks that the golden cases do not reach: status updates, subresources, deletion, and promises about all kinds."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tiphys.api.kind import Context
from tiphys.api.strategies import STRATEGIES

CONTEXT = Context(user="tester", now="2026-01-01T00:00:00Z")
POD = STRATEGIES["", "Pod"]


def _pod(**spec: Any) -> dict[str, Any]:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [], **spec}}
    pod["spec"]["containers"] = spec.get("containers") or [{"name": "c", "image": "i:1"}]
    POD.default(pod)
    POD.prepare_for_create(pod, CONTEXT)
    return pod


@pytest.mark.parametrize("key", sorted(STRATEGIES), ids="/".join)
def test_every_kind_survives_an_empty_object(key: tuple[str, str]) -> None:
    obj: dict[str, Any] = {"apiVersion": f"{key[0] or 'x'}/v1", "kind": key[1], "metadata": {"name": "a"}}
    strategy = STRATEGIES[key]
    if key != ("", "Secret"):
        obj["spec"] = {}
    strategy.default(obj)
    strategy.prepare_for_create(obj, CONTEXT)
    causes = strategy.validate(obj, CONTEXT)
    assert all(cause.message for cause in causes)
    strategy.warnings(obj)
    new = copy.deepcopy(obj)
    strategy.prepare_for_update(new, obj, CONTEXT)
    assert strategy.validate_update(new, obj, CONTEXT) == []
    status = copy.deepcopy(obj)
    strategy.prepare_for_status_update(status, obj, CONTEXT)
    assert isinstance(strategy.validate_status_update(status, obj, CONTEXT), list)


def test_a_gated_pod_says_what_it_waits_for() -> None:
    pod = _pod(schedulingGates=[{"name": "example.com/quota"}])
    assert pod["status"]["phase"] == "Pending"
    assert [c["reason"] for c in pod["status"]["conditions"]] == ["SchedulingGated"]


def test_a_finished_container_of_a_pod_that_never_restarts_stays_finished() -> None:
    old = _pod(restartPolicy="Never")
    old["status"]["containerStatuses"] = [{"name": "c", "state": {"terminated": {"exitCode": 1}}}]
    new = copy.deepcopy(old)
    new["status"]["containerStatuses"] = [{"name": "c", "state": {"running": {}}}]
    (cause,) = POD.validate_status_update(new, old, CONTEXT)
    assert (cause.field, cause.type) == ("status.containerStatuses[0].state", "FieldValueForbidden")
    old["spec"]["restartPolicy"] = "OnFailure"
    assert POD.validate_status_update(new, old, CONTEXT) == []


def test_pod_addresses_are_paired() -> None:
    old = _pod()
    new = copy.deepcopy(old)
    new["status"]["podIP"] = "10.0.0.1"
    POD.prepare_for_status_update(new, old, CONTEXT)
    assert new["status"]["podIPs"] == [{"ip": "10.0.0.1"}]
    only_list = copy.deepcopy(old)
    only_list["status"]["podIPs"] = [{"ip": "10.0.0.2"}]
    POD.prepare_for_status_update(only_list, old, CONTEXT)
    assert only_list["status"]["podIP"] == "10.0.0.2"


def test_ephemeral_containers_are_added_and_never_changed() -> None:
    rules = Context(user="tester", now="", subresource="ephemeralcontainers")
    old = _pod()
    new = copy.deepcopy(old)
    new["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "busybox"}]
    new["spec"]["hostname"] = "ignored"
    POD.default(new)
    POD.prepare_for_update(new, old, rules)
    assert "hostname" not in new["spec"]
    assert POD.validate(new, rules) + POD.validate_update(new, old, rules) == []
    removed = copy.deepcopy(old)
    assert [c.field for c in POD.validate_update(removed, new, rules)] == ["spec.ephemeralContainers"]


def test_resize_changes_cpu_and_memory_only() -> None:
    rules = Context(user="tester", now="", subresource="resize")
    container = {"name": "c", "image": "i:1", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}
    old = _pod(containers=[container])
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "1500m"
    assert POD.validate_update(new, old, rules) == []
    new["spec"]["containers"][0]["image"] = "i:2"
    assert [c.message for c in POD.validate_update(new, old, rules)] == [
        "Forbidden: only cpu and memory resources are mutable"
    ]


def test_empty_and_absent_fields_are_no_change() -> None:
    old = _pod()
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["env"] = []
    new["spec"]["nodeSelector"] = {}
    assert POD.validate_update(new, old, CONTEXT) == []


def test_grace_of_pods() -> None:
    grace_s = POD.graceful_delete_s
    assert grace_s is not None
    assert grace_s(_pod()) == 0
    assert grace_s(_pod(nodeName="n")) == 30
    assert grace_s(_pod(nodeName="n", terminationGracePeriodSeconds=-5)) == 1
    finished = _pod(nodeName="n")
    finished["status"]["phase"] = "Succeeded"
    assert grace_s(finished) == 0


def test_label_keys_become_expressions() -> None:
    pod = {
        "metadata": {"name": "a", "labels": {"hash": "1"}},
        "spec": {
            "containers": [{"name": "c", "image": "i"}],
            "affinity": {
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "zone", "labelSelector": {}, "matchLabelKeys": ["hash", "none"]}
                    ]
                }
            },
        },
    }
    POD.default(pod)
    POD.prepare_for_create(pod, CONTEXT)
    (term,) = pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]  # type: ignore[index]
    assert term["labelSelector"] == {"matchExpressions": [{"key": "hash", "operator": "In", "values": ["1"]}]}


def test_namespace_phase_follows_the_deletion() -> None:
    strategy = STRATEGIES["", "Namespace"]
    old = {"metadata": {"name": "a"}, "status": {"phase": "Active"}}
    new = {"metadata": {"name": "a"}, "status": {"phase": "Terminating"}}
    assert [c.field for c in strategy.validate_status_update(new, old, CONTEXT)] == ["status.Phase"]
    new["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert strategy.validate_status_update(new, old, CONTEXT) == []


def test_a_service_that_becomes_internal_gives_its_node_ports_back() -> None:
    strategy = STRATEGIES["", "Service"]
    old: dict[str, Any] = {"metadata": {}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}}
    new = copy.deepcopy(old)
    strategy.default(old)
    new["spec"] = {**copy.deepcopy(old["spec"]), "type": "ClusterIP"}
    strategy.default(new)
    strategy.prepare_for_update(new, old, CONTEXT)
    assert strategy.validate(new, CONTEXT) == []
    assert "nodePort" not in new["spec"]["ports"][0]


def test_a_new_storage_version_is_remembered() -> None:
    strategy = STRATEGIES["apiextensions.k8s.io", "CustomResourceDefinition"]
    old: dict[str, Any] = {"spec": {"versions": [{"name": "v1", "storage": True}]}}
    strategy.prepare_for_create(old, CONTEXT)
    new: dict[str, Any] = {"spec": {"versions": [{"name": "v1"}, {"name": "v2", "storage": True}]}}
    strategy.prepare_for_update(new, old, CONTEXT)
    assert new["status"]["storedVersions"] == ["v1", "v2"]
    gone: dict[str, Any] = {"spec": {"versions": [{"name": "v2", "storage": True}]}, "status": new["status"]}
    assert [c.field for c in strategy.validate_update(gone, new, CONTEXT)] == ["status.storedVersions[0]"]


def test_restart_policies_of_containers_came_later() -> None:
    pod = _pod(containers=[{"name": "c", "image": "i:1", "restartPolicy": "OnFailure"}])
    assert POD.validate(pod, CONTEXT) == []
    old = Context(user="tester", now="", kubernetes_version=(1, 31))
    assert [c.message for c in POD.validate(pod, old)] == ["Forbidden: may not be set for non-init containers"]
