"""What one object uses of quotas, and which quotas look at it."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.quotausage import scopes_include, usage_of

ONE = 10**9


def device_claim(*requests: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"devices": {"requests": [*requests]}}}


def test_a_device_claim_uses_the_most_that_it_may_get() -> None:
    exact = {"name": "a", "exactly": {"deviceClassName": "gold", "allocationMode": "ExactCount", "count": 2}}
    one_of = {
        "name": "b",
        "firstAvailable": [
            {"name": "x", "deviceClassName": "gold", "count": 3},
            {"name": "y", "deviceClassName": "silver"},
        ],
    }
    all_ = {"name": "c", "exactly": {"deviceClassName": "silver", "allocationMode": "All"}}
    assert usage_of("resource.k8s.io", "resourceclaims", device_claim(exact, one_of, all_)) == {
        "count/resourceclaims.resource.k8s.io": ONE,
        "gold.deviceclass.resource.k8s.io/devices": 5 * ONE,
        "silver.deviceclass.resource.k8s.io/devices": 33 * ONE,
    }


@pytest.mark.parametrize(
    ("operator", "values", "is_in"),
    [
        ("In", ["fast"], True),
        ("In", ["slow"], True),
        ("In", ["x"], False),
        ("NotIn", ["slow"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ],
)
def test_a_claim_is_in_the_scopes_of_all_its_classes(operator: str, values: list[str], is_in: bool) -> None:
    claim = {
        "spec": {"volumeAttributesClassName": "fast"},
        "status": {"currentVolumeAttributesClassName": "slow"},
    }
    need = {"scopeName": "VolumeAttributesClass", "operator": operator, "values": values}
    quota = {"scopeSelector": {"matchExpressions": [need]}}
    assert scopes_include(quota, "", "persistentvolumeclaims", claim) is is_in
    assert not scopes_include(quota, "", "configmaps", {})


def test_a_pod_that_ended_is_an_object_and_nothing_else() -> None:
    pod = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}
    assert usage_of("", "pods", pod | {"status": {"phase": "Failed"}}) == {"count/pods": ONE}
