"""A node's status that did not change is not written: quantities and empty lists look different on the server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tiphys.kubelet.machine import Machine, Pressure
from tiphys.kubelet.node import NodeFacts, changed, node_status
from tiphys.runtime.interface import Image

FACTS = NodeFacts(
    name="node-1",
    addresses=("127.0.0.1",),
    machine=Machine(),
    kubernetes_version="v1.37.0",
    runtime_version=("simulated", "1"),
    port=10250,
    labels={},
    taints=(),
    pod_cidr="10.244.0.0/24",
)


def stored(status: dict[str, Any]) -> dict[str, Any]:
    """Return a status as the API server has it: quantities in their shortest form, empty lists left out."""
    short = {"8388608Ki": "8Gi", "104857600Ki": "100Gi"}
    for amounts in ("capacity", "allocatable"):
        status[amounts] = {name: short.get(value, value) for name, value in status[amounts].items()}
    assert "8Gi" in status["capacity"].values() and not status.pop("images")
    return status


def test_what_the_server_writes_in_another_form_is_no_change() -> None:
    wanted = node_status(FACTS, {}, (), Pressure(), "", 1_767_225_600.0)
    later = node_status(FACTS, wanted, (), Pressure(), "", 1_767_225_700.0)
    assert not changed(stored(wanted), later)


def test_more_memory_another_image_and_a_condition_are_changes() -> None:
    old = stored(node_status(FACTS, {}, (), Pressure(), "", 0.0))
    more = replace(FACTS, machine=replace(FACTS.machine, memory_bytes=16 << 30))
    assert changed(old, node_status(more, old, (), Pressure(), "", 0.0))
    assert changed(old, node_status(FACTS, old, (Image("sha256:1", ("web:1",), (), 1),), Pressure(), "", 0.0))
    assert changed(old, node_status(FACTS, old, (), Pressure(), "no network", 0.0))
