"""Nodes and RuntimeClasses.

Spec: Kubernetes documentation, "Nodes", "Taints and Tolerations", "Runtime Class".
"""

from __future__ import annotations

from typing import Any

from tiphys.api.causes import duplicate, forbidden, invalid_value
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_dns_label, validate_label_value, validate_qualified_name
from tiphys.api.strategies.fields import check_enum, check_same, check_text, keep_spec, keep_status, spec_of
from tiphys.api.strategies.placement import TAINT_EFFECTS, check_tolerations
from tiphys.api.strategies.resources import check_amount, check_container_resource_name
from tiphys.api.strategies.service import check_cidr
from tiphys.api.strategies.storage_warnings import warn_runtime_class
from tiphys.base.errors import Cause


def default(node: JsonObject) -> None:
    """Allocatable is the capacity where nothing is said of it."""
    status = node.get("status")
    if status and status.get("allocatable") is None and status.get("capacity"):
        status["allocatable"] = dict(status["capacity"])


def prepare_for_create(node: JsonObject, context: Context) -> None:
    """A kubelet registers its node with the status, so it stays."""
    node.setdefault("spec", {})
    node.setdefault("status", {})


def validate(node: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(node)
    if spec.get("taints"):
        check_taints(causes, spec["taints"], "spec.taints")
    for name, amount in ((node.get("status") or {}).get("capacity") or {}).items():
        check_amount(causes, f"status.capacity.{name}", name, amount)
    ranges = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    for index, text in enumerate(ranges):
        check_cidr(causes, f"spec.podCIDRs[{index}]", text)
    if len(ranges) > 2:
        causes.append(invalid_value("spec.podCIDRs", ranges, "may specify no more than one CIDR for each IP family"))
    return causes


def check_taints(causes: list[Cause], taints: list[Any], path: str) -> None:
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        at = f"{path}[{index}]"
        key, effect = taint.get("key") or "", taint.get("effect") or ""
        check_text(causes, f"{at}.key", key, validate_qualified_name)
        complaints = validate_label_value(taint.get("value") or "")
        if complaints:
            causes.append(invalid_value(f"{at}.value", taint.get("value"), ";".join(complaints)))
        check_enum(causes, f"{at}.effect", effect, TAINT_EFFECTS)
        if (key, effect) in seen:
            causes.append(duplicate(at, taint))
        seen.add((key, effect))


def validate_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """What names a node to the cloud, and its range of pod addresses, is set once."""
    causes: list[Cause] = []
    spec, before = spec_of(new), spec_of(old)
    if before.get("podCIDRs") and spec.get("podCIDRs") != before["podCIDRs"]:
        causes.append(forbidden("spec.podCIDRs", 'node updates may not change podCIDR except from "" to valid'))
    if before.get("providerID") and spec.get("providerID") != before["providerID"]:
        causes.append(forbidden("spec.providerID", 'node updates may not change providerID except from "" to valid'))
    return causes


def validate_status_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    status = new.get("status") or {}
    seen: set[tuple[Any, Any]] = set()
    for index, address in enumerate(status.get("addresses") or ()):
        key = (address.get("type"), address.get("address"))
        if key in seen:
            causes.append(duplicate(f"status.addresses[{index}]", address))
        seen.add(key)
    for name, amount in (status.get("capacity") or {}).items():
        check_amount(causes, f"status.capacity.{name}", name, amount)
    return causes


NODE = Strategy(
    default=default,
    prepare_for_create=prepare_for_create,
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate,
    validate_update=validate_update,
    validate_status_update=validate_status_update,
)


def validate_runtime_class(runtime_class: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    handler = runtime_class.get("handler") or ""
    check_text(causes, "handler", handler, validate_dns_label)
    for name, amount in ((runtime_class.get("overhead") or {}).get("podFixed") or {}).items():
        check_container_resource_name(causes, f"overhead.podFixed[{name}]", name)
        check_amount(causes, f"overhead.podFixed[{name}]", name, amount)
    scheduling = runtime_class.get("scheduling")
    if scheduling:
        for key, value in (scheduling.get("nodeSelector") or {}).items():
            check_text(causes, "scheduling.nodeSelector", key, validate_qualified_name)
            check_text(causes, "scheduling.nodeSelector", value, validate_label_value)
        check_tolerations(causes, scheduling.get("tolerations") or [], "scheduling.tolerations")
    return causes


def validate_runtime_class_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    check_same(causes, "handler", new.get("handler"), old.get("handler"))
    return causes


RUNTIME_CLASS = Strategy(
    validate=validate_runtime_class, validate_update=validate_runtime_class_update, warnings=warn_runtime_class
)
