"""DaemonSets: defaults, validation and the immutable selector.

Spec: Kubernetes documentation, "DaemonSet", "Perform a Rolling Update on a DaemonSet".
"""

from __future__ import annotations

from tiphys.api.causes import invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.selectors import validate_label_selector
from tiphys.api.strategies.fields import (
    check_at_most_100_percent,
    check_nonnegative,
    check_nonnegative_int_or_percent,
    fill,
    int_of,
    is_same,
    keep_spec,
    keep_status,
    spec_of,
)
from tiphys.api.strategies.pod_defaults import default_pod_template
from tiphys.api.strategies.pod_template import (
    check_always_restarts,
    check_template,
    check_template_labels,
    validate_same_selector,
)
from tiphys.api.strategies.pod_warnings import warn_workload
from tiphys.base.errors import Cause

_TYPES = ("RollingUpdate", "OnDelete")
_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


def default(daemon_set: JsonObject) -> None:
    spec = daemon_set.setdefault("spec", {})
    strategy = spec.setdefault("updateStrategy", {})
    fill(strategy, "type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        fill(rolling, "maxUnavailable", 1)
        fill(rolling, "maxSurge", 0)
    fill(spec, "revisionHistoryLimit", 10)
    default_pod_template(spec.setdefault("template", {}))


def prepare_for_create(daemon_set: JsonObject, context: Context) -> None:
    """Clear the status and number the template; the number is an annotation that old clients read."""
    daemon_set["status"] = {
        "currentNumberScheduled": 0,
        "desiredNumberScheduled": 0,
        "numberMisscheduled": 0,
        "numberReady": 0,
    }
    _number_template(daemon_set, 1)


def prepare_for_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    """Keep the status; a new template has the next number."""
    keep_status(new, old, context)
    annotations = (old.get("metadata") or {}).get("annotations") or {}
    text = annotations.get(_TEMPLATE_GENERATION) or "0"
    number = int(text) if text.isdecimal() else 0
    changed = not is_same(spec_of(new).get("template"), spec_of(old).get("template"))
    if number or changed:
        _number_template(new, number + changed)


def _number_template(daemon_set: JsonObject, number: int) -> None:
    metadata = daemon_set.setdefault("metadata", {})
    if metadata.get("annotations") is None:
        metadata["annotations"] = {}
    metadata["annotations"][_TEMPLATE_GENERATION] = str(number)


def validate(daemon_set: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(daemon_set)
    selector = spec.get("selector")
    causes += validate_label_selector(selector, "spec.selector")
    check_template_labels(causes, spec, "spec")
    if selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions"):
        causes.append(invalid_value("spec.selector", selector, "empty selector is invalid for daemonset"))
    check_template(causes, spec.get("template") or {}, context, "spec.template")
    check_always_restarts(causes, spec, "spec", "DaemonSet")
    check_nonnegative(causes, "spec.minReadySeconds", spec.get("minReadySeconds"))
    _check_strategy(causes, spec.get("updateStrategy") or {}, "spec.updateStrategy")
    check_nonnegative(causes, "spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    return causes


def _check_strategy(causes: list[Cause], strategy: JsonObject, path: str) -> None:
    kind = strategy.get("type")
    if kind == "OnDelete":
        return
    if kind != "RollingUpdate":
        causes.append(not_supported(path, {"Type": kind, "RollingUpdate": strategy.get("rollingUpdate")}, _TYPES))
        return
    rolling = strategy.get("rollingUpdate")
    if rolling is None:
        causes.append(required(f"{path}.rollingUpdate"))
        return
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    unavailable_path, surge_path = f"{path}.rollingUpdate.maxUnavailable", f"{path}.rollingUpdate.maxSurge"
    check_nonnegative_int_or_percent(causes, unavailable_path, unavailable)
    check_nonnegative_int_or_percent(causes, surge_path, surge)
    check_at_most_100_percent(causes, unavailable_path, unavailable)
    check_at_most_100_percent(causes, surge_path, surge)
    if int_of(unavailable) and int_of(surge):
        causes.append(invalid_value(surge_path, surge, "may not be set when maxUnavailable is non-zero"))
    elif not int_of(unavailable) and not int_of(surge):
        causes.append(required(unavailable_path, "cannot be 0 when maxSurge is 0"))


def validate_status_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    status = new.get("status") or {}
    for field in (
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
    ):
        check_nonnegative(causes, f"status.{field}", status.get(field))
    return causes


DAEMON_SET = Strategy(
    default=default,
    prepare_for_create=prepare_for_create,
    prepare_for_update=prepare_for_update,
    prepare_for_status_update=keep_spec,
    validate=validate,
    validate_update=validate_same_selector,
    validate_status_update=validate_status_update,
    warnings=warn_workload,
    generation=True,
)
