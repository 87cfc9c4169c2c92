"""Which served versions of built-in kinds are on their way out: a table, and the warning that their users get.

Pure. A version is deprecated from one release on; the warning tells in which it goes and what to use. Read by the kinds'
table (`Kind.deprecation`), the metric of requested deprecated APIs and the audit log.

Spec: Kubernetes documentation, "Deprecated API Migration Guide", "Kubernetes Deprecation Policy".
"""

from __future__ import annotations

from typing import NamedTuple

_FLOW = "flowcontrol.apiserver.k8s.io"


class Deprecation(NamedTuple):
    """Minor versions of Kubernetes 1; `removed` 0: it stays. `instead` is an apiVersion and kind, "" for nothing."""

    since: int
    removed: int = 0
    instead: str = ""

    @property
    def removed_release(self) -> str:
        return f"1.{self.removed}" if self.removed else ""


_TABLE: dict[tuple[str, str, str], Deprecation] = {
    ("", "v1", "ComponentStatus"): Deprecation(19),
    ("", "v1", "Endpoints"): Deprecation(33, 0, "discovery.k8s.io/v1 EndpointSlice"),
    ("autoscaling", "v2beta2", "HorizontalPodAutoscaler"): Deprecation(
        23, 26, "autoscaling/v2 HorizontalPodAutoscaler"
    ),
    ("storage.k8s.io", "v1beta1", "CSIStorageCapacity"): Deprecation(24, 27, "storage.k8s.io/v1 CSIStorageCapacity"),
    (_FLOW, "v1beta1", "FlowSchema"): Deprecation(23, 26, f"{_FLOW}/v1beta2 FlowSchema"),
    (_FLOW, "v1beta2", "FlowSchema"): Deprecation(26, 29, f"{_FLOW}/v1beta3 FlowSchema"),
    (_FLOW, "v1beta3", "FlowSchema"): Deprecation(29, 32, f"{_FLOW}/v1 FlowSchema"),
}
_LEVEL = "PriorityLevelConfiguration"
_TABLE |= {
    (group, version, _LEVEL): deprecation._replace(instead=deprecation.instead.replace("FlowSchema", _LEVEL))
    for (group, version, kind), deprecation in _TABLE.items()
    if kind == "FlowSchema"
}


def deprecation_of(minor: int, group: str, version: str, kind: str) -> Deprecation | None:
    """Return what is to be said of a version of a kind in Kubernetes 1.`minor`; None when it is not deprecated."""
    found = _TABLE.get((group, version, kind))
    return found if found is not None and minor >= found.since else None


def deprecated_resources(minor: int) -> dict[tuple[str, str, str], Deprecation]:
    """Return what is deprecated by group, version and plural name."""
    plurals = {
        "Endpoints": "endpoints",
        "ComponentStatus": "componentstatuses",
        "CSIStorageCapacity": "csistoragecapacities",
    }
    return {
        (group, version, plurals.get(kind, f"{kind.lower()}s")): found
        for (group, version, kind), found in _TABLE.items()
        if minor >= found.since
    }


def deprecation_warning(minor: int, group: str, version: str, kind: str) -> str:
    """Return the warning of a version of a kind, "" for none."""
    found = deprecation_of(minor, group, version, kind)
    if found is None:
        return ""
    text = f"{group}/{version}" if group else version
    text += f" {kind} is deprecated in v1.{found.since}+"
    if found.removed:
        text += f", unavailable in v1.{found.removed}+"
    return f"{text}; use {found.instead}" if found.instead else text
