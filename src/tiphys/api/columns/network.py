"""Table rows of services, their endpoints, ingresses, network policies and address objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiphys.api.columns.text import NONE, UNKNOWN, UNSET, age, columns, first, labels, name, part, selector
from tiphys.api.kind import JsonObject

SERVICE_COLUMNS = columns("""
    Name        | string/name | Name of the service.
    Type        |             | How the service is exposed.
    Cluster-IP  |             | Its address inside the cluster.
    External-IP |             | Its addresses outside the cluster.
    Port(s)     |             | Ports, and the node ports that lead to them.
    Age         |             | Time since creation.
    Selector    | wide        | Labels of the pods that serve it.
    """)


def service_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec = part(obj, "spec")
    addresses = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return [
        name(obj),
        spec.get("type", ""),
        addresses[0] if addresses else NONE,
        _external_addresses(obj, spec),
        ",".join(_port(port) for port in spec.get("ports") or ()) or NONE,
        age(obj, now_s),
        labels(spec.get("selector")),
    ]


def _port(port: Mapping[str, Any]) -> str:
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port', 0)}{node_port}/{port.get('protocol', 'TCP')}"


def _external_addresses(obj: JsonObject, spec: JsonObject) -> str:
    kind = spec.get("type")
    external = spec.get("externalIPs") or []
    if kind in ("ClusterIP", "NodePort"):
        return ",".join(external) or NONE
    if kind == "LoadBalancer":
        return ",".join([*_balancer_addresses(obj), *external]) or "<pending>"
    return spec.get("externalName", "") if kind == "ExternalName" else UNKNOWN


def _balancer_addresses(obj: JsonObject) -> list[str]:
    entries = part(obj, "status", "loadBalancer").get("ingress") or ()
    found = {entry.get("ip") or entry.get("hostname") or "" for entry in entries}
    return sorted(found - {""})


ENDPOINTS_COLUMNS = columns("""
    Name      | string/name | Name of the object.
    Endpoints |             | Addresses and ports that are ready.
    Age       |             | Time since creation.
    """)


def endpoints_row(obj: JsonObject, now_s: float) -> list[Any]:
    subsets = obj.get("subsets") or ()
    found: list[str] = []
    for subset in subsets:
        addresses = [address.get("ip", "") for address in subset.get("addresses") or ()]
        if subset.get("ports"):
            found += [_host_port(ip, port.get("port", 0)) for port in subset["ports"] for ip in addresses]
        else:
            found += addresses
    return [name(obj), first(found, 3, "" if subsets else NONE), age(obj, now_s)]


def _host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


ENDPOINTSLICE_COLUMNS = columns("""
    Name        | string/name | Name of the slice.
    AddressType |             | Kind of the addresses.
    Ports       |             | Ports of every endpoint of the slice.
    Endpoints   |             | Addresses of the endpoints.
    Age         |             | Time since creation.
    """)


def endpointslice_row(obj: JsonObject, now_s: float) -> list[Any]:
    ports = [_slice_port(port) for port in obj.get("ports") or ()]
    addresses = [address for endpoint in obj.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    return [
        name(obj),
        obj.get("addressType", ""),
        first(ports, 3, UNSET),
        first(addresses, 3, UNSET),
        age(obj, now_s),
    ]


def _slice_port(port: Mapping[str, Any]) -> str:
    if port.get("port") is not None:
        return str(port["port"])
    return port.get("name") or "*"


INGRESS_COLUMNS = columns("""
    Name    | string/name | Name of the ingress.
    Class   |             | The class that serves it.
    Hosts   |             | Host names of its rules.
    Address |             | Addresses where it is reached.
    Ports   |             | Ports that are open.
    Age     |             | Time since creation.
    """)


def ingress_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec = part(obj, "spec")
    rules = spec.get("rules") or ()
    hosts = [rule["host"] for rule in rules[:3] if rule.get("host")]
    more = f" + {len(rules) - 3} more..." if hosts and len(rules) > 3 else ""
    return [
        name(obj),
        spec.get("ingressClassName") or NONE,
        (",".join(hosts) or "*") + more,
        ",".join(_balancer_addresses(obj)),
        "80, 443" if spec.get("tls") else "80",
        age(obj, now_s),
    ]


INGRESSCLASS_COLUMNS = columns("""
    Name       | string/name | Name of the class.
    Controller |             | The controller that serves ingresses of the class.
    Parameters |             | An object with more settings.
    Age        |             | Time since creation.
    """)


def ingressclass_row(obj: JsonObject, now_s: float) -> list[Any]:
    spec = part(obj, "spec")
    parameters = spec.get("parameters")
    text = NONE
    if parameters:
        group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") else ""
        text = f"{parameters.get('kind', '')}{group}/{parameters.get('name', '')}"
    return [name(obj), spec.get("controller", ""), text, age(obj, now_s)]


NETWORKPOLICY_COLUMNS = columns("""
    Name         | string/name | Name of the policy.
    Pod-Selector |             | Labels of the pods that it protects.
    Age          |             | Time since creation.
    """)


def networkpolicy_row(obj: JsonObject, now_s: float) -> list[Any]:
    return [name(obj), selector(part(obj, "spec").get("podSelector")), age(obj, now_s)]


IPADDRESS_COLUMNS = columns("""
    Name      | string/name | The address.
    ParentRef |             | The object that holds the address.
    Age       |             | Time since creation.
    """)


def ipaddress_row(obj: JsonObject, now_s: float) -> list[Any]:
    parent = part(obj, "spec", "parentRef")
    resource = ".".join(text for text in (parent.get("resource"), parent.get("group")) if text)
    path = "/".join(text for text in (resource, parent.get("namespace"), parent.get("name")) if text)
    return [name(obj), path or NONE, age(obj, now_s)]


SERVICECIDR_COLUMNS = columns("""
    Name  | string/name | Name of the range.
    CIDRs |             | Networks from which services get addresses.
    Age   |             | Time since creation.
    """)


def servicecidr_row(obj: JsonObject, now_s: float) -> list[Any]:
    return [name(obj), ",".join(part(obj, "spec").get("cidrs") or ()), age(obj, now_s)]
