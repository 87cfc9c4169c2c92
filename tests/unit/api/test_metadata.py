"""Metadata is refused in upstream's words: the golden file holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tiphys.api.definitions import load_definitions
from tiphys.api.kind import Kind, Strategy
from tiphys.api.metadata import validate_annotations, validate_object_meta, validate_object_meta_update
from tiphys.api.schema import compile_schema

GOLDEN = yaml.safe_load((Path(__file__).parents[2] / "golden" / "api" / "metadata.yaml").read_text())


def _kind(rule: str, namespaced: bool) -> Kind:
    return Kind(
        group="",
        version="v1",
        kind="ConfigMap",
        plural="configmaps",
        namespaced=namespaced,
        schema=compile_schema(load_definitions((1, 37)), "io.k8s.api.core.v1.ConfigMap"),
        strategy=Strategy(name_rule=rule),
    )


@pytest.mark.parametrize("case", GOLDEN, ids=[case["case"] for case in GOLDEN])
def test_golden(case: dict[str, Any]) -> None:
    if "old" in case:
        causes = validate_object_meta_update(case["object"], case["old"])
    else:
        kind = _kind(case.get("rule", "dns-subdomain"), case.get("namespaced", True))
        causes = validate_object_meta(case["object"], kind)
    assert [f"{cause.type} {cause.field}: {cause.message}" for cause in causes] == case["causes"]


def test_good_metadata_has_no_causes() -> None:
    meta = {
        "name": "web-1.example",
        "generateName": "web-",
        "namespace": "default",
        "labels": {"app.kubernetes.io/name": "web", "empty": ""},
        "annotations": {"Example.com/Key": "anything at all\n"},
        "finalizers": ["example.com/hold"],
    }
    assert validate_object_meta({"metadata": meta}, _kind("dns-subdomain", True)) == []
    assert validate_object_meta_update({"metadata": meta}, {"metadata": meta}) == []


def test_annotations_have_a_limit_together() -> None:
    causes = validate_annotations({"a": "x" * 200_000, "b": "ä" * 40_000}, "metadata.annotations")
    assert [cause.message for cause in causes] == ["Too long: may not be more than 262144 bytes"]
