"""Warnings about storage and placement that upstream gives."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.strategies.pod_warnings import warn_pod
from tiphys.api.strategies.storage_warnings import warn_class, warn_runtime_class, warn_volume

ARCH = "beta.kubernetes.io/arch"
INSTEAD = 'deprecated since v1.14; use "kubernetes.io/arch" instead'
TERM = {"matchExpressions": [{"key": ARCH, "operator": "Exists"}]}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def test_volumes() -> None:
    volume = {
        "metadata": {"annotations": {"volume.beta.kubernetes.io/mount-options": "ro"}},
        "spec": {
            "persistentVolumeReclaimPolicy": "Recycle",
            "rbd": {},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [TERM]}},
        },
    }
    assert warn_volume(volume) == [
        "metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; "
        'use "mountOptions" attribute instead',
        "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended "
        "approach is to use dynamic provisioning.",
        "spec.rbd: deprecated in v1.28, non-functional in v1.31+",
        f"spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: {ARCH} is {INSTEAD}",
    ]
    assert warn_volume({"metadata": {}, "spec": {"hostPath": {"path": "/x"}}}) == []


def test_classes() -> None:
    topology = {"matchLabelExpressions": [{"key": ARCH, "values": ["amd64"]}]}
    assert warn_class({"allowedTopologies": [topology]}) == [
        f"allowedTopologies[0].matchLabelExpressions[0].key: {ARCH} is {INSTEAD}"
    ]
    assert warn_runtime_class({"scheduling": {"nodeSelector": {ARCH: "amd64"}}}) == [
        f"scheduling.nodeSelector[{ARCH}]: {INSTEAD}"
    ]


@pytest.mark.parametrize(
    ("spec", "warning"),
    [
        (
            {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [TERM]}}}},
            f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms[0].matchExpressions[0].key: {ARCH} is {INSTEAD}",
        ),
        (
            {"affinity": {"nodeAffinity": {PREFERRED: [{"weight": 1, "preference": TERM}]}}},
            f"spec.affinity.nodeAffinity.{PREFERRED}[0].preference.matchExpressions[0].key: {ARCH} is {INSTEAD}",
        ),
        (
            {"affinity": {"podAntiAffinity": {REQUIRED: [{"topologyKey": "a"}]}}},
            f"spec.affinity.podAntiAffinity.{REQUIRED}[0].labelSelector: "
            "a null labelSelector results in matching no pod",
        ),
        (
            {"terminationGracePeriodSeconds": -1},
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
        ),
    ],
)
def test_pods(spec: dict[str, Any], warning: str) -> None:
    assert warn_pod({"metadata": {"name": "p"}, "spec": spec}) == [warning]
