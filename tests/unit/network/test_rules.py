"""The elements that a service port becomes, and slots, claims and UDP frontends."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tiphys.network.bridgerules import plan_forwarding, plan_forwarding_removal
from tiphys.network.conntrack import Flow, Frontend, is_stale
from tiphys.network.interface import Endpoint, ServicePort
from tiphys.network.nftables import changed_udp
from tiphys.network.nftablesrules import Chain, keep_slots, plan_elements

ONE, TWO = Endpoint("10.1.0.2", 8080), Endpoint("10.1.0.3", 8080)
PORT = ServicePort("default", "a", "", "TCP", 80, ("10.0.0.1", "fd00::1"), endpoints=(ONE, TWO))


def test_a_service_is_a_chain_of_its_size_and_an_element_an_endpoint() -> None:
    needs = plan_elements(PORT)
    assert needs.chains == {Chain(2)}
    assert needs.elements == {
        ("service", "10.0.0.1 . tcp . 80"): "goto n2",
        ("endpoint", "10.0.0.1 . tcp . 80 . 0x54000000"): "10.1.0.2 . 8080",
        ("endpoint", "10.0.0.1 . tcp . 80 . 0x54000001"): "10.1.0.3 . 8080",
    }


def test_traffic_from_outside_is_masqueraded_unless_the_policy_is_local() -> None:
    port = replace(PORT, cluster_ips=(), node_port=30001, external_ips=("192.0.2.1",))
    assert plan_elements(port).chains == {Chain(2, hidden=True), Chain(2, at_node=True, hidden=True)}
    local = replace(port, external_endpoints=(ONE,))
    assert plan_elements(local).chains == {Chain(1), Chain(1, at_node=True)}


def test_without_endpoints_it_is_refused_and_without_local_ones_dropped() -> None:
    port = replace(PORT, node_port=30001, external_endpoints=())
    assert plan_elements(port).elements["unserved_node", "tcp . 30001"] == "drop"
    empty = plan_elements(replace(port, endpoints=()))
    assert set(empty.elements.values()) == {"goto refuse"} and not empty.chains


def test_affinity_has_its_own_chains() -> None:
    (chain,) = plan_elements(replace(PORT, session_affinity_timeout_s=60)).chains
    assert chain.name == "n2t60"
    assert any("timeout 60s" in rule for rule in chain.rules())


@given(st.lists(st.integers(0, 9), unique=True), st.lists(st.integers(0, 9), unique=True))
def test_slots_hold_what_is_wanted_and_move_as_little_as_they_can(before: list[int], after: list[int]) -> None:
    held = tuple(Endpoint("10.1.0.1", i) for i in before)
    wanted = tuple(Endpoint("10.1.0.1", i) for i in after)
    slots = keep_slots(held, wanted)
    assert sorted(e.port for e in slots) == sorted(after)
    stayed = [i for i, e in enumerate(held) if e in wanted and i < len(wanted)]
    assert all(slots[i] == held[i] for i in stayed)


def test_udp_frontends_that_lost_a_backend_or_got_their_first_are_cleaned() -> None:
    udp = replace(PORT, protocol="UDP", cluster_ips=("10.0.0.1",), node_port=30001)
    less, none = replace(udp, endpoints=(ONE,)), replace(udp, endpoints=())
    both = {Frontend("10.0.0.1", 80), Frontend("", 30001)}
    assert changed_udp([udp], [less]) == dict.fromkeys(both, frozenset({ONE}))
    assert changed_udp([udp], []) == dict.fromkeys(both, frozenset())
    assert changed_udp([none], [less]).keys() == both
    assert changed_udp([less], [udp]) == {}
    assert changed_udp([PORT], []) == {}


def test_a_flow_is_stale_when_it_leads_elsewhere() -> None:
    frontends = {Frontend("10.0.0.1", 80): {ONE}, Frontend("", 30001): {ONE}}
    to, other = Endpoint("10.0.0.1", 80), Endpoint("192.0.2.1", 30001)
    assert is_stale(Flow(to, TWO, b""), frontends)
    assert is_stale(Flow(to, to, b""), frontends), "never translated"
    assert not is_stale(Flow(to, ONE, b""), frontends)
    assert is_stale(Flow(other, TWO, b""), frontends)
    assert not is_stale(Flow(other, other, b""), frontends), "another machine's port"
    assert not is_stale(Flow(Endpoint("10.0.0.9", 80), TWO, b""), frontends)


CLOSED = """table ip filter {
	chain FORWARD { # handle 2
		type filter hook forward priority filter; policy drop;
		iifname "docker0" counter packets 0 bytes 0 accept # handle 7
		iifname "ti-a" counter packets 3 bytes 99 accept # handle 9
		oifname "ti-a" counter packets 3 bytes 99 accept # handle 10
	}
}
"""


def test_a_firewall_that_drops_forwarded_packets_is_opened_for_pods_and_closed_again() -> None:
    assert plan_forwarding(CLOSED, "ti-a") == "", "done already"
    assert plan_forwarding(CLOSED, "ti-b").count('"ti-b" counter accept') == 2
    assert plan_forwarding(CLOSED.replace("drop", "accept"), "ti-b") == ""
    assert plan_forwarding_removal(CLOSED, "ti-a") == (
        "delete rule ip filter FORWARD handle 9\ndelete rule ip filter FORWARD handle 10\n"
    )
    assert plan_forwarding_removal(CLOSED, "ti-b") == ""
