"""Custom resources: from a CustomResourceDefinition to the kinds that are served, and to the definition's status.

`custom_kinds` makes the records that go into the table of kinds while a definition is established; `plan_crd_status`
decides whether its names are free and so whether it is. Both are pure. Who watches definitions, changes the table and
writes the status stands elsewhere.

DIFFERS: discovery goes on telling that objects may be created, patched and updated while their definition is deleted;
creating is refused then, as upstream does it.

Spec: Kubernetes docs, "Extend the Kubernetes API with CustomResourceDefinitions".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from tiphys.api.causes import go_quote, invalid_value
from tiphys.api.columns.text import UNKNOWN, duration
from tiphys.api.crdvalidation import is_protected, storage_version
from tiphys.api.jsonpath import BadPath, JsonPath, parse_json_path
from tiphys.api.kind import Column, Context, CustomConversion, JsonObject, Kind, Kinds, Strategy, Subresource
from tiphys.api.kinds.table import SUBRESOURCES
from tiphys.api.schemanode import INT32
from tiphys.api.strategies.extension import approval_of
from tiphys.api.structural import StructuralSchema
from tiphys.apiserver.discovery import version_priority
from tiphys.base.clock import parse_time
from tiphys.base.errors import ApiError, Cause

CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")

_SELECTABLE_FIELDS_FROM = 31
"""Kubernetes minor from which selectable fields of custom resources are on by default."""

_NAME_COLUMN = Column("Name", "string", "name", "Name of the object, unique in its namespace.")
_AGE_COLUMN = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_OWN_FINALIZERS = {"orphan", "foregroundDeletion", "kubernetes"}
_FINALIZER_WARNINGS_FROM, _FINALIZER_PATHS_FROM = 29, 32
"""Kubernetes minors from which unqualified finalizers are warned of, and from which the warning names the path."""
_AGE_DESCRIPTION = "Time since the object was created."


def custom_kinds(crd: JsonObject, kubernetes_version: tuple[int, int] = (1, 37)) -> list[Kind]:
    """Return a record for every served version of a valid definition.

    Names are the accepted ones where the status has them, so that a conflict over a short name leaves the rest served.
    """
    spec = crd["spec"]
    accepted = (crd.get("status") or {}).get("acceptedNames") or {}
    names = accepted if accepted.get("plural") else spec["names"]
    served = [version for version in spec["versions"] if version.get("served")]
    kinds = [_kind(spec, names, version, storage_version(crd), kubernetes_version) for version in served]
    conversion = _conversion(crd, kinds)
    kinds = [replace(kind, conversion=conversion) for kind in kinds]
    if not is_terminating(crd):
        return kinds
    return [replace(kind, strategy=replace(kind.strategy, prepare_for_create=_refuse_create(kind))) for kind in kinds]


def is_terminating(crd: JsonObject) -> bool:
    """Tell whether a definition is deleted and waits for its objects to go."""
    condition = _find((crd.get("status") or {}).get("conditions") or (), "Terminating")
    return condition is not None and condition.get("status") == "True"


def _refuse_create(kind: Kind) -> Callable[[JsonObject, Context], None]:
    def refuse(obj: JsonObject, context: Context) -> None:
        text = "create not allowed while custom resource definition is terminating"
        details = {"group": kind.group, "kind": kind.plural}
        raise ApiError(405, "MethodNotAllowed", text, details=details)

    return refuse


def _conversion(crd: JsonObject, kinds: Sequence[Kind]) -> CustomConversion:
    """Return what all versions share: their schemas, the webhook between them, and since when that stands."""
    spec = crd["spec"]
    told = spec.get("conversion") or {}
    made = {kind.api_version: kind.schema for kind in kinds}
    schemas: dict[str, StructuralSchema] = {}
    for version in spec["versions"]:
        name = f"{spec['group']}/{version['name']}"
        schema = made.get(name)
        if isinstance(schema, StructuralSchema):
            schemas[name] = schema
        else:
            schemas[name] = StructuralSchema((version.get("schema") or {}).get("openAPIV3Schema") or {})
    webhook = (told.get("webhook") or {}) if told.get("strategy") == "Webhook" else None
    return CustomConversion(schemas, webhook, int(crd["metadata"].get("resourceVersion") or 0))


def _kind(
    spec: JsonObject, names: JsonObject, version: JsonObject, stored_as: str, kubernetes_version: tuple[int, int]
) -> Kind:
    definition = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    schema = StructuralSchema(definition, kubernetes_version[1])
    subresources = version.get("subresources") or {}
    columns, row = custom_table(version.get("additionalPrinterColumns") or ())
    selectable = version.get("selectableFields") or () if kubernetes_version[1] >= _SELECTABLE_FIELDS_FROM else ()
    return Kind(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        singular=names.get("singular") or names["kind"].lower(),
        list_kind=names.get("listKind") or "",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        namespaced=spec.get("scope") == "Namespaced",
        verbs=CUSTOM_VERBS,
        subresources=_subresources(subresources),
        storage_version=stored_as,
        schema=schema,
        strategy=custom_strategy(schema, "status" in subresources, _scale_paths(subresources.get("scale"))),
        columns=columns,
        row=row,
        selectable_fields={_label(field): _reader(parse_json_path(field["jsonPath"])) for field in selectable},
        published_schema=definition,
        scale_paths=_scale_paths(subresources.get("scale")),
        deprecation=_deprecation(spec, version),
        custom=True,
    )


def _deprecation(spec: JsonObject, version: JsonObject) -> str:
    """Return the warning of a deprecated version: its own, or one that names the best version to use instead."""
    if not version.get("deprecated"):
        return ""
    if version.get("deprecationWarning") is not None:
        return str(version["deprecationWarning"])
    group, kind, name = spec["group"], spec["names"]["kind"], version["name"]
    text = f"{group}/{name} {kind} is deprecated"
    better = [
        other["name"]
        for other in spec["versions"]
        if other.get("served")
        and not other.get("deprecated")
        and version_priority(other["name"]) < version_priority(name)
    ]
    return f"{text}; use {group}/{min(better, key=version_priority)} {kind}" if better else text


def _subresources(subresources: JsonObject) -> tuple[Subresource, ...]:
    return tuple(SUBRESOURCES[name] for name in ("status", "scale") if subresources.get(name) is not None)


def _scale_paths(scale: JsonObject | None) -> tuple[str, str, str] | None:
    if scale is None:
        return None
    paths = (scale.get(field, "") for field in ("specReplicasPath", "statusReplicasPath", "labelSelectorPath"))
    replicas, current, selector = (path.removeprefix(".") for path in paths)
    return replicas, current, selector


def _label(field: JsonObject) -> str:
    return str(field["jsonPath"]).removeprefix(".")


def _reader(path: JsonPath) -> Callable[[JsonObject], str]:
    def read(obj: JsonObject) -> str:
        value = path.first(obj)
        if isinstance(value, bool):
            return "true" if value else "false"
        return "" if value is None else str(value)

    return read


def custom_strategy(schema: StructuralSchema, has_status: bool, scale: tuple[str, str, str] | None = None) -> Strategy:
    """Return the rules of a custom kind: its schema's defaults and validation, and the separation of its status.

    A write of the status changes nothing of the metadata; where the status is no part of its own, its changes count
    for the generation.
    """

    def prepare_for_create(obj: JsonObject, context: Context) -> None:
        if has_status:
            obj.pop("status", None)

    def prepare_for_update(new: JsonObject, old: JsonObject, context: Context) -> None:
        if has_status:
            _take(new, old, ("status",))
        elif new.get("status") != old.get("status"):
            new["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1

    def prepare_for_status_update(new: JsonObject, old: JsonObject, context: Context) -> None:
        others = {*new, *old} - {"apiVersion", "kind", "metadata", "status"}
        _take(new, old, sorted(others))
        written = new["metadata"].get("managedFields")
        new["metadata"] = dict(old["metadata"])
        if written is not None:
            new["metadata"]["managedFields"] = written

    def validate(obj: JsonObject, context: Context) -> list[Cause]:
        return schema.validate(obj) + _scale_causes(obj, scale) if context.creating else []

    def validate_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
        return schema.validate(new, old) + _scale_causes(new, scale)

    return Strategy(
        default=schema.default_from_schema,
        prepare_for_create=prepare_for_create,
        prepare_for_update=prepare_for_update,
        prepare_for_status_update=prepare_for_status_update,
        validate=validate,
        validate_update=validate_update,
        validate_status_update=validate_update,
        warnings=lambda obj: _finalizer_warnings(obj, {}, schema.minor),
        update_warnings=lambda new, old: _finalizer_warnings(new, old, schema.minor),
        is_heavy=lambda obj: schema.is_heavy(),
        generation=True,
        allow_unconditional_update=False,
    )


def _finalizer_warnings(new: JsonObject, old: JsonObject, minor: int) -> list[str]:
    """Return a warning for each new finalizer whose name could be anyone's: one without the domain of its writer."""
    if minor < _FINALIZER_WARNINGS_FROM:
        return []
    path = " including a path (/)" if minor >= _FINALIZER_PATHS_FROM else ""
    added = {*(new["metadata"].get("finalizers") or ())} - {*((old.get("metadata") or {}).get("finalizers") or ())}
    return [
        f"metadata.finalizers: {go_quote(name)}: prefer a domain-qualified finalizer name{path} to avoid accidental "
        "conflicts with other finalizer writers"
        for name in sorted(added - _OWN_FINALIZERS)
        if "/" not in name
    ]


def _scale_causes(obj: JsonObject, scale: tuple[str, str, str] | None) -> list[Cause]:
    """Return the causes of replicas that the scale subresource could not show."""
    causes: list[Cause] = []
    for path in scale[:2] if scale is not None else ():
        value: Any = obj
        for step in path.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        if value < 0:
            causes.append(invalid_value(path, value, "should be a non-negative integer"))
        elif value > INT32[1]:
            causes.append(invalid_value(path, value, f"should be less than or equal to {INT32[1]}"))
    return causes


def _take(new: JsonObject, old: JsonObject, fields: Sequence[str]) -> None:
    for field in fields:
        if field in old:
            new[field] = old[field]
        else:
            new.pop(field, None)


def custom_table(
    definitions: Sequence[Mapping[str, Any]],
) -> tuple[tuple[Column, ...], Callable[[JsonObject, float], list[Any]]]:
    """Return the columns of a custom kind, and the function that makes its rows: the name, then one cell a path.

    With a path that cannot be read, the kind has no columns of its own.
    """
    if not definitions or any(not _is_readable(definition) for definition in definitions):
        definitions = (_AGE_COLUMN,)
    columns = [_NAME_COLUMN]
    cells: list[tuple[str, JsonPath]] = []
    for definition in definitions:
        description = definition.get("description") or (_AGE_DESCRIPTION if definition is _AGE_COLUMN else "")
        kind, priority = definition["type"], int(definition.get("priority", 0))
        columns.append(Column(definition["name"], kind, definition.get("format", ""), description, priority))
        cells.append((kind, parse_json_path(definition["jsonPath"])))

    def row(obj: JsonObject, now_s: float) -> list[Any]:
        name = (obj.get("metadata") or {}).get("name", "")
        return [name, *(_cell(kind, path.first(obj), now_s) for kind, path in cells)]

    return tuple(columns), row


def _is_readable(definition: Mapping[str, Any]) -> bool:
    try:
        parse_json_path(definition["jsonPath"])
    except BadPath:
        return False
    return True


def _cell(kind: str, value: Any, now_s: float) -> Any:
    """Return a value as a cell of a column's type; None for one that is absent or of another type."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match kind:
        case "string":
            return _text(value)
        case "integer":
            return int(value) if number else None
        case "number":
            return value if number else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case "date" if isinstance(value, str):
            return _elapsed(value, now_s)
    return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


def _elapsed(time: str, now_s: float) -> str:
    if not time:
        return UNKNOWN
    try:
        return duration(now_s - parse_time(time))
    except ValueError:
        return "<invalid>"


def plan_crd_status(crd: JsonObject, kinds: Kinds, now: str) -> JsonObject:
    """Return the status that a definition should have, given the kinds that are served now.

    A name that is already accepted for this definition stays so; another one is accepted when no other resource of the
    group uses it. `now` is the RFC 3339 time for conditions that change. Idempotent: a settled status comes back equal.
    """
    spec, status = crd["spec"], crd.get("status") or {}
    accepted, problem = _accept_names(spec, status.get("acceptedNames") or {}, kinds)
    names_accepted = _condition("NamesAccepted", True, "NoConflicts", "no conflicts found")
    if problem is not None:
        names_accepted = _condition("NamesAccepted", False, *problem)
    conditions = list(status.get("conditions") or ())
    set_condition(conditions, names_accepted, now)
    established = _find(conditions, "Established")
    if established is None or established.get("status") != "True":
        if problem is None:
            text = "the initial names have been accepted"
            set_condition(conditions, _condition("Established", True, "InitialNamesAccepted", text), now)
        else:
            text = "not all names are accepted"
            set_condition(conditions, _condition("Established", False, "NotAccepted", text), now)
    approval = _approval(crd)
    if approval is not None:
        set_condition(conditions, approval, now)
    stored = list(status.get("storedVersions") or ())
    if storage_version(crd) not in stored:
        stored.append(storage_version(crd))
    return {**status, "acceptedNames": accepted, "conditions": conditions, "storedVersions": stored}


def _accept_names(spec: JsonObject, accepted: JsonObject, kinds: Kinds) -> tuple[JsonObject, tuple[str, str] | None]:
    """Return the accepted names, and (reason, message) of the last conflict, None when all are accepted."""
    wanted = spec["names"]
    others = [kind for kind in kinds.all() if kind.group == spec["group"] and kind.plural != wanted["plural"]]
    resources = {name for kind in others for name in (kind.plural, kind.singular, *kind.short_names)}
    kind_names = {name for kind in others for name in (kind.kind, kind.list_kind)}
    names = {"kind": "", "plural": "", **accepted}
    problem = None
    checks = (
        ("plural", "PluralConflict", resources),
        ("singular", "SingularConflict", resources),
        ("kind", "KindConflict", kind_names),
        ("listKind", "ListKindConflict", kind_names),
    )
    for field, reason, taken in checks:
        name = wanted.get(field, "")
        if name == accepted.get(field) or name not in taken:
            names[field] = name
        else:
            problem = reason, f'"{name}" is already in use'
    short = [name for name in wanted.get("shortNames") or () if name not in (accepted.get("shortNames") or ())]
    conflicts = [f'"{name}" is already in use' for name in short if name in resources]
    if conflicts:
        text = conflicts[0] if len(conflicts) == 1 else f"[{', '.join(conflicts)}]"
        problem = problem or ("ShortNamesConflict", text)
    else:
        _put(names, "shortNames", wanted.get("shortNames"))
    _put(names, "categories", wanted.get("categories"))
    return names, problem


def _put(names: JsonObject, field: str, value: Any) -> None:
    if value:
        names[field] = value
    else:
        names.pop(field, None)


_APPROVAL_REASONS = {
    "Missing": "MissingAnnotation",
    "Invalid": "InvalidAnnotation",
    "Unapproved": "UnapprovedAnnotation",
    "Approved": "ApprovedAnnotation",
}


def _approval(crd: JsonObject) -> JsonObject | None:
    """Return the condition that definitions in protected groups carry."""
    if not is_protected(crd["spec"]["group"]):
        return None
    state, text = approval_of((crd.get("metadata") or {}).get("annotations") or {})
    kind = "KubernetesAPIApprovalPolicyConformant"
    return _condition(kind, state == "Approved", _APPROVAL_REASONS[state], text)


def terminating_condition(reason: str, message: str, *, done: bool = False) -> JsonObject:
    """Return the condition of a definition whose objects are being deleted."""
    return _condition("Terminating", not done, reason, message)


def _condition(kind: str, status: bool, reason: str, message: str) -> JsonObject:
    return {"type": kind, "status": str(status), "reason": reason, "message": message}


def _find(conditions: Sequence[JsonObject], kind: str) -> JsonObject | None:
    return next((condition for condition in conditions if condition.get("type") == kind), None)


def set_condition(conditions: list[JsonObject], new: JsonObject, now: str) -> None:
    """Put a condition into a list; the time of its transition changes only with its status."""
    old = _find(conditions, new["type"])
    if old is None:
        conditions.append({"lastTransitionTime": now, **new})
        return
    time = old.get("lastTransitionTime", now) if old.get("status") == new["status"] else now
    conditions[conditions.index(old)] = {"lastTransitionTime": time, **new}
