"""The quick way to know that an object needs no change: its schema as msgspec types, checked in C.

An object is accepted only if the careful decoder (schemanode.py) would leave it as it is and find nothing. A refusal
says nothing: the careful decoder then decides. tests/unit/api/test_schema.py holds the two together.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tiphys.api import schemanode as nodes

_INT32 = Annotated[int, Meta(ge=nodes.INT32[0], le=nodes.INT32[1])]
_INT64 = Annotated[int, Meta(ge=nodes.INT64[0], le=nodes.INT64[1])]
_BASE64 = Annotated[
    str, Meta(pattern=r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?\Z")
]


class _Recursive(Exception):
    """The schema refers to itself; msgspec types are not built for such kinds."""


class _Converted:
    """Base of marker types whose values go through `_unchanged`."""

    convert: Any = None


def _unchanged(marker: type, value: Any) -> Any:
    """msgspec calls this for marker types. Raises unless the text is canonical already."""
    if not issubclass(marker, _Converted) or type(value) is not str or marker.convert(value) != value:
        raise ValueError("not canonical")
    return _SHARED[marker]


_MARKERS: dict[Any, type[_Converted]] = {}
_SHARED: dict[type, _Converted] = {}


def _marker(convert: Any) -> type[_Converted]:
    marker = _MARKERS.get(convert)
    if marker is None:
        marker = _MARKERS[convert] = type("Converted", (_Converted,), {"convert": staticmethod(convert)})
        _SHARED[marker] = marker()
    return marker


_structs: dict[int, tuple[nodes.StructType, Any]] = {}
"""Built struct types by the identity of their StructType, which is kept alive beside them."""


def _struct_type(struct: nodes.StructType) -> Any:
    known = _structs.get(id(struct))
    if known is not None:
        if known[1] is None:
            raise _Recursive
        return known[1]
    _structs[id(struct)] = (struct, None)
    try:
        names = list(struct.fields)
        made = msgspec.defstruct(
            struct.go_name,
            [(f"f{index}", _field_type(struct, name), None) for index, name in enumerate(names)],
            rename={f"f{index}": name for index, name in enumerate(names)},
            forbid_unknown_fields=True,
            gc=False,
        )
    except BaseException:
        del _structs[id(struct)]
        raise
    _structs[id(struct)] = (struct, made)
    return made


def _field_type(struct: nodes.StructType, name: str) -> Any:
    made = _type_of(struct.fields[name])
    return Annotated[made, Meta(min_length=1)] if name in struct.omitted else made


def _type_of(node: nodes.Node) -> Any:
    match node:
        case nodes.StructNode():
            return _struct_type(node.struct)
        case nodes.ListNode():
            return list[_type_of(node.item)]  # type: ignore[misc]
        case nodes.MapNode():
            return dict[str, _type_of(node.value)]  # type: ignore[misc]
        case nodes.StringNode():
            return str
        case nodes.BoolNode():
            return bool
        case nodes.IntegerNode():
            return _INT32 if node.limits == nodes.INT32 else _INT64
        case nodes.FloatNode():
            return float
        case nodes.BytesNode():
            return _BASE64
        case nodes.IntOrStringNode():
            return _INT32 | str
        case nodes.ConvertedNode():
            return _marker(node.convert)
        case _:
            return Any


class QuickCheck:
    """Accepts objects that decode to themselves."""

    def __init__(self, root: nodes.Node) -> None:
        try:
            self._type = _type_of(root)
        except _Recursive:
            self._type = None

    def accepts(self, obj: Any) -> bool:
        """Return True only for an object that needs no change and has no fault."""
        if self._type is None:
            return False
        _drop_null_timestamps(obj)
        try:
            msgspec.convert(obj, self._type, dec_hook=_unchanged)
        except (msgspec.ValidationError, ValueError):
            return False
        return True


def _drop_null_timestamps(obj: Any) -> None:
    """Drop `creationTimestamp: null`, which Go clients send with every object and every pod template."""
    try:
        metadata = obj["metadata"]
        if metadata.get("creationTimestamp", "") is None:
            del metadata["creationTimestamp"]
        metadata = obj["spec"]["template"]["metadata"]
        if metadata.get("creationTimestamp", "") is None:
            del metadata["creationTimestamp"]
    except (KeyError, TypeError, AttributeError):
        pass
