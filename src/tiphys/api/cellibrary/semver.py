"""The semver library: semantic versions, compared by precedence; with `normalize`, also `v1.2` and `01.2.3`.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes", "Kubernetes semver library"; Semantic
Versioning 2.0.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from tiphys.api.causes import go_quote
from tiphys.api.cellibrary.costs import CHEAP, PARSED
from tiphys.cel import types
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.errors import EvaluationError
from tiphys.cel.types import Type

SEMVER = types.opaque("kubernetes.Semver")
_IDENTIFIER = re.compile(r"[0-9A-Za-z-]+")
_NUMBER_LIMIT = 2**64


@dataclass(frozen=True, slots=True)
class SemverValue:
    """A version in an expression. Equality is that of precedence: build metadata says nothing."""

    numbers: tuple[int, int, int]
    prerelease: tuple[str, ...]
    cel_type: ClassVar[Type] = SEMVER

    def order(self) -> tuple[Any, ...]:
        """Return the sort key: a release comes after its prereleases, numbers come before words."""
        words = tuple((0, int(word), "") if word.isdigit() else (1, 0, word) for word in self.prerelease)
        return (*self.numbers, not self.prerelease, words)


def _number(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise EvaluationError(f"Invalid character(s) found in {name.lower()} number {go_quote(text)}")
    if len(text) > 1 and text[0] == "0":
        raise EvaluationError(f"{name} number must not contain leading zeroes {go_quote(text)}")
    if len(text) > 20 or int(text) >= _NUMBER_LIMIT:
        raise EvaluationError(f"strconv.ParseUint: parsing {go_quote(text)}: value out of range")
    return int(text)


def _prerelease(text: str) -> tuple[str, ...]:
    words = tuple(text.split("."))
    for word in words:
        if not word:
            raise EvaluationError("Prerelease is empty")
        if _IDENTIFIER.fullmatch(word) is None:
            raise EvaluationError(f"Invalid character(s) found in prerelease {go_quote(word)}")
        if word.isdigit() and len(word) > 1 and word[0] == "0":
            raise EvaluationError(f"Numeric PreRelease version must not contain leading zeroes {go_quote(word)}")
    return words


def parse_semver(text: str) -> SemverValue:
    """Return the version of a text. Raises EvaluationError."""
    if not text:
        raise EvaluationError("Version string empty")
    parts = text.split(".", 2)
    if len(parts) != 3:
        raise EvaluationError("No Major.Minor.Patch elements found")
    major, minor = _number(parts[0], "Major"), _number(parts[1], "Minor")
    rest, plus, build = parts[2].partition("+")
    patch, dash, prerelease = rest.partition("-")
    number = _number(patch, "Patch")
    words = _prerelease(prerelease) if dash else ()
    for word in build.split(".") if plus else ():
        if not word:
            raise EvaluationError("Build meta data is empty")
        if _IDENTIFIER.fullmatch(word) is None:
            raise EvaluationError(f"Invalid character(s) found in build meta data {go_quote(word)}")
    return SemverValue((major, minor, number), words)


def _normalized(text: str) -> str:
    parts = [_without_zeros(part) for part in text.removeprefix("v").split(".", 2)]
    if len(parts) < 3:
        if "+" in parts[-1] or "-" in parts[-1]:
            raise EvaluationError("short version cannot contain PreRelease/Build meta data")
        parts += ["0"] * (3 - len(parts))
    return ".".join(parts)


def _without_zeros(part: str) -> str:
    if len(part) < 2:
        return part
    stripped = part.lstrip("0")
    return stripped if stripped[:1].isdigit() else f"0{stripped}"


def _parse(text: str, normalize: bool = False) -> SemverValue:
    return parse_semver(_normalized(text) if normalize else text)


def _is_semver(text: str, normalize: bool = False) -> bool:
    try:
        _parse(text, normalize)
    except EvaluationError:
        return False
    return True


def _compare(left: SemverValue, right: SemverValue) -> int:
    return (left.order() > right.order()) - (left.order() < right.order())


def _part(name: str, index: int) -> Function:
    def call(value: SemverValue) -> int:
        return value.numbers[index]

    return Function(name, (Overload(f"semver_{name}", (SEMVER,), types.INT, call, member=True, cost=CHEAP),))


def _comparison(name: str, overload: str, result: Type, call: Callable[[SemverValue, SemverValue], Any]) -> Function:
    return Function(name, (Overload(overload, (SEMVER, SEMVER), result, call, member=True, cost=CHEAP),))


def _from_text(name: str, ids: tuple[str, str], result: Type, call: Callable[..., Any]) -> Function:
    plain = Overload(ids[0], (types.STRING,), result, call, cost=PARSED)
    return Function(name, (plain, Overload(ids[1], (types.STRING, types.BOOL), result, call, cost=PARSED)))


LIBRARY: Library = (
    _from_text("semver", ("string_to_semver", "string_bool_to_semver"), SEMVER, _parse),
    _from_text("isSemver", ("is_semver_string", "is_semver_string_bool"), types.BOOL, _is_semver),
    _part("major", 0),
    _part("minor", 1),
    _part("patch", 2),
    _comparison("isGreaterThan", "semver_is_greater_than", types.BOOL, lambda a, b: _compare(a, b) > 0),
    _comparison("isLessThan", "semver_is_less_than", types.BOOL, lambda a, b: _compare(a, b) < 0),
    _comparison("compareTo", "semver_compare_to", types.INT, _compare),
)
