"""Strategic merge patches: goldens for every directive, and laws."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.api.definitions import load_definitions
from tiphys.api.schema import compile_schema
from tiphys.api.strategic import apply_strategic_patch
from tiphys.base.errors import ApiError

GOLDEN = yaml.safe_load((Path(__file__).parents[2] / "golden" / "api" / "strategic.yaml").read_text())
DEPLOYMENT = compile_schema(load_definitions((1, 37)), "io.k8s.api.apps.v1.Deployment")


def wrap(part: Any, case: dict[str, Any]) -> Any:
    return part if case.get("whole") else {"spec": {"template": {"spec": part}}}


@pytest.mark.parametrize("case", GOLDEN, ids=[case["case"] for case in GOLDEN])
def test_golden(case: dict[str, Any]) -> None:
    obj, patch = wrap(case["object"], case), wrap(case["patch"], case)
    before = copy.deepcopy((obj, patch))
    if "error" in case:
        with pytest.raises(ApiError) as caught:
            apply_strategic_patch(obj, patch, DEPLOYMENT)
        assert [caught.value.code, caught.value.message] == case["error"]
    else:
        assert apply_strategic_patch(obj, patch, DEPLOYMENT) == wrap(case["result"], case)
    assert (obj, patch) == before


def test_a_patch_must_be_an_object() -> None:
    with pytest.raises(ApiError) as caught:
        apply_strategic_patch({}, [], DEPLOYMENT)
    assert (caught.value.code, caught.value.message) == (400, "invalid JSON document")


CONTAINERS = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abcd")}, optional={"image": st.sampled_from("xyz")}),
    unique_by=lambda item: item["name"],
    max_size=4,
)


def pod(containers: list[Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": containers}}}}


def containers_of(obj: dict[str, Any]) -> list[Any]:
    result: list[Any] = obj["spec"]["template"]["spec"]["containers"]
    return result


@settings(deadline=None)
@given(CONTAINERS, CONTAINERS)
def test_merging_by_key_keeps_everything_that_the_patch_does_not_name(live: list[Any], patch: list[Any]) -> None:
    merged = {item["name"]: item for item in containers_of(apply_strategic_patch(pod(live), pod(patch), DEPLOYMENT))}
    before = {item["name"]: item for item in live}
    for item in patch:
        before[item["name"]] = {**before.get(item["name"], {}), **item}
    assert merged == before


@settings(deadline=None)
@given(CONTAINERS, CONTAINERS)
def test_a_patch_with_an_order_makes_the_list_that_its_sender_wanted(live: list[Any], wanted: list[Any]) -> None:
    """What kubectl sends: deletions, changes and the order of all items wanted."""
    keep = {item["name"] for item in wanted}
    changes: list[Any] = [{"$patch": "delete", "name": item["name"]} for item in live if item["name"] not in keep]
    by_name = {item["name"]: item for item in live}
    for item in wanted:
        change = dict(item)
        if "image" in by_name.get(item["name"], {}) and "image" not in item:
            change["image"] = None
        changes.append(change)
    part = {"containers": changes, "$setElementOrder/containers": [{"name": item["name"]} for item in wanted]}
    patch = {"spec": {"template": {"spec": part}}}
    assert containers_of(apply_strategic_patch(pod(live), patch, DEPLOYMENT)) == wanted


@settings(deadline=None)
@given(CONTAINERS, CONTAINERS)
def test_a_patch_twice_is_a_patch_once(live: list[Any], patch: list[Any]) -> None:
    once = apply_strategic_patch(pod(live), pod(patch), DEPLOYMENT)
    twice = apply_strategic_patch(once, pod(patch), DEPLOYMENT)
    assert sorted(map(str, containers_of(twice))) == sorted(map(str, containers_of(once)))
