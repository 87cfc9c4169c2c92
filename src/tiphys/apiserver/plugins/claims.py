"""StorageObjectInUseProtection and PersistentVolumeClaimResize: claims stay while pods use them, and grow only where
their storage class lets them.

DIFFERS: volumes get no pv-protection finalizer, since no controller here takes it away.
Spec: Kubernetes documentation, "Persistent Volumes" (storage object in use protection, expanding claims).
"""

from __future__ import annotations

from typing import Any

from tiphys.api.kind import JsonObject
from tiphys.api.quantity import parse_quantity
from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.cache import ResourceCache
from tiphys.base.errors import forbidden

FINALIZER = "kubernetes.io/pvc-protection"


class ClaimProtection(Plugin):
    """Gives new claims the finalizer that the claim protection controller takes away."""

    resources = (("", "persistentvolumeclaims"),)

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.operation != "CREATE" or attributes.subresource or attributes.obj is None:
            return
        finalizers = attributes.obj["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers:
            attributes.obj["metadata"]["finalizers"] = [*finalizers, FINALIZER]


class ClaimResize(Plugin):
    """`classes` is the cache of StorageClasses."""

    resources = (("", "persistentvolumeclaims"),)

    def __init__(self, classes: ResourceCache) -> None:
        self._classes = classes

    async def validate(self, attributes: Attributes) -> None:
        new, old = attributes.obj, attributes.old
        if attributes.operation != "UPDATE" or attributes.subresource or new is None or old is None:
            return
        if _storage(new) <= _storage(old):
            return
        if (old.get("status") or {}).get("phase") != "Bound":
            raise forbidden(
                "", "persistentvolumeclaims", attributes.name, "Only bound persistent volume claims can be expanded"
            )
        if not self._may_grow(old):
            why = (
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc "
                "must support resize"
            )
            raise forbidden("", "persistentvolumeclaims", attributes.name, why)

    def _may_grow(self, claim: JsonObject) -> bool:
        name = (claim.get("spec") or {}).get("storageClassName")
        cached = self._classes.get("", name) if name else None
        return cached is not None and bool(cached.decode().get("allowVolumeExpansion"))


def _storage(claim: JsonObject) -> int:
    requests: Any = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    return parse_quantity(requests.get("storage", 0)).nanos
