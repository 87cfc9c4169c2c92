"""The status of ValidatingAdmissionPolicies: which generation was checked, and what the type check found.

Every policy whose generation was not checked yet is checked once; the outcome is told in its status and changes nothing
of what the policy does. What can be read off the written object decides, so a crash after any write is mended.

DIFFERS: upstream's controller manager does this over OpenAPI documents. Here the API server does, because it has the
schemas of all kinds, custom ones too, at hand and knows of a policy at once.

Spec: Kubernetes documentation, "Validating Admission Policy" (type checking).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from tiphys.api.kind import JsonObject, Kind
from tiphys.apiserver.cache import CachedEvent
from tiphys.apiserver.registry import Registry, WriteContext, take_status
from tiphys.apiserver.user import API_SERVER
from tiphys.base.errors import ApiError

log = logging.getLogger(__name__)

FIELD_MANAGER = "validatingadmissionpolicy-status"
RETRY_S = 1.0
UNKNOWN_KINDS_S = 0.5
"""How long a policy that names an unknown kind is not checked: a definition made just before it is established then."""


class PolicyStatus:
    """Keeps the status of the policies of `kind`. `run` until cancelled."""

    def __init__(self, registry: Registry, kind: Kind) -> None:
        self._registry = registry
        self._kind = kind
        self._policies = registry.cache.resource(kind.storage_prefix())
        self._dirty: dict[str, None] = {}
        self._waited: dict[str, int] = {}
        """The generation of each policy whose check waits for a kind."""
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Check all policies there are, and each that changes from now on."""
        self._policies.listeners.add(self._on_events)
        for cached in self._policies.objects():
            self._mark(cached.name)
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                name = next(iter(self._dirty))
                del self._dirty[name]
                try:
                    await self._check(name)
                except ApiError as error:
                    log.warning("the type check of ValidatingAdmissionPolicy %s is tried again: %s", name, error)
                    asyncio.get_running_loop().call_later(RETRY_S, self._mark, name)
                except Exception:  # the worker boundary: one policy must not stop the others' checks
                    log.exception("the type check of ValidatingAdmissionPolicy %s failed and is left out", name)

    def _may_wait(self, name: str, generation: int) -> bool:
        """Tell, once for each generation, that a check may wait for kinds that are not served yet."""
        if self._waited.pop(name, None) == generation:
            return False
        self._waited[name] = generation
        return True

    def _mark(self, name: str) -> None:
        self._dirty[name] = None
        self._wake.set()

    def _on_events(self, events: Sequence[CachedEvent]) -> None:
        for event in events:
            if not event.deleted:
                self._mark(event.object.name)

    async def _check(self, name: str) -> None:
        cached = self._policies.get("", name)
        if cached is None:
            return
        policy = cached.decode()
        generation = policy["metadata"].get("generation") or 0
        if generation <= ((policy.get("status") or {}).get("observedGeneration") or 0):
            return
        from tiphys.apiserver.policies.typecheck import check_types, names_unknown_kinds

        kinds = self._registry.kinds
        if names_unknown_kinds(policy["spec"], kinds) and self._may_wait(name, generation):
            asyncio.get_running_loop().call_later(UNKNOWN_KINDS_S, self._mark, name)
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
