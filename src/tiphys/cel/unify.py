"""When a value of one type may stand where another is expected, and what type parameters thereby become.

Used by the checker, which carries one `Bindings` through an expression. Invariant: a parameter is never bound to a type
that contains it, so substitution ends.

Spec: cel-spec, "Language Definition", the chapter "Gradual Type Checking"; where it leaves a choice, cel-go's.
"""

from __future__ import annotations

from tiphys.cel.types import DYN, ListType, Type

Bindings = dict[str, Type]
"""What each type parameter stands for, as far as it is known."""

_NULLABLE = frozenset({"opaque", "optional", "duration", "timestamp", "object", "null"})
_COMPOSED = frozenset({"list", "map", "optional", "opaque", "type"})


def assignable(bindings: Bindings, actual: Type, expected: Type) -> bool:
    """Return whether a value of type `actual` fits, and bind parameters so that it does."""
    if expected.kind == "parameter":
        fits, bound = _bind(bindings, actual, expected)
        if fits or bound:
            return fits
    if actual.kind == "parameter":
        return _bind(bindings, expected, actual)[0]
    if actual.kind in ("dyn", "error") or expected.kind in ("dyn", "error"):
        return True
    if actual.kind == "null" or expected.kind == "null":
        return (expected if actual.kind == "null" else actual).kind in _NULLABLE
    if actual.kind == "type" and expected.kind == "type":
        return True
    if actual.kind != expected.kind or actual.name != expected.name:
        return False
    return all_assignable(bindings, actual.parameters, expected.parameters) if actual.kind in _COMPOSED else True


def all_assignable(bindings: Bindings, actual: tuple[Type, ...], expected: tuple[Type, ...]) -> bool:
    """Return whether values fit one by one; where they do not, no parameter stays bound."""
    if len(actual) != len(expected):
        return False
    trial = dict(bindings)
    for one, other in zip(actual, expected, strict=True):
        if not assignable(trial, one, other):
            return False
    bindings.update(trial)
    return True


def _bind(bindings: Bindings, type_: Type, parameter: Type) -> tuple[bool, bool]:
    """Return whether the type may stand for the parameter, and whether the parameter stood for something before."""
    if type_ == parameter:
        return True, True
    bound = bindings.get(parameter.name)
    if bound is None:
        if _occurs(bindings, parameter, type_):
            return False, False
        bindings[parameter.name] = type_
        return True, False
    if type_ == bound:
        return True, True
    if not assignable(bindings, type_, bound):
        return False, True
    general = most_general(type_, bound)
    if not _occurs(bindings, parameter, general):
        bindings[parameter.name] = general
    return True, True


def _occurs(bindings: Bindings, parameter: Type, type_: Type) -> bool:
    if type_ == parameter:
        return True
    if type_.kind == "parameter":
        bound = bindings.get(type_.name)
        return bound is not None and _occurs(bindings, parameter, bound)
    return type_.kind in _COMPOSED and any(_occurs(bindings, parameter, each) for each in type_.parameters)


def most_general(one: Type, other: Type) -> Type:
    """Return the less specific of two types of which one fits the other."""
    return one if _at_most_as_specific(one, other) else other


def _at_most_as_specific(one: Type, other: Type) -> bool:
    if one.kind in ("dyn", "parameter"):
        return True
    if other.kind in ("dyn", "parameter"):
        return False
    if one.kind == "null" or other.kind == "null":
        return one.kind != "null"
    if one.kind in _COMPOSED and one.kind == other.kind and len(one.parameters) == len(other.parameters):
        return all(map(_at_most_as_specific, one.parameters, other.parameters))
    return one == other


def substituted(bindings: Bindings, type_: Type, free: Type | None = None) -> Type:
    """Return the type with parameters replaced by what they stand for; unbound ones by `free` if that is given."""
    if type_.kind == "parameter":
        bound = bindings.get(type_.name)
        if bound is not None:
            return substituted(bindings, bound, free)
        return type_ if free is None else free
    if type_.kind not in _COMPOSED or not type_.parameters:
        return type_
    parameters = tuple([substituted(bindings, each, free) for each in type_.parameters])
    if all(new is old for new, old in zip(parameters, type_.parameters, strict=True)):
        return type_
    if isinstance(type_, ListType):
        return ListType(parameters[0], type_.unique, type_.keys)
    return Type(type_.kind, type_.name, parameters)


def settled(bindings: Bindings, type_: Type) -> Type:
    """Return the type with nothing left open: what no parameter was bound to is dyn."""
    return substituted(bindings, type_, DYN)
