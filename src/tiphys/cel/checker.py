"""The checker: what type each part of an expression has, which functions its calls may mean, and what does not fit.

Reads a tree of the parser and what an environment declares; writes types and overloads into the tree, for the planner.
It goes on after an error, with a type that fits everywhere, so each mistake is told once. Invariant: afterwards every
node has a type without parameters and every call at least one overload.

Spec: cel-spec, "Language Definition", the chapter "Gradual Type Checking"; aggregates must have elements of one type, as
Kubernetes asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from tiphys.cel import types, unify, validators
from tiphys.cel.declarations import Overload
from tiphys.cel.errors import Issue
from tiphys.cel.source import Source
from tiphys.cel.syntax import (
    Bind,
    Call,
    Entry,
    Fold,
    Ident,
    ListNode,
    Literal,
    MapNode,
    Node,
    OptMap,
    Select,
    StructNode,
    qualified_name,
)
from tiphys.cel.types import BOOL, DYN, ERROR, INT, STRING, ObjectType, Type, list_of, map_of, optional_of
from tiphys.cel.values import TypeValue, UInt, Value


def check(source: Source, tree: Node, names: Names) -> Type:
    """Annotate the tree and return the type of its value; raises CompileError."""
    checker = _Checker(source, names)
    checker.check(tree)
    for node in checker.checked:
        node.type = unify.settled(checker.bindings, node.type)
    if not checker.issues:
        for call in checker.checked:
            if isinstance(call, Call):
                checker.issues += [source.issue(*each) for each in validators.validate_call(call)]
    if checker.issues:
        raise source.error(checker.issues)
    return tree.type


class Names:
    """What an expression may name."""

    __slots__ = ("functions", "structs", "type_names", "variables")

    def __init__(
        self,
        variables: Mapping[str, Type],
        functions: Mapping[str, tuple[Overload, ...]],
        structs: Mapping[str, ObjectType],
        type_names: Mapping[str, Type],
    ) -> None:
        self.variables = variables
        self.functions = functions
        self.structs = structs
        """By the name that `Name{...}` says."""
        self.type_names = type_names
        """Names that are types as values, such as `int`."""


class _Checker:
    def __init__(self, source: Source, names: Names) -> None:
        self.issues: list[Issue] = []
        self.bindings: unify.Bindings = {}
        self.checked: list[Node] = []
        self._source = source
        self._names = names
        self._scopes: list[dict[str, Type]] = []
        self._parameters = 0

    def check(self, node: Node) -> Type:
        """Find the type of a node and everything below it."""
        match node:
            case Literal():
                node.type = literal_type(node.value)
            case Ident():
                node.type = self._ident(node)
            case Select():
                node.type = self._select(node)
            case Call():
                node.type = self._call(node)
            case ListNode():
                node.type = self._list(node)
            case MapNode():
                node.type = self._map(node)
            case StructNode():
                node.type = self._struct(node)
            case Fold():
                node.type = self._fold(node)
            case Bind():
                value = self.check(node.value)
                self._scopes.append({node.variable: value})
                node.type = self.check(node.body)
                self._scopes.pop()
            case OptMap():
                node.type = self._opt_map(node)
        self.checked.append(node)
        return node.type

    # Names

    def _variable(self, name: str, own: bool = False) -> Type | None:
        """Return the type of a variable; `own` asks for those of macros only."""
        if not name.startswith("."):
            for scope in reversed(self._scopes):
                if name in scope:
                    return scope[name]
        return None if own else self._names.variables.get(name.removeprefix("."))

    def _ident(self, node: Ident) -> Type:
        found = self._variable(node.name)
        if found is None:
            named = self._names.type_names.get(node.name.removeprefix("."))
            found = types.type_of(named) if named is not None else None
        return found or self._refuse(node, f"undeclared reference to '{node.name}' (in container '')")

    def _select(self, node: Select) -> Type:
        name = None if node.test else qualified_name(node)
        if (
            name is not None
            and name in self._names.variables
            and self._variable(name.split(".", 1)[0], own=True) is None
        ):
            node.variable = name
            return self._names.variables[name]
        if name is not None and self._variable(name.split(".", 1)[0] or name) is None:
            named = self._names.type_names.get(name.removeprefix("."))
            if named is not None:
                node.constant = TypeValue(named.name)
                return types.type_of(named)
        target = unify.substituted(self.bindings, self.check(node.operand))
        found = self._field(node, target, node.field, optional=False)
        return BOOL if node.test else found

    def _field(self, node: Node, target: Type, name: str, optional: bool) -> Type:
        """Return the type of a field; that of an optional is optional again."""
        wrapped = target.kind == "optional"
        if wrapped:
            target = unify.substituted(self.bindings, target.parameters[0])
        found = DYN
        if target.kind == "map":
            found = target.parameters[1]
        elif isinstance(target, ObjectType):
            field = target.fields.get(name)
            found = field if field is not None else self._refuse(node, f"undefined field '{name}'")
        elif target.kind == "parameter":
            unify.assignable(self.bindings, DYN, target)
        elif target.kind not in ("dyn", "error"):
            self._refuse(node, f"type '{shown(self.bindings, target)}' does not support field selection")
            found = ERROR
        return optional_of(found) if (wrapped or optional) and found.kind != "error" else found

    # Calls

    def _call(self, node: Call) -> Type:
        if node.function == "_?._":
            return self._optional_select(node)
        for each in node.arguments[1 if node.member else 0 :]:
            self.check(each)
        if node.member:
            prefix = qualified_name(node.arguments[0])
            name = f"{prefix}.{node.function}".removeprefix(".")
            if prefix is not None and name in self._names.functions:
                node.function, node.arguments, node.member = name, node.arguments[1:], False
            else:
                self.check(node.arguments[0])
        overloads = self._names.functions.get(node.function.removeprefix("."))
        if overloads is None:
            return self._refuse(node, f"undeclared reference to '{node.function}' (in container '')")
        return self._resolve(node, overloads)

    def _optional_select(self, node: Call) -> Type:
        operand, field = node.arguments
        target = unify.substituted(self.bindings, self.check(operand))
        self.check(field)
        assert isinstance(field, Literal)
        node.overloads = self._names.functions[node.function]
        return self._field(node, target, field.value, optional=True)

    def _resolve(self, node: Call, overloads: tuple[Overload, ...]) -> Type:
        """Choose the overloads that fit the arguments; the result is dyn if they do not agree on it."""
        arguments = tuple([each.type for each in node.arguments])
        if any(each.kind == "error" for each in arguments):
            return ERROR
        result: Type | None = None
        fitting = []
        for overload in overloads:
            if overload.member != node.member or len(overload.arguments) != len(arguments):
                continue
            fresh = self._fresh(overload)
            expected = tuple([unify.substituted(fresh, each) for each in overload.arguments])
            if unify.all_assignable(self.bindings, arguments, expected):
                fitting.append(overload)
                found = unify.substituted(self.bindings, unify.substituted(fresh, overload.result))
                result = found if result is None or result == found else DYN
        if result is None:
            return self._no_overload(node, node.function, arguments, node.member)
        node.overloads = tuple(fitting)
        return result

    def _fresh(self, overload: Overload) -> unify.Bindings:
        """Return new names for the type parameters of an overload."""
        fresh: unify.Bindings = {}
        for each in (*overload.arguments, overload.result):
            for name in _parameters(each):
                if name not in fresh:
                    fresh[name] = self._parameter()
        return fresh

    def _parameter(self) -> Type:
        self._parameters += 1
        return types.parameter(f"_var{self._parameters}")

    def _no_overload(self, node: Node, function: str, arguments: tuple[Type, ...], member: bool = False) -> Type:
        names = [shown(self.bindings, each) for each in arguments]
        signature = f"{names[0]}.({', '.join(names[1:])})" if member else f"({', '.join(names)})"
        return self._refuse(node, f"found no matching overload for '{function}' applied to '{signature}'")

    # Aggregates

    def _list(self, node: ListNode) -> Type:
        joined: Type | None = None
        for index, element in enumerate(node.elements):
            found = self._unwrapped(element, self.check(element), index in node.optional)
            joined = self._joined(element, joined, found)
        return list_of(joined or self._parameter())

    def _map(self, node: MapNode) -> Type:
        keys: Type | None = None
        values: Type | None = None
        for entry in node.entries:
            keys = self._joined(entry.key, keys, self.check(entry.key))
            found = self._unwrapped(entry.value, self.check(entry.value), entry.optional)
            values = self._joined(entry.value, values, found)
        return map_of(keys or self._parameter(), values or self._parameter())

    def _unwrapped(self, node: Node, found: Type, optional: bool) -> Type:
        """Return the type of the element that a possibly absent one has."""
        if not optional or found.kind in ("dyn", "error"):
            return found
        if found.kind == "optional":
            return found.parameters[0]
        return self._mismatch(node, optional_of(found), found)

    def _joined(self, node: Node, previous: Type | None, found: Type) -> Type:
        if previous is None:
            return found
        if unify.assignable(self.bindings, previous, found):
            return unify.most_general(previous, found)
        return self._mismatch(node, previous, found)

    def _struct(self, node: StructNode) -> Type:
        struct = self._names.structs.get(node.name.removeprefix("."))
        for entry in node.entries:
            self._struct_entry(struct, entry)
        if struct is not None:
            return struct
        if node.name.removeprefix(".") in self._names.type_names:
            return self._refuse(node, f"'{node.name}' is not a message type")
        return self._refuse(node, f"undeclared reference to '{node.name}' (in container '')")

    def _struct_entry(self, struct: ObjectType | None, entry: Entry) -> None:
        found = self._unwrapped(entry.value, self.check(entry.value), entry.optional)
        if struct is None:
            return
        assert isinstance(entry.key, Literal)
        name = entry.key.value
        field = struct.fields.get(name)
        if field is None:
            self._refuse_at(entry.offset, f"undefined field '{name}'")
        elif not unify.assignable(self.bindings, field, found):
            wanted, given = shown(self.bindings, field), shown(self.bindings, found)
            self._refuse_at(
                entry.offset, f"expected type of field '{name}' is '{wanted}' but provided type is '{given}'"
            )

    # Macros

    def _fold(self, node: Fold) -> Type:
        over = unify.substituted(self.bindings, self.check(node.range))
        key, value = self._elements(node.range, over)
        scope = {node.variable: key if node.second or over.kind == "map" else value}
        if node.second:
            scope[node.second] = value
        self._scopes.append(scope)
        condition = self.check(node.condition) if node.condition is not None else BOOL
        body = self.check(node.body) if node.body is not None else None
        self._scopes.pop()
        return self._fold_result(node, scope[node.variable], condition, body)

    def _opt_map(self, node: OptMap) -> Type:
        target = unify.substituted(self.bindings, self.check(node.target))
        value = self._parameter()
        if not unify.assignable(self.bindings, target, optional_of(value)):
            self._no_overload(node, "hasValue", (target,), member=True)
            value = ERROR
        self._scopes.append({node.variable: value if target.kind != "dyn" else DYN})
        body = self.check(node.body)
        self._scopes.pop()
        if not node.flat:
            return optional_of(body)
        absent = optional_of(self._parameter())
        if not unify.assignable(self.bindings, body, absent):
            return self._no_overload(node, "_?_:_", (BOOL, body, absent))
        return unify.substituted(self.bindings, absent)

    def _elements(self, node: Node, over: Type) -> tuple[Type, Type]:
        """Return the types of the index or key, and of the element or value."""
        if over.kind == "list":
            return INT, over.parameters[0]
        if over.kind == "map":
            return over.parameters[0], over.parameters[1]
        if over.kind == "parameter":
            unify.assignable(self.bindings, DYN, over)
            return DYN, DYN
        if over.kind not in ("dyn", "error"):
            name = shown(self.bindings, over)
            message = f"expression of type '{name}' cannot be range of a comprehension (must be list, map, or dynamic)"
            self._refuse(node, message)
            return ERROR, ERROR
        return over, over

    def _fold_result(self, node: Fold, key: Type, condition: Type, body: Type | None) -> Type:
        kind = node.kind
        if kind in ("all", "exists", "exists_one"):
            assert body is not None
            if kind == "exists_one":
                self._boolean(node, body, "_?_:_", (INT, INT))
                return BOOL
            if not unify.assignable(self.bindings, body, BOOL):
                self._no_overload(node, "_&&_" if kind == "all" else "_||_", (BOOL, body))
            return BOOL
        result = list_of(key if body is None else body)
        if kind == "transformMap" and body is not None:
            result = map_of(key, body)
        elif kind == "transformMapEntry" and body is not None:
            result = map_of(self._parameter(), self._parameter())
            if not unify.assignable(self.bindings, body, result):
                return self._no_overload(node, "cel.@mapInsert", (map_of(DYN, DYN), body))
        if node.condition is not None:
            self._boolean(node, condition, "_?_:_", (result, result))
        return result

    def _boolean(self, node: Node, condition: Type, function: str, others: tuple[Type, ...]) -> None:
        if not unify.assignable(self.bindings, condition, BOOL):
            self._no_overload(node, function, (condition, *others))

    # Errors

    def _refuse(self, node: Node, message: str) -> Type:
        return self._refuse_at(node.offset, message)

    def _refuse_at(self, offset: int, message: str) -> Type:
        self.issues.append(self._source.issue(offset, message))
        return ERROR

    def _mismatch(self, node: Node, expected: Type, actual: Type) -> Type:
        wanted, found = shown(self.bindings, expected), shown(self.bindings, actual)
        return self._refuse(node, f"expected type '{wanted}' but found '{found}'")


def shown(bindings: unify.Bindings, type_: Type) -> str:
    """Return a type as messages have it."""
    return str(unify.settled(bindings, type_))


def literal_type(value: Value) -> Type:
    """Return the type of a literal."""
    if value is None:
        return types.NULL
    by_class = {
        bool: BOOL,
        int: INT,
        UInt: types.UINT,
        float: types.DOUBLE,
        str: STRING,
        bytes: types.BYTES,
    }
    return by_class[type(value)]


def _parameters(type_: Type) -> list[str]:
    if type_.kind == "parameter":
        return [type_.name]
    return [name for each in type_.parameters for name in _parameters(each)]
