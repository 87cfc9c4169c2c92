"""Parameters of policies: the objects that a binding's paramRef names, from the watch cache.

The result is a list of objects to evaluate a policy with, one after another; None stands for "without parameter".

Spec: Kubernetes documentation, "Validating Admission Policy" (parameter resources, paramKind, paramRef); API reference,
ParamRef v1 admissionregistration.k8s.io.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tiphys.api.kind import JsonObject, Kind, Kinds
from tiphys.api.selectors import selector_of
from tiphys.apiserver.cache import CachedObject, WatchCache
from tiphys.base.errors import TiphysError


class Misconfigured(TiphysError):
    """A policy cannot be evaluated because of what it, or a binding, refers to."""


Open = Callable[[Kind, CachedObject], Awaitable[JsonObject]]
"""Returns a cached object in the version of a kind."""


def param_kind(kinds: Kinds, reference: JsonObject | None) -> Kind | None:
    """Return the kind that a policy's paramKind names, None for no paramKind. Raises Misconfigured."""
    if reference is None:
        return None
    api_version, name = reference.get("apiVersion") or "", reference.get("kind") or ""
    group, slash, version = api_version.partition("/")
    if not slash:
        group, version = "", api_version
    kind = kinds.by_kind(group, version, name)
    if kind is None or not kind.plural or "get" not in kind.verbs:
        shown = f"{group}/{version}, Kind={name}"
        raise Misconfigured(f"failed to find resource referenced by paramKind: '{shown}'")
    return kind


class Params:
    """Looks parameters up. `open_object` decodes one in the version that the policy names."""

    def __init__(self, cache: WatchCache, kinds: Kinds, open_object: Open) -> None:
        self._cache = cache
        self._kinds = kinds
        self._open = open_object

    async def collect(self, kind: Kind | None, ref: JsonObject | None, namespace: str) -> Sequence[JsonObject | None]:
        """Return what to evaluate a policy with. `namespace` is that of the request. Raises Misconfigured."""
        if kind is None or ref is None:
            return (None,)
        where = ref.get("namespace") or ""
        if kind.namespaced:
            where = where or namespace
            if not where:
                raise Misconfigured(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                )
        elif where:
            raise Misconfigured("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        found = self._find(kind, ref, where)
        if not found and ref.get("parameterNotFoundAction") == "Deny":
            raise Misconfigured("no params found for policy binding with `Deny` parameterNotFoundAction")
        return [await self._open(kind, cached) for cached in found]

    def _find(self, kind: Kind, ref: JsonObject, namespace: str) -> list[CachedObject]:
        resource = self._cache.resource(self._kinds.stored(kind).storage_prefix())
        name = ref.get("name")
        if name:
            cached = resource.get(namespace, name)
            return [] if cached is None else [cached]
        selector = selector_of(ref.get("selector") or {})
        return [cached for cached in resource.objects(namespace) if selector.matches(cached.labels)]
