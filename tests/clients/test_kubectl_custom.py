"""kubectl and custom resources: applied again and again, in two versions, edited, and moved to another storage version."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from kubectl_cli import ESSENTIAL, Kubectl

MakeNamespace = Callable[..., Kubectl]


def definition(plural: str, stored: str) -> dict[str, Any]:
    group = "parts.example.com"
    schema = {
        "type": "object",
        "properties": {"size": {"type": "integer"}, "color": {"type": "string", "default": "red"}},
    }
    versions = [
        {
            "name": name,
            "served": True,
            "storage": name == stored,
            "schema": {"openAPIV3Schema": schema},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".size"}],
        }
        for name in ("v1", "v2")
    ]
    kind = plural.capitalize()
    names = {"plural": plural, "singular": plural, "kind": kind, "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": versions},
    }


def part(plural: str, version: str, **fields: Any) -> str:
    head = {"apiVersion": f"parts.example.com/{version}", "kind": plural.capitalize(), "metadata": {"name": "one"}}
    return json.dumps(head | fields)


@pytest.mark.parametrize("minor", ESSENTIAL)
def test_custom_resources_are_applied_in_two_versions(make_namespace: MakeNamespace, minor: str) -> None:
    kubectl = make_namespace(minor)
    plural = f"p{uuid.uuid4().hex[:8]}"
    name = f"{plural}.parts.example.com"
    kubectl.apply(json.dumps(definition(plural, "v1")))
    try:
        kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=30s")
        told = f"{plural}.parts.example.com/one"
        assert kubectl.apply(part(plural, "v1", size=1)) == f"{told} created\n"
        assert kubectl.apply(part(plural, "v1", size=1)) == f"{told} unchanged\n"
        assert kubectl.apply(part(plural, "v1", size=2)) == f"{told} configured\n"
        assert kubectl.apply(part(plural, "v2", size=3)) == f"{told} configured\n"
        assert kubectl("get", f"{plural}.v1.parts.example.com").split() == ["NAME", "SIZE", "one", "3"]
        assert kubectl("get", f"{plural}.v2.parts.example.com", "one", "-o", "jsonpath={.apiVersion} {.color}") == (
            "parts.example.com/v2 red"
        )
        kubectl("edit", plural, "one", EDITOR="sed -i s/size:.*/size:\\ 7/")
        assert kubectl("get", plural, "one", "-o", "jsonpath={.size}") == "7"
        kubectl("patch", plural, "one", "--type=merge", "-p", '{"color":"blue"}')
        kubectl.apply(json.dumps(definition(plural, "v2")))
        migration = {
            "apiVersion": "storagemigration.k8s.io/v1",
            "kind": "StorageVersionMigration",
            "metadata": {"name": plural},
            "spec": {"resource": {"group": "parts.example.com", "resource": plural}},
        }
        kubectl.apply(json.dumps(migration))
        kubectl("wait", "--for=condition=Succeeded", f"storageversionmigration/{plural}", "--timeout=30s")
        assert kubectl("get", "crd", name, "-o", "jsonpath={.status.storedVersions}") == '["v2"]'
        assert kubectl("get", plural, "one", "-o", "jsonpath={.size} {.color}") == "7 blue"
        kubectl("delete", "storageversionmigration", plural)
    finally:
        kubectl("delete", "crd", name)
    refused = kubectl.refused("get", plural)  # in the words of the server, or of kubectl's copy of what it serves
    assert "could not find the requested resource" in refused or "doesn't have a resource type" in refused
