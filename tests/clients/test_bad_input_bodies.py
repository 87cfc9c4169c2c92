"""Bodies that are no objects, not the right ones, or bombs: each gets a Status of upstream's kind, quickly."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import orjson
import pytest
from apiserver_process import ApiServerProcess, Reply, Wire
from bad_input_fixtures import CONFIGMAPS, bystander, server, wire

__all__ = ["bystander", "server", "wire"]

YAML, APPLY = "application/yaml", "application/apply-patch+yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
JSON_PATCH, MERGE, STRATEGIC = (
    f"application/{kind}+json" for kind in ("json-patch", "merge-patch", "strategic-merge-patch")
)
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def assert_status(reply: Reply, *codes: int) -> None:
    assert reply.status in codes, (reply.status, reply.body[:500])
    assert reply.is_status, reply.body[:500]
    status = reply.json
    assert (status["status"], status["code"]) == ("Failure", reply.status)
    assert status["message"] and status["reason"]
    assert "Internal error" not in status["message"]


BROKEN_JSON = {
    "empty": b"",
    "open object": b"{",
    "open list": b"[",
    "null": b"null",
    "number": b"5",
    "text": b'"x"',
    "list": b"[5]",
    "NaN": b"NaN",
    "NaN inside": b'{"a":NaN}',
    "infinity": b'{"metadata":{"name":"n","generation":1e400}}',
    "over 64 bits": b'{"metadata":{"name":"n","generation":99999999999999999999999}}',
    "a million digits": b'{"metadata":{"name":"n","generation":' + b"9" * 1_000_000 + b"}}",
    "10,000 objects deep": b'{"data":' * 10_000 + b"1" + b"}" * 10_000,
    "10,000 lists deep": b"[" * 10_000 + b"]" * 10_000,
    "500 deep where text should be": b'{"metadata":{"name":"deep"},"data":' + b'{"a":' * 500 + b"1" + b"}" * 501,
    "900 deep in an unknown field": b'{"metadata":{"name":"deep"},"x":' + b'{"a":' * 900 + b"1" + b"}" * 901,
    "UTF-16": '{"metadata":{"name":"x"}}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"metadata":{"name":"bom"}}',
    "not UTF-8": b'{"metadata":{"name":"\xff"}}',
    "half a surrogate pair": b'{"metadata":{"name":"x\\ud800"}}',
    "a million names": b'{"data":5,' + b",".join(b'"%d":1' % i for i in range(200_000)) + b"}",
    "another kind": b'{"kind":"Pod"}',
    "another version": b'{"apiVersion":"v2"}',
    "kind is a number": b'{"kind":5}',
}


@pytest.mark.parametrize("body", BROKEN_JSON.values(), ids=BROKEN_JSON)
async def test_broken_json_is_a_bad_request_on_every_way_in(wire: Wire, body: bytes) -> None:
    assert_status(await wire.request("POST", CONFIGMAPS, body), 400)
    assert_status(await wire.request("PUT", f"{CONFIGMAPS}/absent", body), 400, 404)
    for patch_type in (JSON_PATCH, MERGE, STRATEGIC):
        assert_status(await wire.request("PATCH", f"{CONFIGMAPS}/present", body, patch_type), 400, 404, 422)
    if body not in (b"", b"null"):
        assert_status(await wire.request("DELETE", f"{CONFIGMAPS}/absent", body), 400, 404)


async def test_duplicate_keys_are_told_as_the_request_asks(wire: Wire) -> None:
    body = b'{"metadata":{"name":"twice"},"data":{"a":"1","a":"2"}}'
    strict = await wire.request("POST", f"{CONFIGMAPS}?fieldValidation=Strict", body)
    assert_status(strict, 400)
    assert 'duplicate field "data.a"' in strict.json["message"]
    warned = await wire.request("POST", f"{CONFIGMAPS}?fieldValidation=Warn", body)
    assert (warned.status, warned.json["data"]) == (201, {"a": "2"})
    assert "duplicate field" in warned.headers["warning"]
    assert (await wire.request("DELETE", f"{CONFIGMAPS}/twice")).status == 200


_LEVELS = "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12))
BROKEN_YAML = {
    "open list": b"a: [",
    "not UTF-8": b"a: \xff",
    "unknown version": b"%YAML 9.9\n---\na: 1",
    "undefined alias": b"a: *b",
    "a list within itself": b"&a [*a]",
    "a map within itself": b"apiVersion: v1\nkind: ConfigMap\nmetadata: &a\n  name: x\n  labels: *a\n",
    "a Python object": b'!!python/object/apply:os.system ["id"]',
    "a list as key": b"? [1,2]\n: 3",
    "two documents": b"a: 1\n---\nb: 2",
    "no such month": b"a: 2001-99-99",
    "no integer": b'a: !!int ""',
    "no time": b"a: !!timestamp foo",
    "no truth": b"a: !!bool zz",
    "5,000 digits": b"a: " + b"9" * 5_000,
    "a set": b"a: !!set {b}",
    "a merge of a number": b"<<: 5",
    "a billion laughs": f"a: &a ['x','x','x','x','x','x','x','x','x']\n{_LEVELS}".encode(),
    "a million aliases": b"a: &a [b]\nc: [" + b"*a," * 900_000 + b"]",
    "a million levels of a block": b"- " * 1_000_000,
    "three million levels of a flow": b"[" * 3_000_000,
    "levels of maps": b"{a: " * 500_000,
}


@pytest.mark.parametrize("body", BROKEN_YAML.values(), ids=BROKEN_YAML)
async def test_broken_and_exploding_yaml_is_a_bad_request(wire: Wire, body: bytes) -> None:
    assert_status(await wire.request("POST", CONFIGMAPS, body, YAML), 400)
    assert_status(await wire.request("PATCH", f"{CONFIGMAPS}/x?fieldManager=m", body, APPLY), 400)


BROKEN_PROTOBUF = {
    "empty": b"",
    "no magic": b"garbage",
    "magic alone": b"k8s\0",
    "endless number": b"k8s\0" + b"\xff" * 12,
    "length over the end": b"k8s\0\x0a\xff\xff\xff\xff\x0f",
    "cut in the object": b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x05\n\x03\n\xff\xff",
    "unknown kind": b"k8s\0\n\x0b\n\x02v1\x12\x05Thing",
    "group end without start": b"k8s\0\x0c\x0c",
}


@pytest.mark.parametrize("body", BROKEN_PROTOBUF.values(), ids=BROKEN_PROTOBUF)
async def test_broken_protobuf_is_refused(wire: Wire, body: bytes) -> None:
    assert_status(await wire.request("POST", CONFIGMAPS, body, PROTOBUF), 400, 415)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "\xff;;;", "multipart/form-data; boundary=x"]
)
async def test_other_content_types_are_named_as_unsupported(wire: Wire, content_type: str) -> None:
    assert_status(await wire.request("POST", CONFIGMAPS, b"{}", content_type), 415)
    assert_status(await wire.request("PATCH", f"{CONFIGMAPS}/present", b"{}", content_type), 415)


async def test_objects_and_bodies_over_their_limits_are_too_large(wire: Wire, server: ApiServerProcess) -> None:
    big = {"metadata": {"name": "big"}, "binaryData": {"a": "A" * 1_600_000}}
    reply = await wire.request("POST", CONFIGMAPS, big)
    assert_status(reply, 413, 422)
    async with server.wire() as other:
        reply = await other.request("POST", CONFIGMAPS, b" " * 10_000_000)
        assert_status(reply, 413)
        assert reply.json["reason"] == "RequestEntityTooLarge"
        assert await other.end() == b""


async def test_bodies_of_very_many_things_are_handled_in_linear_time(wire: Wire) -> None:
    """A quadratic step anywhere would take minutes, and nobody else would be answered meanwhile."""
    path = f"{CONFIGMAPS}/many-things"
    names = b",".join(b'"%d":1' % i for i in range(100_000))
    twice = b'{"metadata":{"name":"many-things"},"0":1,' + names + b"}"
    assert_status(await wire.request("POST", f"{CONFIGMAPS}?fieldValidation=Strict", twice), 400)
    made = await wire.request("POST", CONFIGMAPS, twice)
    assert made.status == 201
    assert made.headers["warning"]
    assert (await wire.request("PATCH", path, twice, MERGE)).status == 200
    finalizers = [f"a/{i}" for i in range(40_000)]
    assert (await wire.request("PATCH", path, {"metadata": {"finalizers": finalizers}}, STRATEGIC)).status == 200
    ordered = {"metadata": {"$setElementOrder/finalizers": finalizers, "finalizers": finalizers}}
    assert (await wire.request("PATCH", path, ordered, STRATEGIC)).status == 200
    kept = {"data": {"$retainKeys": [str(i) for i in range(40_000)], "1": "x"}}
    assert (await wire.request("PATCH", path, kept, STRATEGIC)).status == 200
    removed = {"metadata": {"$deleteFromPrimitiveList/finalizers": finalizers}}
    emptied = await wire.request("PATCH", path, removed, STRATEGIC)
    assert emptied.status == 200 and not emptied.json["metadata"].get("finalizers")
    assert (await wire.request("DELETE", path)).status == 200


def _patched(*operations: Any) -> bytes:
    return orjson.dumps(list(operations))


BAD_PATCHES = {
    "copies that double": _patched(*({"op": "copy", "from": "/data", "path": f"/data/k{i}"} for i in range(60))),
    "moves that deepen": _patched(
        {"op": "add", "path": "/x", "value": orjson.loads(b'{"a":' * 100 + b"{}" + b"}" * 100)},
        *({"op": "move", "from": "/x", "path": f"/y{i}"} for i in range(3)),
        *({"op": "add", "path": "/data" + "/a" * i, "value": {}} for i in range(1, 400)),
        {"op": "copy", "from": "/data", "path": "/z"},
    ),
    "an index of 5,000 digits": _patched({"op": "add", "path": "/metadata/finalizers/" + "9" * 5_000, "value": "1"}),
    "a failed test": _patched({"op": "test", "path": "/data", "value": 1}),
    "the whole object away": _patched({"op": "remove", "path": ""}),
    "no object": _patched({"op": "add", "path": "", "value": None}),
    "a number as metadata": _patched({"op": "replace", "path": "/metadata", "value": 5}),
    "no metadata": _patched({"op": "replace", "path": "/metadata", "value": None}),
    "no list as finalizers": _patched({"op": "add", "path": "/metadata/finalizers", "value": {"a": 1}}),
    "broken field set": _patched(
        {"op": "add", "path": "/metadata/managedFields", "value": [{"fieldsV1": {"f:x": 5, "k:no": {}, "v:{": {}}}, 5]}
    ),
    "another kind": _patched({"op": "replace", "path": "/kind", "value": "Pod"}),
    "numbers as operations": b"[1,2]",
}


@pytest.mark.parametrize("patch", BAD_PATCHES.values(), ids=BAD_PATCHES)
async def test_json_patches_that_do_not_fit_or_explode_change_nothing(wire: Wire, patch: bytes) -> None:
    path = f"{CONFIGMAPS}/patched"
    made = await wire.request("POST", CONFIGMAPS, {"metadata": {"name": "patched"}, "data": {"k": "v" * 100}})
    assert_status(await wire.request("PATCH", path, patch, JSON_PATCH), 400, 422)
    after = await wire.request("GET", path)
    assert after.json["metadata"]["resourceVersion"] == made.json["metadata"]["resourceVersion"]
    assert (await wire.request("DELETE", path)).status == 200


async def test_a_json_patch_of_more_than_10000_operations_is_too_large(wire: Wire) -> None:
    assert (await wire.request("POST", CONFIGMAPS, {"metadata": {"name": "many"}})).status == 201
    operations = [{"op": "add", "path": "/data", "value": {}}] * 10_001
    reply = await wire.request("PATCH", f"{CONFIGMAPS}/many", operations, JSON_PATCH)
    assert_status(reply, 413)
    assert "10000" in reply.json["message"]
    assert (await wire.request("DELETE", f"{CONFIGMAPS}/many")).status == 200


BAD_APPLIES = [
    {},
    {"apiVersion": 5, "kind": 6},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": 5},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": [1]},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "managedFields": [{}]}},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "ownerReferences": [{}]}},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": [1]},
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}},
]


@pytest.mark.parametrize("applied", BAD_APPLIES, ids=str)
async def test_applied_configurations_of_wrong_shape_are_refused(wire: Wire, applied: Any) -> None:
    reply = await wire.request("PATCH", f"{CONFIGMAPS}/x?fieldManager=m", applied, APPLY)
    if b"failed to create typed patch object" not in reply.body:  # upstream answers 500 to these
        assert_status(reply, 400, 422)


def definition(name: str, schema: Any) -> dict[str, Any]:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": name, "singular": name[:-1], "kind": name.capitalize()}
    spec = {"group": "bad.example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    return {"metadata": {"name": f"{name}.bad.example.com"}, "spec": spec}


async def established(server: ApiServerProcess, name: str) -> None:
    """Wait until a definition is served."""
    async with server.wire() as watching:
        path = f"{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3D{name}"
        await watching.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await watching.head()
        async with aclosing(watching.events()) as events:
            async for event in events:
                conditions = event["object"].get("status", {}).get("conditions", [])
                if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                    return


async def test_a_regex_bomb_in_a_definition_takes_no_time(wire: Wire, server: ApiServerProcess) -> None:
    schema = {"type": "object", "properties": {"s": {"type": "string", "pattern": "^(a+)+$"}}}
    assert (await wire.request("POST", DEFINITIONS, definition("bombs", schema))).status == 201
    thing = {"apiVersion": "bad.example.com/v1", "kind": "Bombs", "metadata": {"name": "x"}, "s": "a" * 100_000 + "!"}
    await established(server, "bombs.bad.example.com")
    reply = await wire.request("POST", "/apis/bad.example.com/v1/namespaces/default/bombs", thing)
    assert_status(reply, 422)
    assert (await wire.request("DELETE", f"{DEFINITIONS}/bombs.bad.example.com")).status == 200


@pytest.mark.parametrize(
    "pattern", ["(", "(?=a)", "((a{1000}){1000}){1000}", "a" * 1_000_000, "\\"], ids=lambda p: p[:9]
)
async def test_patterns_that_are_none_or_too_large_are_refused_with_the_definition(wire: Wire, pattern: str) -> None:
    schema = {"type": "object", "properties": {"s": {"type": "string", "pattern": pattern}}}
    reply = await wire.request("POST", DEFINITIONS, definition("nones", schema))
    assert_status(reply, 422)
    assert "must be a valid regular expression" in reply.json["message"]


BAD_SCHEMAS = {
    "a number": 5,
    "empty": {},
    "a reference": {"$ref": "#/x"},
    "200 levels": orjson.loads(b'{"type":"object","properties":{"a":' * 100 + b'{"type":"string"}' + b"}}" * 100),
    "properties is a list": {"type": "object", "properties": [1]},
    "a property is a number": {"type": "object", "properties": {"a": 5}},
    "required is text": {"type": "object", "required": "a"},
    "an unknown type": {"type": "object", "properties": {"a": {"type": "thing"}}},
}


@pytest.mark.parametrize("schema", BAD_SCHEMAS.values(), ids=BAD_SCHEMAS)
async def test_schemas_that_are_none_are_refused(wire: Wire, schema: Any) -> None:
    assert_status(await wire.request("POST", DEFINITIONS, definition("wrongs", schema)), 400, 422)


async def test_a_schema_of_20000_properties_is_served(wire: Wire) -> None:
    schema = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(20_000)}}
    assert (await wire.request("POST", DEFINITIONS, definition("huges", schema))).status == 201
    assert (await wire.request("DELETE", f"{DEFINITIONS}/huges.bad.example.com")).status == 200
