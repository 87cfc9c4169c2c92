"""PersistentVolumes, StorageClasses and the objects of CSI drivers.

Spec: Kubernetes documentation, "Persistent Volumes", "Storage Classes"; API reference, storage.k8s.io/v1.
"""

from __future__ import annotations

from typing import Any

from tiphys.api.causes import duplicate, forbidden, immutable, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_dns_subdomain, validate_qualified_name
from tiphys.api.strategies.fields import (
    check_enum,
    check_same,
    check_text,
    clear_status,
    fill,
    keep_spec,
    keep_status,
    spec_of,
)
from tiphys.api.strategies.persistent_volume_claim import VOLUME_MODES, check_access_modes
from tiphys.api.strategies.placement import check_node_selector
from tiphys.api.strategies.pod_defaults import VOLUME_SOURCE_DEFAULTS
from tiphys.api.strategies.resources import nanos
from tiphys.api.strategies.storage_warnings import warn_class, warn_volume
from tiphys.api.strategies.volumes import check_csi_driver_name
from tiphys.base.errors import Cause

_RECLAIM = ("Delete", "Recycle", "Retain")
_BINDING = ("Immediate", "WaitForFirstConsumer")
_NOT_SOURCES = frozenset(
    (
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    )
)


def default_volume(volume: JsonObject) -> None:
    spec = volume.setdefault("spec", {})
    fill(spec, "persistentVolumeReclaimPolicy", "Retain")
    fill(spec, "volumeMode", "Filesystem")
    for field, source in spec.items():
        if field not in _NOT_SOURCES and source is not None:
            rule = VOLUME_SOURCE_DEFAULTS.get(field)
            if rule is not None:
                rule(source)


def validate_volume(volume: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(volume)
    modes = spec.get("accessModes") or []
    if not modes:
        causes.append(required("spec.accessModes"))
    check_access_modes(causes, modes, "spec.accessModes")
    capacity = spec.get("capacity") or {}
    if not capacity:
        causes.append(required("spec.capacity"))
    elif "storage" not in capacity or len(capacity) > 1:
        causes.append(not_supported("spec.capacity", capacity, ("storage",)))
    for name, amount in capacity.items():
        if nanos(amount) <= 0:
            causes.append(invalid_value(f"spec.capacity[{name}]", str(amount), "must be greater than zero"))
    check_enum(
        causes, "spec.persistentVolumeReclaimPolicy", spec.get("persistentVolumeReclaimPolicy"), _RECLAIM, needed=False
    )
    _check_affinity(causes, spec)
    _check_source(causes, spec)
    name = spec.get("storageClassName")
    if name:
        check_text(causes, "spec.storageClassName", name, validate_dns_subdomain)
    mode = spec.get("volumeMode")
    if mode is not None and mode not in VOLUME_MODES:
        causes.append(not_supported("spec.volumeMode", mode, VOLUME_MODES))
    return causes


def _check_affinity(causes: list[Cause], spec: JsonObject) -> None:
    affinity = spec.get("nodeAffinity")
    if affinity is None:
        if spec.get("local") is not None:
            causes.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    elif affinity.get("required") is None:
        causes.append(required("spec.nodeAffinity.required", "must specify required node constraints"))
    else:
        check_node_selector(causes, affinity["required"], "spec.nodeAffinity.required")


def _check_source(causes: list[Cause], spec: JsonObject) -> None:
    sources = [field for field, value in spec.items() if field not in _NOT_SOURCES and value is not None]
    if not sources:
        causes.append(required("spec", "must specify a volume type"))
        return
    for field in sources[1:]:
        causes.append(forbidden(f"spec.{field}", "may not specify more than 1 volume type"))
    field = sources[0]
    source = spec[field]
    path = f"spec.{field}"
    if field == "csi":
        check_csi_driver_name(causes, f"{path}.driver", source.get("driver") or "")
        if not source.get("volumeHandle"):
            causes.append(required(f"{path}.volumeHandle"))
    elif field in ("hostPath", "nfs", "local"):
        where = source.get("path") or ""
        if field == "nfs" and not source.get("server"):
            causes.append(required(f"{path}.server"))
        if not where:
            causes.append(required(f"{path}.path"))
        elif field == "nfs" and not where.startswith("/"):
            causes.append(invalid_value(f"{path}.path", where, "must be an absolute path"))
        elif ".." in where.split("/"):
            causes.append(invalid_value(f"{path}.path", where, "must not contain '..'"))
    if field == "hostPath" and source.get("path") == "/" and spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        causes.append(
            forbidden("spec.persistentVolumeReclaimPolicy", "may not be 'recycle' for a hostPath mount of '/'")
        )


def validate_volume_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """Where the data are never changes."""
    causes: list[Cause] = []
    now, before = spec_of(new), spec_of(old)

    def sources(spec: JsonObject) -> dict[str, Any]:
        return {k: v for k, v in spec.items() if k not in _NOT_SOURCES and v is not None}

    if sources(now) != sources(before):
        detail = "spec.persistentvolumesource is immutable after creation"
        causes.append(forbidden("spec.persistentvolumesource", detail))
    check_same(causes, "spec.volumeMode", now.get("volumeMode"), before.get("volumeMode"))
    if before.get("nodeAffinity") is not None:
        check_same(causes, "spec.nodeAffinity", now.get("nodeAffinity"), before["nodeAffinity"])
    return causes


PERSISTENT_VOLUME = Strategy(
    warnings=warn_volume,
    default=default_volume,
    prepare_for_create=clear_status(phase="Pending"),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_volume,
    validate_update=validate_volume_update,
)


def default_class(storage_class: JsonObject) -> None:
    fill(storage_class, "reclaimPolicy", "Delete")
    fill(storage_class, "volumeBindingMode", "Immediate")


def validate_class(storage_class: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    _check_provisioner(causes, storage_class.get("provisioner") or "", "provisioner")
    parameters = storage_class.get("parameters") or {}
    for key in parameters:
        if not key:
            causes.append(invalid_value("parameters", key, "field can not be empty."))
    policy = storage_class.get("reclaimPolicy")
    if policy and policy not in ("Delete", "Retain"):
        causes.append(not_supported("reclaimPolicy", policy, ("Delete", "Retain")))
    mode = storage_class.get("volumeBindingMode")
    if mode is None:
        causes.append(required("volumeBindingMode"))
    elif mode not in _BINDING:
        causes.append(not_supported("volumeBindingMode", mode, _BINDING))
    return causes


def _check_provisioner(causes: list[Cause], name: str, path: str) -> None:
    if not name:
        causes.append(required(path))
    else:
        check_text(causes, path, name.lower(), validate_qualified_name)


def validate_class_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    if (new.get("parameters") or {}) != (old.get("parameters") or {}):
        causes.append(forbidden("parameters", "updates to parameters are forbidden."))
    if new.get("provisioner") != old.get("provisioner"):
        causes.append(forbidden("provisioner", "updates to provisioner are forbidden."))
    if new.get("reclaimPolicy") != old.get("reclaimPolicy"):
        causes.append(forbidden("reclaimPolicy", "updates to reclaimPolicy are forbidden."))
    check_same(causes, "volumeBindingMode", new.get("volumeBindingMode"), old.get("volumeBindingMode"))
    return causes


STORAGE_CLASS = Strategy(
    default=default_class, validate=validate_class, validate_update=validate_class_update, warnings=warn_class
)


def default_driver(driver: JsonObject) -> None:
    spec = driver.setdefault("spec", {})
    for field, value in (
        ("attachRequired", True),
        ("podInfoOnMount", False),
        ("storageCapacity", False),
        ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
        ("requiresRepublish", False),
        ("seLinuxMount", False),
    ):
        fill(spec, field, value)
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def validate_driver(driver: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    check_csi_driver_name(causes, "metadata.name", (driver.get("metadata") or {}).get("name") or "")
    spec = spec_of(driver)
    for mode in spec.get("volumeLifecycleModes") or ():
        if mode not in ("Persistent", "Ephemeral"):
            causes.append(not_supported("spec.volumeLifecycleModes", mode, ("Ephemeral", "Persistent")))
    policies = ("File", "None", "ReadWriteOnceWithFSType")
    if spec.get("fsGroupPolicy") not in policies:
        causes.append(not_supported("spec.fsGroupPolicy", spec.get("fsGroupPolicy") or "", policies))
    return causes


def validate_driver_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    now, before = spec_of(new), spec_of(old)
    for field in ("attachRequired", "volumeLifecycleModes"):
        check_same(causes, f"spec.{field}", now.get(field), before.get(field))
    return causes


CSI_DRIVER = Strategy(
    default=default_driver,
    validate=validate_driver,
    validate_update=validate_driver_update,
    allow_unconditional_update=False,
)


def validate_csi_node(node: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, driver in enumerate(spec_of(node).get("drivers") or ()):
        path = f"spec.drivers[{index}]"
        name = driver.get("name") or ""
        check_csi_driver_name(causes, f"{path}.name", name)
        if not driver.get("nodeID"):
            causes.append(required(f"{path}.nodeID"))
        if name in seen:
            causes.append(duplicate(f"{path}.name", name))
        seen.add(name)
    return causes


CSI_NODE = Strategy(validate=validate_csi_node, allow_unconditional_update=False)


def validate_attachment(attachment: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(attachment)
    if not spec.get("attacher"):
        causes.append(required("spec.attacher"))
    source = spec.get("source") or {}
    if source.get("persistentVolumeName") is None and source.get("inlineVolumeSpec") is None:
        causes.append(required("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
    if not spec.get("nodeName"):
        causes.append(required("spec.nodeName"))
    return causes


def validate_attachment_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    return [] if spec_of(new) == spec_of(old) else [immutable("spec", spec_of(new))]


VOLUME_ATTACHMENT = Strategy(
    prepare_for_create=clear_status(attached=False),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_attachment,
    validate_update=validate_attachment_update,
    allow_unconditional_update=False,
)


def validate_capacity(capacity: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    name = capacity.get("storageClassName") or ""
    check_text(causes, "storageClassName", name, validate_dns_subdomain)
    for field in ("capacity", "maximumVolumeSize"):
        amount = capacity.get(field)
        if amount is not None and nanos(amount) < 0:
            causes.append(invalid_value(field, str(amount), "must be greater than or equal to 0"))
    return causes


CSI_STORAGE_CAPACITY = Strategy(validate=validate_capacity)


def validate_attributes_class(attributes: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    _check_provisioner(causes, attributes.get("driverName") or "", "driverName")
    if not attributes.get("parameters"):
        causes.append(required("parameters", "must contain at least one key/value pair"))
    return causes


def validate_attributes_class_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    for field in ("driverName", "parameters"):
        if new.get(field) != old.get(field):
            causes.append(forbidden(field, f"updates to {field} are forbidden."))
    return causes


VOLUME_ATTRIBUTES_CLASS = Strategy(validate=validate_attributes_class, validate_update=validate_attributes_class_update)
