"""Kubernetes' own functions of expressions: which there are, and which version of Kubernetes knows them.

`libraries(minor)` gives what an environment (tiphys/cel/environment.py) of that version takes; rules of definitions,
admission policies and match conditions all use the same. Each file holds one library, as a table of functions with
their types, implementation and cost. Invariant: functions are pure, but for the authorizer's, which ask the object that
the caller binds.

Spec: Kubernetes documentation, "Common Expression Language in Kubernetes", "CEL options, language features and
libraries" (the table of availability).
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from tiphys.cel.declarations import Library

__all__ = ["AVAILABLE_FROM", "libraries"]

AVAILABLE_FROM: dict[str, int] = {
    "lists": 25,
    "regex": 25,
    "urls": 25,
    "authorizer": 27,
    "quantity": 29,
    "addresses": 31,
    "formats": 32,
    "jsonpatch": 32,
    "selectors": 33,
    "semver": 34,
}
"""Library -> Kubernetes minor from which new expressions may use it. The names are those of the files here."""


@cache
def libraries(minor: int) -> tuple[Library, ...]:
    """Return the libraries that expressions of Kubernetes 1.<minor> may use."""
    return tuple(_load(name) for name, first in AVAILABLE_FROM.items() if minor >= first)


def _load(name: str) -> Library:
    library: Library = import_module(f"tiphys.api.cellibrary.{name}").LIBRARY
    return library
