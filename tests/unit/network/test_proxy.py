"""Which connections go where: plan_service, and how changes come to the proxy."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from network_objects import ListClient, Object, service_object, service_view, slice_object, slice_view

from tiphys.base.clock import ManualClock, Randomness
from tiphys.base.errors import TiphysError
from tiphys.client.interface import Client
from tiphys.network.interface import Endpoint, ServicePort
from tiphys.network.proxy import ProxyDeps, plan_service, plan_service_ports, run_proxy
from tiphys.network.simulatedproxy import SimulatedServiceProxy
from tiphys.network.watches import service_reflector, slice_reflector

PORTS = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]
SLICE_PORTS = [{"name": "http", "port": 8080, "protocol": "TCP"}]
READY = {"ready": True, "serving": True, "terminating": False}
ENDING = {"ready": False, "serving": True, "terminating": True}


def endpoint(address: str, conditions: Object | None = None, node: str = "here") -> Object:
    return {"addresses": [address], "nodeName": node, "conditions": READY if conditions is None else conditions}


def plan(spec: Object, *endpoints: Object, **more: Any) -> ServicePort:
    view = service_view(service_object("a", {"clusterIP": "10.0.0.1", "ports": PORTS, **spec}, **more))
    ports = plan_service(view, [slice_view(slice_object("a", list(endpoints), SLICE_PORTS))], "here")
    assert len(ports) == 1
    return ports[0]


def addresses(endpoints: tuple[Endpoint, ...] | None) -> list[str] | None:
    return None if endpoints is None else [e.address for e in endpoints]


def test_ready_endpoints_are_used_in_order_and_each_once() -> None:
    port = plan(
        {}, endpoint("10.1.0.3"), endpoint("10.1.0.2"), endpoint("10.1.0.3"), endpoint("10.1.0.4", {"ready": False})
    )
    assert port.endpoints == (Endpoint("10.1.0.2", 8080), Endpoint("10.1.0.3", 8080))
    assert (port.cluster_ips, port.port, port.port_name, port.external_endpoints) == (("10.0.0.1",), 80, "http", None)


def test_an_endpoint_of_unknown_readiness_is_ready() -> None:
    assert addresses(plan({}, endpoint("10.1.0.2", {})).endpoints) == ["10.1.0.2"]


def test_ending_endpoints_serve_when_none_is_ready() -> None:
    dead = {"ready": False, "serving": False, "terminating": True}
    assert addresses(plan({}, endpoint("10.1.0.2", ENDING), endpoint("10.1.0.3", dead)).endpoints) == ["10.1.0.2"]
    assert addresses(plan({}, endpoint("10.1.0.2", ENDING), endpoint("10.1.0.3")).endpoints) == ["10.1.0.3"]


def test_the_internal_policy_local_leaves_this_nodes_endpoints() -> None:
    port = plan({"internalTrafficPolicy": "Local"}, endpoint("10.1.0.2"), endpoint("10.1.0.3", node="there"))
    assert addresses(port.endpoints) == ["10.1.0.2"]
    assert addresses(port.external_endpoints) == ["10.1.0.2", "10.1.0.3"]


def test_the_external_policy_local_leaves_this_nodes_endpoints_to_outside_traffic() -> None:
    spec = {"type": "NodePort", "externalTrafficPolicy": "Local", "ports": [{**PORTS[0], "nodePort": 30001}]}
    port = plan(spec, endpoint("10.1.0.2", ENDING), endpoint("10.1.0.3", node="there"))
    assert addresses(port.endpoints) == ["10.1.0.3"]
    assert addresses(port.external_endpoints) == ["10.1.0.2"], "the ending one is all that is here"
    assert port.node_port == 30001


def test_external_and_balancer_addresses_are_taken_but_for_proxied_ones() -> None:
    status = {
        "loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}, {"hostname": "x"}]}
    }
    port = plan({"type": "LoadBalancer", "externalIPs": ["192.0.2.9", "192.0.2.1"]}, status=status)
    assert port.external_ips == ("192.0.2.9", "192.0.2.1")


@pytest.mark.parametrize(
    ("config", "expected"), [({}, 10800), ({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}}}, 7)]
)
def test_affinity_has_a_time(config: Object, expected: int) -> None:
    assert plan({"sessionAffinity": "ClientIP", **config}).session_affinity_timeout_s == expected


@pytest.mark.parametrize(
    "obj",
    [
        service_object("a", {"clusterIP": "None", "ports": PORTS}),
        service_object("a", {"type": "ExternalName", "externalName": "x.example"}),
        service_object("a", {"ports": PORTS}),
        service_object("a", {"clusterIP": "10.0.0.1", "ports": PORTS}, labels={"service.kubernetes.io/headless": ""}),
        service_object(
            "a", {"clusterIP": "10.0.0.1", "ports": PORTS}, labels={"service.kubernetes.io/service-proxy-name": "x"}
        ),
    ],
)
def test_services_of_others_and_without_an_address_are_left_alone(obj: Object) -> None:
    assert plan_service_ports([service_view(obj)], [], "here") == []


def test_slices_of_other_families_names_and_namespaces_do_not_count() -> None:
    view = service_view(service_object("a", {"clusterIP": "10.0.0.1", "ports": PORTS}))
    slices = [
        slice_object("a", [endpoint("fd00::2")], SLICE_PORTS, addressType="IPv6"),
        slice_object("b", [endpoint("10.1.0.2")], SLICE_PORTS),
        slice_object("a", [endpoint("10.1.0.3")], SLICE_PORTS, namespace="other"),
        slice_object("a", [endpoint("10.1.0.4")], [{"name": "metrics", "port": 9, "protocol": "TCP"}]),
    ]
    (port,) = plan_service_ports([view], [slice_view(s) for s in slices], "here")
    assert port.endpoints == ()


class FailingOnce(SimulatedServiceProxy):
    """Fails the first update and records what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.changed = asyncio.Event()
        self.failing = False

    async def sync(self, ports: Any) -> None:
        self.asked.append("sync")
        await super().sync(ports)
        self.changed.set()

    async def update(self, changes: Any) -> None:
        self.asked.append("update " + ",".join(name for _, name in changes))
        if self.failing:
            self.failing = False
            raise TiphysError("no")
        await super().update(changes)
        self.changed.set()

    async def next(self) -> None:
        await asyncio.wait_for(self.changed.wait(), 5)
        self.changed.clear()


@pytest.mark.parametrize("shared", [False, True])
async def test_only_what_changed_is_updated_and_a_failure_is_repaired(shared: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr("tiphys.network.proxy.RETRY_S", 0.01)
    specs = [{"clusterIP": f"10.0.0.{i}", "ports": PORTS} for i in (1, 2)]
    client = ListClient([service_object("a", specs[0])], [])
    proxy, randomness, typed = FailingOnce(), Randomness(1), cast(Client, client)
    services, slices = service_reflector(typed, randomness), slice_reflector(typed, randomness)
    deps = ProxyDeps(typed, proxy, ManualClock(), randomness, "here", *((services, slices) if shared else ()))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run_proxy(deps))]
        if shared:
            tasks += [group.create_task(services.run()), group.create_task(slices.run())]
        await proxy.next()
        assert proxy.backends("10.0.0.1", 80) == ()
        client.tell("endpointslices", "ADDED", slice_object("a", [endpoint("10.1.0.2")], SLICE_PORTS))
        await proxy.next()
        assert proxy.backends("10.0.0.1", 80) == (Endpoint("10.1.0.2", 8080),)
        client.tell("services", "ADDED", service_object("b", specs[1]))
        await proxy.next()
        assert proxy.backends("10.0.0.2", 80) == ()
        assert proxy.asked == ["sync", "update a", "update b"]
        proxy.failing = True
        client.tell("services", "DELETED", service_object("b", specs[1]))
        await proxy.next()
        assert proxy.backends("10.0.0.2", 80) is None
        assert proxy.asked[3:] == ["update b", "sync"]
        for task in tasks:
            task.cancel()
