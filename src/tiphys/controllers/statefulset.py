"""The StatefulSet controller: the effects of statefulplan.py.

In: a key of a StatefulSet. Order of writes: the ControllerRevision, then for a new pod first its claims and then the pod,
then deletions, then the status, then old revisions away. Names are fixed by the ordinal, so every create may be repeated:
AlreadyExists is success when the object is ours. A crash after any write is mended by the next run.

Spec: Kubernetes docs, "StatefulSets"; see statefulplan.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from tiphys.api.views.meta import PartialObject
from tiphys.base.errors import ApiError
from tiphys.client import resources
from tiphys.controllers.creation import is_namespace_ending, make_pod, run_slow_start
from tiphys.controllers.history import REVISION_LABEL, Histories
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.replicaset import claim
from tiphys.controllers.selection import controller_of, is_empty_selector, key_of, omit_zero, ready_since_s
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.statefulplan import (
    StatefulPlan,
    count,
    is_update_complete,
    ordinal_of,
    plan_statefulset,
    wanted_ordinals,
)
from tiphys.controllers.views import ControllerRevision, Pod, StatefulSet, decode_template

POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"


class StatefulSetLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.sets: Mirror[StatefulSet] = shared.mirror(resources.STATEFULSETS, StatefulSet)
        self.pods = shared.pods
        self.claims: Mirror[PartialObject] = shared.mirror(resources.PERSISTENTVOLUMECLAIMS, PartialObject)
        self.histories = Histories(shared, resources.STATEFULSETS)
        self.recorder = shared.recorder("statefulset-controller")
        self.queue = shared.queue()
        self.sets.on_change(self._set_changed)
        self.pods.on_change(self._pod_changed)

    def _set_changed(self, old: StatefulSet | None, new: StatefulSet | None) -> None:
        view = new if new is not None else old
        if view is not None:
            self.queue.add(key_of(view))

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for pod in (old, new):
            if pod is None:
                continue
            owner = controller_of(pod.metadata)
            if owner is not None:
                if owner.kind == "StatefulSet":
                    self.queue.add(f"{pod.metadata.namespace}/{owner.name}")
            else:
                base = pod.metadata.name.rpartition("-")[0]
                if self.sets.get(f"{pod.metadata.namespace}/{base}") is not None:
                    self.queue.add(f"{pod.metadata.namespace}/{base}")

    async def reconcile(self, key: str) -> None:
        statefulset = self.sets.get(key)
        if statefulset is None or is_empty_selector(statefulset.spec.selector):
            return
        template = bytes(statefulset.spec.template)
        revisions = await self.histories.of(statefulset, statefulset.spec.selector)
        collisions = statefulset.status.collision_count or 0
        update, collisions = await self.histories.current(statefulset.metadata, template, revisions, collisions)
        if update is None:
            await self.sets.patch(statefulset, {"status": {"collisionCount": collisions}}, subresource="status")
            self.queue.add(key)
            return
        current = next((r for r in revisions if r.metadata.name == statefulset.status.current_revision), update)
        pods = await claim(
            resources.STATEFULSETS,
            statefulset,
            statefulset.spec.selector,
            self.pods,
            accepts=lambda pod: ordinal_of(statefulset, pod) is not None,
        )
        now_s = self.shared.deps.clock.now_s()
        plan = plan_statefulset(statefulset, pods, current.metadata.name, update.metadata.name, now_s)
        error = await self._apply(statefulset, plan, {r.metadata.name: r for r in (current, update)})
        pods = self.pods.owned(statefulset.metadata.uid)
        await self._retain(statefulset, pods)
        counts = count(statefulset, pods, current.metadata.name, update.metadata.name, now_s)
        await self._write_status(statefulset, counts, current.metadata.name, update.metadata.name, collisions)
        live = {p.metadata.labels.get(REVISION_LABEL, "") for p in pods} | {
            current.metadata.name,
            update.metadata.name,
        }
        await self.histories.forget(revisions, live, statefulset.spec.revision_history_limit)
        min_ready = statefulset.spec.min_ready_seconds or 0
        waits = [s + min_ready - now_s for p in pods if (s := ready_since_s(p)) and s + min_ready > now_s]
        if waits:
            self.queue.add_after(key, min(waits) + 0.01)
        if error is not None and not is_namespace_ending(error):
            raise error

    async def _apply(
        self, statefulset: StatefulSet, plan: StatefulPlan, revisions: dict[str, ControllerRevision]
    ) -> Exception | None:
        _, failed = await run_slow_start(
            plan.create, lambda item: self._create(statefulset, item[0], revisions[item[1]])
        )
        _, other = await run_slow_start(plan.delete, lambda pod: self._delete(statefulset, pod))
        return failed or other

    async def _create(self, statefulset: StatefulSet, ordinal: int, revision: ControllerRevision) -> None:
        meta = statefulset.metadata
        name = f"{meta.name}-{ordinal}"
        template = orjson.dumps(orjson.loads(bytes(revision.data))["spec"]["template"])
        claims = [decode_template(bytes(c)) for c in statefulset.spec.volume_claim_templates]
        labels = {REVISION_LABEL: revision.metadata.name, POD_NAME_LABEL: name, POD_INDEX_LABEL: str(ordinal)}
        spec = stable_spec(decode_template(template).get("spec", {}), statefulset, name, claims)
        pod = make_pod(template, resources.STATEFULSETS, meta, name, labels=labels, spec=spec)
        try:
            for claim_template in claims:
                await self._create_claim(statefulset, claim_template, name)
            await self._create_pod(statefulset, pod)
        except (ApiError, OSError) as error:
            if not is_namespace_ending(error):
                text = f"create Pod {name} in StatefulSet {meta.name} failed error: {error}"
                self.recorder.record(statefulset, "Warning", "FailedCreate", text)
            raise

    async def _create_pod(self, statefulset: StatefulSet, pod: dict[str, Any]) -> None:
        meta, name = statefulset.metadata, pod["metadata"]["name"]
        try:
            await self.pods.create(meta.namespace, pod)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            found = self.pods.note(await self.pods.client.get(resources.PODS, meta.namespace, name))
            owner = controller_of(found.metadata)
            if owner is None or owner.uid != meta.uid:
                raise
            return
        text = f"create Pod {name} in StatefulSet {meta.name} successful"
        self.recorder.record(statefulset, "Normal", "SuccessfulCreate", text)

    async def _create_claim(self, statefulset: StatefulSet, template: dict[str, Any], pod: str) -> None:
        meta = statefulset.metadata
        source = template.get("metadata") or {}
        name = f"{source['name']}-{pod}"
        if self.claims.get(f"{meta.namespace}/{name}") is not None:
            return
        selector = statefulset.spec.selector
        labels = {**(source.get("labels") or {}), **(selector.match_labels if selector else {})}
        obj = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                **{k: v for k, v in source.items() if k in ("annotations",)},
                "name": name,
                "namespace": meta.namespace,
                "labels": labels,
            },
            "spec": template.get("spec", {}),
        }
        try:
            await self.claims.create(meta.namespace, obj)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            return
        text = f"create Claim {name} Pod {pod} in StatefulSet {meta.name} success"
        self.recorder.record(statefulset, "Normal", "SuccessfulCreate", text)

    async def _delete(self, statefulset: StatefulSet, pod: Pod) -> None:
        name = pod.metadata.name
        if pod.status.phase in ("Failed", "Succeeded"):
            reason = "RecreatingFailedPod" if pod.status.phase == "Failed" else "RecreatingTerminatedPod"
            text = f"StatefulSet {key_of(statefulset)} is recreating {pod.status.phase.lower()} Pod {name}"
            self.recorder.record(statefulset, "Warning" if reason == "RecreatingFailedPod" else "Normal", reason, text)
        try:
            await self.pods.delete(pod)
        except ApiError as error:
            if error.code == 404:
                return
            text = f"delete Pod {name} in StatefulSet {statefulset.metadata.name} failed error: {error}"
            self.recorder.record(statefulset, "Warning", "FailedDelete", text)
            raise
        text = f"delete Pod {name} in StatefulSet {statefulset.metadata.name} successful"
        self.recorder.record(statefulset, "Normal", "SuccessfulDelete", text)

    async def _retain(self, statefulset: StatefulSet, pods: Sequence[Pod]) -> None:
        """Own claims as the retention policy says: whenDeleted by the StatefulSet, whenScaled by the pod to go."""
        policy = statefulset.spec.persistent_volume_claim_retention_policy
        if policy is None or (policy.when_deleted != "Delete" and policy.when_scaled != "Delete"):
            return
        meta = statefulset.metadata
        wanted = wanted_ordinals(statefulset)
        for pod in pods:
            ordinal = ordinal_of(statefulset, pod)
            for template in statefulset.spec.volume_claim_templates:
                name = f"{decode_template(bytes(template))['metadata']['name']}-{pod.metadata.name}"
                found = self.claims.get(f"{meta.namespace}/{name}")
                if found is None or ordinal is None:
                    continue
                owners = []
                if policy.when_scaled == "Delete" and ordinal not in wanted:
                    owners = [_plain_owner("v1", "Pod", pod.metadata.name, pod.metadata.uid)]
                elif policy.when_deleted == "Delete":
                    owners = [_plain_owner("apps/v1", "StatefulSet", meta.name, meta.uid)]
                if [o["uid"] for o in owners] != [o.uid for o in found.metadata.owner_references]:
                    await self.claims.patch(found, {"metadata": {"ownerReferences": owners or None}})

    async def _write_status(
        self, statefulset: StatefulSet, counts: dict[str, int], current: str, update: str, collisions: int
    ) -> None:
        old = statefulset.status
        now_current = update if is_update_complete(statefulset, counts) else current
        status = {
            "observedGeneration": omit_zero(statefulset.metadata.generation or 0),
            "replicas": counts["replicas"],
            "readyReplicas": omit_zero(counts["ready"]),
            "availableReplicas": counts["available"],
            "currentReplicas": omit_zero(counts["updated"] if now_current == update else counts["current"]),
            "updatedReplicas": omit_zero(counts["updated"]),
            "currentRevision": now_current,
            "updateRevision": update,
            "collisionCount": collisions,
        }
        before = {
            "observedGeneration": old.observed_generation,
            "replicas": old.replicas,
            "readyReplicas": old.ready_replicas,
            "availableReplicas": old.available_replicas,
            "currentReplicas": old.current_replicas,
            "updatedReplicas": old.updated_replicas,
            "currentRevision": old.current_revision,
            "updateRevision": old.update_revision,
            "collisionCount": old.collision_count,
        }
        if status == before:
            return
        try:
            await self.sets.patch(statefulset, {"status": status}, subresource="status")
        except ApiError as error:
            if error.code != 404:
                raise


def _plain_owner(api_version: str, kind: str, name: str, uid: str) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "name": name, "uid": uid}


def stable_spec(
    spec: dict[str, Any], statefulset: StatefulSet, name: str, claims: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the fields that give a pod its identity: host name, subdomain, and its own claims as volumes."""
    result: dict[str, Any] = {"hostname": name}
    if statefulset.spec.service_name:
        result["subdomain"] = statefulset.spec.service_name
    if claims:
        own = {c["metadata"]["name"]: f"{c['metadata']['name']}-{name}" for c in claims}
        kept = [v for v in spec.get("volumes") or () if v.get("name") not in own]
        added = [
            {"name": volume, "persistentVolumeClaim": {"claimName": claim_name}} for volume, claim_name in own.items()
        ]
        result["volumes"] = [*added, *kept]
    return result


def statefulset_controller(shared: Shared) -> Controller:
    loop = StatefulSetLoop(shared)
    mirrors = (loop.sets, loop.pods, loop.claims, loop.histories.mirror)
    return Controller("statefulset", loop.queue, loop.reconcile, mirrors, workers=5)
