"""Reads the struct types of a Go program out of its binary: names, fields, struct tags, what is a pointer.

Go keeps this for its `reflect` package, in stripped binaries too. Used by protobuf_messages.py to read the facts of the
Kubernetes API (field names and numbers) off a stock kubectl.

Spec: Go's internal/abi package (layout of Type, StructType, Name) as of Go 1.22 to 1.26, 64-bit little endian.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_KINDS = [
    "invalid",
    "bool",
    "int",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "uintptr",
    "float32",
    "float64",
    "complex64",
    "complex128",
    "array",
    "chan",
    "func",
    "interface",
    "map",
    "pointer",
    "slice",
    "string",
    "struct",
    "unsafe",
]
_TYPE_BYTES = 48
_NO_BITS = 8
_UNCOMMON, _EXTRA_STAR, _NAMED = 1, 2, 4
_HAS_TAG, _EMBEDDED = 2, 8
_EXTENT = {"pointer": 8, "slice": 8, "struct": 32, "string": 0, "bool": 0, "int32": 0, "int64": 0}
"""Bytes between the common part of a type and what tells its package."""


@dataclass(eq=False)
class GoType:
    """One type. `name` is as Go prints it, e.g. v1.PodSpec; `package` is the import path of named types."""

    kind: str
    name: str
    named: bool
    package: str = ""
    element: GoType | None = None
    fields: list[GoField] = field(default_factory=list)

    @property
    def full_name(self) -> str:
        return f"{self.package}.{self.name.partition('.')[2]}"


@dataclass(eq=False)
class GoField:
    name: str
    tag: str
    embedded: bool
    type: GoType


class GoBinary:
    """An ELF file that Go's linker made. Its types are found through the `.typelink` section."""

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()
        self._sections = dict(self._read_sections())
        if ".typelink" not in self._sections:
            raise ValueError(f"{path} has no .typelink section: it is no Go program of a version that is understood")
        self._base = self._sections[".rodata"][0]
        self._types: dict[int, GoType] = {}

    def structs(self) -> dict[str, GoType]:
        """Return all named struct types by import path and name, e.g. k8s.io/api/core/v1.PodSpec."""
        sys.setrecursionlimit(100_000)  # types refer to each other in long chains
        _, start, size, _ = self._sections[".typelink"]
        for (offset,) in struct.iter_unpack("<i", self._data[start : start + size]):
            self._type(self._base + offset)
        return {t.full_name: t for t in self._types.values() if t.kind == "struct" and t.named and t.package}

    def _read_sections(self) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
        """Yield (name, (address, offset in the file, size, type))."""
        (table,) = struct.unpack_from("<Q", self._data, 40)
        entry, count, names = struct.unpack_from("<HHH", self._data, 58)
        headers = [struct.unpack_from("<IIQQQQ", self._data, table + n * entry) for n in range(count)]
        text = headers[names][4]
        for name, kind, _, address, offset, size in headers:
            end = self._data.index(b"\0", text + name)
            yield self._data[text + name : end].decode(), (address, offset, size, kind)

    def _offset(self, address: int) -> int:
        for start, offset, size, kind in self._sections.values():
            if start and kind != _NO_BITS and start <= address < start + size:
                return address - start + offset
        raise ValueError(f"nothing is at address {address:#x}")

    def _read(self, layout: str, address: int) -> tuple[int, ...]:
        return struct.unpack_from("<" + layout, self._data, self._offset(address))

    def _varint(self, position: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = self._data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7

    def _name(self, address: int) -> tuple[str, str, int]:
        """Return (name, tag, flags)."""
        position = self._offset(address)
        flags = self._data[position]
        length, position = self._varint(position + 1)
        name = self._data[position : position + length].decode()
        position += length
        if not flags & _HAS_TAG:
            return name, "", flags
        length, position = self._varint(position)
        return name, self._data[position : position + length].decode(), flags

    def _type(self, address: int) -> GoType:
        known = self._types.get(address)
        if known is not None:
            return known
        _, _, _, flags, _, _, kind_number, _, _, name_at, _ = self._read("QQIBBBBQQii", address)
        kind = _KINDS[kind_number & 31]
        name = self._name(self._base + name_at)[0]
        found = self._types[address] = GoType(kind, name[bool(flags & _EXTRA_STAR) :], bool(flags & _NAMED))
        behind = address + _TYPE_BYTES
        if flags & _UNCOMMON and kind in _EXTENT:
            (package_at,) = self._read("i", behind + _EXTENT[kind])
            found.package = self._name(self._base + package_at)[0]
        if kind in ("pointer", "slice"):
            found.element = self._type(self._read("Q", behind)[0])
        elif kind == "map":
            found.element = self._type(self._read("QQ", behind)[1])
        elif kind == "struct":
            _, start, count, _ = self._read("QQQQ", behind)
            found.fields = [self._field(start + 24 * number) for number in range(count)]
        return found

    def _field(self, address: int) -> GoField:
        name_at, type_at = self._read("QQ", address)
        name, tag, flags = self._name(name_at)
        return GoField(name, tag, bool(flags & _EMBEDDED), self._type(type_at))
