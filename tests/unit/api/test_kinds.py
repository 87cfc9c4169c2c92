"""The tables of built-in kinds agree with the published definitions of each Kubernetes version."""

from __future__ import annotations

import glob
import os
import time
from pathlib import Path

import kubernetes_validate
import orjson
import pytest

from tiphys.api.kind import Kinds
from tiphys.api.kinds import NEWEST_MINOR, OLDEST_MINOR, builtin_kinds
from tiphys.api.kinds.document import format_kinds

MINORS = range(OLDEST_MINOR, NEWEST_MINOR + 1)


def published(minor: int) -> dict[str, dict]:
    folder = os.path.join(os.path.dirname(kubernetes_validate.__file__), "kubernetes-json-schema")
    (path,) = glob.glob(f"{folder}/v1.{minor}.*-local/_definitions.json")
    with open(path, "rb") as file:
        return orjson.loads(file.read())["$defs"]


@pytest.mark.parametrize("minor", MINORS)
def test_every_kind_has_a_published_definition_of_its_group_version_and_kind(minor: int) -> None:
    definitions = published(minor)
    for kind in builtin_kinds((1, minor), {}):
        entry = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        assert entry in definitions[kind.definition]["x-kubernetes-group-version-kind"], kind.definition


@pytest.mark.parametrize("minor", MINORS)
def test_every_published_stable_kind_is_served(minor: int) -> None:
    served = {(kind.group, kind.version, kind.kind) for kind in builtin_kinds((1, minor), {})}
    meta = {"APIGroup", "APIVersions", "Status"}
    for definition in published(minor).values():
        for gvk in definition.get("x-kubernetes-group-version-kind", [])[:1]:
            if "alpha" in gvk["version"] or "beta" in gvk["version"]:
                continue
            if gvk["kind"] in meta or gvk["kind"].endswith(("List", "Options", "WatchEvent")):
                continue
            assert (gvk["group"], gvk["version"], gvk["kind"]) in served


@pytest.mark.parametrize("minor", MINORS)
def test_storage_versions_are_served_and_bodies_of_subresources_are_known(minor: int) -> None:
    kinds = Kinds(builtin_kinds((1, minor), {}), (1, minor))
    for kind in kinds.all():
        stored = kinds.stored(kind)
        assert stored.api_version == kind.storage_api_version
        assert stored.storage_prefix() == kind.storage_prefix()
        for subresource in kind.subresources:
            if subresource.group:
                assert kinds.by_kind(subresource.group, subresource.version, subresource.kind) is not None
    assert all(kind.plural for kind in kinds.all())


def test_events_of_both_groups_share_their_objects() -> None:
    kinds = Kinds(builtin_kinds((1, 37), {}), (1, 37))
    new = kinds.resource("events.k8s.io", "v1", "events")
    core = kinds.resource("", "v1", "events")
    assert new is not None and core is not None
    assert new.storage_prefix() == core.storage_prefix() == "/registry/core/events/"
    assert kinds.stored(new) is core


def test_betas_come_and_go_with_the_version() -> None:
    def served(minor: int) -> set[str]:
        return {k.api_version for k in builtin_kinds((1, minor), {}) if "beta" in k.version}

    assert served(25) == {
        "autoscaling/v2beta2",
        "storage.k8s.io/v1beta1",
        "flowcontrol.apiserver.k8s.io/v1beta1",
        "flowcontrol.apiserver.k8s.io/v1beta2",
    }
    assert served(29) == {"flowcontrol.apiserver.k8s.io/v1beta3"}
    assert served(37) == set()


def test_an_unknown_version_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"1\.25 to 1\.37"):
        builtin_kinds((1, 24), {})


def test_construction_is_cheap() -> None:
    builtin_kinds((1, 37), {})
    best = min(_timed() for _ in range(5))
    assert best < 0.025


def _timed() -> float:
    start = time.perf_counter()
    builtin_kinds((1, 37), {})
    return time.perf_counter() - start


def test_selectable_fields_read_values_as_text() -> None:
    kinds = Kinds(builtin_kinds((1, 37), {}), (1, 37))
    nodes = kinds.resource("", "v1", "nodes")
    pods = kinds.resource("", "v1", "pods")
    jobs = kinds.resource("batch", "v1", "jobs")
    assert nodes and pods and jobs
    assert nodes.selectable_fields["spec.unschedulable"]({"spec": {"unschedulable": True}}) == "true"
    assert nodes.selectable_fields["spec.unschedulable"]({"spec": {}}) == "false"
    assert pods.selectable_fields["spec.nodeName"]({"spec": {}}) == ""
    assert pods.selectable_fields["spec.host"]({"spec": {"nodeName": "a"}}) == "a"
    assert jobs.selectable_fields["status.successful"]({"status": {"succeeded": 2}}) == "2"
    old = Kinds(builtin_kinds((1, 27), {}), (1, 27)).resource("", "v1", "pods")
    assert old and "spec.hostNetwork" not in old.selectable_fields


def test_fields_of_both_kinds_of_event_read_both_shapes() -> None:
    kinds = Kinds(builtin_kinds((1, 37), {}), (1, 37))
    core = kinds.resource("", "v1", "events")
    new = kinds.resource("events.k8s.io", "v1", "events")
    assert core and new and core.convert
    stored = {"involvedObject": {"name": "p"}, "reportingComponent": "kubelet", "type": "Normal"}
    converted = core.convert(stored, "v1", "events.k8s.io/v1")
    for event in (stored, converted):
        assert core.selectable_fields["involvedObject.name"](event) == "p"
        assert new.selectable_fields["regarding.name"](event) == "p"
        assert core.selectable_fields["source"](event) == "kubelet"


def test_the_reference_page_lists_every_kind() -> None:
    page = Path(__file__).parents[3] / "docs" / "kinds.md"
    assert page.read_text() == format_kinds(), "run: python -m tiphys.api.kinds.document > docs/kinds.md"
