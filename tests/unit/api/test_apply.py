"""Field ownership: tracking of writes, server-side apply, conflicts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.api.apply import LAST_APPLIED, MAX_UPDATE_MANAGERS, apply, track_update
from tiphys.api.definitions import load_definitions
from tiphys.api.fieldset import compare, difference, intersection, members, path_string, union_sets
from tiphys.api.schema import compile_schema
from tiphys.api.schemanode import root_of
from tiphys.api.structural import StructuralSchema
from tiphys.base.errors import ApiError

DEFINITIONS = load_definitions((1, 37))
DEPLOYMENT = compile_schema(DEFINITIONS, "io.k8s.api.apps.v1.Deployment")
CONFIG_MAP = compile_schema(DEFINITIONS, "io.k8s.api.core.v1.ConfigMap")
T0, T1, T2 = (f"2026-01-01T00:00:0{second}Z" for second in range(3))

Json = dict[str, Any]


def deployment(**spec: Any) -> Json:
    container = {"name": "c", "image": "x", "ports": [{"containerPort": 80}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "d", "labels": {"app": "web"}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}},
            **spec,
        },
    }


def config_map(data: Json, **metadata: Any) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", **metadata}, "data": data}


def tracked(old: Json | None, new: Json, manager: str, now: str = T0, subresource: str = "") -> Json:
    new = copy.deepcopy(new)
    if old is not None and "managedFields" in old["metadata"]:
        new["metadata"].setdefault("managedFields", old["metadata"]["managedFields"])
    version = new["apiVersion"]
    schema = DEPLOYMENT if new["kind"] == "Deployment" else CONFIG_MAP
    track_update(old, new, manager, "Update", subresource, version, now, schema)
    return new


def applied(live: Json | None, config: Json, manager: str = "kubectl", force: bool = False, now: str = T1) -> Json:
    schema = DEPLOYMENT if config["kind"] == "Deployment" else CONFIG_MAP
    before = copy.deepcopy((live, config))
    result = apply(live, config, manager, force, schema, config["apiVersion"], now)
    assert (live, config) == before
    return result


def entries(obj: Json) -> list[Json]:
    result: list[Json] = obj["metadata"].get("managedFields", [])
    return result


def owned(obj: Json, manager: str) -> set[str]:
    return {
        path_string(path)
        for entry in entries(obj)
        if entry["manager"] == manager
        for path in members(entry["fieldsV1"])
    }


def test_a_created_object_belongs_to_its_creator() -> None:
    """The entry of `kubectl create`, as upstream keeps it."""
    obj = tracked(
        None, deployment(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}), "kubectl-create"
    )
    assert entries(obj) == [
        {
            "manager": "kubectl-create",
            "operation": "Update",
            "apiVersion": "apps/v1",
            "time": T0,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:replicas": {},
                    "f:selector": {},
                    "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
                    "f:template": {
                        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                        "f:spec": {
                            "f:containers": {
                                'k:{"name":"c"}': {
                                    ".": {},
                                    "f:image": {},
                                    "f:name": {},
                                    "f:ports": {
                                        ".": {},
                                        'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}},
                                    },
                                }
                            }
                        },
                    },
                },
            },
        }
    ]


def test_a_write_that_changes_nothing_keeps_every_time_stamp() -> None:
    obj = tracked(None, deployment(), "a", T0)
    assert entries(tracked(obj, obj, "b", T1)) == entries(obj)
    assert entries(tracked(obj, obj, "a", T1)) == entries(obj)


def test_a_changed_field_moves_to_its_changer() -> None:
    obj = tracked(None, deployment(), "a", T0)
    new = copy.deepcopy(obj)
    new["spec"]["replicas"] = 5
    result = tracked(obj, new, "b", T1)
    assert owned(result, "b") == {".spec.replicas"}
    assert ".spec.replicas" not in owned(result, "a")
    assert [(entry["manager"], entry["time"]) for entry in entries(result)] == [("a", T0), ("b", T1)]


def test_a_removed_field_belongs_to_nobody() -> None:
    obj = tracked(None, config_map({"x": "1", "y": "2"}), "a")
    new = copy.deepcopy(obj)
    del new["data"]["x"]
    result = tracked(obj, new, "b", T1)
    assert owned(result, "a") == {".data", ".data.y"}
    assert owned(result, "b") == set()


def test_subresources_are_tracked_apart() -> None:
    obj = tracked(None, deployment(), "a")
    new = copy.deepcopy(obj)
    new["status"] = {"replicas": 1}
    result = tracked(obj, new, "a", T1, subresource="status")
    assert [(e["manager"], e.get("subresource", "")) for e in entries(result)] == [("a", ""), ("a", "status")]
    assert entries(result)[1]["fieldsV1"] == {"f:status": {"f:replicas": {}}}


def test_old_updaters_are_merged_when_there_are_too_many() -> None:
    obj = tracked(None, config_map({}), "creator", T0)
    for index in range(20):
        new = copy.deepcopy(obj)
        new["data"][f"k{index}"] = "v"
        obj = tracked(obj, new, f"m{index:02d}", f"2026-01-01T00:01:{index:02d}Z")
    names = [entry["manager"] for entry in entries(obj)]
    assert len(names) == MAX_UPDATE_MANAGERS
    assert names[0] == "ancient-changes"
    assert owned(obj, "ancient-changes") >= {".data.k0", ".data.k9"}
    assert owned(obj, "m19") == {".data.k19"}


def test_cleared_managed_fields_stay_cleared_until_the_next_apply() -> None:
    obj = tracked(None, config_map({"x": "1"}), "a")
    new = copy.deepcopy(obj)
    new["metadata"]["managedFields"] = [{}]
    cleared = tracked(obj, new, "a")
    assert "managedFields" not in cleared["metadata"]
    changed = copy.deepcopy(cleared)
    changed["data"]["x"] = "2"
    changed = tracked(cleared, changed, "b")
    assert "managedFields" not in changed["metadata"]
    result = applied(changed, config_map({"y": "1"}))
    assert owned(result, "before-first-apply") == {".data", ".data.x"}
    assert owned(result, "kubectl") == {".data.y"}


def test_apply_of_an_absent_object_creates_it() -> None:
    result = applied(None, deployment())
    assert list(result)[:3] == ["apiVersion", "kind", "metadata"]
    assert result["spec"] == deployment()["spec"]
    assert entries(result) == [
        {
            "manager": "kubectl",
            "operation": "Apply",
            "apiVersion": "apps/v1",
            "time": T1,
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {
                    "f:replicas": {},
                    "f:selector": {},
                    "f:template": {
                        "f:metadata": {"f:labels": {"f:app": {}}},
                        "f:spec": {
                            "f:containers": {
                                'k:{"name":"c"}': {
                                    ".": {},
                                    "f:image": {},
                                    "f:name": {},
                                    "f:ports": {
                                        'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}
                                    },
                                }
                            }
                        },
                    },
                },
            },
        }
    ]


def test_applying_the_same_again_changes_nothing() -> None:
    live = applied(None, deployment(), now=T0)
    assert applied(live, deployment(), now=T1) == live


def test_a_conflict_names_manager_and_field() -> None:
    live = applied(None, deployment())
    scaled = copy.deepcopy(live)
    scaled["spec"]["replicas"] = 5
    scaled = tracked(live, scaled, "hpa")
    with pytest.raises(ApiError) as caught:
        applied(scaled, deployment())
    status = caught.value.status()
    assert status["message"] == 'Apply failed with 1 conflict: conflict with "hpa" using apps/v1: .spec.replicas'
    assert (status["code"], status["reason"]) == (409, "Conflict")
    assert status["details"] == {
        "causes": [
            {
                "reason": "FieldManagerConflict",
                "message": 'conflict with "hpa" using apps/v1',
                "field": ".spec.replicas",
            }
        ]
    }


def test_several_conflicts_are_told_by_manager() -> None:
    live = applied(None, deployment(), manager="first")
    config = deployment(replicas=9)
    config["spec"]["template"]["spec"]["containers"][0]["image"] = "y"
    with pytest.raises(ApiError) as caught:
        applied(live, config, manager="second")
    assert caught.value.message == (
        'Apply failed with 2 conflicts: conflicts with "first":\n'
        "- .spec.replicas\n"
        '- .spec.template.spec.containers[name="c"].image'
    )


def test_force_takes_the_field() -> None:
    live = applied(None, deployment(), manager="first")
    result = applied(live, deployment(replicas=9), manager="second", force=True)
    assert result["spec"]["replicas"] == 9
    assert ".spec.replicas" in owned(result, "second")
    assert ".spec.replicas" not in owned(result, "first")


def test_equal_values_are_shared_and_survive_one_owner() -> None:
    live = applied(None, config_map({"x": "1", "y": "1"}), manager="first")
    live = applied(live, config_map({"x": "1"}), manager="second")
    assert ".data.x" in owned(live, "first") & owned(live, "second")
    live = applied(live, config_map({"y": "1"}), manager="first")
    assert live["data"] == {"x": "1", "y": "1"}
    live = applied(live, config_map({}), manager="second")
    assert live["data"] == {"y": "1"}


def test_a_field_given_up_goes_unless_an_updater_owns_it() -> None:
    live = applied(None, deployment())
    scaled = copy.deepcopy(live)
    scaled["spec"]["replicas"] = 5
    scaled = tracked(live, scaled, "hpa")
    config = deployment()
    del config["spec"]["replicas"], config["metadata"]["labels"]
    result = applied(scaled, config)
    assert result["spec"]["replicas"] == 5
    assert "labels" not in result["metadata"]
    assert result["metadata"]["name"] == "web"


def test_list_items_given_up_go_with_what_the_server_added_to_them() -> None:
    config = deployment()
    config["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "y"})
    live = applied(None, config)
    live["spec"]["template"]["spec"]["containers"][1]["terminationMessagePath"] = "/dev/termination-log"
    result = applied(live, deployment())
    assert [c["name"] for c in result["spec"]["template"]["spec"]["containers"]] == ["c"]


def test_items_of_others_keep_their_places() -> None:
    config = deployment()
    live = applied(None, config)
    changed = copy.deepcopy(live)
    changed["spec"]["template"]["spec"]["containers"].insert(0, {"name": "mesh", "image": "m"})
    changed = tracked(live, changed, "injector")
    config["spec"]["template"]["spec"]["containers"].append({"name": "new", "image": "n"})
    result = applied(changed, config)
    assert [c["name"] for c in result["spec"]["template"]["spec"]["containers"]] == ["mesh", "c", "new"]


def test_atomic_parts_are_replaced_as_a_whole() -> None:
    live = applied(None, deployment())
    config = deployment(selector={"matchLabels": {"other": "x"}})
    assert applied(live, config)["spec"]["selector"] == {"matchLabels": {"other": "x"}}


def test_what_kubectl_applied_on_the_client_side_is_its_own() -> None:
    config = config_map({"x": "1"}, annotations={})
    text = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1"}}\n'
    live = tracked(None, config_map({"x": "1"}, annotations={LAST_APPLIED: text}), "kubectl-client-side-apply")
    with pytest.raises(ApiError):
        applied(live, config_map({"x": "2"}), manager="helm")
    result = applied(live, config_map({"x": "2"}))
    assert result["data"] == {"x": "2"}
    assert result["metadata"]["annotations"][LAST_APPLIED] == (
        '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"2"}}\n'
    )
    del config


def test_a_configuration_may_not_carry_managed_fields() -> None:
    with pytest.raises(ApiError) as caught:
        applied(None, config_map({}, managedFields=[]))
    assert (caught.value.code, caught.value.message) == (400, "metadata.managedFields must be nil")


CUSTOM = StructuralSchema(
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "plain": {"type": "array", "items": {"type": "string"}},
                    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "ports": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["port", "protocol"],
                        "items": {
                            "type": "object",
                            "properties": {
                                "port": {"type": "integer"},
                                "protocol": {"type": "string", "default": "UDP"},
                            },
                        },
                    },
                },
            }
        },
    }
)


def test_custom_resources_follow_their_schema() -> None:
    spec = {"free": {"a": {"b": 1}}, "plain": ["x"], "set": ["y"], "ports": [{"port": 1}]}
    obj = {"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a"}, "spec": spec}
    live = apply(None, obj, "one", False, CUSTOM, "x/v1", T0)
    assert owned(live, "one") == {
        ".spec.free.a",
        ".spec.free.a.b",
        ".spec.plain",
        '.spec.set[="y"]',
        '.spec.ports[port=1,protocol="UDP"]',
        '.spec.ports[port=1,protocol="UDP"].port',
    }
    other = {**obj, "spec": {"set": ["z"], "ports": [{"port": 2}]}}
    live = apply(live, other, "two", False, CUSTOM, "x/v1", T1)
    assert sorted(live["spec"]["set"]) == ["y", "z"]
    assert sorted(item["port"] for item in live["spec"]["ports"]) == [1, 2]
    created = {**copy.deepcopy(obj), "metadata": {"name": "a"}}
    track_update(None, created, "c", "Update", "", "x/v1", T0, CUSTOM)
    assert created["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["."] == {}


def test_what_an_applier_owns_stands_in_order() -> None:
    ports = [{"port": number, "protocol": protocol} for number in (443, 80, 8080) for protocol in ("UDP", "TCP")]
    spec = {"set": ["b", "a"], "ports": ports, "plain": ["x"], "free": {"b": 1, "a": 2}}
    config = {"kind": "X", "apiVersion": "x/v1", "spec": spec, "metadata": {"name": "a"}}
    fields = entries(apply(None, config, "one", False, CUSTOM, "x/v1", T0))[0]["fieldsV1"]["f:spec"]
    assert [*fields] == ["f:free", "f:plain", "f:ports", "f:set"]
    assert [*fields["f:free"]] == ["f:a", "f:b"]
    assert [*fields["f:set"]] == ['v:"a"', 'v:"b"']
    assert [*fields["f:ports"]] == [
        f'k:{{"port":{number},"protocol":"{protocol}"}}' for number in (80, 443, 8080) for protocol in ("TCP", "UDP")
    ]
    assert all([*port] == [".", "f:port", "f:protocol"] for port in fields["f:ports"].values())


@pytest.mark.parametrize(
    "obj", [deployment(), deployment(strategy={}), config_map({}), config_map({"a": "b"}, labels={})]
)
def test_what_is_made_is_owned_as_what_is_added(obj: Json) -> None:
    root = root_of(DEPLOYMENT if obj["kind"] == "Deployment" else CONFIG_MAP)
    assert compare({}, obj, root) == compare({"metadata": {"name": "other"}}, obj, root)


DATA = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("123"), max_size=4)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["m1", "m2", "m3"]), DATA), min_size=1, max_size=6))
def test_forced_applies_leave_what_the_last_word_of_each_manager_says(writes: list[tuple[str, Json]]) -> None:
    """A model: each key is there while some manager names it, with the value of the last write that set it."""
    live: Json | None = None
    last: dict[str, Json] = {}
    owners: dict[str, set[str]] = {}
    values: Json = {}
    for manager, data in writes:
        live = applied(live, config_map(data), manager=manager, force=True)
        for key in last.get(manager, {}):
            owners[key].discard(manager)
        for key, value in data.items():
            if values.get(key) != value:
                owners[key] = set()
            owners.setdefault(key, set()).add(manager)
            values[key] = value
        last[manager] = data
        values = {key: value for key, value in values.items() if owners[key]}
        assert live.get("data", {}) == values
        for name in ("m1", "m2", "m3"):
            mine = {path.removeprefix(".data.") for path in owned(live, name) if path.startswith(".data.")}
            assert mine == {key for key in values if name in owners[key]}


TREES = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(st.sampled_from([".", "f:a", "f:b"]), inner, min_size=1, max_size=3).map(
        lambda tree: {step: ({} if step == "." else below) for step, below in tree.items()}
    ),
    max_leaves=6,
)
SETS = st.dictionaries(st.sampled_from(["f:x", "f:y"]), TREES, max_size=2)


def paths(tree: Json | None) -> set[tuple[str, ...]]:
    return set(members(tree)) if tree else set()


@given(SETS, SETS)
def test_set_algebra(left: Json, right: Json) -> None:
    assert paths(union_sets(left, right)) == paths(left) | paths(right)
    if left and right:
        assert paths(difference(left, right)) == paths(left) - paths(right)
        assert paths(intersection(left, right)) == paths(left) & paths(right)


def test_a_field_changed_since_kubectl_applied_it_is_a_conflict_for_its_server_side_apply() -> None:
    text = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1","y":"1"}}\n'
    annotations = {LAST_APPLIED: text}
    live = tracked(None, config_map({"x": "1", "y": "1"}, annotations=annotations), "kubectl-client-side-apply")
    live = tracked(live, config_map({"x": "2", "y": "1"}, annotations=annotations), "kubectl-patch")
    with pytest.raises(ApiError) as caught:
        applied(live, config_map({"x": "3", "y": "1"}))
    assert caught.value.code == 409
    assert 'conflict with "kubectl-patch" using v1: .data.x' in caught.value.message
