"""Warnings of versions on their way out: from when, until when, and what to use."""

from __future__ import annotations

import pytest

from tiphys.api.kinds import builtin_kinds
from tiphys.api.kinds.deprecations import deprecated_resources, deprecation_warning

FLOW = "flowcontrol.apiserver.k8s.io"


@pytest.mark.parametrize(
    ("minor", "group", "version", "kind", "warning"),
    [
        (37, "", "v1", "ComponentStatus", "v1 ComponentStatus is deprecated in v1.19+"),
        (32, "", "v1", "Endpoints", ""),
        (
            33,
            "",
            "v1",
            "Endpoints",
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        ),
        (28, FLOW, "v1beta3", "FlowSchema", ""),
        (
            30,
            FLOW,
            "v1beta3",
            "PriorityLevelConfiguration",
            f"{FLOW}/v1beta3 PriorityLevelConfiguration is deprecated in v1.29+, unavailable in v1.32+; "
            f"use {FLOW}/v1 PriorityLevelConfiguration",
        ),
        (37, "", "v1", "Pod", ""),
    ],
)
def test_warnings(minor: int, group: str, version: str, kind: str, warning: str) -> None:
    assert deprecation_warning(minor, group, version, kind) == warning


@pytest.mark.parametrize("minor", range(25, 38))
def test_no_version_is_served_that_should_be_gone(minor: int) -> None:
    gone = {key for key, found in deprecated_resources(minor).items() if found.removed and minor >= found.removed}
    served = {(kind.group, kind.version, kind.plural) for kind in builtin_kinds((1, minor))}
    assert not gone & served
