"""Short ways to write the nodes and pods of these tests."""

from __future__ import annotations

from typing import Any

import orjson

from tiphys.api.views.meta import decode_view
from tiphys.api.views.node import Node
from tiphys.scheduler.state import ClusterState, PodInfo, info_of
from tiphys.scheduler.views import Pod


def node_object(name: str, *, cpu: str = "4", memory: str = "8Gi", pods: str = "110", **more: Any) -> dict[str, Any]:
    """`more`: labels, taints, unschedulable, extra (allocatable), images."""
    amounts = {"cpu": cpu, "memory": memory, "pods": pods, **more.get("extra", {})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **more.get("labels", {})}},
        "spec": {"taints": more.get("taints", []), "unschedulable": more.get("unschedulable", False)},
        "status": {"allocatable": amounts, "capacity": amounts, "images": more.get("images", [])},
    }


def pod_object(
    name: str, *, cpu: str = "", memory: str = "", namespace: str = "default", **more: Any
) -> dict[str, Any]:
    """`more`: labels, node, requests, ports, priority, and any field of the spec under its own name."""
    requests = {**({"cpu": cpu} if cpu else {}), **({"memory": memory} if memory else {}), **more.pop("requests", {})}
    container: dict[str, Any] = {
        "name": "main",
        "image": more.pop("image", "busybox"),
        "resources": {"requests": requests},
    }
    ports = more.pop("ports", None)
    if ports:
        container["ports"] = [{"containerPort": p, "hostPort": p, "protocol": "TCP"} for p in ports]
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "labels": more.pop("labels", {})}
    metadata |= more.pop("metadata", {})
    node = more.pop("node", "")
    spec: dict[str, Any] = {"containers": [container], "schedulerName": "default-scheduler", **more}
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}


def node(name: str, **more: Any) -> Node:
    return decode_view(orjson.dumps(node_object(name, **more)), Node)


def pod(name: str, **more: Any) -> Pod:
    return decode_view(orjson.dumps(pod_object(name, **more)), Pod)


def info(name: str, **more: Any) -> PodInfo:
    return info_of(pod(name, **more))


def state_of(nodes: list[Node], pods: list[Pod] | None = None) -> ClusterState:
    state = ClusterState()
    for one in nodes:
        state.set_node(one)
    for one_pod in pods or []:
        state.set_pod(one_pod)
    return state
