"""PersistentVolumeClaim protection: a claim that a pod uses is not removed under it.

In: a key of a claim. Decides: whether our finalizer is to be added (a living claim) or taken away (a deleted claim that no
pod uses). Before it is taken away the pods are read live, because a cache may not know the newest pod. A crash changes
nothing: the finalizer is the memory.

Spec: Kubernetes docs, "Storage Object in Use Protection".
"""

from __future__ import annotations

from collections.abc import Iterable

from tiphys.api.views.meta import PartialObject, decode_view
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.selection import key_of
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.views import Pod

FINALIZER = "kubernetes.io/pvc-protection"


def claims_of(pod: Pod) -> list[str]:
    """Return the names of the claims that a pod mounts."""
    return [v.persistent_volume_claim.claim_name for v in pod.spec.volumes if v.persistent_volume_claim]


def is_used(claim: str, pods: Iterable[Pod]) -> bool:
    """Return whether a pod that has not ended uses a claim. A pod without a node cannot use it yet."""
    return any(
        pod.spec.node_name and pod.status.phase not in ("Succeeded", "Failed") and claim in claims_of(pod)
        for pod in pods
    )


class ProtectionLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.claims: Mirror[PartialObject] = shared.mirror(resources.PERSISTENTVOLUMECLAIMS, PartialObject)
        self.pods = shared.pods
        self.queue = shared.queue()
        self.claims.on_change(self._claim_changed)
        self.pods.on_change(self._pod_changed)

    def _claim_changed(self, old: PartialObject | None, new: PartialObject | None) -> None:
        if new is not None and (new.metadata.deletion_timestamp or FINALIZER not in new.metadata.finalizers):
            self.queue.add(key_of(new))

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and old.spec.volumes and (new is None or new.status.phase in ("Succeeded", "Failed")):
            for name in claims_of(old):
                self.queue.add(f"{old.metadata.namespace}/{name}")

    async def reconcile(self, key: str) -> None:
        claim = self.claims.get(key)
        if claim is None:
            return
        has = FINALIZER in claim.metadata.finalizers
        if claim.metadata.deletion_timestamp is None:
            if not has:
                await self._write(claim, [*claim.metadata.finalizers, FINALIZER])
            return
        namespace, name = claim.metadata.namespace, claim.metadata.name
        if not has or is_used(name, self.pods.all(namespace)):
            return
        items = (await self.pods.client.list(resources.PODS, namespace)).items
        if not is_used(name, [decode_view(item, Pod) for item in items]):
            await self._write(claim, [f for f in claim.metadata.finalizers if f != FINALIZER])

    async def _write(self, claim: PartialObject, finalizers: list[str]) -> None:
        metadata = {"resourceVersion": claim.metadata.resource_version, "finalizers": finalizers or None}
        try:
            await self.claims.patch(claim, {"metadata": metadata})
        except ApiError as error:
            if error.code != 404:
                raise


def claim_protection_controller(shared: Shared) -> Controller:
    loop = ProtectionLoop(shared)
    return Controller("pvc-protection", loop.queue, loop.reconcile, (loop.claims, loop.pods), workers=2)
