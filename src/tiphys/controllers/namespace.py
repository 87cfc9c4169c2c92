"""The namespace controller: empties a namespace that is being deleted, then lets it go.

In: a namespace with a deletionTimestamp. Decides: whether content remains, how long to wait for it, the conditions.
Out: deletions of collections (of pods first, of the rest when no pod is left), status conditions, the finalize
subresource. Every step may be repeated: deletions of what is gone do nothing, and the finalizer `kubernetes` goes last,
after a look that found nothing.

Spec: Kubernetes docs, "Namespaces" (deletion, finalizers, conditions NamespaceDeletion*, NamespaceContentRemaining,
NamespaceFinalizersRemaining); KEP-5080 (ordered deletion).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from tiphys.api.views.config import Namespace
from tiphys.api.views.meta import PartialObject, decode_view
from tiphys.base.clock import format_time
from tiphys.base.errors import ApiError, qualified
from tiphys.client import resources
from tiphys.client.interface import Resource
from tiphys.controllers.discovery import Served, discover
from tiphys.controllers.mirror import Mirror
from tiphys.controllers.shared import Controller, Shared
from tiphys.controllers.views import Pod

FINALIZER = "kubernetes"
KNOWN = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}
LOOK_AGAIN_S = 0.2
LONGEST_WAIT_S = 15.0


@dataclass(slots=True)
class Findings:
    """What one round found in a namespace."""

    remaining: dict[str, int] = field(default_factory=dict)
    """Resource (`pods.`, `deployments.apps`) -> how many are left."""
    finalizers: dict[str, int] = field(default_factory=dict)
    """Finalizer -> how many of the remaining objects have it."""
    failures: list[str] = field(default_factory=list)
    """Texts of deletions that failed."""
    undiscovered: Mapping[str, str] = field(default_factory=dict)


def plan_conditions(namespace: Namespace, findings: Findings, now_s: float) -> list[dict[str, Any]] | None:
    """Return the conditions, None if they are right already."""
    bad: dict[str, tuple[str, str]] = {}
    if findings.undiscovered:
        texts = ", ".join(f"{version}: {text}" for version, text in sorted(findings.undiscovered.items()))
        bad["NamespaceDeletionDiscoveryFailure"] = (
            "DiscoveryFailed",
            f"Discovery failed for some groups, {len(findings.undiscovered)} failing: "
            f"unable to retrieve the complete list of server APIs: {texts}",
        )
    if findings.failures:
        texts = findings.failures[0] if len(findings.failures) == 1 else "[" + ", ".join(findings.failures) + "]"
        text = f"Failed to delete all resource types, {len(findings.failures)} remaining: {texts}"
        bad["NamespaceDeletionContentFailure"] = ("ContentDeletionFailed", text)
    if findings.remaining:
        texts = ", ".join(
            f"{name} has {count} resource instances" for name, count in sorted(findings.remaining.items())
        )
        bad["NamespaceContentRemaining"] = ("SomeResourcesRemain", f"Some resources are remaining: {texts}")
    if findings.finalizers:
        texts = ", ".join(
            f"{name} in {count} resource instances" for name, count in sorted(findings.finalizers.items())
        )
        bad["NamespaceFinalizersRemaining"] = (
            "SomeFinalizersRemain",
            f"Some content in the namespace has finalizers remaining: {texts}",
        )
    old = {c.type: c for c in namespace.status.conditions}
    result, changed = [], False
    for type_, good in KNOWN.items():
        reason, message = bad.get(type_, good)
        status = "True" if type_ in bad else "False"
        before = old.get(type_)
        when = format_time(now_s)
        if before is not None and before.status == status:
            when = before.last_transition_time or when
        if before is None or (before.status, before.reason, before.message) != (status, reason, message):
            changed = True
        result.append(
            {"type": type_, "status": status, "lastTransitionTime": when, "reason": reason, "message": message}
        )
    return result if changed else None


class NamespaceLoop:
    """The effects of the controller."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.client = shared.deps.client
        self.namespaces: Mirror[Namespace] = shared.mirror(resources.NAMESPACES, Namespace)
        self.queue = shared.queue()
        self.namespaces.on_change(self._changed)
        self.pods = shared.pods
        self.pods.on_change(self._pod_changed)
        self._rounds: dict[str, int] = {}
        """Uid -> how often its content was still there."""

    def _changed(self, old: Namespace | None, new: Namespace | None) -> None:
        if new is not None and new.metadata.deletion_timestamp:
            self.queue.add(new.metadata.name)
        elif new is None and old is not None:
            self._rounds.pop(old.metadata.uid, None)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """The end of a pod is what a namespace mostly waits for."""
        if new is None and old is not None:
            self._changed(None, self.namespaces.get(old.metadata.namespace))

    async def reconcile(self, key: str) -> None:
        namespace = self.namespaces.get(key)
        if namespace is None or namespace.metadata.deletion_timestamp is None:
            return
        if FINALIZER not in namespace.spec.finalizers:
            return
        if namespace.status.phase != "Terminating":
            namespace = await self.namespaces.patch(
                namespace, {"status": {"phase": "Terminating"}}, subresource="status"
            )
        findings = await self._empty(key)
        is_empty = not (findings.remaining or findings.failures or findings.undiscovered)
        conditions = plan_conditions(namespace, findings, self.shared.deps.clock.now_s())
        if conditions is not None:
            try:
                namespace = await self.namespaces.patch(
                    namespace, {"status": {"conditions": conditions}}, subresource="status"
                )
            except ApiError as error:
                if error.code != 404:
                    raise
                return
        if is_empty:
            await self._finalize(namespace)
            return
        rounds = self._rounds.get(namespace.metadata.uid, 0)
        self._rounds[namespace.metadata.uid] = rounds + 1
        self.queue.add_after(key, min(LOOK_AGAIN_S * 1.5**rounds, LONGEST_WAIT_S))

    async def _finalize(self, namespace: Namespace) -> None:
        """Take our finalizer away; the API server then removes the namespace."""
        name = namespace.metadata.name
        try:
            full = orjson.loads(await self.client.get(resources.NAMESPACES, "", name))
            if full["metadata"]["uid"] != namespace.metadata.uid:
                return
            kept = [f for f in full.get("spec", {}).get("finalizers", ()) if f != FINALIZER]
            full["spec"] = {**full.get("spec", {}), "finalizers": kept}
            await self.client.update(resources.NAMESPACES, "", name, full, subresource="finalize")
        except ApiError as error:
            if error.code != 404:
                raise

    async def _empty(self, namespace: str) -> Findings:
        found = await discover(self.client)
        findings = Findings(undiscovered=found.failed)
        targets = [
            s
            for s in found.served
            if s.resource.namespaced and {"list", "delete"} <= s.verbs and not _is_view(s.resource)
        ]
        # pods go first, whole: what guards them (policies, quotas, accounts) must not be gone while they run
        first = [s for s in targets if s.resource == resources.PODS]
        for some in (first, [s for s in targets if s not in first]):
            await asyncio.gather(*(self._delete_all(s, namespace, findings) for s in some))
            if findings.remaining or findings.failures:
                break
        return findings

    async def _delete_all(self, served: Served, namespace: str, findings: Findings) -> None:
        resource = served.resource
        try:
            items = (await self.client.list(resource, namespace)).items
            if not items:
                return
            if "deletecollection" in served.verbs:
                body = orjson.dumps({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"})
                await self.client.request("DELETE", resource.path(namespace), body=body)
            else:
                await self._delete_each(resource, namespace, items)
            items = (await self.client.list(resource, namespace)).items
        except ApiError as error:
            if error.code not in (404, 405):
                findings.failures.append(str(error))
            return
        except OSError as error:
            # One lost answer among dozens must not end the round, or a namespace on a bad line never goes.
            findings.failures.append(f"{resource.plural}: {str(error) or type(error).__name__}")
            return
        if items:
            _count(findings, resource, items)

    async def _delete_each(self, resource: Resource, namespace: str, items: Sequence[bytes]) -> None:
        for item in items:
            meta = decode_view(item, PartialObject).metadata
            try:
                await self.client.delete(resource, namespace, meta.name, propagation="Background")
            except ApiError as error:
                if error.code != 404:
                    raise


def _is_view(resource: Resource) -> bool:
    """Return whether a resource only shows others (its objects cannot be deleted)."""
    return resource.group == "metrics.k8s.io"


def _count(findings: Findings, resource: Resource, items: Sequence[bytes]) -> None:
    name = qualified(resource.group, resource.plural) if resource.group else f"{resource.plural}."
    findings.remaining[name] = len(items)
    for item in items:
        for finalizer in decode_view(item, PartialObject).metadata.finalizers:
            findings.finalizers[finalizer] = findings.finalizers.get(finalizer, 0) + 1


def namespace_controller(shared: Shared) -> Controller:
    loop = NamespaceLoop(shared)
    return Controller("namespace", loop.queue, loop.reconcile, (loop.namespaces,), workers=10)
