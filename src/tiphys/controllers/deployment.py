"""The Deployment controller: rolls from one pod template to the next through ReplicaSets.

In: a key of a Deployment. Decides (rollout.py, deploymentstatus.py): which ReplicaSet is the new one, the sizes of all,
which to forget, the status. Out: ReplicaSets, annotations, the status, ScalingReplicaSet events.

Order of writes: the new ReplicaSet first, then the Deployment's revision annotation, then sizes, then the status. A
crash after any of them is mended by the next run, which finds the ReplicaSet by its template. Sizes are written with
the ReplicaSet's resourceVersion, so a stale cache makes a conflict, not a wrong size.

Spec: Kubernetes docs, "Deployment".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.controllers import deploymentstatus as status_of
from tiphys.controllers import rollout
from tiphys.controllers.creation import is_namespace_ending
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.replicaset import claim
from tiphys.controllers.revision import HASH_LABEL, canonical_template, hash_bytes
from tiphys.controllers.rollout import DESIRED, MAXIMUM, REVISION, Scale, revision_of, size_of, wanted
from tiphys.controllers.selection import (
    controller_of,
    created_s,
    is_empty_selector,
    key_of,
    matches_selector,
    owner_reference,
)
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.views import Deployment, Pod, ReplicaSet, decode_template

HISTORY = "deployment.kubernetes.io/revision-history"
NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        HISTORY,
        DESIRED,
        MAXIMUM,
        "deprecated.deployment.rollback.to",
    }
)
Condition = tuple[str, str, str]


def find_new(deployment: Deployment, sets: Sequence[ReplicaSet]) -> ReplicaSet | None:
    """Return the oldest ReplicaSet with the Deployment's template."""
    template = canonical_template(bytes(deployment.spec.template))
    same = [rs for rs in sets if canonical_template(bytes(rs.spec.template)) == template]
    return min(same, key=lambda rs: (created_s(rs.metadata), rs.metadata.name), default=None)


def copied_annotations(deployment: Deployment) -> dict[str, str]:
    """Return the annotations that a Deployment hands to its ReplicaSets."""
    return {k: v for k, v in deployment.metadata.annotations.items() if k not in NOT_COPIED}


def make_replicaset(deployment: Deployment, replicas: int, revision: int) -> dict[str, Any]:
    """Return the ReplicaSet for the Deployment's template."""
    collisions = deployment.status.collision_count or 0
    template = decode_template(bytes(deployment.spec.template))
    digest = hash_bytes(canonical_template(bytes(deployment.spec.template)), collisions)
    metadata = template.get("metadata") or {}
    labels = {**(metadata.get("labels") or {}), HASH_LABEL: digest}
    selector = deployment.spec.selector
    assert selector is not None
    spec: dict[str, Any] = {
        "replicas": replicas,
        "selector": {"matchLabels": {**selector.match_labels, HASH_LABEL: digest}},
        "template": {**template, "metadata": {**metadata, "labels": labels}},
    }
    if selector.match_expressions:
        spec["selector"]["matchExpressions"] = [
            {"key": e.key, "operator": e.operator, **({"values": list(e.values)} if e.values else {})}
            for e in selector.match_expressions
        ]
    if deployment.spec.min_ready_seconds:
        spec["minReadySeconds"] = deployment.spec.min_ready_seconds
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{deployment.metadata.name}-{digest}",
            "namespace": deployment.metadata.namespace,
            "labels": labels,
            "annotations": {
                **copied_annotations(deployment),
                REVISION: str(revision),
                **size_annotations(deployment),
            },
            "ownerReferences": [owner_reference(resources.DEPLOYMENTS, deployment.metadata)],
        },
        "spec": spec,
    }


def size_annotations(deployment: Deployment) -> dict[str, str]:
    """Return the annotations that tell for which size of the Deployment a ReplicaSet was sized."""
    replicas = wanted(deployment)
    return {DESIRED: str(replicas), MAXIMUM: str(replicas + rollout.bounds(deployment)[0])}


def plan_new_metadata(deployment: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet]) -> dict[str, Any] | None:
    """Return the patch that makes an existing ReplicaSet the newest revision, None if it is so already."""
    revision = max((revision_of(rs.metadata.annotations) for rs in old), default=0) + 1
    now = new.metadata.annotations
    annotations: dict[str, Any] = {k: v for k, v in copied_annotations(deployment).items() if now.get(k) != v}
    own = revision_of(now)
    if own < revision:
        annotations[REVISION] = str(revision)
        if own:
            earlier = now.get(HISTORY, "")
            annotations[HISTORY] = f"{earlier},{own}" if earlier else str(own)
    patch: dict[str, Any] = {}
    if annotations:
        patch["metadata"] = {"annotations": annotations}
    if (new.spec.min_ready_seconds or 0) != (deployment.spec.min_ready_seconds or 0):
        patch["spec"] = {"minReadySeconds": deployment.spec.min_ready_seconds or None}
    return patch or None


def plan_pause(deployment: Deployment) -> Condition | None:
    """Return the Progressing condition that tells of a pause or its end, None if it is told already."""
    if not status_of.has_deadline(deployment):
        return None
    condition = status_of.find(deployment.status.conditions, "Progressing")
    if condition is not None and condition.reason == "ProgressDeadlineExceeded":
        return None
    is_told = condition is not None and condition.reason == "DeploymentPaused"
    if deployment.spec.paused and not is_told:
        return "Unknown", "DeploymentPaused", "Deployment is paused"
    if not deployment.spec.paused and is_told:
        return "Unknown", "DeploymentResumed", "Deployment is resumed"
    return None


class DeploymentLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.deployments: Mirror[Deployment] = shared.mirror(resources.DEPLOYMENTS, Deployment)
        self.sets: Mirror[ReplicaSet] = shared.mirror(resources.REPLICASETS, ReplicaSet)
        self.pods = shared.pods
        self.recorder = shared.recorder("deployment-controller")
        self.queue = shared.queue()
        self.deployments.on_change(lambda old, new: self._add(new or old))
        self.sets.on_change(self._set_changed)
        self.pods.on_change(self._pod_changed)

    def _add(self, deployment: Deployment | None) -> None:
        if deployment is not None:
            self.queue.add(key_of(deployment))

    def _set_changed(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        for rs in (old, new):
            if rs is None:
                continue
            owner = controller_of(rs.metadata)
            if owner is not None:
                if owner.kind == "Deployment":
                    self.queue.add(f"{rs.metadata.namespace}/{owner.name}")
            elif rs is new:
                for deployment in self.deployments.all(rs.metadata.namespace):
                    if matches_selector(deployment.spec.selector, rs.metadata.labels):
                        self._add(deployment)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Only Recreate waits for pods: for their end, before the new ones may start."""
        if old is None or (new is not None and new.status.phase == old.status.phase):
            return
        owner = controller_of(old.metadata)
        rs = self.sets.get(f"{old.metadata.namespace}/{owner.name}") if owner and owner.kind == "ReplicaSet" else None
        parent = controller_of(rs.metadata) if rs else None
        if parent is None:
            return
        deployment = self.deployments.get(f"{old.metadata.namespace}/{parent.name}")
        if deployment is not None and not rollout.is_rolling(deployment):
            self._add(deployment)

    async def reconcile(self, key: str) -> None:
        deployment = self.deployments.get(key)
        if deployment is None:
            return
        if is_empty_selector(deployment.spec.selector):
            text = "This deployment is selecting all pods. A non-empty selector is required."
            self.recorder.record(deployment, "Warning", "SelectingAll", text)
            return
        sets = await claim(resources.DEPLOYMENTS, deployment, deployment.spec.selector, self.sets)
        first = plan_pause(deployment)
        if deployment.metadata.deletion_timestamp:
            await self._finish(key, deployment, sets, find_new(deployment, sets), None, is_rollout=False)
            return
        if deployment.spec.paused or rollout.needs_scaling(deployment, sets):
            await self._resize(key, deployment, sets, first)
        elif rollout.is_rolling(deployment):
            await self._roll(key, deployment, sets, first)
        else:
            await self._recreate(key, deployment, sets, first)

    async def _resize(self, key: str, deployment: Deployment, sets: list[ReplicaSet], first: Condition | None) -> None:
        """A paused or resized Deployment: sizes change, but no new ReplicaSet is made."""
        new = find_new(deployment, sets)
        if new is not None:
            new = await self._refresh_new(deployment, sets, new)
            sets = [new if rs.metadata.uid == new.metadata.uid else rs for rs in sets]
        old = [rs for rs in sets if new is None or rs.metadata.uid != new.metadata.uid]
        sizes = {s.replicaset.metadata.uid: s for s in rollout.plan_resize(deployment, sets, old, new)}
        result = []
        for rs in sets:
            is_active = size_of(rs) > 0
            step = sizes.get(rs.metadata.uid) or (Scale(rs, size_of(rs)) if is_active else None)
            result.append(await self._scale(deployment, step) if step else rs)
        if deployment.spec.paused:
            await self._clean_up(deployment, [rs for rs in result if not new or rs.metadata.uid != new.metadata.uid])
        await self._finish(key, deployment, result, _same(result, new), first, is_rollout=False)

    async def _roll(self, key: str, deployment: Deployment, sets: list[ReplicaSet], first: Condition | None) -> None:
        deployment, sets, new, made = await self._new(deployment, sets)
        if new is None:
            await self._finish(key, deployment, sets, None, made, is_rollout=True)
            return
        old = [rs for rs in sets if rs.metadata.uid != new.metadata.uid]
        step = rollout.plan_new(deployment, sets, new)
        steps = [step] if step else rollout.plan_old(deployment, sets, old, new)
        for scale in steps:
            scaled = await self._scale(deployment, scale)
            sets = [scaled if rs.metadata.uid == scaled.metadata.uid else rs for rs in sets]
        await self._conclude(key, deployment, sets, new, made or first)

    async def _recreate(
        self, key: str, deployment: Deployment, sets: list[ReplicaSet], first: Condition | None
    ) -> None:
        new = find_new(deployment, sets)
        old = [rs for rs in sets if new is None or rs.metadata.uid != new.metadata.uid]
        steps = [Scale(rs, 0) for rs in old if size_of(rs) > 0]
        if steps:
            for scale in steps:
                scaled = await self._scale(deployment, scale)
                sets = [scaled if rs.metadata.uid == scaled.metadata.uid else rs for rs in sets]
            await self._finish(key, deployment, sets, new, first, is_rollout=True)
            return
        old_pods = [pod for rs in old for pod in self.pods.owned(rs.metadata.uid)]
        if any(rs.status.replicas for rs in old) or any(
            pod.status.phase not in ("Failed", "Succeeded") for pod in old_pods
        ):
            await self._finish(key, deployment, sets, new, first, is_rollout=True)
            return
        deployment, sets, new, made = await self._new(deployment, sets)
        if new is not None and size_of(new) != wanted(deployment):
            new = await self._scale(deployment, Scale(new, wanted(deployment)))
            sets = [new if rs.metadata.uid == new.metadata.uid else rs for rs in sets]
        await self._conclude(key, deployment, sets, new, made or first)

    async def _conclude(
        self, key: str, deployment: Deployment, sets: list[ReplicaSet], new: ReplicaSet | None, first: Condition | None
    ) -> None:
        new = _same(sets, new)
        if new is not None and status_of.is_complete(deployment, status_of.count(sets, new)):
            await self._clean_up(deployment, [rs for rs in sets if rs.metadata.uid != new.metadata.uid])
        await self._finish(key, deployment, sets, new, first, is_rollout=True)

    async def _new(
        self, deployment: Deployment, sets: list[ReplicaSet]
    ) -> tuple[Deployment, list[ReplicaSet], ReplicaSet | None, Condition | None]:
        """Find or create the ReplicaSet of the template, and write its revision to the Deployment."""
        new, made = find_new(deployment, sets), None
        if new is not None:
            new = await self._refresh_new(deployment, sets, new)
            if status_of.find(deployment.status.conditions, "Progressing") is None:
                made = ("True", "FoundNewReplicaSet", f'Found new replica set "{new.metadata.name}"')
            sets = [new if rs.metadata.uid == new.metadata.uid else rs for rs in sets]
        else:
            new, made = await self._create(deployment, sets)
            if new is None:
                return deployment, sets, None, made
            sets = [*sets, new]
        revision = new.metadata.annotations.get(REVISION)
        if revision and deployment.metadata.annotations.get(REVISION) != revision:
            deployment = await self.deployments.patch(deployment, {"metadata": {"annotations": {REVISION: revision}}})
        return deployment, sets, new, made

    async def _refresh_new(self, deployment: Deployment, sets: Sequence[ReplicaSet], new: ReplicaSet) -> ReplicaSet:
        old = [rs for rs in sets if rs.metadata.uid != new.metadata.uid]
        patch = plan_new_metadata(deployment, new, old)
        return await self.sets.patch(new, patch) if patch else new

    async def _create(
        self, deployment: Deployment, sets: Sequence[ReplicaSet]
    ) -> tuple[ReplicaSet | None, Condition | None]:
        replicas = rollout.size_for_new(deployment, sets, 0)
        revision = max((revision_of(rs.metadata.annotations) for rs in sets), default=0) + 1
        obj = make_replicaset(deployment, replicas, revision)
        name = obj["metadata"]["name"]
        try:
            new = await self.sets.create(deployment.metadata.namespace, obj)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return await self._existing(deployment, name), None
            if is_namespace_ending(error):
                return None, None
            text = f'Failed to create new replica set "{name}": {error}'
            self.recorder.record(deployment, "Warning", "ReplicaSetCreateError", text)
            failed = ("False", "ReplicaSetCreateError", text)
            patch = status_of.plan_status(
                deployment, sets, None, self.shared.deps.clock.now_s(), is_rollout=False, first=failed,
                collisions=deployment.status.collision_count or 0,
            )  # fmt: skip
            if patch:
                await self.deployments.patch(deployment, {"status": patch}, subresource="status")
            raise
        if replicas > 0:
            text = f"Scaled up replica set {name} from 0 to {replicas}"
            self.recorder.record(deployment, "Normal", "ScalingReplicaSet", text)
        return new, ("True", "NewReplicaSetCreated", f'Created new replica set "{name}"')

    async def _existing(self, deployment: Deployment, name: str) -> ReplicaSet | None:
        """The name is taken: by our own earlier create (lost answer), or by a template with the same hash."""
        found = self.sets.note(await self.sets.client.get(resources.REPLICASETS, deployment.metadata.namespace, name))
        owner = controller_of(found.metadata)
        is_ours = owner is not None and owner.uid == deployment.metadata.uid
        if is_ours and find_new(deployment, [found]) is not None:
            return found
        status = {"collisionCount": (deployment.status.collision_count or 0) + 1}
        body = {"metadata": {"resourceVersion": deployment.metadata.resource_version}, "status": status}
        await self.deployments.patch(deployment, body, subresource="status")
        self.queue.add(key_of(deployment))
        return None

    async def _scale(self, deployment: Deployment, scale: Scale) -> ReplicaSet:
        rs, size = scale.replicaset, size_of(scale.replicaset)
        annotations = {k: v for k, v in size_annotations(deployment).items() if rs.metadata.annotations.get(k) != v}
        if size == scale.replicas and not annotations:
            return rs
        patch: dict[str, Any] = {"metadata": {"resourceVersion": rs.metadata.resource_version}}
        if annotations:
            patch["metadata"]["annotations"] = annotations
        if size != scale.replicas:
            patch["spec"] = {"replicas": scale.replicas}
        scaled = await self.sets.patch(rs, patch)
        if size != scale.replicas:
            direction = "up" if scale.replicas > size else "down"
            text = f"Scaled {direction} replica set {rs.metadata.name} from {size} to {scale.replicas}"
            self.recorder.record(deployment, "Normal", "ScalingReplicaSet", text)
        return scaled

    async def _clean_up(self, deployment: Deployment, old: Sequence[ReplicaSet]) -> None:
        for rs in rollout.plan_cleanup(deployment, old):
            try:
                await self.sets.delete(rs)
            except ApiError as error:
                if error.code != 404:
                    raise

    async def _finish(
        self,
        key: str,
        deployment: Deployment,
        sets: Sequence[ReplicaSet],
        new: ReplicaSet | None,
        first: Condition | None,
        *,
        is_rollout: bool,
    ) -> None:
        now_s = self.shared.deps.clock.now_s()
        collisions = max(deployment.status.collision_count or 0, self._collisions(key))
        status = status_of.plan_status(
            deployment, sets, new, now_s, is_rollout=is_rollout, first=first, collisions=collisions
        )
        if status is not None:
            try:
                await self.deployments.patch(deployment, {"status": status}, subresource="status")
            except ApiError as error:
                if error.code != 404:
                    raise
        wait_s = status_of.next_deadline_s(deployment, status, now_s)
        if wait_s is not None:
            self.queue.add_after(key, wait_s)

    def _collisions(self, key: str) -> int:
        newest = self.deployments.get(key)
        return (newest.status.collision_count or 0) if newest else 0


def _same(sets: Sequence[ReplicaSet], new: ReplicaSet | None) -> ReplicaSet | None:
    """Return the newest view of `new` among `sets`."""
    return next((rs for rs in sets if new is not None and rs.metadata.uid == new.metadata.uid), None)


def deployment_controller(shared: Shared) -> Controller:
    loop = DeploymentLoop(shared)
    return Controller("deployment", loop.queue, loop.reconcile, (loop.deployments, loop.sets, loop.pods), workers=5)
