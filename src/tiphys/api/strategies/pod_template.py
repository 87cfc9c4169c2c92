"""Validation of the template from which a workload makes its pods.

Spec: Kubernetes API reference, core/v1 PodTemplateSpec; documentation "Workload Management".
"""

from __future__ import annotations

from typing import Any

from tiphys.api.causes import forbidden, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject
from tiphys.api.names import validate_label_value, validate_qualified_name
from tiphys.api.selectors import validate_label_selector
from tiphys.api.strategies.fields import check_same, check_text, spec_of
from tiphys.api.strategies.pod_spec import check_pod_spec
from tiphys.base.errors import Cause

MISMATCH = "`selector` does not match template `labels`"


def check_template(causes: list[Cause], template: JsonObject, context: Context, path: str) -> None:
    """Check a defaulted template: its labels, annotations and spec."""
    check_template_metadata(causes, template, path)
    spec = template.get("spec") or {}
    check_pod_spec(causes, spec, context, f"{path}.spec", in_pod=False)
    if spec.get("ephemeralContainers"):
        causes.append(forbidden(f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template"))


def check_template_metadata(causes: list[Cause], template: JsonObject, path: str) -> None:
    metadata = template.get("metadata") or {}
    for key, value in (metadata.get("labels") or {}).items():
        check_text(causes, f"{path}.labels", key, validate_qualified_name)
        check_text(causes, f"{path}.labels", value, validate_label_value)
    for key in metadata.get("annotations") or ():
        check_text(causes, f"{path}.annotations", key.lower(), validate_qualified_name)


def check_selector(causes: list[Cause], spec: JsonObject, path: str, empty_detail: str) -> None:
    """Check the selector of a workload: there, well formed and not empty."""
    selector = spec.get("selector")
    if selector is None:
        causes.append(required(f"{path}.selector"))
        return
    causes += validate_label_selector(selector, f"{path}.selector")
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        causes.append(invalid_value(f"{path}.selector", selector, empty_detail))


def validate_same_selector(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """What a workload selects may not change."""
    causes: list[Cause] = []
    check_same(causes, "spec.selector", spec_of(new).get("selector"), spec_of(old).get("selector"))
    return causes


def selector_matches(selector: JsonObject | None, labels: dict[str, str]) -> bool:
    """Say whether a label selector selects the labels. One that is empty or broken selects everything here, because
    that has its own cause."""
    if not selector:
        return True
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    return all(_expression_matches(e, labels) for e in selector.get("matchExpressions") or ())


def _expression_matches(expression: JsonObject, labels: dict[str, str]) -> bool:
    key = expression.get("key") or ""
    values: list[Any] = expression.get("values") or []
    match expression.get("operator"):
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return True


def check_template_labels(causes: list[Cause], spec: JsonObject, path: str) -> None:
    """The selector selects the template. A selector that is absent selects nothing, an empty one everything."""
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    selector = spec.get("selector")
    if selector is None or not selector_matches(selector, labels):
        causes.append(invalid_value(f"{path}.template.metadata.labels", labels, MISMATCH))


def check_selected_template(causes: list[Cause], spec: JsonObject, context: Context, path: str) -> None:
    """Check the template of a workload that keeps pods running: the selector selects it and it is good."""
    check_template_labels(causes, spec, path)
    check_template(causes, spec.get("template") or {}, context, f"{path}.template")


def check_always_restarts(causes: list[Cause], spec: JsonObject, path: str, kind: str) -> None:
    """The pods of a workload that keeps them running always restart. `kind` is named in the complaint."""
    pod = (spec.get("template") or {}).get("spec") or {}
    policy = pod.get("restartPolicy")
    if policy != "Always":
        causes.append(not_supported(f"{path}.template.spec.restartPolicy", policy or "", ("Always",)))
    if pod.get("activeDeadlineSeconds") is not None:
        detail = f"activeDeadlineSeconds in {kind} is not Supported"
        causes.append(forbidden(f"{path}.template.spec.activeDeadlineSeconds", detail))
