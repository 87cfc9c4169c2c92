"""Deployments: defaults, validation and the immutable selector.

Spec: Kubernetes documentation, "Deployments"; API reference, apps/v1 DeploymentSpec.
"""

from __future__ import annotations

from tiphys.api.causes import forbidden, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.fields import (
    check_at_most_100_percent,
    check_nonnegative,
    check_nonnegative_int_or_percent,
    clear_status,
    fill,
    int_of,
    keep_spec,
    keep_status,
    spec_of,
)
from tiphys.api.strategies.pod_defaults import default_pod_template
from tiphys.api.strategies.pod_template import (
    check_always_restarts,
    check_selected_template,
    check_selector,
    validate_same_selector,
)
from tiphys.api.strategies.pod_warnings import warn_workload
from tiphys.base.errors import Cause

_TYPES = ("Recreate", "RollingUpdate")
_DEADLINE = "must be greater than minReadySeconds"
_EMPTY = "empty selector is invalid for deployment"


def default(deployment: JsonObject) -> None:
    spec = deployment.setdefault("spec", {})
    fill(spec, "replicas", 1)
    strategy = spec.setdefault("strategy", {})
    fill(strategy, "type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        fill(rolling, "maxUnavailable", "25%")
        fill(rolling, "maxSurge", "25%")
    fill(spec, "revisionHistoryLimit", 10)
    fill(spec, "progressDeadlineSeconds", 600)
    default_pod_template(spec.setdefault("template", {}))


def validate(deployment: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(deployment)
    check_nonnegative(causes, "spec.replicas", spec.get("replicas"))
    check_selector(causes, spec, "spec", _EMPTY)
    check_selected_template(causes, spec, context, "spec")
    check_always_restarts(causes, spec, "spec", "ReplicaSet")
    _check_strategy(causes, spec.get("strategy") or {}, "spec.strategy")
    ready_s = spec.get("minReadySeconds") or 0
    check_nonnegative(causes, "spec.minReadySeconds", ready_s)
    check_nonnegative(causes, "spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline_s = spec.get("progressDeadlineSeconds")
    if deadline_s is not None:
        check_nonnegative(causes, "spec.progressDeadlineSeconds", deadline_s)
        if deadline_s <= ready_s:
            causes.append(invalid_value("spec.progressDeadlineSeconds", deadline_s, _DEADLINE))
    return causes


def _check_strategy(causes: list[Cause], strategy: JsonObject, path: str) -> None:
    kind = strategy.get("type")
    rolling = strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            causes.append(forbidden(f"{path}.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'"))
    elif kind == "RollingUpdate":
        if rolling is None:
            causes.append(required(f"{path}.rollingUpdate", "this should be defaulted and never be nil"))
        else:
            _check_rolling_update(causes, rolling, f"{path}.rollingUpdate")
    else:
        # The bad value is the whole strategy, as the server's own record shows it.
        causes.append(not_supported(path, {"Type": kind, "RollingUpdate": rolling}, _TYPES))


def _check_rolling_update(causes: list[Cause], rolling: JsonObject, path: str) -> None:
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    check_nonnegative_int_or_percent(causes, f"{path}.maxUnavailable", unavailable)
    check_nonnegative_int_or_percent(causes, f"{path}.maxSurge", surge)
    if int_of(unavailable) == 0 and int_of(surge) == 0:
        causes.append(invalid_value(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
    check_at_most_100_percent(causes, f"{path}.maxUnavailable", unavailable)


def validate_status_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """Counts are not negative and no part is larger than the whole."""
    causes: list[Cause] = []
    status = new.get("status") or {}
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")
    check_nonnegative(causes, "status.observedGeneration", status.get("observedGeneration"))
    for field in counts:
        check_nonnegative(causes, f"status.{field}", status.get(field))
    check_nonnegative(causes, "status.collisionCount", status.get("collisionCount"))
    before = (old.get("status") or {}).get("collisionCount")
    if before is not None and status.get("collisionCount", -1) < before:
        causes.append(invalid_value("status.collisionCount", status.get("collisionCount"), "cannot be decremented"))
    check_count_order(
        causes,
        status,
        (
            ("updatedReplicas", "replicas"),
            ("readyReplicas", "replicas"),
            ("availableReplicas", "replicas"),
            ("availableReplicas", "readyReplicas"),
        ),
    )
    return causes


def check_count_order(causes: list[Cause], status: JsonObject, pairs: tuple[tuple[str, str], ...]) -> None:
    """Append a cause for each (smaller, larger) pair of counts that is the wrong way round."""
    told = {"replicas": "status.replicas"}
    for smaller, larger in pairs:
        value = status.get(smaller) or 0
        if value > (status.get(larger) or 0):
            name = told.get(larger, larger)
            causes.append(invalid_value(f"status.{smaller}", value, f"cannot be greater than {name}"))


DEPLOYMENT = Strategy(
    default=default,
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate,
    validate_update=validate_same_selector,
    validate_status_update=validate_status_update,
    warnings=warn_workload,
    generation=True,
)
