"""APIServices of what this server serves itself: made, followed, and left alone when they are somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from assembled_server import Server, running_server

from tiphys.api.kinds import builtin_kinds
from tiphys.apiserver.aggregation.apiservices import ApiService, ServiceReference
from tiphys.apiserver.aggregation.availability import Finding, judge, with_condition
from tiphys.apiserver.aggregation.local import ALWAYS, ON_START, Wanted, plan_local, wanted_services
from tiphys.apiserver.aggregation.priorities import builtin_priorities
from tiphys.store.memory import MemoryStore

PATH = "/apis/apiregistration.k8s.io/v1/apiservices"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as made:
        yield made


async def until(check: Callable[[], Awaitable[Any]]) -> Any:
    """Return what a check returns as soon as it is true; other tasks run between."""
    async with asyncio.timeout(10):
        while True:
            result = await check()
            if result:
                return result
            await asyncio.sleep(0)


async def services(server: Server) -> dict[str, Any]:
    return {item["metadata"]["name"]: item for item in (await server.named(PATH))["items"]}


async def test_every_built_in_group_version_has_one(server: Server) -> None:
    wanted = wanted_services(server.assembled.kinds)

    async def all_there() -> dict[str, Any] | None:
        found = await services(server)
        return found if set(found) == set(wanted) else None

    found = await until(all_there)
    core = found["v1."]
    assert core["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
    assert core["spec"] == {"groupPriorityMinimum": 18000, "version": "v1", "versionPriority": 1}
    condition = core["status"]["conditions"][0]
    assert {**condition, "lastTransitionTime": ""} == {
        "lastTransitionTime": "",
        "message": "Local APIServices are always available",
        "reason": "Local",
        "status": "True",
        "type": "Available",
    }
    assert found["v2.autoscaling"]["spec"]["versionPriority"] == 30
    assert "v1.apiregistration.k8s.io" not in found
    table = await server.call("GET", PATH, headers={"accept": "application/json;as=Table;g=meta.k8s.io;v=v1"})
    row = next(row["cells"] for row in table[1]["rows"] if row["cells"][0] == "v1.apps")
    assert row[:3] == ["v1.apps", "Local", "True"]


def definition(version: str = "v1") -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "names": {"kind": "Thing", "plural": "things"},
            "scope": "Namespaced",
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }


async def test_custom_resources_have_one_as_long_as_they_are_served(server: Server) -> None:
    await server.made(CRDS, definition())

    async def there() -> Any:
        return (await services(server)).get("v1.example.com")

    async def gone() -> bool:
        return await there() is None

    made = await until(there)
    assert made["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "true"}
    assert made["spec"] == {
        "group": "example.com",
        "groupPriorityMinimum": 1000,
        "version": "v1",
        "versionPriority": 100,
    }
    status, _ = await server.call("DELETE", f"{PATH}/v1.example.com")
    assert status == 200

    async def back() -> Any:
        found = await there()
        return found is not None and found["metadata"]["uid"] != made["metadata"]["uid"]

    await until(back)
    await server.call("DELETE", f"{CRDS}/things.example.com")
    await until(gone)
    status, _ = await server.call("GET", "/apis/example.com")
    assert status == 404


async def groups_told(server: Server) -> set[str]:
    """Return the groups of /apis, which both forms of it tell alike."""
    aggregated = {"accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    _, document = await server.call("GET", "/apis", headers=aggregated)
    told = {item["metadata"]["name"] for item in document["items"]}
    assert {group["name"] for group in (await server.named("/apis"))["groups"]} == told
    return told


async def test_a_restart_brings_back_what_was_deleted() -> None:
    store = MemoryStore()
    async with running_server(store) as server:

        async def there() -> Any:
            return (await services(server)).get("v1.apps")

        await until(there)
        assert "apps" in await groups_told(server)
        await server.call("DELETE", f"{PATH}/v1.apps")
        assert await there() is None
        told = await groups_told(server)
        assert "apps" not in told
        assert {"batch", "autoscaling"} <= told
        for path in ("/apis/apps", "/apis/apps/v1", "/apis/apps/v1/deployments"):
            status, _ = await server.call("GET", path)
            assert status == 200, "the group is served all the same"
    async with running_server(store) as server:
        await until(there)
        assert "apps" in await groups_told(server)


WANTED = {kind: Wanted("example.com", "v1", 1000, 100, kind) for kind in (ON_START, ALWAYS)}


def current(managed: str, priority: int = 1000) -> ApiService:
    return ApiService("v1.example.com", "1", "example.com", "v1", priority, 100, None, b"", False, True, managed)


@pytest.mark.parametrize(
    ("wanted", "found", "existed", "done", "action"),
    [
        (None, None, False, False, ""),
        (ON_START, None, False, False, "create"),
        (ON_START, None, False, True, ""),
        (ALWAYS, None, False, True, "create"),
        (None, current(""), True, False, ""),
        (ALWAYS, current("", 5), True, False, ""),
        (None, current(ON_START), False, False, ""),
        (None, current(ON_START), True, False, "delete"),
        (None, current(ALWAYS), False, True, "delete"),
        (ON_START, current(ON_START, 5), True, False, "update"),
        (ON_START, current(ON_START, 5), True, True, ""),
        (ALWAYS, current(ALWAYS, 5), False, True, "update"),
        (ALWAYS, current(ALWAYS), False, False, ""),
    ],
)
def test_what_is_done_about_one(
    wanted: str | None, found: ApiService | None, existed: bool, done: bool, action: str
) -> None:
    assert plan_local(WANTED[wanted] if wanted else None, found, existed=existed, done=done) == action


SERVICE = {"spec": {"type": "ClusterIP", "ports": [{"name": "https", "port": 443}]}}
READY = {"ports": [{"name": "https", "port": 8443}], "endpoints": [{"addresses": ["10.0.0.1"]}]}


@pytest.mark.parametrize(
    ("service", "slices", "reason", "message"),
    [
        (None, [], "ServiceNotFound", 'service/api in "ns" is not present'),
        (
            {"spec": {"ports": [{"port": 80}]}},
            [],
            "ServicePortError",
            'service/api in "ns" is not listening on port 443',
        ),
        (SERVICE, [], "EndpointsNotFound", 'cannot find endpointslices for service/api in "ns"'),
        (
            SERVICE,
            [{**READY, "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": False}}]}],
            "MissingEndpoints",
            'endpointslices for service/api in "ns" have no addresses with port name "https"',
        ),
        (SERVICE, [READY], "", ""),
        ({"spec": {"type": "ExternalName", "externalName": "host"}}, [], "", ""),
    ],
)
def test_what_stands_in_the_way_of_a_remote_one(service: Any, slices: list[Any], reason: str, message: str) -> None:
    found = judge(ServiceReference("ns", "api", 443), service, slices)
    assert found == (Finding("False", reason, message) if reason else None)


def test_the_time_of_a_condition_moves_with_its_status() -> None:
    other = {"type": "Other", "status": "True"}
    first = with_condition({"status": {"conditions": [other]}}, Finding("False", "A", "a"), "1")
    assert first["status"]["conditions"] == [
        other,
        {"lastTransitionTime": "1", "message": "a", "reason": "A", "status": "False", "type": "Available"},
    ]
    again = with_condition(first, Finding("False", "B", "b"), "2")
    assert again["status"]["conditions"][1]["lastTransitionTime"] == "1"
    assert with_condition(again, Finding("True", "C", "c"), "3")["status"]["conditions"][1]["lastTransitionTime"] == "3"


async def test_validation(server: Server) -> None:
    spec = {"group": "example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10}
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("wrong", {}, 'metadata.name: Invalid value: "wrong": must be `spec.version+"."+spec.group`: "v1.example.com"'),
        (
            "v1.example.com",
            {"groupPriorityMinimum": 0},
            "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
        ),
        (
            "v1.example.com",
            {"versionPriority": 1001},
            "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
        ),
        (
            "v1.example.com",
            {"caBundle": "AAAA"},
            'spec.caBundle: Invalid value: "3 bytes": local APIServices may not have a caBundle',
        ),
        ("v1.example.com", {"service": {"name": "a"}}, "spec.service.namespace: Required value"),
        (
            "v1.example.com",
            {"service": {"name": "a", "namespace": "b"}, "insecureSkipTLSVerify": True, "caBundle": "AAAA"},
            "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
        ),
    ]
    for name, changes, message in cases:
        body = {"metadata": {"name": name}, "spec": {**spec, **changes}}
        status, answer = await server.call("POST", PATH, body)
        assert status == 422, answer
        assert answer["message"] == f'APIService.apiregistration.k8s.io "{name}" is invalid: {message}'


@pytest.mark.parametrize("minor", range(25, 38))
def test_every_version_that_upstream_serves_has_its_place(minor: int) -> None:
    served = {(kind.group, kind.version) for kind in builtin_kinds((1, minor)) if kind.plural}
    assert served - set(builtin_priorities()) == {("apiregistration.k8s.io", "v1")}
