"""Owners of replicas as a Scale tells them."""

from __future__ import annotations

from tiphys.api.scalefields import scale_entries, workload_entries

WEB = {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:replicas": {}, "f:paused": {}}}
SCALED = {"f:spec": {"f:replicas": {}}}
CREATOR = {"manager": "kubectl", "operation": "Update", "apiVersion": "apps/v1", "time": "t1", "fieldsV1": WEB}
SCALER = {"manager": "hpa", "operation": "Apply", "apiVersion": "autoscaling/v1", "time": "t2", "fieldsV1": SCALED}


def test_an_owner_of_replicas_owns_them_in_the_scale() -> None:
    other = {**CREATOR, "manager": "other", "fieldsV1": {"f:spec": {"f:paused": {}}}}
    assert scale_entries([CREATOR, other], "spec.replicas") == [
        {**CREATOR, "apiVersion": "autoscaling/v1", "fieldsV1": SCALED}
    ]


def test_an_owner_that_the_scale_lost_keeps_its_other_fields() -> None:
    scaler = {**SCALER, "subresource": "scale"}
    kept = {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:paused": {}}}
    assert workload_entries([CREATOR], [scaler], "spec.replicas", "apps/v1") == [
        {**CREATOR, "fieldsV1": kept},
        {**scaler, "apiVersion": "apps/v1"},
    ]


def test_an_owner_of_nothing_else_is_gone_with_the_replicas() -> None:
    only = {**CREATOR, "fieldsV1": SCALED}
    assert workload_entries([only], [], "spec.replicas", "apps/v1") == []


def test_a_scale_that_nobody_wrote_changes_nothing() -> None:
    owners = scale_entries([CREATOR], ".spec.replicas")
    assert workload_entries([CREATOR], owners, ".spec.replicas", "apps/v1") == [CREATOR]
