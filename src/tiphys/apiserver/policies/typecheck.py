"""The type check of a ValidatingAdmissionPolicy: its expressions against the schemas of the kinds that it matches. Pure.

The policy is compiled once more for each kind, with `object`, `oldObject` and `params` of the types that their schemas
say; what does not fit comes back as warnings for its status (status.py). Wildcards are not followed, and at most ten
kinds are looked at.

Spec: Kubernetes documentation, "Validating Admission Policy" (type checking).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any

from tiphys.api.admissionexpressions import Expressions, Scope
from tiphys.api.definitions import load_definitions
from tiphys.api.kind import JsonObject, Kind, Kinds
from tiphys.apiserver.policies.schematypes import type_of_kind
from tiphys.cel.types import Type

MAX_KINDS = 10


def check_types(policy: JsonObject, kinds: Kinds) -> Iterator[list[JsonObject]]:
    """Yield the warnings about a ValidatingAdmissionPolicy's validations, with the fields that they are about.

    One step compiles one expression for all kinds, or the variables for one, so that others may have their turn.
    """
    spec = policy.get("spec") or {}
    definitions = load_definitions(kinds.kubernetes_version)
    params = _params_type(spec.get("paramKind"), kinds)
    scope = Scope(params=params is not None)
    checked = []
    for kind in kinds_to_check(spec, kinds):
        found = type_of_kind(kind, definitions)
        if found is not None:
            objects = {"object": found, "oldObject": found, **({"params": params} if params is not None else {})}
            checked.append((kind, _typed(spec, kinds, objects, scope)))
            yield []
    for index, validation in enumerate(spec.get("validations") or ()):
        for field in ("expression", "messageExpression"):
            text = validation.get(field) or ""
            wrong = "\n".join(_issues(text, checked, scope)) if text else ""
            yield [{"fieldRef": f"spec.validations[{index}].{field}", "warning": wrong}] if wrong else []


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
    """Return the kinds that a policy names in its rules and that are served, in a fixed order."""
    found: dict[tuple[str, str, str], Kind] = {}
    for group, version, plural in _named(spec):
        kind = kinds.resource(group, version, plural)
        if kind is not None:
            found[kind.group, kind.version, kind.kind] = kind
    return [found[key] for key in sorted(found)][:MAX_KINDS]


def names_unknown_kinds(spec: JsonObject, kinds: Kinds) -> bool:
    """Tell whether a policy names a resource that is not served: its definition may be about to be established."""
    return any(kinds.resource(*named) is None for named in _named(spec))


def _named(spec: JsonObject) -> Iterator[tuple[str, str, str]]:
    """Yield (group, version, plural) of what rules name without wildcards and subresources."""
    for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
        groups, versions = rule.get("apiGroups") or (), rule.get("apiVersions") or ()
        if any("*" in name for name in (*groups, *versions)):
            continue
        plain = [name for name in rule.get("resources") or () if "*" not in name and "/" not in name]
        yield from product(groups, versions, plain)
