"""What functions an expression may call: names, the types of arguments and results, and what they do and cost.

Written as tables in libraries, here and above; read by the checker (types), the planner (calls) and the cost estimate.
Invariant: overloads of one name differ in their argument types or in being a member, so at most one fits values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tiphys.cel.cost import CallCost
from tiphys.cel.types import Type
from tiphys.cel.values import Value


@dataclass(frozen=True, slots=True)
class Overload:
    """One form of a function."""

    id: str
    """Unique among all functions, such as `string_matches`."""
    arguments: tuple[Type, ...]
    """With the target of a member function as the first. Type parameters: `types.parameter("T")`."""
    result: Type
    call: Callable[..., Value]
    """Takes the values of the arguments; raises EvaluationError."""
    member: bool = False
    """Called as `target.name(...)` and in no other way."""
    cost: CallCost | None = None
    """None for a call that costs 1."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function: a name, which may have dots, such as `optional.of`, and its forms.

    Libraries may add overloads to a name that another library has.
    """

    name: str
    overloads: tuple[Overload, ...]


Library = tuple[Function, ...]
