"""The planner: from a checked tree to closures.

Types choose among closures, so that evaluation asks for classes only where something is dyn. Invariant: a variable has
one place in the frame, and variables of macros that are alive at the same time have different ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tiphys.cel import calling, folding, logic, optionals, patterns, selecting
from tiphys.cel.code import FIRST_VARIABLE, SPENT, Code, Frame, Run, constant, traversal
from tiphys.cel.cost import COST_MAXIMUM, LIST_BASE, MAP_BASE, REGEX_FACTOR, STRUCT_BASE, string_cost
from tiphys.cel.data import Converter, converter
from tiphys.cel.errors import EvaluationError
from tiphys.cel.syntax import Bind, Call, Fold, Ident, ListNode, Literal, MapNode, Node, OptMap, Select, StructNode
from tiphys.cel.types import ObjectType, Type, type_name
from tiphys.cel.values import Optional, Struct, TypeValue, Value

_PRECISE: Final = frozenset(
    {
        "bool",
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "list",
        "map",
        "duration",
        "timestamp",
        "opaque",
        "type",
        "object",
    }
)
"""Kinds of types that say which class a value has."""
_CONVERSIONS: Final = frozenset(
    {"int", "uint", "double", "string", "bytes", "timestamp", "duration", "bool", "type", "dyn"}
)


class Planner:
    """Plans one expression. `frame_size` and `slots` say afterwards how its frames are made."""

    def __init__(self, variables: Mapping[str, Type]) -> None:
        self.slots: dict[str, int] = {}
        """The place of each variable that the expression names."""
        self.frame_size = FIRST_VARIABLE
        self._variables = variables
        self._locals: list[dict[str, int]] = []

    def plan(self, node: Node) -> Code:
        """Return the code of a node and everything below it."""
        match node:
            case Literal():
                return constant(node.value)
            case Ident():
                return self._ident(node)
            case Select():
                return self._select(node)
            case Call():
                return self._call(node)
            case ListNode():
                return self._list(node)
            case MapNode():
                return self._map(node)
            case StructNode():
                return self._struct(node)
            case Fold():
                return self._fold(node)
            case Bind():
                return self._bind(node)
            case OptMap():
                return self._opt_map(node)
        raise AssertionError(f"no plan for {node!r}")

    # Names and fields

    def _ident(self, node: Ident) -> Code:
        if not node.name.startswith("."):
            for scope in reversed(self._locals):
                if node.name in scope:
                    return Code(selecting.local(scope[node.name]), 1, attribute=True)
        name = node.name.removeprefix(".")
        if name not in self._variables:
            return constant(TypeValue(type_name(node.type.parameters[0])))
        return self._declared(name)

    def _declared(self, name: str) -> Code:
        slot = self.slots.get(name)
        if slot is None:
            slot = self.slots[name] = self._place()
        return Code(selecting.variable(slot, name, converter(self._variables[name])), 1, attribute=True)

    def _place(self) -> int:
        self.frame_size += 1
        return self.frame_size - 1

    def _select(self, node: Select) -> Code:
        if node.constant is not None:
            return constant(node.constant)
        if node.variable:
            return self._declared(node.variable)
        target = node.operand.type
        if node.test:
            operand = self.plan(node.operand)
            return Code(selecting.presence(operand.run, _key(target, node.field)), operand.cost)
        if target.kind in ("object", "map"):
            return self._path(node)
        operand = self.plan(node.operand)
        if target.kind == "optional":
            inner = target.parameters[0]
            convert = converter(node.type.parameters[0]) if inner.kind in ("object", "map") else None
            run = selecting.optional_field(operand.run, _key(inner, node.field), convert)
        else:
            run = selecting.field_of(operand.run, node.field)
        return Code(run, operand.cost + 1, attribute=operand.attribute)

    def _path(self, node: Select) -> Code:
        """Plan a chain of fields at once, as far as nothing within has to be converted."""
        keys: list[str] = []
        current: Node = node
        while isinstance(current, Select) and not current.test and current.constant is None and not current.variable:
            if current.operand.type.kind not in ("object", "map"):
                break
            if current is not node and _selected_converter(current) is not None:
                break
            keys.append(_key(current.operand.type, current.field))
            current = current.operand
        root = self.plan(current)
        run = selecting.path(root.run, tuple(reversed(keys)), _selected_converter(node))
        return Code(run, root.cost + len(keys), attribute=root.attribute)

    # Calls

    def _call(self, node: Call) -> Code:
        special = _SPECIAL.get(node.function)
        if special is not None:
            return special(self, node)
        arguments = [self.plan(each) for each in node.arguments]
        if node.function == "matches" and arguments[1].constant and len(node.overloads) == 1:
            planned = _matches_constant(arguments[0], arguments[1].value)
            if planned is not None:
                return planned
        dynamic = not all(each.type.kind in _PRECISE for each in node.arguments)
        code = calling.call(node.function, node.overloads, arguments, dynamic)
        if node.function in _CONVERSIONS and len(arguments) == 1 and arguments[0].constant:
            return _folded(code)
        return code

    def _logical(self, node: Call) -> Code:
        terms = [self.plan(each) for each in _terms(node, node.function)]
        return logic.logical(terms, decisive=node.function == "_||_")

    def _conditional(self, node: Call) -> Code:
        condition, then, otherwise = (self.plan(each) for each in node.arguments)
        return logic.conditional(condition, then, otherwise)

    def _equality(self, node: Call) -> Code:
        left, right = node.arguments
        kinds = (left.type.kind, right.type.kind)
        return logic.equality(self.plan(left), self.plan(right), kinds, wanted=node.function == "_==_")

    def _order(self, node: Call) -> Code:
        left, right = (self.plan(each) for each in node.arguments)
        kinds = (node.arguments[0].type.kind, node.arguments[1].type.kind)
        planned = logic.order(left, right, node.function, kinds)
        if planned is not None:
            return planned
        dynamic = not all(each.type.kind in _PRECISE for each in node.arguments)
        return calling.call(node.function, node.overloads, [left, right], dynamic)

    def _membership(self, node: Call) -> Code:
        return logic.membership(self.plan(node.arguments[0]), self.plan(node.arguments[1]))

    def _index(self, node: Call) -> Code:
        operand, index = (self.plan(each) for each in node.arguments)
        run = selecting.element(operand.run, index.run)
        return Code(run, operand.cost + index.cost + (not index.attribute), attribute=operand.attribute)

    def _optional_index(self, node: Call) -> Code:
        operand, index = (self.plan(each) for each in node.arguments)
        return Code(selecting.optional_element(operand.run, index.run), operand.cost + index.cost + 1)

    def _optional_select(self, node: Call) -> Code:
        target = node.arguments[0].type
        field = node.arguments[1]
        assert isinstance(field, Literal)
        if target.kind == "optional":
            target = target.parameters[0]
        inner = node.type.parameters[0] if node.type.kind == "optional" else node.type
        convert = converter(inner) if target.kind in ("object", "map") else None
        operand = self.plan(node.arguments[0])
        return Code(selecting.optional_field(operand.run, _key(target, field.value), convert), operand.cost + 1)

    def _optional_or(self, node: Call) -> Code:
        first, second = (self.plan(each) for each in node.arguments)
        choose = optionals.either if node.function == "or" else optionals.value_or
        return choose(first, second)

    # Aggregates

    def _list(self, node: ListNode) -> Code:
        elements = [self.plan(each) for each in node.elements]
        runs = [each.run for each in elements]
        cost = sum(each.cost for each in elements) + LIST_BASE
        if not node.optional:
            if all(each.constant for each in elements):
                return constant([each.value for each in elements])
            return Code(lambda frame: [run(frame) for run in runs], cost)
        flagged = [(run, index in node.optional) for index, run in enumerate(runs)]
        return Code(lambda frame: _with_optional(frame, flagged), cost)

    def _map(self, node: MapNode) -> Code:
        entries = [(self.plan(each.key), self.plan(each.value), each.optional) for each in node.entries]
        cost = sum(key.cost + value.cost for key, value, _ in entries) + MAP_BASE
        runs = [(key.run, value.run, optional) for key, value, optional in entries]
        if all(key.constant and value.constant and not optional for key, value, optional in entries):
            return _folded(Code(lambda frame: _made_map(frame, runs)))
        return Code(lambda frame: _made_map(frame, runs), cost)

    def _struct(self, node: StructNode) -> Code:
        runs = []
        cost = STRUCT_BASE
        for entry in node.entries:
            assert isinstance(entry.key, Literal)
            value = self.plan(entry.value)
            cost += value.cost
            runs.append((constant(_key(node.type, entry.key.value)).run, value.run, entry.optional))
        return Code(lambda frame: Struct(node.type, _made_map(frame, runs)), cost)

    # Macros

    def _fold(self, node: Fold) -> Code:
        over = self.plan(node.range)
        scope = {node.variable: self._place()}
        if node.second:
            scope[node.second] = self._place()
        self._locals.append(scope)
        condition = self.plan(node.condition) if node.condition is not None else None
        body = self.plan(node.body) if node.body is not None else None
        self._locals.pop()
        second = scope[node.second] if node.second else 0
        return folding.fold(folding.Loop(node.kind, over, scope[node.variable], second, condition, body))

    def _bind(self, node: Bind) -> Code:
        value = self.plan(node.value)
        slot = self._place()
        self._locals.append({node.variable: slot})
        body = self.plan(node.body)
        self._locals.pop()
        compute, use = value.run, body.run

        def run(frame: Frame) -> Value:
            frame[slot] = compute(frame)
            return use(frame)

        return Code(run, value.cost + body.cost)

    def _opt_map(self, node: OptMap) -> Code:
        target = self.plan(node.target)
        slot = self._place()
        self._locals.append({node.variable: slot})
        body = self.plan(node.body)
        self._locals.pop()
        return optionals.mapped(target, slot, body, node.flat)


def _key(target: Type, field: str) -> str:
    return target.json_names.get(field, field) if isinstance(target, ObjectType) else field


def _selected_converter(node: Select) -> Converter | None:
    """Return what makes values of a field's data."""
    return converter(node.type)


def _terms(node: Node, function: str) -> list[Node]:
    """Return the operands of a tree of one logical operator, from left to right."""
    if isinstance(node, Call) and node.function == function:
        return [term for each in node.arguments for term in _terms(each, function)]
    return [node]


def _folded(code: Code) -> Code:
    """Return the value of code that reads nothing, or the code if it has none: it fails when it is reached."""
    try:
        return constant(code.run([0, COST_MAXIMUM, None]))
    except EvaluationError:
        return code


def _matches_constant(text: Code, pattern: Value) -> Code | None:
    """Plan `matches` with a literal pattern; None for one that fails when it is reached."""
    try:
        regex = patterns.compiled(pattern)
    except EvaluationError:
        return None
    search = regex.search
    pattern_cost = string_cost(len(pattern), REGEX_FACTOR)
    operand = text.run

    def run(frame: Frame) -> Value:
        value = operand(frame)
        if value.__class__ is not str:
            raise EvaluationError("no such overload")
        frame[SPENT] += traversal(1 + len(value)) * pattern_cost
        return search(value) is not None

    return Code(run, text.cost)


def _with_optional(frame: Frame, flagged: list[tuple[Run, bool]]) -> list[Value]:
    result = []
    for run, optional in flagged:
        value = run(frame)
        if not optional:
            result.append(value)
            continue
        if value.__class__ is not Optional:
            raise EvaluationError(f"cannot initialize optional list element from non-optional value {value}")
        if value.present:
            result.append(value.value)
    return result


def _made_map(frame: Frame, entries: list[tuple[Run, Run, bool]]) -> dict[Value, Value]:
    result: dict[Value, Value] = {}
    for key_run, value_run, optional in entries:
        key = key_run(frame)
        value = value_run(frame)
        if optional:
            if value.__class__ is not Optional:
                raise EvaluationError(f"cannot initialize optional entry '{key}' from non-optional value {value}")
            if not value.present:
                continue
            value = value.value
        try:
            result[key] = value
        except TypeError as error:
            raise EvaluationError("unsupported key type") from error
    return result


_SPECIAL: Final = {
    "_&&_": Planner._logical,
    "_||_": Planner._logical,
    "_?_:_": Planner._conditional,
    "_==_": Planner._equality,
    "_!=_": Planner._equality,
    "_<_": Planner._order,
    "_<=_": Planner._order,
    "_>_": Planner._order,
    "_>=_": Planner._order,
    "@in": Planner._membership,
    "_[_]": Planner._index,
    "_[?_]": Planner._optional_index,
    "_?._": Planner._optional_select,
    "or": Planner._optional_or,
    "orValue": Planner._optional_or,
}
