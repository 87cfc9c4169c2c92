"""Discovery documents: what clients find, in which order, and how little is sent twice."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tiphys.api.kind import Kind, Kinds
from tiphys.api.kinds import builtin_kinds
from tiphys.apiserver.aggregation.documents import RemoteVersion
from tiphys.apiserver.discovery import (
    Discovery,
    group_versions,
    has_etag,
    storage_version_hash,
    version_info,
    version_priority,
)
from tiphys.base.errors import ApiError
from tiphys.wire.message import Request

AGGREGATED = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)


def discovery(minor: int = 37) -> tuple[Discovery, Kinds]:
    kinds = Kinds(builtin_kinds((1, minor), {}), (1, minor))
    return Discovery(kinds, "10.0.0.1:6443"), kinds


def get(server: Discovery, path: str, **headers: str) -> Any:
    response = server.answer(Request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()}))
    assert response.status == 200
    return orjson.loads(response.body_bytes())


def test_groups_come_in_upstreams_order_with_their_preferred_versions() -> None:
    server, _ = discovery(29)
    groups = get(server, "/apis")["groups"]
    assert [group["name"] for group in groups[:6]] == [
        "apiregistration.k8s.io",
        "apps",
        "events.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
    ]
    preferred = {group["name"]: group["preferredVersion"]["version"] for group in groups}
    assert preferred["autoscaling"] == "v2"
    assert preferred["flowcontrol.apiserver.k8s.io"] == "v1"
    assert "" not in preferred


def test_the_core_group_tells_its_version_and_address() -> None:
    server, _ = discovery()
    document = get(server, "/api")
    assert document["versions"] == ["v1"]
    assert document["serverAddressByClientCIDRs"][0]["serverAddress"] == "10.0.0.1:6443"


def test_resources_of_a_group_version_name_subresources_and_their_kinds() -> None:
    server, _ = discovery()
    document = get(server, "/api/v1")
    assert document["groupVersion"] == "v1" and "apiVersion" not in document
    resources = {resource["name"]: resource for resource in document["resources"]}
    assert [name for name in resources if name.startswith("pods")] == [
        "pods",
        "pods/attach",
        "pods/binding",
        "pods/ephemeralcontainers",
        "pods/eviction",
        "pods/exec",
        "pods/log",
        "pods/portforward",
        "pods/proxy",
        "pods/resize",
        "pods/status",
    ]
    assert resources["pods"]["shortNames"] == ["po"]
    assert resources["pods"]["categories"] == ["all"]
    assert resources["pods"]["storageVersionHash"] == "xPOwRZ+Yhw8="
    assert resources["pods/eviction"]["group"] == "policy"
    assert resources["serviceaccounts/token"]["kind"] == "TokenRequest"
    assert "deletecollection" not in resources["namespaces"]["verbs"]
    assert "storageVersionHash" not in resources["bindings"]
    assert get(server, "/apis/apps/v1")["apiVersion"] == "v1"


def test_a_group_document_and_a_trailing_slash() -> None:
    server, _ = discovery()
    assert get(server, "/apis/apps/")["preferredVersion"]["groupVersion"] == "apps/v1"
    assert get(server, "/apis/apps")["kind"] == "APIGroup"


@pytest.mark.parametrize("path", ["/apis/nothing", "/apis/apps/v9", "/api/v2", "/apis/apps/v1/x/y", "/apis//v1"])
def test_unknown_groups_and_versions_are_not_found(path: str) -> None:
    server, _ = discovery()
    with pytest.raises(ApiError) as raised:
        server.answer(Request("GET", path))
    assert raised.value.code == 404


def test_only_reading_is_allowed() -> None:
    server, _ = discovery()
    with pytest.raises(ApiError) as raised:
        server.answer(Request("POST", "/apis"))
    assert raised.value.code == 405


def test_aggregated_discovery_tells_all_groups_at_once() -> None:
    server, _ = discovery()
    response = server.answer(Request("GET", "/apis", headers={"accept": AGGREGATED}))
    assert response.content_type == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    assert ("Vary", "Accept") in response.headers
    document = orjson.loads(response.body_bytes())
    assert document["apiVersion"] == "apidiscovery.k8s.io/v2"
    apps = next(item for item in document["items"] if item["metadata"]["name"] == "apps")
    deployments = next(r for r in apps["versions"][0]["resources"] if r["resource"] == "deployments")
    assert deployments["scope"] == "Namespaced"
    assert [s["subresource"] for s in deployments["subresources"]] == ["scale", "status"]
    assert deployments["subresources"][0]["responseKind"] == {
        "group": "autoscaling",
        "version": "v1",
        "kind": "Scale",
    }
    core = get(server, "/api", accept=AGGREGATED)["items"]
    assert len(core) == 1 and core[0]["versions"][0]["version"] == "v1"


@pytest.mark.parametrize(("minor", "form"), [(25, None), (28, "v2beta1"), (30, "v2")])
def test_the_form_of_aggregated_discovery_follows_the_version(minor: int, form: str | None) -> None:
    server, _ = discovery(minor)
    document = get(server, "/apis", accept=AGGREGATED)
    assert document["apiVersion"] == (f"apidiscovery.k8s.io/{form}" if form else "v1")


def test_a_client_that_prefers_plain_json_gets_the_old_form() -> None:
    server, _ = discovery()
    assert get(server, "/apis", accept="application/json")["kind"] == "APIGroupList"
    assert get(server, "/apis", accept="*/*")["kind"] == "APIGroupList"


def test_a_known_document_is_not_sent_again_until_the_kinds_change() -> None:
    server, kinds = discovery()
    first = server.answer(Request("GET", "/apis", headers={"accept": AGGREGATED}))
    etag = dict(first.headers)["ETag"]
    again = Request("GET", "/apis", headers={"accept": AGGREGATED, "if-none-match": etag})
    assert server.answer(again).status == 304
    pod = kinds.resource("", "v1", "pods")
    assert pod is not None
    custom = Kind(group="example.com", version="v1", kind="Thing", plural="things", schema=pod.schema, custom=True)
    kinds.add(custom)
    changed = server.answer(again)
    assert changed.status == 200
    last = orjson.loads(changed.body_bytes())["items"][-1]
    assert last["metadata"]["name"] == "example.com"
    assert last["versions"][0]["resources"][0]["responseKind"]["group"] == "example.com"
    kinds.remove(custom)
    assert server.answer(again).status == 304


def test_versions_are_ordered_by_stability_and_number() -> None:
    versions = ["foo1", "v1alpha1", "v1", "v2", "v11beta2", "v10beta3", "v3beta1", "v11alpha2"]
    ordered = sorted(versions, key=version_priority)
    assert ordered == ["v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v11alpha2", "v1alpha1", "foo1"]


def test_storage_version_hashes_are_upstreams() -> None:
    assert storage_version_hash("", "v1", "ConfigMap") == "qFsyl6wFWjQ="
    assert storage_version_hash("autoscaling", "v2", "HorizontalPodAutoscaler") == "qwQve8ut294="


def test_the_version_can_be_parsed_by_clients() -> None:
    info = version_info((1, 37))
    assert info["gitVersion"] == "v1.37.0+tiphys"
    assert (info["major"], info["minor"]) == ("1", "37")
    assert "emulationMajor" not in version_info((1, 30))
    server, _ = discovery()
    assert get(server, "/version") == info


@pytest.mark.parametrize(
    ("told", "matches"),
    [('"A"', True), ('W/"A"', True), ('"B", "A"', True), ("*", True), ('"B"', False), ("", False), ("A", False)],
)
def test_etags_are_compared_as_clients_write_them(told: str, matches: bool) -> None:
    assert has_etag(told, '"A"') is matches


def test_groups_come_by_priority() -> None:
    server, _ = discovery()
    names = [group["name"] for group in get(server, "/apis")["groups"]]
    in_order = ["discovery.k8s.io", "resource.k8s.io", "flowcontrol.apiserver.k8s.io", "storagemigration.k8s.io"]
    assert [name for name in names if name in in_order] == in_order


def test_other_servers_stand_where_they_want_to_and_take_what_is_theirs() -> None:
    _, kinds = discovery()
    remote = [
        RemoteVersion("first.example.com", "v1", 18_500, 10, (), True),
        RemoteVersion("last.example.com", "v1beta1", 100, 10, (), True),
        RemoteVersion("last.example.com", "v2", 100, 5, (), True),
        RemoteVersion("apps", "v1", 17_800, 15, (), True),
    ]
    groups = group_versions(kinds.all(), remote)
    names = list(groups)
    assert names[:4] == ["apiregistration.k8s.io", "first.example.com", "", "apps"]
    assert names[-1] == "last.example.com"
    assert [each.version for each in groups["last.example.com"]] == ["v1beta1", "v2"], "by version priority"
    assert groups["apps"][0].remote is remote[-1] and not groups["apps"][0].kinds
