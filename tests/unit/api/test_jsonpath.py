"""JSON paths of printer columns find what kubectl's do, and say what they do not understand."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.jsonpath import BadPath, parse_json_path

POD: dict[str, Any] = {
    "metadata": {"name": "a", "annotations": {"example.com/x": "1"}},
    "spec": {"containers": [{"name": "c1", "image": "i1", "ports": [80]}, {"name": "c2", "image": "i2"}]},
    "status": {
        "ready": 2,
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False"}],
    },
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".metadata.name", ["a"]),
        ("{.metadata.name}", ["a"]),
        ("metadata.name", ["a"]),
        ("$.metadata.name", ["a"]),
        (".metadata['name']", ["a"]),
        (r".metadata.annotations.example\.com/x", ["1"]),
        (".metadata.annotations['example.com/x']", ["1"]),
        (".spec.containers[0].name", ["c1"]),
        (".spec.containers[-1].name", ["c2"]),
        (".spec.containers[0:1].name", ["c1"]),
        (".spec.containers[*].image", ["i1", "i2"]),
        (".spec.containers[5].name", []),
        ("..image", ["i1", "i2"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type=='Synced')].status", ["False"]),
        ('.status.conditions[?(@.type == "Nothing")].status', []),
        (".spec.containers[?(@.ports)].name", ["c1"]),
        (".status.nothing.at.all", []),
        (".metadata.name.deeper", []),
    ],
)
def test_paths_find_values(path: str, found: list[Any]) -> None:
    assert parse_json_path(path).find(POD) == found
    assert parse_json_path(path).first(POD) == (found[0] if found else None)


def test_filters_compare_numbers_and_ignore_other_types() -> None:
    values = {"items": [{"n": 1}, {"n": 5}, {"n": "x"}, {}]}
    assert parse_json_path(".items[?(@.n>2)].n").find(values) == [5]
    assert parse_json_path(".items[?(@.n!=1)].n").find(values) == [5, "x"]


def test_paths_of_names_only_are_known_as_simple() -> None:
    assert parse_json_path(".spec.replicas").simple == ("spec", "replicas")
    assert parse_json_path(".spec.list[0]").simple is None


@pytest.mark.parametrize("path", [".spec[", ".a[?(x)]", ".a[1,2]", ".a]"])
def test_what_is_not_understood_is_refused(path: str) -> None:
    with pytest.raises(BadPath, match="do not know what to do with"):
        parse_json_path(path)
