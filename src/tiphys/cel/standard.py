"""The libraries that every environment has, and the names of types that are values.

Spec: Kubernetes' base environment of 1.37: the standard library, strings, sets, lists, optional types.
"""

from __future__ import annotations

from typing import Final

from tiphys.cel import conversions, operators, optionals, sequences, texts, types
from tiphys.cel.declarations import Library
from tiphys.cel.types import DYN, Type

LIBRARIES: Final[tuple[Library, ...]] = (
    operators.LIBRARY,
    conversions.LIBRARY,
    texts.LIBRARY,
    sequences.LIBRARY,
    optionals.LIBRARY,
)

TYPE_NAMES: Final[dict[str, Type]] = {
    "bool": types.BOOL,
    "int": types.INT,
    "uint": types.UINT,
    "double": types.DOUBLE,
    "string": types.STRING,
    "bytes": types.BYTES,
    "list": types.list_of(DYN),
    "map": types.map_of(DYN, DYN),
    "null_type": types.NULL,
    "type": types.type_of(DYN),
    "optional_type": types.optional_of(DYN),
    "google.protobuf.Duration": types.DURATION,
    "google.protobuf.Timestamp": types.TIMESTAMP,
}
