"""Whatever is done to Services, at once and in any order, no two of them share an address or a node port."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from assembled_server import running_server
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.apiserver.service_addresses import ServiceAddresses

SERVICES = "/api/v1/namespaces/default/services"
MERGE = "application/merge-patch+json"

names = st.sampled_from(["a", "b", "c", "d"])
types = st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"])
addresses = st.sampled_from(["", "", "10.96.0.3", "10.96.0.4", "None"])
node_ports = st.sampled_from([0, 0, 30001, 30002])
protocols = st.sampled_from([["TCP"], ["TCP", "UDP"]])


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(types)
    spec: dict[str, Any] = {"type": kind, "selector": {"x": "y"}}
    if kind == "ExternalName":
        return spec | {"externalName": "example.com"}
    spec["ports"] = [{"name": p.lower(), "port": 80, "protocol": p} for p in draw(protocols)]
    address = draw(addresses)
    if address and not (address == "None" and kind != "ClusterIP"):
        spec["clusterIP"] = address
    number = draw(node_ports)
    if kind != "ClusterIP" and number:
        spec["ports"][0]["nodePort"] = number
    return spec


actions = st.one_of(
    st.tuples(st.just("create"), names, specs()),
    st.tuples(st.just("patch"), names, specs()),
    st.tuples(st.just("delete"), names, st.none()),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(actions, min_size=1, max_size=5), min_size=1, max_size=6), st.integers(0, 1000))
def test_nothing_is_held_twice(rounds: list[list[tuple[str, str, Any]]], seed: int) -> None:
    async def story() -> None:
        async with running_server(seed=seed) as server:
            chain = server.assembled.registry.admission._chain  # what is measured
            (plugin,) = (p for p in chain._plugins if isinstance(p, ServiceAddresses))
            for together in rounds:
                answers = await asyncio.gather(*(act(server, *action) for action in together))
                assert all(status < 500 for status in answers), answers
                plugin.holdings.check()
                assert not plugin._reserved_ips
                assert not plugin._reserved_ports
                held(await server.named(SERVICES))

    asyncio.run(story())


async def act(server: Any, what: str, name: str, spec: Any) -> int:
    if what == "delete":
        status, _ = await server.call("DELETE", f"{SERVICES}/{name}")
    elif what == "create":
        status, _ = await server.call("POST", SERVICES, {"metadata": {"name": name}, "spec": spec})
    else:
        status, _ = await server.call("PATCH", f"{SERVICES}/{name}", {"spec": spec}, content_type=MERGE)
    return int(status)


def held(listed: dict[str, Any]) -> None:
    ips: Counter[str] = Counter()
    ports: Counter[tuple[int, str]] = Counter()
    for service in listed["items"]:
        spec = service["spec"]
        if spec["type"] == "ExternalName":
            assert not spec.get("clusterIP"), service
        elif spec["clusterIP"] != "None":
            ips[spec["clusterIP"]] += 1
        if spec["type"] == "NodePort":
            assert all(port.get("nodePort") for port in spec["ports"]), service
        for port in spec.get("ports", ()):
            if port.get("nodePort"):
                ports[port["nodePort"], port["protocol"]] += 1
    assert all(count == 1 for count in ips.values()), ips
    assert all(count == 1 for count in ports.values()), ports


NETWORKING = "/apis/networking.k8s.io/v1"


def plain_service(name: str, **spec: object) -> dict[str, object]:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


async def test_an_address_object_comes_and_goes_in_the_commit_of_its_service() -> None:
    async with running_server() as server:
        made = await server.made(SERVICES, plain_service("a"))
        path = f"{NETWORKING}/ipaddresses/{made['spec']['clusterIP']}"
        held = await server.named(path)
        assert held["spec"]["parentRef"] == {"group": "", "resource": "services", "namespace": "default", "name": "a"}
        assert held["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"], "one commit"
        finalizer = {"metadata": {"finalizers": ["example.com/hold"]}}
        await server.call("PATCH", f"{SERVICES}/a", finalizer, content_type=MERGE)
        await server.call("DELETE", f"{SERVICES}/a")
        assert await server.named(path), "a Service that waits for its finalizers keeps its address"
        await server.call("PATCH", f"{SERVICES}/a", {"metadata": {"finalizers": None}}, content_type=MERGE)
        assert (await server.call("GET", path))[0] == 404


async def test_an_address_object_of_a_user_keeps_its_address_out_of_use() -> None:
    async with running_server() as server:
        parent = {"resource": "services", "namespace": "default", "name": "else"}
        await server.made(
            f"{NETWORKING}/ipaddresses", {"metadata": {"name": "10.96.0.7"}, "spec": {"parentRef": parent}}
        )
        status, answer = await server.call("POST", SERVICES, plain_service("a", clusterIP="10.96.0.7"))
        assert status == 422 and "provided IP is already allocated" in answer["message"]


async def test_a_ready_service_cidr_gives_addresses() -> None:
    async with running_server() as server:
        status, answer = await server.call("POST", SERVICES, plain_service("a", clusterIP="10.200.0.4"))
        assert status == 422 and "the provided network does not match the current range" in answer["message"]
        await server.made(
            f"{NETWORKING}/servicecidrs", {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.200.0.0/28"]}}
        )
        condition = {"type": "Ready", "status": "True", "reason": "", "message": ""}
        ready = {"status": {"conditions": [{**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}
        await server.call("PATCH", f"{NETWORKING}/servicecidrs/more/status", ready, content_type=MERGE)
        made = await server.made(SERVICES, plain_service("a", clusterIP="10.200.0.4"))
        assert made["spec"]["clusterIPs"] == ["10.200.0.4"]


async def test_versions_without_address_objects_give_addresses_as_well() -> None:
    async with running_server(version=(1, 32)) as server:
        assert (await server.made(SERVICES, plain_service("a")))["spec"]["clusterIP"].startswith("10.96.0.")
        status, answer = await server.call("POST", SERVICES, plain_service("b", clusterIP="10.9.9.9"))
        assert status == 422 and "The range of valid IPs is 10.96.0.0/24" in answer["message"]
