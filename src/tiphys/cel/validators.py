"""Literals that can never work, told when an expression is compiled: patterns, durations, timestamps and formats.

The checker asks for each call of a tree that is right otherwise. Invariant: only literals are looked at, so what is
refused here would fail at each evaluation that reaches it.

Spec: Kubernetes' base environment enables cel-go's validators of the first three; that of formats comes with the string
library.
"""

from __future__ import annotations

from tiphys.cel import formatting, patterns, times
from tiphys.cel.errors import EvaluationError
from tiphys.cel.syntax import Call, ListNode, Literal, MapNode, Node
from tiphys.cel.types import type_name


def validate_call(call: Call) -> list[tuple[int, str]]:
    """Return places and messages of what is wrong with the literals among the arguments."""
    if call.function == "matches" and len(call.arguments) == 2:
        return _validate(call, 1)
    if call.function in ("duration", "timestamp") and len(call.arguments) == 1:
        return _validate(call, 0)
    if call.function == "format" and len(call.arguments) == 2:
        return _validate_format(call)
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


def _validate_format(call: Call) -> list[tuple[int, str]]:
    text, values = call.arguments
    if not isinstance(text, Literal) or not isinstance(values, ListNode) or not isinstance(text.value, str):
        return []
    try:
        wanted = [clause for _, clause, _ in formatting.clauses(text.value) if clause]
    except EvaluationError as error:
        return [(call.offset, str(error))]
    for index, clause in enumerate(wanted):
        if index >= len(values.elements):
            return [(call.offset, f"index {index} out of range")]
        refused = _unformattable(values.elements[index], clause)
        if refused is not None:
            return [(refused.offset, formatting.refusal(clause, type_name(refused.type)))]
    if len(values.elements) > len(wanted):
        counts = f"(expected {len(wanted)}, got {len(values.elements)})"
        return [(call.offset, f"too many arguments supplied to string.format {counts}")]
    return []


def _unformattable(node: Node, clause: str) -> Node | None:
    """Return the node, or the one within it, whose type a clause does not take."""
    if node.type.kind != "dyn" and node.type.kind not in formatting.KINDS[clause]:
        return node
    inner: list[Node] = []
    if isinstance(node, ListNode):
        inner = node.elements
    elif isinstance(node, MapNode):
        inner = [each for entry in node.entries for each in (entry.key, entry.value)]
    return next((found for each in inner if (found := _unformattable(each, clause)) is not None), None)
