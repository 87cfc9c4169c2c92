"""What one cluster on this machine is: its choices, and where its files lie.

`ClusterConfig` is written once by `tiphys up` and read by every process and by `tiphys down`; nothing about a running
cluster is guessed. Several clusters live side by side: names, ports, networks and links differ.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network
from pathlib import Path

from tiphys.base.errors import TiphysError

DEFAULT_NAME = "tiphys"
NAME_LIMIT = 9
"""A cluster's name is part of network interface names, of which the kernel allows 15 characters."""


class NoSuchCluster(TiphysError):
    """No cluster of this name has been made on this machine."""


class DamagedConfig(NoSuchCluster):
    """There is a cluster of this name, but its cluster.json cannot be used."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How the API server behaves; may differ at every start."""

    shutdown_delay_s: float = 0.0
    """How long it goes on serving, unready, once it is asked to stop."""
    request_timeout_s: float = 60.0
    """How long a request may take that is not long-running."""
    fairness: bool = True
    """False: only the two limits below bound what runs at once."""
    max_reads: int = 400
    max_writes: int = 200
    """Together they are the seats that fairness shares out."""
    audit_policy_file: str = ""
    """Empty: nothing is audited."""
    audit_log_path: str = ""
    """Empty: a file beside the other logs; "-" is the API server's own log."""
    audit_log_max_mb: int = 100
    audit_log_backups: int = 10
    audit_log_days: int = 0
    """How long old files are kept; 0 is for ever."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """See the module's docstring. Ports are chosen before the first start and stay."""

    name: str
    kubernetes_version: tuple[int, int]
    api_port: int
    kubelet_port: int
    node_name: str
    node_address: str
    """Address at which this machine is reached: the node's InternalIP."""
    pod_cidr: str
    service_cidr: str
    simulated: bool
    """True: nodes are simulated; no container runs and nothing of the machine's network is touched."""
    nodes: int = 1
    """How many nodes there are; more than one only when simulated."""
    cluster_domain: str = "cluster.local"
    server: ServerOptions = ServerOptions()

    @property
    def bridge(self) -> str:
        return f"ti-{self.name}"

    @property
    def gateway(self) -> str:
        """The bridge's own address, the first of the pod network: where pods reach this machine."""
        return str(IPv4Network(self.pod_cidr)[1])

    @property
    def api_service_address(self) -> str:
        return str(IPv4Network(self.service_cidr)[1])

    @property
    def dns_address(self) -> str:
        return str(IPv4Network(self.service_cidr)[10])

    @property
    def git_version(self) -> str:
        """The version as nodes and clients write it, e.g. v1.37.0."""
        major, minor = self.kubernetes_version
        return f"v{major}.{minor}.0"

    @property
    def server_url(self) -> str:
        return f"https://127.0.0.1:{self.api_port}"


def home() -> Path:
    """Return the directory of all clusters: TIPHYS_HOME, or the usual place for root and for others."""
    given = os.environ.get("TIPHYS_HOME")
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/tiphys")
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "tiphys"


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one cluster."""

    root: Path

    @classmethod
    def of(cls, name: str) -> Files:
        return cls(home() / name)

    @property
    def config(self) -> Path:
        return self.root / "cluster.json"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def store(self) -> Path:
        return self.root / "store.db"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "admin.kubeconfig"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def node(self) -> Path:
        """Volumes and other files of pods."""
        return self.root / "node"

    @property
    def runtime(self) -> Path:
        """Images and containers."""
        return self.root / "runtime"

    @property
    def run(self) -> Path:
        """Sockets and pid files; short, because socket paths are."""
        if os.geteuid() == 0 and not os.environ.get("TIPHYS_HOME"):
            return Path("/run/tiphys") / self.root.name
        return self.root / "run"

    @property
    def pod_logs(self) -> Path:
        return self.root / "pods"

    def make(self) -> None:
        """Make the directories, for their owner only. Idempotent."""
        for path in (self.root, self.pki, self.logs, self.node, self.runtime, self.run, self.pod_logs):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # what runs in pods reads their volumes through these, so others may pass, not list
        for path in (self.root, self.node, self.runtime):
            path.chmod(0o711)


def write_config(config: ClusterConfig) -> None:
    """Write the cluster's choices, mode 0600, in one step."""
    path = Files.of(config.name).config
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        json.dump(asdict(config), file, indent=1)
    temporary.replace(path)


def read_config(name: str) -> ClusterConfig:
    """Return the choices of a cluster of this machine. Raises NoSuchCluster, or DamagedConfig which is one."""
    path = Files.of(name).config
    try:
        data = json.loads(path.read_bytes())
        major, minor = data["kubernetes_version"]
        server = ServerOptions(**data.get("server", {}))
        return ClusterConfig(**{**data, "kubernetes_version": (int(major), int(minor)), "server": server})
    except (FileNotFoundError, NotADirectoryError):
        hint = "tiphys up" if name == DEFAULT_NAME else f"tiphys up --name {name}"
        others = [n for n in cluster_names() if n != name]
        known = f" (there are: {', '.join(others)})" if others else ""
        raise NoSuchCluster(f"there is no cluster {name!r} here{known}; `{hint}` makes one") from None
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedConfig(
            f"{path} cannot be read; it is damaged or of another version of tiphys ({error}). "
            f"`tiphys down --name {name}` clears what is left"
        ) from None


def cluster_names() -> list[str]:
    """Return the names of all clusters of this machine, sorted."""
    try:
        return sorted(p.name for p in home().iterdir() if (p / "cluster.json").exists())
    except FileNotFoundError:
        return []


def lock_machine() -> int:
    """Wait for the lock under which clusters of this machine are started and removed; closing the descriptor lets go.

    It is one lock for all of root's clusters, wherever their files are, because ports and networks are the machine's.
    """
    run = Path("/run")
    place = run if os.geteuid() == 0 and run.is_dir() else Path(tempfile.gettempdir())
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor
