"""Validation rules of custom resources (x-kubernetes-validations): checked with a definition, run with every write.

`rule_causes` compiles the rules of one place of a schema and estimates what they may cost; `RuleTree` holds the
compiled rules of a whole schema and runs them over an object. A rule that speaks of `oldSelf` runs only where there is
an old value that corresponds (correlation.py), unless it says `optionalOldSelf`. Every rule may cost `PER_CALL_LIMIT`,
all rules of one write `WRITE_LIMIT`; beyond that the write is refused, whatever the rules would have said.

Spec: Kubernetes docs, "Extend the Kubernetes API with CustomResourceDefinitions", "Validation rules", "Transition
rules", "Resource use by validation functions"; KEP-2876, KEP-4008 (ratcheting).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from tiphys.api.causes import duplicate, forbidden, go_quote, invalid_value, required
from tiphys.api.cellibrary import libraries
from tiphys.api.celtypes import Declared, declare, escape_name, max_cardinality, sizes_of
from tiphys.api.correlation import Correlated, KeyedItems
from tiphys.api.schemapath import BadSchemaPath, resolve_schema_path
from tiphys.base.errors import Cause
from tiphys.cel import types
from tiphys.cel.cost import COST_MAXIMUM, Budget
from tiphys.cel.environment import Environment, Program
from tiphys.cel.errors import BudgetExceeded, CompileError, EvaluationError
from tiphys.cel.values import NONE, Optional

if TYPE_CHECKING:
    from tiphys.api.crdschema import Place

Schema = Mapping[str, Any]

RULE_COST_LIMIT = 10_000_000
DEFINITION_COST_LIMIT = 100_000_000
PER_CALL_LIMIT = 1_000_000
WRITE_LIMIT = 10_000_000
LIGHT_COST = 50_000
"""What rules may cost while other requests wait: some milliseconds."""
MESSAGE_LIMIT_BYTES = 5 * 1024
_TOLD_COSTS = 4
_OPTIONAL_FROM = 30
"""Kubernetes minor from which `optionalOldSelf` is honoured."""
_VALUES_SHOWN_FROM = 35
"""Kubernetes minor from which messages tell a scalar itself instead of its type."""
_RULES, _EMBEDDED = "x-kubernetes-validations", "x-kubernetes-embedded-resource"
_LIMIT_TEXT = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are "
    "declared)"
)


@cache
def _base(minor: int) -> Environment:
    return Environment({}, libraries(minor))


class _Environments:
    """What the rules of one place may name: `self`, and `oldSelf` in either form."""

    def __init__(self, declared: Declared, minor: int) -> None:
        self._type = declared.type
        self._minor = minor
        self._made: dict[bool, Environment] = {}

    def get(self, optional: bool) -> Environment:
        """Return the environment; `optional`: `oldSelf` may be absent."""
        if optional not in self._made:
            old = types.optional_of(self._type) if optional else self._type
            self._made[optional] = _base(self._minor).extend({"self": self._type, "oldSelf": old})
        return self._made[optional]


@dataclass(slots=True)
class CompiledRule:
    """One rule: its programs, or what is wrong with its texts."""

    rule: Schema
    program: Program | None = None
    message: Program | None = None
    error: str = ""
    message_error: str = ""
    uses_old: bool = False
    field_path: str = ""
    """Relative to the place of the rule, as errors show it."""

    @property
    def shown(self) -> str:
        """Return the rule as errors of its evaluation name it."""
        return (self.rule.get("message") or "").strip() or (self.rule.get("rule") or "").strip()

    @property
    def default_message(self) -> str:
        message = (self.rule.get("message") or "").strip()
        return message or f"failed rule: {self.shown}"


def compile_rules(schema: Schema, declared: Declared, minor: int) -> list[CompiledRule]:
    """Return the rules of one place of a schema, with their programs."""
    environments = _Environments(declared, minor)
    return [_compile_rule(rule, schema, environments) for rule in schema.get(_RULES) or ()]


def _compile_rule(rule: Schema, schema: Schema, environments: _Environments) -> CompiledRule:
    """Return a rule with its programs. An empty text gives none."""
    compiled = CompiledRule(rule)
    text = rule.get("rule") or ""
    if not text.strip():
        return compiled
    environment = environments.get(bool(rule.get("optionalOldSelf")))
    try:
        program = environment.compile(text)
    except CompileError as error:
        compiled.error = f"compilation failed: {error}"
        return compiled
    if program.result_type != types.BOOL:
        compiled.error = "cel expression must evaluate to a bool"
        return compiled
    compiled.program = program
    compiled.uses_old = "oldSelf" in program.variables
    _compile_message(compiled, environment)
    if rule.get("fieldPath"):
        try:
            compiled.field_path, _ = resolve_schema_path(rule["fieldPath"], schema)
        except BadSchemaPath:
            compiled.field_path = ""
    return compiled


def _compile_message(compiled: CompiledRule, environment: Environment) -> None:
    text = compiled.rule.get("messageExpression") or ""
    if not text:
        return
    try:
        program = environment.compile(text)
    except CompileError as error:
        compiled.message_error = f"messageExpression compilation failed: {error}"
        return
    if program.result_type != types.STRING:
        compiled.message_error = "messageExpression must evaluate to a string"
        return
    compiled.message = program


# Checking a definition


def rule_causes(
    schema: Schema, place: Place, minor: int, *, unchanged: bool = False
) -> tuple[list[Cause], list[tuple[int, str]]]:
    """Return what is wrong with the rules at one place of a schema, and (cost, path) of each.

    `unchanged` True: the schema was accepted before, so the limit of each rule does not bind it.
    """
    declared = declare(schema, place.root or bool(schema.get(_EMBEDDED)))
    where = f"{place.path}.{_RULES}"
    if declared is None:
        text = (
            "failed to construct type information for x-kubernetes-validations rules: "
            "unable to convert structural schema to CEL declarations"
        )
        return [Cause("InternalError", where, f"Internal error: internal error: {text}")], []
    often = max_cardinality(declared.min_bytes) if place.cardinality is None else place.cardinality
    causes: list[Cause] = []
    costs: list[tuple[int, str]] = []
    for index, compiled in enumerate(compile_rules(schema, declared, minor)):
        at = f"{where}[{index}]"
        for program, name, text, factor in (
            (compiled.program, "rule", "estimated rule cost", often),
            (compiled.message, "messageExpression", "estimated messageExpression cost", 1),
        ):
            if program is None:
                continue
            cost = min(program.estimate_cost(sizes_of(declared)).max * factor, COST_MAXIMUM)
            costs.append((cost, f"{at}.{name}"))
            if cost > RULE_COST_LIMIT and not unchanged:
                causes.append(forbidden(f"{at}.{name}", _too_costly(text, cost, RULE_COST_LIMIT)))
        causes += _compile_causes(compiled, at, place)
    return causes, costs


def _compile_causes(compiled: CompiledRule, path: str, place: Place) -> Iterator[Cause]:
    rule = compiled.rule
    if compiled.error:
        yield invalid_value(f"{path}.rule", _internal(rule), compiled.error)
    if compiled.message_error:
        yield invalid_value(f"{path}.messageExpression", _internal(rule), compiled.message_error)
    if compiled.uses_old:
        if place.uncorrelated:
            text = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {place.uncorrelated}"
            yield invalid_value(f"{path}.rule", rule["rule"], text)
    elif rule.get("optionalOldSelf") is not None:
        text = "may not be set if oldSelf is not used in rule"
        yield invalid_value(f"{path}.optionalOldSelf", rule["optionalOldSelf"], text)


def _internal(rule: Schema) -> dict[str, Any]:
    """Return a rule as messages show it: with upstream's own names of the fields."""
    return {
        "Rule": rule.get("rule") or "",
        "Message": rule.get("message") or "",
        "MessageExpression": rule.get("messageExpression") or "",
        "Reason": rule.get("reason"),
        "FieldPath": rule.get("fieldPath") or "",
        "OptionalOldSelf": rule.get("optionalOldSelf"),
    }


def _too_costly(what: str, cost: int, limit: int) -> str:
    times = cost / limit
    factor = "more than 100x" if times > 100 else f"{times:.6f}x" if times < 1.5 else f"{times:.1f}x"
    return f"{what} exceeds budget by factor of {factor} {_LIMIT_TEXT}"


def total_cost_causes(costs: list[tuple[int, str]], path: str) -> list[Cause]:
    """Return the causes of all rules of a schema together costing too much; the most costly are named."""
    total = min(sum(cost for cost, _ in costs), COST_MAXIMUM)
    if total <= DEFINITION_COST_LIMIT:
        return []
    text = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
    large = sorted((cost for cost in costs if cost[0] >= DEFINITION_COST_LIMIT // 100), key=lambda cost: -cost[0])
    causes = [forbidden(where, text) for _, where in large[:_TOLD_COSTS]]
    what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
    return [*causes, forbidden(path, _too_costly(what, total, DEFINITION_COST_LIMIT))]


# Running rules


class _Exhausted(Exception):
    """The write's budget is spent: no further rule runs. The cause that says so is told already."""


@dataclass(slots=True)
class _Node:
    """The rules of one place, and of all places below."""

    schema: Schema
    rules: list[CompiledRule]
    properties: dict[str, _Node] = field(default_factory=dict)
    values: _Node | None = None
    items: _Node | None = None


@dataclass(slots=True)
class _Run:
    """One write: what is wrong so far, and what may still be spent."""

    minor: int
    causes: list[Cause] = field(default_factory=list)
    left: int = WRITE_LIMIT


class RuleTree:
    """All rules of a schema, compiled. `validate` may be called again and again."""

    def __init__(self, schema: Schema, minor: int = 37) -> None:
        self._minor = minor
        self.is_heavy = False
        """Whether running all rules once may cost more than `LIGHT_COST`."""
        self._cost = 0
        self._root = self._compile(schema, declare(schema, root=True), 1)

    def _weigh(self, rules: list[CompiledRule], declared: Declared, times: int) -> None:
        sizes = sizes_of(declared)
        for rule in rules:
            if rule.program is not None:
                self._cost += rule.program.estimate_cost(sizes).max * times
        self.is_heavy = self._cost > LIGHT_COST

    def _compile(self, schema: Schema, declared: Declared | None, times: int) -> _Node | None:
        """Return the rules of a place that is there so many times at most, and of the places below."""
        if declared is None:
            return None
        rules = compile_rules(schema, declared, self._minor)
        self._weigh(rules, declared, times)
        node = _Node(schema, rules)
        for name, child in (schema.get("properties") or {}).items():
            below = self._compile(child, self._declared(declared, name, child), times)
            if below is not None:
                node.properties[name] = below
        if isinstance(schema.get("additionalProperties"), Mapping):
            node.values = self._compile(schema["additionalProperties"], declared.element, times * declared.max_elements)
        if isinstance(schema.get("items"), Mapping):
            node.items = self._compile(schema["items"], declared.element, times * declared.max_elements)
        below_any = node.properties or node.values is not None or node.items is not None
        return node if rules or below_any else None

    def _declared(self, declared: Declared, name: str, child: Schema) -> Declared | None:
        """Return what expressions see of a property; one that they cannot name still has rules of its own."""
        said = escape_name(name)
        if said is None:
            return declare(child, bool(child.get(_EMBEDDED)))
        return declared.fields.get(said)

    def validate(self, obj: Any, old: Any, before: Correlated | None) -> list[Cause]:
        """Return a cause for each rule that does not hold. `before`: what tells unchanged values, None for no such."""
        run = _Run(self._minor)
        if self._root is not None:
            try:
                _visit(run, self._root, "", obj, old, (before, None), root=True)
            except _Exhausted:
                pass
        return [Cause(c.type, c.field or "<nil>", c.message) for c in run.causes]


Ratchet = tuple[Correlated | None, Correlated | None]
"""The value with its old one, where they correspond; and the nearest such pair above."""


def _visit(run: _Run, node: _Node, path: str, obj: Any, old: Any, ratchet: Ratchet, *, root: bool = False) -> None:
    if obj is None:
        return
    for compiled in node.rules:
        _check(run, compiled, node.schema, path, (obj, old), ratchet)
    if isinstance(obj, dict):
        _visit_object(run, node, path, obj, old if isinstance(old, dict) else {}, ratchet, root)
    elif isinstance(obj, list) and node.items is not None:
        olds = old if isinstance(old, list) else []
        keyed = KeyedItems(node.schema, olds) if node.schema.get("x-kubernetes-list-type") == "map" else None
        current, above = ratchet
        for index, element in enumerate(obj):
            known = keyed.get(element) if keyed is not None else None
            below = (current.index(index), current) if current is not None else (None, above)
            _visit(run, node.items, f"{path}[{index}]", element, known, below)


def _visit_object(
    run: _Run, node: _Node, path: str, obj: dict[str, Any], old: dict[str, Any], ratchet: Ratchet, root: bool
) -> None:
    current, above = ratchet
    correlated = node.schema.get("x-kubernetes-map-type") in (None, "granular", "atomic")
    for name, element in obj.items():
        child = node.properties.get(name)
        where = f"{path}.{name}" if path else name
        if child is None:
            if node.values is None:
                continue
            child, where = node.values, f"{path}[{name}]"
        below: Ratchet = (current.key(name), current) if current is not None else (None, above)
        if root and name in ("apiVersion", "kind"):
            below = (None, None)
        _visit(run, child, where, element, old.get(name) if correlated else None, below)


def _check(
    run: _Run, compiled: CompiledRule, schema: Schema, path: str, values: tuple[Any, Any], ratchet: Ratchet
) -> None:
    obj, old = values
    kind = schema.get("type") or ""
    if compiled.error:
        run.causes.append(invalid_value(path, kind, f"rule compile error: {compiled.error}"))
        return
    if compiled.program is None:
        return
    optional = bool(compiled.rule.get("optionalOldSelf")) and run.minor >= _OPTIONAL_FROM
    if compiled.uses_old and old is None and not optional:
        return
    bindings: dict[str, Any] = {"self": obj}
    if compiled.uses_old:
        bindings["oldSelf"] = (NONE if old is None else Optional(old)) if optional else old
    if _evaluate(run, compiled, compiled.program, bindings, path, kind):
        return
    if not compiled.uses_old and _is_unchanged(ratchet):
        return
    where = f"{path}.{compiled.field_path}" if path and compiled.field_path else compiled.field_path or path
    detail = _message(run, compiled, bindings, where, kind)
    run.causes.append(_failed(where, obj, kind, detail, compiled.rule.get("reason"), run.minor))


def _is_unchanged(ratchet: Ratchet) -> bool:
    current, above = ratchet
    pair = current if current is not None else above
    return pair is not None and pair.is_same()


def _evaluate(
    run: _Run, compiled: CompiledRule, program: Program, bindings: Mapping[str, Any], path: str, kind: str
) -> bool:
    """Return whether a rule holds, or has told already why it could not be decided."""
    if run.left <= 0:
        _exhaust(run, path, kind, "validation failed")
    budget = Budget(PER_CALL_LIMIT)
    try:
        holds = program.evaluate(bindings, budget)
    except BudgetExceeded as error:
        _spend(run, budget, path, kind, "validation failed")
        text = f"'{error}': no further validation rules will be run due to call cost exceeds limit for rule"
        run.causes.append(invalid_value(path, kind, f"{text}: {compiled.shown}"))
        raise _Exhausted from None
    except EvaluationError as error:
        _spend(run, budget, path, kind, "validation failed")
        detail = f"{error} evaluating rule: {compiled.shown}"
        if str(error).startswith("no such overload"):
            detail = (
                f"'{error}': call arguments did not match a supported operator, function or macro signature for rule: "
                f"{compiled.shown}"
            )
        run.causes.append(invalid_value(path, kind, detail))
        return True
    _spend(run, budget, path, kind, "validation failed")
    return holds is True


def _spend(run: _Run, budget: Budget, path: str, kind: str, what: str) -> None:
    if budget.spent > run.left:
        _exhaust(run, path, kind, what)
    run.left -= budget.spent


def _exhaust(run: _Run, path: str, kind: str, what: str) -> None:
    text = f"{what} due to running out of cost budget, no further validation rules will be run"
    run.causes.append(invalid_value(path, kind, text))
    raise _Exhausted


def _message(run: _Run, compiled: CompiledRule, bindings: Mapping[str, Any], path: str, kind: str) -> str:
    """Return what a rule that does not hold says: by its expression if that gives one line of text."""
    if compiled.message is None:
        return compiled.default_message
    budget = Budget(PER_CALL_LIMIT)
    try:
        text = compiled.message.evaluate(bindings, budget)
    except BudgetExceeded:
        _spend(run, budget, path, kind, "messageExpression evaluation failed")
        shown = go_quote(compiled.rule["messageExpression"])
        detail = (
            f"no further validation rules will be run due to call cost exceeds limit for messageExpression: {shown}"
        )
        run.causes.append(invalid_value(path, kind, detail))
        raise _Exhausted from None
    except EvaluationError:
        text = ""
    _spend(run, budget, path, kind, "messageExpression evaluation failed")
    line = text.strip() if isinstance(text, str) else ""
    if not line or "\n" in line or len(line.encode("utf-8", "surrogatepass")) > MESSAGE_LIMIT_BYTES:
        return compiled.default_message
    return line


def _failed(path: str, value: Any, kind: str, detail: str, reason: str | None, minor: int) -> Cause:
    if reason == "FieldValueForbidden":
        return forbidden(path, detail)
    if reason == "FieldValueRequired":
        return required(path, detail)
    omitted = minor >= _VALUES_SHOWN_FROM and kind in ("object", "array")
    shown = value if minor >= _VALUES_SHOWN_FROM else kind
    if reason == "FieldValueDuplicate":
        return Cause("FieldValueDuplicate", path, "Duplicate value") if omitted else duplicate(path, shown)
    if omitted:
        return Cause("FieldValueInvalid", path, f"Invalid value: {detail}")
    return invalid_value(path, shown, detail)
