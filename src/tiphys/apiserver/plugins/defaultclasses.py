"""DefaultStorageClass and DefaultIngressClass: the class that a claim or an Ingress gets when it names none.

Of several default classes the newest counts, and of those the first by name.

Spec: Kubernetes documentation, "Storage Classes" (default StorageClass), "Ingress" (default IngressClass).
"""

from __future__ import annotations

from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.cache import ResourceCache

STORAGE_MARKS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
INGRESS_MARKS = ("ingressclass.kubernetes.io/is-default-class",)


class DefaultStorageClass(Plugin):
    """`classes` is the cache of StorageClasses."""

    resources = (("", "persistentvolumeclaims"),)

    def __init__(self, classes: ResourceCache) -> None:
        self._classes = classes

    async def mutate(self, attributes: Attributes) -> None:
        claim = attributes.obj
        if attributes.operation != "CREATE" or attributes.subresource or claim is None:
            return
        spec = claim.setdefault("spec", {})
        annotations = claim["metadata"].get("annotations") or {}
        if spec.get("storageClassName") is None and "volume.beta.kubernetes.io/storage-class" not in annotations:
            name = _default_of(self._classes, STORAGE_MARKS)
            if name:
                spec["storageClassName"] = name


class DefaultIngressClass(Plugin):
    """`classes` is the cache of IngressClasses."""

    resources = (("networking.k8s.io", "ingresses"),)

    def __init__(self, classes: ResourceCache) -> None:
        self._classes = classes

    async def mutate(self, attributes: Attributes) -> None:
        ingress = attributes.obj
        if attributes.operation != "CREATE" or attributes.subresource or ingress is None:
            return
        spec = ingress.setdefault("spec", {})
        annotations = ingress["metadata"].get("annotations") or {}
        if spec.get("ingressClassName") is None and "kubernetes.io/ingress.class" not in annotations:
            name = _default_of(self._classes, INGRESS_MARKS)
            if name:
                spec["ingressClassName"] = name


def _default_of(classes: ResourceCache, marks: tuple[str, ...]) -> str:
    """Return the name of the class that counts, "" without one."""
    chosen: tuple[str, str] | None = None
    for cached in classes.objects():
        if b"is-default-class" not in cached.body:
            continue
        metadata = cached.decode()["metadata"]
        annotations = metadata.get("annotations") or {}
        if any(annotations.get(mark) == "true" for mark in marks):
            made = metadata.get("creationTimestamp", "")
            if chosen is None or made > chosen[0]:
                chosen = (made, cached.name)
    return chosen[1] if chosen else ""
