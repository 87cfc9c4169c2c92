"""`tiphys node list`."""

from __future__ import annotations

import json
from collections import Counter

import click
import msgspec

from tiphys.cli.ask import ask
from tiphys.cli.text import format_table
from tiphys.client.http import HttpClient
from tiphys.client.resources import NODES, PODS
from tiphys.cluster.config import read_config


class _Meta(msgspec.Struct):
    name: str = ""


class _Named(msgspec.Struct):
    type: str = ""
    status: str = ""
    address: str = ""


class _Info(msgspec.Struct, rename="camel"):
    kubelet_version: str = ""
    container_runtime_version: str = ""


class _Status(msgspec.Struct, rename="camel"):
    conditions: list[_Named] = []
    addresses: list[_Named] = []
    node_info: _Info = msgspec.field(default_factory=_Info)


class _Spec(msgspec.Struct, rename="camel"):
    unschedulable: bool = False


class NodeView(msgspec.Struct):
    """What is told of a node."""

    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _Pod(msgspec.Struct):
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)


def is_ready(node: NodeView) -> bool:
    """Return whether the node's Ready condition is True."""
    return any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)


def list_nodes(name: str, output: str) -> None:
    """Print the nodes of a cluster."""

    async def question(client: HttpClient) -> tuple[list[bytes], list[bytes]]:
        return (await client.list(NODES)).items, (await client.list(PODS)).items

    nodes, pods = ask(read_config(name), question)
    counts = Counter(msgspec.json.decode(pod, type=_Pod).spec.node_name for pod in pods)
    rows = [_row(msgspec.json.decode(node, type=NodeView), counts) for node in nodes]
    head = ("NAME", "STATUS", "ADDRESS", "PODS", "RUNTIME", "VERSION")
    if output == "json":
        click.echo(json.dumps([dict(zip((h.lower() for h in head), row, strict=True)) for row in rows]))
    else:
        click.echo(format_table(head, rows))


def _row(node: NodeView, counts: Counter[str]) -> tuple[str, ...]:
    status = "Ready" if is_ready(node) else "NotReady"
    if node.spec.unschedulable:
        status += ",SchedulingDisabled"
    address = next((a.address for a in node.status.addresses if a.type == "InternalIP"), "")
    info = node.status.node_info
    pods = str(counts[node.metadata.name])
    return (node.metadata.name, status, address, pods, info.container_runtime_version, info.kubelet_version)
