"""StatefulSets: defaults, validation, and the few fields that an update may change.

Spec: Kubernetes documentation, "StatefulSets"; KEP-1847 (retention of claims), KEP-961 (maxUnavailable).
"""

from __future__ import annotations

from typing import Any

from tiphys.api.causes import forbidden, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.fields import (
    check_at_most_100_percent,
    check_nonnegative,
    check_nonnegative_int_or_percent,
    clear_status,
    fill,
    int_of,
    is_same,
    keep_spec,
    keep_status,
    spec_of,
)
from tiphys.api.strategies.persistent_volume_claim import default_claim
from tiphys.api.strategies.pod_defaults import default_pod_template
from tiphys.api.strategies.pod_template import (
    check_always_restarts,
    check_selector,
    check_template_labels,
    check_template_metadata,
)
from tiphys.api.strategies.pod_warnings import warn_template
from tiphys.base.errors import Cause

_POLICIES = ("OrderedReady", "Parallel")
_RETENTIONS = ("Retain", "Delete")
_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)
_IMMUTABLE = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def default(stateful_set: JsonObject) -> None:
    spec = stateful_set.setdefault("spec", {})
    fill(spec, "podManagementPolicy", "OrderedReady")
    strategy = spec.setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
        strategy.setdefault("rollingUpdate", {})
    if strategy["type"] == "RollingUpdate" and strategy.get("rollingUpdate") is not None:
        fill(strategy["rollingUpdate"], "partition", 0)
    policy = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    fill(policy, "whenDeleted", "Retain")
    fill(policy, "whenScaled", "Retain")
    fill(spec, "replicas", 1)
    fill(spec, "revisionHistoryLimit", 10)
    default_pod_template(spec.setdefault("template", {}))
    for claim in spec.get("volumeClaimTemplates") or ():
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        default_claim(claim)
        claim["status"] = {"phase": "Pending"}


def validate(stateful_set: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(stateful_set)
    order = spec.get("podManagementPolicy")
    if not order:
        causes.append(required("spec.podManagementPolicy"))
    elif order not in _POLICIES:
        causes.append(invalid_value("spec.podManagementPolicy", order, "must be 'OrderedReady' or 'Parallel'"))
    _check_strategy(causes, spec.get("updateStrategy") or {}, "spec.updateStrategy")
    _check_retention(causes, spec.get("persistentVolumeClaimRetentionPolicy"), context)
    check_nonnegative(causes, "spec.replicas", spec.get("replicas"))
    check_nonnegative(causes, "spec.minReadySeconds", spec.get("minReadySeconds"))
    ordinals = spec.get("ordinals")
    if ordinals is not None:
        check_nonnegative(causes, "spec.ordinals.start", ordinals.get("start"))
    check_selector(causes, spec, "spec", "empty selector is invalid for statefulset")
    check_template_labels(causes, spec, "spec")
    # The pod's spec itself is checked when a pod is made: its mounts may name the volumes of the claim templates.
    check_template_metadata(causes, spec.get("template") or {}, "spec.template")
    check_always_restarts(causes, spec, "spec", "StatefulSet")
    check_nonnegative(causes, "spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    return causes


def _check_strategy(causes: list[Cause], strategy: JsonObject, path: str) -> None:
    kind = strategy.get("type")
    rolling = strategy.get("rollingUpdate")
    if not kind:
        causes.append(required(path))
    elif kind == "OnDelete":
        if rolling is not None:
            causes.append(
                invalid_value(f"{path}.rollingUpdate", rolling, "only allowed for updateStrategy 'RollingUpdate'")
            )
    elif kind == "RollingUpdate":
        if rolling is not None:
            _check_rolling_update(causes, rolling, f"{path}.rollingUpdate")
    else:
        causes.append(invalid_value(path, strategy, "must be 'RollingUpdate' or 'OnDelete'"))


def _check_rolling_update(causes: list[Cause], rolling: JsonObject, path: str) -> None:
    check_nonnegative(causes, f"{path}.partition", rolling.get("partition"))
    unavailable = rolling.get("maxUnavailable")
    if unavailable is not None:
        check_nonnegative_int_or_percent(causes, f"{path}.maxUnavailable", unavailable)
        if int_of(unavailable) == 0:
            causes.append(invalid_value(f"{path}.maxUnavailable", unavailable, "cannot be 0"))
        check_at_most_100_percent(causes, f"{path}.maxUnavailable", unavailable)


def _check_retention(causes: list[Cause], policy: JsonObject | None, context: Context) -> None:
    path = "spec.persistentVolumeClaimRetentionPolicy"
    for field in ("whenDeleted", "whenScaled"):
        value = (policy or {}).get(field) or ""
        if policy is not None and value not in _RETENTIONS:
            causes.append(not_supported(f"{path}.{field}", value, _RETENTIONS))


def validate_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """Everything but the named fields is fixed at creation."""
    now, before = _fixed_part(spec_of(new)), _fixed_part(spec_of(old))
    return [] if is_same(now, before) else [forbidden("spec", _IMMUTABLE)]


def _fixed_part(spec: JsonObject) -> dict[str, Any]:
    return {field: value for field, value in spec.items() if field not in _MUTABLE}


def validate_status_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    status = new.get("status") or {}
    for field in (
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ):
        check_nonnegative(causes, f"status.{field}", status.get(field))
    replicas = status.get("replicas") or 0
    for field in ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"):
        value = status.get(field) or 0
        if value > replicas:
            causes.append(invalid_value(f"status.{field}", value, "cannot be greater than status.replicas"))
    if (status.get("availableReplicas") or 0) > (status.get("readyReplicas") or 0):
        causes.append(
            invalid_value(
                "status.availableReplicas",
                status.get("availableReplicas"),
                "cannot be greater than status.readyReplicas",
            )
        )
    return causes


def warnings(stateful_set: JsonObject) -> list[str]:
    spec = spec_of(stateful_set)
    found = warn_template(spec.get("template") or {}, "spec.template")
    limit = spec.get("revisionHistoryLimit")
    if limit is not None and limit < 0:
        found.append("spec.revisionHistoryLimit: a negative value retains all historical revisions")
    return found


STATEFUL_SET = Strategy(
    default=default,
    prepare_for_create=clear_status(replicas=0, availableReplicas=0),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate,
    validate_update=validate_update,
    validate_status_update=validate_status_update,
    warnings=warnings,
    name_rule="dns-label",
    generation=True,
)
