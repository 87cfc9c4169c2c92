"""Server-side tables: what `kubectl get` prints is decided here, from `Kind.columns` and `Kind.row`.

Spec: Kubernetes docs, "Receiving resources as Tables"; includeObject is None, Metadata (default) or Object.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import orjson

from tiphys.api.kind import Column, JsonObject, Kind
from tiphys.apiserver.cached import CachedObject
from tiphys.apiserver.negotiation import TABLE, Form
from tiphys.apiserver.rendering import JsonRendering, PlainRendering, convert_to, partial_metadata
from tiphys.apiserver.slices import DECODED_SLICE_BYTES
from tiphys.base.clock import Clock
from tiphys.base.errors import bad_request

INCLUDE_OBJECT = ("None", "Metadata", "Object")


def include_object(text: str) -> str:
    """Return the policy of the `includeObject` parameter. Raises ApiError 400."""
    if text and text not in INCLUDE_OBJECT:
        raise bad_request(f"invalid includeObject value: must be one of None, Metadata, Object, not {text!r}")
    return text or "Metadata"


class TableRendering(JsonRendering):
    """Rows of a kind's table."""

    stable = False
    slice_bytes = DECODED_SLICE_BYTES
    whole = True

    def __init__(self, kind: Kind, form: Form, include: str, clock: Clock) -> None:
        self.key: Hashable = (TABLE, kind.api_version, form.version, include)
        self._kind = kind
        self._api_version = form.api_version
        self._include = include
        self._clock = clock
        self._whole = PlainRendering(kind)
        self._definitions = orjson.dumps([_definition(column) for column in kind.columns or _default_columns(kind)])

    def item(self, obj: CachedObject) -> bytes:
        decoded = obj.decode() if self._kind.conversion is None else orjson.loads(self._whole.single(obj))
        beside = b""
        if self._kind.columns:
            shown = convert_to(self._kind, decoded)
            cells = self._kind.row(shown, self._clock.now_s())
            conditions = self._kind.row_conditions(shown) if self._kind.row_conditions is not None else ()
            beside = b'"conditions":%b,' % orjson.dumps(conditions) if conditions else b""
        else:
            metadata = decoded["metadata"]
            cells = [metadata.get("name", ""), metadata.get("creationTimestamp")]
        return b'{"cells":%b,%b"object":%b}' % (orjson.dumps(cells), beside, self._object(obj))

    def _object(self, obj: CachedObject) -> bytes:
        if self._include == "None":
            return b"null"
        if self._include == "Object":
            return self._whole.single(obj)
        return partial_metadata(self._kind, obj, self._api_version)

    def single(self, obj: CachedObject, *, columns: bool = True) -> bytes:
        return self._table({"resourceVersion": str(obj.revision)}, columns) + self.item(obj) + b"]}"

    def list_head(self, metadata: JsonObject, items_bytes: int) -> bytes:
        return self._table(metadata, True)

    def bookmark(self, revision: int, annotations: Mapping[str, str] | None, *, columns: bool) -> bytes:
        row_metadata: JsonObject = {"resourceVersion": str(revision)}
        if annotations:
            row_metadata["annotations"] = dict(annotations)
        partial = {"kind": "PartialObjectMetadata", "apiVersion": self._api_version, "metadata": row_metadata}
        cells: list[Any] = [""] * len(self._kind.columns or (0, 0))
        row = orjson.dumps({"cells": cells, "object": partial})
        return self._table({"resourceVersion": str(revision)}, columns) + row + b"]}"

    def _table(self, metadata: JsonObject, columns: bool) -> bytes:
        return b'{"kind":"Table","apiVersion":"%b","metadata":%b,"columnDefinitions":%b,"rows":[' % (
            self._api_version.encode(),
            orjson.dumps(metadata),
            self._definitions if columns else b"null",
        )


def _definition(column: Column) -> JsonObject:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def _default_columns(kind: Kind) -> tuple[Column, Column]:
    return (
        Column("Name", "string", "name", _described(kind, "name")),
        Column("Created At", "date", "", _described(kind, "creationTimestamp")),
    )


def _described(kind: Kind, field: str) -> str:
    """Return the description of a metadata field from the kind's schema: upstream's tables tell the same."""
    definition = kind.schema.node(["metadata", field])
    return str(definition.get("description", "")) if definition else ""
