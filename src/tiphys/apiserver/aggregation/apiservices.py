"""The APIServices of the cluster as records: what discovery, forwarding and the checks decide on.

Follows the watch cache: each object is decoded once when it changes. A remote APIService (one with a service) takes its
group version away from this server, whatever this server serves itself.

Invariant: between two awaits the records are those of the watch cache's revision.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tiphys.api.kind import JsonObject
from tiphys.apiserver.cache import CachedEvent, ResourceCache
from tiphys.base.orderedset import OrderedSet

MANAGED = "kube-aggregator.kubernetes.io/automanaged"
"""Label of APIServices that this server made: `onstart` for built-in groups, `true` for custom resources."""


@dataclass(frozen=True, slots=True)
class ServiceReference:
    namespace: str
    name: str
    port: int

    @property
    def server_name(self) -> str:
        """The name that the server's certificate must have."""
        return f"{self.name}.{self.namespace}.svc"


@dataclass(frozen=True, slots=True)
class ApiService:
    """One APIService. `service` None means that this server answers itself."""

    name: str
    uid: str
    group: str
    version: str
    group_priority: int
    version_priority: int
    service: ServiceReference | None
    ca_bundle: bytes
    """PEM of the authorities that the server's certificate is checked with; b"" means the machine's."""
    insecure: bool
    available: bool
    managed: str
    """Value of the label MANAGED, "" without one."""

    @property
    def root(self) -> str:
        """The path of its group version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


def parse_api_service(obj: JsonObject) -> ApiService:
    """Return the record of a stored APIService."""
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    told = spec.get("service")
    service = None
    if told is not None:
        service = ServiceReference(told.get("namespace") or "", told.get("name") or "", int(told.get("port") or 443))
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return ApiService(
        name=metadata["name"],
        uid=metadata.get("uid") or "",
        group=spec.get("group") or "",
        version=spec.get("version") or "",
        group_priority=int(spec.get("groupPriorityMinimum") or 0),
        version_priority=int(spec.get("versionPriority") or 0),
        service=service,
        ca_bundle=_decoded(spec.get("caBundle") or ""),
        insecure=bool(spec.get("insecureSkipTLSVerify")),
        available=any(c.get("type") == "Available" and c.get("status") == "True" for c in conditions),
        managed=(metadata.get("labels") or {}).get(MANAGED) or "",
    )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""


class ApiServices:
    """See the module's docstring. `listeners` are called with the names of APIServices that changed."""

    def __init__(self, objects: ResourceCache) -> None:
        self.by_name: dict[str, ApiService] = {}
        self.remote: dict[tuple[str, str], ApiService] = {}
        """(group, version) -> the APIService that takes it away from this server."""
        self.revision = 0
        """Grows with every change of a remote one."""
        self.listeners: OrderedSet[Callable[[Sequence[str]], None]] = OrderedSet()
        self._objects = objects
        objects.listeners.add(self._on_events)
        objects.on_reset.add(self._on_reset)
        self._on_reset()

    def find(self, path: str) -> ApiService | None:
        """Return the remote APIService below whose group version a path is."""
        parts = path.split("/", 4)
        if len(parts) < 4 or parts[1] != "apis":
            return None
        return self.remote.get((parts[2], parts[3]))

    def _on_events(self, events: Sequence[CachedEvent]) -> None:
        self._take(list(dict.fromkeys(event.object.name for event in events)))

    def _on_reset(self) -> None:
        self._take(list(dict.fromkeys([*self.by_name, *(cached.name for cached in self._objects)])))

    def _take(self, names: Sequence[str]) -> None:
        for name in names:
            old, cached = self.by_name.pop(name, None), self._objects.get("", name)
            new = None if cached is None else parse_api_service(cached.decode())
            if new is not None:
                self.by_name[name] = new
            if old is not None and old.service is not None:
                del self.remote[old.group, old.version]
            if new is not None and new.service is not None:
                self.remote[new.group, new.version] = new
            if any(each is not None and each.service is not None for each in (old, new)):
                self.revision += 1
        for listener in list(self.listeners):
            listener(names)
