"""Documents of other people's servers: whatever they say, they are taken or refused, and nothing else happens."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from extension_server import DEFINITION, GROUP, ROOT, VERSION, _openapi_v2
from hypothesis import given
from hypothesis import strategies as st

from tiphys.apiserver.aggregation.apiservices import ApiService, ServiceReference
from tiphys.apiserver.aggregation.reading import (
    BadDocument,
    convert_resource_list,
    find_v3_hash,
    parse_aggregated,
    parse_document,
    take_v2,
)
from tiphys.apiserver.openapimerge import convert_to_v3, merge_v2
from tiphys.apiserver.openapiprotobuf import encode_v2
from tiphys.wire.http_client import WholeAnswer

SERVICE = ApiService("n", "u", GROUP, VERSION, 1, 1, ServiceReference("a", "b", 1), b"", False, True, "")
WORDS = st.sampled_from(
    (
        "items versions resources name metadata version paths definitions $ref type get parameters properties responses "
        "in body schema x-kubernetes-group-version-kind group #/definitions/A #/parameters/p A allOf required "
        f"serverRelativeURL {GROUP} {ROOT}/flunders"
    ).split()
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=25,
)


def answer(document: Any) -> WholeAnswer:
    return WholeAnswer(200, {}, orjson.dumps(document))


@given(JSON)
def test_any_document_is_taken_or_refused(document: Any) -> None:
    for read in (
        lambda told: parse_aggregated(told),
        lambda told: convert_resource_list(told, GROUP, VERSION),
        lambda told: find_v3_hash(told, SERVICE),
        lambda told: take_v2(answer(told), SERVICE),
    ):
        try:
            read(parse_document(answer(document)))
        except BadDocument:
            pass


@given(JSON, JSON)
def test_what_is_taken_can_be_told_in_every_form(item: Any, definition: Any) -> None:
    document = {"paths": {f"{ROOT}/flunders": item}, "definitions": {"A": definition}}
    try:
        part = take_v2(answer(document), SERVICE)
    except BadDocument:
        return
    own = {"swagger": "2.0", "info": {"title": "t", "version": "v"}, "paths": {}, "definitions": {"A": {}}}
    encode_v2(merge_v2(own, [part]))
    orjson.dumps(convert_to_v3(part))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b"[" * 100_000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadDocument):
        parse_document(WholeAnswer(200, {}, body))


def test_only_what_the_group_needs_is_taken() -> None:
    document = _openapi_v2()
    document["definitions"]["Unused"] = {"type": "object"}
    document["parameters"] = {"p": {"name": "pretty", "in": "query", "type": "string"}}
    operation = next(iter(document["paths"].values()))["get"]
    operation["parameters"] = [{"$ref": "#/parameters/p"}]
    part = take_v2(answer(document), SERVICE)
    assert set(part["definitions"]) == {DEFINITION, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    assert set(part["paths"]) == {f"{ROOT}/namespaces/{{namespace}}/flunders"}
    taken = next(iter(part["paths"].values()))["get"]["parameters"]
    assert taken == [document["parameters"]["p"]], "written out: others have no parameter of that name"


def test_the_same_definition_is_told_once() -> None:
    shared = {"type": "object", "properties": {"x": {"$ref": "#/definitions/B"}}}
    own = {"paths": {}, "definitions": {"A": shared, "B": {"type": "string"}}}
    part = {
        "paths": {"/p": {"get": {"$ref": "#/definitions/A"}}},
        "definitions": {"A": shared, "B": {"type": "integer"}},
    }
    merged = merge_v2(own, [part])
    assert set(merged["definitions"]) == {"A", "B", "B_v2"}
    assert merged["definitions"]["B_v2"] == {"type": "integer"}
    assert merged["paths"]["/p"]["get"] == {"$ref": "#/definitions/A"}
