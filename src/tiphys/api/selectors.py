"""Label and field selectors: the texts of list requests, and the selectors inside objects.

A parsed selector is a list of requirements that must all hold. Texts that do not parse are refused as a 400 in
upstream's words; selectors of objects were validated when they were written (`validate_label_selector`).

Spec: Kubernetes documentation, "Labels and selectors" and "Field selectors".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tiphys.api.causes import forbidden, go_quote, invalid_value, required
from tiphys.api.names import is_good_label, validate_label_value, validate_qualified_name
from tiphys.api.views import meta
from tiphys.base.errors import Cause, bad_request

IN = "in"
NOT_IN = "notin"
EQUALS = "="
DOUBLE_EQUALS = "=="
NOT_EQUALS = "!="
EXISTS = "exists"
DOES_NOT_EXIST = "!"
GREATER = "gt"
LESS = "lt"


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    """One condition on one label. `operator` is a constant of this module; `values` are sorted."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "in" | "=" | "==":
                return value is not None and value in self.values
            case "notin" | "!=":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
            case _:
                return value is not None and self._compare(value)

    def _compare(self, value: str) -> bool:
        number, bound = _integer(value), _integer(self.values[0])
        if number is None or bound is None:
            return False
        return number > bound if self.operator == GREATER else number < bound

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(self.values)})"
            case "gt":
                return f"{self.key}>{self.values[0]}"
            case "lt":
                return f"{self.key}<{self.values[0]}"
            case _:
                return f"{self.key}{self.operator}{self.values[0]}"


def _integer(text: str) -> int | None:
    try:
        number = int(text) if text.lstrip("+-").isdigit() else None
    except ValueError:
        return None
    return number if number is not None and -(2**63) <= number < 2**63 else None


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements must hold; none at all matches everything. `nothing` True matches no object."""

    requirements: tuple[LabelRequirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        if self.nothing:
            return False
        labels = labels or {}
        return all(requirement.matches(labels) for requirement in self.requirements)

    @property
    def empty(self) -> bool:
        """True if it matches everything."""
        return not self.requirements and not self.nothing

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)

_SPECIAL = "=!(),><"
_SPACE = " \t\r\n"
_SYMBOLS = frozenset([")", ",", "!", "==", "=", "!=", "(", ">", "<"])
_KEYWORDS = frozenset([IN, NOT_IN])
_OPERATORS = {
    "in": IN,
    "notin": NOT_IN,
    "=": EQUALS,
    "==": DOUBLE_EQUALS,
    "!=": NOT_EQUALS,
    ">": GREATER,
    "<": LESS,
}
_EXPECTED_OPERATORS = "in, notin, =, ==, !=, gt, lt"


@dataclass(frozen=True, slots=True)
class _Token:
    """`kind` is the symbol or keyword itself, `id` for other words, `end`, or `error` (then `text` says why)."""

    kind: str
    text: str


def _symbol(text: str, start: int) -> tuple[_Token, int]:
    """Return the longest symbol at a position and where it ends."""
    found, position = "", start
    buffer = ""
    while position < len(text) and text[position] in _SPECIAL:
        buffer += text[position]
        if buffer in _SYMBOLS:
            found = buffer
        elif found:
            break
        position += 1
    if not found:
        return _Token("error", f"error expected: keyword found '{buffer}'"), position
    return _Token(found, found), start + len(found)


def _tokens(text: str) -> list[_Token]:
    tokens = []
    position = 0
    while position < len(text):
        char = text[position]
        if char in _SPACE:
            position += 1
        elif char in _SPECIAL:
            token, position = _symbol(text, position)
            tokens.append(token)
        else:
            start = position
            while position < len(text) and text[position] not in _SPECIAL and text[position] not in _SPACE:
                position += 1
            word = text[start:position]
            tokens.append(_Token(word if word in _KEYWORDS else "id", word))
    tokens.append(_Token("end", ""))
    return tokens


class _Refused(Exception):
    """A requirement that does not parse; the message is upstream's."""


class _Parser:
    """Reads requirements from tokens. Raises _Refused inside a requirement, ApiError between them."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._position = 0

    def _peek(self, values: bool = True) -> _Token:
        """Return the next token; where a value may stand, `in` and `notin` are ordinary words."""
        token = self._tokens[min(self._position, len(self._tokens) - 1)]
        return _Token("id", token.text) if values and token.kind in _KEYWORDS else token

    def _take(self, values: bool = True) -> _Token:
        token = self._peek(values)
        self._position += 1
        return token

    def parse(self) -> list[LabelRequirement]:
        requirements: list[LabelRequirement] = []
        while True:
            token = self._peek()
            if token.kind == "end":
                return requirements
            if token.kind not in ("id", "!"):
                raise bad_request(f"found '{token.text}', expected: !, identifier, or 'end of string'")
            try:
                requirements.append(self._requirement())
            except _Refused as refused:
                raise bad_request(f"unable to parse requirement: {refused}") from None
            token = self._take()
            if token.kind == "end":
                return requirements
            if token.kind != ",":
                raise bad_request(f"found '{token.text}', expected: ',' or 'end of string'")
            token = self._peek()
            if token.kind not in ("id", "!"):
                raise bad_request(f"found '{token.text}', expected: identifier after ','")

    def _requirement(self) -> LabelRequirement:
        token = self._take()
        absent = token.kind == "!"
        if absent:
            token = self._take()
        if token.kind != "id":
            raise _Refused(f"found '{token.text}', expected: identifier")
        key = token.text
        complaints = validate_qualified_name(key)
        if complaints:
            raise _Refused(f"<nil>: Invalid value: {go_quote(key)}: {'; '.join(complaints)}")
        if absent:
            return LabelRequirement(key, DOES_NOT_EXIST)
        if self._peek().kind in ("end", ","):
            return LabelRequirement(key, EXISTS)
        token = self._take(values=False)
        operator = _OPERATORS.get(token.kind)
        if operator is None:
            raise _Refused(f"found '{token.text}', expected: {_EXPECTED_OPERATORS}")
        values = self._values() if operator in (IN, NOT_IN) else [self._exact_value()]
        return _checked(key, operator, sorted(set(values)))

    def _exact_value(self) -> str:
        if self._peek().kind in ("end", ","):
            return ""
        token = self._take()
        if token.kind != "id":
            raise _Refused(f"found '{token.text}', expected: identifier")
        return token.text

    def _values(self) -> list[str]:
        token = self._take()
        if token.kind != "(":
            raise _Refused(f"found '{token.text}' expected: '('")
        token = self._peek()
        if token.kind == ")":
            self._take()
            return []
        if token.kind not in ("id", ","):
            raise _Refused(f"found '{token.text}', expected: ',', ')' or identifier")
        values: list[str] = []
        while True:
            token = self._take()
            if token.kind == "id":
                values.append(token.text)
                following = self._peek()
                if following.kind not in (",", ")"):
                    raise _Refused(f"found '{following.text}', expected: ',' or ')'")
            elif token.kind == ",":
                if not values:
                    values.append("")
                if self._peek().kind in (",", ")"):
                    values.append("")
                elif self._peek().kind != "id":
                    raise _Refused(f"found '{self._peek().text}', expected: ',', or identifier")
            if self._peek().kind == ")":
                self._take()
                return values


def _checked(key: str, operator: str, values: list[str]) -> LabelRequirement:
    """Return the requirement if its values fit its operator."""
    if operator in (IN, NOT_IN) and not values:
        raise _Refused("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")
    faults = []
    if operator in (GREATER, LESS) and _integer(values[0]) is None:
        faults.append(
            f"values[0]: Invalid value: {go_quote(values[0])}: for 'Gt', 'Lt' operators, the value must be an integer"
        )
    for index, value in enumerate(values):
        complaints = validate_label_value(value)
        if complaints:
            faults.append(f"values[{index}][{key}]: Invalid value: {go_quote(value)}: {'; '.join(complaints)}")
    if faults:
        raise _Refused(faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]")
    return LabelRequirement(key, operator, tuple(values))


@lru_cache(maxsize=1024)
def parse_label_selector(text: str) -> LabelSelector:
    """Return the selector of a `labelSelector` parameter. Raises ApiError 400 in upstream's words."""
    if not text:
        return EVERYTHING
    requirements = _Parser(text).parse()
    return LabelSelector(tuple(sorted(requirements, key=lambda requirement: requirement.key)))


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One condition on one field. `operator` is = or != (== reads as =)."""

    field: str
    operator: str
    value: str

    def __iter__(self) -> Iterator[str]:
        return iter((self.field, self.operator, self.value))

    def matches(self, value: str) -> bool:
        return (value == self.value) == (self.operator == EQUALS)


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All requirements must hold; unpack one as (field, operator, value)."""

    requirements: tuple[FieldRequirement, ...] = ()

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Return whether the values fit; an absent field counts as empty."""
        return all(requirement.matches(fields.get(requirement.field, "")) for requirement in self.requirements)

    @property
    def empty(self) -> bool:
        return not self.requirements

    def __str__(self) -> str:
        return ",".join(f"{r.field}{r.operator}{_escape(r.value)}" for r in self.requirements)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def _unescape(value: str) -> str:
    if "\\" not in value and "=" not in value and "," not in value:
        return value
    result = []
    position = 0
    while position < len(value):
        char = value[position]
        if char == "\\":
            following = value[position + 1 : position + 2]
            if following not in ("\\", ",", "=") or not following:
                raise bad_request(f"invalid field selector: invalid escape sequence: \\{following}")
            result.append(following)
            position += 2
            continue
        if char in ",=":
            raise bad_request(f"invalid field selector: unescaped character in value: {ord(char)}")
        result.append(char)
        position += 1
    return "".join(result)


def _terms(text: str) -> list[str]:
    """Split at commas that are not escaped."""
    terms = [""]
    escaped = False
    for char in text:
        if char == "," and not escaped:
            terms.append("")
            continue
        terms[-1] += char
        escaped = char == "\\" and not escaped
    return terms


def _split_term(term: str) -> tuple[str, str, str] | None:
    for index in range(len(term)):
        for operator in ("!=", "==", "="):
            if term.startswith(operator, index):
                return term[:index], operator, term[index + len(operator) :]
    return None


@lru_cache(maxsize=1024)
def parse_field_selector(text: str) -> FieldSelector:
    """Return the selector of a `fieldSelector` parameter. Raises ApiError 400 in upstream's words."""
    requirements = []
    for term in _terms(text):
        if not term:
            continue
        parts = _split_term(term)
        if parts is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        field, operator, value = parts
        operator = EQUALS if operator == DOUBLE_EQUALS else operator
        requirements.append(FieldRequirement(field, operator, _unescape(value)))
    return FieldSelector(tuple(sorted(requirements, key=lambda r: r.field)))


_EXPRESSION_OPERATORS = {"In": IN, "NotIn": NOT_IN, "Exists": EXISTS, "DoesNotExist": DOES_NOT_EXIST}


def selector_of(selector: meta.LabelSelector | Mapping[str, Any] | None) -> LabelSelector:
    """Return the selector that an object holds. None matches nothing, an empty one everything.

    Raises ApiError 400 for an operator that validation would have refused.
    """
    if selector is None:
        return NOTHING
    if isinstance(selector, meta.LabelSelector):
        match_labels: Mapping[str, str] = selector.match_labels
        expressions = [(e.key, e.operator, e.values) for e in selector.match_expressions]
    else:
        match_labels = selector.get("matchLabels") or {}
        expressions = [
            (e.get("key", ""), e.get("operator", ""), tuple(e.get("values") or ()))
            for e in selector.get("matchExpressions") or ()
        ]
    requirements = [LabelRequirement(key, EQUALS, (value,)) for key, value in match_labels.items()]
    for key, operator, values in expressions:
        known = _EXPRESSION_OPERATORS.get(operator)
        if known is None:
            raise bad_request(f"{go_quote(operator)} is not a valid label selector operator")
        requirements.append(LabelRequirement(key, known, tuple(sorted(set(values)))))
    return LabelSelector(tuple(sorted(requirements, key=lambda requirement: requirement.key)))


def selector_of_labels(labels: Mapping[str, str] | None) -> LabelSelector:
    """Return the selector of a plain map, as Services and ReplicationControllers hold it. None or {} matches nothing."""
    return selector_of({"matchLabels": labels}) if labels else NOTHING


def validate_labels(labels: Mapping[str, str], path: str) -> list[Cause]:
    """Return the causes of bad label keys and values."""
    causes = []
    for key, value in labels.items():
        if not is_good_label(key, value):
            causes += [invalid_value(path, key, complaint) for complaint in validate_qualified_name(key)]
            causes += [invalid_value(path, value, complaint) for complaint in validate_label_value(value)]
    return causes


def validate_label_selector(selector: Mapping[str, Any] | None, path: str) -> list[Cause]:
    """Return the causes of a bad metav1.LabelSelector at a path; None has none."""
    if selector is None:
        return []
    causes = validate_labels(selector.get("matchLabels") or {}, f"{path}.matchLabels")
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        causes += _validate_expression(expression, f"{path}.matchExpressions[{index}]")
    return causes


def _validate_expression(expression: Mapping[str, Any], path: str) -> list[Cause]:
    causes = []
    operator, values = expression.get("operator", ""), expression.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            causes.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            causes.append(forbidden(f"{path}.values", detail))
    else:
        causes.append(invalid_value(f"{path}.operator", operator, "not a valid selector operator"))
    key = expression.get("key", "")
    causes += [invalid_value(f"{path}.key", key, complaint) for complaint in validate_qualified_name(key)]
    for index, value in enumerate(values):
        causes += [
            invalid_value(f"{path}.values[{index}]", value, complaint) for complaint in validate_label_value(value)
        ]
    return causes


__all__ = [
    "EVERYTHING",
    "NOTHING",
    "FieldRequirement",
    "FieldSelector",
    "LabelRequirement",
    "LabelSelector",
    "parse_field_selector",
    "parse_label_selector",
    "selector_of",
    "selector_of_labels",
    "validate_label_selector",
    "validate_labels",
]
