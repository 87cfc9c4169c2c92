"""Request bodies: bytes in, objects out, with upstream's refusals.

Decides what a body may be (content type, JSON or YAML, which kind), runs the schema's decode, and reports unknown and
duplicate fields as `fieldValidation` says. Read by the resource handlers only.

Spec: Kubernetes API concepts, "Field validation"; API conventions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from tiphys.api.kind import JsonObject, Kind
from tiphys.api.protobuf import PROTOBUF, decode_protobuf
from tiphys.api.schema import find_duplicate_fields
from tiphys.base.errors import ApiError, bad_request, unsupported_media_type
from tiphys.wire.message import Request

YAML_TYPES = frozenset({"application/yaml", "application/apply-patch+yaml"})
_WRITE_TYPES = ("application/json", "application/yaml", PROTOBUF)
OBJECT_LIMIT_BYTES = 1_572_864
"""What one object may weigh, as etcd's default request limit."""


def media_type(request: Request) -> str:
    """Return the content type without parameters, lower case; JSON when there is none."""
    return request.headers.get("content-type", "").split(";", 1)[0].strip().lower() or "application/json"


def parse_body(request: Request) -> Any:
    """Return the JSON or YAML value of a write's body. Raises ApiError(400, 415)."""
    content_type = media_type(request)
    if content_type == "application/json":
        return parse_json(request.body)
    if content_type in YAML_TYPES:
        return parse_yaml(request.body)
    if content_type == PROTOBUF:
        return decode_protobuf(request.body)
    raise unsupported_media_type(
        f"the body of the request was in an unknown format - accepted media types include: {', '.join(_WRITE_TYPES)}"
    )


def parse_json(body: bytes) -> Any:
    """Return the JSON value of a body. Raises ApiError(400)."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the object provided is unrecognized (must be of type JSON): {error}") from None


def parse_yaml(body: bytes) -> Any:
    """Return the value of a YAML body (JSON is YAML). Raises ApiError(400)."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        value = yaml.load(body, Loader=loader)
        # timestamps, sets and the like have no JSON form; this also refuses keys that are not text
        return orjson.loads(orjson.dumps(value))
    except (yaml.YAMLError, TypeError, orjson.JSONDecodeError) as error:
        raise bad_request(f"error decoding YAML: {' '.join(str(error).split())}") from None


def check_kind(obj: Any, kind: Kind) -> JsonObject:
    """Return the body as an object of `kind`, with apiVersion and kind filled in. Raises ApiError(400)."""
    if not isinstance(obj, dict):
        raise bad_request(
            f"couldn't get version/kind; json parse error: json: cannot unmarshal {go_type(obj)} into Go value "
            'of type struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string '
            '"json:\\"kind,omitempty\\"" }'
        )
    api_version, name = obj.get("apiVersion") or kind.api_version, obj.get("kind") or kind.kind
    if name != kind.kind:
        raise bad_request(
            f"{api_version}, Kind={name} in body does not match the kind of the request: "
            f"{kind.api_version}, Kind={kind.kind}"
            if isinstance(name, str)
            else "json: kind must be a string"
        )
    if api_version != kind.api_version:
        raise bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version ({kind.api_version})"
        )
    obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
    return obj


def go_type(value: Any) -> str:
    """Return what Go's JSON decoder calls a value that it did not expect."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def decode_object(obj: JsonObject, kind: Kind, field_validation: str, raw: bytes | None, warnings: list[str]) -> None:
    """Check types and drop unknown fields of `obj` in place.

    `raw` is the JSON text for finding duplicate fields, None where there is none (patches). Raises ApiError(400) for
    wrong types, and with Strict for unknown or duplicate fields; with Warn they are added to `warnings`.
    """
    result = kind.schema.decode(obj)
    if result.type_errors:
        raise bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {result.type_errors[0]}'
        )
    if field_validation == "Ignore":
        return
    problems = [f'unknown field "{path}"' for path in result.unknown_fields]
    if raw is not None and raw[:1] in b" \t\r\n{":
        problems += [f'duplicate field "{path}"' for path in find_duplicate_fields(raw)]
    report_fields(problems, kind, field_validation, warnings)


def report_fields(problems: Sequence[str], kind: Kind, field_validation: str, warnings: list[str]) -> None:
    """Refuse (Strict) or warn of (Warn) fields that were ignored."""
    if not problems:
        return
    if field_validation == "Strict":
        raise bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f"strict decoding error: {', '.join(problems)}"
        )
    warnings.extend(problems)


def field_validation_of(request: Request) -> str:
    """Return Strict, Warn or Ignore; Warn when nothing is said. Raises ApiError(422)."""
    value = request.param("fieldValidation") or "Warn"
    if value not in ("Strict", "Warn", "Ignore"):
        message = f'Unsupported value: "{value}": supported values: "", "Ignore", "Strict", "Warn"'
        raise ApiError(
            422,
            "Invalid",
            f'CreateOptions.meta.k8s.io "" is invalid: fieldValidation: {message}',
            details={
                "group": "meta.k8s.io",
                "kind": "CreateOptions",
                "causes": [{"reason": "FieldValueNotSupported", "message": message, "field": "fieldValidation"}],
            },
        )
    return value


def dry_run_of(request: Request) -> bool:
    """Tell whether the write is only tried. Raises ApiError(422) for values other than All."""
    values = request.query.get("dryRun")
    if not values or values == [""]:
        return False
    if values != ["All"]:
        message = f'Unsupported value: "{values[0]}": supported values: "All"'
        raise ApiError(
            422,
            "Invalid",
            f'CreateOptions.meta.k8s.io "" is invalid: dryRun: {message}',
            details={
                "group": "meta.k8s.io",
                "kind": "CreateOptions",
                "causes": [{"reason": "FieldValueNotSupported", "message": message, "field": "dryRun"}],
            },
        )
    return True


def field_manager_of(request: Request) -> str:
    """Return the name under which the writer owns fields: the parameter, or the program's name in User-Agent."""
    return request.param("fieldManager") or request.headers.get("user-agent", "unknown").split("/", 1)[0][:128]
