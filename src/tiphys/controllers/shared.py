"""What all controllers share: their dependencies, one mirror a resource, one event recorder a component."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from tiphys.api.views.config import ConfigMap, Namespace, ServiceAccount
from tiphys.api.views.discovery import EndpointSlice
from tiphys.api.views.lease import Lease
from tiphys.api.views.meta import PartialObject, View
from tiphys.api.views.node import Node
from tiphys.api.views.service import Endpoints, Service
from tiphys.base.clock import Clock, Randomness
from tiphys.client import resources
from tiphys.client.events import EventRecorder
from tiphys.client.interface import Client, Resource
from tiphys.client.queue import WorkQueue
from tiphys.client.reflector import Reflector
from tiphys.controllers import views
from tiphys.controllers.mirror import Mirror

V = TypeVar("V", bound=View)


@dataclass(frozen=True, slots=True)
class Deps:
    """What the controllers need from outside."""

    client: Client
    clock: Clock
    randomness: Randomness
    host: str = ""
    """Name of this machine, for the source of events."""
    cluster_ca: str = ""
    """PEM of the cluster's CA, published in every namespace; "" publishes nothing."""
    cluster_ca_key_pem: bytes = b""
    """Key of that CA, to sign approved certificate requests; empty signs none."""
    signing_key_pem: bytes = b""
    """Signs the tokens of token Secrets; empty fills none."""
    pod_cidr: str = "10.244.0.0/16"
    """The range that nodes get their pod ranges from; "" allocates none."""
    node_prefix: int = 24
    """Prefix length of a node's pod range."""
    terminated_pod_threshold: int = 12500
    """How many finished pods are kept in all; 0 keeps any number."""
    kubernetes_version: tuple[int, int] = (1, 37)
    """What the API server serves: controllers of kinds that it does not serve are left out."""
    node_grace_s: float = 40.0
    """How long a node may be silent before it counts as unreachable."""


@dataclass(slots=True)
class Controller:
    """One control loop: keys from `queue` go to `reconcile`, once all of `mirrors` have their first list."""

    name: str
    queue: WorkQueue
    reconcile: Callable[[str], Awaitable[None]]
    mirrors: tuple[Mirror[Any], ...]
    workers: int = 5
    tasks: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = ()
    """More coroutines of this controller, started when its mirrors are there."""


_VIEWS: dict[Resource, type[View]] = {
    resources.CONFIGMAPS: ConfigMap,
    resources.CONTROLLERREVISIONS: views.ControllerRevision,
    resources.CRONJOBS: views.CronJob,
    resources.DAEMONSETS: views.DaemonSet,
    resources.DEPLOYMENTS: views.Deployment,
    resources.ENDPOINTS: Endpoints,
    resources.ENDPOINTSLICES: EndpointSlice,
    resources.JOBS: views.Job,
    resources.LEASES: Lease,
    resources.NAMESPACES: Namespace,
    resources.NODES: Node,
    resources.PODDISRUPTIONBUDGETS: views.PodDisruptionBudget,
    resources.PODS: views.Pod,
    resources.REPLICASETS: views.ReplicaSet,
    resources.REPLICATIONCONTROLLERS: views.ReplicationController,
    resources.SECRETS: PartialObject,
    resources.SERVICEACCOUNTS: ServiceAccount,
    resources.SERVICES: Service,
    resources.STATEFULSETS: views.StatefulSet,
}


def _pod_node(pod: views.Pod) -> Iterable[str]:
    return (pod.spec.node_name,) if pod.spec.node_name else ()


def _slice_service(slice_: EndpointSlice) -> Iterable[str]:
    name = slice_.metadata.labels.get("kubernetes.io/service-name")
    return (f"{slice_.metadata.namespace}/{name}",) if name else ()


_INDEXERS: dict[Resource, dict[str, Callable[[Any], Iterable[str]]]] = {
    resources.PODS: {"node": _pod_node},
    resources.ENDPOINTSLICES: {"service": _slice_service},
}


class Copies:
    """Copies of collections that come and go with what the server serves: one watches them all, others read along."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Reflector[Any]] = {}
        self._readers: list[Callable[[Resource, Reflector[Any]], None]] = []

    def add(self, resource: Resource, reflector: Reflector[Any]) -> None:
        self._found[(resource.group, resource.plural)] = reflector
        for reader in self._readers:
            reader(resource, reflector)

    def remove(self, resource: Resource) -> None:
        self._found.pop((resource.group, resource.plural), None)

    def of(self, group: str, plural: str) -> Reflector[Any] | None:
        """Return the copy of a collection, if there is one that has its first list."""
        found = self._found.get((group, plural))
        return found if found is not None and found.is_synced else None

    def on_added(self, reader: Callable[[Resource, Reflector[Any]], None]) -> None:
        """Call `reader` for each copy when it is added."""
        assert not self._found, "readers come before the copies"
        self._readers.append(reader)


@dataclass(slots=True)
class Shared:
    """Made once for all controllers of a process; mirrors appear as they are asked for."""

    deps: Deps
    mirrors: dict[Resource, Mirror[Any]] = field(default_factory=dict)
    recorders: dict[str, EventRecorder] = field(default_factory=dict)
    copies: Copies = field(default_factory=Copies)

    def mirror(self, resource: Resource, view: type[V]) -> Mirror[V]:
        """Return the one mirror of a resource; `view` must be the view in the table above."""
        assert _VIEWS.get(resource, view) is view, f"{resource.plural} are mirrored as {_VIEWS[resource].__name__}"
        found = self.mirrors.get(resource)
        if found is None:
            found = Mirror(self.deps.client, resource, view, self.deps.randomness, _INDEXERS.get(resource))
            self.mirrors[resource] = found
        return cast("Mirror[V]", found)

    def recorder(self, component: str) -> EventRecorder:
        """Return the recorder of a component, e.g. `deployment-controller`."""
        found = self.recorders.get(component)
        if found is None:
            deps = self.deps
            found = EventRecorder(deps.client, component, deps.host, deps.clock, deps.randomness)
            self.recorders[component] = found
        return found

    def queue(self) -> WorkQueue:
        return WorkQueue(self.deps.clock, self.deps.randomness)

    @property
    def pods(self) -> Mirror[views.Pod]:
        return self.mirror(resources.PODS, views.Pod)

    @property
    def nodes(self) -> Mirror[Node]:
        return self.mirror(resources.NODES, Node)
