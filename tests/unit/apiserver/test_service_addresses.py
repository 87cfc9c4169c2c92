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
            chain = server.assembled.registry.admission
            (plugin,) = (p for p in chain._mutating if isinstance(p, ServiceAddresses))
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
