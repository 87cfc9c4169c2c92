"""Typed views of EndpointSlices. Every field is optional here: validation is the API server's. See views/meta.py."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import field

from tiphys.api.views.meta import ObjectMeta, ObjectReference, View


class EndpointConditions(View, frozen=True):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForNode(View, frozen=True):
    name: str = ""


class ForZone(View, frozen=True):
    name: str = ""


class EndpointHints(View, frozen=True):
    for_nodes: tuple[ForNode, ...] = ()
    for_zones: tuple[ForZone, ...] = ()


class Endpoint(View, frozen=True):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions | None = None
    deprecated_topology: Mapping[str, str] = field(default_factory=dict)
    hints: EndpointHints | None = None
    hostname: str = ""
    node_name: str = ""
    target_ref: ObjectReference | None = None
    zone: str = ""


class EndpointPort(View, frozen=True):
    app_protocol: str = ""
    name: str = ""
    port: int | None = None
    protocol: str = ""


class EndpointSlice(View, frozen=True):
    address_type: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    metadata: ObjectMeta = ObjectMeta()
    ports: tuple[EndpointPort, ...] = ()
