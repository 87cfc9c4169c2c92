"""What OpenAPI documents and `kubectl explain` tell of custom kinds.

Spec: upstream's tests "CustomResourcePublishOpenAPI": a published schema is the definition's own, but for the fields that
the server adds (apiVersion, kind, metadata, the kind itself), and follows the versions that are served.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from custom_kinds import ANYTHING, CustomKind
from direct_api import JSON_PATCH, Api, soon
from kubectl_cli import NEWEST, Kubectl, find_client
from live_cluster import LiveCluster

Json = dict[str, Any]
Define = Callable[[CustomKind], CustomKind]


def _bar(*, status: bool) -> Json:
    name = {"description": "Name of Bar.", "type": "string"}
    if status:
        return {
            "name": name,
            "available": {"description": "Whether the Bar is installed.", "type": "boolean"},
            "quxType": {
                "description": "Indicates to external qux type.",
                "pattern": "in-tree|out-of-tree",
                "type": "string",
            },
        }
    return {
        "name": name,
        "age": {"description": "Age of Bar.", "type": "string"},
        "feeling": {"description": "Whether Bar is feeling great.", "type": "string", "enum": ["Great", "Down"]},
        "bazs": {"description": "List of Bazs.", "items": {"type": "string"}, "type": "array"},
    }


def _list(description: str, item: Json) -> Json:
    return {"description": description, "type": "array", "items": item}


FOO: Json = {
    "description": "Foo CRD for Testing",
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "description": "Specification of Foo",
            "properties": {
                "bars": _list(
                    "List of Bars and their specs.",
                    {"type": "object", "required": ["name"], "properties": _bar(status=False)},
                )
            },
        },
        "status": {
            "description": "Status of Foo",
            "type": "object",
            "properties": {
                "bars": _list("List of Bars and their statuses.", {"type": "object", "properties": _bar(status=True)})
            },
        },
    },
}
WALDO: Json = {
    "description": "Waldo CRD for Testing",
    "type": "object",
    "properties": {
        "spec": {
            "description": "Specification of Waldo",
            "type": "object",
            "properties": {"dummy": {"description": "Dummy property.", "type": "object"}},
        },
        "status": {
            "description": "Status of Waldo",
            "type": "object",
            "properties": {"bars": _list("List of Bars and their statuses.", {"type": "object"})},
        },
    },
}
AT_ROOT: Json = {
    **WALDO,
    "description": "preserve-unknown-properties at root for Testing",
    "x-kubernetes-preserve-unknown-fields": True,
}
NESTED: Json = copy.deepcopy(WALDO) | {"description": "preserve-unknown-properties in nested field for Testing"}
NESTED["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] = True
ADDED = {"metadata", "apiVersion", "kind"}


class Documents:
    """/openapi/v2 as the tests read it: anew on each look, unchanged documents by their ETag."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._tag = ""
        self._definitions: Json = {}

    def definitions(self) -> Json:
        headers = {"Accept": "", "If-None-Match": f'"{self._tag}"'} if self._tag else {"Accept": ""}
        answer = self._api.ask("GET", "/openapi/v2", headers=headers)
        if answer.status != 304:
            assert answer.status == 200
            self._tag = answer.headers["etag"].strip('"')
            self._definitions = answer.json["definitions"]
        return self._definitions

    def wait_for(self, kind: CustomKind, version: str, schema: Json | None) -> None:
        """Wait until the kind's schema is published, and as expected (None: whatever it says)."""
        published = soon(lambda: self.definitions().get(kind.published(version)))
        if schema is None:
            return
        told = copy.deepcopy(published)
        group_version_kind = {"group": kind.group, "version": version, "kind": kind.kind}
        assert told.pop("x-kubernetes-group-version-kind") == [group_version_kind]
        properties = {name: inner for name, inner in told.pop("properties", {}).items() if name not in ADDED}
        assert told | ({"properties": properties} if properties else {}) == schema

    def wait_without(self, kind: CustomKind, version: str) -> None:
        soon(lambda: kind.published(version) not in self.definitions())


@pytest.fixture
def documents(api: Api) -> Documents:
    return Documents(api)


@pytest.fixture
def kubectl(cluster: LiveCluster, namespace: str, tmp_path: Path) -> Kubectl:
    """The newest kubectl, without what others have read of the server before."""
    environment = {**cluster.environment(), "KUBECACHEDIR": str(tmp_path)}
    return Kubectl(find_client(f"kubectl-{NEWEST}"), environment, namespace)


def _create_and_apply(kubectl: Kubectl, kind: CustomKind, **fields: Any) -> None:
    head = {"kind": kind.kind, "apiVersion": f"{kind.group}/{kind.versions[0]}", "metadata": {"name": "test-cr"}}
    text = json.dumps({**head, **fields})
    kubectl("create", "-f", "-", stdin=text)
    kubectl("delete", kind.plural, "test-cr")
    kubectl.apply(text)
    kubectl("delete", kind.plural, "test-cr")


def _explains(kubectl: Kubectl, what: str, pattern: str) -> None:
    told = kubectl("explain", what)
    assert re.search(pattern, told, re.DOTALL), told


def test_a_kind_with_a_schema(define: Define, documents: Documents, kubectl: Kubectl, unique: str) -> None:
    kind = define(CustomKind(f"{unique}.example.com", f"f{unique}", FOO))
    documents.wait_for(kind, "v1", FOO)
    _create_and_apply(kubectl, kind, spec={"bars": [{"name": "test-bar"}]})
    head = {"kind": kind.kind, "apiVersion": f"{kind.group}/v1", "metadata": {"name": "test-cr"}}
    for verb, spec, complaint in (
        (
            "create",
            {"bars": [{"name": "test-bar", "feeling": "NonExistentValue"}]},
            'Unsupported value: "NonExistentValue"',
        ),
        ("apply", {"foo": True}, 'unknown field "spec.foo"'),
        ("create", {"bars": [{"age": "10"}]}, "spec.bars[0].name: Required value"),
    ):
        text = json.dumps({**head, "spec": spec})
        assert complaint in kubectl.refused(verb, "-f", "-", stdin=text)
    _explains(
        kubectl,
        kind.plural,
        "DESCRIPTION:.*Foo CRD for Testing.*FIELDS:.*apiVersion.*<string>.*APIVersion defines.*spec.*<Object>.*"
        "Specification of Foo",
    )
    _explains(
        kubectl,
        f"{kind.plural}.metadata",
        "DESCRIPTION:.*Standard object's metadata.*FIELDS:.*creationTimestamp.*<string>.*CreationTimestamp is a timestamp",
    )
    _explains(
        kubectl,
        f"{kind.plural}.spec",
        r"DESCRIPTION:.*Specification of Foo.*FIELDS:.*bars.*<\[\]Object>.*List of Bars and their specs",
    )
    _explains(
        kubectl,
        f"{kind.plural}.spec.bars",
        r"(FIELD|RESOURCE):.*bars.*<\[\]Object>.*DESCRIPTION:.*List of Bars and their specs.*FIELDS:.*bazs.*"
        r"<\[\]string>.*List of Bazs.*name.*<string>.*Name of Bar",
    )
    assert 'field "bars2" does not exist' in kubectl.refused("explain", f"{kind.plural}.spec.bars2")


def test_a_kind_without_a_schema(define: Define, documents: Documents, kubectl: Kubectl, unique: str) -> None:
    kind = define(CustomKind(f"{unique}.example.com", f"f{unique}", ANYTHING))
    documents.wait_for(kind, "v1", {"type": "object"})
    _create_and_apply(kubectl, kind, a={"b": [{"c": "d"}]})
    _explains(kubectl, kind.plural, "DESCRIPTION:.*<empty>")


def test_unknown_fields_are_kept_at_the_root(
    define: Define, documents: Documents, kubectl: Kubectl, unique: str
) -> None:
    kind = define(CustomKind(f"{unique}.example.com", f"f{unique}", AT_ROOT))
    documents.wait_for(kind, "v1", None)
    _create_and_apply(kubectl, kind, a={"b": [{"c": "d"}]})
    _explains(kubectl, kind.plural, f"KIND:.*{kind.kind}")


def test_unknown_fields_are_kept_in_a_field(
    define: Define, documents: Documents, kubectl: Kubectl, unique: str
) -> None:
    kind = define(CustomKind(f"{unique}.example.com", f"f{unique}", NESTED))
    documents.wait_for(kind, "v1", None)
    _create_and_apply(kubectl, kind, spec={"a": None, "b": [{"c": "d"}]})
    _explains(kubectl, kind.plural, "DESCRIPTION:.*preserve-unknown-properties in nested field for Testing")


@pytest.mark.parametrize(
    ("groups", "versions"),
    [
        pytest.param(("a", "b"), (("v1",), ("v1beta1",)), id="groups"),
        pytest.param(("a", "a"), (("v4",), ("v5",)), id="versions"),
        pytest.param(("a", "a"), (("v6",), ("v6",)), id="kinds"),
    ],
)
def test_kinds_beside_each_other(
    api: Api, define: Define, documents: Documents, unique: str, groups: Any, versions: Any
) -> None:
    foo = define(CustomKind(f"{groups[0]}{unique}.example.com", f"f{unique}", FOO, versions[0]))
    waldo = define(CustomKind(f"{groups[1]}{unique}.example.com", f"w{unique}", WALDO, versions[1]))
    documents.wait_for(waldo, versions[1][0], WALDO)
    documents.wait_for(foo, versions[0][0], FOO)
    api.delete(foo.path)
    api.wait_until_gone(foo.path)
    documents.wait_without(foo, versions[0][0])
    documents.wait_for(waldo, versions[1][0], WALDO)


def test_versions_are_renamed_and_no_longer_served(api: Api, define: Define, documents: Documents, unique: str) -> None:
    kind = define(CustomKind(f"{unique}.example.com", f"f{unique}", FOO, ("v2", "v3")))
    documents.wait_for(kind, "v3", FOO)
    documents.wait_for(kind, "v2", FOO)
    path = "/spec/versions/1/name"
    patch = [{"op": "test", "path": path, "value": "v3"}, {"op": "replace", "path": path, "value": "v4"}]
    api.patch(kind.path, patch, JSON_PATCH)
    documents.wait_for(kind, "v4", FOO)
    documents.wait_without(kind, "v3")
    documents.wait_for(kind, "v2", FOO)
    definition = api.get(kind.path)
    definition["spec"]["versions"][1]["served"] = False
    api.replace(kind.path, definition)
    documents.wait_without(kind, "v4")
    documents.wait_for(kind, "v2", FOO)


def test_a_kind_may_be_named_as_a_built_in_one(
    define: Define, documents: Documents, kubectl: Kubectl, unique: str
) -> None:
    schema = {
        "description": "CustomService CRD for Testing",
        "type": "object",
        "properties": {
            "spec": {
                "description": "Specification of CustomService",
                "type": "object",
                "properties": {"dummy": {"description": "Dummy property.", "type": "string"}},
            }
        },
    }
    kind = define(CustomKind(f"{unique}.example.com", "services", schema, short_names=(f"ksvc-{unique}",)))
    documents.wait_for(kind, "v1", schema)
    _explains(
        kubectl,
        f"ksvc-{unique}.spec",
        "DESCRIPTION:.*Specification of CustomService.*FIELDS:.*dummy.*<string>.*Dummy property",
    )
