"""The container runtime as the kubelet sees it: an async mirror of CRI v1's RuntimeService and ImageService.

Implementations: embedded.py (an OCI runtime binary and our image store), simulated.py (timings from a profile); a gRPC
one for containerd and CRI-O follows. All pass tests/contract/test_runtime.py. Names and meanings are CRI's; records
hold only the fields that the kubelet uses. Times are Unix seconds as float, 0 when unset.

Spec: the CRI v1 protocol definition; log format: "<RFC3339Nano> <stdout|stderr> <F|P> <text>" a line.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from tiphys.base.errors import TiphysError
from tiphys.runtime.podnetwork import PortMapping

NamespaceMode = Literal["POD", "CONTAINER", "NODE"]
ContainerEventType = Literal["CREATED", "STARTED", "STOPPED", "DELETED"]


class RuntimeFailed(TiphysError):
    """A call failed. `reason` becomes the waiting reason in the container's status: ErrImagePull, ImagePullBackOff,
    InvalidImageName, ErrImageNeverPull, CreateContainerError, RunContainerError, ...; the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SandboxState(enum.Enum):
    READY = "SANDBOX_READY"
    NOTREADY = "SANDBOX_NOTREADY"


class ContainerState(enum.Enum):
    CREATED = "CONTAINER_CREATED"
    RUNNING = "CONTAINER_RUNNING"
    EXITED = "CONTAINER_EXITED"
    UNKNOWN = "CONTAINER_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Resources:
    """Linux resources; 0 or None means no limit of that kind."""

    cpu_shares: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 100_000
    memory_limit_bytes: int = 0
    oom_score_adj: int = 0
    pids_limit: int = 0


@dataclass(frozen=True, slots=True)
class SecurityContext:
    """Container security settings after pod and container levels are merged."""

    privileged: bool = False
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_username: str = ""
    supplemental_groups: tuple[int, ...] = ()
    has_strict_groups: bool = False
    """Groups that the image's /etc/group gives the user do not count."""
    readonly_rootfs: bool = False
    allow_privilege_escalation: bool = True
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    masked_paths: tuple[str, ...] | None = None
    """None: the runtime's defaults; () for procMount Unmasked."""
    seccomp_profile: str = ""
    """"" or "Unconfined", "RuntimeDefault", "Localhost/<path>"."""
    host_network: bool = False
    pid_mode: NamespaceMode = "CONTAINER"
    target_id: str = ""
    """Container whose processes are seen: its PID namespace is joined, whatever `pid_mode` says."""
    host_ipc: bool = False


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """What a pod sandbox is made from."""

    name: str
    namespace: str
    uid: str
    attempt: int = 0
    hostname: str = ""
    log_directory: str = ""
    dns_servers: tuple[str, ...] = ()
    dns_searches: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    port_mappings: tuple[PortMapping, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    """Path of the pod's cgroup below each controller's root, e.g. /tiphys-c1/kubepods/burstable/pod<uid>."""
    resources: Resources = Resources()
    """Limits of the whole pod, set on cgroup_parent."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_process_namespace: bool = False


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox as it stands. `addresses` is empty with the host's network."""

    id: str
    name: str
    namespace: str
    uid: str
    attempt: int
    state: SandboxState
    created_at_s: float
    addresses: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount. `propagation`: None, HostToContainer or Bidirectional."""

    container_path: str
    host_path: str
    readonly: bool = False
    propagation: str = "None"
    recursive_readonly: str = ""
    """Enabled or IfPossible: mounts below are read-only too."""
    image: str = ""
    """Id or reference of a present image whose files are mounted (read-only) instead of `host_path`."""
    image_sub_path: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    container_path: str
    host_path: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """What a container is made from. `image` is an image id or reference that is present."""

    name: str
    image: str
    attempt: int = 0
    command: tuple[str, ...] = ()
    """Overrides the image's ENTRYPOINT."""
    args: tuple[str, ...] = ()
    """Overrides the image's CMD."""
    working_dir: str = ""
    envs: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""
    """Relative to the sandbox's log_directory, e.g. web/0.log."""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    stop_signal: str = ""
    """Overrides the image's, e.g. SIGUSR1."""
    resources: Resources = Resources()
    security: SecurityContext = SecurityContext()


@dataclass(frozen=True, slots=True)
class Container:
    """A container as it stands."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    state: ContainerState
    image: str
    """The image's name as status tells it: docker.io/library/busybox:latest."""
    image_id: str
    """The image's id, e.g. sha256:..."""
    created_at_s: float = 0.0
    started_at_s: float = 0.0
    finished_at_s: float = 0.0
    exit_code: int = 0
    reason: str = ""
    """Completed, Error, OOMKilled, StartError or ContainerStatusUnknown, once exited."""
    message: str = ""
    log_path: str = ""
    """Absolute path of the log file."""
    pid: int = 0
    """Of the first process while running, else 0."""
    image_ref: str = ""
    """docker.io/library/busybox@sha256:..., the id of an image without known digest: imageID in the status."""
    uid: int | None = None
    """Who the first process is, with `gid` and `groups`; None: unknown."""
    gid: int = 0
    groups: tuple[int, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """Something happened to a container or sandbox: the kubelet re-reads that sandbox."""

    sandbox_id: str
    container_id: str
    type: ContainerEventType


@dataclass(frozen=True, slots=True)
class Image:
    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size_bytes: int
    user: str = ""
    """USER of the image's config: "", "name", "uid" or either with ":group"."""


@dataclass(frozen=True, slots=True)
class ImageAuth:
    username: str = ""
    password: str = ""


@dataclass(frozen=True, slots=True)
class Stats:
    """Usage of one container (or, summed, of a pod)."""

    cpu_usage_ns: int = 0
    memory_working_set_bytes: int = 0
    memory_usage_bytes: int = 0
    pids: int = 0
    writable_layer_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ExecResult:
    exit_code: int
    stdout: bytes
    stderr: bytes


class ProcessStream(Protocol):
    """A process's streams for exec and attach. The owner closes it; leaving an exec open leaves its process running
    until its input ends or `close` kills it."""

    async def write_stdin(self, data: bytes) -> None:
        """Send input. Raises BrokenPipeError when the process does not read any more."""
        ...

    async def close_stdin(self) -> None: ...

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (1, stdout bytes) and (2, stderr bytes) until both ended; with a tty all of it is 1."""
        ...

    async def resize(self, width: int, height: int) -> None: ...

    async def wait(self) -> int:
        """Return the exit code (128 + signal when killed); for attach, once the container exited."""
        ...

    async def close(self) -> None:
        """Kill an exec's process if it still runs; leave an attached container running. Idempotent."""
        ...


class Runtime(Protocol):
    """Every call is idempotent where CRI says so: stop and remove of what is gone succeed. NotFound elsewhere is
    RuntimeFailed("NotFound", ...)."""

    async def start(self) -> None:
        """Open state, adopt what runs, remove what a crash left half-made."""
        ...

    async def stop(self) -> None:
        """Release this process's resources; containers go on."""
        ...

    async def version(self) -> tuple[str, str]:
        """Return (name, version), for node status as `name://version`."""
        ...

    # Sandboxes
    async def run_pod_sandbox(self, config: SandboxConfig) -> str: ...

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Kill what runs in it, take the network away. State becomes NOTREADY."""
        ...

    async def remove_pod_sandbox(self, sandbox_id: str) -> None: ...

    async def update_pod_sandbox_resources(self, sandbox_id: str, resources: Resources) -> None:
        """Change the limits of the whole pod; those that are 0 stay as they are."""
        ...

    async def list_pod_sandboxes(self) -> Sequence[Sandbox]: ...

    async def pod_sandbox_status(self, sandbox_id: str) -> Sandbox: ...

    # Containers
    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str: ...

    async def start_container(self, container_id: str) -> None: ...

    async def stop_container(self, container_id: str, timeout_s: float) -> None:
        """Send the stop signal, wait, then kill. Returns when the process is gone."""
        ...

    async def remove_container(self, container_id: str) -> None: ...

    async def list_containers(self, sandbox_id: str = "") -> Sequence[Container]: ...

    async def container_status(self, container_id: str) -> Container: ...

    async def update_container_resources(self, container_id: str, resources: Resources) -> None: ...

    async def reopen_container_log(self, container_id: str) -> None: ...

    def events(self) -> AsyncIterator[ContainerEvent]:
        """Yield events from now on. Bounded: a slow reader gets all sandboxes named once instead."""
        ...

    # Streams
    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        """Raises TimeoutError after killing the process."""
        ...

    async def exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> ProcessStream: ...

    async def attach(self, container_id: str, *, stdin: bool) -> ProcessStream: ...

    async def port_forward(self, sandbox_id: str, port: int) -> tuple[ByteReader, ByteWriter]:
        """Connect to 127.0.0.1:port inside the sandbox's network. Raises ConnectionError."""
        ...

    # Images
    async def list_images(self) -> Sequence[Image]: ...

    async def image_status(self, reference: str) -> Image | None: ...

    async def pull_image(self, reference: str, auth: ImageAuth | None = None) -> str:
        """Return the image's id. Raises RuntimeFailed("ErrImagePull" or "InvalidImageName", ...)."""
        ...

    async def remove_image(self, reference: str) -> None: ...

    # Stats
    async def container_stats(self, container_id: str) -> Stats: ...


class ByteReader(Protocol):
    """The reading half of asyncio.StreamReader that port-forward needs."""

    async def read(self, n: int = -1) -> bytes: ...


class ByteWriter(Protocol):
    """The writing half of asyncio.StreamWriter that port-forward needs."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def write_eof(self) -> None: ...

    def close(self) -> None: ...
