"""JSON patches and merge patches: the RFCs' laws and examples."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.api.patch import (
    MAX_OPERATIONS,
    PatchTestFailed,
    PatchUnfit,
    apply_json_patch,
    apply_merge_patch,
    equal_json,
)
from tiphys.base.errors import ApiError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab/~", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.text("ab/~", max_size=2), JSON, max_size=4)


@pytest.mark.parametrize(
    ("obj", "operations", "expected"),
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/-1"}], {"a": [1]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": None}], {"a": None}),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/a/c"}], {"a": {"b": 1, "c": {"b": 1}}}),
        ({"a/b": 1, "m~n": 2}, [{"op": "test", "path": "/a~1b", "value": 1}, {"op": "remove", "path": "/m~0n"}], {"a/b": 1}),
        ({}, [{"op": "test", "path": "/absent", "value": None}], {}),
        ({"a": {}}, [{"op": "replace", "path": "/a/b", "value": 1}], {"a": {"b": 1}}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({}, [{"op": "add", "path": "/b"}], {"b": None}),
        ({}, [{"op": "copy", "from": "/absent", "path": "/b"}], {"b": None}),
        ({"a": [1, 2]}, [{"op": "add", "path": "/a/-1", "value": 3}], {"a": [1, 2, 3]}),
        ({"a": [1, 2]}, [{"op": "replace", "path": "/a/-2", "value": 3}], {"a": [3, 2]}),
        ({"a": [1, 2]}, [{"op": "replace", "path": "/a/+1", "value": 3}], {"a": [1, 3]}),
        ({"a": 1}, [{"op": "test", "path": "", "value": {"a": 1}}], {"a": 1}),
        ({}, [{"op": "add", "path": "ignored/a", "value": 1}], {"a": 1}),
    ],
)  # fmt: skip
def test_json_patch(obj: dict[str, Any], operations: list[Any], expected: dict[str, Any]) -> None:
    before = copy.deepcopy(obj)
    assert apply_json_patch(obj, operations) == expected
    assert obj == before


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ({"op": "remove", "path": "/b"}, "error in remove for path: '/b': Unable to remove nonexistent key: b: missing value"),
        ({"op": "remove", "path": ""}, 'remove operation does not apply: doc is missing path: "": missing value'),
        ({"op": "remove", "path": "/l/-2"}, "error in remove for path: '/l/-2': Unable to access invalid index: -2: invalid index referenced"),
        ({"op": "replace", "path": "/b/c", "value": 1}, "replace operation does not apply: doc is missing path: /b/c: missing value"),
        ({"op": "replace", "path": "/l/1", "value": 1}, "replace operation does not apply: doc is missing key: /l/1: missing value"),
        ({"op": "replace", "path": "", "value": 3}, "replace operation value must be object or array"),
        ({"op": "replace", "path": "", "value": []}, "the patched object is nested too deeply or is a list"),
        ({"op": "test", "path": "/a", "value": 2}, "testing value /a failed: test failed"),
        ({"op": "test", "path": "/a", "value": True}, "testing value /a failed: test failed"),
        ({"op": "test", "path": "/x/y", "value": None}, "test operation does not apply: is missing path: /x/y: missing value"),
        ({"op": "test", "path": "/l/1"}, "error in test for path: '/l/1': Unable to access invalid index: 1: invalid index referenced"),
        ({"op": "add", "path": "/x/y", "value": 1}, 'add operation does not apply: doc is missing path: "/x/y": missing value'),
        ({"op": "add", "path": "/a/y", "value": 1}, 'add operation does not apply: doc is missing path: "/a/y": missing value'),
        ({"op": "add", "path": "/l/7/y", "value": 1}, 'add operation does not apply: doc is missing path: "/l/7/y": missing value'),
        ({"op": "add", "path": "/l/5", "value": 1}, "error in add for path: '/l/5': Unable to access invalid index: 5: invalid index referenced"),
        ({"op": "add", "path": "/l/x", "value": 1}, "error in add for path: '/l/x': value was not a proper array index: 'x': strconv.Atoi: "
         'parsing "x": invalid syntax'),
        ({"op": "add", "path": "a", "value": 1}, 'add operation does not apply: doc is missing path: "a": missing value'),
        ({"op": "add"}, "add operation failed to decode path: missing value"),
        ({"op": "replace"}, "replace operation failed to decode path: operation missing path field: missing value"),
        ({"op": "move", "path": "/b"}, "move operation failed to decode from: operation, missing from field: missing value"),
        ({"op": "move", "from": "/l", "path": "/l/0"}, "move operation does not apply: doc is missing destination path: /l/0: missing value"),
        ({"op": "move", "from": "/b", "path": "/c"}, "error in move for path: 'b': Unable to remove nonexistent key: b: missing value"),
        ({"op": "copy", "from": "/b/c", "path": "/c"}, "copy operation does not apply: doc is missing from path: /b/c: missing value"),
        ({"op": "dance", "path": "/a"}, "Unexpected kind: dance"),
        ({"path": "/a"}, "Unexpected kind: unknown"),
    ],
)  # fmt: skip
def test_a_json_patch_that_does_not_fit_is_a_422_and_changes_nothing(operation: Any, fault: str) -> None:
    obj = {"a": 1, "l": [1]}
    with pytest.raises(PatchUnfit) as caught:
        apply_json_patch(obj, [{"op": "add", "path": "/l/0", "value": 0}, {"op": "remove", "path": "/l/0"}, operation])
    status = caught.value.status()
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert status["message"] == "the server rejected our request due to an error in our request"
    assert caught.value.fault == fault
    assert isinstance(caught.value, PatchTestFailed) == fault.endswith("test failed")
    assert obj == {"a": 1, "l": [1]}


def test_a_malformed_json_patch_is_a_400() -> None:
    for patch in ({}, "x", [1]):
        with pytest.raises(ApiError) as caught:
            apply_json_patch({}, patch)
        assert caught.value.code == 400


def test_a_json_patch_has_a_limit() -> None:
    with pytest.raises(ApiError, match="The allowed maximum operations in a JSON patch is 10000, got 10001"):
        apply_json_patch({}, [{}] * (MAX_OPERATIONS + 1))


@given(OBJECTS, OBJECTS)
def test_replacing_every_key_by_json_patch_makes_any_object(obj: dict[str, Any], wanted: dict[str, Any]) -> None:
    def pointer(key: str) -> str:
        return "/" + key.replace("~", "~0").replace("/", "~1")

    operations: list[Any] = [{"op": "remove", "path": pointer(key)} for key in obj]
    operations += [{"op": "add", "path": pointer(key), "value": value} for key, value in wanted.items()]
    operations += [{"op": "test", "path": pointer(key), "value": value} for key, value in wanted.items()]
    assert apply_json_patch(obj, operations) == wanted


def reference_merge(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2, in the plainest form."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = reference_merge(result.get(name), value)
    return result


@given(OBJECTS, OBJECTS)
def test_merge_patch_follows_the_rfc(obj: dict[str, Any], patch: dict[str, Any]) -> None:
    before = copy.deepcopy((obj, patch))
    result = apply_merge_patch(obj, patch)
    assert equal_json(result, reference_merge(obj, patch))
    assert (obj, patch) == before
    assert equal_json(apply_merge_patch(result, patch), result)
    assert apply_merge_patch(obj, {}) == obj


def test_results_share_nothing_with_the_inputs() -> None:
    obj: dict[str, Any] = {"a": {"b": [1]}}
    patch: dict[str, Any] = {"c": [{"d": 1}]}
    result = apply_merge_patch(obj, patch)
    result["a"]["b"].append(2)
    result["c"][0]["d"] = 2
    assert obj == {"a": {"b": [1]}}
    assert patch == {"c": [{"d": 1}]}


def test_a_merge_patch_must_be_an_object() -> None:
    with pytest.raises(ApiError) as caught:
        apply_merge_patch({}, [])
    assert caught.value.code == 400
