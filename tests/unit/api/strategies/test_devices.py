"""Claims, classes and slices of devices: what is asked for and offered is checked where it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tiphys.api.kind import Context, JsonObject
from tiphys.api.strategies.device_class import prepare_taint_rule_update, validate_class, validate_taint_rule
from tiphys.api.strategies.resource_claim import default_claim, validate_claim, validate_claim_status
from tiphys.api.strategies.resource_slice import validate_slice, validate_slice_update
from tiphys.base.errors import Cause

CONTEXT = Context("me", "2026-01-01T00:00:00Z")
MODEL = 'device.attributes["gpu.example.com"].model == "a100" && device.capacity["gpu.example.com"].memory.compareTo(quantity("40Gi")) >= 0'


def told(validate: Callable[[JsonObject, Context], list[Cause]], spec: Any) -> list[str]:
    return [f"{c.field}: {c.message}" for c in validate({"metadata": {"name": "x"}, "spec": spec}, CONTEXT)]


def claim(**devices: Any) -> list[str]:
    obj = {"metadata": {"name": "x"}, "spec": {"devices": devices}}
    default_claim(obj)
    return [f"{c.field}: {c.message}" for c in validate_claim(obj, CONTEXT)]


def request(name: str = "gpu", **exact: Any) -> dict[str, Any]:
    return {"name": name, "exactly": {"deviceClassName": "gpu.example.com", **exact}}


def test_a_whole_claim_is_good() -> None:
    selectors = [{"cel": {"expression": MODEL}}]
    first = [{"name": "big", "deviceClassName": "a", "count": 2}, {"name": "small", "deviceClassName": "b"}]
    assert not claim(
        requests=[request(selectors=selectors), {"name": "nic", "firstAvailable": first}],
        constraints=[{"requests": ["gpu", "nic"], "matchAttribute": "example.com/numaNode"}],
        config=[{"requests": ["nic/big"], "opaque": {"driver": "gpu.example.com", "parameters": {"a": 1}}}],
    )


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ({"requests": [{"name": "a"}]}, "spec.devices.requests[0]: Required value: exactly one of `exactly` or"),
        ({"requests": [request("A")]}, "spec.devices.requests[0].name: Invalid value"),
        ({"requests": [request(), request()]}, "spec.devices.requests[1].name: Duplicate value"),
        ({"requests": [request(deviceClassName="")]}, "exactly.deviceClassName: Required value"),
        ({"requests": [request(count=-1)]}, "must be greater than zero"),
        ({"requests": [request(allocationMode="All", count=2)]}, "must not be specified when allocationMode is 'All'"),
        (
            {"requests": [request(allocationMode="Some")]},
            'Unsupported value: "Some": supported values: "All", "ExactCount"',
        ),
        ({"requests": [request(selectors=[{"cel": {"expression": "device.driver"}}])]}, "must evaluate to bool"),
        ({"requests": [request(selectors=[{"cel": {"expression": "nothing"}}])]}, "undeclared reference to 'nothing'"),
        ({"requests": [request(selectors=[{}])]}, "selectors[0].cel: Required value"),
        ({"requests": [request(tolerations=[{"operator": "Equal"}])]}, 'must be "Exists" when `key` is empty'),
        ({"requests": [request()] * 33}, "spec.devices.requests: Too many: 33"),
        (
            {"requests": [request()], "constraints": [{"requests": ["gone"], "matchAttribute": "a.b/c"}]},
            '"gone": must be the name',
        ),
        ({"requests": [request()], "constraints": [{"matchAttribute": "model"}]}, "must include a domain"),
        ({"requests": [request()], "constraints": [{}]}, "matchAttribute: Required value"),
        ({"requests": [request()], "config": [{}]}, "spec.devices.config[0].opaque: Required value"),
        ({"config": [{"opaque": {"driver": "d", "parameters": []}}]}, "must be a valid JSON object"),
    ],
)
def test_a_bad_claim_says_where(devices: dict[str, Any], expected: str) -> None:
    causes = claim(**devices)
    assert any(expected in cause for cause in causes), causes


def status(reserved: int = 0, **allocation: Any) -> JsonObject:
    consumers = [{"resource": "pods", "name": f"p{i}", "uid": f"u{i}"} for i in range(reserved)]
    return {
        "metadata": {"name": "x"},
        "status": {"reservedFor": consumers, **({"allocation": allocation} if allocation else {})},
    }


def test_an_allocation_stays_and_is_reserved_only_while_it_is_there() -> None:
    result = {"request": "gpu", "driver": "gpu.example.com", "pool": "n1", "device": "d0"}
    given = status(1, devices={"results": [result]})
    assert not validate_claim_status(given, status(), CONTEXT)
    assert [c.field for c in validate_claim_status(status(1), status(), CONTEXT)] == ["status.reservedFor"]
    other = status(0, devices={"results": [{**result, "device": "d1"}]})
    assert [c.field for c in validate_claim_status(other, given, CONTEXT)] == ["status.allocation"]
    given["status"]["devices"] = [{"driver": "gpu.example.com", "pool": "n1", "device": "d9"}]
    assert [c.field for c in validate_claim_status(given, status(), CONTEXT)] == ["status.devices[0]"]


def offer(**more: Any) -> dict[str, Any]:
    pool = {"name": "n1", "generation": 1, "resourceSliceCount": 1}
    return {"driver": "gpu.example.com", "nodeName": "n1", "pool": pool, "devices": [{"name": "d0"}], **more}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (offer(), None),
        (offer(allNodes=True), "but multiple fields are set"),
        (offer(nodeName=""), "spec: Required value: exactly one of"),
        (offer(pool={"name": "a//b", "resourceSliceCount": 0}), "spec.pool.resourceSliceCount"),
        (offer(driver="A.b"), "spec.driver: Invalid value"),
        (offer(devices=[{"name": "d"}, {"name": "d"}]), "spec.devices[1].name: Duplicate value"),
        (offer(devices=[{"name": "d", "attributes": {"model": {}}}]), "exactly one value must be specified"),
        (offer(devices=[{"name": "d", "attributes": {"m": {"version": "1.2"}}}]), "semver.org spec 2.0.0"),
        (offer(devices=[{"name": "d", "attributes": {"1m": {"bool": True}}}]), "a valid C identifier"),
        (offer(devices=[{"name": "d", "attributes": {"m": {"string": "x" * 65}}}]), "may not be more than 64 bytes"),
        (offer(devices=[{"name": "d", "nodeName": "n"}]), "must only be set if `perDeviceNodeSelection`"),
        (offer(devices=[{"name": f"d{i}"} for i in range(129)]), "spec.devices: Too many: 129"),
        (
            offer(devices=[{"name": "d", "taints": [{"effect": "Maybe", "key": "a"}]}]),
            "taints[0].effect: Unsupported value",
        ),
        (offer(sharedCounters=[{"name": "c", "counters": {}}], devices=[]), "counters: Required value"),
    ],
)
def test_a_slice_offers_devices_that_can_be_named(spec: dict[str, Any], expected: str | None) -> None:
    causes = told(validate_slice, spec)
    assert (not causes) if expected is None else any(expected in cause for cause in causes), causes


def test_a_slice_keeps_its_driver_node_and_pool() -> None:
    def fields(**more: Any) -> list[str | None]:
        return [c.field for c in validate_slice_update({"spec": offer(**more)}, {"spec": offer()}, CONTEXT)]

    assert fields(driver="other.example.com", nodeName="n2") == ["spec.nodeName", "spec.driver"]
    assert fields(pool={"name": "n2", "generation": 2, "resourceSliceCount": 1}) == ["spec.pool.name"]


def test_classes_and_taint_rules() -> None:
    assert told(validate_class, {"extendedResourceName": "example.com/gpu"}) == []
    assert "valid extended resource name" in told(validate_class, {"extendedResourceName": "cpu"})[0]
    assert "spec.selectors[0].cel.expression" in told(validate_class, {"selectors": [{"cel": {"expression": "1"}}]})[0]
    taint = {"key": "example.com/bad", "effect": "NoSchedule"}
    assert told(validate_taint_rule, {"taint": taint, "deviceSelector": {"pool": "a/b"}}) == []
    assert told(validate_taint_rule, {"taint": {}})[0].startswith("spec.taint.key: Required")


def test_a_new_effect_of_a_taint_has_a_new_time() -> None:
    old = {"spec": {"taint": {"key": "a", "effect": "NoSchedule", "timeAdded": "2025-01-01T00:00:00Z"}}}
    new = {"spec": {"taint": {**old["spec"]["taint"], "effect": "NoExecute"}}}
    prepare_taint_rule_update(new, old, CONTEXT)
    assert new["spec"]["taint"]["timeAdded"] == CONTEXT.now
