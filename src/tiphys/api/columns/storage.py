"""Table rows of volumes, claims and what provides them."""

from __future__ import annotations

from typing import Any

from tiphys.api.columns.text import NONE, UNSET, age, columns, name, part
from tiphys.api.kind import JsonObject

_OLD_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_DEFAULT_ANNOTATIONS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_ACCESS_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}

PV_COLUMNS = columns("""
    Name                  | string/name | Name of the volume.
    Capacity              |             | Its size.
    Access Modes          |             | How it may be mounted.
    Reclaim Policy        |             | What happens when its claim goes.
    Status                |             | Its phase.
    Claim                 |             | The claim that it is bound to.
    StorageClass          |             | Its storage class.
    VolumeAttributesClass |             | Its attributes class.
    Reason                |             | Why it is in its phase.
    Age                   |             | Time since creation.
    VolumeMode            | wide        | Filesystem or Block.
    """)


def pv_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec, status = part(obj, "spec"), part(obj, "status")
    claim = spec.get("claimRef")
    return [
        name(obj),
        part(spec, "capacity").get("storage", "0"),
        _access_modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        _phase(obj),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        _class(obj, spec),
        spec.get("volumeAttributesClassName") or UNSET,
        status.get("reason", ""),
        age(obj, now_s),
        spec.get("volumeMode") or UNSET,
    ]


PVC_COLUMNS = columns("""
    Name                  | string/name | Name of the claim.
    Status                |             | Its phase.
    Volume                |             | The volume that it is bound to.
    Capacity              |             | The volume's size.
    Access Modes          |             | How the volume may be mounted.
    StorageClass          |             | Its storage class.
    VolumeAttributesClass |             | Its attributes class.
    Age                   |             | Time since creation.
    VolumeMode            | wide        | Filesystem or Block.
    """)


def pvc_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec, status = part(obj, "spec"), part(obj, "status")
    bound = bool(spec.get("volumeName"))
    return [
        name(obj),
        _phase(obj),
        spec.get("volumeName", ""),
        part(status, "capacity").get("storage", "0") if bound else "",
        _access_modes(status.get("accessModes")) if bound else "",
        _class(obj, spec),
        spec.get("volumeAttributesClassName") or UNSET,
        age(obj, now_s),
        spec.get("volumeMode") or UNSET,
    ]


def _phase(obj: JsonObject) -> str:
    if part(obj, "metadata").get("deletionTimestamp"):
        return "Terminating"
    return str(part(obj, "status").get("phase", ""))


def _access_modes(modes: list[str] | None) -> str:
    return ",".join(short for mode, short in _ACCESS_MODES.items() if mode in (modes or ()))


def _class(obj: JsonObject, spec: JsonObject) -> str:
    annotations = part(obj, "metadata", "annotations")
    return annotations.get(_OLD_CLASS_ANNOTATION) or spec.get("storageClassName") or ""


STORAGECLASS_COLUMNS = columns("""
    Name                 | string/name | Name of the class.
    Provisioner          |             | Who makes its volumes.
    ReclaimPolicy        |             | What happens to a volume when its claim goes.
    VolumeBindingMode    |             | When a claim gets its volume.
    AllowVolumeExpansion |             | Whether claims may grow.
    Age                  |             | Time since creation.
    """)


def storageclass_row(obj: JsonObject, now_s: float) -> list[Any]:
    annotations = part(obj, "metadata", "annotations")
    is_default = any(annotations.get(key) == "true" for key in _DEFAULT_ANNOTATIONS)
    return [
        f"{name(obj)} (default)" if is_default else name(obj),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy") or "Delete",
        obj.get("volumeBindingMode") or "Immediate",
        bool(obj.get("allowVolumeExpansion")),
        age(obj, now_s),
    ]


VOLUMEATTACHMENT_COLUMNS = columns("""
    Name     | string/name    | Name of the attachment.
    Attacher | string/name    | The driver that attaches.
    PV       |                | The volume.
    Node     |                | The node that it is attached to.
    Attached | boolean        | Whether it is attached.
    Age      |                | Time since creation.
    """)


def volumeattachment_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec = part(obj, "spec")
    volume = part(spec, "source").get("persistentVolumeName", "")
    attached = bool(part(obj, "status").get("attached"))
    return [name(obj), spec.get("attacher", ""), volume, spec.get("nodeName", ""), attached, age(obj, now_s)]


VOLUMEATTRIBUTESCLASS_COLUMNS = columns("""
    Name       | string/name | Name of the class.
    DriverName |             | The driver that knows its parameters.
    Age        |             | Time since creation.
    """)


def volumeattributesclass_row(obj: JsonObject, now_s: float) -> list[Any]:
    return [name(obj), obj.get("driverName", ""), age(obj, now_s)]


CSIDRIVER_COLUMNS = columns("""
    Name              | string/name | Name of the driver.
    AttachRequired    | boolean     | Whether volumes are attached before they are mounted.
    PodInfoOnMount    | boolean     | Whether the driver is told of the pod.
    StorageCapacity   | boolean     | Whether the scheduler asks for its capacity.
    TokenRequests     |             | Audiences of the tokens that it gets.
    RequiresRepublish | boolean     | Whether it is called again and again.
    Modes             |             | Lifecycles of volumes that it knows.
    Age               |             | Time since creation.
    """)


def csidriver_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec = part(obj, "spec")
    audiences = ",".join(request.get("audience", "") for request in spec.get("tokenRequests") or ())
    return [
        name(obj),
        spec.get("attachRequired", True),
        bool(spec.get("podInfoOnMount")),
        bool(spec.get("storageCapacity")),
        audiences if spec.get("tokenRequests") else UNSET,
        bool(spec.get("requiresRepublish")),
        ",".join(spec.get("volumeLifecycleModes") or ()) or NONE,
        age(obj, now_s),
    ]


CSINODE_COLUMNS = columns("""
    Name    | string/name | Name of the node.
    Drivers | integer     | Number of its drivers.
    Age     |             | Time since creation.
    """)


def csinode_row(obj: JsonObject, now_s: float) -> list[Any]:
    return [name(obj), len(part(obj, "spec").get("drivers") or ()), age(obj, now_s)]


CSISTORAGECAPACITY_COLUMNS = columns("""
    Name             | string/name | Name of the object.
    StorageClassName |             | The class whose capacity it tells.
    Capacity         |             | What is left.
    """)


def csistoragecapacity_row(obj: JsonObject, now_s: float) -> list[Any]:
    return [name(obj), obj.get("storageClassName", ""), obj.get("capacity") or UNSET]
