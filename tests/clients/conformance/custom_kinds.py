"""Custom kinds for tests: a group, names, versions and their schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

Json = dict[str, Any]
ANYTHING: Json = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@dataclass(frozen=True, slots=True)
class CustomKind:
    """What a definition says."""

    DEFINITIONS: ClassVar[str] = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

    group: str
    plural: str
    schema: Json = field(default_factory=lambda: ANYTHING)
    versions: tuple[str, ...] = ("v1",)
    """The first one is stored."""

    namespaced: bool = True
    labels: Json = field(default_factory=dict)
    more: Json = field(default_factory=dict)
    """Further fields of each version."""

    short_names: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.plural.capitalize()

    @property
    def name(self) -> str:
        return f"{self.plural}.{self.group}"

    @property
    def path(self) -> str:
        return f"{self.DEFINITIONS}/{self.name}"

    def objects(self, namespace: str = "", version: str = "") -> str:
        """Return the path of the collection."""
        within = f"/namespaces/{namespace}" if namespace else ""
        return f"/apis/{self.group}/{version or self.versions[0]}{within}/{self.plural}"

    def object(self, name: str, version: str = "", **fields: Any) -> Json:
        head = {"apiVersion": f"{self.group}/{version or self.versions[0]}", "kind": self.kind}
        return {**head, "metadata": {"name": name, **fields.pop("metadata", {})}, **fields}

    def published(self, version: str) -> str:
        """Return the name of its schema in OpenAPI documents."""
        return ".".join([*reversed(self.group.split(".")), version, self.kind])

    def definition(self) -> Json:
        versions = [
            {"name": v, "served": True, "storage": i == 0, "schema": {"openAPIV3Schema": self.schema}, **self.more}
            for i, v in enumerate(self.versions)
        ]
        names: Json = {"plural": self.plural, "singular": self.plural, "kind": self.kind}
        names |= {"listKind": f"{self.kind}List", "shortNames": list(self.short_names)}
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": self.name, "labels": self.labels},
            "spec": {
                "group": self.group,
                "scope": "Namespaced" if self.namespaced else "Cluster",
                "names": names,
                "versions": versions,
            },
        }

    @staticmethod
    def is_established(definition: Json) -> bool:
        conditions = definition.get("status", {}).get("conditions") or ()
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
