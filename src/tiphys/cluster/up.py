"""Starting a cluster: choose what is free on this machine, make keys, fork the processes, say when it is ready.

`start_cluster` is idempotent: a cluster that runs is left as it is, one that died is started again with everything it
had. It must be called from a process without threads, because it forks.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from tiphys.base.errors import TiphysError
from tiphys.cluster.config import (
    NAME_LIMIT,
    ClusterConfig,
    Files,
    NoSuchCluster,
    cluster_names,
    read_config,
    write_config,
)
from tiphys.cluster.guardian import Child, bind, fork_guardian, guardian_pid
from tiphys.cluster.kubeconfig import write_kubeconfig
from tiphys.cluster.pki import Pki, ensure_pki

API_PORT = 6443
KUBELET_PORT = 10250
READY_TIMEOUT_S = 60.0


class CannotStart(TiphysError):
    """The cluster cannot be started; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for. Zero and empty values mean: choose."""

    name: str
    kubernetes_version: tuple[int, int] = (1, 37)
    simulated: bool = False
    nodes: int = 1
    api_port: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    """A cluster that has been started, and where to hear how far it is."""

    config: ClusterConfig
    kubeconfig: Path
    progress: int
    """File descriptor of a pipe: one line for each component that is ready; -1 when it ran already."""


def choose_config(wishes: Wishes) -> ClusterConfig:
    """Return the choices of an existing cluster, or new ones that collide with nothing here. Raises CannotStart."""
    try:
        return read_config(wishes.name)
    except NoSuchCluster:
        pass
    if not wishes.name or len(wishes.name) > NAME_LIMIT or not wishes.name.replace("-", "").isalnum():
        raise CannotStart(
            f"{wishes.name!r} cannot be the name of a cluster: use 1 to {NAME_LIMIT} letters, digits and dashes"
        )
    taken = [read_config(name) for name in cluster_names()]
    index = _free_index({_index_of(c) for c in taken})
    api_port = wishes.api_port or _free_port(API_PORT, {c.api_port for c in taken})
    return ClusterConfig(
        name=wishes.name,
        kubernetes_version=wishes.kubernetes_version,
        api_port=api_port,
        kubelet_port=_free_port(KUBELET_PORT, {c.kubelet_port for c in taken} | {api_port}),
        node_name=_node_name(),
        node_address=primary_address(),
        pod_cidr=f"10.{244 - index}.0.0/16",
        service_cidr=f"10.{96 + index}.0.0/16",
        simulated=wishes.simulated,
        nodes=wishes.nodes,
    )


def start_cluster(wishes: Wishes) -> Started:
    """Start the cluster, or find it running. Raises CannotStart with the reason."""
    config = choose_config(wishes)
    files = Files.of(config.name)
    files.make()
    write_config(config)
    pki = ensure_pki(config)
    kubeconfig = write_kubeconfig(config, pki)
    if guardian_pid(files.run):
        return Started(config, kubeconfig, -1)
    sockets = _listening_sockets(config)
    reader, writer = os.pipe()
    keep = [writer, *(s.fileno() for s in sockets)]
    fork_guardian(_children(config, pki, sockets, writer), files.run, files.logs, keep)
    os.close(writer)
    for bound in sockets:
        bound.close()
    return Started(config, kubeconfig, reader)


def wait_until_ready(started: Started, expected: set[str], report: Callable[[str], None]) -> None:
    """Wait until every component in `expected` has said that it is ready, calling `report` for each.

    Raises CannotStart when that takes too long, with the place of the logs.
    """
    if started.progress < 0:
        return
    missing = set(expected)
    for line in _lines(started.progress, READY_TIMEOUT_S):
        report(line)
        missing.discard(line)
        if not missing:
            os.close(started.progress)
            return
    logs = Files.of(started.config.name).logs
    raise CannotStart(f"not ready after {READY_TIMEOUT_S:.0f} s: {', '.join(sorted(missing))}; see the logs in {logs}")


def _lines(descriptor: int, timeout_s: float) -> Iterator[str]:
    deadline_s = time.monotonic() + timeout_s
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not selector.select(left_s):
                return
            data = os.read(descriptor, 4096)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line.decode()


def _children(config: ClusterConfig, pki: Pki, sockets: list[socket.socket], writer: int) -> list[Child]:
    """Return the processes of the cluster, in the order of their start; what they share is imported here."""
    from tiphys.cluster import processes

    notify = processes.notifier(writer)
    run = processes.run_until_stopped
    return [
        Child("apiserver", lambda: run(lambda: processes.run_apiserver(config, pki, sockets, notify))),
        Child("node", lambda: run(lambda: processes.run_node_process(config, pki, notify))),
        Child("controllers", lambda: run(lambda: processes.run_controllers_process(config, pki, notify))),
    ]


def _listening_sockets(config: ClusterConfig) -> list[socket.socket]:
    addresses = ["127.0.0.1"]
    if not config.simulated:
        addresses += sorted({config.gateway, config.node_address} - {"127.0.0.1"})
    sockets: list[socket.socket] = []
    for address in addresses:
        try:
            sockets.append(bind(address, config.api_port))
        except OSError as error:
            for bound in sockets:
                bound.close()
            raise CannotStart(
                f"cannot listen on {address}:{config.api_port} ({error.strerror}); stop what uses that port, or make "
                f"the cluster anew with `tiphys down --name {config.name}` and `tiphys up --port`"
            ) from error
    return sockets


def _index_of(config: ClusterConfig) -> int:
    return 244 - int(config.pod_cidr.split(".")[1])


def _free_index(taken: set[int]) -> int:
    """Return a small number by which the networks of clusters differ; one whose networks the machine does not route."""
    routed = list(_routed_networks())
    for index in range(100):
        networks = (IPv4Network(f"10.{244 - index}.0.0/16"), IPv4Network(f"10.{96 + index}.0.0/16"))
        if index not in taken and not any(n.overlaps(r) for n in networks for r in routed):
            return index
    raise CannotStart("no free network is left in 10.0.0.0/8 for pods and services; `tiphys down` old clusters")


def _routed_networks() -> Iterator[IPv4Network]:
    """Yield what the machine has routes to, but for the default route."""
    try:
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        destination, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        if mask:
            yield IPv4Network((destination, mask.bit_count()), strict=False)


def _free_port(first: int, taken: set[int]) -> int:
    for port in range(first, first + 1000):
        if port in taken:
            continue
        try:
            bind("127.0.0.1", port).close()
            bind("0.0.0.0", port).close()
            return port
        except OSError:
            continue
    raise CannotStart(f"no free TCP port from {first} to {first + 999}")


def _node_name() -> str:
    name = socket.gethostname().lower().strip(".")
    allowed = "".join(c if c.isalnum() or c in "-." else "-" for c in name).strip("-.")
    return allowed[:253] or "node"


def primary_address() -> str:
    """Return the address that this machine sends from to the world, 127.0.0.1 without a default route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: a datagram socket only looks up the route
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
