"""What evaluating a tree costs at least and at most, before there is data.

Reads a checked tree and asks for sizes of data by paths; rules and policies that may cost too much are refused by the
result. Macros cost what upstream's expansions of them cost. Invariant: the numbers are upstream's, since they decide
which definitions a server accepts.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes", "Estimated cost limits"; a test for presence
costs nothing there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tiphys.cel.cost import (
    ANY_SIZE,
    LIST_BASE,
    MAP_BASE,
    NO_COST,
    ONE,
    STRING_FACTOR,
    STRUCT_BASE,
    CostRange,
    Operand,
    Sizes,
)
from tiphys.cel.declarations import Overload
from tiphys.cel.syntax import Bind, Call, Fold, Ident, ListNode, Literal, MapNode, Node, OptMap, Select, StructNode
from tiphys.cel.types import Type
from tiphys.cel.values import Value

_SCALARS: Final = frozenset({"bool", "double", "duration", "int", "timestamp", "uint"})
_EMPTY: Final = CostRange(0, 0)


@dataclass(frozen=True, slots=True)
class _Entries:
    """How large the keys (or indices) and the elements of a list or map are."""

    kind: str
    key: CostRange
    value: CostRange

    def union(self, other: _Entries | None) -> _Entries | None:
        return other and _Entries(self.kind, self.key.union(other.key), self.value.union(other.value))


@dataclass(frozen=True, slots=True)
class _Local:
    path: tuple[str, ...]
    size: CostRange | None
    entries: _Entries | None


def estimate(tree: Node, sizes: Sizes) -> CostRange:
    """Return the cost of a checked tree."""
    return _Estimator(sizes).cost(tree)


class _Estimator:
    """What is known of the nodes so far, by their identity, and of the variables of macros."""

    def __init__(self, sizes: Sizes) -> None:
        self._ask = sizes
        self._sizes: dict[int, CostRange] = {}
        self._entries: dict[int, _Entries] = {}
        self._paths: dict[int, tuple[str, ...]] = {}
        self._scopes: list[dict[str, _Local]] = []

    def cost(self, node: Node) -> CostRange:
        """Return the cost of a node with all below it, and remember what sizes it has."""
        match node:
            case Ident():
                local = self._local(node.name)
                self._paths[id(node)] = local.path if local else (node.name,)
                return ONE
            case Select():
                return self._select(node)
            case Call():
                return self._call(node)
            case ListNode():
                return self._list(node)
            case MapNode():
                return self._map(node)
            case StructNode():
                return self._sum(self.cost(entry.value) for entry in node.entries) + CostRange(STRUCT_BASE, STRUCT_BASE)
            case Fold():
                return self._fold(node)
            case Bind():
                return self._bind(node)
            case OptMap():
                return self._opt_map(node)
            case _:
                return NO_COST

    # Sizes

    def _local(self, name: str) -> _Local | None:
        return next((scope[name] for scope in reversed(self._scopes) if name in scope), None)

    def _path(self, node: Node) -> tuple[str, ...]:
        if isinstance(node, Ident):
            local = self._local(node.name)
            if local is not None:
                return local.path
        return self._paths.get(id(node), ())

    def _size(self, node: Node) -> CostRange | None:
        known = self._sizes.get(id(node)) or _literal_size(node)
        if known is not None:
            return known
        path = self._path(node)
        asked = self._ask(path) if path else None
        if asked is not None:
            return asked
        if _is_scalar(node.type):
            return ONE
        local = self._local(node.name) if isinstance(node, Ident) else None
        return local.size if local else None

    def _size_or_any(self, node: Node) -> CostRange:
        return self._size(node) or ANY_SIZE

    def _entries_of(self, node: Node) -> _Entries | None:
        found = self._entries.get(id(node))
        if found is None and isinstance(node, Ident):
            local = self._local(node.name)
            found = local.entries if local else None
        return found

    def _operand(self, node: Node) -> Operand:
        path = self._path(node)
        element = self._ask((*path, "@items")) if path and node.type.kind == "list" else None
        constant: Value = node.value if isinstance(node, Literal) else None
        return Operand(node.type, self._size_or_any(node), path, element, constant)

    # Nodes

    @staticmethod
    def _sum(costs: Iterable[CostRange]) -> CostRange:
        total = NO_COST
        for each in costs:
            total = total + each
        return total

    def _select(self, node: Select) -> CostRange:
        if node.constant is not None or node.variable:
            self._paths[id(node)] = (node.variable,) if node.variable else ()
            return ONE
        cost = self.cost(node.operand)
        if node.test:
            return cost
        if node.operand.type.kind in ("map", "object"):
            cost = cost + ONE
        self._paths[id(node)] = (*self._path(node.operand), node.field)
        return cost

    def _list(self, node: ListNode) -> CostRange:
        cost = self._sum(self.cost(each) for each in node.elements)
        self._entries[id(node)] = _Entries("list", ONE, self._widest(node.elements))
        return cost + CostRange(LIST_BASE, LIST_BASE)

    def _map(self, node: MapNode) -> CostRange:
        cost = self._sum(self.cost(each) for entry in node.entries for each in (entry.key, entry.value))
        keys = self._widest([entry.key for entry in node.entries])
        self._entries[id(node)] = _Entries("map", keys, self._widest([entry.value for entry in node.entries]))
        return cost + CostRange(MAP_BASE, MAP_BASE)

    def _widest(self, nodes: list[Node]) -> CostRange:
        sizes = [self._size_or_any(each) for each in nodes]
        return CostRange(min(each.min for each in sizes), max(each.max for each in sizes)) if sizes else _EMPTY

    # Calls

    def _call(self, node: Call) -> CostRange:
        arguments = node.arguments
        costs = [self.cost(each) for each in arguments]
        if node.function == "dyn":
            self._copy(node, arguments[0])
            return costs[0] + ONE
        if node.function in ("_&&_", "_||_"):
            return CostRange(costs[0].min, (costs[0] + costs[1]).max)
        if node.function == "_?_:_":
            self._sizes[id(node)] = self._size_or_any(arguments[1]).union(self._size_or_any(arguments[2]))
            self._join_entries(node, arguments[1], arguments[2])
            return costs[0] + costs[1].union(costs[2])
        operands = [self._operand(each) for each in arguments]
        found = [self._overload(node, overload, operands) for overload in node.overloads]
        cost = CostRange(min(each.min for each, _ in found), max(each.max for each, _ in found))
        size = next((each for _, each in found if each is not None), None)
        for _, each in found:
            size = size.union(each) if size is not None and each is not None else size
        if node.function == "_[_]":
            size = self._index(node) or size
        elif node.function == "_+_":
            self._join_entries(node, arguments[0], arguments[1])
        if size is not None:
            self._sizes[id(node)] = size
        return self._sum(costs) + cost

    def _overload(self, node: Call, overload: Overload, operands: list[Operand]) -> tuple[CostRange, CostRange | None]:
        if node.function == "_==_" and operands[0].type.kind == "opaque" and operands[0].type == operands[1].type:
            return self._opaque_equality(node), None
        if overload.cost is None:
            return ONE, None
        return overload.cost.estimate(operands)

    def _opaque_equality(self, node: Call) -> CostRange:
        """Compare opaque values: in one step, unless they were made from texts whose sizes are known."""
        sizes = [self._sizes.get(id(each)) for each in node.arguments]
        largest = max((each.max for each in sizes if each is not None), default=1) if all(sizes) else 1
        return CostRange(1, largest).times(STRING_FACTOR)

    def _index(self, node: Call) -> CostRange | None:
        for overload in node.overloads:
            if overload.id in ("index_list", "index_map"):
                step = "@items" if overload.id == "index_list" else "@values"
                self._paths[id(node)] = (*self._path(node.arguments[0]), step)
        entries = self._entries_of(node.arguments[0])
        return entries.value if entries else None

    def _join_entries(self, node: Node, one: Node, other: Node) -> None:
        first = self._entries_of(one)
        joined = first.union(self._entries_of(other)) if first else None
        if joined is not None:
            self._entries[id(node)] = joined

    def _copy(self, node: Node, source: Node) -> None:
        size, entries = self._size(source), self._entries_of(source)
        if size is not None:
            self._sizes[id(node)] = size
        if entries is not None:
            self._entries[id(node)] = entries

    # Macros

    def _bind(self, node: Bind) -> CostRange:
        cost = self.cost(node.value) + CostRange(LIST_BASE, LIST_BASE)
        local = _Local(self._path(node.value), self._size(node.value), self._entries_of(node.value))
        self._scopes.append({node.variable: local})
        cost = cost + self.cost(node.body)
        self._scopes.pop()
        self._copy(node, node.body)
        return cost

    def _opt_map(self, node: OptMap) -> CostRange:
        target = self.cost(node.target) + ONE
        self._scopes.append({node.variable: _Local((), None, None)})
        present = target + self.cost(node.body) + CostRange(LIST_BASE, LIST_BASE) + (NO_COST if node.flat else ONE)
        self._scopes.pop()
        return target + present.union(ONE)

    def _fold(self, node: Fold) -> CostRange:
        cost = self.cost(node.range)
        self._scopes.append(self._locals(node))
        condition = self.cost(node.condition) if node.condition is not None else NO_COST
        body = self.cost(node.body) if node.body is not None else ONE
        size = self._body_size(node)
        self._scopes.pop()
        count = self._size_or_any(node.range)
        self._remember(node, count, size)
        start, step, end = _loop_costs(node, condition, body)
        return cost + start + count * step + end

    def _locals(self, node: Fold) -> dict[str, _Local]:
        entries = self._entries_of(node.range)
        path = self._path(node.range)
        is_list = (entries.kind if entries else node.range.type.kind) == "list"
        key = _Local((*path, "@indices" if is_list else "@keys"), entries.key if entries else None, None)
        value = _Local((*path, "@items" if is_list else "@values"), entries.value if entries else None, None)
        if node.second:
            return {node.variable: key, node.second: value}
        return {node.variable: value if is_list else key}

    def _body_size(self, node: Fold) -> CostRange:
        if node.body is not None:
            return self._size_or_any(node.body)
        local = self._local(node.variable)
        path = local.path if local else ()
        return (
            self._ask(path)
            or (local.size if local else None)
            or (ONE if _is_scalar(node.type.parameters[0]) else ANY_SIZE)
        )

    def _remember(self, node: Fold, count: CostRange, size: CostRange) -> None:
        if node.type.kind == "bool":
            self._sizes[id(node)] = ONE
            return
        self._sizes[id(node)] = count
        if node.type.kind == "list":
            self._entries[id(node)] = _Entries("list", ONE, size.union(_EMPTY))


def _loop_costs(node: Fold, condition: CostRange, body: CostRange) -> tuple[CostRange, CostRange, CostRange]:
    """Return the costs of making the accumulator, of a step, and of the result, as upstream expands the macro."""
    if node.kind == "all":
        return NO_COST, CostRange(3, 3 + body.max), ONE
    if node.kind == "exists":
        return NO_COST, CostRange(4, 4 + body.max), ONE
    if node.kind == "exists_one":
        return NO_COST, body + CostRange(1, 2), CostRange(2, 2)
    if node.kind in ("transformMap", "transformMapEntry"):
        start = CostRange(MAP_BASE, MAP_BASE)
        step = body + (CostRange(3, 3) if node.kind == "transformMap" else CostRange(2, 2))
    else:
        start = CostRange(LIST_BASE, LIST_BASE)
        step = body + CostRange(LIST_BASE + 2, LIST_BASE + 2)
    if node.condition is not None:
        step = condition + step.union(ONE)
    return start, step, ONE


def _literal_size(node: Node) -> CostRange | None:
    if isinstance(node, Literal):
        size = len(node.value) if isinstance(node.value, str | bytes) else 1
    elif isinstance(node, ListNode):
        size = len(node.elements)
    elif isinstance(node, MapNode):
        size = len(node.entries)
    else:
        return None
    return CostRange(size, size)


def _is_scalar(type_: Type) -> bool:
    return type_.kind in _SCALARS or (type_.kind == "optional" and _is_scalar(type_.parameters[0]))
