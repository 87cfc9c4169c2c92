"""Simple JSON paths: those of printer columns and selectable fields of custom resources.

Supported: field names (with `\\.` for a dot inside one), `['name']`, indexes (negative ones count from the end),
slices, `[*]`, `..name` and filters such as `[?(@.type=="Ready")]`. Not supported, and told so: unions, `range`,
functions, text around the path. A path is parsed once; finding never raises: what is not there is simply not found.

Spec: Kubernetes docs, "JSONPath Support".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

Step = Callable[[Any], Iterator[Any]]

_FIELD = re.compile(r"((?:\\.|[^.\[\]\\])+)")
_BRACKET = re.compile(r"\[(?:'((?:\\.|[^'])*)'|\"((?:\\.|[^\"])*)\"|(-?\d+)|(\*)|(-?\d*):(-?\d*))\]")
_FILTER = re.compile(
    r"\[\?\(\s*@((?:\.(?:\\.|[^.\s=!<>)\\])+)*)\s*(?:(==|!=|<=|>=|<|>)\s*(\"[^\"]*\"|'[^']*'|[^\s)]+)\s*)?\)\]"
)


class BadPath(ValueError):
    """The text is not a path that is understood here; the message says where it ends to be one."""


class JsonPath:
    """A parsed path."""

    def __init__(self, text: str, steps: tuple[Step, ...], simple: tuple[str, ...] | None) -> None:
        self.text = text
        self._steps = steps
        self.simple = simple
        """The field names, when the path is nothing but names; None otherwise."""

    def find(self, value: Any) -> list[Any]:
        """Return all values at the path, in order."""
        found = [value]
        for step in self._steps:
            found = [result for each in found for result in step(each)]
        return found

    def first(self, value: Any) -> Any:
        """Return the first value at the path, None when there is none."""
        if self.simple is not None:
            for name in self.simple:
                value = value.get(name) if type(value) is dict else None
            return value
        return next(iter(self.find(value)), None)


@cache
def parse_json_path(text: str) -> JsonPath:
    """Return the path. Raises BadPath."""
    rest = text.strip()
    if rest.startswith("{") and rest.endswith("}"):
        rest = rest[1:-1].strip()
    rest = rest.removeprefix("$")
    steps: list[Step] = []
    names: list[str] | None = []
    while rest:
        step, name, rest = _next_step(rest, text)
        steps.append(step)
        if name is None:
            names = None
        elif names is not None:
            names.append(name)
    return JsonPath(text, tuple(steps), tuple(names) if names is not None else None)


def _next_step(rest: str, text: str) -> tuple[Step, str | None, str]:
    """Return the step at the beginning of `rest`, its field name if it is one, and what follows."""
    if rest == ".":
        return _itself, None, ""
    if rest.startswith(".."):
        match = _FIELD.match(rest, 2)
        if match:
            return _anywhere(_unescape(match[1])), None, rest[match.end() :]
    elif rest.startswith(".") or not rest.startswith("["):
        match = _FIELD.match(rest, 1 if rest.startswith(".") else 0)
        if match:
            name = _unescape(match[1])
            return (_every, None, rest[match.end() :]) if name == "*" else (_named(name), name, rest[match.end() :])
    if rest.startswith(".["):
        rest = rest[1:]
    bracket = _BRACKET.match(rest)
    if bracket:
        step, name_of = _bracket_step(bracket)
        return step, name_of, rest[bracket.end() :]
    condition = _FILTER.match(rest)
    if condition:
        return _where(condition), None, rest[condition.end() :]
    raise BadPath(f"{text!r} is no JSON path that can be used here: do not know what to do with {rest!r}")


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _itself(value: Any) -> Iterator[Any]:
    yield value


def _every(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _named(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _anywhere(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]
        for child in _every(value):
            yield from step(child)

    return step


def _bracket_step(match: re.Match[str]) -> tuple[Step, str | None]:
    single, double, index, star, start, end = match.groups()
    if single is not None or double is not None:
        name = _unescape(single if single is not None else double)
        return _named(name), name
    if star:
        return _every, None
    part = slice(int(start) if start else None, int(end) if end else None)

    def at_index(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= int(index) < len(value):
            yield value[int(index)]

    def at_slice(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[part]

    return (at_index if index is not None else at_slice), None


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


def _where(match: re.Match[str]) -> Step:
    path, operator, literal = match.groups()
    operand = parse_json_path(path)
    wanted = _literal(literal) if operator else None

    def fits(value: Any) -> bool:
        found = operand.find(value)
        if not operator:
            return bool(found)
        try:
            return any(_COMPARE[operator](each, wanted) for each in found)
        except TypeError:
            return False

    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from (element for element in value if fits(element))

    return step


def _literal(text: str) -> Any:
    if text[0] in "\"'":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text
