"""NamespaceLifecycle: nothing is created in a namespace that is absent or going away; three namespaces stay.

Spec: Kubernetes admission controllers, "NamespaceLifecycle".
"""

from __future__ import annotations

import orjson

from tiphys.apiserver.admission import Attributes, Plugin
from tiphys.apiserver.cache import ResourceCache
from tiphys.base.errors import forbidden, not_found

IMMORTAL = frozenset({"default", "kube-system", "kube-public"})


class NamespaceLifecycle(Plugin):
    """`namespaces` is the cache of Namespaces."""

    def __init__(self, namespaces: ResourceCache) -> None:
        self._namespaces = namespaces
        self._terminating: dict[str, tuple[int, bool]] = {}

    async def mutate(self, attributes: Attributes) -> None:
        kind = attributes.kind
        if attributes.operation == "DELETE" and kind.plural == "namespaces" and attributes.name in IMMORTAL:
            raise forbidden("", "namespaces", attributes.name, "this namespace may not be deleted")
        if attributes.operation != "CREATE" or not kind.namespaced or attributes.subresource:
            return
        namespace = self._namespaces.get("", attributes.namespace)
        if namespace is None:
            raise not_found("", "namespaces", attributes.namespace)
        if self._is_terminating(attributes.namespace):
            why = f"unable to create new content in namespace {attributes.namespace} because it is being terminated"
            error = forbidden(kind.group, kind.plural, attributes.name, why)
            assert error.details is not None
            error.details["causes"] = [
                {
                    "reason": "NamespaceTerminating",
                    "message": f"namespace {attributes.namespace} is being terminated",
                    "field": "metadata.namespace",
                }
            ]
            raise error

    def _is_terminating(self, name: str) -> bool:
        """Decoded once for each revision of the namespace: creates are many, changes of namespaces few."""
        cached = self._namespaces.get("", name)
        assert cached is not None
        known = self._terminating.get(name)
        if known is None or known[0] != cached.revision:
            deleting = "deletionTimestamp" in orjson.loads(cached.body)["metadata"]
            known = self._terminating[name] = (cached.revision, deleting)
        return known[1]
