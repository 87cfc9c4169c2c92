"""Starting a cluster: choose what is free on this machine, make keys, fork the processes, say when it is ready.

`start_cluster` is idempotent: a cluster that runs is left as it is, one that died is started again with everything it
had. It must be called from a process without threads, because it forks. Two that start at once wait for each other, so
that they choose different ports and networks.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from tiphys.base.errors import TiphysError
from tiphys.cluster.config import (
    NAME_LIMIT,
    ClusterConfig,
    DamagedConfig,
    Files,
    NoSuchCluster,
    ServerOptions,
    cluster_names,
    lock_machine,
    read_config,
    write_config,
)
from tiphys.cluster.guardian import DIED, Child, bind, fork_guardian
from tiphys.cluster.pidfiles import guardian_pid, stop_orphans
from tiphys.cluster.pki import Pki, ensure_pki, is_complete

API_PORT = 6443
KUBELET_PORT = 10250
READY_TIMEOUT_S = 60.0
NODE_TIMEOUT_S = 0.1
"""More for each node."""
DEATHS_LIMIT = 3
"""How often one process may die before `tiphys up` stops waiting and says why."""
FREE_BYTES = 16 << 20
"""Below this the store may not be able to write for long."""
SMALL_NODES = 256
"""How many nodes a network of 16 bits has room for, with 256 addresses each."""
LARGE_POD_CIDR = "10.128.0.0/9"
"""Pod addresses where more nodes are simulated; nothing routes them, so they may be those of another cluster."""
SOCKET_PATH_LIMIT = 107
"""Bytes of the longest path of a Unix socket (unix(7))."""
COMPONENTS = ("apiserver", "node", "controllers")
VERSIONS = ((1, 25), (1, 37))
"""Oldest and newest Kubernetes API that can be served."""


class CannotStart(TiphysError):
    """The cluster cannot be started; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for. None and 0 mean: as it was, or choose."""

    name: str
    kubernetes_version: tuple[int, int] | None = None
    simulated: bool | None = None
    nodes: int = 0
    api_port: int = 0
    server: ServerOptions | None = None
    """How the API server is to behave from this start on."""


@dataclass(frozen=True, slots=True)
class Started:
    """A cluster that has been started, and where to hear how far it is."""

    config: ClusterConfig
    progress: int
    """File descriptor of a pipe: one line for each component that is ready; -1 when it ran already."""
    lock: int = -1
    """Descriptor of the machine's lock, held until the node has its ports and networks; -1 when it is not held."""


def existing_config(wishes: Wishes) -> ClusterConfig | None:
    """Return the choices of the cluster if there is one. Raises CannotStart when it was made otherwise than wished."""
    check_name(wishes.name)
    try:
        config = read_config(wishes.name)
    except DamagedConfig as error:
        raise CannotStart(str(error)) from error
    except NoSuchCluster:
        return None
    version = ".".join(map(str, config.kubernetes_version))
    differences = [
        f"{what} {has}, not {wanted}"
        for what, wanted, has in (
            (
                "Kubernetes version",
                wishes.kubernetes_version and ".".join(map(str, wishes.kubernetes_version)),
                version,
            ),
            ("number of nodes", wishes.nodes, config.nodes),
            ("port", wishes.api_port, config.api_port),
            ("simulated nodes:", _yes(wishes.simulated), _yes(config.simulated)),
        )
        if wanted and wanted != has
    ]
    if differences:
        raise CannotStart(
            f"cluster {config.name} exists with {'; '.join(differences)}. Start it as it is without these options, "
            f"remove it first (tiphys down --name {config.name}), or take another --name"
        )
    return config


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def check_name(name: str) -> None:
    """Raise CannotStart when a name cannot be part of a network interface's and a file's."""
    text = name.replace("-", "")
    if len(name) > NAME_LIMIT or not text.isalnum() or not text.isascii() or name != name.lower() or name[0] == "-":
        raise CannotStart(
            f"{name!r} cannot be the name of a cluster: use 1 to {NAME_LIMIT} small letters, digits and dashes"
        )


def choose_config(wishes: Wishes) -> ClusterConfig:
    """Return the choices of an existing cluster, or new ones that collide with nothing here. Raises CannotStart."""
    existing = existing_config(wishes)
    if existing:
        return existing
    version = wishes.kubernetes_version or VERSIONS[1]
    if not VERSIONS[0] <= version <= VERSIONS[1]:
        oldest, newest = (".".join(map(str, v)) for v in VERSIONS)
        raise CannotStart(f"Kubernetes {version[0]}.{version[1]} cannot be served: choose {oldest} to {newest}")
    if not wishes.simulated and Path(f"/sys/class/net/ti-{wishes.name}").exists():
        raise CannotStart(
            f"this machine has a network ti-{wishes.name} of another cluster of that name, or of one that was not "
            f"removed: take another --name, or clear it with `tiphys down --name {wishes.name}`"
        )
    taken = _other_configs()
    index = _free_index({_index_of(c) for c in taken})
    api_port = wishes.api_port or _free_port(API_PORT, {c.api_port for c in taken})
    return ClusterConfig(
        name=wishes.name,
        kubernetes_version=version,
        api_port=api_port,
        kubelet_port=_free_port(KUBELET_PORT, {c.kubelet_port for c in taken} | {api_port}),
        node_name=_node_name(),
        node_address=primary_address(),
        pod_cidr=f"10.{244 - index}.0.0/16" if wishes.nodes <= SMALL_NODES else LARGE_POD_CIDR,
        service_cidr=f"10.{96 + index}.0.0/16",
        simulated=bool(wishes.simulated),
        nodes=wishes.nodes or 1,
    )


def _other_configs() -> list[ClusterConfig]:
    configs = []
    for name in cluster_names():
        try:
            configs.append(read_config(name))
        except NoSuchCluster:
            pass  # damaged or just removed: its ports and networks are found taken if they are
    return configs


def start_cluster(wishes: Wishes) -> Started:
    """Start the cluster, or find it running. Raises CannotStart with the reason, OSError for files.

    Garbage collection is off from here on: this process ends soon, and its children turn it on again.
    """
    gc.disable()
    lock = lock_machine()
    try:
        started = _start(wishes, lock)
    except BaseException:
        os.close(lock)
        raise
    if started.lock < 0:
        os.close(lock)
    return started


def _start(wishes: Wishes, lock: int) -> Started:
    files = Files.of(wishes.name)
    config = choose_config(wishes)
    if len(str(files.run / "runtime" / "supervisor.sock")) > SOCKET_PATH_LIMIT:
        raise CannotStart(f"{files.run} is too long a path for sockets: set TIPHYS_HOME to a shorter one")
    if guardian_pid(files.run):
        return Started(config, -1)
    files.make()
    shortage = describe_shortage(files.root)
    if shortage:
        raise CannotStart(f"{shortage}; free some space and run the command again")
    stop_orphans(files.run)
    sockets = _listening_sockets(config)
    config = _with_kubelet_port(config)
    if wishes.server is not None:
        config = dataclasses.replace(config, server=wishes.server)
    write_config(config)
    finish_pki = _begin_pki(config)
    reader, writer = os.pipe()
    try:
        keep = [s.fileno() for s in sockets]
        children = _children(config, sockets, writer)
        finish_pki()
        fork_guardian(children, files.run, files.logs, keep, writer)
    finally:
        os.close(writer)
        for bound in sockets:
            bound.close()
    return Started(config, reader, -1 if config.simulated else lock)


def wait_until_ready(started: Started, report: Callable[[str], None], waiting: Callable[[set[str]], None]) -> None:
    """Wait until every component has said that it is ready, calling `report` for each.

    `waiting` is called about ten times a second with what is missing. Raises CannotStart when a process keeps dying, or
    when it takes too long, with the last words of its log. The processes go on trying meanwhile.
    """
    if started.progress < 0:
        return
    with ExitStack() as cleanup:
        cleanup.callback(os.close, started.progress)
        lock = cleanup.enter_context(ExitStack())
        if started.lock >= 0:
            lock.callback(os.close, started.lock)
        missing = set(COMPONENTS)
        for name in _ready(started, waiting, missing):
            report(name)
            if name == "node":
                lock.close()


def _ready(started: Started, waiting: Callable[[set[str]], None], missing: set[str]) -> Iterator[str]:
    """Yield each component as it becomes ready, until none is missing. Raises CannotStart."""
    logs = Files.of(started.config.name).logs
    deaths = dict.fromkeys(COMPONENTS, 0)
    timeout_s = READY_TIMEOUT_S + started.config.nodes * NODE_TIMEOUT_S
    for line in _lines(started.progress, timeout_s):
        if not line:
            waiting(missing)
        elif line.startswith(DIED):
            name = line.removeprefix(DIED)
            deaths[name] += 1
            if deaths[name] >= DEATHS_LIMIT:
                raise CannotStart(f"{name} cannot run: {last_words(logs / f'{name}.log')}")
        elif line in missing:
            missing.discard(line)
            yield line
            if not missing:
                return
    words = "; ".join(f"{name}: {last_words(logs / f'{name}.log')}" for name in sorted(missing))
    raise CannotStart(f"not ready after {timeout_s:.0f} s ({words}). It goes on trying; `tiphys down` stops it")


def last_words(log: Path) -> str:
    """Return the last line of a log, with its place."""
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        lines = []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return f"{last} (see {log})"


def _lines(descriptor: int, timeout_s: float) -> Iterator[str]:
    """Yield the lines of a pipe until its end or the timeout, and "" when nothing came for a tenth of a second."""
    deadline_s = time.monotonic() + timeout_s
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while time.monotonic() < deadline_s:
            if not selector.select(0.1):
                yield ""
                continue
            data = os.read(descriptor, 4096)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line.decode()


def describe_shortage(directory: Path) -> str:
    """Return that the disk of a directory is full, in a sentence; "" when it is not."""
    usage = os.statvfs(directory)
    free_bytes = usage.f_bavail * usage.f_frsize
    if free_bytes >= FREE_BYTES:
        return ""
    return f"only {free_bytes >> 20} MiB are free on the disk of {directory}, {FREE_BYTES >> 20} are needed"


def _with_kubelet_port(config: ClusterConfig) -> ClusterConfig:
    """Take another port for the kubelet when a program got it meanwhile: the node's object tells where it is."""
    if config.simulated or is_free(config.kubelet_port):
        return config
    return dataclasses.replace(config, kubelet_port=_free_port(KUBELET_PORT, {config.api_port}))


def _begin_pki(config: ClusterConfig) -> Callable[[], None]:
    """Make what is missing of the keys in a process of its own, while this one imports what the children share.

    Returns what waits for its end. So a first start takes 50 ms less, and no process of the cluster keeps the code that
    makes keys in memory.
    """
    if is_complete(config):
        return lambda: None
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ensure_pki(config)
            status = 0
        except Exception as error:  # noqa: BLE001  top of a process
            os.write(writer, str(error).encode())
        finally:
            os._exit(status)
    os.close(writer)

    def finish() -> None:
        with open(reader, "rb") as pipe:
            said = pipe.read().decode(errors="replace")
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise CannotStart(f"the keys of cluster {config.name} could not be made: {said or 'it was killed'}")

    return finish


def _children(config: ClusterConfig, sockets: list[socket.socket], writer: int) -> list[Child]:
    """Return the processes of the cluster, in the order of their start; what they share is imported here."""
    from tiphys.cluster import processes

    pki = Pki(Files.of(config.name).pki)
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
                f"cannot listen on {address}:{config.api_port} ({error.strerror}). Stop what uses that port, or make "
                f"the cluster anew on another: tiphys down --name {config.name}; tiphys up --name {config.name} --port N"
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
        if port not in taken and is_free(port):
            return port
    raise CannotStart(f"no free TCP port from {first} to {first + 999}")


def is_free(port: int) -> bool:
    """Return whether nothing listens on a port, on any address."""
    try:
        bind("127.0.0.1", port).close()
        bind("0.0.0.0", port).close()
    except OSError:
        return False
    return True


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
