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
from tiphys.api.nesting import DEPTH_LIMIT, TOO_DEEP, is_too_deep
from tiphys.api.schema import find_duplicate_fields
from tiphys.apiserver.negotiation import CBOR, PROTOBUF
from tiphys.apiserver.yamlbody import BadYaml, load_yaml, repeated_keys
from tiphys.base.errors import ApiError, Cause, bad_request, invalid, unsupported_media_type
from tiphys.wire.message import Request

_SPACE, _NEWLINE, _TAB, _RETURN, _BACKSLASH = b" \n\t\r\\"
YAML_TYPES = frozenset({"application/yaml", "application/apply-patch+yaml"})
_WRITE_TYPES = ("application/json", "application/yaml", PROTOBUF)
_DEFINITION = "CustomResourceDefinition"
OBJECT_LIMIT_BYTES = 1_572_864
"""What one object may weigh, as etcd's default request limit."""
SUMMARY_BYTES = 30
"""How much of a body that cannot be read an error shows."""
FIELD_MANAGER_LIMIT = 128
STRICT_PROBLEMS = 100
"""How many unknown and duplicate fields of one body are told."""


def media_type(request: Request) -> str:
    """Return the content type without parameters, lower case; JSON when there is none."""
    return request.headers.get("content-type", "").split(";", 1)[0].strip().lower() or "application/json"


def parse_body(request: Request, kind: str = "JSON") -> Any:
    """Return the JSON, YAML or protobuf value of a write's body, of what should be a `kind`. Raises ApiError(400, 415)."""
    content_type = media_type(request)
    if content_type == "application/json":
        return parse_json(request.body, kind)
    if content_type in YAML_TYPES:
        return parse_yaml(request.body, kind)
    if content_type == PROTOBUF:
        return parse_protobuf(request.body, kind)
    if content_type == CBOR:
        return parse_cbor(request.body, kind)
    raise unsupported_media_type(
        f"the body of the request was in an unknown format - accepted media types include: {', '.join(_WRITE_TYPES)}"
    )


def text_body(request: Request) -> bytes | None:
    """Return the body if it is a text, None for protobuf and CBOR."""
    return None if media_type(request) in (PROTOBUF, CBOR) else request.body


def parse_json(body: bytes, kind: str = "JSON") -> Any:
    """Return the JSON value of a body. Raises ApiError(400)."""
    try:
        return _shallow(orjson.loads(body), body)
    except orjson.JSONDecodeError as error:
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; "
            f"json parse error: {json_error(body, error)} ({_summary(body)})"
        ) from None


def parse_patch(body: bytes, before: str) -> Any:
    """Return the JSON value of a patch. Raises ApiError(400), with `before` in front of what is wrong."""
    try:
        return _shallow(orjson.loads(body), body)
    except orjson.JSONDecodeError as error:
        raise bad_request(before + json_error(body, error)) from None


def json_error(body: bytes, error: orjson.JSONDecodeError) -> str:
    """Return what Go says of a text that is no JSON, or our reader of one that only Go reads."""
    from tiphys.api.gojson import go_syntax_error

    return go_syntax_error(body) or str(error)


def parse_protobuf(body: bytes, kind: str) -> JsonObject:
    """Return the object of a protobuf body. Raises ApiError(400)."""
    from tiphys.api.protobuf import ProtobufError, decode_protobuf

    try:
        value = decode_protobuf(body)
        # Only definitions have messages that nest without end; elsewhere depth comes from JSON within.
        _shallow(value, body, value["kind"] == _DEFINITION)
        return value
    except ProtobufError as error:
        if error.kind:
            version = error.api_version.rpartition("/")[2]
            told = f'{error.kind} in version "{version}" cannot be handled as a {kind}: {error}'
        else:
            summary = _summary(body)
            told = f"the object provided is unrecognized (must be of type {kind}): {error} ({summary})"
        raise bad_request(told) from None


def parse_cbor(body: bytes, kind: str) -> Any:
    """Return the value of a CBOR body. Raises ApiError(400)."""
    from tiphys.api.cbor import decode_cbor

    try:
        return _shallow(decode_cbor(body), body, look=True)
    except ValueError as error:
        told = f"the object provided is unrecognized (must be of type {kind}): {error} ({_summary(body)})"
        raise bad_request(told) from None


def _shallow(value: Any, body: bytes, look: bool = False) -> Any:
    """Return the value if everything behind can handle its depth; `look` whatever the body says. Raises ApiError(400)."""
    deep = len(body) > 2 * DEPTH_LIMIT and body.count(b"{") + body.count(b"[") > DEPTH_LIMIT
    if (look or deep) and is_too_deep(value):
        raise bad_request(f"the object provided is {TOO_DEEP}")
    return value


def _summary(body: bytes) -> str:
    """Return the beginning of a body as an error shows it: text if it looks like JSON, hexadecimal otherwise."""
    if not body:
        return "<empty>"
    text = body[:SUMMARY_BYTES].decode("utf-8", "replace") if body.startswith(b"{") else body[:SUMMARY_BYTES].hex()
    return f"{text} ..." if len(body) > SUMMARY_BYTES else text


def parse_yaml(body: bytes, kind: str) -> Any:
    """Return the value of a YAML body (JSON is YAML). Raises ApiError(400)."""
    try:
        return _yaml_value(body)
    except BadYaml as error:
        told = f"the object provided is unrecognized (must be of type {kind}): {error} ({_summary(body)})"
        raise bad_request(told) from None


def parse_applied(body: bytes) -> dict[str, Any]:
    """Return the object of an applied configuration. Raises ApiError(400)."""
    try:
        value = _yaml_value(body)
    except BadYaml as error:
        raise bad_request(f"error decoding YAML: error converting YAML to JSON: {error}") from None
    if value is not None and not isinstance(value, dict):
        raise bad_request(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
            f"{go_type(value)} into Go value of type map[string]interface {{}}"
        )
    return value or {}


def _yaml_value(body: bytes) -> Any:
    """Return the value of a YAML text. Raises BadYaml, ApiError(400)."""
    try:
        return _shallow(orjson.loads(body), body)
    except orjson.JSONDecodeError:
        return load_yaml(body)


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
        raise _wrong_kind(api_version, name, kind)
    if api_version != kind.api_version:
        raise bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version ({kind.api_version})"
        )
    obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
    return obj


def _wrong_kind(api_version: Any, name: Any, kind: Kind) -> ApiError:
    if not isinstance(name, str) or not isinstance(api_version, str):
        field, value = ("kind", name) if not isinstance(name, str) else ("apiVersion", api_version)
        return bad_request(
            "couldn't get version/kind; json parse error: json: cannot unmarshal "
            f"{go_type(value)} into Go struct field .{field} of type string"
        )
    version = api_version.rpartition("/")[2]
    return bad_request(
        f'{name} in version "{version}" cannot be handled as a {kind.kind}: converting ({version}.{name}) to '
        f"({kind.group.partition('.')[0] or 'core'}.{kind.kind}): unknown conversion"
    )


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

    `raw` is the text for finding duplicate fields, None where there is none (patches, protobuf). Raises ApiError(400) for
    wrong types, and with Strict for unknown or duplicate fields; with Warn they are added to `warnings`.
    """
    duplicates: Sequence[str] = ()
    if raw and field_validation != "Ignore" and _may_repeat_fields(raw, obj):
        duplicates = _repeated_fields(raw)
    result = kind.schema.decode(obj)
    if result.type_errors:
        raise bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {result.type_errors[0]}'
        )
    if field_validation == "Ignore":
        return
    problems = [f'unknown field "{path}"' for path in result.unknown_fields[:STRICT_PROBLEMS]]
    problems += duplicates[: STRICT_PROBLEMS - len(problems)]
    report_fields(problems, kind, field_validation, warnings)


def repeated_patch_fields(raw: bytes, patch: Any) -> list[str]:
    """Return what upstream says of the fields that a JSON text has twice."""
    if not _is_unusual(raw) and raw.count(b'":') == orjson.dumps(patch).count(b'":'):
        return []
    return _repeated_fields(raw)


def _is_unusual(raw: bytes) -> bool:
    """Tell whether the end of a name may be spelt such that counting names does not see it."""
    # a look for one byte, as a number, costs a tenth of one for two; and most texts have none of these bytes
    return (
        (_SPACE in raw and raw.find(b" :") >= 0)
        or (_NEWLINE in raw and raw.find(b"\n:") >= 0)
        or (_TAB in raw and raw.find(b"\t:") >= 0)
        or (_RETURN in raw and raw.find(b"\r:") >= 0)
        or (_BACKSLASH in raw and raw.find(b"\\u00") >= 0)
    )


def _repeated_fields(raw: bytes) -> list[str]:
    """Return what upstream says of fields that are there twice: by path in JSON, by line in YAML."""
    try:
        return [f'duplicate field "{path}"' for path in find_duplicate_fields(raw)]
    except orjson.JSONDecodeError:
        lines = repeated_keys(raw)
        return [yaml_errors(lines)] if lines else []


def yaml_errors(lines: Sequence[str]) -> str:
    """Return the errors of reading a YAML text as upstream's reader tells them."""
    return "\n  ".join(["yaml: unmarshal errors:", *lines[:STRICT_PROBLEMS]])


def _may_repeat_fields(raw: bytes, obj: JsonObject) -> bool:
    """Tell whether some field of the JSON text may be there twice: False is certain, and found without parsing again.

    The parsed object has each field once, so written again it shows fewer names than the text if one was repeated.
    Names are counted by the quote and colon behind them, unless the text writes some in an unusual way.
    """
    if _is_unusual(raw):
        return True
    filled_in = (raw.find(b'"kind"') < 0) + (raw.find(b'"apiVersion"') < 0)
    return raw.count(b'":') != orjson.dumps(obj).count(b'":') - filled_in


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
    value = (request.param("fieldValidation") if "fieldValidation" in request.raw_query else "") or "Warn"
    if value not in ("Strict", "Warn", "Ignore"):
        message = f'Unsupported value: "{value}": supported values: "", "Ignore", "Strict", "Warn"'
        cause = Cause("FieldValueNotSupported", "fieldValidation", message)
        raise invalid("meta.k8s.io", options_name(request), "", [cause])
    return value


def dry_run_of(request: Request) -> bool:
    """Tell whether the write is only tried. Raises ApiError(422) for values other than All."""
    values = request.query.get("dryRun") if "dryRun" in request.raw_query else None
    if not values or values == [""]:
        return False
    if values != ["All"]:
        message = f'Unsupported value: {orjson.dumps(values).decode()}: supported values: "All"'
        cause = Cause("FieldValueNotSupported", "dryRun", message)
        raise invalid("meta.k8s.io", options_name(request), "", [cause])
    return True


def field_manager_of(request: Request) -> str:
    """Return the name under which the writer owns fields: the parameter, or the program's name in User-Agent."""
    manager = request.param("fieldManager") if "fieldManager" in request.raw_query else ""
    if not manager:
        return request.headers.get("user-agent", "unknown").split("/", 1)[0][:FIELD_MANAGER_LIMIT]
    if len(manager) > FIELD_MANAGER_LIMIT:
        cause = Cause(
            "FieldValueTooLong", "fieldManager", f"Too long: may not be more than {FIELD_MANAGER_LIMIT} bytes"
        )
        raise invalid("meta.k8s.io", options_name(request), "", [cause])
    if not manager.isprintable():
        text = orjson.dumps(manager).decode()
        cause = Cause(
            "FieldValueInvalid", "fieldManager", f"Invalid value: {text}: should only contain printable characters"
        )
        raise invalid("meta.k8s.io", options_name(request), "", [cause])
    return manager


def options_name(request: Request) -> str:
    """Return the kind of the options that a write's query stands for."""
    return {"POST": "CreateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}.get(
        request.method, "UpdateOptions"
    )
