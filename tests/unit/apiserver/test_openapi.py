"""OpenAPI documents: what kubectl's explain, validation and apply look for in them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tiphys.api.definitions import load_definitions
from tiphys.api.kind import Kind, Kinds
from tiphys.api.kinds import builtin_kinds
from tiphys.apiserver.openapi import V2_PROTOBUF, OpenApi
from tiphys.apiserver.openapiprotobuf import encode_v2
from tiphys.apiserver.openapiprotobufv3 import encode_v3
from tiphys.base.errors import ApiError
from tiphys.wire.message import Request


@pytest.fixture(scope="module")
def kinds() -> Kinds:
    return Kinds(builtin_kinds((1, 37), {}), (1, 37))


@pytest.fixture(scope="module")
def server(kinds: Kinds) -> OpenApi:
    return OpenApi(kinds, lambda: load_definitions((1, 37)))


def get(server: OpenApi, path: str, query: str = "") -> Any:
    response = server.answer(Request("GET", path, query))
    assert response.status == 200
    return orjson.loads(response.body_bytes())


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_the_index_links_every_group_version_with_a_hash_that_may_be_cached_for_ever(server: OpenApi) -> None:
    paths = get(server, "/openapi/v3")["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/autoscaling/v1", "apis/autoscaling/v2"} <= set(paths)
    url = paths["apis/apps/v1"]["serverRelativeURL"]
    path, _, query = url.partition("?")
    response = server.answer(Request("GET", path, query))
    assert response.status == 200
    assert "immutable" in dict(response.headers)["Cache-Control"]
    stale = server.answer(Request("GET", path, "hash=00"))
    assert stale.status == 301
    assert dict(stale.headers)["Location"] == url
    etag = dict(response.headers)["ETag"]
    assert server.answer(Request("GET", path, headers={"if-none-match": etag})).status == 304


@pytest.mark.parametrize("path", ["api/v1", "apis/apps/v1", "apis/apiextensions.k8s.io/v1", "apis/policy/v1"])
def test_every_reference_of_a_document_is_in_it(server: OpenApi, path: str) -> None:
    document = get(server, f"/openapi/v3/{path}")
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= known


def test_every_reference_of_the_v2_document_is_in_it(server: OpenApi) -> None:
    document = get(server, "/openapi/v2")
    known = {f"#/definitions/{name}" for name in document["definitions"]}
    assert set(references(document)) <= known


def test_patch_takes_field_validation_so_that_clients_leave_validation_to_the_server(server: OpenApi) -> None:
    document = get(server, "/openapi/v3/apis/apps/v1")
    patch = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert {"dryRun", "fieldManager", "fieldValidation", "force"} == {p["name"] for p in patch["parameters"]}
    assert patch["x-kubernetes-action"] == "patch"
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    scale = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"]
    assert scale["x-kubernetes-group-version-kind"]["kind"] == "Scale"


def test_operation_ids_are_unique(server: OpenApi) -> None:
    methods = ("get", "put", "post", "patch", "delete")
    paths = get(server, "/openapi/v2")["paths"]
    ids = [item[method]["operationId"] for item in paths.values() for method in methods if method in item]
    assert len(ids) == len(set(ids))


def test_schemas_carry_what_strategic_merge_patch_needs(server: OpenApi) -> None:
    schemas = get(server, "/openapi/v3/api/v1")["components"]["schemas"]
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["x-kubernetes-patch-strategy"] == "merge"
    assert "oneOf" in schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"]


def test_a_custom_kind_appears_with_its_own_schema_and_leaves_other_documents_alone(kinds: Kinds) -> None:
    server = OpenApi(kinds, lambda: load_definitions((1, 37)))
    apps = get(server, "/openapi/v3")["paths"]["apis/apps/v1"]
    pod = kinds.resource("", "v1", "pods")
    assert pod is not None
    size = {"type": "integer", "description": "How large."}
    custom = Kind(
        group="shop.example.com",
        version="v1",
        kind="Cart",
        plural="carts",
        schema=pod.schema,
        custom=True,
        published_schema={"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": size}}}},
    )
    kinds.add(custom)
    try:
        paths = get(server, "/openapi/v3")["paths"]
        assert paths["apis/apps/v1"] == apps
        document = get(server, "/openapi/v3/apis/shop.example.com/v1")
        schema = document["components"]["schemas"]["com.example.shop.v1.Cart"]
        assert schema["properties"]["spec"]["properties"]["size"] == size
        assert schema["x-kubernetes-group-version-kind"] == [
            {"group": "shop.example.com", "version": "v1", "kind": "Cart"}
        ]
        known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
        assert set(references(document)) <= known
        one = document["paths"]["/apis/shop.example.com/v1/namespaces/{namespace}/carts/{name}"]
        assert "application/strategic-merge-patch+json" not in one["patch"]["requestBody"]["content"]
    finally:
        kinds.remove(custom)
    with pytest.raises(ApiError) as raised:
        server.answer(Request("GET", "/openapi/v3/apis/shop.example.com/v1"))
    assert raised.value.code == 404


@pytest.mark.parametrize("path", ["/openapi", "/openapi/v3/apis", "/openapi/v3/apis/none/v1", "/openapi/v4"])
def test_unknown_documents_are_not_found(server: OpenApi, path: str) -> None:
    with pytest.raises(ApiError) as raised:
        server.answer(Request("GET", path))
    assert raised.value.code == 404


def test_go_clients_get_the_protobuf_form(server: OpenApi) -> None:
    accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
    response = server.answer(Request("GET", "/openapi/v2", headers={"accept": accept}))
    assert response.content_type == V2_PROTOBUF
    assert response.body_bytes().startswith(b"\x0a\x032.0\x12")


def test_protobuf_of_a_small_document_is_byte_for_byte_what_the_encoding_says() -> None:
    document = {
        "swagger": "2.0",
        "info": {"title": "T", "version": "1"},
        "paths": {},
        "definitions": {"A": {"type": "object", "required": ["b"], "x-c": 1}},
    }
    schema = b"\x9a\x01\x01b" + b"\xb2\x01\x08\x0a\x06object" + b"\xfa\x01\x0a\x0a\x03x-c\x12\x03\x12\x011"
    named = b"\x0a\x01A\x12" + bytes([len(schema)]) + schema
    entry = b"\x0a" + bytes([len(named)]) + named
    assert encode_v2(document) == (
        b"\x0a\x032.0" + b"\x12\x06\x0a\x01T\x12\x011" + b"\x42\x00" + b"\x4a" + bytes([len(entry)]) + entry
    )


def test_what_only_v3_can_say_is_left_out_of_v2(kinds: Kinds) -> None:
    server = OpenApi(kinds, lambda: load_definitions((1, 37)))
    pod = kinds.resource("", "v1", "pods")
    assert pod is not None
    either = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    properties = {"size": either, "not": {"type": "string", "nullable": True}}
    custom = Kind(
        group="shop.example.com",
        version="v1",
        kind="Cart",
        plural="carts",
        schema=pod.schema,
        custom=True,
        published_schema={"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}},
    )
    kinds.add(custom)
    try:
        schema = get(server, "/openapi/v2")["definitions"]["com.example.shop.v1.Cart"]
    finally:
        kinds.remove(custom)
    assert schema["properties"]["spec"]["properties"] == {
        "size": {"x-kubernetes-int-or-string": True},
        "not": {},
    }


@pytest.mark.parametrize("minor", [25, 29, 33])
def test_documents_of_older_versions_are_whole_too(minor: int) -> None:
    table = Kinds(builtin_kinds((1, minor), {}), (1, minor))
    document = get(OpenApi(table, lambda: load_definitions((1, minor))), "/openapi/v2")
    assert document["info"]["version"] == f"v1.{minor}.0+tiphys"
    assert set(references(document)) <= {f"#/definitions/{name}" for name in document["definitions"]}
    for kind in table.all():
        assert kind.definition in document["definitions"]
        if "list" in kind.verbs:
            assert f"{kind.definition}List" in document["definitions"]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html, application/*;q=0.5", "application/json"),
        ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", V2_PROTOBUF),
        ("application/json, application/com.github.proto-openapi.spec.v2@v1.0+protobuf", "application/json"),
        ("application/json;q=0.1, application/com.github.proto-openapi.spec.v2.v1.0+protobuf", V2_PROTOBUF),
        ("text/html", ""),
    ],
)
def test_the_form_is_the_first_that_the_client_takes(server: OpenApi, accept: str, content_type: str) -> None:
    answer = server.answer(Request("GET", "/openapi/v2", headers={"accept": accept} if accept else {}))
    assert (answer.status, answer.content_type) == (200 if content_type else 406, content_type)


def fields(data: bytes) -> list[tuple[int, Any]]:
    """Return the fields of a protobuf message: number and value, bytes for what has a length."""
    found: list[tuple[int, Any]] = []
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            found.append((tag >> 3, varint()))
        elif tag & 7 == 1:
            found.append((tag >> 3, struct.unpack("<d", data[at : at + 8])[0]))
            at += 8
        else:
            assert tag & 7 == 2, f"wire type {tag & 7}"
            size = varint()
            found.append((tag >> 3, data[at : at + size]))
            at += size
    return found


def only(data: bytes, *numbers: int) -> bytes:
    """Return the one field at a path of numbers."""
    for number in numbers:
        (data,) = [value for field, value in fields(data) if field == number]
    return data


V3_ASKED = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"


@pytest.mark.parametrize("path", ["api/v1", "apis/apps/v1", "apis/apiextensions.k8s.io/v1"])
def test_v3_in_protobuf_has_every_path_and_schema(server: OpenApi, path: str) -> None:
    told = orjson.loads(server.answer(Request("GET", f"/openapi/v3/{path}")).body_bytes())
    request = Request("GET", f"/openapi/v3/{path}", headers={"accept": V3_ASKED})
    assert not server.is_at_hand(request), "it is made in a thread"
    answer = server.answer(request)
    assert answer.content_type == "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
    document = answer.body_bytes()
    assert only(document, 1) == b"3.0.0"
    paths = {only(value, 1).decode() for field, value in fields(only(document, 4)) if field == 1}
    schemas = {only(v, 1).decode(): v for field, v in fields(only(document, 5, 1)) if field == 1}
    assert paths == set(told["paths"])
    assert schemas.keys() == told["components"]["schemas"].keys()


def test_v3_protobuf_of_a_small_document_can_be_read_back() -> None:
    document = {
        "openapi": "3.0.0",
        "info": {"title": "t", "version": "v"},
        "paths": {"/p": {"post": {"requestBody": {"content": {"a/b": {"schema": {"$ref": "#/x"}}}, "required": True}}}},
        "components": {"schemas": {"A": {"type": "object", "maximum": 1.5, "minLength": 3, "default": {}, "x-y": [1]}}},
    }
    data = encode_v3(document)
    body = only(data, 4, 1, 2, 6, 7, 1)
    assert only(body, 3) == 1
    assert only(body, 2, 1, 1) == b"a/b"
    assert only(body, 2, 1, 2, 1, 2, 1) == b"#/x", "a reference, not a schema"
    schema = only(data, 5, 1, 1, 2, 1)
    assert fields(schema) == [(25, b"object"), (11, 1.5), (16, 3), (33, b""), (36, only(schema, 36))]
    assert (only(schema, 36, 1), only(schema, 36, 2, 2)) == (b"x-y", b"[1]")
