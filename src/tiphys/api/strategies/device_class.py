"""DeviceClasses, and DeviceTaintRules, which taint devices by hand.

Spec: Kubernetes documentation, "Dynamic Resource Allocation" (device classes, device taints and tolerations).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tiphys.api.causes import invalid_value
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_qualified_name
from tiphys.api.strategies.device_rules import (
    CONFIGS_LIMIT,
    check_config,
    check_count,
    check_driver,
    check_label,
    check_pool,
    check_selectors,
    check_taint,
)
from tiphys.api.strategies.fields import check_text, clear_status, keep_spec, keep_status, spec_of
from tiphys.base.errors import Cause


def validate_class(device_class: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(device_class)
    check_selectors(causes, "spec.selectors", spec.get("selectors") or (), context)
    configs: Sequence[Any] = spec.get("config") or ()
    check_count(causes, "spec.config", configs, CONFIGS_LIMIT)
    for index, config in enumerate(configs):
        check_config(causes, f"spec.config[{index}]", config)
    name = spec.get("extendedResourceName")
    if name is not None:
        _check_extended(causes, "spec.extendedResourceName", name)
    return causes


def _check_extended(causes: list[Cause], path: str, name: str) -> None:
    """An extended resource has a domain that is not Kubernetes' own, and is not written as a request of a quota."""
    check_text(causes, path, name, validate_qualified_name)
    domain = name.rpartition("/")[0]
    own = domain == "kubernetes.io" or domain.endswith(".kubernetes.io")
    if (
        not domain
        or (own and not domain.endswith("deviceclass.resource.kubernetes.io"))
        or name.startswith("requests.")
    ):
        causes.append(invalid_value(path, name, "must be a valid extended resource name"))


DEVICE_CLASS = Strategy(validate=validate_class, generation=True)


def validate_taint_rule(rule: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(rule)
    check_taint(causes, "spec.taint", spec.get("taint") or {})
    selector = spec.get("deviceSelector") or {}
    if selector.get("driver") is not None:
        check_driver(causes, "spec.deviceSelector.driver", selector["driver"])
    if selector.get("pool") is not None:
        check_pool(causes, "spec.deviceSelector.pool", selector["pool"])
    if selector.get("device") is not None:
        check_label(causes, "spec.deviceSelector.device", selector["device"])
    return causes


def prepare_taint_rule(rule: JsonObject, context: Context) -> None:
    """The time of a taint is that of its making unless it is told."""
    clear_status()(rule, context)
    taint = spec_of(rule).get("taint")
    if taint and not taint.get("timeAdded"):
        taint["timeAdded"] = context.now


def prepare_taint_rule_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    """A new effect has a new time."""
    keep_status(new, old, context)
    taint, before = spec_of(new).get("taint"), spec_of(old).get("taint") or {}
    if not taint:
        return
    changed = taint.get("effect") != before.get("effect") and taint.get("timeAdded") == before.get("timeAdded")
    if changed or not taint.get("timeAdded"):
        taint["timeAdded"] = context.now


DEVICE_TAINT_RULE = Strategy(
    prepare_for_create=prepare_taint_rule,
    prepare_for_update=prepare_taint_rule_update,
    prepare_for_status_update=keep_spec,
    validate=validate_taint_rule,
    generation=True,
)
