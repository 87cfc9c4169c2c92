"""FlowSchemas and PriorityLevelConfigurations.

Spec: Kubernetes documentation, "API Priority and Fairness".
"""

from __future__ import annotations

from tiphys.api.causes import forbidden, invalid_value, not_supported, required
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.strategies.fields import check_enum, clear_status, fill, keep_spec, keep_status, spec_of
from tiphys.base.errors import Cause

_TYPES = ("Exempt", "Limited")


def default_schema(schema: JsonObject) -> None:
    fill(schema.setdefault("spec", {}), "matchingPrecedence", 1000)


def validate_schema(schema: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(schema)
    precedence = spec.get("matchingPrecedence") or 0
    if precedence <= 0:
        causes.append(invalid_value("spec.matchingPrecedence", precedence, "must be a positive value"))
    elif precedence > 10000:
        causes.append(invalid_value("spec.matchingPrecedence", precedence, "must not be greater than 10000"))
    name = (schema.get("metadata") or {}).get("name")
    if precedence == 1 and name != "exempt":
        causes.append(
            invalid_value(
                "spec.matchingPrecedence", precedence, "only the schema named 'exempt' may have matchingPrecedence 1"
            )
        )
    method = spec.get("distinguisherMethod")
    if method is not None:
        check_enum(causes, "spec.distinguisherMethod.type", method.get("type"), ("ByNamespace", "ByUser"))
    if not (spec.get("priorityLevelConfiguration") or {}).get("name"):
        causes.append(required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
    return causes


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
    fill(limited, "nominalConcurrencyShares", 30)
    fill(limited, "lendablePercent", 0)
    queuing = (limited.get("limitResponse") or {}).get("queuing")
    if queuing is not None:
        fill(queuing, "queues", 64)
        fill(queuing, "handSize", 8)
        fill(queuing, "queueLengthLimit", 50)


def validate_level(level: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    spec = spec_of(level)
    kind = spec.get("type") or ""
    if kind not in _TYPES:
        causes.append(not_supported("spec.type", kind, _TYPES))
    elif kind == "Exempt":
        if spec.get("limited") is not None:
            causes.append(forbidden("spec.limited", "must be nil if the type is not Limited"))
    else:
        if spec.get("exempt") is not None:
            causes.append(forbidden("spec.exempt", "must be nil if the type is Limited"))
        if spec.get("limited") is None:
            causes.append(required("spec.limited", "must not be empty when type is Limited"))
        else:
            response = spec["limited"].get("limitResponse") or {}
            check_enum(causes, "spec.limited.limitResponse.type", response.get("type"), ("Queue", "Reject"))
    return causes


FLOW_SCHEMA = Strategy(
    default=default_schema,
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_schema,
    generation=True,
    allow_unconditional_update=False,
)
PRIORITY_LEVEL = Strategy(
    default=default_level,
    prepare_for_create=clear_status(),
    prepare_for_update=keep_status,
    prepare_for_status_update=keep_spec,
    validate=validate_level,
    generation=True,
    allow_unconditional_update=False,
)
