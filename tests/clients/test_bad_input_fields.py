"""Wrong types in every field: values from the schema, one place replaced by something else (Hypothesis).

The server answers each with a Status or, where the odd value is allowed, with the object; never with a 500.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from apiserver_process import ApiServerProcess
from bad_input_fixtures import server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiphys.api.kinds import builtin_kinds
from tiphys.api.schemanode import Node, StructNode

__all__ = ["server"]

PATHS = {
    "Pod": "/api/v1/namespaces/default/pods",
    "Deployment": "/apis/apps/v1/namespaces/default/deployments",
    "ConfigMap": "/api/v1/namespaces/default/configmaps",
}
CONTAINER = {"name": "c", "image": "x", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "b"}]}
POD_SPEC = {"containers": [CONTAINER], "volumes": [{"name": "v", "emptyDir": {}}]}
BASES: dict[str, dict[str, Any]] = {
    "Pod": {"spec": POD_SPEC},
    "Deployment": {
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": POD_SPEC},
        }
    },
    "ConfigMap": {"data": {"a": "b"}, "binaryData": {"c": "AAAA"}},
}
KINDS = {kind.kind: kind for kind in builtin_kinds((1, 37)) if kind.kind in PATHS and not kind.virtual}

odd_text = st.sampled_from(
    [
        "",
        " ",
        "\0",
        "a" * 300,
        "-",
        "..",
        "../x",
        "A_b",
        "ä",
        "\U0001f600",
        "1e999",
        "{{",
        "$(A)",
        "a\nb",
        "0x1",
        "a/b/c",
    ]
)
odd_number = st.sampled_from([0, -1, 1, 65_536, 2**31, -(2**31) - 1, 2**53, 2**63 - 1, -(2**63), 0.5, -0.0, 1e308])
odd_scalar = st.one_of(st.none(), st.booleans(), odd_text, odd_number)
odd = st.recursive(
    odd_scalar,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(odd_text, inner, max_size=3)),
    max_leaves=6,
)


def _places(kind: str) -> list[tuple[str, ...]]:
    """Return the path of every field of a kind, as deep as six names; "[]" stands for a list's first item."""
    found: list[tuple[str, ...]] = []

    def visit(node: Node | None, path: tuple[str, ...]) -> None:
        if node is None or len(path) > 7:
            return
        if path:
            found.append(path)
        for name in node.struct.fields if isinstance(node, StructNode) else ():
            visit(node.field(name), (*path, name))
        item = node.item_node()
        if item is not None:
            visit(item, (*path, "[]"))

    visit(KINDS[kind].schema.root, ())
    return found


def _put(value: Any, path: tuple[str, ...], wrong: Any) -> Any:
    if not path:
        return wrong
    step, rest = path[0], path[1:]
    if step == "[]":
        items = value if isinstance(value, list) and value else [{}]
        return [_put(items[0], rest, wrong), *items[1:]]
    fields = dict(value) if isinstance(value, dict) else {}
    fields[step] = _put(fields.get(step), rest, wrong)
    return fields


@pytest.fixture(scope="module")
def connection(server: ApiServerProcess) -> Iterator[http.client.HTTPSConnection]:
    opened = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=20)
    account = orjson.dumps({"metadata": {"name": "default"}})
    _ask(opened, "POST", "/api/v1/namespaces/default/serviceaccounts", account)
    yield opened
    opened.close()


def _ask(connection: http.client.HTTPSConnection, method: str, path: str, body: bytes, type_: str = "json") -> Any:
    connection.request(method, path, body, {"Content-Type": f"application/{type_}"})
    answer = connection.getresponse()
    data = answer.read()
    decoded = orjson.loads(data)
    if type_.startswith("strategic") and answer.status == 500:
        assert "merge key" in decoded["message"]  # upstream's own answer to items without their key
        return decoded
    if type_.startswith("apply") and answer.status == 500:
        assert decoded["message"].startswith("failed to create typed patch object")  # so it is upstream
        return decoded
    assert answer.status < 500, (answer.status, data, body)
    if answer.status >= 400:
        assert decoded["kind"] == "Status" and decoded["message"] and decoded["reason"], data
        assert not re.search(r"object has no attribute|unhashable|NoneType|Traceback", decoded["message"]), data
    return decoded


@pytest.mark.parametrize("kind", PATHS)
def test_places_are_many(kind: str) -> None:
    assert len(_places(kind)) > {"Pod": 500, "Deployment": 500, "ConfigMap": 10}[kind]


@pytest.mark.parametrize("kind", PATHS)
def test_an_odd_value_in_any_field_gets_a_status_on_every_way_in(
    server: ApiServerProcess, connection: http.client.HTTPSConnection, kind: str
) -> None:
    places = _places(kind)
    start = server.log.stat().st_size

    @settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(places), odd)
    def attempt(place: tuple[str, ...], wrong: Any) -> None:
        head = {"apiVersion": KINDS[kind].api_version, "kind": kind, "metadata": {"name": "odd"}}
        body = _put({**head, **BASES[kind]}, place, wrong)
        path = PATHS[kind]
        _ask(connection, "POST", f"{path}?dryRun=All", orjson.dumps(body))
        if place[0] not in ("apiVersion", "kind"):
            applied = orjson.dumps({**body, "apiVersion": head["apiVersion"], "kind": kind})
            _ask(connection, "PATCH", f"{path}/odd?dryRun=All&fieldManager=m", applied, "apply-patch+yaml")
        patch = orjson.dumps(_put({}, place, wrong))
        for type_ in ("merge-patch+json", "strategic-merge-patch+json"):
            _ask(connection, "PATCH", f"{path}/base?dryRun=All", patch, type_)

    base = {"metadata": {"name": "base"}, **BASES[kind]}
    _ask(connection, "POST", PATHS[kind], orjson.dumps(base))
    attempt()
    assert not server.complaints(start)
