"""Values of expressions that Python has no type for: unsigned integers, times, optionals, types; and lazy bindings.

All others are Python's: None, bool, int (CEL's int, within 64 bits), float (double), str, bytes, list, dict. Values are
made by the evaluator and by libraries. Invariant: nobody changes a value; lists and dicts may be shared with the data
that an expression reads.

Spec: cel-spec, "Language Definition", the chapter "Values".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from tiphys.cel import types
from tiphys.cel.types import Type

Value = Any
"""Any value of an expression: the Python types above, the classes here, and opaque classes of libraries."""

INT_MINIMUM: Final = -(2**63)
INT_MAXIMUM: Final = 2**63 - 1
UINT_MAXIMUM: Final = 2**64 - 1


class UInt(int):
    """An unsigned integer of 64 bits. It equals the int of the same number."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{int(self)}u"


class Duration:
    """A span of time in nanoseconds."""

    __slots__ = ("nanoseconds",)
    cel_type: ClassVar[Type] = types.DURATION

    def __init__(self, nanoseconds: int) -> None:
        self.nanoseconds: Final = nanoseconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.nanoseconds == other.nanoseconds

    def __lt__(self, other: Duration) -> bool:
        return self.nanoseconds < other.nanoseconds

    def __le__(self, other: Duration) -> bool:
        return self.nanoseconds <= other.nanoseconds

    def __hash__(self) -> int:
        return hash((Duration, self.nanoseconds))

    def __repr__(self) -> str:
        return f"Duration({self.nanoseconds})"


class Timestamp:
    """A moment in nanoseconds since 1970 in UTC, from year 1 to 9999."""

    __slots__ = ("nanoseconds",)
    cel_type: ClassVar[Type] = types.TIMESTAMP

    def __init__(self, nanoseconds: int) -> None:
        self.nanoseconds: Final = nanoseconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timestamp) and self.nanoseconds == other.nanoseconds

    def __lt__(self, other: Timestamp) -> bool:
        return self.nanoseconds < other.nanoseconds

    def __le__(self, other: Timestamp) -> bool:
        return self.nanoseconds <= other.nanoseconds

    def __hash__(self) -> int:
        return hash((Timestamp, self.nanoseconds))

    def __repr__(self) -> str:
        return f"Timestamp({self.nanoseconds})"


class Optional:
    """A value that may be absent. `NONE` is the absent one."""

    __slots__ = ("present", "value")
    cel_type: ClassVar[Type] = types.optional_of(types.DYN)

    def __init__(self, value: Value, present: bool = True) -> None:
        self.present: Final = present
        self.value: Final = value
        """None where it is absent."""

    def __repr__(self) -> str:
        return f"optional.of({self.value!r})" if self.present else "optional.none()"


NONE: Final = Optional(None, present=False)


class Struct(dict[str, Any]):
    """An object that an expression made, `Name{field: value}`. It equals a map of the same fields."""

    __slots__ = ("cel_type",)

    def __init__(self, cel_type: Type, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.cel_type: Final = cel_type


class TypeValue:
    """A type as a value, known by its name only, as `type(x)` returns it."""

    __slots__ = ("name",)
    cel_type: ClassVar[Type] = types.type_of(types.DYN)

    def __init__(self, name: str) -> None:
        self.name: Final = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TypeValue) and self.name == other.name

    def __hash__(self) -> int:
        return hash((TypeValue, self.name))

    def __repr__(self) -> str:
        return f"TypeValue({self.name!r})"


class Lazy:
    """A binding that is computed when an expression reads it first, at most once in one evaluation."""

    __slots__ = ("compute",)

    def __init__(self, compute: Callable[[], Value]) -> None:
        self.compute: Final = compute
        """May raise EvaluationError or BudgetExceeded."""
