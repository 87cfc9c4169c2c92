"""FlowSchemas and PriorityLevelConfigurations.

The objects named `exempt` and `catch-all` cannot be changed but for the seats of `exempt`; they are compared with the
table in fairnessobjects.py.

Spec: Kubernetes documentation, "API Priority and Fairness"; reference of flowcontrol.apiserver.k8s.io/v1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tiphys.api import names
from tiphys.api.causes import duplicate, forbidden, invalid_value, not_supported, required
from tiphys.api.fairnessobjects import EXEMPT, LEVELS, MANDATORY, SCHEMAS
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.fields import check_text, clear_status, fill, keep_spec, keep_status, spec_of
from tiphys.base.errors import Cause

_TYPES = ("Exempt", "Limited")
_RESPONSES = ("Queue", "Reject")
_METHODS = ("ByNamespace", "ByUser")
_SUBJECTS = ("Group", "ServiceAccount", "User")
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_NAMESPACE_RULE = "each member of this list must be '*' or a DNS-1123 label; "
QUEUES_LIMIT = 10_000_000
ENTROPY_BITS_LIMIT = 60
"""Bits of a flow's hash that the choice of its queues may use."""
_FIXED = {obj["metadata"]["name"]: obj["spec"] for obj in SCHEMAS if obj["metadata"]["name"] in MANDATORY}
_FIXED_LEVELS = {obj["metadata"]["name"]: obj["spec"] for obj in LEVELS if obj["metadata"]["name"] in MANDATORY}


def default_schema(schema: JsonObject) -> None:
    spec = schema.setdefault("spec", {})
    spec["matchingPrecedence"] = spec.get("matchingPrecedence") or 1000


def validate_schema(schema: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(schema)
    name = (schema.get("metadata") or {}).get("name")
    _check_precedence(causes, spec.get("matchingPrecedence") or 0, name)
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in _METHODS:
        causes.append(not_supported("spec.distinguisherMethod.type", method.get("type") or "", _METHODS))
    level = (spec.get("priorityLevelConfiguration") or {}).get("name")
    if level:
        check_text(causes, "spec.priorityLevelConfiguration.name", level, names.validate_dns_subdomain)
    else:
        causes.append(required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
    for index, rule in enumerate(spec.get("rules") or ()):
        _check_rule(causes, rule, f"spec.rules[{index}]")
    if name in _FIXED and _plain(spec) != _plain(_FIXED[name]):
        causes.append(invalid_value("spec", spec, f"spec of '{name}' must equal the fixed value"))
    return causes + _validate_conditions(schema)


def _check_precedence(causes: list[Cause], precedence: int, name: str | None) -> None:
    path = "spec.matchingPrecedence"
    if precedence <= 0:
        causes.append(invalid_value(path, precedence, "must be a positive value"))
    if precedence > 10000:
        causes.append(invalid_value(path, precedence, "must not be greater than 10000"))
    if precedence == 1 and name != EXEMPT:
        causes.append(invalid_value(path, precedence, "only the schema named 'exempt' may have matchingPrecedence 1"))


def _check_rule(causes: list[Cause], rule: JsonObject, path: str) -> None:
    subjects = rule.get("subjects") or []
    if not subjects:
        causes.append(required(f"{path}.subjects", "subjects must contain at least one value"))
    for index, subject in enumerate(subjects):
        _check_subject(causes, subject, f"{path}.subjects[{index}]")
    resources, paths = rule.get("resourceRules") or [], rule.get("nonResourceRules") or []
    if not resources and not paths:
        causes.append(required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
    for index, resource in enumerate(resources):
        _check_resource_rule(causes, resource, f"{path}.resourceRules[{index}]")
    for index, each in enumerate(paths):
        _check_path_rule(causes, each, f"{path}.nonResourceRules[{index}]")


def _check_subject(causes: list[Cause], subject: JsonObject, path: str) -> None:
    kind = subject.get("kind") or ""
    if kind not in _SUBJECTS:
        causes.append(not_supported(f"{path}.kind", kind, _SUBJECTS))
        return
    fields = {"ServiceAccount": "serviceAccount", "User": "user", "Group": "group"}
    field = fields[kind]
    target = subject.get(field)
    if target is None:
        causes.append(required(f"{path}.{field}", f"{field} is required when subject kind is '{kind}'"))
    else:
        _check_target(causes, target, f"{path}.{field}", kind)
    for other, name in fields.items():
        if other != kind and subject.get(name) is not None:
            causes.append(forbidden(f"{path}.{name}", f"{name} is forbidden when subject kind is not '{other}'"))


def _check_target(causes: list[Cause], target: JsonObject, path: str, kind: str) -> None:
    name = target.get("name") or ""
    if not name:
        causes.append(required(f"{path}.name"))
    elif kind == "ServiceAccount" and name != "*":
        check_text(causes, f"{path}.name", name, names.validate_dns_subdomain)
    if kind != "ServiceAccount":
        return
    namespace = target.get("namespace")
    if namespace:
        check_text(causes, f"{path}.namespace", namespace, names.validate_dns_label)
    else:
        causes.append(required(f"{path}.namespace", "must specify namespace for service account"))


def _check_verbs(causes: list[Cause], rule: JsonObject, path: str) -> None:
    verbs = rule.get("verbs") or []
    if not verbs:
        causes.append(required(f"{path}.verbs", "verbs must contain at least one value"))
    elif "*" in verbs:
        if len(verbs) > 1:
            causes.append(invalid_value(f"{path}.verbs", verbs, "if '*' is present, must not specify other verbs"))
    elif not set(verbs) <= set(_VERBS):
        causes.append(not_supported(f"{path}.verbs", verbs, _VERBS))


def _check_wildcard(causes: list[Cause], values: Sequence[str], path: str, missing: str, what: str) -> None:
    if not values:
        causes.append(required(path, missing))
    elif len(values) > 1 and "*" in values:
        causes.append(invalid_value(path, list(values), f"if '*' is present, must not specify other {what}"))


def _check_resource_rule(causes: list[Cause], rule: JsonObject, path: str) -> None:
    _check_verbs(causes, rule, path)
    groups, resources = rule.get("apiGroups") or [], rule.get("resources") or []
    at_least = "resource rules must supply at least one"
    _check_wildcard(causes, groups, f"{path}.apiGroups", f"{at_least} api group", "api groups")
    _check_wildcard(causes, resources, f"{path}.resources", f"{at_least} resource", "resources")
    namespaces = rule.get("namespaces") or []
    if not namespaces and not rule.get("clusterScope"):
        causes.append(
            required(
                f"{path}.namespaces",
                "resource rules that are not cluster scoped must supply at least one namespace",
            )
        )
    elif "*" in namespaces:
        _check_wildcard(causes, namespaces, f"{path}.namespaces", "", "namespaces")
    else:
        for index, namespace in enumerate(namespaces):
            for complaint in names.validate_dns_label(namespace):
                causes.append(invalid_value(f"{path}.namespaces[{index}]", namespace, _NAMESPACE_RULE + complaint))


def _check_path_rule(causes: list[Cause], rule: JsonObject, path: str) -> None:
    _check_verbs(causes, rule, path)
    urls = rule.get("nonResourceURLs") or []
    path += ".nonResourceURLs"
    if not urls:
        causes.append(required(path, "nonResourceURLs must contain at least one value"))
    elif "*" in urls:
        _check_wildcard(causes, urls, path, "", "non-resource URLs")
    else:
        for index, url in enumerate(urls):
            complaint = _complaint_about_path(url)
            if complaint:
                causes.append(invalid_value(f"{path}[{index}]", url, complaint))


def _complaint_about_path(url: str) -> str:
    if not url:
        return "must not be empty"
    if url == "/":
        return ""
    if not url.startswith("/"):
        return "must start with slash"
    if " " in url:
        return "must not contain white-space"
    if "//" in url:
        return "must not contain double slash"
    stars = url.count("*")
    return "wildcard can only do suffix matching" if stars > 1 or (stars and not url.endswith("/*")) else ""


def default_level(level: JsonObject) -> None:
    spec = level.setdefault("spec", {})
    exempt = spec.get("exempt")
    if spec.get("type") == "Exempt":
        exempt = spec.setdefault("exempt", {})
    if exempt is not None:
        fill(exempt, "nominalConcurrencyShares", 0)
        fill(exempt, "lendablePercent", 0)
    limited = spec.get("limited")
    if limited is None:
        return
    if str(level.get("apiVersion")).endswith(("/v1beta1", "/v1beta2")):
        limited["assuredConcurrencyShares"] = limited.get("assuredConcurrencyShares") or 30
    else:
        fill(limited, "nominalConcurrencyShares", 30)
    fill(limited, "lendablePercent", 0)
    queuing = (limited.get("limitResponse") or {}).get("queuing")
    if queuing is not None:  # zero is no number of these: Go clients send it where nothing is set
        queuing["queues"] = queuing.get("queues") or 64
        queuing["handSize"] = queuing.get("handSize") or 8
        queuing["queueLengthLimit"] = queuing.get("queueLengthLimit") or 50


def validate_level(level: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(level)
    name = str((level.get("metadata") or {}).get("name") or "")
    kind = spec.get("type") or ""
    if (name == EXEMPT) != (kind == "Exempt"):
        causes.append(invalid_value("spec.type", kind, "type must be 'Exempt' if and only if name is 'exempt'"))
    exempt, limited = spec.get("exempt"), spec.get("limited")
    if kind not in _TYPES:
        causes.append(not_supported("spec.type", kind, _TYPES))
    elif kind == "Exempt":
        if limited is not None:
            causes.append(forbidden("spec.limited", "must be nil if the type is not Limited"))
        _check_shares(causes, exempt or {}, "spec.exempt")
    else:
        if exempt is not None:
            causes.append(forbidden("spec.exempt", "must be nil if the type is Limited"))
        if limited is None:
            causes.append(required("spec.limited", "must not be empty when type is Limited"))
        else:
            _check_limited(causes, limited)
    if name in _FIXED_LEVELS:
        _check_fixed_level(causes, spec, name)
    return causes + _validate_conditions(level)


def _check_fixed_level(causes: list[Cause], spec: JsonObject, name: str) -> None:
    """Old versions have the same seats under another name, so those are not compared."""
    fixed, told = _plain(_FIXED_LEVELS[name]), "must equal the fixed value"
    if name == EXEMPT:
        fixed, spec = {**fixed, "exempt": None}, {**spec, "exempt": None}
        told = "except the 'spec.exempt' field must equal the fixed value"
    given = _plain(spec)
    limited = given.get("limited")
    if isinstance(limited, dict) and "assuredConcurrencyShares" in limited:
        limited = dict(limited)
        limited["nominalConcurrencyShares"] = limited.pop("assuredConcurrencyShares")
        given["limited"] = limited
    if given != _plain(fixed):
        causes.append(invalid_value("spec", spec, f"spec of '{name}' {told}"))


def _check_shares(causes: list[Cause], part: JsonObject, path: str) -> None:
    for field in ("nominalConcurrencyShares", "assuredConcurrencyShares"):
        shares = part.get(field)
        if shares is not None and shares < 0:
            causes.append(invalid_value(f"{path}.{field}", shares, "must be a non-negative integer"))
    lendable = part.get("lendablePercent")
    if lendable is not None and not 0 <= lendable <= 100:
        causes.append(invalid_value(f"{path}.lendablePercent", lendable, "must be between 0 and 100, inclusive"))


def _check_limited(causes: list[Cause], limited: JsonObject) -> None:
    path = "spec.limited"
    _check_shares(causes, limited, path)
    borrowing = limited.get("borrowingLimitPercent")
    if borrowing is not None and borrowing < 0:
        causes.append(
            invalid_value(f"{path}.borrowingLimitPercent", borrowing, "if specified, must be a non-negative integer")
        )
    response = limited.get("limitResponse") or {}
    path += ".limitResponse"
    kind, queuing = response.get("type") or "", response.get("queuing")
    if kind not in _RESPONSES:
        causes.append(not_supported(f"{path}.type", kind, _RESPONSES))
    elif kind == "Reject":
        if queuing is not None:
            causes.append(forbidden(f"{path}.queuing", "must be nil if limited.limitResponse.type is not Limited"))
    elif queuing is None:
        causes.append(required(f"{path}.queuing", "must not be empty if limited.limitResponse.type is Limited"))
    else:
        _check_queuing(causes, queuing, f"{path}.queuing")


def _check_queuing(causes: list[Cause], queuing: JsonObject, path: str) -> None:
    length, queues, hand = (queuing.get(f) or 0 for f in ("queueLengthLimit", "queues", "handSize"))
    if length <= 0:
        causes.append(invalid_value(f"{path}.queueLengthLimit", length, "must be positive"))
    if queues <= 0:
        causes.append(invalid_value(f"{path}.queues", queues, "must be positive"))
    elif queues > QUEUES_LIMIT:
        causes.append(invalid_value(f"{path}.queues", queues, f"must not be greater than {QUEUES_LIMIT}"))
    if hand <= 0:
        causes.append(invalid_value(f"{path}.handSize", hand, "must be positive"))
    elif hand > queues:
        causes.append(invalid_value(f"{path}.handSize", hand, f"should not be greater than queues ({queues})"))
    elif entropy_bits(queues, hand) > ENTROPY_BITS_LIMIT:
        causes.append(
            invalid_value(
                f"{path}.handSize",
                hand,
                f"required entropy bits of deckSize {queues} and handSize {hand} "
                f"should not be greater than {ENTROPY_BITS_LIMIT}",
            )
        )


def entropy_bits(queues: int, hand_size: int) -> int:
    """Return how many bits of a hash decide a hand of this size out of this many queues."""
    return math.ceil(math.log2(queues) * hand_size) if queues > 1 else 0


def _validate_conditions(obj: JsonObject) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, condition in enumerate((obj.get("status") or {}).get("conditions") or ()):
        path, kind = f"status.conditions[{index}].type", condition.get("type") or ""
        if kind in seen:
            causes.append(duplicate(path, kind))
        seen.add(kind)
        if not kind:
            causes.append(required(path, "must not be empty"))
    return causes


def validate_status(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    return _validate_conditions(new)


def _plain(spec: JsonObject) -> JsonObject:
    """Return a spec without what is empty: null, false and zero say the same as nothing."""
    return {key: _plain_value(value) for key, value in spec.items() if value not in (None, False, 0, "", [], {})}


def _plain_value(value: object) -> object:
    if isinstance(value, dict):
        return _plain(value)
    return list(_plain_values(value)) if isinstance(value, list) else value


def _plain_values(values: Iterable[object]) -> Iterable[object]:
    return (_plain_value(value) for value in values)


FLOW_SCHEMA = Strategy(
    default=default_schema,
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_schema,
    validate_status_update=validate_status,
    generation=True,
    allow_unconditional_update=False,
)
PRIORITY_LEVEL = Strategy(
    default=default_level,
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_level,
    validate_status_update=validate_status,
    generation=True,
    allow_unconditional_update=False,
)
