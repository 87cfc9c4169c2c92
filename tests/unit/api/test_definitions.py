"""The definitions of every version have the forms that upstream publishes."""

from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.definitions import (
    INT_OR_STRING,
    QUANTITY,
    REFERENCE_PREFIX,
    load_definitions,
    referenced,
    supported_versions,
)
from tiphys.base.errors import TiphysError


def test_thirteen_versions_are_supported() -> None:
    versions = supported_versions()
    assert versions[0] == (1, 25)
    assert (1, 37) in versions
    assert list(versions) == sorted(versions)


@pytest.mark.parametrize("version", [(1, 25), (1, 31), (1, 37)])
def test_types_are_plain_and_references_resolve(version: tuple[int, int]) -> None:
    definitions = load_definitions(version)
    seen = 0

    def visit(value: Any) -> None:
        nonlocal seen
        if isinstance(value, dict):
            kind = value.get("type")
            assert not isinstance(kind, list), value
            reference = value.get("$ref")
            if isinstance(reference, str):
                seen += 1
                assert reference.startswith(REFERENCE_PREFIX)
                assert referenced(value) in definitions
            for child in value.values():
                visit(child)
        elif isinstance(value, list):
            for child in value:
                visit(child)

    visit(definitions)
    assert seen > 500


def test_special_types_are_what_openapi_v2_says() -> None:
    definitions = load_definitions((1, 37))
    assert definitions[QUANTITY]["type"] == "string"
    assert definitions[INT_OR_STRING]["format"] == "int-or-string"
    pod = definitions["io.k8s.api.core.v1.Pod"]
    assert pod["x-kubernetes-group-version-kind"] == [{"group": "", "kind": "Pod", "version": "v1"}]
    assert "enum" not in pod["properties"]["kind"]


def test_an_unknown_version_names_the_known_ones() -> None:
    with pytest.raises(TiphysError, match=r"1\.99 is not a supported version; choose one of 1\.25"):
        load_definitions((1, 99))
