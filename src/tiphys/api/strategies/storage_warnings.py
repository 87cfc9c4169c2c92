"""Warnings of PersistentVolumes, StorageClasses and RuntimeClasses: what is deprecated or works no more.

Pure; the strategies of those kinds name these functions. Spec: Kubernetes documentation, "Persistent Volumes: Reclaim
policy", "Well-Known Labels, Annotations and Taints".
"""

from __future__ import annotations

from collections.abc import Iterable

from tiphys.api.kind import JsonObject
from tiphys.api.strategies.pod_warnings import OLD_NODE_LABELS, REMOVED_VOLUMES, warn_node_terms

_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_MOUNT_ANNOTATION = "volume.beta.kubernetes.io/mount-options"
_RECYCLE = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."


def warn_volume(volume: JsonObject) -> list[str]:
    """Return the warnings of a PersistentVolume."""
    found: list[str] = []
    annotations = (volume.get("metadata") or {}).get("annotations") or {}
    if _CLASS_ANNOTATION in annotations:
        found.append(
            f'metadata.annotations[{_CLASS_ANNOTATION}]: deprecated since v1.8; use "storageClassName" attribute instead'
        )
    if _MOUNT_ANNOTATION in annotations:
        found.append(
            f'metadata.annotations[{_MOUNT_ANNOTATION}]: deprecated since v1.31; use "mountOptions" attribute instead'
        )
    spec = volume.get("spec") or {}
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        found.append(f"spec.persistentVolumeReclaimPolicy: {_RECYCLE}")
    found += [f"spec.{source}: {REMOVED_VOLUMES[source]}" for source in spec if source in REMOVED_VOLUMES]
    terms = ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms")
    warn_node_terms(found, terms or (), "spec.nodeAffinity.required.nodeSelectorTerms")
    return found


def warn_class(storage_class: JsonObject) -> list[str]:
    """Return the warnings of a StorageClass."""
    found: list[str] = []
    for index, term in enumerate(storage_class.get("allowedTopologies") or ()):
        for at, expression in enumerate(term.get("matchLabelExpressions") or ()):
            key = expression.get("key")
            if key in OLD_NODE_LABELS:
                path = f"allowedTopologies[{index}].matchLabelExpressions[{at}].key"
                found.append(f"{path}: {key} is {OLD_NODE_LABELS[key]}")
    return found


def warn_runtime_class(runtime_class: JsonObject) -> list[str]:
    """Return the warnings of a RuntimeClass."""
    selector: Iterable[str] = (runtime_class.get("scheduling") or {}).get("nodeSelector") or ()
    return [f"scheduling.nodeSelector[{key}]: {OLD_NODE_LABELS[key]}" for key in selector if key in OLD_NODE_LABELS]
