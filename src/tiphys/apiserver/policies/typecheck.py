"""The status of ValidatingAdmissionPolicies: what a check of their expressions against the matched kinds finds.

A policy whose generation was not checked yet is compiled once more, with `object` and `params` of the types that their
schemas say; what does not fit is told in status.typeChecking and changes nothing else. Wildcards are not followed, and
at most ten kinds are looked at.

DIFFERS: upstream's controller manager does this over OpenAPI documents; here the API server does, because it has the
schemas of all kinds, custom ones too, at hand and knows of a policy at once.

Spec: Kubernetes documentation, "Validating Admission Policy" (type checking).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tiphys.api.admissionexpressions import Expressions, Scope
from tiphys.api.definitions import load_definitions
from tiphys.api.kind import JsonObject, Kind, Kinds
from tiphys.apiserver.cache import CachedEvent, ResourceCache
from tiphys.apiserver.policies.schematypes import type_of_kind
from tiphys.apiserver.registry import Registry, WriteContext, take_status
from tiphys.apiserver.user import API_SERVER
from tiphys.base.errors import ApiError
from tiphys.cel.types import Type

log = logging.getLogger(__name__)

MAX_KINDS = 10
FIELD_MANAGER = "validatingadmissionpolicy-status"
RETRY_S = 1.0


class PolicyStatus:
    """Keeps the status of policies. `run` until cancelled."""

    def __init__(self, registry: Registry, kind: Kind) -> None:
        self._registry = registry
        self._kind = kind
        self._policies: ResourceCache = registry.cache.resource(kind.storage_prefix())
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()

    def listen(self) -> None:
        """Look at all policies there are, and at each that changes from now on."""
        self._policies.listeners.add(self._on_events)
        for cached in self._policies.objects():
            self._mark(cached.name)

    async def run(self) -> None:
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
        warnings = check_types(policy, self._registry.kinds)

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


def check_types(policy: JsonObject, kinds: Kinds) -> list[JsonObject]:
    """Return the warnings about a ValidatingAdmissionPolicy's validations, with the fields that they are about."""
    spec = policy.get("spec") or {}
    definitions = load_definitions(kinds.kubernetes_version)
    checked = []
    params = _params_type(spec.get("paramKind"), kinds)
    scope = Scope(params=params is not None)
    for kind in kinds_to_check(spec, kinds):
        found = type_of_kind(kind, definitions)
        if found is not None:
            objects = {"object": found, "oldObject": found, **({"params": params} if params is not None else {})}
            checked.append((kind, _typed(spec, kinds, objects, scope)))
    warnings = []
    for index, validation in enumerate(spec.get("validations") or ()):
        for field in ("expression", "messageExpression"):
            text = validation.get(field) or ""
            found_wrong = "\n".join(_issues(text, checked, scope)) if text else ""
            if found_wrong:
                warnings.append({"fieldRef": f"spec.validations[{index}].{field}", "warning": found_wrong})
    return warnings


def _typed(spec: JsonObject, kinds: Kinds, objects: Mapping[str, Type], scope: Scope) -> Expressions:
    expressions = Expressions(kinds.kubernetes_version, objects)
    for variable in spec.get("variables") or ():
        expressions.declare(variable.get("name") or "", variable.get("expression") or "", scope)
    return expressions


def _issues(text: str, checked: Iterable[tuple[Kind, Expressions]], scope: Scope) -> Iterable[str]:
    for kind, expressions in checked:
        issues = expressions.check(text, scope)
        if issues:
            yield f"{kind.group}/{kind.version}, Kind={kind.kind}: {issues}\n"


def _params_type(reference: Mapping[str, Any] | None, kinds: Kinds) -> Type | None:
    if reference is None:
        return None
    group, slash, version = (reference.get("apiVersion") or "").partition("/")
    if not slash:
        group, version = "", group
    kind = kinds.by_kind(group, version, reference.get("kind") or "")
    return None if kind is None else type_of_kind(kind, load_definitions(kinds.kubernetes_version))


def kinds_to_check(spec: JsonObject, kinds: Kinds) -> list[Kind]:
    """Return the kinds that a policy names in its rules, without wildcards and subresources, in a fixed order."""
    found: dict[tuple[str, str, str], Kind] = {}
    for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
        groups, versions = rule.get("apiGroups") or (), rule.get("apiVersions") or ()
        if any("*" in name for name in (*groups, *versions)):
            continue
        plain = sorted(name for name in rule.get("resources") or () if "*" not in name and "/" not in name)
        for group in sorted(groups):
            for version in sorted(versions):
                for plural in plain:
                    kind = kinds.resource(group, version, plural)
                    if kind is not None:
                        found[kind.group, kind.version, kind.kind] = kind
    return [found[key] for key in sorted(found)][:MAX_KINDS]
