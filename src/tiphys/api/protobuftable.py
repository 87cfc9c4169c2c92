"""The table of protocol buffer messages (data/messages.txt), parsed at its first use.

What a line means stands in the file itself. Read by the encoder and the decoder; scripts/protobuf_messages.py keeps the
table equal to what stock clients are built of.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

META = "k8s.io.apimachinery.pkg.apis.meta.v1"
RAW_EXTENSION = "k8s.io.apimachinery.pkg.runtime.RawExtension"
QUANTITY = "k8s.io.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "k8s.io.apimachinery.pkg.util.intstr.IntOrString"
EXTENSIONS = "k8s.io.apiextensions-apiserver.pkg.apis.apiextensions.v1"
ZERO_TIME_S = -62_135_596_800
"""Go's zero time in Unix seconds: no time at all."""
STRING_LISTS = frozenset(
    [
        "k8s.io.api.authentication.v1.ExtraValue",
        "k8s.io.api.authentication.v1.AttestationValue",
        "k8s.io.api.authorization.v1.ExtraValue",
        "k8s.io.api.certificates.v1.ExtraValue",
    ]
)
"""Messages that hold one list of strings and are that list in JSON."""
_SHORT = {
    "meta": META,
    "core": "k8s.io.api.core.v1",
    "resource": "k8s.io.apimachinery.pkg.api.resource",
    "intstr": "k8s.io.apimachinery.pkg.util.intstr",
    "runtime": "k8s.io.apimachinery.pkg.runtime",
}
_PACKAGES = {
    "": "k8s.io.api.core",
    "meta.k8s.io": "k8s.io.apimachinery.pkg.apis.meta",
    "apiextensions.k8s.io": "k8s.io.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration.k8s.io": "k8s.io.kube-aggregator.pkg.apis.apiregistration",
}
_DOMAINS = ("", "k8s.io", "apiserver.k8s.io", "authorization.k8s.io")
"""What follows the first part of a built-in group's name."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    number: int
    name: str
    """Its name in JSON."""
    kind: str
    """One letter of the table, or the full name of a message."""
    repeated: bool
    mapped: bool
    inline: bool
    """Its fields stand in the JSON of the outer message."""
    pointer: bool
    """Absence differs from zero; other fields are always written."""
    shown: bool
    """JSON has it though it is zero."""


@cache
def messages() -> dict[str, tuple[Field, ...]]:
    """Return the fields of every message, in the order of their numbers, by its full name."""
    text = resources.files("tiphys.api").joinpath("data/messages.txt").read_text()
    found: dict[str, tuple[Field, ...]] = {}
    package = ""
    for line in text.splitlines():
        if line.startswith("#") or not line:
            continue
        if line.startswith("["):
            package = line[1:-1]
            continue
        name, *fields = line.split()
        found[f"{package}.{name}"] = tuple(_parse_field(field, package) for field in fields)
    return found


def _parse_field(text: str, package: str) -> Field:
    number, _, rest = text.partition("=")
    name, _, kind = rest.partition(":")
    mark = kind[-1] if kind[-1] in "!?+" else ""
    kind = kind.rstrip("!?+")
    repeated, mapped = kind.startswith("["), kind.startswith("{")
    kind = kind.lstrip("[{")
    if len(kind) > 1:
        prefix, dot, last = kind.rpartition(".")
        kind = f"{_SHORT.get(prefix, prefix)}.{last}" if dot else f"{package}.{kind}"
    return Field(int(number), name, kind, repeated, mapped, mark == "!", mark == "?", mark == "+")


def message_name(api_version: str, kind: str) -> str | None:
    """Return the full name of a kind's message, None when the table has none.

    Every group has the options kinds and Status as its own, so a kind that the group lacks is looked up in meta/v1.
    """
    group, _, version = api_version.rpartition("/")
    first, _, domain = group.partition(".")
    package = _PACKAGES.get(group) or (f"k8s.io.api.{first}" if domain in _DOMAINS else "")
    for candidate in (f"{package}.{version}.{kind}", f"{META}.{kind}"):
        if candidate in messages():
            return candidate
    return None
