"""What scheduling needs to know of a pod, worked out once for all the pods that ask for the same.

`profile_of` turns a pod view into a `Profile`; pods of one template share it. Its parts (`Requests`, tolerations, node
requirements) are shared further, as the arrays that table.py keeps for each of them. Nothing here knows of nodes.

Spec: Kubernetes docs, "Assigning Pods to Nodes", "Resource Management for Pods and Containers" (effective requests as in
api/qos.py), "Pod Topology Spread Constraints"; KEP-3633 (matchLabelKeys), KEP-3243.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from tiphys.api.kind import JsonObject
from tiphys.api.qos import pod_requests
from tiphys.api.selectors import (
    EQUALS,
    EVERYTHING,
    IN,
    NOT_IN,
    LabelRequirement,
    LabelSelector,
    selector_of,
)
from tiphys.api.views.meta import LabelSelector as LabelSelectorView
from tiphys.api.views.pod import (
    Affinity,
    ContainerPort,
    NodeSelectorTerm,
    PodAffinityTerm,
    Toleration,
    TopologySpreadConstraint,
)
from tiphys.scheduler.views import Container, Pod

DEFAULT_CPU_MILLI = 100
"""What a container without a request counts as in scores."""
DEFAULT_MEMORY_BYTES = 200 * 1024 * 1024

Port = tuple[str, str, int]
"""Protocol, host address ("0.0.0.0" is any), host port."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Effective requests of a pod: cpu in thousandths, all else in whole units; zeros are left out."""

    amounts: tuple[tuple[str, int], ...]
    score_cpu_milli: int
    """As `amounts`, but with a default for each container that does not say."""
    score_memory_bytes: int

    @property
    def best_effort(self) -> bool:
        """True when the balance of resources is not scored."""
        return not any(name in ("cpu", "memory") for name, _ in self.amounts)


@dataclass(frozen=True, slots=True)
class Term:
    """A pod (anti-)affinity term with its selector completed. `namespaces` None: chosen by `namespace_selector`."""

    selector: LabelSelector
    namespaces: frozenset[str]
    namespace_selector: LabelSelector | None
    topology_key: str


@dataclass(frozen=True, slots=True)
class Spread:
    """One topology spread constraint with its selector completed."""

    selector: LabelSelector
    topology_key: str
    max_skew: int
    min_domains: int
    hard: bool
    """DoNotSchedule; else ScheduleAnyway."""
    honor_affinity: bool = True
    honor_taints: bool = False


@dataclass(frozen=True, slots=True)
class NodeNeeds:
    """Which nodes may do: the node selector and the required terms (any of them; None: no such field)."""

    selector: tuple[tuple[str, str], ...]
    terms: tuple[NodeSelectorTerm, ...] | None

    @property
    def empty(self) -> bool:
        return not self.selector and self.terms is None


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Everything of a template that scheduling looks at. Compared by identity."""

    namespace: str
    labels: Mapping[str, str]
    requests: Requests
    tolerations: bytes
    """Key of `parse_tolerations`."""
    needs: NodeNeeds
    preferred: tuple[tuple[int, NodeSelectorTerm], ...]
    ports: tuple[Port, ...]
    affinity: tuple[Term, ...]
    anti_affinity: tuple[Term, ...]
    attractions: tuple[tuple[int, Term], ...]
    """Preferred terms with their weight, negative for anti-affinity."""
    spreads: tuple[Spread, ...]
    images: tuple[str, ...]
    containers: int


_affinity_decoder = msgspec.json.Decoder(Affinity)
_tolerations_decoder = msgspec.json.Decoder(tuple[Toleration, ...])
_spreads_decoder = msgspec.json.Decoder(tuple[TopologySpreadConstraint, ...])
_ports_decoder = msgspec.json.Decoder(tuple[ContainerPort, ...])
_NO_AFFINITY = Affinity()


@lru_cache(maxsize=4096)
def parse_tolerations(data: bytes) -> tuple[Toleration, ...]:
    return _tolerations_decoder.decode(data) if data and data != b"null" else ()


@lru_cache(maxsize=4096)
def _parse_affinity(data: bytes) -> Affinity:
    return _affinity_decoder.decode(data) if data and data != b"null" else _NO_AFFINITY


@lru_cache(maxsize=4096)
def _parse_spreads(data: bytes) -> tuple[TopologySpreadConstraint, ...]:
    return _spreads_decoder.decode(data) if data and data != b"null" else ()


@lru_cache(maxsize=4096)
def _parse_ports(data: bytes) -> tuple[ContainerPort, ...]:
    return _ports_decoder.decode(data) if data and data != b"null" else ()


_ContainerKey = tuple[str, bytes, bytes, str]
_Key = tuple[Any, ...]


def _container_key(container: Container) -> _ContainerKey:
    return (container.image, container.resources, container.ports, container.restart_policy)


def profile_key(pod: Pod) -> _Key:
    """Return what two pods must have in common to be the same to the scheduler."""
    spec, metadata = pod.spec, pod.metadata
    return (
        metadata.namespace,
        tuple(metadata.labels.items()),
        tuple(_container_key(c) for c in spec.containers),
        tuple(_container_key(c) for c in spec.init_containers) if spec.init_containers else (),
        spec.affinity,
        spec.tolerations,
        spec.topology_spread_constraints,
        tuple(spec.node_selector.items()) if spec.node_selector else (),
        spec.resources,
        tuple(spec.overhead.items()) if spec.overhead else (),
        bool(spec.host_network),
    )


@lru_cache(maxsize=4096)
def _profile(key: _Key) -> Profile:
    namespace, labels, containers, inits, affinity_data, tolerations, spreads, selector, resources, overhead, _ = key
    labels = dict(labels)
    affinity = _parse_affinity(affinity_data)
    node_affinity = affinity.node_affinity
    required = node_affinity.required_during_scheduling_ignored_during_execution if node_affinity else None
    preferred = node_affinity.preferred_during_scheduling_ignored_during_execution if node_affinity else ()
    near, apart = affinity.pod_affinity, affinity.pod_anti_affinity
    attractions = [
        (sign * (weighted.weight or 0), _term(weighted.pod_affinity_term, namespace, labels))
        for sign, holder in ((1, near), (-1, apart))
        for weighted in (holder.preferred_during_scheduling_ignored_during_execution if holder else ())
        if weighted.pod_affinity_term is not None
    ]
    return Profile(
        namespace=namespace,
        labels=labels,
        requests=_requests(
            tuple((c[1], c[3]) for c in containers), tuple((c[1], c[3]) for c in inits), resources, overhead
        ),
        tolerations=tolerations,
        needs=NodeNeeds(tuple(sorted(selector)), required.node_selector_terms if required else None),
        preferred=tuple((p.weight or 0, p.preference) for p in preferred if p.preference and p.weight),
        ports=_host_ports(containers, inits),
        affinity=tuple(
            _term(t, namespace, labels)
            for t in (near.required_during_scheduling_ignored_during_execution if near else ())
        ),
        anti_affinity=tuple(
            _term(t, namespace, labels)
            for t in (apart.required_during_scheduling_ignored_during_execution if apart else ())
        ),
        attractions=tuple(attractions),
        spreads=tuple(_spread(s, labels) for s in _parse_spreads(spreads)),
        images=tuple(c[0] for c in (*inits, *containers)),
        containers=len(containers) + len(inits),
    )


def profile_of(pod: Pod) -> Profile:
    """Return the profile of a pod; pods that ask for the same get the same object."""
    return _profile(profile_key(pod))


@lru_cache(maxsize=4096)
def _resources(data: bytes) -> JsonObject:
    parsed: JsonObject = (orjson.loads(data) if data else None) or {}
    return parsed


@lru_cache(maxsize=4096)
def _requests(
    containers: tuple[tuple[bytes, str], ...],
    inits: tuple[tuple[bytes, str], ...],
    resources: bytes,
    overhead: tuple[tuple[str, Any], ...],
) -> Requests:
    spec: JsonObject = {
        "containers": [{"resources": _resources(data)} for data, _ in containers],
        "initContainers": [{"resources": _resources(data), "restartPolicy": policy} for data, policy in inits],
        "resources": _resources(resources),
        "overhead": dict(overhead),
    }
    quantities = pod_requests({"spec": spec})
    amounts = {name: q.milli if name == "cpu" else q.value() for name, q in quantities.items()}
    spec["containers"] = [{"resources": _with_defaults(_resources(data))} for data, _ in containers]
    spec["initContainers"] = [
        {"resources": _with_defaults(_resources(data)), "restartPolicy": policy} for data, policy in inits
    ]
    scored = pod_requests({"spec": spec})
    return Requests(
        tuple(sorted((name, amount) for name, amount in amounts.items() if amount > 0)),
        scored["cpu"].milli if "cpu" in scored else 0,
        scored["memory"].value() if "memory" in scored else 0,
    )


def _with_defaults(resources: JsonObject) -> JsonObject:
    requests = {"cpu": f"{DEFAULT_CPU_MILLI}m", "memory": str(DEFAULT_MEMORY_BYTES)}
    return {"requests": {**requests, **(resources.get("requests") or {})}}


def _host_ports(containers: tuple[_ContainerKey, ...], inits: tuple[_ContainerKey, ...]) -> tuple[Port, ...]:
    found: dict[Port, None] = {}
    for container in (*containers, *(c for c in inits if c[3] == "Always")):
        for port in _parse_ports(container[2]):
            if port.host_port:
                found[(port.protocol or "TCP", port.host_ip or "0.0.0.0", port.host_port)] = None
    return tuple(found)


def _with_label_keys(
    selector: LabelSelectorView | None, labels: Mapping[str, str], same: tuple[str, ...], other: tuple[str, ...] = ()
) -> LabelSelector:
    """Return a selector narrowed to the pod's own values of some labels. A label that the pod lacks is left out."""
    parsed = selector_of(selector)
    if parsed.nothing:
        return parsed
    known = set(parsed.requirements)
    more = [LabelRequirement(k, IN, (labels[k],)) for k in same if k in labels]
    more += [LabelRequirement(k, NOT_IN, (labels[k],)) for k in other if k in labels]
    # The API server writes these into the selector of a term; in older pods it did not.
    more = [r for r in more if r not in known and LabelRequirement(r.key, EQUALS, r.values) not in known]
    if not more:
        return parsed
    return LabelSelector(tuple(sorted((*parsed.requirements, *more), key=lambda r: r.key)))


def _term(term: PodAffinityTerm | None, namespace: str, labels: Mapping[str, str]) -> Term:
    assert term is not None
    chosen = selector_of(term.namespace_selector) if term.namespace_selector is not None else None
    own = chosen is None and not term.namespaces
    names = frozenset({namespace}) if own else frozenset(term.namespaces)
    return Term(
        _with_label_keys(term.label_selector, labels, term.match_label_keys, term.mismatch_label_keys),
        names,
        chosen,
        term.topology_key,
    )


def _spread(constraint: TopologySpreadConstraint, labels: Mapping[str, str]) -> Spread:
    return Spread(
        selector=_with_label_keys(constraint.label_selector, labels, constraint.match_label_keys),
        topology_key=constraint.topology_key,
        max_skew=constraint.max_skew or 1,
        min_domains=constraint.min_domains or 1,
        hard=constraint.when_unsatisfiable != "ScheduleAnyway",
        honor_affinity=constraint.node_affinity_policy != "Ignore",
        honor_taints=constraint.node_taints_policy == "Honor",
    )


def default_spreads(selector: LabelSelector) -> tuple[Spread, ...]:
    """Return the constraints of a pod that names none but belongs to a Service or a workload; none for no selector."""
    if selector.nothing or selector == EVERYTHING:
        return ()
    return (
        Spread(selector, "kubernetes.io/hostname", 3, 1, False),
        Spread(selector, "topology.kubernetes.io/zone", 5, 1, False),
    )
