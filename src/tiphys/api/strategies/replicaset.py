"""ReplicaSets, ReplicationControllers, ControllerRevisions and PodTemplates.

Spec: Kubernetes documentation, "ReplicaSet", "ReplicationController"; API reference, apps/v1 and core/v1.
"""

from __future__ import annotations

from tiphys.api.causes import invalid_value, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.deployment import check_count_order
from tiphys.api.strategies.fields import (
    check_nonnegative,
    check_same,
    clear_status,
    fill,
    keep_spec,
    keep_status,
    spec_of,
)
from tiphys.api.strategies.pod_defaults import default_pod_template
from tiphys.api.strategies.pod_template import (
    MISMATCH,
    check_always_restarts,
    check_selected_template,
    check_selector,
    check_template,
    selector_matches,
    validate_same_selector,
)
from tiphys.api.strategies.pod_warnings import warn_template, warn_workload
from tiphys.base.errors import Cause

_COUNTS = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas")
_ORDER = (
    ("fullyLabeledReplicas", "replicas"),
    ("readyReplicas", "replicas"),
    ("availableReplicas", "replicas"),
    ("availableReplicas", "readyReplicas"),
)


def default_replica_set(replica_set: JsonObject) -> None:
    spec = replica_set.setdefault("spec", {})
    fill(spec, "replicas", 1)
    default_pod_template(spec.setdefault("template", {}))


def validate_replica_set(replica_set: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(replica_set)
    check_nonnegative(causes, "spec.replicas", spec.get("replicas"))
    check_nonnegative(causes, "spec.minReadySeconds", spec.get("minReadySeconds"))
    check_selector(causes, spec, "spec", "empty selector is invalid for deployment")
    if spec.get("template") is None:
        causes.append(required("spec.template"))
        return causes
    check_selected_template(causes, spec, context, "spec")
    check_always_restarts(causes, spec, "spec", "ReplicaSet")
    return causes


def validate_status_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    status = new.get("status") or {}
    for field in _COUNTS:
        check_nonnegative(causes, f"status.{field}", status.get(field))
    check_nonnegative(causes, "status.observedGeneration", status.get("observedGeneration"))
    check_count_order(causes, status, _ORDER)
    return causes


REPLICA_SET = Strategy(
    default=default_replica_set,
    prepare_for_create=clear_status(replicas=0),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_replica_set,
    validate_update=validate_same_selector,
    validate_status_update=validate_status_update,
    warnings=warn_workload,
    generation=True,
)


def default_replication_controller(controller: JsonObject) -> None:
    """The template's labels are the selector and the labels, where those are absent."""
    spec = controller.setdefault("spec", {})
    template = spec.get("template")
    if template is not None:
        labels = (template.get("metadata") or {}).get("labels")
        if labels:
            if not spec.get("selector"):
                spec["selector"] = dict(labels)
            metadata = controller.setdefault("metadata", {})
            if not metadata.get("labels"):
                metadata["labels"] = dict(labels)
        default_pod_template(template)
    fill(spec, "replicas", 1)


def validate_replication_controller(controller: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(controller)
    check_nonnegative(causes, "spec.minReadySeconds", spec.get("minReadySeconds"))
    if not spec.get("selector"):
        causes.append(required("spec.selector"))
    check_nonnegative(causes, "spec.replicas", spec.get("replicas"))
    template = spec.get("template")
    if template is None:
        causes.append(required("spec.template"))
        return causes
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not selector_matches({"matchLabels": spec.get("selector") or {}}, labels):
        causes.append(invalid_value("spec.template.metadata.labels", labels, MISMATCH))
    check_template(causes, template, context, "spec.template")
    check_always_restarts(causes, spec, "spec", "ReplicationController")
    return causes


REPLICATION_CONTROLLER = Strategy(
    default=default_replication_controller,
    prepare_for_create=clear_status(replicas=0),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_replication_controller,
    validate_status_update=validate_status_update,
    warnings=warn_workload,
    generation=True,
    default_propagation="Orphan",
)


def validate_controller_revision(revision: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    if revision.get("data") is None:
        causes.append(required("data", "data is mandatory"))
    check_nonnegative(causes, "revision", revision.get("revision"))
    return causes


def validate_controller_revision_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    check_same(causes, "data", new.get("data"), old.get("data"))
    return causes


CONTROLLER_REVISION = Strategy(
    validate=validate_controller_revision, validate_update=validate_controller_revision_update
)


def default_template_object(template: JsonObject) -> None:
    default_pod_template(template.setdefault("template", {}))


def validate_template_object(template: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    check_template(causes, template.get("template") or {}, context, "template")
    return causes


def warn_template_object(template: JsonObject) -> list[str]:
    return warn_template(template.get("template") or {}, "template")


POD_TEMPLATE = Strategy(
    default=default_template_object,
    validate=validate_template_object,
    warnings=warn_template_object,
    generation=True,
)
