"""Schemas of built-in kinds that are read and compiled when they are first asked, not at start-up.

One `Definitions` is shared by all kinds of a Kubernetes version: the definitions are loaded once, each kind's schema is
compiled once. Both are pure caches, so a race of two threads only does the work twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tiphys.api.kind import DecodeResult, JsonObject

if TYPE_CHECKING:
    from tiphys.api.schema import ObjectSchema
    from tiphys.api.schemanode import Node

_PACKAGES = {
    "": "io.k8s.api.core",
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
}


def definition_name(group: str, version: str, kind: str) -> str:
    """Return the name of a built-in kind in the OpenAPI definitions, e.g. io.k8s.api.apps.v1.Deployment."""
    package = _PACKAGES.get(group) or f"io.k8s.api.{group.split('.')[0]}"
    return f"{package}.{version}.{kind}"


class Definitions:
    """The OpenAPI definitions of one Kubernetes version, loaded at the first use."""

    def __init__(self, version: tuple[int, int]) -> None:
        self.version = version
        self._loaded: dict[str, dict[str, Any]] | None = None

    def get(self) -> dict[str, dict[str, Any]]:
        """Return all definitions by name."""
        if self._loaded is None:
            from tiphys.api.definitions import load_definitions

            self._loaded = load_definitions(self.version)
        return self._loaded


class LazySchema:
    """A `Schema` that is compiled from its definition at the first use."""

    __slots__ = ("_compiled", "_definitions", "name")

    def __init__(self, definitions: Definitions, name: str) -> None:
        self.name = name
        self._definitions = definitions
        self._compiled: ObjectSchema | None = None

    def _schema(self) -> ObjectSchema:
        if self._compiled is None:
            from tiphys.api.schema import compile_schema

            self._compiled = compile_schema(self._definitions.get(), self.name)
        return self._compiled

    @property
    def root(self) -> Node:
        """The node tree, for patches and field ownership."""
        return self._schema().root

    def decode(self, obj: JsonObject) -> DecodeResult:
        return self._schema().decode(obj)

    def node(self, path: Sequence[str]) -> Mapping[str, Any] | None:
        return self._schema().node(path)
