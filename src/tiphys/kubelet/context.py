"""What every pod worker of one node shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tiphys.api.quantity import Written
from tiphys.api.views.service import Service
from tiphys.base.clock import Clock, Randomness
from tiphys.client.events import EventRecorder
from tiphys.client.interface import Client
from tiphys.client.reflector import Reflector
from tiphys.client.slots import Slots
from tiphys.kubelet.downward import Surroundings
from tiphys.kubelet.images import Images
from tiphys.kubelet.objects import Objects
from tiphys.kubelet.podfiles import PodFiles
from tiphys.kubelet.probehandler import NetworkProbes
from tiphys.runtime.interface import Runtime

STATUS_WRITES = 4
EVENT_WRITES = 2


@dataclass(frozen=True, slots=True)
class Writes:
    """How many writes of a node may be on their way, by sort. The nodes of one process share them."""

    status: Slots = field(default_factory=lambda: Slots(STATUS_WRITES))
    events: Slots = field(default_factory=lambda: Slots(EVENT_WRITES))


@dataclass(frozen=True, slots=True)
class NodeContext:
    """Made once by run.py."""

    client: Client
    runtime: Runtime
    recorder: EventRecorder
    clock: Clock
    randomness: Randomness
    files: PodFiles
    images: Images
    objects: Objects
    services: Reflector[Service]
    network_probes: NetworkProbes
    node_name: str
    host_addresses: tuple[str, ...]
    allocatable: Callable[[], Mapping[str, Written]]
    machine_memory_bytes: int
    writes: Writes
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    cgroup_root: str = "/"

    def around(self, pod_addresses: tuple[str, ...]) -> Surroundings:
        """Return what a pod's downward API sees beyond its object."""
        return Surroundings(self.node_name, pod_addresses, self.host_addresses, self.allocatable())
