"""Validation of where a container sees the pod's volumes: mounts and raw devices.

Spec: Kubernetes API reference, core/v1 VolumeMount and VolumeDevice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tiphys.api.causes import forbidden, invalid_value, not_found, not_supported, required
from tiphys.api.kind import JsonObject
from tiphys.base.errors import Cause

_PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")
_READ_ONLY_MODES = ("Disabled", "Enabled", "IfPossible")


def check_relative_path(causes: list[Cause], path: str, value: str) -> None:
    """A path below a volume's root: relative, without `..`."""
    if value.startswith("/"):
        causes.append(invalid_value(path, value, "must be a relative path"))
    check_no_backsteps(causes, path, value)


def check_no_backsteps(causes: list[Cause], path: str, value: str) -> None:
    if ".." in value and ".." in value.split("/"):
        causes.append(invalid_value(path, value, "must not contain '..'"))


def check_volume_mounts(causes: list[Cause], container: JsonObject, volumes: dict[str, JsonObject], path: str) -> None:
    devices = container.get("volumeDevices") or ()
    device_names = {device.get("name") for device in devices}
    device_paths = {device.get("devicePath") for device in devices}
    seen: set[str] = set()
    for index, mount in enumerate(container["volumeMounts"]):
        get = mount.get
        name = get("name") or ""
        where = get("mountPath") or ""
        if not name:
            causes.append(required(f"{path}[{index}].name"))
        if name not in volumes:
            causes.append(not_found(f"{path}[{index}].name", name))
        if not where:
            causes.append(required(f"{path}[{index}].mountPath"))
        if where in seen:
            causes.append(invalid_value(f"{path}[{index}].mountPath", where, "must be unique"))
        seen.add(where)
        if name in device_names:
            causes.append(invalid_value(f"{path}[{index}].name", name, "must not already exist in volumeDevices"))
        if where in device_paths:
            causes.append(
                invalid_value(f"{path}[{index}].mountPath", where, "must not already exist as a path in volumeDevices")
            )
        # The paths of what follows name the list, not its element: that is what clients see.
        if get("subPath") or get("subPathExpr"):
            _check_sub_path(causes, mount, volumes, index, path)
        propagation = get("mountPropagation")
        if propagation is not None:
            _check_propagation(causes, propagation, container, f"{path}.mountPropagation")
        if get("recursiveReadOnly") is not None:
            _check_recursive_read_only(causes, mount, f"{path}.recursiveReadOnly")


def _check_sub_path(
    causes: list[Cause], mount: JsonObject, volumes: dict[str, JsonObject], index: int, path: str
) -> None:
    literal = mount.get("subPath")
    expression = mount.get("subPathExpr")
    if literal:
        check_relative_path(causes, f"{path}.subPath", literal)
    if expression:
        if literal:
            causes.append(
                invalid_value(
                    f"{path}[{index}].subPathExpr", expression, "subPathExpr and subPath are mutually exclusive"
                )
            )
        check_relative_path(causes, f"{path}.subPathExpr", expression)


def _check_propagation(causes: list[Cause], propagation: str, container: JsonObject, path: str) -> None:
    if propagation not in _PROPAGATIONS:
        causes.append(not_supported(path, propagation, _PROPAGATIONS))
    privileged = (container.get("securityContext") or {}).get("privileged")
    if propagation == "Bidirectional" and not privileged:
        causes.append(forbidden(path, "Bidirectional mount propagation is available only to privileged containers"))


def _check_recursive_read_only(causes: list[Cause], mount: JsonObject, path: str) -> None:
    mode = mount["recursiveReadOnly"]
    if mode not in _READ_ONLY_MODES:
        causes.append(not_supported(path, mode, _READ_ONLY_MODES))
        return
    if mode == "Disabled":
        return
    if not mount.get("readOnly"):
        causes.append(forbidden(path, "may only be specified when readOnly is true"))
    if mount.get("mountPropagation") not in (None, "None"):
        causes.append(forbidden(path, "may only be specified when mountPropagation is None or not specified"))


def check_volume_devices(
    causes: list[Cause], devices: list[Any], mounts: Iterable[JsonObject], volumes: dict[str, JsonObject], path: str
) -> None:
    mount_names = {mount.get("name") for mount in mounts}
    mount_paths = {mount.get("mountPath") for mount in mounts}
    names: set[str] = set()
    paths: set[str] = set()
    for index, device in enumerate(devices):
        name = device.get("name") or ""
        where = device.get("devicePath") or ""
        name_path = f"{path}[{index}].name"
        where_path = f"{path}[{index}].devicePath"
        if not name:
            causes.append(required(name_path))
        if name in names:
            causes.append(invalid_value(name_path, name, "must be unique"))
        volume = volumes.get(name)
        if volume is None:
            causes.append(not_found(name_path, name))
        elif "persistentVolumeClaim" not in volume and "ephemeral" not in volume:
            causes.append(
                invalid_value(
                    name_path,
                    name,
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                )
            )
        if not where:
            causes.append(required(where_path))
        if where in paths:
            causes.append(invalid_value(where_path, where, "must be unique"))
        if ".." in where.split("/"):
            causes.append(invalid_value(where_path, where, "can not contain backsteps ('..')"))
        paths.add(where)
        if name in mount_names:
            causes.append(invalid_value(name_path, name, "must not already exist in volumeMounts"))
        if where in mount_paths:
            causes.append(invalid_value(where_path, where, "must not already exist as a path in volumeMounts"))
        names.add(name)
