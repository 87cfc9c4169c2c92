"""The status of ValidatingAdmissionPolicies: which generation was checked, and what the type check found.

Every policy whose generation was not checked yet is checked once; the outcome is told in its status and changes nothing
of what the policy does. What can be read off the written object decides, so a crash after any write is mended.

DIFFERS: upstream's controller manager does this over OpenAPI documents. Here the API server does, because it has the
schemas of all kinds, custom ones too, at hand and knows of a policy at once.

Spec: Kubernetes documentation, "Validating Admission Policy" (type checking).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tiphys.api.kind import JsonObject, Kind
from tiphys.apiserver.cache import CachedEvent
from tiphys.apiserver.dirtynames import DirtyNames
from tiphys.apiserver.registry import Registry, WriteContext, take_status
from tiphys.apiserver.user import API_SERVER
from tiphys.base.errors import ApiError

FIELD_MANAGER = "validatingadmissionpolicy-status"
UNKNOWN_KINDS_S = 0.5
"""How long the check of a policy that names an unknown kind waits for a definition: it may be made at the same time."""


class PolicyStatus:
    """Keeps the status of the policies of `kind`. `run` until cancelled."""

    def __init__(self, registry: Registry, kind: Kind) -> None:
        self._registry = registry
        self._kind = kind
        self._policies = registry.cache.resource(kind.storage_prefix())
        definitions = registry.kinds.resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        assert definitions is not None
        self._definitions = registry.cache.resource(definitions.storage_prefix())
        self._dirty = DirtyNames("ValidatingAdmissionPolicy", self._check)
        self._waits: dict[str, tuple[int, bool]] = {}
        """Policies whose check waits for a kind: at which generation, and whether it waited long enough."""

    async def run(self) -> None:
        """Check all policies there are, and each that changes from now on."""
        self._policies.listeners.add(self._on_events)
        self._policies.on_reset.add(self._mark_all)
        self._definitions.listeners.add(self._on_definitions)
        self._mark_all()
        await self._dirty.run()

    def _is_waiting(self, name: str, generation: int) -> bool:
        """Tell whether a check waits for kinds that are not served: for a while, once for each generation."""
        at, is_over = self._waits.get(name, (0, False))
        if at == generation:
            return not is_over
        self._waits[name] = generation, False
        asyncio.get_running_loop().call_later(UNKNOWN_KINDS_S, self._end_wait, name, generation)
        return True

    def _end_wait(self, name: str, generation: int) -> None:
        self._waits[name] = generation, True
        self._dirty.mark(name)

    def _mark_all(self) -> None:
        for cached in self._policies.objects():
            self._dirty.mark(cached.name)

    def _on_events(self, events: Sequence[CachedEvent]) -> None:
        for event in events:
            if not event.deleted:
                self._dirty.mark(event.object.name)

    def _on_definitions(self, events: Sequence[CachedEvent]) -> None:
        for name in self._waits:
            self._dirty.mark(name)

    async def _check(self, name: str) -> None:
        cached = self._policies.get("", name)
        policy = cached.decode() if cached is not None else None
        if policy is None or is_checked(policy):
            self._waits.pop(name, None)
            return
        generation = policy["metadata"]["generation"]
        from tiphys.apiserver.policies.typecheck import check_types, names_unknown_kinds

        kinds = self._registry.kinds
        if names_unknown_kinds(policy["spec"], kinds) and self._is_waiting(name, generation):
            return
        warnings: list[JsonObject] = []
        for found in check_types(policy, kinds):
            warnings += found
            await asyncio.sleep(0)

        def change(current: JsonObject) -> JsonObject:
            status = current.setdefault("status", {})
            status["observedGeneration"] = generation
            status["typeChecking"] = {"expressionWarnings": warnings} if warnings else {}
            return current

        context = WriteContext(API_SERVER, field_manager=FIELD_MANAGER, subresource="status")
        try:
            await self._registry.update(self._kind, "", name, change, context, combine=take_status)
        except ApiError as error:
            if error.code != 404:
                raise


def is_checked(policy: JsonObject) -> bool:
    """Tell whether a policy's status is about the policy as it is."""
    seen = (policy.get("status") or {}).get("observedGeneration") or 0
    return bool((policy["metadata"].get("generation") or 0) <= seen)
