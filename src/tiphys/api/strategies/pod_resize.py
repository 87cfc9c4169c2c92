"""What the `resize` subresource of a pod may change: cpu and memory of running containers, in place.

Spec: Kubernetes documentation, "Resize CPU and Memory Resources assigned to Containers"; KEP-1287.
"""

from __future__ import annotations

from typing import Any

from tiphys.api.causes import forbidden, invalid_value
from tiphys.api.kind import JsonObject
from tiphys.api.qos import qos_class
from tiphys.base.errors import Cause

_MIRROR = "kubernetes.io/config.mirror"
_MUTABLE = ("cpu", "memory")


def validate_resize(new: JsonObject, old: JsonObject) -> list[Cause]:
    """Return the causes of a resize from the old pod to the new one."""
    if _MIRROR in ((old.get("metadata") or {}).get("annotations") or {}):
        return [forbidden("", "static pods cannot be resized")]
    if (old["spec"].get("os") or {}).get("name") == "windows":
        return [forbidden("", "windows pods cannot be resized")]
    causes: list[Cause] = []
    before = (old.get("status") or {}).get("qosClass") or qos_class(old)
    if qos_class(new) != before:
        causes.append(invalid_value("spec", before, "Pod QOS Class may not change as a result of resizing"))
    for field in ("initContainers", "containers"):
        _check_containers(causes, new["spec"].get(field) or [], old["spec"].get(field) or [], field)
    if causes:
        return causes
    rest_new = {k: v for k, v in new["spec"].items() if k not in ("containers", "initContainers")}
    rest_old = {k: v for k, v in old["spec"].items() if k not in ("containers", "initContainers")}
    if rest_new != rest_old:
        causes.append(forbidden("spec", "only cpu and memory resources are mutable"))
    return causes


def _check_containers(causes: list[Cause], now: list[Any], was: list[Any], field: str) -> None:
    if len(now) != len(was):
        causes.append(forbidden("spec", "only cpu and memory resources are mutable"))
        return
    for index, (new, old) in enumerate(zip(now, was, strict=True)):
        if field == "initContainers" and old.get("restartPolicy") != "Always":
            if new != old:
                causes.append(forbidden("spec", "resources for non-sidecar init containers are immutable"))
            continue
        _check_removed(causes, new, old, f"spec.{field}[{index}].resources")
        if _without_compute(new) != _without_compute(old):
            whose = " for sidecar containers" if field == "initContainers" else ""
            causes.append(forbidden("spec", f"only cpu and memory resources{whose} are mutable"))


def _check_removed(causes: list[Cause], new: JsonObject, old: JsonObject, path: str) -> None:
    for part in ("requests", "limits"):
        after = (new.get("resources") or {}).get(part) or {}
        before = (old.get("resources") or {}).get(part) or {}
        if any(name not in after for name in before):
            causes.append(forbidden(f"{path}.{part}", f"resource {part} cannot be removed"))


def _without_compute(container: JsonObject) -> JsonObject:
    resources = container.get("resources") or {}
    kept = {
        part: {name: amount for name, amount in (resources.get(part) or {}).items() if name not in _MUTABLE}
        for part in ("requests", "limits")
    }
    return {**container, "resources": kept}
