"""ConfigMaps: keys, size and immutability.

Spec: Kubernetes documentation, "ConfigMaps" (1 MiB, keys, immutable).
"""

from __future__ import annotations

from tiphys.api.causes import forbidden, invalid_value, too_long
from tiphys.api.kind import Context, JsonObject, Strategy
from tiphys.api.names import byte_length, validate_config_key
from tiphys.api.strategies.fields import check_text
from tiphys.base.errors import Cause

MAX_BYTES = 1024 * 1024


def base64_bytes(text: str) -> int:
    """Return how many bytes a base64 text stands for."""
    return len(text) * 3 // 4 - text[-2:].count("=")


def validate(config_map: JsonObject, context: Context) -> list[Cause]:
    causes: list[Cause] = []
    total = 0
    binary = config_map.get("binaryData") or {}
    for key, value in (config_map.get("data") or {}).items():
        check_text(causes, f"data[{key}]", key, validate_config_key)
        if key in binary:
            causes.append(invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData"))
        total += byte_length(value)
    for key, value in binary.items():
        check_text(causes, f"binaryData[{key}]", key, validate_config_key)
        total += base64_bytes(value)
    if total > MAX_BYTES:
        causes.append(too_long("[]", MAX_BYTES))
    return causes


def validate_update(new: JsonObject, old: JsonObject, context: Context) -> list[Cause]:
    """An immutable ConfigMap stays so, with its data."""
    causes: list[Cause] = []
    if not old.get("immutable"):
        return causes
    if not new.get("immutable"):
        causes.append(forbidden("immutable", "field is immutable when `immutable` is set"))
    for field in ("data", "binaryData"):
        if (new.get(field) or {}) != (old.get(field) or {}):
            causes.append(forbidden(field, "field is immutable when `immutable` is set"))
    return causes


CONFIG_MAP = Strategy(validate=validate, validate_update=validate_update)
