"""The format library: the texts that have a name in Kubernetes, checked with upstream's complaints.

`format.<name>()` is a format, `format.named(text)` looks one up, and `validate` returns what is wrong with a text, none
if nothing is.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes", "Kubernetes format library".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from tiphys.api import names
from tiphys.api.cellibrary.costs import CHEAP, actual_size
from tiphys.api.uri import BadUri, parse_uri
from tiphys.api.valueformats import fits_format
from tiphys.cel import types
from tiphys.cel.cost import REGEX_FACTOR, STRING_FACTOR, CallCost, CostRange, Operand
from tiphys.cel.declarations import Function, Library, Overload
from tiphys.cel.types import Type
from tiphys.cel.values import NONE, Optional, Value

FORMAT = types.opaque("kubernetes.NamedFormat")
_LONGEST_REGEX = 128


@dataclass(frozen=True, slots=True)
class FormatValue:
    """A format in an expression."""

    name: str
    validate: Callable[[str], list[str]] = field(compare=False)
    regex_size: int = field(compare=False)
    cel_type: ClassVar[Type] = FORMAT


def _validate_uri(text: str) -> list[str]:
    try:
        parse_uri(text)
    except BadUri as error:
        return [str(error)]
    return []


def _known(name: str, complaint: str) -> Callable[[str], list[str]]:
    return lambda text: [] if fits_format(name, text) else [complaint]


def _prefix(rule: str) -> Callable[[str], list[str]]:
    return lambda text: names.validate_name(rule, text, prefix=True)


_FORMATS: dict[str, FormatValue] = {
    "dns1123Label": FormatValue("DNS1123Label", names.validate_dns_label, 30),
    "dns1123Subdomain": FormatValue("DNS1123Subdomain", names.validate_dns_subdomain, 60),
    "dns1035Label": FormatValue("DNS1035Label", names.validate_dns_1035_label, 30),
    "qualifiedName": FormatValue("QualifiedName", names.validate_qualified_name, 60),
    "dns1123LabelPrefix": FormatValue("DNS1123LabelPrefix", _prefix("dns-label"), 30),
    "dns1123SubdomainPrefix": FormatValue("DNS1123SubdomainPrefix", _prefix("dns-subdomain"), 60),
    "dns1035LabelPrefix": FormatValue("DNS1035LabelPrefix", _prefix("dns-1035-label"), 30),
    "labelValue": FormatValue("LabelValue", names.validate_label_value, 40),
    "uri": FormatValue("URI", _validate_uri, 1000),
    "uuid": FormatValue("uuid", _known("uuid", "does not match the UUID format"), 70),
    "byte": FormatValue("byte", _known("byte", "invalid base64"), 90),
    "date": FormatValue("date", _known("date", "invalid date"), 110),
    "datetime": FormatValue("datetime", _known("date-time", "invalid datetime"), 110),
}


def _actual(values: Sequence[Value], result: Value) -> int:
    text = math.ceil((1 + actual_size(values[1])) * STRING_FACTOR)
    regex_size: int = values[0].regex_size
    return text * math.ceil(regex_size * REGEX_FACTOR)


def _estimate(operands: Sequence[Operand]) -> tuple[CostRange, CostRange | None]:
    return operands[1].size.times(STRING_FACTOR).times(_LONGEST_REGEX * REGEX_FACTOR), None


def _named(name: str) -> Optional:
    found = _FORMATS.get(name)
    return NONE if found is None else Optional(found)


def _validate(value: FormatValue, text: str) -> Optional:
    complaints = value.validate(text)
    return Optional(complaints) if complaints else NONE


def _constant(name: str, value: FormatValue) -> Function:
    return Function(f"format.{name}", (Overload(f"format.{name}", (), FORMAT, lambda: value),))


_COMPLAINTS = types.optional_of(types.list_of(types.STRING))

LIBRARY: Library = (
    *(_constant(name, value) for name, value in _FORMATS.items()),
    Function(
        "format.named", (Overload("format-named", (types.STRING,), types.optional_of(FORMAT), _named, cost=CHEAP),)
    ),
    Function(
        "validate",
        (
            Overload(
                "format-validate", (FORMAT, types.STRING), _COMPLAINTS, _validate, True, CallCost(_actual, _estimate)
            ),
        ),
    ),
)
