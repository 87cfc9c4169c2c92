"""Namespaces: their fields, their finalizers, and what goes with them.

Spec: upstream's tests "Namespaces" and "OrderedNamespaceDeletion".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from direct_api import STRATEGIC, Api, names

Json = dict[str, Any]
FINALIZER = "e2e.example.com/fakeFinalizer"


@pytest.fixture
def path(api: Api, unique: str) -> Iterator[str]:
    """The path of a new namespace."""
    path = _create(api, f"n-{unique}")
    yield path
    api.ask("DELETE", path)


def _create(api: Api, name: str) -> str:
    api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return f"/api/v1/namespaces/{name}"


def _pod(name: str, **metadata: Any) -> Json:
    spec = {"containers": [{"name": "pause", "image": "pause"}], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


def test_labels_are_patched_and_updated(api: Api, path: str) -> None:
    patched = api.patch(path, {"metadata": {"labels": {"testLabel": "testValue"}}}, STRATEGIC)
    assert patched["metadata"]["labels"]["testLabel"] == "testValue"
    assert api.get(path)["metadata"]["labels"]["testLabel"] == "testValue"
    updated = api.change(path, lambda thing: thing["metadata"]["labels"].update(another="value"))
    assert updated["metadata"]["labels"] == {
        "testLabel": "testValue",
        "another": "value",
        "kubernetes.io/metadata.name": updated["metadata"]["name"],
    }


def test_the_status(api: Api, path: str) -> None:
    assert api.get(f"{path}/status")["status"] == {"phase": "Active"}
    first = {"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "Patched by an e2e test"}
    body = {"metadata": {"annotations": {"e2e-patched": "yes"}}, "status": {"conditions": [first]}}
    patched = api.patch(f"{path}/status", body)
    assert patched["metadata"]["annotations"]["e2e-patched"] == "yes"
    assert first.items() <= patched["status"]["conditions"][0].items()
    second = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Updated by an e2e test"}
    updated = api.change(path, lambda thing: thing["status"]["conditions"].append(second), "status")
    assert [c["type"] for c in updated["status"]["conditions"]] == ["StatusPatch", "StatusUpdate"]
    assert updated["status"]["phase"] == "Active"


def test_finalizers(api: Api, path: str) -> None:
    added = api.change(path, lambda thing: thing["spec"]["finalizers"].append(FINALIZER), "finalize")
    assert added["spec"]["finalizers"] == ["kubernetes", FINALIZER]
    assert api.get(path)["spec"]["finalizers"] == ["kubernetes", FINALIZER]
    api.change(path, lambda thing: thing["spec"].update(finalizers=["kubernetes"]), "finalize")
    assert api.get(path)["spec"]["finalizers"] == ["kubernetes"]


def test_everything_goes_with_a_namespace(api: Api, path: str) -> None:
    api.wait(f"{path}/serviceaccounts/default", lambda _: True)
    api.create(f"{path}/pods", _pod("test-pod"))
    api.wait(f"{path}/pods/test-pod", lambda pod: pod["status"]["phase"] == "Running")
    spec = {"selector": {"foo": "bar"}, "ports": [{"port": 80, "targetPort": 80}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "test-service"}, "spec": spec}
    api.create(f"{path}/services", service)
    api.delete(path)
    api.wait_until_gone(path)
    _create(api, path.rpartition("/")[2])
    assert not api.is_there(f"{path}/pods/test-pod")
    assert not api.is_there(f"{path}/services/test-service")
    assert names(api.get(f"{path}/pods")) == names(api.get(f"{path}/services")) == []


def test_pods_go_first(api: Api, path: str) -> None:
    api.wait(f"{path}/serviceaccounts/default", lambda _: True)
    api.create(f"{path}/pods", _pod("held", finalizers=["e2e.example.com/finalizer"]))
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "test", "finalizers": ["e2e.example.com/f"]},
    }
    api.create(f"{path}/configmaps", config)
    api.delete(path)
    api.wait(f"{path}/pods/held", lambda pod: pod["metadata"].get("deletionTimestamp"))
    remaining = api.wait(path, lambda n: _condition(n, "NamespaceContentRemaining").get("status") == "True")
    assert remaining["status"]["phase"] == "Terminating"
    told = _condition(remaining, "NamespaceContentRemaining")
    assert told["reason"] == "SomeResourcesRemain"
    assert told["message"] == "Some resources are remaining: pods. has 1 resource instances"
    told = _condition(remaining, "NamespaceFinalizersRemaining")
    assert told["reason"] == "SomeFinalizersRemain"
    assert (
        told["message"]
        == "Some content in the namespace has finalizers remaining: e2e.example.com/finalizer in 1 resource instances"
    )
    assert "deletionTimestamp" not in api.get(f"{path}/configmaps/test")["metadata"]
    api.patch(f"{path}/pods/held", {"metadata": {"finalizers": None}})
    api.wait(f"{path}/configmaps/test", lambda thing: thing["metadata"].get("deletionTimestamp"))
    assert not api.is_there(f"{path}/pods/held")
    api.patch(f"{path}/configmaps/test", {"metadata": {"finalizers": None}})
    api.wait_until_gone(path)


def _condition(namespace: Json, kind: str) -> Json:
    conditions = namespace["status"].get("conditions") or ()
    return next((c for c in conditions if c["type"] == kind), {})
