"""When two values are equal, which type a value has, and lists that are sets or maps by keys.

Invariant: values of different types are unequal, not an error, but numbers are compared by what they count; true is no
number, whatever Python says.

Spec: cel-spec, "Language Definition", the chapter "Equality"; Kubernetes documentation of `x-kubernetes-list-type`.
"""

from __future__ import annotations

from typing import Final

from tiphys.cel import types
from tiphys.cel.types import Type
from tiphys.cel.values import Optional, UInt, Value

_TYPES: Final[dict[type, Type]] = {
    type(None): types.NULL,
    bool: types.BOOL,
    int: types.INT,
    UInt: types.UINT,
    float: types.DOUBLE,
    str: types.STRING,
    bytes: types.BYTES,
    list: types.list_of(types.DYN),
    dict: types.map_of(types.DYN, types.DYN),
}
_NUMBERS: Final = frozenset({int, float, UInt})
_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})


class KeyedList(list[Value]):
    """A list whose order is nothing to `==`, and which `+` merges: a set, or a map by some fields of its elements."""

    __slots__ = ("keys",)

    def __init__(self, elements: list[Value], keys: tuple[str, ...] = ()) -> None:
        super().__init__(elements)
        self.keys = keys
        """Empty for a set."""

    def key_of(self, element: Value) -> Value:
        """Return what makes an element another one."""
        if not self.keys:
            return frozen(element)
        if not isinstance(element, dict):
            return None
        return tuple([frozen(element.get(key)) for key in self.keys])


def runtime_type(value: Value) -> Type:
    """Return the type of a value, without what is inside of lists and maps."""
    found = _TYPES.get(value.__class__)
    if found is not None:
        return found
    declared = getattr(value, "cel_type", None)
    if declared is not None:
        assert isinstance(declared, Type)
        return declared
    if isinstance(value, list):
        return _TYPES[list]
    if isinstance(value, dict):
        return _TYPES[dict]
    raise TypeError(f"{value!r} is no value of an expression")


def runtime_name(value: Value) -> str:
    """Return the name of the type of a value, as `type(x)` prints it."""
    return types.type_name(runtime_type(value))


def equals(one: Value, other: Value, meter: list[int] | None = None) -> bool:
    """Return whether two values are the same. The meter's number grows by the elements that were looked at."""
    first, second = one.__class__, other.__class__
    if first is second and first in _PLAIN:
        return bool(one == other)
    if first in _NUMBERS:
        return second in _NUMBERS and bool(float(one) == float(other) if float in (first, second) else one == other)
    if isinstance(one, list):
        return isinstance(other, list) and _equal_lists(one, other, meter)
    if isinstance(one, dict):
        return isinstance(other, dict) and _equal_maps(one, other, meter)
    if first is Optional:
        if second is not Optional or one.present is not other.present:
            return False
        return not one.present or equals(one.value, other.value, meter)
    return first is second and bool(one == other)


def _equal_lists(one: list[Value], other: list[Value], meter: list[int] | None) -> bool:
    if len(one) != len(other):
        return False
    if meter is not None:
        meter[0] += len(one)
    if one.__class__ is KeyedList or other.__class__ is KeyedList:
        if meter is not None:
            meter[0] += 3 * len(one)
        return _equal_keyed(one, other, meter)
    return all(equals(a, b, meter) for a, b in zip(one, other, strict=True))


def _equal_keyed(one: list[Value], other: list[Value], meter: list[int] | None) -> bool:
    keyed = one if isinstance(one, KeyedList) else other
    assert isinstance(keyed, KeyedList)
    by_key = {keyed.key_of(element): element for element in other}
    missing = object()
    return all(equals(element, by_key.get(keyed.key_of(element), missing), meter) for element in one)


def _equal_maps(one: dict[Value, Value], other: dict[Value, Value], meter: list[int] | None) -> bool:
    if len(one) != len(other):
        return False
    if meter is not None:
        meter[0] += len(one)
    return all(key in other and equals(value, other[key], meter) for key, value in one.items())


def frozen(value: Value) -> Value:
    """Return something hashable that is equal for equal values, and for no others."""
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, list):
        return (list, tuple([frozen(each) for each in value]))
    if isinstance(value, dict):
        return (dict, frozenset([(frozen(key), frozen(each)) for key, each in value.items()]))
    if isinstance(value, Optional):
        return (Optional, value.present, frozen(value.value))
    if value != value:
        return object()
    return value


def contains(elements: list[Value], value: Value, meter: list[int] | None = None) -> bool:
    """Return whether a value is among elements."""
    if value.__class__ is str:
        return value in elements
    return any(equals(each, value, meter) for each in elements)


def concatenated(one: list[Value], other: list[Value]) -> list[Value]:
    """Return both lists as one; sets and maps take in what is new, maps what has changed too."""
    if one.__class__ is not KeyedList:
        return one + other
    assert isinstance(one, KeyedList)
    merged = list(one)
    places = {one.key_of(element): index for index, element in enumerate(merged)}
    for element in other:
        key = one.key_of(element)
        if key not in places:
            places[key] = len(merged)
            merged.append(element)
        elif one.keys:
            merged[places[key]] = element
    return KeyedList(merged, one.keys)
