"""Decoding: pruning, type errors in upstream's words, canonical values, and the quick way agreeing with the careful."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.api import schemanode
from tiphys.api.definitions import load_definitions
from tiphys.api.quickcheck import QuickCheck
from tiphys.api.schema import ObjectSchema, compile_schema, find_duplicate_fields
from tiphys.api.timestamps import canonical_micro_time, canonical_time

DEFINITIONS = load_definitions((1, 37))


def schema(name: str = "io.k8s.api.core.v1.Pod") -> ObjectSchema:
    return compile_schema(DEFINITIONS, name)


def pod() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "labels": {"app": "web"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "image": "i",
                    "command": ["x"],
                    "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
                    "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 3},
                }
            ],
            "priority": 0,
            "hostNetwork": False,
        },
    }


def put(obj: Any, path: tuple[Any, ...], value: Any) -> Any:
    inner = obj
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return obj


C = ("spec", "containers")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (C, "x", "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container"),
        (("spec",), [], "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec"),
        (("metadata",), 1, "json: cannot unmarshal number into Go struct field Pod.metadata of type v1.ObjectMeta"),
        (
            (*C, 0, "command"),
            [{}],
            "json: cannot unmarshal object into Go struct field Container.spec.containers.command of type string",
        ),
        (
            ("metadata", "labels"),
            {"a": 1},
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            ("metadata", "labels"),
            "x",
            "json: cannot unmarshal string into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            ("spec", "priority"),
            "1",
            "json: cannot unmarshal string into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            ("spec", "priority"),
            2**31,
            "json: cannot unmarshal number 2147483648 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            ("spec", "priority"),
            1.5,
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            ("spec", "hostNetwork"),
            "true",
            "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
        ),
        (
            ("spec", "restartPolicy"),
            3,
            "json: cannot unmarshal number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            (*C, 0, "livenessProbe", "httpGet", "port"),
            True,
            "json: cannot unmarshal bool into Go struct field "
            "HTTPGetAction.spec.containers.livenessProbe.httpGet.port of type int32",
        ),
        (
            (*C, 0, "resources", "limits"),
            {"cpu": "x"},
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            ("metadata", "creationTimestamp"),
            "soon",
            'parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006"',
        ),
    ],
)
def test_type_errors(path: tuple[Any, ...], value: Any, message: str) -> None:
    assert schema().decode(put(pod(), path, value)).type_errors == (message,)


def test_unknown_fields_are_dropped_and_told() -> None:
    obj = pod()
    obj["spec"]["foo"] = 1
    obj["spec"]["containers"][0]["imagePullPolici"] = "Always"
    assert set(schema().decode(obj).unknown_fields) == {"spec.foo", "spec.containers[0].imagePullPolici"}
    assert obj == pod()


def test_null_means_absent() -> None:
    obj = put(pod(), ("spec", "nodeName"), None)
    obj["metadata"]["annotations"] = {"a": None}
    obj["spec"]["containers"].append(None)
    assert not schema().decode(obj).type_errors
    assert "nodeName" not in obj["spec"]
    assert obj["metadata"]["annotations"] == {"a": ""}
    assert obj["spec"]["containers"][1] == {}


def test_empty_lists_and_maps_are_left_out_as_go_leaves_them_out() -> None:
    thing, kind = pod(), schema()
    thing["metadata"] |= {"labels": {}, "annotations": {}, "finalizers": []}
    thing["spec"] |= {"tolerations": [], "nodeSelector": {}, "securityContext": {}, "initContainers": []}
    thing["spec"]["containers"][0]["resources"] = {"limits": {}}
    for _ in range(20):  # the careful way, then the quick one
        tried = copy.deepcopy(thing)
        assert not kind.decode(tried).type_errors
        assert not {"labels", "annotations", "finalizers"} & tried["metadata"].keys()
        assert not {"tolerations", "nodeSelector", "initContainers"} & tried["spec"].keys()
        assert tried["spec"]["securityContext"] == {}
        assert tried["spec"]["containers"][0]["resources"] == {}


def test_a_list_that_is_always_told_stays_empty() -> None:
    role: dict[str, Any] = {"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": []}
    schema("io.k8s.api.rbac.v1.ClusterRole").decode(role)
    assert role["rules"] == []
    selector: dict[str, Any] = {"key": "a", "operator": "In", "values": []}
    policy: dict[str, Any] = {
        "spec": {"podSelector": {"matchExpressions": [selector], "matchLabels": {}}, "policyTypes": []}
    }
    schema("io.k8s.api.networking.v1.NetworkPolicy").decode(policy)
    assert policy["spec"] == {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}


def test_quantities_and_times_become_canonical() -> None:
    obj = put(pod(), (*C, 0, "resources"), {"limits": {"cpu": 0.5, "memory": "1024Mi"}})
    obj["metadata"]["creationTimestamp"] = "2026-01-01T02:00:00.5+02:00"
    assert not schema().decode(obj).type_errors
    assert obj["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "500m", "memory": "1Gi"}
    assert obj["metadata"]["creationTimestamp"] == "2026-01-01T00:00:00Z"


def test_raw_extensions_are_left_alone() -> None:
    revision = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1, "data": {"any": [None, {"x": 1}]}}
    before = copy.deepcopy(revision)
    assert schema("io.k8s.api.apps.v1.ControllerRevision").decode(revision).unknown_fields == ()
    assert revision == before


def test_secret_data_is_base64() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "data": {"a": "aGk=", "b": "a*"}}
    errors = schema("io.k8s.api.core.v1.Secret").decode(secret).type_errors
    assert errors == ("illegal base64 data at input byte 1",)


def test_nodes_tell_merge_keys() -> None:
    found = schema("io.k8s.api.apps.v1.Deployment").node(["spec", "template", "spec", "containers", "env"])
    assert found is not None
    assert found["x-kubernetes-patch-merge-key"] == "name"
    assert schema().node(["spec", "nothing"]) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.sampled_from([0.5, 1.0]) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "x", "cpu"]), inner, max_size=2)
    ),
    max_leaves=4,
)
PLACES = [
    ("spec",),
    C,
    (*C, 0),
    (*C, 0, "command"),
    (*C, 0, "resources", "limits"),
    (*C, 0, "resources", "limits", "cpu"),
    (*C, 0, "livenessProbe", "httpGet", "port"),
    (*C, 0, "livenessProbe", "periodSeconds"),
    ("metadata", "labels"),
    ("metadata", "creationTimestamp"),
    ("metadata", "unknown"),
    ("spec", "priority"),
    ("spec", "hostNetwork"),
    ("spec", "terminationGracePeriodSeconds"),
]
VALUES = JSON | st.sampled_from(["1024Mi", "1Gi", "1", "0.5", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z"])
_quick = QuickCheck(schema().root)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), VALUES)
def test_the_quick_way_accepts_only_what_the_careful_way_leaves_alone(path: tuple[Any, ...], value: Any) -> None:
    obj = put(pod(), path, copy.deepcopy(value))
    if path == ("metadata", "creationTimestamp") and value is None:
        return
    careful = copy.deepcopy(obj)
    found = schemanode.Findings()
    schema().root.decode(careful, (), found)
    if _quick.accepts(obj):
        assert not found.errors
        assert not found.unknown
        assert orjson.dumps(careful) == orjson.dumps(obj)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PLACES), VALUES)
def test_decoding_twice_changes_nothing(path: tuple[Any, ...], value: Any) -> None:
    obj = put(pod(), path, copy.deepcopy(value))
    if schema().decode(obj).type_errors:
        return
    again = copy.deepcopy(obj)
    assert schema().decode(again) == schema().decode(copy.deepcopy(obj))
    assert again == obj


def test_the_quick_way_is_taken_for_kinds_that_are_written_often() -> None:
    mine = schema()
    for _ in range(20):
        assert mine.decode(pod()).type_errors == ()
    assert mine._quick is not None
    obj = pod()
    obj["metadata"]["creationTimestamp"] = None
    assert mine._quick.accepts(obj)
    assert "creationTimestamp" not in obj["metadata"]
    assert mine.decode({**pod(), "foo": 1}).unknown_fields == ("foo",)


def test_a_recursive_schema_has_no_quick_way_and_still_decodes() -> None:
    name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition"
    mine = schema(name)
    crd: dict[str, Any] = {"spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": {"a": {"type": 1}}}}}]}}
    for _ in range(20):
        errors = mine.decode(copy.deepcopy(crd)).type_errors
    assert errors == (
        "json: cannot unmarshal number into Go struct field "
        "JSONSchemaProps.spec.versions.schema.openAPIV3Schema.properties.type of type string",
    )


@pytest.mark.parametrize("version", [(1, 25), (1, 31), (1, 37)])
def test_every_kind_of_a_version_compiles(version: tuple[int, int]) -> None:
    definitions = load_definitions(version)
    for name, definition in definitions.items():
        if "x-kubernetes-group-version-kind" in definition:
            QuickCheck(compile_schema(definitions, name).root)


def test_duplicate_fields() -> None:
    text = b'{"a": 1, "b": {"c": 1, "c": 2, "d": [{"x": 1, "x": 2}]}, "a": 2}'
    assert find_duplicate_fields(text) == ["a", "b.c", "b.d[0].x"]
    assert find_duplicate_fields(b'{"a": {"b": [1, 2.50, "\\u003c"]}}') == []
    assert find_duplicate_fields(b'{"a":1}') == []


def test_times() -> None:
    assert canonical_time("2026-02-03T04:05:06Z") == "2026-02-03T04:05:06Z"
    assert canonical_micro_time("2026-02-03T04:05:06.000001-01:00") == "2026-02-03T05:05:06.000001Z"
    for text, complaint in [
        ("2026-02-03", 'cannot parse "" as "T"'),
        ("2026-02-30T00:00:00Z", "day out of range"),
        ("2026-13-01T00:00:00Z", "month out of range"),
        ("2026-01-01T00:00:00Zx", 'extra text: "x"'),
        ("2026-01-01T00:00:00", 'cannot parse "" as "Z07:00"'),
    ]:
        with pytest.raises(ValueError, match=complaint):
            canonical_time(text)
    with pytest.raises(ValueError, match=r'as "\.000000"'):
        canonical_micro_time("2026-01-01T00:00:00Z")
