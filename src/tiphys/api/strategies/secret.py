"""Secrets: the type, stringData, what each type must hold, size and immutability.

Spec: Kubernetes documentation, "Secrets" (types of Secret, immutable Secrets, 1 MiB).
"""

from __future__ import annotations

import base64
from typing import Any

import orjson

from tiphys.api.causes import forbidden, invalid_value, required, too_long
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import validate_config_key
from tiphys.api.schemanode import json_type
from tiphys.api.strategies.configmap import MAX_BYTES, base64_bytes
from tiphys.api.strategies.fields import check_same, check_text, fill
from tiphys.base.errors import Cause

_ACCOUNT = "kubernetes.io/service-account.name"
_IMMUTABLE = "field is immutable when `immutable` is set"


def default(secret: JsonObject) -> None:
    """stringData is for writing only: it becomes data and is not stored."""
    fill(secret, "type", "Opaque")
    text = secret.pop("stringData", None)
    if text:
        data = secret.get("data")
        if data is None:
            data = secret["data"] = {}
        for key, value in text.items():
            data[key] = base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()


def prepare_for_update(new: JsonObject, old: JsonObject, context: Context) -> None:
    """An update that names no type means the old one."""
    if new.get("type") in (None, ""):
        new["type"] = old.get("type")


def validate(secret: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    data = secret.get("data") or {}
    total = 0
    for key, value in data.items():
        check_text(causes, f"data[{key}]", key, validate_config_key)
        total += base64_bytes(value)
    if total > MAX_BYTES:
        causes.append(too_long("data", MAX_BYTES))
    check = _TYPES.get(secret.get("type") or "")
    if check is not None:
        check(causes, secret, data)
    return causes


def _check_service_account(causes: list[Cause], secret: JsonObject, data: JsonObject) -> None:
    annotations = (secret.get("metadata") or {}).get("annotations") or {}
    if not annotations.get(_ACCOUNT):
        causes.append(required(f"metadata.annotations[{_ACCOUNT}]"))


def _check_json(causes: list[Cause], data: JsonObject, key: str) -> None:
    if key not in data:
        causes.append(required(f"data[{key}]"))
        return
    complaint = _json_complaint(base64.b64decode(data[key]))
    if complaint:
        causes.append(invalid_value(f"data[{key}]", "<secret contents redacted>", complaint))


def _json_complaint(text: bytes) -> str:
    """Return what Go's reader says of a text that is no JSON object, "" for one."""
    try:
        content: Any = orjson.loads(text.decode("utf-8", "replace"))
    except orjson.JSONDecodeError as error:
        from tiphys.api.gojson import go_syntax_error

        return go_syntax_error(text) or str(error)
    if content is None or isinstance(content, dict):
        return ""
    return f"json: cannot unmarshal {json_type(content)} into Go value of type map[string]interface {{}}"


def _check_docker_config(causes: list[Cause], secret: JsonObject, data: JsonObject) -> None:
    _check_json(causes, data, ".dockercfg")


def _check_docker_config_json(causes: list[Cause], secret: JsonObject, data: JsonObject) -> None:
    _check_json(causes, data, ".dockerconfigjson")


def _check_basic_auth(causes: list[Cause], secret: JsonObject, data: JsonObject) -> None:
    if "username" not in data and "password" not in data:
        causes.append(required("data[username]"))
        causes.append(required("data[password]"))


def _check_ssh_auth(causes: list[Cause], secret: JsonObject, data: JsonObject) -> None:
    if not data.get("ssh-privatekey"):
        causes.append(required("data[ssh-privatekey]"))


def _check_tls(causes: list[Cause], secret: JsonObject, data: JsonObject) -> None:
    for key in ("tls.crt", "tls.key"):
        if key not in data:
            causes.append(required(f"data[{key}]"))


_TYPES = {
    "kubernetes.io/service-account-token": _check_service_account,
    "kubernetes.io/dockercfg": _check_docker_config,
    "kubernetes.io/dockerconfigjson": _check_docker_config_json,
    "kubernetes.io/basic-auth": _check_basic_auth,
    "kubernetes.io/ssh-auth": _check_ssh_auth,
    "kubernetes.io/tls": _check_tls,
}


def validate_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """The type never changes; an immutable Secret keeps its data too."""
    causes: list[Cause] = []
    check_same(causes, "type", new.get("type"), old.get("type"))
    if old.get("immutable"):
        if not new.get("immutable"):
            causes.append(forbidden("immutable", _IMMUTABLE))
        if (new.get("data") or {}) != (old.get("data") or {}):
            causes.append(forbidden("data", _IMMUTABLE))
    return causes


def warnings(secret: JsonObject) -> list[str]:
    """A TLS secret without PEM text in it is stored, with a warning."""
    if secret.get("type") != "kubernetes.io/tls":
        return []
    data = secret.get("data") or {}
    for key, what in (("tls.crt", "certificate"), ("tls.key", "key")):
        try:
            content = base64.b64decode(data.get(key) or "")
        except ValueError:
            content = b""
        if b"-----BEGIN" not in content:
            return [f"tls: failed to find any PEM data in {what} input"]
    return []


SECRET = Strategy(
    default=default,
    prepare_for_update=prepare_for_update,
    validate=validate,
    validate_update=validate_update,
    warnings=warnings,
)
