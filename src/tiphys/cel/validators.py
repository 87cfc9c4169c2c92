"""Literals that can never work, told when an expression is compiled: patterns, durations and timestamps.

The checker asks for each call of a tree that is right otherwise. Invariant: only literals are looked at, so what is
refused here would fail at each evaluation that reaches it.

Spec: Kubernetes' base environment enables cel-go's validators of these three.
"""

from __future__ import annotations

from tiphys.cel import patterns, times
from tiphys.cel.errors import EvaluationError
from tiphys.cel.syntax import Call, Literal


def validate_call(call: Call) -> list[tuple[int, str]]:
    """Return places and messages of what is wrong with the literals among the arguments."""
    if call.function == "matches" and len(call.arguments) == 2:
        return _validate(call, 1)
    if call.function in ("duration", "timestamp") and len(call.arguments) == 1:
        return _validate(call, 0)
    return []


def _validate(call: Call, index: int) -> list[tuple[int, str]]:
    argument = call.arguments[index]
    if not isinstance(argument, Literal) or not isinstance(argument.value, str):
        return []
    if call.function == "duration":
        right = times.parse_duration(argument.value) is not None
    elif call.function == "timestamp":
        right = times.parse_timestamp(argument.value) is not None
    else:
        try:
            patterns.compiled(argument.value)
            right = True
        except EvaluationError:
            right = False
    return [] if right else [(argument.offset, f"invalid {call.function} argument")]
