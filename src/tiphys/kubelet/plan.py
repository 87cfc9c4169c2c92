"""What happens next with the containers of one pod.

Input: the pod, the runtime's sandboxes and containers of it, probe verdicts, the back-off table, the time. Output: one
`Plan`, which worker.py applies. Invariants: nothing starts without a ready sandbox; an init container starts only
after the ones before it finished (sidecars: started); main containers start only after all of those; a container that
is busy (being started or stopped) is left alone. Pure, so planning again after any crash gives the next right step.

Spec: Kubernetes docs, "Pod Lifecycle" (restart policy, back-off of 10 s doubling to 5 min, forgotten after 10 min of
running), "Init Containers", "Sidecar Containers".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tiphys.api.views.pod import Container as ContainerSpec
from tiphys.kubelet.pod import BoundPod, Specced, find_container, full_name, is_sidecar
from tiphys.runtime.interface import Container, ContainerState, Sandbox, SandboxState

FIRST_BACKOFF_S = 10.0
LONGEST_BACKOFF_S = 300.0
FORGET_BACKOFF_AFTER_S = 2 * LONGEST_BACKOFF_S
IMAGE_ANNOTATION = "tiphys.dev/container-image"
"""Holds the image of the spec that the container was made from: another one in the spec means a restart."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a container has to wait before its next start, counted from its last exit."""

    wait_s: float
    since_s: float
    """When the back-off was last raised."""


@dataclass(frozen=True, slots=True)
class PodRuntime:
    """What the runtime has of one pod; newest first."""

    sandboxes: tuple[Sandbox, ...] = ()
    containers: tuple[Container, ...] = ()

    def newest(self, name: str) -> Container | None:
        return next((c for c in self.containers if c.name == name), None)

    def previous(self, name: str) -> Container | None:
        """Return the instance before the newest one."""
        return next((c for c in [c for c in self.containers if c.name == name][1:]), None)

    def ready_sandbox(self) -> Sandbox | None:
        if self.sandboxes and self.sandboxes[0].state is SandboxState.READY:
            return self.sandboxes[0]
        return None

    def running(self) -> tuple[Container, ...]:
        return tuple(c for c in self.containers if c.state is ContainerState.RUNNING)


def arrange(sandboxes: tuple[Sandbox, ...], containers: tuple[Container, ...]) -> PodRuntime:
    """Return the records with the newest first."""
    return PodRuntime(
        tuple(sorted(sandboxes, key=lambda s: (s.attempt, s.created_at_s), reverse=True)),
        tuple(sorted(containers, key=lambda c: (c.attempt, c.created_at_s), reverse=True)),
    )


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the probes say. Containers that are absent have no verdict."""

    ready: Mapping[str, bool] = field(default_factory=dict)
    started: Mapping[str, bool] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    """Container id -> "liveness" or "startup", when that probe gave up on this instance."""


@dataclass(frozen=True, slots=True)
class Kill:
    container: Container
    message: str
    """Text of the Killing event."""
    probe: str = ""
    """"liveness" or "startup" when a probe is the cause: its own grace period counts."""


@dataclass(frozen=True, slots=True)
class Start:
    name: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    reason: str
    create_sandbox: int | None = None
    """Attempt number of a new sandbox."""
    stop_pod: bool = False
    """Nothing runs or will run any more: stop the sandbox."""
    kills: tuple[Kill, ...] = ()
    starts: tuple[Start, ...] = ()
    """In order, one after another."""
    waiting: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Containers in back-off: name -> (reason, message)."""
    wake_at_s: float | None = None
    """When to plan again although nothing happened."""


def next_backoff(entry: Backoff | None, exited_at_s: float, now_s: float) -> Backoff:
    """Return the entry after one more start of a container that exited at `exited_at_s`."""
    if entry is None or exited_at_s - entry.since_s > FORGET_BACKOFF_AFTER_S:
        return Backoff(FIRST_BACKOFF_S, now_s)
    return Backoff(min(entry.wait_s * 2, LONGEST_BACKOFF_S), now_s)


def backoff_until_s(entry: Backoff | None, exited_at_s: float) -> float:
    """Return the time before which a container must not start."""
    if entry is None or exited_at_s - entry.since_s > FORGET_BACKOFF_AFTER_S:
        return 0.0
    return exited_at_s + entry.wait_s


def format_duration(seconds: float) -> str:
    """Return whole seconds as Go prints a duration: 10s, 1m20s, 5m0s."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60}m{whole % 60}s"


def should_restart(pod: BoundPod, container: Specced, status: Container | None) -> bool:
    """Tell whether a container that does not run has to start (again). Ephemeral containers never do."""
    if status is None:
        return True
    if status.state is ContainerState.RUNNING or pod.metadata.deletion_timestamp:
        return False
    if status.state is not ContainerState.EXITED:
        return True
    if any(c.name == container.name for c in pod.spec.ephemeral_containers):
        return False
    if matches_restart_rule(container, status.exit_code):
        return True
    policy = container.restart_policy or pod.spec.restart_policy or "Always"
    if policy == "Always":
        # An init container that is no sidecar runs until it succeeds.
        return is_sidecar(container) or not _is_init(pod, container) or status.exit_code != 0
    return policy == "OnFailure" and status.exit_code != 0


def matches_restart_rule(container: Specced, exit_code: int) -> bool:
    """Tell whether a rule of the container asks for a restart after this exit code; rules come before the policy."""
    for rule in container.restart_policy_rules if isinstance(container, ContainerSpec) else ():
        codes = rule.exit_codes
        if codes is not None and rule.action == "Restart" and (exit_code in codes.values) == (codes.operator == "In"):
            return True
    return False


def _is_init(pod: BoundPod, container: Specced) -> bool:
    return any(c.name == container.name for c in pod.spec.init_containers)


def plan_pod(
    pod: BoundPod,
    runtime: PodRuntime,
    verdicts: Verdicts,
    backoffs: Mapping[str, Backoff],
    now_s: float,
    busy: frozenset[str] = frozenset(),
) -> Plan:
    """Return the next step of a pod that shall run. `busy` names containers with an operation under way."""
    sandbox = runtime.ready_sandbox()
    if sandbox is None:
        return _plan_without_sandbox(pod, runtime)
    builder = _Builder(pod, runtime, verdicts, backoffs, now_s, busy, sandbox.id)
    initialized = builder.plan_init()
    builder.plan_ephemeral()
    if initialized:
        for container in pod.spec.containers:
            builder.plan_main(container)
    return builder.build()


def _plan_without_sandbox(pod: BoundPod, runtime: PodRuntime) -> Plan:
    attempt = runtime.sandboxes[0].attempt + 1 if runtime.sandboxes else 0
    if runtime.containers and not _anything_to_run(pod, runtime):
        return Plan("every container has finished", stop_pod=True)
    why = "the pod has no sandbox" if not attempt else "the pod's sandbox is gone"
    running = [Kill(c, f"Stopping container {c.name}") for c in runtime.running()]
    return Plan(why, create_sandbox=attempt, kills=tuple(running))


def _anything_to_run(pod: BoundPod, runtime: PodRuntime) -> bool:
    names = {c.name for c in runtime.running()}
    if any(c.name in names or should_restart(pod, c, runtime.newest(c.name)) for c in pod.spec.containers):
        return not _init_failed(pod, runtime)
    return False


def _init_failed(pod: BoundPod, runtime: PodRuntime) -> bool:
    """Tell whether an init container failed for good."""
    for container in pod.spec.init_containers:
        status = runtime.newest(container.name)
        if (
            status is not None
            and status.state is ContainerState.EXITED
            and status.exit_code != 0
            and not should_restart(pod, container, status)
        ):
            return True
    return False


class _Builder:
    """Collects the actions of one plan."""

    def __init__(
        self,
        pod: BoundPod,
        runtime: PodRuntime,
        verdicts: Verdicts,
        backoffs: Mapping[str, Backoff],
        now_s: float,
        busy: frozenset[str],
        sandbox_id: str,
    ) -> None:
        self.pod, self.runtime, self.verdicts, self.backoffs = pod, runtime, verdicts, backoffs
        self.now_s, self.busy, self.sandbox_id = now_s, busy, sandbox_id
        self.kills: list[Kill] = []
        self.starts: list[Start] = []
        self.waiting: dict[str, tuple[str, str]] = {}
        self.wake_at_s: float | None = None
        self.kept = 0
        """Containers that run, are busy or wait for their back-off."""

    def status(self, name: str) -> Container | None:
        return self.runtime.newest(name)

    def runs_here(self, status: Container | None) -> bool:
        return status is not None and status.state is ContainerState.RUNNING and status.sandbox_id == self.sandbox_id

    def plan_init(self) -> bool:
        """Plan the init containers; tell whether the main ones may run."""
        made = [self.status(container.name) for container in self.pod.spec.containers]
        if any(status is not None and status.sandbox_id == self.sandbox_id for status in made):
            # Main containers were made in this sandbox: initialization is over, only sidecars need care.
            for container in self.pod.spec.init_containers:
                if is_sidecar(container):
                    self.plan_main(container)
            return True
        return all(self._init_step_done(container) for container in self.pod.spec.init_containers)

    def _init_step_done(self, container: ContainerSpec) -> bool:
        status = self.status(container.name)
        if is_sidecar(container):
            self.plan_main(container)
            started = self.verdicts.started.get(container.name, container.startup_probe is None)
            return self.runs_here(status) and started and container.name not in self.busy
        if container.name in self.busy:
            self.kept += 1
            return False
        if self.runs_here(status):
            self._check_running(container, status)
            return False
        if status is not None and status.sandbox_id == self.sandbox_id and status.state is ContainerState.EXITED:
            if status.exit_code == 0:
                return True
            if should_restart(self.pod, container, status):
                self._start(container, status)
            return False
        self._start(container, status if status and status.state is ContainerState.EXITED else None)
        return False

    def plan_main(self, container: Specced) -> None:
        status = self.status(container.name)
        if container.name in self.busy:
            self.kept += 1
        elif self.runs_here(status):
            self._check_running(container, status)
        elif status is not None and status.state is ContainerState.RUNNING:
            self.kills.append(Kill(status, f"Stopping container {container.name}"))
        elif should_restart(self.pod, container, status):
            self._start(container, status)

    def plan_ephemeral(self) -> None:
        for container in self.pod.spec.ephemeral_containers:
            if container.name in self.busy or self.runs_here(self.status(container.name)):
                self.kept += 1
            elif self.status(container.name) is None:
                self._start(container, None)

    def _check_running(self, container: Specced, status: Container | None) -> None:
        assert status is not None
        policy = container.restart_policy or self.pod.spec.restart_policy or "Always"
        restart = ", will be restarted" if policy != "Never" else ""
        probe = self.verdicts.failed.get(status.id, "")
        made_from = status.annotations.get(IMAGE_ANNOTATION, container.image)
        if made_from != container.image:
            self.kills.append(Kill(status, f"Container {container.name} definition changed, will be restarted"))
        elif probe:
            self.kills.append(Kill(status, f"Container {container.name} failed {probe} probe{restart}", probe))
        self.kept += 1

    def _start(self, container: Specced, status: Container | None) -> None:
        attempt = 0 if status is None else status.attempt + 1
        reason = "it was never started"
        if status is not None and status.state is ContainerState.EXITED:
            entry = self.backoffs.get(container.name)
            until_s = backoff_until_s(entry, status.finished_at_s)
            if entry is not None and self.now_s < until_s:
                self.waiting[container.name] = (
                    "CrashLoopBackOff",
                    f"back-off {format_duration(entry.wait_s)} restarting failed container={container.name} "
                    f"pod={full_name(self.pod)}",
                )
                self.wake_at_s = until_s if self.wake_at_s is None else min(self.wake_at_s, until_s)
                self.kept += 1
                return
            reason = f"it exited with {status.exit_code}"
        self.starts.append(Start(container.name, attempt, reason))

    def build(self) -> Plan:
        main_names = {c.name for c in self.pod.spec.containers}
        sidecars = {c.name for c in self.pod.spec.init_containers if is_sidecar(c)}
        main_alive = any(
            name in main_names
            for name in (*self.waiting, *(s.name for s in self.starts), *self.busy, *self._running_names())
        )
        init_alive = any(name not in main_names and name not in sidecars for name in (*self.waiting, *self.busy))
        init_alive = init_alive or any(s.name not in main_names | sidecars for s in self.starts)
        if not main_alive and not init_alive and not self.busy and self._finished(main_names):
            return Plan("every container has finished", stop_pod=True)
        return Plan(
            self._reason(),
            kills=tuple(self.kills),
            starts=tuple(self.starts),
            waiting=self.waiting,
            wake_at_s=self.wake_at_s,
        )

    def _running_names(self) -> list[str]:
        return [c.name for c in self.runtime.running()]

    def _finished(self, main_names: set[str]) -> bool:
        if _init_failed(self.pod, self.runtime):
            return True
        statuses = [self.status(name) for name in main_names]
        return all(s is not None and s.state is ContainerState.EXITED for s in statuses)

    def _reason(self) -> str:
        if self.kills:
            return self.kills[0].message
        if self.starts:
            return f"container {self.starts[0].name} starts: {self.starts[0].reason}"
        if self.waiting:
            return next(iter(self.waiting.values()))[1]
        return "the pod is as it should be"


def plan_stop(pod: BoundPod, runtime: PodRuntime, busy: frozenset[str] = frozenset()) -> Plan:
    """Return the next step of a pod that shall end: main containers first, then sidecars, the last one first."""
    running = [c for c in runtime.running() if c.name not in busy]
    sidecars = [c.name for c in pod.spec.init_containers if is_sidecar(c)]
    main = [c for c in running if c.name not in sidecars]
    busy_main = busy - set(sidecars)
    if main or busy_main:
        return Plan("the pod ends", kills=tuple(Kill(c, f"Stopping container {c.name}") for c in main))
    for name in reversed(sidecars):
        if name in busy:
            return Plan(f"the pod ends: sidecar {name} stops")
        status = next((c for c in running if c.name == name), None)
        if status is not None:
            return Plan("the pod ends: its sidecars stop", kills=(Kill(status, f"Stopping container {name}"),))
    return Plan("every container has stopped", stop_pod=True)


def can_probe(pod: BoundPod, name: str) -> bool:
    """Tell whether a container of the spec may have probes (ephemeral ones and one-shot init containers may not)."""
    container = find_container(pod, name)
    return isinstance(container, ContainerSpec) and (not _is_init(pod, container) or is_sidecar(container))
