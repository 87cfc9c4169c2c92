"""Pods: what creation fills in, what an update may change, which warnings a spec earns.

The registry calls these hooks (api/kind.py has their order). An update by a user may change hardly anything; the
subresources `ephemeralcontainers` and `resize` change what their names say and nothing else; `binding` and `eviction`
are the API server's own.

Spec: Kubernetes documentation, "Pod update and replacement", "Pod Scheduling Readiness", "Resize CPU and Memory".
"""

from __future__ import annotations

from typing import Any

from tiphys.api.causes import forbidden, immutable, invalid_value, render
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import range_message, validate_qualified_name
from tiphys.api.qos import qos_class
from tiphys.api.strategies.fields import check_text, is_same
from tiphys.api.strategies.pod_defaults import default_pod
from tiphys.api.strategies.pod_resize import validate_resize
from tiphys.api.strategies.pod_spec import check_pod_spec
from tiphys.api.strategies.pod_warnings import warn_pod
from tiphys.base.errors import Cause

_MIRROR = "kubernetes.io/config.mirror"
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_MAX_INT32 = 2**31 - 1
_CHANGEABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_SYSTEM_CONDITIONS = ("PodScheduled", "Ready", "Initialized")


def prepare_for_create(pod: JsonObject, context: Context) -> None:
    """A new pod is Pending; one with scheduling gates says that it waits for them."""
    spec = pod["spec"]
    status: JsonObject = {"phase": "Pending", "qosClass": qos_class(pod)}
    if spec.get("schedulingGates"):
        status["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": None,
                "lastTransitionTime": None,
            }
        ]
    pod["status"] = status
    if spec.get("affinity"):
        _merge_label_keys(spec["affinity"], (pod.get("metadata") or {}).get("labels") or {})


def _merge_label_keys(affinity: JsonObject, labels: dict[str, str]) -> None:
    """Turn matchLabelKeys and mismatchLabelKeys into expressions with the pod's own values."""
    for field in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(field) or {}
        terms = list(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        for weighted in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            terms.append(weighted.get("podAffinityTerm") or {})
        for term in terms:
            selector = term.get("labelSelector")
            if selector is None:
                continue
            for keys, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
                for key in term.get(keys) or ():
                    if key in labels:
                        selector.setdefault("matchExpressions", []).append(
                            {"key": key, "operator": operator, "values": [labels[key]]}
                        )


def prepare_for_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    """Keep the status, and what the named subresource does not change."""
    new["status"] = old.get("status") or {}
    if context.subresource == "ephemeralcontainers":
        containers = (new.get("spec") or {}).get("ephemeralContainers")
        new["spec"] = {**old["spec"], "ephemeralContainers": containers or []}
        if not containers:
            del new["spec"]["ephemeralContainers"]


def prepare_for_status_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    new["spec"] = old["spec"]
    status = new.setdefault("status", {})
    before = old.get("status") or {}
    if not status.get("qosClass") and before.get("qosClass"):
        status["qosClass"] = before["qosClass"]
    for one, many in (("podIP", "podIPs"), ("hostIP", "hostIPs")):
        _pair_addresses(status, before, one, many)


def _pair_addresses(status: JsonObject, before: JsonObject, one: str, many: str) -> None:
    """The single address is the first of the list; whichever was changed wins, and an old client knows only one."""
    address = status.get(one)
    addresses = status.get(many)
    first = addresses[0].get("ip") if addresses else None
    if address == first:
        return
    if address and (not first or address != before.get(one)):
        status[many] = [{"ip": address}]
    elif first:
        status[one] = first


def validate(pod: JsonObject, context: Context) -> list[Cause]:
    """Check a pod that is to be created, or the new state of an update."""
    causes: list[Cause] = []
    metadata = pod.get("metadata") or {}
    spec = pod["spec"]
    if metadata.get("annotations"):
        _check_annotations(causes, metadata["annotations"], spec)
    check_pod_spec(causes, spec, context, "spec", in_pod=True, pod_name=metadata.get("name") or "")
    if context.creating:
        _check_creation(causes, spec)
    return causes


def _check_annotations(causes: list[Cause], annotations: dict[str, str], spec: JsonObject) -> None:
    path = "metadata.annotations"
    if _MIRROR in annotations and not spec.get("nodeName"):
        detail = "must set spec.nodeName if mirror pod annotation is set"
        causes.append(invalid_value(f"{path}[{_MIRROR}]", annotations[_MIRROR], detail))
    cost = annotations.get(_DELETION_COST)
    if cost is not None and not _is_int32(cost):
        causes.append(invalid_value(f"{path}[{_DELETION_COST}]", cost, "must be a 32bit integer"))


def _is_int32(text: str) -> bool:
    if text in ("0", "-0") or not text or text.startswith("+") or text.lstrip("-").startswith("0"):
        return text == "0"
    try:
        return -(2**31) <= int(text) <= _MAX_INT32
    except ValueError:
        return False


def _check_creation(causes: list[Cause], spec: JsonObject) -> None:
    """What holds of a new pod only."""
    if spec.get("ephemeralContainers"):
        causes.append(forbidden("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        causes.append(forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared"))


def validate_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """Check that an update changes no more than its way in allows."""
    if context.subresource == "ephemeralcontainers":
        return _validate_ephemeral(new, old)
    if context.subresource == "resize":
        return validate_resize(new, old)
    return _validate_user_update(new, old)


def _validate_user_update(new: JsonObject, old: JsonObject) -> list[Cause]:
    causes: list[Cause] = []
    _check_annotation_changes(causes, new, old)
    now, was = new["spec"], old["spec"]
    if is_same(now, was):
        return causes
    for field in ("containers", "initContainers"):
        if len(now.get(field) or ()) != len(was.get(field) or ()):
            causes.append(forbidden(f"spec.{field}", "pod updates may not add or remove containers"))
            return causes
    if _check_deadline(causes, now, was):
        return causes
    _check_tolerations(causes, now, was)
    old_gates = {gate.get("name") for gate in was.get("schedulingGates") or ()}
    for gate in now.get("schedulingGates") or ():
        if gate.get("name") not in old_gates:
            causes.append(
                forbidden(
                    "spec.schedulingGates",
                    f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'",
                )
            )
    difference = _spec_difference(causes, now, was)
    if difference:
        causes.append(forbidden("spec", f"pod updates may not change fields other than {_CHANGEABLE}\n{difference}"))
    return causes


def _check_annotation_changes(causes: list[Cause], new: JsonObject, old: JsonObject) -> None:
    now = (new.get("metadata") or {}).get("annotations") or {}
    was = (old.get("metadata") or {}).get("annotations") or {}
    if _MIRROR in was and now.get(_MIRROR) != was[_MIRROR]:
        detail = "may not remove or update mirror pod annotation"
        causes.append(forbidden(f"metadata.annotations[{_MIRROR}]", detail))
    elif _MIRROR in now and _MIRROR not in was:
        causes.append(forbidden(f"metadata.annotations[{_MIRROR}]", "may not add mirror pod annotation"))


def _check_deadline(causes: list[Cause], now: JsonObject, was: JsonObject) -> bool:
    """A deadline may be set or shortened. True: nothing else is worth checking."""
    path = "spec.activeDeadlineSeconds"
    new_s, old_s = now.get("activeDeadlineSeconds"), was.get("activeDeadlineSeconds")
    if new_s is None:
        if old_s is not None:
            causes.append(invalid_value(path, None, "must not update from a positive integer to nil value"))
        return False
    if not 0 <= new_s <= _MAX_INT32:
        causes.append(invalid_value(path, new_s, range_message(0, _MAX_INT32)))
        return True
    if old_s is not None and old_s < new_s:
        causes.append(invalid_value(path, new_s, "must be less than or equal to previous value"))
        return True
    return False


def _check_tolerations(causes: list[Cause], now: JsonObject, was: JsonObject) -> None:
    """Tolerations may be added; of an existing one only the seconds may change."""
    kept = [_without_seconds(t) for t in now.get("tolerations") or ()]
    for toleration in was.get("tolerations") or ():
        if _without_seconds(toleration) not in kept:
            causes.append(
                forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
            )
            return


def _without_seconds(toleration: JsonObject) -> JsonObject:
    return {k: v for k, v in toleration.items() if k != "tolerationSeconds" and v}


def _with_images_of(containers: Any, others: Any) -> list[JsonObject]:
    return [{**new, "image": old.get("image")} for new, old in zip(containers or (), others or (), strict=True)]


def _spec_difference(causes: list[Cause], now: JsonObject, was: JsonObject) -> str:
    """Return one line for each field that changed and may not; "" when there is none."""
    allowed = {"activeDeadlineSeconds", "tolerations", "schedulingGates"}
    if was.get("schedulingGates"):
        allowed |= _check_gated_changes(causes, now, was)
    if (was.get("terminationGracePeriodSeconds") or 0) < 0 and now.get("terminationGracePeriodSeconds") == 1:
        allowed.add("terminationGracePeriodSeconds")
    lines = []
    for field in sorted(now.keys() | was.keys()):
        if field in allowed:
            continue
        new, old = now.get(field), was.get(field)
        if field in ("containers", "initContainers"):
            new = _with_images_of(new, old)
        if not is_same(new, old):
            lines += [f"- \t{field}: {render(old)},", f"+ \t{field}: {render(new)},"]
    return "  core.PodSpec{\n" + "\n".join(lines) + "\n  }\n" if lines else ""


def _check_gated_changes(causes: list[Cause], now: JsonObject, was: JsonObject) -> set[str]:
    """While a pod waits for its gates, its node selector and node affinity may become narrower."""
    selector, before = now.get("nodeSelector") or {}, was.get("nodeSelector") or {}
    if any(selector.get(key) != value for key, value in before.items()):
        causes.append(
            invalid_value("spec.nodeSelector", selector, "only additions are allowed (no mutations or deletions)")
        )
    allowed = {"nodeSelector"}
    new, old = now.get("affinity") or {}, was.get("affinity") or {}
    if {**new, "nodeAffinity": None} == {**old, "nodeAffinity": None} or (not old and set(new) == {"nodeAffinity"}):
        _check_node_affinity_change(causes, new.get("nodeAffinity") or {}, old.get("nodeAffinity") or {})
        allowed.add("affinity")
    return allowed


def _check_node_affinity_change(causes: list[Cause], new: JsonObject, old: JsonObject) -> None:
    field = "requiredDuringSchedulingIgnoredDuringExecution"
    before = (old.get(field) or {}).get("nodeSelectorTerms")
    if not before:
        return
    path = f"spec.affinity.nodeAffinity.{field}.nodeSelectorTerms"
    after = (new.get(field) or {}).get("nodeSelectorTerms") or []
    if len(after) != len(before):
        causes.append(
            invalid_value(path, after, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")
        )
        return
    for index, (term, previous) in enumerate(zip(after, before, strict=True)):
        for part in ("matchExpressions", "matchFields"):
            known = previous.get(part) or []
            if (term.get(part) or [])[: len(known)] != known or (not any(previous.values()) and term != previous):
                causes.append(
                    invalid_value(f"{path}[{index}]", term, "only additions are allowed (no mutations or deletions)")
                )
                break


def _validate_ephemeral(new: JsonObject, old: JsonObject) -> list[Cause]:
    """Ephemeral containers may be added, never changed or removed."""
    if _MIRROR in ((old.get("metadata") or {}).get("annotations") or {}):
        return [forbidden("", "static pods do not support ephemeral containers")]
    causes: list[Cause] = []
    path = "spec.ephemeralContainers"
    by_name = {c.get("name"): c for c in new["spec"].get("ephemeralContainers") or ()}
    for container in old["spec"].get("ephemeralContainers") or ():
        name = container.get("name")
        if name not in by_name:
            causes.append(forbidden(path, f'existing ephemeral containers "{name}" may not be removed\n'))
        elif not is_same(by_name[name], container):
            causes.append(forbidden(path, f'existing ephemeral containers "{name}" may not be changed\n'))
    return causes


def validate_status_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """Check what the kubelet reports: a finished container that is not to restart stays finished."""
    causes: list[Cause] = []
    status, before = new.get("status") or {}, old.get("status") or {}
    for index, condition in enumerate(status.get("conditions") or ()):
        kind = condition.get("type") or ""
        if kind not in _SYSTEM_CONDITIONS:
            check_text(causes, f"status.conditions[{index}].Type", kind, validate_qualified_name)
    if before.get("qosClass") and status.get("qosClass") != before["qosClass"]:
        causes.append(immutable("status.qosClass", status.get("qosClass")))
    policy = old["spec"].get("restartPolicy")
    if policy != "Always":
        _check_restarts(causes, status, before, "containerStatuses", policy, old["spec"].get("containers") or ())
        _check_restarts(
            causes, status, before, "initContainerStatuses", policy, old["spec"].get("initContainers") or ()
        )
    _check_restarts(causes, status, before, "ephemeralContainerStatuses", "Never", ())
    return causes


def _check_restarts(
    causes: list[Cause], status: JsonObject, before: JsonObject, field: str, policy: str, containers: Any
) -> None:
    now = {s.get("name"): (i, s) for i, s in enumerate(status.get(field) or ())}
    own = {c.get("name") for c in containers if c.get("restartPolicy") or c.get("restartPolicyRules")}
    for previous in before.get(field) or ():
        finished = (previous.get("state") or {}).get("terminated")
        name = previous.get("name")
        if finished is None or name not in now or name in own:
            continue
        if policy == "OnFailure" and finished.get("exitCode"):
            continue
        index, current = now[name]
        if (current.get("state") or {}).get("terminated") is None:
            causes.append(
                forbidden(f"status.{field}[{index}].state", "may not be transitioned to non-terminated state")
            )


def graceful_delete_s(pod: JsonObject) -> int:
    """Return the grace of a pod: none if no kubelet has it or it has finished."""
    spec = pod.get("spec") or {}
    if not spec.get("nodeName") or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    grace_s = spec.get("terminationGracePeriodSeconds")
    if grace_s is None:
        return 30
    return 1 if grace_s < 0 else int(grace_s)


POD = Strategy(
    default=default_pod,
    prepare_for_create=prepare_for_create,
    prepare_for_update=prepare_for_update,
    prepare_for_status_update=prepare_for_status_update,
    validate=validate,
    validate_update=validate_update,
    validate_status_update=validate_status_update,
    warnings=warn_pod,
    name_rule="pod",
    generation=True,
    graceful_delete_s=graceful_delete_s,
)
